/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/options.h"

enum { SEED, RATE, NAME, TAG, COLOUR, LOUD, SIZE, KEEP, PORT, SECRET_FD };
enum { MAKE, SERVE };

static const au_option options[] = {
    [SEED] = {"seed", 's', AU_OPTION_INT, "S", NULL, 0, 9007199254740991, NULL, 1, 0, "seed"},
    [RATE] = {"sample-rate", 0, AU_OPTION_REAL, "HZ", "1.5", 0, 8, NULL, 3, AU_OPTION_OPEN_MIN,
              "rate"},
    [NAME] = {"name", 'n', AU_OPTION_TEXT, "TEXT", NULL, 0, 0, NULL, 3, 0, "name"},
    [TAG] = {"tag", 0, AU_OPTION_PATH, "TAG", NULL, 0, 0, NULL, 3, AU_OPTION_REPEAT, "tags"},
    [COLOUR] = {"colour", 0, AU_OPTION_CHOICE, "C", "red", 0, 0, "red|green", 3, 0, "colour"},
    [LOUD] = {"loud", 0, AU_OPTION_FLAG, NULL, NULL, 0, 0, NULL, 3, 0, "loud"},
    [SIZE] = {"size", 0, AU_OPTION_BYTES, "BYTES", "1K", 16, INFINITY, NULL, 3, 0, "size"},
    [KEEP] = {"keep", 0, AU_OPTION_TIME, "TIME", "never", 0, INFINITY, NULL, 3, 0, "keep"},
    [PORT] = {"port", 0, AU_OPTION_INT, "P", NULL, 1, 65535, NULL, 2, 0, "port"},
    [SECRET_FD] = {"watch-fd", 0, AU_OPTION_INT, "FD", NULL, 0, 1024, NULL, 2, AU_OPTION_INTERNAL,
                   "fd"},
};
static const char *const commands[] = {"make", "serve", NULL};
static const au_option_table table = {options, sizeof options / sizeof *options, commands};

static au_err err;

static au_options *parse(unsigned command, const char *const *words)
{
    int n = 0;
    while (words[n])
        n++;
    au_options *o = NULL;
    err.message[0] = '\0';
    au_status st = au_options_parse(&o, &table, command, n, (char *const *)words, &err);
    assert_true(st == AU_OK ? o != NULL : o == NULL && st == AU_INVALID);
    return o;
}

#define PARSE(...) parse(MAKE, (const char *const[]){__VA_ARGS__, NULL})

static void assert_refused(const char *message, const char *const *words)
{
    assert_null(parse(MAKE, words));
    assert_string_equal(err.message, message);
}

#define REFUSED(message, ...) assert_refused(message, (const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
    (void)state;
    au_options *o = parse(MAKE, (const char *const[]){NULL});
    assert_false(au_options_given(o, SEED));
    assert_null(au_options_text(o, SEED));
    assert_true(au_options_real(o, RATE) == 1.5);
    assert_string_equal(au_options_text(o, COLOUR), "red");
    assert_int_equal(au_options_int(o, SIZE), 1024);
    assert_int_equal(au_options_int(o, KEEP), -1);
    assert_false(au_options_flag(o, LOUD));
    assert_int_equal(au_options_count(o, TAG), 0);
    assert_int_equal(au_options_n_args(o), 0);
    assert_null(au_options_arg(o, 0));
    au_options_free(&o);
    assert_null(o);
    au_options_free(&o);
}

static void test_all_forms_of_options(void **state)
{
    (void)state;
    au_options *o =
        PARSE("first", "--seed", "9007199254740991", "--sample-rate=8", "-n", "x=y", "--loud",
              "--tag=a", "-", "--keep", "15m", "--tag", "b", "--size=2M", "--", "--seed");
    assert_non_null(o);
    assert_true(au_options_given(o, SEED));
    assert_int_equal(au_options_int(o, SEED), 9007199254740991);
    assert_true(au_options_real(o, RATE) == 8);
    assert_string_equal(au_options_text(o, NAME), "x=y");
    assert_true(au_options_flag(o, LOUD));
    assert_int_equal(au_options_count(o, TAG), 2);
    assert_string_equal(au_options_list(o, TAG)[0], "a");
    assert_string_equal(au_options_list(o, TAG)[1], "b");
    assert_int_equal(au_options_int(o, KEEP), 900000);
    assert_int_equal(au_options_int(o, SIZE), 2 << 20);
    assert_int_equal(au_options_n_args(o), 3);
    assert_string_equal(au_options_arg(o, 0), "first");
    assert_string_equal(au_options_arg(o, 1), "-");
    assert_string_equal(au_options_arg(o, 2), "--seed");
    au_options_free(&o);
    o = PARSE("-s7", "--seed=8", "--name=", "--name", "--loud");
    assert_int_equal(au_options_int(o, SEED), 8);
    assert_string_equal(au_options_text(o, NAME), "--loud");
    assert_false(au_options_flag(o, LOUD));
    au_options_free(&o);
}

static void test_refuses_and_says_why(void **state)
{
    (void)state;
    REFUSED("unknown option --sed, did you mean --seed?", "--sed", "1");
    REFUSED("unknown option --zzzzzzzz, see `aulos help make`", "--zzzzzzzz");
    REFUSED("unknown option -x, see `aulos help make`", "-x");
    REFUSED("option --port is not for make, see `aulos help make`", "--port", "1");
    REFUSED("option --seed needs a value: S", "--seed");
    REFUSED("option --seed is \"1.5\", expected a whole number", "--seed", "1.5");
    REFUSED("option --seed is \"\", expected a whole number", "--seed=");
    REFUSED("option --seed is -1, allowed is 0 to 9007199254740991", "--seed", "-1");
    REFUSED("option --seed is 9007199254740992, allowed is 0 to 9007199254740991", "--seed",
            "9007199254740992");
    REFUSED("option --seed is \"99999999999999999999\", expected a whole number", "--seed",
            "99999999999999999999");
    REFUSED("option --sample-rate is 0, allowed is more than 0, at most 8", "--sample-rate", "0");
    REFUSED("option --sample-rate is 8.1, allowed is more than 0, at most 8", "--sample-rate",
            "8.1");
    REFUSED("option --sample-rate is \"nan\", expected a number", "--sample-rate", "nan");
    REFUSED("option --sample-rate is \"inf\", expected a number", "--sample-rate", "inf");
    REFUSED("option --loud takes no value, found \"yes\"", "--loud=yes");
    REFUSED("option --colour is \"blue\", expected one of red|green", "--colour", "blue");
    REFUSED("option --colour is \"red|green\", expected one of red|green", "--colour", "red|green");
    REFUSED("option --colour is \"\", expected one of red|green", "--colour", "");
    REFUSED("option --name is not valid UTF-8", "--name", "\xff");
    REFUSED("option --tag is empty, expected TAG", "--tag", "");
    REFUSED("option --size is 15, allowed is at least 16", "--size", "15");
    REFUSED("option --size is \"1X\", expected bytes such as 512M or 4G", "--size", "1X");
    REFUSED("option --keep is \"5\", expected a time such as 500ms, 30s, 15m, 24h, 7d or never",
            "--keep", "5");
    REFUSED("option --keep is \"s\", expected a time such as 500ms, 30s, 15m, 24h, 7d or never",
            "--keep", "s");
    REFUSED("option --keep is \"9999999999999999999d\", expected a time such as 500ms, 30s, 15m, "
            "24h, 7d or never",
            "--keep", "9999999999999999999d");
}

static void test_environment(void **state)
{
    (void)state;
    char name[64];
    assert_string_equal(au_option_env_name(name, sizeof name, "sample-rate"), "AULOS_SAMPLE_RATE");
    setenv("AULOS_SAMPLE_RATE", "2", 1);
    setenv("AULOS_SEED", "", 1);
    setenv("AULOS_TAG", "a,b,c", 1);
    setenv("AULOS_LOUD", "yes", 1);
    setenv("AULOS_PORT", "rubbish of another command", 1);
    au_options *o = parse(MAKE, (const char *const[]){NULL});
    assert_non_null(o);
    assert_true(au_options_real(o, RATE) == 2 && au_options_given(o, RATE));
    assert_false(au_options_given(o, SEED));
    assert_int_equal(au_options_count(o, TAG), 3);
    assert_string_equal(au_options_list(o, TAG)[2], "c");
    assert_true(au_options_flag(o, LOUD));
    au_options_free(&o);
    o = PARSE("--sample-rate", "3", "--tag", "z");
    assert_true(au_options_real(o, RATE) == 3);
    assert_int_equal(au_options_count(o, TAG), 1);
    au_options_free(&o);
    setenv("AULOS_SAMPLE_RATE", "9", 1);
    REFUSED("environment variable AULOS_SAMPLE_RATE is 9, allowed is more than 0, at most 8", "x");
    unsetenv("AULOS_SAMPLE_RATE");
    setenv("AULOS_LOUD", "maybe", 1);
    REFUSED("environment variable AULOS_LOUD is \"maybe\", expected 0 or 1", "x");
    for (size_t i = 0; i < table.n; i++)
        unsetenv(au_option_env_name(name, sizeof name, options[i].name));
    setenv("AULOS_WATCH_FD", "3", 1);
    o = parse(SERVE, (const char *const[]){NULL});
    assert_false(au_options_given(o, SECRET_FD));
    au_options_free(&o);
    unsetenv("AULOS_WATCH_FD");
}

static void test_help_and_rows(void **state)
{
    (void)state;
    au_buf b;
    au_buf_init(&b, 1 << 16);
    au_options_help(&b, &table, SERVE);
    assert_non_null(strstr(au_buf_cstr(&b), "--port P"));
    assert_non_null(strstr(au_buf_cstr(&b), "  -n, --name TEXT             name\n"));
    assert_non_null(strstr(au_buf_cstr(&b), "tags; may be repeated\n"));
    assert_non_null(strstr(au_buf_cstr(&b), "colour (default red)\n"));
    assert_null(strstr(au_buf_cstr(&b), "watch-fd"));
    assert_null(strstr(au_buf_cstr(&b), "--seed"));
    au_buf_clear(&b);
    au_options_doc_row(&b, &table, RATE);
    assert_string_equal(
        au_buf_cstr(&b),
        "| `--sample-rate HZ` | `AULOS_SAMPLE_RATE` | 1.5 | more than 0, at most 8 | make, "
        "serve | rate |\n");
    au_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_forms_of_options),
        cmocka_unit_test(test_refuses_and_says_why),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_help_and_rows),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
