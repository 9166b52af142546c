/* SPDX-License-Identifier: MIT */
/* One request from start to end: check everything, then add rows to a session in order, as many as
 * its memory takes, and the next whenever one is gone. Which rows run together never shows in the
 * audio. Runs on the caller's thread, which owns the model's pool meanwhile. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/engine.h"

enum { MAX_ROWS = 4096 };

typedef struct run_row {
    size_t index;
    double work, fraction;
    uint64_t steps, steps_done;
    bool left; /* cancelled */
} run_row;

typedef struct run {
    const au_request *request;
    run_row *rows; /* [n_rows] */
    double fraction;
    int rows_done;
} run;

/* ---- Callbacks of the session ---- */

static void report_progress(run *r, au_stage stage)
{
    const au_request *q = r->request;
    au_progress p = {.stage = stage, .rows_done = r->rows_done};
    double work = 0, done = 0;
    if (!q->on_progress)
        return;
    for (size_t i = 0; i < q->n_rows; i++) {
        if (r->rows[i].left)
            continue;
        work += r->rows[i].work;
        done += r->rows[i].work * r->rows[i].fraction;
        p.steps += r->rows[i].steps;
        p.step += r->rows[i].steps_done;
    }
    double fraction = work > 0 ? done / work : 0;
    r->fraction = fraction > r->fraction
                      ? fraction
                      : r->fraction; /* a row that leaves must not turn it back */
    p.fraction = r->fraction < 1 ? r->fraction : 1;
    q->on_progress(q->user, &p);
}

static bool row_cancelled(void *user, void *tag)
{
    run *r = user;
    run_row *row = tag;
    if (r->request->cancelled)
        row->left = r->request->cancelled(r->request->user, row->index);
    return row->left;
}

static void row_progress(void *user, void *tag, const au_row_progress *p)
{
    run_row *row = tag;
    row->fraction = p->fraction;
    row->steps_done = p->step;
    report_progress(user, p->stage);
}

static au_status row_audio(void *user, void *tag, const au_audio *audio, au_err *err)
{
    run *r = user;
    run_row *row = tag;
    au_status st = r->request->on_audio(r->request->user, row->index, audio, err);
    if (st == AU_OK) {
        r->rows_done++;
        report_progress(r, AU_STAGE_CODEC);
    }
    return st;
}

static void row_trace(const char *stage, const char *dtype, int rank, const int64_t *shape,
                      const void *data, void *user)
{
    const run *r = user;
    r->request->trace(stage, dtype, rank, shape, data, r->request->user);
}

/* ---- Checking ---- */

static au_status check_request(const au_request *q, bool to_run, au_err *err)
{
    if (q->size < sizeof *q)
        return au_fail(err, AU_INVALID, "au_request.size is %zu, expected %zu", q->size, sizeof *q);
    if (!q->model || !q->rows || (to_run && !q->on_audio))
        return au_fail(err, AU_INVALID, "au_request: model, rows and on_audio must be set");
    if (!q->n_rows || q->n_rows > MAX_ROWS)
        return au_fail(err, AU_INVALID, "the request has %zu rows, expected 1 ... %d", q->n_rows,
                       MAX_ROWS);
    if (!(q->max_duration_s >= 0))
        return au_fail(err, AU_INVALID, "max_duration_s is %g, expected 0 or more",
                       q->max_duration_s);
    return AU_OK;
}

/* Checks every row before any work begins. */
static au_status begin_run(run *r, au_err *err)
{
    const au_request *q = r->request;
    au_ready_row ready;
    au_status st = AU_OK;
    size_t i = 0;
    AU_TRY(au_calloc(&r->rows, q->n_rows, sizeof *r->rows, err));
    for (; i < q->n_rows; i++) {
        AU_TRY(au_ready_row_init(&ready, q->model, &q->rows[i], q->max_duration_s, err));
        r->rows[i] =
            (run_row){.index = i, .work = au_row_work(&ready), .steps = (uint64_t)ready.steps};
        au_ready_row_deinit(&ready);
    }
done:
    return st == AU_OK ? AU_OK : au_err_prefix(err, st, "row %zu", i);
}

/* ---- Running ---- */

static au_status run_rows(run *r, au_session *s, au_err *err)
{
    const au_request *q = r->request;
    size_t next = 0, full = SIZE_MAX; /* as many rows were too many for the next */
    au_status st = AU_OK;
    while (next < q->n_rows || au_session_rows(s) > 0) {
        while (next < q->n_rows && au_session_rows(s) < full) {
            st = au_session_add(s, &q->rows[next], &r->rows[next], err);
            if (st == AU_AGAIN) {
                full = au_session_rows(s);
                break;
            }
            if (st != AU_OK)
                return au_err_prefix(err, st, "row %zu", next);
            full = SIZE_MAX;
            next++;
        }
        AU_TRY(au_session_step(s, err));
    }
done:
    return st;
}

au_status au_generate(const au_request *request, au_err *err)
{
    run r = {.request = request};
    au_session *s = NULL;
    size_t left = 0;
    au_status st = AU_OK;
    AU_TRY(check_request(request, true, err));
    AU_TRY(begin_run(&r, err));
    const au_session_options options = {.size = sizeof options,
                                        .model = request->model,
                                        .memory_bytes = request->memory_bytes,
                                        .max_duration_s = request->max_duration_s,
                                        .user = &r,
                                        .cancelled = row_cancelled,
                                        .on_progress = row_progress,
                                        .on_audio = row_audio,
                                        .trace = request->trace ? row_trace : NULL};
    AU_TRY(au_session_open(&options, &s, err));
    AU_TRY(run_rows(&r, s, err));
    for (size_t i = 0; i < request->n_rows; i++)
        left += r.rows[i].left;
    AU_FAIL_IF(left == request->n_rows, AU_CANCELLED, "cancelled");
done:
    au_session_close(&s);
    free(r.rows);
    return st;
}

au_status au_request_memory(const au_request *request, uint64_t *bytes, au_err *err)
{
    const au_model *m = request->model;
    au_ready_row *ready = NULL;
    const au_clip_spec **clips = NULL;
    size_t n = 0;
    au_status st = AU_OK;
    AU_TRY(check_request(request, false, err));
    AU_TRY(au_calloc(&ready, request->n_rows, sizeof *ready, err));
    AU_TRY(au_calloc(&clips, request->n_rows, sizeof *clips, err));
    for (; n < request->n_rows; n++) {
        st = au_ready_row_init(&ready[n], m, &request->rows[n], request->max_duration_s, err);
        if (st != AU_OK) {
            st = au_err_prefix(err, st, "row %zu", n);
            goto done;
        }
        clips[n] = &ready[n].clip;
    }
    *bytes = m->family->session_bytes(m->net, clips, n, au_pool_threads(m->pool));
done:
    for (size_t i = 0; i < n; i++)
        au_ready_row_deinit(&ready[i]);
    free(ready);
    free(clips);
    return st;
}
