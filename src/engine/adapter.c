/* SPDX-License-Identifier: MIT */
/* Adapters as the engine sees them: a checked set of deltas, and per strength the form that layers
 * use. The base weights are never touched. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

enum { KEEP_STRENGTHS = 8 };

static void free_strength(au_strength *s)
{
    free(s->loras);
    free(s->by_module);
    free(s->floats);
    free(s);
}

/* Those that no row uses. */
static void free_strengths(au_adapter *a)
{
    for (au_strength **at = &a->strengths, *s; (s = *at) != NULL;) {
        if (s->users > 0) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        free_strength(s);
    }
}

static void close_adapter(au_adapter *a)
{
    free_strengths(a);
    au_adapter_set_close(&a->set);
    au_model_unref(&a->model);
    free(a->dir);
    free(a->name);
    free(a);
}

au_status au_adapter_open(au_model *model, const char *dir, au_adapter **out, au_err *err)
{
    au_status st = AU_OK;
    au_adapter *a = NULL;
    size_t n, len = strlen(dir);
    const au_module *modules = model->family->modules(model->net, &n);
    *out = NULL;
    while (len > 1 && dir[len - 1] == '/')
        len--;
    AU_TRY(au_calloc(&a, 1, sizeof *a, err));
    atomic_init(&a->refs, 1);
    a->model = au_model_ref(model);
    a->dir = strndup(dir, len);
    AU_FAIL_IF(!a->dir, AU_NOMEM, "cannot allocate a path");
    AU_TRY(au_strdup(&a->name, au_path_base(a->dir), err));
    AU_TRY(au_adapter_set_open(&a->set, a->dir, modules, n, err));
    const au_adapter_facts *facts = au_adapter_set_facts(a->set);
    AU_FAIL_IF(facts->rank > AU_LORA_MAX_RANK, AU_UNSUPPORTED, "rank is %d, expected at most %d",
               facts->rank, AU_LORA_MAX_RANK);
    a->info = (au_adapter_info){a->name,     a->dir,       facts->kind,         facts->sha256,
                                facts->rank, facts->alpha, (int)facts->targets, facts->bytes};
done:
    if (st != AU_OK && a) {
        st = au_err_prefix(err, st, "adapter %s", dir);
        close_adapter(a);
        a = NULL;
    }
    *out = a;
    return st;
}

au_adapter *au_adapter_ref(au_adapter *adapter)
{
    atomic_fetch_add(&adapter->refs, 1);
    return adapter;
}

void au_adapter_unref(au_adapter **adapter)
{
    au_adapter *a = *adapter;
    *adapter = NULL;
    if (a && atomic_fetch_sub(&a->refs, 1) == 1)
        close_adapter(a);
}

const au_adapter_info *au_adapter_get_info(const au_adapter *adapter)
{
    return &adapter->info;
}

au_status au_adapter_hash(const char *dir, char out[65], au_err *err)
{
    return au_adapter_content_hash(out, dir, err);
}

au_status au_adapter_report(au_model *model, const char *dir, char **json, au_err *err)
{
    size_t n = 0;
    const au_module *modules = model ? model->family->modules(model->net, &n) : NULL;
    au_buf buf;
    au_buf_init(&buf, (size_t)16 << 20);
    au_status st = au_adapter_report_json(&buf, dir, modules, n, err);
    if (st == AU_OK)
        st = au_buf_take(&buf, json, NULL, err);
    au_buf_deinit(&buf);
    return st;
}

/* ---- Strengths ---- */

/* Floats that a delta needs at a strength: a DoRA factor, a scaled bias. */
static size_t delta_floats(const au_delta *d, const au_module *m)
{
    return (size_t)m->out * ((d->magnitude ? 1 : 0) + (d->bias ? 1 : 0));
}

static au_status fill_lora(au_lora *lora, const au_delta *d, const au_module *m, double strength,
                           float **floats, au_err *err)
{
    *lora = (au_lora){
        .rank = d->rank,
        .scale = (float)(strength * (double)d->scale),
        .a = d->a,
        .b = d->b,
        .replace_weight = d->replace_weight,
        .replace_bias = d->replace_bias,
    };
    if (d->bias) {
        for (int64_t i = 0; i < m->out; i++)
            (*floats)[i] = lora->scale * d->bias[i];
        lora->bias = *floats;
        *floats += m->out;
    }
    if (d->magnitude) {
        au_status st = au_delta_dora_factor(d, m, strength, *floats, err);
        if (st != AU_OK)
            return st;
        lora->factor = *floats;
        *floats += m->out;
    }
    return AU_OK;
}

au_status au_adapter_at(au_adapter *adapter, double strength, const au_applied **out, au_err *err)
{
    for (au_strength *s = adapter->strengths; s; s = s->next)
        if (s->strength == strength) {
            s->users++;
            *out = &s->applied;
            return AU_OK;
        }
    au_status st = AU_OK;
    au_strength *s = NULL;
    size_t n, floats = 0, used = 0;
    const au_module *modules = adapter->model->family->modules(adapter->model->net, &n);
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->strength = strength;
    for (size_t i = 0; i < n; i++) {
        const au_delta *d = au_adapter_set_delta(adapter->set, i);
        floats += d ? delta_floats(d, &modules[i]) : 0;
    }
    AU_TRY(au_calloc(&s->loras, n, sizeof *s->loras, err));
    AU_TRY(au_calloc(&s->by_module, n, sizeof *s->by_module, err));
    AU_TRY(au_calloc(&s->floats, floats, sizeof *s->floats, err));
    float *at = s->floats;
    for (size_t i = 0; i < n; i++) {
        const au_delta *d = au_adapter_set_delta(adapter->set, i);
        if (!d)
            continue;
        AU_TRY(fill_lora(&s->loras[used], d, &modules[i], strength, &at, err));
        s->by_module[i] = &s->loras[used++];
    }
    s->applied = (au_applied){s->by_module, n};
    s->next = adapter->strengths;
    s->users = 1;
    adapter->strengths = s;
    *out = &s->applied;
done:
    if (st != AU_OK && s)
        free_strength(s);
    return st;
}

void au_adapter_let_go(au_adapter *adapter, const au_applied *applied)
{
    for (au_strength *s = adapter->strengths; s; s = s->next)
        if (&s->applied == applied)
            s->users--;
}

void au_adapter_trim(au_adapter *adapter)
{
    size_t n = 0;
    for (const au_strength *s = adapter->strengths; s; s = s->next)
        n++;
    if (n >= KEEP_STRENGTHS)
        free_strengths(adapter);
}
