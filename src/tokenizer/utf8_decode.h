/* SPDX-License-Identifier: MIT */
/* Walking over UTF-8 that is known to be valid. */
#ifndef AU_TOKENIZER_UTF8_DECODE_H
#define AU_TOKENIZER_UTF8_DECODE_H

#include <stddef.h>
#include <stdint.h>

/* The code point at s; its length in bytes is returned. s is valid UTF-8 and not at its end. */
static inline size_t au_utf8_next(const char *s, int32_t *cp)
{
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    if (p[0] < 0xe0) {
        *cp = (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
        return 2;
    }
    if (p[0] < 0xf0) {
        *cp = (p[0] & 0x0f) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        return 3;
    }
    *cp = (p[0] & 0x07) << 18 | (p[1] & 0x3f) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    return 4;
}

/* Start of the code point that ends before s[pos]; pos > 0. */
static inline size_t au_utf8_back(const char *s, size_t pos)
{
    do
        pos--;
    while (pos && ((unsigned char)s[pos] & 0xc0) == 0x80);
    return pos;
}

#endif
