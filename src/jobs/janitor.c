/* SPDX-License-Identifier: MIT */
/* The janitor: one thread, one reading connection; every write goes through the writer in small
 * units, every object is deleted between two of them.
 *
 * An object is removed only by its upload row (delete the object, then the row), or, in a full
 * round, because neither a sample, an adapter nor an upload names it. That is safe at any time: a
 * key is listed in uploads before its object is written, so an object that was seen and then has no
 * row is nobody's. */
#include "jobs/janitor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/deletion.h"
#include "jobs/idempotency.h"
#include "jobs/job.h"

enum {
    PAGE = 64,
    ARENA_BYTES = 4 << 20,
    FULL_EVERY_MS = 60000,
    FULL_COST_FACTOR = 100, /* a full round may take a hundredth of the time */
    TMP_AGE_MS = 3600000,   /* no write takes an hour */
    FORGET_WORKER_MS = 86400000,
    KEYS_AT_ONCE = 500,
    RETIRE_AT_ONCE = 16, /* jobs in one transaction, each with its samples */
};

struct au_janitor {
    au_janitor_config config;
    char *db_url, *data_dir;
    au_db *reader;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool kicked, stopping;
};

/* ---- Texts of a query, read before anything is changed
 * --------------------------------------------- */

typedef struct list {
    char items[PAGE][AU_STORE_KEY];
    int64_t numbers[PAGE];
    size_t n;
} list;

/* Columns: a text and a number. `sql` has LIMIT 64. */
static au_status read_list(list *out, au_db *reader, const char *sql, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    out->n = 0;
    AU_TRY(au_db_query(&rows, reader, err, sql, ""));
    for (bool has_row; out->n < PAGE; out->n++) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        snprintf(out->items[out->n], sizeof out->items[0], "%s", au_rows_text(rows, 0));
        out->numbers[out->n] = au_rows_int(rows, 1);
    }
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Leases, deadlines, stalls
 * ----------------------------------------------------------------------- */

typedef struct expire_arg {
    const au_limits *limits;
    int n;
} expire_arg;

static au_status expire(au_db *db, void *arg, au_err *err)
{
    expire_arg *a = arg;
    return au_jobs_expire(db, a->limits, &a->n, err);
}

typedef struct lose_arg {
    const au_limits *limits;
    au_stalled stalled;
    bool changed;
} lose_arg;

static au_status lose_stalled(au_db *db, void *arg, au_err *err)
{
    lose_arg *a = arg;
    return au_job_lose(db, a->stalled.job_id, a->stalled.token, AU_LOSS_STALL,
                       "no step was done within the stall time", a->limits, &a->changed, err);
}

static au_status end_stalled(const au_janitor_config *c, au_db *reader, au_err *err)
{
    lose_arg a = {.limits = &c->limits};
    bool found;
    au_status st = AU_OK;
    AU_TRY(au_jobs_find_stalled(reader, &c->limits, &a.stalled, &found, err));
    if (!found)
        goto done;
    AU_TRY(au_writer_run(c->writer, lose_stalled, &a, err));
    au_log(AU_LOG_WARN, "janitor", "worker made no step job=%s worker=%s", a.stalled.job_id,
           a.stalled.worker_id);
    if (a.changed && c->on_stalled)
        c->on_stalled(c->user, a.stalled.worker_id);
done:
    return st;
}

/* ---- Workers that are gone
 * ----------------------------------------------------------------------------- */

/* Whether the process that held the worker's lock file is gone: the kernel released the lock. */
static bool lock_is_free(const au_janitor_config *c, const char *worker_id, char *path, size_t size)
{
    int n = snprintf(path, size, "%s/workers/%s.lock", c->data_dir, worker_id);
    if (n < 0 || (size_t)n >= size)
        return false;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT;
    bool free_now = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return free_now;
}

typedef struct gone_arg {
    const au_limits *limits;
    const char *worker_id;
    au_loss loss;
    int n;
} gone_arg;

static au_status worker_gone(au_db *db, void *arg, au_err *err)
{
    gone_arg *a = arg;
    return au_jobs_worker_gone(db, a->worker_id, a->loss,
                               a->loss == AU_LOSS_DEATH ? "the worker ended without a report"
                                                        : "the server ended",
                               a->limits, &a->n, err);
}

/* Jobs of workers whose lock file is free. *n: how many. */
static au_status reap_workers(const au_janitor_config *c, au_db *reader, au_loss loss, int *n,
                              au_err *err)
{
    list workers;
    char path[4096];
    au_status st = AU_OK;
    *n = 0;
    AU_TRY(read_list(&workers, reader, "SELECT id, 0 FROM workers WHERE state <> 'gone' LIMIT 64",
                     err));
    for (size_t i = 0; i < workers.n; i++) {
        if (!lock_is_free(c, workers.items[i], path, sizeof path))
            continue;
        gone_arg a = {.limits = &c->limits, .worker_id = workers.items[i], .loss = loss};
        AU_TRY(au_writer_run(c->writer, worker_gone, &a, err));
        (void)unlink(path); /* ids are never used again */
        *n += a.n;
        if (a.n > 0)
            au_log(AU_LOG_WARN, "janitor", "worker is gone worker=%s jobs=%d", workers.items[i],
                   a.n);
    }
done:
    return st;
}

/* ---- Cancelled jobs without a worker
 * ------------------------------------------------------------------- */

typedef struct clean_arg {
    const char *job_id;
    int64_t token;
    au_arena *arena;
    char **keys;
    size_t n_keys;
    bool held;
} clean_arg;

static au_status clean_begin(au_db *db, void *arg, au_err *err)
{
    clean_arg *a = arg;
    return au_job_clean_begin(db, a->arena, a->job_id, a->token, &a->keys, &a->n_keys, &a->held,
                              err);
}

static au_status clean_end(au_db *db, void *arg, au_err *err)
{
    clean_arg *a = arg;
    return au_job_clean_end(db, a->job_id, a->token, &a->held, err);
}

static au_status clean_job(const au_janitor_config *c, const char *job_id, int64_t token,
                           au_err *err)
{
    au_arena arena;
    au_status st = AU_OK;
    au_arena_init(&arena, ARENA_BYTES);
    clean_arg a = {.job_id = job_id, .token = token, .arena = &arena};
    AU_TRY(au_writer_run(c->writer, clean_begin, &a, err));
    if (!a.held)
        goto done;
    for (size_t i = 0; i < a.n_keys; i++)
        AU_TRY(au_store_delete(c->store, a.keys[i], err));
    AU_TRY(au_writer_run(c->writer, clean_end, &a, err));
    au_log(AU_LOG_INFO, "janitor", "cancelled job cleaned job=%s objects=%zu", job_id, a.n_keys);
done:
    au_arena_deinit(&arena);
    return st;
}

static au_status clean_cancelled(const au_janitor_config *c, au_db *reader, au_err *err)
{
    list jobs;
    au_status st = AU_OK;
    AU_TRY(read_list(&jobs, reader,
                     "SELECT id, lease_token FROM jobs WHERE state = 'cancelling' "
                     "AND lease_until < au_clock_ms() LIMIT 64",
                     err));
    for (size_t i = 0; i < jobs.n; i++)
        AU_TRY(clean_job(c, jobs.items[i], jobs.numbers[i], err));
done:
    return st;
}

/* ---- Objects that nobody owns
 * -------------------------------------------------------------------------- */

static au_status drop_uploads(au_db *db, void *arg, au_err *err)
{
    const list *l = arg;
    au_status st = AU_OK;
    for (size_t i = 0; i < l->n; i++)
        AU_TRY(au_upload_drop(db, l->items[i], err));
done:
    return st;
}

static au_status delete_one(void *store, const char *key, uint64_t size, au_err *err)
{
    (void)size;
    return au_store_delete(store, key, err);
}

/* A key that ends in '/' stands for everything below it. */
static au_status delete_key(au_store *store, const char *key, au_err *err)
{
    size_t len = strlen(key);
    if (len > 0 && key[len - 1] == '/')
        return au_store_list(store, key, delete_one, store, err);
    return au_store_delete(store, key, err);
}

/* `sql` selects uploads whose attempt is over: their objects are deleted, then their rows. */
static au_status sweep_uploads(const au_janitor_config *c, au_db *reader, const char *sql,
                               au_err *err)
{
    list uploads;
    au_status st = AU_OK;
    do {
        AU_TRY(read_list(&uploads, reader, sql, err));
        for (size_t i = 0; i < uploads.n; i++)
            AU_TRY(delete_key(c->store, uploads.items[i], err));
        if (uploads.n > 0)
            AU_TRY(au_writer_run(c->writer, drop_uploads, &uploads, err));
    } while (uploads.n == PAGE);
done:
    return st;
}

/* Cancelling jobs keep theirs until they are cleaned. */
static const char stale_uploads[] =
    "SELECT u.key, 0 FROM uploads u LEFT JOIN jobs j ON j.id = u.job_id "
    "WHERE u.job_id IS NOT NULL AND (j.id IS NULL OR NOT (j.state = 'cancelling' OR "
    "(j.state = 'processing' AND j.lease_token = u.lease_token))) LIMIT 64";
/* Copies of adapters that a server did not finish. */
static const char stale_copies[] = "SELECT key, 0 FROM uploads WHERE job_id IS NULL LIMIT 64";

typedef struct sweep {
    const au_janitor_config *c;
    au_db *reader;
    int n;
} sweep;

static au_status sweep_object(void *user, const char *key, uint64_t size, au_err *err)
{
    sweep *s = user;
    int64_t owned;
    au_status st = AU_OK;
    (void)size;
    /* One statement, one snapshot: a key that moves from uploads to samples is seen in one of them.
     * For "adapters/<hash>/<file>" the folder counts. */
    AU_TRY(au_db_int(&owned, s->reader, 0, err,
                     "SELECT EXISTS (SELECT 1 FROM samples WHERE store_key = ?1) "
                     "OR EXISTS (SELECT 1 FROM renditions WHERE store_key = ?1) "
                     "OR EXISTS (SELECT 1 FROM uploads WHERE key IN (?1, substr(?1, 1, 74))) "
                     "OR EXISTS (SELECT 1 FROM adapters WHERE sha256 = substr(?1, 10, 64) AND "
                     "store_key = substr(?1, 1, 74))",
                     "t", key));
    if (!owned) {
        AU_TRY(au_store_delete(s->c->store, key, err));
        s->n++;
    }
done:
    return st;
}

static au_status forget_workers(au_db *db, void *arg, au_err *err)
{
    (void)arg;
    return au_db_exec(db, NULL, err,
                      "DELETE FROM workers WHERE state = 'gone' AND seen_at < au_now_ms() - ?1",
                      "i", (int64_t)FORGET_WORKER_MS);
}

/* A page at a time, so that requests come in between. */
static au_status purge_keys(au_db *db, void *arg, au_err *err)
{
    return au_idempotency_purge(db, KEYS_AT_ONCE, arg, err);
}

static au_status sweep_all(const au_janitor_config *c, au_db *reader, au_err *err)
{
    sweep s = {.c = c, .reader = reader};
    int64_t purged;
    au_status st = AU_OK;
    AU_TRY(au_store_list(c->store, "", sweep_object, &s, err));
    AU_TRY(au_store_sweep_tmp(c->store, TMP_AGE_MS, err));
    AU_TRY(au_writer_run(c->writer, forget_workers, NULL, err));
    do
        AU_TRY(au_writer_run(c->writer, purge_keys, &purged, err));
    while (purged == KEYS_AT_ONCE);
    if (s.n > 0)
        au_log(AU_LOG_INFO, "janitor", "objects without an owner removed n=%d", s.n);
done:
    return st;
}

/* ---- Retention
 * ---------------------------------------------------------------------------------------------- */

typedef struct retention_arg {
    int64_t retire_ms, purge_ms; /* what is that old goes; -1: nothing */
    int n;
} retention_arg;

static au_status retire(au_db *db, void *arg, au_err *err)
{
    retention_arg *a = arg;
    return au_jobs_retire(db, a->retire_ms, RETIRE_AT_ONCE, &a->n, err);
}

static au_status purge(au_db *db, void *arg, au_err *err)
{
    retention_arg *a = arg;
    return au_purge_deleted(db, a->purge_ms, RETIRE_AT_ONCE, &a->n, err);
}

/* Runs it until it finds nothing more, a few records in each transaction. */
static au_status repeat(const au_janitor_config *c, au_write_fn fn, retention_arg *a,
                        const char *what, au_err *err)
{
    int total = 0;
    au_status st = AU_OK;
    do {
        AU_TRY(au_writer_run(c->writer, fn, a, err));
        total += a->n;
    } while (a->n > 0);
    if (total > 0)
        au_log(AU_LOG_INFO, "janitor", "%s n=%d", what, total);
done:
    return st;
}

static au_status keep_retention(const au_janitor_config *c, au_db *reader, au_err *err)
{
    int64_t now = au_time_ms(), keep = c->limits.retention_ms,
            keep_deleted = c->limits.deleted_retention_ms;
    retention_arg a = {keep < 0 ? -1 : now - keep, keep_deleted < 0 ? -1 : now - keep_deleted, 0};
    bool due;
    au_status st = AU_OK;
    AU_TRY(au_purge_is_due(reader, a.retire_ms, a.purge_ms, &due, err));
    if (due && a.retire_ms >= 0)
        AU_TRY(repeat(c, retire, &a, "finished jobs deleted", err));
    if (due && a.purge_ms >= 0)
        AU_TRY(repeat(c, purge, &a, "deleted records removed", err));
done:
    return st;
}

/* ---- Rounds
 * ---------------------------------------------------------------------------------------------- */

au_status au_janitor_round(const au_janitor_config *c, au_db *reader, bool full, au_err *err)
{
    expire_arg a = {.limits = &c->limits};
    int reaped;
    int64_t due;
    au_status st = AU_OK;
    AU_TRY(reap_workers(c, reader, AU_LOSS_DEATH, &reaped, err));
    /* Looked at with a read: an idle server leaves the write lock and the disk alone. */
    AU_TRY(
        au_db_int(&due, reader, 0, err,
                  "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'processing' AND lease_until < "
                  "au_clock_ms()) OR EXISTS (SELECT 1 FROM jobs WHERE deadline_at > 0 AND state IN "
                  "('queued', 'processing') AND deadline_at <= au_now_ms())",
                  ""));
    if (due)
        AU_TRY(au_writer_run(c->writer, expire, &a, err));
    AU_TRY(end_stalled(c, reader, err));
    AU_TRY(clean_cancelled(c, reader, err));
    AU_TRY(keep_retention(c, reader, err));
    AU_TRY(sweep_uploads(c, reader, stale_uploads, err));
    if (full)
        AU_TRY(sweep_all(c, reader, err));
done:
    return st;
}

/* After a restart of the host the lease clock began anew: back-offs from before would last too
 * long. */
static au_status reset_backoffs(au_db *db, void *arg, au_err *err)
{
    (void)arg;
    return au_db_exec(db, NULL, err,
                      "UPDATE jobs SET run_after = 0 WHERE state = 'queued' AND "
                      "run_after > au_clock_ms() + 60000",
                      "");
}

au_status au_janitor_recover(const au_janitor_config *c, int *n, au_err *err)
{
    au_db *reader = NULL;
    int64_t alive;
    au_status st = AU_OK;
    AU_TRY(au_db_open(&reader, c->db_url, &(au_db_options){.read_only = true}, err));
    AU_TRY(reap_workers(c, reader, AU_LOSS_INTERRUPTED, n, err));
    AU_TRY(au_writer_run(c->writer, reset_backoffs, NULL, err));
    AU_TRY(sweep_uploads(c, reader, stale_copies, err));
    AU_TRY(au_db_int(&alive, reader, 0, err, "SELECT COUNT(*) FROM workers WHERE state <> 'gone'",
                     ""));
    if (alive == 0)
        AU_TRY(au_store_sweep_tmp(c->store, 0, err));
    AU_TRY(au_janitor_round(c, reader, true, err));
    if (*n > 0)
        au_log(AU_LOG_INFO, "janitor", "jobs of an earlier run put back n=%d", *n);
done:
    au_db_close(&reader);
    return st;
}

/* Waits until the next round is due; false: stop. */
static bool wait_for_round(au_janitor *j)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + j->config.limits.janitor_ms % 1000 * 1000000;
    until.tv_sec += j->config.limits.janitor_ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&j->lock);
    int rc = 0;
    while (!j->kicked && !j->stopping && rc == 0)
        rc = pthread_cond_timedwait(&j->wake, &j->lock, &until);
    j->kicked = false;
    bool go = !j->stopping;
    pthread_mutex_unlock(&j->lock);
    return go;
}

static void *janitor_main(void *arg)
{
    au_janitor *j = arg;
    int64_t next_full = au_mono_ms() + FULL_EVERY_MS;
    while (wait_for_round(j)) {
        int64_t began = au_mono_ms();
        bool full = began >= next_full;
        au_err err = {0};
        if (au_janitor_round(&j->config, j->reader, full, &err) != AU_OK)
            au_log(AU_LOG_ERROR, "janitor", "round failed detail=%s",
                   au_log_quote((char[512]){0}, 512, err.message));
        if (full) {
            int64_t now = au_mono_ms(), rest = (now - began) * FULL_COST_FACTOR;
            next_full = now + (rest > FULL_EVERY_MS ? rest : FULL_EVERY_MS);
        }
    }
    return NULL;
}

au_status au_janitor_new(au_janitor **out, const au_janitor_config *config, au_err *err)
{
    au_janitor *j = NULL;
    pthread_condattr_t attr;
    au_status st = AU_OK;
    *out = NULL;
    AU_TRY(au_calloc(&j, 1, sizeof *j, err));
    j->config = *config;
    AU_TRY(au_strdup(&j->db_url, config->db_url, err));
    AU_TRY(au_strdup(&j->data_dir, config->data_dir, err));
    j->config.db_url = j->db_url;
    j->config.data_dir = j->data_dir;
    AU_TRY(au_db_open(&j->reader, j->db_url, &(au_db_options){.read_only = true}, err));
    pthread_mutex_init(&j->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&j->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&j->thread, NULL, janitor_main, j);
    if (rc != 0) {
        pthread_cond_destroy(&j->wake);
        pthread_mutex_destroy(&j->lock);
        st = au_fail_errno(err, rc, "cannot start the janitor thread");
        goto done;
    }
    *out = j;
    j = NULL;
done:
    if (j) {
        au_db_close(&j->reader);
        free(j->db_url);
        free(j->data_dir);
        free(j);
    }
    return st;
}

static void signal_janitor(au_janitor *j, bool stop)
{
    pthread_mutex_lock(&j->lock);
    j->kicked = true;
    j->stopping = j->stopping || stop;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
}

void au_janitor_kick(au_janitor *j)
{
    signal_janitor(j, false);
}

void au_janitor_free(au_janitor **janitor)
{
    au_janitor *j = janitor ? *janitor : NULL;
    if (!j)
        return;
    signal_janitor(j, true);
    pthread_join(j->thread, NULL);
    pthread_cond_destroy(&j->wake);
    pthread_mutex_destroy(&j->lock);
    au_db_close(&j->reader);
    free(j->db_url);
    free(j->data_dir);
    free(j);
    *janitor = NULL;
}
