/* SPDX-License-Identifier: MIT */
/* The database: a thin SQL layer over a back end (SQLite now).
 *
 * SQL is written once, in the dialect that SQLite and PostgreSQL share (RETURNING, ON CONFLICT,
 * window functions), with parameters ?1, ?2, ... A back end provides two SQL functions: au_now_ms()
 * wall clock, Unix milliseconds: times that people see au_clock_ms()  clock for leases, back-off
 * and stalls. It is the database's own and never jumps with the wall clock: on SQLite the host's
 * monotonic clock (everybody who can open the file is on this host).
 *
 * A connection belongs to one thread at a time and is never carried across fork. Two kinds:
 * read-only ones for readers, and writing ones. A write happens between au_db_begin and
 * au_db_commit (BEGIN IMMEDIATE); no other I/O goes in between. */
#ifndef AU_DB_DB_H
#define AU_DB_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

typedef struct au_db au_db;
typedef struct au_rows au_rows;

typedef struct au_db_options {
    bool read_only;
    int busy_timeout_ms; /* 0: 5000 */
} au_db_options;

/* Opens the database at `url`: a file path. options may be NULL. The file must exist and have this
 * build's schema version (AU_UNSUPPORTED names both versions); au_db_migrate makes and upgrades it.
 * AU_NOT_FOUND when there is none. */
AU_MUST_CHECK au_status au_db_open(au_db **out, const char *url, const au_db_options *options,
                                   au_err *err);
void au_db_close(au_db **db); /* NULL is fine; rolls back what is open */

/* Makes the database or brings it to this build's schema, after a copy of the file
 * (<path>.v<old>.bak) where it has content. Several processes may do so at once, one after the
 * other; but an existing database is only for the owner of the data folder's lock, since a server
 * of another version may be at work with it. A newer version than this build's: AU_UNSUPPORTED with
 * both numbers. */
AU_MUST_CHECK au_status au_db_migrate(const char *url, au_err *err);
int au_db_schema_version(void); /* of this build */

/* ---- Transactions
 * ------------------------------------------------------------------------------------------ */

typedef enum au_db_durability {
    AU_DB_DURABLE, /* on the disk when commit returns: whatever was promised to somebody */
    AU_DB_RELAXED, /* survives the death of processes, maybe not of the host: progress, heartbeats
                    */
} au_db_durability;

/* AU_AGAIN when somebody else held the write lock for the whole busy time-out. */
AU_MUST_CHECK au_status au_db_begin(au_db *db, au_db_durability durability, au_err *err);
AU_MUST_CHECK au_status au_db_commit(au_db *db, au_err *err); /* a failed commit has rolled back */
void au_db_rollback(au_db *db); /* no transaction open: does nothing */
bool au_db_in_transaction(const au_db *db);
/* One consistent view over several queries on a reading connection; ended by commit or rollback. */
AU_MUST_CHECK au_status au_db_begin_read(au_db *db, au_err *err);
/* A nested unit inside a transaction (one level): all of it or nothing. */
AU_MUST_CHECK au_status au_db_savepoint(au_db *db, au_err *err);
AU_MUST_CHECK au_status au_db_release(au_db *db, au_err *err);
void au_db_rollback_to(au_db *db); /* and releases */

/* A number that changes when another connection has committed, of whatever process; cheap. */
AU_MUST_CHECK au_status au_db_data_version(au_db *db, int64_t *version, au_err *err);

/* ---- Statements
 * -------------------------------------------------------------------------------------------- */

/* `types` has a letter for each parameter ?1, ?2, ... in order:
 *   t  const char *, NULL is SQL NULL      i  int64_t      d  double, NaN is SQL NULL
 *   o  const int64_t *, NULL is SQL NULL (optional integer)
 *   b  const void *, size_t (two arguments); NULL is SQL NULL
 * Parameters that the text does not use are ignored. Careful: an int passed for `i` must be cast to
 * int64_t. Text and blobs are borrowed until the call (exec) or au_rows_close (query). */
AU_MUST_CHECK au_status au_db_exec(au_db *db, int64_t *changes, au_err *err, const char *sql,
                                   const char *types, ...);

/* Starts a query; close the rows before the next use of the same SQL text. Prepared statements are
 * kept. */
AU_MUST_CHECK au_status au_db_query(au_rows **out, au_db *db, au_err *err, const char *sql,
                                    const char *types, ...);
/* Moves to the next row; *has_row false at the end. */
AU_MUST_CHECK au_status au_rows_next(au_rows *rows, bool *has_row, au_err *err);
void au_rows_close(au_rows **rows); /* NULL is fine */

/* Values of the current row, columns from 0. Texts and blobs are borrowed until the next row; NULL
 * for SQL NULL. */
bool au_rows_is_null(const au_rows *rows, int column);
int64_t au_rows_int(const au_rows *rows, int column);   /* 0 for NULL */
double au_rows_double(const au_rows *rows, int column); /* NaN for NULL */
const char *au_rows_text(const au_rows *rows, int column);
const void *au_rows_blob(const au_rows *rows, int column, size_t *len);
/* A copy of a text in the arena; NULL for NULL. AU_NOMEM when the arena is full. */
AU_MUST_CHECK au_status au_rows_strdup(char **out, const au_rows *rows, int column, au_arena *a,
                                       au_err *err);

/* One integer from the first row, `otherwise` when there is none or it is NULL. */
AU_MUST_CHECK au_status au_db_int(int64_t *out, au_db *db, int64_t otherwise, au_err *err,
                                  const char *sql, const char *types, ...);

#endif
