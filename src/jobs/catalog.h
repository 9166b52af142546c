/* SPDX-License-Identifier: MIT */
/* Everything but jobs: prompts, models, adapters, samples, workers. Connections,
 * arenas and times as in job.h. */
#ifndef AU_JOBS_CATALOG_H
#define AU_JOBS_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/uuid.h"
#include "db/db.h"

/* ---- Prompts
 * -------------------------------------------------------------------------------------------------
 */

typedef struct au_prompt {
    const char *id, *text, *negative_text; /* negative NULL: none */
    const char *attributes;                /* JSON object */
    const char *title;
    int64_t created_at, deleted_at;
} au_prompt;
/* negative, attributes and title may be NULL. Always a new record. id_out [AU_UUID_TEXT]. */
AU_MUST_CHECK au_status au_prompt_create(au_db *db, const char *text, const char *negative,
                                         const char *attributes, const char *title, char *id_out,
                                         au_err *err);
AU_MUST_CHECK au_status au_prompt_find_or_create(au_db *db, const char *text, const char *negative,
                                                 char *id_out, bool *made, au_err *err);
AU_MUST_CHECK au_status au_prompt_get(au_db *db, au_arena *a, const char *id, au_prompt **out,
                                      au_err *err); /* deleted ones too */
typedef struct au_prompt_filter {
    const char *before_id; /* keyset cursor, newest first */
    int limit;             /* 0: 20 */
} au_prompt_filter;
AU_MUST_CHECK au_status au_prompt_list(au_db *db, au_arena *a, const au_prompt_filter *f,
                                       au_prompt ***out, size_t *n, bool *has_more, au_err *err);
AU_MUST_CHECK au_status au_prompt_delete(au_db *db, const char *id, bool *deleted,
                                         au_err *err); /* soft */

/* ---- Models
 * --------------------------------------------------------------------------------------------------
 */

typedef struct au_model_row {
    const char *name, *family, *fingerprint, *dir;
    const char *info; /* JSON object: sample_rate, channels, frame_rate, max_duration_s, trained_s,
                         max_prompt_tokens, weights_bytes, ... */
    bool is_default, active; /* active: given to the running server */
    int64_t first_seen;
} au_model_row;
AU_MUST_CHECK au_status au_model_row_put(au_db *db, const au_model_row *m,
                                         au_err *err); /* insert or update */
/* One by name (active ones only; NULL: the default). AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_model_row_get(au_db *db, au_arena *a, const char *name,
                                         au_model_row **out, au_err *err);
AU_MUST_CHECK au_status au_model_row_list(au_db *db, au_arena *a, au_model_row ***out, size_t *n,
                                          au_err *err); /* active, default first */

/* ---- Adapters
 * ------------------------------------------------------------------------------------------------
 */

typedef struct au_adapter_row {
    const char *id, *name;
    int version;
    const char *family, *base_model, *format, *kind;
    const char *description;
    int rank, targets;
    double alpha;
    const char *sha256;    /* NULL: could not be computed (rejected) */
    const char *store_key; /* "adapters/<hash>/"; NULL when rejected */
    int64_t bytes;
    const char *status; /* "validating" | "ready" | "rejected" */
    const char *report; /* JSON object {matched, unmatched[], problems[], ...} of the base model */
    const char *error;  /* JSON problem or NULL */
    bool current;       /* the one that its name means now */
    int64_t created_at, deleted_at;
} au_adapter_row;
AU_MUST_CHECK au_status au_adapter_row_get(au_db *db, au_arena *a, const char *id,
                                           au_adapter_row **out,
                                           au_err *err); /* deleted ones too */
/* The current one of that name. AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_adapter_row_by_name(au_db *db, au_arena *a, const char *name,
                                               au_adapter_row **out, au_err *err);
typedef struct au_adapter_filter {
    const char *status, *name, *base_model; /* NULL: all */
    int version;                            /* 0: all */
    bool superseded; /* those that were ready and are not what their name means any more, too */
    const char *before_id;
    int limit;
} au_adapter_filter;
AU_MUST_CHECK au_status au_adapter_row_list(au_db *db, au_arena *a, const au_adapter_filter *f,
                                            au_adapter_row ***out, size_t *n, bool *has_more,
                                            au_err *err);
/* How the check against one model ended: "ready", or "rejected" with its report. AU_NOT_FOUND:
 * never checked. */
AU_MUST_CHECK au_status au_adapter_fit(au_db *db, au_arena *a, const char *adapter_id,
                                       const char *model_fingerprint, const char **status,
                                       const char **report, au_err *err);

/* ---- Samples
 * -------------------------------------------------------------------------------------------------
 */

typedef struct au_sample {
    const char *id, *job_id;
    int index, variant;
    uint64_t seed;
    const char *prompt_id, *prompt_text, *negative_text;
    const char *model_name, *model_fingerprint;
    const char *adapter_id, *adapter_name, *adapter_sha256; /* NULL: none */
    double strength;
    const char *params; /* JSON object */
    const char *format, *sha256, *pcm_sha256, *store_key;
    int sample_rate, channels;
    int64_t frames, bytes, clipped;
    double duration_s, loudness_lufs, true_peak_dbtp, peak; /* NaN: unknown (silence) */
    const char *recipe;                                     /* JSON object */
    const char *mini;                                       /* JSON array or NULL */
    const char *title, *tags;                               /* tags: JSON array */
    int64_t created_at, deleted_at;
    int64_t revision;
} au_sample;
AU_MUST_CHECK au_status au_sample_get(au_db *db, au_arena *a, const char *id, au_sample **out,
                                      au_err *err); /* deleted ones too */
/* Only what sending its sound needs, without joins: id, format, sha256, store_key, sample_rate,
 * bytes, deleted_at; the rest is zero. */
AU_MUST_CHECK au_status au_sample_get_sound(au_db *db, au_arena *a, const char *id, au_sample **out,
                                            au_err *err);
/* Its peaks as they are stored (au_peaks_pack), NULL: none are. AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_sample_peaks(au_db *db, au_arena *a, const char *id, char **out,
                                        au_err *err);
typedef struct au_sample_filter {
    const char *job_id, *prompt_id, *adapter_id, *model_name;
    const char *before_id;
    int limit;
} au_sample_filter;
AU_MUST_CHECK au_status au_sample_list(au_db *db, au_arena *a, const au_sample_filter *f,
                                       au_sample ***out, size_t *n, bool *has_more, au_err *err);

/* ---- Workers
 * -------------------------------------------------------------------------------------------------
 */

typedef struct au_worker_row {
    const char *id, *host;
    int64_t pid;
    const char *state;  /* "starting" | "ready" | "stopping" | "failed" | "gone" */
    const char *detail; /* why it is not ready; "" */
    const char *models; /* JSON array of names */
    int64_t started_at, seen_at;
} au_worker_row;
/* Those not gone. */
AU_MUST_CHECK au_status au_worker_row_list(au_db *db, au_arena *a, au_worker_row ***out, size_t *n,
                                           au_err *err);
/* Insert, or update of state, detail and seen_at. boot_id: of the kernel that the process runs
 * under. */
AU_MUST_CHECK au_status au_worker_row_put(au_db *db, const au_worker_row *w, const char *boot_id,
                                          au_err *err);

#endif
