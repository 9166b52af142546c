/* SPDX-License-Identifier: MIT */
/* SHA-256 and keyed BLAKE2b (libsodium), and random bytes from the operating system. */
#ifndef AU_BASE_HASH_H
#define AU_BASE_HASH_H

#include <sodium/crypto_hash_sha256.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { AU_SHA256_BYTES = 32, AU_SHA256_TEXT = 65 };

typedef crypto_hash_sha256_state au_sha256;

void au_sha256_init(au_sha256 *h);
void au_sha256_update(au_sha256 *h, const void *data, size_t len);
void au_sha256_final(au_sha256 *h, unsigned char out[AU_SHA256_BYTES]);
/* Lower-case hexadecimal of the digest. */
void au_sha256_final_hex(au_sha256 *h, char out[AU_SHA256_TEXT]);
void au_sha256_hex(char out[AU_SHA256_TEXT], const void *data, size_t len);
/* Reads the file in blocks. */
AU_MUST_CHECK au_status au_sha256_file(char out[AU_SHA256_TEXT], const char *path, au_err *err);

enum { AU_SECRET_BYTES = 32, AU_KEYED_HASH_TEXT = 65 };

/* Lower-case hexadecimal of BLAKE2b-256, keyed with `secret`, over purpose, a NUL and the text. Who
 * does not know the secret can neither make nor check it; one purpose's hashes are no use in
 * another. */
void au_keyed_hash_hex(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                       const char *purpose, const char *text);
/* Whether two texts are equal, in time that depends on their lengths alone. */
bool au_equal_secret(const char *a, const char *b);

void au_random_bytes(void *out, size_t len);
/* Uniform in [0, 2^53). */
uint64_t au_random_seed(void);

#endif
