/* SPDX-License-Identifier: MIT */
/* The one thread of a server that writes to the database. Requests from any thread are queued and
 * committed in groups: one transaction and one fsync for all that wait, a savepoint each, so that a
 * failing request undoes itself alone.
 *
 * Callbacks run on the writer thread. `fn` runs inside the transaction and may be run again only if
 * its group was rolled back before any `done`; it does no I/O beside the database. `done` runs
 * after the commit is on the disk (or has failed), exactly once per accepted request, and must not
 * block or call au_writer_run. At shutdown everything accepted is still executed, and done is
 * called. */
#ifndef AU_DB_WRITER_H
#define AU_DB_WRITER_H

#include "db/db.h"

typedef struct au_writer au_writer;
typedef au_status (*au_write_fn)(au_db *db, void *arg, au_err *err);
typedef void (*au_write_done_fn)(void *arg, au_status status,
                                 const au_err *err); /* err is valid when status is not AU_OK */

/* Opens its own connection to `url` and starts the thread. queue_max 0: 4096 waiting requests. */
AU_MUST_CHECK au_status au_writer_new(au_writer **out, const char *url, size_t queue_max,
                                      au_err *err);
/* Executes what is queued, joins, closes. NULL is fine. */
void au_writer_free(au_writer **w);

/* Rises with each commit, before the `done` of its requests: who keeps what it read can tell that
 * the writer has changed nothing since. At least 1. Any thread. */
uint64_t au_writer_commits(const au_writer *w);
/* `on_commit` (NULL: nobody) is called on the writer thread after each commit, before the `done` of
 * its requests. It must not block. When this returns, the one that was set before is not running
 * any more. Any thread. */
void au_writer_on_commit(au_writer *w, void (*on_commit)(void *user), void *user);

/* Returns at once. `arg` is borrowed until done returns. AU_LIMIT when the queue is full: then
 * neither callback is called. */
AU_MUST_CHECK au_status au_writer_submit(au_writer *w, au_write_fn fn, void *arg,
                                         au_write_done_fn done, au_err *err);
/* The same, but waits for the commit: for threads that may block (janitor, supervisor, start-up,
 * command line). */
AU_MUST_CHECK au_status au_writer_run(au_writer *w, au_write_fn fn, void *arg, au_err *err);

#endif
