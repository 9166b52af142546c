/* SPDX-License-Identifier: MIT */
/* The table of problems (RFC 9457, application/problem+json) and their JSON form. Stateless. */
#ifndef AU_HTTP_PROBLEM_H
#define AU_HTTP_PROBLEM_H

#include <jansson.h>

typedef enum au_problem {
    AU_PROBLEM_NONE = 0,
#define AU_PROBLEM(id, slug, status, title) AU_PROBLEM_##id,
#include "http/problem.def"
#undef AU_PROBLEM
    AU_PROBLEM_COUNT,
} au_problem;

typedef struct au_problem_info {
    const char *slug, *title;
    int status;
} au_problem_info;

/* problem != NONE. Static storage. */
const au_problem_info *au_problem_get(au_problem problem);

/* {type, title, status, detail, request_id}. detail and request_id may be NULL. A new reference, or
 * NULL when memory is exhausted. */
json_t *au_problem_json(au_problem problem, const char *detail, const char *request_id);

/* "Not Found" for 404; "Unknown" for a status that the server never sends. */
const char *au_http_reason(int status);

#endif
