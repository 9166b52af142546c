/* SPDX-License-Identifier: MIT */
/* The bandwidth probe: threads sum stretches of a large block of memory. Owns its pool and its
 * memory for the time of the call. */
#include "kernels/bandwidth.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/threads.h"

enum { STRETCH_BYTES = 256 * 1024, PASSES = 5 };

typedef struct probe {
    const uint64_t *words;
    uint64_t *sums; /* per stretch, so that nothing is optimised away */
} probe;

static void sum_stretch(void *ctx, size_t item, int thread)
{
    (void)thread;
    const probe *p = ctx;
    const uint64_t *w = p->words + item * (STRETCH_BYTES / 8);
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < STRETCH_BYTES / 8; i += 8)
        for (size_t j = 0; j < 8; j++)
            sum[j] += w[i + j];
    for (size_t j = 1; j < 8; j++)
        sum[0] += sum[j];
    p->sums[item] = sum[0];
}

au_status au_kernel_read_bandwidth(int threads, size_t bytes, double *bytes_per_s, au_err *err)
{
    au_status st = AU_OK;
    au_pool *pool = NULL;
    uint64_t *words = NULL, *sums = NULL;
    size_t n = bytes / STRETCH_BYTES;
    AU_FAIL_IF(n < 4, AU_INVALID, "bytes is %zu, expected at least %d", bytes, 4 * STRETCH_BYTES);
    AU_TRY(au_pool_new(&pool, threads, err));
    AU_TRY(au_alloc_aligned(&words, n * STRETCH_BYTES, err));
    AU_TRY(au_calloc(&sums, n, sizeof *sums, err));
    memset(words, 1, n * STRETCH_BYTES); /* pages that were never written are all one zero page */
    *bytes_per_s = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        probe p = {words, sums};
        int64_t start = au_mono_ns();
        au_pool_run(pool, n, sum_stretch, &p);
        double seconds = (double)(au_mono_ns() - start) * 1e-9;
        double rate = (double)(n * STRETCH_BYTES) / seconds;
        *bytes_per_s = rate > *bytes_per_s ? rate : *bytes_per_s;
    }
done:
    free(words);
    free(sums);
    au_pool_free(&pool);
    return st;
}
