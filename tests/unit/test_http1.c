/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "http/http1.h"

#define LINE "GET /v1/jobs?limit=2 HTTP/1.1\r\n"
#define HOST "Host: localhost:8080\r\n"

/* Scans byte by byte, then parses. Returns the status: 0 fine, -1 the scan refuses, -2 no end was
 * found. */
static int parse(au_arena *arena, au_http_head *head, const char *text)
{
    size_t len = strlen(text), scanned = 0, head_len = 0;
    au_http_scan scan = AU_SCAN_MORE;
    for (size_t n = 0; n <= len && scan == AU_SCAN_MORE; n++)
        scan = au_http1_scan(text, n, &scanned, &head_len);
    if (scan != AU_SCAN_DONE)
        return scan == AU_SCAN_BAD ? -1 : -2;
    const char *detail = NULL;
    au_problem p = au_http1_parse(head, arena, text, head_len, &detail);
    if (p)
        assert_non_null(detail);
    return p ? au_problem_get(p)->status : 0;
}

static void test_reads_a_head(void **state)
{
    (void)state;
    au_arena arena;
    au_arena_init(&arena, 1 << 20);
    au_http_head head;
    assert_int_equal(
        parse(&arena, &head,
              "POST /v1/a%20b?x=1&y HTTP/1.1\r\nHost: a:1\r\nX-Thing:  some value \t\r\n"
              "Content-Length: 12\r\nx-thing:second\r\nConnection: foo, Close\r\n\r\nbody"),
        0);
    assert_string_equal(head.method, "POST");
    assert_string_equal(head.path, "/v1/a%20b");
    assert_string_equal(head.query, "x=1&y");
    assert_string_equal(head.host, "a:1");
    size_t n;
    assert_string_equal(au_http_field_get(&head, "x-thing", &n), "some value");
    assert_int_equal(n, 2);
    assert_null(au_http_field_get(&head, "absent", &n));
    assert_true(head.has_length && head.length == 12 && !head.chunked && !head.keep_alive);
    assert_int_equal(parse(&arena, &head, "GET http://b.example/x?y HTTP/1.1\r\n" HOST "\r\n"), 0);
    assert_string_equal(head.host, "b.example");
    assert_string_equal(head.path, "/x");
    assert_string_equal(head.query, "y");
    assert_true(head.keep_alive);
    assert_int_equal(parse(&arena, &head, "GET / HTTP/1.0\r\n\r\n"), 0);
    assert_false(head.keep_alive);
    assert_null(head.host);
    assert_int_equal(parse(&arena, &head,
                           LINE HOST "Transfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n"),
                     0);
    assert_true(head.chunked && head.expect_continue);
    au_arena_deinit(&arena);
}

static void test_refuses_what_smuggles(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int want;
    } rows[] = {
        {LINE HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {LINE HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
        {LINE HOST "Content-Length: 1, 1\r\n\r\n", 400},
        {LINE HOST "Content-Length: +1\r\n\r\n", 400},
        {LINE HOST "Content-Length: \r\n\r\n", 400},
        {LINE HOST "Content-Length: 9223372036854775808\r\n\r\n", 400},
        {LINE HOST "Content-Length: 99999999999999999999\r\n\r\n", 400},
        {LINE HOST "Transfer-Encoding: chunked, identity\r\n\r\n", 400},
        {LINE HOST "Transfer-Encoding: gzip\r\n\r\n", 400},
        {LINE HOST "Transfer-Encoding: \x0b"
                   "chunked\r\n\r\n",
         400},
        {LINE HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {LINE HOST "Content-Length : 1\r\n\r\n", 400},
        {LINE HOST " Content-Length: 1\r\n\r\n", 400},
        {LINE HOST "X: a\r\n\tfolded\r\n\r\n", 400},
        {LINE HOST ": no name\r\n\r\n", 400},
        {LINE HOST "no colon\r\n\r\n", 400},
        {LINE HOST "X: a\x01\r\n\r\n", 400},
        {LINE "\r\n", 400},
        {LINE HOST HOST "\r\n", 400},
        {LINE HOST "X: a\nY: b\r\n\r\n", -1},
        {"GET / HTTP/1.1\n" HOST "\n", -1},
        {LINE HOST "X: a\rY: b\r\n\r\n", -1},
        {LINE HOST "X: \x7f\r\n\r\n", -1},
        {"GET  / HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET / x HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"G\"ET / HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET x HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /a#b HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET http:/// HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
        {"GET / HTTP/1.2\r\n" HOST "\r\n", 505},
        {"GET / http/1.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1.11\r\n" HOST "\r\n", 400},
        {LINE HOST "Expect: cookies\r\n\r\n", 417},
        {LINE HOST, -2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        au_arena arena;
        au_arena_init(&arena, 1 << 20);
        au_http_head head;
        int got = parse(&arena, &head, rows[i].text);
        if (got != rows[i].want)
            fail_msg("row %zu: got %d, want %d: %s", i, got, rows[i].want, rows[i].text);
        au_arena_deinit(&arena);
    }
}

static void test_limits_of_a_head(void **state)
{
    (void)state;
    char *text = malloc(40000);
    au_arena arena;
    au_http_head head;
    for (int over = 0; over < 2; over++) {
        size_t len = (size_t)sprintf(text, "%s%s", LINE, HOST);
        for (int i = 1; i < AU_HTTP_FIELDS_MAX + over; i++)
            len += (size_t)sprintf(text + len, "F%d: x\r\n", i);
        strcpy(text + len, "\r\n");
        au_arena_init(&arena, 1 << 20);
        assert_int_equal(parse(&arena, &head, text), over ? 431 : 0);
        au_arena_deinit(&arena);

        size_t line = (size_t)sprintf(text, "GET /");
        memset(text + line, 'a', AU_HTTP_LINE_MAX);
        sprintf(text + AU_HTTP_LINE_MAX + over - 11, " HTTP/1.1\r\n%s\r\n", HOST);
        au_arena_init(&arena, 1 << 20);
        assert_int_equal(parse(&arena, &head, text), over ? 414 : 0);
        au_arena_deinit(&arena);
    }
    free(text);
}

/* Feeds in pieces of every size: the result must not depend on them. */
static au_http_scan unchunk(const char *in, size_t max, char *out, size_t *left)
{
    au_http_scan first = AU_SCAN_MORE;
    for (size_t piece = 1; piece <= strlen(in); piece++) {
        au_chunked c = {0};
        au_buf body;
        au_buf_init(&body, max);
        au_http_scan scan = AU_SCAN_MORE;
        size_t pos = 0, used;
        while (pos < strlen(in) && scan == AU_SCAN_MORE && body.status == AU_OK) {
            size_t n = strlen(in) - pos < piece ? strlen(in) - pos : piece;
            scan = au_chunked_feed(&c, &body, in + pos, n, &used);
            pos += used;
        }
        if (piece > 1)
            assert_int_equal(scan, first);
        first = scan;
        strcpy(out, body.status == AU_OK ? au_buf_cstr(&body) : "LIMIT");
        *left = strlen(in) - pos;
        au_buf_deinit(&body);
    }
    return first;
}

static void test_chunked(void **state)
{
    (void)state;
    char out[64];
    size_t left;
    assert_int_equal(
        unchunk("5\r\nhello\r\n3;ext=\"a;b\"\r\n wo\r\n0\r\nTrailer: x\r\n\r\nGET", 20, out, &left),
        AU_SCAN_DONE);
    assert_string_equal(out, "hello wo");
    assert_int_equal(left, 3);
    assert_int_equal(unchunk("0\r\n\r\n", 20, out, &left), AU_SCAN_DONE);
    assert_int_equal(unchunk("00A\r\n0123456789\r\n", 20, out, &left), AU_SCAN_MORE);
    assert_string_equal(out, "0123456789");
    static const char *const bad[] = {
        "5\nhello\r\n",
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "5\r\nhelloX\r\n",
        "5\r\nhello\n0\r\n",
        "1000000000000000\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
        "5 ;\x01\r\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (unchunk(bad[i], 20, out, &left) != AU_SCAN_BAD)
            fail_msg("accepted: %s", bad[i]);
    }
    unchunk("5\r\nhello\r\n", 4, out, &left);
    assert_string_equal(out, "LIMIT");
}

static void test_unescape(void **state)
{
    (void)state;
    au_arena arena;
    au_arena_init(&arena, 4096);
    assert_string_equal(au_http_unescape(&arena, "a%20b+c%C3%a4", 13, true), "a b c\xc3\xa4");
    assert_string_equal(au_http_unescape(&arena, "a+b", 3, false), "a+b");
    static const char *const bad[] = {"%", "%2", "%zz", "a%00b", "%ff", "%c0%80", "%2x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_null(au_http_unescape(&arena, bad[i], strlen(bad[i]), false));
    au_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_head),     cmocka_unit_test(test_refuses_what_smuggles),
        cmocka_unit_test(test_limits_of_a_head), cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_unescape),
    };
    return cmocka_run_group_tests_name("http1", tests, NULL, NULL);
}
