/* SPDX-License-Identifier: MIT */
/* DoRA's factor. The rows of W + s B A are formed in f32, one at a time, their squares summed in
 * f64. Plain C in a fixed order: the same on every processor. Stateless. */
#include "adapters/adapters.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

/* Columns at a time: so many of 16 ranks of A, and of a row of W, fit the first-level cache. */
enum { COLUMNS = 256 };

/* row[i] = sum over j of c[j] * v[j * stride + i], in ascending j, n <= COLUMNS. */
static void combine(float *restrict row, const float *v, size_t stride, const float *c, float scale,
                    size_t r, size_t n)
{
    size_t j = 0;
    for (size_t i = 0; i < n; i++)
        row[i] = 0;
    for (; j + 4 <= r; j += 4) {
        const float *v0 = v + j * stride, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
        float c0 = scale * c[j], c1 = scale * c[j + 1], c2 = scale * c[j + 2],
              c3 = scale * c[j + 3];
        for (size_t i = 0; i < n; i++)
            row[i] = (((row[i] + c0 * v0[i]) + c1 * v1[i]) + c2 * v2[i]) + c3 * v3[i];
    }
    for (; j < r; j++) {
        float c0 = scale * c[j];
        for (size_t i = 0; i < n; i++)
            row[i] += c0 * v[j * stride + i];
    }
}

/* squares[o] = sum of squares of row o of W + s B A. */
static void linear_squares(double *squares, const au_delta *d, const au_module *m, float s)
{
    float delta[COLUMNS], w[COLUMNS];
    size_t in = (size_t)m->in, r = (size_t)d->rank;
    for (size_t from = 0; from < in; from += COLUMNS) {
        size_t n = in - from < COLUMNS ? in - from : COLUMNS;
        for (size_t o = 0; o < (size_t)m->out; o++) {
            combine(delta, d->a + from, in, d->b + o * r, s, r, n);
            au_tensor_read_f32(m->weight, o * in + from, n, w);
            double sum = 0;
            for (size_t i = 0; i < n; i++) {
                double v = (double)(w[i] + delta[i]);
                sum += v * v;
            }
            squares[o] += sum;
        }
    }
}

/* squares[o] = sum over the rows n of the square of E[n, o] + s (B A)[o, n]; bt is B transposed,
 * [rank, out]. */
static void embedding_squares(double *squares, const au_delta *d, const au_module *m, float s,
                              const float *bt)
{
    float delta[COLUMNS], w[COLUMNS];
    size_t width = (size_t)m->out, r = (size_t)d->rank;
    for (size_t from = 0; from < width; from += COLUMNS) {
        size_t n = width - from < COLUMNS ? width - from : COLUMNS;
        for (size_t row = 0; row < (size_t)m->in; row++) {
            combine(delta, bt + from, width, d->a + row * r, s, r, n);
            au_tensor_read_f32(m->weight, row * width + from, n, w);
            for (size_t i = 0; i < n; i++) {
                double v = (double)(w[i] + delta[i]);
                squares[from + i] += v * v;
            }
        }
    }
}

au_status au_delta_dora_factor(const au_delta *delta, const au_module *module, double strength,
                               float *factor, au_err *err)
{
    float *bt = NULL;
    double *squares = NULL;
    bool embedding = module->kind == AU_MODULE_EMBEDDING;
    size_t out = (size_t)module->out, r = (size_t)delta->rank;
    float s = (float)(strength * (double)delta->scale);
    au_status st;
    AU_ASSERT(delta->magnitude && module->weight);
    AU_TRY(au_calloc(&squares, out, sizeof *squares, err));
    if (embedding) {
        AU_TRY(au_calloc(&bt, out * r, sizeof *bt, err));
        for (size_t o = 0; o < out; o++)
            for (size_t j = 0; j < r; j++)
                bt[j * out + o] = delta->b[o * r + j];
        embedding_squares(squares, delta, module, s, bt);
    } else {
        linear_squares(squares, delta, module, s);
    }
    for (size_t o = 0; o < out; o++) {
        factor[o] = (float)((double)delta->magnitude[o] / sqrt(squares[o]));
        AU_FAIL_IF(!isfinite(factor[o]), AU_INVALID,
                   "DoRA of module %s: output %zu has magnitude %g and norm %g at strength %g",
                   module->path, o, (double)delta->magnitude[o], sqrt(squares[o]), strength);
    }
done:
    free(squares);
    free(bt);
    return st;
}
