/* SPDX-License-Identifier: MIT */
/* The f32 copies that the engine computes with, in one block: what each holds, and whether it does
 * anything. */
#include "adapters/load.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Floats of a tensor in the block: its elements, up to a multiple of 64 bytes. */
static size_t slot(const au_tensor *t)
{
    return t ? ((size_t)au_tensor_elements(t) + 15) / 16 * 16 : 0;
}

static const float *widen(const au_tensor *t, float **at)
{
    if (!t)
        return NULL;
    float *out = *at;
    au_tensor_read_f32(t, 0, (size_t)au_tensor_elements(t), out);
    *at += slot(t);
    return out;
}

/* Widens A [r, n] into [n, r]. */
static const float *widen_transposed(const au_tensor *t, float **at, float *row)
{
    if (!t)
        return NULL;
    float *out = *at;
    size_t r = (size_t)t->shape[0], n = (size_t)t->shape[1];
    for (size_t j = 0; j < r; j++) {
        au_tensor_read_f32(t, j * n, n, row);
        for (size_t i = 0; i < n; i++)
            out[i * r + j] = row[i];
    }
    *at += slot(t);
    return out;
}

au_status au_targets_widen(au_adapter_load *l, au_err *err)
{
    size_t floats = 0, longest = 1, bytes;
    float *row = NULL;
    au_status st = AU_OK;
    for (size_t i = 0; i < l->n_targets; i++) {
        const au_tensor *a = l->targets[i].parts[AU_PART_EMBED_A];
        for (int p = 0; p < AU_PART_COUNT; p++)
            floats += slot(l->targets[i].parts[p]);
        if (a && (size_t)a->shape[1] > longest)
            longest = (size_t)a->shape[1];
    }
    AU_FAIL_IF(!au_size_mul(floats, sizeof(float), &bytes), AU_LIMIT, "the adapter is too large");
    AU_TRY(au_alloc_aligned(&l->block, bytes, err));
    AU_TRY(au_calloc(&row, longest, sizeof *row, err));
    float *at = l->block;
    for (size_t i = 0; i < l->n_targets; i++) {
        au_target *t = &l->targets[i];
        bool embedding = t->parts[AU_PART_EMBED_A];
        t->delta = (au_delta){
            .rank = (int)t->rank,
            .scale = (float)t->scale,
            .a = embedding ? widen_transposed(t->parts[AU_PART_EMBED_A], &at, row)
                           : widen(t->parts[AU_PART_A], &at),
            .b = widen(t->parts[embedding ? AU_PART_EMBED_B : AU_PART_B], &at),
            .bias = widen(t->parts[AU_PART_B_BIAS], &at),
            .magnitude = widen(t->parts[AU_PART_MAGNITUDE], &at),
            .replace_weight = widen(t->parts[AU_PART_WEIGHT], &at),
            .replace_bias = widen(t->parts[AU_PART_BIAS], &at),
        };
    }
done:
    free(row);
    return st;
}

static bool any_nonzero(const float *v, size_t n, size_t stride)
{
    for (size_t i = 0; i < n; i++)
        if (v[i * stride] != 0)
            return true;
    return false;
}

/* Whether B A has a part that is not zero: some rank with both its row of A and its column of B. */
static bool lora_acts(const au_target *t)
{
    const au_delta *d = &t->delta;
    if (!d->rank || d->scale == 0)
        return false;
    if (d->bias && any_nonzero(d->bias, (size_t)t->parts[AU_PART_B_BIAS]->shape[0], 1))
        return true;
    bool embedding = t->parts[AU_PART_EMBED_A];
    size_t r = (size_t)d->rank;
    size_t in = (size_t)t->parts[embedding ? AU_PART_EMBED_A : AU_PART_A]->shape[1];
    size_t out = (size_t)t->parts[embedding ? AU_PART_EMBED_B : AU_PART_B]->shape[0];
    for (size_t j = 0; j < r; j++)
        if (any_nonzero(d->b + j, out, r) &&
            any_nonzero(d->a + (embedding ? j : j * in), in, embedding ? r : 1))
            return true;
    return false;
}

/* Whether a replacement differs from the base's own tensor. An unknown base counts as different. */
static bool replaces(const float *v, const au_tensor *saved, const au_tensor *base)
{
    float block[256];
    size_t n = saved ? (size_t)au_tensor_elements(saved) : 0, k = sizeof block / sizeof *block;
    if (!v || !base)
        return v != NULL;
    for (size_t i = 0; i < n; i += k) {
        size_t m = n - i < k ? n - i : k;
        au_tensor_read_f32(base, i, m, block);
        for (size_t e = 0; e < m; e++)
            if (v[i + e] != block[e])
                return true;
    }
    return false;
}

/* How far a stored norm may be off for its rounding alone. */
static double rounding(au_dtype t)
{
    return t == AU_F32 ? 1e-5 : t == AU_F16 ? 2e-3 : 1.6e-2;
}

/* Whether a magnitude vector without a low-rank part differs from the norms that W has anyway. */
static au_status magnitude_acts(bool *acts, const au_target *t, const au_module *m, au_err *err)
{
    float *factor = NULL;
    double a = rounding(t->parts[AU_PART_MAGNITUDE]->dtype), b = rounding(m->weight->dtype);
    au_status st;
    *acts = false;
    AU_TRY(au_calloc(&factor, (size_t)m->out, sizeof *factor, err));
    AU_TRY(au_delta_dora_factor(&t->delta, m, 1, factor, err));
    for (int64_t i = 0; i < m->out; i++)
        *acts |= fabs((double)factor[i] - 1) > (a > b ? a : b);
done:
    free(factor);
    return st;
}

au_status au_targets_check_effect(au_adapter_load *l, au_err *err)
{
    for (size_t i = 0; i < l->n_targets; i++) {
        const au_target *t = &l->targets[i];
        const au_module *m = l->n_modules ? &l->modules[t->module] : NULL;
        if (lora_acts(t) ||
            replaces(t->delta.replace_weight, t->parts[AU_PART_WEIGHT], m ? m->weight : NULL) ||
            replaces(t->delta.replace_bias, t->parts[AU_PART_BIAS], m ? m->bias : NULL))
            return AU_OK;
        if (!t->delta.magnitude)
            continue;
        bool acts = true;
        au_status st = m && m->weight ? magnitude_acts(&acts, t, m, err) : AU_OK;
        if (st != AU_OK || acts)
            return st;
    }
    au_problem(
        &l->problems, AU_INVALID,
        "the adapter would change nothing: every B (and bias) is zero, and nothing is replaced by "
        "another value");
    return AU_OK;
}
