/* SPDX-License-Identifier: MIT */
/* The report of `model inspect`. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/fs.h"
#include "engine/engine.h"

enum { REPORT_BYTES = 64 << 20 };

static json_t *tensor_list(const au_tensor_set *set)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < au_tensor_set_count(set); i++) {
        const au_tensor *t = au_tensor_set_at(set, i);
        json_t *shape = json_array();
        for (int r = 0; r < t->rank; r++)
            json_array_append_new(shape, json_integer(t->shape[r]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", t->name, "dtype",
                                              au_dtype_name(t->dtype), "shape", shape));
    }
    return list;
}

static json_t *dtype_counts(const au_tensor_set *set, json_int_t *elements)
{
    json_t *counts = json_object();
    *elements = 0;
    for (size_t i = 0; counts && i < au_tensor_set_count(set); i++) {
        const au_tensor *t = au_tensor_set_at(set, i);
        const char *name = au_dtype_name(t->dtype);
        json_object_set_new(counts, name,
                            json_integer(json_integer_value(json_object_get(counts, name)) + 1));
        *elements += au_tensor_elements(t);
    }
    return counts;
}

static au_status file_list(const au_tensor_set *set, bool full_hash, json_t **out, au_err *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < au_tensor_set_files(set); i++) {
        const au_tensor_file *f = au_tensor_set_file(set, i);
        json_t *file =
            json_pack("{s:s, s:I}", "name", au_path_base(f->path), "bytes", (json_int_t)f->bytes);
        if (full_hash) {
            char hash[AU_SHA256_TEXT];
            au_status st = au_sha256_file(hash, f->path, err);
            if (st != AU_OK) {
                json_decref(file);
                json_decref(list);
                return st;
            }
            json_object_set_new(file, "sha256", json_string(hash));
        }
        json_array_append_new(list, file);
    }
    *out = list;
    return AU_OK;
}

/* Session bytes of one clip of ten seconds with guidance, as the CLI makes by default. */
static uint64_t default_session(const au_model *m)
{
    au_params params;
    au_params_init(&params, sizeof params);
    const int32_t tokens[16] = {0};
    const au_clip_spec clip = {.tokens = tokens,
                               .n_tokens = 16,
                               .frames = (size_t)(m->info.frame_rate * 10),
                               .params = &params};
    const au_clip_spec *clips[] = {&clip};
    return m->family->session_bytes(m->net, clips, 1, au_pool_threads(m->pool));
}

au_status au_model_report(const au_model *model, bool full_hash, char **json, au_err *err)
{
    const au_model_info *info = &model->info;
    json_int_t elements;
    json_t *files = NULL, *dtypes = dtype_counts(model->tensors, &elements);
    au_status st = file_list(model->tensors, full_hash, &files, err);
    json_t *root = NULL;
    if (st != AU_OK) {
        json_decref(dtypes);
        goto done;
    }
    root = json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:i, s:I, s:I, s:o, s:o, s:s, s:o}", "name",
                     info->name, "family", info->family, "fingerprint", info->fingerprint,
                     "sample_rate", info->sample_rate, "channels", info->channels, "frame_rate",
                     info->frame_rate, "codebooks", info->codebooks, "parameters", elements,
                     "weights_bytes", (json_int_t)info->weights_bytes, "dtypes", dtypes, "files",
                     files, "tokenizer", au_tokenizer_file(model->tokenizer), "tensors",
                     tensor_list(model->tensors));
    AU_FAIL_IF(!root, AU_NOMEM, "cannot allocate the report");
    json_object_set_new(root, "memory",
                        json_pack("{s:I, s:I}", "weights_bytes", (json_int_t)info->weights_bytes,
                                  "session_10s_bytes", (json_int_t)default_session(model)));
    json_object_set_new(root, "limits",
                        json_pack("{s:f, s:i}", "trained_s", info->trained_s, "max_prompt_tokens",
                                  info->max_prompt_tokens));
    json_object_set_new(root, "hf_preset",
                        json_pack("{s:f, s:f, s:i, s:f}", "guidance", info->hf_guidance,
                                  "temperature", info->hf_temperature, "top_k", info->hf_top_k,
                                  "top_p", info->hf_top_p));
    AU_TRY(model->family->report(model->net, root, err));
    AU_TRY(au_json_text(json, root, REPORT_BYTES, err));
done:
    json_decref(root);
    return st;
}
