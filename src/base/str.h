/* SPDX-License-Identifier: MIT */
/* Strict parsing of numbers, UTF-8 validation and small string helpers. Stateless. */
#ifndef AU_BASE_STR_H
#define AU_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool au_str_starts(const char *s, const char *prefix);
bool au_str_ends(const char *s, const char *suffix);

/* The whole string must be the number (no blanks, no trailing text); false otherwise or out of
 * range. Decimal only; au_parse_f64 refuses nan, inf and hexadecimal, and ignores the locale. */
bool au_parse_u64(const char *s, uint64_t *out);
bool au_parse_i64(const char *s, int64_t *out);
bool au_parse_f64(const char *s, double *out);
/* 1024, 4K, 512M, 1G, 2T (powers of 1024). */
bool au_parse_bytes(const char *s, uint64_t *out);

/* Well-formed UTF-8 without surrogates and overlong forms. */
bool au_utf8_valid(const char *s, size_t len);
/* Length in bytes of the longest prefix of s with at most `max_chars` code points; s is valid
 * UTF-8. */
size_t au_utf8_prefix(const char *s, size_t max_chars);

/* The candidate nearest to `word` by edit distance, or NULL where none is near enough to be a
 * plausible slip (distance <= 2, or <= a third of the length). candidates ends with NULL. */
const char *au_str_nearest(const char *word, const char *const *candidates);

/* Lower-case hexadecimal; out holds 2*len + 1 bytes. */
void au_hex(char *out, const void *data, size_t len);

#endif
