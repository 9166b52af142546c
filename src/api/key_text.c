/* SPDX-License-Identifier: MIT */
/* Making and checking the text of a key. 35 bytes are 56 digits of base32 exactly: no padding, and
 * one text for each value. The checksum is the beginning of a SHA-256 over what stands before it.
 */
#include "api/key_text.h"

#include <string.h>

#include "base/hash.h"
#include "base/str.h"

enum { RANDOM_BYTES = 32, CHECK_BYTES = 3, KEY_BYTES = RANDOM_BYTES + CHECK_BYTES, DIGITS = 56 };

static const char prefix[] = "aulos_";
static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

_Static_assert(sizeof prefix + DIGITS == AU_KEY_TEXT, "the text of a key has this length");

static void checksum(unsigned char out[CHECK_BYTES], const unsigned char random[RANDOM_BYTES])
{
    unsigned char digest[AU_SHA256_BYTES];
    au_sha256 h;
    au_sha256_init(&h);
    au_sha256_update(&h, prefix, sizeof prefix);
    au_sha256_update(&h, random, RANDOM_BYTES);
    au_sha256_final(&h, digest);
    memcpy(out, digest, CHECK_BYTES);
}

/* Five bytes are eight digits. */
static void encode(char out[DIGITS], const unsigned char bytes[KEY_BYTES])
{
    for (size_t i = 0; i < KEY_BYTES / 5; i++) {
        unsigned long long group = 0;
        for (size_t k = 0; k < 5; k++)
            group = group << 8 | bytes[5 * i + k];
        for (size_t k = 0; k < 8; k++)
            out[8 * i + k] = alphabet[group >> (35 - 5 * k) & 31];
    }
}

static bool decode(unsigned char bytes[KEY_BYTES], const char digits[DIGITS])
{
    for (size_t i = 0; i < KEY_BYTES / 5; i++) {
        unsigned long long group = 0;
        for (size_t k = 0; k < 8; k++) {
            const char *at = memchr(alphabet, digits[8 * i + k], sizeof alphabet - 1);
            if (!at)
                return false;
            group = group << 5 | (unsigned long long)(at - alphabet);
        }
        for (size_t k = 0; k < 5; k++)
            bytes[5 * i + k] = (unsigned char)(group >> (32 - 8 * k));
    }
    return true;
}

void au_key_text_new(char out[AU_KEY_TEXT])
{
    unsigned char bytes[KEY_BYTES];
    au_random_bytes(bytes, RANDOM_BYTES);
    checksum(bytes + RANDOM_BYTES, bytes);
    memcpy(out, prefix, sizeof prefix - 1);
    encode(out + sizeof prefix - 1, bytes);
    out[AU_KEY_TEXT - 1] = '\0';
}

bool au_key_text_valid(const char *text, size_t len)
{
    unsigned char bytes[KEY_BYTES], check[CHECK_BYTES];
    if (len != AU_KEY_TEXT - 1 || !au_str_starts(text, prefix) ||
        !decode(bytes, text + sizeof prefix - 1))
        return false;
    checksum(check, bytes);
    return memcmp(check, bytes + RANDOM_BYTES, CHECK_BYTES) == 0;
}
