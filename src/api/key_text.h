/* SPDX-License-Identifier: MIT */
/* The text of an API key: "aulos_" and 56 characters of base32 (a-z, 2-7) for 256 random bits and a
 * checksum of 24, so that a key that was cut or mistyped is told from an unknown one without a look
 * into the database. Stateless. */
#ifndef AU_API_KEY_TEXT_H
#define AU_API_KEY_TEXT_H

#include <stdbool.h>
#include <stddef.h>

enum {
    AU_KEY_TEXT = 63,  /* with the NUL */
    AU_KEY_PREFIX = 9, /* the first 8 characters, which are kept for people, with the NUL */
};

void au_key_text_new(char out[AU_KEY_TEXT]);
bool au_key_text_valid(const char *text, size_t len);

#endif
