/* SPDX-License-Identifier: MIT */
/* Convolutions. Padding is resolved by position in the whole sequence, never by position in the
 * chunk. */
#include "nn/conv.h"

#include <string.h>

#include "base/err.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Where position i of the padded sequence comes from: an index in [0, total), or -1 for zero. As
 * transformers' EncodecConv1d._pad1d: a sequence not longer than the padding is lengthened with
 * zeros before it is mirrored. */
static int64_t source_of(const au_conv1d *c, int64_t i, int64_t total)
{
    if (i >= 0 && i < total)
        return i;
    if (c->pad_mode == AU_PAD_CONSTANT)
        return -1;
    int64_t max_pad = (int64_t)(c->pad_left > c->pad_right ? c->pad_left : c->pad_right);
    int64_t longer = total <= max_pad ? max_pad + 1 : total;
    int64_t j = i < 0 ? -i : i >= longer ? 2 * (longer - 1) - i : i;
    return j < total ? j : -1;
}

void au_conv1d_need(const au_conv1d *c, int64_t first, int64_t len, int64_t total,
                    int64_t *need_first, int64_t *need_len)
{
    int64_t span = (int64_t)((c->kernel - 1) * c->dilation);
    int64_t lo = first - (int64_t)c->pad_left,
            hi = lo + len + span; /* [lo, hi) of the padded sequence */
    int64_t a = max64(lo, 0), b = min64(hi, total);
    if (total <= 2 * span + 2) {
        a = 0, b = total;
    } else if (c->pad_mode == AU_PAD_REFLECT) {
        if (lo < 0)
            b = max64(b, -lo + 1);
        if (hi > total)
            a = min64(a, 2 * (total - 1) - (hi - 1));
    }
    *need_first = a;
    *need_len = b - a;
}

size_t au_conv1d_scratch(const au_conv1d *c, int64_t len)
{
    size_t span = (c->kernel - 1) * c->dilation;
    return ((size_t)len + span) * c->in + (c->dilation > 1 ? AU_CONV_BLOCK * c->kernel * c->in : 0);
}

void au_conv1d_run(const au_kernels *k, const au_conv1d *c, const au_stretch *y, size_t ldy,
                   const au_stretch *x, void (*pre)(float *, const float *, size_t), float *padded)
{
    size_t in = c->in, span = (c->kernel - 1) * c->dilation, len = (size_t)y->len;
    int64_t lo = y->first - (int64_t)c->pad_left, hi = lo + y->len + (int64_t)span;
    int64_t a = max64(lo, 0), b = min64(hi, y->total);
    if (b > a) {
        AU_ASSERT(a >= x->first && b <= x->first + x->len);
        float *to = padded + (size_t)(a - lo) * in;
        const float *from = x->data + (size_t)(a - x->first) * in;
        if (pre)
            pre(to, from, (size_t)(b - a) * in);
        else
            memcpy(to, from, (size_t)(b - a) * in * sizeof *to);
    }
    for (int64_t i = lo; i < hi; i++) {
        if (i == a && b > a)
            i = b; /* what was copied above */
        if (i >= hi)
            break;
        int64_t j = source_of(c, i, y->total);
        float *to = padded + (size_t)(i - lo) * in;
        if (j < 0) {
            memset(to, 0, in * sizeof *to);
            continue;
        }
        AU_ASSERT(j >= x->first && j < x->first + x->len);
        const float *from = x->data + (size_t)(j - x->first) * in;
        if (pre)
            pre(to, from, in);
        else
            memcpy(to, from, in * sizeof *to);
    }
    size_t K = c->kernel * in;
    if (c->dilation == 1) {
        k->gemm(y->data, ldy, padded, in, c->w, AU_F32, K, len, c->out, K);
    } else {
        float *rows = padded + (len + span) * in;
        for (size_t t = 0; t < len; t += AU_CONV_BLOCK) {
            size_t n = len - t < AU_CONV_BLOCK ? len - t : AU_CONV_BLOCK;
            for (size_t i = 0; i < n; i++)
                for (size_t tap = 0; tap < c->kernel; tap++)
                    memcpy(rows + i * K + tap * in, padded + (t + i + tap * c->dilation) * in,
                           in * sizeof *rows);
            k->gemm(y->data + t * ldy, ldy, rows, K, c->w, AU_F32, K, n, c->out, K);
        }
    }
    if (c->out == 1)
        for (size_t t = 0; t < len; t++)
            y->data[t * ldy] += c->bias[0];
    else
        for (size_t t = 0; t < len; t++)
            k->add(y->data + t * ldy, y->data + t * ldy, c->bias, c->out);
}

/* Output i is row i + trim_left of the untrimmed result, whose row t * stride + p needs x[t - 1]
 * and x[t]. */
static void windows_of(const au_convtr1d *c, int64_t first, int64_t len, int64_t *t0, int64_t *t1)
{
    int64_t s = (int64_t)c->stride, raw = first + (int64_t)c->trim_left;
    *t0 = raw / s;
    *t1 = (raw + len - 1) / s + 1;
}

void au_convtr1d_need(const au_convtr1d *c, int64_t first, int64_t len, int64_t total,
                      int64_t *need_first, int64_t *need_len)
{
    int64_t t0, t1;
    windows_of(c, first, len, &t0, &t1);
    int64_t a = max64(t0 - 1, 0), b = min64(t1, total / (int64_t)c->stride);
    *need_first = a;
    *need_len = b - a;
}

size_t au_convtr1d_scratch(const au_convtr1d *c, int64_t len)
{
    size_t windows = (size_t)len / c->stride + 2;
    return (windows + 1) * c->in + windows * c->stride * c->out;
}

void au_convtr1d_run(const au_kernels *k, const au_convtr1d *c, const au_stretch *y,
                     const au_stretch *x, void (*pre)(float *, const float *, size_t),
                     float *scratch)
{
    int64_t t0, t1, inputs = y->total / (int64_t)c->stride;
    windows_of(c, y->first, y->len, &t0, &t1);
    size_t n = (size_t)(t1 - t0), in = c->in, N = c->stride * c->out;
    float *rows = scratch, *raw = scratch + (n + 1) * in; /* rows: x[t0 - 1] ... x[t1 - 1] */
    for (int64_t t = t0 - 1; t < t1; t++) {
        float *to = rows + (size_t)(t - t0 + 1) * in;
        if (t < 0 || t >= inputs) {
            memset(to, 0, in * sizeof *to);
        } else {
            AU_ASSERT(t >= x->first && t < x->first + x->len);
            pre(to, x->data + (size_t)(t - x->first) * in, in);
        }
    }
    k->gemm(raw, N, rows, in, c->w, AU_F32, 2 * in, n, N, 2 * in);
    for (size_t t = 0; t < n; t++)
        k->add(raw + t * N, raw + t * N, c->bias, N);
    size_t skip = (size_t)(y->first + (int64_t)c->trim_left - t0 * (int64_t)c->stride);
    memcpy(y->data, raw + skip * c->out, (size_t)y->len * c->out * sizeof *raw);
}
