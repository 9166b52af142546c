/* SPDX-License-Identifier: MIT */
/* What clients change: submission (transition 1) and cancelling (8 and 10). Runs on the writer
 * thread, inside a savepoint: what fails leaves nothing behind. No state of its own. */
#include <stdio.h>
#include <string.h>

#include "jobs/catalog.h"
#include "jobs/job_state.h"
#include "jobs/outbox.h"

static const uint64_t SEED_LIMIT = (uint64_t)1 << 53;

/* Finds or makes the prompt. */
static au_status settle_prompt(au_db *db, const au_job_new *job, au_submit_result *out, au_err *err)
{
    au_status st = AU_OK;
    if (!job->prompt_id)
        return au_prompt_find_or_create(db, job->prompt_text, job->negative_text, out->prompt_id,
                                        &out->prompt_made, err);
    int64_t known;
    AU_TRY(au_db_int(&known, db, 0, err,
                     "SELECT COUNT(*) FROM prompts WHERE id = ?1 AND deleted_at = 0", "t",
                     job->prompt_id));
    if (known == 0) {
        out->fault = AU_SUBMIT_NO_PROMPT;
        return au_fail(err, AU_NOT_FOUND, "prompt %.40s does not exist", job->prompt_id);
    }
    snprintf(out->prompt_id, sizeof out->prompt_id, "%s", job->prompt_id);
done:
    return st;
}

static au_status check_queue(au_db *db, const au_limits *limits, au_submit_result *out, au_err *err)
{
    int64_t queued;
    au_status st = au_queue_count(db, &queued, err);
    if (st == AU_OK && queued >= limits->queue_limit) {
        out->fault = AU_SUBMIT_QUEUE_FULL;
        st = au_fail(err, AU_LIMIT, "%lld jobs are queued, at most %lld may", (long long)queued,
                     (long long)limits->queue_limit);
    }
    return st;
}

/* The adapter of a variant is ready and fits the model. Its hash is pinned now: sha256 [65], "" for
 * none. */
static au_status settle_adapter(au_db *db, const au_job_new *job, const au_job_variant *v,
                                char *sha256, au_submit_fault *fault, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    sha256[0] = 0;
    if (!v->adapter_id)
        return AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT a.sha256, m.status FROM adapters a LEFT JOIN adapter_models m "
                       "ON m.adapter_id = a.id AND m.model_fingerprint = ?2 "
                       "WHERE a.id = ?1 AND a.deleted_at = 0 AND a.status = 'ready'",
                       "tt", v->adapter_id, job->model_fingerprint));
    bool has_row;
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (!has_row) {
        *fault = AU_SUBMIT_NO_ADAPTER;
        st = au_fail(err, AU_NOT_FOUND, "adapter %.40s does not exist or is not ready",
                     v->adapter_id);
        goto done;
    }
    const char *fits = au_rows_text(rows, 1);
    if (!fits || strcmp(fits, "ready") != 0) {
        *fault = AU_SUBMIT_UNFIT;
        st = au_fail(err, AU_INVALID, "adapter %.40s does not fit model %s", v->adapter_id,
                     job->model_name);
        goto done;
    }
    snprintf(sha256, 65, "%s", au_rows_text(rows, 0));
done:
    au_rows_close(&rows);
    return st;
}

static au_status insert_samples(au_db *db, const au_job_new *job, size_t variant,
                                const au_job_variant *v, au_submit_result *out, au_err *err)
{
    char sha256[65];
    au_submit_fault fault = AU_SUBMIT_OK;
    au_status st = AU_OK;
    st = settle_adapter(db, job, v, sha256, &fault, err);
    if (st != AU_OK) {
        out->fault = fault;
        out->variant = variant;
        goto done;
    }
    for (int i = 0; i < job->num_samples; i++) {
        uint64_t seed = (job->seed + (uint64_t)i) % SEED_LIMIT;
        AU_TRY(au_db_exec(db, NULL, err,
                          "INSERT INTO job_samples (job_id, variant, idx, seed, adapter_id, "
                          "adapter_sha256, strength) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                          "tiiittd", out->job_id, (int64_t)variant, (int64_t)i, (int64_t)seed,
                          v->adapter_id, v->adapter_id ? sha256 : NULL, v->strength));
    }
done:
    return st;
}

au_status au_job_submit(au_db *db, const au_job_new *job, const au_limits *limits,
                        au_submit_result *out, au_err *err)
{
    static const au_job_variant plain = {.adapter_id = NULL, .strength = 1.0};
    const au_job_variant *variants = job->n_variants ? job->variants : &plain;
    size_t n_variants = job->n_variants ? job->n_variants : 1;
    au_status st = AU_OK;
    *out = (au_submit_result){.fault = AU_SUBMIT_OK};
    AU_FAIL_IF(job->num_samples < 1 || job->num_samples > limits->max_samples, AU_INVALID,
               "num_samples is %d, expected 1 to %lld", job->num_samples,
               (long long)limits->max_samples);
    AU_FAIL_IF(n_variants > (size_t)limits->max_variants, AU_INVALID,
               "%zu variants, expected 1 to %lld", n_variants, (long long)limits->max_variants);
    AU_FAIL_IF(job->seed >= SEED_LIMIT, AU_INVALID, "seed is %llu, expected less than 2^53",
               (unsigned long long)job->seed);
    AU_TRY(check_queue(db, limits, out, err));
    AU_TRY(settle_prompt(db, job, out, err));
    au_uuid7(out->job_id);
    int64_t deadline = job->deadline_ms;
    AU_TRY(au_db_exec(
        db, NULL, err,
        "INSERT INTO jobs (id, prompt_id, model_name, model_fingerprint, params, format, "
        "num_samples, "
        "num_variants, seed, seed_source, label, priority, state, max_attempts, warnings, "
        "retry_of, reproduces, created_at, deadline_at, queue_key, expected) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'queued', ?13, ?14, ?15, ?16, "
        "au_now_ms(), CASE WHEN ?17 > 0 THEN au_now_ms() + ?17 ELSE 0 END, "
        "au_now_ms() - ?12 * ?18, ?19)",
        "tttttt"
        "iii"
        "tt"
        "ii"
        "ttt"
        "iit",
        out->job_id, out->prompt_id, job->model_name, job->model_fingerprint, job->params,
        job->format, (int64_t)job->num_samples, (int64_t)n_variants, (int64_t)job->seed,
        job->seed_source, job->label ? job->label : "", (int64_t)job->priority,
        limits->max_attempts, job->warnings ? job->warnings : "[]", job->retry_of, job->reproduces,
        deadline, limits->priority_step_ms, job->expected));
    for (size_t i = 0; i < n_variants; i++)
        AU_TRY(insert_samples(db, job, i, &variants[i], out, err));
    AU_TRY(au_job_emit(db, out->job_id, "state", "{\"attempt\":0,\"state\":\"queued\"}", err));
    AU_TRY(au_outbox_add(db, "job", out->job_id, "queued", "{}", err));
done:
    return st;
}

au_status au_job_cancel(au_db *db, const char *id, au_cancel_result *out, au_job_state *state,
                        au_err *err)
{
    au_job_facts facts = {0};
    au_status st = AU_OK;
    bool found, changed;
    int64_t n;
    AU_TRY(au_job_facts_get(db, id, &facts, &found, err));
    AU_FAIL_IF(!found, AU_NOT_FOUND, "job %.40s does not exist", id);
    *state = facts.state;
    switch (facts.state) {
    case AU_JOB_QUEUED:
        AU_TRY(au_job_drop_samples(db, id, &n, err));
        AU_TRY(au_job_change_state(db,
                                   &(au_job_change){.job_id = id,
                                                    .from = AU_JOB_QUEUED,
                                                    .to = AU_JOB_CANCELLED,
                                                    .token = facts.token,
                                                    .deaths = -1},
                                   &changed, NULL, err));
        AU_ASSERT(changed); /* the write lock is held: nobody came between */
        *state = AU_JOB_CANCELLED;
        *out = AU_CANCEL_DONE;
        break;
    case AU_JOB_PROCESSING:
        AU_TRY(au_job_change_state(db,
                                   &(au_job_change){.job_id = id,
                                                    .from = AU_JOB_PROCESSING,
                                                    .to = AU_JOB_CANCELLING,
                                                    .token = facts.token,
                                                    .deaths = -1},
                                   &changed, NULL, err));
        AU_ASSERT(changed);
        *state = AU_JOB_CANCELLING;
        *out = AU_CANCEL_UNDER_WAY;
        break;
    case AU_JOB_CANCELLING:
        *out = AU_CANCEL_UNDER_WAY;
        break;
    case AU_JOB_CANCELLED:
        *out = AU_CANCEL_DONE;
        break;
    case AU_JOB_COMPLETED:
    case AU_JOB_FAILED:
        *out = AU_CANCEL_TOO_LATE;
        break;
    }
done:
    au_job_facts_deinit(&facts);
    return st;
}
