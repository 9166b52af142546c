/* SPDX-License-Identifier: MIT */
/* tokenizer.json and a prompt: the input up to the first NUL byte is the file, the rest the text.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t file = nul ? (size_t)(nul - data) : size;
    au_err err;
    au_tokenizer *t = NULL;
    if (au_tokenizer_from_memory(&t, data, file, true, "fuzz", &err) != AU_OK)
        return 0;
    int32_t *ids = NULL;
    size_t n = 0;
    const char *text = nul ? (const char *)nul + 1 : "a <extra_id_0>\xc3\xa9\xcc\x81 </s>";
    size_t len = nul ? size - file - 1 : strlen(text);
    if (au_tokenizer_encode(t, text, len, 4096, &ids, &n, &err) == AU_OK) {
        for (size_t i = 0; i < n; i++)
            if (ids[i] < 0 || ids[i] >= au_tokenizer_vocab(t))
                abort();
        free(ids);
    }
    au_tokenizer_close(&t);
    return 0;
}
