/* SPDX-License-Identifier: MIT */
/* /v1/keys: make, list, read, revoke; for administrators. The secret is in the reply that makes a
 * key and nowhere else: a request repeated with its Idempotency-Key gets the key without it. */
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/clock.h"

static const char *const no_query[] = {NULL};

typedef struct new_key {
    const unsigned char *secret;
    const char *name;
    unsigned scopes;
    int64_t expires_at, purge_before;
    char id[AU_UUID_TEXT], text[AU_KEY_TEXT];
} new_key;

json_t *au_scopes_json(unsigned scopes)
{
    json_t *list = json_array();
    for (unsigned s = AU_SCOPE_READ; s <= AU_SCOPE_ADMIN; s <<= 1) {
        if (scopes & s)
            au_list_add(&list, json_string(au_scope_name(s)));
    }
    return list;
}

json_t *au_key_json(const au_key *k)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "id", k->id, "name", k->name, "prefix",
                     k->prefix, "scopes", au_scopes_json(k->scopes), "created_at",
                     au_time_json(k->created_at), "expires_at", au_time_json(k->expires_at),
                     "last_used_at", au_time_json(k->last_used_at));
}

static void check_scopes(au_check *c, const json_t *body, unsigned *scopes)
{
    const json_t *list = json_object_get(body, "scopes");
    if (!list) {
        au_check_add(c, "/scopes", "missing", NULL);
        return;
    }
    if (!json_is_array(list) || json_array_size(list) == 0) {
        au_check_add(c, "/scopes", "wrong_type",
                     json_pack("{s:s}", "expected", "array of at least one scope"));
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        unsigned scope = name ? au_scope_parse(name) : 0;
        if (!scope)
            au_check_add(c, au_check_at_index(c, "/scopes", i), "unknown_value",
                         json_pack("{s:[s, s, s]}", "allowed", "read", "write", "admin"));
        *scopes |= scope;
    }
}

/* null is "never", as without it. */
static void check_expiry(au_check *c, const json_t *body, int64_t *expires_at)
{
    const char *text;
    if (json_is_null(json_object_get(body, "expires_at")) ||
        !au_check_text(c, body, "", "expires_at", AU_TIME_TEXT * 2, &text))
        return;
    if (!au_time_parse(text, expires_at))
        au_check_add(c, "/expires_at", "wrong_type",
                     json_pack("{s:s}", "expected", "time of RFC 3339"));
    else if (*expires_at <= au_time_ms())
        au_check_add(c, "/expires_at", "out_of_range",
                     json_pack("{s:s}", "expected", "time in the future"));
}

static au_status write_key(au_db *db, void *arg, au_err *err)
{
    new_key *k = arg;
    au_status st = au_keys_purge(db, k->purge_before, err);
    if (st == AU_OK)
        st = au_key_create(db, k->secret, k->name, k->scopes, k->expires_at, k->id, k->text, err);
    return st;
}

static au_http_result key_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_key *k = o->arg;
    au_key *key;
    au_err err;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    au_status st = au_key_get(au_api_db(rq), au_http_arena(rq), k->id, &key, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *json = au_key_json(key);
    if (json && json_object_set_new(json, "secret", json_string(k->text)) != 0) {
        json_decref(json);
        json = NULL;
    }
    au_http_set_header(rq, "Location", "/v1/keys/%s", k->id);
    au_http_set_header(rq, "Cache-Control", "no-store");
    return au_http_reply_json(rq, 201, json);
}

au_http_result au_post_key(au_http_request *rq)
{
    static const char *const fields[] = {"name", "scopes", "expires_at", NULL};
    json_t *body;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    const au_api *api = au_api_of(rq);
    new_key *k = au_arena_alloc(au_http_arena(rq), sizeof *k);
    if (!k)
        return au_api_busy(rq, 1, "out of memory");
    k->secret = api->auth.secret;
    k->purge_before = au_time_ms() - api->config->deleted_retention_ms;
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    if (au_check_object(&c, body, "", fields)) {
        if (!json_object_get(body, "name"))
            au_check_add(&c, "/name", "missing", NULL);
        if (au_check_text(&c, body, "", "name", AU_KEY_NAME_MAX_CHARS, &k->name) && !*k->name)
            au_check_add(&c, "/name", "out_of_range", json_pack("{s:i}", "min_chars", 1));
        check_scopes(&c, body, &k->scopes);
        check_expiry(&c, body, &k->expires_at);
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    return au_api_create(rq, write_key, k, key_written,
                         &(au_api_creation){.status = 201, .prefix = "/v1/keys/", .id = k->id});
}

au_http_result au_list_keys(au_http_request *rq)
{
    static const char *const query[] = {"limit", "cursor", NULL};
    au_page page;
    au_key **keys;
    size_t n;
    bool more;
    au_err err;
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page))
        return AU_HTTP_DONE;
    au_status st = au_key_list(au_api_db(rq), au_http_arena(rq), page.before_id, page.limit, &keys,
                               &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, au_key_json(keys[i]));
    return au_page_reply(rq, data, more, n ? keys[n - 1]->id : NULL);
}

/* The key of {id}, not revoked; NULL when a problem has been set. */
static const au_key *find_key(au_http_request *rq)
{
    au_err err;
    au_key *key;
    const char *id = au_api_id(rq);
    if (!id) {
        au_api_not_found(rq, "key", au_http_param(rq, "id"));
        return NULL;
    }
    au_status st = au_key_get(au_api_db(rq), au_http_arena(rq), id, &key, &err);
    if (st == AU_OK && !key->revoked_at)
        return key;
    if (st == AU_OK)
        au_http_problem(rq, AU_PROBLEM_GONE, "the key %s was revoked", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "key", id);
    else
        au_api_failed(rq, st, &err);
    return NULL;
}

au_http_result au_get_key(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_key *key = find_key(rq);
    return key ? au_http_reply_json(rq, 200, au_key_json(key)) : AU_HTTP_DONE;
}

typedef struct revocation {
    const char *id;
    bool revoked;
} revocation;

static au_status write_revocation(au_db *db, void *arg, au_err *err)
{
    revocation *r = arg;
    return au_key_revoke(db, r->id, &r->revoked, err);
}

static au_http_result revocation_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const revocation *r = o->arg;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    /* Somebody else may have been first. */
    return r->revoked ? au_http_reply_empty(rq, 204)
                      : au_http_problem(rq, AU_PROBLEM_GONE, "the key %s was revoked", r->id);
}

au_http_result au_delete_key(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_key *key = find_key(rq);
    if (!key || !au_http_if_match(rq, au_key_json(key)))
        return AU_HTTP_DONE;
    revocation *r = au_arena_alloc(au_http_arena(rq), sizeof *r);
    if (!r)
        return au_api_busy(rq, 1, "out of memory");
    r->id = key->id;
    return au_api_write(rq, write_revocation, r, revocation_written);
}
