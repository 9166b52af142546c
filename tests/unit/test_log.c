/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"

static char seen[8192];
static int lines;

static void sink(void *user, au_log_level level, const char *line)
{
    (void)user, (void)level;
    snprintf(seen, sizeof seen, "%s", line);
    lines++;
}

static int setup(void **state)
{
    (void)state;
    lines = 0;
    au_log_set_sink(sink, NULL);
    au_log_set_level(AU_LOG_INFO);
    return 0;
}

static void test_line(void **state)
{
    (void)state;
    au_log(AU_LOG_INFO, "worker", "model loaded name=%s ms=%d", "tiny", 12);
    assert_non_null(strstr(seen, "Z level=info at=worker msg=\"model loaded\" name=tiny ms=12"));
    assert_memory_equal(seen, "time=20", 7);
    au_log(AU_LOG_ERROR, "http", "stopped");
    assert_non_null(strstr(seen, " level=error at=http msg=stopped"));
    au_log(AU_LOG_WARN, "http", "two\nlines");
    assert_non_null(strstr(seen, "msg=\"two lines\""));
    assert_int_equal(lines, 3);
    au_log(AU_LOG_DEBUG, "http", "not wanted");
    assert_int_equal(lines, 3);
}

static void test_context(void **state)
{
    (void)state;
    au_log_context("job", "j1");
    au_log_context("req", "a b");
    au_log(AU_LOG_INFO, "worker", "x k=1");
    assert_non_null(strstr(seen, "msg=x k=1 job=j1 req=\"a b\""));
    au_log_context("job", NULL);
    au_log(AU_LOG_INFO, "worker", "x");
    assert_null(strstr(seen, "job="));
    assert_non_null(strstr(seen, "req="));
    au_log_context("req", NULL);
}

static void test_long_lines_are_cut(void **state)
{
    (void)state;
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    au_log(AU_LOG_INFO, "worker", "a v=%s", text);
    assert_in_range(strlen(seen), 1000, 4096);
}

static void test_quote(void **state)
{
    (void)state;
    char buf[64];
    assert_string_equal(au_log_quote(buf, sizeof buf, "plain-1.5"), "plain-1.5");
    assert_string_equal(au_log_quote(buf, sizeof buf, ""), "\"\"");
    assert_string_equal(au_log_quote(buf, sizeof buf, "a b"), "\"a b\"");
    assert_string_equal(au_log_quote(buf, sizeof buf, "a\"\\\n\x01"), "\"a\\\"\\\\\\n\\x01\"");
    assert_string_equal(au_log_quote(buf, sizeof buf, "\xff"), "\"\\xff\"");
    assert_string_equal(au_log_quote(buf, 12, "h\xc3\xa4llo w\xc3\xb6rld"),
                        "\"h\xc3\xa4llo\xe2\x80\xa6\"");
    for (size_t size = 1; size < 20; size++) {
        memset(buf, 'Z', sizeof buf);
        au_log_quote(buf, size, "some text\twith a tab \xe9\x9f\xb3");
        assert_true(strlen(buf) < size);
        assert_int_equal(buf[size], 'Z');
    }
}

static void test_levels(void **state)
{
    (void)state;
    au_log_level l;
    assert_true(au_log_parse_level("trace", &l) && l == AU_LOG_TRACE);
    assert_false(au_log_parse_level("loud", &l));
    assert_true(au_log_enabled(AU_LOG_INFO) && !au_log_enabled(AU_LOG_DEBUG));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_line, setup),
        cmocka_unit_test_setup(test_context, setup),
        cmocka_unit_test_setup(test_long_lines_are_cut, setup),
        cmocka_unit_test_setup(test_quote, setup),
        cmocka_unit_test_setup(test_levels, setup),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
