/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"

static void test_appends_up_to_its_limit(void **state)
{
    (void)state;
    au_buf b;
    au_buf_init(&b, 10);
    au_buf_str(&b, "hello");
    au_buf_printf(&b, "%05d", 42);
    assert_int_equal(au_buf_check(&b, NULL), AU_OK);
    assert_string_equal(au_buf_cstr(&b), "hello00042");
    au_buf_char(&b, '!');
    au_err err;
    assert_int_equal(au_buf_check(&b, &err), AU_LIMIT);
    assert_non_null(strstr(err.message, "10 bytes"));
    au_buf_clear(&b);
    au_buf_str(&b, "again");
    assert_string_equal(au_buf_cstr(&b), "again");
    au_buf_deinit(&b);
}

static void test_take_hands_over(void **state)
{
    (void)state;
    au_buf b;
    au_buf_init(&b, 100);
    char *text;
    size_t len;
    assert_int_equal(au_buf_take(&b, &text, &len, NULL), AU_OK);
    assert_string_equal(text, "");
    free(text);
    au_buf_str(&b, "x");
    assert_int_equal(au_buf_take(&b, &text, &len, NULL), AU_OK);
    assert_int_equal(len, 1);
    assert_string_equal(au_buf_cstr(&b), "");
    free(text);
    au_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_up_to_its_limit),
        cmocka_unit_test(test_take_hands_over),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
