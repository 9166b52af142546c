/* SPDX-License-Identifier: MIT */
/* The writer thread: takes all requests that wait (up to GROUP_MAX), runs them in one transaction
 * with a savepoint each, commits once, then tells everybody. Under load the group grows while the
 * previous fsync runs, so throughput rises with concurrency.
 *
 * `lock` guards the queue and `stopping`; the connection belongs to the writer thread alone. A
 * request is in the queue or in the group being run, never both; it is freed after its done call.
 * `hook_lock` is never taken with `lock` held. */
#include "db/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum { QUEUE_MAX = 4096, GROUP_MAX = 128 };

typedef struct request {
    struct request *next;
    au_write_fn fn;
    void *arg;
    au_write_done_fn done;
    au_status status;
    au_err *error; /* owned; made when fn fails */
} request;

struct au_writer {
    au_db *db;
    _Atomic uint64_t commits;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    request *head, **tail;
    size_t queued, queue_max;
    bool stopping;
    pthread_mutex_t hook_lock; /* of the following, held while it runs */
    void (*on_commit)(void *user);
    void *on_commit_user;
};

static void set_error(request *r, au_status st, const au_err *err)
{
    r->status = st;
    if (!r->error)
        r->error = malloc(sizeof *r->error);
    if (r->error)
        *r->error = *err;
}

/* Runs a request in its savepoint. */
static void run_one(au_writer *w, request *r)
{
    au_err err = {0};
    au_status st = au_db_savepoint(w->db, &err);
    if (st == AU_OK) {
        st = r->fn(w->db, r->arg, &err);
        if (st == AU_OK)
            st = au_db_release(w->db, &err);
        else
            au_db_rollback_to(w->db);
    }
    if (st != AU_OK)
        set_error(r, st, &err);
}

static void tell_commit(au_writer *w)
{
    pthread_mutex_lock(&w->hook_lock);
    if (w->on_commit)
        w->on_commit(w->on_commit_user);
    pthread_mutex_unlock(&w->hook_lock);
}

/* One transaction. Where it cannot begin, commit or was ended early, all its requests fail with
 * that. */
static void run_group(au_writer *w, request *group)
{
    au_err err = {0};
    au_status st = au_db_begin(w->db, AU_DB_DURABLE, &err);
    bool any = false;
    for (request *r = group; r && st == AU_OK; r = r->next) {
        run_one(w, r);
        any = any || r->status == AU_OK;
        if (!au_db_in_transaction(w->db))
            st = r->error ? (err = *r->error, r->status)
                          : au_fail(&err, AU_IO, "database: the transaction was ended early");
    }
    if (st == AU_OK && any)
        st = au_db_commit(w->db, &err);
    if (st == AU_OK && any) {
        atomic_fetch_add(&w->commits, 1);
        tell_commit(w);
    }
    au_db_rollback(w->db);
    for (request *r = group; r && st != AU_OK; r = r->next) {
        if (r->status == AU_OK)
            set_error(r, st, &err);
    }
}

static void finish_group(request *group)
{
    static const au_err no_memory = {.status = AU_NOMEM, .file = "", .message = "out of memory"};
    while (group) {
        request *r = group;
        group = r->next;
        r->done(r->arg, r->status, r->error || r->status == AU_OK ? r->error : &no_memory);
        free(r->error);
        free(r);
    }
}

/* Up to GROUP_MAX requests off the queue; NULL: stopping and empty. Waits. */
static request *take_group(au_writer *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->head && !w->stopping)
        pthread_cond_wait(&w->wake, &w->lock);
    request *group = w->head, *last = NULL;
    size_t n = 0;
    for (request *r = group; r && n < GROUP_MAX; r = r->next, n++)
        last = r;
    if (last) {
        w->head = last->next;
        last->next = NULL;
    }
    if (!w->head)
        w->tail = &w->head;
    w->queued -= n;
    pthread_mutex_unlock(&w->lock);
    return group;
}

static void *writer_main(void *arg)
{
    au_writer *w = arg;
    for (request *group; (group = take_group(w));) {
        run_group(w, group);
        finish_group(group);
    }
    return NULL;
}

au_status au_writer_new(au_writer **out, const char *url, size_t queue_max, au_err *err)
{
    au_writer *w = NULL;
    au_status st = AU_OK;
    AU_TRY(au_calloc(&w, 1, sizeof *w, err));
    w->tail = &w->head;
    w->queue_max = queue_max ? queue_max : QUEUE_MAX;
    AU_TRY(au_db_open(&w->db, url, NULL, err));
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->hook_lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    int rc = pthread_create(&w->thread, NULL, writer_main, w);
    if (rc != 0) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->hook_lock);
        pthread_mutex_destroy(&w->lock);
        st = au_fail_errno(err, rc, "cannot start the writer thread");
        goto done;
    }
    *out = w;
    w = NULL;
done:
    if (w) {
        au_db_close(&w->db);
        free(w);
    }
    return st;
}

void au_writer_free(au_writer **writer)
{
    au_writer *w = writer ? *writer : NULL;
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->hook_lock);
    pthread_mutex_destroy(&w->lock);
    au_db_close(&w->db);
    free(w);
    *writer = NULL;
}

uint64_t au_writer_commits(const au_writer *w)
{
    return atomic_load(&w->commits) + 1;
}

void au_writer_on_commit(au_writer *w, void (*on_commit)(void *user), void *user)
{
    pthread_mutex_lock(&w->hook_lock);
    w->on_commit = on_commit;
    w->on_commit_user = user;
    pthread_mutex_unlock(&w->hook_lock);
}

au_status au_writer_submit(au_writer *w, au_write_fn fn, void *arg, au_write_done_fn done,
                           au_err *err)
{
    request *r = NULL;
    au_status st = au_calloc(&r, 1, sizeof *r, err);
    if (st != AU_OK)
        return st;
    *r = (request){.fn = fn, .arg = arg, .done = done};
    pthread_mutex_lock(&w->lock);
    if (w->stopping) {
        st = au_fail(err, AU_AGAIN, "the server is stopping");
    } else if (w->queued >= w->queue_max) {
        st = au_fail(err, AU_LIMIT, "%zu writes are waiting, at most %zu may", w->queued,
                     w->queue_max);
    } else {
        *w->tail = r;
        w->tail = &r->next;
        w->queued++;
        r = NULL;
        pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
    free(r);
    return st;
}

typedef struct waiter {
    au_write_fn fn;
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool finished;
    au_status status;
    au_err *err;
} waiter;

static au_status waiter_run(au_db *db, void *arg, au_err *err)
{
    waiter *w = arg;
    return w->fn(db, w->arg, err);
}

static void waiter_done(void *arg, au_status status, const au_err *err)
{
    waiter *w = arg;
    pthread_mutex_lock(&w->lock);
    w->status = status;
    if (status != AU_OK && w->err)
        *w->err = *err;
    w->finished = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

au_status au_writer_run(au_writer *writer, au_write_fn fn, void *arg, au_err *err)
{
    waiter w = {.fn = fn, .arg = arg, .err = err};
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.wake, NULL);
    au_status st = au_writer_submit(writer, waiter_run, &w, waiter_done, err);
    if (st == AU_OK) {
        pthread_mutex_lock(&w.lock);
        while (!w.finished)
            pthread_cond_wait(&w.wake, &w.lock);
        pthread_mutex_unlock(&w.lock);
        st = w.status;
    }
    pthread_cond_destroy(&w.wake);
    pthread_mutex_destroy(&w.lock);
    return st;
}
