/* SPDX-License-Identifier: MIT */
/* multipart/form-data (RFC 7578) as a push parser: fed with the body in pieces of any size, it
 * tells of each part and its data as they come and holds nothing but one part's header lines.
 *
 * Strictly: lines end with CR LF, every part has a Content-Disposition of form-data with a name,
 * neither "filename*" nor a transfer coding that would need decoding is taken. Names and file names
 * are given as they were sent, valid UTF-8 without NUL and control characters. Not thread-safe. */
#ifndef AU_HTTP_MULTIPART_H
#define AU_HTTP_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum {
    AU_MULTIPART_BOUNDARY_MAX = 70,
    AU_MULTIPART_HEADER_MAX = 4096, /* header lines of one part */
    AU_MULTIPART_PARTS_MAX = 1024,
};

typedef struct au_multipart_events {
    /* file_name NULL: a field rather than a file. Strings are borrowed for the call. */
    au_status (*begin)(void *user, const char *name, const char *file_name, au_err *err);
    au_status (*data)(void *user, const char *data, size_t len, au_err *err);
    au_status (*end)(void *user, au_err *err);
} au_multipart_events;

typedef struct au_multipart {
    const au_multipart_events *events;
    void *user;
    char delimiter[AU_MULTIPART_BOUNDARY_MAX + 5]; /* CR LF "--" boundary */
    size_t delimiter_len;
    int state;
    size_t matched; /* bytes of the delimiter seen */
    char header[AU_MULTIPART_HEADER_MAX];
    size_t header_len;
    size_t preamble;
    bool begun; /* the body's first byte is behind us */
    int n_parts;
} au_multipart;

/* Begins with the value of a Content-Type field. AU_UNSUPPORTED: not multipart/form-data (or NULL);
 * AU_INVALID: its boundary is missing or wrong. */
AU_MUST_CHECK au_status au_multipart_init(au_multipart *m, const char *content_type,
                                          const au_multipart_events *events, void *user,
                                          au_err *err);
/* The next bytes. AU_CORRUPT: not the syntax; AU_INVALID: a name that is no text; else what an
 * event function returned. No further call after a failure. */
AU_MUST_CHECK au_status au_multipart_feed(au_multipart *m, const char *data, size_t len,
                                          au_err *err);
/* All bytes were fed. AU_CORRUPT: the last boundary did not come. */
AU_MUST_CHECK au_status au_multipart_finish(const au_multipart *m, au_err *err);

#endif
