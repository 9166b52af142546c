/* SPDX-License-Identifier: MIT */
/* What a database back end implements; internal to db/. db.c turns the typed arguments of db.h into
 * values and finds the back end. */
#ifndef AU_DB_DB_BACKEND_H
#define AU_DB_DB_BACKEND_H

#include "db/db.h"

typedef struct au_migration {
    int version; /* 0 ends the list */
    const char *name, *sql;
} au_migration;
extern const au_migration au_sqlite_migrations[];

typedef enum au_value_type {
    AU_VALUE_NULL,
    AU_VALUE_INT,
    AU_VALUE_DOUBLE,
    AU_VALUE_TEXT,
    AU_VALUE_BLOB
} au_value_type;
typedef struct au_value {
    au_value_type type;
    int64_t i;
    double d;
    const void *p; /* text or blob; borrowed until the statement is done */
    size_t len;
} au_value;
enum { AU_DB_MAX_PARAMS = 48 };

typedef enum au_begin_kind { AU_BEGIN_READ, AU_BEGIN_DURABLE, AU_BEGIN_RELAXED } au_begin_kind;

/* Objects of a back end begin with these. */
struct au_db {
    const struct au_db_backend *backend;
};
struct au_rows {
    const struct au_db_backend *backend;
};

typedef struct au_db_backend {
    const char *name;
    bool (*accepts)(const char *url);
    int schema_version;
    au_status (*migrate)(const char *url, au_err *err);
    au_status (*open)(au_db **out, const char *url, const au_db_options *options, au_err *err);
    void (*close)(au_db *db);
    au_status (*begin)(au_db *db, au_begin_kind kind, au_err *err);
    au_status (*commit)(au_db *db, au_err *err);
    void (*rollback)(au_db *db);
    bool (*in_transaction)(const au_db *db);
    au_status (*data_version)(au_db *db, int64_t *version, au_err *err);
    au_status (*exec)(au_db *db, int64_t *changes, const char *sql, const au_value *values,
                      int n_values, au_err *err);
    au_status (*query)(au_rows **out, au_db *db, const char *sql, const au_value *values,
                       int n_values, au_err *err);
    au_status (*next)(au_rows *rows, bool *has_row, au_err *err);
    void (*end)(au_rows *rows);
    au_value_type (*column_type)(const au_rows *rows, int column);
    int64_t (*column_int)(const au_rows *rows, int column);
    double (*column_double)(const au_rows *rows, int column);
    const void *(*column_bytes)(const au_rows *rows, int column,
                                size_t *len); /* text: NUL-terminated */
} au_db_backend;

extern const au_db_backend au_db_sqlite;

#endif
