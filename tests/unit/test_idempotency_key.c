/* SPDX-License-Identifier: MIT */
/* The syntax of Idempotency-Key, and which JSON values are the same request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "api/idempotency_key.h"
#include "base/json.h"

static char text[300];

/* `n` times c, and what stands around it. */
static const char *repeat(const char *before, char c, size_t n, const char *after)
{
    size_t b = strlen(before);
    memcpy(text, before, b);
    memset(text + b, c, n);
    memcpy(text + b + n, after, strlen(after) + 1);
    return text;
}

static void test_keys(void **state)
{
    (void)state;
    static const struct {
        const char *value, *want; /* NULL: refused */
    } rows[] = {
        {"a", "a"},
        {"8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"},
        {"\"8e03978e\"", "8e03978e"},
        {"\"a\\\"b\\\\c\"", "a\"b\\c"},
        {"a\"b", "a\"b"},
        {"!~;,=", "!~;,="},
        {"", NULL},
        {"\"\"", NULL},
        {"\"", NULL},
        {"\"abc", NULL},
        {"\"abc\"x", NULL},
        {"\"abc\";a=1", NULL},
        {"\"a\\b\"", NULL},
        {"\"a\\", NULL},
        {"a b", NULL},
        {"\"a b\"", NULL},
        {"a\tb", NULL},
        {"\x7f", NULL},
        {"caf\xc3\xa9", NULL},
    };
    char key[AU_IDEMPOTENCY_KEY_MAX + 1];
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool ok = au_idempotency_key_parse(key, rows[i].value);
        if (ok != (rows[i].want != NULL) || (ok && strcmp(key, rows[i].want) != 0))
            fail_msg("%s: %d %s", rows[i].value, ok, ok ? key : "");
    }
    assert_true(au_idempotency_key_parse(key, repeat("", 'k', 254, "")));
    assert_true(au_idempotency_key_parse(key, repeat("", 'k', 255, "")));
    assert_int_equal(strlen(key), 255);
    assert_false(au_idempotency_key_parse(key, repeat("", 'k', 256, "")));
    assert_true(au_idempotency_key_parse(key, repeat("\"", 'k', 255, "\"")));
    assert_false(au_idempotency_key_parse(key, repeat("\"", 'k', 256, "\"")));
}

static void hash_of(char out[AU_SHA256_TEXT], const char *json)
{
    json_t *j = NULL;
    au_err err;
    au_sha256 h;
    if (au_json_parse(&j, json, strlen(json), "test", &err) != AU_OK)
        fail_msg("%s", err.message);
    au_sha256_init(&h);
    assert_true(au_json_hash(&h, j));
    au_sha256_final_hex(&h, out);
    json_decref(j);
}

static void test_hashes(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        {"{\"a\":1,\"b\":2}", "{ \"b\" : 2,\n\"a\":1 }", true},
        {"{\"a\":{\"x\":null,\"y\":[1]}}", "{\"a\":{\"y\":[1],\"x\":null}}", true},
        {"[1, 1.5, 0]", "[1.0, 15e-1, -0.0]", true},
        {"[\"\\u0061\"]", "[\"a\"]", true},
        {"{\"a\":1}", "{\"a\":2}", false},
        {"{\"a\":1}", "{\"b\":1}", false},
        {"{\"a\":\"1\"}", "{\"a\":1}", false},
        {"{\"a\":null}", "{}", false},
        {"{\"a\":true}", "{\"a\":false}", false},
        {"{\"a\":[]}", "{\"a\":{}}", false},
        {"[[1],2]", "[[1,2]]", false},
        {"[\"ab\",\"c\"]", "[\"a\",\"bc\"]", false},
        {"[1,2]", "[2,1]", false},
        {"[9007199254740993]", "[9007199254740992]", false},
        {"[9223372036854775807]", "[9223372036854775806]", false},
        {"[9223372036854775807]", "[9223372036854775808.0]", false},
        {"[-9223372036854775808]", "[-9223372036854775808.0]", true},
    };
    char a[AU_SHA256_TEXT], b[AU_SHA256_TEXT];
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        hash_of(a, rows[i].a);
        hash_of(b, rows[i].b);
        if ((strcmp(a, b) == 0) != rows[i].same)
            fail_msg("%s and %s", rows[i].a, rows[i].b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys), cmocka_unit_test(test_hashes)};
    return cmocka_run_group_tests_name("idempotency_key", tests, NULL, NULL);
}
