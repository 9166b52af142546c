/* SPDX-License-Identifier: MIT */
/* What a handler sees of a request. A request lives inside its connection and is reset for the next
 * one; its strings are in its arena. Owned by the loop thread, or by whoever holds it while it is
 * pending. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"
#include "http/internal.h"

void au_http_request_init(au_http_request *rq, au_http_conn *c)
{
    *rq = (au_http_request){.conn = c};
    au_arena_init(&rq->arena, ARENA_MAX_BYTES);
    au_buf_init(&rq->body, 0);
    au_uuid7(rq->id);
    au_http_response_init(&rq->res);
}

void au_http_request_deinit(au_http_request *rq)
{
    if (rq->on_end)
        rq->on_end(rq->end_data);
    rq->on_end = NULL;
    au_buf_deinit(&rq->stream.out);
    json_decref(rq->json);
    rq->json = NULL;
    au_buf_deinit(&rq->body);
    au_http_response_deinit(&rq->res);
    au_arena_deinit(&rq->arena);
    rq->active = false;
}

bool au_http_is_head(const au_http_request *rq)
{
    return rq->head.method && strcmp(rq->head.method, "HEAD") == 0;
}

const char *au_http_param(const au_http_request *rq, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < rq->match.n_params; i++) {
        if (rq->match.params[i].name_len == len && memcmp(rq->match.params[i].name, name, len) == 0)
            return rq->match.params[i].value;
    }
    AU_ASSERT(false && "the pattern has this parameter");
    return NULL;
}

const char *au_http_header(const au_http_request *rq, const char *lower_name)
{
    return au_http_field_get(&rq->head, lower_name, NULL);
}

size_t au_http_header_count(const au_http_request *rq, const char *lower_name)
{
    size_t count;
    au_http_field_get(&rq->head, lower_name, &count);
    return count;
}

bool au_http_is_safe(const au_http_request *rq)
{
    return au_http_is_head(rq) || (rq->head.method && strcmp(rq->head.method, "GET") == 0);
}

const char *au_http_method(const au_http_request *rq)
{
    return rq->head.method;
}

const char *au_http_path(const au_http_request *rq)
{
    return rq->head.path;
}

const char *au_http_query_text(const au_http_request *rq)
{
    return rq->head.query;
}

unsigned au_http_route_flags(const au_http_request *rq)
{
    return rq->match.route->flags;
}

bool au_http_is_remote(const au_http_request *rq)
{
    return rq->conn->loop->server->remote;
}

bool au_http_is_same_origin(const au_http_request *rq)
{
    return au_http_guard_cookie(&rq->conn->loop->server->guard, rq->head.host,
                                au_http_header(rq, "origin"), au_http_header(rq, "sec-fetch-site"));
}

const void *au_http_caller(const au_http_request *rq)
{
    return rq->caller;
}

void au_http_set_caller(au_http_request *rq, const void *caller)
{
    rq->caller = caller;
}

const char *au_http_id(const au_http_request *rq)
{
    return rq->id;
}

au_arena *au_http_arena(au_http_request *rq)
{
    return &rq->arena;
}

void *au_http_user(const au_http_request *rq)
{
    return rq->conn->loop->server->config.user;
}

void *au_http_thread_state(const au_http_request *rq)
{
    return rq->conn->loop->state;
}

void *au_http_data(const au_http_request *rq)
{
    return rq->data;
}

void au_http_set_data(au_http_request *rq, void *data)
{
    rq->data = data;
}

void *au_http_end_data(const au_http_request *rq)
{
    return rq->end_data;
}

int64_t au_http_started_ms(const au_http_request *rq)
{
    return rq->started_ms;
}

bool au_http_draining(const au_http_request *rq)
{
    return atomic_load(&rq->conn->loop->server->phase) != SERVER_RUN;
}

au_http_result au_http_receive(au_http_request *rq, au_http_piece_fn piece, au_http_handler then)
{
    AU_ASSERT(rq->match.route->flags & AU_ROUTE_UPLOAD);
    rq->piece = piece;
    rq->next = then;
    return AU_HTTP_RECEIVE;
}

void au_http_on_end(au_http_request *rq, void (*fn)(void *data), void *data)
{
    AU_ASSERT(!rq->on_end);
    rq->on_end = fn;
    rq->end_data = data;
}

bool au_http_body_announced(const au_http_request *rq, uint64_t *len)
{
    *len = rq->head.length;
    return !rq->head.chunked;
}

size_t au_http_body_len(const au_http_request *rq)
{
    return rq->body.len;
}

static bool refuse_query(au_http_request *rq, const char *name, const char *code,
                         const char *suggestion, const char *what)
{
    json_t *error =
        json_pack("{s:s, s:s, s:s*}", "parameter", name, "code", code, "did_you_mean", suggestion);
    au_http_problem_more(rq, AU_PROBLEM_BAD_QUERY, json_pack("{s:[o]}", "errors", error),
                         "query parameter \"%s\" %s", name, what);
    return false;
}

/* Decodes name and value of s[0, len) and stores them. */
static bool add_query(au_http_request *rq, const char *s, size_t len, const char *const *allowed)
{
    const char *eq = memchr(s, '=', len);
    size_t name_len = eq ? (size_t)(eq - s) : len;
    const char *name = au_http_unescape(&rq->arena, s, name_len, true);
    const char *value = eq ? au_http_unescape(&rq->arena, eq + 1, len - name_len - 1, true) : "";
    if (!name || !value) {
        au_http_problem(rq, AU_PROBLEM_BAD_QUERY,
                        "query parameter \"%s\" holds an escape that cannot be decoded",
                        name ? name : "");
        return false;
    }
    bool known = false;
    for (size_t i = 0; allowed[i]; i++)
        known |= strcmp(name, allowed[i]) == 0;
    if (!known)
        return refuse_query(rq, name, "unknown_parameter", au_str_nearest(name, allowed),
                            "is not known here");
    if (au_http_query(rq, name))
        return refuse_query(rq, name, "repeated", NULL, "is repeated");
    AU_ASSERT(rq->n_query < QUERY_MAX); /* fewer names than that are allowed anywhere */
    rq->query[rq->n_query++] = (query_param){name, value};
    return true;
}

bool au_http_query_parse(au_http_request *rq, const char *const *allowed)
{
    const char *p = rq->head.query;
    rq->n_query = 0; /* a handler that is called again parses again */
    while (p && *p) {
        size_t n = strcspn(p, "&");
        if (n && !add_query(rq, p, n, allowed))
            return false;
        p += n + (p[n] == '&');
    }
    return true;
}

const char *au_http_query(const au_http_request *rq, const char *name)
{
    for (size_t i = 0; i < rq->n_query; i++) {
        if (strcmp(rq->query[i].name, name) == 0)
            return rq->query[i].value;
    }
    return NULL;
}

const char *au_http_query_take(au_http_request *rq, const char *name)
{
    const char *query = rq->head.query;
    size_t len = strlen(name);
    for (const char *p = query; p && *p;) {
        size_t n = strcspn(p, "&");
        const char *rest = p + n + (p[n] == '&');
        if (n > len && p[len] == '=' && memcmp(p, name, len) == 0) {
            const char *value = au_http_unescape(&rq->arena, p + len + 1, n - len - 1, true);
            rq->head.query = au_arena_printf(&rq->arena, "%.*s%s", (int)(p - query), query, rest);
            return value ? value : "";
        }
        p = rest;
    }
    return NULL;
}

static void encode(au_buf *b, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     strchr("-._~", c);
        if (plain)
            au_buf_char(b, *s);
        else
            au_buf_printf(b, "%%%02X", c);
    }
}

void au_http_link_next(au_http_request *rq, const char *cursor)
{
    au_buf link;
    au_buf_init(&link, AU_HTTP_LINE_MAX);
    au_buf_printf(&link, "%s%s?", au_http_base_path(rq), rq->head.path);
    for (size_t i = 0; i < rq->n_query; i++) {
        if (strcmp(rq->query[i].name, "cursor") == 0)
            continue;
        encode(&link, rq->query[i].name);
        au_buf_char(&link, '=');
        encode(&link, rq->query[i].value);
        au_buf_char(&link, '&');
    }
    au_buf_str(&link, "cursor=");
    encode(&link, cursor);
    /* One that is too long for a request line would not be taken back: the body has the cursor,
     * too. */
    if (link.status == AU_OK)
        au_http_set_header(rq, "Link", "<%s>; rel=\"next\"", au_buf_cstr(&link));
    au_buf_deinit(&link);
}

/* JSON has integers of any size; jansson ends at 64 bits. Those beyond are made reals, so that the
 * field they stand in can be named as out of range rather than the whole text refused. */
static void widen_integers(au_buf *out, const char *text, size_t len)
{
    bool in_string = false;
    for (size_t i = 0; i < len;) {
        size_t n = 1;
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (in_string && text[i] == '\\' && i + 1 < len)
            n = 2;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (!in_string && digit)
            while (i + n < len && strchr("0123456789+-.eE", text[i + n]) && text[i + n])
                n++;
        au_buf_append(out, text + i, n);
        if (n > 18 && !in_string && strspn(text + i, "0123456789") >= n)
            au_buf_str(out, ".0");
        i += n;
    }
}

bool au_http_body_json(au_http_request *rq, json_t **out)
{
    au_err err;
    *out = rq->json;
    if (rq->json)
        return true;
    if (rq->body.len == 0) {
        au_http_problem(rq, AU_PROBLEM_BAD_JSON, "the body is empty, a JSON object is expected");
        return false;
    }
    if (au_json_parse(&rq->json, rq->body.data, rq->body.len, "body", &err) != AU_OK) {
        au_buf wide;
        au_buf_init(&wide, rq->body.len + rq->body.len / 8 + 2);
        widen_integers(&wide, rq->body.data, rq->body.len);
        if (wide.status == AU_OK && wide.len > rq->body.len &&
            au_json_parse(&rq->json, wide.data, wide.len, "body", NULL) != AU_OK)
            rq->json = NULL;
        au_buf_deinit(&wide);
    }
    if (!rq->json) {
        au_http_problem(rq, AU_PROBLEM_BAD_JSON, "%s", err.message);
        return false;
    }
    *out = rq->json;
    return true;
}

au_http_result au_http_serve_get(au_http_request *rq, const char *path, int status)
{
    au_http_match match;
    if (au_http_route_find(&match, rq->conn->loop->server->config.routes, &rq->arena, "GET",
                           path) != AU_PROBLEM_NONE)
        return au_http_reply_empty(rq, status);
    rq->match = match;
    rq->head.query = NULL;
    rq->n_query = 0;
    rq->res.status_for_ok = status;
    return match.route->handler(rq);
}

au_http_result au_http_again(au_http_request *rq, au_http_handler handler, int64_t delay_ms)
{
    rq->next = handler;
    rq->wakes = false;
    au_http_conn_set_deadline(rq->conn, au_mono_ms() + delay_ms);
    return AU_HTTP_AGAIN;
}

au_http_result au_http_wait(au_http_request *rq, au_http_handler handler, int64_t delay_ms)
{
    au_http_again(rq, handler, delay_ms);
    rq->wakes = true;
    return AU_HTTP_AGAIN;
}

void au_http_resume(au_http_request *rq, au_http_handler handler)
{
    rq->next = handler;
    au_http_loop_post(rq->conn->loop, rq->conn);
}
