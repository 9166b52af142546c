/* SPDX-License-Identifier: MIT */
/* An adapter: two bytes of length, adapter_config.json, then the safetensors file. What passes
 * every check must be usable: each delta readable over its whole extent, DoRA factors computable or
 * refused. */
#include <string.h>

#include "adapters/load.h"

static const float weights[16 * 8] = {1, 2, 3, [40] = 5, [127] = -1};
static const au_tensor matrix = {
    .name = "q", .dtype = AU_F32, .rank = 2, .shape = {8, 8}, .data = weights, .bytes = 256};
static const au_tensor table = {
    .name = "e", .dtype = AU_F32, .rank = 2, .shape = {16, 8}, .data = weights, .bytes = 512};
static const au_tensor vector = {
    .name = "n", .dtype = AU_F32, .rank = 1, .shape = {8}, .data = weights, .bytes = 32};
static const au_module modules[] = {
    {"m.a.q", AU_MODULE_LINEAR, 8, 8, true, &matrix, &vector},
    {"m.e.0", AU_MODULE_EMBEDDING, 16, 8, false, &table, NULL},
    {"m.n", AU_MODULE_NORM, 0, 8, true, &vector, &vector},
};

static volatile float sink;

static void touch(const float *v, int64_t n)
{
    for (int64_t i = 0; v && i < n; i++)
        sink = v[i];
}

static void use(const au_target *t)
{
    const au_module *m = &modules[t->module];
    const au_delta *d = &t->delta;
    float factor[8];
    touch(d->a, m->in * d->rank);
    touch(d->b, m->out * d->rank);
    touch(d->bias, m->out);
    touch(d->replace_weight, m->out * (m->in ? m->in : 1));
    touch(d->replace_bias, m->out);
    if (d->magnitude && au_delta_dora_factor(d, m, 0.5, factor, NULL) == AU_OK)
        touch(factor, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t config = (size_t)data[0] | (size_t)data[1] << 8;
    data += 2;
    size -= 2;
    config = config < size ? config : size;
    au_adapter_load l = {0};
    au_tensor_set *tensors = NULL;
    if (au_safetensors_from_memory(&tensors, data + config, size - config, "fuzz", NULL) != AU_OK)
        tensors = NULL;
    AU_ASSERT(au_problems_init(&l.problems, NULL) == AU_OK);
    bool ran =
        au_adapter_load_run(&l, (const char *)data, config, tensors, modules, 3, NULL) == AU_OK;
    if (ran && l.usable && l.tensors && !l.problems.count)
        for (size_t i = 0; i < l.n_targets; i++)
            use(&l.targets[i]);
    au_err err;
    AU_ASSERT((au_problems_check(&l.problems, &err) == AU_OK) == (l.problems.count == 0));
    au_adapter_load_free(&l);
    return 0;
}
