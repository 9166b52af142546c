/* SPDX-License-Identifier: MIT */
/* Long polls: a request is a subscriber of the hub for as long as it waits. Its place among the
 * events is taken before the job is read, so what happens in between wakes it. */
#include "api/job_wait.h"

#include "api/prefer.h"
#include "base/clock.h"

/* In the arena of its request. */
typedef struct job_wait {
    au_hub *hub;
    au_hub_sub sub;
    int64_t until_ms;
} job_wait;

int au_job_wait_s(const au_http_request *rq)
{
    const char *prefer = au_http_header(rq, "prefer");
    return prefer ? au_prefer_wait_s(prefer) : -1;
}

static void leave(void *arg)
{
    const job_wait *w = arg;
    au_hub_leave(w->hub, &w->sub);
}

static void begin(au_http_request *rq, const char *id)
{
    au_hub *hub = au_api_of(rq)->hub;
    int wait_s = au_job_wait_s(rq);
    job_wait *w = wait_s > 0 ? au_arena_alloc(au_http_arena(rq), sizeof *w) : NULL;
    if (!w)
        return;
    w->hub = hub;
    w->sub = (au_hub_sub){.subject = id, .kinds = AU_HUB_JOBS};
    w->until_ms = au_http_started_ms(rq) + wait_s * INT64_C(1000);
    au_hub_join(hub, &w->sub);
    au_http_on_end(rq, leave, w);
    au_hub_skip(hub, &w->sub);
}

static bool is_over(const au_http_request *rq, const job_wait *w)
{
    return au_mono_ms() >= w->until_ms || au_http_draining(rq);
}

bool au_job_wait_quiet(au_http_request *rq, const char *id, au_http_handler handler,
                       au_http_result *result)
{
    au_hub *hub = au_api_of(rq)->hub;
    job_wait *w = au_http_end_data(rq);
    if (!w) {
        begin(rq, id);
        return false;
    }
    if (is_over(rq, w))
        return false;
    if (au_hub_take(hub, &w->sub, NULL, NULL) != AU_HUB_DONE) {
        au_hub_skip(hub, &w->sub);
        return false;
    }
    *result = au_http_wait(rq, handler, w->until_ms - au_mono_ms());
    return true;
}

bool au_job_wait_more(au_http_request *rq, const au_job *job, au_http_handler handler,
                      au_http_result *result)
{
    job_wait *w = au_http_end_data(rq);
    if (!w || is_over(rq, w) || au_job_state_is_final(job->state))
        return false;
    w->sub.seq = job->event_seq;
    *result = au_http_wait(rq, handler, w->until_ms - au_mono_ms());
    return true;
}
