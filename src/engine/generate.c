/* SPDX-License-Identifier: MIT */
/* One request from start to end: check, tokenise, group under the memory limit, and run each group:
 * text, steps, codec. The grouping never shows in the audio: a row's arithmetic does not depend on
 * its neighbours. Runs on the caller's thread, which owns the model's pool meanwhile. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/engine.h"

enum { MAX_ROWS = 4096 };

/* Shares of a row's work, in decoder steps, for the progress figure: the text counts as two steps,
 * the codec as a tenth of the frames. */
static const double TEXT_SHARE = 2, CODEC_SHARE = 0.1;

typedef struct run_row {
    au_clip_spec clip;
    int32_t *tokens, *negative; /* owned */
    double work, done;          /* in decoder steps */
    size_t steps, steps_done;
    bool left; /* cancelled */
} run_row;

typedef struct run {
    const au_request *request;
    au_model *model;
    run_row *rows;
    au_clip_spec *group; /* the clips of the running group, side by side */
    size_t first;        /* row of group[0] */
    double fraction;
    int rows_done;
} run;

static run_row *row_of(const run *r, const au_clip_spec *clip)
{
    return &r->rows[r->first + (size_t)(clip - r->group)];
}

/* ---- Callbacks of the family ---- */

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
        done += r->rows[i].done;
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

static bool watch_cancelled(void *user, const au_clip_spec *clip)
{
    run *r = user;
    run_row *row = row_of(r, clip);
    if (!row->left && r->request->cancelled)
        row->left = r->request->cancelled(r->request->user, (size_t)(row - r->rows));
    return row->left;
}

static void watch_unit(void *user, const au_clip_spec *clip, au_stage stage, size_t done, size_t of)
{
    run *r = user;
    run_row *row = row_of(r, clip);
    double part = of ? (double)done / (double)of : 1;
    if (stage == AU_STAGE_TEXT) {
        row->done = TEXT_SHARE * part;
    } else if (stage == AU_STAGE_DECODE) {
        row->steps_done = done;
        row->done = TEXT_SHARE + (double)done;
    } else {
        row->done = TEXT_SHARE + (double)row->steps + CODEC_SHARE * (double)row->clip.frames * part;
    }
    report_progress(r, stage);
}

/* ---- Preparing ---- */

static au_status check_row(const au_request *q, size_t i, au_err *err)
{
    const au_row *row = &q->rows[i];
    const char *problem = NULL;
    if (row->size < sizeof *row || !row->params || !row->prompt)
        problem = "size, prompt or params is not set";
    else if (!au_utf8_valid(row->prompt, strlen(row->prompt)))
        problem = "the prompt is not valid UTF-8";
    else if (row->negative && !au_utf8_valid(row->negative, strlen(row->negative)))
        problem = "the negative prompt is not valid UTF-8";
    else if (row->seed >> 53)
        problem = "the seed is not below 2^53";
    else if (!(row->strength >= -2 && row->strength <= 2))
        problem = "the adapter's strength is not in -2 ... 2";
    else if (row->negative && row->params->guidance == 1)
        problem = "a negative prompt has no effect with guidance 1";
    else if (row->adapter && row->adapter->model != q->model)
        problem = "the adapter was opened for another model";
    if (problem)
        return au_fail(err, AU_INVALID, "row %zu: %s", i, problem);
    au_status st = au_params_check(row->params, q->model, q->max_duration_s, err);
    return st == AU_OK ? AU_OK : au_err_prefix(err, st, "row %zu", i);
}

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
    for (size_t i = 0; i < q->n_rows; i++) {
        au_status st = check_row(q, i, err);
        if (st != AU_OK)
            return st;
    }
    return AU_OK;
}

static au_status tokens_of(const au_model *m, const char *text, int32_t **ids, size_t *n,
                           au_err *err)
{
    size_t max = (size_t)m->info.max_prompt_tokens;
    au_status st = au_tokenizer_encode(m->tokenizer, text, strlen(text), max, ids, n, err);
    if (st == AU_LIMIT)
        return au_fail(err, AU_INVALID, "the prompt has more than %zu tokens", max);
    /* A tokenizer may know more pieces than the table has rows (sentinels, as a rule). */
    for (size_t i = 0; st == AU_OK && i < *n; i++)
        if ((*ids)[i] >= m->info.text_vocab)
            return au_fail(
                err, AU_INVALID,
                "the prompt has token id %d, the model's text encoder knows ids below %d",
                (int)(*ids)[i], m->info.text_vocab);
    return st;
}

/* Fills the row's clip; with `adapters`, its adapter too (the model must be ours). */
static au_status prepare_row(run *r, size_t i, bool adapters, au_err *err)
{
    const au_row *row = &r->request->rows[i];
    run_row *rr = &r->rows[i];
    au_status st = AU_OK;
    AU_TRY(tokens_of(r->model, row->prompt, &rr->tokens, &rr->clip.n_tokens, err));
    rr->clip.tokens = rr->tokens;
    if (row->negative) {
        AU_TRY(tokens_of(r->model, row->negative, &rr->negative, &rr->clip.n_negative, err));
        rr->clip.negative = rr->negative;
    }
    rr->clip.seed = row->seed;
    rr->clip.params = row->params;
    rr->clip.frames = (size_t)llround(r->model->info.frame_rate * row->params->duration_s);
    if (row->adapter && adapters)
        AU_TRY(au_adapter_at(row->adapter, row->strength, &rr->clip.applied, err));
    rr->steps = rr->clip.frames + (size_t)(r->model->info.codebooks / r->model->info.channels) - 1;
    rr->work = TEXT_SHARE + (double)rr->steps + CODEC_SHARE * (double)rr->clip.frames;
done:
    return st == AU_OK ? AU_OK : au_err_prefix(err, st, "row %zu", i);
}

static uint64_t quarter_of_ram(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 4 : (uint64_t)1 << 30;
}

static uint64_t group_bytes(const run *r, size_t n)
{
    return r->model->family->session_bytes(r->model->net, r->group, n,
                                           au_pool_threads(r->model->pool));
}

/* How many of the rows from `first` on run together. One row always runs, within four times the
 * limit. */
static au_status plan_group(run *r, size_t first, uint64_t limit, size_t *n, au_err *err)
{
    size_t rest = r->request->n_rows - first;
    for (size_t i = 0; i < rest; i++)
        r->group[i] = r->rows[first + i].clip;
    r->first = first;
    *n = 1;
    while (*n < rest && group_bytes(r, *n + 1) <= limit)
        ++*n;
    uint64_t bytes = group_bytes(r, 1);
    if (*n == 1 && bytes / 4 > limit)
        return au_fail(err, AU_LIMIT,
                       "row %zu needs %llu bytes of session memory, the limit is %llu", first,
                       (unsigned long long)bytes, (unsigned long long)limit);
    return AU_OK;
}

/* ---- Running ---- */

static au_status finish_row(run *r, au_sequence *s, size_t slot, au_err *err)
{
    const au_model_info *info = &r->model->info;
    run_row *row = &r->rows[r->first + slot];
    au_audio audio = {.n_frames = (uint64_t)row->clip.frames * (uint64_t)info->hop,
                      .channels = info->channels,
                      .sample_rate = info->sample_rate};
    float *frames = NULL;
    au_status st = AU_OK;
    AU_TRY(
        au_calloc(&frames, (size_t)audio.n_frames * (size_t)audio.channels, sizeof *frames, err));
    st = r->model->family->render(s, slot, frames, err);
    if (st == AU_CANCELLED && row->left)
        st = AU_OK;
    else if (st == AU_OK) {
        audio.frames = frames;
        AU_TRY(r->request->on_audio(r->request->user, r->first + slot, &audio, err));
        row->done = row->work;
        r->rows_done++;
        report_progress(r, AU_STAGE_CODEC);
    }
done:
    r->model->family->leave(s, slot);
    free(frames);
    return st;
}

static au_status run_group(run *r, size_t n, au_err *err)
{
    const au_family *f = r->model->family;
    const au_watch watch = {
        .cancelled = watch_cancelled,
        .unit_done = watch_unit,
        .trace = r->first == 0 ? r->request->trace : NULL,
        .traced = r->group,
        .trace_user = r->request->user,
        .user = r,
    };
    au_sequence *s = NULL;
    size_t active = n;
    au_status st = AU_OK;
    AU_TRY(f->session_open(&s, r->model->net, &r->model->nn, r->group, n, &watch, err));
    while (active) {
        AU_TRY(f->step(s, &active, err));
        for (size_t i = 0; i < n; i++)
            if (f->complete(s, i))
                AU_TRY(finish_row(r, s, i, err));
    }
done:
    f->session_close(&s);
    return st;
}

static void free_run(run *r)
{
    for (size_t i = 0; r->rows && i < r->request->n_rows; i++) {
        free(r->rows[i].tokens);
        free(r->rows[i].negative);
    }
    free(r->rows);
    free(r->group);
}

static au_status begin_run(run *r, const au_request *q, bool adapters, au_err *err)
{
    au_status st = AU_OK;
    *r = (run){.request = q, .model = q->model};
    AU_TRY(au_calloc(&r->rows, q->n_rows, sizeof *r->rows, err));
    AU_TRY(au_calloc(&r->group, q->n_rows, sizeof *r->group, err));
    for (size_t i = 0; adapters && i < q->n_rows; i++)
        if (q->rows[i].adapter)
            au_adapter_trim(q->rows[i].adapter);
    for (size_t i = 0; i < q->n_rows; i++)
        AU_TRY(prepare_row(r, i, adapters, err));
done:
    return st;
}

au_status au_generate(const au_request *request, au_err *err)
{
    run r = {.request = request};
    au_status st = check_request(request, true, err);
    if (st != AU_OK)
        return st;
    if (atomic_flag_test_and_set(&request->model->busy))
        return au_fail(err, AU_CONFLICT, "another request runs on this model");
    uint64_t limit = request->memory_bytes ? request->memory_bytes : quarter_of_ram();
    AU_TRY(begin_run(&r, request, true, err));
    for (size_t first = 0, n; first < request->n_rows; first += n) {
        AU_TRY(plan_group(&r, first, limit, &n, err));
        AU_TRY(run_group(&r, n, err));
    }
    size_t left = 0;
    for (size_t i = 0; i < request->n_rows; i++)
        left += r.rows[i].left;
    AU_FAIL_IF(left == request->n_rows, AU_CANCELLED, "cancelled");
done:
    free_run(&r);
    atomic_flag_clear(&request->model->busy);
    return st;
}

au_status au_request_memory(const au_request *request, uint64_t *bytes, au_err *err)
{
    run r = {.request = request};
    au_status st = check_request(request, false, err);
    if (st != AU_OK)
        return st;
    AU_TRY(begin_run(&r, request, false, err));
    for (size_t i = 0; i < request->n_rows; i++)
        r.group[i] = r.rows[i].clip;
    *bytes = group_bytes(&r, request->n_rows);
done:
    free_run(&r);
    return st;
}
