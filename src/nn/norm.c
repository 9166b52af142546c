/* SPDX-License-Identifier: MIT */
/* Normalisation of rows, element-wise functions over blocks, and fixed sinusoids. */
#include "nn/nn.h"

#include <math.h>

void au_nn_norm(const au_nn *nn, float *y, const float *x, const au_norm *norm, size_t M,
                const au_applied *const *applied)
{
    for (size_t m = 0; m < M; m++) {
        const au_lora *lora = au_applied_lora(applied ? applied[m] : NULL, norm->module);
        const float *w = lora && lora->replace_weight ? lora->replace_weight : norm->w;
        const float *b = lora && lora->replace_bias ? lora->replace_bias : norm->b;
        if (norm->rms)
            nn->k->rmsnorm(y + m * norm->n, x + m * norm->n, w, norm->n, norm->eps);
        else
            nn->k->layernorm(y + m * norm->n, x + m * norm->n, w, b, norm->n, norm->eps);
    }
}

enum { MAP_BLOCK = 8192 };

typedef struct map_run {
    void (*fn)(float *, const float *, size_t);
    float *x;
    size_t n;
} map_run;

static void run_map(void *ctx, size_t item, int thread)
{
    (void)thread;
    const map_run *run = ctx;
    size_t first = item * MAP_BLOCK;
    size_t n = run->n - first < MAP_BLOCK ? run->n - first : MAP_BLOCK;
    run->fn(run->x + first, run->x + first, n);
}

void au_nn_map(const au_nn *nn, void (*fn)(float *, const float *, size_t), float *x, size_t n)
{
    map_run run = {fn, x, n};
    if (n <= 2 * MAP_BLOCK)
        fn(x, x, n);
    else
        au_pool_run(nn->pool, (n + MAP_BLOCK - 1) / MAP_BLOCK, run_map, &run);
}

/* exp for x in [-745, 0] and cos, sin for x in [0, 2^22], in plain double arithmetic, so that the
 * table is the same on every processor. Errors stay near one ulp of double: rounding to f32 hides
 * them. */
static double exp_f64(double x)
{
    const double ln2_hi = 0x1.62e42fefa0000p-1, ln2_lo = 0x1.cf79abc9e3b39p-40;
    double n = nearbyint(x * 0x1.71547652b82fep+0);
    double r = (x - n * ln2_hi) - n * ln2_lo;
    double sum = 1.0;
    for (int i = 17; i > 0; i--)
        sum = 1.0 + r / i * sum;
    return ldexp(sum, (int)n);
}

static void sincos_f64(double x, double *s, double *c)
{
    /* pi/2 in three parts of 33, 33 and 53 bits: n * part is exact for n < 2^20. */
    const double p1 = 0x1.921fb54400000p+0, p2 = 0x1.0b4611a600000p-34, p3 = 0x1.3198a2e037073p-69;
    double n = nearbyint(x * 0x1.45f306dc9c883p-1);
    double r = ((x - n * p1) - n * p2) - n * p3;
    /* 1 - r^2/(1*2) (1 - r^2/(3*4) (...)), and the same for the sine with 2*3, 4*5, ... */
    double r2 = r * r, sine = 1.0, cosine = 1.0;
    for (int i = 21; i > 0; i -= 2)
        cosine = 1.0 - r2 / (i * (i + 1.0)) * cosine;
    for (int i = 20; i > 0; i -= 2)
        sine = 1.0 - r2 / (i * (i + 1.0)) * sine;
    sine *= r;
    switch ((int64_t)n & 3) {
    case 0:
        *s = sine, *c = cosine;
        break;
    case 1:
        *s = cosine, *c = -sine;
        break;
    case 2:
        *s = -sine, *c = -cosine;
        break;
    default:
        *s = -cosine, *c = sine;
    }
}

void au_nn_sinusoid_freqs(float *freqs, size_t d)
{
    size_t half = d / 2;
    float step = (float)-(9.210340371976184 / (double)(half - 1)); /* ln 10000 */
    for (size_t i = 0; i < half; i++)
        freqs[i] = (float)exp_f64((double)((float)i * step));
}

void au_nn_sinusoid(float *y, const float *freqs, size_t d, size_t position)
{
    size_t half = d / 2;
    for (size_t i = 0; i < half; i++) {
        double s, c;
        sincos_f64((double)((float)position * freqs[i]), &s, &c);
        y[i] = (float)c;
        y[half + i] = (float)s;
    }
    if (d % 2)
        y[d - 1] = 0;
}
