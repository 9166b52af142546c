/* SPDX-License-Identifier: MIT */
/* The engine thread of a worker: the jobs it holds, and the session that their rows share.
 *
 * One reading of the weights serves all rows of a session, so rows of further jobs of the same
 * model join while there is room: memory, and at most max_batch rows (a job that is alone may have
 * more). The queue's order holds: only the job that is due next is ever taken. If that is for
 * another model, must run alone, or has no room, the session takes nothing more and runs dry, so
 * that nobody waits for ever behind jobs that happen to fit. A job is claimed only when its first
 * row can start at once; the rest of its rows go before any other job's. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/worker_priv.h"

enum {
    LOOK_AGAIN_MS = 500, /* the head of the queue had no room: another may be there by now */
    JOB_BYTES = 16 << 20,
};
static const double MAX_DURATION_S = 300; /* the server has checked its own limit */

typedef struct pool {
    au_worker *w;
    au_engine_cache *cache;
    au_session *session;    /* NULL: none is open */
    const char *open_model; /* name of the model opened last */
    au_worker_job *jobs[AU_WORKER_JOBS];
    size_t n;
    size_t full;          /* so many rows were too many for the next row; SIZE_MAX: not known */
    int64_t next_claim;   /* not before */
    bool once, any_taken; /* --once */
} pool;

/* ---- Taking a job
 * ------------------------------------------------------------------------------------ */

typedef struct look_arg {
    au_worker *w;
    const char *open_model;
    au_worker_job *job; /* its arena and job are filled */
    au_job_candidate candidate;
    bool found, taken;
} look_arg;

static au_status look(au_db *db, void *arg, au_err *err)
{
    look_arg *a = arg;
    const au_worker *w = a->w;
    au_status st = AU_OK;
    AU_TRY(au_job_next(db, w->model_names, w->config->n_models, a->open_model, &a->candidate,
                       &a->found, err));
    if (a->found)
        AU_TRY(au_job_get(db, &a->job->arena, a->candidate.id, &a->job->job, err));
done:
    return st;
}

static au_status take(au_db *db, void *arg, au_err *err)
{
    look_arg *a = arg;
    return au_job_take(db, a->w->id, &a->candidate, &a->w->config->limits, &a->job->lease,
                       &a->taken, err);
}

/* Not part of the transaction: it happened. */
static au_status enter(au_db *db, void *arg, au_err *err)
{
    au_worker_job *job = arg;
    (void)db;
    (void)err;
    job->w->jobs[job->w->n_jobs++] = job;
    return AU_OK;
}

static au_status forget(au_db *db, void *arg, au_err *err)
{
    const au_worker_job *job = arg;
    au_worker *w = job->w;
    (void)db;
    (void)err;
    size_t i = 0;
    while (w->jobs[i] != job)
        i++;
    w->jobs[i] = w->jobs[--w->n_jobs];
    return AU_OK;
}

/* Whether the job that is due next may run beside those that are here. */
static bool may_join(const pool *p, const look_arg *a)
{
    return p->n == 0 || (!a->candidate.alone && p->session &&
                         strcmp(a->job->job->model_name, p->open_model) == 0 &&
                         au_worker_job_fits(a->job->job, p->session));
}

static void free_job(au_worker_job *job)
{
    au_worker_job_deinit(job);
    au_arena_deinit(&job->arena);
    free(job);
}

/* NULL: none is there, or the one that is due has no room. */
static au_worker_job *claim(pool *p)
{
    au_worker_job *job = NULL;
    au_err err = {0};
    au_status st = AU_OK;
    AU_TRY(au_calloc(&job, 1, sizeof *job, &err));
    au_arena_init(&job->arena, JOB_BYTES);
    look_arg a = {.w = p->w, .open_model = p->open_model, .job = job};
    AU_TRY(au_worker_ask(p->w, AU_ASK_READ, look, &a, &err));
    if (!a.found)
        goto done;
    if (!may_join(p, &a)) {
        p->next_claim = au_mono_ms() + LOOK_AGAIN_MS;
        goto done;
    }
    AU_TRY(au_worker_ask(p->w, AU_ASK_RELAXED, take, &a, &err));
    if (!a.taken)
        goto done;
    job->w = p->w;
    job->alone = a.candidate.alone;
    AU_TRY(au_worker_ask(p->w, AU_ASK_READ, enter, job, &err));
    return job;
done:
    if (st != AU_OK && st != AU_AGAIN)
        au_log(AU_LOG_ERROR, "worker", "looking for a job failed detail=%s",
               au_log_quote((char[512]){0}, 512, err.message));
    if (job)
        free_job(job);
    return NULL;
}

/* Whether another job may be taken now, were there one. */
static bool has_room(const pool *p)
{
    size_t rows = p->session ? au_session_rows(p->session) : 0;
    if (p->n == 0)
        return !(p->once && p->any_taken);
    if (p->once || p->n >= AU_WORKER_JOBS || rows >= (size_t)p->w->config->max_batch)
        return false;
    for (size_t i = 0; i < p->n; i++)
        if (p->jobs[i]->alone || p->jobs[i]->next < p->jobs[i]->n_rows)
            return false;
    return au_mono_ms() >= p->next_claim;
}

static void set_wants(pool *p, bool wants)
{
    pthread_mutex_lock(&p->w->lock);
    p->w->wants = wants;
    p->w->waits = false;
    pthread_mutex_unlock(&p->w->lock);
}

/* Whether the control thread has seen a job that waits; asks it to look if not. */
static bool one_waits(pool *p)
{
    pthread_mutex_lock(&p->w->lock);
    bool waits = p->w->waits && !p->w->ending;
    p->w->wants = !waits;
    pthread_mutex_unlock(&p->w->lock);
    return waits;
}

/* ---- Rows
 * -------------------------------------------------------------------------------------------- */

static au_status open_session(pool *p, const au_worker_job *job, au_err *err)
{
    const au_session_options options = {.size = sizeof options,
                                        .model = job->model,
                                        .memory_bytes = p->w->config->session_memory,
                                        .max_duration_s = MAX_DURATION_S,
                                        .user = p->w,
                                        .cancelled = au_worker_place_cancelled,
                                        .on_left = au_worker_place_left,
                                        .on_progress = au_worker_place_progress,
                                        .on_audio = au_worker_place_audio};
    for (size_t i = 0; i < p->w->config->n_models; i++) {
        if (strcmp(p->w->model_names[i], job->job->model_name) == 0)
            p->open_model = p->w->model_names[i]; /* outlives the job */
    }
    return au_session_open(&options, &p->session, err);
}

static void begin_job(pool *p, au_worker_job *job)
{
    p->jobs[p->n++] = job;
    p->any_taken = true;
    au_log_context("job", job->lease.job_id);
    au_worker_job_prepare(job, p->cache);
    if (job->status == AU_OK && !p->session)
        job->status = open_session(p, job, &job->err);
    au_log_context("job", NULL);
}

/* Adds rows while there is room, in the order in which the jobs came. */
static void add_rows(pool *p)
{
    for (size_t i = 0; i < p->n; i++) {
        au_worker_job *job = p->jobs[i];
        while (job->next < job->n_rows && job->status == AU_OK && !atomic_load(&job->stop)) {
            size_t rows = au_session_rows(p->session);
            if (rows >= p->full || (p->n > 1 && rows >= (size_t)p->w->config->max_batch))
                return;
            au_status st = au_session_add(p->session, &job->rows[job->next],
                                          &job->places[job->next], &job->err);
            if (st == AU_AGAIN) {
                p->full = rows;
                return;
            }
            p->full = SIZE_MAX;
            if (st != AU_OK) {
                job->status = st;
                break;
            }
            job->next++;
            job->live++;
        }
    }
}

/* The engine itself failed: so do all jobs that are in it. */
static void fail_all(pool *p, au_status st, const au_err *err)
{
    au_session_close(&p->session);
    for (size_t i = 0; i < p->n; i++) {
        au_worker_job *job = p->jobs[i];
        job->live = 0;
        if (job->status == AU_OK && !job->completed) {
            job->status = st;
            job->err = *err;
        }
    }
}

/* Ends the jobs of which nothing is left to be made. */
static void retire(pool *p)
{
    int64_t now = au_mono_ms();
    for (size_t i = p->n; i-- > 0;) {
        au_worker_job *job = p->jobs[i];
        if (!au_worker_job_is_over(job) || now < job->next_try)
            continue;
        au_log_context("job", job->lease.job_id);
        bool ended = au_worker_job_end(job);
        au_log_context("job", NULL);
        if (!ended)
            continue;
        if (au_worker_ask(p->w, AU_ASK_READ, forget, job, NULL) != AU_OK)
            continue;
        memmove(&p->jobs[i], &p->jobs[i + 1], (p->n - i - 1) * sizeof p->jobs[0]);
        p->n--;
        p->next_claim = 0;
        free_job(job);
    }
    if (p->n == 0)
        au_session_close(&p->session);
}

/* ---- The thread
 * -------------------------------------------------------------------------------------- */

/* Until a job waits; false: the end. */
static bool wait_for_job(pool *p)
{
    au_worker *w = p->w;
    pthread_mutex_lock(&w->lock);
    w->wants = true;
    while (!w->waits && !w->ending)
        pthread_cond_wait(&w->to_engine, &w->lock);
    bool go_on = !w->ending;
    pthread_mutex_unlock(&w->lock);
    return go_on;
}

static bool is_ending(const pool *p)
{
    pthread_mutex_lock(&p->w->lock);
    bool ending = p->w->ending;
    pthread_mutex_unlock(&p->w->lock);
    return ending;
}

/* Takes what there is room for. */
static void claim_jobs(pool *p, bool look_now)
{
    while (has_room(p) && !is_ending(p) && (look_now || one_waits(p))) {
        au_worker_job *job = claim(p);
        if (!job) {
            set_wants(p, false);
            return;
        }
        begin_job(p, job);
        if (p->session)
            add_rows(p);
        look_now = true; /* where one waited others may */
    }
}

static void work(pool *p)
{
    au_err err = {0};
    if (!p->session || au_session_rows(p->session) == 0) {
        retire(p);
        int64_t until = INT64_MAX;
        for (size_t i = 0; i < p->n; i++)
            until = p->jobs[i]->next_try < until ? p->jobs[i]->next_try : until;
        if (p->n > 0 && until > au_mono_ms())
            au_sleep_ms(until - au_mono_ms());
        return;
    }
    size_t rows = au_session_rows(p->session);
    au_status st = au_session_step(p->session, &err);
    atomic_fetch_add(&p->w->units, 1);
    if (st != AU_OK)
        fail_all(p, st, &err);
    else if (au_session_rows(p->session) < rows)
        p->next_claim = 0;
    retire(p);
}

void au_worker_pool_run(au_worker *w, au_engine_cache *cache)
{
    pool p = {.w = w,
              .cache = cache,
              .open_model = w->model_names[0],
              .full = SIZE_MAX,
              .once = w->config->once};
    for (bool look_now = true;;) {
        claim_jobs(&p, look_now);
        look_now = false;
        if (p.n == 0) {
            if (p.once || !wait_for_job(&p))
                break;
            continue;
        }
        if (p.session)
            add_rows(&p);
        work(&p);
        look_now = p.n == 0;
    }
    pthread_mutex_lock(&w->lock);
    w->finished = true;
    pthread_cond_signal(&w->to_control);
    pthread_mutex_unlock(&w->lock);
}
