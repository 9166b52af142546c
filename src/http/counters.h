/* SPDX-License-Identifier: MIT */
/* What the HTTP server counts of itself: requests by route and kind of status, how long they took,
 * bytes. Counters are atomic and only rise. */
#ifndef AU_HTTP_COUNTERS_H
#define AU_HTTP_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct au_http_route;

enum { AU_HTTP_BUCKETS = 13, AU_HTTP_CLASSES = 5 };

typedef struct au_http_stats au_http_stats;

/* For a table of routes that ends with a NULL method; borrowed. */
AU_MUST_CHECK au_status au_http_stats_new(au_http_stats **out, const struct au_http_route *routes,
                                          au_err *err);
void au_http_stats_free(au_http_stats **stats); /* NULL is fine */

/* A request was answered. route NULL: none matched. Any thread. */
void au_http_stats_count(au_http_stats *stats, const struct au_http_route *route, int status,
                         int64_t duration_ns, uint64_t bytes);

/* Appends them in the text format of Prometheus. Any thread. */
void au_http_stats_write(const au_http_stats *stats, au_buf *out);

#endif
