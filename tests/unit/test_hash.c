/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/hash.h"

static void test_sha256(void **state)
{
    (void)state;
    char hex[AU_SHA256_TEXT], again[AU_SHA256_TEXT];
    au_sha256_hex(hex, NULL, 0);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    au_sha256_hex(hex, "abc", 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    au_sha256 h;
    au_sha256_init(&h);
    au_sha256_update(&h, "a", 1);
    au_sha256_update(&h, "bc", 2);
    au_sha256_final_hex(&h, again);
    assert_string_equal(hex, again);
}

static void test_sha256_of_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/au-test-hash-XXXXXX", hex[AU_SHA256_TEXT], want[AU_SHA256_TEXT];
    assert_non_null(mkdtemp(path));
    char file[64];
    snprintf(file, sizeof file, "%s/f", path);
    size_t size = 700001; /* several blocks and a rest */
    char *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 7);
    assert_int_equal(au_file_write(file, data, size, false, NULL), AU_OK);
    assert_int_equal(au_sha256_file(hex, file, NULL), AU_OK);
    au_sha256_hex(want, data, size);
    assert_string_equal(hex, want);
    assert_int_equal(au_sha256_file(hex, "/no/such/file", NULL), AU_NOT_FOUND);
    free(data);
    assert_int_equal(au_remove_tree(path, NULL), AU_OK);
}

static void test_seeds_have_53_bits(void **state)
{
    (void)state;
    uint64_t any = 0, all = UINT64_MAX;
    for (int i = 0; i < 256; i++) {
        uint64_t s = au_random_seed();
        any |= s;
        all &= s;
    }
    assert_true(any == (1ull << 53) - 1); /* fails once in 2^200 runs */
    assert_true(all == 0);
}

static void test_keyed_hashes(void **state)
{
    (void)state;
    unsigned char secret[AU_SECRET_BYTES];
    char hash[AU_KEYED_HASH_TEXT], other[AU_KEYED_HASH_TEXT];
    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = (unsigned char)i;
    au_keyed_hash_hex(hash, secret, "key", "abc");
    /* hashlib.blake2b(b"key\0abc", key=bytes(range(32)), digest_size=32) */
    assert_string_equal(hash, "bae245bbc465be7990127c72795f8c5baf5e1a505f730acdad8147e3b2c3dff0");
    au_keyed_hash_hex(other, secret, "keya", "bc");
    assert_false(au_equal_secret(hash, other));
    au_keyed_hash_hex(other, secret, "key", "abc");
    assert_true(au_equal_secret(hash, other));
    secret[31] ^= 1;
    au_keyed_hash_hex(other, secret, "key", "abc");
    assert_false(au_equal_secret(hash, other));
    assert_false(au_equal_secret("a", "ab"));
    assert_true(au_equal_secret("", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_sha256_of_a_file),
        cmocka_unit_test(test_keyed_hashes),
        cmocka_unit_test(test_seeds_have_53_bits),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
