/* SPDX-License-Identifier: MIT */
/* The Prefer field. Stateless. */
#include "api/prefer.h"

#include <string.h>
#include <strings.h>

/* The length of the element at p, up to a comma outside quotes. */
static size_t element_len(const char *p)
{
    bool quoted = false;
    size_t n = 0;
    for (; p[n] && (quoted || p[n] != ','); n++) {
        if (p[n] == '"')
            quoted = !quoted;
        else if (quoted && p[n] == '\\' && p[n + 1])
            n++;
    }
    return n;
}

/* Digits of wait = N (with optional quotes) within [p, p + n); -1: not that. */
static int wait_value(const char *p, size_t n)
{
    const char *end = p + n;
    if (n < 5 || strncasecmp(p, "wait", 4) != 0)
        return -1;
    p += 4;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    if (p == end || *p++ != '=')
        return -1;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    bool quoted = p < end && *p == '"';
    p += quoted;
    int seconds = -1;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        seconds = (seconds < 0 ? 0 : seconds) * 10 + (*p - '0');
        if (seconds > AU_PREFER_WAIT_MAX_S)
            seconds = AU_PREFER_WAIT_MAX_S;
    }
    if (quoted && (p == end || *p++ != '"'))
        return -1;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    return p == end || *p == ';' ? seconds : -1;
}

int au_prefer_wait_s(const char *value)
{
    for (const char *p = value; *p;) {
        p += strspn(p, ", \t");
        size_t n = element_len(p);
        int seconds = wait_value(p, n);
        /* RFC 7240 2: of a preference that is repeated the first counts. */
        if (seconds >= 0)
            return seconds;
        p += n;
    }
    return -1;
}
