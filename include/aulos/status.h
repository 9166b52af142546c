/* SPDX-License-Identifier: MIT */
/* Status codes and error details: how every fallible function of Aulos reports.
 *
 * A function returns an au_status and, through its last argument, may fill an au_err with the
 * details. The au_err is the caller's, may be NULL, and is written only on failure. There are no
 * globals; all of this is thread-safe as long as two threads do not share one au_err. */
#ifndef AULOS_STATUS_H
#define AULOS_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define AU_API __attribute__((visibility("default")))
#define AU_MUST_CHECK __attribute__((warn_unused_result))

/* Values are only ever appended. */
typedef enum au_status {
    AU_OK = 0,
    AU_INVALID,     /* the caller's fault: an argument, option or request is wrong */
    AU_NOT_FOUND,   /* the thing named does not exist */
    AU_EXISTS,      /* the thing to be made exists already */
    AU_CONFLICT,    /* the thing is in a state that does not allow this, or somebody was first */
    AU_UNSUPPORTED, /* well-formed, but not something this version does */
    AU_CORRUPT,     /* a file's content is damaged or does not fit what it claims to be */
    AU_LIMIT,       /* a configured limit (size, count, memory, queue) would be exceeded */
    AU_CANCELLED,   /* stopped because the caller asked for it */
    AU_AGAIN,       /* not now; the same call may succeed later */
    AU_IO,          /* the operating system or a device failed */
    AU_NOSPACE,     /* no space left on the device */
    AU_NOMEM,       /* out of memory */
    AU_INTERNAL,    /* our fault: a broken invariant that could be reported instead of aborting */
} au_status;

enum { AU_STATUS_COUNT = AU_INTERNAL + 1 };

/* Details of a failure. `message` is one lower-case sentence without a final period that names the
 * thing, the value found and the value expected; several problems are separated by newlines. */
typedef struct au_err {
    au_status status;
    int line;         /* where in the source it was raised */
    const char *file; /* static string */
    char message[4072];
} au_err;

/* A short English text for a status ("not found"). Static storage; never NULL. */
AU_API const char *au_status_text(au_status status);

#ifdef __cplusplus
}
#endif
#endif
