/* SPDX-License-Identifier: MIT */
/* /v1/adapters: list, read, change, delete and restore; uploads are adapter_upload.c. Versions,
 * names and identity: jobs/adapter_write.h. */
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/str.h"
#include "jobs/adapter_write.h"

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

static bool parse_filter(au_http_request *rq, au_adapter_filter *f)
{
    const char *version = au_http_query(rq, "version");
    uint64_t n = 0;
    f->status = au_http_query(rq, "state");
    f->name = au_http_query(rq, "name");
    f->base_model = au_http_query(rq, "base_model");
    if (f->status && strcmp(f->status, "validating") != 0 && strcmp(f->status, "ready") != 0 &&
        strcmp(f->status, "rejected") != 0)
        return au_query_refuse(rq, "state", "validating, ready or rejected");
    if (version && (!au_parse_u64(version, &n) || n < 1 || n > INT32_MAX))
        return au_query_refuse(rq, "version", "a number from 1");
    f->version = (int)n;
    return au_query_flag(rq, "all", &f->superseded);
}

au_http_result au_list_adapters(au_http_request *rq)
{
    static const char *const query[] = {"limit", "cursor",     "state",   "name",
                                        "all",   "base_model", "version", NULL};
    au_page page;
    au_adapter_filter filter = {0};
    au_err err;
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page) || !parse_filter(rq, &filter))
        return AU_HTTP_DONE;
    filter.before_id = page.before_id;
    filter.limit = page.limit;
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

/* The adapter, deleted ones too; NULL when a problem has been set. */
static const au_adapter_row *find_adapter(au_http_request *rq, const char *id)
{
    au_err err;
    au_adapter_row *row = NULL;
    au_status st =
        id ? au_adapter_row_get(au_api_db(rq), au_http_arena(rq), id, &row, &err) : AU_NOT_FOUND;
    if (st == AU_OK)
        return row;
    if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "adapter", id ? id : au_http_param(rq, "id"));
    else
        au_api_failed(rq, st, &err);
    return NULL;
}

static const au_adapter_row *find_live(au_http_request *rq, const char *id)
{
    const au_adapter_row *row = find_adapter(rq, id);
    if (!row || !row->deleted_at)
        return row;
    au_api_gone(rq, "adapter", id);
    return NULL;
}

au_http_result au_adapter_reply(au_http_request *rq, int status, const char *id)
{
    const au_adapter_row *row = find_live(rq, id);
    return row ? au_http_reply_json(rq, status, adapter_json(row, true)) : AU_HTTP_DONE;
}

au_http_result au_get_adapter(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    return au_http_query_parse(rq, no_query) ? au_adapter_reply(rq, 200, au_api_id(rq))
                                             : AU_HTTP_DONE;
}

/* ---- Changes ---- */

typedef struct change {
    const char *id, *name, *description;
    bool changed;
} change;

static au_http_result refuse_name(au_http_request *rq, const char *holder)
{
    json_t *more = json_pack("{s:[{s:s, s:s, s:s}]}", "errors", "pointer", "/name", "code",
                             "conflict", "id", holder);
    return au_http_problem_more(rq, AU_PROBLEM_CONFLICT, more, "adapter %s has that name", holder);
}

/* NULL: a problem has been set. */
static change *new_change(au_http_request *rq, const char *id)
{
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (c)
        c->id = id;
    else
        au_api_busy(rq, 1, "out of memory");
    return c;
}

static au_http_result change_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const change *c = o->arg;
    if (o->status == AU_EXISTS)
        return refuse_name(rq, o->err.message);
    if (o->status != AU_OK && o->status != AU_NOT_FOUND)
        return au_api_failed(rq, o->status, &o->err);
    return au_adapter_reply(rq, 200, c->id);
}

static au_status write_patch(au_db *db, void *arg, au_err *err)
{
    const change *c = arg;
    return au_adapter_row_patch(db, c->id, c->name, c->description, err);
}

au_http_result au_patch_adapter(au_http_request *rq)
{
    static const char *const fields[] = {"name", "description", NULL};
    static const char *const no_query[] = {NULL};
    json_t *body;
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_adapter_row *row = find_live(rq, au_api_id(rq));
    if (!row || !au_http_if_match(rq, adapter_json(row, true)) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    change *c = new_change(rq, row->id);
    if (!c)
        return AU_HTTP_DONE;
    au_check check;
    au_check_init(&check, au_http_arena(rq));
    if (au_check_object(&check, body, "", fields)) {
        if (au_check_text(&check, body, "", "name", AU_LABEL_MAX_CHARS, &c->name))
            au_adapter_name_check(&check, c->name);
        au_check_text(&check, body, "", "description", AU_DESCRIPTION_MAX_CHARS, &c->description);
    }
    if (!au_check_ok(&check))
        return au_check_reply(&check, rq);
    au_check_deinit(&check);
    return au_api_write(rq, write_patch, c, change_written);
}

static au_status write_deletion(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    return au_adapter_row_delete(db, c->id, &c->changed, err);
}

static au_http_result deletion_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const change *c = o->arg;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    /* Somebody else may have been first. */
    return c->changed ? au_http_reply_empty(rq, 204) : au_api_gone(rq, "adapter", c->id);
}

au_http_result au_delete_adapter(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_adapter_row *row = find_live(rq, au_api_id(rq));
    change *c =
        row && au_http_if_match(rq, adapter_json(row, true)) ? new_change(rq, row->id) : NULL;
    return c ? au_api_write(rq, write_deletion, c, deletion_written) : AU_HTTP_DONE;
}

static au_status write_restore(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    return au_adapter_row_restore(db, c->id, &c->changed, err);
}

au_http_result au_restore_adapter(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_adapter_row *row = find_adapter(rq, au_api_id(rq));
    change *c = row ? new_change(rq, row->id) : NULL;
    return c ? au_api_write(rq, write_restore, c, change_written) : AU_HTTP_DONE;
}
