/* SPDX-License-Identifier: MIT */
/* Element types, shapes, and widening to f32. Stateless. */
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "tensor/set.h"

static const struct {
    const char *name;
    size_t bytes;
} dtypes[AU_DTYPE_COUNT] = {
    [AU_F32] = {"F32", 4}, [AU_F16] = {"F16", 2},   [AU_BF16] = {"BF16", 2}, [AU_F64] = {"F64", 8},
    [AU_I64] = {"I64", 8}, [AU_I32] = {"I32", 4},   [AU_I16] = {"I16", 2},   [AU_I8] = {"I8", 1},
    [AU_U8] = {"U8", 1},   [AU_BOOL] = {"BOOL", 1},
};

size_t au_dtype_bytes(au_dtype t)
{
    AU_ASSERT((unsigned)t < AU_DTYPE_COUNT);
    return dtypes[t].bytes;
}

const char *au_dtype_name(au_dtype t)
{
    AU_ASSERT((unsigned)t < AU_DTYPE_COUNT);
    return dtypes[t].name;
}

bool au_shape_bytes(au_dtype t, int rank, const int64_t *shape, uint64_t *elements, uint64_t *bytes)
{
    uint64_t n = 1;
    for (int i = 0; i < rank; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(n, (uint64_t)shape[i], &n))
            return false;
    /* int64 holds every count that a tensor may have, so that users may compute with signed sizes.
     */
    if (n > INT64_MAX / 8 || __builtin_mul_overflow(n, (uint64_t)au_dtype_bytes(t), bytes))
        return false;
    *elements = n;
    return true;
}

int64_t au_tensor_elements(const au_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

const char *au_tensor_shape_text(char *buf, size_t size, int rank, const int64_t *shape)
{
    size_t n = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, i ? ",%lld" : "%lld", (long long)shape[i]);
    if (n < size)
        snprintf(buf + n, size - n, "]");
    return buf;
}

static float f32_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31)
        return f32_of_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent)
        return f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    /* Zero or subnormal: mantissa * 2^-24, exact in f32. */
    float f = (float)mantissa * 0x1p-24f;
    return sign ? -f : f;
}

void au_tensor_read_f32(const au_tensor *t, size_t first, size_t n, float *out)
{
    AU_ASSERT(t->dtype == AU_F32 || t->dtype == AU_F16 || t->dtype == AU_BF16);
    AU_ASSERT(first <= t->bytes / dtypes[t->dtype].bytes);
    AU_ASSERT(n <= t->bytes / dtypes[t->dtype].bytes - first);
    if (!n)
        return;
    const unsigned char *p = (const unsigned char *)t->data + first * dtypes[t->dtype].bytes;
    if (t->dtype == AU_F32) {
        memcpy(out, p, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++, p += 2) {
        uint16_t h;
        memcpy(&h, p, sizeof h);
        out[i] = t->dtype == AU_F16 ? f32_of_f16(h) : f32_of_bits((uint32_t)h << 16);
    }
}
