/* SPDX-License-Identifier: MIT */
/* What the handlers of comparisons, sessions and results share. */
#ifndef AU_API_COMPARISON_JSON_H
#define AU_API_COMPARISON_JSON_H

#include "api/api.h"
#include "compare/comparison.h"

/* Whether what is compared must not be told: blind and not closed. */
bool au_comparison_is_hidden(const au_comparison *c);
/* The adapter of an arm; null for none. */
json_t *au_arm_json(const au_arm *arm);
/* Reads one that is not deleted. False: a problem has been set. */
bool au_comparison_load(au_http_request *rq, const char *id, au_comparison **c);

#endif
