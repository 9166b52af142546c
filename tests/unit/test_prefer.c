/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "api/prefer.h"

static void test_wait(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int want;
    } rows[] = {
        {"wait=30", 30},
        {"WAIT = 5", 5},
        {"wait=\"7\"", 7},
        {"respond-async, wait=10", 10},
        {"wait=10;x=y", 10},
        {"foo=\"a,wait=3\", wait=4", 4},
        {"wait=1, wait=2", 1},
        {"wait=0", 0},
        {"wait=999999999999999999999", AU_PREFER_WAIT_MAX_S},
        {"", -1},
        {"wait", -1},
        {"wait=", -1},
        {"wait=-1", -1},
        {"wait=1.5", -1},
        {"wait=x", -1},
        {"waiting=3", -1},
        {"wait=\"3", -1},
        {"respond-async", -1},
        {",,,", -1},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (au_prefer_wait_s(rows[i].value) != rows[i].want)
            fail_msg("%s: %d", rows[i].value, au_prefer_wait_s(rows[i].value));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wait)};
    return cmocka_run_group_tests_name("prefer", tests, NULL, NULL);
}
