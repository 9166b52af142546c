/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "http/problem.h"

static void test_table_is_sound(void **state)
{
    (void)state;
    for (au_problem p = AU_PROBLEM_NONE + 1; p < AU_PROBLEM_COUNT; p++) {
        const au_problem_info *info = au_problem_get(p);
        assert_true(info->status >= 400 && info->status < 600);
        assert_string_not_equal(au_http_reason(info->status), "Unknown");
        assert_int_equal(strspn(info->slug, "abcdefghijklmnopqrstuvwxyz-"), strlen(info->slug));
        assert_true(info->title[0] >= 'A' && info->title[0] <= 'Z');
        for (au_problem q = p + 1; q < AU_PROBLEM_COUNT; q++) {
            assert_string_not_equal(info->slug, au_problem_get(q)->slug);
            assert_true(info->status <= au_problem_get(q)->status);
        }
    }
}

static void test_json_form(void **state)
{
    (void)state;
    json_t *j = au_problem_json(AU_PROBLEM_VALIDATION, "1 field is wrong", "rq");
    const char *type, *title, *detail, *id;
    int status;
    assert_int_equal(json_unpack(j, "{s:s, s:s, s:i, s:s, s:s}", "type", &type, "title", &title,
                                 "status", &status, "detail", &detail, "request_id", &id),
                     0);
    assert_string_equal(type, "/problems/validation");
    assert_int_equal(status, 422);
    json_decref(j);
    j = au_problem_json(AU_PROBLEM_NOT_FOUND, NULL, NULL);
    assert_int_equal(json_object_size(j), 3);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_sound),
        cmocka_unit_test(test_json_form),
    };
    return cmocka_run_group_tests_name("problem", tests, NULL, NULL);
}
