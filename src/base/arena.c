/* SPDX-License-Identifier: MIT */
/* The arena: a list of blocks, each at least 4 KiB, newest first. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct au_arena_block {
    au_arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

enum { BLOCK_BYTES = 4096 };

void au_arena_init(au_arena *a, size_t max_bytes)
{
    *a = (au_arena){.max = max_bytes};
}

void au_arena_deinit(au_arena *a)
{
    for (au_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    au_arena_init(a, a->max);
}

void *au_arena_alloc(au_arena *a, size_t bytes)
{
    if (bytes > a->max - a->used || bytes > SIZE_MAX / 2)
        return NULL;
    size_t rounded = (bytes + 15) & ~(size_t)15;
    if (!a->head || a->head->size - a->head->used < rounded) {
        size_t size = rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES;
        au_arena_block *b = malloc(sizeof *b + size);
        if (!b)
            return NULL;
        b->next = a->head;
        b->used = 0;
        b->size = size;
        a->head = b;
    }
    void *p = a->head->bytes + a->head->used;
    a->head->used += rounded;
    a->used += bytes;
    memset(p, 0, rounded);
    return p;
}

char *au_arena_strndup(au_arena *a, const char *s, size_t len)
{
    char *p = len < SIZE_MAX ? au_arena_alloc(a, len + 1) : NULL;
    if (p && len)
        memcpy(p, s, len);
    return p;
}

char *au_arena_strdup(au_arena *a, const char *s)
{
    return au_arena_strndup(a, s, strlen(s));
}

char *au_arena_printf(au_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *p = n >= 0 ? au_arena_alloc(a, (size_t)n + 1) : NULL;
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p;
}
