/* SPDX-License-Identifier: MIT */
/* What is left after crashes, and races for one job: claims, cancel against commit, a process
 * killed at each step of a job, and what recovery and janitor make of it. The invariants are
 * checked after each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "jobs_fixture.h"

#define W1 "01970000-0000-7000-8000-000000000001"
#define W2 "01970000-0000-7000-8000-000000000002"

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    fixture_open(f);
    char path[128];
    snprintf(path, sizeof path, "%s/workers", f->dir);
    OK(au_mkdirs(path, &f->err));
    *state = f;
    return 0;
}

static au_status check_object(void *user, const char *key, uint64_t size, au_err *err)
{
    fixture *f = user;
    int64_t n;
    (void)size;
    (void)err;
    OK(au_db_int(&n, f->db, 0, &f->err, "SELECT COUNT(*) FROM samples WHERE store_key = ?1", "t",
                 key));
    assert_int_equal(n, 1);
    return AU_OK;
}

/* (b), (d), (e), (f) for everything; no upload row left. */
static void check_invariants(fixture *f)
{
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    OK(au_store_list(f->store, "", check_object, f, &f->err));
    assert_int_equal(objects(f), count(f, "SELECT COUNT(*) FROM samples"));
    assert_int_equal(
        count(
            f,
            "SELECT COUNT(*) FROM jobs j WHERE state = 'completed' AND num_samples * num_variants "
            "<> (SELECT COUNT(*) FROM samples s WHERE s.job_id = j.id)"),
        0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM samples s JOIN jobs j ON j.id = s.job_id "
                              "WHERE j.state = 'cancelled'"),
                     0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM job_samples s LEFT JOIN samples x ON x.id = "
                              "s.sample_id WHERE (s.state = 'completed') <> (x.id IS NOT NULL)"),
                     0);
    assert_int_equal(
        count(f, "SELECT COUNT(*) FROM jobs j WHERE event_seq <> (SELECT COUNT(*) FROM events "
                 "e WHERE e.subject = j.id) OR event_seq <> (SELECT MAX(seq) FROM events e "
                 "WHERE e.subject = j.id)"),
        0);
    assert_int_equal(
        count(f, "SELECT COUNT(*) FROM (SELECT 1 FROM events WHERE event = 'done' GROUP BY "
                 "subject HAVING COUNT(*) > 1)"),
        0);
}

/* ---- Races
 * -------------------------------------------------------------------------------------------- */

enum { THREADS = 6, JOBS = 60 };

typedef struct racer {
    const fixture *f;
    char id[AU_UUID_TEXT];
    int claimed, committed, cancelled, too_late;
    pthread_t thread;
} racer;

static void must(au_status st, const au_err *err)
{
    if (st != AU_OK) {
        fprintf(stderr, "%s\n", err->message);
        abort();
    }
}

/* Claims and completes jobs until there is none. */
static void *work(void *arg)
{
    racer *r = arg;
    static const char *const models[] = {"m"};
    au_db *db;
    au_err err;
    must(au_db_open(&db, r->f->db_path, NULL, &err), &err);
    for (;;) {
        au_lease lease;
        bool claimed, held = false, completed;
        must(au_db_begin(db, AU_DB_RELAXED, &err), &err);
        must(au_job_claim(db, r->id, models, 1, NULL, &r->f->limits, &lease, &claimed, &err), &err);
        must(au_db_commit(db, &err), &err);
        if (!claimed)
            break;
        r->claimed++;
        char id[AU_UUID_TEXT], key[AU_STORE_KEY];
        au_uuid7(id);
        must(au_store_sample_key(key, id, "wav", &err), &err);
        must(au_db_begin(db, AU_DB_RELAXED, &err), &err);
        must(au_upload_begin(db, &lease, key, &held, &err), &err);
        must(au_db_commit(db, &err), &err);
        if (!held)
            continue;
        must(au_store_put(r->f->store, key, "x", 1, &err), &err);
        au_sample_new s = {.id = id,
                           .store_key = key,
                           .format = "wav",
                           .sha256 = "",
                           .pcm_sha256 = "",
                           .recipe = "{}"};
        must(au_db_begin(db, AU_DB_RELAXED, &err), &err);
        must(au_job_commit_sample(db, &lease, &s, &held, &completed, &err), &err);
        must(au_db_commit(db, &err), &err);
        r->committed += completed;
        if (!held)
            must(au_store_delete(r->f->store, key, &err), &err);
    }
    au_db_close(&db);
    return NULL;
}

static char race_ids[JOBS][AU_UUID_TEXT];

static void *cancel_all(void *arg)
{
    racer *r = arg;
    au_db *db;
    au_err err;
    must(au_db_open(&db, r->f->db_path, NULL, &err), &err);
    for (int i = 0; i < JOBS; i++) {
        au_cancel_result result;
        au_job_state now;
        must(au_db_begin(db, AU_DB_RELAXED, &err), &err);
        must(au_job_cancel(db, race_ids[(i * 7 + 3) % JOBS], &result, &now, &err), &err);
        must(au_db_commit(db, &err), &err);
        r->cancelled += result != AU_CANCEL_TOO_LATE;
        r->too_late += result == AU_CANCEL_TOO_LATE;
    }
    au_db_close(&db);
    return NULL;
}

static au_janitor_config janitor_config(fixture *f, au_writer *w)
{
    return (au_janitor_config){.db_url = f->db_path,
                               .data_dir = f->dir,
                               .writer = w,
                               .store = f->store,
                               .limits = f->limits};
}

static void run_round(fixture *f, bool full)
{
    au_writer *w;
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    au_janitor_config c = janitor_config(f, w);
    OK(au_janitor_round(&c, f->db, full, &f->err));
    au_writer_free(&w);
}

static void race(fixture *f, bool with_cancel)
{
    racer racers[THREADS + 1] = {0};
    au_job_new job = plain_job();
    for (int i = 0; i < JOBS; i++)
        submit(f, &job, race_ids[i]);
    for (int i = 0; i < THREADS; i++) {
        racers[i].f = f;
        au_uuid7(racers[i].id);
        assert_int_equal(pthread_create(&racers[i].thread, NULL, work, &racers[i]), 0);
    }
    racer *canceller = &racers[THREADS];
    canceller->f = f;
    if (with_cancel)
        assert_int_equal(pthread_create(&canceller->thread, NULL, cancel_all, canceller), 0);
    int claimed = 0, committed = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(racers[i].thread, NULL);
        claimed += racers[i].claimed;
        committed += racers[i].committed;
    }
    if (with_cancel)
        pthread_join(canceller->thread, NULL);
    OK(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE jobs SET lease_until = 0 WHERE state = 'cancelling'", ""));
    run_round(f, true);
    if (!with_cancel) {
        assert_int_equal(claimed, JOBS);
        assert_int_equal(committed, JOBS);
    } else {
        assert_int_equal(canceller->cancelled + canceller->too_late, JOBS);
        assert_int_equal(committed, canceller->too_late);
    }
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs WHERE state = 'completed'"), committed);
    assert_int_equal(
        count(f, "SELECT COUNT(*) FROM jobs WHERE state IN ('completed', 'cancelled')"), JOBS);
    check_invariants(f);
}

static void test_claim_exactly_once(void **state)
{
    race(*state, false);
}

static void test_cancel_against_commit(void **state)
{
    race(*state, true);
}

/* ---- Crashes
 * ------------------------------------------------------------------------------------------- */

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* What a killed put leaves: a part in .tmp. */
static void half_put(fixture *f, const char *key)
{
    char path[320];
    int n = snprintf(path, sizeof path, "%s/.tmp/%s", f->store_path, key);
    for (int i = n - (int)strlen(key); i < n; i++)
        path[i] = path[i] == '/' ? '+' : path[i];
    must(au_file_write(path, "au", 2, true, &f->err), &f->err);
}

enum { CRASH_POINTS = 10 };

/* A worker with two samples to make, killed at `point`. */
static void crash_child(fixture *f, int point, bool cancel)
{
    au_db *db;
    au_err *err = &f->err;
    int step = 0, lock;
    char path[160];
    snprintf(path, sizeof path, "%s/workers/%s.lock", f->dir, W1);
    must(au_lock_file(&lock, path, err), err);
    must(au_db_open(&db, f->db_path, NULL, err), err);
    f->db = db;
#define STEP(call)                                                                                 \
    do {                                                                                           \
        must(au_db_begin(db, AU_DB_DURABLE, err), err);                                            \
        must(call, err);                                                                           \
        if (++step == point)                                                                       \
            die(); /* before the commit */                                                         \
        must(au_db_commit(db, err), err);                                                          \
        if (++step == point)                                                                       \
            die();                                                                                 \
    } while (0)
    static const char *const models[] = {"m"};
    au_lease lease;
    bool claimed, held, completed;
    au_worker_row row = {
        .id = W1, .host = "h", .pid = getpid(), .state = "ready", .detail = "", .models = "[]"};
    must(au_db_begin(db, AU_DB_DURABLE, err), err);
    must(au_worker_row_put(db, &row, "boot", err), err);
    must(au_db_commit(db, err), err);
    STEP(au_job_claim(db, W1, models, 1, NULL, &f->limits, &lease, &claimed, err));
    for (int i = 0; i < 2; i++) {
        char id[AU_UUID_TEXT], key[AU_STORE_KEY];
        au_uuid7(id);
        must(au_store_sample_key(key, id, "wav", err), err);
        STEP(au_upload_begin(db, &lease, key, &held, err));
        if (step + 1 == point && i == 0) {
            half_put(f, key);
        } else {
            must(au_store_put(f->store, key, "audio", 5, err), err);
        }
        if (++step == point)
            die();
        if (cancel && i == 1) {
            au_cancel_result result;
            au_job_state now;
            must(au_db_begin(db, AU_DB_DURABLE, err), err);
            must(au_job_cancel(db, lease.job_id, &result, &now, err), err);
            must(au_db_commit(db, err), err);
        }
        au_sample_new s = {.id = id,
                           .index = i,
                           .store_key = key,
                           .format = "wav",
                           .sha256 = "",
                           .pcm_sha256 = "",
                           .bytes = 5,
                           .recipe = "{}"};
        STEP(au_job_commit_sample(db, &lease, &s, &held, &completed, err));
    }
    die();
#undef STEP
}

static void run_crash(fixture *f, int point, bool cancel)
{
    au_db_close(&f->db); /* no connection is carried across fork */
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        crash_child(f, point, cancel);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    OK(au_db_open(&f->db, f->db_path, NULL, &f->err));
}

static void recover(fixture *f, int *n)
{
    au_writer *w;
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    au_janitor_config c = janitor_config(f, w);
    OK(au_janitor_recover(&c, n, &f->err));
    au_writer_free(&w);
}

static void test_killed_everywhere(void **state)
{
    fixture *f = *state;
    for (int point = 1; point <= CRASH_POINTS + 4; point++) {
        char id[AU_UUID_TEXT], tmp[160];
        au_job_new job = plain_job();
        int n;
        job.num_samples = 2;
        submit(f, &job, id);
        run_crash(f, point, false);
        recover(f, &n);
        check_invariants(f);
        snprintf(tmp, sizeof tmp, "%s/.tmp", f->store_path);
        assert_int_equal(rmdir(tmp), 0); /* empty */
        OK(au_mkdirs(tmp, &f->err));
        const au_job *j = look(f, id);
        bool finished = j->state == AU_JOB_COMPLETED;
        if (!finished) {
            assert_int_equal(j->state, AU_JOB_QUEUED);
            assert_int_equal(j->attempt, 0); /* the server's death does not count */
            assert_int_equal(j->interruptions, n);
        }
        au_lease lease;
        if (!finished) {
            assert_true(claim_as(f, W2, &lease));
            for (int i = 0; i < 2; i++) {
                if (!j->samples[i].sample_id)
                    assert_true(make_sample(f, &lease, 0, i));
            }
        }
        assert_int_equal(look(f, id)->state, AU_JOB_COMPLETED);
        check_invariants(f);
    }
}

/* The same with a cancel before the second commit: whatever happened, nothing is left and nothing
 * is completed. */
static void test_killed_while_cancelling(void **state)
{
    fixture *f = *state;
    for (int point = 8; point <= CRASH_POINTS + 4; point++) {
        char id[AU_UUID_TEXT];
        au_job_new job = plain_job();
        int n;
        job.num_samples = 2;
        submit(f, &job, id);
        run_crash(f, point, true);
        recover(f, &n);
        check_invariants(f);
        const au_job *j = look(f, id);
        if (j->state == AU_JOB_QUEUED) { /* killed before the cancel */
            au_cancel_result result;
            au_job_state now;
            TX(au_job_cancel(f->db, id, &result, &now, &f->err));
            run_round(f, false);
            check_invariants(f);
        }
        assert_int_equal(look(f, id)->state, AU_JOB_CANCELLED);
    }
    assert_int_equal(objects(f), 0);
}

/* ---- The janitor
 * ------------------------------------------------------------------------------------------ */

/* A worker whose lock is free is gone: its job is queued at once, not after its lease; one that
 * lives is left alone. */
static void test_lock_files(void **state)
{
    fixture *f = *state;
    char path[160], ids[2][AU_UUID_TEXT];
    int lock;
    au_lease a, b;
    au_job_new job = plain_job();
    submit(f, &job, ids[0]);
    submit(f, &job, ids[1]);
    au_worker_row row = {.id = W1, .host = "h", .state = "ready", .detail = "", .models = "[]"};
    TX(au_worker_row_put(f->db, &row, "boot", &f->err));
    row.id = W2;
    TX(au_worker_row_put(f->db, &row, "boot", &f->err));
    assert_true(claim_as(f, W1, &a));
    assert_true(claim_as(f, W2, &b));
    snprintf(path, sizeof path, "%s/workers/%s.lock", f->dir, W1);
    OK(au_lock_file(&lock, path, &f->err));
    run_round(f, false);
    assert_int_equal(look(f, a.job_id)->state, AU_JOB_PROCESSING);
    assert_int_equal(look(f, b.job_id)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, b.job_id)->attempt, 1); /* a death counts */
    close(lock);
    int n;
    recover(f, &n);
    assert_int_equal(n, 1);
    assert_int_equal(look(f, a.job_id)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, a.job_id)->attempt, 0);
    assert_int_equal(look(f, a.job_id)->interruptions, 1);
    assert_false(au_file_exists(path));
    au_worker_row **workers;
    size_t n_workers;
    OK(au_worker_row_list(f->db, &f->arena, &workers, &n_workers, &f->err));
    assert_int_equal(n_workers, 0);
}

static void test_orphans(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    submit(f, &job, id);
    au_lease lease;
    assert_true(claim_as(f, W1, &lease));
    assert_true(make_sample(f, &lease, 0, 0));
    OK(au_store_put(f->store, "samples/zz/stray.wav", "x", 1, &f->err));
    OK(au_store_put(f->store, "adapters/abc/stray", "x", 1, &f->err));
    OK(au_store_put(f->store, "samples/zz/announced.wav", "x", 1, &f->err));
    submit(f, &job, id);
    assert_true(claim_as(f, W1, &lease));
    bool held;
    TX(au_upload_begin(f->db, &lease, "samples/zz/announced.wav", &held, &f->err));
    run_round(f, false);
    assert_int_equal(objects(f), 4);
    run_round(f, true);
    assert_int_equal(objects(f), 2); /* the sample's and the announced one */
    int n;
    TX(au_jobs_worker_gone(f->db, W1, AU_LOSS_DEATH, "killed", &f->limits, &n, &f->err));
    run_round(f, false);
    assert_int_equal(objects(f), 1);
    check_invariants(f);
}

static void note_stalled(void *user, const char *worker_id)
{
    snprintf(user, AU_UUID_TEXT, "%s", worker_id);
}

/* The thread: a kick makes it run at once; it reports a stall. */
static void test_thread(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT], stalled[AU_UUID_TEXT] = "";
    au_job_new job = plain_job();
    au_writer *w;
    au_janitor *j;
    au_lease lease;
    f->limits.janitor_ms = 3600000;
    f->limits.backoff_ms = 60000;
    submit(f, &job, id);
    assert_true(claim_as(f, W1, &lease));
    OK(au_db_exec(f->db, NULL, &f->err, "UPDATE jobs SET progress_clock = progress_clock - 60001",
                  ""));
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    au_janitor_config c = janitor_config(f, w);
    c.on_stalled = note_stalled;
    c.user = stalled;
    OK(au_janitor_new(&j, &c, &f->err));
    au_janitor_kick(j);
    while (look(f, id)->state == AU_JOB_PROCESSING)
        au_sleep_ms(5);
    au_janitor_free(&j);
    au_writer_free(&w);
    assert_string_equal(stalled, W1);
    assert_int_equal(look(f, id)->state, AU_JOB_QUEUED);
    assert_false(claim_as(f, W1, &lease)); /* backs off */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_claim_exactly_once),
        T(test_cancel_against_commit),
        T(test_killed_everywhere),
        T(test_killed_while_cancelling),
        T(test_lock_files),
        T(test_orphans),
        T(test_thread),
    };
    return cmocka_run_group_tests_name("janitor", tests, NULL, NULL);
}
