/* SPDX-License-Identifier: MIT */
/* /v1/jobs: submit, list, read (with a long poll), cancel. */
#include <inttypes.h>
#include <string.h>

#include "api/api.h"
#include "api/job_body.h"
#include "api/job_wait.h"
#include "base/fs.h"

enum {
    JOB_ARENA_BYTES = 4 << 20, /* one job with its samples */
    RETRY_AFTER_UNKNOWN_S = 10,
    RETRY_AFTER_MAX_S = 3600,
};

static const char *const no_query[] = {NULL};

/* Reads a job. DONE: a problem has been set. */
static bool load_job(au_http_request *rq, au_arena *arena, const char *id, au_job **job)
{
    au_err err;
    au_status st = au_job_get(au_api_db(rq), arena, id, job, &err);
    if (st == AU_OK && !(*job)->deleted_at)
        return true;
    if (st == AU_OK)
        au_api_gone(rq, "job", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "job", id);
    else
        au_api_failed(rq, st, &err);
    return false;
}

static au_http_result reply_job(au_http_request *rq, int status, const au_job *job)
{
    int wait_s = au_job_wait_s(rq);
    if (wait_s >= 0)
        au_http_set_header(rq, "Preference-Applied", "wait=%d", wait_s);
    return au_http_reply_json(rq, status, au_job_json(job));
}

/* A submission that waited and saw the end is a 201. */
static int post_status(au_http_request *rq, const au_job *job)
{
    return au_job_wait_s(rq) >= 0 && au_job_state_is_final(job->state) ? 201 : 202;
}

/* Also answers a submission that was repeated with its Idempotency-Key. */
au_http_result au_get_job(au_http_request *rq)
{
    au_job *job;
    au_arena arena;
    const char *id = au_api_id(rq);
    au_http_result result = AU_HTTP_DONE;
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "job", au_http_param(rq, "id"));
    if (au_job_wait_quiet(rq, id, au_get_job, &result))
        return result;
    au_arena_init(&arena, JOB_ARENA_BYTES);
    if (load_job(rq, &arena, id, &job) && !au_job_wait_more(rq, job, au_get_job, &result))
        result = reply_job(rq, strcmp(au_http_method(rq), "POST") == 0 ? post_status(rq, job) : 200,
                           job);
    au_arena_deinit(&arena);
    return result;
}

static bool parse_filter(au_http_request *rq, au_job_filter *f)
{
    au_page page;
    au_job_state state;
    if (!au_page_parse(rq, &page) || !au_query_uuid(rq, "prompt_id", &f->prompt_id) ||
        !au_query_uuid(rq, "adapter_id", &f->adapter_id))
        return false;
    f->state = au_http_query(rq, "state");
    f->label = au_http_query(rq, "label");
    f->before_id = page.before_id;
    f->limit = page.limit;
    const char *after = au_http_query(rq, "created_after");
    if (f->state && !au_job_state_parse(f->state, &state))
        return au_query_refuse(rq, "state",
                               "queued, processing, cancelling, completed, failed or cancelled");
    if (after && !au_time_parse(after, &f->created_after))
        return au_query_refuse(rq, "created_after", "a time like 2026-11-24T09:30:00Z");
    return true;
}

au_http_result au_list_jobs(au_http_request *rq)
{
    static const char *const query[] = {"limit",      "cursor",        "state", "prompt_id",
                                        "adapter_id", "created_after", "label", NULL};
    au_job_filter filter = {0};
    au_err err;
    if (!au_http_query_parse(rq, query) || !parse_filter(rq, &filter))
        return AU_HTTP_DONE;
    au_job **jobs;
    size_t n;
    bool more;
    au_status st = au_job_list(au_api_db(rq), au_http_arena(rq), &filter, &jobs, &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, au_job_json(jobs[i]));
    return au_page_reply(rq, data, more, n ? jobs[n - 1]->id : NULL);
}

/* ---- Submission ---- */

static au_status write_job(au_db *db, void *arg, au_err *err)
{
    au_job_plan *plan = arg;
    return au_job_submit(db, &plan->job, &plan->limits, &plan->result, err);
}

/* An honest estimate: when the first waiting job will be taken up. */
static au_http_result reply_queue_full(au_http_request *rq)
{
    au_queue_stats stats;
    int64_t seconds = RETRY_AFTER_UNKNOWN_S;
    if (au_queue_stats_get(au_api_db(rq), &stats, NULL) == AU_OK && stats.drain_ms >= 0)
        seconds = (stats.drain_ms + 999) / 1000;
    seconds = seconds < 1 ? 1 : seconds > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : seconds;
    au_http_set_header(rq, "Retry-After", "%d", (int)seconds);
    return au_http_problem(rq, AU_PROBLEM_QUEUE_FULL,
                           "%" PRId64 " jobs wait already, which is the limit",
                           au_api_of(rq)->limits.queue_limit);
}

/* What the check had found was gone when the transaction looked. */
au_http_result au_job_reply_fault(au_http_request *rq, const au_job_plan *plan)
{
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    bool variants = plan->job.n_variants > 1;
    const char *adapter =
        variants
            ? au_check_at(&c, au_check_at_index(&c, "/variants", plan->result.variant), "adapter")
            : "/adapter";
    switch (plan->result.fault) {
    case AU_SUBMIT_NO_PROMPT:
        au_check_add(&c, "/prompt_id", "not_found", NULL);
        break;
    case AU_SUBMIT_NO_ADAPTER:
        au_check_add(&c, adapter, "not_found", NULL);
        break;
    case AU_SUBMIT_UNFIT:
        au_check_add(&c, adapter, "unfit", NULL);
        break;
    case AU_SUBMIT_OK:
    case AU_SUBMIT_QUEUE_FULL:
        au_check_deinit(&c);
        return reply_queue_full(rq);
    }
    return au_check_reply(&c, rq);
}

/* Also called again by its own long poll: 201 when it saw the end. */
static au_http_result job_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const au_job_plan *plan = o->arg;
    au_http_result result = AU_HTTP_DONE;
    au_job *job;
    au_arena arena;
    if (o->status != AU_OK && plan->result.fault != AU_SUBMIT_OK)
        return au_job_reply_fault(rq, plan);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    if (au_job_wait_quiet(rq, plan->result.job_id, job_written, &result))
        return result;
    au_arena_init(&arena, JOB_ARENA_BYTES);
    if (load_job(rq, &arena, plan->result.job_id, &job) &&
        !au_job_wait_more(rq, job, job_written, &result)) {
        au_http_set_header(rq, "Location", "/v1/jobs/%s", job->id);
        result = reply_job(rq, post_status(rq, job), job);
    }
    au_arena_deinit(&arena);
    return result;
}

/* Whether there is room for what the job will make, on the disk of the database and on that of the
 * objects. */
static bool disk_is_low(const au_api *api)
{
    uint64_t data = UINT64_MAX, objects = UINT64_MAX;
    if (au_fs_free_bytes(&data, api->config->data_dir, NULL) != AU_OK ||
        au_store_free_bytes(api->store, &objects, NULL) != AU_OK)
        return false; /* not known: the write itself will tell */
    return (data < objects ? data : objects) < api->limits.min_free_disk;
}

bool au_job_may_submit(au_http_request *rq)
{
    const au_api *api = au_api_of(rq);
    if (!disk_is_low(api))
        return true;
    au_http_problem(rq, AU_PROBLEM_NO_SPACE,
                    "less than %" PRIu64 " bytes are free, so no job is accepted",
                    api->limits.min_free_disk);
    return false;
}

au_http_result au_post_job(au_http_request *rq)
{
    const au_api *api = au_api_of(rq);
    json_t *body;
    au_err err;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    au_job_plan *plan = au_arena_alloc(au_http_arena(rq), sizeof *plan);
    if (!plan)
        return au_api_busy(rq, 1, "out of memory");
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    au_status st = au_job_body_parse(&c, api, au_api_db(rq), body, plan, &err);
    if (st != AU_OK) {
        au_check_deinit(&c);
        return au_api_failed(rq, st, &err);
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    if (!au_job_may_submit(rq))
        return AU_HTTP_DONE;
    return au_api_create(
        rq, write_job, plan, job_written,
        &(au_api_creation){.status = 202, .prefix = "/v1/jobs/", .id = plan->result.job_id});
}

/* ---- Cancelling ---- */

typedef struct cancel {
    const char *id;
    au_cancel_result result;
    au_job_state state;
} cancel;

static au_status write_cancel(au_db *db, void *arg, au_err *err)
{
    cancel *c = arg;
    return au_job_cancel(db, c->id, &c->result, &c->state, err);
}

static au_http_result cancel_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const cancel *c = o->arg;
    au_job *job;
    if (o->status == AU_NOT_FOUND)
        return au_api_not_found(rq, "job", c->id);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    if (c->result == AU_CANCEL_TOO_LATE)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT,
                               "job %s is %s already and cannot be cancelled", c->id,
                               au_job_state_name(c->state));
    if (c->result == AU_CANCEL_DONE && au_api_of(rq)->janitor)
        au_janitor_kick(au_api_of(rq)->janitor);
    if (!load_job(rq, au_http_arena(rq), c->id, &job))
        return AU_HTTP_DONE;
    return au_http_reply_json(rq, c->result == AU_CANCEL_DONE ? 200 : 202, au_job_json(job));
}

au_http_result au_cancel_job(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    if (!id)
        return au_api_not_found(rq, "job", au_http_param(rq, "id"));
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    cancel *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c)
        return au_api_busy(rq, 1, "out of memory");
    c->id = id;
    return au_api_write(rq, write_cancel, c, cancel_written);
}
