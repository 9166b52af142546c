/* SPDX-License-Identifier: MIT */
/* The body of POST /v1/jobs. */
#ifndef AU_API_JOB_BODY_H
#define AU_API_JOB_BODY_H

#include "api/api.h"
#include "api/json_check.h"

/* A checked submission. Everything it points to lives as long as the request. */
typedef struct au_job_plan {
    au_job_new job;
    au_params params;
    au_submit_result result; /* of the submission */
    au_limits limits;
} au_job_plan;

/* Checks the body against models, adapters and prompts, noting all that is wrong. Another status
 * than AU_OK: the database failed. */
AU_MUST_CHECK au_status au_job_body_parse(au_check *c, const au_api *api, au_db *db,
                                          const json_t *body, au_job_plan *plan, au_err *err);

/* Whether jobs are accepted at all now: the server is not drained and has room on its disks. False:
 * a problem has been set. (submit.c) */
bool au_job_may_submit(au_http_request *rq);
/* The problem for a submission that the transaction refused (result.fault is not OK). */
au_http_result au_job_reply_fault(au_http_request *rq, const au_job_plan *plan);

#endif
