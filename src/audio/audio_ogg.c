/* SPDX-License-Identifier: MIT */
/* Ogg pages (RFC 3533). libsndfile draws a stream's serial number at random and counts it into
 * every page's checksum; both are made anew here from the content. Stateless. */
#include <string.h>

#include "audio/audio_priv.h"
#include "base/hash.h"

enum { PAGE_HEAD = 27, SERIAL_AT = 14, CRC_AT = 22, SEGMENTS_AT = 26 };

/* The length of the page that begins at p, or 0 where none does. */
static size_t page_length(const unsigned char *p, size_t left)
{
    if (left < PAGE_HEAD || memcmp(p, "OggS", 4) != 0 || p[4] != 0)
        return 0;
    size_t length = PAGE_HEAD + (size_t)p[SEGMENTS_AT];
    if (length > left)
        return 0;
    for (size_t i = 0; i < p[SEGMENTS_AT]; i++)
        length += p[PAGE_HEAD + i];
    return length <= left ? length : 0;
}

/* The polynomial 0x04c11db7 from the highest bit on, without reflection. */
static void make_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t r = i << 24;
        for (int bit = 0; bit < 8; bit++)
            r = r & 0x80000000u ? r << 1 ^ 0x04c11db7u : r << 1;
        table[i] = r;
    }
}

static void put_u32(unsigned char *p, uint32_t v)
{
    for (int k = 0; k < 4; k++)
        p[k] = (unsigned char)(v >> (8 * k));
}

au_status au_audio_ogg_seal(unsigned char *data, size_t len, au_err *err)
{
    unsigned char digest[AU_SHA256_BYTES], first[4];
    uint32_t table[256];
    au_sha256 hash;
    if (len >= PAGE_HEAD)
        memcpy(first, data + SERIAL_AT, 4);
    for (size_t at = 0, n; at < len || len == 0; at += n) {
        n = page_length(data + at, len - at);
        if (!n || memcmp(first, data + at + SERIAL_AT, 4) != 0)
            return au_fail(err, AU_CORRUPT, "no page of the Ogg stream begins at byte %zu of %zu",
                           at, len);
    }
    for (size_t at = 0; at < len; at += page_length(data + at, len - at)) {
        put_u32(data + at + SERIAL_AT, 0);
        put_u32(data + at + CRC_AT, 0);
    }
    au_sha256_init(&hash);
    au_sha256_update(&hash, data, len);
    au_sha256_final(&hash, digest);
    make_table(table);
    for (size_t at = 0, n; at < len; at += n) {
        uint32_t crc = 0;
        n = page_length(data + at, len - at);
        memcpy(data + at + SERIAL_AT, digest, 4);
        for (size_t i = 0; i < n; i++)
            crc = crc << 8 ^ table[(crc >> 24 ^ data[at + i]) & 0xff];
        put_u32(data + at + CRC_AT, crc);
    }
    return AU_OK;
}
