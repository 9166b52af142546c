/* SPDX-License-Identifier: MIT */
/* Idempotency-Key fields: what is taken is 1 to 255 visible characters, and written as a string of
 * RFC 8941 it is the same key again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/idempotency_key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char key[AU_IDEMPOTENCY_KEY_MAX + 1], again[AU_IDEMPOTENCY_KEY_MAX + 1];
    char quoted[2 * AU_IDEMPOTENCY_KEY_MAX + 3], *q = quoted;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (au_idempotency_key_parse(key, text)) {
        size_t n = strlen(key);
        if (n < 1 || n > AU_IDEMPOTENCY_KEY_MAX)
            abort();
        *q++ = '"';
        for (size_t i = 0; i < n; i++) {
            if (key[i] <= 0x20 || key[i] >= 0x7f)
                abort();
            if (key[i] == '"' || key[i] == '\\')
                *q++ = '\\';
            *q++ = key[i];
        }
        *q++ = '"';
        *q = '\0';
        if (!au_idempotency_key_parse(again, quoted) || strcmp(key, again) != 0)
            abort();
    }
    free(text);
    return 0;
}
