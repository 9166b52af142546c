/* SPDX-License-Identifier: MIT */
/* /v1/comparisons: samples side by side, in the order asked for, each with its metadata, its
 * audio's URL and the adapter that made it; and listening tests. What a blind test compares is
 * shown once it is closed. Sessions, votes and results have files of their own. */
#include <string.h>

#include "api/api.h"
#include "api/comparison_body.h"
#include "api/comparison_json.h"

enum { SAMPLE_ARENA_BYTES = 4 << 20 };

static const char *const no_query[] = {NULL};

/* ---- JSON ---- */

bool au_comparison_is_hidden(const au_comparison *c)
{
    return c->blind && !c->closed_at;
}

json_t *au_arm_json(const au_arm *arm)
{
    return au_adapter_use_json(arm->adapter_id, arm->adapter_name, arm->strength,
                               arm->adapter_sha256);
}

/* A sample as it is now; one that was removed keeps its place. Each has an arena of its own: a
 * hundred records together would be more than a request may hold. */
static json_t *sample_entry(au_http_request *rq, const char *id, au_status *st, au_err *err)
{
    au_sample *sample;
    json_t *entry = NULL;
    au_arena arena;
    au_arena_init(&arena, SAMPLE_ARENA_BYTES);
    *st = au_sample_get(au_api_db(rq), &arena, id, &sample, err);
    if (*st == AU_OK && !sample->deleted_at) {
        entry = au_sample_json(sample);
    } else if (*st == AU_NOT_FOUND || *st == AU_OK) {
        *st = AU_OK;
        entry = json_pack("{s:s, s:b}", "id", id, "deleted", 1);
    }
    au_arena_deinit(&arena);
    return entry;
}

static json_t *side_json(size_t arm, const char *sample_id)
{
    json_t *audio = sample_id ? json_sprintf("/v1/samples/%s/audio", sample_id) : json_null();
    return json_pack("{s:I, s:s?, s:{s:o}}", "variant", (json_int_t)arm, "sample_id", sample_id,
                     "urls", "audio", audio);
}

static json_t *pairs_json(const au_comparison *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->n_pairs; i++) {
        const au_pair *p = &c->pairs[i];
        json_t *entry = json_pack("{s:s, s:s}", "prompt_id", p->prompt_id, "state",
                                  au_pair_state_name(p->state));
        if (entry && !au_comparison_is_hidden(c)) {
            json_object_set_new(entry, "a", side_json(p->arm_a, p->sample_a));
            json_object_set_new(entry, "b", side_json(p->arm_b, p->sample_b));
        }
        au_list_add(&list, entry);
    }
    return list;
}

static json_t *arms_json(const au_comparison *c)
{
    json_t *list = json_array();
    if (au_comparison_is_hidden(c)) {
        json_decref(list);
        return json_null();
    }
    for (size_t i = 0; i < c->n_arms; i++)
        au_list_add(&list, json_pack("{s:I, s:o}", "variant", (json_int_t)i, "adapter",
                                     au_arm_json(&c->arms[i])));
    return list;
}

/* The samples of a view in its order, or those of the pairs, each once. */
static size_t list_samples(const au_comparison *c, const char **ids)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_samples && n < AU_COMPARISON_MAX_SAMPLES; i++)
        ids[n++] = c->sample_ids[i];
    for (size_t i = 0; i < 2 * c->n_pairs && n < AU_COMPARISON_MAX_SAMPLES; i++) {
        const char *id = i % 2 ? c->pairs[i / 2].sample_b : c->pairs[i / 2].sample_a;
        bool known = !id;
        for (size_t j = 0; j < n && !known; j++)
            known = strcmp(ids[j], id) == 0;
        if (!known)
            ids[n++] = id;
    }
    return n;
}

static json_t *samples_json(au_http_request *rq, const au_comparison *c, au_status *st, au_err *err)
{
    const char *ids[AU_COMPARISON_MAX_SAMPLES];
    json_t *list = json_array();
    if (au_comparison_is_hidden(c))
        return list;
    size_t n = list_samples(c, ids);
    for (size_t i = 0; *st == AU_OK && i < n; i++)
        au_list_add(&list, sample_entry(rq, ids[i], st, err));
    return list;
}

static json_t *texts_json(const char *const *texts, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&list, json_string(texts[i]));
    return list;
}

/* What lists show, too. */
static json_t *summary_json(const au_comparison *c)
{
    return json_pack("{s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:f, s:o, s:o, s:{s:o, s:o}}", "id",
                     c->id, "mode", au_comparison_mode_name(c->mode), "title", c->title, "blind",
                     c->blind, "state", c->closed_at ? "closed" : "open", "votes",
                     (json_int_t)c->votes, "votes_wanted", (json_int_t)c->votes_wanted, "sessions",
                     (json_int_t)c->sessions, "min_listen_s", c->min_listen_s, "created_at",
                     au_time_json(c->created_at), "closed_at", au_time_json(c->closed_at), "urls",
                     "self", json_sprintf("/v1/comparisons/%s", c->id), "results",
                     c->mode == AU_COMPARE_VIEW
                         ? json_null()
                         : json_sprintf("/v1/comparisons/%s/results", c->id));
}

static au_status comparison_json(au_http_request *rq, const au_comparison *c, json_t **out,
                                 au_err *err)
{
    au_status st = AU_OK;
    bool hidden = au_comparison_is_hidden(c);
    json_t *j = summary_json(c);
    json_t *rest = json_pack("{s:o, s:o}", "samples", samples_json(rq, c, &st, err), "job_ids",
                             texts_json(c->job_ids, hidden ? 0 : c->n_jobs));
    if (rest && c->mode != AU_COMPARE_VIEW) {
        json_object_set_new(rest, "arms", arms_json(c));
        json_object_set_new(rest, "pairs", pairs_json(c));
    }
    if (!j || !rest || json_object_update(j, rest) != 0) {
        json_decref(j);
        j = NULL;
    }
    json_decref(rest);
    *out = j;
    return st;
}

/* In a list: without the samples' records. */
static json_t *list_entry(const au_comparison *c)
{
    json_t *j = summary_json(c);
    if (j)
        json_object_set_new(j, "sample_ids", texts_json(c->sample_ids, c->n_samples));
    return j;
}

bool au_comparison_load(au_http_request *rq, const char *id, au_comparison **c)
{
    au_err err;
    au_status st = au_comparison_get(au_api_db(rq), au_http_arena(rq), id, c, &err);
    if (st == AU_OK && !(*c)->deleted_at)
        return true;
    if (st == AU_OK)
        au_api_gone(rq, "comparison", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "comparison", id);
    else
        au_api_failed(rq, st, &err);
    return false;
}

static au_http_result reply_comparison(au_http_request *rq, int status, const char *id)
{
    au_err err;
    au_comparison *c;
    json_t *j = NULL;
    if (!au_comparison_load(rq, id, &c))
        return AU_HTTP_DONE;
    au_status st = comparison_json(rq, c, &j, &err);
    if (st != AU_OK) {
        json_decref(j);
        return au_api_failed(rq, st, &err);
    }
    return au_http_reply_json(rq, status, j);
}

/* ---- Making ---- */

typedef struct new_comparison {
    au_comparison_plan plan;
    char id[AU_UUID_TEXT];
} new_comparison;

static au_status write_comparison(au_db *db, void *arg, au_err *err)
{
    new_comparison *n = arg;
    au_status st = AU_OK;
    for (size_t i = 0; i < n->plan.what.n_jobs; i++) {
        au_job_plan *job = &n->plan.jobs[i];
        n->plan.failed_job = i;
        AU_TRY(au_job_submit(db, &job->job, &job->limits, &job->result, err));
    }
    AU_TRY(au_comparison_create(db, &n->plan.what, n->id, err));
done:
    return st;
}

static au_http_result comparison_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_comparison *n = o->arg;
    if (o->status != AU_OK && n->plan.what.n_jobs) {
        const au_job_plan *job = &n->plan.jobs[n->plan.failed_job];
        if (job->result.fault != AU_SUBMIT_OK)
            return au_job_reply_fault(rq, job);
    }
    if (o->status == AU_NOT_FOUND)
        return au_http_problem(rq, AU_PROBLEM_NOT_FOUND, "%s", o->err.message);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    au_http_set_header(rq, "Location", "/v1/comparisons/%s", n->id);
    return reply_comparison(rq, 201, n->id);
}

au_http_result au_post_comparison(au_http_request *rq)
{
    json_t *body;
    au_err err;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    new_comparison *n = au_arena_alloc(au_http_arena(rq), sizeof *n);
    if (!n)
        return au_api_busy(rq, 1, "out of memory");
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    au_status st = au_comparison_body_parse(&c, au_api_of(rq), au_api_db(rq), body, &n->plan, &err);
    if (st != AU_OK) {
        au_check_deinit(&c);
        return au_api_failed(rq, st, &err);
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    if (n->plan.what.n_jobs && !au_job_may_submit(rq))
        return AU_HTTP_DONE;
    return au_api_create(
        rq, write_comparison, n, comparison_written,
        &(au_api_creation){.status = 201, .prefix = "/v1/comparisons/", .id = n->id});
}

/* ---- Closing and deleting ---- */

typedef struct change {
    const char *id;
    bool changed;
} change;

static au_status write_close(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    return au_comparison_close(db, c->id, &c->changed, err);
}

static au_http_result change_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const change *c = o->arg;
    au_comparison *now;
    if (o->status == AU_NOT_FOUND) /* deleted, or never there: says which */
        return au_comparison_load(rq, c->id, &now) ? au_api_not_found(rq, "comparison", c->id)
                                                   : AU_HTTP_DONE;
    if (o->status == AU_CONFLICT)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT, "%s", o->err.message);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    return reply_comparison(rq, 200, c->id);
}

au_http_result au_close_comparison(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    if (!id)
        return au_api_not_found(rq, "comparison", au_http_param(rq, "id"));
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c)
        return au_api_busy(rq, 1, "out of memory");
    c->id = id;
    return au_api_write(rq, write_close, c, change_written);
}

static au_status write_delete(au_db *db, void *arg, au_err *err)
{
    const change *c = arg;
    return au_comparison_delete(db, c->id, err);
}

static au_http_result delete_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    return o->status == AU_OK ? au_http_reply_empty(rq, 204) : change_written(rq);
}

au_http_result au_delete_comparison(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    au_comparison *now;
    au_err err;
    json_t *j = NULL;
    if (!id)
        return au_api_not_found(rq, "comparison", au_http_param(rq, "id"));
    if (!au_http_query_parse(rq, no_query) || !au_comparison_load(rq, id, &now))
        return AU_HTTP_DONE;
    au_status st = comparison_json(rq, now, &j, &err);
    if (st != AU_OK) {
        json_decref(j);
        return au_api_failed(rq, st, &err);
    }
    if (!au_http_if_match(rq, j))
        return AU_HTTP_DONE;
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c)
        return au_api_busy(rq, 1, "out of memory");
    c->id = id;
    return au_api_write(rq, write_delete, c, delete_written);
}

/* ---- Reading ---- */

au_http_result au_list_comparisons(au_http_request *rq)
{
    static const char *const query[] = {"limit", "cursor", NULL};
    au_page page;
    au_err err;
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page))
        return AU_HTTP_DONE;
    au_comparison **list;
    size_t n;
    bool more;
    au_status st = au_comparison_list(au_api_db(rq), au_http_arena(rq), page.before_id, page.limit,
                                      &list, &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, list_entry(list[i]));
    return au_page_reply(rq, data, more, n ? list[n - 1]->id : NULL);
}

au_http_result au_get_comparison(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const char *id = au_api_id(rq);
    return id ? reply_comparison(rq, 200, id)
              : au_api_not_found(rq, "comparison", au_http_param(rq, "id"));
}
