/* SPDX-License-Identifier: MIT */
/* The matrix product in plain C: the definition that the other instruction sets repeat bit for bit.
 * fmaf is libm's, which picks the processor's own instruction where there is one. */
#include <math.h>

#include "kernels/half.h"
#include "kernels/tables.h"

static float weight(const void *w, au_dtype type, size_t i)
{
    const uint8_t *p = w;
    if (type == AU_F32) {
        float f;
        memcpy(&f, p + 4 * i, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, p + 2 * i, sizeof h);
    return type == AU_F16 ? half_f16(h) : half_bf16(h);
}

static float dot(const float *x, const void *w, au_dtype type, size_t first, size_t K)
{
    float p[16] = {0};
    for (size_t k = 0; k < K; k++)
        p[k % 16] = fmaf(x[k], weight(w, type, first + k), p[k % 16]);
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++)
            p[j] += p[j + width];
    return p[0];
}

void au_gemm_c(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
               size_t ldw, size_t M, size_t N, size_t K)
{
    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < N; n++)
            y[m * ldy + n] = dot(x + m * ldx, w, wtype, n * ldw, K);
}
