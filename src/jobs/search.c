/* SPDX-License-Identifier: MIT */
/* Texts of search fields. What stands between words is what the index takes for it: everything in
 * ASCII but letters and digits, and the punctuation of Unicode that people type. Stateless. */
#include <string.h>

#include "base/str.h"
#include "jobs/catalog.h"

/* The length of the character at p if it stands between words, else 0. Blocks of punctuation: Latin
 * 1 (U+00A0 ... U+00BF without the letters there), U+2000 ... U+206F, U+3000 ... U+303F but for the
 * signs and numbers among them, which nobody searches for. */
static size_t gap(const unsigned char *p)
{
    if (*p < 0x80)
        return !((*p >= '0' && *p <= '9') || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z'));
    if (*p == 0xc2)
        return p[1] == 0xaa || p[1] == 0xb5 || p[1] == 0xba ? 0 : 2;
    if (*p == 0xe2)
        return p[1] == 0x80 || p[1] == 0x81 ? 3 : 0;
    return *p == 0xe3 && p[1] == 0x80 ? 3 : 0;
}

static size_t word_len(const unsigned char *p)
{
    size_t n = 0;
    while (p[n] && !gap(p + n))
        n++; /* a continuation byte is never a gap: it is none of the above */
    return n;
}

bool au_search_words(char *out, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t used = 0, n_words = 0;
    while (*p) {
        size_t len = word_len(p);
        if (len == 0) {
            p += gap(p);
            continue;
        }
        if (n_words++ == AU_SEARCH_MAX_WORDS)
            return false;
        AU_ASSERT(used + len + 5 <= AU_SEARCH_WORDS); /* 4 bytes of each of 200 characters fit */
        if (used)
            out[used++] = ' ';
        out[used++] = '"';
        memcpy(out + used, p, len);
        used += len;
        out[used++] = '"';
        out[used++] = '*';
        p += len;
    }
    if (n_words == 0) { /* a phrase of no words, which nothing matches */
        out[used++] = '"';
        out[used++] = '"';
    }
    out[used] = '\0';
    return true;
}
