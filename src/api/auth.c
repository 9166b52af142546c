/* SPDX-License-Identifier: MIT */
/* The one place that lets requests in. Runs on the loop thread, with its reading connection; one
 * query by a unique index a request, and none for public routes and for keys whose checksum is
 * wrong. What was found is kept in the request's arena. */
#include "api/auth.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/str.h"

enum {
    NOTE_EVERY_MS = 60000,  /* last_used_at is for people: to the minute */
    CLOCK_SLACK_MS = 60000, /* how much further than AU_LINK_MAX_S a link may reach */
};

const au_principal *au_api_principal(const au_http_request *rq)
{
    return au_http_caller(rq);
}

au_http_result au_api_unauthorized(au_http_request *rq, const char *why)
{
    au_http_set_header(rq, "WWW-Authenticate", "Bearer realm=\"aulos\"");
    return au_http_problem(rq, AU_PROBLEM_UNAUTHORIZED, "%s", why);
}

/* ---- Notes of use ---- */

typedef struct note {
    atomic_bool *busy;
    char id[AU_UUID_TEXT];
} note;

static au_status write_note(au_db *db, void *arg, au_err *err)
{
    const note *n = arg;
    return au_key_note_use(db, n->id, err);
}

static void note_written(void *arg, au_status status, const au_err *err)
{
    (void)status; /* the next use tries again */
    (void)err;
    note *n = arg;
    atomic_store(n->busy, false);
    free(n);
}

/* Behind the request's back; it does not wait. */
static void note_use(au_api *api, const au_key_match *key)
{
    au_err err;
    if (au_time_ms() - key->last_used_at < NOTE_EVERY_MS)
        return;
    unsigned slot = 0;
    for (const char *p = key->id; *p; p++)
        slot = slot * 31 + (unsigned char)*p;
    atomic_bool *busy = &api->auth.noting[slot % AU_NOTE_SLOTS];
    if (atomic_exchange(busy, true))
        return;
    note *n = malloc(sizeof *n);
    if (n) {
        n->busy = busy;
        memcpy(n->id, key->id, sizeof n->id);
    }
    if (!n || au_writer_submit(api->writer, write_note, n, note_written, &err) != AU_OK) {
        free(n);
        atomic_store(busy, false);
    }
}

/* ---- Credentials ---- */

au_status au_auth_match_key(au_http_request *rq, const char *text, size_t len, au_key_match *out,
                            au_err *err)
{
    char copy[AU_KEY_TEXT], hash[AU_KEYED_HASH_TEXT];
    *out = (au_key_match){0};
    if (!au_key_text_valid(text, len))
        return AU_OK;
    memcpy(copy, text, len);
    copy[len] = '\0';
    au_key_hash(hash, au_api_of(rq)->auth.secret, copy);
    return au_key_match_by(out, au_api_db(rq), AU_KEY_BY_HASH, hash, err);
}

const char *au_auth_session_hash(au_http_request *rq)
{
    const char *token;
    size_t len;
    char hash[AU_KEYED_HASH_TEXT];
    const char *cookies = au_http_header(rq, "cookie");
    if (!cookies || !au_cookie_find(cookies, AU_SESSION_COOKIE, &token, &len) ||
        !au_session_hash(hash, au_api_of(rq)->auth.secret, token, len))
        return NULL;
    return au_arena_strdup(au_http_arena(rq), hash);
}

typedef enum verdict { NOTHING_SENT, REFUSED, KNOWN, NOT_KNOWABLE } verdict;

/* Finds out who asks. NOT_KNOWABLE: the database did not answer; *st and err say why. */
static verdict identify(au_http_request *rq, au_principal *p, au_status *st, au_err *err)
{
    const char *field = au_http_header(rq, "authorization"), *token;
    size_t len;
    au_key_match match = {0};
    if (field && au_bearer_token(field, &token, &len)) {
        if (au_http_header_count(rq, "authorization") > 1)
            return REFUSED;
        *st = au_auth_match_key(rq, token, len, &match, err);
    } else {
        p->session_hash = au_auth_session_hash(rq);
        p->by_cookie = p->session_hash;
        if (!p->session_hash)
            return NOTHING_SENT;
        *st = au_key_match_by(&match, au_api_db(rq), AU_KEY_BY_SESSION, p->session_hash, err);
    }
    if (*st != AU_OK)
        return NOT_KNOWABLE;
    if (!match.found)
        return REFUSED;
    p->key_id = au_arena_strdup(au_http_arena(rq), match.id);
    if (!p->key_id) {
        *st = au_fail(err, AU_NOMEM, "out of memory");
        return NOT_KNOWABLE;
    }
    p->scopes = match.scopes;
    p->expires_at = match.expires_at;
    note_use(au_api_of(rq), &match);
    return KNOWN;
}

/* ---- Links ---- */

void au_link_sign(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                  const char *sample_id, int64_t expires_at)
{
    char text[AU_UUID_TEXT + 32];
    snprintf(text, sizeof text, "%.36s %" PRId64, sample_id, expires_at);
    au_keyed_hash_hex(out, secret, "link", text);
}

bool au_link_check(const unsigned char secret[AU_SECRET_BYTES], const char *sample_id,
                   const char *expires, const char *signature, int64_t now)
{
    char right[AU_KEYED_HASH_TEXT];
    int64_t expires_at;
    if (!au_uuid_valid(sample_id) || !expires || !signature || !au_parse_i64(expires, &expires_at))
        return false;
    au_link_sign(right, secret, sample_id, expires_at);
    return au_equal_secret(right, signature) && now < expires_at &&
           expires_at - now <= INT64_C(1000) * AU_LINK_MAX_S + CLOCK_SLACK_MS;
}

/* Whether the query holds a signature; then it decides, whatever else was sent. */
static bool take_link(au_http_request *rq, bool *good)
{
    const char *expires = au_http_query_take(rq, "expires");
    const char *signature = au_http_query_take(rq, "signature");
    *good = au_link_check(au_api_of(rq)->auth.secret, au_http_param(rq, "id"), expires, signature,
                          au_time_ms());
    return expires || signature;
}

/* ---- The decision ---- */

static unsigned needed_scope(unsigned flags)
{
    return flags & AU_ROUTE_ADMIN   ? AU_SCOPE_ADMIN
           : flags & AU_ROUTE_WRITE ? AU_SCOPE_WRITE
                                    : AU_SCOPE_READ;
}

static bool refuse(au_http_request *rq, verdict v)
{
    const char *auth = au_http_header(rq, "authorization");
    au_api_unauthorized(rq, v == REFUSED ? "the key or session is unknown, revoked or over"
                            : auth       ? "Authorization is not \"Bearer\" and a key"
                                   : "this needs a key, as \"Authorization: Bearer aulos_...\"");
    return false;
}

/* Whether who is known may do this. */
static bool decide(au_http_request *rq, const au_principal *p)
{
    unsigned scope = needed_scope(au_http_route_flags(rq));
    if (p->by_cookie && !au_http_is_safe(rq) && !au_http_is_same_origin(rq)) {
        au_http_problem(rq, AU_PROBLEM_FORBIDDEN_ORIGIN,
                        "a session may change things from this site's own pages only");
        return false;
    }
    if (!au_scopes_allow(p->scopes, scope)) {
        au_http_problem_more(rq, AU_PROBLEM_FORBIDDEN_SCOPE,
                             json_pack("{s:s}", "scope", au_scope_name(scope)),
                             "this needs a key with the scope \"%s\"", au_scope_name(scope));
        return false;
    }
    return true;
}

bool au_api_authorize(au_http_request *rq)
{
    const au_auth *auth = &au_api_of(rq)->auth;
    unsigned flags = au_http_route_flags(rq);
    bool link_good;
    au_err err;
    au_status st = AU_OK;
    au_principal *p = au_arena_alloc(au_http_arena(rq), sizeof *p);
    if (!p) {
        au_api_busy(rq, 1, "out of memory");
        return false;
    }
    p->key_id = "";
    p->key_needed = auth->key_required || (au_http_is_remote(rq) && !auth->open_remote);
    p->scopes = p->key_needed ? 0 : AU_SCOPE_ALL;
    au_http_set_caller(rq, p);
    if (flags & AU_ROUTE_PUBLIC)
        return true;
    if (flags & AU_ROUTE_LINK && take_link(rq, &link_good)) {
        if (!link_good)
            au_http_problem(rq, AU_PROBLEM_BAD_LINK,
                            "the link was not signed for this, was changed, or is over");
        return link_good;
    }
    verdict v = identify(rq, p, &st, &err);
    if (!p->key_needed) {
        p->scopes = AU_SCOPE_ALL;
        return true;
    }
    if (v == NOT_KNOWABLE)
        au_api_failed(rq, st, &err);
    return v == KNOWN ? decide(rq, p) : v == NOT_KNOWABLE ? false : refuse(rq, v);
}

bool au_api_still_allowed(au_http_request *rq)
{
    const au_principal *p = au_api_principal(rq);
    au_key_match match;
    au_err err;
    if (!p->key_needed || !*p->key_id)
        return true;
    au_status st =
        p->session_hash
            ? au_key_match_by(&match, au_api_db(rq), AU_KEY_BY_SESSION, p->session_hash, &err)
            : au_key_match_by(&match, au_api_db(rq), AU_KEY_BY_ID, p->key_id, &err);
    /* A database that does not answer now is no reason to end a stream; the next look will tell. */
    return st != AU_OK || match.found;
}
