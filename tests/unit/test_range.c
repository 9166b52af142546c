/* SPDX-License-Identifier: MIT */
/* The table of ranges of the API, row by row, and random fields against a slow model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "http/range.h"

/* "200", "416", or the ranges as "0-1,5-6". */
static const char *answer(const char *field, uint64_t size)
{
    static char text[1024];
    au_range r[AU_RANGES_MAX];
    size_t n, len = 0;
    switch (au_range_parse(r, &n, field, size)) {
    case AU_RANGE_IGNORE:
        return "200";
    case AU_RANGE_UNSATISFIABLE:
        return "416";
    case AU_RANGE_PARTIAL:
        break;
    }
    assert_true(n >= 1 && n <= AU_RANGES_MAX);
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%llu-%llu", i ? "," : "",
                                (unsigned long long)r[i].first, (unsigned long long)r[i].last);
    return text;
}

static void test_table(void **state)
{
    (void)state;
    static const struct {
        const char *field, *want;
    } rows[] = {
        {"bytes=0-0", "0-0"},
        {"bytes=0-", "0-9999"},
        {"bytes=9999-", "9999-9999"},
        {"bytes=-1", "9999-9999"},
        {"bytes=-20000", "0-9999"},
        {"bytes=5000-99999", "5000-9999"},
        {"bytes=-0", "416"},
        {"bytes=10000-", "416"},
        {"bytes=10000-10001", "416"},
        {"bytes=5-1", "200"},
        {"bytes=abc", "200"},
        {"bytes=0-1x", "200"},
        {"bytes=0-1 x", "200"},
        {"bytes=0x1-2", "200"},
        {"bytes=+1-2", "200"},
        {"bytes=1 -2", "200"},
        {"bytes=--1", "200"},
        {"bytes=1--2", "200"},
        {"bytes=-", "200"},
        {"bytes=", "200"},
        {"bytes", "200"},
        {"bytes =0-1", "200"},
        {"bytes=,", "200"},
        {"chunks=0-1", "200"},
        {"", "200"},
        {"BYTES=0-1", "0-1"},
        {"bytes=0-1,", "0-1"},
        {"bytes= ,0-1 , ,", "0-1"},
        {"bytes=0-1,5-6", "0-1,5-6"},
        {"bytes=0-1, 5-6", "0-1,5-6"},
        {"bytes=20-29,0-9", "20-29,0-9"},
        {"bytes=0-9,5-20", "0-20"},
        {"bytes=0-9,10-20", "0-20"},
        {"bytes=0-9,11-20", "0-9,11-20"},
        {"bytes=0-1,20000-", "0-1"},
        {"bytes=20000-,0-1", "0-1"},
        {"bytes=20000-,30000-", "416"},
        {"bytes=0-1,5-1", "200"},
        {"bytes=0-,0-,0-", "0-9999"},
        /* a merged group stands where its first member stood, also when a later one joins two
           groups */
        {"bytes=100-109,0-9,5-20", "100-109,0-20"},
        {"bytes=0-9,100-109,20-29,10-19", "0-29,100-109"},
        {"bytes=50-59,0-9,10-49", "0-59"},
        {"bytes=18446744073709551616-", "416"},
        {"bytes=0-18446744073709551616", "0-9999"},
        {"bytes=-99999999999999999999999", "0-9999"},
        {"bytes=99999999999999999999999-99999999999999999999998", "200"},
        {"bytes=99999999999999999999998-99999999999999999999999", "416"},
        {"bytes=0000000000000000000000000005-06", "5-6"},
        {"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-"
         "30",
         "0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30"},
        {"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-"
         "30,32-32",
         "200"},
        {"bytes=0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-", "200"},
        {"bytes=20000-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-", "200"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(answer(rows[i].field, 10000), rows[i].want) != 0)
            fail_msg("%s: got %s, want %s", rows[i].field, answer(rows[i].field, 10000),
                     rows[i].want);
    }
}

static void test_sizes_at_the_edges(void **state)
{
    (void)state;
    assert_string_equal(answer("bytes=0-", 0), "416");
    assert_string_equal(answer("bytes=-1", 0), "416");
    assert_string_equal(answer("bytes=-0", 0), "416");
    assert_string_equal(answer("bytes=0-0", 1), "0-0");
    assert_string_equal(answer("bytes=-1", 1), "0-0");
    assert_string_equal(answer("bytes=0-", (uint64_t)INT64_MAX), "0-9223372036854775806");
    assert_string_equal(answer("bytes=5000000000-5000000001", 6000000000), "5000000000-5000000001");
}

/* What the ranges cover must be the union of what was asked for, for every byte of a small file. */
static void test_random_fields_against_a_model(void **state)
{
    (void)state;
    srandom(1);
    for (int round = 0; round < 20000; round++) {
        char field[256] = "bytes=", want[33] = {0}, got[33] = {0};
        size_t size = (size_t)random() % 32, len = 6;
        int n = 1 + (int)(random() % 6);
        for (int i = 0; i < n; i++) {
            size_t a = (size_t)random() % 40, b = a + (size_t)random() % 12;
            int kind = (int)(random() % 3);
            const char *sep = i ? "," : "";
            if (kind == 0) {
                len += (size_t)snprintf(field + len, sizeof field - len, "%s%zu-%zu", sep, a, b);
                for (size_t k = a; k <= b && k < size; k++)
                    want[k] = 1;
            } else if (kind == 1) {
                len += (size_t)snprintf(field + len, sizeof field - len, "%s%zu-", sep, a);
                for (size_t k = a; k < size; k++)
                    want[k] = 1;
            } else {
                len += (size_t)snprintf(field + len, sizeof field - len, "%s-%zu", sep, a);
                for (size_t k = 0; k < a && k < size; k++)
                    want[size - 1 - k] = 1;
            }
        }
        au_range r[AU_RANGES_MAX];
        size_t n_got;
        au_range_kind kind = au_range_parse(r, &n_got, field, size);
        assert_int_not_equal(kind, AU_RANGE_IGNORE);
        for (size_t i = 0; i < n_got; i++) {
            assert_true(r[i].first <= r[i].last && r[i].last < size);
            for (size_t k = r[i].first; k <= r[i].last; k++) {
                assert_int_equal(got[k], 0); /* no byte twice */
                got[k] = 1;
            }
        }
        assert_memory_equal(got, want, sizeof got);
        assert_int_equal(kind == AU_RANGE_UNSATISFIABLE, memchr(want, 1, sizeof want) == NULL);
    }
}

/* ---- A slow model of the whole rule, from the grammar of RFC 9110 section 14.1 and the table of
 * the API, sharing nothing with the parser: numbers are 128 bits wide and saturate. ---- */

typedef unsigned __int128 wide;

static wide take_wide(const char *s, size_t n)
{
    wide v = 0, top = (wide)1 << 100;
    for (size_t i = 0; i < n; i++)
        v = v >= top ? top : v * 10 + (wide)(s[i] - '0');
    return v;
}

static size_t count_digits(const char *s)
{
    size_t n = 0;
    while (s[n] >= '0' && s[n] <= '9')
        n++;
    return n;
}

/* One element without blanks around it: 'i' (not valid), 'd' (dropped) or 'k' with a and b. */
static char model_spec(const char *s, size_t len, wide size, wide *a, wide *b)
{
    size_t n = count_digits(s);
    if (n >= len || s[n] != '-')
        return 'i';
    size_t m = count_digits(s + n + 1);
    if (n + 1 + m != len || n + m == 0)
        return 'i';
    wide first = take_wide(s, n), last = take_wide(s + n + 1, m);
    if (n == 0) {
        if (last == 0 || size == 0)
            return 'd';
        *a = last > size ? 0 : size - last;
        *b = size - 1;
        return 'k';
    }
    if (m && last < first)
        return 'i';
    if (first >= size)
        return 'd';
    *a = first;
    *b = m && last < size ? last : size - 1;
    return 'k';
}

static const char *model(const char *field, wide size)
{
    static char text[1024];
    wide a[64], b[64];
    int group[64];
    size_t n = 0, asked = 0, len = 0;
    for (int i = 0; i < 6; i++)
        if ((field[i] | (field[i] >= 'A' && field[i] <= 'Z' ? 32 : 0)) != "bytes="[i])
            return "200";
    for (const char *p = field + 6;; p++) {
        const char *end = strchr(p, ','), *stop = end ? end : p + strlen(p), *q = stop;
        while (p < q && (*p == ' ' || *p == '\t'))
            p++;
        while (q > p && (q[-1] == ' ' || q[-1] == '\t'))
            q--;
        if (q > p) {
            char kind = ++asked > 16 ? 'i' : model_spec(p, (size_t)(q - p), size, &a[n], &b[n]);
            if (kind == 'i')
                return "200";
            n += kind == 'k';
        }
        if (!end)
            break;
        p = end;
    }
    if (asked == 0)
        return "200";
    if (n == 0)
        return "416";
    /* Groups of what overlaps or touches, each with the number of its first member. */
    for (size_t i = 0; i < n; i++)
        group[i] = (int)i;
    for (size_t round = 0; round < n; round++)
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++)
                if (a[i] <= b[k] + 1 && a[k] <= b[i] + 1)
                    group[i] = group[k] = group[i] < group[k] ? group[i] : group[k];
    for (int g = 0; g < (int)n; g++) {
        wide low = size, high = 0;
        for (size_t i = 0; i < n; i++)
            if (group[i] == g) {
                low = a[i] < low ? a[i] : low;
                high = b[i] > high ? b[i] : high;
            }
        if (group[g] == g)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%llu-%llu", len ? "," : "",
                                    (unsigned long long)low, (unsigned long long)high);
    }
    return text;
}

static size_t put_number(char *out, size_t room, uint64_t size)
{
    static const char *const odd[] = {
        "18446744073709551615",       "18446744073709551616", "0000000000000000000000000000003",
        "99999999999999999999999999", "9223372036854775807",  "00"};
    if (random() % 12 == 0)
        return (size_t)snprintf(out, room, "%s", odd[random() % 6]);
    uint64_t near = (uint64_t)random() % 12;
    uint64_t v = random() % 2 ? (uint64_t)random() % (2 * size + 4) : size + near - 6;
    return (size_t)snprintf(out, room, "%llu", (unsigned long long)(size + near < 6 ? near : v));
}

/* Mostly sound, now and then with a character that does not belong there. */
static void make_field(char *out, size_t room, uint64_t size)
{
    static const char *const units[] = {
        "bytes=", "Bytes=", "BYTES=", "byte=", "bytes =", "bytes", ""};
    static const char rubbish[] = "0123456789-,, \t=+.xX*\"";
    size_t len = (size_t)snprintf(out, room, "%s", units[random() % 8 ? 0 : random() % 7]);
    int n = random() % 16 ? (int)(random() % 6) : (int)(random() % 20);
    for (int i = 0; i < n && len + 64 < room; i++) {
        static const char *const commas[] = {",", ", ", " ,", ",,", ", ,\t", ""};
        if (i)
            len += (size_t)snprintf(out + len, room - len, "%s",
                                    commas[random() % 3 ? 0 : random() % 6]);
        if (random() % 4)
            len += put_number(out + len, room - len, size);
        out[len++] = '-';
        if (random() % 4)
            len += put_number(out + len, room - len, size);
    }
    out[len] = '\0';
    if (len && random() % 8 == 0)
        out[random() % (long)len] = rubbish[random() % (long)(sizeof rubbish - 1)];
}

static void test_any_field_against_the_slow_model(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, 2, 44, 10000, 10485760, 5368709120, (uint64_t)INT64_MAX};
    const long rounds = 1000000;
    int seen[3] = {0};
    srandom(2);
    for (long i = 0; i < rounds; i++) {
        char field[2048];
        uint64_t size = sizes[random() % 8];
        make_field(field, sizeof field, size);
        const char *want = model(field, size), *got = answer(field, size);
        if (strcmp(want, got) != 0)
            fail_msg("size %llu, \"%s\": got %s, want %s", (unsigned long long)size, field, got,
                     want);
        seen[strcmp(want, "200") == 0 ? 0 : strcmp(want, "416") == 0 ? 1 : 2]++;
    }
    for (int i = 0; i < 3; i++)
        assert_true(seen[i] > rounds / 50);
}

static void test_entity_tags(void **state)
{
    (void)state;
    const char *tag = "\"sha256-ab\"";
    assert_true(au_etag_list_has("\"sha256-ab\"", tag, true));
    assert_true(au_etag_list_has("*", tag, true));
    assert_true(au_etag_list_has("\"x\", \"sha256-ab\"", tag, true));
    assert_true(au_etag_list_has("\"x\",W/\"sha256-ab\"", tag, false));
    assert_false(au_etag_list_has("W/\"sha256-ab\"", tag, true));
    assert_false(au_etag_list_has("sha256-ab", tag, false));
    assert_false(au_etag_list_has("\"sha256-a\"", tag, false));
    assert_false(au_etag_list_has("\"sha256-ab", tag, false));
    assert_false(au_etag_list_has("", tag, false));
    assert_true(au_etag_list_has("\"a,b\", \"sha256-ab\"", tag, true));
    assert_true(au_if_range_holds("\"sha256-ab\"", tag));
    assert_false(au_if_range_holds("W/\"sha256-ab\"", tag));
    assert_false(au_if_range_holds("Tue, 24 Nov 2026 10:00:00 GMT", tag));
    assert_false(au_if_range_holds("\"other\"", tag));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_sizes_at_the_edges),
        cmocka_unit_test(test_random_fields_against_a_model),
        cmocka_unit_test(test_any_field_against_the_slow_model),
        cmocka_unit_test(test_entity_tags),
    };
    return cmocka_run_group_tests_name("range", tests, NULL, NULL);
}
