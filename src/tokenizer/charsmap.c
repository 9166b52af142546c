/* SPDX-License-Identifier: MIT */
/* The charsmap as HF's `tokenizers` applies it, which is not what SentencePiece does: the text is
 * cut into extended grapheme clusters; a cluster of less than 6 bytes for which the array has a hit
 * becomes the replacement of the FIRST (shortest) hit, as a whole; else each character is looked up
 * alone. Visible only for combining marks ("ȫ").
 *
 * The array is a Darts-clone double array: a unit holds a label (bits 0-7 and 31), a flag that a
 * value follows (bit 8) and an offset (bits 10-30, shifted by 8 more when bit 9 is set); the value
 * is an offset into the replacement texts. It comes from a file: each index is compared with the
 * size before use, and a step outside is no hit. */
#include "tokenizer/charsmap.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/str.h"
#include "tokenizer/utf8_decode.h"

enum { CLUSTER_LIMIT = 6 }; /* bytes; HF's constant */

static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The replacement of the shortest prefix of s that has one, or NULL. */
static const char *lookup(const au_charsmap *m, const char *s, size_t len)
{
    if (!m->n_units)
        return NULL;
    uint32_t pos = unit_offset(m->units[0]);
    for (size_t i = 0; i < len && s[i]; i++) {
        uint8_t byte = (uint8_t)s[i];
        pos ^= byte;
        if (pos >= m->n_units)
            return NULL;
        uint32_t unit = m->units[pos];
        if ((unit & 0x800000ffu) != byte)
            return NULL;
        pos ^= unit_offset(unit);
        if (!(unit >> 8 & 1))
            continue;
        if (pos >= m->n_units)
            return NULL;
        uint32_t value = m->units[pos] & 0x7fffffffu;
        if (value > m->replacements_len || ((uint8_t)m->replacements[value] & 0xc0) == 0x80)
            return NULL;
        return m->replacements + value;
    }
    return NULL;
}

static void apply_cluster(const au_charsmap *m, au_buf *out, const char *s, size_t len)
{
    if (len < CLUSTER_LIMIT) {
        const char *hit = lookup(m, s, len);
        if (hit) {
            au_buf_str(out, hit);
            return;
        }
    }
    for (size_t i = 0; i < len;) {
        int32_t cp;
        size_t n = au_utf8_next(s + i, &cp);
        const char *hit = lookup(m, s + i, n);
        if (hit)
            au_buf_str(out, hit);
        else
            au_buf_append(out, s + i, n);
        i += n;
    }
}

void au_charsmap_apply(const au_charsmap *m, au_buf *out, const char *text, size_t len)
{
    if (!m->n_units) {
        au_buf_append(out, text, len);
        return;
    }
    for (size_t start = 0; start < len && out->status == AU_OK;) {
        int32_t before, cp, state = 0;
        size_t end = start + au_utf8_next(text + start, &before);
        while (end < len) {
            size_t n = au_utf8_next(text + end, &cp);
            if (utf8proc_grapheme_break_stateful(before, cp, &state))
                break;
            before = cp;
            end += n;
        }
        apply_cluster(m, out, text + start, end - start);
        start = end;
    }
}

au_status au_charsmap_open(au_charsmap *m, const void *blob, size_t len, const char *what,
                           au_err *err)
{
    au_status st = AU_OK;
    const unsigned char *p = blob;
    *m = (au_charsmap){0};
    if (!len)
        return AU_OK;
    AU_FAIL_IF(len < 4, AU_CORRUPT, "%s: the charsmap has %zu bytes, expected at least 4", what,
               len);
    size_t array = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    AU_FAIL_IF(array > len - 4, AU_CORRUPT,
               "%s: the charsmap's array has %zu bytes, but only %zu follow", what, array, len - 4);
    AU_FAIL_IF(array % 4 || !array, AU_CORRUPT,
               "%s: the charsmap's array has %zu bytes, expected a multiple of 4", what, array);
    m->n_units = array / 4;
    m->replacements_len = len - 4 - array;
    AU_FAIL_IF(!au_utf8_valid((const char *)p + 4 + array, m->replacements_len), AU_CORRUPT,
               "%s: the charsmap's replacements are not valid UTF-8", what);
    AU_TRY(au_calloc(&m->units, m->n_units, sizeof *m->units, err));
    for (size_t i = 0; i < m->n_units; i++) {
        const unsigned char *u = p + 4 + 4 * i;
        m->units[i] =
            (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
    }
    AU_TRY(au_calloc(&m->replacements, m->replacements_len + 1, 1,
                     err)); /* the last text ends with our NUL */
    memcpy(m->replacements, p + 4 + array, m->replacements_len);
done:
    if (st != AU_OK)
        au_charsmap_close(m);
    return st;
}

void au_charsmap_close(au_charsmap *m)
{
    free(m->units);
    free(m->replacements);
    *m = (au_charsmap){0};
}
