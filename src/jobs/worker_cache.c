/* SPDX-License-Identifier: MIT */
/* The models and adapters that a worker keeps open between jobs. Belongs to the engine thread. An
 * adapter holds a reference to its model, so a model that is closed takes its adapters along. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/clock.h"
#include "jobs/worker_priv.h"

static void forget_adapters_of(au_engine_cache *c, const au_model *model)
{
    for (int i = 0; i < AU_WORKER_ADAPTERS; i++) {
        if (c->adapters[i].adapter && c->adapters[i].model == model) {
            au_adapter_unref(&c->adapters[i].adapter);
            c->adapters[i] = (au_open_adapter){0};
        }
    }
}

static void close_model(au_engine_cache *c, au_open_model *m)
{
    if (!m->name)
        return;
    forget_adapters_of(c, m->model);
    au_model_unref(&m->model);
    *m = (au_open_model){0};
}

void au_engine_cache_deinit(au_engine_cache *c)
{
    for (int i = 0; i < AU_WORKER_MODELS; i++)
        close_model(c, &c->models[i]);
}

static int keep_open(const au_worker *w)
{
    int n = w->config->models_loaded > 0 ? w->config->models_loaded : 1;
    return n > AU_WORKER_MODELS ? AU_WORKER_MODELS : n;
}

static const au_model_spec *find_spec(const au_worker *w, const char *name, const char **kept_name)
{
    for (size_t i = 0; i < w->config->n_models; i++) {
        if (strcmp(w->model_names[i], name) == 0) {
            *kept_name = w->model_names[i];
            return &w->config->models[i];
        }
    }
    return NULL;
}

au_status au_engine_cache_model(au_engine_cache *c, const au_worker *w, const char *name,
                                au_model **out, au_err *err)
{
    const char *kept_name = NULL;
    au_open_model *place = &c->models[0];
    for (int i = 0; i < keep_open(w); i++) {
        au_open_model *m = &c->models[i];
        if (m->name && strcmp(m->name, name) == 0) {
            m->used = ++c->ticks;
            *out = m->model;
            return AU_OK;
        }
        if (m->used < place->used)
            place = m;
    }
    const au_model_spec *spec = find_spec(w, name, &kept_name);
    if (!spec)
        return au_fail(err, AU_NOT_FOUND, "model %s was not given to this worker", name);
    close_model(c, place);
    const au_model_options options = {.size = sizeof options, .threads = w->config->threads};
    int64_t began = au_mono_ms();
    au_status st = au_model_open(spec->dir, &options, &place->model, err);
    if (st != AU_OK)
        return st;
    au_log(AU_LOG_INFO, "worker", "model opened name=%s ms=%lld", name,
           (long long)(au_mono_ms() - began));
    place->name = kept_name;
    place->used = ++c->ticks;
    *out = place->model;
    return AU_OK;
}

au_status au_engine_cache_adapter(au_engine_cache *c, const au_worker *w, au_model *model,
                                  const char *sha256, au_adapter **out, au_err *err)
{
    char prefix[AU_STORE_KEY], found[65];
    char *dir = NULL;
    au_adapter *adapter = NULL;
    au_open_adapter *place = &c->adapters[0];
    au_status st = AU_OK;
    *out = NULL;
    for (int i = 0; i < AU_WORKER_ADAPTERS; i++) {
        au_open_adapter *a = &c->adapters[i];
        if (a->adapter && a->model == model &&
            strcmp(au_adapter_get_info(a->adapter)->sha256, sha256) == 0) {
            a->used = ++c->ticks;
            *out = au_adapter_ref(a->adapter);
            return AU_OK;
        }
        if (a->used < place->used)
            place = a;
    }
    snprintf(prefix, sizeof prefix, "adapters/%.64s", sha256);
    AU_TRY(au_store_local_path(w->store, &dir, prefix, err));
    AU_TRY(au_adapter_hash(dir, found, err));
    AU_FAIL_IF(strcmp(found, sha256) != 0, AU_CORRUPT, "adapter has content hash %s, expected %s",
               found, sha256);
    AU_TRY(au_adapter_open(model, dir, &adapter, err));
    if (place->adapter)
        au_adapter_unref(&place->adapter);
    *place = (au_open_adapter){.model = model, .adapter = adapter, .used = ++c->ticks};
    *out = au_adapter_ref(adapter);
done:
    free(dir);
    return st;
}
