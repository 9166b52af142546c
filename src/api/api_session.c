/* SPDX-License-Identifier: MIT */
/* /v1/session: a browser turns a key into a cookie, since neither EventSource nor <audio> can send
 * a header. The cookie is HttpOnly and SameSite=Strict, and Secure where the proxy in front says
 * that it was spoken to by https (a client that forges that only harms itself). */
#include <string.h>
#include <strings.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/clock.h"

static const char *const no_query[] = {NULL};

static const int64_t session_ms = INT64_C(7) * 24 * 3600 * 1000;

static void set_cookie(au_http_request *rq, const char *token, int64_t max_age_s)
{
    const char *proto = au_http_header(rq, "x-forwarded-proto"), *base = au_http_base_path(rq);
    bool secure = proto && strncasecmp(proto, "https", 5) == 0;
    au_http_set_header(rq, "Set-Cookie",
                       "%s=%s; Path=%s; Max-Age=%lld; HttpOnly; SameSite=Strict%s",
                       AU_SESSION_COOKIE, token, *base ? base : "/", (long long)max_age_s,
                       secure ? "; Secure" : "");
    au_http_set_header(rq, "Cache-Control", "no-store");
}

/* What a principal may do, and until when. key NULL: no key came. */
static json_t *session_json(const au_key *key, unsigned scopes, int64_t expires_at, bool key_needed)
{
    json_t *who =
        key ? json_pack("{s:s, s:s, s:s}", "id", key->id, "name", key->name, "prefix", key->prefix)
            : json_null();
    return json_pack("{s:o, s:o, s:o, s:b}", "key", who, "scopes", au_scopes_json(scopes),
                     "expires_at", au_time_json(expires_at), "key_needed", key_needed);
}

static au_http_result reply_session(au_http_request *rq, int status, const char *key_id,
                                    unsigned scopes, int64_t expires_at)
{
    au_key *key = NULL;
    au_err err;
    au_status st = AU_OK;
    if (*key_id)
        st = au_key_get(au_api_db(rq), au_http_arena(rq), key_id, &key, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    return au_http_reply_json(
        rq, status, session_json(key, scopes, expires_at, au_api_principal(rq)->key_needed));
}

au_http_result au_get_session(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_principal *p = au_api_principal(rq);
    return reply_session(rq, 200, p->key_id, p->scopes, p->expires_at);
}

typedef struct new_session {
    const unsigned char *secret;
    au_key_match key;
    int64_t expires_at, purge_before;
    char token[AU_TOKEN_TEXT];
} new_session;

static au_status write_session(au_db *db, void *arg, au_err *err)
{
    new_session *s = arg;
    au_status st = au_keys_purge(db, s->purge_before, err);
    if (st == AU_OK)
        st = au_session_create(db, s->secret, s->key.id, s->expires_at, s->token, err);
    return st;
}

static au_http_result session_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_session *s = o->arg;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    set_cookie(rq, s->token, (s->expires_at - au_time_ms()) / 1000);
    return reply_session(rq, 201, s->key.id, s->key.scopes, s->expires_at);
}

/* The key of the body, or of Authorization where there is no body. False: a problem has been set.
 */
static bool read_key(au_http_request *rq, const char **key, size_t *len)
{
    static const char *const fields[] = {"key", NULL};
    const char *field = au_http_header(rq, "authorization");
    json_t *body = NULL;
    bool bearer = field && au_bearer_token(field, key, len);
    if (au_http_body_len(rq) && !au_http_body_json(rq, &body))
        return false;
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    if (!body || au_check_object(&c, body, "", fields)) {
        if (au_check_text(&c, body, "", "key", AU_LABEL_MAX_CHARS, key))
            *len = strlen(*key);
        else if (!json_object_get(body, "key") && !bearer)
            au_check_add(&c, "/key", "missing", NULL);
    }
    if (!au_check_ok(&c)) {
        au_check_reply(&c, rq);
        return false;
    }
    au_check_deinit(&c);
    return true;
}

au_http_result au_post_session(au_http_request *rq)
{
    const char *text;
    size_t len;
    au_err err;
    if (!au_http_query_parse(rq, no_query) || !read_key(rq, &text, &len))
        return AU_HTTP_DONE;
    const au_api *api = au_api_of(rq);
    new_session *s = au_arena_alloc(au_http_arena(rq), sizeof *s);
    if (!s)
        return au_api_busy(rq, 1, "out of memory");
    au_status st = au_auth_match_key(rq, text, len, &s->key, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (!s->key.found)
        return au_api_unauthorized(rq, "the key is unknown, revoked or over");
    s->secret = api->auth.secret;
    s->expires_at = au_time_ms() + session_ms;
    if (s->key.expires_at && s->key.expires_at < s->expires_at)
        s->expires_at = s->key.expires_at;
    s->purge_before = au_time_ms() - api->config->deleted_retention_ms;
    return au_api_write(rq, write_session, s, session_written);
}

static au_status write_end(au_db *db, void *arg, au_err *err)
{
    return au_session_delete(db, arg, err);
}

static au_http_result end_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    set_cookie(rq, "", 0);
    return au_http_reply_empty(rq, 204);
}

/* Whoever has the cookie may end it; without one there is nothing to end. */
au_http_result au_delete_session(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const char *hash = au_auth_session_hash(rq);
    if (hash && !au_http_is_same_origin(rq))
        return au_http_problem(rq, AU_PROBLEM_FORBIDDEN_ORIGIN,
                               "a session may change things from this site's own pages only");
    if (hash)
        return au_api_write(rq, write_end, (void *)(uintptr_t)hash, end_written);
    set_cookie(rq, "", 0);
    return au_http_reply_empty(rq, 204);
}
