/* SPDX-License-Identifier: MIT */
/* Records of models, adapters and workers. Mostly reads; records live in the
 * caller's arena. No state of its own. */
#include "jobs/catalog.h"

#include <stdio.h>
#include <string.h>

#include "jobs/reader.h"

enum { DEFAULT_LIMIT = 20, MAX_LIMIT = 500 };

int au_page_limit(int limit)
{
    return limit <= 0 ? DEFAULT_LIMIT : limit > MAX_LIMIT ? MAX_LIMIT : limit;
}

au_status au_page_collect(au_rows *rows, au_arena *a, au_read_fn read, size_t record_size,
                          int limit, void ***out, size_t *n, bool *has_more, au_err *err)
{
    size_t cap = 0;
    au_status st = AU_OK;
    *out = NULL;
    *n = 0;
    *has_more = false;
    for (bool has_row;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        if (limit > 0 && *n == (size_t)limit) {
            *has_more = true;
            break;
        }
        void *record = au_arena_alloc(a, record_size);
        AU_FAIL_IF(!record, AU_LIMIT, "record does not fit the memory of the request");
        au_reader r = au_reader_of(rows, a, err);
        AU_TRY(read(&r, record));
        AU_TRY(au_page_push(out, n, &cap, record, a, err));
    }
done:
    return st;
}

au_status au_page_single(au_rows *rows, au_arena *a, au_read_fn read, size_t record_size,
                         void **out, const char *what, const char *id, au_err *err)
{
    void **page;
    size_t n;
    bool more;
    au_status st = au_page_collect(rows, a, read, record_size, 1, &page, &n, &more, err);
    if (st == AU_OK && n == 0)
        st = au_fail(err, AU_NOT_FOUND, "%s %.80s does not exist", what, id);
    if (st == AU_OK)
        *out = page[0];
    return st;
}

/* ---- Models
 * ---------------------------------------------------------------------------------------- */

au_status au_model_row_put(au_db *db, const au_model_row *m, au_err *err)
{
    return au_db_exec(
        db, NULL, err,
        "INSERT INTO models (fingerprint, name, family, dir, info, is_default, active, "
        "position, first_seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, "
        "(SELECT COUNT(*) FROM models WHERE active), au_now_ms()) "
        "ON CONFLICT (name, fingerprint) DO UPDATE SET family = excluded.family, "
        "dir = excluded.dir, info = excluded.info, is_default = excluded.is_default, "
        "active = excluded.active, position = excluded.position",
        "tttttii", m->fingerprint, m->name, m->family, m->dir, m->info, (int64_t)m->is_default,
        (int64_t)m->active);
}

#define MODEL_COLUMNS "name, family, fingerprint, dir, info, is_default, active, first_seen "

static au_status read_model(au_reader *r, void *record)
{
    au_model_row *m = record;
    m->name = au_read_text(r);
    m->family = au_read_text(r);
    m->fingerprint = au_read_text(r);
    m->dir = au_read_text(r);
    m->info = au_read_text(r);
    m->is_default = au_read_bool(r);
    m->active = au_read_bool(r);
    m->first_seen = au_read_i64(r);
    return r->st;
}

au_status au_model_row_get(au_db *db, au_arena *a, const char *name, au_model_row **out,
                           au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " MODEL_COLUMNS "FROM models WHERE active = 1 AND "
                       "((?1 IS NULL AND is_default = 1) OR name = ?1)",
                       "t", name));
    AU_TRY(au_page_single(rows, a, read_model, sizeof **out, (void **)out, "model",
                          name ? name : "(default)", err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_model_row_list(au_db *db, au_arena *a, au_model_row ***out, size_t *n, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool more;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " MODEL_COLUMNS "FROM models WHERE active = 1 "
                       "ORDER BY is_default DESC, position",
                       ""));
    AU_TRY(au_page_collect(rows, a, read_model, sizeof ***out, 0, (void ***)out, n, &more, err));
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Adapters
 * -------------------------------------------------------------------------------------- */

#define ADAPTER_COLUMNS                                                                            \
    "id, name, version, family, base_model, format, kind, description, rank, targets, alpha, "     \
    "sha256, store_key, bytes, status, report, error, current, created_at, deleted_at "

static au_status read_adapter(au_reader *r, void *record)
{
    au_adapter_row *x = record;
    x->id = au_read_text(r);
    x->name = au_read_text(r);
    x->version = au_read_int(r);
    x->family = au_read_text(r);
    x->base_model = au_read_text(r);
    x->format = au_read_text(r);
    x->kind = au_read_text(r);
    x->description = au_read_text(r);
    x->rank = au_read_int(r);
    x->targets = au_read_int(r);
    x->alpha = au_read_double(r);
    x->sha256 = au_read_text(r);
    x->store_key = au_read_text(r);
    x->bytes = au_read_i64(r);
    x->status = au_read_text(r);
    x->report = au_read_text(r);
    x->error = au_read_text(r);
    x->current = au_read_bool(r);
    x->created_at = au_read_i64(r);
    x->deleted_at = au_read_i64(r);
    return r->st;
}

au_status au_adapter_row_get(au_db *db, au_arena *a, const char *id, au_adapter_row **out,
                             au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, "SELECT " ADAPTER_COLUMNS "FROM adapters WHERE id = ?1", "t",
                       id));
    AU_TRY(au_page_single(rows, a, read_adapter, sizeof **out, (void **)out, "adapter", id, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_adapter_row_by_name(au_db *db, au_arena *a, const char *name, au_adapter_row **out,
                                 au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " ADAPTER_COLUMNS
                       "FROM adapters WHERE name = ?1 AND current = 1 AND "
                       "deleted_at = 0 ORDER BY version DESC LIMIT 1",
                       "t", name));
    AU_TRY(au_page_single(rows, a, read_adapter, sizeof **out, (void **)out, "adapter", name, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_adapter_row_list(au_db *db, au_arena *a, const au_adapter_filter *f,
                              au_adapter_row ***out, size_t *n, bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    int limit = au_page_limit(f->limit);
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " ADAPTER_COLUMNS "FROM adapters WHERE deleted_at = 0 AND "
                       "id < COALESCE(?1, 'g') AND status = COALESCE(?2, status) AND "
                       "name = COALESCE(?3, name) AND base_model = COALESCE(?4, base_model) AND "
                       "(?5 = 0 OR version = ?5) AND (?6 OR current OR status <> 'ready') "
                       "ORDER BY id DESC LIMIT ?7",
                       "ttttiii", f->before_id, f->status, f->name, f->base_model,
                       (int64_t)f->version, (int64_t)(f->superseded || f->version),
                       (int64_t)limit + 1));
    AU_TRY(au_page_collect(rows, a, read_adapter, sizeof ***out, limit, (void ***)out, n, has_more,
                           err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_adapter_fit(au_db *db, au_arena *a, const char *adapter_id,
                         const char *model_fingerprint, const char **status, const char **report,
                         au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT status, report FROM adapter_models WHERE adapter_id = ?1 AND "
                       "model_fingerprint = ?2",
                       "tt", adapter_id, model_fingerprint));
    AU_TRY(au_rows_next(rows, &has_row, err));
    AU_FAIL_IF(!has_row, AU_NOT_FOUND, "adapter %.40s was not checked against this model",
               adapter_id);
    au_reader r = au_reader_of(rows, a, err);
    *status = au_read_text(&r);
    *report = au_read_text(&r);
    AU_TRY(r.st);
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Workers
 * --------------------------------------------------------------------------------------- */

static au_status read_worker(au_reader *r, void *record)
{
    au_worker_row *w = record;
    w->id = au_read_text(r);
    w->host = au_read_text(r);
    w->pid = au_read_i64(r);
    w->state = au_read_text(r);
    w->detail = au_read_text(r);
    w->models = au_read_text(r);
    w->started_at = au_read_i64(r);
    w->seen_at = au_read_i64(r);
    return r->st;
}

au_status au_worker_row_list(au_db *db, au_arena *a, au_worker_row ***out, size_t *n, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool more;
    AU_TRY(
        au_db_query(&rows, db, err,
                    "SELECT id, host, pid, state, detail, models, started_at, seen_at FROM workers "
                    "WHERE state <> 'gone' ORDER BY id",
                    ""));
    AU_TRY(au_page_collect(rows, a, read_worker, sizeof ***out, 0, (void ***)out, n, &more, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_worker_row_put(au_db *db, const au_worker_row *w, const char *boot_id, au_err *err)
{
    return au_db_exec(
        db, NULL, err,
        "INSERT INTO workers (id, host, boot_id, pid, state, detail, models, started_at, "
        "seen_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, au_now_ms(), au_now_ms()) "
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
        "detail = excluded.detail, seen_at = excluded.seen_at",
        "tttittt", w->id, w->host, boot_id, w->pid, w->state, w->detail, w->models);
}
