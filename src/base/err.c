/* SPDX-License-Identifier: MIT */
/* Status texts, error details and the assertion. No state; safe from any thread. */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const status_texts[AU_STATUS_COUNT] = {
    [AU_OK] = "ok",
    [AU_INVALID] = "invalid",
    [AU_NOT_FOUND] = "not found",
    [AU_EXISTS] = "exists already",
    [AU_CONFLICT] = "conflict",
    [AU_UNSUPPORTED] = "not supported",
    [AU_CORRUPT] = "corrupt",
    [AU_LIMIT] = "limit exceeded",
    [AU_CANCELLED] = "cancelled",
    [AU_AGAIN] = "try again",
    [AU_IO] = "input/output error",
    [AU_NOSPACE] = "no space left",
    [AU_NOMEM] = "out of memory",
    [AU_INTERNAL] = "internal error",
};

const char *au_status_text(au_status status)
{
    if ((unsigned)status >= AU_STATUS_COUNT)
        return "unknown status";
    return status_texts[status];
}

static void AU_PRINTF(5, 0)
    fill(au_err *err, au_status status, const char *file, int line, const char *fmt, va_list ap)
{
    if (!err)
        return;
    err->status = status;
    err->file = file;
    err->line = line;
    /* The message may be built from the old one, so it goes through a copy. */
    char text[sizeof err->message];
    vsnprintf(text, sizeof text, fmt, ap);
    memcpy(err->message, text, sizeof text);
}

au_status au_fail_at(au_err *err, au_status status, const char *file, int line, const char *fmt,
                     ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, status, file, line, fmt, ap);
    va_end(ap);
    return status;
}

static au_status status_of_errno(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
        return AU_NOSPACE;
    case ENOMEM:
        return AU_NOMEM;
    case ENOENT:
        return AU_NOT_FOUND;
    case EEXIST:
        return AU_EXISTS;
    default:
        return AU_IO;
    }
}

au_status au_fail_errno_at(au_err *err, int errno_value, const char *file, int line,
                           const char *fmt, ...)
{
    au_status status = status_of_errno(errno_value);
    va_list ap;
    va_start(ap, fmt);
    fill(err, status, file, line, fmt, ap);
    va_end(ap);
    if (err) {
        char reason[128];
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, ": %s",
                 strerror_r(errno_value, reason, sizeof reason));
    }
    return status;
}

au_status au_err_prefix(au_err *err, au_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    char text[sizeof err->message];
    va_list ap;
    va_start(ap, fmt);
    int used = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (used < 0 || (size_t)used >= sizeof text)
        return err->status;
    /* What does not fit any more is cut: precision bounds it, so nothing is written past the end.
     */
    snprintf(text + used, sizeof text - (size_t)used, ": %.*s",
             (int)(sizeof text - (size_t)used - 3), err->message);
    memcpy(err->message, text, sizeof text);
    return err->status;
}

void au_assert_failed(const char *cond, const char *file, int line, const char *func)
{
    fprintf(stderr, "aulos: %s:%d: %s: assertion failed: %s\n", file, line, func, cond);
    abort();
}
