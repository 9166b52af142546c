/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "api/json_check.h"

static au_arena arena;

static int setup(void **state)
{
    (void)state;
    au_arena_init(&arena, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    au_arena_deinit(&arena);
    return 0;
}

/* "pointer code" of error i. */
static const char *error(const au_check *c, size_t i)
{
    static char text[256];
    const json_t *j = json_array_get(c->errors, i);
    snprintf(text, sizeof text, "%s %s", json_string_value(json_object_get(j, "pointer")),
             json_string_value(json_object_get(j, "code")));
    return text;
}

static void test_unknown_fields(void **state)
{
    (void)state;
    static const char *const fields[] = {"seed", "num_samples", NULL};
    au_check c;
    au_check_init(&c, &arena);
    json_t *j = json_loads("{\"seeed\":1, \"a/b~c\":2, \"seed\":3}", 0, NULL);
    assert_true(au_check_object(&c, j, "", fields));
    assert_int_equal(json_array_size(c.errors), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *e = json_array_get(c.errors, i);
        bool near = strcmp(json_string_value(json_object_get(e, "pointer")), "/seeed") == 0;
        assert_string_equal(error(&c, i), near ? "/seeed unknown_field" : "/a~1b~0c unknown_field");
        const char *meant = json_string_value(json_object_get(e, "did_you_mean"));
        if (near)
            assert_string_equal(meant, "seed");
        else
            assert_null(meant);
    }
    json_t *list = json_array();
    assert_false(au_check_object(&c, list, "/x", fields));
    assert_string_equal(error(&c, 2), "/x wrong_type");
    assert_false(au_check_ok(&c));
    json_decref(list);
    json_decref(j);
    au_check_deinit(&c);
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        const char *json, *want; /* want NULL: taken */
        int64_t value;
    } rows[] = {
        {"{\"n\":1}", NULL, 1},
        {"{\"n\":16}", NULL, 16},
        {"{\"n\":4.0}", NULL, 4},
        {"{\"n\":0}", "out_of_range", 0},
        {"{\"n\":17}", "out_of_range", 0},
        {"{\"n\":1e30}", "out_of_range", 0},
        {"{\"n\":-9.3e18}", "out_of_range", 0},
        {"{\"n\":1.5}", "wrong_type", 0},
        {"{\"n\":\"1\"}", "wrong_type", 0},
        {"{\"n\":true}", "wrong_type", 0},
        {"{\"n\":null}", "wrong_type", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        au_check c;
        au_check_init(&c, &arena);
        json_t *j = json_loads(rows[i].json, 0, NULL);
        int64_t n = -1;
        bool taken = au_check_int(&c, j, "", "n", 1, 16, &n);
        assert_int_equal(taken, rows[i].want == NULL);
        assert_int_equal(taken, au_check_ok(&c));
        if (taken)
            assert_int_equal(n, rows[i].value);
        else
            assert_non_null(strstr(error(&c, 0), rows[i].want));
        json_decref(j);
        au_check_deinit(&c);
    }
}

static void test_reals_and_texts(void **state)
{
    (void)state;
    au_check c;
    au_check_init(&c, &arena);
    json_t *j = json_loads("{\"zero\":0, \"two\":2, \"t\":\"a\\u00e4b\", \"b\":true}", 0, NULL);
    double v;
    const char *t = NULL;
    bool b;
    assert_true(au_check_real(&c, j, "", "two", 0, 2, true, &v));
    assert_true(au_check_text(&c, j, "", "t", 3, &t));
    assert_true(au_check_bool(&c, j, "", "b", &b));
    assert_false(au_check_text(&c, j, "", "absent", 3, &t));
    assert_true(au_check_ok(&c));
    assert_false(au_check_real(&c, j, "/p", "zero", 0, 2, true, &v));
    assert_false(au_check_text(&c, j, "/p", "t", 2, &t));
    assert_false(au_check_text(&c, j, "/p", "zero", 2, &t));
    assert_false(au_check_bool(&c, j, "/p", "zero", &b));
    static const char *const want[] = {"/p/zero out_of_range", "/p/t too_long",
                                       "/p/zero wrong_type", "/p/zero wrong_type"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(error(&c, i), want[i]);
    json_decref(j);
    au_check_deinit(&c);
}

static void test_long_keys_and_many_errors(void **state)
{
    (void)state;
    static const char *const fields[] = {NULL};
    au_check c;
    au_check_init(&c, &arena);
    json_t *j = json_object();
    char key[3001];
    memset(key, '~', 3000);
    key[3000] = '\0';
    json_object_set_new(j, key, json_null());
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        json_object_set_new(j, key, json_null());
    }
    assert_true(au_check_object(&c, j, "", fields));
    assert_false(c.no_memory);
    assert_int_equal(json_array_size(c.errors), 100);
    json_decref(j);
    au_check_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unknown_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_integers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reals_and_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_keys_and_many_errors, setup, teardown),
    };
    return cmocka_run_group_tests_name("json_check", tests, NULL, NULL);
}
