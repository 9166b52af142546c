/* SPDX-License-Identifier: MIT */
/* The Idempotency-Key field and what makes two requests the same. */
#ifndef AU_API_IDEMPOTENCY_KEY_H
#define AU_API_IDEMPOTENCY_KEY_H

#include <jansson.h>
#include <stdbool.h>

#include "base/hash.h"
#include "jobs/idempotency.h"

/* Reads a field's value: 1 to 255 visible ASCII characters as they are, or a string of RFC 8941
 * ("..." with \" and \\ as escapes) that holds such; abc and "abc" are the same key. False: it is
 * neither. */
bool au_idempotency_key_parse(char out[AU_IDEMPOTENCY_KEY_MAX + 1], const char *value);

/* Equal for equal values: the order of members, blanks, escapes and the way a number is written do
 * not matter. False: no memory. */
bool au_json_hash(au_sha256 *h, const json_t *value);

#endif
