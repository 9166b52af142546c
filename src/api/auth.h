/* SPDX-License-Identifier: MIT */
/* Who asks, and whether they may: decided once, between the route and its handler, by the flags of
 * the route. Handlers only look at the principal where they need an owner.
 *
 * A request is authorised by a key (Authorization: Bearer), the cookie of a browser session, or, on
 * routes with AU_ROUTE_LINK, the signature in a link. Nobody needs any of these while the server
 * listens on a loopback address and --auth is "auto"; a key that is sent all the same makes its
 * owner known, and a wrong one is ignored. */
#ifndef AU_API_AUTH_H
#define AU_API_AUTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/key_store.h"
#include "http/fields.h"
#include "http/http.h"

#define AU_SESSION_COOKIE "aulos_session"

enum { AU_NOTE_SLOTS = 64, AU_LINK_MAX_S = 86400 };

/* A part of au_api. */
typedef struct au_auth {
    unsigned char secret[AU_SECRET_BYTES];
    bool key_required;                 /* --auth required */
    bool open_remote;                  /* --insecure-no-auth */
    atomic_bool noting[AU_NOTE_SLOTS]; /* a use of a key of this slot is being written down */
} au_auth;

typedef struct au_principal {
    const char *key_id; /* whose the request is: owner of idempotency keys; "" where no key came */
    unsigned scopes;    /* AU_SCOPE_...; AU_SCOPE_ALL where nobody needs a key */
    bool key_needed;    /* by this server */
    bool by_cookie;
    int64_t expires_at;       /* of the session or key; 0: never */
    const char *session_hash; /* NULL: not by cookie */
} au_principal;

/* The hook of au_http_config. */
bool au_api_authorize(au_http_request *rq);

/* Who asks; never NULL in a handler. Borrowed until the reply is sent. */
const au_principal *au_api_principal(const au_http_request *rq);
/* For replies that last, every few seconds, on the loop thread: whether who asked may still. False:
 * the key was revoked or has expired, or the session has ended; end the reply. */
bool au_api_still_allowed(au_http_request *rq);

/* 401 with its challenge. */
au_http_result au_api_unauthorized(au_http_request *rq, const char *why);

/* Looks a key's text up; au_key_match.found says whether it opens anything. */
AU_MUST_CHECK au_status au_auth_match_key(au_http_request *rq, const char *text, size_t len,
                                          au_key_match *out, au_err *err);
/* The session that the request's cookie names, its hash in the arena; NULL: no cookie, or not one
 * of ours. */
const char *au_auth_session_hash(au_http_request *rq);

/* The signature of a link to a sample's audio. */
void au_link_sign(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                  const char *sample_id, int64_t expires_at);
/* Whether a link is good at `now`: signed by us, not over, and not for longer than links may be
 * (which a clock that was put back would make them). */
bool au_link_check(const unsigned char secret[AU_SECRET_BYTES], const char *sample_id,
                   const char *expires, const char *signature, int64_t now);

#endif
