/* SPDX-License-Identifier: MIT */
/* The body of POST /v1/comparisons. */
#ifndef AU_API_COMPARISON_BODY_H
#define AU_API_COMPARISON_BODY_H

#include "api/job_body.h"
#include "compare/comparison.h"

/* A checked request. Everything it points to lives as long as the request. */
typedef struct au_comparison_plan {
    au_comparison what;
    au_job_plan *jobs; /* [what.n_jobs], to be submitted first */
    size_t failed_job; /* of the submission */
} au_comparison_plan;

/* Checks the body, noting all that is wrong. Another status than AU_OK: the database failed. */
AU_MUST_CHECK au_status au_comparison_body_parse(au_check *c, const au_api *api, au_db *db,
                                                 const json_t *body, au_comparison_plan *plan,
                                                 au_err *err);

#endif
