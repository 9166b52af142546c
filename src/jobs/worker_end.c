/* SPDX-License-Identifier: MIT */
/* How a job leaves the worker. Whatever stopped it, the state in the database decides what is done:
 * cancelling is cleaned, a lost lease is left alone, a held job is failed or handed back. (A job
 * that completed did so with its last commit.) Engine thread; the other jobs wait for it no longer
 * than one attempt takes. */
#include "base/clock.h"
#include "base/log.h"
#include "jobs/worker_priv.h"

enum { PAUSE_MS = 200, ARENA_BYTES = 1 << 20 };

typedef struct ending {
    const au_worker_job *job;
    au_worker_stop stop;
    const char *type, *detail;
    bool retryable;
    au_arena *arena;
    char **keys;
    size_t n_keys;
    bool held, cancelling;
    au_job_state state;
} ending;

/* Decides by the state of the job now; see the top of the file. */
static au_status settle(au_db *db, void *arg, au_err *err)
{
    ending *e = arg;
    const au_lease *lease = &e->job->lease;
    const au_limits *limits = &e->job->w->config->limits;
    au_status st = AU_OK;
    AU_TRY(au_job_check(db, lease, &e->held, &e->cancelling, err));
    if (e->cancelling)
        AU_TRY(au_job_clean_begin(db, e->arena, lease->job_id, lease->token, &e->keys, &e->n_keys,
                                  &e->cancelling, err));
    else if (e->held && (e->stop == AU_STOP_HAND_BACK || e->stop == AU_STOP_SERVER_GONE))
        AU_TRY(au_job_hand_back(db, lease, e->stop == AU_STOP_SERVER_GONE, limits, &e->held, err));
    else if (e->held)
        AU_TRY(au_job_fail(db, lease, e->type, e->detail, e->retryable, limits, &e->held, &e->state,
                           err));
done:
    return st;
}

static au_status clean_end(au_db *db, void *arg, au_err *err)
{
    ending *e = arg;
    return au_job_clean_end(db, e->job->lease.job_id, e->job->lease.token, &e->held, err);
}

static au_status settle_job(ending *e, au_err *err)
{
    au_worker *w = e->job->w;
    au_status st = AU_OK;
    AU_TRY(au_worker_ask(w, AU_ASK_DURABLE, settle, e, err));
    if (!e->cancelling)
        goto done;
    for (size_t i = 0; i < e->n_keys; i++)
        AU_TRY(au_store_delete(w->store, e->keys[i], err));
    AU_TRY(au_worker_ask(w, AU_ASK_DURABLE, clean_end, e, err));
done:
    return st;
}

static const char *type_of(au_status st)
{
    switch (st) {
    case AU_NOMEM:
        return "out-of-memory";
    case AU_IO:
    case AU_NOSPACE:
    case AU_AGAIN:
        return "storage";
    case AU_INVALID:
    case AU_UNSUPPORTED:
    case AU_LIMIT:
        return "invalid-job";
    default:
        return "model-error";
    }
}

/* What another try may mend. */
static bool is_retryable(au_status st)
{
    return st == AU_NOMEM || st == AU_IO || st == AU_NOSPACE || st == AU_AGAIN;
}

bool au_worker_job_end(au_worker_job *job)
{
    const au_limits *limits = &job->w->config->limits;
    int64_t now = au_mono_ms();
    au_err err = {0};
    au_arena arena;
    if (job->completed) {
        au_log(AU_LOG_INFO, "worker", "job completed samples=%zu ms=%lld", job->job->n_samples,
               (long long)(now - job->began));
        return true;
    }
    /* Until it is on record, or the lease would have run out anyway: then the janitor finds it. */
    if (job->give_up == 0)
        job->give_up = now + limits->lease_ms;
    au_arena_init(&arena, ARENA_BYTES);
    ending e = {.job = job,
                .stop = (au_worker_stop)atomic_load(&job->stop),
                .type = job->type ? job->type : type_of(job->status),
                .detail =
                    job->status == AU_OK ? "samples are missing at the end" : job->err.message,
                .retryable = is_retryable(job->status),
                .arena = &arena};
    bool ended = settle_job(&e, &err) == AU_OK;
    au_arena_deinit(&arena);
    if (ended) {
        au_log(AU_LOG_INFO, "worker", "job ended status=%s detail=%s", au_status_text(job->status),
               au_log_quote((char[512]){0}, 512, e.detail));
        return true;
    }
    au_log(AU_LOG_ERROR, "worker", "end of the job is not recorded yet detail=%s",
           au_log_quote((char[512]){0}, 512, err.message));
    job->next_try = now + PAUSE_MS;
    return now >= job->give_up;
}
