/* SPDX-License-Identifier: MIT */
/* Last-Event-ID as it comes, and any data as an event: what a client reads back is what was put in,
 * and one event only. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/sse.h"

/* Takes "data: " lines up to the empty one; true if that is the end of the text. */
static bool read_back(au_buf *data, const char *text)
{
    static const char begin[] = "id: 5\nevent: state\n";
    if (strncmp(text, begin, sizeof begin - 1) != 0)
        return false;
    const char *p = text + sizeof begin - 1;
    for (bool first = true; strncmp(p, "data: ", 6) == 0; first = false) {
        size_t n = strcspn(p + 6, "\n");
        if (!first)
            au_buf_char(data, '\n');
        au_buf_append(data, p + 6, n);
        p += 6 + n + 1;
    }
    return strcmp(p, "\n") == 0;
}

/* Line ends of all kinds as line feeds, as a client sees them. */
static void plain_lines(au_buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\r' && text[1] == '\n')
            continue;
        au_buf_char(out, *text == '\r' ? '\n' : *text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    int64_t n = -1;
    if (au_sse_last_id(text, &n) && (n < 0 || strspn(text, "0123456789") != strlen(text)))
        abort();
    au_buf event, back, want;
    au_buf_init(&event, 1 << 20);
    au_buf_init(&back, 1 << 20);
    au_buf_init(&want, 1 << 20);
    au_sse_id(&event, 5);
    au_sse_event(&event, "state", text);
    plain_lines(&want, text);
    if (event.status == AU_OK && (!read_back(&back, au_buf_cstr(&event)) ||
                                  strcmp(au_buf_cstr(&back), au_buf_cstr(&want)) != 0))
        abort();
    au_buf_deinit(&event);
    au_buf_deinit(&back);
    au_buf_deinit(&want);
    free(text);
    return 0;
}
