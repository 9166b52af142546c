/* SPDX-License-Identifier: MIT */
/* API keys and browser sessions in the database, and the server's secret that their hashes are
 * keyed with. The text of a key is never stored. Functions that write are for a writing connection
 * inside a transaction; none keeps state. */
#ifndef AU_API_KEY_STORE_H
#define AU_API_KEY_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "api/key_text.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "db/db.h"

enum {
    AU_SCOPE_READ = 1,
    AU_SCOPE_WRITE = 2, /* and read */
    AU_SCOPE_ADMIN = 4, /* and write */
    AU_SCOPE_ALL = 7,
    AU_KEY_NAME_MAX_CHARS = 200,
    AU_TOKEN_TEXT = 65,        /* of a browser session, with the NUL */
    AU_SESSIONS_PER_KEY = 100, /* beyond, the oldest end */
};

/* "read", "write", "admin"; 0: none of them. */
unsigned au_scope_parse(const char *name);
/* The name of one scope. */
const char *au_scope_name(unsigned scope);
/* Whether scopes include what `scope`, one of them, allows. */
bool au_scopes_allow(unsigned scopes, unsigned scope);

typedef struct au_key {
    const char *id, *name, *prefix; /* in the arena */
    unsigned scopes;                /* as they were given: admin alone is AU_SCOPE_ADMIN */
    int64_t created_at, expires_at, last_used_at, revoked_at; /* expires_at 0: never */
} au_key;

/* The server's secret; the first caller makes it. */
AU_MUST_CHECK au_status au_server_secret(unsigned char out[AU_SECRET_BYTES], au_db *db,
                                         au_err *err);

/* Makes a key: its id and its text, which nobody can read again. */
AU_MUST_CHECK au_status au_key_create(au_db *db, const unsigned char secret[AU_SECRET_BYTES],
                                      const char *name, unsigned scopes, int64_t expires_at,
                                      char id[AU_UUID_TEXT], char text[AU_KEY_TEXT], au_err *err);
AU_MUST_CHECK au_status au_key_get(au_db *db, au_arena *a, const char *id, au_key **out,
                                   au_err *err); /* AU_NOT_FOUND; revoked ones too */
/* Newest first, without those revoked. before_id NULL: from the newest. */
AU_MUST_CHECK au_status au_key_list(au_db *db, au_arena *a, const char *before_id, int limit,
                                    au_key ***out, size_t *n, bool *has_more, au_err *err);
/* From now on it opens nothing, and neither do its sessions. *revoked false: it was before, or
 * there is none. */
AU_MUST_CHECK au_status au_key_revoke(au_db *db, const char *id, bool *revoked, au_err *err);
AU_MUST_CHECK au_status au_key_note_use(au_db *db, const char *id, au_err *err);
/* Keys that open something now. */
AU_MUST_CHECK au_status au_key_count(int64_t *out, au_db *db, au_err *err);

/* What a credential stands for. */
typedef struct au_key_match {
    bool found; /* and neither revoked nor expired */
    char id[AU_UUID_TEXT];
    unsigned scopes;
    int64_t expires_at; /* of the session, or else of the key; 0: never */
    int64_t last_used_at;
} au_key_match;

typedef enum au_key_by {
    AU_KEY_BY_HASH,    /* of the key's text: au_key_hash */
    AU_KEY_BY_ID,      /* of the key */
    AU_KEY_BY_SESSION, /* hash of a session's token: au_session_hash */
} au_key_by;

AU_MUST_CHECK au_status au_key_match_by(au_key_match *out, au_db *db, au_key_by by,
                                        const char *value, au_err *err);

void au_key_hash(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                 const char *text);
/* False: it has not the form of a token. */
bool au_session_hash(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                     const char *token, size_t len);

/* A session with the scopes of a key, until expires_at or the key's end. */
AU_MUST_CHECK au_status au_session_create(au_db *db, const unsigned char secret[AU_SECRET_BYTES],
                                          const char *key_id, int64_t expires_at,
                                          char token[AU_TOKEN_TEXT], au_err *err);
AU_MUST_CHECK au_status au_session_delete(au_db *db, const char *hash, au_err *err);
/* Sessions that are over, and records of keys revoked before `revoked_before`. */
AU_MUST_CHECK au_status au_keys_purge(au_db *db, int64_t revoked_before, au_err *err);

#endif
