/* SPDX-License-Identifier: MIT */
/* spiece.model and a prompt: the first byte is the length of the text, which comes next; the rest
 * is the file. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    size_t len = data[0] < size ? data[0] : size - 1;
    const char *text = (const char *)data + 1;
    au_err err;
    au_tokenizer *t = NULL;
    if (au_tokenizer_from_memory(&t, data + 1 + len, size - 1 - len, false, "fuzz", &err) != AU_OK)
        return 0;
    int32_t *ids = NULL;
    size_t n = 0;
    if (au_tokenizer_encode(t, text, len, 4096, &ids, &n, &err) == AU_OK) {
        for (size_t i = 0; i < n; i++)
            if (ids[i] < 0 || ids[i] >= au_tokenizer_vocab(t))
                abort();
        free(ids);
    }
    au_tokenizer_close(&t);
    return 0;
}
