/* SPDX-License-Identifier: MIT */
/* What a worker does to the job it holds: heartbeat, progress, uploads, commits, and the ways an
 * attempt ends (transitions 3 to 7, 9 and 14). Every write carries the lease token; a
 * worker that lost its lease changes nothing and is told.
 *
 * Runs on the worker's control thread, in a transaction of its connection. No state of its own. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "jobs/job_state.h"
#include "jobs/outbox.h"

/* ---- While it runs
 * ------------------------------------------------------------------------------- */

/* First row's state of `rows` against the lease. */
static void judge(const au_rows *rows, bool has_row, bool *held, bool *cancelling)
{
    const char *state = has_row ? au_rows_text(rows, 0) : "";
    *held = strcmp(state, "processing") == 0;
    *cancelling = strcmp(state, "cancelling") == 0;
}

au_status au_job_heartbeat(au_db *db, const au_lease *lease, const au_limits *limits, bool working,
                           bool *held, bool *cancelling, au_err *err)
{
    au_rows *rows = NULL;
    bool has_row = false;
    au_status st = AU_OK;
    *held = *cancelling = false;
    AU_TRY(au_db_query(&rows, db, err,
                       "UPDATE jobs SET lease_until = au_clock_ms() + ?3, progress_clock = "
                       "CASE WHEN ?4 THEN au_clock_ms() ELSE progress_clock END WHERE id = ?1 AND "
                       "lease_token = ?2 AND state IN ('processing', 'cancelling') RETURNING state",
                       "tiii", lease->job_id, lease->token, limits->lease_ms, (int64_t)working));
    AU_TRY(au_rows_next(rows, &has_row, err));
    judge(rows, has_row, held, cancelling);
done:
    au_rows_close(&rows);
    return st;
}

au_status au_job_check(au_db *db, const au_lease *lease, bool *held, bool *cancelling, au_err *err)
{
    au_rows *rows = NULL;
    bool has_row = false;
    au_status st = AU_OK;
    *held = *cancelling = false;
    AU_TRY(au_db_query(&rows, db, err, "SELECT state FROM jobs WHERE id = ?1 AND lease_token = ?2",
                       "ti", lease->job_id, lease->token));
    AU_TRY(au_rows_next(rows, &has_row, err));
    judge(rows, has_row, held, cancelling);
done:
    au_rows_close(&rows);
    return st;
}

au_status au_job_set_progress(au_db *db, const au_lease *lease, const au_job_progress *p,
                              bool *held, au_err *err)
{
    int64_t n = 0;
    au_status st = au_db_exec(
        db, &n, err,
        "UPDATE jobs SET percent = CASE WHEN ?3 > percent THEN ?3 ELSE percent END, stage = ?4, "
        "step = ?5, steps = ?6, eta_ms = ?7, progress_at = au_now_ms(), "
        "progress_clock = au_clock_ms(), revision = revision + 1 "
        "WHERE id = ?1 AND lease_token = ?2 AND state = 'processing'",
        "tidtiii", lease->job_id, lease->token, p->percent, p->stage, p->step, p->steps, p->eta_ms);
    *held = n == 1;
    return st;
}

/* ---- Samples
 * --------------------------------------------------------------------------------------- */

au_status au_upload_begin(au_db *db, const au_lease *lease, const char *key, bool *held,
                          au_err *err)
{
    int64_t n = 0;
    au_status st = au_db_exec(db, &n, err,
                              "INSERT INTO uploads (key, job_id, lease_token, created_at) "
                              "SELECT ?3, id, lease_token, au_now_ms() FROM jobs "
                              "WHERE id = ?1 AND lease_token = ?2 AND state = 'processing'",
                              "tit", lease->job_id, lease->token, key);
    *held = n == 1;
    return st;
}

au_status au_upload_drop(au_db *db, const char *key, au_err *err)
{
    return au_db_exec(db, NULL, err, "DELETE FROM uploads WHERE key = ?1", "t", key);
}

static double finite_or_null(double v)
{
    return isfinite(v) ? v : (double)NAN;
}

static au_status insert_sample(au_db *db, const au_lease *lease, const au_sample_new *s,
                               au_err *err)
{
    int64_t n = 0;
    au_status st = au_db_exec(
        db, &n, err,
        "INSERT INTO samples (id, job_id, variant, idx, seed, prompt_id, model_name, "
        "model_fingerprint, adapter_id, adapter_sha256, strength, params, duration_s, sample_rate, "
        "channels, frames, format, bytes, sha256, pcm_sha256, store_key, loudness_lufs, "
        "true_peak_dbtp, peak, clipped, peaks, recipe, mini, created_at) "
        "SELECT ?1, j.id, s.variant, s.idx, s.seed, j.prompt_id, j.model_name, "
        "j.model_fingerprint, "
        "s.adapter_id, s.adapter_sha256, s.strength, j.params, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
        "?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, au_now_ms() FROM jobs j JOIN job_samples s "
        "ON s.job_id = j.id AND s.variant = ?3 AND s.idx = ?4 WHERE j.id = ?2",
        "ttii"
        "diiiti"
        "tttdddi"
        "ttt",
        s->id, lease->job_id, (int64_t)s->variant, (int64_t)s->index, s->duration_s,
        (int64_t)s->sample_rate, (int64_t)s->channels, s->frames, s->format, s->bytes, s->sha256,
        s->pcm_sha256, s->store_key, finite_or_null(s->loudness_lufs),
        finite_or_null(s->true_peak_dbtp), finite_or_null(s->peak), s->clipped, s->peaks, s->recipe,
        s->mini);
    if (st == AU_OK && n != 1)
        st = au_fail(err, AU_INTERNAL, "job %s has no sample %d of variant %d", lease->job_id,
                     s->index, s->variant);
    return st;
}

/* The sample's event, and the share of the finished ones as a floor of the progress. */
static au_status record_commit(au_db *db, const au_lease *lease, const au_sample_new *s,
                               au_err *err)
{
    char data[160];
    au_status st = AU_OK;
    snprintf(data, sizeof data, "{\"index\":%d,\"sample_id\":\"%s\",\"variant\":%d}", s->index,
             s->id, s->variant);
    AU_TRY(au_job_emit(db, lease->job_id, "sample", data, err));
    snprintf(data, sizeof data, "{\"index\":%d,\"job_id\":\"%s\",\"variant\":%d}", s->index,
             lease->job_id, s->variant);
    AU_TRY(au_outbox_add(db, "sample", s->id, "created", data, err));
    AU_TRY(au_db_exec(
        db, NULL, err,
        "UPDATE jobs SET progress_at = au_now_ms(), progress_clock = au_clock_ms(), percent = CASE "
        "WHEN percent < d.share THEN d.share ELSE percent END FROM (SELECT 100.0 * SUM(state = "
        "'completed') / COUNT(*) AS share FROM job_samples WHERE job_id = ?1) AS d WHERE id = ?1",
        "t", lease->job_id));
done:
    return st;
}

au_status au_job_commit_sample(au_db *db, const au_lease *lease, const au_sample_new *s, bool *held,
                               bool *completed, au_err *err)
{
    au_status st = AU_OK;
    bool cancelling, mine = false;
    int64_t n, missing;
    *completed = *held = false;
    AU_TRY(au_job_check(db, lease, &mine, &cancelling, err));
    if (!mine)
        goto done;
    AU_TRY(au_db_exec(db, &n, err,
                      "DELETE FROM uploads WHERE key = ?1 AND job_id = ?2 AND lease_token = ?3",
                      "tti", s->store_key, lease->job_id, lease->token));
    AU_FAIL_IF(n != 1, AU_INTERNAL, "object %s was not announced by this attempt", s->store_key);
    AU_TRY(
        au_db_exec(db, &n, err,
                   "UPDATE job_samples SET state = 'completed', sample_id = ?4 WHERE job_id = ?1 "
                   "AND variant = ?2 AND idx = ?3 AND state = 'queued'",
                   "tiit", lease->job_id, (int64_t)s->variant, (int64_t)s->index, s->id));
    AU_FAIL_IF(n != 1, AU_CONFLICT, "sample %d of variant %d of job %s is not missing", s->index,
               s->variant, lease->job_id);
    AU_TRY(insert_sample(db, lease, s, err));
    AU_TRY(record_commit(db, lease, s, err));
    AU_TRY(au_db_int(&missing, db, 0, err,
                     "SELECT COUNT(*) FROM job_samples WHERE job_id = ?1 AND state <> 'completed'",
                     "t", lease->job_id));
    *held = true;
    if (missing == 0)
        AU_TRY(au_job_change_state(db,
                                   &(au_job_change){.job_id = lease->job_id,
                                                    .from = AU_JOB_PROCESSING,
                                                    .to = AU_JOB_COMPLETED,
                                                    .token = lease->token,
                                                    .deaths = 0},
                                   completed, NULL, err));
done:
    return st;
}

/* ---- Ends
 * ------------------------------------------------------------------------------------------ */

au_status au_job_fail(au_db *db, const au_lease *lease, const char *type, const char *detail,
                      bool retryable, const au_limits *limits, bool *held, au_job_state *state,
                      au_err *err)
{
    au_job_facts facts = {0};
    char *error = NULL, *attempts = NULL;
    au_status st = AU_OK;
    bool found;
    *held = false;
    AU_TRY(au_job_facts_get(db, lease->job_id, &facts, &found, err));
    if (!found || facts.state != AU_JOB_PROCESSING || facts.token != lease->token)
        goto done;
    bool again = retryable && facts.attempt < facts.max_attempts;
    AU_TRY(au_job_end_texts(&facts,
                            &(au_job_end){.type = type,
                                          .detail = detail,
                                          .reason = detail,
                                          .retryable = retryable,
                                          .counted = true},
                            &error, &attempts, err));
    *state = again ? AU_JOB_QUEUED : AU_JOB_FAILED;
    AU_TRY(au_job_change_state(
        db,
        &(au_job_change){.job_id = lease->job_id,
                         .from = AU_JOB_PROCESSING,
                         .to = *state,
                         .token = lease->token,
                         .deaths = 0,
                         .backoff_ms = again ? au_job_backoff_ms(limits, facts.attempt - 1) : 0,
                         .error = error,
                         .attempts = attempts,
                         .reason = type},
        held, NULL, err));
done:
    free(error);
    free(attempts);
    au_job_facts_deinit(&facts);
    return st;
}

au_status au_job_hand_back(au_db *db, const au_lease *lease, bool interrupted,
                           const au_limits *limits, bool *held, au_err *err)
{
    if (interrupted)
        return au_job_lose(db, lease->job_id, lease->token, AU_LOSS_INTERRUPTED, "server ended",
                           limits, held, err);
    return au_job_change_state(db,
                               &(au_job_change){.job_id = lease->job_id,
                                                .from = AU_JOB_PROCESSING,
                                                .to = AU_JOB_QUEUED,
                                                .token = lease->token,
                                                .attempt_delta = -1,
                                                .deaths = 0,
                                                .reason = "handed-back"},
                               held, NULL, err);
}

/* Cancelling, with the token where one is given. */
static au_status is_cancelling(au_db *db, const char *job_id, int64_t token, bool *held,
                               au_err *err)
{
    int64_t n;
    au_status st = au_db_int(&n, db, 0, err,
                             "SELECT COUNT(*) FROM jobs WHERE id = ?1 AND state = 'cancelling' AND "
                             "(?2 < 0 OR lease_token = ?2)",
                             "ti", job_id, token);
    *held = n == 1;
    return st;
}

au_status au_job_clean_begin(au_db *db, au_arena *a, const char *job_id, int64_t token,
                             char ***keys, size_t *n_keys, bool *held, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    int64_t n;
    *keys = NULL;
    *n_keys = 0;
    AU_TRY(is_cancelling(db, job_id, token, held, err));
    if (!*held)
        goto done;
    AU_TRY(au_job_drop_samples(db, job_id, &n, err));
    AU_TRY(
        au_db_int(&n, db, 0, err, "SELECT COUNT(*) FROM uploads WHERE job_id = ?1", "t", job_id));
    *keys = au_arena_alloc(a, (size_t)n * sizeof **keys + 1);
    AU_FAIL_IF(!*keys, AU_LIMIT, "job %s left too many objects (%lld)", job_id, (long long)n);
    AU_TRY(au_db_query(&rows, db, err, "SELECT key FROM uploads WHERE job_id = ?1", "t", job_id));
    for (bool has_row; *n_keys < (size_t)n;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        AU_TRY(au_rows_strdup(&(*keys)[*n_keys], rows, 0, a, err));
        (*n_keys)++;
    }
done:
    au_rows_close(&rows);
    return st;
}

au_status au_job_clean_end(au_db *db, const char *job_id, int64_t token, bool *held, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(is_cancelling(db, job_id, token, held, err));
    if (!*held)
        goto done;
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM uploads WHERE job_id = ?1", "t", job_id));
    AU_TRY(au_job_change_state(db,
                               &(au_job_change){.job_id = job_id,
                                                .from = AU_JOB_CANCELLING,
                                                .to = AU_JOB_CANCELLED,
                                                .token = token,
                                                .deaths = -1},
                               held, NULL, err));
done:
    return st;
}
