/* SPDX-License-Identifier: MIT */
/* Bump allocator with a hard limit: many small things that die together (a request, a loader).
 * Nothing from it may outlive it. One owner at a time; no locking. */
#ifndef AU_BASE_ARENA_H
#define AU_BASE_ARENA_H

#include <stddef.h>

#include "base/err.h"

typedef struct au_arena_block au_arena_block;
typedef struct au_arena {
    au_arena_block *head;
    size_t used; /* bytes handed out */
    size_t max;
} au_arena;

void au_arena_init(au_arena *a, size_t max_bytes);
void au_arena_deinit(au_arena *a); /* frees everything; may be used again as after init */

/* `bytes` zeroed bytes aligned to 16, or NULL when the limit or the memory is exhausted. */
void *au_arena_alloc(au_arena *a, size_t bytes);
/* Copies; NULL as above. The second copies `len` bytes and adds a NUL. */
char *au_arena_strdup(au_arena *a, const char *s);
char *au_arena_strndup(au_arena *a, const char *s, size_t len);
char *au_arena_printf(au_arena *a, const char *fmt, ...) AU_PRINTF(2, 3);

#endif
