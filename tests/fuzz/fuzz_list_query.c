/* SPDX-License-Identifier: MIT */
/* What lists read from a query: cursors, which written again are the same, search texts, whose
 * words stay within their room, and times. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char words[AU_SEARCH_WORDS];
    char id[AU_UUID_TEXT], again[AU_CURSOR_TEXT];
    int64_t ms;
    uint64_t bits;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (au_cursor_place_decode(text, 'l', &bits, id)) {
        au_cursor_place_encode(again, 'l', bits, id);
        if (strcmp(text, again) != 0)
            abort();
    }
    (void)au_cursor_decode(id, text);
    (void)au_time_parse(text, &ms);
    if (au_utf8_valid(text, strlen(text)) && !text[au_utf8_prefix(text, AU_SEARCH_MAX_CHARS)] &&
        au_search_words(words, text) && strlen(words) >= sizeof words)
        abort();
    free(text);
    return 0;
}
