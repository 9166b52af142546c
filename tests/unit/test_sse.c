/* SPDX-License-Identifier: MIT */
/* Text of server-sent events, and numbers of events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "api/sse.h"

static void check(const char *data, const char *text)
{
    au_buf b;
    au_buf_init(&b, 4096);
    au_sse_id(&b, 12);
    au_sse_event(&b, "state", data);
    assert_string_equal(au_buf_cstr(&b), text);
    au_buf_deinit(&b);
}

static void test_events(void **state)
{
    (void)state;
    check("{}", "id: 12\nevent: state\ndata: {}\n\n");
    check("", "id: 12\nevent: state\ndata: \n\n");
    /* No data ends an event early or begins a field. */
    check("a\n\nid: 9", "id: 12\nevent: state\ndata: a\ndata: \ndata: id: 9\n\n");
    check("a\r\nb\rc\n", "id: 12\nevent: state\ndata: a\ndata: b\ndata: c\ndata: \n\n");
}

static void test_numbers(void **state)
{
    (void)state;
    int64_t n = -5;
    assert_true(au_sse_last_id("0", &n));
    assert_int_equal(n, 0);
    assert_true(au_sse_last_id("007", &n));
    assert_int_equal(n, 7);
    assert_true(au_sse_last_id("9223372036854775807", &n));
    assert_true(n == INT64_MAX);
    static const char *const bad[] = {"",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1.0",
                                      "0x1",
                                      "1e3",
                                      "one",
                                      "\xd9\xa1",
                                      "9223372036854775808",
                                      "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(au_sse_last_id(bad[i], &n));
    assert_true(n == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_events),
                                       cmocka_unit_test(test_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
