/* SPDX-License-Identifier: MIT */
/* Lists: cursors, the page and its link, times. Most lists are ordered by id (UUIDv7, so by time),
 * newest first; a cursor names the last element of a page and nothing else, so what comes or goes
 * meanwhile makes neither gaps nor doubles. Where there are other orders it names the value that
 * the list is ordered by, too. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/str.h"

enum { DEFAULT_LIMIT = 20, MAX_LIMIT = 100 };

/* Where the dashes of a UUID stand; a cursor is its digits from the end, so that nobody mistakes it
 * for an id. */
static bool is_dash(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

void au_cursor_encode(char out[AU_UUID_TEXT], const char *id)
{
    size_t n = 0;
    for (size_t i = AU_UUID_TEXT - 1; i-- > 0;) {
        if (!is_dash(i))
            out[n++] = id[i];
    }
    out[n] = '\0';
}

bool au_cursor_decode(char id[AU_UUID_TEXT], const char *cursor)
{
    if (strlen(cursor) != 32 || strspn(cursor, "0123456789abcdef") != 32)
        return false;
    size_t n = 32;
    for (size_t i = 0; i < AU_UUID_TEXT - 1; i++)
        id[i] = is_dash(i) ? '-' : cursor[--n];
    id[AU_UUID_TEXT - 1] = '\0';
    return au_uuid_valid(id);
}

void au_cursor_place_encode(char out[AU_CURSOR_TEXT], char kind, uint64_t bits, const char *id)
{
    out[0] = kind;
    snprintf(out + 1, 17, "%016" PRIx64, bits);
    au_cursor_encode(out + 17, id);
}

bool au_cursor_place_decode(const char *cursor, char kind, uint64_t *bits, char id[AU_UUID_TEXT])
{
    if (cursor[0] != kind || strspn(cursor + 1, "0123456789abcdef") != 48)
        return false;
    *bits = 0;
    for (size_t i = 1; i <= 16; i++)
        *bits = *bits << 4 | (uint64_t)(cursor[i] <= '9' ? cursor[i] - '0' : cursor[i] - 'a' + 10);
    return au_cursor_decode(id, cursor + 17);
}

bool au_query_refuse(au_http_request *rq, const char *name, const char *expected)
{
    json_t *more = json_pack("{s:[{s:s, s:s}]}", "errors", "parameter", name, "code", "invalid");
    au_http_problem_more(rq, AU_PROBLEM_BAD_QUERY, more, "query parameter \"%s\" is not %s", name,
                         expected);
    return false;
}

bool au_query_uuid(au_http_request *rq, const char *name, const char **out)
{
    *out = au_http_query(rq, name);
    if (*out && !au_uuid_valid(*out))
        return au_query_refuse(rq, name, "an id");
    return true;
}

bool au_query_flag(au_http_request *rq, const char *name, bool *out)
{
    const char *value = au_http_query(rq, name);
    *out = value && strcmp(value, "1") == 0;
    if (value && !*out && strcmp(value, "0") != 0)
        return au_query_refuse(rq, name, "0 or 1");
    return true;
}

bool au_page_parse(au_http_request *rq, au_page *page)
{
    const char *cursor = au_http_query(rq, "cursor");
    *page = (au_page){.limit = DEFAULT_LIMIT};
    if (!au_query_limit(rq, MAX_LIMIT, &page->limit))
        return false;
    if (cursor) {
        char *id = au_arena_alloc(au_http_arena(rq), AU_UUID_TEXT);
        if (!id || !au_cursor_decode(id, cursor))
            return au_query_refuse(rq, "cursor", "a cursor of a page");
        page->before_id = id;
    }
    return true;
}

au_http_result au_page_reply_at(au_http_request *rq, json_t *data, const char *cursor,
                                int64_t total)
{
    if (cursor)
        au_http_link_next(rq, cursor);
    json_t *j = json_pack("{s:o, s:b, s:s?}", "data", data, "has_more", cursor != NULL,
                          "next_cursor", cursor);
    if (j && total >= 0)
        json_object_set_new(j, "total", json_integer((json_int_t)total));
    return au_http_reply_json(rq, 200, j);
}

au_http_result au_page_reply(au_http_request *rq, json_t *data, bool has_more, const char *last_id)
{
    char cursor[AU_UUID_TEXT];
    if (has_more && last_id)
        au_cursor_encode(cursor, last_id);
    return au_page_reply_at(rq, data, has_more && last_id ? cursor : NULL, -1);
}

/* Reads exactly n digits at *p into *out, in [min, max]. */
static bool take_number(const char **p, int n, int min, int max, int *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if ((*p)[i] < '0' || (*p)[i] > '9')
            return false;
        *out = *out * 10 + ((*p)[i] - '0');
    }
    *p += n;
    return *out >= min && *out <= max;
}

static bool take_char(const char **p, const char *any)
{
    if (!**p || !strchr(any, **p))
        return false;
    ++*p;
    return true;
}

/* Days since 1970-01-01 of a Gregorian date (Howard Hinnant's days_from_civil). */
static int64_t days_from_civil(int64_t y, int m, int d)
{
    y -= m <= 2;
    int64_t era = y / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

bool au_time_parse(const char *text, int64_t *unix_ms)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *p = text;
    int year, month, day, hour, minute, second, ms = 0, zone_hour = 0, zone_minute = 0;
    if (!take_number(&p, 4, 1970, 9999, &year) || !take_char(&p, "-") ||
        !take_number(&p, 2, 1, 12, &month) || !take_char(&p, "-") ||
        !take_number(&p, 2, 1, days[month - 1], &day) || !take_char(&p, "Tt") ||
        !take_number(&p, 2, 0, 23, &hour) || !take_char(&p, ":") ||
        !take_number(&p, 2, 0, 59, &minute) || !take_char(&p, ":") ||
        !take_number(&p, 2, 0, 60, &second))
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (month == 2 && day == 29 && !leap)
        return false;
    if (take_char(&p, ".")) {
        size_t n = strspn(p, "0123456789");
        for (size_t i = 0, scale = 100; i < n; i++, scale /= 10)
            ms += (p[i] - '0') * (int)scale;
        p += n;
        if (n == 0)
            return false;
    }
    int sign = *p == '-' ? -1 : 1;
    if (!take_char(&p, "Zz") && (!take_char(&p, "+-") || !take_number(&p, 2, 0, 23, &zone_hour) ||
                                 !take_char(&p, ":") || !take_number(&p, 2, 0, 59, &zone_minute)))
        return false;
    int64_t seconds =
        days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    *unix_ms = (seconds - sign * (zone_hour * 3600 + zone_minute * 60)) * 1000 + ms;
    return *p == '\0';
}
