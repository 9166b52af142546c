/* SPDX-License-Identifier: MIT */
/* Reads memory as fast as the processor can, with plain loads of the compiler's own vectors: no
 * arithmetic but an integer sum per lane, which keeps up with any memory. Owns its memory and pool
 * for the call. */
#include "kernels/bandwidth.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/threads.h"

enum {
    PASSES = 5,
    CHUNK = 64 << 10, /* one item */
    SLICE = 128,      /* items timed together: 8 MiB, short enough to fit between other work of the
                         machine */
    LANES = 16,
};

struct pass {
    const uint8_t *data;
    uint64_t *sums; /* by chunk */
};

static void read_chunk(void *ctx, size_t item, int thread)
{
    struct pass *p = ctx;
    const uint8_t *data = p->data + item * CHUNK;
    uint64_t sum[LANES] = {0}, total = 0;
    (void)thread;
    for (size_t i = 0; i < CHUNK; i += sizeof sum)
        for (size_t j = 0; j < LANES; j++) {
            uint64_t v;
            memcpy(&v, data + i + 8 * j, sizeof v);
            sum[j] += v;
        }
    for (size_t j = 0; j < LANES; j++)
        total += sum[j];
    p->sums[item] = total;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

au_status au_kernel_read_bandwidth(int threads, size_t bytes, double *bytes_per_s, au_err *err)
{
    au_status st = AU_OK;
    au_pool *pool = NULL;
    uint8_t *data = NULL;
    uint64_t *sums = NULL;
    const size_t chunks = bytes / CHUNK;
    AU_FAIL_IF(threads < 1, AU_INVALID, "%d threads, expected at least 1", threads);
    AU_FAIL_IF(chunks < (size_t)threads, AU_INVALID,
               "%zu bytes to read, expected at least %d for each of %d threads", bytes, CHUNK,
               threads);
    AU_TRY(au_pool_new(&pool, threads, err));
    AU_TRY(au_alloc_aligned(&data, chunks * CHUNK, err));
    AU_TRY(au_calloc(&sums, chunks, sizeof *sums, err));
    memset(data, 1, chunks * CHUNK); /* or all pages would be the one page of zeros */
    double best = 0;
    for (size_t i = 0, first = 0; i < PASSES * ((chunks + SLICE - 1) / SLICE); i++) {
        size_t n = chunks - first < SLICE ? chunks - first : SLICE;
        struct pass slice = {data + first * CHUNK, sums + first};
        double start = now_s();
        au_pool_run(pool, n, read_chunk, &slice);
        double rate = (double)(n * CHUNK) / (now_s() - start);
        if (rate > best)
            best = rate;
        first = first + n < chunks ? first + n : 0;
    }
    /* Every sum is known: a compiler that dropped the reading would be found out. */
    for (size_t i = 0; i < chunks; i++)
        AU_ASSERT(sums[i] == (uint64_t)(CHUNK / 8) * 0x0101010101010101u);
    *bytes_per_s = best;
done:
    free(sums);
    free(data);
    au_pool_free(&pool);
    return st;
}
