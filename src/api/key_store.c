/* SPDX-License-Identifier: MIT */
/* Keys and sessions as rows. A credential is looked up by its keyed hash, one row by a unique
 * index, so an unknown one costs what a known one does and the time tells nothing of how near it
 * was. Every lookup reads the database: a key revoked by another process is refused by the next
 * request. */
#include "api/key_store.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/str.h"

static const char key_purpose[] = "key", session_purpose[] = "session";
static const char *const scope_names[] = {"read", "write", "admin"};
enum {
    N_SCOPES = sizeof scope_names / sizeof *scope_names,
    SCOPES_TEXT = 64,
    SECRET_TEXT = 2 * AU_SECRET_BYTES
};

unsigned au_scope_parse(const char *name)
{
    for (unsigned i = 0; i < N_SCOPES; i++) {
        if (strcmp(name, scope_names[i]) == 0)
            return 1u << i;
    }
    return 0;
}

const char *au_scope_name(unsigned scope)
{
    return scope_names[scope == AU_SCOPE_ADMIN ? 2 : scope == AU_SCOPE_WRITE ? 1 : 0];
}

bool au_scopes_allow(unsigned scopes, unsigned scope)
{
    /* A greater scope holds the lesser ones, so the greatest decides. */
    return scopes >= scope;
}

static void scopes_to_text(char out[SCOPES_TEXT], unsigned scopes)
{
    size_t n = 0;
    out[n++] = '[';
    for (unsigned i = 0; i < N_SCOPES; i++) {
        if (scopes & 1u << i)
            n += (size_t)snprintf(out + n, SCOPES_TEXT - n, "%s\"%s\"", n > 1 ? "," : "",
                                  scope_names[i]);
    }
    snprintf(out + n, SCOPES_TEXT - n, "]");
}

/* Of a text that this file wrote. */
static unsigned scopes_of_text(const char *text)
{
    unsigned scopes = 0;
    for (unsigned i = 0; text && i < N_SCOPES; i++) {
        char quoted[SCOPES_TEXT];
        snprintf(quoted, sizeof quoted, "\"%s\"", scope_names[i]);
        scopes |= strstr(text, quoted) ? 1u << i : 0;
    }
    return scopes;
}

/* ---- The server's secret ---- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool secret_of_text(unsigned char out[AU_SECRET_BYTES], const char *text)
{
    if (!text || strlen(text) != SECRET_TEXT)
        return false;
    for (size_t i = 0; i < AU_SECRET_BYTES; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

au_status au_server_secret(unsigned char out[AU_SECRET_BYTES], au_db *db, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    unsigned char fresh[AU_SECRET_BYTES];
    char text[SECRET_TEXT + 1];
    au_random_bytes(fresh, sizeof fresh);
    au_hex(text, fresh, sizeof fresh);
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO settings (name, value) VALUES ('secret', ?1) ON CONFLICT DO "
                      "NOTHING",
                      "t", text));
    AU_TRY(au_db_query(&rows, db, err, "SELECT value FROM settings WHERE name = 'secret'", ""));
    AU_TRY(au_rows_next(rows, &has_row, err));
    AU_FAIL_IF(!has_row || !secret_of_text(out, au_rows_text(rows, 0)), AU_CORRUPT,
               "the server's secret in the database is not %d hexadecimal digits", SECRET_TEXT);
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Keys ---- */

void au_key_hash(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                 const char *text)
{
    au_keyed_hash_hex(out, secret, key_purpose, text);
}

au_status au_key_create(au_db *db, const unsigned char secret[AU_SECRET_BYTES], const char *name,
                        unsigned scopes, int64_t expires_at, char id[AU_UUID_TEXT],
                        char text[AU_KEY_TEXT], au_err *err)
{
    char hash[AU_KEYED_HASH_TEXT], prefix[AU_KEY_PREFIX], scopes_text[SCOPES_TEXT];
    AU_ASSERT(scopes && scopes <= AU_SCOPE_ALL);
    au_uuid7(id);
    au_key_text_new(text);
    au_key_hash(hash, secret, text);
    snprintf(prefix, sizeof prefix, "%.*s", AU_KEY_PREFIX - 1, text);
    scopes_to_text(scopes_text, scopes);
    return au_db_exec(db, NULL, err,
                      "INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, "
                      "expires_at) VALUES (?1, ?2, ?3, ?4, ?5, au_now_ms(), ?6)",
                      "ttttti", id, name, prefix, hash, scopes_text, expires_at);
}

#define COLUMNS "id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at "

static au_status read_key(const au_rows *rows, au_arena *a, au_key **out, au_err *err)
{
    au_status st = AU_OK;
    char *id, *name, *prefix;
    au_key *k = au_arena_alloc(a, sizeof *k);
    AU_FAIL_IF(!k, AU_NOMEM, "key does not fit the memory of the request");
    AU_TRY(au_rows_strdup(&id, rows, 0, a, err));
    AU_TRY(au_rows_strdup(&name, rows, 1, a, err));
    AU_TRY(au_rows_strdup(&prefix, rows, 2, a, err));
    *k = (au_key){.id = id,
                  .name = name,
                  .prefix = prefix,
                  .scopes = scopes_of_text(au_rows_text(rows, 3)),
                  .created_at = au_rows_int(rows, 4),
                  .expires_at = au_rows_int(rows, 5),
                  .last_used_at = au_rows_int(rows, 6),
                  .revoked_at = au_rows_int(rows, 7)};
    *out = k;
done:
    return st;
}

au_status au_key_get(au_db *db, au_arena *a, const char *id, au_key **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    AU_TRY(au_db_query(&rows, db, err, "SELECT " COLUMNS "FROM api_keys WHERE id = ?1", "t", id));
    AU_TRY(au_rows_next(rows, &has_row, err));
    AU_FAIL_IF(!has_row, AU_NOT_FOUND, "key %.40s does not exist", id);
    AU_TRY(read_key(rows, a, out, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_key_list(au_db *db, au_arena *a, const char *before_id, int limit, au_key ***out,
                      size_t *n, bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    AU_ASSERT(limit >= 1);
    *n = 0;
    *has_more = false;
    *out = au_arena_alloc(a, (size_t)limit * sizeof **out);
    AU_FAIL_IF(!*out, AU_NOMEM, "list of keys does not fit the memory of the request");
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " COLUMNS "FROM api_keys WHERE revoked_at = 0 AND "
                       "id < COALESCE(?1, 'g') ORDER BY id DESC LIMIT ?2",
                       "ti", before_id, (int64_t)limit + 1));
    for (;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        *has_more = has_row && *n == (size_t)limit;
        if (!has_row || *has_more)
            break;
        AU_TRY(read_key(rows, a, &(*out)[*n], err));
        ++*n;
    }
done:
    au_rows_close(&rows);
    return st;
}

au_status au_key_revoke(au_db *db, const char *id, bool *revoked, au_err *err)
{
    int64_t n = 0;
    au_status st = AU_OK;
    *revoked = false;
    AU_TRY(au_db_exec(db, &n, err,
                      "UPDATE api_keys SET revoked_at = au_now_ms() WHERE id = ?1 AND "
                      "revoked_at = 0",
                      "t", id));
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM browser_sessions WHERE key_id = ?1", "t", id));
    *revoked = n == 1;
done:
    return st;
}

au_status au_key_note_use(au_db *db, const char *id, au_err *err)
{
    return au_db_exec(db, NULL, err, "UPDATE api_keys SET last_used_at = au_now_ms() WHERE id = ?1",
                      "t", id);
}

au_status au_key_count(int64_t *out, au_db *db, au_err *err)
{
    return au_db_int(out, db, 0, err,
                     "SELECT COUNT(*) FROM api_keys WHERE revoked_at = 0 AND "
                     "(expires_at = 0 OR expires_at > au_now_ms())",
                     "");
}

/* ---- Credentials ---- */

au_status au_key_match_by(au_key_match *out, au_db *db, au_key_by by, const char *value,
                          au_err *err)
{
    static const char *const queries[] = {
        [AU_KEY_BY_HASH] = "SELECT id, scopes, revoked_at, expires_at, last_used_at, 0 "
                           "FROM api_keys WHERE hash = ?1",
        [AU_KEY_BY_ID] = "SELECT id, scopes, revoked_at, expires_at, last_used_at, 0 "
                         "FROM api_keys WHERE id = ?1",
        [AU_KEY_BY_SESSION] = "SELECT k.id, k.scopes, k.revoked_at, k.expires_at, k.last_used_at, "
                              "s.expires_at FROM browser_sessions s JOIN api_keys k ON "
                              "k.id = s.key_id WHERE s.hash = ?1",
    };
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    *out = (au_key_match){0};
    AU_TRY(au_db_query(&rows, db, err, queries[by], "t", value));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (!has_row)
        goto done;
    int64_t now = au_time_ms(), key_ends = au_rows_int(rows, 3),
            session_ends = au_rows_int(rows, 5);
    const char *id = au_rows_text(rows, 0);
    snprintf(out->id, sizeof out->id, "%s", id ? id : "");
    out->scopes = scopes_of_text(au_rows_text(rows, 1));
    out->last_used_at = au_rows_int(rows, 4);
    out->expires_at =
        session_ends && (!key_ends || session_ends < key_ends) ? session_ends : key_ends;
    out->found = au_rows_int(rows, 2) == 0 && (out->expires_at == 0 || now < out->expires_at);
done:
    au_rows_close(&rows);
    return st;
}

bool au_session_hash(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                     const char *token, size_t len)
{
    char text[AU_TOKEN_TEXT];
    if (len != AU_TOKEN_TEXT - 1)
        return false;
    memcpy(text, token, len);
    text[len] = '\0';
    if (strspn(text, "0123456789abcdef") != len)
        return false;
    au_keyed_hash_hex(out, secret, session_purpose, text);
    return true;
}

au_status au_session_create(au_db *db, const unsigned char secret[AU_SECRET_BYTES],
                            const char *key_id, int64_t expires_at, char token[AU_TOKEN_TEXT],
                            au_err *err)
{
    unsigned char random[(AU_TOKEN_TEXT - 1) / 2];
    char hash[AU_KEYED_HASH_TEXT];
    au_status st = AU_OK;
    au_random_bytes(random, sizeof random);
    au_hex(token, random, sizeof random);
    au_keyed_hash_hex(hash, secret, session_purpose, token);
    AU_TRY(
        au_db_exec(db, NULL, err,
                   "DELETE FROM browser_sessions WHERE hash IN (SELECT hash FROM "
                   "browser_sessions WHERE key_id = ?1 ORDER BY created_at DESC LIMIT 1000 OFFSET "
                   "?2)",
                   "ti", key_id, (int64_t)AU_SESSIONS_PER_KEY - 1));
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO browser_sessions (hash, key_id, created_at, expires_at) "
                      "VALUES (?1, ?2, au_now_ms(), ?3)",
                      "tti", hash, key_id, expires_at));
done:
    return st;
}

au_status au_session_delete(au_db *db, const char *hash, au_err *err)
{
    return au_db_exec(db, NULL, err, "DELETE FROM browser_sessions WHERE hash = ?1", "t", hash);
}

au_status au_keys_purge(au_db *db, int64_t revoked_before, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM browser_sessions WHERE expires_at <= au_now_ms()",
                      ""));
    AU_TRY(au_db_exec(db, NULL, err,
                      "DELETE FROM api_keys WHERE revoked_at > 0 AND revoked_at < ?1", "i",
                      revoked_before));
done:
    return st;
}
