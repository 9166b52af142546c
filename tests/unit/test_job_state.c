/* SPDX-License-Identifier: MIT */
/* The job state machine, transition by transition, without an engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "jobs_fixture.h"

#define W1 "01970000-0000-7000-8000-000000000001"
#define W2 "01970000-0000-7000-8000-000000000002"

static int teardown(void **state)
{
    fixture *f = *state;
    fixture_close(f);
    free(f);
    return 0;
}

/* Events are numbered 1..n without gaps, and end with state, done once the job is final. */
static void check_events(fixture *f, const char *id)
{
    au_event *events;
    size_t n;
    const au_job *job = look(f, id);
    OK(au_event_list(f->db, &f->arena, id, 0, 0, &events, &n, &f->err));
    assert_int_equal(n, job->event_seq);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(events[i].seq, i + 1);
    assert_int_equal(strcmp(events[n - 1].event, "done") == 0, au_job_state_is_final(job->state));
}

static void test_names(void **state)
{
    (void)state;
    au_job_state s;
    for (int i = 0; i < AU_JOB_STATE_COUNT; i++) {
        assert_true(au_job_state_parse(au_job_state_name((au_job_state)i), &s));
        assert_int_equal(s, i);
    }
    assert_false(au_job_state_parse("done", &s));
}

/* Row 1. */
static void test_submit(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.num_samples = 3;
    job.seed = ((uint64_t)1 << 53) - 2;
    submit(f, &job, id);
    const au_job *j = look(f, id);
    assert_int_equal(j->state, AU_JOB_QUEUED);
    assert_int_equal(j->attempt, 0);
    assert_int_equal(j->queue_position, 1);
    assert_int_equal(j->n_samples, 3);
    assert_true(j->samples[0].seed == job.seed);
    assert_true(j->samples[1].seed == job.seed + 1);
    assert_true(j->samples[2].seed == 0);
    assert_string_equal(j->samples[0].state, "queued");
    assert_string_equal(j->prompt_text, "a calm piano");
    check_events(f, id);
    /* The same text is the same prompt record; another negative text is not. */
    char other[AU_UUID_TEXT];
    submit(f, &job, other);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM prompts"), 1);
    job.negative_text = "noise";
    submit(f, &job, other);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM prompts"), 2);
    assert_int_equal(look(f, other)->queue_position, 3);
}

static void refuse(fixture *f, const au_job_new *job, au_status expected, au_submit_fault fault)
{
    au_submit_result r;
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_job_submit(f->db, job, &f->limits, &r, &f->err), expected);
    assert_int_equal(r.fault, fault);
    au_db_rollback(f->db);
}

static void test_submit_refused(void **state)
{
    fixture *f = *state;
    au_job_new job = plain_job();
    job.prompt_id = W1;
    refuse(f, &job, AU_NOT_FOUND, AU_SUBMIT_NO_PROMPT);
    job = plain_job();
    au_job_variant variants[] = {{NULL, 1}, {W1, 1}};
    job.variants = variants;
    job.n_variants = 2;
    refuse(f, &job, AU_NOT_FOUND, AU_SUBMIT_NO_ADAPTER);
    job = plain_job();
    f->limits.queue_limit = 1;
    char id[AU_UUID_TEXT];
    submit(f, &job, id);
    refuse(f, &job, AU_LIMIT, AU_SUBMIT_QUEUE_FULL);
    f->limits.queue_limit = 100;
    job.num_samples = 17;
    refuse(f, &job, AU_INVALID, AU_SUBMIT_OK);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 1);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM prompts"), 1);
}

/* Row 2: priority, then age; run_after; models; the open model among jobs of one priority. */
static void test_claim_order(void **state)
{
    fixture *f = *state;
    char low[AU_UUID_TEXT], first[AU_UUID_TEXT], second[AU_UUID_TEXT], other[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.priority = -5;
    submit(f, &job, low);
    job.priority = 0;
    submit(f, &job, first);
    submit(f, &job, second);
    job.model_name = "other";
    submit(f, &job, other);
    assert_int_equal(look(f, low)->queue_position, 4);
    assert_int_equal(look(f, second)->queue_position, 2);
    au_lease lease;
    assert_true(claim_as(f, W1, &lease));
    assert_string_equal(lease.job_id, first);
    assert_int_equal(lease.token, 1);
    const char *const models[] = {"m", "other"};
    bool claimed;
    TX(au_job_claim(f->db, W1, models, 2, "other", &f->limits, &lease, &claimed, &f->err));
    assert_true(claimed);
    assert_string_equal(lease.job_id, other);
    assert_true(claim_as(f, W1, &lease));
    assert_string_equal(lease.job_id, second);
    OK(au_db_exec(f->db, NULL, &f->err, "UPDATE jobs SET run_after = au_clock_ms() + 60000", ""));
    assert_false(claim_as(f, W1, &lease));
    bool waiting;
    OK(au_job_peek(f->db, models, 2, &waiting, &f->err));
    assert_false(waiting);
    OK(au_db_exec(f->db, NULL, &f->err, "UPDATE jobs SET run_after = 0", ""));
    OK(au_job_peek(f->db, models, 2, &waiting, &f->err));
    assert_true(waiting);
    const au_job *j = look(f, first);
    assert_int_equal(j->attempt, 1);
    assert_string_equal(j->lease_owner, W1);
    assert_string_equal(j->samples[0].state, "processing");
}

/* Rows 3, 4, 5. */
static void test_run_to_the_end(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.num_samples = 2;
    submit(f, &job, id);
    au_lease lease;
    bool held, cancelling;
    assert_true(claim_as(f, W1, &lease));
    TX(au_job_heartbeat(f->db, &lease, &f->limits, false, &held, &cancelling, &f->err));
    assert_true(held && !cancelling);
    au_job_progress p = {.percent = 30, .stage = "decode", .step = 3, .steps = 10, .eta_ms = 100};
    TX(au_job_set_progress(f->db, &lease, &p, &held, &f->err));
    assert_true(held);
    p.percent = 20;
    TX(au_job_set_progress(f->db, &lease, &p, &held, &f->err));
    assert_true(look(f, id)->percent == 30);
    assert_true(make_sample(f, &lease, 0, 1));
    const au_job *j = look(f, id);
    assert_int_equal(j->state, AU_JOB_PROCESSING);
    assert_true(j->percent == 50);
    assert_string_equal(j->samples[1].state, "completed");
    assert_null(j->samples[0].sample_id);
    assert_true(make_sample(f, &lease, 0, 0));
    j = look(f, id);
    assert_int_equal(j->state, AU_JOB_COMPLETED);
    assert_true(j->percent == 100 && j->finished_at >= j->started_at);
    assert_null(j->error);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    assert_int_equal(objects(f), 2);
    check_events(f, id);
    au_sample *s;
    OK(au_sample_get(f->db, &f->arena, j->samples[1].sample_id, &s, &f->err));
    assert_int_equal(s->seed, 8);
    assert_string_equal(s->prompt_text, "a calm piano");
    au_cancel_result r;
    au_job_state now;
    TX(au_job_cancel(f->db, id, &r, &now, &f->err));
    assert_int_equal(r, AU_CANCEL_TOO_LATE);
    assert_int_equal(now, AU_JOB_COMPLETED);
}

/* Rows 6 and 7. */
static void test_errors(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.num_samples = 2;
    submit(f, &job, id);
    au_lease lease;
    bool held;
    au_job_state now;
    for (int attempt = 1; attempt <= 3; attempt++) {
        assert_true(claim_as(f, W1, &lease));
        if (attempt == 1)
            assert_true(make_sample(f, &lease, 0, 0));
        TX(au_job_fail(f->db, &lease, "storage", "disk full", true, &f->limits, &held, &now,
                       &f->err));
        assert_true(held);
        assert_int_equal(now, attempt < 3 ? AU_JOB_QUEUED : AU_JOB_FAILED);
    }
    const au_job *j = look(f, id);
    assert_int_equal(j->state, AU_JOB_FAILED);
    assert_int_equal(j->attempt, 3);
    assert_non_null(strstr(j->error, "/problems/storage"));
    assert_non_null(strstr(j->error, "\"retryable\":true"));
    assert_non_null(strstr(j->error, "\"attempt\":3"));
    assert_non_null(j->samples[0].sample_id);
    assert_string_equal(j->samples[1].state, "failed");
    check_events(f, id);
    submit(f, &job, id);
    assert_true(claim_as(f, W1, &lease));
    TX(au_job_fail(f->db, &lease, "invalid-job", "no", false, &f->limits, &held, &now, &f->err));
    assert_int_equal(now, AU_JOB_FAILED);
    assert_false(claim_as(f, W1, &lease));
}

/* Rows 8, 9, 10. */
static void test_cancel(void **state)
{
    fixture *f = *state;
    char queued[AU_UUID_TEXT], id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.num_samples = 2;
    submit(f, &job, id);
    au_lease lease;
    au_cancel_result r;
    au_job_state now;
    bool held, cancelling, completed;
    assert_true(claim_as(f, W1, &lease));
    submit(f, &job, queued);
    for (int i = 0; i < 2; i++) {
        TX(au_job_cancel(f->db, queued, &r, &now, &f->err));
        assert_int_equal(r, AU_CANCEL_DONE);
        assert_int_equal(now, AU_JOB_CANCELLED);
    }
    check_events(f, queued);
    assert_true(make_sample(f, &lease, 0, 0));
    for (int i = 0; i < 2; i++) {
        TX(au_job_cancel(f->db, id, &r, &now, &f->err));
        assert_int_equal(r, AU_CANCEL_UNDER_WAY);
        assert_int_equal(now, AU_JOB_CANCELLING);
    }
    OK(au_job_check(f->db, &lease, &held, &cancelling, &f->err));
    assert_true(!held && cancelling);
    TX(au_job_heartbeat(f->db, &lease, &f->limits, false, &held, &cancelling, &f->err));
    assert_true(!held && cancelling);
    assert_false(make_sample(f, &lease, 0, 1));
    au_job_progress p = {.percent = 99, .stage = "codec"};
    TX(au_job_set_progress(f->db, &lease, &p, &held, &f->err));
    assert_false(held);
    TX(au_job_fail(f->db, &lease, "model-error", "late", true, &f->limits, &held, &now, &f->err));
    assert_false(held);
    char **keys;
    size_t n;
    TX(au_job_clean_begin(f->db, &f->arena, id, lease.token, &keys, &n, &held, &f->err));
    assert_true(held);
    assert_int_equal(n, 1);
    OK(au_store_delete(f->store, keys[0], &f->err));
    TX(au_job_clean_end(f->db, id, lease.token, &held, &f->err));
    assert_true(held);
    TX(au_job_clean_end(f->db, id, lease.token, &completed, &f->err));
    assert_false(completed);
    const au_job *j = look(f, id);
    assert_int_equal(j->state, AU_JOB_CANCELLED);
    assert_string_equal(j->samples[0].state, "cancelled");
    assert_int_equal(
        count(f, "SELECT (SELECT COUNT(*) FROM samples) + (SELECT COUNT(*) FROM uploads)"), 0);
    assert_int_equal(objects(f), 0);
    check_events(f, id);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_job_cancel(f->db, W1, &r, &now, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
}

/* Rows 11 and 12. */
static void test_lease_and_poison(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    submit(f, &job, id);
    au_lease lease;
    int n;
    assert_true(claim_as(f, W1, &lease));
    TX(au_jobs_expire(f->db, &f->limits, &n, &f->err));
    assert_int_equal(n, 0);
    OK(au_db_exec(f->db, NULL, &f->err, "UPDATE jobs SET lease_until = au_clock_ms() - 1", ""));
    TX(au_jobs_expire(f->db, &f->limits, &n, &f->err));
    assert_int_equal(n, 1);
    const au_job *j = look(f, id);
    assert_int_equal(j->state, AU_JOB_QUEUED);
    assert_int_equal(j->attempt, 1);
    assert_null(j->lease_owner);
    assert_true(claim_as(f, W2, &lease));
    assert_int_equal(lease.token, 2);
    TX(au_jobs_worker_gone(f->db, W2, AU_LOSS_DEATH, "killed by signal 9", &f->limits, &n,
                           &f->err));
    assert_int_equal(n, 1);
    j = look(f, id);
    assert_int_equal(j->state, AU_JOB_FAILED);
    assert_non_null(strstr(j->error, "/problems/poisoned"));
    assert_non_null(strstr(j->attempts, "killed by signal 9"));
    check_events(f, id);
}

/* A worker that dies with many jobs in it: each runs alone the next time, so that only the culprit
 * is poisoned. A stall marks a job the same way, the end of the server does not. */
static void test_jobs_of_a_dead_worker_run_alone(void **state)
{
    fixture *f = *state;
    enum { JOBS = 70 };
    static const char *const models[] = {"m"};
    char id[JOBS][AU_UUID_TEXT];
    au_job_new job = plain_job();
    au_job_candidate next;
    au_lease lease;
    au_cancel_result result;
    au_job_state now;
    bool found, changed;
    int n;
    for (int i = 0; i < JOBS; i++)
        submit(f, &job, id[i]);
    for (int i = 0; i < JOBS; i++)
        assert_true(claim_as(f, W1, &lease));
    TX(au_job_cancel(f->db, id[0], &result, &now, &f->err));
    TX(au_jobs_worker_gone(f->db, W1, AU_LOSS_INTERRUPTED, "ended", &f->limits, &n, &f->err));
    assert_int_equal(n, JOBS);
    assert_int_equal(look(f, id[0])->state, AU_JOB_CANCELLING);
    assert_int_equal(count(f, "SELECT SUM(alone) FROM jobs"), 0);
    OK(au_job_next(f->db, models, 1, NULL, &next, &found, &f->err));
    assert_true(found && !next.alone);
    assert_string_equal(next.id, id[1]);
    for (int i = 1; i < JOBS; i++)
        assert_true(claim_as(f, W2, &lease));
    TX(au_jobs_worker_gone(f->db, W2, AU_LOSS_DEATH, "killed", &f->limits, &n, &f->err));
    assert_int_equal(n, JOBS - 1);
    assert_int_equal(count(f, "SELECT SUM(alone) FROM jobs WHERE state = 'queued'"), JOBS - 1);
    OK(au_job_next(f->db, models, 1, NULL, &next, &found, &f->err));
    assert_true(found && next.alone);
    /* Taken once only. */
    TX(au_job_take(f->db, W1, &next, &f->limits, &lease, &changed, &f->err));
    assert_true(changed);
    TX(au_job_take(f->db, W2, &next, &f->limits, &lease, &changed, &f->err));
    assert_false(changed);
    submit(f, &job, id[0]);
    OK(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE jobs SET run_after = au_clock_ms() + 100000 "
                  "WHERE alone",
                  ""));
    assert_true(claim_as(f, W1, &lease));
    assert_string_equal(lease.job_id, id[0]);
    TX(au_job_lose(f->db, id[0], lease.token, AU_LOSS_STALL, "x", &f->limits, &changed, &f->err));
    OK(au_job_next(f->db, models, 1, NULL, &next, &found, &f->err));
    assert_true(found && next.alone);
}

/* An error report between two deaths: not in a row. */
static void test_deaths_not_in_a_row(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    f->limits.max_attempts = 9;
    submit(f, &job, id);
    au_lease lease;
    int n;
    bool held;
    au_job_state now;
    for (int i = 0; i < 3; i++) {
        assert_true(claim_as(f, W1, &lease));
        TX(au_jobs_worker_gone(f->db, W1, AU_LOSS_DEATH, "killed", &f->limits, &n, &f->err));
        assert_int_equal(look(f, id)->state, AU_JOB_QUEUED);
        assert_true(claim_as(f, W1, &lease));
        TX(au_job_fail(f->db, &lease, "storage", "x", true, &f->limits, &held, &now, &f->err));
        assert_true(held);
    }
    assert_int_equal(look(f, id)->attempt, 6);
}

/* Row 13: a worker that lost its lease changes nothing. */
static void test_old_token(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT], key[AU_STORE_KEY], sample[AU_UUID_TEXT];
    au_job_new job = plain_job();
    submit(f, &job, id);
    au_lease old, new;
    bool held, cancelling, completed, changed;
    au_job_state now;
    assert_true(claim_as(f, W1, &old));
    au_uuid7(sample);
    OK(au_store_sample_key(key, sample, "wav", &f->err));
    TX(au_upload_begin(f->db, &old, key, &held, &f->err));
    assert_true(held);
    TX(au_job_lose(f->db, id, old.token, AU_LOSS_DEATH, "lease", &f->limits, &changed, &f->err));
    assert_true(changed);
    assert_true(claim_as(f, W2, &new));
    au_sample_new s = {.id = sample,
                       .store_key = key,
                       .format = "wav",
                       .sha256 = "a",
                       .pcm_sha256 = "b",
                       .recipe = "{}"};
    TX(au_job_commit_sample(f->db, &old, &s, &held, &completed, &f->err));
    assert_true(!held && !completed);
    TX(au_job_heartbeat(f->db, &old, &f->limits, false, &held, &cancelling, &f->err));
    assert_true(!held && !cancelling);
    TX(au_upload_begin(f->db, &old, "samples/aa/x.wav", &held, &f->err));
    assert_false(held);
    TX(au_job_fail(f->db, &old, "storage", "x", true, &f->limits, &held, &now, &f->err));
    assert_false(held);
    TX(au_job_hand_back(f->db, &old, false, &f->limits, &held, &f->err));
    assert_false(held);
    TX(au_job_lose(f->db, id, old.token, AU_LOSS_DEATH, "late", &f->limits, &changed, &f->err));
    assert_false(changed);
    const au_job *j = look(f, id);
    assert_int_equal(j->state, AU_JOB_PROCESSING);
    assert_int_equal(j->lease_token, new.token);
    assert_string_equal(j->lease_owner, W2);
    assert_true(make_sample(f, &new, 0, 0));
    assert_int_equal(look(f, id)->state, AU_JOB_COMPLETED);
    check_events(f, id);
}

/* Row 14. */
static void test_hand_back(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.num_samples = 2;
    submit(f, &job, id);
    au_lease lease;
    bool held;
    for (int i = 0; i < 5; i++) {
        assert_true(claim_as(f, W1, &lease));
        if (i == 0)
            assert_true(make_sample(f, &lease, 0, 0));
        TX(au_job_hand_back(f->db, &lease, false, &f->limits, &held, &f->err));
        assert_true(held);
        const au_job *j = look(f, id);
        assert_int_equal(j->state, AU_JOB_QUEUED);
        assert_int_equal(j->attempt, 0);
        assert_int_equal(j->interruptions, 0);
        assert_non_null(j->samples[0].sample_id);
        assert_true(j->percent == 50);
    }
    assert_true(claim_as(f, W1, &lease));
    assert_int_equal(lease.token, 6);
    assert_true(make_sample(f, &lease, 0, 1));
    assert_int_equal(look(f, id)->state, AU_JOB_COMPLETED);
}

/* Row 15's bookkeeping: more than ten interruptions. */
static void test_interruptions(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    submit(f, &job, id);
    au_lease lease;
    for (int i = 1; i <= 11; i++) {
        bool changed;
        assert_true(claim_as(f, W1, &lease));
        TX(au_job_lose(f->db, id, lease.token, AU_LOSS_INTERRUPTED, "server ended", &f->limits,
                       &changed, &f->err));
        assert_true(changed);
        const au_job *j = look(f, id);
        assert_int_equal(j->attempt, 0);
        assert_int_equal(j->interruptions, i);
        assert_int_equal(j->state, i <= 10 ? AU_JOB_QUEUED : AU_JOB_FAILED);
    }
    assert_non_null(strstr(look(f, id)->error, "/problems/interrupted"));
}

/* Row 16. */
static void test_stall(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    f->limits.max_attempts = 2;
    submit(f, &job, id);
    au_lease lease;
    au_stalled s;
    bool found, changed, held;
    for (int attempt = 1; attempt <= 2; attempt++) {
        assert_true(claim_as(f, W1, &lease));
        OK(au_jobs_find_stalled(f->db, &f->limits, &s, &found, &f->err));
        assert_false(found);
        OK(au_db_exec(f->db, NULL, &f->err,
                      "UPDATE jobs SET progress_clock = progress_clock - 60001", ""));
        OK(au_jobs_find_stalled(f->db, &f->limits, &s, &found, &f->err));
        assert_true(found);
        assert_string_equal(s.worker_id, W1);
        if (attempt == 1) {
            au_job_progress p = {.percent = 1, .stage = "decode", .step = 1};
            TX(au_job_set_progress(f->db, &lease, &p, &held, &f->err));
            OK(au_jobs_find_stalled(f->db, &f->limits, &s, &found, &f->err));
            assert_false(found);
        }
        TX(au_job_lose(f->db, id, lease.token, AU_LOSS_STALL, "no progress", &f->limits, &changed,
                       &f->err));
        assert_true(changed);
    }
    const au_job *j = look(f, id);
    assert_int_equal(j->state, AU_JOB_FAILED);
    assert_non_null(strstr(j->error, "/problems/stalled"));
}

static void test_deadline(void **state)
{
    fixture *f = *state;
    char waits[AU_UUID_TEXT], runs[AU_UUID_TEXT], later[AU_UUID_TEXT];
    au_job_new job = plain_job();
    job.deadline_ms = 60000;
    submit(f, &job, runs);
    au_lease lease;
    assert_true(claim_as(f, W1, &lease));
    submit(f, &job, waits);
    submit(f, &job, later);
    OK(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE jobs SET deadline_at = au_now_ms() - 1 WHERE id <> ?1", "t", later));
    au_lease none;
    int n;
    assert_true(claim_as(f, W2, &none)); /* a late one is not begun */
    assert_string_equal(none.job_id, later);
    TX(au_jobs_expire(f->db, &f->limits, &n, &f->err));
    assert_int_equal(n, 2);
    assert_int_equal(look(f, waits)->state, AU_JOB_FAILED);
    assert_non_null(strstr(look(f, waits)->error, "/problems/deadline"));
    assert_int_equal(look(f, runs)->state, AU_JOB_FAILED);
    assert_false(make_sample(f, &lease, 0, 0));
    check_events(f, runs);
}

static void test_lists(void **state)
{
    fixture *f = *state;
    char ids[5][AU_UUID_TEXT];
    au_job_new job = plain_job();
    for (int i = 0; i < 5; i++) {
        job.label = i % 2 ? "odd" : "even";
        submit(f, &job, ids[i]);
    }
    au_job **page;
    size_t n;
    bool more;
    au_job_filter filter = {.limit = 2};
    OK(au_job_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
    assert_int_equal(n, 2);
    assert_true(more);
    assert_string_equal(page[0]->id, ids[4]);
    assert_int_equal(page[0]->queue_position, 5);
    filter.before_id = page[1]->id;
    filter.limit = 3;
    OK(au_job_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
    assert_int_equal(n, 3);
    assert_false(more);
    filter = (au_job_filter){.label = "odd", .state = "queued", .prompt_id = page[0]->prompt_id};
    OK(au_job_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
    assert_int_equal(n, 2);
    filter = (au_job_filter){.state = "failed"};
    OK(au_job_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
    assert_int_equal(n, 0);
    filter = (au_job_filter){.adapter_id = W1};
    OK(au_job_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
    assert_int_equal(n, 0);
    au_queue_stats q;
    OK(au_queue_stats_get(f->db, &q, &f->err));
    assert_int_equal(q.queued, 5);
    assert_int_equal(q.processing, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        T(test_submit),
        T(test_submit_refused),
        T(test_claim_order),
        T(test_run_to_the_end),
        T(test_errors),
        T(test_cancel),
        T(test_lease_and_poison),
        T(test_jobs_of_a_dead_worker_run_alone),
        T(test_deaths_not_in_a_row),
        T(test_old_token),
        T(test_hand_back),
        T(test_interruptions),
        T(test_stall),
        T(test_deadline),
        T(test_lists),
    };
    return cmocka_run_group_tests_name("job_state", tests, NULL, NULL);
}
