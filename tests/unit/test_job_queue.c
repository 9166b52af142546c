/* SPDX-License-Identifier: MIT */
/* The order of the queue and what is counted of it: ageing, models, pause, and positions that are
 * equal to a plain count whatever came and went. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "jobs_fixture.h"

#define W1 "01970000-0000-7000-8000-000000000001"

static fixture *f;

static int setup(void **state)
{
    (void)state;
    f = calloc(1, sizeof *f);
    assert_non_null(f);
    fixture_open(f);
    f->limits.queue_limit = 100000;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_close(f);
    free(f);
    return 0;
}

static void submit_at(char id[AU_UUID_TEXT], const char *model, int priority, int64_t waited_ms)
{
    au_job_new job = plain_job();
    job.model_name = model;
    job.priority = priority;
    submit(f, &job, id);
    /* Leave and enter again, so that the counts follow the key. */
    TX(au_db_exec(f->db, NULL, &f->err, "UPDATE jobs SET state = 'processing' WHERE id = ?1", "t",
                  id));
    TX(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE jobs SET created_at = created_at - ?2, queue_key = queue_key - ?2 "
                  "WHERE id = ?1",
                  "ti", id, waited_ms));
    TX(au_db_exec(f->db, NULL, &f->err, "UPDATE jobs SET state = 'queued' WHERE id = ?1", "t", id));
}

static const char *next(const char *const *models, size_t n, const char *open)
{
    static au_job_candidate job;
    bool found;
    OK(au_job_next(f->db, models, n, open, &job, &found, &f->err));
    return found ? job.id : "none";
}

static const char *const m[] = {"m"};

/* A step of priority is worth a minute of waiting: just below, and just above. */
static void test_ageing(void **state)
{
    (void)state;
    char old[AU_UUID_TEXT], urgent[AU_UUID_TEXT];
    submit_at(old, "m", 0, 10 * 60000 - 5000);
    submit_at(urgent, "m", 10, 0);
    assert_string_equal(next(m, 1, NULL), urgent);
    assert_int_equal(look(f, urgent)->queue_position, 1);
    assert_int_equal(look(f, old)->queue_position, 2);
    TX(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE jobs SET queue_key = queue_key - 10000 WHERE id = ?1", "t", old));
    assert_string_equal(next(m, 1, NULL), old);
}

/* The lowest priority comes to the head under a stream of the highest. */
static void test_nothing_starves(void **state)
{
    (void)state;
    char poor[AU_UUID_TEXT], rich[AU_UUID_TEXT];
    submit_at(poor, "m", -100, 200 * 60000 + 2000);
    for (int i = 0; i < 5; i++)
        submit_at(rich, "m", 100, 0);
    assert_string_equal(next(m, 1, NULL), poor);
}

static void test_models(void **state)
{
    (void)state;
    static const char *const both[] = {"m", "o"};
    char a[AU_UUID_TEXT], b[AU_UUID_TEXT], c[AU_UUID_TEXT];
    submit_at(a, "m", 0, 30000);
    submit_at(b, "o", 0, 25000);
    submit_at(c, "unknown", 100, 0);
    assert_string_equal(next(both, 2, NULL), a);
    assert_string_equal(next(both, 2, "o"), b); /* open, and 5 s behind */
    assert_string_equal(next(both + 1, 1, NULL), b);
    TX(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE jobs SET queue_key = queue_key + 6000 WHERE id = ?1", "t", b));
    assert_string_equal(next(both, 2, "o"), a); /* 11 s behind */
    assert_string_equal(next(both, 2, "unknown"), a);
}

static void test_pause(void **state)
{
    (void)state;
    char id[AU_UUID_TEXT];
    au_lease lease;
    au_queue_stats stats;
    bool paused, waiting;
    submit_at(id, "m", 0, 0);
    OK(au_queue_is_paused(f->db, &paused, &f->err));
    assert_false(paused);
    for (int i = 0; i < 2; i++)
        TX(au_queue_set_paused(f->db, true, &f->err));
    OK(au_job_peek(f->db, m, 1, &waiting, &f->err));
    assert_false(waiting);
    assert_false(claim_as(f, W1, &lease));
    OK(au_queue_stats_get(f->db, &stats, &f->err));
    assert_true(stats.paused);
    assert_int_equal(stats.queued, 1);
    char other[AU_UUID_TEXT];
    submit_at(other, "m", 0, 0); /* still taken in */
    for (int i = 0; i < 2; i++)
        TX(au_queue_set_paused(f->db, false, &f->err));
    assert_true(claim_as(f, W1, &lease));
    assert_string_equal(lease.job_id, id);
}

/* Every position against a count of all rows. */
static void check_positions(void)
{
    int64_t waiting;
    OK(au_queue_count(f->db, &waiting, &f->err));
    assert_int_equal(waiting, count(f, "SELECT COUNT(*) FROM jobs WHERE state = 'queued'"));
    for (int level = 0; level < 3; level++) {
        int64_t sum;
        OK(au_db_int(&sum, f->db, 0, &f->err,
                     "SELECT SUM(waiting) FROM queue_counts WHERE level = ?1", "i",
                     (int64_t)level));
        assert_int_equal(sum, waiting);
    }
    assert_int_equal(count(f, "SELECT COUNT(*) FROM queue_counts WHERE waiting < 1"), 0);
    const au_job_filter filter = {.state = "queued", .limit = 500};
    au_job **jobs;
    size_t n;
    bool more;
    OK(au_job_list(f->db, &f->arena, &filter, &jobs, &n, &more, &f->err));
    assert_int_equal(n, waiting);
    for (size_t i = 0; i < n; i++) {
        int64_t want;
        OK(au_db_int(
            &want, f->db, 0, &f->err,
            "SELECT 1 + COUNT(*) FROM jobs j, (SELECT queue_key AS k FROM jobs WHERE id = "
            "?1) WHERE state = 'queued' AND (queue_key < k OR (queue_key = k AND id < ?1))",
            "t", jobs[i]->id));
        assert_int_equal(jobs[i]->queue_position, want);
    }
}

static void test_positions(void **state)
{
    (void)state;
    static const int64_t ages[] = {0, 1, 127, 128, 129, 32767, 32768, 8388607, 8388608, 90000000};
    static const int priorities[] = {0, 1, -1, 100, -100};
    char id[AU_UUID_TEXT];
    for (int i = 0; i < 50; i++)
        submit_at(id, i % 3 ? "m" : "o", priorities[i % 5], ages[i * 7 % 10]);
    check_positions();
    au_lease lease;
    for (int i = 0; i < 12; i++)
        assert_true(claim_as(f, W1, &lease));
    check_positions();
    bool held;
    au_cancel_result result;
    au_job_state now;
    TX(au_job_hand_back(f->db, &lease, false, &f->limits, &held, &f->err));
    assert_true(held);
    TX(au_job_cancel(f->db, id, &result, &now, &f->err));
    assert_int_equal(result, AU_CANCEL_DONE);
    check_positions();
    TX(au_db_exec(f->db, NULL, &f->err, "DELETE FROM jobs WHERE state = 'queued' AND priority = -1",
                  ""));
    check_positions();
    assert_int_equal(look(f, lease.job_id)->queue_position > 0, 1);
    assert_int_equal(look(f, id)->queue_position, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ageing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_starves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_models, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_positions, setup, teardown),
    };
    return cmocka_run_group_tests_name("job_queue", tests, NULL, NULL);
}
