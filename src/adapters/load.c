/* SPDX-License-Identifier: MIT */
/* Reading an adapter: files, config, the names of the tensors sorted into targets, then the checks.
 */
#include "adapters/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

enum { MAX_CONFIG_BYTES = 4 << 20, MAX_NAMES_BYTES = 64 << 20 };

static const char config_name[] = "adapter_config.json";
static const char safetensors_name[] = "adapter_model.safetensors";
static const char bin_name[] = "adapter_model.bin";

const char *au_adapter_weights_name(const char *dir)
{
    const char *const names[] = {safetensors_name, bin_name};
    for (size_t i = 0; i < 2; i++) {
        char *path = NULL;
        bool there = au_path_join(&path, dir, names[i], NULL) == AU_OK && au_file_exists(path);
        free(path);
        if (there)
            return names[i];
    }
    return NULL;
}

/* ---- Modules by path ---- */

static int compare_modules(const void *a, const void *b, void *modules)
{
    const au_module *m = modules;
    return strcmp(m[*(const size_t *)a].path, m[*(const size_t *)b].path);
}

static au_status sort_modules(au_adapter_load *l, au_err *err)
{
    au_status st = au_calloc(&l->by_path, l->n_modules, sizeof *l->by_path, err);
    if (st != AU_OK)
        return st;
    for (size_t i = 0; i < l->n_modules; i++)
        l->by_path[i] = i;
    if (l->n_modules)
        qsort_r(l->by_path, l->n_modules, sizeof *l->by_path, compare_modules,
                (void *)(uintptr_t)l->modules);
    return AU_OK;
}

size_t au_adapter_find_module(const au_adapter_load *l, const char *path)
{
    size_t low = 0, high = l->n_modules;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = strcmp(path, l->modules[l->by_path[mid]].path);
        if (c == 0)
            return l->by_path[mid];
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return SIZE_MAX;
}

/* ---- Targets ---- */

typedef struct named {
    au_key key;
    const au_tensor *tensor;
} named;

static int compare_named(const void *a, const void *b)
{
    const named *x = a, *y = b;
    size_t n = x->key.module_len < y->key.module_len ? x->key.module_len : y->key.module_len;
    int c = memcmp(x->key.module, y->key.module, n);
    if (c == 0)
        c = (x->key.module_len > y->key.module_len) - (x->key.module_len < y->key.module_len);
    /* The tensors of a set are sorted, so this keeps their order. */
    return c ? c : (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

static bool same_module(const named *x, const named *y)
{
    return x->key.module_len == y->key.module_len &&
           memcmp(x->key.module, y->key.module, x->key.module_len) == 0;
}

/* Names of known form, sorted by module. The others are problems. */
static au_status parse_names(au_adapter_load *l, named **out, size_t *n, au_err *err)
{
    size_t count = au_tensor_set_count(l->tensors);
    *n = 0;
    au_status st = au_calloc(out, count, sizeof **out, err);
    if (st != AU_OK)
        return st;
    for (size_t i = 0; i < count; i++) {
        named x = {.tensor = au_tensor_set_at(l->tensors, i)};
        if (au_key_parse(&x.key, x.tensor->name)) {
            (*out)[(*n)++] = x;
            continue;
        }
        json_array_append_new(l->unmatched, json_string(x.tensor->name));
        au_problem(&l->problems, AU_UNSUPPORTED,
                   "tensor %s is no part of a LoRA that is known here", x.tensor->name);
    }
    if (*n)
        qsort(*out, *n, sizeof **out, compare_named);
    return AU_OK;
}

static au_status make_targets(au_adapter_load *l, au_err *err)
{
    named *names = NULL;
    size_t n;
    au_status st;
    AU_TRY(parse_names(l, &names, &n, err));
    AU_TRY(au_calloc(&l->targets, n, sizeof *l->targets, err));
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || !same_module(&names[i - 1], &names[i])) {
            au_target *t = &l->targets[l->n_targets++];
            t->path = au_arena_strndup(&l->arena, names[i].key.module, names[i].key.module_len);
            AU_FAIL_IF(!t->path, AU_LIMIT, "the module names need more than %d bytes",
                       MAX_NAMES_BYTES);
            t->module = l->n_modules ? au_adapter_find_module(l, t->path) : SIZE_MAX;
        }
        const au_tensor **part = &l->targets[l->n_targets - 1].parts[names[i].key.part];
        if (*part)
            au_problem(&l->problems, AU_INVALID, "tensors %s and %s are both the %s of module %s",
                       (*part)->name, names[i].tensor->name, au_part_name(names[i].key.part),
                       l->targets[l->n_targets - 1].path);
        *part = names[i].tensor;
    }
done:
    free(names);
    return st;
}

/* ---- The whole ---- */

static au_status check_tensors(au_adapter_load *l, au_err *err)
{
    au_status st;
    AU_TRY(make_targets(l, err));
    if (!au_tensor_set_count(l->tensors))
        au_problem(&l->problems, AU_INVALID, "the weights file holds no tensors");
    for (size_t i = 0; i < l->n_targets; i++)
        au_target_check(l, &l->targets[i]);
    au_config_check(l);
    if (l->problems.count)
        goto done;
    AU_TRY(au_targets_widen(l, err));
    AU_TRY(au_targets_check_effect(l, err));
done:
    return st;
}

au_status au_adapter_load_run(au_adapter_load *l, const char *config, size_t config_len,
                              au_tensor_set *tensors, const au_module *modules, size_t n,
                              au_err *err)
{
    au_status st = AU_OK;
    l->tensors = tensors;
    l->modules = modules;
    l->n_modules = n;
    au_arena_init(&l->arena, MAX_NAMES_BYTES);
    l->unmatched = json_array();
    AU_FAIL_IF(!l->unmatched, AU_NOMEM, "cannot allocate a list");
    AU_TRY(sort_modules(l, err));
    if (config)
        AU_TRY(
            au_adapter_config_read(&l->config, &l->usable, config, config_len, &l->problems, err));
    if (l->usable && l->tensors)
        AU_TRY(check_tensors(l, err));
done:
    return st;
}

/* A file's own error is a problem of the adapter, unless memory failed. Reports go to people who
 * need not know where the server keeps its files: of `path` in the message only the name stays. */
static au_status as_problem(au_adapter_load *l, au_status st, const au_err *why, const char *path,
                            au_err *err)
{
    if (st == AU_NOMEM || st == AU_INTERNAL)
        return au_fail(err, st, "%s", why->message);
    if (st == AU_OK)
        return AU_OK;
    const char *at = strstr(why->message, path);
    size_t dir = at ? (size_t)(au_path_base(path) - path) : 0;
    au_problem(&l->problems, st, "%.*s%s", at ? (int)(at - why->message) : 0, why->message,
               at ? at + dir : why->message);
    return AU_OK;
}

static au_status open_weights(au_adapter_load *l, au_tensor_set **out, const char *dir, au_err *err)
{
    const char *name = au_adapter_weights_name(dir);
    char *path = NULL;
    au_err why;
    au_status st;
    *out = NULL;
    if (!name) {
        au_problem(&l->problems, AU_NOT_FOUND, "the folder has neither %s nor %s", safetensors_name,
                   bin_name);
        return AU_OK;
    }
    AU_TRY(au_path_join(&path, dir, name, err));
    st = name == bin_name ? au_torch_open(out, path, &why) : au_safetensors_open(out, path, &why);
    st = as_problem(l, st, &why, path, err);
done:
    free(path);
    return st;
}

au_status au_adapter_load_dir(au_adapter_load *l, const char *dir, const au_module *modules,
                              size_t n, au_err *err)
{
    char *path = NULL, *config = NULL;
    size_t config_len = 0;
    au_tensor_set *tensors = NULL;
    au_err why;
    au_status st;
    *l = (au_adapter_load){0};
    AU_FAIL_IF(!au_dir_exists(dir), AU_NOT_FOUND, "%s is not a folder", dir);
    AU_TRY(au_problems_init(&l->problems, err));
    AU_TRY(au_path_join(&path, dir, config_name, err));
    st = au_file_read(&config, &config_len, path, MAX_CONFIG_BYTES, &why);
    AU_TRY(as_problem(l, st, &why, path, err));
    AU_TRY(open_weights(l, &tensors, dir, err));
    st = au_adapter_load_run(l, config, config_len, tensors, modules, n, err);
done:
    free(config);
    free(path);
    return st;
}

void au_adapter_load_free(au_adapter_load *l)
{
    au_problems_deinit(&l->problems);
    au_adapter_config_free(&l->config);
    au_arena_deinit(&l->arena);
    au_tensor_set_close(&l->tensors);
    json_decref(l->unmatched);
    free(l->targets);
    free(l->by_path);
    free(l->block);
    *l = (au_adapter_load){0};
}
