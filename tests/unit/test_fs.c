/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/au-test-fs-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return au_remove_tree(dir, NULL) == AU_OK && !au_file_exists(dir) ? 0 : -1;
}

/* A path in the test's folder; valid until the fourth next call. */
static const char *in_dir(const char *name)
{
    static char paths[4][256];
    static int turn;
    char *p = paths[turn++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", dir, name);
    return p;
}

static int entries(void)
{
    char command[128], answer[32] = "";
    snprintf(command, sizeof command, "ls -A %s | wc -l", dir);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(answer, sizeof answer, f));
    pclose(f);
    return (int)strtol(answer, NULL, 10);
}

static void test_read(void **state)
{
    (void)state;
    char *text;
    size_t len;
    au_err err;
    assert_int_equal(au_file_write(in_dir("a"), "hello", 5, false, NULL), AU_OK);
    assert_int_equal(au_file_read(&text, &len, in_dir("a"), 5, NULL), AU_OK);
    assert_int_equal(len, 5);
    assert_string_equal(text, "hello");
    free(text);
    assert_int_equal(au_file_read(&text, &len, in_dir("a"), 4, &err), AU_LIMIT);
    assert_non_null(strstr(err.message, "limit of 4"));
    assert_int_equal(au_file_read(&text, &len, in_dir("missing"), 5, NULL), AU_NOT_FOUND);
    assert_int_equal(au_file_read(&text, &len, dir, 5, &err), AU_IO);
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
    assert_int_equal(au_file_read(&text, &len, in_dir("fifo"), 5, NULL), AU_IO);
    /* Files of /proc say that they are empty. */
    assert_int_equal(au_file_read(&text, &len, "/proc/self/status", 1 << 20, NULL), AU_OK);
    assert_non_null(strstr(text, "Pid:"));
    free(text);
}

static void test_map(void **state)
{
    (void)state;
    au_map m;
    assert_int_equal(au_file_write(in_dir("m"), "abc", 3, false, NULL), AU_OK);
    assert_int_equal(au_map_open(&m, in_dir("m"), NULL), AU_OK);
    assert_memory_equal(m.data, "abc", 3);
    au_map_close(&m);
    assert_null(m.data);
    assert_int_equal(au_file_write(in_dir("empty"), "", 0, false, NULL), AU_OK);
    assert_int_equal(au_map_open(&m, in_dir("empty"), NULL), AU_OK);
    assert_true(!m.data && m.len == 0);
    assert_int_equal(au_map_open(&m, dir, NULL), AU_IO);
}

static void test_atomic_write(void **state)
{
    (void)state;
    au_err err;
    char *text;
    size_t len;
    assert_int_equal(au_file_write(in_dir("x"), "one", 3, false, NULL), AU_OK);
    assert_int_equal(au_file_write(in_dir("x"), "two", 3, false, &err), AU_EXISTS);
    assert_int_equal(au_file_read(&text, &len, in_dir("x"), 9, NULL), AU_OK);
    assert_string_equal(text, "one");
    free(text);
    assert_int_equal(au_file_write(in_dir("x"), "three", 5, true, NULL), AU_OK);
    assert_int_equal(au_file_read(&text, &len, in_dir("x"), 9, NULL), AU_OK);
    assert_string_equal(text, "three");
    free(text);
    assert_int_equal(entries(), 1); /* the refused one left nothing behind */

    au_atomic_file f;
    assert_int_equal(au_atomic_begin(&f, in_dir("y"), NULL), AU_OK);
    assert_int_equal(au_atomic_write(&f, "abc", 3, NULL), AU_OK);
    assert_int_equal(entries(), 2);
    assert_false(au_file_exists(in_dir("y")));
    au_atomic_abort(&f);
    au_atomic_abort(&f);
    assert_int_equal(entries(), 1);
    assert_int_equal(au_atomic_begin(&f, in_dir("no/such/y"), NULL), AU_NOT_FOUND);
    assert_int_equal(au_atomic_begin(&f, "dir/", NULL), AU_INVALID);
}

static void test_folders(void **state)
{
    (void)state;
    assert_int_equal(au_mkdirs(in_dir("p/q/r"), NULL), AU_OK);
    assert_int_equal(au_mkdirs(in_dir("p/q/r/"), NULL), AU_OK);
    assert_true(au_dir_exists(in_dir("p/q/r")));
    assert_int_equal(au_file_write(in_dir("p/q/file"), "x", 1, false, NULL), AU_OK);
    assert_int_equal(au_mkdirs(in_dir("p/q/file/z"), NULL), AU_IO);
    /* A link to a folder outside is removed, what it points to is not. */
    assert_int_equal(au_mkdirs(in_dir("outside/keep"), NULL), AU_OK);
    assert_int_equal(symlink(in_dir("outside"), in_dir("p/q/link")), 0);
    assert_int_equal(au_remove_tree(in_dir("p"), NULL), AU_OK);
    assert_false(au_file_exists(in_dir("p")));
    assert_true(au_dir_exists(in_dir("outside/keep")));
    assert_int_equal(au_remove_tree(in_dir("p"), NULL), AU_OK);
    assert_int_equal(au_fsync_dir(dir, NULL), AU_OK);
    uint64_t bytes = 0;
    assert_int_equal(au_fs_free_bytes(&bytes, dir, NULL), AU_OK);
    assert_true(bytes > 0);
}

static void test_paths(void **state)
{
    (void)state;
    char *p;
    assert_int_equal(au_path_join(&p, "a", "b", NULL), AU_OK);
    assert_string_equal(p, "a/b");
    free(p);
    assert_int_equal(au_path_join(&p, "a/", "b", NULL), AU_OK);
    assert_string_equal(p, "a/b");
    free(p);
    assert_string_equal(au_path_base("/x/y"), "y");
    assert_string_equal(au_path_base("y"), "y");
    assert_int_equal(au_exe_dir(&p, NULL), AU_OK);
    assert_true(au_dir_exists(p));
    free(p);
}

static void test_lock(void **state)
{
    (void)state;
    int fd, again;
    au_err err;
    char *text, pid[24];
    size_t len;
    assert_int_equal(au_lock_file(&fd, in_dir("lock"), NULL), AU_OK);
    assert_int_equal(au_file_read(&text, &len, in_dir("lock"), 100, NULL), AU_OK);
    snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    assert_string_equal(text, pid);
    free(text);
    /* flock belongs to the open file, so a second open conflicts even within one process. */
    assert_int_equal(au_lock_file(&again, in_dir("lock"), &err), AU_CONFLICT);
    pid[strlen(pid) - 1] = 0;
    assert_non_null(strstr(err.message, pid));
    close(fd);
    assert_int_equal(au_lock_file(&again, in_dir("lock"), NULL), AU_OK);
    close(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_map, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_atomic_write, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_folders, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_paths, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_lock, make_dir, remove_dir),
    };
    return cmocka_run_group_tests_name("fs", tests, NULL, NULL);
}
