/* SPDX-License-Identifier: MIT */
/* The content hash, and the report of `aulos adapter inspect`. */
#include "adapters/load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"

enum { LINE_BYTES = AU_SHA256_TEXT + 64 };

/* "<sha256> <name>\n" of a file of the folder. */
static au_status hash_line(char line[LINE_BYTES], const char *dir, const char *name, au_err *err)
{
    char *path = NULL, hex[AU_SHA256_TEXT];
    au_status st;
    AU_TRY(au_path_join(&path, dir, name, err));
    AU_TRY(au_sha256_file(hex, path, err));
    snprintf(line, LINE_BYTES, "%s %s\n", hex, name);
done:
    free(path);
    return st;
}

au_status au_adapter_content_hash(char out[65], const char *dir, au_err *err)
{
    char lines[2][LINE_BYTES], text[2 * LINE_BYTES];
    const char *weights = au_adapter_weights_name(dir);
    au_status st = AU_OK;
    AU_FAIL_IF(!weights, AU_NOT_FOUND, "%s has no adapter_model.safetensors or adapter_model.bin",
               dir);
    AU_TRY(hash_line(lines[0], dir, "adapter_config.json", err));
    AU_TRY(hash_line(lines[1], dir, weights, err));
    int first = strcmp(lines[0], lines[1]) > 0;
    int n = snprintf(text, sizeof text, "%s%s", lines[first], lines[!first]);
    au_sha256_hex(out, text, (size_t)n);
done:
    return st;
}

static json_t *target_json(const au_target *t)
{
    json_t *j = json_object(), *parts = json_array();
    for (int p = 0; p < AU_PART_COUNT; p++)
        if (t->parts[p])
            json_array_append_new(parts, json_string(au_part_name((au_part)p)));
    json_object_set_new(j, "module", json_string(t->path));
    json_object_set_new(j, "parts", parts);
    if (t->rank) {
        json_object_set_new(j, "rank", json_integer(t->rank));
        json_object_set_new(j, "scale", json_real(t->scale));
    }
    return j;
}

/* What the config says, as far as it could be read. */
static void add_config(json_t *j, const au_adapter_load *l)
{
    const au_adapter_config *c = &l->config;
    double scale = c->alpha / (c->rslora ? sqrt((double)c->r) : (double)c->r);
    int64_t rank = 0;
    for (size_t i = 0; i < l->n_targets; i++)
        rank = l->targets[i].rank > rank ? l->targets[i].rank : rank;
    json_object_set_new(j, "kind", json_string(c->dora ? "dora" : "lora"));
    json_object_set_new(j, "rank", json_integer(rank ? rank : c->r));
    json_object_set_new(j, "alpha", json_real(c->alpha));
    json_object_set_new(j, "scale", json_real(scale));
    json_object_set_new(j, "rslora", json_boolean(c->rslora));
    json_object_set_new(j, "base_model", c->base_model ? json_string(c->base_model) : json_null());
}

static json_t *report_json(const au_adapter_load *l, const char *sha256)
{
    json_t *j = json_object(), *targets = json_array();
    json_object_set_new(j, "status", json_string(l->problems.count ? "rejected" : "ready"));
    json_object_set_new(j, "checked_against_model", json_boolean(l->n_modules > 0));
    json_object_set(j, "problems", l->problems.list);
    json_object_set_new(j, "problem_count", json_integer((json_int_t)l->problems.count));
    json_object_set(j, "warnings", l->problems.warnings);
    json_object_set(j, "unmatched", l->unmatched);
    json_object_set_new(j, "matched", json_integer((json_int_t)l->matched));
    for (size_t i = 0; i < l->n_targets; i++)
        if (!l->n_modules || l->targets[i].module != SIZE_MAX)
            json_array_append_new(targets, target_json(&l->targets[i]));
    json_object_set_new(j, "targets", targets);
    json_object_set_new(j, "sha256", sha256 ? json_string(sha256) : json_null());
    if (l->tensors)
        json_object_set_new(j, "bytes",
                            json_integer((json_int_t)au_tensor_set_file(l->tensors, 0)->bytes));
    if (l->usable)
        add_config(j, l);
    return j;
}

au_status au_adapter_report_json(au_buf *out, const char *dir, const au_module *modules, size_t n,
                                 au_err *err)
{
    au_adapter_load load;
    char sha256[65];
    json_t *j = NULL;
    au_status st;
    AU_TRY(au_adapter_load_dir(&load, dir, modules, n, err));
    bool hashed = au_adapter_content_hash(sha256, dir, NULL) == AU_OK;
    j = report_json(&load, hashed ? sha256 : NULL);
    AU_FAIL_IF(!j, AU_NOMEM, "cannot allocate a report");
    au_json_dump(out, j);
    st = au_buf_check(out, err);
done:
    json_decref(j);
    au_adapter_load_free(&load);
    return st;
}
