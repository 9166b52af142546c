/* SPDX-License-Identifier: MIT */
/* Every operation but gemm, written once over lanes and compiled once per instruction set: a file
 * includes one lanes_*.h, then this, and fills a table with AU_OPS_TABLE. VL elements go at once;
 * the 16 partial sums of a `dot` are NACC = 16 / VL vectors. In a tail, lanes past the end keep
 * their partial sum untouched, as the contract asks. */
#ifndef AU_KERNELS_OPS_IMPL_H
#define AU_KERNELS_OPS_IMPL_H

#include "kernels/kernels.h"
#include "kernels/lane_math.h"

/* Runs y[i..] = expr of `v` over all of n; expr sees v = x[i..]. */
#define MAP(y, x, n, expr)                                                                         \
    do {                                                                                           \
        size_t i_ = 0;                                                                             \
        for (; i_ + VL <= (n); i_ += VL) {                                                         \
            vf v = vf_load((x) + i_);                                                              \
            vf_store((y) + i_, (expr));                                                            \
        }                                                                                          \
        if (i_ < (n)) {                                                                            \
            vf v = vf_load_n((x) + i_, (n)-i_);                                                    \
            vf_store_n((y) + i_, (expr), (n)-i_);                                                  \
        }                                                                                          \
    } while (0)

/* The same of two inputs, v = a[i..] and u = b[i..]. */
#define MAP2(y, a, b, n, expr)                                                                     \
    do {                                                                                           \
        size_t i_ = 0;                                                                             \
        for (; i_ + VL <= (n); i_ += VL) {                                                         \
            vf v = vf_load((a) + i_), u = vf_load((b) + i_);                                       \
            vf_store((y) + i_, (expr));                                                            \
        }                                                                                          \
        if (i_ < (n)) {                                                                            \
            vf v = vf_load_n((a) + i_, (n)-i_), u = vf_load_n((b) + i_, (n)-i_);                   \
            vf_store_n((y) + i_, (expr), (n)-i_);                                                  \
        }                                                                                          \
    } while (0)

/* Folds x into the 16 lanes of acc: acc = expr of `v` and `a` (the lane so far). */
#define FOLD(acc, x, n, expr)                                                                      \
    do {                                                                                           \
        size_t i_ = 0;                                                                             \
        for (; i_ + 16 <= (n); i_ += 16)                                                           \
            for (int j_ = 0; j_ < NACC; j_++) {                                                    \
                vf v = vf_load((x) + i_ + (size_t)(j_ * VL)), a = (acc)[j_];                       \
                (acc)[j_] = (expr);                                                                \
            }                                                                                      \
        for (int j_ = 0; j_ < NACC && i_ < (n); j_++, i_ += VL) {                                  \
            bool whole_ = (n)-i_ >= VL;                                                            \
            vf v = whole_ ? vf_load((x) + i_) : vf_load_n((x) + i_, (n)-i_), a = (acc)[j_];        \
            (acc)[j_] = vf_select(vm_first((n)-i_), (expr), a);                                    \
        }                                                                                          \
    } while (0)

static inline void lanes_fill(vf acc[NACC], float value)
{
    for (int j = 0; j < NACC; j++)
        acc[j] = vf_set1(value);
}

static inline float sum(const float *x, size_t n)
{
    vf acc[NACC];
    lanes_fill(acc, 0.0f);
    FOLD(acc, x, n, vf_add(v, a)); /* fma(v, 1, a) is the same */
    return lanes_sum(acc);
}

/* dot(x - shift, x - shift) */
static inline float sum_squares(const float *x, size_t n, float shift)
{
    vf acc[NACC], s = vf_set1(shift);
    lanes_fill(acc, 0.0f);
    FOLD(acc, x, n, vf_fma(vf_sub(v, s), vf_sub(v, s), a));
    return lanes_sum(acc);
}

static void op_softmax(float *s, size_t n)
{
    vf acc[NACC];
    lanes_fill(acc, -INFINITY);
    FOLD(acc, s, n, vf_max(v, a)); /* passes over NaN, which exp then brings back */
    vf largest = vf_set1(lanes_max(acc));
    MAP(s, s, n, math_exp(vf_sub(v, largest)));
    vf total = vf_set1(sum(s, n));
    MAP(s, s, n, vf_div(v, total));
}

static void op_layernorm(float *y, const float *x, const float *w, const float *b, size_t n,
                         float eps)
{
    if (n == 0)
        return;
    float mean = sum(x, n) / (float)n;
    float var = sum_squares(x, n, mean) / (float)n;
    vf vmean = vf_set1(mean), rstd = vf_set1(1.0f / sqrtf(var + eps));
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf d = vf_mul(vf_sub(vf_load(x + i), vmean), rstd);
        vf_store(y + i, vf_fma(d, vf_load(w + i), vf_load(b + i)));
    }
    if (i < n) {
        vf d = vf_mul(vf_sub(vf_load_n(x + i, n - i), vmean), rstd);
        vf_store_n(y + i, vf_fma(d, vf_load_n(w + i, n - i), vf_load_n(b + i, n - i)), n - i);
    }
}

static void op_rmsnorm(float *y, const float *x, const float *w, size_t n, float eps)
{
    if (n == 0)
        return;
    vf scale = vf_set1(1.0f / sqrtf(sum_squares(x, n, 0.0f) / (float)n + eps));
    MAP2(y, x, w, n, vf_mul(u, vf_mul(v, scale)));
}

static void op_gelu(float *y, const float *x, size_t n)
{
    MAP(y, x, n, math_gelu(v));
}
static void op_gelu_new(float *y, const float *x, size_t n)
{
    MAP(y, x, n, math_gelu_new(v));
}
static void op_relu(float *y, const float *x, size_t n)
{
    MAP(y, x, n, vf_add(vf_max(vf_set1(0.0f), v), vf_set1(0.0f))); /* -0 to 0 */
}
static void op_elu(float *y, const float *x, size_t n)
{
    MAP(y, x, n, vf_select(vm_gt(v, vf_set1(0.0f)), v, math_expm1(vf_min(vf_set1(0.0f), v))));
}
static void op_exp(float *y, const float *x, size_t n)
{
    MAP(y, x, n, math_exp(v));
}
static void op_tanh(float *y, const float *x, size_t n)
{
    MAP(y, x, n, math_tanh(v));
}
static void op_sigmoid(float *y, const float *x, size_t n)
{
    MAP(y, x, n, math_sigmoid(v));
}
static void op_add(float *y, const float *a, const float *b, size_t n)
{
    MAP2(y, a, b, n, vf_add(v, u));
}
static void op_mul(float *y, const float *a, const float *b, size_t n)
{
    MAP2(y, a, b, n, vf_mul(v, u));
}
static void op_axpy(float *y, float a, const float *x, size_t n)
{
    vf va = vf_set1(a);
    MAP2(y, x, y, n, vf_fma(va, v, u));
}

static void op_widen(float *y, const void *x, au_dtype xtype, size_t n)
{
    const uint8_t *p = x;
    if (xtype == AU_F32) {
        if (n)
            memcpy(y, x, n * sizeof *y);
        return;
    }
    bool f16 = xtype == AU_F16;
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, f16 ? vf_load_f16(p + 2 * i) : vf_load_bf16(p + 2 * i));
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        y[i] = f16 ? half_f16(h) : half_bf16(h);
    }
}

/* One chain per d: 64 / VL of them at once hide the latency of the fused multiply-add. */
static void op_weighted_rows(float *o, const float *p, const float *v, size_t ldv, size_t T,
                             size_t D)
{
    enum { WIDE = VL == 1 ? 1 : 64 / VL };
    size_t d = 0;
    for (; d + WIDE * VL <= D; d += WIDE * VL) {
        vf acc[WIDE];
        for (int j = 0; j < WIDE; j++)
            acc[j] = vf_set1(0.0f);
        for (size_t t = 0; t < T; t++) {
            vf pt = vf_set1(p[t]);
            for (int j = 0; j < WIDE; j++)
                acc[j] = vf_fma(pt, vf_load(v + t * ldv + d + (size_t)(j * VL)), acc[j]);
        }
        for (int j = 0; j < WIDE; j++)
            vf_store(o + d + (size_t)(j * VL), acc[j]);
    }
    for (; d < D; d += VL) {
        size_t n = D - d < VL ? D - d : VL;
        vf acc = vf_set1(0.0f);
        for (size_t t = 0; t < T; t++) {
            const float *row = v + t * ldv + d;
            acc = vf_fma(vf_set1(p[t]), n == VL ? vf_load(row) : vf_load_n(row, n), acc);
        }
        if (n == VL)
            vf_store(o + d, acc);
        else
            vf_store_n(o + d, acc, n);
    }
}

static void op_lstm_cell(float *h, float *c, const float *gates, size_t H)
{
    for (size_t k = 0; k < H; k += VL) {
        size_t n = H - k < VL ? H - k : VL;
        bool whole = n == VL;
        const float *g = gates + k;
        vf gi = whole ? vf_load(g) : vf_load_n(g, n);
        vf gf = whole ? vf_load(g + H) : vf_load_n(g + H, n);
        vf gg = whole ? vf_load(g + 2 * H) : vf_load_n(g + 2 * H, n);
        vf go = whole ? vf_load(g + 3 * H) : vf_load_n(g + 3 * H, n);
        vf vc = whole ? vf_load(c + k) : vf_load_n(c + k, n);
        vc = vf_fma(math_sigmoid(gf), vc, vf_mul(math_sigmoid(gi), math_tanh(gg)));
        vf vh = vf_mul(math_sigmoid(go), math_tanh(vc));
        if (whole) {
            vf_store(c + k, vc);
            vf_store(h + k, vh);
        } else {
            vf_store_n(c + k, vc, n);
            vf_store_n(h + k, vh, n);
        }
    }
}

/* The fields of a table but for name, gemm and dot_rows. */
#define AU_OPS_TABLE                                                                               \
    .weighted_rows = op_weighted_rows, .softmax = op_softmax, .layernorm = op_layernorm,           \
    .rmsnorm = op_rmsnorm, .gelu = op_gelu, .gelu_new = op_gelu_new, .relu = op_relu,              \
    .elu = op_elu, .exp = op_exp, .tanh = op_tanh, .sigmoid = op_sigmoid, .add = op_add,           \
    .mul = op_mul, .axpy = op_axpy, .widen = op_widen, .lstm_cell = op_lstm_cell

#endif
