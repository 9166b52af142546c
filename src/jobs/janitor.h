/* SPDX-License-Identifier: MIT */
/* Everything that time does to jobs, in one thread of the server: leases that ran out, cancelled
 * jobs whose worker is gone, deadlines, stalls, and objects that nobody owns. Runs every
 * limits->janitor_ms, or when kicked. Writes through the writer. */
#ifndef AU_JOBS_JANITOR_H
#define AU_JOBS_JANITOR_H

#include "db/writer.h"
#include "jobs/limits.h"
#include "store/store.h"

typedef struct au_janitor au_janitor;

typedef struct au_janitor_config {
    const char *db_url;   /* for its own reading connection */
    const char *data_dir; /* workers/ with the lock files */
    au_writer *writer;    /* borrowed until au_janitor_free */
    au_store *store;      /* likewise */
    au_limits limits;
    /* A job made no progress and its attempt is ended: end the worker (the supervisor does). May be
     * NULL. */
    void (*on_stalled)(void *user, const char *worker_id);
    void *user;
} au_janitor_config;

/* Start-up recovery (transition 15), before anything listens: jobs of workers whose lock file is
 * free are queued again, cancelled ones cleaned, leftovers swept. *n: jobs put back. Call while
 * holding the server's lock. */
AU_MUST_CHECK au_status au_janitor_recover(const au_janitor_config *config, int *n, au_err *err);

AU_MUST_CHECK au_status au_janitor_new(au_janitor **out, const au_janitor_config *config,
                                       au_err *err); /* starts the thread */
void au_janitor_kick(au_janitor *j);  /* run now; any thread, also the writer's callbacks */
void au_janitor_free(au_janitor **j); /* joins */

/* One round, for tests and for `recover`: what the thread does each time. `full` also looks for
 * objects without a row. */
AU_MUST_CHECK au_status au_janitor_round(const au_janitor_config *config, au_db *reader, bool full,
                                         au_err *err);

#endif
