/* SPDX-License-Identifier: MIT */
/* multipart/form-data: what is told of a body does not depend on how it is cut, and what is not the
 * syntax is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "http/multipart.h"

enum { LOG_MAX = 1 << 16 };

static au_status on_begin(void *user, const char *name, const char *file_name, au_err *err)
{
    (void)err;
    au_buf_printf(user, "<%s|%s|", name, file_name ? file_name : "-");
    return AU_OK;
}

static au_status on_data(void *user, const char *data, size_t len, au_err *err)
{
    if (len == 4 && memcmp(data, "fail", 4) == 0)
        return au_fail(err, AU_NOSPACE, "asked to fail");
    au_buf_append(user, data, len);
    return AU_OK;
}

static au_status on_end(void *user, au_err *err)
{
    (void)err;
    au_buf_str(user, ">");
    return AU_OK;
}

static const au_multipart_events events = {on_begin, on_data, on_end};

/* The log of a body fed in pieces of `piece` bytes; NULL where it is refused. */
static char *parse(const char *type, const char *body, size_t len, size_t piece)
{
    au_multipart m;
    au_buf log;
    au_err err = {0};
    char *out = NULL;
    au_buf_init(&log, LOG_MAX);
    assert_int_equal(au_multipart_init(&m, type, &events, &log, &err), AU_OK);
    au_status st = AU_OK;
    for (size_t i = 0; i < len && st == AU_OK; i += piece) {
        /* An exact block, so that a sanitizer sees every byte read beyond it. */
        size_t n = len - i < piece ? len - i : piece;
        char *copy = malloc(n);
        memcpy(copy, body + i, n);
        st = au_multipart_feed(&m, copy, n, &err);
        free(copy);
    }
    if (st == AU_OK)
        st = au_multipart_finish(&m, &err);
    if (st == AU_OK)
        out = strdup(au_buf_cstr(&log));
    else
        assert_true(strlen(err.message) > 5);
    au_buf_deinit(&log);
    return out;
}

static void expect(const char *body, const char *log)
{
    size_t len = strlen(body);
    for (size_t piece = 1; piece <= len; piece++) {
        char *got = parse("multipart/form-data; boundary=xyz", body, len, piece);
        if (!log)
            assert_null(got);
        else if (!got || strcmp(got, log) != 0)
            fail_msg("in pieces of %zu: %s, expected %s", piece, got ? got : "(refused)", log);
        free(got);
    }
}

#define PART(head, data) "--xyz\r\n" head "\r\n\r\n" data "\r\n"
#define FIELD(name, data) PART("Content-Disposition: form-data; name=\"" name "\"", data)
#define LAST "--xyz--\r\n"

static void test_parts(void **state)
{
    (void)state;
    expect(FIELD("name", "a") LAST, "<name|-|a>");
    expect(FIELD("name", "a") "--xyz--", "<name|-|a>");
    expect(FIELD("name", "") FIELD("b", "two\r\nlines\r\n") LAST,
           "<name|-|><b|-|two\r\nlines\r\n>");
    expect("preamble\r\n" FIELD("name", "a") LAST "epilogue --xyz", "<name|-|a>");
    expect("\r\n" FIELD("name", "a") LAST, "<name|-|a>");
    expect(
        PART(
            "content-disposition:form-data;name=f;filename=\"a b.txt\"\r\nContent-Type: text/plain",
            "x") LAST,
        "<f|a b.txt|x>");
    expect(PART("Content-Disposition: form-data; name=\"f\"; filename=\"\"", "x") LAST, "<f||x>");
    expect(PART("Content-Disposition: form-data; filename=\"q\\\"\\\\C:\\x\"; name=\"f\"", "x")
               LAST,
           "<f|q\"\\C:\\x|x>");
    expect("--xyz  \t\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--xyz-- ", "<a|-|b>");
    expect("--xyz--\r\n", "");
}

static void test_data_that_looks_like_a_delimiter(void **state)
{
    (void)state;
    expect(FIELD("f", "\r\n--xy\r\n--xyyz\r\r\n\r\n--") LAST,
           "<f|-|\r\n--xy\r\n--xyyz\r\r\n\r\n-->");
    expect(FIELD("f", "\r\r\r\n-") LAST, "<f|-|\r\r\r\n->");
    expect(FIELD("f", "--xyz is only one after a line") LAST,
           "<f|-|--xyz is only one after a line>");
    expect("--xy\r\n" FIELD("f", "a") LAST, "<f|-|a>");
}

static void test_refused(void **state)
{
    (void)state;
    expect("x", NULL);
    expect("--xyz", NULL);
    expect("--xyz-", NULL);
    expect(FIELD("name", "a"), NULL); /* no last boundary */
    expect("--xyz\nContent-Disposition: form-data; name=a\n\nb\n--xyz--", NULL); /* bare LF */
    expect("--xyz\r\nContent-Disposition: form-data; name=a\n\r\n\r\nb\r\n--xyz--", NULL);
    expect("--xyz\r\nContent-Disposition: form-data;\r name=a\r\n\r\nb\r\n--xyz--", NULL);
    expect("--xyz\r\n\r\nb\r\n--xyz--", NULL); /* no disposition */
    expect(PART("Content-Type: text/plain", "b") LAST, NULL);
    expect(PART("Content-Disposition: attachment; name=a", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; filename=a", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; name=a; name=b", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; name=\"a", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; name=", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; name=a; filename*=UTF-8''b", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=a",
                "b") LAST,
           NULL);
    expect(PART("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64", "b")
               LAST,
           NULL);
    expect(PART("Content-Disposition : form-data; name=a", "b") LAST, NULL);
    expect(PART("nothing", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; name=\"\x01\"", "b") LAST, NULL);
    expect(PART("Content-Disposition: form-data; name=\"\xff\"", "b") LAST, NULL);
    expect("--xyzq\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--xyz--", NULL);
}

static void test_nul_in_a_header(void **state)
{
    (void)state;
    static const char body[] =
        "--xyz\r\nContent-Disposition: form-data; name=\"a\0b\"\r\n\r\nb\r\n--xyz--";
    assert_null(parse("multipart/form-data; boundary=xyz", body, sizeof body - 1, 7));
    /* In data it is a byte like any other. */
    static const char data[] = FIELD("f", "a\0b") LAST;
    char *got = parse("multipart/form-data; boundary=xyz", data, sizeof data - 1, 5);
    assert_string_equal(got, "<f|-|a");
    free(got);
}

static char *repeat(const char *head, char c, size_t n, const char *tail)
{
    size_t a = strlen(head), b = strlen(tail);
    char *text = malloc(a + n + b + 1);
    memcpy(text, head, a);
    memset(text + a, c, n);
    memcpy(text + a + n, tail, b + 1);
    return text;
}

static void accepts(char *body, bool yes)
{
    char *got = parse("multipart/form-data; boundary=xyz", body, strlen(body), 97);
    assert_int_equal(got != NULL, yes);
    free(got);
    free(body);
}

static void test_limits(void **state)
{
    (void)state;
    /* Header lines of a part: with the empty line below, at and above the maximum. */
    static const char head[] = "--xyz\r\nContent-Disposition: form-data; name=a\r\nX: ";
    size_t fixed = strlen(head) - strlen("--xyz\r\n") + strlen("\r\n\r\n");
    for (int d = -1; d <= 1; d++)
        accepts(repeat(head, 'x', AU_MULTIPART_HEADER_MAX - fixed + d, "\r\n\r\nb\r\n--xyz--"),
                d <= 0);
    for (int d = -1; d <= 1; d++)
        accepts(repeat("", 'p', 4096 + d, "\r\n" FIELD("a", "b") LAST), d <= 0);
    for (int d = -1; d <= 1; d++) {
        au_buf body;
        au_buf_init(&body, 1 << 20);
        for (int i = 0; i < AU_MULTIPART_PARTS_MAX + d; i++)
            au_buf_str(&body, FIELD("a", "b"));
        au_buf_str(&body, LAST);
        accepts(strdup(au_buf_cstr(&body)), d <= 0);
        au_buf_deinit(&body);
    }
}

static au_status begin_with(const char *type)
{
    au_multipart m;
    return au_multipart_init(&m, type, &events, NULL, NULL);
}

static void test_content_type(void **state)
{
    (void)state;
    assert_int_equal(begin_with(NULL), AU_UNSUPPORTED);
    assert_int_equal(begin_with("application/json"), AU_UNSUPPORTED);
    assert_int_equal(begin_with("multipart/form-data2; boundary=a"), AU_UNSUPPORTED);
    assert_int_equal(begin_with("multipart/form-data"), AU_INVALID);
    assert_int_equal(begin_with("multipart/form-data; boundary="), AU_INVALID);
    assert_int_equal(begin_with("multipart/form-data; boundary=\"\""), AU_INVALID);
    assert_int_equal(begin_with("multipart/form-data; boundary=a; boundary=a"), AU_INVALID);
    assert_int_equal(begin_with("multipart/form-data; boundary=\"a\r\""), AU_INVALID);
    assert_int_equal(begin_with("multipart/form-data boundary=a"), AU_INVALID);
    assert_int_equal(begin_with("Multipart/Form-Data ; charset=utf-8; BOUNDARY=\"a b\";"), AU_OK);
    for (int n = AU_MULTIPART_BOUNDARY_MAX - 1; n <= AU_MULTIPART_BOUNDARY_MAX + 1; n++) {
        char *type = repeat("multipart/form-data; boundary=", 'b', (size_t)n, "");
        assert_int_equal(begin_with(type), n <= AU_MULTIPART_BOUNDARY_MAX ? AU_OK : AU_INVALID);
        free(type);
    }
}

static void test_what_events_return(void **state)
{
    (void)state;
    au_multipart m;
    au_err err;
    au_buf log;
    au_buf_init(&log, LOG_MAX);
    assert_int_equal(
        au_multipart_init(&m, "multipart/form-data; boundary=xyz", &events, &log, &err), AU_OK);
    static const char body[] = FIELD("a", "fail") LAST;
    assert_int_equal(au_multipart_feed(&m, body, sizeof body - 1, &err), AU_NOSPACE);
    au_buf_deinit(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_data_that_looks_like_a_delimiter),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nul_in_a_header),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_content_type),
        cmocka_unit_test(test_what_events_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
