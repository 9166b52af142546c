/* SPDX-License-Identifier: MIT */
/* Requests that wait for the end of a job (Prefer: wait). The handler is called again whenever
 * something has happened; it reads its job only when that was about it:
 *
 *     au_http_result handler(au_http_request *rq)
 *     {
 *         if (au_job_wait_quiet(rq, id, handler, &result))
 *             return result;
 *         ... read the job ...
 *         if (au_job_wait_more(rq, job, handler, &result))
 *             return result;
 *         ... reply ...
 *     }
 *
 * On the loop thread of the request. */
#ifndef AU_API_JOB_WAIT_H
#define AU_API_JOB_WAIT_H

#include "api/api.h"

/* Seconds that the client would wait, -1: it did not say. */
int au_job_wait_s(const au_http_request *rq);
/* Whether nothing has happened to the job since it was read, so that the request goes on waiting.
 * False the first time, and when the time is over. `id` is borrowed until the request ends. */
bool au_job_wait_quiet(au_http_request *rq, const char *id, au_http_handler handler,
                       au_http_result *result);
/* Whether the job, as it was read since, is worth waiting for. */
bool au_job_wait_more(au_http_request *rq, const au_job *job, au_http_handler handler,
                      au_http_result *result);

#endif
