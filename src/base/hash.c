/* SPDX-License-Identifier: MIT */
/* SHA-256, keyed BLAKE2b and random bytes. libsodium's hashes need no initialisation; random bytes
 * come from the kernel directly. Safe from any thread. */
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_generichash.h>
#include <sodium/utils.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/str.h"

/* Large enough that the system calls do not count, small enough for any stack-less worker. */
enum { BLOCK_BYTES = 1 << 18 };

void au_sha256_init(au_sha256 *h)
{
    crypto_hash_sha256_init(h);
}

void au_sha256_update(au_sha256 *h, const void *data, size_t len)
{
    if (len)
        crypto_hash_sha256_update(h, data, len);
}

void au_sha256_final(au_sha256 *h, unsigned char out[AU_SHA256_BYTES])
{
    crypto_hash_sha256_final(h, out);
}

void au_sha256_final_hex(au_sha256 *h, char out[AU_SHA256_TEXT])
{
    unsigned char digest[AU_SHA256_BYTES];
    au_sha256_final(h, digest);
    au_hex(out, digest, sizeof digest);
}

void au_sha256_hex(char out[AU_SHA256_TEXT], const void *data, size_t len)
{
    au_sha256 h;
    au_sha256_init(&h);
    au_sha256_update(&h, data, len);
    au_sha256_final_hex(&h, out);
}

au_status au_sha256_file(char out[AU_SHA256_TEXT], const char *path, au_err *err)
{
    au_status st = AU_OK;
    unsigned char *block = NULL;
    au_sha256 h;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return au_fail_errno(err, errno, "cannot open %s", path);
    block = malloc(BLOCK_BYTES);
    AU_FAIL_IF(!block, AU_NOMEM, "cannot allocate %d bytes", BLOCK_BYTES);
    au_sha256_init(&h);
    for (;;) {
        ssize_t n = read(fd, block, BLOCK_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = au_fail_errno(err, errno, "cannot read %s", path);
            goto done;
        }
        if (n == 0)
            break;
        au_sha256_update(&h, block, (size_t)n);
    }
    au_sha256_final_hex(&h, out);
done:
    free(block);
    close(fd);
    return st;
}

void au_keyed_hash_hex(char out[AU_KEYED_HASH_TEXT], const unsigned char secret[AU_SECRET_BYTES],
                       const char *purpose, const char *text)
{
    unsigned char digest[crypto_generichash_BYTES];
    crypto_generichash_state h;
    crypto_generichash_init(&h, secret, AU_SECRET_BYTES, sizeof digest);
    crypto_generichash_update(&h, (const unsigned char *)purpose, strlen(purpose) + 1);
    crypto_generichash_update(&h, (const unsigned char *)text, strlen(text));
    crypto_generichash_final(&h, digest, sizeof digest);
    au_hex(out, digest, sizeof digest);
}

bool au_equal_secret(const char *a, const char *b)
{
    size_t n = strlen(a);
    return n == strlen(b) && sodium_memcmp(a, b, n) == 0;
}

void au_random_bytes(void *out, size_t len)
{
    unsigned char *p = out;
    while (len) {
        ssize_t n = getrandom(p, len, 0);
        /* Without flags getrandom fails only when a signal interrupts it. */
        AU_ASSERT(n >= 0 || errno == EINTR);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
}

uint64_t au_random_seed(void)
{
    uint64_t v;
    au_random_bytes(&v, sizeof v);
    return v >> 11;
}
