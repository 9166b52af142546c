/* SPDX-License-Identifier: MIT */
/* `aulos key create | list | revoke`: API keys, in the data folder (whether or not its server runs,
 * and before its first start) or through a server. The folder's database is the only thing that is
 * shared with a running server; it reads keys there for every request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/remote.h"

enum { PAGE = 100, OPEN_TRIES = 25, OPEN_PAUSE_MS = 20, ARENA_BYTES = 16 << 20, PATH_BYTES = 128 };

/* What an option or a subcommand asks for. */
typedef struct request {
    const char *name, *id;
    unsigned scopes;
    int64_t expires_at;
} request;

/* ---- In the data folder ---- */

/* Brings a database of an older version to this one, as the owner of the folder: no server may be
 * at work with it. */
static au_status migrate(const char *dir, const char *path, au_err *err)
{
    char *lock = NULL;
    int fd = -1;
    au_status st = AU_OK;
    AU_TRY(au_path_join(&lock, dir, "server.lock", err));
    st = au_lock_file(&fd, lock, err);
    if (st == AU_CONFLICT)
        st = au_err_prefix(err, st, "the folder %s belongs to a server of another version", dir);
    AU_TRY(st);
    AU_TRY(au_db_migrate(path, err));
done:
    if (fd >= 0)
        close(fd);
    free(lock);
    return st;
}

/* A database that is not there is made, if asked for, and one that somebody else makes at the
 * moment is waited for; neither takes the server's lock, so that a server may start meanwhile. */
static au_status open_db(au_db **db, const char *dir, bool create, au_err *err)
{
    char *path = NULL;
    au_status st = AU_OK;
    if (create)
        AU_TRY(au_mkdirs(dir, err));
    AU_TRY(au_path_join(&path, dir, "aulos.db", err));
    st = au_db_open(db, path, NULL, err);
    if (st == AU_NOT_FOUND && create) {
        AU_TRY(au_db_migrate(path, err));
        st = au_db_open(db, path, NULL, err);
    }
    for (int i = 0; st == AU_UNSUPPORTED && i < OPEN_TRIES; i++) {
        au_sleep_ms(OPEN_PAUSE_MS);
        st = au_db_open(db, path, NULL, err);
    }
    if (st == AU_UNSUPPORTED) {
        AU_TRY(migrate(dir, path, err));
        st = au_db_open(db, path, NULL, err);
    }
    if (st == AU_NOT_FOUND)
        st = au_fail(err, AU_NOT_FOUND, "%s is no data folder: there is no aulos.db in it", dir);
done:
    free(path);
    return st;
}

static au_status create_local(au_db *db, au_arena *a, const request *r, json_t **out, au_err *err)
{
    unsigned char secret[AU_SECRET_BYTES];
    char id[AU_UUID_TEXT], text[AU_KEY_TEXT];
    au_key *key;
    au_status st = AU_OK;
    AU_TRY(au_db_begin(db, AU_DB_DURABLE, err));
    AU_TRY(au_server_secret(secret, db, err));
    AU_TRY(au_key_create(db, secret, r->name, r->scopes, r->expires_at, id, text, err));
    AU_TRY(au_db_commit(db, err));
    AU_TRY(au_key_get(db, a, id, &key, err));
    *out = au_key_json(key);
    AU_FAIL_IF(!*out || json_object_set_new(*out, "secret", json_string(text)) != 0, AU_NOMEM,
               "out of memory");
done:
    return st;
}

static au_status list_local(au_db *db, au_arena *a, json_t **out, au_err *err)
{
    au_status st = AU_OK;
    const char *before = NULL;
    bool more = true;
    json_t *data = json_array();
    while (more) {
        au_key **keys;
        size_t n;
        AU_TRY(au_key_list(db, a, before, PAGE, &keys, &n, &more, err));
        for (size_t i = 0; i < n; i++)
            au_list_add(&data, au_key_json(keys[i]));
        before = n ? keys[n - 1]->id : NULL;
    }
    *out = json_pack("{s:o}", "data", data);
    data = NULL;
    AU_FAIL_IF(!*out, AU_NOMEM, "out of memory");
done:
    json_decref(data);
    return st;
}

static au_status revoke_local(au_db *db, au_arena *a, const char *id, au_err *err)
{
    au_key *key;
    bool revoked;
    au_status st = AU_OK;
    AU_TRY(au_key_get(db, a, id, &key, err));
    AU_TRY(au_db_begin(db, AU_DB_DURABLE, err));
    AU_TRY(au_key_revoke(db, id, &revoked, err));
    AU_TRY(au_db_commit(db, err));
    AU_FAIL_IF(!revoked, AU_NOT_FOUND, "key %s was revoked before", id);
done:
    return st;
}

static au_status run_local(const au_options *o, const char *what, const request *r, json_t **out,
                           au_err *err)
{
    au_db *db = NULL;
    au_arena arena;
    au_status st = AU_OK;
    au_arena_init(&arena, ARENA_BYTES);
    AU_TRY(open_db(&db, au_options_text(o, AU_OPT_DATA), strcmp(what, "create") == 0, err));
    if (strcmp(what, "create") == 0)
        AU_TRY(create_local(db, &arena, r, out, err));
    else if (strcmp(what, "list") == 0)
        AU_TRY(list_local(db, &arena, out, err));
    else
        AU_TRY(revoke_local(db, &arena, r->id, err));
done:
    au_db_close(&db);
    au_arena_deinit(&arena);
    return st;
}

/* ---- Through a server ---- */

static au_status list_remote(const char *server, const char *key, json_t **out, au_err *err)
{
    au_status st = AU_OK;
    char path[PATH_BYTES];
    json_t *data = json_array(), *page = NULL;
    snprintf(path, sizeof path, "/v1/keys?limit=%d", PAGE);
    for (bool more = true; more;) {
        json_decref(page);
        AU_TRY(au_remote_call(&page, server, key, "GET", path, NULL, err));
        AU_FAIL_IF(json_array_extend(data, json_object_get(page, "data")) != 0, AU_CORRUPT,
                   "the server's list of keys is none");
        const char *cursor = json_string_value(json_object_get(page, "next_cursor"));
        more = cursor && json_array_size(json_object_get(page, "data")) > 0;
        if (more)
            snprintf(path, sizeof path, "/v1/keys?limit=%d&cursor=%.40s", PAGE, cursor);
    }
    *out = json_pack("{s:O}", "data", data);
done:
    json_decref(page);
    json_decref(data);
    return st;
}

static au_status run_remote(const au_options *o, const char *what, const request *r, json_t **out,
                            au_err *err)
{
    const char *server = au_options_text(o, AU_OPT_SERVER), *key = au_options_text(o, AU_OPT_KEY);
    char path[PATH_BYTES];
    if (strcmp(what, "list") == 0)
        return list_remote(server, key, out, err);
    if (strcmp(what, "revoke") == 0) {
        snprintf(path, sizeof path, "/v1/keys/%.40s", r->id);
        return au_remote_call(out, server, key, "DELETE", path, NULL, err);
    }
    json_t *body = json_pack("{s:s, s:o, s:o}", "name", r->name, "scopes",
                             au_scopes_json(r->scopes), "expires_at", au_time_json(r->expires_at));
    au_status st = body ? au_remote_call(out, server, key, "POST", "/v1/keys", body, err)
                        : au_fail(err, AU_NOMEM, "out of memory");
    json_decref(body);
    return st;
}

/* ---- Output ---- */

static const char *text_of(const json_t *key, const char *member)
{
    const char *text = json_string_value(json_object_get(key, member));
    return text ? text : "-";
}

static void print_scopes(char *out, size_t size, const json_t *key)
{
    const json_t *scopes = json_object_get(key, "scopes");
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(scopes) && n < size; i++) {
        const char *scope = json_string_value(json_array_get(scopes, i));
        n += (size_t)snprintf(out + n, size - n, "%s%.8s", i ? "," : "", scope ? scope : "");
    }
}

static void print_list(const json_t *data)
{
    printf("%-36s  %-8s  %-16s  %-24s  %-24s  %-24s  %s\n", "ID", "PREFIX", "SCOPES", "CREATED",
           "EXPIRES", "LAST USED", "NAME");
    for (size_t i = 0; i < json_array_size(data); i++) {
        const json_t *key = json_array_get(data, i);
        char scopes[64];
        print_scopes(scopes, sizeof scopes, key);
        printf("%-36s  %-8s  %-16s  %-24s  %-24s  %-24s  %s\n", text_of(key, "id"),
               text_of(key, "prefix"), scopes, text_of(key, "created_at"),
               text_of(key, "expires_at"), text_of(key, "last_used_at"), text_of(key, "name"));
    }
}

static au_status print_result(const au_options *o, const char *what, const request *r,
                              const json_t *result, au_err *err)
{
    if (au_options_flag(o, AU_OPT_JSON)) {
        json_t *revoked = result ? NULL : json_pack("{s:s, s:b}", "id", r->id, "revoked", 1);
        au_status st = au_cli_print_json(result ? result : revoked, err);
        json_decref(revoked);
        return st;
    }
    if (strcmp(what, "create") == 0) {
        printf("%s\n", text_of(result, "secret"));
        au_cli_note("this is key %s; it cannot be shown again", text_of(result, "id"));
    } else if (strcmp(what, "list") == 0) {
        print_list(json_object_get(result, "data"));
    } else {
        au_cli_note("key %s is revoked", r->id);
    }
    return fflush(stdout) == 0 ? AU_OK : au_fail(err, AU_IO, "cannot write to standard output");
}

/* ---- Options ---- */

/* "read,write" */
static au_status parse_scopes(unsigned *out, const char *text, au_err *err)
{
    char word[16];
    *out = 0;
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), p);
        unsigned scope = au_scope_parse(word);
        if (!scope)
            return au_fail(err, AU_INVALID,
                           "option --scopes is \"%s\", expected read, write, admin, or several "
                           "separated by commas",
                           text);
        *out |= scope;
        p += n;
        if (!*p)
            return AU_OK;
    }
}

static au_status parse_request(const au_options *o, const char *what, request *r, au_err *err)
{
    au_status st = AU_OK;
    const char *argument = au_options_arg(o, 1);
    bool create = strcmp(what, "create") == 0, revoke = strcmp(what, "revoke") == 0;
    AU_FAIL_IF(!create && !revoke && strcmp(what, "list") != 0, AU_INVALID,
               "unknown subcommand key %s, expected create, list or revoke ID", what);
    AU_FAIL_IF(au_options_n_args(o) > (revoke ? 2u : 1u), AU_INVALID, "unexpected argument %s",
               au_options_arg(o, revoke ? 2 : 1));
    AU_FAIL_IF(revoke && (!argument || !au_uuid_valid(argument)), AU_INVALID,
               "key revoke takes the ID of a key, found %s", argument ? argument : "none");
    r->id = argument;
    r->name = au_options_text(o, AU_OPT_NAME);
    AU_FAIL_IF(create && (!r->name || !*r->name ||
                          r->name[au_utf8_prefix(r->name, AU_KEY_NAME_MAX_CHARS)]),
               AU_INVALID, "option --name is not of 1 to %d characters", AU_KEY_NAME_MAX_CHARS);
    AU_TRY(parse_scopes(&r->scopes, au_options_text(o, AU_OPT_SCOPES), err));
    int64_t expires_in = au_options_int(o, AU_OPT_EXPIRES_IN);
    r->expires_at = expires_in > 0 ? au_time_ms() + expires_in : 0;
done:
    return st;
}

int au_command_key(const au_options *o)
{
    const char *what = au_options_arg(o, 0);
    request r = {0};
    json_t *result = NULL;
    au_err err_details = {0}, *err = &err_details;
    if (!what)
        return au_cli_usage("key needs create, list or revoke ID");
    au_status st = AU_OK;
    AU_TRY(parse_request(o, what, &r, err));
    AU_TRY((au_options_text(o, AU_OPT_SERVER) ? run_remote : run_local)(o, what, &r, &result, err));
    AU_TRY(print_result(o, what, &r, result, err));
done:
    json_decref(result);
    return st == AU_OK ? AU_EXIT_OK
                       : au_cli_error(err, st == AU_INVALID ? AU_EXIT_USAGE : AU_EXIT_FAILED);
}
