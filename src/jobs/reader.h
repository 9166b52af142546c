/* SPDX-License-Identifier: MIT */
/* Reads the columns of a row one after the other into a record; internal to jobs/. The error
 * sticks: check `st` once at the end. */
#ifndef AU_JOBS_READER_H
#define AU_JOBS_READER_H

#include "db/db.h"

typedef struct au_reader {
    const au_rows *rows;
    au_arena *arena;
    au_err *err;
    au_status st;
    int column; /* next one */
} au_reader;

static inline au_reader au_reader_of(const au_rows *rows, au_arena *a, au_err *err)
{
    return (au_reader){.rows = rows, .arena = a, .err = err, .st = AU_OK};
}

/* A copy in the arena; NULL for NULL. */
static inline const char *au_read_text(au_reader *r)
{
    char *text = NULL;
    au_status st = au_rows_strdup(&text, r->rows, r->column++, r->arena, r->err);
    if (st != AU_OK)
        r->st = st;
    return text;
}

static inline int64_t au_read_i64(au_reader *r)
{
    return au_rows_int(r->rows, r->column++);
}

static inline int au_read_int(au_reader *r)
{
    return (int)au_rows_int(r->rows, r->column++);
}

static inline bool au_read_bool(au_reader *r)
{
    return au_rows_int(r->rows, r->column++) != 0;
}

static inline double au_read_double(au_reader *r)
{
    return au_rows_double(r->rows, r->column++);
}

/* An array that grows in an arena (old copies stay there until it dies): for pages of records. */
static inline au_status au_page_push(void ***items, size_t *n, size_t *cap, void *item, au_arena *a,
                                     au_err *err)
{
    if (*n == *cap) {
        size_t bigger = *cap ? *cap * 2 : 16;
        void **copy = (void **)au_arena_alloc(a, bigger * sizeof *copy);
        if (!copy)
            return au_fail(err, AU_LIMIT, "page does not fit the memory of the request (%zu bytes)",
                           a->max);
        for (size_t i = 0; i < *n; i++)
            copy[i] = (*items)[i];
        *items = copy;
        *cap = bigger;
    }
    (*items)[(*n)++] = item;
    return AU_OK;
}

/* What a page may hold when `limit` was asked for: 20 for 0, at most 500. */
int au_page_limit(int limit);

/* Collects the rows of a query into a page of records made by `read`. limit 0: all. */
typedef au_status (*au_read_fn)(au_reader *r, void *record);
AU_MUST_CHECK au_status au_page_collect(au_rows *rows, au_arena *a, au_read_fn read,
                                        size_t record_size, int limit, void ***out, size_t *n,
                                        bool *has_more, au_err *err);
/* The first row's record; AU_NOT_FOUND with `what` and `id`. */
AU_MUST_CHECK au_status au_page_single(au_rows *rows, au_arena *a, au_read_fn read,
                                       size_t record_size, void **out, const char *what,
                                       const char *id, au_err *err);

#endif
