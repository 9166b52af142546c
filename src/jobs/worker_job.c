/* SPDX-License-Identifier: MIT */
/* One job on the engine thread: opens model and adapters, runs the rows of the missing samples in
 * one request, stores and commits each clip as it is finished, and reports the end. Whatever stops
 * it, the state in the database decides what is done: cancelling is cleaned, a lost lease is left
 * alone, a held job is completed, failed or handed back.
 *
 * A clip's way: encode, announce its key, put the object, commit the row. The object is removed
 * again if the commit finds the lease gone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audio/audio.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/params_json.h"
#include "jobs/worker_priv.h"

enum {
    MAX_RECIPE_BYTES = 1 << 20,
    MIN_ETA_STEPS = 3, /* before that the rate is not known */
    REPORT_PAUSE_MS = 200,
};
static const double MAX_DURATION_S = 300; /* the server has checked its own limit */
static const double ALMOST_DONE = 99.9;   /* 100 comes with the last commit */

typedef struct run {
    au_worker *w;
    const au_job *job;
    au_model *model;
    au_params params;
    char *params_json; /* owned */
    au_format format;
    const au_job_sample **missing; /* [n_rows]; owned array */
    au_row *rows;                  /* [n_rows]; owned */
    au_adapter **adapters;         /* [n_rows]; owned references */
    size_t n_rows;
    double floor; /* share of the samples that were there before */
    int64_t began;
    bool completed;
    const char *type; /* of the problem, where a step knows better than the status */
} run;

/* ---- Preparing
 * ------------------------------------------------------------------------------------------ */

static au_status prepare_row(run *r, size_t i, au_engine_cache *cache, au_err *err)
{
    const au_job_sample *s = r->missing[i];
    au_status st = AU_OK;
    if (s->adapter_sha256) {
        r->type = "adapter-missing";
        AU_TRY(au_engine_cache_adapter(cache, r->w, r->model, s->adapter_sha256, &r->adapters[i],
                                       err));
        r->type = NULL;
    }
    r->rows[i] = (au_row){.size = sizeof(au_row),
                          .prompt = r->job->prompt_text,
                          .negative = r->job->negative_text,
                          .adapter = r->adapters[i],
                          .strength = s->strength,
                          .seed = s->seed,
                          .params = &r->params};
done:
    return st;
}

static au_status prepare(run *r, au_engine_cache *cache, au_err *err)
{
    const au_job *job = r->job;
    au_status st = AU_OK;
    AU_TRY(au_engine_cache_model(cache, r->w, job->model_name, &r->model, err));
    const char *fingerprint = au_model_get_info(r->model)->fingerprint;
    if (strcmp(fingerprint, job->model_fingerprint) != 0) {
        r->type = "model-changed";
        st = au_fail(err, AU_INVALID,
                     "model %s has fingerprint %.16s..., the job was made for %.16s...",
                     job->model_name, fingerprint, job->model_fingerprint);
        goto done;
    }
    AU_TRY(au_params_from_json(&r->params, job->params, err));
    AU_TRY(au_params_json(&r->params, &r->params_json, err));
    AU_FAIL_IF(!au_format_parse(job->format, &r->format), AU_UNSUPPORTED, "format %s is not known",
               job->format);
    AU_TRY(au_calloc(&r->missing, job->n_samples, sizeof *r->missing, err));
    AU_TRY(au_calloc(&r->rows, job->n_samples, sizeof *r->rows, err));
    AU_TRY(au_calloc(&r->adapters, job->n_samples, sizeof *r->adapters, err));
    for (size_t i = 0; i < job->n_samples; i++) {
        if (!job->samples[i].sample_id)
            r->missing[r->n_rows++] = &job->samples[i];
    }
    AU_FAIL_IF(r->n_rows == 0, AU_INTERNAL, "job %s misses no sample", job->id);
    r->floor = (double)job->n_completed / (double)job->n_samples;
    for (size_t i = 0; i < r->n_rows; i++)
        AU_TRY(prepare_row(r, i, cache, err));
done:
    return st;
}

static void run_deinit(run *r)
{
    for (size_t i = 0; r->adapters && i < r->n_rows; i++) {
        if (r->adapters[i])
            au_adapter_unref(&r->adapters[i]);
    }
    free(r->adapters);
    free(r->rows);
    free(r->missing);
    free(r->params_json);
}

/* ---- Callbacks of the engine
 * ------------------------------------------------------------------------------ */

static bool on_cancelled(void *user, size_t row)
{
    run *r = user;
    (void)row;
    return atomic_load_explicit(&r->w->stop, memory_order_relaxed) != AU_STOP_NO;
}

static const char *stage_name(au_stage s)
{
    return s == AU_STAGE_TEXT ? "text" : s == AU_STAGE_DECODE ? "decode" : "codec";
}

static void on_progress(void *user, const au_progress *p)
{
    run *r = user;
    au_worker *w = r->w;
    double percent = 100 * (r->floor + (1 - r->floor) * p->fraction);
    int64_t eta_ms = -1;
    if (p->step >= MIN_ETA_STEPS && p->fraction > 0)
        eta_ms = (int64_t)((double)(au_mono_ms() - r->began) * (1 - p->fraction) / p->fraction);
    pthread_mutex_lock(&w->lock);
    w->progress = (au_job_progress){.percent = percent < ALMOST_DONE ? percent : ALMOST_DONE,
                                    .stage = stage_name(p->stage),
                                    .step = (int64_t)p->step,
                                    .steps = (int64_t)p->steps,
                                    .eta_ms = eta_ms};
    w->progress_new = true;
    pthread_mutex_unlock(&w->lock);
}

/* Everything needed to make this sample again, as one JSON object; owned by the caller. */
static au_status recipe_json(char **out, const run *r, const au_job_sample *s, au_err *err)
{
    const au_job *job = r->job;
    json_t *params = NULL, *adapter = NULL, *j = NULL;
    au_buf text;
    size_t len;
    au_status st = AU_OK;
    au_buf_init(&text, MAX_RECIPE_BYTES);
    AU_TRY(au_json_parse(&params, r->params_json, strlen(r->params_json), "parameters", err));
    adapter = s->adapter_id
                  ? json_pack("{s:s, s:s?, s:s, s:f}", "id", s->adapter_id, "name", s->adapter_name,
                              "sha256", s->adapter_sha256, "strength", s->strength)
                  : json_null();
    j = json_pack("{s:i, s:s, s:s, s:s?, s:{s:s, s:s}, s:O, s:I, s:O, s:s, s:s}", "aulos", 1,
                  "version", au_version(), "prompt", job->prompt_text, "negative",
                  job->negative_text, "model", "name", job->model_name, "fingerprint",
                  job->model_fingerprint, "adapter", adapter, "seed", (json_int_t)s->seed, "params",
                  params, "format", job->format, "numerics", au_numerics_class());
    AU_FAIL_IF(!j, AU_INTERNAL, "recipe of job %s is not valid text", job->id);
    au_json_dump(&text, j);
    AU_TRY(au_buf_take(&text, out, &len, err));
done:
    json_decref(j);
    json_decref(adapter);
    json_decref(params);
    au_buf_deinit(&text);
    return st;
}

typedef struct clip_write {
    const au_lease *lease;
    const au_sample_new *sample;
    bool held, completed;
} clip_write;

static au_status announce(au_db *db, void *arg, au_err *err)
{
    clip_write *c = arg;
    return au_upload_begin(db, c->lease, c->sample->store_key, &c->held, err);
}

static au_status commit(au_db *db, void *arg, au_err *err)
{
    clip_write *c = arg;
    return au_job_commit_sample(db, c->lease, c->sample, &c->held, &c->completed, err);
}

static au_status drop_upload(au_db *db, void *arg, au_err *err)
{
    clip_write *c = arg;
    return au_upload_drop(db, c->sample->store_key, err);
}

/* Stores the object and commits its row. AU_CANCELLED: the lease is gone, nothing is left. */
static au_status store_clip(run *r, const au_sample_new *s, const void *file, au_err *err)
{
    clip_write c = {.lease = &r->w->lease, .sample = s};
    bool announced = false;
    au_status st = AU_OK;
    r->type = "storage";
    AU_TRY(au_worker_ask(r->w, announce, &c, err));
    AU_FAIL_IF(!c.held, AU_CANCELLED, "the job is no longer this worker's");
    announced = true;
    AU_TRY(au_store_put(r->w->store, s->store_key, file, (size_t)s->bytes, err));
    AU_TRY(au_worker_ask(r->w, commit, &c, err));
    AU_FAIL_IF(!c.held, AU_CANCELLED, "the job is no longer this worker's");
    announced = false;
    r->completed = r->completed || c.completed;
    r->type = NULL;
done:
    /* After an error of the commit it is not known whether it happened: then the row decides later,
     * by the janitor. */
    if (announced && st == AU_CANCELLED) {
        if (au_store_delete(r->w->store, s->store_key, NULL) != AU_OK ||
            au_worker_ask(r->w, drop_upload, &c, NULL) != AU_OK)
            au_log(AU_LOG_WARN, "worker", "object is left to the janitor key=%s", s->store_key);
    }
    return st;
}

static au_status on_audio(void *user, size_t row, const au_audio *audio, au_err *err)
{
    run *r = user;
    const au_job_sample *s = r->missing[row];
    const au_job *job = r->job;
    char id[AU_UUID_TEXT], key[AU_STORE_KEY];
    char *recipe = NULL, *peaks = NULL, mini[AU_PEAKS_MINI_TEXT];
    void *file = NULL;
    size_t len = 0;
    au_clip_stats stats;
    au_status st = AU_OK;
    au_clip clip = {audio->frames, audio->n_frames, audio->channels, audio->sample_rate};
    au_recipe tags = {.prompt = job->prompt_text,
                      .negative = job->negative_text,
                      .model_fingerprint = job->model_fingerprint,
                      .adapter_sha256 = s->adapter_sha256,
                      .strength = s->strength,
                      .seed = s->seed,
                      .params_json = r->params_json,
                      .numerics = au_numerics_class()};
    AU_TRY(au_audio_encode(&clip, r->format, &tags, &file, &len, &stats, err));
    AU_TRY(au_peaks_of_clip(&peaks, mini, &clip, err));
    AU_TRY(recipe_json(&recipe, r, s, err));
    au_uuid7(id);
    AU_TRY(au_store_sample_key(key, id, au_format_extension(r->format), err));
    au_sample_new sample = {.id = id,
                            .store_key = key,
                            .format = job->format,
                            .sha256 = stats.sha256,
                            .pcm_sha256 = stats.pcm_sha256,
                            .index = s->index,
                            .variant = s->variant,
                            .bytes = (int64_t)len,
                            .frames = (int64_t)stats.n_frames,
                            .sample_rate = stats.sample_rate,
                            .channels = audio->channels,
                            .duration_s = (double)audio->n_frames / audio->sample_rate,
                            .loudness_lufs = stats.loudness_lufs,
                            .true_peak_dbtp = stats.true_peak_dbtp,
                            .peak = stats.peak,
                            .clipped = (int64_t)stats.clipped,
                            .recipe = recipe,
                            .peaks = peaks,
                            .mini = mini};
    AU_TRY(store_clip(r, &sample, file, err));
done:
    free(file);
    free(recipe);
    free(peaks);
    return st;
}

/* ---- The end
 * ------------------------------------------------------------------------------------------------
 */

typedef struct ending {
    au_worker *w;
    au_worker_stop stop;
    const char *type, *detail;
    bool retryable;
    au_arena *arena;
    char **keys;
    size_t n_keys;
    bool held, cancelling;
    au_job_state state;
} ending;

/* Decides by the state of the job now; see the top of the file. */
static au_status settle(au_db *db, void *arg, au_err *err)
{
    ending *e = arg;
    const au_lease *lease = &e->w->lease;
    const au_limits *limits = &e->w->config->limits;
    au_status st = AU_OK;
    AU_TRY(au_job_check(db, lease, &e->held, &e->cancelling, err));
    if (e->cancelling)
        AU_TRY(au_job_clean_begin(db, e->arena, lease->job_id, lease->token, &e->keys, &e->n_keys,
                                  &e->cancelling, err));
    else if (e->held && (e->stop == AU_STOP_HAND_BACK || e->stop == AU_STOP_SERVER_GONE))
        AU_TRY(au_job_hand_back(db, lease, e->stop == AU_STOP_SERVER_GONE, limits, &e->held, err));
    else if (e->held)
        AU_TRY(au_job_fail(db, lease, e->type, e->detail, e->retryable, limits, &e->held, &e->state,
                           err));
done:
    return st;
}

static au_status clean_end(au_db *db, void *arg, au_err *err)
{
    ending *e = arg;
    return au_job_clean_end(db, e->w->lease.job_id, e->w->lease.token, &e->held, err);
}

static au_status clean_up(ending *e, au_err *err)
{
    au_status st = AU_OK;
    for (size_t i = 0; i < e->n_keys; i++)
        AU_TRY(au_store_delete(e->w->store, e->keys[i], err));
    AU_TRY(au_worker_ask(e->w, clean_end, e, err));
done:
    return st;
}

/* Until it is on record, or the lease would have run out anyway: then the janitor finds the job. */
static void report_end(ending *e)
{
    int64_t give_up = au_mono_ms() + e->w->config->limits.lease_ms;
    au_err err = {0};
    au_status st;
    do {
        au_arena_deinit(e->arena);
        st = au_worker_ask(e->w, settle, e, &err);
        if (st == AU_OK && e->cancelling)
            st = clean_up(e, &err);
        if (st == AU_OK)
            return;
        au_log(AU_LOG_ERROR, "worker", "end of the job is not recorded yet job=%s detail=%s",
               e->w->lease.job_id, au_log_quote((char[512]){0}, 512, err.message));
        au_sleep_ms(REPORT_PAUSE_MS);
    } while (au_mono_ms() < give_up);
}

static const char *type_of(au_status st)
{
    switch (st) {
    case AU_NOMEM:
        return "out-of-memory";
    case AU_IO:
    case AU_NOSPACE:
    case AU_AGAIN:
        return "storage";
    case AU_INVALID:
    case AU_UNSUPPORTED:
    case AU_LIMIT:
        return "invalid-job";
    default:
        return "model-error";
    }
}

/* What another try may mend. */
static bool is_retryable(au_status st)
{
    return st == AU_NOMEM || st == AU_IO || st == AU_NOSPACE || st == AU_AGAIN;
}

static void finish(run *r, au_status st, const au_err *err)
{
    au_worker *w = r->w;
    au_arena arena;
    if (r->completed) {
        au_log(AU_LOG_INFO, "worker", "job completed samples=%zu ms=%lld", r->job->n_samples,
               (long long)(au_mono_ms() - r->began));
        return;
    }
    au_arena_init(&arena, 1 << 20);
    ending e = {.w = w,
                .stop = (au_worker_stop)atomic_load(&w->stop),
                .type = r->type ? r->type : type_of(st),
                .detail = st == AU_OK ? "samples are missing at the end" : err->message,
                .retryable = is_retryable(st),
                .arena = &arena};
    report_end(&e);
    au_log(AU_LOG_INFO, "worker", "job ended status=%s detail=%s", au_status_text(st),
           au_log_quote((char[512]){0}, 512, e.detail));
    au_arena_deinit(&arena);
}

void au_worker_run_job(au_worker *w, au_engine_cache *cache)
{
    run r = {.w = w, .job = w->job, .began = au_mono_ms()};
    au_err error = {0}, *err = &error;
    au_status st = AU_OK;
    au_log_context("job", w->job->id);
    AU_TRY(prepare(&r, cache, err));
    r.began = au_mono_ms();
    au_request request = {.size = sizeof request,
                          .model = r.model,
                          .rows = r.rows,
                          .n_rows = r.n_rows,
                          .memory_bytes = w->config->session_memory,
                          .max_duration_s = MAX_DURATION_S,
                          .user = &r,
                          .cancelled = on_cancelled,
                          .on_progress = on_progress,
                          .on_audio = on_audio};
    AU_TRY(au_generate(&request, err));
done:
    finish(&r, st, err);
    run_deinit(&r);
    au_log_context("job", NULL);
}
