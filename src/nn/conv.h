/* SPDX-License-Identifier: MIT */
/* Convolutions on time-major data, [T, C], as products of overlapping rows. These run on one thread
 * each: callers spread chunks of time over the pool, and give every call all the input it needs, so
 * no chunk border is visible in the bits. */
#ifndef AU_NN_CONV_H
#define AU_NN_CONV_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

typedef enum au_pad_mode { AU_PAD_REFLECT, AU_PAD_CONSTANT } au_pad_mode;

/* Conv1d with stride 1. */
typedef struct au_conv1d {
    const float
        *w; /* [out, kernel, in]: torch's [out, in, kernel] with the last two axes swapped */
    const float *bias; /* [out] */
    size_t in, out, kernel, dilation;
    size_t pad_left, pad_right; /* pad_left + pad_right = (kernel - 1) * dilation */
    au_pad_mode pad_mode;
} au_conv1d;

/* A stretch [first, first + len) of a sequence of `total` frames, data [len, C]. */
typedef struct au_stretch {
    float *data;
    int64_t first, len, total;
} au_stretch;

/* The input that outputs [first, first + len) of `total` need, padding resolved: within [0, total).
 */
void au_conv1d_need(const au_conv1d *c, int64_t first, int64_t len, int64_t total,
                    int64_t *need_first, int64_t *need_len);

/* y (first, len, total set by the caller; data [len, out] with row stride ldy) from x, which covers
 * what is needed. pre, if not NULL, is applied to the input first (an activation with pre(0) = 0).
 * padded: scratch of (len + (kernel - 1) * dilation) * in floats, and len_block * kernel * in more
 * where dilation > 1, AU_CONV_BLOCK rows at the most. */
enum { AU_CONV_BLOCK = 256 };
size_t au_conv1d_scratch(const au_conv1d *c, int64_t len); /* floats */
void au_conv1d_run(const au_kernels *k, const au_conv1d *c, const au_stretch *y, size_t ldy,
                   const au_stretch *x, void (*pre)(float *, const float *, size_t), float *padded);

/* ConvTranspose1d with kernel = 2 * stride: output t * stride + p is one product of [x[t - 1],
 * x[t]] with the taps p + stride and p. */
typedef struct au_convtr1d {
    const float
        *w; /* [stride, out, 2, in]: taps (p, co, j, ci) = torch's [ci, co, p + (1 - j) * stride] */
    const float *bias; /* [stride, out]: the bias repeated */
    size_t in, out, stride;
    size_t trim_left; /* outputs dropped at the left; the rest of the surplus goes at the right: T
                         inputs give T * stride */
} au_convtr1d;

/* Here first, len and total of the output count output frames; total is a multiple of stride. */
void au_convtr1d_need(const au_convtr1d *c, int64_t first, int64_t len, int64_t total,
                      int64_t *need_first, int64_t *need_len);
size_t au_convtr1d_scratch(const au_convtr1d *c, int64_t len);
void au_convtr1d_run(const au_kernels *k, const au_convtr1d *c, const au_stretch *y,
                     const au_stretch *x, void (*pre)(float *, const float *, size_t),
                     float *scratch);

#endif
