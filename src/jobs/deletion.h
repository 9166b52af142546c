/* SPDX-License-Identifier: MIT */
/* Deleting, in two steps: a record is marked and answers "gone", and after the retention of
 * deletions its row goes. Objects are never deleted here: their keys are moved to `uploads`, which
 * the janitor sweeps, and tries again where the store failed.
 *
 * A sample, prompt or adapter that was deleted alone keeps its objects until its row goes (a sample
 * can be restored). With a job its audio goes at once, since nothing brings a job back.
 *
 * All inside a writing transaction (see job.h). */
#ifndef AU_JOBS_DELETION_H
#define AU_JOBS_DELETION_H

#include <stdbool.h>

#include "db/db.h"

/* The job, its samples and their audio; one that is active is cancelled first. *deleted false: it
 * was deleted before. AU_NOT_FOUND. au_janitor_kick sweeps the objects at once. */
AU_MUST_CHECK au_status au_job_delete(au_db *db, const char *id, bool *deleted, au_err *err);

/* *deleted false: it was deleted before. AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_sample_delete(au_db *db, const char *id, bool *deleted, au_err *err);
/* Undoes it. *restored false: it was not deleted. AU_NOT_FOUND, also when its job was deleted, and
 * its audio with it. */
AU_MUST_CHECK au_status au_sample_restore(au_db *db, const char *id, bool *restored, au_err *err);

/* Deletes jobs that finished at or before `unix_ms`, at most `limit`. *n: how many. */
AU_MUST_CHECK au_status au_jobs_retire(au_db *db, int64_t unix_ms, int limit, int *n, au_err *err);
/* Removes records that were deleted at or before `unix_ms`, at most `limit` of each kind: jobs that
 * are final, samples, and prompts and adapters that nothing names any more. *n: how many. */
AU_MUST_CHECK au_status au_purge_deleted(au_db *db, int64_t unix_ms, int limit, int *n,
                                         au_err *err);
/* A read: whether one of these two has something to do. retire_ms -1: never. */
AU_MUST_CHECK au_status au_purge_is_due(au_db *db, int64_t retire_ms, int64_t purge_ms, bool *due,
                                        au_err *err);

#endif
