/* SPDX-License-Identifier: MIT */
/* /v1/adapters: what was found, how its check against the models ended. */
#include <string.h>

#include "api/api.h"

/* A count that reports write as a number or as the list itself. */
static json_int_t count_of(const json_t *report, const char *key)
{
    const json_t *j = json_object_get(report, key);
    return json_is_array(j) ? (json_int_t)json_array_size(j) : json_integer_value(j);
}

static json_t *list_of(const json_t *report, const char *key)
{
    json_t *j = json_object_get(report, key);
    return json_is_array(j) ? json_incref(j) : json_array();
}

/* In a list without the report, which names every tensor. */
static json_t *adapter_json(const au_adapter_row *a, bool whole)
{
    json_t *report = au_text_json(a->report);
    json_t *j = json_pack(
        "{s:s, s:s, s:i, s:b, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:f, s:i, s:I, s:o}", "id", a->id,
        "name", a->name, "version", a->version, "current", a->current, "state", a->status, "kind",
        a->kind, "format", a->format, "family", a->family, "base_model", a->base_model,
        "description", a->description, "rank", a->rank, "alpha", a->alpha, "targets", a->targets,
        "matched", count_of(report, "matched"), "unmatched", list_of(report, "unmatched"));
    json_t *more = json_pack("{s:s?, s:I, s:o, s:o, s:{s:o}}", "sha256", a->sha256, "bytes",
                             (json_int_t)a->bytes, "error", au_text_json(a->error), "created_at",
                             au_time_json(a->created_at), "urls", "self",
                             json_sprintf("/v1/adapters/%s", a->id));
    bool complete = j && more && json_object_update(j, more) == 0 &&
                    (!whole || json_object_set(j, "report", report) == 0);
    json_decref(report);
    json_decref(more);
    if (!complete) {
        json_decref(j);
        j = NULL;
    }
    return j;
}

au_http_result au_list_adapters(au_http_request *rq)
{
    static const char *const query[] = {"limit", "cursor", "state", NULL};
    au_page page;
    au_err err;
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page))
        return AU_HTTP_DONE;
    const char *state = au_http_query(rq, "state");
    if (state && strcmp(state, "validating") != 0 && strcmp(state, "ready") != 0 &&
        strcmp(state, "rejected") != 0) {
        au_query_refuse(rq, "state", "validating, ready or rejected");
        return AU_HTTP_DONE;
    }
    const au_adapter_filter filter = {state, page.before_id, page.limit};
    au_adapter_row **rows;
    size_t n;
    bool more;
    au_status st =
        au_adapter_row_list(au_api_db(rq), au_http_arena(rq), &filter, &rows, &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, adapter_json(rows[i], false));
    return au_page_reply(rq, data, more, n ? rows[n - 1]->id : NULL);
}

au_http_result au_get_adapter(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    au_err err;
    au_adapter_row *row;
    const char *id = au_api_id(rq);
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "adapter", au_http_param(rq, "id"));
    au_status st = au_adapter_row_get(au_api_db(rq), au_http_arena(rq), id, &row, &err);
    if (st == AU_NOT_FOUND)
        return au_api_not_found(rq, "adapter", id);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (row->deleted_at)
        return au_api_gone(rq, "adapter", id);
    return au_http_reply_json(rq, 200, adapter_json(row, true));
}
