/* SPDX-License-Identifier: MIT */
/* Other formats and rates of a sample: rows that own objects of their own. An object's key is
 * listed in uploads before it is written, as everywhere; a rendition ends with its sample
 * (au_job_drop_samples, or the janitor, which finds its object without a row).
 *
 * Functions that write take a connection inside a transaction. */
#ifndef AU_JOBS_RENDITIONS_H
#define AU_JOBS_RENDITIONS_H

#include "base/arena.h"
#include "db/db.h"

/* Name of the format of a WAV without tags, which tells nothing of where it comes from. */
#define AU_RENDITION_BARE "bare"

typedef struct au_rendition {
    const char *sample_id, *format, *store_key, *sha256; /* format: a name of au_format, or bare */
    int sample_rate; /* that was asked for: the sample's own, where none was */
    int64_t bytes;
} au_rendition;

/* *out NULL: there is none. */
AU_MUST_CHECK au_status au_rendition_get(au_db *db, au_arena *a, const char *sample_id,
                                         const char *format, int sample_rate, au_rendition **out,
                                         au_err *err);
/* Before its object is written. */
AU_MUST_CHECK au_status au_rendition_begin(au_db *db, const char *store_key, au_err *err);
/* Its object is in the store. *kept false: the sample is gone or somebody was first; the key stays
 * in uploads until the caller has removed the object (au_upload_drop). */
AU_MUST_CHECK au_status au_rendition_commit(au_db *db, const au_rendition *r, bool *kept,
                                            au_err *err);

/* Peaks of a sample that has none (au_peaks_of_clip). */
AU_MUST_CHECK au_status au_sample_set_peaks(au_db *db, const char *sample_id, const char *peaks,
                                            const char *mini, au_err *err);

#endif
