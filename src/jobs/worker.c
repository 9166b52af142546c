/* SPDX-License-Identifier: MIT */
/* A worker process from start to end: identity and lock file, database row, first model, the two
 * threads. The calling thread is the engine thread; the control thread (worker_control.c) has the
 * database connection while it lives, before and after that it is this thread's. */
#include "jobs/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/catalog.h"
#include "jobs/worker_priv.h"

enum { NICENESS = 5, MAX_NAMES_BYTES = 1 << 16 };
static const char OOM_SCORE[] = "300"; /* the kernel ends a worker before the server */

void au_worker_config_init(au_worker_config *config)
{
    *config = (au_worker_config){.parent_fd = -1, .lower_priority = true, .max_batch = 8};
    au_limits_init(&config->limits);
}

static void lower_priority(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, OOM_SCORE, sizeof OOM_SCORE - 1) > 0;
    if (fd >= 0)
        close(fd);
    if (getpriority(PRIO_PROCESS, 0) < NICENESS)
        done = setpriority(PRIO_PROCESS, 0, NICENESS) == 0 && done;
    if (!done)
        au_log(AU_LOG_WARN, "worker", "cannot lower the priority");
}

/* ---- Row and lock
 * ---------------------------------------------------------------------------------- */

typedef struct self {
    au_worker w;
    char *lock_path, *models_json;
    int lock_fd;
    char boot_id[64], host[256];
    const char *state;
    char detail[1024];
} self;

static au_status put_row(au_db *db, void *arg, au_err *err)
{
    self *s = arg;
    return au_worker_row_put(db,
                             &(au_worker_row){.id = s->w.id,
                                              .host = s->host,
                                              .pid = getpid(),
                                              .state = s->state,
                                              .detail = s->detail,
                                              .models = s->models_json},
                             s->boot_id, err);
}

/* While no control thread runs. */
static au_status write_row(self *s, const char *state, const char *detail, au_err *err)
{
    au_status st = AU_OK;
    s->state = state;
    snprintf(s->detail, sizeof s->detail, "%s", detail);
    AU_TRY(au_db_begin(s->w.db, AU_DB_RELAXED, err));
    AU_TRY(put_row(s->w.db, s, err));
    AU_TRY(au_db_commit(s->w.db, err));
done:
    au_db_rollback(s->w.db);
    return st;
}

static void read_boot_id(char *out, size_t size)
{
    char *text = NULL;
    size_t len;
    out[0] = 0;
    if (au_file_read(&text, &len, "/proc/sys/kernel/random/boot_id", size - 1, NULL) == AU_OK)
        snprintf(out, size, "%.36s", text);
    free(text);
}

static au_status name_models(self *s, au_err *err)
{
    const au_worker_config *c = s->w.config;
    json_t *list = json_array();
    au_status st = AU_OK;
    AU_TRY(au_calloc(&s->w.model_names, c->n_models, sizeof *s->w.model_names, err));
    for (size_t i = 0; i < c->n_models; i++) {
        const char *dir = c->models[i].dir;
        size_t end = strlen(dir), begin;
        while (end > 1 && dir[end - 1] == '/')
            end--;
        for (begin = end; begin > 0 && dir[begin - 1] != '/'; begin--)
            ;
        char *name =
            c->models[i].name ? strdup(c->models[i].name) : strndup(dir + begin, end - begin);
        AU_FAIL_IF(!name, AU_NOMEM, "out of memory");
        s->w.model_names[i] = name;
        AU_FAIL_IF(json_array_append_new(list, json_string(name)) != 0, AU_INVALID,
                   "name of model %s is not valid text", dir);
    }
    AU_TRY(au_json_text(&s->models_json, list, MAX_NAMES_BYTES, err));
done:
    json_decref(list);
    return st;
}

static au_status take_identity(self *s, au_err *err)
{
    const au_worker_config *c = s->w.config;
    char *dir = NULL;
    au_status st = AU_OK;
    if (c->worker_id) {
        AU_FAIL_IF(!au_uuid_valid(c->worker_id), AU_INVALID, "worker id %.60s is not a UUID",
                   c->worker_id);
        snprintf(s->w.id, sizeof s->w.id, "%s", c->worker_id);
    } else {
        au_uuid7(s->w.id);
    }
    if (gethostname(s->host, sizeof s->host - 1) != 0)
        snprintf(s->host, sizeof s->host, "localhost");
    read_boot_id(s->boot_id, sizeof s->boot_id);
    AU_TRY(au_path_join(&dir, c->data_dir, "workers", err));
    AU_TRY(au_mkdirs(dir, err));
    char file[AU_UUID_TEXT + 8];
    snprintf(file, sizeof file, "%s.lock", s->w.id);
    AU_TRY(au_path_join(&s->lock_path, dir, file, err));
    AU_TRY(au_lock_file(&s->lock_fd, s->lock_path, err));
done:
    free(dir);
    return st;
}

static au_status open_backends(self *s, au_err *err)
{
    const au_worker_config *c = s->w.config;
    char *db = NULL, *store = NULL;
    au_status st = AU_OK;
    AU_TRY(au_path_join(&db, c->data_dir, "aulos.db", err));
    AU_TRY(au_path_join(&store, c->data_dir, "objects", err));
    AU_TRY(au_db_open(&s->w.db, c->db_url ? c->db_url : db, NULL, err));
    AU_TRY(au_store_open(&s->w.store, c->store_url ? c->store_url : store, err));
done:
    free(db);
    free(store);
    return st;
}

/* ---- The two threads
 * ------------------------------------------------------------------------------- */

static au_status run_threads(self *s, au_engine_cache *cache, au_err *err)
{
    au_worker *w = &s->w;
    pthread_condattr_t attr;
    pthread_t control;
    au_status st = AU_OK;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->to_control, &attr);
    pthread_cond_init(&w->to_engine, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&control, NULL, au_worker_control, w);
    if (rc == 0) {
        au_worker_pool_run(w, cache);
        pthread_join(control, NULL);
    } else {
        st = au_fail_errno(err, rc, "cannot start the control thread");
    }
    pthread_cond_destroy(&w->to_engine);
    pthread_cond_destroy(&w->to_control);
    pthread_mutex_destroy(&w->lock);
    return st;
}

static void close_all(self *s)
{
    au_db_close(&s->w.db);
    au_store_close(&s->w.store);
    for (size_t i = 0; s->w.model_names && i < s->w.config->n_models; i++)
        free((char *)s->w.model_names[i]);
    free(s->w.model_names);
    free(s->models_json);
    if (s->lock_fd >= 0) {
        (void)unlink(s->lock_path); /* ids are never used again */
        close(s->lock_fd);
    }
    free(s->lock_path);
    free(s);
}

au_status au_worker_run(const au_worker_config *config, au_err *err)
{
    au_engine_cache cache = {0};
    au_model *model;
    sigset_t ours, before;
    self *s = NULL;
    au_err problem = {0};
    bool listed = false;
    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    au_status st = AU_OK;
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->lock_fd = -1;
    s->w.config = config;
    AU_FAIL_IF(config->n_models == 0, AU_INVALID, "a worker needs a model");
    if (config->lower_priority)
        lower_priority();
    AU_TRY(take_identity(s, err));
    AU_TRY(name_models(s, err));
    AU_TRY(open_backends(s, err));
    AU_TRY(write_row(s, "starting", "", err));
    listed = true;
    AU_TRY(au_engine_cache_model(&cache, &s->w, s->w.model_names[0], &model, err));
    AU_TRY(write_row(s, "ready", "", err));
    au_log(AU_LOG_INFO, "worker", "ready worker=%s pid=%d", s->w.id, (int)getpid());
    AU_TRY(run_threads(s, &cache, err));
done:
    if (listed && write_row(s, st == AU_OK ? "gone" : "failed",
                            st == AU_OK || !err ? "" : err->message, &problem) != AU_OK)
        au_log(AU_LOG_WARN, "worker", "end is not recorded detail=%s",
               au_log_quote((char[512]){0}, 512, problem.message));
    au_engine_cache_deinit(&cache);
    if (s)
        close_all(s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return st;
}
