/* SPDX-License-Identifier: MIT */
/* Jobs: records, states and every change of a state.
 *
 * States and their transitions are the table of docs/jobs.md. A state changes
 * in one place only (au_job_change_state): a compare-and-set on (state, lease token), which
 * also writes the event rows. A function that lost such a race says so in its result and changes
 * nothing.
 *
 * Functions that write take a writing connection *inside a transaction* (from au_writer, or
 * au_db_begin); functions that read take any connection. Records and their strings live in the
 * caller's arena. Times are Unix milliseconds, 0 = never. JSON columns are texts of one valid JSON
 * value.
 *
 * Threads: no state of its own; what holds for the connection holds for the call. */
#ifndef AU_JOBS_JOB_H
#define AU_JOBS_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/uuid.h"
#include "db/db.h"
#include "jobs/limits.h"

typedef enum au_job_state {
    AU_JOB_QUEUED,
    AU_JOB_PROCESSING,
    AU_JOB_CANCELLING,
    AU_JOB_COMPLETED, /* this and the following are final */
    AU_JOB_FAILED,
    AU_JOB_CANCELLED,
} au_job_state;
enum { AU_JOB_STATE_COUNT = AU_JOB_CANCELLED + 1 };

const char *au_job_state_name(au_job_state s); /* "queued" ... */
bool au_job_state_parse(const char *name, au_job_state *out);
bool au_job_state_is_final(au_job_state s);

/* One sample that a job makes. State: "queued" | "processing" | "completed" | "failed" |
 * "cancelled", seen together with the job's. */
typedef struct au_job_sample {
    int index, variant;
    uint64_t seed;
    const char *adapter_id, *adapter_name, *adapter_sha256; /* NULL: none */
    double strength;
    const char *state;
    const char *sample_id; /* NULL until completed */
} au_job_sample;

typedef struct au_job {
    const char *id, *label;
    au_job_state state;
    const char *prompt_id, *prompt_text, *negative_text; /* negative NULL: none */
    const char *model_name, *model_fingerprint;
    const char *params; /* JSON object: preset, duration_s, guidance, temperature, top_k, top_p,
                           greedy; all resolved */
    const char *format; /* "wav" ... */
    int num_samples, num_variants;
    uint64_t seed;
    const char *seed_source;      /* "random" | "request" */
    const au_job_sample *samples; /* [n_samples], by variant, then index */
    size_t n_samples;             /* num_samples * num_variants */
    int n_completed;              /* of the samples */

    double percent;              /* 0 ... 100, never falls within an attempt */
    const char *stage;           /* "" | "load" | "text" | "decode" | "codec" */
    int64_t step, steps, eta_ms; /* eta_ms -1: not known */
    int64_t progress_at;

    int64_t queue_key;          /* its place in the order of the queue: smaller first */
    int64_t queue_position;     /* from 1 while queued, else 0 */
    int64_t estimated_start_ms; /* while queued; -1: not known */

    int priority, attempt, max_attempts, interruptions;
    int64_t lease_token;
    const char *lease_owner; /* worker id or NULL */
    const char *error;       /* JSON problem {type, title, detail, retryable, attempts} or NULL */
    const char *attempts;    /* JSON array [{attempt, worker, started_at, ended_at, reason}] of the
                                ended ones */
    const char *warnings;    /* JSON array of texts */
    const char *retry_of, *reproduces; /* NULL: not one of those */
    /* Of a job that reproduces a sample: JSON object {sha256, numerics, version} of that, and what
     * the job made of it, NULL until it is completed. */
    const char *expected, *actual_sha256, *actual_recipe;
    int64_t created_at, started_at, finished_at, deadline_at, deleted_at;
    int64_t revision;  /* rises with every change of the row, progress included: for ETags */
    int64_t event_seq; /* number of the last stored event */
} au_job;

/* ---- Reading
 * -----------------------------------------------------------------------------------------------
 */

/* AU_NOT_FOUND (never existed or purged). A deleted one is returned with deleted_at set. */
AU_MUST_CHECK au_status au_job_get(au_db *db, au_arena *a, const char *id, au_job **out,
                                   au_err *err);

/* Newest first. Every field may be 0 / NULL. */
typedef struct au_job_filter {
    const char *state, *prompt_id, *adapter_id, *model_name, *label;
    int64_t created_after;  /* created_at > this */
    int64_t created_before; /* created_at < this */
    const char *before_id;  /* keyset cursor: ids < this */
    int limit;              /* 0: 20; at most 500 */
} au_job_filter;
/* *jobs: array of pointers in the arena. *has_more: another page follows. */
AU_MUST_CHECK au_status au_job_list(au_db *db, au_arena *a, const au_job_filter *filter,
                                    au_job ***jobs, size_t *n, bool *has_more, au_err *err);

typedef struct au_queue_place {
    int64_t position; /* from 1 */
    int64_t start_ms; /* -1: not known */
} au_queue_place;
/* Where a job of this priority would come to stand now. */
AU_MUST_CHECK au_status au_queue_place_of(au_db *db, int priority, const au_limits *limits,
                                          au_queue_place *out, au_err *err);
/* How long audio of so many seconds, all samples together, takes, from what the last jobs of this
 * model took; -1: none has run yet. */
AU_MUST_CHECK au_status au_queue_run_ms(au_db *db, const char *model, double audio_s, int64_t *out,
                                        au_err *err);
/* How many jobs wait: exact, and cheap however many they are. */
AU_MUST_CHECK au_status au_queue_count(au_db *db, int64_t *waiting, au_err *err);
/* A paused queue takes jobs, but no worker claims one. It stays paused over restarts. */
AU_MUST_CHECK au_status au_queue_is_paused(au_db *db, bool *paused, au_err *err);
AU_MUST_CHECK au_status au_queue_set_paused(au_db *db, bool paused, au_err *err);

typedef struct au_queue_stats {
    int64_t queued, processing;
    bool paused;
    int64_t
        job_ms; /* how long a job took lately, median of the last 20 completed ones; -1: none yet */
    int64_t drain_ms; /* estimate until one place in the queue is free; -1: not known */
} au_queue_stats;
AU_MUST_CHECK au_status au_queue_stats_get(au_db *db, au_queue_stats *out, au_err *err);

typedef struct au_event {
    int64_t id;          /* rises over everything */
    int64_t seq;         /* of its subject: 1, 2, 3 ... without gaps */
    const char *kind;    /* "job" | "sample" | "adapter" | "comparison" | "prompt" */
    const char *subject; /* id of that job, sample, ... */
    const char *event;   /* of a job "state" | "sample" | "done", else "created" | "updated" |
                            "deleted" | "restored" */
    const char *data;    /* JSON object */
    int64_t created_at;
} au_event;
/* Events of one subject (not NULL: seq > after) or of all (id > after), oldest first. */
AU_MUST_CHECK au_status au_event_list(au_db *db, au_arena *a, const char *subject, int64_t after,
                                      int limit, au_event **events, size_t *n, au_err *err);
/* Stores an event of something that is not a job (those come with the change of the job), in the
 * transaction of the change that it tells of. data: a JSON object. */
AU_MUST_CHECK au_status au_event_add(au_db *db, const char *kind, const char *subject,
                                     const char *event, const char *data, au_err *err);

/* ---- Clients' changes (through au_writer)
 * -------------------------------------------------------------------- */

typedef struct au_job_variant {
    const char *adapter_id; /* NULL: none */
    double strength;
} au_job_variant;

typedef struct au_job_new {
    const char *prompt_id;                   /* an existing prompt, or NULL and ... */
    const char *prompt_text, *negative_text; /* ... its text: found or made. negative may be NULL */
    const char *model_name, *model_fingerprint;
    const au_job_variant *variants;
    size_t n_variants; /* 0: one variant without adapter */
    int num_samples;
    uint64_t seed;           /* of sample 0; sample i has (seed + i) mod 2^53 */
    const char *seed_source; /* "random" | "request" */
    const char *params;      /* JSON object, complete */
    const char *format;
    const char *label;                 /* NULL: "" */
    int priority;                      /* -100 ... 100 */
    int64_t deadline_ms;               /* from now; 0: none */
    const char *warnings;              /* JSON array; NULL: [] */
    const char *retry_of, *reproduces; /* NULL: none */
    const char *expected;              /* see au_job; NULL: it reproduces nothing */
} au_job_new;

typedef enum au_submit_fault {
    AU_SUBMIT_OK,
    AU_SUBMIT_NO_PROMPT,  /* AU_NOT_FOUND: prompt_id unknown or deleted */
    AU_SUBMIT_NO_ADAPTER, /* AU_NOT_FOUND: adapter of variant `variant` unknown, deleted or not
                             ready */
    AU_SUBMIT_UNFIT,      /* AU_INVALID: that adapter does not fit the model */
    AU_SUBMIT_QUEUE_FULL, /* AU_LIMIT */
} au_submit_fault;

typedef struct au_submit_result {
    char job_id[AU_UUID_TEXT], prompt_id[AU_UUID_TEXT];
    bool prompt_made;
    au_submit_fault fault;
    size_t variant;
} au_submit_result;

/* Prompt, job, samples and event, all or nothing (transition 1). */
AU_MUST_CHECK au_status au_job_submit(au_db *db, const au_job_new *job, const au_limits *limits,
                                      au_submit_result *out, au_err *err);

typedef enum au_cancel_result {
    AU_CANCEL_DONE,      /* was waiting and is cancelled now, or had been cancelled before: 200 */
    AU_CANCEL_UNDER_WAY, /* was processing; will not complete: 202 */
    AU_CANCEL_TOO_LATE,  /* completed or failed before: 409; *state says which */
} au_cancel_result;
/* Transitions 8 and 10. AU_NOT_FOUND. *state: the state now. After AU_CANCEL_DONE of a queued job
 * that had finished samples their objects are swept by the janitor: au_janitor_kick makes that at
 * once. */
AU_MUST_CHECK au_status au_job_cancel(au_db *db, const char *id, au_cancel_result *out,
                                      au_job_state *state, au_err *err);

/* ---- The worker's changes
 * ------------------------------------------------------------------------------------ */

/* Who holds a job. The token fences every later write: if the job was given to somebody else,
 * nothing changes and *held is false. */
typedef struct au_lease {
    char job_id[AU_UUID_TEXT];
    char owner[AU_UUID_TEXT];
    int64_t token;
} au_lease;

/* Whether a job for one of the models waits: a read, so that idle workers leave the write lock
 * alone. */
AU_MUST_CHECK au_status au_job_peek(au_db *db, const char *const *models, size_t n_models,
                                    bool *waiting, au_err *err);
/* The job that is due next, and what must be known of it before it is taken. */
typedef struct au_job_candidate {
    char id[AU_UUID_TEXT];
    int64_t token;
    bool alone; /* an attempt ended its worker: no other job may run beside the next */
} au_job_candidate;
/* A read: highest priority, then oldest, where a minute of waiting is worth a step of priority;
 * run_after passed, of the given models; prefers `open_model` (may be NULL), whose jobs may
 * overtake others that are ahead by less than 10 s. *found false: none, or the queue is paused. */
AU_MUST_CHECK au_status au_job_next(au_db *db, const char *const *models, size_t n_models,
                                    const char *open_model, au_job_candidate *out, bool *found,
                                    au_err *err);
/* Transition 2 for that job. *claimed false: it is no longer as it was read. */
AU_MUST_CHECK au_status au_job_take(au_db *db, const char *worker_id, const au_job_candidate *job,
                                    const au_limits *limits, au_lease *lease, bool *claimed,
                                    au_err *err);
/* Both at once. *claimed false: none. */
AU_MUST_CHECK au_status au_job_claim(au_db *db, const char *worker_id, const char *const *models,
                                     size_t n_models, const char *open_model,
                                     const au_limits *limits, au_lease *lease, bool *claimed,
                                     au_err *err);
/* Transition 3. *held false: lost, or cancelling (*cancelling tells). The lease of a cancelling job
 * is renewed too: its worker cleans up. working: the worker has done something since the last one,
 * if only for other jobs that it holds: so this one is not stalled. */
AU_MUST_CHECK au_status au_job_heartbeat(au_db *db, const au_lease *lease, const au_limits *limits,
                                         bool working, bool *held, bool *cancelling, au_err *err);
/* A read: the cancel check. *held: state processing and my token. */
AU_MUST_CHECK au_status au_job_check(au_db *db, const au_lease *lease, bool *held, bool *cancelling,
                                     au_err *err);

typedef struct au_job_progress {
    double percent;
    const char *stage;
    int64_t step, steps, eta_ms;
} au_job_progress;
/* percent never falls within an attempt. Renews nothing. */
AU_MUST_CHECK au_status au_job_set_progress(au_db *db, const au_lease *lease,
                                            const au_job_progress *p, bool *held, au_err *err);

/* Before an object is written: its key is listed, so that whatever happens it is swept. */
AU_MUST_CHECK au_status au_upload_begin(au_db *db, const au_lease *lease, const char *key,
                                        bool *held, au_err *err);
/* The object was removed again. */
AU_MUST_CHECK au_status au_upload_drop(au_db *db, const char *key, au_err *err);

/* A finished sample whose object is in the store. */
typedef struct au_sample_new {
    const char *id, *store_key, *format, *sha256, *pcm_sha256;
    int index, variant;
    int64_t bytes, frames;
    int sample_rate, channels;
    double duration_s, loudness_lufs, true_peak_dbtp, peak; /* not finite: stored as unknown */
    int64_t clipped;
    const char *recipe; /* JSON object */
    const char *peaks;  /* JSON object (au_peaks_pack) or NULL */
    const char *mini;   /* JSON array (au_peaks_mini) or NULL */
} au_sample_new;
/* Transitions 4 and, with the last one, 5. Guard: my token, state processing, and the upload row.
 * *held false: nothing was written, the caller removes its object. *completed: the job is. */
AU_MUST_CHECK au_status au_job_commit_sample(au_db *db, const au_lease *lease,
                                             const au_sample_new *sample, bool *held,
                                             bool *completed, au_err *err);

/* Transitions 6 and 7. `type`: last part of the problem's type ("model-error"). *state: the state
 * it got. */
AU_MUST_CHECK au_status au_job_fail(au_db *db, const au_lease *lease, const char *type,
                                    const char *detail, bool retryable, const au_limits *limits,
                                    bool *held, au_job_state *state, au_err *err);
/* Transition 14: the attempt does not count. interrupted: the server died (counts as an
 * interruption). */
AU_MUST_CHECK au_status au_job_hand_back(au_db *db, const au_lease *lease, bool interrupted,
                                         const au_limits *limits, bool *held, au_err *err);

/* Transition 9, in two steps around the removal of objects: begin moves the job's sample rows to
 * uploads and lists the keys (in the arena); then the caller deletes the objects; end drops the
 * upload rows and makes the job cancelled. Safe to repeat; *held false: not (or no longer)
 * cancelling. */
AU_MUST_CHECK au_status au_job_clean_begin(au_db *db, au_arena *a, const char *job_id,
                                           int64_t token, char ***keys, size_t *n_keys, bool *held,
                                           au_err *err);
AU_MUST_CHECK au_status au_job_clean_end(au_db *db, const char *job_id, int64_t token, bool *held,
                                         au_err *err);

/* ---- Time's changes (janitor, supervisor)
 * -------------------------------------------------------------------- */

typedef enum au_loss {
    AU_LOSS_DEATH,       /* worker gone without a report: transitions 11 and 12 */
    AU_LOSS_STALL,       /* 16 */
    AU_LOSS_INTERRUPTED, /* 15: the server or the host died; the attempt does not count */
} au_loss;
/* The attempt that holds `token` is over. processing -> queued or failed; cancelling stays (the
 * janitor cleans it). *changed false: somebody was first. */
AU_MUST_CHECK au_status au_job_lose(au_db *db, const char *job_id, int64_t token, au_loss loss,
                                    const char *reason, const au_limits *limits, bool *changed,
                                    au_err *err);
/* All jobs of a worker that is gone. Ends the leases of its cancelling jobs at once. *n: how many
 * jobs. */
AU_MUST_CHECK au_status au_jobs_worker_gone(au_db *db, const char *worker_id, au_loss loss,
                                            const char *reason, const au_limits *limits, int *n,
                                            au_err *err);
/* Leases that ran out (11, 12), deadlines that passed. */
AU_MUST_CHECK au_status au_jobs_expire(au_db *db, const au_limits *limits, int *n, au_err *err);

typedef struct au_stalled {
    char job_id[AU_UUID_TEXT], worker_id[AU_UUID_TEXT];
    int64_t token;
} au_stalled;
/* One job with heartbeats but without progress for stall_ms; *found false: none. */
AU_MUST_CHECK au_status au_jobs_find_stalled(au_db *db, const au_limits *limits, au_stalled *out,
                                             bool *found, au_err *err);

#endif
