/* SPDX-License-Identifier: MIT */
/* The kernels: one contract per operation, one table per instruction set.
 *
 * Numerics class "f32". Every kernel gives the same bits in C, AVX2 and AVX-512, whatever the
 * number of threads, the batch or the alignment: tests compare with memcmp. Therefore
 *  - a sum over K terms (every `dot` below) is 16 partial sums: partial j takes k = j (mod 16) in
 *    ascending k by fused multiply-add from +0.0f, then the tree p[j]+p[j+8], +4, +2, +1. The
 *    order depends on K alone;
 *  - exp, tanh, sigmoid and the GELUs are our own polynomials with one fixed sequence of fmaf, +,
 *    * and /, the same everywhere (lane_math.h);
 *  - nothing is reassociated or contracted (-ffp-contract=off; fused operations are written as
 *    such).
 * Denormals, infinities and NaN behave as IEEE 754 says; rounding mode is to nearest. Which NaN
 * comes out (sign, payload) is not specified.
 *
 * float pointers are aligned to 4, void pointers need not be. Outputs must not overlap inputs
 * unless an operation says "in place". Sizes may be 0. All functions are pure apart from their
 * outputs; any thread; gemm wants 600 KiB of stack. Row strides (ld*) count elements and may be
 * smaller than the row (overlapping rows of x, as a convolution on time-major data needs). */
#ifndef AU_KERNELS_KERNELS_H
#define AU_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/tensor.h"

typedef struct au_kernels {
    const char *name; /* "c", "avx2", "avx512" */

    /* y[m, n] = dot(x[m, :], w[n, :]) for m < M, n < N, over K. x f32 with row stride ldx; w F32,
     * F16 or BF16 [N, K] with row stride ldw, widened exactly in registers; y row stride ldy.
     * Single-threaded on this range: callers split N (and M). Small M (1 ... 16) reads w once and
     * must run near memory speed; large M must stay bound by FMA. */
    void (*gemm)(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
                 size_t ldw, size_t M, size_t N, size_t K);

    /* One attention head, one query against T keys: s[t] = dot(q, k[t, :]) over K, for t < T; keys
     * f32 with row stride ldk. */
    void (*dot_rows)(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K);
    /* o[d] = sum over t < T of p[t] * v[t, d], one fmaf chain per d in ascending t from +0.0f; v
     * row stride ldv. */
    void (*weighted_rows)(float *o, const float *p, const float *v, size_t ldv, size_t T, size_t D);

    /* In place over n: p = exp(s - max s) / sum, the sum taken as `dot` with ones, division by the
     * sum (not a product with the reciprocal). n >= 1. */
    void (*softmax)(float *s, size_t n);
    /* y = (x - mean) / sqrt(var + eps) * w + b: mean = dot(x, 1) / n, var = dot(x - mean, x - mean)
     * / n, y[i] = fmaf((x[i] - mean) * rstd, w[i], b[i]), rstd = 1 / sqrtf(var + eps). */
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, size_t n,
                      float eps);
    /* y[i] = w[i] * (x[i] * (1 / sqrtf(dot(x, x) / n + eps))). */
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);

    /* Element by element, y may be x. */
    /* 0.5 x (1 + erf(x / sqrt 2)), within 1e-6 of it relatively, the negative tail included. */
    void (*gelu)(float *y, const float *x, size_t n);
    /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    void (*gelu_new)(float *y, const float *x, size_t n);
    void (*relu)(float *y, const float *x, size_t n); /* x > 0 ? x : 0; NaN gives NaN */
    void (*elu)(float *y, const float *x, size_t n);  /* x > 0 ? x : expm1(x) */
    void (*exp)(float *y, const float *x, size_t n);
    void (*tanh)(float *y, const float *x, size_t n);
    /* 1 / (1 + exp(-x)) without overflow to NaN */
    void (*sigmoid)(float *y, const float *x, size_t n);
    void (*add)(float *y, const float *a, const float *b, size_t n); /* y = a + b */
    void (*mul)(float *y, const float *a, const float *b, size_t n); /* y = a * b */
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y = fmaf(a, x, y), in place */
    /* F32, F16, BF16 to f32, exactly */
    void (*widen)(float *y, const void *x, au_dtype xtype, size_t n);

    /* One LSTM cell over H: gates[4H] holds the four pre-activations in the order i, f, g, o; c, h
     * in place. c = fmaf(sigmoid(f), c, sigmoid(i) * tanh(g)); h = sigmoid(o) * tanh(c). */
    void (*lstm_cell)(float *h, float *c, const float *gates, size_t H);
} au_kernels;

/* Bits of a processor mask, for tests and for diagnosis in the field. */
enum { AU_CPU_AVX2 = 1, AU_CPU_AVX512 = 2 };
/* What the processor and the operating system can do (cpuid and xgetbv: AVX2 + FMA + F16C; AVX-512
 * F, BW, DQ, VL), masked by the environment variable AU_CPU = c | avx2 | avx512 (a ceiling). */
unsigned au_cpu_flags(void);
/* The best table within `flags`. Static storage. */
const au_kernels *au_kernels_for(unsigned flags);
/* au_kernels_for(au_cpu_flags()), decided once. */
const au_kernels *au_kernels_get(void);

#endif
