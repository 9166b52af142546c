/* SPDX-License-Identifier: MIT */
/* DoRA's factor. The rows of W + s B A are formed in f32, one at a time, their squares summed in
 * f64. Plain C in a fixed order: the same on every processor. Stateless. */
#include "adapters/adapters.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

/* row[i] += c * v[i] */
static void add_scaled(float *restrict row, const float *restrict v, float c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        row[i] += c * v[i];
}

/* out[o] = sum of squares of row o of W + s B A. */
static void linear_squares(double *out, const au_delta *d, const au_module *m, float s,
                           float *delta, float *w)
{
    size_t in = (size_t)m->in, r = (size_t)d->rank;
    for (size_t o = 0; o < (size_t)m->out; o++) {
        for (size_t i = 0; i < in; i++)
            delta[i] = 0;
        for (size_t j = 0; j < r; j++)
            add_scaled(delta, d->a + j * in, s * d->b[o * r + j], in);
        au_tensor_read_f32(m->weight, o * in, in, w);
        double sum = 0;
        for (size_t i = 0; i < in; i++) {
            double v = (double)(w[i] + delta[i]);
            sum += v * v;
        }
        out[o] = sum;
    }
}

/* out[o] = sum over the rows n of the square of E[n, o] + s (B A)[o, n]; bt is B transposed, [rank,
 * out]. */
static void embedding_squares(double *out, const au_delta *d, const au_module *m, float s,
                              float *delta, float *w, const float *bt)
{
    size_t width = (size_t)m->out, r = (size_t)d->rank;
    for (size_t n = 0; n < (size_t)m->in; n++) {
        for (size_t i = 0; i < width; i++)
            delta[i] = 0;
        for (size_t j = 0; j < r; j++)
            add_scaled(delta, bt + j * width, s * d->a[n * r + j], width);
        au_tensor_read_f32(m->weight, n * width, width, w);
        for (size_t i = 0; i < width; i++) {
            double v = (double)(w[i] + delta[i]);
            out[i] += v * v;
        }
    }
}

au_status au_delta_dora_factor(const au_delta *delta, const au_module *module, double strength,
                               float *factor, au_err *err)
{
    float *rows = NULL, *bt = NULL;
    double *squares = NULL;
    bool embedding = module->kind == AU_MODULE_EMBEDDING;
    size_t width = (size_t)(embedding ? module->out : module->in), out = (size_t)module->out;
    size_t r = (size_t)delta->rank;
    float s = (float)(strength * (double)delta->scale);
    au_status st;
    AU_ASSERT(delta->magnitude && module->weight);
    AU_TRY(au_calloc(&rows, width, 2 * sizeof *rows, err));
    AU_TRY(au_calloc(&squares, out, sizeof *squares, err));
    if (embedding) {
        AU_TRY(au_calloc(&bt, out * r, sizeof *bt, err));
        for (size_t o = 0; o < out; o++)
            for (size_t j = 0; j < r; j++)
                bt[j * out + o] = delta->b[o * r + j];
        embedding_squares(squares, delta, module, s, rows, rows + width, bt);
    } else {
        linear_squares(squares, delta, module, s, rows, rows + width);
    }
    for (size_t o = 0; o < out; o++) {
        factor[o] = (float)((double)delta->magnitude[o] / sqrt(squares[o]));
        AU_FAIL_IF(!isfinite(factor[o]), AU_INVALID,
                   "DoRA of module %s: output %zu has magnitude %g and norm %g at strength %g",
                   module->path, o, (double)delta->magnitude[o], sqrt(squares[o]), strength);
    }
done:
    free(rows);
    free(squares);
    free(bt);
    return st;
}
