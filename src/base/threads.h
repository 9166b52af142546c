/* SPDX-License-Identifier: MIT */
/* A pool that runs one loop at a time over a fixed number of threads, the caller's included.
 * Work is cut by shape, never by the number of threads, so results do not depend on it. */
#ifndef AU_BASE_THREADS_H
#define AU_BASE_THREADS_H

#include <stddef.h>

#include "base/err.h"

typedef struct au_pool au_pool;

/* Physical cores in this process's affinity mask, limited by the cgroup's CPU quota; at least 1. */
int au_threads_default(void);
/* The cgroup's CPU quota in whole threads (v2 and v1, the groups above included), at least 1; 0 for
 * no limit. `root` goes before /proc and /sys: "" but in tests. */
int au_threads_quota(const char *root);

/* n_threads >= 1 counts the caller. One owner thread uses the pool. */
AU_MUST_CHECK au_status au_pool_new(au_pool **out, int n_threads, au_err *err);
void au_pool_free(au_pool **pool); /* joins; NULL and half-built are fine */
int au_pool_threads(const au_pool *pool);

/* Calls fn(ctx, i, thread) once for every i in [0, n_items), in any order, spread over the threads,
 * and returns when all are done. thread is in [0, n_threads) and may index scratch memory. fn must
 * not call au_pool_run on the same pool. Waiting threads spin briefly (decoder steps make hundreds
 * of short regions), then sleep. Allocates nothing. */
void au_pool_run(au_pool *pool, size_t n_items, void (*fn)(void *ctx, size_t item, int thread),
                 void *ctx);

#endif
