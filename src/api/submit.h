/* SPDX-License-Identifier: MIT */
/* Taking a job that has been checked: the way from a plan to the reply, for all requests that make
 * jobs. */
#ifndef AU_API_SUBMIT_H
#define AU_API_SUBMIT_H

#include "api/api.h"
#include "api/job_body.h"

enum { AU_JOB_ARENA_BYTES = 4 << 20 }; /* one job with its samples */

/* Reads a job that is not deleted. False: a problem has been set. */
bool au_api_load_job(au_http_request *rq, au_arena *arena, const char *id, au_job **job);
/* The reply with a job: 200 becomes 201 or 202 where the request is a submission. */
au_http_result au_api_reply_job(au_http_request *rq, int status, const au_job *job);
/* 429 with an honest Retry-After. */
au_http_result au_api_queue_full(au_http_request *rq);

/* Writes the job of the plan, which lives as long as the request, and replies: 202, or 201 where
 * the request waited and saw the end. The route has AU_ROUTE_CREATES. */
au_http_result au_api_submit(au_http_request *rq, au_job_plan *plan);

#endif
