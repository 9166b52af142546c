/* SPDX-License-Identifier: MIT */
/* Cookie (RFC 6265), Authorization: Bearer (RFC 6750) and traceparent (W3C Trace Context). What is
 * not understood is treated as absent: none of these grants anything by itself. Stateless. */
#include "http/fields.h"

#include <string.h>
#include <strings.h>

/* "00-" 32 digits "-" 16 digits "-" 2 digits */
enum {
    TRACE_AT = 3,
    TRACE_DIGITS = 32,
    PARENT_AT = 36,
    PARENT_DIGITS = 16,
    FLAGS_AT = 53,
    TRACE_END = 55
};

static const char hex_digits[] = "0123456789abcdef";

bool au_cookie_find(const char *field, const char *name, const char **value, size_t *len)
{
    size_t want = strlen(name);
    for (const char *p = field; *p;) {
        p += strspn(p, "; \t");
        size_t n = strcspn(p, ";");
        if (n > want && p[want] == '=' && memcmp(p, name, want) == 0) {
            const char *begin = p + want + 1;
            size_t left = n - want - 1;
            while (left && (begin[left - 1] == ' ' || begin[left - 1] == '\t'))
                left--;
            bool quoted = left >= 2 && begin[0] == '"' && begin[left - 1] == '"';
            *value = begin + quoted;
            *len = left - (quoted ? 2 : 0);
            return true;
        }
        p += n;
    }
    return false;
}

bool au_bearer_token(const char *field, const char **token, size_t *len)
{
    static const char scheme[] = "Bearer";
    size_t n = sizeof scheme - 1;
    if (strncasecmp(field, scheme, n) != 0 || (field[n] && field[n] != ' '))
        return false;
    *token = field + n + strspn(field + n, " ");
    *len = strlen(*token);
    return true;
}

/* n lower-case digits at s; with not_zero, one of them at least is not 0. */
static bool is_hex(const char *s, size_t n, bool not_zero)
{
    return strspn(s, hex_digits) >= n && (!not_zero || strspn(s, "0") < n);
}

bool au_trace_id_parse(char out[AU_TRACE_ID_TEXT], const char *traceparent)
{
    const char *t = traceparent;
    size_t len = strlen(t);
    bool first = strncmp(t, "00-", 3) == 0;
    if (len < TRACE_END || (len > TRACE_END && (first || t[TRACE_END] != '-')))
        return false;
    if (!is_hex(t, 2, false) || strncmp(t, "ff", 2) == 0 || t[2] != '-' ||
        !is_hex(t + TRACE_AT, TRACE_DIGITS, true) || t[PARENT_AT - 1] != '-' ||
        !is_hex(t + PARENT_AT, PARENT_DIGITS, true) || t[FLAGS_AT - 1] != '-' ||
        !is_hex(t + FLAGS_AT, 2, false))
        return false;
    memcpy(out, t + TRACE_AT, TRACE_DIGITS);
    out[TRACE_DIGITS] = '\0';
    return true;
}
