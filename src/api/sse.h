/* SPDX-License-Identifier: MIT */
/* The text of server-sent events (WHATWG HTML, section 9.2), and what a client sends back of it.
 * Pure functions. */
#ifndef AU_API_SSE_H
#define AU_API_SSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* Appends "event: ...", "data: ..." and the empty line that ends an event. Data may hold line
 * feeds: it is cut into as many lines. `event` holds none. */
void au_sse_event(au_buf *out, const char *event, const char *data);
/* Appends "id: N", which belongs before its event. */
void au_sse_id(au_buf *out, int64_t id);

/* Last-Event-ID: decimal digits only, from 0 to 2^63 - 1. */
bool au_sse_last_id(const char *text, int64_t *out);

#endif
