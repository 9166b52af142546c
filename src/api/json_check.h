/* SPDX-License-Identifier: MIT */
/* Checking a JSON body: every problem is collected with its JSON pointer (RFC 6901), so that a
 * client learns all of them at once. */
#ifndef AU_API_JSON_CHECK_H
#define AU_API_JSON_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "http/http.h"

typedef struct au_check {
    au_arena *arena;  /* for pointers */
    json_t *errors;   /* array of {pointer, code, ...} */
    size_t n_invalid; /* of the errors, those that are not "not_found" */
    bool no_memory;
} au_check;

void au_check_init(au_check *c, au_arena *arena);
void au_check_deinit(au_check *c);
bool au_check_ok(const au_check *c);

/* parent + "/" + key with its '~' and '/' escaped; and with an index. In the arena. */
const char *au_check_at(au_check *c, const char *parent, const char *key);
const char *au_check_at_index(au_check *c, const char *parent, size_t index);

/* Adds an error; `more` (members beside pointer and code, may be NULL) is taken over. Codes:
 * unknown_field, missing, wrong_type, out_of_range, unknown_value, too_long, conflict, unfit,
 * not_found. */
void au_check_add(au_check *c, const char *pointer, const char *code, json_t *more);

/* The value must be an object whose members are all in `fields` (NULL-terminated). False where it
 * is no object. */
bool au_check_object(au_check *c, const json_t *j, const char *pointer, const char *const *fields);

/* A member of `object`: true when it is there and right, then *out is set; false when it is absent,
 * or wrong and noted. */
bool au_check_int(au_check *c, const json_t *object, const char *parent, const char *key,
                  int64_t min, int64_t max, int64_t *out);
bool au_check_real(au_check *c, const json_t *object, const char *parent, const char *key,
                   double min, double max, bool open_min, double *out);
bool au_check_bool(au_check *c, const json_t *object, const char *parent, const char *key,
                   bool *out);
bool au_check_text(au_check *c, const json_t *object, const char *parent, const char *key,
                   size_t max_chars, const char **out);

/* Whether the text can be an adapter's name (a "name" of the body); noted where not. */
bool au_adapter_name_check(au_check *c, const char *name);

/* The reply for what was found: 422, or 404 when all that is wrong is that things do not exist.
 * Frees the check. */
au_http_result au_check_reply(au_check *c, au_http_request *rq);

#endif
