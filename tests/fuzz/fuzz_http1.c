/* SPDX-License-Identifier: MIT */
/* Request heads, routes and chunked bodies. The first byte chooses the size of the pieces in which
 * the input arrives; whatever they are, the outcome must be that of one piece. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/guard.h"
#include "http/http1.h"
#include "http/router.h"

static const au_http_route routes[] = {
    {"GET", "/v1/jobs/{id}", NULL, 0},
    {"POST", "/v1/samples/{id}/audio.{ext}", NULL, 0},
    {NULL, NULL, NULL, 0},
};

static au_http_scan scan_in_pieces(const char *text, size_t len, size_t piece, size_t *head_len)
{
    size_t scanned = 0;
    au_http_scan scan = AU_SCAN_MORE;
    for (size_t n = 0; scan == AU_SCAN_MORE && n < len;) {
        n = len - n < piece ? len : n + piece;
        scan = au_http1_scan(text, n, &scanned, head_len);
    }
    return scan;
}

static void feed_chunks(const char *text, size_t len, size_t piece, au_buf *out, au_http_scan *scan)
{
    au_chunked c = {0};
    size_t pos = 0;
    *scan = AU_SCAN_MORE;
    while (pos < len && *scan == AU_SCAN_MORE && out->status == AU_OK) {
        size_t used, n = len - pos < piece ? len - pos : piece;
        *scan = au_chunked_feed(&c, out, text + pos, n, &used);
        pos += used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t piece = 1 + data[0] % 64, len = size - 1;
    const char *text = (const char *)data + 1;
    size_t whole_len = 0, pieces_len = 0;
    au_http_scan whole = scan_in_pieces(text, len, SIZE_MAX, &whole_len);
    au_http_scan pieces = scan_in_pieces(text, len, piece, &pieces_len);
    if (whole != pieces || whole_len != pieces_len)
        abort();
    if (whole == AU_SCAN_DONE) {
        au_arena arena;
        au_arena_init(&arena, 1 << 20);
        au_http_head head;
        const char *detail = NULL;
        au_problem p = au_http1_parse(&head, &arena, text, whole_len, &detail);
        if (p && !detail)
            abort();
        if (!p) {
            au_http_match match;
            if (au_http_route_find(&match, routes, &arena, head.method, head.path) ==
                    AU_PROBLEM_NONE &&
                !match.route)
                abort();
            const au_http_guard guard = {"127.0.0.1", "aulos.example"};
            if (head.host)
                au_http_guard_host(&guard, head.host);
            au_http_guard_origin(&guard, head.host, au_http_field_get(&head, "origin", NULL), NULL);
            if (head.chunked && head.has_length)
                abort();
        }
        au_arena_deinit(&arena);
    }
    au_buf a, b;
    au_buf_init(&a, 4096);
    au_buf_init(&b, 4096);
    feed_chunks(text, len, SIZE_MAX, &a, &whole);
    feed_chunks(text, len, piece, &b, &pieces);
    if (a.status != b.status || (a.status == AU_OK && (whole != pieces || a.len != b.len)))
        abort();
    au_buf_deinit(&a);
    au_buf_deinit(&b);
    return 0;
}
