/* SPDX-License-Identifier: MIT */
/* Range fields and lists of entity tags. Whatever is asked for, the ranges lie within the file,
 * never overlap or touch, and their sum does not exceed it. The first byte chooses the size of the
 * file. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t sizes[] = {0, 1, 10000, (uint64_t)INT64_MAX};
    if (size < 1)
        return 0;
    uint64_t file = sizes[data[0] % 4];
    char *text = malloc(size);
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    au_range r[AU_RANGES_MAX];
    size_t n = 0;
    if (au_range_parse(r, &n, text, file) == AU_RANGE_PARTIAL) {
        if (n < 1 || n > AU_RANGES_MAX)
            abort();
        for (size_t i = 0; i < n; i++) {
            if (r[i].first > r[i].last || r[i].last >= file)
                abort();
            for (size_t j = 0; j < i; j++) {
                if (r[i].first <= r[j].last + 1 && r[j].first <= r[i].last + 1)
                    abort();
            }
        }
    }
    if (au_etag_list_has(text, "\"t\"", true) && !au_etag_list_has(text, "\"t\"", false))
        abort();
    free(text);
    return 0;
}
