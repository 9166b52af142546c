/* SPDX-License-Identifier: MIT */
/* What the kernel tests share: seeded numbers with awkward floats among them, buffers that end at
 * an unreadable page, and comparison by bits, where any NaN equals any other (which NaN an
 * operation passes on is not specified). */
#ifndef AU_TESTS_KERNEL_CHECK_H
#define AU_TESTS_KERNEL_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "kernels/kernels.h"

static uint64_t rng_state;

/* AULOS_SEED or the time; printed, so that a failure can be repeated. */
static inline void rng_start(void)
{
    const char *s = getenv("AULOS_SEED");
    rng_state = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
    printf("AULOS_SEED=%llu\n", (unsigned long long)rng_state);
}
static inline uint32_t rng(void) /* splitmix64 */
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}
static inline size_t below(size_t n)
{
    return rng() % n;
}
#define PICK(array) ((array)[below(sizeof(array) / sizeof *(array))])

static inline float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline uint32_t to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

enum { TAME, WILD }; /* ordinary values; any magnitude, zeros, denormals, infinities, NaN */

static inline float some_float(int kind)
{
    float f = (float)(int32_t)rng() * 0x1p-30f; /* -2 to 2 */
    if (kind == TAME)
        return f;
    switch (rng() % 64) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return from_bits(rng() & 0x807fffffu); /* denormal */
    case 3:
        return rng() % 8 ? f : INFINITY;
    case 4:
        return rng() % 8 ? f : -INFINITY;
    case 5:
        return rng() % 8 ? f : NAN;
    case 6:
        return from_bits(rng());
    case 7:
        return f * 0x1p-70f; /* products are denormal or less */
    default:
        return f * ldexpf(1.0f, (int)below(16) - 8);
    }
}
static inline void fill(float *x, size_t n, int kind)
{
    for (size_t i = 0; i < n; i++)
        x[i] = some_float(kind);
}

/* Under emulation (AULOS_EMULATED): fewer cases, and no unreadable pages, since qemu 7.2's
 * vmaskmovps touches what its mask leaves out. */
static inline bool emulated(void)
{
    return getenv("AULOS_EMULATED") != NULL;
}

/* `bytes` bytes that end at an unreadable page. The tests make few enough to keep them all. */
typedef struct fenced {
    uint8_t *map, *data;
    size_t map_bytes;
} fenced;
static inline fenced fence(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    fenced f = {.map_bytes = (bytes + page - 1) / page * page + page};
    f.map = mmap(NULL, f.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f.map != MAP_FAILED);
    if (!emulated())
        assert_int_equal(mprotect(f.map + f.map_bytes - page, page, PROT_NONE), 0);
    f.data = f.map + f.map_bytes - page - bytes;
    return f;
}
static inline void unfence(fenced *f)
{
    munmap(f->map, f->map_bytes);
}

/* What is not written keeps this pattern. */
enum { GUARD = 0x5a };

/* Index of the first difference, or n. */
static inline size_t first_difference(const float *a, const float *b, size_t n)
{
    if (memcmp(a, b, n * sizeof *a) == 0)
        return n;
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
            return i;
    return n;
}

/* The tables to hold against C: those that this processor runs. Returns how many. */
static inline int faster_tables(const au_kernels *out[2])
{
    static const unsigned flags[] = {AU_CPU_AVX2, AU_CPU_AVX2 | AU_CPU_AVX512};
    int n = 0;
    for (int i = 0; i < 2; i++)
        if ((au_cpu_flags() & flags[i]) == flags[i])
            out[n++] = au_kernels_for(flags[i]);
    return n;
}

#endif
