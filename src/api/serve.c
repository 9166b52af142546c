/* SPDX-License-Identifier: MIT */
/* The life of a server: the lock of the data folder, database and store, models and adapters,
 * recovery, janitor, HTTP, workers; then signals until the end. Parts are made in the order in
 * which they need each other and ended the other way round: HTTP before the writer, since pending
 * requests wait for it. Everything here runs on the main thread; the other threads find the parts
 * in au_api, which does not change after start but for its atomics. */
#include "api/serve.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "api/api.h"
#include "api/media.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "jobs/adapter_staging.h"

enum {
    IDLE_TIMEOUT_MS = 60000, /* kept connections, and clients that do not read */
    STOP_POLL_MS = 20,
    WORKER_MARGIN_MS = 3000, /* beyond their grace period, for handing back */
    HTTP_GRACE_MS = 5000,    /* for requests under way once the workers are gone */
    WORKER_ARGS = 32,
    NUMBER_TEXT = 24,
};

void au_serve_config_init(au_serve_config *config)
{
    au_limits limits;
    au_limits_init(&limits);
    *config = (au_serve_config){
        .data_dir = "./aulos-data",
        .listen = "127.0.0.1:8080",
        .workers = 1,
        .models_loaded = 1,
        .max_batch = 8,
        .lease_ms = limits.lease_ms,
        .heartbeat_ms = limits.heartbeat_ms,
        .stall_ms = limits.stall_ms,
        .restart_ms = limits.restart_ms,
        .shutdown_grace_ms = limits.shutdown_grace_ms,
        .queue_limit = limits.queue_limit,
        .retention_ms = -1,
        .deleted_retention_ms = INT64_C(86400000),
        .header_timeout_ms = 10000,
        .min_free_disk_bytes = limits.min_free_disk,
        .webhook_timeout_ms = 15000,
        .webhook_backoff_ms = 5000,
        .max_samples = 16,
        .max_body_bytes = 1 << 20,
        .max_upload_bytes = 512 << 20,
        .max_connections = 1000,
        .http_threads = 2,
    };
}

typedef struct serve {
    const au_serve_config *config;
    au_api api;
    int lock_fd;
    char *db_path, *objects_dir;
    au_db *reader; /* of the main thread, for scans of adapters */
    char **adapter_dirs;
    size_t n_adapter_dirs;
    au_model_spec *models;
    au_http_server *http;
    const char **worker_argv;
    char (*numbers)[NUMBER_TEXT]; /* texts of numbers in worker_argv */
    size_t n_args, n_numbers;
} serve;

/* ---- What the parts tell each other ---- */

static void on_stalled(void *user, const char *worker_id)
{
    au_api *api = user;
    au_supervisor *supervisor = atomic_load(&api->supervisor);
    if (supervisor)
        au_supervisor_kill(supervisor, worker_id);
}

static void on_requeued(void *user)
{
    au_api *api = user;
    au_janitor_kick(api->janitor);
}

static au_status begin_http_thread(void *user, void **state, au_err *err)
{
    serve *s = (serve *)((char *)user - offsetof(serve, api));
    const au_db_options options = {.read_only = true};
    return au_db_open((au_db **)state, s->db_path, &options, err);
}

static void end_http_thread(void *user, void *state)
{
    (void)user;
    au_db *db = state;
    au_db_close(&db);
}

/* ---- Start ---- */

static au_status check_config(const au_serve_config *c, au_err *err)
{
    au_status st = AU_OK;
    AU_FAIL_IF(c->n_models < 1, AU_INVALID, "no model is given");
    AU_FAIL_IF(c->workers < 0 || c->http_threads < 1 || c->http_threads > 64 ||
                   c->max_connections < 1 || c->max_samples < 1,
               AU_INVALID, "a count of the server's configuration is out of range");
    AU_FAIL_IF(c->heartbeat_ms * 2 > c->lease_ms, AU_INVALID,
               "heartbeat of %lld ms, expected less than half of the lease of %lld ms",
               (long long)c->heartbeat_ms, (long long)c->lease_ms);
done:
    return st;
}

/* The queue may be short of descriptors before it is short of anything else. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            au_log(AU_LOG_WARN, "serve", "the limit of open files stays as it is");
    }
}

static au_status open_data(serve *s, au_err *err)
{
    char *lock = NULL, *workers = NULL;
    au_status st = AU_OK;
    const char *dir = s->config->data_dir;
    AU_TRY(au_mkdirs(dir, err));
    AU_TRY(au_path_join(&lock, dir, "server.lock", err));
    st = au_lock_file(&s->lock_fd, lock, err);
    if (st == AU_CONFLICT)
        st = au_err_prefix(err, st, "the folder %s belongs to another server", dir);
    AU_TRY(st);
    AU_TRY(au_path_join(&workers, dir, "workers", err));
    AU_TRY(au_mkdirs(workers, err));
    AU_TRY(au_path_join(&s->db_path, dir, "aulos.db", err));
    AU_TRY(au_path_join(&s->objects_dir, dir, "objects", err));
    AU_TRY(au_db_migrate(s->db_path, err));
    AU_TRY(au_store_open(&s->api.store, s->objects_dir, err));
    AU_TRY(au_writer_new(&s->api.writer, s->db_path, 0, err));
    const au_db_options options = {.read_only = true};
    AU_TRY(au_db_open(&s->reader, s->db_path, &options, err));
done:
    free(lock);
    free(workers);
    return st;
}

static au_status list_adapter_dirs(serve *s, au_err *err)
{
    au_status st = AU_OK;
    const au_serve_config *c = s->config;
    AU_TRY(au_calloc(&s->adapter_dirs, c->n_models + 1, sizeof *s->adapter_dirs, err));
    if (c->adapters_dir) {
        AU_FAIL_IF(!au_dir_exists(c->adapters_dir), AU_NOT_FOUND,
                   "the folder %s with adapters does not exist", c->adapters_dir);
        AU_TRY(au_strdup(&s->adapter_dirs[0], c->adapters_dir, err));
        s->n_adapter_dirs = 1;
        goto done;
    }
    for (size_t i = 0; i < c->n_models; i++, s->n_adapter_dirs++)
        AU_TRY(au_path_join(&s->adapter_dirs[i], c->models[i], "adapters", err));
    AU_TRY(au_path_join(&s->adapter_dirs[c->n_models], c->data_dir, "adapters-in", err));
    s->n_adapter_dirs++;
done:
    return st;
}

static au_status scan_adapters(serve *s, au_err *err)
{
    return au_registry_scan(s->api.registry, (const char *const *)s->adapter_dirs,
                            s->n_adapter_dirs, s->reader, s->api.writer, s->api.store, err);
}

static au_status open_models(serve *s, au_err *err)
{
    au_status st = AU_OK;
    const au_serve_config *c = s->config;
    AU_TRY(au_calloc(&s->models, c->n_models, sizeof *s->models, err));
    for (size_t i = 0; i < c->n_models; i++)
        s->models[i].dir = c->models[i];
    AU_TRY(au_registry_open(&s->api.registry, s->models, c->n_models, s->api.writer, err));
    AU_TRY(list_adapter_dirs(s, err));
    AU_TRY(scan_adapters(s, err));
done:
    return st;
}

static au_status start_janitor(serve *s, au_err *err)
{
    au_status st = AU_OK;
    int n = 0;
    const au_janitor_config config = {.db_url = s->db_path,
                                      .data_dir = s->config->data_dir,
                                      .writer = s->api.writer,
                                      .store = s->api.store,
                                      .limits = s->api.limits,
                                      .on_stalled = on_stalled,
                                      .user = &s->api};
    AU_TRY(au_janitor_recover(&config, &n, err));
    if (n)
        au_log(AU_LOG_INFO, "serve", "jobs of the last run put back n=%d", n);
    AU_TRY(au_janitor_new(&s->api.janitor, &config, err));
done:
    return st;
}

/* The secret is made by the first start, or by the first key that was made before. */
static au_status load_secret(au_db *db, void *arg, au_err *err)
{
    serve *s = arg;
    au_status st = au_keys_purge(db, au_time_ms() - s->config->deleted_retention_ms, err);
    return st == AU_OK ? au_server_secret(s->api.auth.secret, db, err) : st;
}

static au_status start_auth(serve *s, int64_t *n_keys, au_err *err)
{
    au_status st = AU_OK;
    s->api.auth.key_required = s->config->auth_required;
    s->api.auth.open_remote = s->config->insecure_no_auth;
    AU_TRY(au_writer_run(s->api.writer, load_secret, s, err));
    AU_TRY(au_key_count(n_keys, s->reader, err));
done:
    return st;
}

static void wake_http(void *server)
{
    au_http_server_wake(server);
}

static au_status start_intake(serve *s, au_err *err)
{
    au_status st = AU_OK;
    const au_intake_config config = {.db_url = s->db_path,
                                     .registry = s->api.registry,
                                     .writer = s->api.writer,
                                     .store = s->api.store};
    AU_TRY(au_staging_sweep(s->config->data_dir, err));
    AU_TRY(au_intake_new(&s->api.intake, &config, err));
done:
    return st;
}

static au_status start_http(serve *s, au_err *err)
{
    const au_serve_config *c = s->config;
    int64_t n_keys = 0;
    au_status st = start_auth(s, &n_keys, err);
    if (st != AU_OK)
        return st;
    const au_http_config config = {.listen = c->listen,
                                   .routes = au_api_routes,
                                   .user = &s->api,
                                   .threads = c->http_threads,
                                   .max_connections = c->max_connections,
                                   .max_body_bytes = c->max_body_bytes,
                                   .max_upload_bytes = c->max_upload_bytes,
                                   .header_timeout_ms = c->header_timeout_ms,
                                   .idle_timeout_ms = IDLE_TIMEOUT_MS,
                                   .allow_remote = c->insecure_no_auth || n_keys > 0,
                                   .allowed_hosts = c->allowed_hosts,
                                   .base_path = c->base_path,
                                   .authorize = au_api_authorize,
                                   .before = au_api_before,
                                   .thread_begin = begin_http_thread,
                                   .thread_end = end_http_thread};
    AU_TRY(au_hub_new(&s->api.hub, s->db_path, config.base_path, err));
    au_writer_on_commit(s->api.writer, au_hub_changed, s->api.hub);
    AU_TRY(au_http_server_start(&s->http, &config, err));
    au_hub_on_news(s->api.hub, wake_http, s->http);
done:
    return st;
}

static void stop_http(serve *s, int64_t grace_ms)
{
    if (s->api.hub)
        au_hub_on_news(s->api.hub, NULL, NULL);
    au_http_server_stop(&s->http, grace_ms);
}

static void add_arg(serve *s, const char *name, const char *value)
{
    AU_ASSERT(s->n_args + 3 <= WORKER_ARGS + 2 * s->config->n_models);
    s->worker_argv[s->n_args++] = name;
    if (value)
        s->worker_argv[s->n_args++] = value;
}

static void add_number(serve *s, const char *name, int64_t value)
{
    char *text = s->numbers[s->n_numbers++];
    snprintf(text, NUMBER_TEXT, "%lld", (long long)value);
    add_arg(s, name, text);
}

static au_status start_workers(serve *s, au_err *err)
{
    au_status st = AU_OK;
    const au_serve_config *c = s->config;
    if (c->workers == 0)
        return AU_OK;
    AU_TRY(au_calloc(&s->worker_argv, WORKER_ARGS + 2 * c->n_models, sizeof *s->worker_argv, err));
    AU_TRY(au_calloc(&s->numbers, WORKER_ARGS, sizeof *s->numbers, err));
    add_arg(s, "aulos", "worker");
    add_arg(s, "--data", c->data_dir);
    for (size_t i = 0; i < c->n_models; i++)
        add_arg(s, "--model", c->models[i]);
    add_number(s, "--models-loaded", c->models_loaded);
    add_number(s, "--max-batch", c->max_batch);
    add_number(s, "--lease-ms", c->lease_ms);
    add_number(s, "--heartbeat-ms", c->heartbeat_ms);
    add_number(s, "--stall-ms", c->stall_ms);
    add_number(s, "--shutdown-grace-ms", c->shutdown_grace_ms);
    if (c->threads)
        add_number(s, "--threads", c->threads);
    if (c->session_memory_bytes)
        add_number(s, "--session-memory", (int64_t)c->session_memory_bytes);
    if (c->log_level)
        add_arg(s, "--log-level", c->log_level);
    const au_supervisor_config config = {.n_workers = c->workers,
                                         .argv = s->worker_argv,
                                         .writer = s->api.writer,
                                         .limits = s->api.limits,
                                         .on_requeued = on_requeued,
                                         .user = &s->api};
    au_supervisor *supervisor;
    AU_TRY(au_supervisor_new(&supervisor, &config, err));
    atomic_store(&s->api.supervisor, supervisor);
done:
    return st;
}

static au_status start(serve *s, au_err *err)
{
    au_status st = AU_OK;
    const au_serve_config *c = s->config;
    AU_TRY(check_config(c, err));
    s->api.started_at = au_time_ms();
    au_limits_init(&s->api.limits);
    s->api.limits.lease_ms = c->lease_ms;
    s->api.limits.heartbeat_ms = c->heartbeat_ms;
    s->api.limits.stall_ms = c->stall_ms;
    s->api.limits.restart_ms = c->restart_ms;
    s->api.limits.backoff_ms = c->restart_ms;
    s->api.limits.shutdown_grace_ms = c->shutdown_grace_ms;
    s->api.limits.queue_limit = c->queue_limit;
    s->api.limits.retention_ms = c->retention_ms;
    s->api.limits.deleted_retention_ms = c->deleted_retention_ms;
    s->api.limits.max_samples = c->max_samples;
    s->api.limits.min_free_disk = c->min_free_disk_bytes;
    raise_descriptor_limit();
    AU_TRY(open_data(s, err));
    AU_TRY(open_models(s, err));
    AU_TRY(start_janitor(s, err));
    AU_TRY(au_metrics_new(&s->api.metrics, s->reader, err));
    AU_TRY(au_media_new(&s->api.media,
                        &(au_media_config){.db_url = s->db_path,
                                           .writer = s->api.writer,
                                           .store = s->api.store,
                                           .min_free_disk = c->min_free_disk_bytes},
                        err));
    AU_TRY(start_intake(s, err));
    AU_TRY(au_sender_new(&s->api.sender,
                         &(au_sender_config){.db_url = s->db_path,
                                             .writer = s->api.writer,
                                             .allow_private = c->webhook_allow_private,
                                             .timeout_ms = c->webhook_timeout_ms,
                                             .backoff_ms = c->webhook_backoff_ms},
                         err));
    /* HTTP before the workers: an address that is taken must not cost the start of a worker. */
    AU_TRY(start_http(s, err));
    AU_TRY(start_workers(s, err));
    malloc_trim(0); /* what reading the models took */
done:
    return st;
}

/* ---- The end ---- */

/* Waits for the workers, still answering requests (readiness says no). True: a second signal asks
 * to end at once. */
static bool wait_for_workers(const au_api *api, const sigset_t *signals)
{
    au_supervisor *supervisor = atomic_load(&api->supervisor);
    int64_t until = au_mono_ms() + api->limits.shutdown_grace_ms + WORKER_MARGIN_MS;
    const struct timespec pause = {0, STOP_POLL_MS * 1000000L};
    while (supervisor && au_supervisor_alive(supervisor, NULL, 0) > 0 && au_mono_ms() < until) {
        int sig = sigtimedwait(signals, NULL, &pause);
        if (sig == SIGTERM || sig == SIGINT)
            return true;
    }
    return false;
}

static void stop(serve *s, const sigset_t *signals)
{
    bool at_once = false;
    au_supervisor *supervisor = atomic_load(&s->api.supervisor);
    atomic_store(&s->api.stopping, true);
    if (supervisor) {
        au_supervisor_stop(supervisor);
        at_once = wait_for_workers(&s->api, signals);
    }
    au_media_drain(s->api.media);
    stop_http(s, at_once ? 0 : HTTP_GRACE_MS);
    atomic_store(&s->api.supervisor, NULL);
    au_supervisor_free(&supervisor, at_once);
}

static void deinit(serve *s)
{
    stop_http(s, 0);
    au_sender_free(&s->api.sender);
    au_media_free(&s->api.media); /* its requests ended with HTTP; it writes through the writer */
    au_intake_free(&s->api.intake);
    au_metrics_free(&s->api.metrics);
    au_janitor_free(&s->api.janitor);
    au_registry_close(&s->api.registry);
    au_writer_free(&s->api.writer);
    au_hub_free(&s->api.hub); /* after the writer, which tells it of commits */
    au_db_close(&s->reader);
    au_store_close(&s->api.store);
    for (size_t i = 0; s->adapter_dirs && i <= s->config->n_models; i++)
        free(s->adapter_dirs[i]);
    free(s->adapter_dirs);
    free(s->models);
    free(s->worker_argv);
    free(s->numbers);
    free(s->db_path);
    free(s->objects_dir);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
}

static void run(serve *s, const sigset_t *signals)
{
    while (true) {
        int sig = sigwaitinfo(signals, NULL);
        if (sig == SIGTERM || sig == SIGINT)
            return;
        if (sig == SIGHUP) {
            au_err err;
            char text[512];
            if (scan_adapters(s, &err) == AU_OK)
                au_log(AU_LOG_INFO, "serve", "adapters read again");
            else
                au_log(AU_LOG_ERROR, "serve", "adapters could not be read again error=%s",
                       au_log_quote(text, sizeof text, err.message));
        }
    }
}

au_status au_serve(const au_serve_config *config, au_err *err)
{
    au_status st = AU_OK;
    serve s = {.config = config, .api.config = config, .lock_fd = -1};
    sigset_t signals, old;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, &old);
    signal(SIGPIPE, SIG_IGN);
    AU_TRY(start(&s, err));
    printf("listening on %s\n", au_http_server_url(s.http));
    fflush(stdout);
    run(&s, &signals);
    au_log(AU_LOG_INFO, "serve", "shutting down");
    stop(&s, &signals);
done:
    deinit(&s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return st;
}
