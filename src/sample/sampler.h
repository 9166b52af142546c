/* SPDX-License-Identifier: MIT */
/* From logits to a token: guidance, temperature, top-k, top-p, and one draw that depends on the
 * seed and the place alone. */
#ifndef AU_SAMPLE_SAMPLER_H
#define AU_SAMPLE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* y[i] = u[i] + (c[i] - u[i]) * guidance; y may be c. */
void au_sample_guide(float *y, const float *c, const float *u, float guidance, size_t n);

typedef struct au_sampler {
    bool greedy;
    float temperature;
    size_t top_k; /* 0 off */
    double top_p; /* 0 or 1 off */
} au_sampler;

/* Where a draw stands: key = seed, counter = (stream, step, codebook, 0). Philox 4x32-10. */
typedef struct au_draw {
    uint64_t seed;
    uint32_t stream, step, codebook;
} au_draw;

enum { AU_STREAM_TOKENS = 0 };

/* Uniform in [0, 1) with 53 bits. */
double au_draw_uniform(const au_draw *draw);

/* The token chosen from logits[V] (overwritten). Order of processing as transformers: temperature,
 * top-k (ties at the threshold survive), top-p (removes the least probable tokens while their
 * cumulated probability is <= 1 - p; keeps at least one), softmax, one draw that walks the
 * probabilities in ascending token id and sums in f64. Greedy: the smallest id among the largest.
 * scratch: V floats. */
size_t au_sample_token(const au_kernels *k, const au_sampler *s, const au_draw *draw, float *logits,
                       size_t V, float *scratch);

#endif
