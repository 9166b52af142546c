/* SPDX-License-Identifier: MIT */
/* Values of header fields that say who asks: cookies, bearer tokens, trace context. Pure functions
 * over text from outside. */
#ifndef AU_HTTP_FIELDS_H
#define AU_HTTP_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

enum { AU_TRACE_ID_TEXT = 33 };

/* The value of the first cookie of that name in a Cookie field: *value points into the field, *len
 * bytes, quotes taken off. False: there is none. */
bool au_cookie_find(const char *field, const char *name, const char **value, size_t *len);

/* The token of "Bearer <token>" (the scheme in any case): points into the field, *len bytes; ""
 * with nothing behind the scheme. False: another scheme. */
bool au_bearer_token(const char *field, const char **token, size_t *len);

/* The trace id of a valid traceparent (W3C Trace Context, level 1 and whatever later versions add
 * behind it). False: it is none, and is ignored. */
bool au_trace_id_parse(char out[AU_TRACE_ID_TEXT], const char *traceparent);

#endif
