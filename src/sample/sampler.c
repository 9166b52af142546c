/* SPDX-License-Identifier: MIT */
/* Sampling. Stateless: a draw is a function of seed, step and codebook (philox.h), so neighbours in
 * a batch cannot disturb it. Mirrors transformers' TemperatureLogitsWarper, TopKLogitsWarper,
 * TopPLogitsWarper and ClassifierFreeGuidanceLogitsProcessor. */
#include "sample/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"

void au_sample_guide(float *y, const float *c, const float *u, float guidance, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = u[i] + (c[i] - u[i]) * guidance;
}

double au_draw_uniform(const au_draw *draw)
{
    const uint32_t key[2] = {(uint32_t)draw->seed, (uint32_t)(draw->seed >> 32)};
    const uint32_t counter[4] = {draw->stream, draw->step, draw->codebook, 0};
    uint32_t word[4];
    au_philox4x32(word, counter, key);
    uint64_t bits = ((uint64_t)word[0] << 32 | word[1]) >> 11;
    return (double)bits * 0x1p-53;
}

static size_t arg_max(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* The k-th largest of x[n] (1 <= k <= n); reorders x. Hoare's selection with the median of three.
 */
static float kth_largest(float *x, size_t n, size_t k)
{
    size_t lo = 0, hi = n - 1, want = k - 1;
    while (lo < hi) {
        float a = x[lo], b = x[lo + (hi - lo) / 2], c = x[hi];
        float pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);
        size_t i = lo, j = hi;
        for (;;) {
            while (x[i] > pivot)
                i++;
            while (x[j] < pivot)
                j--;
            if (i >= j)
                break;
            float t = x[i];
            x[i++] = x[j];
            x[j--] = t;
        }
        /* Everything up to j is >= pivot, everything after is <= pivot. */
        if (want <= j)
            hi = j;
        else
            lo = j + 1;
    }
    return x[want];
}

static void keep_top_k(float *logits, size_t V, size_t k, float *scratch)
{
    memcpy(scratch, logits, V * sizeof *logits);
    float threshold = kth_largest(scratch, V, k);
    for (size_t i = 0; i < V; i++)
        if (logits[i] < threshold)
            logits[i] = -INFINITY;
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* p[V] are unnormalised probabilities; tokens that fall out become 0. */
static void keep_top_p(float *p, size_t V, double top_p, float *scratch)
{
    memcpy(scratch, p, V * sizeof *p);
    qsort(scratch, V, sizeof *scratch, ascending);
    double total = 0, sum = 0;
    for (size_t i = 0; i < V; i++)
        total += (double)scratch[i];
    size_t first = 0; /* the first that stays */
    for (; first < V - 1; first++) {
        sum += (double)scratch[first];
        if (sum > (1.0 - top_p) * total)
            break;
    }
    /* Equal probabilities at the threshold stay together, so the result does not depend on the
     * order of a sort. */
    float threshold = scratch[first];
    for (size_t i = 0; i < V; i++)
        if (p[i] < threshold)
            p[i] = 0;
}

size_t au_sample_token(const au_kernels *k, const au_sampler *s, const au_draw *draw, float *logits,
                       size_t V, float *scratch)
{
    size_t best = arg_max(logits, V);
    if (s->greedy)
        return best;
    for (size_t i = 0; i < V; i++)
        logits[i] /= s->temperature;
    if (s->top_k && s->top_k < V)
        keep_top_k(logits, V, s->top_k, scratch);
    float max = logits[best];
    for (size_t i = 0; i < V; i++)
        logits[i] -= max;
    k->exp(logits, logits, V);
    if (s->top_p > 0 && s->top_p < 1)
        keep_top_p(logits, V, s->top_p, scratch);
    double total = 0;
    for (size_t i = 0; i < V; i++)
        total += (double)logits[i];
    double target = au_draw_uniform(draw) * total, sum = 0;
    size_t last = best;
    for (size_t i = 0; i < V; i++) {
        if (!(logits[i] > 0))
            continue;
        sum += (double)logits[i];
        last = i;
        if (sum > target)
            return i;
    }
    return last; /* rounding let the target reach the total: the last possible token */
}
