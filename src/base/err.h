/* SPDX-License-Identifier: MIT */
/* Raising and forwarding errors, and the assertion that stays on in release builds. */
#ifndef AU_BASE_ERR_H
#define AU_BASE_ERR_H

#include <stdarg.h>

#include "aulos/status.h"

#define AU_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Fills *err (which may be NULL) and returns `status`. */
#define au_fail(err, status, ...) au_fail_at((err), (status), __FILE__, __LINE__, __VA_ARGS__)
au_status au_fail_at(au_err *err, au_status status, const char *file, int line, const char *fmt,
                     ...) AU_PRINTF(5, 6);

/* Like au_fail, with ": <strerror(errno_value)>" appended. ENOSPC and EDQUOT become AU_NOSPACE,
 * ENOMEM AU_NOMEM, ENOENT AU_NOT_FOUND, EEXIST AU_EXISTS; anything else AU_IO. */
#define au_fail_errno(err, errno_value, ...)                                                       \
    au_fail_errno_at((err), (errno_value), __FILE__, __LINE__, __VA_ARGS__)
au_status au_fail_errno_at(au_err *err, int errno_value, const char *file, int line,
                           const char *fmt, ...) AU_PRINTF(5, 6);

/* Puts "<prefix>: " before the message of an error that is passed on; returns err's status (or
 * `status` where err is NULL). */
au_status au_err_prefix(au_err *err, au_status status, const char *fmt, ...) AU_PRINTF(3, 4);

/* The only two control-flow macros. Both expect a local `au_status st`, an `au_err *err` and a
 * label `done:` at which resources are freed and st is returned. */
#define AU_TRY(expr)                                                                               \
    do {                                                                                           \
        if ((st = (expr)) != AU_OK)                                                                \
            goto done;                                                                             \
    } while (0)
#define AU_FAIL_IF(cond, status, ...)                                                              \
    do {                                                                                           \
        if (cond) {                                                                                \
            st = au_fail(err, (status), __VA_ARGS__);                                              \
            goto done;                                                                             \
        }                                                                                          \
    } while (0)

/* A broken invariant is our fault: say where, and abort. No side effects inside. */
#define AU_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            au_assert_failed(#cond, __FILE__, __LINE__, __func__);                                 \
    } while (0)
__attribute__((noreturn)) void au_assert_failed(const char *cond, const char *file, int line,
                                                const char *func);

#endif
