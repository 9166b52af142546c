/* SPDX-License-Identifier: MIT */
/* The control thread of a worker: everything that touches the database, and everything that happens
 * by time. It claims while the engine waits, renews the lease, looks for a cancel every 20 ms,
 * passes progress on at most four times a second, executes the writes that the engine asks for, and
 * watches for signals and the server's end. It never computes and never waits for the engine.
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
    JOB_BYTES = 16 << 20,
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

/* Executes what the engine thread asked for. */
static void answer(au_worker *w)
{
    pthread_mutex_lock(&w->lock);
    bool asking = w->asking;
    au_write_fn fn = w->ask_fn;
    void *arg = w->ask_arg;
    au_err *err = w->ask_err;
    pthread_mutex_unlock(&w->lock);
    if (!asking)
        return;
    au_status st = AU_AGAIN;
    for (int i = 0; i < BUSY_TRIES && st == AU_AGAIN; i++)
        st = transact(w, AU_DB_DURABLE, fn, arg, err);
    pthread_mutex_lock(&w->lock);
    w->ask_status = st;
    w->asking = false;
    pthread_cond_signal(&w->to_engine);
    pthread_mutex_unlock(&w->lock);
}

/* ---- The job that runs
 * ----------------------------------------------------------------------------- */

static void stop_job(au_worker *w, au_worker_stop why)
{
    int none = AU_STOP_NO;
    if (atomic_compare_exchange_strong(&w->stop, &none, (int)why))
        au_log(AU_LOG_DEBUG, "worker", "job is left why=%d job=%s", (int)why, w->lease.job_id);
}

static void judge(au_worker *w, bool held, bool cancelling)
{
    if (!held)
        stop_job(w, cancelling ? AU_STOP_CANCELLED : AU_STOP_LOST);
}

typedef struct beat_arg {
    const au_worker *w;
    bool held, cancelling;
} beat_arg;

static au_status beat(au_db *db, void *arg, au_err *err)
{
    beat_arg *a = arg;
    au_status st =
        au_job_heartbeat(db, &a->w->lease, &a->w->config->limits, &a->held, &a->cancelling, err);
    if (st == AU_OK)
        st = au_db_exec(db, NULL, err, "UPDATE workers SET seen_at = au_now_ms() WHERE id = ?1",
                        "t", a->w->id);
    return st;
}

static au_status write_progress(au_db *db, void *arg, au_err *err)
{
    au_worker *w = arg;
    bool held;
    pthread_mutex_lock(&w->lock);
    au_job_progress p = w->progress;
    w->progress_new = false;
    pthread_mutex_unlock(&w->lock);
    return au_job_set_progress(db, &w->lease, &p, &held, err);
}

/* A failure here is tried again at the next turn: the lease outlasts several. */
static void attend_job(au_worker *w, int64_t now)
{
    au_err err = {0};
    if (now >= w->next_heartbeat) {
        beat_arg a = {.w = w};
        w->next_heartbeat = now + w->config->limits.heartbeat_ms;
        if (transact(w, AU_DB_RELAXED, beat, &a, &err) == AU_OK) {
            judge(w, a.held, a.cancelling);
        } else {
            w->next_heartbeat = now + w->config->limits.heartbeat_ms / 10;
            log_failure("heartbeat failed", &err);
        }
    }
    if (now >= w->next_check) {
        bool held, cancelling;
        w->next_check = now + w->config->limits.cancel_poll_ms;
        if (au_job_check(w->db, &w->lease, &held, &cancelling, &err) == AU_OK)
            judge(w, held, cancelling);
        else
            log_failure("cancel check failed", &err);
    }
    pthread_mutex_lock(&w->lock);
    bool progress = w->progress_new;
    pthread_mutex_unlock(&w->lock);
    if (progress && now >= w->next_progress) {
        w->next_progress = now + PROGRESS_MS;
        if (transact(w, AU_DB_RELAXED, write_progress, w, &err) != AU_OK)
            log_failure("progress is not written", &err);
    }
}

/* ---- The next job
 * ------------------------------------------------------------------------------------ */

typedef struct claim_arg {
    au_worker *w;
    const char *open_model;
    au_lease lease;
    au_job *job;
    bool claimed;
} claim_arg;

static au_status claim(au_db *db, void *arg, au_err *err)
{
    claim_arg *a = arg;
    const au_worker_config *c = a->w->config;
    au_status st = AU_OK;
    AU_TRY(au_job_claim(db, a->w->id, a->w->model_names, c->n_models, a->open_model, &c->limits,
                        &a->lease, &a->claimed, err));
    if (a->claimed)
        AU_TRY(au_job_get(db, &a->w->arena, a->lease.job_id, &a->job, err));
done:
    return st;
}

static void look_for_job(au_worker *w, int64_t now)
{
    claim_arg a = {.w = w};
    bool waiting = false;
    au_err err = {0};
    au_status st = AU_OK;
    w->next_look = now + LOOK_MS;
    AU_TRY(au_job_peek(w->db, w->model_names, w->config->n_models, &waiting, &err));
    if (waiting) {
        pthread_mutex_lock(&w->lock);
        a.open_model = w->open_model; /* the engine waits: it stays */
        pthread_mutex_unlock(&w->lock);
        au_arena_init(&w->arena, JOB_BYTES);
        AU_TRY(transact(w, AU_DB_RELAXED, claim, &a, &err));
    }
done:
    if (st != AU_OK && st != AU_AGAIN)
        log_failure("looking for a job failed", &err);
    w->next_heartbeat = now + w->config->limits.heartbeat_ms;
    w->next_check = w->next_progress = now;
    pthread_mutex_lock(&w->lock);
    if (st == AU_OK && a.claimed) {
        atomic_store(&w->stop, AU_STOP_NO);
        w->lease = a.lease;
        w->job = a.job;
        w->have_job = true;
        w->progress_new = false;
        w->ending = w->ending || w->config->once;
        pthread_cond_signal(&w->to_engine);
    } else if (w->config->once && st == AU_OK) {
        w->ending = true; /* none waits */
        pthread_cond_signal(&w->to_engine);
    }
    pthread_mutex_unlock(&w->lock);
    if (waiting && !(st == AU_OK && a.claimed))
        au_arena_deinit(&w->arena);
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
    bool busy = w->have_job;
    pthread_cond_signal(&w->to_engine);
    pthread_mutex_unlock(&w->lock);
    if (busy && gone)
        stop_job(w, AU_STOP_SERVER_GONE);
    else if (busy && now >= w->hand_back_at)
        stop_job(w, AU_STOP_HAND_BACK);
}

/* Sleeps until the engine asks for something or the next check is due. */
static void sleep_a_little(au_worker *w)
{
    struct timespec until;
    pthread_mutex_lock(&w->lock);
    int64_t ms = w->have_job ? w->config->limits.cancel_poll_ms : LOOK_MS;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    bool waited_for = w->waiting && !w->have_job && !w->ending && w->next_look == 0;
    int rc = 0;
    while (!w->asking && !w->finished && !waited_for && rc == 0) {
        rc = pthread_cond_timedwait(&w->to_control, &w->lock, &until);
        waited_for = w->waiting && !w->have_job && !w->ending;
    }
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
        bool finished = w->finished, have_job = w->have_job;
        bool look = w->waiting && !have_job && !w->ending && now >= w->next_look;
        pthread_mutex_unlock(&w->lock);
        if (finished)
            return NULL;
        if (have_job)
            attend_job(w, now);
        else if (look)
            look_for_job(w, now);
    }
}

au_status au_worker_ask(au_worker *w, au_write_fn fn, void *arg, au_err *err)
{
    pthread_mutex_lock(&w->lock);
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
