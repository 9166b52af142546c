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

/* How a change of one record ended; an unknown id is AU_NOT_FOUND. */
typedef enum au_change {
    AU_CHANGE_DONE,
    AU_CHANGE_NOTHING, /* it was so already */
    AU_CHANGE_GONE,    /* deleted before */
    AU_CHANGE_STALE,   /* not any more what the caller had seen */
} au_change;

/* ---- Pages and searches --------------------------------------------------------------------- */

/* A place in a list: the value that it is ordered by, a whole number or a real one, and the id. */
typedef struct au_place {
    int64_t number;
    double real;
    const char *id;
} au_place;

enum { AU_SEARCH_MAX_CHARS = 200, AU_SEARCH_MAX_WORDS = 16, AU_SEARCH_WORDS = 4096 };
/* A text that somebody types into a search field, as the index wants it: each word the beginning of
 * a word, all of them there. out[AU_SEARCH_WORDS]; text is valid UTF-8 of at most
 * AU_SEARCH_MAX_CHARS. False: more than AU_SEARCH_MAX_WORDS words. A text without any word finds
 * nothing. */
bool au_search_words(char *out, const char *text);

/* ---- Prompts
 * -------------------------------------------------------------------------------------------------
 */

typedef struct au_prompt {
    const char *id, *text, *negative_text; /* negative NULL: none */
    const char *attributes;                /* JSON object */
    const char *title;
    int64_t created_at, deleted_at;
    int64_t doc; /* its number among what a search found; 0: no search */
} au_prompt;
/* negative, attributes and title may be NULL. Always a new record. id_out [AU_UUID_TEXT]. Tells
 * nobody: the prompt of a job is made with the job, whose event tells enough. */
AU_MUST_CHECK au_status au_prompt_create(au_db *db, const char *text, const char *negative,
                                         const char *attributes, const char *title, char *id_out,
                                         au_err *err);
AU_MUST_CHECK au_status au_prompt_find_or_create(au_db *db, const char *text, const char *negative,
                                                 char *id_out, bool *made, au_err *err);
AU_MUST_CHECK au_status au_prompt_get(au_db *db, au_arena *a, const char *id, au_prompt **out,
                                      au_err *err); /* deleted ones too */
typedef struct au_prompt_filter {
    const char *words;                     /* of au_search_words; NULL: any */
    const char *attributes;                /* JSON object: each member is an attribute's value, or
                                              one of its list; NULL: any */
    int64_t created_after, created_before; /* 0: any */
    bool oldest_first;
    const au_place *after; /* the last one of the page before; NULL: from the beginning */
    int limit;             /* 0: 20 */
} au_prompt_filter;
AU_MUST_CHECK au_status au_prompt_list(au_db *db, au_arena *a, const au_prompt_filter *f,
                                       au_prompt ***out, size_t *n, bool *has_more, au_err *err);
AU_MUST_CHECK au_status au_prompt_count(au_db *db, const au_prompt_filter *f, int64_t *n,
                                        au_err *err);
/* Where the page after the one that ends with this prompt begins. */
au_place au_prompt_place(const au_prompt_filter *f, const au_prompt *last);
/* title, attributes: NULL leaves them as they are. was: nothing is changed unless it still is so;
 * NULL: whatever it is. */
AU_MUST_CHECK au_status au_prompt_change(au_db *db, const char *id, const char *title,
                                         const char *attributes, const au_prompt *was,
                                         au_change *out, au_err *err);
AU_MUST_CHECK au_status au_prompt_delete(au_db *db, const char *id, const au_prompt *was,
                                         au_change *out, au_err *err); /* soft */
AU_MUST_CHECK au_status au_prompt_restore(au_db *db, const char *id, au_change *out, au_err *err);

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
    int rating;                                             /* 1 ... 5; 0: none */
    bool starred;
    int64_t created_at, deleted_at;
    int64_t revision;
    int64_t doc; /* its number among what a search found; 0: no search */
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
typedef enum au_sample_sort {
    AU_SORT_NEWEST,
    AU_SORT_OLDEST,
    AU_SORT_RATING, /* best first */
    AU_SORT_LONGEST,
    AU_SORT_SHORTEST,
} au_sample_sort;
enum { AU_SORT_COUNT = AU_SORT_SHORTEST + 1 };

typedef struct au_sample_filter {
    const char *job_id, *prompt_id, *adapter_id, *model_name, *tag;
    const char *words;                     /* of au_search_words; NULL: any */
    int starred;                           /* 1: with a star; -1: without; 0: any */
    int min_rating;                        /* 0: any */
    int64_t created_after, created_before; /* 0: any */
    au_sample_sort sort;
    const au_place *after; /* the last one of the page before; NULL: from the beginning */
    int limit;             /* 0: 20 */
    bool rows;             /* only what a row of a list shows is read: see au_sample_row_json */
} au_sample_filter;
AU_MUST_CHECK au_status au_sample_list(au_db *db, au_arena *a, const au_sample_filter *f,
                                       au_sample ***out, size_t *n, bool *has_more, au_err *err);
/* Of all pages. */
AU_MUST_CHECK au_status au_sample_count(au_db *db, const au_sample_filter *f, int64_t *n,
                                        au_err *err);
/* Where the page after the one that ends with this sample begins. */
au_place au_sample_place(const au_sample_filter *f, const au_sample *last);

typedef struct au_sample_edit {
    const char *title, *tags; /* tags: JSON array of texts; NULL leaves them as they are */
    int rating;               /* 1 ... 5; 0: none; -1: as it is */
    int starred;              /* 0, 1; -1: as it is */
} au_sample_edit;
/* revision: nothing is changed unless that is its revision; 0: whatever it is. Deleting and
 * restoring is in deletion.h. */
AU_MUST_CHECK au_status au_sample_change(au_db *db, const char *id, const au_sample_edit *edit,
                                         int64_t revision, au_change *out, au_err *err);
/* DONE: a change by somebody who has seen this revision (0: any) may go ahead. */
AU_MUST_CHECK au_status au_sample_look(au_db *db, const char *id, int64_t revision, au_change *out,
                                       au_err *err);

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
