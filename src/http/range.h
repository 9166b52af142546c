/* SPDX-License-Identifier: MIT */
/* Byte ranges and conditional requests (RFC 9110 sections 13 and 14) as pure functions over header
 * values. */
#ifndef AU_HTTP_RANGE_H
#define AU_HTTP_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AU_RANGES_MAX = 16 };

typedef struct au_range {
    uint64_t first, last; /* both inclusive, first <= last < size */
} au_range;

typedef enum au_range_kind {
    AU_RANGE_IGNORE,        /* the field means nothing here: send the whole (200) */
    AU_RANGE_PARTIAL,       /* send these (206) */
    AU_RANGE_UNSATISFIABLE, /* 416 */
} au_range_kind;

/* Reads the value of a Range field for a representation of `size` bytes. In this order: wrong
 * syntax, another unit, or more than AU_RANGES_MAX ranges are ignored; unsatisfiable ranges are
 * dropped and the rest clipped; overlapping and adjacent ones are merged, a merged group standing
 * where its first member stood. So the sum of the ranges never exceeds size. PARTIAL sets *n >= 1.
 */
au_range_kind au_range_parse(au_range out[AU_RANGES_MAX], size_t *n, const char *value,
                             uint64_t size);

/* Whether a list of entity tags (If-Match, If-None-Match) is "*" or holds `etag` (a strong tag,
 * with its quotes). With strong, a weak tag of the list never matches. A list of wrong syntax
 * matches up to where it goes wrong. */
bool au_etag_list_has(const char *list, const char *etag, bool strong);

/* If-Range: only the same strong tag lets the range through; a date never does, since no
 * Last-Modified is sent. */
bool au_if_range_holds(const char *value, const char *etag);

#endif
