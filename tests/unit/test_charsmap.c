/* SPDX-License-Identifier: MIT */
/* The charsmap on a map made by hand: "A" -> "b", "e" + U+0301 -> "é", "x" -> nothing; and on
 * damaged ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tokenizer/charsmap.h"

enum { UNITS = 256 };
#define TEXTS "b\0\xc3\xa9\0" /* offsets 0 and 2; the empty text at 1 */
#define ACUTE "\xcc\x81"

typedef struct blob {
    unsigned char bytes[4 + 4 * UNITS + sizeof TEXTS - 1];
} blob;

static void put(blob *b, size_t i, uint32_t unit)
{
    for (int k = 0; k < 4; k++)
        b->bytes[4 + 4 * i + k] = (unsigned char)(unit >> (8 * k));
}

/* A unit: label, whether a value follows, offset to the children. */
static uint32_t unit(uint32_t label, uint32_t leaf, uint32_t offset)
{
    return label | leaf << 8 | offset << 10;
}

static blob make_blob(void)
{
    blob b = {{0}};
    b.bytes[1] = 4; /* 1024 bytes of array */
    put(&b, 'A', unit('A', 1, 1));
    put(&b, 'A' ^ 1, 0);
    put(&b, 'e', unit('e', 0, 0x80));
    put(&b, 'e' ^ 0x80 ^ 0xcc, unit(0xcc, 0, 0x40));
    put(&b, 'e' ^ 0x80 ^ 0xcc ^ 0x40 ^ 0x81, unit(0x81, 1, 1));
    put(&b, 'e' ^ 0x80 ^ 0xcc ^ 0x40 ^ 0x81 ^ 1, 2);
    put(&b, 'x', unit('x', 1, 1));
    put(&b, 'x' ^ 1, 1);
    memcpy(b.bytes + 4 + 4 * UNITS, TEXTS, sizeof TEXTS - 1);
    return b;
}

static void expect(const blob *b, const char *text, const char *want)
{
    au_charsmap m;
    au_buf out;
    au_buf_init(&out, 1000);
    assert_int_equal(au_charsmap_open(&m, b->bytes, sizeof b->bytes, "test", NULL), AU_OK);
    au_charsmap_apply(&m, &out, text, strlen(text));
    assert_string_equal(au_buf_cstr(&out), want);
    au_buf_deinit(&out);
    au_charsmap_close(&m);
}

static void test_replaces_clusters_and_characters(void **state)
{
    (void)state;
    blob b = make_blob();
    expect(&b, "", "");
    expect(&b, "cab", "cab");
    expect(&b, "cAbxA", "cbbb");
    expect(&b, "e" ACUTE "e",
           "\xc3\xa9"
           "e");
    /* A short cluster becomes the replacement of its shortest hit, mark and all; in a long one each
     * character counts alone. */
    expect(&b, "A" ACUTE, "b");
    expect(&b, "A" ACUTE ACUTE "A", "bb");
    expect(&b, "A" ACUTE ACUTE ACUTE, "b" ACUTE ACUTE ACUTE);
    expect(&b, "e" ACUTE ACUTE ACUTE, "e" ACUTE ACUTE ACUTE);
}

static void test_indices_outside_are_no_hit(void **state)
{
    (void)state;
    blob b = make_blob();
    put(&b, 'A', unit('A', 1, 0x1000)); /* the value lies outside the array */
    put(&b, 'x' ^ 1, 100);              /* the text lies outside the texts */
    put(&b, 'e', unit('e', 0, 0x1fffff) | 1u << 9);
    expect(&b, "A x e" ACUTE, "A x e" ACUTE);
    put(&b, 'x' ^ 1, 3); /* the middle of "é" */
    expect(&b, "x", "x");
    put(&b, 'x' ^ 1, 5); /* one past the last text: an empty one */
    expect(&b, "axa", "aa");
}

static void test_damaged_blobs_are_refused(void **state)
{
    (void)state;
    au_err err;
    au_charsmap m;
    blob b = make_blob();
    assert_int_equal(au_charsmap_open(&m, b.bytes, 3, "test", &err), AU_CORRUPT);
    assert_int_equal(au_charsmap_open(&m, b.bytes, 1000, "test", &err), AU_CORRUPT);
    assert_non_null(strstr(err.message, "1024 bytes, but only 996 follow"));
    b.bytes[0] = 2;
    assert_int_equal(au_charsmap_open(&m, b.bytes, sizeof b.bytes, "test", &err), AU_CORRUPT);
    b = make_blob();
    b.bytes[sizeof b.bytes - 2] = 0xff;
    assert_int_equal(au_charsmap_open(&m, b.bytes, sizeof b.bytes, "test", &err), AU_CORRUPT);
    assert_non_null(strstr(err.message, "UTF-8"));
    /* None at all changes nothing. */
    au_buf out;
    au_buf_init(&out, 100);
    assert_int_equal(au_charsmap_open(&m, NULL, 0, "test", NULL), AU_OK);
    au_charsmap_apply(&m, &out, "Ax", 2);
    assert_string_equal(au_buf_cstr(&out), "Ax");
    au_buf_deinit(&out);
    au_charsmap_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replaces_clusters_and_characters),
        cmocka_unit_test(test_indices_outside_are_no_hit),
        cmocka_unit_test(test_damaged_blobs_are_refused),
    };
    return cmocka_run_group_tests_name("charsmap", tests, NULL, NULL);
}
