/* SPDX-License-Identifier: MIT */
/* Exact widening of one 16-bit float; sNaN becomes qNaN, as the processor's instruction has it. */
#ifndef AU_KERNELS_HALF_H
#define AU_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float half_bf16(uint16_t h)
{
    return half_bits((uint32_t)h << 16);
}

static inline float half_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) /* infinity, NaN */
        return half_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13 |
                         (rest > 0x7c00u ? 0x400000u : 0));
    if (rest >= 0x400u) /* normal: the bias grows by 127 - 15 */
        return half_bits(sign | ((rest << 13) + (112u << 23)));
    /* zero and denormals are rest * 2^-24, which f32 holds exactly */
    float magnitude = (float)rest * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

#endif
