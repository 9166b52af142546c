/* SPDX-License-Identifier: MIT */
/* One job of the engine thread's pool: opens model and adapters, makes a row of each missing
 * sample, adds their progress up, and stores and commits each clip as it is finished. What fails
 * here is this job, never its neighbours in the session.
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
    MIN_ETA_STEPS = 3,     /* before that the rate is not known */
    RATE_WINDOW_MS = 3000, /* at least so long is the rate measured, once the job is so old */
};
static const double ALMOST_DONE = 99.9; /* 100 comes with the last commit */

/* ---- Preparing
 * ------------------------------------------------------------------------------------------ */

static au_status prepare_row(au_worker_job *r, size_t i, au_engine_cache *cache, au_err *err)
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

static au_status prepare(au_worker_job *r, au_engine_cache *cache, au_err *err)
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
    AU_TRY(au_calloc(&r->places, job->n_samples, sizeof *r->places, err));
    for (size_t i = 0; i < job->n_samples; i++) {
        if (job->samples[i].sample_id)
            continue;
        r->places[r->n_rows] = (au_worker_place){.job = r, .index = r->n_rows};
        r->missing[r->n_rows++] = &job->samples[i];
    }
    AU_FAIL_IF(r->n_rows == 0, AU_INTERNAL, "job %s misses no sample", job->id);
    r->floor = (double)job->n_completed / (double)job->n_samples;
    for (size_t i = 0; i < r->n_rows; i++)
        AU_TRY(prepare_row(r, i, cache, err));
done:
    return st;
}

void au_worker_job_prepare(au_worker_job *job, au_engine_cache *cache)
{
    job->began = au_mono_ms();
    job->status = prepare(job, cache, &job->err);
}

void au_worker_job_deinit(au_worker_job *job)
{
    for (size_t i = 0; job->adapters && i < job->n_rows; i++) {
        if (job->adapters[i])
            au_adapter_unref(&job->adapters[i]);
    }
    free(job->adapters);
    free(job->places);
    free(job->rows);
    free(job->missing);
    free(job->params_json);
}

bool au_worker_job_fits(const au_job *job, const au_session *session)
{
    au_params params;
    au_row row = {.size = sizeof row,
                  .prompt = job->prompt_text,
                  .negative = job->negative_text,
                  .params = &params};
    if (au_params_from_json(&params, job->params, NULL) != AU_OK)
        return true; /* it will fail of that */
    return au_session_fits(session, &row, NULL) != AU_AGAIN;
}

bool au_worker_job_is_over(const au_worker_job *job)
{
    return job->live == 0 && (job->completed || job->status != AU_OK || atomic_load(&job->stop) ||
                              job->next == job->n_rows);
}

/* ---- Callbacks of the engine
 * ------------------------------------------------------------------------------ */

bool au_worker_place_cancelled(void *user, void *tag)
{
    const au_worker_place *row = tag;
    (void)user;
    return row->job->status != AU_OK ||
           atomic_load_explicit(&row->job->stop, memory_order_relaxed) != AU_STOP_NO;
}

void au_worker_place_left(void *user, void *tag)
{
    au_worker_place *row = tag;
    (void)user;
    row->job->live--;
}

static const char *stage_name(au_stage s)
{
    return s == AU_STAGE_TEXT ? "text" : s == AU_STAGE_DECODE ? "decode" : "codec";
}

/* By the rate of the last seconds: it changes as other jobs come and go. -1: not known. */
static int64_t estimate_ms(au_worker_job *job, double share)
{
    int64_t now = au_mono_ms();
    if (job->mark_ms[0] == 0) {
        job->mark_ms[0] = job->mark_ms[1] = job->began;
    } else if (now - job->mark_ms[1] >= RATE_WINDOW_MS) {
        job->mark_ms[0] = job->mark_ms[1];
        job->mark_share[0] = job->mark_share[1];
        job->mark_ms[1] = now;
        job->mark_share[1] = share;
    }
    double done = share - job->mark_share[0];
    return done > 0 ? (int64_t)((double)(now - job->mark_ms[0]) * (1 - share) / done) : -1;
}

void au_worker_place_progress(void *user, void *tag, const au_row_progress *p)
{
    au_worker *w = user;
    au_worker_place *row = tag;
    au_worker_job *job = row->job;
    double share = 0;
    uint64_t step = 0;
    row->fraction = p->fraction;
    row->step = p->step;
    for (size_t i = 0; i < job->n_rows; i++) {
        share += job->places[i].fraction / (double)job->n_rows;
        step += job->places[i].step;
    }
    double percent = 100 * (job->floor + (1 - job->floor) * share);
    int64_t eta_ms = step >= MIN_ETA_STEPS ? estimate_ms(job, share) : -1;
    pthread_mutex_lock(&w->lock);
    job->progress = (au_job_progress){.percent = percent < ALMOST_DONE ? percent : ALMOST_DONE,
                                      .stage = stage_name(p->stage),
                                      .step = (int64_t)step,
                                      /* rows of a job are equally long */
                                      .steps = (int64_t)(p->steps * job->n_rows),
                                      .eta_ms = eta_ms};
    job->progress_new = true;
    pthread_mutex_unlock(&w->lock);
}

/* Everything needed to make this sample again, as one JSON object; owned by the caller. */
static au_status recipe_json(char **out, const au_worker_job *r, const au_job_sample *s,
                             au_err *err)
{
    const au_job *job = r->job;
    json_t *params = NULL, *adapter = NULL, *j = NULL;
    au_status st = AU_OK;
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
    AU_TRY(au_json_text(out, j, MAX_RECIPE_BYTES, err));
done:
    json_decref(j);
    json_decref(adapter);
    json_decref(params);
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
static au_status store_clip(au_worker_job *r, const au_sample_new *s, const void *file, au_err *err)
{
    clip_write c = {.lease = &r->lease, .sample = s};
    bool announced = false;
    au_status st = AU_OK;
    r->type = "storage";
    AU_TRY(au_worker_ask(r->w, AU_ASK_DURABLE, announce, &c, err));
    AU_FAIL_IF(!c.held, AU_CANCELLED, "the job is no longer this worker's");
    announced = true;
    AU_TRY(au_store_put(r->w->store, s->store_key, file, (size_t)s->bytes, err));
    AU_TRY(au_worker_ask(r->w, AU_ASK_DURABLE, commit, &c, err));
    AU_FAIL_IF(!c.held, AU_CANCELLED, "the job is no longer this worker's");
    announced = false;
    r->completed = r->completed || c.completed;
    r->type = NULL;
done:
    /* After an error of the commit it is not known whether it happened: then the row decides later,
     * by the janitor. */
    if (announced && st == AU_CANCELLED) {
        if (au_store_delete(r->w->store, s->store_key, NULL) != AU_OK ||
            au_worker_ask(r->w, AU_ASK_DURABLE, drop_upload, &c, NULL) != AU_OK)
            au_log(AU_LOG_WARN, "worker", "object is left to the janitor key=%s", s->store_key);
    }
    return st;
}

static au_status keep_clip(au_worker_job *r, size_t row, const au_audio *audio, au_err *err)
{
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

au_status au_worker_place_audio(void *user, void *tag, const au_audio *audio, au_err *err)
{
    au_worker_place *row = tag;
    au_worker_job *job = row->job;
    (void)user;
    (void)err;
    job->live--;
    if (job->status != AU_OK)
        return AU_OK;
    au_log_context("job", job->lease.job_id);
    job->status = keep_clip(job, row->index, audio, &job->err);
    au_log_context("job", NULL);
    return AU_OK;
}
