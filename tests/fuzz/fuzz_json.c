/* SPDX-License-Identifier: MIT */
/* What is read and written again must read back as the same value, and be written as the same text.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *first, *second;
    if (au_json_parse(&first, (const char *)data, size, "fuzz", NULL) != AU_OK)
        return 0;
    au_buf a, b;
    au_buf_init(&a, 1 << 24);
    au_buf_init(&b, 1 << 24);
    au_json_dump(&a, first);
    AU_ASSERT(a.status == AU_OK);
    AU_ASSERT(au_json_parse(&second, a.data, a.len, "again", NULL) == AU_OK);
    AU_ASSERT(json_equal(first, second));
    au_json_dump(&b, second);
    AU_ASSERT(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
    au_buf_deinit(&a);
    au_buf_deinit(&b);
    json_decref(first);
    json_decref(second);
    return 0;
}
