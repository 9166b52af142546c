/* SPDX-License-Identifier: MIT */
/* Rows of webhooks and deliveries. A payload is the form of Standard Webhooks: {"type",
 * "timestamp", "data"}; it is fixed when the change happens, so that every attempt says the same.
 * No state of its own. */
#include "jobs/outbox.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "jobs/reader.h"

enum {
    MAX_PAYLOAD = 1 << 16,
    TYPE_TEXT = 64,
    MAX_LISTED = 64, /* sample ids of a job that a payload lists */
};

/* ---- Patterns ---- */

static const char *const kinds[] = {"job", "sample", "adapter", "comparison", "prompt", NULL};
static const char *const happenings[] = {"queued",  "processing", "cancelling", "completed",
                                         "failed",  "cancelled",  "created",    "updated",
                                         "deleted", "restored",   NULL};

static bool is_listed(const char *word, size_t len, const char *const *list)
{
    for (; *list; list++) {
        if (strlen(*list) == len && memcmp(*list, word, len) == 0)
            return true;
    }
    return len == 1 && *word == '*';
}

bool au_webhook_pattern_valid(const char *pattern)
{
    const char *dot = strchr(pattern, '.');
    if (!dot)
        return strcmp(pattern, "*") == 0;
    return is_listed(pattern, (size_t)(dot - pattern), kinds) &&
           is_listed(dot + 1, strlen(dot + 1), happenings);
}

/* One half of a pattern against one half of a type. */
static bool half_matches(const char *pattern, size_t len, const char *word)
{
    return (len == 1 && *pattern == '*') ||
           (strlen(word) == len && memcmp(pattern, word, len) == 0);
}

static bool matches(const char *pattern, const char *kind, const char *what)
{
    const char *dot = strchr(pattern, '.');
    if (!dot)
        return strcmp(pattern, "*") == 0;
    return half_matches(pattern, (size_t)(dot - pattern), kind) &&
           half_matches(dot + 1, strlen(dot + 1), what);
}

static bool wants(const char *events, const char *kind, const char *what)
{
    json_t *list = json_loads(events, 0, NULL);
    bool found = false;
    for (size_t i = 0; i < json_array_size(list) && !found; i++) {
        const char *pattern = json_string_value(json_array_get(list, i));
        found = pattern && matches(pattern, kind, what);
    }
    json_decref(list);
    return found;
}

/* ---- Payloads ---- */

static json_t *time_json(int64_t unix_ms)
{
    char text[AU_TIME_TEXT];
    return unix_ms ? json_string(au_time_format(text, unix_ms)) : json_null();
}

static au_status sample_ids(au_db *db, const char *job_id, json_t **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    *out = json_array();
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT sample_id FROM job_samples WHERE job_id = ?1 AND sample_id IS NOT "
                       "NULL ORDER BY variant, idx LIMIT ?2",
                       "ti", job_id, (int64_t)MAX_LISTED));
    for (bool has_row;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        json_array_append_new(*out, json_string(au_rows_text(rows, 0)));
    }
done:
    au_rows_close(&rows);
    return st;
}

/* The outline of a job: what a receiver needs to know whether to ask for more. */
static au_status job_data(au_db *db, const char *id, json_t **out, au_err *err)
{
    au_rows *rows = NULL;
    json_t *samples = NULL;
    bool found;
    au_status st = AU_OK;
    AU_TRY(sample_ids(db, id, &samples, err));
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT state, label, prompt_id, model_name, attempt, error, created_at, "
                       "finished_at FROM jobs WHERE id = ?1",
                       "t", id));
    AU_TRY(au_rows_next(rows, &found, err));
    AU_FAIL_IF(!found, AU_INTERNAL, "job %.40s is told of and does not exist", id);
    const char *error = au_rows_text(rows, 5);
    json_t *problem = error ? json_loads(error, 0, NULL) : json_null();
    *out = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:O, s:o, s:o, s:o, s:{s:o}}", "id", id, "state",
        au_rows_text(rows, 0), "label", au_rows_text(rows, 1), "prompt_id", au_rows_text(rows, 2),
        "model", au_rows_text(rows, 3), "attempt", (json_int_t)au_rows_int(rows, 4), "sample_ids",
        samples, "error", problem, "created_at", time_json(au_rows_int(rows, 6)), "finished_at",
        time_json(au_rows_int(rows, 7)), "urls", "self", json_sprintf("/v1/jobs/%s", id));
    AU_FAIL_IF(!*out, AU_NOMEM, "out of memory");
done:
    au_rows_close(&rows);
    json_decref(samples);
    return st;
}

static au_status make_payload(au_buf *out, au_db *db, const char *kind, const char *subject,
                              const char *what, const char *data, au_err *err)
{
    char now[AU_TIME_TEXT];
    json_t *told = NULL, *payload = NULL;
    au_status st = AU_OK;
    if (strcmp(kind, "job") == 0) {
        AU_TRY(job_data(db, subject, &told, err));
    } else {
        AU_TRY(au_json_parse(&told, data, strlen(data), "data of an event", err));
        json_object_set_new(told, "id", json_string(subject));
    }
    payload = json_pack("{s:o, s:s, s:O}", "type", json_sprintf("%s.%s", kind, what), "timestamp",
                        au_time_format(now, au_time_ms()), "data", told);
    AU_FAIL_IF(!payload, AU_NOMEM, "out of memory");
    au_json_dump(out, payload);
    AU_TRY(au_buf_check(out, err));
done:
    json_decref(told);
    json_decref(payload);
    return st;
}

/* ---- Telling ---- */

static au_status insert(au_db *db, const char *webhook_id, const char *event, const char *payload,
                        char *id_out, au_err *err)
{
    au_uuid7(id_out);
    return au_db_exec(db, NULL, err,
                      "INSERT INTO deliveries (id, webhook_id, event, payload, due_at, created_at) "
                      "VALUES (?1, ?2, ?3, ?4, au_clock_ms(), au_now_ms())",
                      "tttt", id_out, webhook_id, event, payload);
}

au_status au_outbox_add(au_db *db, const char *kind, const char *subject, const char *what,
                        const char *data, au_err *err)
{
    char ids[AU_WEBHOOKS_MAX][AU_UUID_TEXT], id[AU_UUID_TEXT], type[TYPE_TEXT];
    size_t n = 0;
    au_rows *rows = NULL;
    au_buf payload;
    au_status st = AU_OK;
    au_buf_init(&payload, MAX_PAYLOAD);
    AU_ASSERT(au_db_in_transaction(db));
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT id, events FROM webhooks WHERE active = 1 AND deleted_at = 0", ""));
    for (bool has_row; n < AU_WEBHOOKS_MAX;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        if (wants(au_rows_text(rows, 1), kind, what))
            snprintf(ids[n++], AU_UUID_TEXT, "%s", au_rows_text(rows, 0));
    }
    au_rows_close(&rows);
    if (n == 0)
        goto done;
    snprintf(type, sizeof type, "%s.%s", kind, what);
    AU_TRY(make_payload(&payload, db, kind, subject, what, data, err));
    for (size_t i = 0; i < n; i++)
        AU_TRY(insert(db, ids[i], type, au_buf_cstr(&payload), id, err));
done:
    au_rows_close(&rows);
    au_buf_deinit(&payload);
    return st;
}

/* ---- Webhooks ---- */

au_status au_webhook_create(au_db *db, const au_webhook *w, char *id_out, au_err *err)
{
    int64_t n;
    au_status st = AU_OK;
    AU_TRY(au_db_int(&n, db, 0, err, "SELECT COUNT(*) FROM webhooks WHERE deleted_at = 0", ""));
    AU_FAIL_IF(n >= AU_WEBHOOKS_MAX, AU_LIMIT, "there are %d webhooks already", AU_WEBHOOKS_MAX);
    au_uuid7(id_out);
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO webhooks (id, url, secret, events, description, created_at) "
                      "VALUES (?1, ?2, ?3, ?4, ?5, au_now_ms())",
                      "ttttt", id_out, w->url, w->secret, w->events, w->description));
done:
    return st;
}

#define WEBHOOK                                                                                    \
    "SELECT id, url, description, secret, events, active, created_at, deleted_at FROM webhooks "

static au_status read_webhook(au_reader *r, void *record)
{
    au_webhook *w = record;
    w->id = au_read_text(r);
    w->url = au_read_text(r);
    w->description = au_read_text(r);
    w->secret = au_read_text(r);
    w->events = au_read_text(r);
    w->active = au_read_bool(r);
    w->created_at = au_read_i64(r);
    w->deleted_at = au_read_i64(r);
    return r->st;
}

au_status au_webhook_get(au_db *db, au_arena *a, const char *id, au_webhook **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, WEBHOOK "WHERE id = ?1", "t", id));
    AU_TRY(au_page_single(rows, a, read_webhook, sizeof **out, (void **)out, "webhook", id, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_webhook_list(au_db *db, au_arena *a, const char *before_id, int limit,
                          au_webhook ***out, size_t *n, bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    limit = au_page_limit(limit);
    AU_TRY(au_db_query(&rows, db, err,
                       WEBHOOK "WHERE deleted_at = 0 AND id < COALESCE(?1, 'g') "
                               "ORDER BY id DESC LIMIT ?2",
                       "ti", before_id, (int64_t)limit + 1));
    AU_TRY(au_page_collect(rows, a, read_webhook, sizeof ***out, limit, (void ***)out, n, has_more,
                           err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_webhook_delete(au_db *db, const char *id, bool *deleted, au_err *err)
{
    int64_t n;
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, &n, err,
                      "UPDATE webhooks SET deleted_at = au_now_ms(), active = 0 "
                      "WHERE id = ?1 AND deleted_at = 0",
                      "t", id));
    *deleted = n > 0;
    AU_TRY(
        au_db_exec(db, NULL, err,
                   "UPDATE deliveries SET state = 'failed', last_error = 'the webhook was "
                   "deleted', ended_at = au_now_ms() WHERE webhook_id = ?1 AND state = 'pending'",
                   "t", id));
done:
    return st;
}

/* ---- Deliveries ---- */

#define DELIVERY                                                                                   \
    "SELECT d.id, d.webhook_id, d.event, d.payload, d.state, d.attempts, d.last_status, "          \
    "d.last_error, d.created_at, d.ended_at, w.url, w.secret FROM deliveries d "                   \
    "JOIN webhooks w ON w.id = d.webhook_id "

static au_status read_delivery(au_reader *r, void *record)
{
    au_delivery *d = record;
    d->id = au_read_text(r);
    d->webhook_id = au_read_text(r);
    d->event = au_read_text(r);
    d->payload = au_read_text(r);
    d->state = au_read_text(r);
    d->attempts = au_read_int(r);
    d->last_status = au_read_int(r);
    d->last_error = au_read_text(r);
    d->created_at = au_read_i64(r);
    d->ended_at = au_read_i64(r);
    d->url = au_read_text(r);
    d->secret = au_read_text(r);
    return r->st;
}

au_status au_delivery_list(au_db *db, au_arena *a, const char *webhook_id, const char *state,
                           const char *before_id, int limit, au_delivery ***out, size_t *n,
                           bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    limit = au_page_limit(limit);
    AU_TRY(au_db_query(&rows, db, err,
                       DELIVERY "WHERE d.webhook_id = ?1 AND d.id < COALESCE(?2, 'g') AND "
                                "(?3 IS NULL OR d.state = ?3) ORDER BY d.id DESC LIMIT ?4",
                       "ttti", webhook_id, before_id, state, (int64_t)limit + 1));
    AU_TRY(au_page_collect(rows, a, read_delivery, sizeof ***out, limit, (void ***)out, n, has_more,
                           err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_delivery_get(au_db *db, au_arena *a, const char *webhook_id, const char *id,
                          au_delivery **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, DELIVERY "WHERE d.webhook_id = ?1 AND d.id = ?2", "tt",
                       webhook_id, id));
    AU_TRY(au_page_single(rows, a, read_delivery, sizeof **out, (void **)out, "delivery", id, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_delivery_repeat(au_db *db, const char *webhook_id, const char *id, char *id_out,
                             au_err *err)
{
    int64_t n;
    au_status st = AU_OK;
    au_uuid7(id_out);
    AU_TRY(au_db_exec(db, &n, err,
                      "INSERT INTO deliveries (id, webhook_id, event, payload, due_at, created_at) "
                      "SELECT ?3, webhook_id, event, payload, au_clock_ms(), au_now_ms() "
                      "FROM deliveries WHERE webhook_id = ?1 AND id = ?2",
                      "ttt", webhook_id, id, id_out));
    AU_FAIL_IF(n == 0, AU_NOT_FOUND, "delivery %.40s does not exist", id);
done:
    return st;
}

au_status au_delivery_due_ms(au_db *db, int64_t *out, au_err *err)
{
    return au_db_int(out, db, -1, err,
                     "SELECT MAX(0, MIN(due_at) - au_clock_ms()) FROM deliveries "
                     "WHERE state = 'pending'",
                     "");
}

au_status au_delivery_take(au_db *db, au_arena *a, int limit, int64_t hold_ms, au_delivery ***out,
                           size_t *n, au_err *err)
{
    au_rows *rows = NULL;
    bool more;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       DELIVERY "WHERE d.state = 'pending' AND d.due_at <= au_clock_ms() AND "
                                "w.active = 1 ORDER BY d.due_at, d.id LIMIT ?1",
                       "i", (int64_t)limit));
    AU_TRY(au_page_collect(rows, a, read_delivery, sizeof ***out, 0, (void ***)out, n, &more, err));
    au_rows_close(&rows);
    for (size_t i = 0; i < *n; i++)
        AU_TRY(au_db_exec(db, NULL, err,
                          "UPDATE deliveries SET due_at = au_clock_ms() + ?2 WHERE id = ?1", "ti",
                          (*out)[i]->id, hold_ms));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_delivery_finish(au_db *db, const au_delivery_end *end, au_err *err)
{
    au_status st = AU_OK;
    const char *state = end->ok ? "delivered" : end->retry_ms < 0 ? "failed" : "pending";
    AU_TRY(
        au_db_exec(db, NULL, err,
                   "UPDATE deliveries SET state = ?2, attempts = attempts + 1, last_status = ?3, "
                   "last_error = ?4, due_at = au_clock_ms() + ?5, ended_at = CASE ?2 WHEN "
                   "'pending' THEN 0 ELSE au_now_ms() END WHERE id = ?1 AND state = 'pending'",
                   "ttiti", end->id, state, (int64_t)end->status, end->error,
                   end->retry_ms < 0 ? 0 : end->retry_ms));
    if (end->gone)
        AU_TRY(au_db_exec(db, NULL, err,
                          "UPDATE webhooks SET active = 0 WHERE id = (SELECT webhook_id FROM "
                          "deliveries WHERE id = ?1)",
                          "t", end->id));
done:
    return st;
}

au_status au_delivery_purge(au_db *db, int64_t ended_before, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM deliveries WHERE ended_at > 0 AND ended_at < ?1",
                      "i", ended_before));
    AU_TRY(
        au_db_exec(db, NULL, err,
                   "DELETE FROM webhooks WHERE deleted_at > 0 AND deleted_at < ?1 AND NOT EXISTS "
                   "(SELECT 1 FROM deliveries d WHERE d.webhook_id = webhooks.id)",
                   "i", ended_before));
done:
    return st;
}
