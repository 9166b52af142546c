/* SPDX-License-Identifier: MIT */
/* An adapter that passed every check, as the engine uses it: immutable, so any number of threads
 * may read it. */
#include "adapters/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

struct au_adapter_set {
    au_delta *deltas;
    const au_delta **by_module; /* [n_modules] */
    size_t n_modules;
    float *block; /* what the deltas point into */
    au_adapter_facts facts;
};

/* Moves the deltas of a finished load into the set. */
static au_status take_deltas(au_adapter_set *s, au_adapter_load *l, au_err *err)
{
    au_status st;
    AU_TRY(au_calloc(&s->deltas, l->n_targets, sizeof *s->deltas, err));
    AU_TRY(au_calloc(&s->by_module, l->n_modules, sizeof *s->by_module, err));
    s->n_modules = l->n_modules;
    s->block = l->block;
    l->block = NULL;
    for (size_t i = 0; i < l->n_targets; i++) {
        s->deltas[i] = l->targets[i].delta;
        if (l->targets[i].module != SIZE_MAX)
            s->by_module[l->targets[i].module] = &s->deltas[i];
        if (s->deltas[i].rank > s->facts.rank)
            s->facts.rank = s->deltas[i].rank;
    }
    s->facts.kind = l->config.dora ? "dora" : "lora";
    s->facts.alpha = l->config.alpha;
    s->facts.targets = l->n_targets;
    s->facts.bytes = au_tensor_set_file(l->tensors, 0)->bytes;
done:
    return st;
}

au_status au_adapter_set_open(au_adapter_set **out, const char *dir, const au_module *modules,
                              size_t n, au_err *err)
{
    au_adapter_load load;
    au_adapter_set *s = NULL;
    au_status st;
    *out = NULL;
    AU_TRY(au_adapter_load_dir(&load, dir, modules, n, err));
    AU_TRY(au_problems_check(&load.problems, err));
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    AU_TRY(take_deltas(s, &load, err));
    AU_TRY(au_adapter_content_hash(s->facts.sha256, dir, err));
    *out = s;
    s = NULL;
done:
    au_adapter_set_close(&s);
    au_adapter_load_free(&load);
    return st;
}

void au_adapter_set_close(au_adapter_set **set)
{
    if (!set || !*set)
        return;
    free((*set)->deltas);
    free((*set)->by_module);
    free((*set)->block);
    free(*set);
    *set = NULL;
}

const au_delta *au_adapter_set_delta(const au_adapter_set *set, size_t module)
{
    return module < set->n_modules ? set->by_module[module] : NULL;
}

const au_adapter_facts *au_adapter_set_facts(const au_adapter_set *set)
{
    return &set->facts;
}
