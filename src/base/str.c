/* SPDX-License-Identifier: MIT */
/* Numbers, UTF-8 and small string helpers. Stateless; safe from any thread.
 *
 * Numbers are checked against our own grammar before the C library sees them, because strtod takes
 * blanks, hexadecimal, "nan" and the locale's decimal comma. */
#include "base/str.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool au_str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool au_str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal digits at *s, advanced past them; false when there are none or the value overflows. */
static bool read_digits(const char **s, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = *s;
    if (!is_digit(*p))
        return false;
    for (; is_digit(*p); p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *p - '0', &v))
            return false;
    *s = p;
    *out = v;
    return true;
}

bool au_parse_u64(const char *s, uint64_t *out)
{
    uint64_t v;
    if (!read_digits(&s, &v) || *s)
        return false;
    *out = v;
    return true;
}

bool au_parse_i64(const char *s, int64_t *out)
{
    uint64_t v;
    bool negative = *s == '-';
    s += negative;
    if (!read_digits(&s, &v) || *s || v > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static const char *skip_digits(const char *s)
{
    while (is_digit(*s))
        s++;
    return s;
}

/* [+-] digits [. digits] [e [+-] digits], with a digit on at least one side of the point. */
static bool looks_like_number(const char *s)
{
    s += *s == '-' || *s == '+';
    const char *p = skip_digits(s);
    bool any = p > s;
    if (*p == '.') {
        const char *q = skip_digits(p + 1);
        any |= q > p + 1;
        p = q;
    }
    if (!any)
        return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '-' || *p == '+';
        if (!is_digit(*p))
            return false;
        p = skip_digits(p);
    }
    return !*p;
}

bool au_parse_f64(const char *s, double *out)
{
    if (!looks_like_number(s))
        return false;
    /* glibc answers "C" with a static object: nothing is allocated and nothing must be freed. */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        return false;
    double v = strtod_l(s, NULL, c);
    freelocale(c);
    if (!isfinite(v))
        return false;
    *out = v;
    return true;
}

bool au_parse_bytes(const char *s, uint64_t *out)
{
    static const char units[] = "KMGT";
    uint64_t v;
    if (!read_digits(&s, &v))
        return false;
    if (*s) {
        const char *u = strchr(units, *s);
        if (!u || s[1])
            return false;
        int shift = 10 * (int)(u - units + 1);
        if (v > UINT64_MAX >> shift)
            return false;
        v <<= shift;
    }
    *out = v;
    return true;
}

/* Length of the well-formed sequence at s (len > 0 bytes are there), or 0. Table 3-7 of Unicode. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    unsigned char c = s[0], lo = 0x80, hi = 0xbf;
    size_t n;
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf) {
        n = 2;
    } else if (c >= 0xe0 && c <= 0xef) {
        n = 3;
        lo = c == 0xe0 ? 0xa0 : lo;
        hi = c == 0xed ? 0x9f : hi;
    } else if (c >= 0xf0 && c <= 0xf4) {
        n = 4;
        lo = c == 0xf0 ? 0x90 : lo;
        hi = c == 0xf4 ? 0x8f : hi;
    } else {
        return 0;
    }
    if (len < n || s[1] < lo || s[1] > hi)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool au_utf8_valid(const char *s, size_t len)
{
    for (size_t i = 0, n; i < len; i += n)
        if (!(n = utf8_sequence((const unsigned char *)s + i, len - i)))
            return false;
    return true;
}

size_t au_utf8_prefix(const char *s, size_t max_chars)
{
    size_t i = 0;
    for (; s[i]; i++)
        if ((s[i] & 0xc0) != 0x80 && max_chars-- == 0)
            break;
    return i;
}

/* Words longer than this are nobody's slip of the finger, and fit the rows below. */
enum { MAX_WORD = 63 };

/* Edits (insert, delete, change, swap of neighbours) that turn a into b; both at most MAX_WORD
 * long. */
static size_t edit_distance(const char *a, size_t n, const char *b, size_t m)
{
    size_t rows[3][MAX_WORD + 1];
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *cur = rows[i % 3];
        const size_t *prev = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        cur[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t d = prev[j - 1] + (a[i - 1] != b[j - 1]);
            d = prev[j] + 1 < d ? prev[j] + 1 : d;
            d = cur[j - 1] + 1 < d ? cur[j - 1] + 1 : d;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < d)
                d = before[j - 2] + 1;
            cur[j] = d;
        }
    }
    return rows[n % 3][m];
}

const char *au_str_nearest(const char *word, const char *const *candidates)
{
    size_t n = strlen(word);
    if (n > MAX_WORD)
        return NULL;
    const char *best = NULL;
    size_t limit = n / 3 > 2 ? n / 3 : 2, best_distance = limit + 1;
    for (; *candidates; candidates++) {
        size_t m = strlen(*candidates);
        if (m > MAX_WORD)
            continue;
        size_t d = edit_distance(word, n, *candidates, m);
        /* d < n: of a two-letter word something must be left, or "xy" would suggest "ab". */
        if (d < best_distance && d < n) {
            best_distance = d;
            best = *candidates;
        }
    }
    return best;
}

void au_hex(char *out, const void *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *p = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * len] = 0;
}
