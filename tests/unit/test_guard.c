/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "http/guard.h"

static void test_hosts(void **state)
{
    (void)state;
    const au_http_guard loopback = {"127.0.0.1", NULL};
    assert_true(au_http_guard_host(&loopback, "127.0.0.1:8080"));
    assert_true(au_http_guard_host(&loopback, "localhost:9"));
    assert_true(au_http_guard_host(&loopback, "LocalHost"));
    assert_true(au_http_guard_host(&loopback, "[::1]:8080"));
    assert_false(au_http_guard_host(&loopback, "evil.example:8080"));
    assert_false(au_http_guard_host(&loopback, "localhost.evil.example"));
    assert_false(au_http_guard_host(&loopback, "127.0.0.1.evil.example"));
    assert_false(au_http_guard_host(&loopback, "10.0.0.1"));
    const au_http_guard named = {"10.0.0.1", "aulos.example, other.example"};
    assert_true(au_http_guard_host(&named, "10.0.0.1"));
    assert_true(au_http_guard_host(&named, "Aulos.example:443"));
    assert_true(au_http_guard_host(&named, "other.example"));
    assert_false(au_http_guard_host(&named, "example"));
    assert_false(au_http_guard_host(&named, "10.0.0.2"));
    const au_http_guard wildcard = {"0.0.0.0", NULL};
    assert_true(au_http_guard_host(&wildcard, "10.0.0.2:80"));
    assert_true(au_http_guard_host(&wildcard, "[fe80::1]"));
    assert_false(au_http_guard_host(&wildcard, "evil.example"));
}

static void test_authorities(void **state)
{
    (void)state;
    static const char *const bad[] = {"",    ":80", "a:b", "a:1:2", "[::1",
                                      "a b", "a/b", "u@h", "[::1]x"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(au_http_authority_valid(bad[i]));
    assert_true(au_http_authority_valid("a.b-c:80"));
    assert_true(au_http_authority_valid("[::1]:80"));
}

static void test_origins(void **state)
{
    (void)state;
    const au_http_guard g = {"127.0.0.1", "aulos.example"};
    const char *host = "127.0.0.1:8080";
    assert_true(au_http_guard_origin(&g, host, NULL, NULL));
    assert_true(au_http_guard_origin(&g, host, "http://127.0.0.1:8080", "same-origin"));
    assert_true(au_http_guard_origin(&g, host, "https://aulos.example", NULL));
    assert_false(au_http_guard_origin(&g, host, "http://127.0.0.1:3000", NULL));
    assert_false(au_http_guard_origin(&g, host, "http://evil.example", NULL));
    assert_false(au_http_guard_origin(&g, host, "null", NULL));
    assert_false(au_http_guard_origin(&g, host, "http://127.0.0.1:8080", "cross-site"));
    assert_false(au_http_guard_origin(&g, host, NULL, "cross-site"));
    assert_true(au_http_guard_origin(&g, host, NULL, "none"));
}

static void test_loopback(void **state)
{
    (void)state;
    assert_true(au_http_is_loopback("127.0.0.1"));
    assert_true(au_http_is_loopback("127.9.9.9"));
    assert_true(au_http_is_loopback("::1"));
    assert_false(au_http_is_loopback("0.0.0.0"));
    assert_false(au_http_is_loopback("::"));
    assert_false(au_http_is_loopback("128.0.0.1"));
    assert_false(au_http_is_loopback("localhost"));
}

static void test_cookies_are_for_the_same_origin(void **state)
{
    (void)state;
    const au_http_guard g = {"127.0.0.1", "aulos.example"};
    const char *host = "127.0.0.1:8080";
    assert_true(au_http_guard_cookie(&g, host, "http://127.0.0.1:8080", "same-origin"));
    assert_true(au_http_guard_cookie(&g, host, NULL, "none"));
    assert_true(au_http_guard_cookie(&g, host, NULL, NULL));
    assert_true(au_http_guard_cookie(&g, host, "https://aulos.example", NULL));
    assert_false(au_http_guard_cookie(&g, host, "http://127.0.0.1:8080", "same-site"));
    assert_false(au_http_guard_cookie(&g, host, NULL, "same-site"));
    assert_false(au_http_guard_cookie(&g, host, NULL, "cross-site"));
    assert_false(au_http_guard_cookie(&g, host, "http://evil.example", "same-origin"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts),    cmocka_unit_test(test_authorities),
        cmocka_unit_test(test_origins),  cmocka_unit_test(test_cookies_are_for_the_same_origin),
        cmocka_unit_test(test_loopback),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
