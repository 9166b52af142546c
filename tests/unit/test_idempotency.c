/* SPDX-License-Identifier: MIT */
/* Rows of idempotency keys: owners, the end of their time, purging. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "jobs/idempotency.h"
#include "jobs_fixture.h"

static fixture *f;

static int setup(void **state)
{
    (void)state;
    f = calloc(1, sizeof *f);
    assert_non_null(f);
    fixture_open(f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_close(f);
    free(f);
    return 0;
}

static bool has(const char *owner, const char *key, au_idempotency *out)
{
    bool found;
    OK(au_idempotency_find(f->db, owner, key, out, &found, &f->err));
    return found;
}

static void put(const char *owner, const char *key, const char *location)
{
    au_idempotency made = {.request_hash = "aa", .status = 202};
    snprintf(made.location, sizeof made.location, "%s", location);
    TX(au_idempotency_put(f->db, owner, key, &made, &f->err));
}

/* Moves everything into the past. */
static void age(int64_t ms)
{
    TX(au_db_exec(f->db, NULL, &f->err, "UPDATE idempotency SET created_at = created_at - ?1", "i",
                  ms));
}

static void test_owners(void **state)
{
    (void)state;
    au_idempotency row;
    put("", "k", "/v1/jobs/1");
    put("alice", "k", "/v1/jobs/2");
    assert_true(has("", "k", &row));
    assert_string_equal(row.location, "/v1/jobs/1");
    assert_int_equal(row.status, 202);
    assert_string_equal(row.request_hash, "aa");
    assert_true(has("alice", "k", &row));
    assert_string_equal(row.location, "/v1/jobs/2");
    assert_false(has("bob", "k", &row));
    assert_false(has("", "K", &row));
}

static void test_time(void **state)
{
    (void)state;
    au_idempotency row;
    int64_t n;
    put("", "k", "/v1/jobs/1");
    age(AU_IDEMPOTENCY_KEPT_MS - 60000);
    assert_true(has("", "k", &row));
    put("", "young", "/v1/jobs/2");
    age(60000);
    assert_false(has("", "k", &row)); /* over, purged or not */
    assert_true(has("", "young", &row));
    put("", "k", "/v1/jobs/3");
    assert_true(has("", "k", &row));
    assert_string_equal(row.location, "/v1/jobs/3");
    put("", "old 1", "/");
    put("", "old 2", "/");
    put("", "old 3", "/");
    TX(au_db_exec(f->db, NULL, &f->err,
                  "UPDATE idempotency SET created_at = created_at - 90000000 WHERE key LIKE 'old%'",
                  ""));
    TX(au_idempotency_purge(f->db, 2, &n, &f->err));
    assert_int_equal(n, 2);
    TX(au_idempotency_purge(f->db, 2, &n, &f->err));
    assert_int_equal(n, 1);
    assert_int_equal(count(f, "SELECT COUNT(*) FROM idempotency"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_owners, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time, setup, teardown),
    };
    return cmocka_run_group_tests_name("idempotency", tests, NULL, NULL);
}
