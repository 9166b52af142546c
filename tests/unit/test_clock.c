/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"

static void test_format(void **state)
{
    (void)state;
    char buf[AU_TIME_TEXT];
    assert_string_equal(au_time_format(buf, 0), "1970-01-01T00:00:00.000Z");
    assert_string_equal(au_time_format(buf, 1795512600123), "2026-11-24T09:30:00.123Z");
    assert_string_equal(au_time_format(buf, -1), "1969-12-31T23:59:59.999Z");
    assert_string_equal(au_time_format(buf, INT64_MAX), "9999-12-31T23:59:59.999Z");
    assert_string_equal(au_time_format(buf, INT64_MIN), "0000-01-01T00:00:00.000Z");
}

static void test_monotonic(void **state)
{
    (void)state;
    int64_t a = au_mono_ns();
    au_sleep_ms(2);
    assert_true(au_mono_ns() - a >= 2000000);
    au_sleep_ms(-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_format),
                                       cmocka_unit_test(test_monotonic)};
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
