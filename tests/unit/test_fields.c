/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "http/fields.h"

static void test_cookies(void **state)
{
    (void)state;
    static const struct {
        const char *field, *value; /* NULL: none */
    } rows[] = {
        {"sid=abc", "abc"},
        {"a=1; sid=abc", "abc"},
        {"a=1;sid=abc ;b=2", "abc"},
        {"  sid=\"abc\"", "abc"},
        {"sid=", ""},
        {"sid=a=b", "a=b"},
        {"sid=one; sid=two", "one"},
        {"sid=\"", "\""},
        {"", NULL},
        {";;; ", NULL},
        {"sid", NULL},
        {"xsid=abc", NULL},
        {"SID=abc", NULL},
        {"sid2=abc", NULL},
        {"a=sid=abc", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *value = NULL;
        size_t len = 0;
        bool found = au_cookie_find(rows[i].field, "sid", &value, &len);
        assert_int_equal(found, rows[i].value != NULL);
        if (found) {
            assert_int_equal(len, strlen(rows[i].value));
            assert_memory_equal(value, rows[i].value, len);
        }
    }
}

static void test_bearer_tokens(void **state)
{
    (void)state;
    const char *token;
    size_t len;
    assert_true(au_bearer_token("Bearer abc", &token, &len));
    assert_string_equal(token, "abc");
    assert_int_equal(len, 3);
    assert_true(au_bearer_token("bEARER   a b", &token, &len));
    assert_string_equal(token, "a b");
    assert_true(au_bearer_token("Bearer", &token, &len));
    assert_int_equal(len, 0);
    static const char *const others[] = {"", "Basic abc", "Beare", "Bearerabc", "Bearer\tabc"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(au_bearer_token(others[i], &token, &len));
}

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static void test_trace_ids(void **state)
{
    (void)state;
    char id[AU_TRACE_ID_TEXT];
    static const char *const good[] = {"00-" TRACE "-" SPAN "-01", "00-" TRACE "-" SPAN "-00",
                                       "01-" TRACE "-" SPAN "-01", "cc-" TRACE "-" SPAN "-01-more"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        memset(id, 'x', sizeof id);
        assert_true(au_trace_id_parse(id, good[i]));
        assert_string_equal(id, TRACE);
    }
    static const char *const bad[] = {
        "",
        "00",
        "00-",
        "00-" TRACE,
        "00-" TRACE "-" SPAN,
        "00-" TRACE "-" SPAN "-0",
        "00-" TRACE "-" SPAN "-01-more",
        "00-" TRACE "-" SPAN "-01 ",
        "01-" TRACE "-" SPAN "-01more",
        "ff-" TRACE "-" SPAN "-01",
        "0g-" TRACE "-" SPAN "-01",
        "00_" TRACE "-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00-" TRACE "a-" SPAN "-01",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(au_trace_id_parse(id, bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cookies),
        cmocka_unit_test(test_bearer_tokens),
        cmocka_unit_test(test_trace_ids),
    };
    return cmocka_run_group_tests_name("fields", tests, NULL, NULL);
}
