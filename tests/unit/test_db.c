/* SPDX-License-Identifier: MIT */
/* The SQL layer and the writer thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "db/writer.h"
#include "jobs_fixture.h"

static void test_values(void **state)
{
    fixture *f = *state;
    const int64_t some = 5;
    au_rows *rows;
    bool has_row;
    OK(au_db_exec(f->db, NULL, &f->err,
                  "CREATE TABLE t (a TEXT, b INTEGER, c REAL, d BLOB, e INTEGER)", ""));
    OK(au_db_exec(f->db, NULL, &f->err, "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)", "tidbo",
                  "text", (int64_t)-7, 0.25, "\0\1", (size_t)2, &some));
    OK(au_db_exec(f->db, NULL, &f->err, "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)", "tidbo", NULL,
                  (int64_t)0, (double)NAN, NULL, (size_t)0, NULL));
    OK(au_db_query(&rows, f->db, &f->err, "SELECT a, b, c, d, e FROM t ORDER BY rowid", ""));
    OK(au_rows_next(rows, &has_row, &f->err));
    assert_true(has_row);
    assert_string_equal(au_rows_text(rows, 0), "text");
    assert_int_equal(au_rows_int(rows, 1), -7);
    assert_true(au_rows_double(rows, 2) == 0.25);
    size_t len;
    assert_memory_equal(au_rows_blob(rows, 3, &len), "\0\1", 2);
    assert_int_equal(len, 2);
    assert_int_equal(au_rows_int(rows, 4), 5);
    OK(au_rows_next(rows, &has_row, &f->err));
    assert_null(au_rows_text(rows, 0));
    assert_true(isnan(au_rows_double(rows, 2)));
    assert_null(au_rows_blob(rows, 3, &len));
    assert_true(au_rows_is_null(rows, 4));
    OK(au_rows_next(rows, &has_row, &f->err));
    assert_false(has_row);
    OK(au_rows_next(rows, &has_row, &f->err));
    assert_false(has_row);
    au_rows_close(&rows);
    int64_t n;
    OK(au_db_exec(f->db, &n, &f->err, "DELETE FROM t", ""));
    assert_int_equal(n, 2);
    OK(au_db_int(&n, f->db, 42, &f->err, "SELECT b FROM t", ""));
    assert_int_equal(n, 42);
    assert_int_equal(au_db_exec(f->db, NULL, &f->err, "NONSENSE", ""), AU_INTERNAL);
}

/* More texts than the cache holds, and one text twice at once. */
static void test_statement_cache(void **state)
{
    fixture *f = *state;
    char sql[64];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 300; i++) {
            int64_t n;
            snprintf(sql, sizeof sql, "SELECT %d", i);
            OK(au_db_int(&n, f->db, -1, &f->err, sql, ""));
            assert_int_equal(n, i);
        }
    }
    au_rows *a, *b;
    bool has_row;
    OK(au_db_query(&a, f->db, &f->err, "SELECT ?1", "i", (int64_t)1));
    OK(au_db_query(&b, f->db, &f->err, "SELECT ?1", "i", (int64_t)2));
    OK(au_rows_next(a, &has_row, &f->err));
    OK(au_rows_next(b, &has_row, &f->err));
    assert_int_equal(au_rows_int(a, 0), 1);
    assert_int_equal(au_rows_int(b, 0), 2);
    au_rows_close(&a);
    au_rows_close(&b);
}

static void test_versions(void **state)
{
    fixture *f = *state;
    au_db *other = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/none.db", f->dir);
    assert_int_equal(au_db_open(&other, path, NULL, &f->err), AU_NOT_FOUND);
    assert_int_equal(au_db_open(&other, "postgresql://x/y", NULL, &f->err), AU_UNSUPPORTED);
    OK(au_db_migrate(f->db_path, &f->err)); /* nothing to do */
    OK(au_db_exec(f->db, NULL, &f->err, "PRAGMA user_version = 99", ""));
    assert_int_equal(au_db_open(&other, f->db_path, NULL, &f->err), AU_UNSUPPORTED);
    assert_non_null(strstr(f->err.message, "99"));
    char expected[32];
    snprintf(expected, sizeof expected, "%d", au_db_schema_version());
    assert_non_null(strstr(f->err.message, expected));
    assert_int_equal(au_db_migrate(f->db_path, &f->err), AU_UNSUPPORTED);
    assert_non_null(strstr(f->err.message, "99"));
    snprintf(path, sizeof path, "%s/garbage.db", f->dir);
    char junk[4096];
    memset(junk, 'x', sizeof junk);
    OK(au_file_write(path, junk, sizeof junk, true, &f->err));
    assert_int_equal(au_db_open(&other, path, NULL, &f->err), AU_CORRUPT);
    assert_null(other);
}

/* A database of schema 1, as an earlier version left it. */
static void make_schema_1(fixture *f, const char *path)
{
    static const char rows[] =
        "INSERT INTO prompts (id, text, content_hash, created_at) VALUES ('p', 'bells', 'h', 5);"
        "INSERT INTO adapters (id, name, source, status, created_at) VALUES ('a', 'lofi', "
        "'folder', "
        "'ready', 5);"
        "INSERT INTO jobs (id, prompt_id, model_name, model_fingerprint, params, format, "
        "num_samples, num_variants, seed, seed_source, state, max_attempts, priority, created_at, "
        "finished_at, event_seq) VALUES "
        "('j1', 'p', 'm', 'f', '{}', 'wav', 1, 1, 7, 'request', 'completed', 3, 0, 10, 20, 2),"
        "('j2', 'p', 'm', 'f', '{}', 'wav', 1, 1, 8, 'random', 'queued', 3, 0, 100000, 0, 1),"
        "('j3', 'p', 'm', 'f', '{}', 'wav', 1, 1, 9, 'random', 'queued', 3, 5, 200000, 0, 1),"
        "('j4', 'p', 'm', 'f', '{}', 'wav', 1, 1, 9, 'random', 'queued', 3, -1, 100000, 0, 1);"
        "INSERT INTO job_samples (job_id, variant, idx, seed, adapter_id, state, sample_id) VALUES "
        "('j1', 0, 0, 7, 'a', 'completed', 's'), ('j2', 0, 0, 8, NULL, 'queued', NULL), "
        "('j3', 0, 0, 9, NULL, 'queued', NULL), ('j4', 0, 0, 9, NULL, 'queued', NULL);"
        "INSERT INTO samples (id, job_id, variant, idx, seed, prompt_id, model_name, "
        "model_fingerprint, adapter_id, strength, params, duration_s, sample_rate, channels, "
        "frames, format, bytes, sha256, pcm_sha256, store_key, recipe, created_at) VALUES "
        "('s', 'j1', 0, 0, 7, 'p', 'm', 'f', 'a', 1, '{}', 1, 32000, 1, 32000, 'wav', 9, 'x', 'y', "
        "'samples/s/s.wav', '{}', 15);"
        "INSERT INTO events (job_id, seq, event, data, created_at) VALUES "
        "('j1', 1, 'state', '{\"n\":1}', 10), ('j2', 1, 'state', '{}', 11), "
        "('j1', 2, 'done', '{\"n\":2}', 20);"
        "INSERT INTO comparisons (id, mode, created_at) VALUES ('c', 'view', 30);"
        "INSERT INTO comparison_samples (comparison_id, position, sample_id) VALUES ('c', 0, 's');"
        "PRAGMA user_version = 1";
    char sql_path[1024], *sql = NULL;
    size_t len;
    sqlite3 *db = NULL;
    const char *source = getenv("AULOS_SOURCE");
    snprintf(sql_path, sizeof sql_path, "%s/src/db/migrations/sqlite/0001_init.sql",
             source ? source : ".");
    OK(au_file_read(&sql, &len, sql_path, 1 << 20, &f->err));
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK ||
        sqlite3_exec(db, rows, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s", message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    free(sql);
}

/* What was there is there after the upgrade, in the shape that this version reads; the old file is
 * kept. */
static void test_upgrade(void **state)
{
    fixture *f = *state;
    char path[128], backup[160];
    snprintf(path, sizeof path, "%s/old.db", f->dir);
    snprintf(backup, sizeof backup, "%s.v1.bak", path);
    make_schema_1(f, path);
    au_db *fresh = f->db;
    assert_int_equal(au_db_open(&f->db, path, NULL, &f->err), AU_UNSUPPORTED);
    OK(au_db_migrate(path, &f->err));
    OK(au_db_open(&f->db, path, NULL, &f->err));
    assert_int_equal(count(f, "SELECT COUNT(*) FROM pragma_integrity_check WHERE "
                              "integrity_check <> 'ok'"),
                     0);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM pragma_foreign_key_check"), 0);
    const au_job *done = look(f, "j1");
    assert_int_equal(done->state, AU_JOB_COMPLETED);
    assert_string_equal(done->prompt_text, "bells");
    assert_string_equal(done->samples[0].adapter_name, "lofi");
    assert_string_equal(done->samples[0].sample_id, "s");
    /* Five minutes of priority against a hundred seconds, one against none. */
    assert_int_equal(look(f, "j3")->queue_position, 1);
    assert_int_equal(look(f, "j2")->queue_position, 2);
    assert_int_equal(look(f, "j4")->queue_position, 3);
    au_event *events;
    size_t n;
    OK(au_event_list(f->db, &f->arena, "j1", 0, 10, &events, &n, &f->err));
    assert_int_equal(n, 2);
    assert_int_equal(events[1].id, 3);
    assert_int_equal(events[1].seq, 2);
    assert_string_equal(events[1].event, "done");
    assert_string_equal(events[1].data, "{\"n\":2}");
    assert_string_equal(events[1].kind, "job");
    au_sample *sample;
    OK(au_sample_get(f->db, &f->arena, "s", &sample, &f->err));
    assert_int_equal(sample->bytes, 9);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM comparisons c JOIN comparison_samples s ON "
                              "s.comparison_id = c.id WHERE c.closed_at = 0"),
                     1);
    /* Work goes on: numbers of events continue, the queue is served in its order. */
    au_lease lease;
    assert_true(claim_as(f, "w", &lease));
    assert_string_equal(lease.job_id, "j3");
    assert_int_equal(look(f, "j4")->queue_position, 2);
    assert_int_equal(look(f, "j3")->event_seq, 2);
    au_db_close(&f->db);
    sqlite3 *old = NULL;
    sqlite3_stmt *version = NULL;
    assert_int_equal(sqlite3_open_v2(backup, &old, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(old,
                                        "SELECT user_version, (SELECT COUNT(*) FROM jobs) FROM "
                                        "pragma_user_version",
                                        -1, &version, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(version), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(version, 0), 1);
    assert_int_equal(sqlite3_column_int(version, 1), 4);
    sqlite3_finalize(version);
    sqlite3_close(old);
    f->db = fresh;
}

static void test_readers_cannot_write(void **state)
{
    fixture *f = *state;
    au_db *reader;
    OK(au_db_open(&reader, f->db_path, &(au_db_options){.read_only = true}, &f->err));
    assert_int_not_equal(au_db_exec(reader, NULL, &f->err, "DELETE FROM jobs", ""), AU_OK);
    /* A reader's view holds still while others write. */
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    int64_t n;
    OK(au_db_begin_read(reader, &f->err));
    OK(au_db_int(&n, reader, -1, &f->err, "SELECT COUNT(*) FROM jobs", ""));
    submit(f, &job, id);
    OK(au_db_int(&n, reader, -1, &f->err, "SELECT COUNT(*) FROM jobs", ""));
    assert_int_equal(n, 0);
    OK(au_db_commit(reader, &f->err));
    OK(au_db_int(&n, reader, -1, &f->err, "SELECT COUNT(*) FROM jobs", ""));
    assert_int_equal(n, 1);
    au_db_close(&reader);
}

static void test_busy(void **state)
{
    fixture *f = *state;
    au_db *other;
    OK(au_db_open(&other, f->db_path, &(au_db_options){.busy_timeout_ms = 50}, &f->err));
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_db_begin(other, AU_DB_DURABLE, &f->err), AU_AGAIN);
    au_db_rollback(f->db);
    OK(au_db_begin(other, AU_DB_RELAXED, &f->err));
    assert_true(au_db_in_transaction(other));
    au_db_close(&other); /* rolls back */
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    au_db_rollback(f->db);
}

/* ---- Writer -------------------------------------------------------------------------------------
 */

enum { THREADS = 8, EACH = 60 };

typedef struct order {
    au_writer *writer;
    int number;
    atomic_int *done, *failed;
} order;

static au_status insert_number(au_db *db, void *arg, au_err *err)
{
    order *o = arg;
    au_status st = au_db_exec(db, NULL, err, "INSERT INTO n VALUES (?1)", "i", (int64_t)o->number);
    /* Every seventh fails after its insert: its savepoint takes it back. */
    if (st == AU_OK && o->number % 7 == 0)
        st = au_fail(err, AU_CONFLICT, "number %d", o->number);
    return st;
}

static void number_done(void *arg, au_status status, const au_err *err)
{
    order *o = arg;
    if (status == AU_OK) {
        atomic_fetch_add(o->done, 1);
    } else if (status == AU_CONFLICT && strncmp(err->message, "number", 6) == 0) {
        atomic_fetch_add(o->failed, 1);
    }
    free(o);
}

static atomic_int done_count, failed_count, next_number;

static void *submit_numbers(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        order *o = calloc(1, sizeof *o);
        *o = (order){.number = atomic_fetch_add(&next_number, 1),
                     .done = &done_count,
                     .failed = &failed_count};
        if (au_writer_submit(arg, insert_number, o, number_done, NULL) != AU_OK)
            abort();
    }
    return NULL;
}

static void test_writer_groups(void **state)
{
    fixture *f = *state;
    au_writer *w;
    pthread_t threads[THREADS];
    OK(au_db_exec(f->db, NULL, &f->err, "CREATE TABLE n (n INTEGER PRIMARY KEY)", ""));
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_numbers, w), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    order o = {.number = THREADS * EACH + 1};
    OK(au_writer_run(w, insert_number, &o, &f->err));
    o.number = 700000;
    assert_int_equal(au_writer_run(w, insert_number, &o, &f->err), AU_CONFLICT);
    assert_string_equal(f->err.message, "number 700000");
    au_writer_free(&w); /* executes all that was accepted */
    int expected_failures = (THREADS * EACH + 6) / 7;
    assert_int_equal(failed_count, expected_failures);
    assert_int_equal(done_count, THREADS * EACH - expected_failures);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM n"), done_count + 1);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM n WHERE n % 7 = 0"), 0);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static au_status wait_at_gate(au_db *db, void *arg, au_err *err)
{
    (void)db;
    (void)arg;
    (void)err;
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return AU_OK;
}

static void count_done(void *arg, au_status status, const au_err *err)
{
    (void)err;
    if (status == AU_OK)
        atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_writer_limit(void **state)
{
    fixture *f = *state;
    au_writer *w;
    atomic_int n = 0;
    OK(au_writer_new(&w, f->db_path, 2, &f->err));
    pthread_mutex_lock(&gate);
    int accepted = 0;
    au_status st = AU_OK;
    while (st == AU_OK && accepted < 100) {
        st = au_writer_submit(w, wait_at_gate, &n, count_done, &f->err);
        accepted += st == AU_OK;
    }
    assert_int_equal(st, AU_LIMIT);
    assert_in_range(accepted, 2, 4);
    pthread_mutex_unlock(&gate);
    au_writer_free(&w);
    assert_int_equal(n, accepted);
}

static au_status set_max_pages(au_db *db, void *arg, au_err *err)
{
    char sql[64];
    int64_t n;
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %d", *(int *)arg);
    return au_db_int(&n, db, 0, err, sql, "");
}

static au_status insert_block(au_db *db, void *arg, au_err *err)
{
    static const char block[20000];
    return au_db_exec(db, NULL, err, "INSERT INTO blocks VALUES (?1, ?2)", "ib", *(int64_t *)arg,
                      block, sizeof block);
}

/* A full disk: the write fails with AU_NOSPACE, nothing of it is left, and the writer goes on when
 * there is space again. */
static void test_writer_without_space(void **state)
{
    fixture *f = *state;
    au_writer *w;
    au_status st = AU_OK;
    int64_t n = 0;
    OK(au_db_exec(f->db, NULL, &f->err, "CREATE TABLE blocks (n INTEGER, b BLOB)", ""));
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    int pages = (int)count(f, "PRAGMA page_count") + 50;
    OK(au_writer_run(w, set_max_pages, &pages, &f->err));
    while (n < 1000 && (st = au_writer_run(w, insert_block, &n, &f->err)) == AU_OK)
        n++;
    assert_int_equal(st, AU_NOSPACE);
    assert_in_range(n, 5, 50);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM blocks"), n);
    pages += 1000;
    OK(au_writer_run(w, set_max_pages, &pages, &f->err));
    OK(au_writer_run(w, insert_block, &n, &f->err));
    assert_int_equal(count(f, "SELECT COUNT(*) FROM blocks"), n + 1);
    au_writer_free(&w);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_values),        T(test_statement_cache),      T(test_versions),
        T(test_upgrade),       T(test_readers_cannot_write), T(test_busy),
        T(test_writer_groups), T(test_writer_limit),         T(test_writer_without_space),
    };
    return cmocka_run_group_tests_name("db", tests, NULL, NULL);
}
