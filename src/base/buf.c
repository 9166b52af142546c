/* SPDX-License-Identifier: MIT */
/* The capped buffer. Growth doubles, so n appends cost O(n). */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void au_buf_init(au_buf *b, size_t max)
{
    *b = (au_buf){.max = max};
}

void au_buf_deinit(au_buf *b)
{
    free(b->data);
    au_buf_init(b, b->max);
}

void au_buf_clear(au_buf *b)
{
    b->len = 0;
    b->status = AU_OK;
    if (b->data)
        b->data[0] = 0;
}

static bool reserve(au_buf *b, size_t more)
{
    if (b->status != AU_OK)
        return false;
    if (more > b->max - b->len) {
        b->status = AU_LIMIT;
        return false;
    }
    size_t need = b->len + more + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = realloc(b->data, cap);
    if (!p) {
        b->status = AU_NOMEM;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

void au_buf_append(au_buf *b, const void *data, size_t len)
{
    if (!reserve(b, len))
        return;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = 0;
}

void au_buf_str(au_buf *b, const char *s)
{
    au_buf_append(b, s, strlen(s));
}

void au_buf_char(au_buf *b, char c)
{
    au_buf_append(b, &c, 1);
}

void au_buf_vprintf(au_buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0 && reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void au_buf_printf(au_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    au_buf_vprintf(b, fmt, ap);
    va_end(ap);
}

const char *au_buf_cstr(const au_buf *b)
{
    return b->data ? b->data : "";
}

au_status au_buf_check(const au_buf *b, au_err *err)
{
    if (b->status == AU_LIMIT)
        return au_fail(err, AU_LIMIT, "text grows beyond its limit of %zu bytes", b->max);
    if (b->status != AU_OK)
        return au_fail(err, b->status, "cannot grow a buffer beyond %zu bytes", b->cap);
    return AU_OK;
}

au_status au_buf_take(au_buf *b, char **out, size_t *len, au_err *err)
{
    au_buf_append(b, "", 0); /* an empty buffer gives an empty string, not NULL */
    au_status st = au_buf_check(b, err);
    if (st != AU_OK)
        return st;
    *out = b->data;
    if (len)
        *len = b->len;
    b->data = NULL;
    b->len = b->cap = 0;
    return AU_OK;
}
