/* SPDX-License-Identifier: MIT */
/* Starts worker processes (fork + exec of this binary), watches them, puts the job of a dead one
 * back at once, and restarts it with a back-off (limits.restart_ms), doubled and jittered, reset
 * after a minute of life. One thread. */
#ifndef AU_JOBS_SUPERVISOR_H
#define AU_JOBS_SUPERVISOR_H

#include "db/writer.h"
#include "jobs/limits.h"

typedef struct au_supervisor au_supervisor;

typedef struct au_supervisor_config {
    int n_workers;
    /* argv of a worker from the command's name on: {"aulos", "worker", "--data", DIR, ..., NULL};
     * borrowed until free. The supervisor appends
     * "--worker-id", ID, "--parent-fd", FD, where FD reads end-of-file when the server is gone. */
    const char *const *argv;
    const char *exe; /* NULL: /proc/self/exe */
    au_writer *writer;
    au_limits limits;
    void (*on_requeued)(void *user); /* a dead worker's jobs were put back or ended (kick the
                                        janitor); may be NULL */
    void *user;
} au_supervisor_config;

AU_MUST_CHECK au_status au_supervisor_new(au_supervisor **out, const au_supervisor_config *config,
                                          au_err *err);
/* For readiness: how many workers are alive, and why the last one ended that could not start ("" if
 * none). `why` holds `size` bytes, or is NULL. */
int au_supervisor_alive(au_supervisor *s, char *why, size_t size);
/* SIGKILL to the worker of that id, if it is one of ours. Any thread. */
void au_supervisor_kill(au_supervisor *s, const char *worker_id);
/* SIGTERM to all, no restarts from here. Any thread; returns at once. */
void au_supervisor_stop(au_supervisor *s);
/* stop, waits for the grace period and a little more, then SIGKILL; joins. `at_once`: no grace. */
void au_supervisor_free(au_supervisor **s, bool at_once);

#endif
