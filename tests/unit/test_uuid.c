/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>

#include "base/clock.h"
#include "base/uuid.h"

static void test_form_and_order(void **state)
{
    (void)state;
    char before[AU_UUID_TEXT], now[AU_UUID_TEXT];
    int64_t start = au_time_ms();
    au_uuid7(before);
    for (int i = 0; i < 10000; i++) { /* far more than one millisecond's counter holds */
        au_uuid7(now);
        assert_true(au_uuid_valid(now));
        assert_int_equal(now[14], '7');
        assert_non_null(strchr("89ab", now[19]));
        assert_true(strcmp(before, now) < 0);
        memcpy(before, now, sizeof now);
    }
    char high[9] = {0}, low[5] = {0};
    memcpy(high, now, 8);
    memcpy(low, now + 9, 4);
    int64_t ms = (int64_t)(strtoull(high, NULL, 16) << 16 | strtoull(low, NULL, 16));
    assert_in_range(ms, start, start + 3600000);
}

static void *make_ids(void *p)
{
    char(*ids)[AU_UUID_TEXT] = p;
    for (int i = 0; i < 1000; i++)
        au_uuid7(ids[i]);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void test_threads_never_share_one(void **state)
{
    (void)state;
    enum { N = 4 };
    static char ids[N * 1000][AU_UUID_TEXT];
    pthread_t threads[N];
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_ids, ids + i * 1000), 0);
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    qsort(ids, N * 1000, sizeof ids[0], compare);
    for (int i = 1; i < N * 1000; i++)
        assert_true(strncmp(ids[i - 1], ids[i], 18) < 0); /* time and counter alone differ */
}

static void test_validity(void **state)
{
    (void)state;
    assert_true(au_uuid_valid("01963f1c-0000-7abc-8def-0123456789ab"));
    assert_true(au_uuid_valid("01963F1C-0000-7ABC-8DEF-0123456789AB"));
    const char *bad[] = {"",
                         "01963f1c",
                         "01963f1c-0000-7abc-8def-0123456789abc",
                         "01963f1c-0000-7abc-8def-0123456789ag",
                         "01963f1c00000-7abc-8def-0123456789ab",
                         "{1963f1c-0000-7abc-8def-0123456789ab"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(au_uuid_valid(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form_and_order),
        cmocka_unit_test(test_threads_never_share_one),
        cmocka_unit_test(test_validity),
    };
    return cmocka_run_group_tests_name("uuid", tests, NULL, NULL);
}
