/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/json.h"

static au_status parse(const char *text, size_t len, au_err *err)
{
    json_t *j;
    au_status st = au_json_parse(&j, text, len, "test", err);
    json_decref(j);
    return st;
}

static void test_refuses_what_is_not_clean_json(void **state)
{
    (void)state;
    const char *bad[] = {
        "",           "{",       "{\"a\":1,\"a\":2}", "[NaN]", "[1] x",   "[\"\\u0000\"]",
        "[\"\xff\"]", "[1e999]", "[\"\\ud800\"]",     "[01]",  "{'a':1}", "[99999999999999999999]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        au_err err;
        assert_int_equal(parse(bad[i], strlen(bad[i]), &err), AU_CORRUPT);
        assert_non_null(strstr(err.message, "test: not valid JSON: line "));
    }
}

static void test_limits_depth_outside_strings(void **state)
{
    (void)state;
    char text[256] = {0};
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    assert_int_equal(parse(text, 128, NULL), AU_OK);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    au_err err;
    assert_int_equal(parse(text, 130, &err), AU_CORRUPT);
    assert_non_null(strstr(err.message, "64 levels"));
    const char *brackets =
        "[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[\"]";
    assert_int_equal(parse(brackets, strlen(brackets), NULL), AU_OK);
}

static void test_dump_is_sorted_and_short(void **state)
{
    (void)state;
    const char *text =
        "{\"b\":[1,true,null,-2],\"a\":0.1,\"c\":\"q\\\"\\\\\\n\\u0001\xc3\xa4/\",\"B\":{}}";
    json_t *j;
    assert_int_equal(au_json_parse(&j, text, strlen(text), "test", NULL), AU_OK);
    au_buf b;
    au_buf_init(&b, 1000);
    au_json_dump(&b, j);
    assert_string_equal(
        au_buf_cstr(&b),
        "{\"B\":{},\"a\":0.1,\"b\":[1,true,null,-2],\"c\":\"q\\\"\\\\\\n\\u0001\xc3\xa4/\"}");
    au_buf_deinit(&b);
    json_decref(j);
}

static void test_reals_read_back(void **state)
{
    (void)state;
    const struct {
        double value;
        const char *text;
    } cases[] = {{1, "1.0"},
                 {100, "100.0"},
                 {-0.0, "-0.0"},
                 {0.1, "0.1"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1e22, "1e+22"},
                 {1e-7, "1e-07"},
                 {0.00012, "0.00012"},
                 {5e-324, "5e-324"},
                 {123456.789, "123456.789"},
                 {1.7976931348623157e308, "1.7976931348623157e+308"},
                 {9007199254740993.0, "9007199254740992.0"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = json_real(cases[i].value);
        au_buf b;
        au_buf_init(&b, 100);
        au_json_dump(&b, j);
        assert_string_equal(au_buf_cstr(&b), cases[i].text);
        assert_true(strtod(au_buf_cstr(&b), NULL) == cases[i].value);
        au_buf_deinit(&b);
        json_decref(j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_what_is_not_clean_json),
        cmocka_unit_test(test_limits_depth_outside_strings),
        cmocka_unit_test(test_dump_is_sorted_and_short),
        cmocka_unit_test(test_reals_read_back),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
