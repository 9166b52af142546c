/* SPDX-License-Identifier: MIT */
/* The intake: one thread of a server that does what is slow about uploaded adapters. It unpacks and
 * hashes what was sent, copies it into the store, and checks it against the models.
 *
 * A row "validating" is the order to check it: it is found again at the next start, so a crash in
 * the middle costs nothing but the time. Orders of clients come before checks, since somebody waits
 * for them. */
#ifndef AU_JOBS_INTAKE_H
#define AU_JOBS_INTAKE_H

#include "db/writer.h"
#include "jobs/registry.h"
#include "store/store.h"

typedef struct au_intake au_intake;

typedef struct au_intake_config { /* all borrowed until au_intake_free */
    const char *db_url;           /* for its own reading connection */
    au_registry *registry;
    au_writer *writer;
    au_store *store;
} au_intake_config;

/* Starts the thread, which begins with the rows that an earlier server left "validating" and the
 * ready ones that were never checked against one of the models. */
AU_MUST_CHECK au_status au_intake_new(au_intake **out, const au_intake_config *config, au_err *err);
/* Does the orders of clients that wait, leaves checks for the next start, joins. NULL is fine. */
void au_intake_free(au_intake **intake);

/* Runs work(arg) on the thread; any thread may ask. AU_NOMEM. */
AU_MUST_CHECK au_status au_intake_run(au_intake *i, void (*work)(void *arg), void *arg,
                                      au_err *err);
/* Looks for rows to check; any thread, also the writer's callbacks. */
void au_intake_kick(au_intake *i);
/* Removes the copy of a content that no row came to own. On the thread itself. */
void au_intake_discard(au_intake *i, const char *sha256);

/* ---- For tests ---- */

/* Checks one row "validating" or "ready" now, on the calling thread. */
AU_MUST_CHECK au_status au_intake_check(const au_intake_config *config, au_db *reader,
                                        const char *id, au_err *err);

#endif
