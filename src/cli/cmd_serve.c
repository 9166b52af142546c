/* SPDX-License-Identifier: MIT */
/* `aulos serve` and `aulos worker`: from options to the configurations that api/ and jobs/ take.
 * Models are resolved to folders here; a worker gets folders from serve. */
#include <stdlib.h>
#include <string.h>

#include "api/serve.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/model_path.h"
#include "jobs/worker.h"

static au_status check_common(const au_options *o, au_err *err)
{
    au_log_level level = AU_LOG_INFO;
    if (au_options_n_args(o))
        return au_fail(err, AU_INVALID, "unexpected argument %s", au_options_arg(o, 0));
    if (2 * au_options_int(o, AU_OPT_HEARTBEAT_MS) >= au_options_int(o, AU_OPT_LEASE_MS))
        return au_fail(
            err, AU_INVALID,
            "option --heartbeat-ms is %lld, expected less than half of --lease-ms (%lld)",
            (long long)au_options_int(o, AU_OPT_HEARTBEAT_MS),
            (long long)au_options_int(o, AU_OPT_LEASE_MS));
    AU_ASSERT(au_log_parse_level(au_options_text(o, AU_OPT_LOG_LEVEL), &level));
    au_log_set_level(level);
    return AU_OK;
}

/* The form alone, so that a slip is wrong usage whatever else is missing; the server resolves the
 * address. */
static au_status check_listen(const char *listen, au_err *err)
{
    const char *colon = strrchr(listen, ':');
    uint64_t port;
    if (!colon || colon == listen || !au_parse_u64(colon + 1, &port) || port > 65535)
        return au_fail(err, AU_INVALID, "option --listen is \"%s\", expected ADDRESS:PORT", listen);
    return AU_OK;
}

/* Segments of plain characters, so that it stands in a URL, a header and a cookie as it is. */
static au_status check_base_path(const char *path, au_err *err)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    if (!path || !*path)
        return AU_OK;
    const char *p = path;
    while (*p == '/' && p[1] != '.' && strspn(p + 1, plain) > 0)
        p += 1 + strspn(p + 1, plain);
    if (*p || strlen(path) > 200 || strcmp(path, "/v1") == 0 || au_str_starts(path, "/v1/"))
        return au_fail(err, AU_INVALID,
                       "option --base-path is \"%s\", expected /NAME or /NAME/NAME, not /v1", path);
    return AU_OK;
}

static int finish(au_status st, const au_err *err)
{
    if (st == AU_OK)
        return AU_EXIT_OK;
    return au_cli_error(err, st == AU_INVALID ? AU_EXIT_USAGE : AU_EXIT_FAILED);
}

int au_command_serve(const au_options *o)
{
    au_serve_config c;
    char **models = NULL;
    size_t n_models = 0;
    au_err err_details = {0}, *err = &err_details;
    au_status st = AU_OK;
    AU_TRY(check_common(o, err));
    AU_TRY(check_listen(au_options_text(o, AU_OPT_LISTEN), err));
    AU_TRY(check_base_path(au_options_text(o, AU_OPT_BASE_PATH), err));
    AU_TRY(au_model_path_all(o, &models, &n_models, err));
    au_serve_config_init(&c);
    c.data_dir = au_options_text(o, AU_OPT_DATA);
    c.listen = au_options_text(o, AU_OPT_LISTEN);
    c.models = (const char *const *)models;
    c.n_models = n_models;
    c.adapters_dir = au_options_text(o, AU_OPT_ADAPTERS);
    c.workers = (int)au_options_int(o, AU_OPT_WORKERS);
    c.threads = (int)au_options_int(o, AU_OPT_THREADS);
    c.session_memory_bytes = (uint64_t)au_options_int(o, AU_OPT_SESSION_MEMORY);
    c.models_loaded = (int)au_options_int(o, AU_OPT_MODELS_LOADED);
    c.max_batch = (int)au_options_int(o, AU_OPT_MAX_BATCH);
    c.lease_ms = au_options_int(o, AU_OPT_LEASE_MS);
    c.heartbeat_ms = au_options_int(o, AU_OPT_HEARTBEAT_MS);
    c.stall_ms = au_options_int(o, AU_OPT_STALL_MS);
    c.restart_ms = au_options_int(o, AU_OPT_RESTART_MS);
    c.shutdown_grace_ms = au_options_int(o, AU_OPT_SHUTDOWN_GRACE_MS);
    c.queue_limit = au_options_int(o, AU_OPT_QUEUE_LIMIT);
    c.retention_ms = au_options_int(o, AU_OPT_RETENTION);
    c.deleted_retention_ms = au_options_int(o, AU_OPT_DELETED_RETENTION);
    c.header_timeout_ms = au_options_int(o, AU_OPT_HEADER_TIMEOUT_MS);
    c.min_free_disk_bytes = (uint64_t)au_options_int(o, AU_OPT_MIN_FREE_DISK);
    c.max_samples = (int)au_options_int(o, AU_OPT_MAX_SAMPLES);
    c.max_duration_s = au_options_real(o, AU_OPT_MAX_DURATION);
    c.max_body_bytes = (size_t)au_options_int(o, AU_OPT_MAX_BODY);
    c.max_upload_bytes = (uint64_t)au_options_int(o, AU_OPT_MAX_UPLOAD);
    c.max_connections = (int)au_options_int(o, AU_OPT_MAX_CONNECTIONS);
    c.http_threads = (int)au_options_int(o, AU_OPT_HTTP_THREADS);
    c.auth_required = strcmp(au_options_text(o, AU_OPT_AUTH), "required") == 0;
    c.base_path = au_options_text(o, AU_OPT_BASE_PATH);
    c.insecure_no_auth = au_options_flag(o, AU_OPT_INSECURE_NO_AUTH);
    c.log_level = au_options_text(o, AU_OPT_LOG_LEVEL);
    c.webhook_allow_private = au_options_flag(o, AU_OPT_WEBHOOK_ALLOW_PRIVATE);
    c.webhook_timeout_ms = au_options_int(o, AU_OPT_WEBHOOK_TIMEOUT_MS);
    c.webhook_backoff_ms = au_options_int(o, AU_OPT_WEBHOOK_BACKOFF_MS);
    c.allowed_hosts = au_options_text(o, AU_OPT_ALLOWED_HOSTS);
    AU_TRY(au_serve(&c, err));
done:
    au_model_path_free_list(&models, n_models);
    return finish(st, err);
}

int au_command_worker(const au_options *o)
{
    au_worker_config c;
    au_model_spec *specs = NULL;
    char **models = NULL;
    size_t n_models = 0;
    au_err err_details = {0}, *err = &err_details;
    au_status st = AU_OK;
    AU_TRY(check_common(o, err));
    AU_TRY(au_model_path_all(o, &models, &n_models, err));
    AU_TRY(au_calloc(&specs, n_models, sizeof *specs, err));
    for (size_t i = 0; i < n_models; i++)
        specs[i].dir = models[i];
    au_worker_config_init(&c);
    c.data_dir = au_options_text(o, AU_OPT_DATA);
    c.worker_id = au_options_text(o, AU_OPT_WORKER_ID);
    if (au_options_given(o, AU_OPT_PARENT_FD))
        c.parent_fd = (int)au_options_int(o, AU_OPT_PARENT_FD);
    c.models = specs;
    c.n_models = n_models;
    c.threads = (int)au_options_int(o, AU_OPT_THREADS);
    c.session_memory = (uint64_t)au_options_int(o, AU_OPT_SESSION_MEMORY);
    c.models_loaded = (int)au_options_int(o, AU_OPT_MODELS_LOADED);
    c.max_batch = (int)au_options_int(o, AU_OPT_MAX_BATCH);
    c.once = au_options_flag(o, AU_OPT_ONCE);
    c.limits.lease_ms = au_options_int(o, AU_OPT_LEASE_MS);
    c.limits.heartbeat_ms = au_options_int(o, AU_OPT_HEARTBEAT_MS);
    c.limits.stall_ms = au_options_int(o, AU_OPT_STALL_MS);
    c.limits.shutdown_grace_ms = au_options_int(o, AU_OPT_SHUTDOWN_GRACE_MS);
    AU_TRY(au_worker_run(&c, err));
done:
    free(specs);
    au_model_path_free_list(&models, n_models);
    return finish(st, err);
}
