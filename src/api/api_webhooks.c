/* SPDX-License-Identifier: MIT */
/* /v1/webhooks and their deliveries. The secret is in the reply that makes a webhook and nowhere
 * else. */
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "jobs/outbox.h"
#include "webhooks/address.h"
#include "webhooks/sign.h"

static const char *const no_query[] = {NULL};
/* What somebody who says nothing wants to know: how jobs ended. */
static const char default_events[] = "[\"job.completed\",\"job.failed\",\"job.cancelled\"]";

static json_t *webhook_json(const au_webhook *w)
{
    return json_pack("{s:s, s:s, s:o, s:s, s:b, s:o, s:{s:o, s:o}}", "id", w->id, "url", w->url,
                     "events", au_text_json(w->events), "description", w->description, "active",
                     w->active, "created_at", au_time_json(w->created_at), "urls", "self",
                     json_sprintf("/v1/webhooks/%s", w->id), "deliveries",
                     json_sprintf("/v1/webhooks/%s/deliveries", w->id));
}

/* One that is there. False: a problem has been set. */
static bool load_webhook(au_http_request *rq, const char *id, au_webhook **w)
{
    au_err err;
    au_status st =
        id ? au_webhook_get(au_api_db(rq), au_http_arena(rq), id, w, &err) : AU_NOT_FOUND;
    if (st == AU_OK && !(*w)->deleted_at)
        return true;
    if (st == AU_OK)
        au_api_gone(rq, "webhook", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "webhook", au_http_param(rq, "id"));
    else
        au_api_failed(rq, st, &err);
    return false;
}

/* ---- Making ---- */

typedef struct new_webhook {
    au_webhook w;
    char id[AU_UUID_TEXT], secret[AU_WEBHOOK_SECRET_TEXT];
} new_webhook;

static void check_url(au_check *c, au_http_request *rq, const json_t *body, new_webhook *n)
{
    au_err err;
    if (!au_check_text(c, body, "", "url", AU_WEBHOOK_URL_MAX, &n->w.url)) {
        if (!json_object_get(body, "url"))
            au_check_add(c, "/url", "missing", NULL);
        return;
    }
    au_status st =
        au_webhook_url_check(n->w.url, au_api_of(rq)->config->webhook_allow_private, &err);
    if (st != AU_OK)
        au_check_add(c, "/url", st == AU_UNSUPPORTED ? "private_address" : "not_a_url",
                     json_pack("{s:s}", "reason", err.message));
}

static void check_events(au_check *c, const json_t *body, new_webhook *n)
{
    const json_t *list = json_object_get(body, "events");
    n->w.events = default_events;
    if (!list)
        return;
    if (!json_is_array(list)) {
        au_check_add(c, "/events", "wrong_type", json_pack("{s:s}", "expected", "array"));
        return;
    }
    if (json_array_size(list) < 1 || json_array_size(list) > AU_WEBHOOK_EVENTS_MAX)
        au_check_add(c, "/events", "out_of_range",
                     json_pack("{s:i, s:i}", "min_items", 1, "max_items", AU_WEBHOOK_EVENTS_MAX));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *pattern = json_string_value(json_array_get(list, i));
        if (!pattern || !au_webhook_pattern_valid(pattern))
            au_check_add(c, au_check_at_index(c, "/events", i), "unknown_value",
                         json_pack("{s:s}", "expected",
                                   "a kind and what happens to it, as job.completed; * for any"));
    }
    char *text = json_dumps(list, JSON_COMPACT);
    n->w.events = text ? au_arena_strdup(c->arena, text) : NULL;
    free(text);
    if (!n->w.events)
        c->no_memory = true;
}

static void check_secret(au_check *c, const json_t *body, new_webhook *n)
{
    au_webhook_secret_make(n->secret);
    n->w.secret = n->secret;
    if (au_check_text(c, body, "", "secret", AU_WEBHOOK_SECRET_TEXT, &n->w.secret) &&
        !au_webhook_secret_valid(n->w.secret))
        au_check_add(c, "/secret", "wrong_type",
                     json_pack("{s:s}", "expected", "whsec_ and base64 of 24 to 64 bytes"));
}

static au_status write_webhook(au_db *db, void *arg, au_err *err)
{
    new_webhook *n = arg;
    return au_webhook_create(db, &n->w, n->id, err);
}

static au_http_result webhook_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_webhook *n = o->arg;
    au_webhook *w;
    if (o->status == AU_LIMIT)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT, "%s", o->err.message);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    if (!load_webhook(rq, n->id, &w))
        return AU_HTTP_DONE;
    json_t *json = webhook_json(w);
    if (json && json_object_set_new(json, "secret", json_string(n->w.secret)) != 0) {
        json_decref(json);
        json = NULL;
    }
    au_http_set_header(rq, "Location", "/v1/webhooks/%s", n->id);
    au_http_set_header(rq, "Cache-Control", "no-store");
    return au_http_reply_json(rq, 201, json);
}

au_http_result au_post_webhook(au_http_request *rq)
{
    static const char *const fields[] = {"url", "events", "description", "secret", NULL};
    json_t *body;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    new_webhook *n = au_arena_alloc(au_http_arena(rq), sizeof *n);
    if (!n)
        return au_api_busy(rq, 1, "out of memory");
    n->w.description = "";
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    if (au_check_object(&c, body, "", fields)) {
        check_url(&c, rq, body, n);
        check_events(&c, body, n);
        check_secret(&c, body, n);
        au_check_text(&c, body, "", "description", AU_LABEL_MAX_CHARS, &n->w.description);
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    return au_api_create(rq, write_webhook, n, webhook_written,
                         &(au_api_creation){.status = 201, .prefix = "/v1/webhooks/", .id = n->id});
}

/* ---- Reading and deleting ---- */

au_http_result au_list_webhooks(au_http_request *rq)
{
    static const char *const query[] = {"limit", "cursor", NULL};
    au_page page;
    au_webhook **list;
    size_t n;
    bool more;
    au_err err;
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page))
        return AU_HTTP_DONE;
    au_status st = au_webhook_list(au_api_db(rq), au_http_arena(rq), page.before_id, page.limit,
                                   &list, &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, webhook_json(list[i]));
    return au_page_reply(rq, data, more, n ? list[n - 1]->id : NULL);
}

au_http_result au_get_webhook(au_http_request *rq)
{
    au_webhook *w;
    if (!au_http_query_parse(rq, no_query) || !load_webhook(rq, au_api_id(rq), &w))
        return AU_HTTP_DONE;
    return au_http_reply_json(rq, 200, webhook_json(w));
}

typedef struct deletion {
    const char *id;
    bool deleted;
} deletion;

static au_status write_delete(au_db *db, void *arg, au_err *err)
{
    deletion *d = arg;
    return au_webhook_delete(db, d->id, &d->deleted, err);
}

static au_http_result delete_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const deletion *d = o->arg;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    return d->deleted ? au_http_reply_empty(rq, 204) : au_api_gone(rq, "webhook", d->id);
}

au_http_result au_delete_webhook(au_http_request *rq)
{
    au_webhook *w;
    if (!au_http_query_parse(rq, no_query) || !load_webhook(rq, au_api_id(rq), &w) ||
        !au_http_if_match(rq, webhook_json(w)))
        return AU_HTTP_DONE;
    deletion *d = au_arena_alloc(au_http_arena(rq), sizeof *d);
    if (!d)
        return au_api_busy(rq, 1, "out of memory");
    d->id = w->id;
    return au_api_write(rq, write_delete, d, delete_written);
}

/* ---- Deliveries ---- */

static json_t *delivery_json(const au_delivery *d)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:{s:o, s:o}}", "id", d->id,
        "webhook_id", d->webhook_id, "event", d->event, "state", d->state, "attempts", d->attempts,
        "last_status", d->last_status ? json_integer(d->last_status) : json_null(), "last_error",
        *d->last_error ? json_string(d->last_error) : json_null(), "payload",
        au_text_json(d->payload), "created_at", au_time_json(d->created_at), "ended_at",
        au_time_json(d->ended_at), "urls", "self",
        json_sprintf("/v1/webhooks/%s/deliveries/%s", d->webhook_id, d->id), "redeliver",
        json_sprintf("/v1/webhooks/%s/deliveries/%s/redeliver", d->webhook_id, d->id));
}

au_http_result au_list_deliveries(au_http_request *rq)
{
    static const char *const query[] = {"limit", "cursor", "state", NULL};
    au_page page;
    au_webhook *w;
    au_delivery **list;
    size_t n;
    bool more;
    au_err err;
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page))
        return AU_HTTP_DONE;
    const char *state = au_http_query(rq, "state");
    if (state && strcmp(state, "pending") != 0 && strcmp(state, "delivered") != 0 &&
        strcmp(state, "failed") != 0) {
        au_query_refuse(rq, "state", "pending, delivered or failed");
        return AU_HTTP_DONE;
    }
    if (!load_webhook(rq, au_api_id(rq), &w))
        return AU_HTTP_DONE;
    au_status st = au_delivery_list(au_api_db(rq), au_http_arena(rq), w->id, state, page.before_id,
                                    page.limit, &list, &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, delivery_json(list[i]));
    return au_page_reply(rq, data, more, n ? list[n - 1]->id : NULL);
}

static au_http_result reply_delivery(au_http_request *rq, int status, const char *webhook_id,
                                     const char *id)
{
    au_delivery *d;
    au_err err;
    au_status st = au_delivery_get(au_api_db(rq), au_http_arena(rq), webhook_id, id, &d, &err);
    if (st == AU_NOT_FOUND)
        return au_api_not_found(rq, "delivery", id);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    return au_http_reply_json(rq, status, delivery_json(d));
}

au_http_result au_get_delivery(au_http_request *rq)
{
    au_webhook *w;
    if (!au_http_query_parse(rq, no_query) || !load_webhook(rq, au_api_id(rq), &w))
        return AU_HTTP_DONE;
    return reply_delivery(rq, 200, w->id, au_http_param(rq, "delivery"));
}

typedef struct repetition {
    const char *webhook_id, *old;
    char id[AU_UUID_TEXT];
} repetition;

static au_status write_repeat(au_db *db, void *arg, au_err *err)
{
    repetition *r = arg;
    return au_delivery_repeat(db, r->webhook_id, r->old, r->id, err);
}

static au_http_result repeat_written(au_http_request *rq)
{
    const repetition *r = au_api_outcome_of(rq)->arg;
    if (au_api_write_failed(rq, "delivery", r->old))
        return AU_HTTP_DONE;
    if (au_api_of(rq)->sender)
        au_sender_kick(au_api_of(rq)->sender);
    au_http_set_header(rq, "Location", "/v1/webhooks/%s/deliveries/%s", r->webhook_id, r->id);
    return reply_delivery(rq, 202, r->webhook_id, r->id);
}

au_http_result au_redeliver(au_http_request *rq)
{
    au_webhook *w;
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq) ||
        !load_webhook(rq, au_api_id(rq), &w))
        return AU_HTTP_DONE;
    repetition *r = au_arena_alloc(au_http_arena(rq), sizeof *r);
    const char *prefix = au_arena_printf(au_http_arena(rq), "/v1/webhooks/%s/deliveries/", w->id);
    if (!r || !prefix)
        return au_api_busy(rq, 1, "out of memory");
    r->webhook_id = w->id;
    r->old = au_http_param(rq, "delivery");
    return au_api_create(rq, write_repeat, r, repeat_written,
                         &(au_api_creation){.status = 202, .prefix = prefix, .id = r->id});
}
