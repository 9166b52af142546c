/* SPDX-License-Identifier: MIT */
/* Staging folders: names that are taken and refused, limits, what is kept. Archives are made by the
 * black-box tests and the corpus of the fuzz target. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <unistd.h>

#include "base/fs.h"
#include "jobs/adapter_staging.h"

enum { MAX_BYTES = 3 << 20 };

typedef struct fixture {
    char dir[64];
    au_staging s;
    au_err err;
} fixture;

static void reopen(fixture *f, uint64_t max_bytes, uint64_t min_free)
{
    au_staging_close(&f->s);
    if (au_staging_open(&f->s, f->dir, max_bytes, min_free, &f->err) != AU_OK)
        fail_msg("%s", f->err.message);
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    snprintf(f->dir, sizeof f->dir, "%.32s/aulos-test-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    reopen(f, MAX_BYTES, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    au_staging_close(&f->s);
    assert_int_equal(au_remove_tree(f->dir, NULL), AU_OK);
    free(f);
    return 0;
}

/* One file of n bytes; the first status that is not AU_OK. */
static au_status add(fixture *f, const char *name, size_t n)
{
    au_status st = au_staging_begin(&f->s, name, &f->err);
    char *data = calloc(n + 1, 1);
    if (st == AU_OK)
        st = au_staging_write(&f->s, data, n, &f->err);
    free(data);
    return st == AU_OK ? au_staging_end(&f->s, &f->err) : st;
}

static void test_what_is_kept(void **state)
{
    fixture *f = *state;
    assert_int_equal(add(f, "lora/README.md", 10), AU_OK);
    assert_int_equal(au_staging_folder(&f->s, "lora/", &f->err), AU_OK);
    assert_int_equal(au_staging_finish(&f->s, &f->err), AU_INVALID);
    assert_non_null(strstr(f->err.message, "adapter_config.json"));
    assert_int_equal(add(f, "lora/adapter_config.json", 10), AU_OK);
    assert_int_equal(au_staging_finish(&f->s, &f->err), AU_INVALID);
    assert_non_null(strstr(f->err.message, "adapter_model"));
    assert_int_equal(add(f, "lora/adapter_model.bin", 20), AU_OK);
    assert_int_equal(au_staging_finish(&f->s, &f->err), AU_OK);
    assert_int_equal(add(f, "lora/adapter_model.safetensors", 30), AU_OK);
    assert_int_equal(au_staging_finish(&f->s, &f->err), AU_OK);
    char path[512];
    static const struct {
        const char *name;
        bool there;
    } files[] = {{"adapter_config.json", true},
                 {"adapter_model.safetensors", true},
                 {"adapter_model.bin", false},
                 {"README.md", false},
                 {"lora", false}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", f->s.dir, files[i].name);
        assert_int_equal(au_file_exists(path), files[i].there);
    }
    assert_int_equal(f->s.size[AU_ADAPTER_SAFETENSORS], 30);
    snprintf(path, sizeof path, "%s", f->s.dir);
    au_staging_close(&f->s);
    assert_false(au_file_exists(path));
}

static void test_names(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *name;
        bool fine;
    } rows[] = {
        {"a", true},
        {"a/b", true},
        {"./a", true},
        {"./a/b", true},
        {"..a", true},
        {"a..", true},
        {"ä ö/ü", true},
        {"__MACOSX/a/b/c", true},
        {"", false},
        {"/", false},
        {"/a", false},
        {"..", false},
        {"../a", false},
        {"a/..", false},
        {"a/../b", false},
        {"a/./b", false},
        {"a//b", false},
        {"a/b/c", false},
        {"./a/b/c", false},
        {"a\\b", false},
        {"C:\\a", false},
        {"a\nb", false},
        {"a\tb", false},
        {"a\x7f", false},
        {"\xff", false},
        {"\xc0\xaf", false},
        {"__MACOSX/../a", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        reopen(f, MAX_BYTES, 0);
        au_status st = add(f, rows[i].name, 1);
        if (st != (rows[i].fine ? AU_OK : AU_INVALID))
            fail_msg("\"%s\": %s", rows[i].name, au_status_text(st));
    }
}

static void test_equal_names(void **state)
{
    fixture *f = *state;
    assert_int_equal(add(f, "a/Read Me", 1), AU_OK);
    assert_int_equal(au_staging_folder(&f->s, "a", &f->err), AU_OK);
    assert_int_equal(au_staging_folder(&f->s, "A/", &f->err), AU_OK);
    assert_int_equal(add(f, "a/read me", 1), AU_INVALID);
    reopen(f, MAX_BYTES, 0);
    assert_int_equal(add(f, "./a", 1), AU_OK);
    assert_int_equal(add(f, "a", 1), AU_INVALID);
    reopen(f, MAX_BYTES, 0);
    /* A folder of a file's name: one of them could not be unpacked. */
    assert_int_equal(add(f, "adapter_config.json", 1), AU_OK);
    assert_int_equal(add(f, "Adapter_Config.json", 1), AU_INVALID);
    reopen(f, MAX_BYTES, 0);
    assert_int_equal(add(f, "a/adapter_config.json", 1), AU_OK);
    assert_int_equal(add(f, "b/adapter_model.bin", 1), AU_INVALID);
    reopen(f, MAX_BYTES, 0);
    assert_int_equal(add(f, "./adapter_config.json", 1), AU_OK);
    assert_int_equal(add(f, "adapter_model.bin", 1), AU_OK);
}

static void test_limits(void **state)
{
    fixture *f = *state;
    char name[AU_STAGING_NAME_MAX + 2];
    for (int d = -1; d <= 1; d++) {
        reopen(f, MAX_BYTES, 0);
        memset(name, 'x', sizeof name);
        name[AU_STAGING_NAME_MAX + d] = '\0';
        assert_int_equal(add(f, name, 1), d <= 0 ? AU_OK : AU_INVALID);
    }
    reopen(f, MAX_BYTES, 0);
    for (int i = 0; i <= AU_STAGING_ENTRIES_MAX; i++) {
        snprintf(name, sizeof name, "f%d", i);
        assert_int_equal(add(f, name, 0), i < AU_STAGING_ENTRIES_MAX ? AU_OK : AU_INVALID);
    }
    for (int d = -1; d <= 1; d++) {
        reopen(f, MAX_BYTES, 0);
        assert_int_equal(add(f, "adapter_config.json", AU_STAGING_CONFIG_MAX + d),
                         d <= 0 ? AU_OK : AU_INVALID);
        /* All files together, those that are left out included. */
        reopen(f, MAX_BYTES, 0);
        assert_int_equal(add(f, "a", 1 << 20), AU_OK);
        assert_int_equal(add(f, "adapter_model.bin", MAX_BYTES - (1 << 20) + d),
                         d <= 0 ? AU_OK : AU_INVALID);
    }
    /* The archive has the same room, and then its content again. */
    reopen(f, MAX_BYTES, 0);
    char *zeros = calloc(MAX_BYTES, 1);
    assert_int_equal(au_staging_begin_archive(&f->s, &f->err), AU_OK);
    assert_int_equal(au_staging_write(&f->s, zeros, MAX_BYTES, &f->err), AU_OK);
    assert_int_equal(au_staging_write(&f->s, zeros, 1, &f->err), AU_INVALID);
    assert_int_equal(au_staging_end(&f->s, &f->err), AU_OK);
    assert_int_equal(add(f, "adapter_model.bin", MAX_BYTES), AU_OK);
    free(zeros);
}

static void test_a_full_disk(void **state)
{
    fixture *f = *state;
    reopen(f, UINT64_MAX, UINT64_MAX);
    assert_int_equal(add(f, "adapter_model.bin", 4 << 20), AU_NOSPACE);
}

static void test_sweep(void **state)
{
    fixture *f = *state;
    assert_int_equal(add(f, "adapter_config.json", 1), AU_OK);
    assert_int_equal(au_staging_sweep(f->dir, &f->err), AU_OK);
    assert_false(au_file_exists(f->s.dir));
    assert_int_equal(au_staging_sweep(f->dir, &f->err), AU_OK);
}

static void test_no_archive(void **state)
{
    fixture *f = *state;
    static const char *const texts[] = {"", "x", "PK\x05\x06", "hello hello hello"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        reopen(f, MAX_BYTES, 0);
        assert_int_equal(au_staging_begin_archive(&f->s, &f->err), AU_OK);
        assert_int_equal(au_staging_write(&f->s, texts[i], strlen(texts[i]), &f->err), AU_OK);
        assert_int_equal(au_staging_end(&f->s, &f->err), AU_OK);
        assert_int_equal(au_staging_unpack(&f->s, &f->err), AU_INVALID);
        assert_non_null(strstr(f->err.message, "archive"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_archive, setup, teardown),
    };
    return cmocka_run_group_tests_name("adapter_staging", tests, NULL, NULL);
}
