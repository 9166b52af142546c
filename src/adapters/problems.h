/* SPDX-License-Identifier: MIT */
/* Internal to adapters/: all that is wrong with an adapter, and all that is odd. One owner, no
 * locking. */
#ifndef AU_ADAPTERS_PROBLEMS_H
#define AU_ADAPTERS_PROBLEMS_H

#include <jansson.h>

#include "base/err.h"

typedef struct au_problems {
    json_t *list, *warnings; /* arrays of texts */
    size_t count;            /* of problems, those that did not fit into the list included */
    au_status first;         /* status of the first problem */
} au_problems;

AU_MUST_CHECK au_status au_problems_init(au_problems *p, au_err *err);
void au_problems_deinit(au_problems *p);
/* Control characters in the text (names come from files) become '?'. */
void au_problem(au_problems *p, au_status status, const char *fmt, ...) AU_PRINTF(3, 4);
void au_warning(au_problems *p, const char *fmt, ...) AU_PRINTF(2, 3);
/* AU_OK without problems, else the first one's status and a message with a line for each. */
AU_MUST_CHECK au_status au_problems_check(const au_problems *p, au_err *err);

#endif
