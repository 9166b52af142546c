/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/str.h"

static void test_integers(void **state)
{
    (void)state;
    uint64_t u = 0;
    int64_t i = 0;
    assert_true(au_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_true(au_parse_u64("007", &u) && u == 7);
    const char *bad_u[] = {"", "-1", "+1", " 1", "1 ", "1x", "0x10", "18446744073709551616"};
    for (size_t k = 0; k < sizeof bad_u / sizeof *bad_u; k++)
        assert_false(au_parse_u64(bad_u[k], &u));
    assert_true(au_parse_i64("-9223372036854775808", &i) && i == INT64_MIN);
    assert_true(au_parse_i64("9223372036854775807", &i) && i == INT64_MAX);
    assert_true(au_parse_i64("-0", &i) && i == 0);
    const char *bad_i[] = {"", "-", "--1", "9223372036854775808", "-9223372036854775809", "1.0"};
    for (size_t k = 0; k < sizeof bad_i / sizeof *bad_i; k++)
        assert_false(au_parse_i64(bad_i[k], &i));
}

static void test_reals(void **state)
{
    (void)state;
    double d = 0;
    assert_true(au_parse_f64("0.5", &d) && d == 0.5);
    assert_true(au_parse_f64("-1e-3", &d) && d == -0.001);
    assert_true(au_parse_f64(".5", &d) && d == 0.5);
    assert_true(au_parse_f64("5.", &d) && d == 5);
    const char *bad[] = {"",      ".",  "nan", "inf", "-inf", "0x1p3", "1e",
                         "1e999", " 1", "1 ",  "1,5", "e5",   "+-1"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_false(au_parse_f64(bad[k], &d));
}

static void test_byte_sizes(void **state)
{
    (void)state;
    uint64_t v = 0;
    assert_true(au_parse_bytes("1024", &v) && v == 1024);
    assert_true(au_parse_bytes("4K", &v) && v == 4096);
    assert_true(au_parse_bytes("512M", &v) && v == 512ull << 20);
    assert_true(au_parse_bytes("1G", &v) && v == 1ull << 30);
    assert_true(au_parse_bytes("2T", &v) && v == 2ull << 40);
    const char *bad[] = {"", "K", "1KB", "1 K", "-1", "1.5G", "1P", "99999999999T"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_false(au_parse_bytes(bad[k], &v));
}

static void test_utf8(void **state)
{
    (void)state;
    const char *good[] = {
        "", "plain", "h\xc3\xa4llo", "\xe9\x9f\xb3", "\xf0\x9f\x8e\xb5", "\xf4\x8f\xbf\xbf"};
    for (size_t k = 0; k < sizeof good / sizeof *good; k++)
        assert_true(au_utf8_valid(good[k], strlen(good[k])));
    const char *bad[] = {"\x80",
                         "\xc0\x80",
                         "\xc1\xbf",
                         "\xc3",
                         "\xe0\x80\x80",
                         "\xed\xa0\x80",
                         "\xf0\x80\x80\x80",
                         "\xf4\x90\x80\x80",
                         "\xf5\x80\x80\x80",
                         "\xff",
                         "\xe9\x9f"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_false(au_utf8_valid(bad[k], strlen(bad[k])));
    assert_int_equal(au_utf8_prefix("\xe9\x9f\xb3\xc3\xa4x", 2), 5);
    assert_int_equal(au_utf8_prefix("abc", 80), 3);
    assert_int_equal(au_utf8_prefix("abc", 0), 0);
}

static void test_nearest(void **state)
{
    (void)state;
    const char *const words[] = {"generate", "serve", "worker", "model", NULL};
    assert_string_equal(au_str_nearest("genrate", words), "generate");
    assert_string_equal(au_str_nearest("sevre", words), "serve");
    assert_string_equal(au_str_nearest("modle", words), "model");
    assert_null(au_str_nearest("adapter", words));
    assert_null(au_str_nearest("", words));
}

static void test_small_helpers(void **state)
{
    (void)state;
    assert_true(au_str_starts("model.bin", "model") && !au_str_starts("mo", "model"));
    assert_true(au_str_ends("model.bin", ".bin") && !au_str_ends("n", ".bin"));
    char hex[7];
    au_hex(hex, "\x00\xab\x9f", 3);
    assert_string_equal(hex, "00ab9f");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),   cmocka_unit_test(test_reals),
        cmocka_unit_test(test_byte_sizes), cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_nearest),    cmocka_unit_test(test_small_helpers),
    };
    return cmocka_run_group_tests_name("str", tests, NULL, NULL);
}
