/* SPDX-License-Identifier: MIT */
/* From a checked plan to a job in the queue, and POST /v1/jobs itself. The transaction looks again
 * at what the check had found (prompt, adapters, length of the queue). Runs on loop threads. */
#include "api/submit.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "api/job_wait.h"
#include "audio/audio.h"
#include "base/fs.h"

enum {
    RETRY_AFTER_UNKNOWN_S = 10,
    RETRY_AFTER_MAX_S = 3600,
    DRAINING_RETRY_S = 60, /* a drained server ends or is resumed by hand */
    HEADER_BYTES = 1024,   /* of a file, with its tags */
};

/* ---- What several requests for jobs share ---- */

bool au_api_load_job(au_http_request *rq, au_arena *arena, const char *id, au_job **job)
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

au_http_result au_api_reply_job(au_http_request *rq, int status, const au_job *job)
{
    int wait_s = au_job_wait_s(rq);
    if (wait_s >= 0)
        au_http_set_header(rq, "Preference-Applied", "wait=%d", wait_s);
    /* A submission that waited and saw the end is a 201. */
    if (strcmp(au_http_method(rq), "POST") == 0)
        status = wait_s >= 0 && au_job_state_is_final(job->state) ? 201 : 202;
    return au_http_reply_json(rq, status, au_job_json(job));
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
    if (atomic_load(&api->draining)) {
        au_api_busy(rq, DRAINING_RETRY_S, "the server is being drained and takes no new jobs");
        return false;
    }
    if (disk_is_low(api)) {
        au_http_problem(rq, AU_PROBLEM_NO_SPACE,
                        "less than %" PRIu64 " bytes are free, so no job is accepted",
                        api->limits.min_free_disk);
        return false;
    }
    return true;
}

au_http_result au_api_queue_full(au_http_request *rq)
{
    au_queue_stats stats;
    int64_t seconds = RETRY_AFTER_UNKNOWN_S;
    /* When the first waiting job will be taken up. */
    if (au_queue_stats_get(au_api_db(rq), &stats, NULL) == AU_OK && stats.drain_ms >= 0)
        seconds = (stats.drain_ms + 999) / 1000;
    seconds = seconds < 1 ? 1 : seconds > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : seconds;
    au_http_set_header(rq, "Retry-After", "%d", (int)seconds);
    au_http_set_header(rq, "RateLimit-Policy", "\"queue\";q=%" PRId64,
                       au_api_of(rq)->limits.queue_limit);
    au_http_set_header(rq, "RateLimit", "\"queue\";r=0;t=%d", (int)seconds);
    return au_http_problem(rq, AU_PROBLEM_QUEUE_FULL,
                           "%" PRId64 " jobs wait already, which is the limit",
                           au_api_of(rq)->limits.queue_limit);
}

/* ---- Submission ---- */

static au_status write_job(au_db *db, void *arg, au_err *err)
{
    au_job_plan *plan = arg;
    return au_job_submit(db, &plan->job, &plan->limits, &plan->result, err);
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
        return au_api_queue_full(rq);
    }
    return au_check_reply(&c, rq);
}

/* Also called again while it waits for the end. */
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
    au_arena_init(&arena, AU_JOB_ARENA_BYTES);
    if (au_api_load_job(rq, &arena, plan->result.job_id, &job) &&
        !au_job_wait_more(rq, job, job_written, &result)) {
        au_http_set_header(rq, "Location", "/v1/jobs/%s", job->id);
        result = au_api_reply_job(rq, 202, job);
    }
    au_arena_deinit(&arena);
    return result;
}

au_http_result au_api_submit(au_http_request *rq, au_job_plan *plan)
{
    return au_api_create(
        rq, write_job, plan, job_written,
        &(au_api_creation){.status = 202, .prefix = "/v1/jobs/", .id = plan->result.job_id});
}

/* ---- A dry run ---- */

/* Of the whole job: exact for the uncompressed formats but for the length of tags. */
static int64_t estimate_bytes(const au_job_plan *plan, const au_model_info *info)
{
    double frames = plan->params.duration_s * info->sample_rate;
    double values = frames * info->channels, bytes = 0;
    au_format format = AU_FORMAT_WAV;
    (void)au_format_parse(plan->job.format, &format); /* the plan was checked */
    switch (format) {
    case AU_FORMAT_WAV24:
        bytes = values * 3;
        break;
    case AU_FORMAT_WAVF:
        bytes = values * 4;
        break;
    case AU_FORMAT_FLAC:
        bytes = values * 2 * 0.6; /* what music usually leaves of 16 bits */
        break;
    case AU_FORMAT_MP3:
    case AU_FORMAT_OPUS:
        bytes = plan->params.duration_s * 96000 / 8 * info->channels; /* as they are encoded */
        break;
    case AU_FORMAT_WAV:
    case AU_FORMAT_COUNT:
        bytes = values * 2;
        break;
    }
    size_t variants = plan->job.n_variants ? plan->job.n_variants : 1;
    return (int64_t)((bytes + HEADER_BYTES) * plan->job.num_samples * (double)variants);
}

static json_t *known_ms(int64_t ms)
{
    return ms >= 0 ? json_integer(ms) : json_null();
}

static au_status estimate(json_t **out, au_http_request *rq, const au_job_plan *plan,
                          const au_model_info *info, au_err *err)
{
    au_queue_place place;
    int64_t run_ms;
    au_status st = AU_OK;
    double seconds = plan->params.duration_s * plan->job.num_samples *
                     (double)(plan->job.n_variants ? plan->job.n_variants : 1);
    AU_TRY(au_queue_place_of(au_api_db(rq), plan->job.priority, &plan->limits, &place, err));
    AU_TRY(au_queue_run_ms(au_api_db(rq), plan->job.model_name, seconds, &run_ms, err));
    *out = json_pack("{s:I, s:o, s:o, s:I}", "position", (json_int_t)place.position, "start_ms",
                     known_ms(place.start_ms), "time_ms", known_ms(run_ms), "bytes",
                     (json_int_t)estimate_bytes(plan, info));
done:
    return st;
}

static au_status plan_variants(json_t **list, au_http_request *rq, const au_job_plan *plan,
                               au_err *err)
{
    au_status st = AU_OK;
    *list = json_array();
    for (size_t i = 0; i < plan->job.n_variants; i++) {
        const au_job_variant *v = &plan->job.variants[i];
        au_adapter_row *row = NULL;
        if (v->adapter_id)
            AU_TRY(au_adapter_row_get(au_api_db(rq), au_http_arena(rq), v->adapter_id, &row, err));
        json_t *adapter =
            row ? au_adapter_use_json(row->id, row->name, v->strength, row->sha256) : json_null();
        au_list_add(list, json_pack("{s:o}", "adapter", adapter));
    }
done:
    return st;
}

static au_status plan_prompt(json_t **out, au_http_request *rq, const au_job_new *job, au_err *err)
{
    au_prompt *prompt = NULL;
    au_status st = AU_OK;
    if (job->prompt_id)
        AU_TRY(au_prompt_get(au_api_db(rq), au_http_arena(rq), job->prompt_id, &prompt, err));
    *out = json_pack("{s:s, s:s*}", "text", prompt ? prompt->text : job->prompt_text,
                     "negative_text", prompt ? prompt->negative_text : job->negative_text);
done:
    return st;
}

static au_http_result reply_dry_run(au_http_request *rq, const au_job_plan *plan)
{
    const au_job_new *job = &plan->job;
    const au_model_info *info =
        au_model_get_info(au_registry_find(au_api_of(rq)->registry, job->model_name));
    json_t *prompt = NULL, *variants = NULL, *costs = NULL;
    bool drawn = strcmp(job->seed_source, "random") == 0;
    au_err err;
    au_status st = AU_OK;
    AU_TRY(plan_prompt(&prompt, rq, job, &err));
    AU_TRY(plan_variants(&variants, rq, plan, &err));
    AU_TRY(estimate(&costs, rq, plan, info, &err));
    return au_http_reply_json(
        rq, 200,
        json_pack("{s:b, s:s, s:s?, s:o, s:{s:s, s:s}, s:o, s:o, s:s, s:i, s:o, s:s, s:i, s:o, "
                  "s:o, s:o}",
                  "dry_run", 1, "label", job->label ? job->label : "", "prompt_id", job->prompt_id,
                  "prompt", prompt, "model", "name", job->model_name, "fingerprint",
                  job->model_fingerprint, "variants", variants, "params", au_text_json(job->params),
                  "format", job->format, "num_samples", job->num_samples, "seed",
                  drawn ? json_null() : json_integer((json_int_t)job->seed), "seed_source",
                  job->seed_source, "priority", job->priority, "deadline_s",
                  job->deadline_ms ? json_real((double)job->deadline_ms / 1000) : json_null(),
                  "warnings", au_text_json(job->warnings ? job->warnings : "[]"), "estimate",
                  costs));
done:
    json_decref(prompt);
    json_decref(variants);
    return au_api_failed(rq, st, &err);
}

/* ---- POST /v1/jobs ---- */

static bool parse_dry_run(au_http_request *rq, bool *dry)
{
    static const char *const query[] = {"dry_run", NULL};
    if (!au_http_query_parse(rq, query))
        return false;
    const char *value = au_http_query(rq, "dry_run");
    *dry = value && strcmp(value, "1") == 0;
    if (value && !*dry && strcmp(value, "0") != 0)
        return au_query_refuse(rq, "dry_run", "0 or 1");
    return true;
}

static au_http_result dry_run(au_http_request *rq, const au_job_plan *plan)
{
    int64_t waiting;
    au_err err;
    au_status st = au_queue_count(au_api_db(rq), &waiting, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (waiting >= plan->limits.queue_limit)
        return au_api_queue_full(rq);
    return reply_dry_run(rq, plan);
}

au_http_result au_post_job(au_http_request *rq)
{
    const au_api *api = au_api_of(rq);
    json_t *body;
    au_err err;
    bool dry;
    if (!parse_dry_run(rq, &dry) || !au_http_body_json(rq, &body))
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
    return dry ? dry_run(rq, plan) : au_api_submit(rq, plan);
}
