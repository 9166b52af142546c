/* SPDX-License-Identifier: MIT */
/* The back-end-independent half of the database layer: finds the back end of a URL, and turns typed
 * arguments into values. Owns nothing; a connection is used by one thread at a time. */
#include "db/db.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "db/db_backend.h"

static const au_db_backend *const backends[] = {&au_db_sqlite};

static au_status find_backend(const au_db_backend **out, const char *url, au_err *err)
{
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (backends[i]->accepts(url)) {
            *out = backends[i];
            return AU_OK;
        }
    }
    return au_fail(err, AU_UNSUPPORTED,
                   "database %s: not available in this version, expected a file", url);
}

au_status au_db_open(au_db **out, const char *url, const au_db_options *options, au_err *err)
{
    const au_db_options defaults = {0};
    const au_db_backend *backend = NULL;
    *out = NULL;
    au_status st = find_backend(&backend, url, err);
    if (st != AU_OK)
        return st;
    return backend->open(out, url, options ? options : &defaults, err);
}

void au_db_close(au_db **db)
{
    if (db && *db) {
        (*db)->backend->close(*db);
        *db = NULL;
    }
}

au_status au_db_migrate(const char *url, au_err *err)
{
    const au_db_backend *backend = NULL;
    au_status st = find_backend(&backend, url, err);
    return st == AU_OK ? backend->migrate(url, err) : st;
}

int au_db_schema_version(void)
{
    return backends[0]->schema_version;
}

au_status au_db_begin(au_db *db, au_db_durability durability, au_err *err)
{
    return db->backend->begin(db, durability == AU_DB_DURABLE ? AU_BEGIN_DURABLE : AU_BEGIN_RELAXED,
                              err);
}

au_status au_db_begin_read(au_db *db, au_err *err)
{
    return db->backend->begin(db, AU_BEGIN_READ, err);
}

au_status au_db_commit(au_db *db, au_err *err)
{
    return db->backend->commit(db, err);
}

void au_db_rollback(au_db *db)
{
    if (db)
        db->backend->rollback(db);
}

bool au_db_in_transaction(const au_db *db)
{
    return db->backend->in_transaction(db);
}

au_status au_db_data_version(au_db *db, int64_t *version, au_err *err)
{
    return db->backend->data_version(db, version, err);
}

au_status au_db_savepoint(au_db *db, au_err *err)
{
    return au_db_exec(db, NULL, err, "SAVEPOINT unit", "");
}

au_status au_db_release(au_db *db, au_err *err)
{
    return au_db_exec(db, NULL, err, "RELEASE SAVEPOINT unit", "");
}

void au_db_rollback_to(au_db *db)
{
    /* After an error that ended the whole transaction (disk full) there is nothing to undo. */
    if (!au_db_in_transaction(db))
        return;
    if (au_db_exec(db, NULL, NULL, "ROLLBACK TO SAVEPOINT unit", "") != AU_OK ||
        au_db_release(db, NULL) != AU_OK)
        au_db_rollback(db);
}

static au_value text_value(const char *s)
{
    return s ? (au_value){.type = AU_VALUE_TEXT, .p = s, .len = strlen(s)} : (au_value){0};
}

static int read_values(au_value *values, const char *types, va_list ap)
{
    int n = 0;
    for (; types[n]; n++) {
        AU_ASSERT(n < AU_DB_MAX_PARAMS);
        au_value *v = &values[n];
        *v = (au_value){.type = AU_VALUE_NULL};
        switch (types[n]) {
        case 't':
            *v = text_value(va_arg(ap, const char *));
            break;
        case 'i':
            *v = (au_value){.type = AU_VALUE_INT, .i = va_arg(ap, int64_t)};
            break;
        case 'o': {
            const int64_t *i = va_arg(ap, const int64_t *);
            if (i)
                *v = (au_value){.type = AU_VALUE_INT, .i = *i};
            break;
        }
        case 'd': {
            double d = va_arg(ap, double);
            if (!isnan(d))
                *v = (au_value){.type = AU_VALUE_DOUBLE, .d = d};
            break;
        }
        case 'b': {
            const void *p = va_arg(ap, const void *);
            size_t len = va_arg(ap, size_t);
            if (p)
                *v = (au_value){.type = AU_VALUE_BLOB, .p = p, .len = len};
            break;
        }
        default:
            AU_ASSERT(false && "unknown parameter type");
        }
    }
    return n;
}

au_status au_db_exec(au_db *db, int64_t *changes, au_err *err, const char *sql, const char *types,
                     ...)
{
    au_value values[AU_DB_MAX_PARAMS];
    va_list ap;
    va_start(ap, types);
    int n = read_values(values, types, ap);
    va_end(ap);
    return db->backend->exec(db, changes, sql, values, n, err);
}

au_status au_db_query(au_rows **out, au_db *db, au_err *err, const char *sql, const char *types,
                      ...)
{
    au_value values[AU_DB_MAX_PARAMS];
    va_list ap;
    va_start(ap, types);
    int n = read_values(values, types, ap);
    va_end(ap);
    *out = NULL;
    return db->backend->query(out, db, sql, values, n, err);
}

au_status au_db_int(int64_t *out, au_db *db, int64_t otherwise, au_err *err, const char *sql,
                    const char *types, ...)
{
    au_value values[AU_DB_MAX_PARAMS];
    va_list ap;
    va_start(ap, types);
    int n = read_values(values, types, ap);
    va_end(ap);
    au_rows *rows = NULL;
    bool has_row = false;
    *out = otherwise;
    au_status st = AU_OK;
    AU_TRY(db->backend->query(&rows, db, sql, values, n, err));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (has_row && !au_rows_is_null(rows, 0))
        *out = au_rows_int(rows, 0);
done:
    au_rows_close(&rows);
    return st;
}

au_status au_rows_next(au_rows *rows, bool *has_row, au_err *err)
{
    *has_row = false;
    return rows->backend->next(rows, has_row, err);
}

void au_rows_close(au_rows **rows)
{
    if (rows && *rows) {
        (*rows)->backend->end(*rows);
        *rows = NULL;
    }
}

bool au_rows_is_null(const au_rows *rows, int column)
{
    return rows->backend->column_type(rows, column) == AU_VALUE_NULL;
}

int64_t au_rows_int(const au_rows *rows, int column)
{
    return rows->backend->column_int(rows, column);
}

double au_rows_double(const au_rows *rows, int column)
{
    return au_rows_is_null(rows, column) ? (double)NAN : rows->backend->column_double(rows, column);
}

const char *au_rows_text(const au_rows *rows, int column)
{
    size_t len;
    return au_rows_is_null(rows, column) ? NULL : rows->backend->column_bytes(rows, column, &len);
}

const void *au_rows_blob(const au_rows *rows, int column, size_t *len)
{
    *len = 0;
    return au_rows_is_null(rows, column) ? NULL : rows->backend->column_bytes(rows, column, len);
}

au_status au_rows_strdup(char **out, const au_rows *rows, int column, au_arena *a, au_err *err)
{
    *out = NULL;
    const char *text = au_rows_text(rows, column);
    if (!text)
        return AU_OK;
    *out = au_arena_strdup(a, text);
    return *out ? AU_OK
                : au_fail(err, AU_LIMIT,
                          "record does not fit the memory of the request (%zu bytes)", a->max);
}
