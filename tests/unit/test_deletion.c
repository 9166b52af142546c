/* SPDX-License-Identifier: MIT */
/* Deletion, undo, retention and purging: what is marked, what goes, what stays because it is named,
 * and that no object is left without a row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "jobs/deletion.h"
#include "jobs_fixture.h"

#define W1 "01970000-0000-7000-8000-000000000001"

static fixture *f;
static au_writer *writer;
static au_db *reader;

static int setup(void **state)
{
    (void)state;
    f = calloc(1, sizeof *f);
    assert_non_null(f);
    fixture_open(f);
    char path[128];
    snprintf(path, sizeof path, "%s/workers", f->dir);
    OK(au_mkdirs(path, &f->err));
    OK(au_writer_new(&writer, f->db_path, 0, &f->err));
    OK(au_db_open(&reader, f->db_path, &(au_db_options){.read_only = true}, &f->err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    au_db_close(&reader);
    au_writer_free(&writer);
    fixture_close(f);
    free(f);
    return 0;
}

static void janitor(void)
{
    const au_janitor_config c = {.db_url = f->db_path,
                                 .data_dir = f->dir,
                                 .writer = writer,
                                 .store = f->store,
                                 .limits = f->limits};
    OK(au_janitor_round(&c, reader, true, &f->err));
}

/* A completed job of two samples. */
static void make_job(char id[AU_UUID_TEXT])
{
    au_job_new job = plain_job();
    au_lease lease;
    job.num_samples = 2;
    submit(f, &job, id);
    assert_true(claim_as(f, W1, &lease));
    assert_true(make_sample(f, &lease, 0, 0));
    assert_true(make_sample(f, &lease, 0, 1));
    assert_int_equal(look(f, id)->state, AU_JOB_COMPLETED);
}

static bool delete_job(const char *id)
{
    bool deleted;
    TX(au_job_delete(f->db, id, &deleted, &f->err));
    return deleted;
}

static void add_rendition(const char *sample_id, const char *key)
{
    TX(au_db_exec(f->db, NULL, &f->err,
                  "INSERT INTO renditions (sample_id, format, sample_rate, store_key, bytes, "
                  "sha256, created_at) VALUES (?1, 'mp3', 0, ?2, 5, 'aa', 1)",
                  "tt", sample_id, key));
    OK(au_store_put(f->store, key, "audio", 5, &f->err));
}

static void test_job(void **state)
{
    (void)state;
    char id[AU_UUID_TEXT], other[AU_UUID_TEXT];
    make_job(id);
    make_job(other);
    char sample[AU_UUID_TEXT];
    snprintf(sample, sizeof sample, "%s", look(f, id)->samples[0].sample_id);
    add_rendition(sample, "samples/aa/extra.mp3");
    assert_int_equal(objects(f), 5);
    assert_true(delete_job(id));
    assert_false(delete_job(id));
    assert_true(look(f, id)->deleted_at > 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM samples WHERE deleted_at > 0"), 2);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM events WHERE event = 'deleted'"), 3);
    bool restored;
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_sample_restore(f->db, sample, &restored, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
    janitor();
    assert_int_equal(objects(f), 2); /* the other job's */
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 2);
    f->limits.deleted_retention_ms = 0;
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 1);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM job_samples"), 2);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM samples"), 2);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM uploads"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM events e WHERE NOT EXISTS (SELECT 1 FROM jobs "
                              "j WHERE j.id = e.subject)"),
                     0);
    assert_int_equal(objects(f), 2);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    bool deleted;
    assert_int_equal(au_job_delete(f->db, id, &deleted, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
}

/* Active jobs are cancelled; the one that runs is purged only when its worker is done. */
static void test_active(void **state)
{
    (void)state;
    char waiting[AU_UUID_TEXT], running[AU_UUID_TEXT];
    au_job_new job = plain_job();
    au_lease lease;
    job.num_samples = 2;
    submit(f, &job, running);
    assert_true(claim_as(f, W1, &lease));
    assert_true(make_sample(f, &lease, 0, 0));
    submit(f, &job, waiting);
    assert_true(delete_job(waiting));
    assert_int_equal(look(f, waiting)->state, AU_JOB_CANCELLED);
    assert_true(delete_job(running));
    assert_int_equal(look(f, running)->state, AU_JOB_CANCELLING);
    assert_false(make_sample(f, &lease, 0, 1));
    f->limits.deleted_retention_ms = 0;
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 1);
    OK(au_db_exec(f->db, NULL, &f->err, "UPDATE jobs SET lease_until = 0", ""));
    janitor(); /* cleans it, and marks the end */
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM samples"), 0);
    assert_int_equal(objects(f), 0);
}

static void test_sample(void **state)
{
    (void)state;
    char id[AU_UUID_TEXT];
    bool done;
    make_job(id);
    const char *sample = look(f, id)->samples[1].sample_id;
    TX(au_sample_restore(f->db, sample, &done, &f->err));
    assert_false(done);
    TX(au_sample_delete(f->db, sample, &done, &f->err));
    assert_true(done);
    TX(au_sample_delete(f->db, sample, &done, &f->err));
    assert_false(done);
    janitor();
    assert_int_equal(objects(f), 2); /* it may come back */
    TX(au_sample_restore(f->db, sample, &done, &f->err));
    assert_true(done);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM samples WHERE deleted_at = 0"), 2);
    assert_int_equal(count(f, "SELECT revision FROM samples ORDER BY idx DESC LIMIT 1"), 3);
    TX(au_sample_delete(f->db, sample, &done, &f->err));
    f->limits.deleted_retention_ms = 0;
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM samples"), 1);
    assert_int_equal(objects(f), 1);
    assert_int_equal(look(f, id)->deleted_at, 0);
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_sample_delete(f->db, sample, &done, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
}

static void age_jobs(int64_t ms)
{
    TX(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE jobs SET finished_at = finished_at - ?1 WHERE finished_at > 0", "i", ms));
}

static void test_retention(void **state)
{
    (void)state;
    char old[AU_UUID_TEXT], young[AU_UUID_TEXT], waiting[AU_UUID_TEXT];
    au_job_new job = plain_job();
    make_job(old);
    age_jobs(100000);
    make_job(young);
    submit(f, &job, waiting);
    janitor(); /* never, by default */
    f->limits.retention_ms = 200000;
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs WHERE deleted_at > 0"), 0);
    f->limits.retention_ms = 60000;
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs WHERE deleted_at > 0"), 1);
    assert_true(look(f, old)->deleted_at > 0);
    assert_int_equal(objects(f), 2);
    f->limits.retention_ms = 0;
    f->limits.deleted_retention_ms = 0;
    janitor();
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 1);
    assert_int_equal(look(f, waiting)->state, AU_JOB_QUEUED);
    assert_int_equal(objects(f), 0);
}

/* More than one transaction's worth. */
static void test_many(void **state)
{
    (void)state;
    char id[AU_UUID_TEXT];
    for (int i = 0; i < 40; i++)
        make_job(id);
    f->limits.retention_ms = 0;
    f->limits.deleted_retention_ms = 0;
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs WHERE deleted_at = 0"), 0);
    janitor(); /* what was deleted a moment ago is old enough now */
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 0);
    assert_int_equal(objects(f), 0);
}

/* Prompts and adapters go when nothing names them any more. */
static void test_references(void **state)
{
    (void)state;
    char id[AU_UUID_TEXT];
    make_job(id);
    TX(au_db_exec(
        f->db, NULL, &f->err,
        "INSERT INTO adapters (id, name, family, source, sha256, store_key, status, created_at) "
        "VALUES ('a', 'n', 'musicgen', '', 'cc', 'adapters/cc/', 'ready', 1)",
        ""));
    OK(au_store_put(f->store, "adapters/cc/adapter_config.json", "{}", 2, &f->err));
    TX(au_db_exec(f->db, NULL, &f->err, "UPDATE job_samples SET adapter_id = 'a' WHERE idx = 0",
                  ""));
    TX(au_db_exec(f->db, NULL, &f->err, "UPDATE prompts SET deleted_at = 1", ""));
    TX(au_db_exec(f->db, NULL, &f->err, "UPDATE adapters SET deleted_at = 1", ""));
    f->limits.deleted_retention_ms = 0;
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM prompts"), 1);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM adapters"), 1);
    assert_true(delete_job(id));
    janitor();
    janitor();
    assert_int_equal(count(f, "SELECT COUNT(*) FROM jobs"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM prompts"), 0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM adapters"), 0);
    assert_int_equal(objects(f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_job, setup, teardown),
        cmocka_unit_test_setup_teardown(test_active, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sample, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_references, setup, teardown),
    };
    return cmocka_run_group_tests_name("deletion", tests, NULL, NULL);
}
