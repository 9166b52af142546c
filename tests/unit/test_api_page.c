/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "api/api.h"
#include "base/clock.h"

static void test_cursors_go_there_and_back(void **state)
{
    (void)state;
    char id[AU_UUID_TEXT], cursor[AU_UUID_TEXT], back[AU_UUID_TEXT];
    au_uuid7(id);
    au_cursor_encode(cursor, id);
    assert_false(au_uuid_valid(cursor));
    assert_true(au_cursor_decode(back, cursor));
    assert_string_equal(back, id);
    cursor[5] = 'A';
    assert_false(au_cursor_decode(back, cursor));
    static const char *const bad[] = {"",
                                      "x",
                                      "0123",
                                      "' OR 1=1 --",
                                      "0123456789abcdef0123456789abcdef0",
                                      "0123456789abcdef0123456789abcdeg"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(au_cursor_decode(back, bad[i]));
}

static void test_times(void **state)
{
    (void)state;
    int64_t ms;
    assert_true(au_time_parse("1970-01-01T00:00:00Z", &ms));
    assert_int_equal(ms, 0);
    assert_true(au_time_parse("2026-11-24T09:30:00.123Z", &ms));
    assert_int_equal(ms, 1795512600123);
    char text[AU_TIME_TEXT];
    assert_string_equal(au_time_format(text, ms), "2026-11-24T09:30:00.123Z");
    assert_true(au_time_parse("2026-11-24T11:30:00.1234567+02:00", &ms));
    assert_int_equal(ms, 1795512600123);
    assert_true(au_time_parse("2024-02-29t00:00:00-00:30", &ms));
    /* every day of 400 years */
    for (int64_t day = 0; day < 146097; day += 13) {
        assert_true(au_time_parse(au_time_format(text, day * 86400000 + 1), &ms));
        assert_int_equal(ms, day * 86400000 + 1);
    }
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "2026-11-24",
                                      "2026-11-24T09:30:00",
                                      "2026-11-24 09:30:00Z",
                                      "2026-13-24T09:30:00Z",
                                      "2026-02-30T09:30:00Z",
                                      "2025-02-29T00:00:00Z",
                                      "2026-11-24T24:30:00Z",
                                      "2026-11-24T09:30:00.Z",
                                      "2026-11-24T09:30:00Zx",
                                      "2026-11-24T09:30:00+2:00",
                                      "1969-12-31T23:59:59Z",
                                      "2026-11-24T09:30:00 02:00"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (au_time_parse(bad[i], &ms))
            fail_msg("taken: %s", bad[i]);
    }
}

/* HEAD stands behind each GET; no pair stands twice; patterns are well formed. */
static void test_the_table_of_routes_is_sound(void **state)
{
    (void)state;
    for (const au_http_route *r = au_api_routes; r->method; r++) {
        assert_non_null(r->handler);
        assert_int_equal(r->pattern[0], '/');
        assert_true(r->pattern[1] == '\0' || r->pattern[strlen(r->pattern) - 1] != '/');
        bool json = strcmp(r->method, "POST") == 0 || strcmp(r->method, "PATCH") == 0;
        assert_int_equal(json, (r->flags & (AU_ROUTE_JSON | AU_ROUTE_UPLOAD)) != 0);
        for (const au_http_route *q = r + 1; q->method; q++)
            assert_false(strcmp(r->method, q->method) == 0 && strcmp(r->pattern, q->pattern) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cursors_go_there_and_back),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_the_table_of_routes_is_sound),
    };
    return cmocka_run_group_tests_name("api_page", tests, NULL, NULL);
}
