/* SPDX-License-Identifier: MIT */
/* Object storage: one contract suite, run on the local folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include "jobs_fixture.h"

#define HASH "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_put_read_delete(void **state)
{
    fixture *f = *state;
    int fd;
    uint64_t size;
    bool exists;
    char text[8] = "";
    OK(au_store_put(f->store, "samples/ab/x.wav", "one", 3, &f->err));
    OK(au_store_put(f->store, "samples/ab/x.wav", "three", 5, &f->err));
    OK(au_store_exists(f->store, "samples/ab/x.wav", &exists, &f->err));
    assert_true(exists);
    OK(au_store_open_read(f->store, "samples/ab/x.wav", &fd, &size, &f->err));
    assert_int_equal(size, 5);
    OK(au_store_delete(f->store, "samples/ab/x.wav", &f->err));
    assert_int_equal(read(fd, text, sizeof text), 5); /* still readable */
    assert_string_equal(text, "three");
    close(fd);
    OK(au_store_delete(f->store, "samples/ab/x.wav", &f->err));
    OK(au_store_exists(f->store, "samples/ab/x.wav", &exists, &f->err));
    assert_false(exists);
    assert_int_equal(au_store_open_read(f->store, "samples/ab/x.wav", &fd, &size, &f->err),
                     AU_NOT_FOUND);
    assert_int_equal(fd, -1);
    char path[160];
    snprintf(path, sizeof path, "%s/samples", f->store_path);
    assert_false(au_dir_exists(path)); /* empty folders go too */
    OK(au_store_put(f->store, "empty", "", 0, &f->err));
    OK(au_store_open_read(f->store, "empty", &fd, &size, &f->err));
    assert_int_equal(size, 0);
    close(fd);
}

static void test_keys(void **state)
{
    fixture *f = *state;
    static const char *const bad[] = {"",     "/a",   "a/",  "a//b", "../a",     "a/../b", ".tmp/x",
                                      "a/.b", "a\nb", "a b", "a\\b", "\xc3\xa9", "a/./b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(au_store_put(f->store, bad[i], "x", 1, &f->err), AU_INVALID);
    char longest[AU_STORE_KEY + 1];
    memset(longest, 'a', sizeof longest);
    longest[AU_STORE_KEY - 1] = 0;
    OK(au_store_put(f->store, longest, "x", 1, &f->err));
    longest[AU_STORE_KEY - 1] = 'a';
    longest[AU_STORE_KEY] = 0;
    assert_int_equal(au_store_put(f->store, longest, "x", 1, &f->err), AU_INVALID);
    char key[AU_STORE_KEY];
    OK(au_store_sample_key(key, "01970000-0000-7000-8000-000000000001", "wav", &f->err));
    assert_string_equal(key, "samples/01/01970000-0000-7000-8000-000000000001.wav");
    assert_int_equal(au_store_sample_key(key, "../../etc/passwd", "wav", &f->err), AU_INVALID);
    OK(au_store_adapter_key(key, HASH, "adapter_config.json", &f->err));
    assert_string_equal(key, "adapters/" HASH "/adapter_config.json");
    assert_int_equal(au_store_adapter_key(key, HASH, "../x", &f->err), AU_INVALID);
    assert_int_equal(au_store_adapter_key(key, HASH "0", "x", &f->err), AU_INVALID);
    assert_int_equal(objects(f), 1);
}

static void test_list_and_files(void **state)
{
    fixture *f = *state;
    char path[160], *local;
    snprintf(path, sizeof path, "%s/source", f->dir);
    OK(au_file_write(path, "hello", 5, true, &f->err));
    OK(au_store_put_file(f->store, "adapters/" HASH "/w.bin", path, &f->err));
    OK(au_store_put(f->store, "samples/aa/1.wav", "x", 1, &f->err));
    OK(au_store_put(f->store, "samples/bb/2.wav", "x", 1, &f->err));
    assert_int_equal(au_store_put_file(f->store, "samples/cc/3.wav", "/nonexistent", &f->err),
                     AU_NOT_FOUND);
    int n = 0;
    OK(au_store_list(f->store, "samples/", count_object, &n, &f->err));
    assert_int_equal(n, 2);
    assert_int_equal(objects(f), 3);
    n = 0;
    OK(au_store_list(f->store, "nothing/", count_object, &n, &f->err));
    assert_int_equal(n, 0);
    OK(au_store_local_path(f->store, &local, "adapters/" HASH, &f->err));
    assert_true(au_dir_exists(local));
    free(local);
}

/* What a writer that died left in .tmp goes with its key, or by age. */
static void test_unfinished_writes(void **state)
{
    fixture *f = *state;
    char tmp[192], other[192];
    snprintf(tmp, sizeof tmp, "%s/.tmp/samples+aa+1.wav", f->store_path);
    snprintf(other, sizeof other, "%s/.tmp/other", f->store_path);
    OK(au_file_write(tmp, "half", 4, true, &f->err));
    OK(au_file_write(other, "half", 4, true, &f->err));
    assert_int_equal(objects(f), 0);
    OK(au_store_delete(f->store, "samples/aa/1.wav", &f->err));
    assert_false(au_file_exists(tmp));
    OK(au_store_sweep_tmp(f->store, 3600000, &f->err));
    assert_true(au_file_exists(other));
    OK(au_store_sweep_tmp(f->store, 0, &f->err));
    assert_false(au_file_exists(other));
    OK(au_file_write(tmp, "half", 4, true, &f->err));
    OK(au_store_put(f->store, "samples/aa/1.wav", "whole", 5, &f->err));
    assert_false(au_file_exists(tmp));
}

/* A write that fails leaves neither object nor temporary file. */
static void test_failed_write(void **state)
{
    fixture *f = *state;
    struct rlimit before, small = {.rlim_cur = 1000, .rlim_max = RLIM_INFINITY};
    char big[4096] = "x", tmp[192];
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    au_status st = au_store_put(f->store, "samples/aa/1.wav", big, sizeof big, &f->err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(st, AU_IO);
    assert_int_equal(objects(f), 0);
    snprintf(tmp, sizeof tmp, "%s/.tmp/samples+aa+1.wav", f->store_path);
    assert_false(au_file_exists(tmp));
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_put_read_delete),   T(test_keys),         T(test_list_and_files),
        T(test_unfinished_writes), T(test_failed_write),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
