/* SPDX-License-Identifier: MIT */
/* One row a route, and one for what matched none; relaxed atomics, since each number stands for
 * itself. A histogram's count is the sum of its buckets, so that both always agree. */
#include "http/counters.h"

#include <stdlib.h>

#include "base/mem.h"
#include "http/http.h"

/* Upper bounds of the buckets in seconds; the last one is infinite. */
static const double bounds[AU_HTTP_BUCKETS - 1] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                   0.1,   0.25,   0.5,   1,    2.5,   10};

typedef struct row {
    const char *method, *pattern;
    _Atomic uint64_t by_class[AU_HTTP_CLASSES]; /* 1xx ... 5xx */
    _Atomic uint64_t buckets[AU_HTTP_BUCKETS];  /* not summed up */
    _Atomic uint64_t duration_us, bytes;
} row;

struct au_http_stats {
    const au_http_route *routes;
    size_t n; /* rows, the one without a route last */
    row rows[];
};

au_status au_http_stats_new(au_http_stats **out, const au_http_route *routes, au_err *err)
{
    size_t n = 0;
    while (routes[n].method)
        n++;
    au_http_stats *s = calloc(1, sizeof *s + (n + 1) * sizeof *s->rows);
    if (!s)
        return au_fail(err, AU_NOMEM, "out of memory");
    s->routes = routes;
    s->n = n + 1;
    for (size_t i = 0; i < n; i++) {
        s->rows[i].method = routes[i].method;
        s->rows[i].pattern = routes[i].pattern;
    }
    s->rows[n].method = s->rows[n].pattern = "none";
    *out = s;
    return AU_OK;
}

void au_http_stats_free(au_http_stats **stats)
{
    free(*stats);
    *stats = NULL;
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void au_http_stats_count(au_http_stats *s, const au_http_route *route, int status,
                         int64_t duration_ns, uint64_t bytes)
{
    row *r = &s->rows[route ? (size_t)(route - s->routes) : s->n - 1];
    double seconds = (double)duration_ns * 1e-9;
    int bucket = 0, class = status / 100 - 1;
    while (bucket < AU_HTTP_BUCKETS - 1 && seconds > bounds[bucket])
        bucket++;
    if (class >= 0 && class < AU_HTTP_CLASSES)
        add(&r->by_class[class], 1);
    add(&r->buckets[bucket], 1);
    add(&r->duration_us, duration_ns > 0 ? (uint64_t)duration_ns / 1000 : 0);
    add(&r->bytes, bytes);
}

static void write_requests(const au_http_stats *s, au_buf *out)
{
    au_buf_str(out, "# HELP aulos_http_requests_total Requests that were answered.\n"
                    "# TYPE aulos_http_requests_total counter\n");
    for (size_t i = 0; i < s->n; i++) {
        for (int c = 0; c < AU_HTTP_CLASSES; c++) {
            uint64_t n = get(&s->rows[i].by_class[c]);
            if (n)
                au_buf_printf(
                    out,
                    "aulos_http_requests_total{method=\"%s\",route=\"%s\",status=\"%dxx\"} "
                    "%llu\n",
                    s->rows[i].method, s->rows[i].pattern, c + 1, (unsigned long long)n);
        }
    }
}

static void write_histogram(const row *r, au_buf *out)
{
    uint64_t sum = 0;
    const char *name = "aulos_http_request_duration_seconds";
    for (int b = 0; b < AU_HTTP_BUCKETS; b++) {
        sum += get(&r->buckets[b]);
        au_buf_printf(out, "%s_bucket{method=\"%s\",route=\"%s\",le=\"", name, r->method,
                      r->pattern);
        if (b < AU_HTTP_BUCKETS - 1)
            au_buf_printf(out, "%g\"} %llu\n", bounds[b], (unsigned long long)sum);
        else
            au_buf_printf(out, "+Inf\"} %llu\n", (unsigned long long)sum);
    }
    au_buf_printf(out, "%s_sum{method=\"%s\",route=\"%s\"} %.6f\n", name, r->method, r->pattern,
                  (double)get(&r->duration_us) * 1e-6);
    au_buf_printf(out, "%s_count{method=\"%s\",route=\"%s\"} %llu\n", name, r->method, r->pattern,
                  (unsigned long long)sum);
}

void au_http_stats_write(const au_http_stats *s, au_buf *out)
{
    uint64_t bytes = 0;
    write_requests(s, out);
    au_buf_str(out,
               "# HELP aulos_http_request_duration_seconds From the first byte of a request to "
               "the last of its reply; long polls and streams wait in there.\n"
               "# TYPE aulos_http_request_duration_seconds histogram\n");
    for (size_t i = 0; i < s->n; i++) {
        bool used = false;
        for (int c = 0; c < AU_HTTP_CLASSES; c++)
            used |= get(&s->rows[i].by_class[c]) > 0;
        if (used)
            write_histogram(&s->rows[i], out);
        bytes += get(&s->rows[i].bytes);
    }
    au_buf_printf(out,
                  "# HELP aulos_http_response_bytes_total Bytes of reply bodies.\n"
                  "# TYPE aulos_http_response_bytes_total counter\n"
                  "aulos_http_response_bytes_total %llu\n",
                  (unsigned long long)bytes);
}
