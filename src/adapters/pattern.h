/* SPDX-License-Identifier: MIT */
/* Internal to adapters/: rank_pattern and alpha_pattern, regular expressions from outside, in
 * order. */
#ifndef AU_ADAPTERS_PATTERN_H
#define AU_ADAPTERS_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

typedef struct au_pattern au_pattern;

typedef struct au_patterns {
    au_pattern *items;
    size_t n, cap;
    unsigned long work; /* steps spent on matching so far */
    bool exhausted;     /* a match ran into a limit: answers may be wrong */
} au_patterns;

/* AU_INVALID when `key` is no regular expression, AU_LIMIT when it is too long or there are too
 * many. */
AU_MUST_CHECK au_status au_patterns_add(au_patterns *p, const char *key, double value, au_err *err);
/* The first key K for which (.*\.)?(K) matches the whole name, as PEFT does; NULL if none does. */
const char *au_patterns_find(au_patterns *p, const char *name, double *value);
void au_patterns_free(au_patterns *p);

#endif
