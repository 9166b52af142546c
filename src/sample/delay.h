/* SPDX-License-Identifier: MIT */
/* The delay pattern of codec language models ("Simple and Controllable Music Generation",
 * section 2.2): codebook k of a channel is shifted by k columns. Column 0 holds the pad token in
 * every row; frame f of row k stands in column f + 1 + delay(k). Stateless. */
#ifndef AU_SAMPLE_DELAY_H
#define AU_SAMPLE_DELAY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct au_delay {
    size_t codebooks; /* K, of all channels: rows L0, R0, L1, R1, ... */
    size_t channels;
    size_t frames; /* F */
} au_delay;

static inline size_t au_delay_of(const au_delay *d, size_t k)
{
    return k / d->channels;
}

/* Runs of the decoder: columns 1 ... steps are predicted. */
static inline size_t au_delay_steps(const au_delay *d)
{
    return d->frames + d->codebooks / d->channels - 1;
}

/* Whether column c (>= 1) of row k holds a frame (then *frame is set), or the pad token. */
static inline bool au_delay_frame(const au_delay *d, size_t k, size_t c, size_t *frame)
{
    size_t shift = au_delay_of(d, k) + 1;
    if (c < shift || c - shift >= d->frames)
        return false;
    *frame = c - shift;
    return true;
}

#endif
