/* SPDX-License-Identifier: MIT */
/* Jobs as clients see them: one, a page, the queue, events. Reads only; records live in the
 * caller's arena. No state of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/job_state.h"
#include "jobs/outbox.h"
#include "jobs/reader.h"

enum {
    DEFAULT_LIMIT = 20,
    MAX_LIMIT = 500,
    MAX_EVENTS = 1000,
    SQL_BYTES = 4096,
    CLOCK_MARGIN_MS = 60000,
    /* between an id and the time of its row: far less */
};

#define JOB_COLUMNS                                                                                \
    "j.id, j.label, j.state, j.prompt_id, p.text, p.negative_text, j.model_name, "                 \
    "j.model_fingerprint, j.params, j.format, j.num_samples, j.num_variants, j.seed, "             \
    "j.seed_source, j.percent, j.stage, j.step, j.steps, j.eta_ms, j.progress_at, j.priority, "    \
    "j.attempt, j.max_attempts, j.interruptions, j.lease_token, j.lease_owner, j.error, "          \
    "j.attempts, j.warnings, j.retry_of, j.reproduces, j.created_at, j.started_at, "               \
    "j.finished_at, j.deadline_at, j.deleted_at, j.revision, j.event_seq, j.queue_key, "           \
    "j.expected, "                                                                                 \
    "CASE WHEN j.reproduces IS NOT NULL THEN (SELECT x.sha256 FROM samples x WHERE x.job_id = "    \
    "j.id AND x.variant = 0 AND x.idx = 0) END, "                                                  \
    "CASE WHEN j.reproduces IS NOT NULL THEN (SELECT x.recipe FROM samples x WHERE x.job_id = "    \
    "j.id AND x.variant = 0 AND x.idx = 0) END "

static au_status read_job(au_reader *r, au_job **out, au_err *err)
{
    au_job *j = au_arena_alloc(r->arena, sizeof *j);
    if (!j)
        return au_fail(err, AU_LIMIT, "job does not fit the memory of the request");
    j->id = au_read_text(r);
    j->label = au_read_text(r);
    const char *state = au_read_text(r);
    j->prompt_id = au_read_text(r);
    j->prompt_text = au_read_text(r);
    j->negative_text = au_read_text(r);
    j->model_name = au_read_text(r);
    j->model_fingerprint = au_read_text(r);
    j->params = au_read_text(r);
    j->format = au_read_text(r);
    j->num_samples = au_read_int(r);
    j->num_variants = au_read_int(r);
    j->seed = (uint64_t)au_read_i64(r);
    j->seed_source = au_read_text(r);
    j->percent = au_read_double(r);
    j->stage = au_read_text(r);
    j->step = au_read_i64(r);
    j->steps = au_read_i64(r);
    j->eta_ms = au_read_i64(r);
    j->progress_at = au_read_i64(r);
    j->priority = au_read_int(r);
    j->attempt = au_read_int(r);
    j->max_attempts = au_read_int(r);
    j->interruptions = au_read_int(r);
    j->lease_token = au_read_i64(r);
    j->lease_owner = au_read_text(r);
    j->error = au_read_text(r);
    j->attempts = au_read_text(r);
    j->warnings = au_read_text(r);
    j->retry_of = au_read_text(r);
    j->reproduces = au_read_text(r);
    j->created_at = au_read_i64(r);
    j->started_at = au_read_i64(r);
    j->finished_at = au_read_i64(r);
    j->deadline_at = au_read_i64(r);
    j->deleted_at = au_read_i64(r);
    j->revision = au_read_i64(r);
    j->event_seq = au_read_i64(r);
    j->queue_key = au_read_i64(r);
    j->expected = au_read_text(r);
    j->actual_sha256 = au_read_text(r);
    j->actual_recipe = au_read_text(r);
    if (r->st != AU_OK)
        return r->st;
    if (!au_job_state_parse(state, &j->state))
        return au_fail(err, AU_CORRUPT, "job %s has the unknown state %s", j->id, state);
    j->estimated_start_ms = -1;
    *out = j;
    return AU_OK;
}

/* A sample's state, seen together with its job's. */
static const char *sample_state(au_job_state job, const char *sample_id)
{
    if (sample_id)
        return "completed";
    return job == AU_JOB_CANCELLING ? "processing" : au_job_state_name(job);
}

static au_status read_samples(au_db *db, au_arena *a, au_job *j, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    size_t max = (size_t)j->num_samples * (size_t)j->num_variants;
    au_job_sample *s = au_arena_alloc(a, max * sizeof *s);
    AU_FAIL_IF(!s, AU_LIMIT, "samples of job %s do not fit the memory of the request", j->id);
    j->samples = s;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT s.idx, s.variant, s.seed, s.adapter_id, a.name, s.adapter_sha256, "
                       "s.strength, s.sample_id FROM job_samples s LEFT JOIN adapters a "
                       "ON a.id = s.adapter_id WHERE s.job_id = ?1 ORDER BY s.variant, s.idx",
                       "t", j->id));
    for (bool has_row; j->n_samples < max; j->n_samples++, s++) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        au_reader r = au_reader_of(rows, a, err);
        s->index = au_read_int(&r);
        s->variant = au_read_int(&r);
        s->seed = (uint64_t)au_read_i64(&r);
        s->adapter_id = au_read_text(&r);
        s->adapter_name = au_read_text(&r);
        s->adapter_sha256 = au_read_text(&r);
        s->strength = au_read_double(&r);
        s->sample_id = au_read_text(&r);
        s->state = sample_state(j->state, s->sample_id);
        j->n_completed += s->sample_id != NULL;
        AU_TRY(r.st);
    }
done:
    au_rows_close(&rows);
    return st;
}

/* ---- One and many
 * -------------------------------------------------------------------------------------- */

au_status au_job_get(au_db *db, au_arena *a, const char *id, au_job **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row, own = !au_db_in_transaction(db);
    if (own)
        AU_TRY(au_db_begin_read(db, err));
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " JOB_COLUMNS "FROM jobs j JOIN prompts p ON p.id = j.prompt_id "
                       "WHERE j.id = ?1",
                       "t", id));
    AU_TRY(au_rows_next(rows, &has_row, err));
    AU_FAIL_IF(!has_row, AU_NOT_FOUND, "job %.40s does not exist", id);
    au_reader r = au_reader_of(rows, a, err);
    AU_TRY(read_job(&r, out, err));
    au_rows_close(&rows);
    AU_TRY(read_samples(db, a, *out, err));
    AU_TRY(au_queue_positions(db, out, 1, err));
done:
    au_rows_close(&rows);
    if (own)
        au_db_rollback(db);
    return st;
}

/* Ids begin with the millisecond in which they were made, a moment before created_at. */
static void id_made_at(char out[AU_UUID_TEXT], int64_t unix_ms)
{
    uint64_t ms = (uint64_t)(unix_ms < 0 ? 0 : unix_ms) & 0xffffffffffff;
    snprintf(out, AU_UUID_TEXT, "%08llx-%04llx-0000-0000-000000000000",
             (unsigned long long)(ms >> 16), (unsigned long long)(ms & 0xffff));
}

static void list_sql(au_buf *sql, const au_job_filter *f)
{
    au_buf_str(sql, "SELECT " JOB_COLUMNS "FROM jobs j JOIN prompts p ON p.id = j.prompt_id "
                    "WHERE j.deleted_at = 0");
    if (f->before_id)
        au_buf_str(sql, " AND j.id < ?1");
    if (f->state)
        au_buf_str(sql, " AND j.state = ?2");
    if (f->prompt_id)
        au_buf_str(sql, " AND j.prompt_id = ?3");
    if (f->adapter_id)
        au_buf_str(sql, " AND j.id IN (SELECT job_id FROM job_samples WHERE adapter_id = ?4)");
    if (f->model_name)
        au_buf_str(sql, " AND j.model_name = ?10");
    if (f->label)
        au_buf_str(sql, *f->label ? " AND j.label = ?5 AND j.label <> ''" : " AND j.label = ?5");
    if (f->created_after)
        au_buf_str(sql, " AND j.created_at > ?6 AND j.id >= ?8");
    if (f->created_before) /* ids may run ahead of a clock that was set back, so they bound nothing
                            */
        au_buf_str(sql, " AND j.created_at < ?9");
    au_buf_str(sql, " ORDER BY j.id DESC LIMIT ?7");
}

au_status au_job_list(au_db *db, au_arena *a, const au_job_filter *f, au_job ***jobs, size_t *n,
                      bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_buf sql;
    au_status st = AU_OK;
    size_t cap = 0;
    bool has_row, own = !au_db_in_transaction(db);
    int limit = f->limit <= 0 ? DEFAULT_LIMIT : f->limit > MAX_LIMIT ? MAX_LIMIT : f->limit;
    *jobs = NULL;
    *n = 0;
    *has_more = false;
    char since[AU_UUID_TEXT];
    id_made_at(since, f->created_after - CLOCK_MARGIN_MS);
    au_buf_init(&sql, SQL_BYTES);
    list_sql(&sql, f);
    AU_TRY(au_buf_check(&sql, err));
    if (own)
        AU_TRY(au_db_begin_read(db, err));
    AU_TRY(au_db_query(&rows, db, err, au_buf_cstr(&sql), "tttttiitit", f->before_id, f->state,
                       f->prompt_id, f->adapter_id, f->label, f->created_after, (int64_t)limit + 1,
                       since, f->created_before, f->model_name));
    for (;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        if (*n == (size_t)limit) {
            *has_more = true;
            break;
        }
        au_reader r = au_reader_of(rows, a, err);
        au_job *j = NULL;
        AU_TRY(read_job(&r, &j, err));
        AU_TRY(au_page_push((void ***)jobs, n, &cap, j, a, err));
    }
    au_rows_close(&rows);
    for (size_t i = 0; i < *n; i++)
        AU_TRY(read_samples(db, a, (*jobs)[i], err));
    AU_TRY(au_queue_positions(db, *jobs, *n, err));
done:
    au_rows_close(&rows);
    au_buf_deinit(&sql);
    if (own)
        au_db_rollback(db);
    return st;
}

au_status au_event_list(au_db *db, au_arena *a, const char *subject, int64_t after, int limit,
                        au_event **events, size_t *n, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    if (limit <= 0 || limit > MAX_EVENTS)
        limit = MAX_EVENTS;
    *n = 0;
    *events = au_arena_alloc(a, (size_t)limit * sizeof **events);
    AU_FAIL_IF(!*events, AU_LIMIT, "events do not fit the memory of the request");
    AU_TRY(au_db_query(&rows, db, err,
                       subject
                           ? "SELECT id, seq, kind, subject, event, data, created_at FROM events "
                             "WHERE subject = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"
                           : "SELECT id, seq, kind, subject, event, data, created_at FROM events "
                             "WHERE ?1 IS NULL AND id > ?2 ORDER BY id LIMIT ?3",
                       "tii", subject, after, (int64_t)limit));
    for (bool has_row; *n < (size_t)limit; (*n)++) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        au_reader r = au_reader_of(rows, a, err);
        au_event *e = &(*events)[*n];
        e->id = au_read_i64(&r);
        e->seq = au_read_i64(&r);
        e->kind = au_read_text(&r);
        e->subject = au_read_text(&r);
        e->event = au_read_text(&r);
        e->data = au_read_text(&r);
        e->created_at = au_read_i64(&r);
        AU_TRY(r.st);
    }
done:
    au_rows_close(&rows);
    return st;
}

au_status au_event_add(au_db *db, const char *kind, const char *subject, const char *event,
                       const char *data, au_err *err)
{
    AU_ASSERT(au_db_in_transaction(db));
    au_status st = au_db_exec(db, NULL, err,
                              "INSERT INTO events (kind, subject, seq, event, data, created_at) "
                              "SELECT ?1, ?2, COALESCE(MAX(seq), 0) + 1, ?3, ?4, au_now_ms() "
                              "FROM events WHERE subject = ?2",
                              "tttt", kind, subject, event, data);
    return st == AU_OK ? au_outbox_add(db, kind, subject, event, data, err) : st;
}
