/* SPDX-License-Identifier: MIT */
/* The plan of a listening test: which pair comes when, and which of the two is heard as X. Pure
 * functions of the comparison's seed and the session's number; any thread. */
#ifndef AU_COMPARE_DESIGN_H
#define AU_COMPARE_DESIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct au_trial_plan {
    size_t pair;         /* index of the pair */
    bool x_is_a;         /* X is the pair's first sample */
    bool reference_is_x; /* ABX: the reference is X, else Y */
} au_trial_plan;

/* Fills trials[n_pairs], one for each pair, in the order in which they are heard. In a session
 * every arm of a two-armed test stands on either side equally often (but for the odd one), in an
 * order of its own; sessions 2k and 2k + 1 have all sides exchanged, so that an even number of
 * raters is balanced pair by pair. */
void au_trial_plan_make(uint64_t seed, uint64_t session, au_trial_plan *trials, size_t n_pairs);

typedef struct au_loudness {
    double lufs, true_peak_dbtp; /* not finite: unknown */
} au_loudness;
/* Gains at play time that make both equally loud: to -16 LUFS (ITU-R BS.1770), or as much less as a
 * true peak of -1 dBTP of either allows. Both 0 where one is not known. */
void au_match_loudness(const au_loudness *x, const au_loudness *y, double *x_gain_db,
                       double *y_gain_db);

#endif
