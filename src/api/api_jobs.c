/* SPDX-License-Identifier: MIT */
/* /v1/jobs: list, read (with a long poll), cancel, delete. Making jobs is in submit.c and
 * api_again.c. */
#include <string.h>

#include "api/api.h"
#include "api/job_wait.h"
#include "api/submit.h"
#include "jobs/deletion.h"

static const char *const no_query[] = {NULL};

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
    au_arena_init(&arena, AU_JOB_ARENA_BYTES);
    if (au_api_load_job(rq, &arena, id, &job) && !au_job_wait_more(rq, job, au_get_job, &result))
        result = au_api_reply_job(rq, 200, job);
    au_arena_deinit(&arena);
    return result;
}

static bool parse_filter(au_http_request *rq, au_job_filter *f)
{
    au_page page;
    au_job_state state;
    if (!au_page_parse(rq, &page) || !au_query_uuid(rq, "prompt_id", &f->prompt_id) ||
        !au_query_uuid(rq, "adapter_id", &f->adapter_id) ||
        !au_query_times(rq, &f->created_after, &f->created_before))
        return false;
    f->model_name = au_http_query(rq, "model");
    f->state = au_http_query(rq, "state");
    f->label = au_http_query(rq, "label");
    f->before_id = page.before_id;
    f->limit = page.limit;
    if (f->state && !au_job_state_parse(f->state, &state))
        return au_query_refuse(rq, "state",
                               "queued, processing, cancelling, completed, failed or cancelled");
    return true;
}

au_http_result au_list_jobs(au_http_request *rq)
{
    static const char *const query[] = {"limit",          "cursor", "state", "prompt_id",
                                        "adapter_id",     "model",  "label", "created_after",
                                        "created_before", NULL};
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

/* ---- Cancelling ---- */

typedef struct cancel {
    const char *id;
    int64_t deleted_at;
    au_cancel_result result;
    au_job_state state;
} cancel;

static au_status write_cancel(au_db *db, void *arg, au_err *err)
{
    cancel *c = arg;
    au_status st = au_db_int(&c->deleted_at, db, 0, err,
                             "SELECT deleted_at FROM jobs WHERE id = ?1", "t", c->id);
    if (st != AU_OK || c->deleted_at)
        return st;
    return au_job_cancel(db, c->id, &c->result, &c->state, err);
}

static au_http_result cancel_written(au_http_request *rq)
{
    const cancel *c = au_api_outcome_of(rq)->arg;
    au_job *job;
    if (au_api_write_failed(rq, "job", c->id))
        return AU_HTTP_DONE;
    if (c->deleted_at)
        return au_api_gone(rq, "job", c->id);
    if (c->result == AU_CANCEL_TOO_LATE)
        return au_http_problem(rq, AU_PROBLEM_CONFLICT,
                               "job %s is %s already and cannot be cancelled", c->id,
                               au_job_state_name(c->state));
    if (c->result == AU_CANCEL_DONE && au_api_of(rq)->janitor)
        au_janitor_kick(au_api_of(rq)->janitor);
    if (!au_api_load_job(rq, au_http_arena(rq), c->id, &job))
        return AU_HTTP_DONE;
    if (c->result == AU_CANCEL_UNDER_WAY && job->state == AU_JOB_CANCELLED) {
        /* Its worker was quick; the reply tells what the cancel found. */
        job->state = c->state;
        job->finished_at = 0;
    }
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

/* ---- Deleting ---- */

typedef struct deletion {
    const char *id;
    bool deleted;
} deletion;

static au_status write_deletion(au_db *db, void *arg, au_err *err)
{
    deletion *d = arg;
    return au_job_delete(db, d->id, &d->deleted, err);
}

static au_http_result deletion_written(au_http_request *rq)
{
    const deletion *d = au_api_outcome_of(rq)->arg;
    if (au_api_write_failed(rq, "job", d->id))
        return AU_HTTP_DONE;
    if (!d->deleted) /* somebody else was first */
        return au_api_gone(rq, "job", d->id);
    if (au_api_of(rq)->janitor)
        au_janitor_kick(au_api_of(rq)->janitor);
    return au_http_reply_empty(rq, 204);
}

au_http_result au_delete_job(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    au_job *job;
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "job", au_http_param(rq, "id"));
    if (!au_api_load_job(rq, au_http_arena(rq), id, &job) ||
        !au_http_if_match(rq, au_job_json(job)))
        return AU_HTTP_DONE;
    deletion *d = au_arena_alloc(au_http_arena(rq), sizeof *d);
    if (!d)
        return au_api_busy(rq, 1, "out of memory");
    d->id = id;
    return au_api_write(rq, write_deletion, d, deletion_written);
}
