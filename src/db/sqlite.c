/* SPDX-License-Identifier: MIT */
/* SQLite back end. WAL, so that readers never wait for the writer; foreign keys on; a busy handler
 * with jitter, since two processes that poll in step would starve each other.
 *
 * Invariants: a connection caches its prepared statements and finalizes them all at close; `level`
 * is the synchronous level that is set now (PRAGMA synchronous cannot change inside a transaction,
 * so it is set before BEGIN). One thread at a time (NOMUTEX). */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/db_backend.h"

enum {
    CACHE_SIZE = 96, /* distinct SQL texts of this program: about 80, and some made for filters */
    BUSY_TIMEOUT_MS = 5000,
    BUSY_STEP_MS = 12, /* longest single sleep while the file is locked */
    WAL_KEEP_BYTES = 16 << 20,
};

typedef struct cached {
    char *sql;
    sqlite3_stmt *stmt;
    bool in_use;
    uint64_t used_at;
} cached;

typedef struct connection {
    au_db base;
    sqlite3 *handle;
    int busy_timeout_ms;
    int64_t busy_since;
    au_begin_kind level; /* AU_BEGIN_READ: never set */
    uint64_t ticks;
    cached cache[CACHE_SIZE];
} connection;

typedef struct cursor {
    au_rows base;
    connection *c;
    sqlite3_stmt *stmt;
    cached *slot; /* NULL: a statement of its own, finalized at the end */
    bool finished;
} cursor;

static au_status fail_sqlite(connection *c, int rc, const char *what, au_err *err)
{
    au_status st = AU_IO;
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        st = AU_AGAIN;
        break;
    case SQLITE_FULL:
        st = AU_NOSPACE;
        break;
    case SQLITE_NOMEM:
        st = AU_NOMEM;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        st = AU_CORRUPT;
        break;
    case SQLITE_CONSTRAINT:
        st = AU_CONFLICT;
        break;
    case SQLITE_CANTOPEN:
        st = AU_IO;
        break;
    case SQLITE_ERROR:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
    case SQLITE_MISMATCH:
        st = AU_INTERNAL;
        break;
    default:
        break;
    }
    int sys = c->handle ? sqlite3_system_errno(c->handle) : 0;
    if (st == AU_IO && (sys == ENOSPC || sys == EDQUOT))
        st = AU_NOSPACE;
    return au_fail(err, st, "database: %s: %s", what,
                   c->handle ? sqlite3_errmsg(c->handle) : sqlite3_errstr(rc));
}

static int on_busy(void *arg, int tries)
{
    connection *c = arg;
    int64_t now = au_mono_ms();
    if (tries == 0)
        c->busy_since = now;
    if (now - c->busy_since >= c->busy_timeout_ms)
        return 0;
    unsigned char r = 0;
    au_random_bytes(&r, sizeof r);
    au_sleep_ms(1 + r % BUSY_STEP_MS);
    return 1;
}

static void sql_now_ms(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    (void)argv;
    sqlite3_result_int64(ctx, au_time_ms());
}

static void sql_clock_ms(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    (void)argv;
    sqlite3_result_int64(ctx, au_mono_ms());
}

static bool accepts(const char *url)
{
    return !strstr(url, "://");
}

static void close_connection(au_db *db)
{
    connection *c = (connection *)db;
    for (size_t i = 0; i < CACHE_SIZE; i++) {
        sqlite3_finalize(c->cache[i].stmt);
        free(c->cache[i].sql);
    }
    sqlite3_close(c->handle);
    free(c);
}

static au_status run_script(connection *c, const char *sql, const char *what, au_err *err)
{
    int rc = sqlite3_exec(c->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? AU_OK : fail_sqlite(c, rc, what, err);
}

static au_status read_version(connection *c, int64_t *version, au_err *err)
{
    return au_db_int(version, &c->base, 0, err, "PRAGMA user_version", "");
}

static int newest_version(void)
{
    int n = 0;
    while (au_sqlite_migrations[n].version != 0)
        n++;
    return n;
}

static au_status open_raw(connection **out, const char *path, int flags, int busy_timeout_ms,
                          au_err *err)
{
    connection *c = NULL;
    au_status st = au_calloc(&c, 1, sizeof *c, err);
    if (st != AU_OK)
        return st;
    c->base.backend = &au_db_sqlite;
    c->busy_timeout_ms = busy_timeout_ms > 0 ? busy_timeout_ms : BUSY_TIMEOUT_MS;
    int rc = sqlite3_open_v2(path, &c->handle, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_extended_result_codes(c->handle, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_handler(c->handle, on_busy, c);
    int text = SQLITE_UTF8 | SQLITE_INNOCUOUS;
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(c->handle, "au_now_ms", 0, text, NULL, sql_now_ms, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(c->handle, "au_clock_ms", 0, text, NULL, sql_clock_ms, NULL,
                                     NULL);
    if (rc != SQLITE_OK) {
        st = fail_sqlite(c, rc, path, err);
        close_connection(&c->base);
        return st;
    }
    *out = c;
    return AU_OK;
}

static au_status open_connection(au_db **out, const char *url, const au_db_options *options,
                                 au_err *err)
{
    connection *c = NULL;
    au_status st = AU_OK;
    AU_FAIL_IF(!au_file_exists(url), AU_NOT_FOUND, "database %s: no such file", url);
    AU_TRY(open_raw(&c, url, SQLITE_OPEN_READWRITE, options->busy_timeout_ms, err));
    int64_t version = 0;
    AU_TRY(read_version(c, &version, err));
    AU_FAIL_IF(version != newest_version(), AU_UNSUPPORTED,
               "database %s has schema version %lld, expected %d", url, (long long)version,
               newest_version());
    AU_TRY(run_script(c, "PRAGMA foreign_keys=ON", "foreign_keys", err));
    char keep[64];
    snprintf(keep, sizeof keep, "PRAGMA journal_size_limit=%d", (int)WAL_KEEP_BYTES);
    AU_TRY(run_script(c, keep, "journal_size_limit", err));
    if (options->read_only)
        AU_TRY(run_script(c, "PRAGMA query_only=ON", "query_only", err));
    *out = &c->base;
    c = NULL;
done:
    if (c)
        close_connection(&c->base);
    return st;
}

/* The database holds the server's secret: nobody but its owner reads a file that is made here, nor
 * the ones that SQLite makes beside it with the same mode. One that is there keeps its mode. */
static au_status make_private(const char *path, au_err *err)
{
    /* Only when it is new: closing any descriptor of a file drops SQLite's locks on it. */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0 && errno != EEXIST)
        return au_fail_errno(err, errno, "cannot make database %s", path);
    if (fd >= 0)
        close(fd);
    return AU_OK;
}

/* One process at a time brings the schema of a folder's database up to date; *fd is closed (and so
 * unlocked) by the caller. */
static au_status lock_folder(int *fd, const char *path, au_err *err)
{
    char dir[4096] = ".";
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    if (len >= sizeof dir)
        return au_fail(err, AU_INVALID, "path of the database is too long: %s", path);
    if (slash) {
        memcpy(dir, len ? path : "/", len ? len : 1);
        dir[len ? len : 1] = '\0';
    }
    *fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return au_fail_errno(err, errno, "cannot open folder %s", dir);
    while (flock(*fd, LOCK_EX) != 0) {
        if (errno != EINTR)
            return au_fail_errno(err, errno, "cannot lock folder %s", dir);
    }
    return AU_OK;
}

/* A copy of a database with content beside it, before the schema changes. The WAL is folded in
 * first. */
static au_status back_up(connection *c, const char *path, int64_t version, au_err *err)
{
    char name[4096];
    if ((size_t)snprintf(name, sizeof name, "%s.v%lld.bak", path, (long long)version) >=
        sizeof name)
        return au_fail(err, AU_INVALID, "path of the database is too long: %s", path);
    (void)unlink(name);
    au_status st = make_private(name, err);
    return st != AU_OK ? st : au_db_exec(&c->base, NULL, err, "VACUUM INTO ?1", "t", name);
}

static au_status migrate(const char *url, au_err *err)
{
    connection *c = NULL;
    au_status st = AU_OK;
    int64_t version = 0;
    int lock = -1;
    AU_TRY(lock_folder(&lock, url, err));
    AU_TRY(make_private(url, err));
    AU_TRY(open_raw(&c, url, SQLITE_OPEN_READWRITE, 0, err));
    AU_TRY(read_version(c, &version, err));
    AU_FAIL_IF(version > newest_version() || version < 0, AU_UNSUPPORTED,
               "database %s has schema version %lld, newer than this program's %d", url,
               (long long)version, newest_version());
    AU_TRY(run_script(c, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", "journal_mode", err));
    if (version > 0 && version < newest_version())
        AU_TRY(back_up(c, url, version, err));
    for (const au_migration *m = au_sqlite_migrations + version; m->version != 0; m++) {
        char mark[64];
        snprintf(mark, sizeof mark, "PRAGMA user_version=%d", m->version);
        AU_TRY(run_script(c, "BEGIN IMMEDIATE", m->name, err));
        AU_TRY(run_script(c, m->sql, m->name, err));
        AU_TRY(run_script(c, mark, m->name, err));
        AU_TRY(run_script(c, "COMMIT", m->name, err));
        au_log(AU_LOG_INFO, "db", "schema migrated name=%s", m->name);
    }
done:
    if (c)
        close_connection(&c->base);
    if (lock >= 0)
        close(lock);
    return st;
}

/* ---- Statements ------------------------------------------------------------------------------ */

/* The slot that holds `sql`, or the one to fill: an empty one, else the least recently used. */
static cached *find_slot(connection *c, const char *sql)
{
    cached *oldest = NULL;
    for (size_t i = 0; i < CACHE_SIZE; i++) {
        cached *slot = &c->cache[i];
        if (!slot->sql)
            return slot;
        if (slot->in_use)
            continue;
        if (strcmp(slot->sql, sql) == 0)
            return slot;
        if (!oldest || slot->used_at < oldest->used_at)
            oldest = slot;
    }
    return oldest;
}

static au_status prepare(connection *c, const char *sql, cached **slot_out, sqlite3_stmt **out,
                         au_err *err)
{
    cached *slot = find_slot(c, sql);
    *slot_out = NULL;
    if (slot && slot->sql && strcmp(slot->sql, sql) == 0) {
        *out = slot->stmt;
    } else {
        int rc =
            sqlite3_prepare_v3(c->handle, sql, -1, slot ? SQLITE_PREPARE_PERSISTENT : 0, out, NULL);
        if (rc != SQLITE_OK)
            return fail_sqlite(c, rc, "prepare", err);
        if (slot) {
            char *copy = NULL;
            if (au_strdup(&copy, sql, err) != AU_OK) {
                sqlite3_finalize(*out);
                return AU_NOMEM;
            }
            sqlite3_finalize(slot->stmt);
            free(slot->sql);
            *slot = (cached){.sql = copy, .stmt = *out};
        }
    }
    if (slot) {
        slot->in_use = true;
        slot->used_at = ++c->ticks;
        *slot_out = slot;
    }
    return AU_OK;
}

static void release(cached *slot, sqlite3_stmt *stmt)
{
    if (!slot) {
        sqlite3_finalize(stmt);
        return;
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    slot->in_use = false;
}

static au_status bind_values(connection *c, sqlite3_stmt *stmt, const au_value *values, int n,
                             au_err *err)
{
    /* A text made for some filters may leave the last parameters unused. */
    int used = sqlite3_bind_parameter_count(stmt);
    AU_ASSERT(used <= n);
    for (int i = 0; i < used; i++) {
        const au_value *v = &values[i];
        int rc = SQLITE_OK;
        switch (v->type) {
        case AU_VALUE_NULL:
            rc = sqlite3_bind_null(stmt, i + 1);
            break;
        case AU_VALUE_INT:
            rc = sqlite3_bind_int64(stmt, i + 1, v->i);
            break;
        case AU_VALUE_DOUBLE:
            rc = sqlite3_bind_double(stmt, i + 1, v->d);
            break;
        case AU_VALUE_TEXT:
            rc = sqlite3_bind_text64(stmt, i + 1, v->p, v->len, SQLITE_STATIC, SQLITE_UTF8);
            break;
        case AU_VALUE_BLOB:
            rc = sqlite3_bind_blob64(stmt, i + 1, v->p, v->len, SQLITE_STATIC);
            break;
        }
        if (rc != SQLITE_OK)
            return fail_sqlite(c, rc, "bind", err);
    }
    return AU_OK;
}

static au_status query(au_rows **out, au_db *db, const char *sql, const au_value *values, int n,
                       au_err *err)
{
    connection *c = (connection *)db;
    cursor *cur = NULL;
    au_status st = AU_OK;
    AU_TRY(au_calloc(&cur, 1, sizeof *cur, err));
    cur->base.backend = &au_db_sqlite;
    cur->c = c;
    AU_TRY(prepare(c, sql, &cur->slot, &cur->stmt, err));
    AU_TRY(bind_values(c, cur->stmt, values, n, err));
    *out = &cur->base;
    cur = NULL;
done:
    if (cur) {
        if (cur->stmt)
            release(cur->slot, cur->stmt);
        free(cur);
    }
    return st;
}

static au_status next(au_rows *rows, bool *has_row, au_err *err)
{
    cursor *cur = (cursor *)rows;
    if (cur->finished)
        return AU_OK;
    int rc = sqlite3_step(cur->stmt);
    if (rc == SQLITE_ROW) {
        *has_row = true;
        return AU_OK;
    }
    cur->finished = true;
    return rc == SQLITE_DONE ? AU_OK : fail_sqlite(cur->c, rc, "step", err);
}

static void end(au_rows *rows)
{
    cursor *cur = (cursor *)rows;
    release(cur->slot, cur->stmt);
    free(cur);
}

static au_status exec(au_db *db, int64_t *changes, const char *sql, const au_value *values, int n,
                      au_err *err)
{
    connection *c = (connection *)db;
    cached *slot = NULL;
    sqlite3_stmt *stmt = NULL;
    au_status st = AU_OK;
    AU_TRY(prepare(c, sql, &slot, &stmt, err));
    AU_TRY(bind_values(c, stmt, values, n, err));
    int rc = SQLITE_ROW;
    while (rc == SQLITE_ROW)
        rc = sqlite3_step(stmt);
    if (rc != SQLITE_DONE)
        AU_TRY(fail_sqlite(c, rc, "execute", err));
    if (changes)
        *changes = sqlite3_changes64(c->handle);
done:
    if (stmt)
        release(slot, stmt);
    return st;
}

static au_value_type column_type(const au_rows *rows, int column)
{
    switch (sqlite3_column_type(((const cursor *)rows)->stmt, column)) {
    case SQLITE_INTEGER:
        return AU_VALUE_INT;
    case SQLITE_FLOAT:
        return AU_VALUE_DOUBLE;
    case SQLITE_TEXT:
        return AU_VALUE_TEXT;
    case SQLITE_BLOB:
        return AU_VALUE_BLOB;
    default:
        return AU_VALUE_NULL;
    }
}

static int64_t column_int(const au_rows *rows, int column)
{
    return sqlite3_column_int64(((const cursor *)rows)->stmt, column);
}

static double column_double(const au_rows *rows, int column)
{
    return sqlite3_column_double(((const cursor *)rows)->stmt, column);
}

static const void *column_bytes(const au_rows *rows, int column, size_t *len)
{
    sqlite3_stmt *stmt = ((const cursor *)rows)->stmt;
    const void *p = sqlite3_column_type(stmt, column) == SQLITE_BLOB
                        ? sqlite3_column_blob(stmt, column)
                        : (const void *)sqlite3_column_text(stmt, column);
    *len = (size_t)sqlite3_column_bytes(stmt, column);
    return p;
}

/* ---- Transactions ---------------------------------------------------------------------------- */

static au_status begin(au_db *db, au_begin_kind kind, au_err *err)
{
    connection *c = (connection *)db;
    au_status st = AU_OK;
    if (kind == AU_BEGIN_READ)
        return au_db_exec(db, NULL, err, "BEGIN DEFERRED", "");
    if (c->level != kind) {
        AU_TRY(run_script(
            c, kind == AU_BEGIN_DURABLE ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL",
            "synchronous", err));
        c->level = kind;
    }
    AU_TRY(au_db_exec(db, NULL, err, "BEGIN IMMEDIATE", ""));
done:
    return st;
}

static bool in_transaction(const au_db *db)
{
    return !sqlite3_get_autocommit(((const connection *)db)->handle);
}

static au_status data_version(au_db *db, int64_t *version, au_err *err)
{
    return au_db_int(version, db, 0, err, "PRAGMA data_version", "");
}

static void rollback(au_db *db)
{
    if (in_transaction(db) && au_db_exec(db, NULL, NULL, "ROLLBACK", "") != AU_OK)
        au_log(AU_LOG_ERROR, "db", "rollback failed");
}

static au_status commit(au_db *db, au_err *err)
{
    /* Full disk and I/O errors may have ended the transaction already; then nothing was written. */
    if (!in_transaction(db))
        return au_fail(err, AU_IO, "database: the transaction was rolled back before its commit");
    au_status st = au_db_exec(db, NULL, err, "COMMIT", "");
    if (st != AU_OK)
        rollback(db);
    return st;
}

const au_db_backend au_db_sqlite = {
    .name = "sqlite",
    .accepts = accepts,
    .schema_version = 2,
    .migrate = migrate,
    .open = open_connection,
    .close = close_connection,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .in_transaction = in_transaction,
    .data_version = data_version,
    .exec = exec,
    .query = query,
    .next = next,
    .end = end,
    .column_type = column_type,
    .column_int = column_int,
    .column_double = column_double,
    .column_bytes = column_bytes,
};
