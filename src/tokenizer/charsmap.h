/* SPDX-License-Identifier: MIT */
/* SentencePiece's "precompiled charsmap": a table of text replacements (NFKC-like folding for T5)
 * that a tokenizer file carries. Immutable after opening; any thread. */
#ifndef AU_TOKENIZER_CHARSMAP_H
#define AU_TOKENIZER_CHARSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

typedef struct au_charsmap {
    uint32_t *units; /* Darts double array; owned */
    size_t n_units;
    char *replacements; /* NUL-terminated texts one after the other, valid UTF-8; owned */
    size_t replacements_len;
} au_charsmap;

/* Copies the blob: u32 little-endian size of the array in bytes, the array, the replacement texts.
 * An empty blob gives the map that changes nothing. AU_CORRUPT when sizes or texts are impossible;
 * `what` names the file. */
AU_MUST_CHECK au_status au_charsmap_open(au_charsmap *m, const void *blob, size_t len,
                                         const char *what, au_err *err);
void au_charsmap_close(au_charsmap *m);

/* Appends the normalised text (valid UTF-8) to `out`, whose sticky error the caller checks. */
void au_charsmap_apply(const au_charsmap *m, au_buf *out, const char *text, size_t len);

#endif
