/* SPDX-License-Identifier: MIT */
/* What the two threads of a worker share; internal to jobs/worker*.c. */
#ifndef AU_JOBS_WORKER_PRIV_H
#define AU_JOBS_WORKER_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "db/writer.h"
#include "jobs/job.h"
#include "jobs/worker.h"

/* Why the engine shall leave its job; the first reason stays. The database has the last word on
 * what becomes of the job. */
typedef enum au_worker_stop {
    AU_STOP_NO,
    AU_STOP_CANCELLED,   /* the job is cancelling */
    AU_STOP_LOST,        /* the lease is somebody else's */
    AU_STOP_HAND_BACK,   /* this worker ends */
    AU_STOP_SERVER_GONE, /* so did the server */
} au_worker_stop;

typedef struct au_worker {
    const au_worker_config *config;
    char id[AU_UUID_TEXT];
    au_store *store;
    const char **model_names; /* [config->n_models]; owned array of owned texts */

    /* Of the control thread. */
    au_db *db;
    int64_t next_heartbeat, next_check, next_progress, next_look; /* monotonic ms */
    int64_t hand_back_at;                                         /* 0: no signal yet */
    int signals;
    bool looked; /* for a job, at least once (--once) */

    pthread_mutex_t lock; /* of the following */
    pthread_cond_t to_control, to_engine;
    /* A write that the engine thread asked for, and waits for. */
    bool asking;
    au_write_fn ask_fn;
    void *ask_arg;
    au_err *ask_err;
    au_status ask_status;
    /* The job: claimed by the control thread while the engine waits, held until the engine says
     * that it is over. */
    bool waiting; /* the engine wants one */
    bool have_job;
    bool ending;   /* no more jobs */
    bool finished; /* the engine thread is done: the control thread ends */
    au_lease lease;
    au_arena arena; /* of `job` */
    au_job *job;
    const char *open_model; /* name of the model opened last; NULL: none */
    au_job_progress progress;
    bool progress_new;

    atomic_int stop; /* au_worker_stop of the current job */
} au_worker;

/* Runs fn in a durable transaction on the control thread and waits. Tries again while the database
 * is busy. Engine thread only. */
AU_MUST_CHECK au_status au_worker_ask(au_worker *w, au_write_fn fn, void *arg, au_err *err);

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

/* Makes what w->job misses, and reports how it ended. Engine thread. */
void au_worker_run_job(au_worker *w, au_engine_cache *cache);

#endif
