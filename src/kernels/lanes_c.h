/* SPDX-License-Identifier: MIT */
/* Lanes, plain C: a vector of one. What every operation means is defined here; lanes_avx2.h and
 * lanes_avx512.h give the same bits for more elements at once. Included by ops_c.c alone, before
 * ops_impl.h. */
#ifndef AU_KERNELS_LANES_C_H
#define AU_KERNELS_LANES_C_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"

enum { VL = 1 };    /* elements in a vf */
enum { NACC = 16 }; /* vectors that hold the 16 partial sums */

typedef float vf;
typedef bool vm; /* a mask */

static inline vf vf_load(const float *p)
{
    return *p;
}
/* The first n < VL elements, zeros after them. */
static inline vf vf_load_n(const float *p, size_t n)
{
    (void)p, (void)n;
    return 0.0f;
}
static inline void vf_store(float *p, vf a)
{
    *p = a;
}
static inline void vf_store_n(float *p, vf a, size_t n)
{
    (void)p, (void)a, (void)n;
}
static inline vf vf_set1(float a)
{
    return a;
}
static inline vf vf_add(vf a, vf b)
{
    return a + b;
}
static inline vf vf_sub(vf a, vf b)
{
    return a - b;
}
static inline vf vf_mul(vf a, vf b)
{
    return a * b;
}
static inline vf vf_div(vf a, vf b)
{
    return a / b;
}
/* a * b + c, rounded once. */
static inline vf vf_fma(vf a, vf b, vf c)
{
    return fmaf(a, b, c);
}
/* c - a * b, rounded once. */
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return fmaf(-a, b, c);
}
/* b where they are equal or either is NaN, as minps and maxps have it. */
static inline vf vf_min(vf a, vf b)
{
    return a < b ? a : b;
}
static inline vf vf_max(vf a, vf b)
{
    return a > b ? a : b;
}
static inline vf vf_abs(vf a)
{
    return fabsf(a);
}
/* a >= 0 with the sign of s. */
static inline vf vf_sign(vf a, vf s)
{
    return copysignf(a, s);
}
static inline vm vm_gt(vf a, vf b)
{
    return a > b;
}
/* The first n lanes; n may be larger than VL. */
static inline vm vm_first(size_t n)
{
    return n > 0;
}
static inline vf vf_select(vm m, vf a, vf b)
{
    return m ? a : b;
}

/* a * 2^n for |n| < 252, rounded once where the result is denormal. t is 1.5 * 2^23 + n: n sits in
 * its low bits. */
static inline vf vf_scale(vf a, vf t)
{
    int32_t n, half;
    memcpy(&n, &t, sizeof n);
    n -= 0x4b400000;
    half = n >> 1;
    uint32_t low = (uint32_t)(half + 127) << 23, high = (uint32_t)(n - half + 127) << 23;
    float s1, s2;
    memcpy(&s1, &low, sizeof s1);
    memcpy(&s2, &high, sizeof s2);
    return a * s1 * s2;
}
/* 2^n for -126 <= n <= 127. */
static inline vf vf_pow2(vf t)
{
    uint32_t n;
    memcpy(&n, &t, sizeof n);
    n = (n - 0x4b400000u + 127u) << 23;
    memcpy(&t, &n, sizeof t);
    return t;
}

/* The tree over 16 partial sums. */
static inline float lanes_sum(const vf p[NACC])
{
    float a[8];
    for (int j = 0; j < 8; j++)
        a[j] = p[j] + p[j + 8];
    for (int j = 0; j < 4; j++)
        a[j] += a[j + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}
/* The largest of 16. */
static inline float lanes_max(const vf p[NACC])
{
    float m = p[0];
    for (int j = 1; j < NACC; j++)
        m = vf_max(m, p[j]);
    return m;
}

static inline vf vf_load_f16(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_f16(h);
}
static inline vf vf_load_bf16(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_bf16(h);
}

#endif
