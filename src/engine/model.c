/* SPDX-License-Identifier: MIT */
/* Opening a checkpoint folder: files, fingerprint, family, threads. A model is immutable once open;
 * its pool serves one request at a time (the busy flag). */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "kernels/bandwidth.h"

enum { CONFIG_BYTES = 4 << 20, SAMPLE_BYTES = 4096 };

const char *au_version(void)
{
    return AU_VERSION;
}

const char *au_cpu_name(void)
{
    return au_kernels_get()->name;
}

const char *au_numerics_class(void)
{
    return "f32";
}

void au_text_free(char *text)
{
    free(text);
}

/* Adds a file's name, presence and content. */
static au_status hash_file(au_sha256 *h, const char *dir, const char *name, au_err *err)
{
    char *path = NULL, *text = NULL;
    size_t len = 0;
    au_status st = AU_OK;
    AU_TRY(au_path_join(&path, dir, name, err));
    au_sha256_update(h, name, strlen(name) + 1);
    if (au_file_exists(path)) {
        AU_TRY(au_file_read(&text, &len, path, (size_t)64 << 20, err));
        uint64_t size = len;
        au_sha256_update(h, &size, sizeof size);
        au_sha256_update(h, text, len);
    }
done:
    free(text);
    free(path);
    return st;
}

au_status au_fingerprint(char out[65], const char *dir, const char *tokenizer_file,
                         const au_tensor_set *tensors, au_err *err)
{
    const char *const names[] = {"config.json", "generation_config.json", tokenizer_file};
    au_sha256 h;
    au_sha256_init(&h);
    for (size_t i = 0; i < 3; i++) {
        au_status st = hash_file(&h, dir, names[i], err);
        if (st != AU_OK)
            return st;
    }
    for (size_t i = 0; i < au_tensor_set_files(tensors); i++) {
        const au_tensor_file *f = au_tensor_set_file(tensors, i);
        au_sha256_update(&h, &f->bytes, sizeof f->bytes);
        au_sha256_update(&h, f->header, f->header_bytes);
    }
    for (size_t i = 0; i < au_tensor_set_count(tensors); i++) {
        const au_tensor *t = au_tensor_set_at(tensors, i);
        const char *data = t->data;
        if (t->bytes <= 3 * SAMPLE_BYTES) {
            au_sha256_update(&h, data, t->bytes);
            continue;
        }
        au_sha256_update(&h, data, SAMPLE_BYTES);
        au_sha256_update(&h, data + (t->bytes - SAMPLE_BYTES) / 2, SAMPLE_BYTES);
        au_sha256_update(&h, data + t->bytes - SAMPLE_BYTES, SAMPLE_BYTES);
    }
    au_sha256_final_hex(&h, out);
    return AU_OK;
}

/* A copy of the path without trailing slashes. */
static au_status clean_dir(char **out, const char *dir, au_err *err)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    *out = strndup(dir, len);
    return *out ? AU_OK : au_fail(err, AU_NOMEM, "cannot allocate a path");
}

static void close_model(au_model *m)
{
    if (m->net)
        m->family->close(&m->net);
    au_pool_free(&m->pool);
    au_tokenizer_close(&m->tokenizer);
    au_tensor_set_close(&m->tensors);
    json_decref(m->config);
    json_decref(m->generation);
    free(m->dir);
    free(m->name);
    free(m);
}

static au_status load_configs(au_model *m, au_err *err)
{
    char *config = NULL, *generation = NULL;
    au_status st = AU_OK;
    AU_TRY(au_path_join(&config, m->dir, "config.json", err));
    AU_TRY(au_path_join(&generation, m->dir, "generation_config.json", err));
    AU_TRY(au_json_load(&m->config, config, CONFIG_BYTES, err));
    AU_FAIL_IF(!json_is_object(m->config), AU_CORRUPT, "%s is not a JSON object", config);
    if (au_file_exists(generation)) {
        AU_TRY(au_json_load(&m->generation, generation, CONFIG_BYTES, err));
        AU_FAIL_IF(!json_is_object(m->generation), AU_CORRUPT, "%s is not a JSON object",
                   generation);
    }
done:
    free(config);
    free(generation);
    return st;
}

/* Weights of another type than the stored one would need a conversion, which this version does not
 * have. */
static au_status check_weights(const au_model *m, au_weights weights, au_err *err)
{
    static const au_dtype wanted[] = {
        [AU_WEIGHTS_F32] = AU_F32, [AU_WEIGHTS_F16] = AU_F16, [AU_WEIGHTS_BF16] = AU_BF16};
    if (weights == AU_WEIGHTS_AUTO)
        return AU_OK;
    if ((unsigned)weights > AU_WEIGHTS_BF16)
        return au_fail(err, AU_INVALID, "weights is %d, expected a value of au_weights",
                       (int)weights);
    for (size_t i = 0; i < au_tensor_set_count(m->tensors); i++) {
        const au_tensor *t = au_tensor_set_at(m->tensors, i);
        if (t->rank == 2 && t->dtype != wanted[weights])
            return au_fail(
                err, AU_UNSUPPORTED,
                "tensor %s is stored as %s; a conversion to %s is not available in this version",
                t->name, au_dtype_name(t->dtype), au_dtype_name(wanted[weights]));
    }
    return AU_OK;
}

au_status au_model_open(const char *dir, const au_model_options *options, au_model **out,
                        au_err *err)
{
    au_status st = AU_OK;
    au_model *m = NULL;
    int threads = options && options->threads ? options->threads : au_threads_default();
    *out = NULL;
    if (options && options->size < sizeof *options)
        return au_fail(err, AU_INVALID, "au_model_options.size is %zu, expected %zu", options->size,
                       sizeof *options);
    if (threads < 1 || threads > 1024)
        return au_fail(err, AU_INVALID, "threads is %d, expected 1 ... 1024", threads);
    AU_TRY(au_calloc(&m, 1, sizeof *m, err));
    atomic_init(&m->refs, 1);
    atomic_flag_clear(&m->busy);
    m->pace.growth = -1;
    AU_TRY(clean_dir(&m->dir, dir, err));
    AU_TRY(au_strdup(&m->name, au_path_base(m->dir), err));
    AU_FAIL_IF(!au_dir_exists(m->dir), AU_NOT_FOUND, "%s is not a folder", m->dir);
    AU_TRY(load_configs(m, err));
    AU_TRY(au_family_find(&m->family, m->config, err));
    AU_TRY(au_checkpoint_open(&m->tensors, m->dir, err));
    AU_TRY(au_tokenizer_open(&m->tokenizer, m->dir, err));
    AU_TRY(check_weights(m, options ? options->weights : AU_WEIGHTS_AUTO, err));
    AU_TRY(au_pool_new(&m->pool, threads, err));
    m->nn = (au_nn){au_kernels_get(), m->pool};
    const au_source source = {m->config, m->generation, m->tensors, m->tokenizer};
    AU_TRY(m->family->open(&m->net, &source, err));
    AU_TRY(
        au_fingerprint(m->fingerprint, m->dir, au_tokenizer_file(m->tokenizer), m->tensors, err));
    m->family->info(m->net, &m->info);
    m->info.name = m->name;
    m->info.dir = m->dir;
    m->info.fingerprint = m->fingerprint;
    for (size_t i = 0; i < au_tensor_set_files(m->tensors); i++)
        m->info.weights_bytes += au_tensor_set_file(m->tensors, i)->bytes;
done:
    if (st != AU_OK && m) {
        st = au_err_prefix(err, st, "model %s", dir);
        close_model(m);
        m = NULL;
    }
    *out = m;
    return st;
}

au_model *au_model_ref(au_model *model)
{
    atomic_fetch_add(&model->refs, 1);
    return model;
}

void au_model_unref(au_model **model)
{
    au_model *m = *model;
    *model = NULL;
    if (m && atomic_fetch_sub(&m->refs, 1) == 1)
        close_model(m);
}

void au_model_rest(au_model *model)
{
    au_tensor_set_rest(model->tensors);
}

const au_model_info *au_model_get_info(const au_model *model)
{
    return &model->info;
}

au_status au_tokenize(const au_model *model, const char *text, int32_t **ids, size_t *n_ids,
                      au_err *err)
{
    return au_tokenizer_encode(model->tokenizer, text, strlen(text), SIZE_MAX / 8, ids, n_ids, err);
}

au_status au_tokenize_dir(const char *dir, const char *text, int32_t **ids, size_t *n_ids,
                          au_err *err)
{
    au_tokenizer *t;
    au_status st = au_tokenizer_open(&t, dir, err);
    if (st != AU_OK)
        return st;
    st = au_tokenizer_encode(t, text, strlen(text), SIZE_MAX / 8, ids, n_ids, err);
    au_tokenizer_close(&t);
    return st;
}

au_status au_probe_bandwidth(int threads, size_t bytes, double *bytes_per_s, au_err *err)
{
    return au_kernel_read_bandwidth(threads, bytes, bytes_per_s, err);
}
