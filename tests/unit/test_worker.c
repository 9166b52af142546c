/* SPDX-License-Identifier: MIT */
/* Registry and worker with the engine and a tiny checkpoint: scans, whole jobs, what a worker does
 * when it is told to stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "jobs/params_json.h"
#include "jobs/registry.h"
#include "jobs/worker.h"
#include "jobs_fixture.h"

typedef struct bench {
    fixture f;
    char model_dir[512], adapter_dir[512], bad_dir[512];
    au_writer *writer;
    au_registry *registry;
    char *params;
} bench;

static int setup(void **state)
{
    bench *b = calloc(1, sizeof *b);
    fixture *f = &b->f;
    const char *root = getenv("AULOS_SOURCE");
    assert_non_null(root);
    fixture_open(f);
    snprintf(b->model_dir, sizeof b->model_dir, "%s/tests/fixtures/checkpoints/mono-f32", root);
    snprintf(b->adapter_dir, sizeof b->adapter_dir, "%s/tests/fixtures/adapters/mono-f32", root);
    snprintf(b->bad_dir, sizeof b->bad_dir, "%s/tests/fixtures/adapters/bad", root);
    OK(au_writer_new(&b->writer, f->db_path, 0, &f->err));
    const au_model_spec model = {.dir = b->model_dir};
    OK(au_registry_open(&b->registry, &model, 1, b->writer, &f->err));
    au_params params;
    au_params_init(&params, sizeof params);
    params.duration_s = 0.3;
    OK(au_params_json(&params, &b->params, &f->err));
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    bench *b = *state;
    au_registry_close(&b->registry);
    au_writer_free(&b->writer);
    free(b->params);
    fixture_close(&b->f);
    free(b);
    return 0;
}

static void scan(bench *b, const char *dir)
{
    fixture *f = &b->f;
    OK(au_registry_scan(b->registry, &dir, 1, f->db, b->writer, f->store, &f->err));
}

static au_job_new model_job(bench *b)
{
    au_job_new job = plain_job();
    au_model *m = au_registry_model(b->registry, 0);
    job.model_name = au_registry_name(b->registry, 0);
    job.model_fingerprint = au_model_get_info(m)->fingerprint;
    job.params = b->params;
    return job;
}

static au_worker_config worker_config(bench *b, const au_model_spec *model)
{
    au_worker_config c;
    au_worker_config_init(&c);
    c.data_dir = b->f.dir;
    c.models = model;
    c.n_models = 1;
    c.threads = 1;
    c.lower_priority = false;
    c.limits = b->f.limits;
    return c;
}

static void work_once(bench *b)
{
    fixture *f = &b->f;
    const au_model_spec model = {.dir = b->model_dir};
    au_worker_config c = worker_config(b, &model);
    c.once = true;
    OK(au_worker_run(&c, &f->err));
}

static void check_object(fixture *f, const au_sample *s)
{
    char path[256], sha256[AU_SHA256_TEXT];
    snprintf(path, sizeof path, "%s/%s", f->store_path, s->store_key);
    OK(au_sha256_file(sha256, path, &f->err));
    assert_string_equal(sha256, s->sha256);
}

static void test_params_text(void **state)
{
    fixture *f = &((bench *)*state)->f;
    au_params p, q;
    char *a, *b;
    au_params_init(&p, sizeof p);
    p.preset = AU_PRESET_HF;
    p.temperature = 0.1;
    p.greedy = true;
    OK(au_params_json(&p, &a, &f->err));
    assert_string_equal(a,
                        "{\"duration_s\":10.0,\"greedy\":true,\"guidance\":3.0,\"preset\":\"hf\","
                        "\"temperature\":0.1,\"top_k\":250,\"top_p\":0.0}");
    OK(au_params_from_json(&q, a, &f->err));
    OK(au_params_json(&q, &b, &f->err));
    assert_string_equal(a, b);
    assert_int_equal(au_params_from_json(&q, "{}", &f->err), AU_CORRUPT);
    assert_int_equal(au_params_from_json(&q, "[", &f->err), AU_CORRUPT);
    free(a);
    free(b);
}

/* Two variants of the same seeds; the sample made alone again has the same hash. */
static void test_job(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char id[AU_UUID_TEXT], again[AU_UUID_TEXT];
    au_adapter_row *adapter;
    work_once(b); /* nothing waits */
    scan(b, b->adapter_dir);
    OK(au_adapter_row_by_name(f->db, &f->arena, "plain", &adapter, &f->err));
    au_job_new job = model_job(b);
    const au_job_variant variants[] = {{NULL, 1}, {adapter->id, 1}};
    job.variants = variants;
    job.n_variants = 2;
    job.num_samples = 2;
    submit(f, &job, id);
    work_once(b);
    const au_job *j = look(f, id);
    if (j->state != AU_JOB_COMPLETED)
        fail_msg("%s", j->error);
    assert_int_equal(j->n_completed, 4);
    au_sample *s[4], *alone;
    for (int i = 0; i < 4; i++) {
        OK(au_sample_get(f->db, &f->arena, j->samples[i].sample_id, &s[i], &f->err));
        check_object(f, s[i]);
        assert_int_equal(s[i]->seed, 7 + i % 2);
        assert_true(s[i]->frames > 0 && s[i]->sample_rate > 0);
        assert_true(s[i]->duration_s == (double)s[i]->frames / s[i]->sample_rate);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(s[i]->sha256, s[k]->sha256);
    }
    assert_null(s[0]->adapter_id);
    assert_string_equal(s[3]->adapter_name, "plain");
    assert_non_null(strstr(s[3]->recipe, adapter->sha256));
    job.variants = &variants[1];
    job.n_variants = 1;
    job.num_samples = 1;
    job.seed = 8;
    submit(f, &job, again);
    work_once(b);
    OK(au_sample_get(f->db, &f->arena, look(f, again)->samples[0].sample_id, &alone, &f->err));
    assert_string_equal(alone->sha256, s[3]->sha256);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM workers WHERE state <> 'gone'"), 0);
}

/* What a worker cannot run fails with its reason, at the first attempt. */
static void test_refused_jobs(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char id[AU_UUID_TEXT];
    au_job_new job = model_job(b);
    job.model_fingerprint = "another";
    submit(f, &job, id);
    work_once(b);
    assert_int_equal(look(f, id)->state, AU_JOB_FAILED);
    assert_non_null(strstr(look(f, id)->error, "/problems/model-changed"));
    job = model_job(b);
    job.format = "tape";
    submit(f, &job, id);
    work_once(b);
    assert_non_null(strstr(look(f, id)->error, "tape"));
    /* An adapter whose stored copy was altered is not used. */
    scan(b, b->adapter_dir);
    au_adapter_row *adapter;
    char key[AU_STORE_KEY];
    OK(au_adapter_row_by_name(f->db, &f->arena, "plain", &adapter, &f->err));
    OK(au_store_adapter_key(key, adapter->sha256, "adapter_config.json", &f->err));
    OK(au_store_put(f->store, key, "{}", 2, &f->err));
    const au_job_variant v = {adapter->id, 1};
    job = model_job(b);
    job.variants = &v;
    job.n_variants = 1;
    submit(f, &job, id);
    work_once(b);
    assert_int_equal(look(f, id)->state, AU_JOB_FAILED);
    assert_non_null(strstr(look(f, id)->error, "/problems/adapter-missing"));
    assert_int_equal(look(f, id)->attempt, 1);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM samples"), 0);
}

static void test_scan(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    au_adapter_row *row, *same, **rows;
    size_t n;
    bool more;
    char folder[160], path[320], from[640], *text;
    size_t len;
    scan(b, b->bad_dir);
    OK(au_adapter_row_list(f->db, &f->arena, &(au_adapter_filter){.limit = 500}, &rows, &n, &more,
                           &f->err));
    assert_true(n >= 15);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(rows[i]->status, "rejected");
        assert_non_null(rows[i]->error);
        assert_null(rows[i]->store_key);
    }
    assert_int_equal(objects(f), 0);
    /* A folder of our own, whose content changes. */
    snprintf(folder, sizeof folder, "%s/in", f->dir);
    snprintf(path, sizeof path, "%s/mine", folder);
    OK(au_mkdirs(path, &f->err));
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/plain/%s", b->adapter_dir, files[i]);
        OK(au_file_read(&text, &len, from, 1 << 24, &f->err));
        snprintf(path, sizeof path, "%s/mine/%s", folder, files[i]);
        OK(au_file_write(path, text, len, true, &f->err));
        free(text);
    }
    scan(b, folder);
    OK(au_adapter_row_by_name(f->db, &f->arena, "mine", &row, &f->err));
    assert_string_equal(row->status, "ready");
    assert_int_equal(row->version, 1);
    assert_int_equal(objects(f), 2);
    const char *status, *report;
    OK(au_adapter_fit(f->db, &f->arena, row->id,
                      au_model_get_info(au_registry_model(b->registry, 0))->fingerprint, &status,
                      &report, &f->err));
    assert_string_equal(status, "ready");
    scan(b, folder);
    OK(au_adapter_row_by_name(f->db, &f->arena, "mine", &same, &f->err));
    assert_string_equal(same->id, row->id);
    /* A job names it: the old content stays when the name gets a new one. */
    char id[AU_UUID_TEXT];
    au_job_new job = model_job(b);
    const au_job_variant v = {row->id, 0.5};
    job.variants = &v;
    job.n_variants = 1;
    submit(f, &job, id);
    snprintf(path, sizeof path, "%s/mine/adapter_config.json", folder);
    OK(au_file_read(&text, &len, path, 1 << 20, &f->err));
    char *spaced = malloc(len + 2);
    memcpy(spaced, text, len);
    memcpy(spaced + len, "\n", 2);
    OK(au_file_write(path, spaced, len + 1, true, &f->err));
    scan(b, folder);
    OK(au_adapter_row_by_name(f->db, &f->arena, "mine", &same, &f->err));
    assert_string_not_equal(same->id, row->id);
    assert_int_equal(same->version, 2);
    assert_int_equal(objects(f), 4);
    work_once(b);
    assert_int_equal(look(f, id)->state, AU_JOB_COMPLETED);
    assert_string_equal(look(f, id)->samples[0].adapter_sha256, row->sha256);
    /* Back again: the same id as before; the content in between is named by nothing and goes. */
    OK(au_file_write(path, text, len, true, &f->err));
    scan(b, folder);
    au_adapter_row *back;
    OK(au_adapter_row_by_name(f->db, &f->arena, "mine", &back, &f->err));
    assert_string_equal(back->id, row->id);
    assert_int_equal(au_adapter_row_get(f->db, &f->arena, same->id, &back, &f->err), AU_NOT_FOUND);
    au_janitor_config jc = {.db_url = f->db_path,
                            .data_dir = f->dir,
                            .writer = b->writer,
                            .store = f->store,
                            .limits = f->limits};
    OK(au_janitor_round(&jc, f->db, true, &f->err));
    assert_int_equal(objects(f), 3); /* two files of the adapter, one sample */
    free(text);
    free(spaced);
}

/* ---- Stops
 * ------------------------------------------------------------------------------------------ */

typedef struct running {
    au_worker_config config;
    au_model_spec model;
    pthread_t thread;
    au_status status;
    au_err err;
} running;

static void *run_worker(void *arg)
{
    running *r = arg;
    r->status = au_worker_run(&r->config, &r->err);
    return NULL;
}

static void begin_worker(bench *b, running *r, int parent_fd)
{
    *r = (running){.model = {.dir = b->model_dir}};
    r->config = worker_config(b, &r->model);
    r->config.parent_fd = parent_fd;
    assert_int_equal(pthread_create(&r->thread, NULL, run_worker, r), 0);
}

/* A job that takes minutes, taken by a worker that has done a step of it. */
static void begin_long_job(bench *b, running *r, int parent_fd, char id[AU_UUID_TEXT])
{
    fixture *f = &b->f;
    au_params params;
    char *text;
    au_params_init(&params, sizeof params);
    params.duration_s = 200;
    OK(au_params_json(&params, &text, &f->err));
    au_job_new job = model_job(b);
    job.params = text;
    job.num_samples = 16;
    submit(f, &job, id);
    free(text);
    begin_worker(b, r, parent_fd);
    while (look(f, id)->step == 0)
        au_sleep_ms(5);
}

static void end_worker(fixture *f, running *r)
{
    pthread_join(r->thread, NULL);
    if (r->status != AU_OK)
        fail_msg("%s", r->err.message);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM workers WHERE state <> 'gone'"), 0);
}

static void test_cancel_and_server_gone(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char id[AU_UUID_TEXT], next[AU_UUID_TEXT];
    running r;
    int fds[2];
    au_cancel_result result;
    au_job_state now;
    assert_int_equal(pipe(fds), 0);
    begin_long_job(b, &r, fds[0], id);
    TX(au_job_cancel(f->db, id, &result, &now, &f->err));
    assert_int_equal(result, AU_CANCEL_UNDER_WAY);
    while (look(f, id)->state == AU_JOB_CANCELLING)
        au_sleep_ms(5);
    assert_int_equal(look(f, id)->state, AU_JOB_CANCELLED);
    assert_int_equal(objects(f), 0);
    assert_int_equal(
        count(f, "SELECT (SELECT COUNT(*) FROM samples) + (SELECT COUNT(*) FROM uploads)"), 0);
    /* The same worker goes on. */
    au_job_new job = model_job(b);
    submit(f, &job, next);
    while (look(f, next)->state != AU_JOB_COMPLETED)
        au_sleep_ms(5);
    close(fds[1]);
    end_worker(f, &r);
    close(fds[0]);
}

static void test_server_gone_hands_back(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char id[AU_UUID_TEXT];
    running r;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    begin_long_job(b, &r, fds[0], id);
    close(fds[1]);
    end_worker(f, &r);
    close(fds[0]);
    assert_int_equal(look(f, id)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, id)->attempt, 0);
    assert_int_equal(look(f, id)->interruptions, 1);
    assert_null(look(f, id)->lease_owner);
}

static void test_signal_hands_back(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char id[AU_UUID_TEXT];
    running r;
    f->limits.shutdown_grace_ms = 0;
    begin_long_job(b, &r, -1, id);
    kill(getpid(), SIGTERM); /* blocked here: the worker's control thread takes it */
    end_worker(f, &r);
    assert_int_equal(look(f, id)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, id)->attempt, 0);
    assert_int_equal(look(f, id)->interruptions, 0);
}

/* The lease is given to somebody else: the worker drops its work and takes the next job. */
static void test_lost_lease(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char id[AU_UUID_TEXT], next[AU_UUID_TEXT];
    running r;
    int fds[2];
    bool changed;
    assert_int_equal(pipe(fds), 0);
    begin_long_job(b, &r, fds[0], id);
    au_job_new job = model_job(b);
    job.priority = 1;
    submit(f, &job, next);
    f->limits.backoff_ms = 3600000;
    TX(au_job_lose(f->db, id, look(f, id)->lease_token, AU_LOSS_DEATH, "test", &f->limits, &changed,
                   &f->err));
    assert_true(changed);
    while (look(f, next)->state != AU_JOB_COMPLETED)
        au_sleep_ms(5);
    assert_int_equal(look(f, id)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, id)->n_completed, 0);
    close(fds[1]);
    end_worker(f, &r);
    close(fds[0]);
}

/* ---- Several jobs at once
 * ------------------------------------------------------------------------------------------ */

/* A job of one sample that takes minutes. */
static void submit_long(bench *b, const char *model, int priority, char id[AU_UUID_TEXT])
{
    fixture *f = &b->f;
    au_params params;
    char *text;
    au_params_init(&params, sizeof params);
    params.duration_s = 200;
    OK(au_params_json(&params, &text, &f->err));
    au_job_new job = model_job(b);
    job.params = text;
    job.priority = priority;
    if (model)
        job.model_name = model;
    submit(f, &job, id);
    free(text);
}

/* Until a job has begun and so many more steps of it are on record. */
static void await_steps(fixture *f, const char *id, int64_t more)
{
    while (look(f, id)->state == AU_JOB_QUEUED)
        au_sleep_ms(5);
    int64_t until = look(f, id)->step + more;
    while (look(f, id)->step < until) {
        assert_int_equal(look(f, id)->state, AU_JOB_PROCESSING);
        au_sleep_ms(5);
    }
}

static void cancel(fixture *f, const char *id)
{
    au_cancel_result result;
    au_job_state now;
    TX(au_job_cancel(f->db, id, &result, &now, &f->err));
    while (look(f, id)->state == AU_JOB_CANCELLING)
        au_sleep_ms(5);
    assert_int_equal(look(f, id)->state, AU_JOB_CANCELLED);
}

/* Jobs of other lengths, texts, adapters and parameters run side by side, some are cancelled: each
 * sample has the bytes of a run on its own. */
static void test_jobs_share_a_session(void **state)
{
    enum { KINDS = 8, ROUNDS = 5 };
    bench *b = *state;
    fixture *f = &b->f;
    char solo[KINDS][AU_SHA256_TEXT], ids[KINDS * ROUNDS][AU_UUID_TEXT], busy[AU_UUID_TEXT],
        *params[KINDS];
    au_job_new jobs[KINDS];
    au_job_variant variants[KINDS];
    au_adapter_row *adapter;
    au_sample *sample;
    running r;
    int fds[2], cancelled = 0;
    scan(b, b->adapter_dir);
    OK(au_adapter_row_by_name(f->db, &f->arena, "plain", &adapter, &f->err));
    for (int i = 0; i < KINDS; i++) {
        au_params p;
        au_params_init(&p, sizeof p);
        p.duration_s = 0.1 + 0.15 * i;
        p.guidance = i % 3 == 2 ? 1 : 3;
        OK(au_params_json(&p, &params[i], &f->err));
        jobs[i] = model_job(b);
        jobs[i].params = params[i];
        jobs[i].prompt_text = i % 2 ? "a slow waltz" : "loud guitars";
        jobs[i].seed = (uint64_t)i / 2;
        variants[i] = (au_job_variant){i % 4 ? adapter->id : NULL, 0.25 * (i % 4) + 0.25};
        jobs[i].variants = &variants[i];
        jobs[i].n_variants = 1;
        submit(f, &jobs[i], ids[i]);
        work_once(b);
        OK(au_sample_get(f->db, &f->arena, look(f, ids[i])->samples[0].sample_id, &sample,
                         &f->err));
        snprintf(solo[i], sizeof solo[i], "%s", sample->sha256);
    }
    assert_int_equal(pipe(fds), 0);
    begin_worker(b, &r, fds[0]);
    submit_long(b, NULL, 0, busy);
    await_steps(f, busy, 1);
    for (int i = 0; i < KINDS * ROUNDS; i++) {
        submit(f, &jobs[i % KINDS], ids[i]);
        if (i % 5 == 3) {
            au_cancel_result result;
            au_job_state now;
            TX(au_job_cancel(f->db, ids[i - i % 3], &result, &now, &f->err));
            cancelled += result != AU_CANCEL_TOO_LATE;
        }
    }
    for (int i = 0; i < KINDS * ROUNDS; i++) {
        while (!au_job_state_is_final(look(f, ids[i])->state))
            au_sleep_ms(5);
        const au_job *j = look(f, ids[i]);
        if (j->state == AU_JOB_CANCELLED) {
            cancelled--;
            continue;
        }
        if (j->state != AU_JOB_COMPLETED)
            fail_msg("%s", j->error);
        OK(au_sample_get(f->db, &f->arena, j->samples[0].sample_id, &sample, &f->err));
        assert_string_equal(sample->sha256, solo[i % KINDS]);
        check_object(f, sample);
    }
    assert_int_equal(cancelled, 0);
    /* All of them passed by a job that is still at work. */
    await_steps(f, busy, 1);
    cancel(f, busy);
    close(fds[1]);
    end_worker(f, &r);
    close(fds[0]);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    assert_int_equal(objects(f),
                     (int)count(f, "SELECT COUNT(*) FROM samples") +
                         2 * (int)count(f, "SELECT COUNT(*) FROM adapters WHERE status = 'ready'"));
    for (int i = 0; i < KINDS; i++)
        free(params[i]);
}

/* A job that must run alone waits until the session is empty, and nobody joins it; those behind it
 * wait, too. */
static void test_alone(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char first[AU_UUID_TEXT], alone[AU_UUID_TEXT], last[AU_UUID_TEXT];
    running r;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    submit_long(b, NULL, 0, first);
    begin_worker(b, &r, fds[0]);
    await_steps(f, first, 1);
    submit_long(b, NULL, 0, alone);
    await_steps(f, alone, 1); /* it joined; a death marks it */
    bool changed;
    TX(au_job_lose(f->db, alone, look(f, alone)->lease_token, AU_LOSS_DEATH, "test", &f->limits,
                   &changed, &f->err));
    assert_true(changed);
    submit_long(b, NULL, 0, last);
    await_steps(f, first, 200);
    assert_int_equal(look(f, alone)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, last)->state, AU_JOB_QUEUED);
    cancel(f, first);
    await_steps(f, alone, 200);
    assert_int_equal(look(f, last)->state, AU_JOB_QUEUED);
    cancel(f, alone);
    await_steps(f, last, 1);
    cancel(f, last);
    close(fds[1]);
    end_worker(f, &r);
    close(fds[0]);
}

/* A job for another model that is due first is not starved by jobs that would fit. */
static void test_other_model_is_not_starved(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    char first[AU_UUID_TEXT], other[AU_UUID_TEXT], last[AU_UUID_TEXT];
    running r = {.model = {.dir = b->model_dir}};
    const au_model_spec models[] = {{.dir = b->model_dir, .name = "one"},
                                    {.dir = b->model_dir, .name = "two"}};
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    r.config = worker_config(b, models);
    r.config.n_models = 2;
    r.config.parent_fd = fds[0];
    submit_long(b, "one", 0, first);
    assert_int_equal(pthread_create(&r.thread, NULL, run_worker, &r), 0);
    await_steps(f, first, 1);
    submit_long(b, "two", 50, other);
    submit_long(b, "one", 0, last);
    await_steps(f, first, 200);
    assert_int_equal(look(f, other)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, last)->state, AU_JOB_QUEUED);
    cancel(f, first);
    while (look(f, other)->state == AU_JOB_QUEUED)
        au_sleep_ms(5);
    assert_int_equal(look(f, last)->state, AU_JOB_QUEUED);
    await_steps(f, other, 1);
    cancel(f, other);
    await_steps(f, last, 1);
    cancel(f, last);
    close(fds[1]);
    end_worker(f, &r);
    close(fds[0]);
}

/* One at a time when asked for, or when memory is for one; all are handed back together. */
static void test_room(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    for (int i = 0; i < 3; i++) {
        char first[AU_UUID_TEXT], second[AU_UUID_TEXT];
        running r = {.model = {.dir = b->model_dir}};
        r.config = worker_config(b, &r.model);
        r.config.limits.shutdown_grace_ms = 0;
        if (i == 0)
            r.config.max_batch = 1;
        else if (i == 1)
            r.config.session_memory = 16 << 20; /* of 200 s with guidance: less than two rows */
        submit_long(b, NULL, 0, first);
        submit_long(b, NULL, 0, second);
        assert_int_equal(pthread_create(&r.thread, NULL, run_worker, &r), 0);
        await_steps(f, first, 200);
        if (i < 2)
            assert_int_equal(look(f, second)->state, AU_JOB_QUEUED);
        else
            await_steps(f, second, 1);
        kill(getpid(), SIGTERM);
        end_worker(f, &r);
        const char *const ids[] = {first, second};
        for (int k = 0; k < 2; k++) {
            au_cancel_result result;
            au_job_state now;
            assert_int_equal(look(f, ids[k])->state, AU_JOB_QUEUED);
            assert_int_equal(look(f, ids[k])->attempt, 0);
            TX(au_job_cancel(f->db, ids[k], &result, &now, &f->err));
        }
    }
}

static void test_bad_model(void **state)
{
    bench *b = *state;
    fixture *f = &b->f;
    const au_model_spec model = {.dir = "/nonexistent/model"};
    au_worker_config c = worker_config(b, &model);
    assert_int_not_equal(au_worker_run(&c, &f->err), AU_OK);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM workers WHERE state = 'failed' AND detail LIKE "
                              "'%/nonexistent/model%'"),
                     1);
    const au_model_spec twice[] = {{.dir = b->model_dir}, {.dir = b->model_dir}};
    au_registry *r;
    assert_int_equal(au_registry_open(&r, twice, 2, b->writer, &f->err), AU_CONFLICT);
    assert_null(r);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    const struct CMUnitTest tests[] = {
        T(test_params_text),
        T(test_job),
        T(test_refused_jobs),
        T(test_scan),
        T(test_cancel_and_server_gone),
        T(test_server_gone_hands_back),
        T(test_signal_hands_back),
        T(test_lost_lease),
        T(test_jobs_share_a_session),
        T(test_alone),
        T(test_other_model_is_not_starved),
        T(test_room),
        T(test_bad_model),
    };
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
