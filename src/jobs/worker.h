/* SPDX-License-Identifier: MIT */
/* A worker process: claims jobs, makes their samples with the engine, several jobs at once where
 * there is room, stores and commits each.
 *
 * Two threads. The calling thread runs the engine and never touches the database; the control
 * thread has the only connection: claim, heartbeat, cancel check, progress, commits. They share one
 * struct under a mutex and atomic flags for the cancel. */
#ifndef AU_JOBS_WORKER_H
#define AU_JOBS_WORKER_H

#include "jobs/limits.h"
#include "jobs/registry.h"

typedef struct au_worker_config {
    const char *data_dir;  /* holds workers/ (lock files) and, by default, database and objects */
    const char *db_url;    /* NULL: <data_dir>/aulos.db */
    const char *store_url; /* NULL: <data_dir>/objects */
    const char *worker_id; /* NULL: a new one */
    int parent_fd;         /* end-of-file there: the server is gone. -1: none */
    const au_model_spec *models;
    size_t n_models;
    int threads;             /* 0: default of the engine */
    uint64_t session_memory; /* 0: default of the engine */
    int models_loaded;       /* 0: 1 */
    int max_batch;           /* rows up to which further jobs join; 1: one job at a time */
    bool once;               /* end after one job (or at once when none waits) */
    bool lower_priority;     /* nice 5, oom_score_adj +300 */
    au_limits limits;
} au_worker_config;

/* Defaults: parent_fd -1, limits as au_limits_init, lower_priority true, max_batch 8, the rest 0.
 */
void au_worker_config_init(au_worker_config *config);

/* Runs until SIGTERM or SIGINT (handled here: no new jobs, those that run finished or handed back
 * within the grace period; a second signal: handed back at once), end-of-file on parent_fd, or
 * --once. AU_OK then. A model that cannot be opened is an error: its reason is in the workers row
 * too. */
AU_MUST_CHECK au_status au_worker_run(const au_worker_config *config, au_err *err);

#endif
