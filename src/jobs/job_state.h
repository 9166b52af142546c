/* SPDX-License-Identifier: MIT */
/* The one function that changes a job's state, and what the transitions share; internal to jobs/.
 */
#ifndef AU_JOBS_JOB_STATE_H
#define AU_JOBS_JOB_STATE_H

#include "jobs/job.h"

typedef struct au_job_change {
    const char *job_id;
    au_job_state from, to;
    int64_t token; /* the lease token that must match; -1: any */
    bool claim;    /* raises token and attempt; owner and lease_ms are the new lease */
    const char *owner;
    int64_t lease_ms;
    int attempt_delta, interruptions_delta;
    int deaths;           /* new value; -1: as it is */
    bool alone;           /* from now on it runs without other jobs beside it */
    int64_t backoff_ms;   /* to queued: not before so long from now */
    const char *error;    /* JSON; of a failed job */
    const char *attempts; /* JSON; NULL: as it is */
    const char *reason;   /* in the event; NULL: none */
} au_job_change;

/* Compare-and-set on (state, token); writes the event rows: `state`, and after a final state
 * `done`. *changed false: somebody was first, nothing was written. token_out may be NULL. */
AU_MUST_CHECK au_status au_job_change_state(au_db *db, const au_job_change *change, bool *changed,
                                            int64_t *token_out, au_err *err);

/* Takes the next number of a job's events and writes one. data: JSON object. */
AU_MUST_CHECK au_status au_job_emit(au_db *db, const char *job_id, const char *event,
                                    const char *data, au_err *err);

/* What the decision about an ended attempt needs. */
typedef struct au_job_facts {
    au_job_state state;
    int64_t token;
    int attempt, max_attempts, deaths, interruptions;
    int64_t attempt_started;
    char owner[AU_UUID_TEXT];
    char *attempts; /* JSON; owned (au_job_facts_deinit) */
} au_job_facts;
AU_MUST_CHECK au_status au_job_facts_get(au_db *db, const char *job_id, au_job_facts *out,
                                         bool *found, au_err *err);
void au_job_facts_deinit(au_job_facts *facts);

/* How an attempt ended, or a job that waited. */
typedef struct au_job_end {
    const char *type;   /* "model-error", "poisoned" ... */
    const char *detail; /* for people */
    const char *reason; /* of the attempt; NULL: type */
    bool retryable;
    bool counted; /* an attempt was running: it is appended to the list */
} au_job_end;
/* The texts of the two columns after it; owned by the caller (free). */
AU_MUST_CHECK au_status au_job_end_texts(const au_job_facts *facts, const au_job_end *end,
                                         char **error, char **attempts, au_err *err);

/* Moves all sample rows of a job to uploads (token -1), so that their objects get swept. *n: how
 * many. */
AU_MUST_CHECK au_status au_job_drop_samples(au_db *db, const char *job_id, int64_t *n, au_err *err);

/* Sets queue_position and estimated_start_ms of those that wait. */
AU_MUST_CHECK au_status au_queue_positions(au_db *db, au_job **jobs, size_t n, au_err *err);

/* First back-off doubled `times` times, at most a minute, jittered down to a half. */
int64_t au_job_backoff_ms(const au_limits *limits, int times);

#endif
