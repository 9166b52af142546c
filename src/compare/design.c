/* SPDX-License-Identifier: MIT */
/* Random choices come from Philox with the comparison's seed as key, so that a plan can be made
 * again from what is stored. No state. */
#include "compare/design.h"

#include <math.h>

#include "base/philox.h"

enum { STREAM_ORDER, STREAM_SIDES, STREAM_REFERENCE };
static const double TARGET_LUFS = -16, PEAK_DBTP = -1;

/* An integer in 0 ... bound - 1: the high half of a product with 64 random bits; with bounds far
 * under 2^32 its bias cannot be seen. */
static size_t draw(uint64_t seed, uint32_t stream, uint64_t session, size_t i, size_t bound)
{
    uint32_t out[4];
    const uint32_t counter[4] = {(uint32_t)i, stream, (uint32_t)session, (uint32_t)(session >> 32)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    au_philox4x32(out, counter, key);
    uint64_t bits = (uint64_t)out[0] << 32 | out[1];
    return (size_t)((unsigned __int128)bits * bound >> 64);
}

void au_trial_plan_make(uint64_t seed, uint64_t session, au_trial_plan *trials, size_t n_pairs)
{
    bool exchange = session % 2;
    /* Alternating sides, dealt to the pairs at random: the same deal for both sessions of a couple.
     */
    for (size_t i = 0; i < n_pairs; i++)
        trials[i] = (au_trial_plan){.x_is_a = i % 2 == 0, .reference_is_x = i % 2 == 0};
    for (size_t i = n_pairs; i > 1; i--) {
        size_t j = draw(seed, STREAM_SIDES, session / 2, i, i);
        bool side = trials[i - 1].x_is_a;
        trials[i - 1].x_is_a = trials[j].x_is_a;
        trials[j].x_is_a = side;
        j = draw(seed, STREAM_REFERENCE, session, i, i);
        bool reference = trials[i - 1].reference_is_x;
        trials[i - 1].reference_is_x = trials[j].reference_is_x;
        trials[j].reference_is_x = reference;
    }
    for (size_t i = 0; i < n_pairs; i++) {
        trials[i].pair = i;
        trials[i].x_is_a ^= exchange;
    }
    for (size_t i = n_pairs; i > 1; i--) {
        size_t j = draw(seed, STREAM_ORDER, session, i, i);
        au_trial_plan t = trials[i - 1];
        trials[i - 1] = trials[j];
        trials[j] = t;
    }
}

void au_match_loudness(const au_loudness *x, const au_loudness *y, double *x_gain_db,
                       double *y_gain_db)
{
    *x_gain_db = *y_gain_db = 0;
    if (!isfinite(x->lufs) || !isfinite(y->lufs) || !isfinite(x->true_peak_dbtp) ||
        !isfinite(y->true_peak_dbtp))
        return;
    double target = TARGET_LUFS;
    target = fmin(target, x->lufs + PEAK_DBTP - x->true_peak_dbtp);
    target = fmin(target, y->lufs + PEAK_DBTP - y->true_peak_dbtp);
    *x_gain_db = target - x->lufs;
    *y_gain_db = target - y->lufs;
}
