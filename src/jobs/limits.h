/* SPDX-License-Identifier: MIT */
/* Numbers that govern jobs; options of serve and worker. au_limits_init gives the defaults. */
#ifndef AU_JOBS_LIMITS_H
#define AU_JOBS_LIMITS_H

#include <stdint.h>

typedef struct au_limits {
    int64_t lease_ms;          /* 15000: a worker that is silent for so long has lost its job */
    int64_t heartbeat_ms;      /* 5000: a third of the lease */
    int64_t stall_ms;          /* 60000: alive, but no step done for so long */
    int64_t shutdown_grace_ms; /* 30000: a job may finish within this after SIGTERM, then it is
                                  handed back */
    int64_t cancel_poll_ms;    /* 20: how often the worker looks for a cancel */
    int64_t janitor_ms;        /* 2000 */
    int64_t restart_ms;  /* 1000: a dead worker is started again after so long, doubled each time up
                            to sixty times, jittered; sixty times this of life forget it */
    int64_t backoff_ms;  /* 1000: first back-off, doubled each time, jittered, at most a minute */
    int64_t queue_limit; /* 1000 queued jobs */
    int64_t priority_step_ms; /* 60000: waiting for so long is worth a step of priority */
    int64_t max_attempts;     /* 3 */
    int64_t max_deaths;       /* 2: attempts in a row whose worker died; then the job is poisoned */
    int64_t max_interruptions;    /* 10: more deaths of the server than this and the job fails */
    int64_t max_samples;          /* 16 per job and variant */
    int64_t max_variants;         /* 16 */
    int64_t retention_ms;         /* -1: finished jobs are kept; else they are deleted after this */
    int64_t deleted_retention_ms; /* 86400000: records of what was deleted; -1: for ever */
    uint64_t min_free_disk;       /* 1 GiB: less and no job is accepted */
} au_limits;

void au_limits_init(au_limits *limits);

#endif
