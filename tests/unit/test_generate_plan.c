/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "cli/generate_plan.h"

static au_plan plan;
static au_err err;

static au_status make(const char *const *words)
{
    int n = 0;
    while (words[n])
        n++;
    au_options *o = NULL;
    au_plan_deinit(&plan);
    err.message[0] = '\0';
    au_status st =
        au_options_parse(&o, &au_cli_options, AU_COMMAND_GENERATE, n, (char *const *)words, &err);
    assert_int_equal(st, AU_OK);
    st = au_plan_init(&plan, o, &err);
    au_options_free(&o);
    return st;
}

#define MAKE(...) make((const char *const[]){__VA_ARGS__, NULL})

/* The plan's file names, in order, are exactly these. */
static void assert_files(const char *const *names)
{
    size_t n = 0;
    for (; names[n]; n++) {
        assert_true(n < plan.n_clips);
        assert_string_equal(plan.clips[n].path, names[n]);
    }
    assert_int_equal(plan.n_clips, n);
}

#define FILES(...) assert_files((const char *const[]){__VA_ARGS__, NULL})

static void assert_refused(const char *message, const char *const *words)
{
    assert_int_equal(make(words), AU_INVALID);
    if (!strstr(err.message, message))
        fail_msg("\"%s\" is not in \"%s\"", message, err.message);
}

#define REFUSED(message, ...) assert_refused(message, (const char *const[]){__VA_ARGS__, NULL})

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(MAKE("x", "-o", "song.wav"), AU_OK);
    FILES("song.wav");
    assert_int_equal(plan.format, AU_FORMAT_WAV);
    assert_int_equal(MAKE("x", "-o", "a.b/so.ng.flac", "-n", "2"), AU_OK);
    FILES("a.b/so.ng-0.flac", "a.b/so.ng-1.flac");
    assert_int_equal(plan.format, AU_FORMAT_FLAC);
    assert_int_equal(
        MAKE("x", "-o", "d/s.wav", "--adapter", "none", "--adapter", "p/lofi/", "-n", "2"), AU_OK);
    FILES("d/s-none-0.wav", "d/s-none-1.wav", "d/s-lofi-0.wav", "d/s-lofi-1.wav");
    assert_int_equal(MAKE("x", "-o", "s.wav", "--adapter", "p/lofi"), AU_OK);
    FILES("s.wav");
    assert_int_equal(MAKE("x", "--seed", "7"), AU_OK);
    FILES("x-7.wav");
    assert_int_equal(MAKE("Slow / Strings: ../x!", "--seed", "7", "--format", "flac", "-n", "2"),
                     AU_OK);
    FILES("slow-strings-x-7-0.flac", "slow-strings-x-7-1.flac");
    assert_int_equal(MAKE("\xe9\x9f\xb3\xe6\xa5\xbd", "--seed", "0"), AU_OK);
    FILES("aulos-0.wav");
    assert_int_equal(MAKE("", "--seed", "0"), AU_OK);
    FILES("aulos-0.wav");
}

static void test_variants_of_one_name_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(MAKE("x", "-o", "s.wav", "--adapter", "lofi:0.5", "--adapter", "lofi",
                          "--adapter", "q/lofi"),
                     AU_OK);
    FILES("s-lofi_0.5-0.wav", "s-lofi_1_1-0.wav", "s-lofi_1_2-0.wav");
    assert_string_equal(plan.variants[0].folder, "lofi");
    assert_true(plan.variants[0].strength == 0.5);
    REFUSED("twice", "x", "--adapter", "lofi", "--adapter", "lofi:1");
    REFUSED("twice", "x", "--adapter", "none", "--adapter", "none");
    REFUSED("no strength", "x", "--adapter", "none:0.5");
}

static void test_splits_strength_at_the_last_colon(void **state)
{
    (void)state;
    static const struct {
        const char *value, *folder;
        double strength;
    } cases[] = {{"a", "a", 1},         {"a:0.5", "a", 0.5},     {"a:-2", "a", -2},
                 {"a:2", "a", 2},       {"a:2.01", "a:2.01", 1}, {"a:b:0", "a:b", 0},
                 {"a:b", "a:b", 1},     {"a:", "a:", 1},         {":1", ":1", 1},
                 {"a:nan", "a:nan", 1}, {"a:1:", "a:1:", 1},     {"a:0.5 ", "a:0.5 ", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = NULL;
        double strength = 0;
        assert_int_equal(au_plan_split_adapter(cases[i].value, &folder, &strength, NULL), AU_OK);
        assert_string_equal(folder, cases[i].folder);
        assert_true(strength == cases[i].strength);
        free(folder);
    }
}

static void test_seeds(void **state)
{
    (void)state;
    assert_int_equal(
        MAKE("x", "--seed", "9007199254740991", "-n", "2", "--adapter", "none", "--adapter", "a"),
        AU_OK);
    for (size_t i = 0; i < 4; i++) {
        assert_true(plan.clips[i].seed == (i % 2 ? 0 : UINT64_C(9007199254740991)));
        assert_int_equal(plan.clips[i].index, i % 2);
        assert_int_equal(plan.clips[i].variant, i / 2);
    }
    assert_int_equal(MAKE("x"), AU_OK);
    uint64_t first = plan.seed;
    assert_int_equal(MAKE("x"), AU_OK);
    assert_true(plan.seed != first && plan.seed < UINT64_C(9007199254740992));
}

static void test_prompts_of_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/test_generate_plan.XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "one\n\ntwo words\r\nthree";
    assert_int_equal(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    assert_int_equal(MAKE("--prompts", path, "-o", "d/s.wav", "--seed", "1"), AU_OK);
    FILES("d/1-s.wav", "d/3-s.wav", "d/4-s.wav");
    assert_string_equal(plan.prompts[1].text, "two words");
    assert_int_equal(plan.prompts[1].line, 3);
    assert_int_equal(MAKE("--prompts", path, "--seed", "1", "-n", "2"), AU_OK);
    FILES("1-one-1-0.wav", "1-one-1-1.wav", "3-two-words-1-0.wav", "3-two-words-1-1.wav",
          "4-three-1-0.wav", "4-three-1-1.wav");
    REFUSED("both", "x", "--prompts", path);
    assert_int_equal(ftruncate(fd, 0), 0);
    REFUSED("no prompt in", "--prompts", path);
    assert_int_equal(pwrite(fd, "ok\na\xff\n", 6, 0), 6);
    REFUSED("line 2 is not valid UTF-8", "--prompts", path);
    assert_int_equal(pwrite(fd, "ok\na\0b", 6, 0), 6);
    REFUSED("line 2 contains a NUL", "--prompts", path);
    close(fd);
    unlink(path);
    assert_int_equal(MAKE("--prompts", path), AU_NOT_FOUND);
}

static void test_refuses_wrong_usage(void **state)
{
    (void)state;
    REFUSED("no PROMPT", "-n", "2");
    REFUSED("found also \"b\"", "a", "b");
    REFUSED("not valid UTF-8", "\xff");
    REFUSED("song.xyz", "x", "-o", "song.xyz");
    REFUSED("expected a name that ends with", "x", "-o", "song");
    REFUSED("expected a name that ends with", "x", "-o", "a.wav/song");
    REFUSED("is a folder", "x", "-o", "a.wav/");
    REFUSED("--format is flac", "x", "-o", "song.wav", "--format", "flac");
    REFUSED("expected a name that ends with", "x", "-o", "song.ogg");
    REFUSED("--format is opus", "x", "-o", "song.mp3", "--format", "opus");
    assert_int_equal(MAKE("x", "-o", "song.wav", "--format", "wav24"), AU_OK);
    assert_int_equal(plan.format, AU_FORMAT_WAV24);
    assert_int_equal(MAKE("x", "-o", "song.opus"), AU_OK);
    assert_int_equal(plan.format, AU_FORMAT_OPUS);
}

static void test_checks_places(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_generate_plan.XXXXXX", file[64], long_name[300];
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/a.wav", dir);
    assert_int_equal(MAKE("x", "-o", file), AU_OK);
    assert_int_equal(au_plan_check_files(&plan, false, &err), AU_OK);
    assert_false(au_file_exists(file));
    assert_int_equal(au_file_write(file, "mine", 4, false, NULL), AU_OK);
    assert_int_equal(au_plan_check_files(&plan, false, &err), AU_EXISTS);
    assert_non_null(strstr(err.message, "a.wav"));
    assert_int_equal(au_plan_check_files(&plan, true, &err), AU_OK);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkdir(file, 0700), 0);
    assert_int_equal(au_plan_check_files(&plan, true, &err), AU_EXISTS);
    assert_int_equal(MAKE("x", "-o", "/tmp/test_generate_plan/no/such/a.wav"), AU_OK);
    assert_int_equal(au_plan_check_files(&plan, false, &err), AU_NOT_FOUND);
    snprintf(long_name, sizeof long_name, "%s/%0256d.wav", dir, 0);
    assert_int_equal(MAKE("x", "-o", long_name), AU_OK);
    assert_int_equal(au_plan_check_files(&plan, false, &err), AU_IO);
    /* Nothing was left behind. */
    assert_int_equal(rmdir(file), 0);
    assert_int_equal(rmdir(dir), 0);
}

static int teardown(void **state)
{
    (void)state;
    au_plan_deinit(&plan);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_variants_of_one_name_are_told_apart),
        cmocka_unit_test(test_splits_strength_at_the_last_colon),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_prompts_of_a_file),
        cmocka_unit_test(test_refuses_wrong_usage),
        cmocka_unit_test(test_checks_places),
    };
    return cmocka_run_group_tests_name("generate_plan", tests, NULL, teardown);
}
