/* SPDX-License-Identifier: MIT */
/* The thread pool (every item once, on a valid thread; many short regions; sleeping and waking;
 * more threads than processors) and the cgroup quota, read from made-up trees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/threads.h"

enum { MAX_ITEMS = 5000, MAX_THREADS = 8 };

struct tally {
    _Atomic int seen[MAX_ITEMS];
    _Atomic int wrong_thread;
    int n_threads;
};

static void count(void *ctx, size_t item, int thread)
{
    struct tally *t = ctx;
    atomic_fetch_add(&t->seen[item], 1);
    if (thread < 0 || thread >= t->n_threads)
        atomic_fetch_add(&t->wrong_thread, 1);
}

static void test_every_item_once(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 7, 64, 1000, MAX_ITEMS};
    struct tally *t = malloc(sizeof *t);
    assert_non_null(t);
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        au_pool *pool = NULL;
        assert_int_equal(au_pool_new(&pool, n_threads, NULL), AU_OK);
        assert_int_equal(au_pool_threads(pool), n_threads);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            memset(t, 0, sizeof *t);
            t->n_threads = n_threads;
            au_pool_run(pool, sizes[s], count, t);
            for (size_t i = 0; i < MAX_ITEMS; i++)
                assert_int_equal(t->seen[i], i < sizes[s] ? 1 : 0);
            assert_int_equal(t->wrong_thread, 0);
        }
        au_pool_free(&pool);
        assert_null(pool);
    }
    free(t);
}

/* Plain memory: what one region writes, the owner and the next region read. */
struct chain {
    long values[64];
};

static void step(void *ctx, size_t item, int thread)
{
    (void)thread;
    struct chain *c = ctx;
    c->values[item] = c->values[item] * 3 + (long)item;
}

static void test_thousands_of_short_regions(void **state)
{
    (void)state;
    for (int n_threads = 2; n_threads <= 4; n_threads++) {
        au_pool *pool = NULL;
        struct chain got = {{0}}, want = {{0}};
        assert_int_equal(au_pool_new(&pool, n_threads, NULL), AU_OK);
        for (int r = 0; r < 5000; r++) {
            size_t n = 1 + (size_t)r % 64;
            au_pool_run(pool, n, step, &got);
            for (size_t i = 0; i < n; i++)
                step(&want, i, 0);
            assert_int_equal(got.values[r % 64], want.values[r % 64]);
            for (size_t i = 0; i < 64; i++) /* keep the numbers small */
                got.values[i] = want.values[i] = want.values[i] % 1000;
        }
        assert_memory_equal(&got, &want, sizeof got);
        au_pool_free(&pool);
    }
}

static void sleep_ns(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static void slow_item(void *ctx, size_t item, int thread)
{
    (void)thread;
    sleep_ns(item % 2 ? 300000 : 1000);
    atomic_fetch_add((_Atomic int *)ctx, 1);
}

static void test_sleepers_wake(void **state)
{
    (void)state;
    au_pool *pool = NULL;
    assert_int_equal(au_pool_new(&pool, 4, NULL), AU_OK);
    _Atomic int n = 0;
    for (int r = 0; r < 50; r++) {
        sleep_ns(
            r % 3 *
            150000); /* the workers fall asleep between some of the regions, the owner inside */
        au_pool_run(pool, 8, slow_item, &n);
        assert_int_equal(atomic_load(&n), 8 * (r + 1));
    }
    au_pool_free(&pool);
}

static void test_new_and_free(void **state)
{
    (void)state;
    au_err err;
    au_pool *pool = NULL;
    au_pool_free(&pool);
    assert_int_equal(au_pool_new(&pool, 0, &err), AU_INVALID);
    assert_non_null(strstr(err.message, "0 threads"));
    assert_int_equal(au_pool_new(&pool, 1 << 20, &err), AU_INVALID);
    assert_null(pool);
    for (int i = 0; i < 200; i++) { /* threads that never got work, awake or just starting */
        assert_int_equal(au_pool_new(&pool, 3, &err), AU_OK);
        if (i % 20 == 0)
            sleep_ns(1000000);
        au_pool_free(&pool);
    }
    assert_in_range(au_threads_default(), 1, 8192);
}

/* A root folder with files in it. */
struct root {
    char dir[64];
    char files[8][256];
    int n;
};

static void put(struct root *r, const char *path, const char *text)
{
    char *full = r->files[r->n++];
    size_t dir_len = strlen(r->dir);
    assert_true(dir_len + 1 + strlen(path) < sizeof r->files[0]);
    memcpy(full, r->dir, dir_len);
    full[dir_len] = '/';
    memcpy(full + dir_len + 1, path, strlen(path) + 1);
    for (char *p = full + dir_len + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            mkdir(full, 0777);
            *p = '/';
        }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int quota(const char *const files[][2])
{
    struct root r = {.dir = "/tmp/au-quota-XXXXXX"};
    assert_non_null(mkdtemp(r.dir));
    for (int i = 0; files[i][0]; i++)
        put(&r, files[i][0], files[i][1]);
    int q = au_threads_quota(r.dir);
    for (int i = 0; i < r.n; i++) {
        unlink(r.files[i]);
        for (char *slash; (slash = strrchr(r.files[i], '/')) > r.files[i] + strlen(r.dir);) {
            *slash = '\0';
            rmdir(r.files[i]);
        }
    }
    assert_int_equal(rmdir(r.dir), 0);
    return q;
}

#define QUOTA(...) quota((const char *const[][2]){__VA_ARGS__, {NULL, NULL}})
#define SELF "proc/self/cgroup"
#define GROUPS "sys/fs/cgroup/"

static void test_quota(void **state)
{
    (void)state;
    assert_int_equal(QUOTA({"empty", ""}), 0);
    assert_int_equal(QUOTA({SELF, "0::/\n"}), 0);
    assert_int_equal(QUOTA({SELF, "0::/\n"}, {GROUPS "cpu.max", "max 100000\n"}), 0);
    assert_int_equal(QUOTA({SELF, "0::/\n"}, {GROUPS "cpu.max", "400000 100000\n"}), 4);
    assert_int_equal(QUOTA({SELF, "0::/a/b\n"}, {GROUPS "a/b/cpu.max", "350000 100000\n"}), 3);
    assert_int_equal(QUOTA({SELF, "0::/a/b\n"}, {GROUPS "a/b/cpu.max", "20000 100000\n"}), 1);
    assert_int_equal(QUOTA({SELF, "0::/a/b\n"}, {GROUPS "a/b/cpu.max", "max 100000\n"},
                           {GROUPS "a/cpu.max", "200000 100000"}),
                     2);
    assert_int_equal(QUOTA({SELF, "0::/not/here\n"}, {GROUPS "cpu.max", "600000 100000"}), 6);
    assert_int_equal(QUOTA({SELF, "9:cpuset:/x\n4:cpu,cpuacct:/c\n"},
                           {GROUPS "cpu/c/cpu.cfs_quota_us", "250000\n"},
                           {GROUPS "cpu/c/cpu.cfs_period_us", "100000\n"}),
                     2);
    assert_int_equal(QUOTA({SELF, "4:cpuacct,cpu:/c\n"}, {GROUPS "cpu/c/cpu.cfs_quota_us", "-1\n"},
                           {GROUPS "cpu/c/cpu.cfs_period_us", "100000\n"}),
                     0);
    /* nonsense sets no limit */
    assert_int_equal(QUOTA({SELF, "0::/\n"}, {GROUPS "cpu.max", "many 100000\n"}), 0);
    assert_int_equal(QUOTA({SELF, "0::/\n"}, {GROUPS "cpu.max", "100000 0\n"}), 0);
    assert_int_equal(QUOTA({SELF, "0::/\n"}, {GROUPS "cpu.max", "100000\n"}), 0);
    assert_int_equal(
        QUOTA({SELF, "0::/\n"}, {GROUPS "cpu.max", "99999999999999999999999 100000\n"}), 0);
    assert_int_equal(QUOTA({SELF, "\n:\n::\nnonsense\n"}), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_once), cmocka_unit_test(test_thousands_of_short_regions),
        cmocka_unit_test(test_sleepers_wake),   cmocka_unit_test(test_new_and_free),
        cmocka_unit_test(test_quota),
    };
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
