/* SPDX-License-Identifier: MIT */
/* What must hold of the tensors of one target: that they belong together, fit the module, and are
 * finite. */
#include "adapters/load.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

enum { BLOCK = 1024 };

/* Whether the target's own parts of a kind are there. */
static bool has(const au_target *t, au_part part)
{
    return t->parts[part] != NULL;
}

/* False, and a problem, unless the tensor has just this shape. */
static bool check_shape(au_adapter_load *l, const au_tensor *t, int rank, const int64_t *want,
                        const char *hint)
{
    if (t->rank == rank && memcmp(t->shape, want, (size_t)rank * sizeof *want) == 0)
        return true;
    char found[200], expected[200];
    au_problem(&l->problems, AU_INVALID, "tensor %s has shape %s, expected %s%s", t->name,
               au_tensor_shape_text(found, sizeof found, t->rank, t->shape),
               au_tensor_shape_text(expected, sizeof expected, rank, want), hint);
    return false;
}

/* Type and values of a tensor. */
static void check_values(au_adapter_load *l, const au_tensor *t)
{
    float block[BLOCK];
    if (t->dtype != AU_F32 && t->dtype != AU_F16 && t->dtype != AU_BF16) {
        au_problem(&l->problems, AU_UNSUPPORTED,
                   "tensor %s has dtype %s, expected F32, F16 or BF16", t->name,
                   au_dtype_name(t->dtype));
        return;
    }
    size_t n = (size_t)au_tensor_elements(t);
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t m = n - i < BLOCK ? n - i : BLOCK;
        au_tensor_read_f32(t, i, m, block);
        for (size_t k = 0; k < m; k++)
            if (!isfinite(block[k])) {
                au_problem(&l->problems, AU_CORRUPT,
                           "tensor %s is not finite: it holds %s at element %zu", t->name,
                           isnan(block[k]) ? "NaN" : "an infinity", i + k);
                return;
            }
    }
}

/* The tensors belong to a module that the model does not have. */
static void refuse_unmatched(au_adapter_load *l, const au_target *t)
{
    const au_tensor *first = NULL;
    size_t count = 0;
    for (int p = 0; p < AU_PART_COUNT; p++) {
        if (!has(t, (au_part)p))
            continue;
        if (!first)
            first = t->parts[p];
        count++;
        json_array_append_new(l->unmatched, json_string(t->parts[p]->name));
    }
    char more[40] = "";
    if (count > 1)
        snprintf(more, sizeof more, " (and %zu more)", count - 1);
    const char *conv = has(t, AU_PART_A) && t->parts[AU_PART_A]->rank > 2
                           ? "; it looks like a convolution, which is not supported"
                           : "";
    au_problem(&l->problems, AU_INVALID,
               "tensor %s%s belongs to module %s, which the model does not have%s", first->name,
               more, t->path, conv);
}

/* The two halves of a low-rank part: both there and agreeing about the rank, which must be that of
 * the config. */
static bool check_pair(au_adapter_load *l, au_target *t, au_part a, au_part b)
{
    const au_tensor *ta = t->parts[a], *tb = t->parts[b];
    if (!ta || !tb) {
        au_problem(&l->problems, AU_INVALID, "module %s has a %s without its %s", t->path,
                   au_part_name(ta ? a : b), au_part_name(ta ? b : a));
        return false;
    }
    if (ta->rank > 2 || tb->rank > 2) {
        au_problem(&l->problems, AU_UNSUPPORTED,
                   "tensor %s has %d dimensions: LoRA of convolutions is not supported",
                   ta->rank > 2 ? ta->name : tb->name, ta->rank > 2 ? ta->rank : tb->rank);
        return false;
    }
    if (ta->rank != 2 || tb->rank != 2) {
        au_problem(&l->problems, AU_INVALID, "tensor %s has %d dimensions, expected 2",
                   ta->rank != 2 ? ta->name : tb->name, ta->rank != 2 ? ta->rank : tb->rank);
        return false;
    }
    bool fine = true;
    if (ta->shape[0] != tb->shape[1]) {
        au_problem(&l->problems, AU_INVALID,
                   "%s and %s of module %s disagree about the rank: %" PRId64 " and %" PRId64,
                   au_part_name(a), au_part_name(b), t->path, ta->shape[0], tb->shape[1]);
        fine = false;
    }
    const char *pattern;
    t->rank = au_adapter_config_rank(&l->config, t->path, &pattern, &l->problems);
    if (t->rank != ta->shape[0]) {
        au_problem(&l->problems, AU_INVALID,
                   "tensor %s has rank %" PRId64 ", expected %" PRId64
                   " (%s%s%s of adapter_config.json)",
                   ta->name, ta->shape[0], t->rank, pattern ? "rank_pattern \"" : "r",
                   pattern ? pattern : "", pattern ? "\"" : "");
        fine = false;
    }
    return fine;
}

static void set_scale(au_adapter_load *l, au_target *t)
{
    double alpha = au_adapter_config_alpha(&l->config, t->path, &l->problems);
    t->scale = alpha / (l->config.rslora ? sqrt((double)t->rank) : (double)t->rank);
    if (!isfinite((float)t->scale))
        au_problem(&l->problems, AU_INVALID, "module %s: alpha %g is not a usable number", t->path,
                   alpha);
}

/* Low-rank part of a linear layer or an embedding. m may be NULL: nothing to compare with. */
static void check_lora(au_adapter_load *l, au_target *t, const au_module *m, au_part a, au_part b)
{
    if (!check_pair(l, t, a, b))
        return;
    set_scale(l, t);
    const au_tensor *ta = t->parts[a], *tb = t->parts[b];
    int64_t in = m ? m->in : ta->shape[1], out = m ? m->out : tb->shape[0];
    const char *hint = " (made for another model?)";
    check_shape(l, ta, 2, (int64_t[]){t->rank, in}, hint);
    check_shape(l, tb, 2, (int64_t[]){out, t->rank}, hint);
    if (has(t, AU_PART_B_BIAS))
        check_shape(l, t->parts[AU_PART_B_BIAS], 1, &out, "");
    if (has(t, AU_PART_MAGNITUDE))
        check_shape(l, t->parts[AU_PART_MAGNITUDE], 1, &out, "");
}

/* The config's switches and the tensors must say the same. */
static void check_switches(au_adapter_load *l, const au_target *t, bool embedding)
{
    if (l->config.dora && !has(t, AU_PART_MAGNITUDE))
        au_problem(&l->problems, AU_INVALID,
                   "use_dora is true, but module %s has no lora_magnitude_vector", t->path);
    if (!l->config.dora && has(t, AU_PART_MAGNITUDE))
        au_problem(&l->problems, AU_INVALID,
                   "tensor %s is a magnitude vector, but use_dora is not true",
                   t->parts[AU_PART_MAGNITUDE]->name);
    if (l->config.lora_bias && !embedding && !has(t, AU_PART_B_BIAS))
        au_problem(&l->problems, AU_INVALID, "lora_bias is true, but module %s has no lora_B.bias",
                   t->path);
    if (!l->config.lora_bias && has(t, AU_PART_B_BIAS))
        au_problem(&l->problems, AU_INVALID, "tensor %s is a bias, but lora_bias is not true",
                   t->parts[AU_PART_B_BIAS]->name);
}

/* Saved weight and bias of the module itself. */
static void check_saved(au_adapter_load *l, const au_target *t, const au_module *m)
{
    const au_tensor *w = t->parts[AU_PART_WEIGHT], *b = t->parts[AU_PART_BIAS];
    bool saved = au_adapter_config_saves(&l->config, t->path);
    if (w && !saved)
        au_problem(&l->problems, AU_INVALID,
                   "tensor %s replaces a weight, but modules_to_save does not name its module",
                   w->name);
    if (b && !saved && !l->config.base_biases)
        au_problem(&l->problems, AU_INVALID,
                   "tensor %s replaces a bias, but neither modules_to_save nor bias says so",
                   b->name);
    if (!m)
        return;
    const int64_t matrix[] = {m->kind == AU_MODULE_EMBEDDING ? m->in : m->out,
                              m->kind == AU_MODULE_EMBEDDING ? m->out : m->in};
    if (w)
        check_shape(l, w, m->kind == AU_MODULE_NORM ? 1 : 2, matrix, " (made for another model?)");
    if (b && !m->has_bias)
        au_problem(&l->problems, AU_INVALID, "tensor %s: module %s has no bias", b->name, t->path);
    else if (b)
        check_shape(l, b, 1, &m->out, "");
    if (saved && !w != !(b || !m->has_bias))
        au_problem(&l->problems, AU_INVALID,
                   "modules_to_save names module %s, but its %s is not in the file", t->path,
                   w ? "bias" : "weight");
}

void au_target_check(au_adapter_load *l, au_target *t)
{
    const au_module *m = NULL;
    if (l->n_modules) {
        if (t->module == SIZE_MAX) {
            refuse_unmatched(l, t);
            return;
        }
        m = &l->modules[t->module];
    }
    for (int p = 0; p < AU_PART_COUNT; p++) {
        if (!has(t, (au_part)p))
            continue;
        l->matched++;
        check_values(l, t->parts[p]);
    }
    bool linear = has(t, AU_PART_A) || has(t, AU_PART_B) || has(t, AU_PART_B_BIAS);
    bool embedding = has(t, AU_PART_EMBED_A) || has(t, AU_PART_EMBED_B);
    bool lora = linear || embedding || has(t, AU_PART_MAGNITUDE);
    if (linear && embedding)
        au_problem(&l->problems, AU_INVALID,
                   "module %s has LoRA tensors of a linear layer and of an embedding", t->path);
    else if (lora && m && m->kind == AU_MODULE_NORM)
        au_problem(&l->problems, AU_UNSUPPORTED,
                   "module %s is a norm: LoRA of norms is not supported", t->path);
    else if (linear && m && m->kind != AU_MODULE_LINEAR)
        au_problem(&l->problems, AU_INVALID,
                   "module %s is an embedding, but its tensors are those of a linear layer",
                   t->path);
    else if (embedding && m && m->kind != AU_MODULE_EMBEDDING)
        au_problem(&l->problems, AU_INVALID,
                   "module %s is a linear layer, but its tensors are those of an embedding",
                   t->path);
    else if (embedding)
        check_lora(l, t, m, AU_PART_EMBED_A, AU_PART_EMBED_B);
    else if (lora)
        check_lora(l, t, m, AU_PART_A, AU_PART_B);
    if (lora)
        check_switches(l, t, embedding);
    if (lora && has(t, AU_PART_WEIGHT))
        au_problem(&l->problems, AU_UNSUPPORTED,
                   "module %s has LoRA tensors and a saved weight, expected one of the two",
                   t->path);
    if (has(t, AU_PART_WEIGHT) || has(t, AU_PART_BIAS))
        check_saved(l, t, m);
}

/* Whether `entry` of target_modules, matched as PEFT does, names a container of modules: q matches
 * a.q as well as q, and here it must be the path up to some dot. */
static const char *container_of(const au_adapter_load *l, const char *entry, size_t *len)
{
    size_t n = strlen(entry);
    for (size_t i = 0; i < l->n_modules; i++) {
        const char *path = l->modules[i].path;
        for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
            size_t at = (size_t)(dot - path);
            if (at >= n && memcmp(dot - n, entry, n) == 0 &&
                (at == n || dot[-(ptrdiff_t)n - 1] == '.')) {
                *len = at;
                return path;
            }
        }
    }
    return NULL;
}

static const au_target *find_target(const au_adapter_load *l, size_t module)
{
    size_t low = 0, high = l->n_targets;
    const char *path = l->modules[module].path;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = strcmp(path, l->targets[mid].path);
        if (c == 0)
            return &l->targets[mid];
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* Every module that an entry of modules_to_save names must be in the file. */
static void check_saved_entry(au_adapter_load *l, const char *entry)
{
    bool any = false;
    for (size_t i = 0; i < l->n_modules; i++) {
        if (!au_adapter_entry_saves(entry, l->modules[i].path))
            continue;
        any = true;
        const au_target *t = find_target(l, i);
        if (!t || (!has(t, AU_PART_WEIGHT) && !has(t, AU_PART_BIAS)))
            au_problem(
                &l->problems, AU_INVALID,
                "modules_to_save names module %s (by \"%s\"), but its weight is not in the file",
                l->modules[i].path, entry);
    }
    if (!any)
        au_warning(&l->problems, "modules_to_save: no module of the model ends in \"%s\"", entry);
}

void au_config_check(au_adapter_load *l)
{
    if (!l->n_modules)
        return;
    for (size_t i = 0; i < json_array_size(l->config.modules_to_save); i++)
        check_saved_entry(l, json_string_value(json_array_get(l->config.modules_to_save, i)));
    if (json_is_string(l->config.target_modules))
        return;
    for (size_t i = 0; i < json_array_size(l->config.target_modules); i++) {
        size_t len;
        const char *entry = json_string_value(json_array_get(l->config.target_modules, i));
        const char *container = container_of(l, entry, &len);
        if (container)
            au_problem(&l->problems, AU_UNSUPPORTED,
                       "target_modules names %s, which is %.*s, a container of layers and no layer",
                       entry, (int)len, container);
    }
}
