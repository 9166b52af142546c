/* SPDX-License-Identifier: MIT */
/* What the processor can do, and the table that follows from it. Decided once, then read-only; any
 * thread.
 *
 * A feature counts when cpuid reports it and the operating system saves its registers (xgetbv): a
 * kernel or a hypervisor may leave AVX-512 off on a processor that has it. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/tables.h"

#if defined(__x86_64__)
#include <cpuid.h>

enum {
    XCR0_AVX = 0x06,    /* xmm, ymm */
    XCR0_AVX512 = 0xe6, /* and opmask, zmm0-15 high halves, zmm16-31 */
    L1_FMA = 1 << 12,
    L1_OSXSAVE = 1 << 27,
    L1_AVX = 1 << 28,
    L1_F16C = 1 << 29,
    L7_AVX2 = 1 << 5,
    L7_AVX512F = 1 << 16,
    L7_AVX512DQ = 1 << 17,
    L7_AVX512BW = 1 << 30,
};
static const unsigned L7_AVX512VL = 1u << 31;

static unsigned xcr0(void)
{
    unsigned lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static unsigned detect(void)
{
    unsigned a, b, c, d, b7, c7;
    const unsigned need1 = L1_FMA | L1_OSXSAVE | L1_AVX | L1_F16C;
    const unsigned need512 = L7_AVX512F | L7_AVX512DQ | L7_AVX512BW | L7_AVX512VL;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need1) != need1)
        return 0;
    unsigned saved = xcr0();
    if ((saved & XCR0_AVX) != XCR0_AVX || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d) ||
        !(b7 & L7_AVX2))
        return 0;
    if ((saved & XCR0_AVX512) != XCR0_AVX512 || (b7 & need512) != need512)
        return AU_CPU_AVX2;
    return AU_CPU_AVX2 | AU_CPU_AVX512;
}
#else
static unsigned detect(void)
{
    return 0;
}
#endif

/* AU_CPU is a ceiling; a word that is none of the three changes nothing. */
static unsigned ceiling(void)
{
    const char *s = getenv("AU_CPU");
    if (s && strcmp(s, "c") == 0)
        return 0;
    if (s && strcmp(s, "avx2") == 0)
        return AU_CPU_AVX2;
    return AU_CPU_AVX2 | AU_CPU_AVX512;
}

unsigned au_cpu_flags(void)
{
    return detect() & ceiling();
}

const au_kernels *au_kernels_for(unsigned flags)
{
#if defined(__x86_64__)
    if (flags & AU_CPU_AVX512)
        return &au_kernels_avx512;
    if (flags & AU_CPU_AVX2)
        return &au_kernels_avx2;
#else
    (void)flags;
#endif
    return &au_kernels_c;
}

const au_kernels *au_kernels_get(void)
{
    static const au_kernels *_Atomic chosen; /* two threads that decide at once decide the same */
    const au_kernels *k = atomic_load_explicit(&chosen, memory_order_acquire);
    if (!k) {
        k = au_kernels_for(au_cpu_flags());
        atomic_store_explicit(&chosen, k, memory_order_release);
    }
    return k;
}
