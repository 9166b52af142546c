/* SPDX-License-Identifier: MIT */
/* The JSON forms of records that occur in several resources. Texts that the database holds as JSON
 * are embedded as what they are. Stateless. */
#include <math.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"

void au_list_add(json_t **list, json_t *item)
{
    if (*list && json_array_append_new(*list, item) != 0) {
        json_decref(*list);
        *list = NULL;
    }
}

json_t *au_time_json(int64_t unix_ms)
{
    char text[AU_TIME_TEXT];
    return unix_ms ? json_string(au_time_format(text, unix_ms)) : json_null();
}

json_t *au_text_json(const char *json_text)
{
    return json_text ? json_loads(json_text, JSON_DECODE_ANY, NULL) : json_null();
}

json_t *au_adapter_use_json(const char *id, const char *name, double strength, const char *sha256)
{
    if (!id)
        return json_null();
    return json_pack("{s:s, s:s?, s:f, s:s?}", "id", id, "name", name, "strength", strength,
                     "sha256", sha256);
}

/* A measured value that may be unknown. */
static json_t *measure(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *model_ref(const char *name, const char *fingerprint)
{
    return json_pack("{s:s, s:s}", "name", name, "fingerprint", fingerprint);
}

static json_t *job_variants(const au_job *job)
{
    json_t *list = json_array();
    int next = 0;
    /* The samples are ordered by variant; the first of each says what it is. */
    for (size_t i = 0; list && i < job->n_samples; i++) {
        const au_job_sample *s = &job->samples[i];
        if (s->variant != next)
            continue;
        next++;
        json_t *adapter =
            au_adapter_use_json(s->adapter_id, s->adapter_name, s->strength, s->adapter_sha256);
        au_list_add(&list, json_pack("{s:o}", "adapter", adapter));
    }
    return list;
}

static json_t *job_samples(const au_job *job)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < job->n_samples; i++) {
        const au_job_sample *s = &job->samples[i];
        au_list_add(&list, json_pack("{s:i, s:i, s:I, s:s, s:s*}", "index", s->index, "variant",
                                     s->variant, "seed", (json_int_t)s->seed, "state", s->state,
                                     "sample_id", s->sample_id));
    }
    return list;
}

/* null until an attempt has begun. */
static json_t *job_progress(const au_job *job)
{
    if (job->state == AU_JOB_QUEUED || (!job->started_at && !job->progress_at))
        return json_null();
    json_t *eta = job->eta_ms >= 0 ? json_integer(job->eta_ms) : json_null();
    const char *stage = job->stage && *job->stage ? job->stage : NULL;
    return json_pack("{s:f, s:s?, s:I, s:I, s:o, s:o}", "percent", job->percent, "stage", stage,
                     "step", (json_int_t)job->step, "steps", (json_int_t)job->steps, "eta_ms", eta,
                     "updated_at", au_time_json(job->progress_at));
}

static json_t *job_queue(const au_job *job)
{
    if (job->state != AU_JOB_QUEUED)
        return json_null();
    json_t *start =
        job->estimated_start_ms >= 0 ? json_integer(job->estimated_start_ms) : json_null();
    return json_pack("{s:I, s:o}", "position", (json_int_t)job->queue_position,
                     "estimated_start_ms", start);
}

/* Why the bytes are not the same, as far as it can be told; NULL: they are, or it cannot. */
static json_t *why_different(const json_t *expected, const json_t *actual)
{
    static const char *const fields[][2] = {{"numerics", "numerics class"}, {"version", "version"}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *then = json_string_value(json_object_get(expected, fields[i][0]));
        const char *now = json_string_value(json_object_get(actual, fields[i][0]));
        if (then && now && strcmp(then, now) != 0)
            return json_sprintf("the sample was made with %s %s, this one with %s", fields[i][1],
                                then, now);
    }
    return NULL;
}

/* NULL: the job reproduces nothing, or has not yet. */
static json_t *job_reproduction(const au_job *job)
{
    if (!job->expected || !job->actual_sha256)
        return NULL;
    json_t *expected = au_text_json(job->expected), *actual = au_text_json(job->actual_recipe);
    const char *sha256 = json_string_value(json_object_get(expected, "sha256"));
    bool same = sha256 && strcmp(sha256, job->actual_sha256) == 0;
    json_t *j = json_pack("{s:b, s:s?, s:s, s:o*}", "identical", same, "expected_sha256", sha256,
                          "actual_sha256", job->actual_sha256, "reason",
                          same ? NULL : why_different(expected, actual));
    json_decref(expected);
    json_decref(actual);
    return j;
}

json_t *au_job_json(const au_job *job)
{
    json_t *prompt =
        json_pack("{s:s, s:s*}", "text", job->prompt_text, "negative_text", job->negative_text);
    json_t *urls = json_pack("{s:o, s:o, s:o}", "self", json_sprintf("/v1/jobs/%s", job->id),
                             "cancel", json_sprintf("/v1/jobs/%s/cancel", job->id), "events",
                             json_sprintf("/v1/jobs/%s/events", job->id));
    json_t *what =
        json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:i, s:I, s:s}", "id", job->id,
                  "label", job->label, "state", au_job_state_name(job->state), "prompt_id",
                  job->prompt_id, "prompt", prompt, "model",
                  model_ref(job->model_name, job->model_fingerprint), "variants", job_variants(job),
                  "params", au_text_json(job->params), "format", job->format, "num_samples",
                  job->num_samples, "seed", (json_int_t)job->seed, "seed_source", job->seed_source);
    json_t *how = json_pack(
        "{s:o, s:o, s:o, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:s?, s:s*, s:o*, s:o}",
        "samples", job_samples(job), "progress", job_progress(job), "queue", job_queue(job),
        "priority", job->priority, "attempt", job->attempt, "max_attempts", job->max_attempts,
        "created_at", au_time_json(job->created_at), "started_at", au_time_json(job->started_at),
        "finished_at", au_time_json(job->finished_at), "deadline_at",
        au_time_json(job->deadline_at), "error", au_text_json(job->error), "warnings",
        au_text_json(job->warnings), "retry_of", job->retry_of, "reproduces", job->reproduces,
        "reproduction", job_reproduction(job), "urls", urls);
    if (!what || !how || json_object_update(what, how) != 0) {
        json_decref(what);
        what = NULL;
    }
    json_decref(how);
    return what;
}

static json_t *rating_json(const au_sample *s)
{
    return s->rating ? json_integer(s->rating) : json_null();
}

json_t *au_sample_row_json(const au_sample *s)
{
    json_t *adapter = s->adapter_id ? json_pack("{s:s, s:s?, s:f}", "id", s->adapter_id, "name",
                                                s->adapter_name, "strength", s->strength)
                                    : json_null();
    json_t *urls = json_pack("{s:o, s:o}", "self", json_sprintf("/v1/samples/%s", s->id), "audio",
                             json_sprintf("/v1/samples/%s/audio", s->id));
    return json_pack(
        "{s:s, s:s, s:i, s:i, s:{s:s, s:s?}, s:{s:s}, s:o, s:I, s:s, s:f, s:o, s:s, s:o, s:o, s:b, "
        "s:o, s:o, s:o}",
        "id", s->id, "job_id", s->job_id, "index", s->index, "variant", s->variant, "prompt", "id",
        s->prompt_id, "text", s->prompt_text, "model", "name", s->model_name, "adapter", adapter,
        "seed", (json_int_t)s->seed, "format", s->format, "duration_s", s->duration_s,
        "loudness_lufs", measure(s->loudness_lufs), "title", s->title, "tags",
        au_text_json(s->tags), "rating", rating_json(s), "starred", s->starred, "mini",
        au_text_json(s->mini), "created_at", au_time_json(s->created_at), "urls", urls);
}

json_t *au_sample_json(const au_sample *s)
{
    /* What the law asks of synthetic audio to say in a form that machines read (IPTC). */
    json_t *marking = json_pack("{s:s}", "digital_source_type", "trainedAlgorithmicMedia");
    json_t *prompt = json_pack("{s:s, s:s?, s:s*}", "id", s->prompt_id, "text", s->prompt_text,
                               "negative_text", s->negative_text);
    json_t *urls = json_pack("{s:o, s:o, s:o, s:o}", "self", json_sprintf("/v1/samples/%s", s->id),
                             "audio", json_sprintf("/v1/samples/%s/audio", s->id), "peaks",
                             json_sprintf("/v1/samples/%s/peaks", s->id), "job",
                             json_sprintf("/v1/jobs/%s", s->job_id));
    json_t *adapter =
        au_adapter_use_json(s->adapter_id, s->adapter_name, s->strength, s->adapter_sha256);
    json_t *what =
        json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:o, s:I, s:o}", "id", s->id, "job_id", s->job_id,
                  "index", s->index, "variant", s->variant, "prompt", prompt, "model",
                  model_ref(s->model_name, s->model_fingerprint), "adapter", adapter, "seed",
                  (json_int_t)s->seed, "params", au_text_json(s->params));
    json_t *sound = json_pack(
        "{s:s, s:i, s:i, s:I, s:f, s:I, s:s, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:b, s:o, s:o, "
        "s:o}",
        "format", s->format, "sample_rate", s->sample_rate, "channels", s->channels, "frames",
        (json_int_t)s->frames, "duration_s", s->duration_s, "bytes", (json_int_t)s->bytes, "sha256",
        s->sha256, "storage_path", s->store_key, "loudness_lufs", measure(s->loudness_lufs),
        "true_peak_dbtp", measure(s->true_peak_dbtp), "marking", marking, "title", s->title, "tags",
        au_text_json(s->tags), "rating", rating_json(s), "starred", s->starred, "mini",
        au_text_json(s->mini), "created_at", au_time_json(s->created_at), "urls", urls);
    if (!what || !sound || json_object_update(what, sound) != 0) {
        json_decref(what);
        what = NULL;
    }
    json_decref(sound);
    return what;
}

json_t *au_prompt_json(const au_prompt *p)
{
    return json_pack("{s:s, s:s, s:s?, s:o, s:s, s:o, s:{s:o}}", "id", p->id, "text", p->text,
                     "negative_text", p->negative_text, "attributes", au_text_json(p->attributes),
                     "title", p->title, "created_at", au_time_json(p->created_at), "urls", "self",
                     json_sprintf("/v1/prompts/%s", p->id));
}
