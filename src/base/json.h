/* SPDX-License-Identifier: MIT */
/* jansson with our limits and our errors. JSON from outside is always read through these two:
 * duplicate keys, NaN, lone surrogates, \u0000, invalid UTF-8 and deep nesting are refused. */
#ifndef AU_BASE_JSON_H
#define AU_BASE_JSON_H

#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"

/* *out is a new reference (json_decref). AU_CORRUPT with line and column. `what` names the text in
 * errors. */
AU_MUST_CHECK au_status au_json_parse(json_t **out, const char *text, size_t len, const char *what,
                                      au_err *err);
/* The same with every integer as a real: for files whose integers may exceed 64 bits (Python writes
 * "model_max_length": 1000000000000000019884624838656). */
AU_MUST_CHECK au_status au_json_parse_reals(json_t **out, const char *text, size_t len,
                                            const char *what, au_err *err);
/* Reads a file of at most max_bytes. */
AU_MUST_CHECK au_status au_json_load(json_t **out, const char *path, size_t max_bytes, au_err *err);

/* One line, keys sorted, reals with 17 significant digits shortened to the shortest text that reads
 * back to the same double (so 0.1 is printed as 0.1). Appends to b. */
void au_json_dump(au_buf *b, const json_t *j);
/* The same as a text of its own, owned by the caller. AU_LIMIT: more than max_bytes. */
AU_MUST_CHECK au_status au_json_text(char **out, const json_t *j, size_t max_bytes, au_err *err);

#endif
