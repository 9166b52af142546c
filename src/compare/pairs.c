/* SPDX-License-Identifier: MIT */
/* Pairs and arms of a listening test that is made from samples that exist. Two samples are a pair
 * when the arm (adapter and strength) is all that differs between them. No state. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare/comparison.h"
#include "jobs/catalog.h"

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool au_arm_equal(const au_arm *a, const au_arm *b)
{
    return same_text(a->adapter_sha256, b->adapter_sha256) &&
           (!a->adapter_sha256 || !(fabs(a->strength - b->strength) > 0));
}

/* The arm of a sample, a new one where it is not known yet. */
static au_status find_arm(au_comparison *c, const au_sample *s, size_t *arm, au_err *err)
{
    const au_arm own = {.adapter_id = s->adapter_id,
                        .adapter_name = s->adapter_name,
                        .adapter_sha256 = s->adapter_sha256,
                        .strength = s->strength};
    for (*arm = 0; *arm < c->n_arms; ++*arm) {
        if (au_arm_equal(&c->arms[*arm], &own))
            return AU_OK;
    }
    if (c->n_arms == AU_ARMS_MAX)
        return au_fail(err, AU_LIMIT, "the samples have more than %d different adapters",
                       AU_ARMS_MAX);
    c->arms[c->n_arms++] = own;
    return AU_OK;
}

/* In what two samples differ beside the arm; NULL: in nothing. */
static const char *difference(const au_sample *a, const au_sample *b)
{
    if (strcmp(a->prompt_text, b->prompt_text) != 0 ||
        !same_text(a->negative_text, b->negative_text))
        return "prompt";
    if (strcmp(a->model_fingerprint, b->model_fingerprint) != 0)
        return "model";
    if (a->seed != b->seed)
        return "seed";
    if (strcmp(a->params, b->params) != 0)
        return "params";
    if (a->frames != b->frames || a->sample_rate != b->sample_rate || a->channels != b->channels)
        return "length, rate or channels"; /* which would tell them apart */
    return NULL;
}

static au_status prepare(au_arena *a, au_comparison *new, au_err *err)
{
    new->arms = au_arena_alloc(a, AU_ARMS_MAX * sizeof *new->arms);
    new->pairs = au_arena_alloc(a, AU_COMPARISON_MAX_PAIRS * sizeof *new->pairs);
    new->n_arms = new->n_pairs = 0;
    return new->arms &&new->pairs ? AU_OK : au_fail(err, AU_NOMEM, "out of memory");
}

static void add_pair(au_comparison *new, const au_sample *a, size_t arm_a, const au_sample *b,
                     size_t arm_b)
{
    new->pairs[new->n_pairs++] = (au_pair){.arm_a = arm_a,
                                           .arm_b = arm_b,
                                           .prompt_id = a->prompt_id,
                                           .sample_a = a->id,
                                           .sample_b = b->id,
                                           .state = AU_PAIR_READY};
}

static au_status get_live(au_db *db, au_arena *a, const char *id, au_sample **out, au_err *err)
{
    au_status st = au_sample_get(db, a, id, out, err);
    if (st == AU_OK && (*out)->deleted_at)
        st = au_fail(err, AU_NOT_FOUND, "sample %.40s was deleted", id);
    return st;
}

au_status au_comparison_pair_up(au_db *db, au_arena *a, au_comparison *new, au_err *err)
{
    au_status st = AU_OK;
    size_t n = new->n_samples, arms[AU_COMPARISON_MAX_SAMPLES];
    au_sample *samples[AU_COMPARISON_MAX_SAMPLES];
    AU_ASSERT(n <= AU_COMPARISON_MAX_SAMPLES);
    AU_TRY(prepare(a, new, err));
    for (size_t i = 0; i < n; i++) {
        AU_TRY(get_live(db, a, new->sample_ids[i], &samples[i], err));
        AU_TRY(find_arm(new, samples[i], &arms[i], err));
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i + 1; j < n; j++) {
            if (arms[i] == arms[j] || difference(samples[i], samples[j]))
                continue;
            AU_FAIL_IF(new->n_pairs == AU_COMPARISON_MAX_PAIRS, AU_LIMIT,
                       "the samples make more than %d pairs", AU_COMPARISON_MAX_PAIRS);
            add_pair(new, samples[i], arms[i], samples[j], arms[j]);
        }
    }
done:
    return st;
}

au_status au_comparison_take_pairs(au_db *db, au_arena *a, au_comparison *new,
                                   const char *const *ids, size_t n, size_t *bad, au_err *err)
{
    au_status st = AU_OK;
    AU_ASSERT(n <= AU_COMPARISON_MAX_PAIRS);
    AU_TRY(prepare(a, new, err));
    for (*bad = 0; *bad < n; ++*bad) {
        au_sample *x, *y;
        size_t arm_x, arm_y;
        AU_TRY(get_live(db, a, ids[2 * *bad], &x, err));
        AU_TRY(get_live(db, a, ids[2 * *bad + 1], &y, err));
        const char *what = difference(x, y);
        AU_FAIL_IF(what, AU_INVALID, "%s", what);
        AU_TRY(find_arm(new, x, &arm_x, err));
        AU_TRY(find_arm(new, y, &arm_y, err));
        AU_FAIL_IF(arm_x == arm_y, AU_INVALID, "nothing");
        add_pair(new, x, arm_x, y, arm_y);
    }
done:
    return st;
}
