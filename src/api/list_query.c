/* SPDX-License-Identifier: MIT */
/* Filters and orders of lists in the query string: each reader checks one parameter and refuses
 * what is wrong by its name. Stateless. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/str.h"

bool au_query_limit(au_http_request *rq, int max, int *out)
{
    const char *text = au_http_query(rq, "limit");
    char expected[48];
    uint64_t n;
    if (!text)
        return true;
    snprintf(expected, sizeof expected, "an integer from 1 to %d", max);
    if (!au_parse_u64(text, &n) || n < 1 || n > (uint64_t)max)
        return au_query_refuse(rq, "limit", expected);
    *out = (int)n;
    return true;
}

static bool query_time(au_http_request *rq, const char *name, int64_t *out)
{
    const char *text = au_http_query(rq, name);
    if (text && !au_time_parse(text, out))
        return au_query_refuse(rq, name, "a time like 2026-11-24T09:30:00Z");
    return true;
}

bool au_query_times(au_http_request *rq, int64_t *created_after, int64_t *created_before)
{
    return query_time(rq, "created_after", created_after) &&
           query_time(rq, "created_before", created_before);
}

bool au_query_bool(au_http_request *rq, const char *name, bool *out)
{
    const char *text = au_http_query(rq, name);
    if (!text)
        return true;
    *out = strcmp(text, "1") == 0 || strcmp(text, "true") == 0;
    if (!*out && strcmp(text, "0") != 0 && strcmp(text, "false") != 0)
        return au_query_refuse(rq, name, "1, 0, true or false");
    return true;
}

bool au_query_words(au_http_request *rq, const char **out)
{
    const char *text = au_http_query(rq, "q");
    if (!text)
        return true;
    char *words = au_arena_alloc(au_http_arena(rq), AU_SEARCH_WORDS);
    if (!words) {
        au_api_busy(rq, 1, "out of memory");
        return false;
    }
    if (!*text || text[au_utf8_prefix(text, AU_SEARCH_MAX_CHARS)] || !au_search_words(words, text))
        return au_query_refuse(rq, "q", "a text of 1 to 200 characters and at most 16 words");
    *out = words;
    return true;
}

bool au_query_choice(au_http_request *rq, const char *name, const char *const *names,
                     const char *expected, int *out)
{
    const char *text = au_http_query(rq, name);
    if (!text)
        return true;
    for (int i = 0; names[i]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return au_query_refuse(rq, name, expected);
}

/* ---- Places ---- */

bool au_query_place(au_http_request *rq, char kind, bool real, const au_place **out)
{
    const char *cursor = au_http_query(rq, "cursor");
    uint64_t bits;
    if (!cursor)
        return true;
    au_place *place = au_arena_alloc(au_http_arena(rq), sizeof *place);
    char *id = au_arena_alloc(au_http_arena(rq), AU_UUID_TEXT);
    if (!place || !id) {
        au_api_busy(rq, 1, "out of memory");
        return false;
    }
    if (!au_cursor_place_decode(cursor, kind, &bits, id))
        return au_query_refuse(rq, "cursor", "a cursor of a page in this order");
    *place = (au_place){.id = id};
    if (real)
        memcpy(&place->real, &bits, sizeof bits);
    else
        place->number = (int64_t)bits;
    if (real && !isfinite(place->real))
        return au_query_refuse(rq, "cursor", "a cursor of a page in this order");
    *out = place;
    return true;
}

void au_place_cursor(char out[AU_CURSOR_TEXT], char kind, bool real, const au_place *place)
{
    uint64_t bits = (uint64_t)place->number;
    if (real)
        memcpy(&bits, &place->real, sizeof bits);
    au_cursor_place_encode(out, kind, bits, place->id);
}
