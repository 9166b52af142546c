/* SPDX-License-Identifier: MIT */
/* Allocation and overflow-checked size arithmetic. */
#ifndef AU_BASE_MEM_H
#define AU_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* a*b and a+b into *out; false on overflow (then *out is undefined). */
static inline bool au_size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool au_size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* n*size zeroed bytes in *out (a T ** cast to void *), freed with free(). n = 0 gives a valid
 * pointer. AU_NOMEM on overflow or exhaustion. */
AU_MUST_CHECK au_status au_calloc(void *out, size_t n, size_t size, au_err *err);

/* `bytes` zeroed bytes aligned to 64, in *out; freed with free(). */
AU_MUST_CHECK au_status au_alloc_aligned(void *out, size_t bytes, au_err *err);

/* A copy of a string; owned by the caller, freed with free(). NULL gives NULL. */
AU_MUST_CHECK au_status au_strdup(char **out, const char *s, au_err *err);

#endif
