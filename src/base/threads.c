/* SPDX-License-Identifier: MIT */
/* The thread pool, and how many threads to give it.
 *
 * A region (one au_pool_run) is described by `fn`, `ctx` and `n_items` and handed out through
 * `ticket`: the region's generation in the high half, the next item in the low half. A thread takes
 * an item by moving a ticket it has read one item on with compare-and-set, which fails if the owner
 * has opened another region meanwhile: a thread that the system held up can neither take an item of
 * a wrong region nor delay the next one, since the owner waits for items, not for threads. While
 * the owner changes the description the ticket is CLOSED under a new generation; the description is
 * atomic, so a late reader sees old or new values, and acts on neither.
 *
 * Idle threads spin for SPIN_NS, long enough to bridge the gap between two regions of a decoder
 * step, then sleep on a futex; so does the owner while others finish their items, so that a machine
 * with more threads than processors does not burn them. Every cross-thread field is sequentially
 * consistent: sleeping is safe because a sleeper announces itself before it looks for work for the
 * last time, and a giver of work looks for sleepers after giving. */
#include "base/threads.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    SPIN_NS = 40000,
    SPIN_BATCH = 16,    /* pauses between two looks at the clock */
    MAX_THREADS = 1024, /* a sanity limit on what is asked for */
};
static const uint32_t CLOSED = UINT32_MAX;
static const size_t MAX_ITEMS = 1u << 31; /* in one region; au_pool_run cuts larger loops */

typedef void item_fn(void *ctx, size_t item, int thread);

struct au_pool {
    /* written by the owner, read by all; a cache line of their own */
    _Alignas(64) _Atomic(item_fn *) fn;
    _Atomic(void *) ctx;
    _Atomic size_t first; /* added to the item of the ticket */
    _Atomic uint32_t n_items;
    _Atomic bool stop;
    /* changed by all */
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done; /* items finished in this region; the owner sleeps on it */
    _Atomic uint32_t owner_sleeps;
    _Alignas(
        64) _Atomic uint32_t wake; /* changes when sleepers should look again; they sleep on it */
    _Atomic uint32_t sleepers;
    uint32_t generation; /* the owner's */
    int n_threads, n_started;
    struct worker {
        au_pool *pool;
        int thread;
        pthread_t id;
    } workers[]; /* n_threads - 1; the owner is thread 0 */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pause_briefly(void)
{
    for (int i = 0; i < SPIN_BATCH; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
    }
}

static bool has_work(au_pool *p)
{
    return (uint32_t)atomic_load(&p->ticket) < atomic_load(&p->n_items);
}

/* Takes items until there are none left in the open region. */
static void work(au_pool *p, int thread)
{
    uint64_t ticket = atomic_load(&p->ticket);
    for (;;) {
        uint32_t n = atomic_load(&p->n_items), item = (uint32_t)ticket;
        item_fn *fn = atomic_load(&p->fn);
        void *ctx = atomic_load(&p->ctx);
        size_t first = atomic_load(&p->first);
        if (item >= n)
            return;
        if (!atomic_compare_exchange_weak(&p->ticket, &ticket, ticket + 1))
            continue;
        fn(ctx, first + item, thread);
        if (atomic_fetch_add(&p->done, 1) + 1 == n && atomic_load(&p->owner_sleeps))
            futex_wake(&p->done, 1);
        ticket = atomic_load(&p->ticket);
    }
}

/* Returns when there may be work, or the pool stops. */
static void wait_for_work(au_pool *p)
{
    uint64_t until = now_ns() + SPIN_NS;
    do {
        pause_briefly();
        if (has_work(p) || atomic_load(&p->stop))
            return;
    } while (now_ns() < until);
    atomic_fetch_add(&p->sleepers, 1);
    uint32_t seen = atomic_load(&p->wake);
    if (!has_work(p) && !atomic_load(&p->stop))
        futex_wait(&p->wake, seen);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void wake_sleepers(au_pool *p, int n)
{
    if (atomic_load(&p->sleepers) == 0)
        return;
    atomic_fetch_add(&p->wake, 1);
    futex_wake(&p->wake, n);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->pool->stop)) {
        work(w->pool, w->thread);
        wait_for_work(w->pool);
    }
    return NULL;
}

static void wait_for_done(au_pool *p, uint32_t n)
{
    uint64_t until = 0;
    while (atomic_load(&p->done) != n) {
        uint64_t t = now_ns();
        if (until == 0)
            until = t + SPIN_NS;
        if (t < until) {
            pause_briefly();
            continue;
        }
        atomic_store(&p->owner_sleeps, 1);
        uint32_t seen = atomic_load(&p->done);
        if (seen != n)
            futex_wait(&p->done, seen);
        atomic_store(&p->owner_sleeps, 0);
    }
}

static void run_region(au_pool *p, size_t first, uint32_t n, item_fn *fn, void *ctx)
{
    atomic_store(&p->ticket, (uint64_t)++p->generation << 32 | CLOSED);
    atomic_store(&p->fn, fn);
    atomic_store(&p->ctx, ctx);
    atomic_store(&p->first, first);
    atomic_store(&p->n_items, n);
    atomic_store(&p->done, 0);
    atomic_store(&p->ticket, (uint64_t)p->generation << 32);
    int helpers = p->n_threads - 1;
    wake_sleepers(p, n - 1 < (uint32_t)helpers ? (int)(n - 1) : helpers);
    work(p, 0);
    wait_for_done(p, n);
}

void au_pool_run(au_pool *pool, size_t n_items, void (*fn)(void *ctx, size_t item, int thread),
                 void *ctx)
{
    if (pool->n_threads == 1 || n_items <= 1) {
        for (size_t i = 0; i < n_items; i++)
            fn(ctx, i, 0);
        return;
    }
    for (size_t first = 0; first < n_items; first += MAX_ITEMS) {
        size_t n = n_items - first;
        run_region(pool, first, (uint32_t)(n < MAX_ITEMS ? n : MAX_ITEMS), fn, ctx);
    }
}

au_status au_pool_new(au_pool **out, int n_threads, au_err *err)
{
    au_status st = AU_OK;
    au_pool *p = NULL;
    AU_FAIL_IF(n_threads < 1 || n_threads > MAX_THREADS, AU_INVALID, "%d threads, expected 1 to %d",
               n_threads, MAX_THREADS);
    AU_TRY(au_alloc_aligned(&p, sizeof *p + sizeof p->workers[0] * (size_t)(n_threads - 1), err));
    p->n_threads = n_threads;
    for (int i = 1; i < n_threads; i++) {
        struct worker *w = &p->workers[i - 1];
        w->pool = p;
        w->thread = i;
        int rc = pthread_create(&w->id, NULL, worker_main, w);
        if (rc != 0) {
            st = au_fail_errno(err, rc, "cannot start thread %d of %d", i + 1, n_threads);
            goto done;
        }
        p->n_started++;
    }
    *out = p;
    p = NULL;
done:
    au_pool_free(&p);
    return st;
}

void au_pool_free(au_pool **pool)
{
    au_pool *p = *pool;
    if (!p)
        return;
    *pool = NULL;
    atomic_store(&p->stop, true);
    wake_sleepers(p, p->n_threads);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].id, NULL);
    free(p);
}

int au_pool_threads(const au_pool *pool)
{
    return pool->n_threads;
}
