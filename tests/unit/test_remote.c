/* SPDX-License-Identifier: MIT */
/* The command line's HTTP client: what it takes for a reply, and what it refuses to ask. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cli/remote.h"

static void test_replies(void **state)
{
    (void)state;
    static const struct {
        const char *reply;
        int status; /* 0: refused */
        const char *body;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\n\r\nabc", 200, "abc"},
        {"HTTP/1.1 200\r\n\r\nabc", 200, "abc"},
        {"HTTP/1.0 204 No Content\r\nX: y\r\n\r\n", 204, ""},
        {"HTTP/1.1 200 OK\r\ncontent-LENGTH:   2\r\n\r\nabc", 200, "ab"},
        {"HTTP/1.1 404 Not Found\r\nA: b\r\nContent-Length: 3\r\nC: d\r\n\r\nabc", 404, "abc"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200,
         "abc"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", 0, NULL},
        {"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc", 0, NULL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\nabc", 0, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", 0, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab", 0, NULL},
        {"HTTP/1.1 200 OK\r\nA: b", 0, NULL},
        {"HTTP/1.1 100 Continue\r\n\r\n", 0, NULL},
        {"HTTP/1.1 abc Odd\r\n\r\n", 0, NULL},
        {"HTTP/2.0 200 OK\r\n\r\n", 0, NULL},
        {"ICY 200 OK\r\n\r\n", 0, NULL},
        {"", 0, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status = 0;
        au_err err;
        au_buf body;
        au_buf_init(&body, 1000);
        au_status st = au_remote_parse(&status, &body, rows[i].reply, strlen(rows[i].reply), &err);
        assert_int_equal(st, rows[i].status ? AU_OK : AU_CORRUPT);
        if (rows[i].status) {
            assert_int_equal(status, rows[i].status);
            assert_string_equal(au_buf_cstr(&body), rows[i].body);
        }
        au_buf_deinit(&body);
    }
}

static void test_servers_and_keys(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           "127.0.0.1:8080", "https://127.0.0.1:8080", "http://",   "http:///v1",
        "http://:80", "http://[::1",    "http://[]:80",           "http://a:", "http://a:123456789",
        "http://a b", "http://u@h",     "http://h\r\nX: y",       "http://h?x"};
    json_t *reply;
    au_err err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(au_remote_call(&reply, bad[i], NULL, "GET", "/", NULL, &err), AU_INVALID);
        assert_null(reply);
    }
    assert_int_equal(
        au_remote_call(&reply, "http://127.0.0.1:1", "aulos_x\r\nY: z", "GET", "/", NULL, &err),
        AU_INVALID);
    /* Nobody listens on port 1. */
    assert_int_equal(au_remote_call(&reply, "http://127.0.0.1:1", NULL, "GET", "/", NULL, &err),
                     AU_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_servers_and_keys),
    };
    return cmocka_run_group_tests_name("remote", tests, NULL, NULL);
}
