/* SPDX-License-Identifier: MIT */
/* The intake thread. Its queue of orders is under the lock; everything else is its own. Checks are
 * not queued: after the orders it asks the database what is still to be checked, so nothing can be
 * forgotten. A check that fails for reasons of its own (no memory, the disk) is tried again later.
 */
#include "jobs/intake.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/adapter_check.h"
#include "jobs/adapter_write.h"
#include "jobs/catalog.h"

enum { ARENA_BYTES = 4 << 20, RETRY_S = 5 };

typedef struct order {
    struct order *next;
    void (*work)(void *arg);
    void *arg;
} order;

struct au_intake {
    au_intake_config config;
    au_db *reader;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    order *first, **last; /* under lock, as are the following */
    bool look;            /* for rows to check */
    bool stopping;
};

/* ---- Checks ---- */

typedef struct checked {
    const au_finding *finding;
    const char *id;
    bool fits_only;
    char drop[AU_STORE_KEY];
} checked;

static au_status write_checked(au_db *db, void *arg, au_err *err)
{
    checked *c = arg;
    au_status st = AU_OK;
    c->drop[0] = '\0';
    AU_TRY(au_finding_write(db, c->finding, c->id, c->fits_only, err));
    if (!c->fits_only)
        AU_TRY(au_upload_checked(db, c->id, c->drop, err));
done:
    return st;
}

static au_status delete_object(void *store, const char *key, uint64_t size, au_err *err)
{
    (void)size;
    return au_store_delete(store, key, err);
}

static au_status write_dropped(au_db *db, void *arg, au_err *err)
{
    return au_upload_dropped(db, arg, err);
}

static au_status drop_copy(const au_intake_config *c, char *key, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_store_list(c->store, key, delete_object, c->store, err));
    AU_TRY(au_writer_run(c->writer, write_dropped, key, err));
done:
    return st;
}

static au_status check_row(const au_intake_config *c, const au_adapter_row *row, au_err *err)
{
    au_finding f = {.wanted = row->base_model[0] ? row->base_model : NULL};
    checked written = {
        .finding = &f, .id = row->id, .fits_only = strcmp(row->status, "ready") == 0};
    char prefix[AU_STORE_KEY], text[512];
    char *dir = NULL;
    au_status st = AU_OK;
    snprintf(prefix, sizeof prefix, "adapters/%s", row->sha256 ? row->sha256 : "");
    AU_TRY(au_store_local_path(c->store, &dir, prefix, err));
    f.dir = dir;
    AU_TRY(au_finding_run(&f, c->registry, err));
    if (f.sha256[0] && strcmp(f.sha256, row->sha256) != 0) {
        f.ready = false;
        (void)au_fail(&f.problem, AU_CORRUPT, "the stored files have the hash %s, expected %s",
                      f.sha256, row->sha256);
    }
    /* The bytes of the weights file, whatever the check says. */
    if (!f.ready)
        f.bytes = row->bytes;
    au_registry_lock(c->registry);
    st = au_writer_run(c->writer, write_checked, &written, err);
    if (st == AU_OK && written.drop[0])
        st = drop_copy(c, written.drop, err);
    au_registry_unlock(c->registry);
    AU_TRY(st);
    au_log(f.ready ? AU_LOG_INFO : AU_LOG_WARN, "adapters",
           "upload checked adapter=%s status=%s%s%s", row->id, f.ready ? "ready" : "rejected",
           f.ready ? "" : " detail=",
           f.ready ? "" : au_log_quote(text, sizeof text, f.problem.message));
done:
    au_finding_deinit(&f);
    free(dir);
    return st;
}

au_status au_intake_check(const au_intake_config *config, au_db *reader, const char *id,
                          au_err *err)
{
    au_arena arena;
    au_adapter_row *row;
    au_status st = AU_OK;
    au_arena_init(&arena, ARENA_BYTES);
    AU_TRY(au_adapter_row_get(reader, &arena, id, &row, err));
    AU_TRY(check_row(config, row, err));
done:
    au_arena_deinit(&arena);
    return st;
}

/* The next row to check: ordered ones, oldest first, then ready uploads that were never checked
 * against a model that is served. "": none. */
static au_status next_row(au_intake *i, char id[AU_UUID_TEXT], au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    id[0] = '\0';
    AU_TRY(au_db_query(
        &rows, i->reader, err,
        "SELECT a.id FROM adapters a WHERE a.source = 'upload' AND (a.status = 'validating' OR "
        "(a.status = 'ready' AND a.deleted_at = 0 AND EXISTS (SELECT 1 FROM models m WHERE "
        "m.active AND NOT EXISTS (SELECT 1 FROM adapter_models f WHERE f.adapter_id = a.id AND "
        "f.model_fingerprint = m.fingerprint)))) ORDER BY a.status = 'ready', a.id LIMIT 1",
        ""));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (has_row)
        snprintf(id, AU_UUID_TEXT, "%s", au_rows_text(rows, 0));
done:
    au_rows_close(&rows);
    return st;
}

/* *more false: nothing is left to check. */
static au_status check_next(au_intake *i, bool *more, au_err *err)
{
    char id[AU_UUID_TEXT];
    au_status st = AU_OK;
    AU_TRY(next_row(i, id, err));
    *more = id[0] != '\0';
    if (*more)
        AU_TRY(au_intake_check(&i->config, i->reader, id, err));
done:
    return st;
}

/* ---- The thread ---- */

/* The next order, or NULL with *look: a row may be checked. Both empty: it is time to end. */
static order *wait_for_work(au_intake *i, bool *look, bool retry)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_S;
    pthread_mutex_lock(&i->lock);
    int rc = 0;
    while (!i->first && !i->look && !i->stopping && rc == 0)
        rc = retry ? pthread_cond_timedwait(&i->wake, &i->lock, &until)
                   : pthread_cond_wait(&i->wake, &i->lock);
    order *o = i->first;
    if (o) {
        i->first = o->next;
        if (!i->first)
            i->last = &i->first;
    }
    *look = !o && !i->stopping;
    i->look = i->look && o;
    pthread_mutex_unlock(&i->lock);
    return o;
}

static void *intake_main(void *arg)
{
    au_intake *i = arg;
    bool look, retry = false;
    for (;;) {
        order *o = wait_for_work(i, &look, retry);
        if (o) {
            o->work(o->arg);
            free(o);
            continue;
        }
        if (!look)
            break;
        au_err err = {0};
        char text[512];
        bool more = false;
        retry = check_next(i, &more, &err) != AU_OK;
        if (retry)
            au_log(AU_LOG_ERROR, "adapters", "an upload could not be checked detail=%s",
                   au_log_quote(text, sizeof text, err.message));
        else if (more)
            au_intake_kick(i);
    }
    return NULL;
}

static void free_intake(au_intake *i)
{
    pthread_cond_destroy(&i->wake);
    pthread_mutex_destroy(&i->lock);
    au_db_close(&i->reader);
    free(i);
}

static au_status start_thread(au_intake *i, au_err *err)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&i->thread, NULL, intake_main, i);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0 ? AU_OK : au_fail_errno(err, rc, "cannot start the intake thread");
}

au_status au_intake_new(au_intake **out, const au_intake_config *config, au_err *err)
{
    au_intake *i = NULL;
    pthread_condattr_t attr;
    au_status st = AU_OK;
    *out = NULL;
    AU_TRY(au_calloc(&i, 1, sizeof *i, err));
    i->config = *config;
    i->last = &i->first;
    i->look = true;
    pthread_mutex_init(&i->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&i->wake, &attr);
    pthread_condattr_destroy(&attr);
    AU_TRY(au_db_open(&i->reader, config->db_url, &(au_db_options){.read_only = true}, err));
    AU_TRY(start_thread(i, err));
    *out = i;
    i = NULL;
done:
    if (i)
        free_intake(i);
    return st;
}

void au_intake_free(au_intake **intake)
{
    au_intake *i = intake ? *intake : NULL;
    if (!i)
        return;
    *intake = NULL;
    pthread_mutex_lock(&i->lock);
    i->stopping = true;
    pthread_cond_signal(&i->wake);
    pthread_mutex_unlock(&i->lock);
    pthread_join(i->thread, NULL);
    free_intake(i);
}

au_status au_intake_run(au_intake *i, void (*work)(void *arg), void *arg, au_err *err)
{
    order *o = NULL;
    au_status st = AU_OK;
    AU_TRY(au_calloc(&o, 1, sizeof *o, err));
    o->work = work;
    o->arg = arg;
    pthread_mutex_lock(&i->lock);
    *i->last = o;
    i->last = &o->next;
    pthread_cond_signal(&i->wake);
    pthread_mutex_unlock(&i->lock);
done:
    return st;
}

void au_intake_kick(au_intake *i)
{
    pthread_mutex_lock(&i->lock);
    i->look = true;
    pthread_cond_signal(&i->wake);
    pthread_mutex_unlock(&i->lock);
}

/* ---- Copies without a row ---- */

void au_intake_discard(au_intake *i, const char *sha256)
{
    const au_intake_config *c = &i->config;
    char key[AU_STORE_KEY], text[512];
    au_err err = {0};
    int64_t owned = 1;
    snprintf(key, sizeof key, "adapters/%s/", sha256);
    au_registry_lock(c->registry);
    au_status st = au_db_int(&owned, i->reader, 0, &err,
                             "SELECT COUNT(*) FROM adapters WHERE store_key = ?1", "t", key);
    if (st == AU_OK && !owned)
        st = drop_copy(c, key, &err);
    au_registry_unlock(c->registry);
    /* The intent is still there, so it goes at the next start. */
    if (st != AU_OK)
        au_log(AU_LOG_WARN, "adapters", "a copy without an adapter stays detail=%s",
               au_log_quote(text, sizeof text, err.message));
}
