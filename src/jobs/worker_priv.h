/* SPDX-License-Identifier: MIT */
/* What the two threads of a worker share; internal to jobs/worker*.c. */
#ifndef AU_JOBS_WORKER_PRIV_H
#define AU_JOBS_WORKER_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "db/writer.h"
#include "audio/audio.h"
#include "jobs/job.h"
#include "jobs/worker.h"

/* Why the engine shall leave a job; the first reason stays. The database has the last word on
 * what becomes of the job. */
typedef enum au_worker_stop {
    AU_STOP_NO,
    AU_STOP_CANCELLED,   /* the job is cancelling */
    AU_STOP_LOST,        /* the lease is somebody else's */
    AU_STOP_HAND_BACK,   /* this worker ends */
    AU_STOP_SERVER_GONE, /* so did the server */
} au_worker_stop;

typedef struct au_worker au_worker;
typedef struct au_worker_job au_worker_job;

/* A row of a job in the session. */
typedef struct au_worker_place {
    au_worker_job *job;
    size_t index; /* of job->missing */
    double fraction;
    uint64_t step;
} au_worker_place;

/* A job that the worker holds. */
struct au_worker_job {
    au_worker *w;
    /* Fixed while the worker holds it. */
    au_lease lease;
    au_arena arena; /* of `job` */
    au_job *job;
    bool alone;      /* no other job may run beside it */
    atomic_int stop; /* au_worker_stop; set by the control thread */

    au_job_progress progress; /* under w->lock */
    bool progress_new;

    /* Of the engine thread. */
    au_model *model; /* borrowed from the cache */
    au_params params;
    char *params_json; /* owned */
    au_format format;
    const au_job_sample **missing; /* [n_rows]; owned array */
    au_row *rows;                  /* [n_rows]; owned */
    au_adapter **adapters;         /* [n_rows]; owned references */
    au_worker_place *places;       /* [n_rows]; owned */
    size_t n_rows, next, live;     /* next to be added; in the session now */
    double floor;                  /* share of the samples that were there before */
    double mark_share[2];          /* two marks of the share done: the rate between the older one */
    int64_t mark_ms[2];            /* and now makes the estimate */
    int64_t began;
    au_status status; /* not AU_OK: it failed with `err` */
    au_err err;
    const char *type; /* of the problem, where a step knows better than the status */
    bool completed;
    int64_t next_try, give_up; /* of reporting the end; 0: not begun */
};

/* How an asked function is run. */
typedef enum au_ask { AU_ASK_READ, AU_ASK_RELAXED, AU_ASK_DURABLE } au_ask;

enum { AU_WORKER_JOBS = 256 };

struct au_worker {
    const au_worker_config *config;
    char id[AU_UUID_TEXT];
    au_store *store;
    const char **model_names; /* [config->n_models]; owned array of owned texts */

    /* Of the control thread. */
    au_db *db;
    au_worker_job *jobs[AU_WORKER_JOBS]; /* those that are held; changed in asked functions only */
    size_t n_jobs;
    int64_t next_heartbeat, next_check, next_progress, next_look; /* monotonic ms */
    uint64_t units_seen;                                          /* at the last heartbeat */
    int64_t hand_back_at;                                         /* 0: no signal yet */
    int signals;

    pthread_mutex_t lock; /* of the following */
    pthread_cond_t to_control, to_engine;
    /* What the engine thread asked for, and waits for. */
    bool asking;
    au_ask ask_how;
    au_write_fn ask_fn;
    void *ask_arg;
    au_err *ask_err;
    au_status ask_status;
    bool wants;    /* the engine would take another job: tell it when one waits */
    bool waits;    /* one does */
    bool ending;   /* no more jobs */
    bool finished; /* the engine thread is done: the control thread ends */

    atomic_ullong units; /* of work that the engine has done */
};

/* Runs fn on the control thread, inside a transaction unless it only reads, and waits. Tries again
 * while the database is busy. While it runs the control thread does nothing else. Engine thread
 * only. */
AU_MUST_CHECK au_status au_worker_ask(au_worker *w, au_ask how, au_write_fn fn, void *arg,
                                      au_err *err);

/* The control thread's main; arg: au_worker. */
void *au_worker_control(void *arg);

/* Models that the engine thread keeps open. */
typedef struct au_open_model {
    const char *name; /* borrowed from model_names; NULL: empty */
    au_model *model;
    uint64_t used;
} au_open_model;
typedef struct au_open_adapter {
    au_model *model; /* borrowed: compared only */
    au_adapter *adapter;
    uint64_t used;
} au_open_adapter;
enum { AU_WORKER_MODELS = 64, AU_WORKER_ADAPTERS = 16 };
typedef struct au_engine_cache {
    au_open_model models[AU_WORKER_MODELS];
    au_open_adapter adapters[AU_WORKER_ADAPTERS];
    uint64_t ticks;
} au_engine_cache;

/* Opened, or opened now after the least recently used one made room. Borrowed until the next call.
 */
AU_MUST_CHECK au_status au_engine_cache_model(au_engine_cache *c, const au_worker *w,
                                              const char *name, au_model **out, au_err *err);
/* From the store's copy; the content must have the pinned hash. A reference of the caller's
 * (au_adapter_unref). */
AU_MUST_CHECK au_status au_engine_cache_adapter(au_engine_cache *c, const au_worker *w,
                                                au_model *model, const char *sha256,
                                                au_adapter **out, au_err *err);
void au_engine_cache_deinit(au_engine_cache *c);

/* The engine thread's main: jobs until the end. */
void au_worker_pool_run(au_worker *w, au_engine_cache *cache);

/* ---- One job in the pool (engine thread) */

/* Opens model and adapters; a failure is in job->status. */
void au_worker_job_prepare(au_worker_job *job, au_engine_cache *cache);
/* Whether a row of a job that is not held yet has room beside the others. */
bool au_worker_job_fits(const au_job *job, const au_session *session);
/* Callbacks of the session; `user` is the worker, the tag an au_worker_place. */
bool au_worker_place_cancelled(void *user, void *tag);
void au_worker_place_left(void *user, void *tag);
void au_worker_place_progress(void *user, void *tag, const au_row_progress *progress);
/* Stores and commits the clip. AU_OK always: what fails is this job alone. */
au_status au_worker_place_audio(void *user, void *tag, const au_audio *audio, au_err *err);
/* Whether nothing of it runs and nothing is to be run. */
bool au_worker_job_is_over(const au_worker_job *job);
/* Puts the end on record; false: it did not work yet, try again at job->next_try. */
bool au_worker_job_end(au_worker_job *job);
/* Frees what is the engine thread's, not the job itself. */
void au_worker_job_deinit(au_worker_job *job);

#endif
