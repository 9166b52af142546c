/* SPDX-License-Identifier: MIT */
/* /v1/comparisons: samples side by side, in the order asked for, each with its metadata, its
 * audio's URL and the adapter that made it. */
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"

typedef struct new_comparison {
    const char **ids;
    size_t n;
    char id[AU_UUID_TEXT];
} new_comparison;

/* A sample as it is now; one that was removed keeps its place. */
static json_t *sample_entry(au_http_request *rq, const char *id, au_status *st, au_err *err)
{
    au_sample *sample;
    *st = au_sample_get(au_api_db(rq), au_http_arena(rq), id, &sample, err);
    if (*st == AU_OK && !sample->deleted_at)
        return au_sample_json(sample);
    if (*st == AU_NOT_FOUND || *st == AU_OK) {
        *st = AU_OK;
        return json_pack("{s:s, s:b}", "id", id, "deleted", 1);
    }
    return NULL;
}

static au_status comparison_json(au_http_request *rq, const au_comparison *c, json_t **out,
                                 au_err *err)
{
    au_status st = AU_OK;
    json_t *samples = json_array();
    for (size_t i = 0; st == AU_OK && i < c->n_samples; i++)
        au_list_add(&samples, sample_entry(rq, c->sample_ids[i], &st, err));
    *out = json_pack("{s:s, s:s, s:o, s:o, s:{s:o}}", "id", c->id, "mode", c->mode, "samples",
                     samples, "created_at", au_time_json(c->created_at), "urls", "self",
                     json_sprintf("/v1/comparisons/%s", c->id));
    return st;
}

/* In a list: without the samples' records. */
static json_t *summary_json(const au_comparison *c)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < c->n_samples; i++)
        au_list_add(&ids, json_string(c->sample_ids[i]));
    return json_pack("{s:s, s:s, s:o, s:o, s:{s:o}}", "id", c->id, "mode", c->mode, "sample_ids",
                     ids, "created_at", au_time_json(c->created_at), "urls", "self",
                     json_sprintf("/v1/comparisons/%s", c->id));
}

static au_http_result reply_comparison(au_http_request *rq, int status, const char *id)
{
    au_err err;
    au_comparison *c;
    json_t *j = NULL;
    au_status st = au_comparison_get(au_api_db(rq), au_http_arena(rq), id, &c, &err);
    if (st == AU_NOT_FOUND)
        return au_api_not_found(rq, "comparison", id);
    if (st == AU_OK)
        st = comparison_json(rq, c, &j, &err);
    if (st != AU_OK) {
        json_decref(j);
        return au_api_failed(rq, st, &err);
    }
    return au_http_reply_json(rq, status, j);
}

static au_status write_comparison(au_db *db, void *arg, au_err *err)
{
    new_comparison *n = arg;
    return au_comparison_create(db, n->ids, n->n, n->id, err);
}

static au_http_result comparison_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_comparison *n = o->arg;
    if (o->status == AU_NOT_FOUND)
        return au_http_problem(rq, AU_PROBLEM_NOT_FOUND, "%s", o->err.message);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    au_http_set_header(rq, "Location", "/v1/comparisons/%s", n->id);
    return reply_comparison(rq, 201, n->id);
}

/* The ids of the body, each of a sample that is there. */
static au_status check_samples(au_check *c, au_http_request *rq, const json_t *list,
                               new_comparison *n, au_err *err)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list)) {
        au_check_add(c, "/sample_ids", list ? "wrong_type" : "missing",
                     json_pack("{s:s}", "expected", "array"));
        return AU_OK;
    }
    if (count < 1 || count > AU_COMPARISON_MAX_SAMPLES) {
        au_check_add(
            c, "/sample_ids", "out_of_range",
            json_pack("{s:i, s:i}", "min_items", 1, "max_items", AU_COMPARISON_MAX_SAMPLES));
        return AU_OK;
    }
    n->ids = au_arena_alloc(c->arena, count * sizeof *n->ids);
    if (!n->ids)
        return au_fail(err, AU_NOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const char *id = json_string_value(json_array_get(list, i));
        const char *pointer = au_check_at_index(c, "/sample_ids", i);
        au_sample *sample;
        if (!id) {
            au_check_add(c, pointer, "wrong_type", json_pack("{s:s}", "expected", "string"));
            continue;
        }
        au_status st = au_uuid_valid(id) ? au_sample_get(au_api_db(rq), c->arena, id, &sample, err)
                                         : AU_NOT_FOUND;
        if (st == AU_NOT_FOUND || (st == AU_OK && sample->deleted_at))
            au_check_add(c, pointer, "not_found", json_pack("{s:s}", "id", id));
        else if (st != AU_OK)
            return st;
        n->ids[n->n++] = id;
    }
    return AU_OK;
}

au_http_result au_post_comparison(au_http_request *rq)
{
    static const char *const fields[] = {"mode", "sample_ids", NULL};
    static const char *const no_query[] = {NULL};
    json_t *body;
    au_err err;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    new_comparison *n = au_arena_alloc(au_http_arena(rq), sizeof *n);
    if (!n)
        return au_api_busy(rq, 1, "out of memory");
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    au_status st = AU_OK;
    if (au_check_object(&c, body, "", fields)) {
        const char *mode = "view";
        au_check_text(&c, body, "", "mode", AU_LABEL_MAX_CHARS, &mode);
        if (strcmp(mode, "view") != 0)
            au_check_add(&c, "/mode", "unknown_value", json_pack("{s:[s]}", "known", "view"));
        st = check_samples(&c, rq, json_object_get(body, "sample_ids"), n, &err);
    }
    if (st != AU_OK) {
        au_check_deinit(&c);
        return au_api_failed(rq, st, &err);
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    return au_api_create(
        rq, write_comparison, n, comparison_written,
        &(au_api_creation){.status = 201, .prefix = "/v1/comparisons/", .id = n->id});
}

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
        au_list_add(&data, summary_json(list[i]));
    return au_page_reply(rq, data, more, n ? list[n - 1]->id : NULL);
}

au_http_result au_get_comparison(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const char *id = au_api_id(rq);
    return id ? reply_comparison(rq, 200, id)
              : au_api_not_found(rq, "comparison", au_http_param(rq, "id"));
}
