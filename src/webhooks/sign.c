/* SPDX-License-Identifier: MIT */
/* No state. */
#include "webhooks/sign.h"

#include <sodium/crypto_auth_hmacsha256.h>
#include <sodium/utils.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/str.h"

enum { SECRET_BYTES = 32, SECRET_MIN = 24, SECRET_MAX = 64 };
static const char prefix[] = "whsec_";

void au_webhook_secret_make(char out[AU_WEBHOOK_SECRET_TEXT])
{
    unsigned char bytes[SECRET_BYTES];
    au_random_bytes(bytes, sizeof bytes);
    memcpy(out, prefix, sizeof prefix);
    sodium_bin2base64(out + strlen(prefix), AU_WEBHOOK_SECRET_TEXT - strlen(prefix), bytes,
                      sizeof bytes, sodium_base64_VARIANT_ORIGINAL);
    sodium_memzero(bytes, sizeof bytes);
}

static bool decode(unsigned char out[SECRET_MAX], size_t *len, const char *secret)
{
    if (!au_str_starts(secret, prefix))
        return false;
    const char *text = secret + strlen(prefix), *end;
    return strlen(text) < AU_WEBHOOK_SECRET_TEXT - sizeof prefix &&
           sodium_base642bin(out, SECRET_MAX, text, strlen(text), NULL, len, &end,
                             sodium_base64_VARIANT_ORIGINAL) == 0 &&
           *end == '\0' && *len >= SECRET_MIN;
}

bool au_webhook_secret_valid(const char *secret)
{
    unsigned char bytes[SECRET_MAX];
    size_t len;
    return decode(bytes, &len, secret);
}

bool au_webhook_sign(char out[AU_WEBHOOK_SIGNATURE_TEXT], const char *secret, const char *id,
                     int64_t timestamp_s, const char *payload)
{
    unsigned char key[SECRET_MAX], mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    char head[96];
    size_t len;
    if (!decode(key, &len, secret))
        return false;
    int n = snprintf(head, sizeof head, "%.40s.%lld.", id, (long long)timestamp_s);
    crypto_auth_hmacsha256_init(&state, key, len);
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)head, (size_t)n);
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)payload, strlen(payload));
    crypto_auth_hmacsha256_final(&state, mac);
    memcpy(out, "v1,", 4);
    sodium_bin2base64(out + 3, AU_WEBHOOK_SIGNATURE_TEXT - 3, mac, sizeof mac,
                      sodium_base64_VARIANT_ORIGINAL);
    sodium_memzero(key, sizeof key);
    return true;
}
