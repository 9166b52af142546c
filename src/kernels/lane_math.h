/* SPDX-License-Identifier: MIT */
/* exp, expm1, tanh, sigmoid and the two GELUs over lanes: one fixed sequence of operations, so that
 * every instruction set gives the same bits. Included after one lanes_*.h.
 *
 * exp(x) = 2^n * e^r with n = x / ln 2 rounded to nearest, |r| <= 0.3466, and e^r = 1 + r + r^2
 * Q(r). Q is the minimax polynomial of degree 4 for the relative error of r^2 Q (3.2e-9). n is
 * found by adding 1.5 * 2^23, which leaves it in the low bits of the sum. ln 2 is split so that n *
 * LN2_HI is exact. */
#ifndef AU_KERNELS_LANE_MATH_H
#define AU_KERNELS_LANE_MATH_H

#define LOG2E 0x1.715476p+0f
#define LN2_HI 0x1.62e400p-1f /* 15 bits */
#define LN2_LO 0x1.7f7d1cp-20f
#define ROUND_TO_INT 12582912.0f /* 1.5 * 2^23 */

/* r with hi + lo = n ln 2 + r, for |hi| < 2^14 and |lo| < 1e-5; *t = ROUND_TO_INT + n. */
static inline vf exp_reduce(vf hi, vf lo, vf *t)
{
    *t = vf_fma(hi, vf_set1(LOG2E), vf_set1(ROUND_TO_INT));
    vf n = vf_sub(*t, vf_set1(ROUND_TO_INT));
    vf r = vf_fnma(n, vf_set1(LN2_HI), hi);
    return vf_add(vf_fnma(n, vf_set1(LN2_LO), r), lo);
}

/* e^r - 1 for a reduced r. */
static inline vf exp_poly(vf r)
{
    vf q = vf_set1(0.0013950804714113474f);
    q = vf_fma(q, r, vf_set1(0.008369073271751404f));
    q = vf_fma(q, r, vf_set1(0.04166620224714279f));
    q = vf_fma(q, r, vf_set1(0.16666516661643982f));
    q = vf_fma(q, r, vf_set1(0.5f));
    return vf_fma(vf_mul(r, r), q, r);
}

/* All x; error <= 1 ulp. Below -104 even the smallest denormal is out of reach, above 89 all is
 * infinite. */
static inline vf math_exp(vf x)
{
    vf t, r;
    x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-104.0f), x)); /* NaN stays */
    r = exp_reduce(x, vf_set1(0.0f), &t);
    return vf_scale(vf_add(exp_poly(r), vf_set1(1.0f)), t);
}

/* x <= 20, where 2^n - 1 needs no care; error <= 2 ulp. expm1(-20) is -1 in f32. */
static inline vf math_expm1(vf x)
{
    vf t, r, s, y;
    y = vf_max(vf_set1(-20.0f), x);
    r = exp_reduce(y, vf_set1(0.0f), &t);
    s = vf_pow2(t);
    y = vf_fma(s, exp_poly(r), vf_sub(s, vf_set1(1.0f)));
    return vf_sign(vf_abs(y), x); /* keeps -0 */
}

/* tanh|x| = u / (u + 2), u = e^(2|x|) - 1; error <= 3 ulp. From 9.1 on the result is 1. */
static inline vf math_tanh(vf x)
{
    vf a = vf_min(vf_set1(9.1f), vf_abs(x));
    vf u = math_expm1(vf_add(a, a));
    return vf_sign(vf_div(u, vf_add(u, vf_set1(2.0f))), x);
}

/* From e = exp(-|x|) <= 1: 1 / (1 + e) or e / (1 + e), so that neither end loses bits. Error <= 3
 * ulp. */
static inline vf math_sigmoid(vf x)
{
    vf one = vf_set1(1.0f);
    vf e = math_exp(vf_sub(vf_set1(0.0f), vf_abs(x)));
    return vf_div(vf_select(vm_gt(vf_set1(0.0f), x), e, one), vf_add(one, e));
}

/* x Phi(x), where erf would lose all bits in the negative tail: with a = |x| and t = 1 / (1 + 0.3
 * a), Phi(-a) = erfc(a / sqrt 2) / 2 = exp(-a^2 / 2) t P(t), P of degree 9 fitted to a relative
 * error of 3.5e-9 on a <= 15, beyond which x Phi(-a) is 0 in f32. a^2 goes into exp as an exact sum
 * of two. The factor 2^n comes last, so that denormal results are rounded once. -inf gives the
 * limit, -0. */
static inline vf math_gelu(vf x)
{
    vf a = vf_min(vf_set1(15.0f), vf_abs(x)), one = vf_set1(1.0f);
    vf square = vf_mul(a, a);
    vf rest = vf_fma(a, a, vf_sub(vf_set1(0.0f), square));
    vf t, r = exp_reduce(vf_mul(square, vf_set1(-0.5f)), vf_mul(rest, vf_set1(-0.5f)), &t);
    vf e = vf_add(exp_poly(r), one);
    vf z = vf_div(one, vf_fma(a, vf_set1(0.3f), one));
    vf p = vf_set1(-0.020628785714507103f);
    p = vf_fma(p, z, vf_set1(0.11246544867753983f));
    p = vf_fma(p, z, vf_set1(-0.2282862663269043f));
    p = vf_fma(p, z, vf_set1(0.19188517332077026f));
    p = vf_fma(p, z, vf_set1(-0.0795106515288353f));
    p = vf_fma(p, z, vf_set1(0.09620566666126251f));
    p = vf_fma(p, z, vf_set1(0.07837198674678802f));
    p = vf_fma(p, z, vf_set1(0.11023939400911331f));
    p = vf_fma(p, z, vf_set1(0.11957131326198578f));
    p = vf_fma(p, z, vf_set1(0.11968671530485153f));
    vf m = vf_mul(vf_mul(p, z), e); /* Phi(-a) 2^-n */
    vf low = vf_scale(vf_mul(m, vf_max(vf_set1(-15.0f), x)), t);
    vf high = vf_mul(x, vf_sub(one, vf_scale(m, t)));
    return vf_select(vm_gt(vf_set1(0.0f), x), low, high);
}

/* 1 + tanh u = 2 sigmoid(2u). -inf gives the limit, -0. */
static inline vf math_gelu_new(vf x)
{
    vf y = vf_max(vf_set1(-0x1.fffffep+127f), x);
    vf u = vf_fma(vf_mul(vf_mul(y, y), y), vf_set1(0.044715f), y);
    return vf_mul(y, math_sigmoid(vf_mul(u, vf_set1(1.5957691216057308f)))); /* 2 sqrt(2 / pi) */
}

#endif
