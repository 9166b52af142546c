/* SPDX-License-Identifier: MIT */
/* Byte ranges and entity tags. Positions of any length are compared as digit strings, so nothing
 * overflows; the work is linear in the header (at most 16 ranges are kept). Stateless. */
#include "http/range.h"

#include <string.h>
#include <strings.h>

/* One element of the set, as digit strings without leading zeros; a missing side has len 0. */
typedef struct digits {
    const char *p;
    size_t len;
} digits;

static digits take_digits(const char **cursor, bool *present)
{
    const char *p = *cursor;
    size_t n = strspn(p, "0123456789");
    *cursor = p + n;
    *present = n > 0;
    while (n > 1 && *p == '0') {
        p++;
        n--;
    }
    return (digits){p, n};
}

static int compare_digits(digits a, digits b)
{
    if (a.len != b.len)
        return a.len < b.len ? -1 : 1;
    return strncmp(a.p, b.p, a.len);
}

/* The value, or UINT64_MAX where it is larger. */
static uint64_t digits_value(digits d)
{
    uint64_t v = 0;
    for (size_t i = 0; i < d.len; i++) {
        unsigned digit = (unsigned)(d.p[i] - '0');
        if (v > (UINT64_MAX - digit) / 10)
            return UINT64_MAX;
        v = v * 10 + digit;
    }
    return v;
}

/* Parses one range-spec at *cursor. False: wrong syntax. *keep says whether it is satisfiable, then
 * *out is clipped. */
static bool parse_spec(const char **cursor, uint64_t size, au_range *out, bool *keep)
{
    bool has_first, has_last;
    digits first = take_digits(cursor, &has_first);
    if (**cursor != '-')
        return false;
    ++*cursor;
    digits last = take_digits(cursor, &has_last);
    if (!has_first && !has_last)
        return false;
    if (!has_first) {
        uint64_t suffix = digits_value(last);
        *keep = suffix > 0 && size > 0;
        if (*keep)
            *out = (au_range){suffix < size ? size - suffix : 0, size - 1};
        return true;
    }
    if (has_last && compare_digits(last, first) < 0)
        return false;
    uint64_t begin = digits_value(first);
    uint64_t end = has_last ? digits_value(last) : UINT64_MAX;
    *keep = begin < size;
    if (*keep)
        *out = (au_range){begin, end < size ? end : size - 1};
    return true;
}

/* Merges what overlaps or touches. Each merged group stands where its first member stood. */
static size_t merge(au_range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        /* Anything later that touches ranges[i] joins it; since that may make it touch others,
         * begin again. */
        for (size_t j = i + 1; j < n;) {
            if (ranges[j].first <= ranges[i].last + 1 && ranges[i].first <= ranges[j].last + 1) {
                if (ranges[j].first < ranges[i].first)
                    ranges[i].first = ranges[j].first;
                if (ranges[j].last > ranges[i].last)
                    ranges[i].last = ranges[j].last;
                memmove(&ranges[j], &ranges[j + 1], (n - j - 1) * sizeof *ranges);
                n--;
                j = i + 1;
            } else {
                j++;
            }
        }
    }
    return n;
}

au_range_kind au_range_parse(au_range out[AU_RANGES_MAX], size_t *n, const char *value,
                             uint64_t size)
{
    *n = 0;
    if (strncasecmp(value, "bytes=", 6) != 0)
        return AU_RANGE_IGNORE;
    const char *cursor = value + 6;
    size_t asked = 0, kept = 0;
    while (true) {
        cursor += strspn(cursor, " \t");
        if (*cursor != ',' && *cursor != '\0') {
            au_range range;
            bool keep;
            if (++asked > AU_RANGES_MAX || !parse_spec(&cursor, size, &range, &keep))
                return AU_RANGE_IGNORE;
            if (keep)
                out[kept++] = range;
            cursor += strspn(cursor, " \t");
        }
        if (*cursor == '\0')
            break;
        if (*cursor++ != ',')
            return AU_RANGE_IGNORE;
    }
    if (asked == 0)
        return AU_RANGE_IGNORE;
    if (kept == 0)
        return AU_RANGE_UNSATISFIABLE;
    *n = merge(out, kept);
    return AU_RANGE_PARTIAL;
}

bool au_etag_list_has(const char *list, const char *etag, bool strong)
{
    if (strcmp(list, "*") == 0)
        return true;
    size_t want = strlen(etag);
    for (const char *p = list; *p;) {
        p += strspn(p, ", \t");
        bool weak = strncmp(p, "W/", 2) == 0;
        if (weak)
            p += 2;
        const char *close = *p == '"' ? strchr(p + 1, '"') : NULL;
        if (!close)
            return false;
        size_t len = (size_t)(close - p) + 1;
        if (len == want && memcmp(p, etag, len) == 0 && !(weak && strong))
            return true;
        p = close + 1;
        if (*p && !strchr(", \t", *p))
            return false;
    }
    return false;
}

bool au_if_range_holds(const char *value, const char *etag)
{
    return strcmp(value, etag) == 0;
}
