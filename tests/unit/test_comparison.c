/* SPDX-License-Identifier: MIT */
/* Comparisons: views, pairs found and given, tests whose samples are still to be made, sessions,
 * votes and their counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>

#include "compare/comparison.h"
#include "compare/results.h"
#include "jobs_fixture.h"

#define W1 "01970000-0000-7000-8000-000000000001"
#define ADAPTER(n) "01970000-0000-7000-8000-0000000000a" #n

enum { N_ADAPTERS = 2 };

static int setup(void **state)
{
    static const char *const ids[] = {ADAPTER(1), ADAPTER(2)};
    fixture *f = calloc(1, sizeof *f);
    fixture_open(f);
    for (int i = 0; i < N_ADAPTERS; i++) {
        OK(au_db_exec(f->db, NULL, &f->err,
                      "INSERT INTO adapters (id, name, source, sha256, status, created_at) "
                      "VALUES (?1, ?1, 'folder', 'h' || ?1, 'ready', 0)",
                      "t", ids[i]));
        OK(au_db_exec(f->db, NULL, &f->err,
                      "INSERT INTO adapter_models (adapter_id, model_fingerprint, status) "
                      "VALUES (?1, 'f00d', 'ready')",
                      "t", ids[i]));
    }
    *state = f;
    return 0;
}

/* A job with `n_arms` variants (none, adapter 1, adapter 2), finished if asked. */
static void make_job(fixture *f, int num_samples, size_t n_arms, bool finish, char id[AU_UUID_TEXT])
{
    static const au_job_variant variants[] = {{NULL, 1}, {ADAPTER(1), 1}, {ADAPTER(2), 1}};
    au_job_new job = plain_job();
    au_lease lease;
    job.num_samples = num_samples;
    job.variants = variants;
    job.n_variants = n_arms;
    submit(f, &job, id);
    if (!finish)
        return;
    assert_true(claim_as(f, W1, &lease));
    for (int v = 0; v < (int)n_arms; v++) {
        for (int i = 0; i < num_samples; i++)
            assert_true(make_sample(f, &lease, v, i));
    }
}

static const char *sample_of(fixture *f, const char *job_id, int variant, int index)
{
    const au_job *job = look(f, job_id);
    return job->samples[variant * job->num_samples + index].sample_id;
}

static au_comparison *get(fixture *f, const char *id)
{
    au_comparison *c;
    OK(au_comparison_get(f->db, &f->arena, id, &c, &f->err));
    return c;
}

static void test_view(void **state)
{
    fixture *f = *state;
    char job[AU_UUID_TEXT], id[AU_UUID_TEXT];
    bool changed;
    make_job(f, 3, 1, true, job);
    const char *ids[] = {sample_of(f, job, 0, 2), sample_of(f, job, 0, 0), sample_of(f, job, 0, 2)};
    au_comparison new = {.mode = AU_COMPARE_VIEW, .sample_ids = ids, .n_samples = 3};
    TX(au_comparison_create(f->db, &new, id, &f->err));
    au_comparison *c = get(f, id), **all;
    assert_int_equal(c->n_samples, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(c->sample_ids[i], ids[i]);
    size_t n;
    bool more;
    OK(au_comparison_list(f->db, &f->arena, NULL, 10, &all, &n, &more, &f->err));
    assert_int_equal(n, 1);
    assert_int_equal(all[0]->n_samples, 3);
    ids[1] = W1;
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_comparison_create(f->db, &new, id, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM comparisons"), 1);
    char token[AU_RATER_TOKEN_TEXT];
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_rater_session_create(f->db, c, "", token, &f->err), AU_CONFLICT);
    assert_int_equal(au_comparison_close(f->db, c->id, &changed, &f->err), AU_CONFLICT);
    OK(au_comparison_delete(f->db, c->id, &f->err));
    assert_int_equal(au_comparison_delete(f->db, c->id, &f->err), AU_NOT_FOUND);
    OK(au_db_commit(f->db, &f->err));
    assert_true(get(f, c->id)->deleted_at > 0);
}

static void test_pairs(void **state)
{
    fixture *f = *state;
    char job[AU_UUID_TEXT];
    make_job(f, 2, 3, true, job);
    const char *ids[6];
    for (int i = 0; i < 6; i++)
        ids[i] = sample_of(f, job, i / 2, i % 2);
    /* Three arms, two seeds: three pairs each; samples of unlike seeds are none. */
    au_comparison new = {.mode = AU_COMPARE_AB, .sample_ids = ids, .n_samples = 6};
    OK(au_comparison_pair_up(f->db, &f->arena, &new, &f->err));
    assert_int_equal(new.n_arms, 3);
    assert_int_equal(new.n_pairs, 6);
    for (size_t i = 0; i < new.n_pairs; i++)
        assert_true(new.pairs[i].arm_a != new.pairs[i].arm_b);
    size_t bad;
    const char *good[] = {ids[0], ids[2], ids[5], ids[1]};
    OK(au_comparison_take_pairs(f->db, &f->arena, &new, good, 2, &bad, &f->err));
    assert_int_equal(new.n_arms, 3);
    assert_string_equal(new.pairs[1].sample_a, ids[5]);
    const char *unlike[] = {ids[0], ids[2], ids[0], ids[3]};
    assert_int_equal(au_comparison_take_pairs(f->db, &f->arena, &new, unlike, 2, &bad, &f->err),
                     AU_INVALID);
    assert_int_equal(bad, 1);
    assert_string_equal(f->err.message, "seed");
    const char *same[] = {ids[0], ids[0]};
    assert_int_equal(au_comparison_take_pairs(f->db, &f->arena, &new, same, 1, &bad, &f->err),
                     AU_INVALID);
    const char *gone[] = {ids[0], W1};
    assert_int_equal(au_comparison_take_pairs(f->db, &f->arena, &new, gone, 1, &bad, &f->err),
                     AU_NOT_FOUND);
}

/* A test of `n_arms` arms on a job's samples, one pair per index and two arms. */
static void make_test(fixture *f, au_comparison_mode mode, const char *job, int num_samples,
                      size_t n_arms, char id[AU_UUID_TEXT])
{
    au_arm arms[] = {{.strength = 1},
                     {.adapter_id = ADAPTER(1), .adapter_sha256 = "h", .strength = 1},
                     {.adapter_id = ADAPTER(2), .adapter_sha256 = "i", .strength = 1}};
    au_pair pairs[12];
    size_t n = 0;
    for (int i = 0; i < num_samples; i++) {
        for (size_t a = 0; a < n_arms; a++) {
            for (size_t b = a + 1; b < n_arms; b++)
                pairs[n++] = (au_pair){.arm_a = a,
                                       .arm_b = b,
                                       .prompt_id = look(f, job)->prompt_id,
                                       .job_id = job,
                                       .index = i};
        }
    }
    au_comparison new = {.mode = mode,
                         .blind = true,
                         .votes_wanted = 4,
                         .seed = 99,
                         .arms = arms,
                         .n_arms = n_arms,
                         .pairs = pairs,
                         .n_pairs = n,
                         .job_ids = &job,
                         .n_jobs = 1};
    TX(au_comparison_create(f->db, &new, id, &f->err));
}

static void test_samples_to_be_made(void **state)
{
    fixture *f = *state;
    char job[AU_UUID_TEXT], id[AU_UUID_TEXT], token[AU_RATER_TOKEN_TEXT];
    au_lease lease;
    au_cancel_result cancelled;
    au_job_state now;
    make_job(f, 2, 2, false, job);
    make_test(f, AU_COMPARE_AB, job, 2, 2, id);
    assert_int_equal(get(f, id)->pairs[1].state, AU_PAIR_GENERATING);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_rater_session_create(f->db, get(f, id), "", token, &f->err), AU_CONFLICT);
    au_db_rollback(f->db);
    /* One pair is made, then the job fails: that pair can be judged, the other one has failed. */
    assert_true(claim_as(f, W1, &lease));
    assert_true(make_sample(f, &lease, 0, 0) && make_sample(f, &lease, 1, 0));
    assert_int_equal(get(f, id)->pairs[0].state, AU_PAIR_READY);
    bool held;
    TX(au_job_fail(f->db, &lease, "model-error", "x", false, &f->limits, &held, &now, &f->err));
    au_comparison *c = get(f, id);
    assert_int_equal(c->pairs[0].state, AU_PAIR_READY);
    assert_int_equal(c->pairs[1].state, AU_PAIR_FAILED);
    TX(au_rater_session_create(f->db, c, "ann", token, &f->err));
    au_rater_session *s;
    OK(au_rater_session_get(f->db, &f->arena, token, &s, &f->err));
    assert_int_equal(s->n_trials, 1);
    /* All pairs failed: nothing to judge. */
    make_job(f, 1, 2, false, job);
    make_test(f, AU_COMPARE_AB, job, 1, 2, id);
    TX(au_job_cancel(f->db, job, &cancelled, &now, &f->err));
    assert_int_equal(get(f, id)->pairs[0].state, AU_PAIR_FAILED);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_rater_session_create(f->db, get(f, id), "", token, &f->err), AU_CONFLICT);
    au_db_rollback(f->db);
}

/* Votes on the next trial for the arm `wanted` where it takes part, else `otherwise`. */
static bool vote(fixture *f, const char *comparison, const char *token, int wanted,
                 au_choice otherwise)
{
    au_rater_session *s;
    au_trial *t;
    OK(au_rater_session_get(f->db, &f->arena, token, &s, &f->err));
    OK(au_trial_next(f->db, &f->arena, s->id, &t, &f->err));
    if (!t)
        return false;
    au_comparison *c = get(f, comparison);
    au_choice choice = otherwise;
    for (size_t i = 0; i < c->n_pairs; i++) {
        const au_pair *p = &c->pairs[i];
        const char *sample = (int)p->arm_a == wanted   ? p->sample_a
                             : (int)p->arm_b == wanted ? p->sample_b
                                                       : "";
        if (strcmp(sample, t->sample_x) == 0)
            choice = AU_CHOICE_X;
        else if (strcmp(sample, t->sample_y) == 0)
            choice = AU_CHOICE_Y;
    }
    TX(au_vote_add(f->db, t->id, choice, 3, 4, &f->err));
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_vote_add(f->db, t->id, choice, 3, 4, &f->err), AU_CONFLICT);
    au_db_rollback(f->db);
    return true;
}

static void test_two_arms(void **state)
{
    fixture *f = *state;
    char job[AU_UUID_TEXT], id[AU_UUID_TEXT], tokens[3][AU_RATER_TOKEN_TEXT];
    au_results r;
    bool changed;
    make_job(f, 2, 2, true, job);
    make_test(f, AU_COMPARE_AB, job, 2, 2, id);
    OK(au_results_get(f->db, &f->arena, get(f, id), true, &r, &f->err));
    assert_int_equal(r.all.votes, 0);
    assert_int_equal(r.n_raters, 0);
    for (int i = 0; i < 3; i++)
        TX(au_rater_session_create(f->db, get(f, id), i < 2 ? "ann" : "", tokens[i], &f->err));
    assert_true(vote(f, id, tokens[0], 1, AU_CHOICE_TIE));
    assert_true(vote(f, id, tokens[0], 1, AU_CHOICE_TIE));
    assert_false(vote(f, id, tokens[0], 1, AU_CHOICE_TIE));
    assert_true(vote(f, id, tokens[1], 0, AU_CHOICE_TIE));
    assert_true(vote(f, id, tokens[1], -1, AU_CHOICE_TIE));
    assert_true(vote(f, id, tokens[2], -1, AU_CHOICE_BOTH_BAD));
    OK(au_results_get(f->db, &f->arena, get(f, id), true, &r, &f->err));
    assert_int_equal(r.all.votes, 5);
    assert_int_equal(r.all.arms[1].wins, 2);
    assert_int_equal(r.all.arms[1].losses, 1);
    assert_int_equal(r.all.arms[0].wins, 1);
    assert_int_equal(r.all.arms[0].ties, 1);
    assert_int_equal(r.all.arms[0].both_bad, 1);
    assert_int_equal(r.all.x_chosen + r.all.y_chosen, 3);
    assert_true(fabs(r.all.heard_s - 35) < 1e-9);
    assert_int_equal(r.n_raters, 2); /* two sessions of Ann's are one rater */
    assert_string_equal(r.raters[0].rater, "ann");
    assert_int_equal(r.raters[0].tally.votes, 4);
    assert_int_equal(r.n_prompts, 1);
    assert_false(r.has_scores);
    assert_int_equal(get(f, id)->votes, 5);
    TX(au_comparison_close(f->db, id, &changed, &f->err));
    assert_true(changed);
    TX(au_comparison_close(f->db, id, &changed, &f->err));
    assert_false(changed);
    au_rater_session *s;
    au_trial *t;
    OK(au_rater_session_get(f->db, &f->arena, tokens[2], &s, &f->err));
    OK(au_trial_next(f->db, &f->arena, s->id, &t, &f->err));
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_vote_add(f->db, t->id, AU_CHOICE_X, 1, 1, &f->err), AU_CONFLICT);
    assert_int_equal(au_rater_session_create(f->db, get(f, id), "", tokens[0], &f->err),
                     AU_CONFLICT);
    au_db_rollback(f->db);
    assert_int_equal(au_rater_session_get(f->db, &f->arena, "nobody", &s, &f->err), AU_NOT_FOUND);
    assert_int_equal(au_trial_get(f->db, &f->arena, s->id, 9, "", &t, &f->err), AU_NOT_FOUND);
}

static void test_three_arms(void **state)
{
    fixture *f = *state;
    char job[AU_UUID_TEXT], id[AU_UUID_TEXT], token[AU_RATER_TOKEN_TEXT], rater[8];
    au_results r;
    make_job(f, 1, 3, true, job);
    make_test(f, AU_COMPARE_AB, job, 1, 3, id);
    /* Only arm 2 ever wins: its worth has no bound. */
    TX(au_rater_session_create(f->db, get(f, id), "r", token, &f->err));
    while (vote(f, id, token, 2, AU_CHOICE_TIE)) {
    }
    OK(au_results_get(f->db, &f->arena, get(f, id), true, &r, &f->err));
    assert_false(r.has_scores);
    /* With a vote for each of the others by other raters it has. */
    for (int i = 0; i < 6; i++) {
        snprintf(rater, sizeof rater, "r%d", i);
        TX(au_rater_session_create(f->db, get(f, id), rater, token, &f->err));
        while (vote(f, id, token, i % 3, AU_CHOICE_TIE)) {
        }
    }
    OK(au_results_get(f->db, &f->arena, get(f, id), true, &r, &f->err));
    assert_true(r.has_scores);
    assert_true(r.scores[2].score > r.scores[0].score);
    assert_true(fabs(r.scores[0].score + r.scores[1].score + r.scores[2].score) < 1e-9);
    assert_true(r.bootstrap_used > AU_BOOTSTRAP_ROUNDS / 2);
    for (int i = 0; i < 3; i++)
        assert_true(r.scores[i].low <= r.scores[i].score + 1e-9 &&
                    r.scores[i].score <= r.scores[i].high + 1e-9);
}

static void test_abx(void **state)
{
    fixture *f = *state;
    char job[AU_UUID_TEXT], id[AU_UUID_TEXT], token[AU_RATER_TOKEN_TEXT];
    au_rater_session *s;
    au_trial *t;
    au_results r;
    int right = 0;
    make_job(f, 4, 2, true, job);
    make_test(f, AU_COMPARE_ABX, job, 4, 2, id);
    TX(au_rater_session_create(f->db, get(f, id), "", token, &f->err));
    OK(au_rater_session_get(f->db, &f->arena, token, &s, &f->err));
    for (;;) {
        OK(au_trial_next(f->db, &f->arena, s->id, &t, &f->err));
        if (!t)
            break;
        right += t->reference_is_x;
        TX(au_vote_add(f->db, t->id, AU_CHOICE_X, 1, 1, &f->err));
    }
    assert_int_equal(right, 2);
    OK(au_results_get(f->db, &f->arena, get(f, id), true, &r, &f->err));
    assert_int_equal(r.all.votes, 4);
    assert_int_equal(r.all.correct, 2);
    assert_int_equal(r.all.arms[0].wins, 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_view),     T(test_pairs),      T(test_samples_to_be_made),
        T(test_two_arms), T(test_three_arms), T(test_abx),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
