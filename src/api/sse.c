/* SPDX-License-Identifier: MIT */
/* Server-sent events as text. Stateless. */
#include "api/sse.h"

#include <inttypes.h>
#include <string.h>

#include "base/str.h"

void au_sse_event(au_buf *out, const char *event, const char *data)
{
    au_buf_printf(out, "event: %s\n", event);
    while (true) {
        size_t n = strcspn(data, "\r\n");
        au_buf_str(out, "data: ");
        au_buf_append(out, data, n);
        au_buf_char(out, '\n');
        if (!data[n])
            break;
        data += n + 1 + (data[n] == '\r' && data[n + 1] == '\n');
    }
    au_buf_char(out, '\n');
}

void au_sse_id(au_buf *out, int64_t id)
{
    au_buf_printf(out, "id: %" PRId64 "\n", id);
}

bool au_sse_last_id(const char *text, int64_t *out)
{
    uint64_t n;
    if (!*text || strspn(text, "0123456789") != strlen(text) || !au_parse_u64(text, &n) ||
        n > INT64_MAX)
        return false;
    *out = (int64_t)n;
    return true;
}
