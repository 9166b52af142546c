/* SPDX-License-Identifier: MIT */
/* `aulos serve`: one process with HTTP threads, the database writer, the janitor and the supervisor
 * of the worker processes. It computes nothing itself. */
#ifndef AU_API_SERVE_H
#define AU_API_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* All strings and arrays are borrowed for the call. Fill with au_serve_config_init, then change
 * what is asked for. */
typedef struct au_serve_config {
    const char *data_dir;      /* "./aulos-data"; created when missing */
    const char *listen;        /* "127.0.0.1:8080"; "[::1]:0"; port 0 takes a free one */
    const char *const *models; /* folders, at least one; the first is the default */
    size_t n_models;
    const char *adapters_dir;      /* NULL: each model's adapters/ and <data>/adapters-in */
    int workers;                   /* worker processes; 0: this node only serves */
    int threads;                   /* engine threads of a worker; 0: its own default */
    uint64_t session_memory_bytes; /* of a worker; 0: its own default */
    int models_loaded;             /* models a worker keeps open */
    int max_batch;                 /* rows up to which a worker lets further jobs join */
    int64_t lease_ms, heartbeat_ms, stall_ms, restart_ms;
    int64_t shutdown_grace_ms;    /* for requests and workers after SIGTERM */
    int64_t queue_limit;          /* waiting jobs; beyond: 429 */
    int64_t retention_ms;         /* of finished jobs and their samples; -1: never removed */
    int64_t deleted_retention_ms; /* of soft-deleted records */
    int64_t header_timeout_ms;    /* absolute, from the first byte of a request */
    uint64_t min_free_disk_bytes; /* below: 507 */
    int max_samples;              /* num_samples x variants of a job */
    double max_duration_s;        /* 0: the model's trained length, at least 30 s */
    size_t max_body_bytes;        /* of a JSON request; beyond: 413 */
    uint64_t max_upload_bytes;    /* of an adapter, as sent and unpacked; beyond: 413 */
    int max_connections;          /* beyond: 503 */
    int http_threads;             /* 1 ... 64 */
    bool auth_required;           /* a key also for clients on this host */
    bool insecure_no_auth;        /* listen on other than loopback addresses without keys */
    const char *base_path;      /* "/aulos", what a proxy puts before paths; NULL or "": nothing */
    const char *log_level;      /* of the workers; NULL: their default */
    bool webhook_allow_private; /* webhooks may go to addresses that are not public */
    int64_t webhook_timeout_ms, webhook_backoff_ms;
    const char *allowed_hosts; /* comma-separated host names accepted in Host and Origin, or NULL */
} au_serve_config;

void au_serve_config_init(au_serve_config *config);

/* Runs until SIGTERM or SIGINT (a second one ends at once) and returns AU_OK after a graceful
 * shutdown. Everything is checked before it listens: a wrong option is AU_INVALID, a data folder
 * that another server owns AU_CONFLICT with its pid. Once requests are accepted it prints
 * `listening on http://HOST:PORT` on standard output. SIGHUP looks for adapters again. Call once,
 * from the main thread, before other threads exist (signals are blocked in all threads and taken by
 * sigwait). */
AU_MUST_CHECK au_status au_serve(const au_serve_config *config, au_err *err);

#endif
