/* SPDX-License-Identifier: MIT */
/* Growable bytes with a mandatory maximum and a sticky error: append freely, check once at the end.
 * One owner at a time; no locking. */
#ifndef AU_BASE_BUF_H
#define AU_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

#include "base/err.h"

typedef struct au_buf {
    char *data;       /* always NUL-terminated once something was appended; owned */
    size_t len;       /* bytes without the NUL */
    size_t cap;       /* bytes allocated */
    size_t max;       /* len may never exceed this */
    au_status status; /* AU_OK, AU_LIMIT or AU_NOMEM; sticky */
} au_buf;

void au_buf_init(au_buf *b, size_t max);
void au_buf_deinit(au_buf *b); /* frees; the buffer may be used again as after init */
void au_buf_clear(au_buf *b);  /* length 0, error forgotten, memory kept */
void au_buf_append(au_buf *b, const void *data, size_t len);
void au_buf_str(au_buf *b, const char *s);
void au_buf_char(au_buf *b, char c);
void au_buf_printf(au_buf *b, const char *fmt, ...) AU_PRINTF(2, 3);
void au_buf_vprintf(au_buf *b, const char *fmt, va_list ap) AU_PRINTF(2, 0);
const char *au_buf_cstr(const au_buf *b); /* never NULL; borrowed until the next change */

/* Hands the bytes over: *out is owned by the caller (free), the buffer is empty again. Fails with
 * the sticky error. */
AU_MUST_CHECK au_status au_buf_take(au_buf *b, char **out, size_t *len, au_err *err);
/* The sticky error as a status with a message. */
AU_MUST_CHECK au_status au_buf_check(const au_buf *b, au_err *err);

#endif
