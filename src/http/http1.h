/* SPDX-License-Identifier: MIT */
/* HTTP/1.1 message syntax (RFC 9112), strictly: the end of a request head, its parsing, and the
 * chunked coding. Pure functions over bytes from outside; no I/O.
 *
 * Strictly means: a bare LF or CR, a NUL, white space before a colon, a folded line, Content-Length
 * beside Transfer-Encoding, a repeated Content-Length, any Transfer-Encoding but "chunked", and a
 * missing or repeated Host are refused, since two parsers that differ about them are how requests
 * are smuggled. */
#ifndef AU_HTTP_HTTP1_H
#define AU_HTTP_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "http/problem.h"

enum {
    AU_HTTP_LINE_MAX = 8192,  /* request line */
    AU_HTTP_HEAD_MAX = 32768, /* request line and fields */
    AU_HTTP_FIELDS_MAX = 100,
};

typedef struct au_http_field {
    const char *name;  /* lower case */
    const char *value; /* without surrounding white space */
} au_http_field;

typedef struct au_http_head {
    const char *method;
    const char *path;  /* as sent, percent-encoded, begins with '/' */
    const char *query; /* after the '?', percent-encoded; NULL: none */
    const char *host;  /* authority of the target or the Host field; NULL only with HTTP/1.0 */
    int minor;         /* of the version: 0 or 1 */
    au_http_field *fields;
    size_t n_fields;
    bool chunked;
    bool has_length;
    uint64_t length; /* Content-Length */
    bool keep_alive; /* the client wants the connection to stay */
    bool expect_continue;
} au_http_head;

typedef enum au_http_scan { AU_SCAN_MORE, AU_SCAN_DONE, AU_SCAN_BAD } au_http_scan;

/* Looks for the end of a head in buf[0, len), of which buf[0, *scanned) has been looked at by an
 * earlier call (0 at first). DONE sets *head_len, the final empty line included. BAD: a byte that
 * may not stand in a head. */
au_http_scan au_http1_scan(const char *buf, size_t len, size_t *scanned, size_t *head_len);

/* Parses a complete head of `len` bytes, as found by au_http1_scan. Strings are put into the arena.
 * NONE on success; else the problem to answer, with *detail (static) saying why. The connection
 * cannot be used further after a problem. */
au_problem au_http1_parse(au_http_head *head, au_arena *arena, const char *buf, size_t len,
                          const char **detail);

/* The value of a field (name in lower case); NULL when it is absent. *count (may be NULL) is the
 * number of lines with that name. */
const char *au_http_field_get(const au_http_head *head, const char *name, size_t *count);

/* The chunked coding, as a state machine fed with what arrives. Zeroed at first. */
typedef struct au_chunked {
    int state;
    uint64_t left; /* data bytes of this chunk still to come */
    int digits;
    size_t line;     /* bytes of the current extension or trailer line */
    size_t overhead; /* extension and trailer bytes in all */
} au_chunked;

/* Reads from buf[0, len) and appends data to `out`, whose maximum bounds the body. *used is what
 * was consumed. DONE after the last byte of the trailer; BAD on wrong syntax; MORE otherwise (also
 * when out's sticky error is set: check it). */
au_http_scan au_chunked_feed(au_chunked *c, au_buf *out, const char *buf, size_t len, size_t *used);

/* Decodes %XX (and '+' as a blank, if asked) of s[0, len) into the arena. NULL: a wrong escape, a
 * NUL, invalid UTF-8, or no memory. */
char *au_http_unescape(au_arena *arena, const char *s, size_t len, bool plus);

bool au_http_is_token(const char *s, size_t len);

#endif
