/* SPDX-License-Identifier: MIT */
/* The control thread of a worker: everything that touches the database, and everything that happens
 * by time. It tells the engine when a job waits that it could take, renews the leases, looks for
 * cancels every 20 ms, passes progress on at most four times a second, executes what the engine
 * asks for, and watches for signals and the server's end. It never computes and never waits for the
 * engine. The list of jobs changes only while it executes what was asked for: it reads them without
 * a lock.
 *
 * Signals: SIGTERM, SIGINT and SIGHUP are blocked in every thread of the worker and taken here. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "jobs/catalog.h"
#include "jobs/worker_priv.h"

enum {
    LOOK_MS = 50,      /* an idle worker looks for a job: a read */
    PROGRESS_MS = 250, /* four a second */
    BUSY_TRIES = 5,
};

static void log_failure(const char *what, const au_err *err)
{
    au_log(AU_LOG_ERROR, "worker", "%s detail=%s", what,
           au_log_quote((char[512]){0}, 512, err->message));
}

/* ---- Transactions
 * -------------------------------------------------------------------------------- */

static au_status transact(au_worker *w, au_db_durability durability, au_write_fn fn, void *arg,
                          au_err *err)
{
    au_status st = au_db_begin(w->db, durability, err);
    if (st == AU_OK)
        st = fn(w->db, arg, err);
    if (st == AU_OK)
        st = au_db_commit(w->db, err);
    else
        au_db_rollback(w->db);
    return st;
}

static au_status execute(au_worker *w, au_ask how, au_write_fn fn, void *arg, au_err *err)
{
    if (how == AU_ASK_READ)
        return fn(w->db, arg, err);
    return transact(w, how == AU_ASK_DURABLE ? AU_DB_DURABLE : AU_DB_RELAXED, fn, arg, err);
}

/* Executes what the engine thread asked for. */
static void answer(au_worker *w)
{
    pthread_mutex_lock(&w->lock);
    bool asking = w->asking;
    au_ask how = w->ask_how;
    au_write_fn fn = w->ask_fn;
    void *arg = w->ask_arg;
    au_err *err = w->ask_err;
    pthread_mutex_unlock(&w->lock);
    if (!asking)
        return;
    au_status st = AU_AGAIN;
    for (int i = 0; i < BUSY_TRIES && st == AU_AGAIN; i++)
        st = execute(w, how, fn, arg, err);
    pthread_mutex_lock(&w->lock);
    w->ask_status = st;
    w->asking = false;
    pthread_cond_signal(&w->to_engine);
    pthread_mutex_unlock(&w->lock);
}

/* ---- The jobs that run
 * ----------------------------------------------------------------------------- */

static void stop_job(au_worker_job *job, au_worker_stop why)
{
    int none = AU_STOP_NO;
    if (atomic_compare_exchange_strong(&job->stop, &none, (int)why))
        au_log(AU_LOG_DEBUG, "worker", "job is left why=%d job=%s", (int)why, job->lease.job_id);
}

static void judge(au_worker_job *job, bool held, bool cancelling)
{
    if (!held)
        stop_job(job, cancelling ? AU_STOP_CANCELLED : AU_STOP_LOST);
}

typedef struct beat_arg {
    const au_worker *w;
    bool working;
    bool held[AU_WORKER_JOBS], cancelling[AU_WORKER_JOBS];
} beat_arg;

static au_status beat(au_db *db, void *arg, au_err *err)
{
    beat_arg *a = arg;
    au_status st = AU_OK;
    for (size_t i = 0; i < a->w->n_jobs; i++)
        AU_TRY(au_job_heartbeat(db, &a->w->jobs[i]->lease, &a->w->config->limits, a->working,
                                &a->held[i], &a->cancelling[i], err));
    AU_TRY(au_db_exec(db, NULL, err, "UPDATE workers SET seen_at = au_now_ms() WHERE id = ?1", "t",
                      a->w->id));
done:
    return st;
}

static void renew_leases(au_worker *w, int64_t now)
{
    au_err err = {0};
    uint64_t units = atomic_load(&w->units);
    beat_arg a = {.w = w, .working = units != w->units_seen};
    w->next_heartbeat = now + w->config->limits.heartbeat_ms;
    if (transact(w, AU_DB_RELAXED, beat, &a, &err) != AU_OK) {
        w->next_heartbeat = now + w->config->limits.heartbeat_ms / 10;
        log_failure("heartbeat failed", &err);
        return;
    }
    w->units_seen = units;
    for (size_t i = 0; i < w->n_jobs; i++)
        judge(w->jobs[i], a.held[i], a.cancelling[i]);
}

static void look_for_cancels(au_worker *w, int64_t now)
{
    au_err err = {0};
    w->next_check = now + w->config->limits.cancel_poll_ms;
    for (size_t i = 0; i < w->n_jobs; i++) {
        bool held, cancelling;
        if (au_job_check(w->db, &w->jobs[i]->lease, &held, &cancelling, &err) == AU_OK)
            judge(w->jobs[i], held, cancelling);
        else
            log_failure("cancel check failed", &err);
    }
}

static au_status write_progress(au_db *db, void *arg, au_err *err)
{
    au_worker *w = arg;
    bool held;
    au_status st = AU_OK;
    for (size_t i = 0; i < w->n_jobs; i++) {
        au_worker_job *job = w->jobs[i];
        pthread_mutex_lock(&w->lock);
        bool news = job->progress_new;
        au_job_progress p = job->progress;
        job->progress_new = false;
        pthread_mutex_unlock(&w->lock);
        if (news)
            AU_TRY(au_job_set_progress(db, &job->lease, &p, &held, err));
    }
done:
    return st;
}

static bool has_progress(au_worker *w)
{
    bool news = false;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < w->n_jobs; i++)
        news = news || w->jobs[i]->progress_new;
    pthread_mutex_unlock(&w->lock);
    return news;
}

/* A failure here is tried again at the next turn: the leases outlast several. */
static void attend_jobs(au_worker *w, int64_t now)
{
    au_err err = {0};
    if (now >= w->next_heartbeat)
        renew_leases(w, now);
    if (now >= w->next_check)
        look_for_cancels(w, now);
    if (now >= w->next_progress && has_progress(w)) {
        w->next_progress = now + PROGRESS_MS;
        if (transact(w, AU_DB_RELAXED, write_progress, w, &err) != AU_OK)
            log_failure("progress is not written", &err);
    }
}

/* ---- The next job
 * ------------------------------------------------------------------------------------ */

/* The engine takes it: only that knows what there is room for. */
static void look_for_job(au_worker *w, int64_t now)
{
    bool waiting = false;
    au_err err = {0};
    w->next_look = now + LOOK_MS;
    au_status st = au_job_peek(w->db, w->model_names, w->config->n_models, &waiting, &err);
    if (st != AU_OK && st != AU_AGAIN)
        log_failure("looking for a job failed", &err);
    if (!waiting)
        return;
    pthread_mutex_lock(&w->lock);
    w->waits = true;
    w->wants = false;
    pthread_cond_signal(&w->to_engine);
    pthread_mutex_unlock(&w->lock);
}

/* ---- Ends
 * ---------------------------------------------------------------------------------------------- */

static bool server_is_gone(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&p, 1, 0) == 1;
}

/* Signals and the server's end. No claim happens after the first of them. */
static void watch_for_end(au_worker *w, int64_t now)
{
    static const struct timespec at_once = {0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    while (sigtimedwait(&set, NULL, &at_once) > 0) {
        w->signals++;
        if (w->hand_back_at == 0)
            w->hand_back_at = now + w->config->limits.shutdown_grace_ms;
        if (w->signals > 1)
            w->hand_back_at = now;
    }
    bool gone = server_is_gone(w->config->parent_fd);
    if (!gone && w->hand_back_at == 0)
        return;
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->to_engine);
    pthread_mutex_unlock(&w->lock);
    if (!gone && now < w->hand_back_at)
        return;
    for (size_t i = 0; i < w->n_jobs; i++)
        stop_job(w->jobs[i], gone ? AU_STOP_SERVER_GONE : AU_STOP_HAND_BACK);
}

/* Sleeps until the engine asks for something or the next check is due. */
static void sleep_a_little(au_worker *w)
{
    struct timespec until;
    int64_t ms = w->n_jobs > 0 ? w->config->limits.cancel_poll_ms : LOOK_MS;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&w->lock);
    int rc = 0;
    while (!w->asking && !w->finished && rc == 0)
        rc = pthread_cond_timedwait(&w->to_control, &w->lock, &until);
    pthread_mutex_unlock(&w->lock);
}

void *au_worker_control(void *arg)
{
    au_worker *w = arg;
    for (;;) {
        sleep_a_little(w);
        answer(w);
        int64_t now = au_mono_ms();
        watch_for_end(w, now);
        pthread_mutex_lock(&w->lock);
        bool finished = w->finished, look = w->wants && !w->ending && now >= w->next_look;
        pthread_mutex_unlock(&w->lock);
        if (finished)
            return NULL;
        if (w->n_jobs > 0)
            attend_jobs(w, now);
        if (look)
            look_for_job(w, now);
    }
}

au_status au_worker_ask(au_worker *w, au_ask how, au_write_fn fn, void *arg, au_err *err)
{
    pthread_mutex_lock(&w->lock);
    w->ask_how = how;
    w->ask_fn = fn;
    w->ask_arg = arg;
    w->ask_err = err;
    w->asking = true;
    pthread_cond_signal(&w->to_control);
    while (w->asking)
        pthread_cond_wait(&w->to_engine, &w->lock);
    au_status st = w->ask_status;
    pthread_mutex_unlock(&w->lock);
    return st;
}
