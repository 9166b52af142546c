/* SPDX-License-Identifier: MIT */
/* Making again what was made or tried before: POST /v1/jobs/{id}/retry, GET
 * /v1/samples/{id}/recipe, POST /v1/samples/{id}/reproduce. What cannot give the same is refused
 * with the reason: another model stands under the name, or the adapter is gone. */
#include <inttypes.h>
#include <string.h>

#include "api/api.h"
#include "api/submit.h"
#include "base/json.h"

enum { EXPECTED_BYTES = 4096 };

static const char *const no_query[] = {NULL};

/* Whether the model of a record is the one that is served. False: a 409 has been set. */
static bool check_model(au_http_request *rq, const char *name, const char *fingerprint)
{
    const au_model *model = au_registry_find(au_api_of(rq)->registry, name);
    if (model && strcmp(au_model_get_info(model)->fingerprint, fingerprint) == 0)
        return true;
    au_http_problem(rq, AU_PROBLEM_CONFLICT,
                    model ? "model %s has changed: its fingerprint is no longer %.16s..."
                          : "model %s with the fingerprint %.16s... is not served here",
                    name, fingerprint);
    return false;
}

static au_job_plan *new_plan(au_http_request *rq)
{
    au_job_plan *plan = au_arena_alloc(au_http_arena(rq), sizeof *plan);
    if (!plan)
        au_api_busy(rq, 1, "out of memory");
    else
        plan->limits = au_api_of(rq)->limits;
    return plan;
}

/* ---- Retry ---- */

/* One variant for the first sample of each. */
static bool copy_variants(au_http_request *rq, const au_job *job, au_job_plan *plan)
{
    au_job_variant *v = au_arena_alloc(au_http_arena(rq), (size_t)job->num_variants * sizeof *v);
    if (!v) {
        au_api_busy(rq, 1, "out of memory");
        return false;
    }
    for (size_t i = 0; i < job->n_samples; i++) {
        const au_job_sample *s = &job->samples[i];
        if (s->index == 0)
            v[s->variant] = (au_job_variant){s->adapter_id, s->strength};
    }
    plan->job.variants = v;
    plan->job.n_variants = (size_t)job->num_variants;
    return true;
}

static bool check_retry(au_http_request *rq, const au_job *job)
{
    const au_limits *limits = &au_api_of(rq)->limits;
    if (job->state != AU_JOB_FAILED && job->state != AU_JOB_CANCELLED) {
        au_http_problem(rq, AU_PROBLEM_CONFLICT,
                        "job %s is %s; only failed and cancelled jobs can be tried again", job->id,
                        au_job_state_name(job->state));
        return false;
    }
    if ((int64_t)job->n_samples > limits->max_samples) {
        au_http_problem(rq, AU_PROBLEM_CONFLICT,
                        "job %s makes %zu samples, more than the %" PRId64
                        " that this server takes now",
                        job->id, job->n_samples, limits->max_samples);
        return false;
    }
    return check_model(rq, job->model_name, job->model_fingerprint);
}

au_http_result au_retry_job(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    au_job *job;
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "job", au_http_param(rq, "id"));
    if (!au_api_load_job(rq, au_http_arena(rq), id, &job) || !check_retry(rq, job) ||
        !au_job_may_submit(rq))
        return AU_HTTP_DONE;
    au_job_plan *plan = new_plan(rq);
    if (!plan || !copy_variants(rq, job, plan))
        return AU_HTTP_DONE;
    au_job_new *again = &plan->job;
    again->prompt_id = job->prompt_id;
    again->model_name = job->model_name;
    again->model_fingerprint = job->model_fingerprint;
    again->num_samples = job->num_samples;
    again->seed = job->seed;
    again->seed_source = job->seed_source;
    again->params = job->params;
    again->format = job->format;
    again->label = job->label;
    again->priority = job->priority;
    again->deadline_ms = job->deadline_at ? job->deadline_at - job->created_at : 0;
    again->warnings = job->warnings;
    again->retry_of = job->id;
    again->reproduces = job->reproduces;
    again->expected = job->expected;
    return au_api_submit(rq, plan);
}

/* ---- Samples ---- */

/* The sample of {id}, not deleted; NULL when a problem has been set. */
static const au_sample *find_sample(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    au_sample *sample = NULL;
    au_err err;
    if (!au_http_query_parse(rq, no_query))
        return NULL;
    au_status st =
        id ? au_sample_get(au_api_db(rq), au_http_arena(rq), id, &sample, &err) : AU_NOT_FOUND;
    if (st == AU_OK && !sample->deleted_at)
        return sample;
    if (st == AU_OK)
        au_api_gone(rq, "sample", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "sample", au_http_param(rq, "id"));
    else
        au_api_failed(rq, st, &err);
    return NULL;
}

au_http_result au_get_recipe(au_http_request *rq)
{
    const au_sample *s = find_sample(rq);
    if (!s)
        return AU_HTTP_DONE;
    /* An adapter's id stands for its content for ever. */
    json_t *adapter = s->adapter_id
                          ? json_pack("{s:s, s:f}", "id", s->adapter_id, "strength", s->strength)
                          : json_null();
    return au_http_reply_json(rq, 200,
                              json_pack("{s:s, s:s*, s:s, s:o, s:i, s:I, s:o, s:s}", "prompt",
                                        s->prompt_text, "negative_text", s->negative_text, "model",
                                        s->model_name, "adapter", adapter, "num_samples", 1, "seed",
                                        (json_int_t)s->seed, "params", au_text_json(s->params),
                                        "format", s->format));
}

/* Whether the adapter is there as it was. False: a problem has been set. */
static bool check_adapter(au_http_request *rq, const au_sample *s)
{
    au_adapter_row *row = NULL;
    au_err err;
    if (!s->adapter_id)
        return true;
    au_status st = au_adapter_row_get(au_api_db(rq), au_http_arena(rq), s->adapter_id, &row, &err);
    if (st != AU_OK && st != AU_NOT_FOUND) {
        au_api_failed(rq, st, &err);
        return false;
    }
    if (st == AU_OK && !row->deleted_at && strcmp(row->status, "ready") == 0)
        return true;
    au_http_problem(rq, AU_PROBLEM_CONFLICT,
                    "adapter %s, with which the sample was made, is not there any more",
                    s->adapter_name ? s->adapter_name : s->adapter_id);
    return false;
}

/* What the job's sample will be compared with: it must outlive the sample itself. */
static const char *expected_json(au_http_request *rq, const au_sample *s)
{
    json_t *recipe = au_text_json(s->recipe);
    json_t *j = json_pack("{s:s, s:O*, s:O*}", "sha256", s->sha256, "numerics",
                          json_object_get(recipe, "numerics"), "version",
                          json_object_get(recipe, "version"));
    au_buf text;
    au_buf_init(&text, EXPECTED_BYTES);
    if (j)
        au_json_dump(&text, j);
    const char *kept =
        j && text.status == AU_OK ? au_arena_strdup(au_http_arena(rq), au_buf_cstr(&text)) : NULL;
    au_buf_deinit(&text);
    json_decref(j);
    json_decref(recipe);
    return kept;
}

/* The prompt by its id while that may be used, else by its text. False: a problem has been set. */
static bool copy_prompt(au_http_request *rq, const au_sample *s, au_job_new *job)
{
    au_prompt *prompt = NULL;
    au_err err;
    au_status st = au_prompt_get(au_api_db(rq), au_http_arena(rq), s->prompt_id, &prompt, &err);
    if (st != AU_OK && st != AU_NOT_FOUND) {
        au_api_failed(rq, st, &err);
        return false;
    }
    if (st == AU_OK && !prompt->deleted_at)
        job->prompt_id = s->prompt_id;
    job->prompt_text = s->prompt_text;
    job->negative_text = s->negative_text;
    return true;
}

au_http_result au_reproduce_sample(au_http_request *rq)
{
    const au_sample *s = find_sample(rq);
    if (!s || !au_api_empty_body(rq) || !check_model(rq, s->model_name, s->model_fingerprint) ||
        !check_adapter(rq, s) || !au_job_may_submit(rq))
        return AU_HTTP_DONE;
    au_job_plan *plan = new_plan(rq);
    if (!plan || !copy_prompt(rq, s, &plan->job))
        return AU_HTTP_DONE;
    au_job_variant *v = au_arena_alloc(au_http_arena(rq), sizeof *v);
    const char *expected = expected_json(rq, s);
    if (!v || !expected)
        return au_api_busy(rq, 1, "out of memory");
    *v = (au_job_variant){s->adapter_id, s->strength};
    au_job_new *job = &plan->job;
    job->model_name = s->model_name;
    job->model_fingerprint = s->model_fingerprint;
    job->variants = v;
    job->n_variants = 1;
    job->num_samples = 1;
    job->seed = s->seed;
    job->seed_source = "request";
    job->params = s->params;
    job->format = s->format;
    job->reproduces = s->id;
    job->expected = expected;
    return au_api_submit(rq, plan);
}
