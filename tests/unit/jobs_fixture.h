/* SPDX-License-Identifier: MIT */
/* A database and a store in a fresh folder, and short ways to make and move jobs, for the tests of
 * db, store and jobs. */
#ifndef JOBS_FIXTURE_H
#define JOBS_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/uuid.h"
#include "db/db.h"
#include "jobs/catalog.h"
#include "jobs/janitor.h"
#include "jobs/job.h"
#include "store/store.h"

typedef struct fixture {
    char dir[64], db_path[96], store_path[96];
    au_db *db;
    au_store *store;
    au_limits limits;
    au_arena arena;
    au_err err;
} fixture;

#define OK(expr)                                                                                   \
    do {                                                                                           \
        au_status ok_st = (expr);                                                                  \
        if (ok_st != AU_OK)                                                                        \
            fail_msg("%s: %s: %s", #expr, au_status_text(ok_st), f->err.message);                  \
    } while (0)

static inline void fixture_open(fixture *f)
{
    memset(f, 0, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    snprintf(f->dir, sizeof f->dir, "%.32s/aulos-test-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->db_path, sizeof f->db_path, "%s/aulos.db", f->dir);
    snprintf(f->store_path, sizeof f->store_path, "%s/objects", f->dir);
    OK(au_db_migrate(f->db_path, &f->err));
    OK(au_db_open(&f->db, f->db_path, NULL, &f->err));
    OK(au_store_open(&f->store, f->store_path, &f->err));
    au_limits_init(&f->limits);
    f->limits.backoff_ms = 0;
    au_arena_init(&f->arena, 64 << 20);
}

static inline void fixture_close(fixture *f)
{
    au_arena_deinit(&f->arena);
    au_store_close(&f->store);
    au_db_close(&f->db);
    OK(au_remove_tree(f->dir, &f->err));
}

/* For cmocka: a fixture of its own for each test. */
static inline int fixture_setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    fixture_open(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    fixture_close(*state);
    free(*state);
    return 0;
}

/* TX(call): the call in a durable transaction of its own. */
#define TX(call)                                                                                   \
    do {                                                                                           \
        OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));                                            \
        OK(call);                                                                                  \
        OK(au_db_commit(f->db, &f->err));                                                          \
    } while (0)

static inline au_job_new plain_job(void)
{
    return (au_job_new){.prompt_text = "a calm piano",
                        .model_name = "m",
                        .model_fingerprint = "f00d",
                        .num_samples = 1,
                        .seed = 7,
                        .seed_source = "request",
                        .params = "{\"duration_s\":1}",
                        .format = "wav"};
}

static inline void submit(fixture *f, const au_job_new *job, char id[AU_UUID_TEXT])
{
    au_submit_result r;
    TX(au_job_submit(f->db, job, &f->limits, &r, &f->err));
    memcpy(id, r.job_id, AU_UUID_TEXT);
}

static inline bool claim_as(fixture *f, const char *worker, au_lease *lease)
{
    static const char *const models[] = {"m"};
    bool claimed;
    TX(au_job_claim(f->db, worker, models, 1, NULL, &f->limits, lease, &claimed, &f->err));
    return claimed;
}

static inline const au_job *look(fixture *f, const char *id)
{
    au_job *job;
    OK(au_job_get(f->db, &f->arena, id, &job, &f->err));
    return job;
}

static inline int64_t count(fixture *f, const char *sql)
{
    int64_t n;
    OK(au_db_int(&n, f->db, -1, &f->err, sql, ""));
    return n;
}

/* Announces, stores and commits sample (variant, index); false: not held. */
static inline bool make_sample(fixture *f, const au_lease *lease, int variant, int index)
{
    char id[AU_UUID_TEXT], key[AU_STORE_KEY];
    bool held, completed;
    au_uuid7(id);
    OK(au_store_sample_key(key, id, "wav", &f->err));
    TX(au_upload_begin(f->db, lease, key, &held, &f->err));
    if (!held)
        return false;
    OK(au_store_put(f->store, key, "audio", 5, &f->err));
    au_sample_new s = {.id = id,
                       .store_key = key,
                       .format = "wav",
                       .sha256 = "aa",
                       .pcm_sha256 = "bb",
                       .index = index,
                       .variant = variant,
                       .bytes = 5,
                       .frames = 3,
                       .sample_rate = 32000,
                       .channels = 1,
                       .duration_s = 0.5,
                       .loudness_lufs = -23,
                       .true_peak_dbtp = -1,
                       .peak = 0.5,
                       .recipe = "{}"};
    TX(au_job_commit_sample(f->db, lease, &s, &held, &completed, &f->err));
    return held;
}

static inline au_status count_object(void *user, const char *key, uint64_t size, au_err *err)
{
    (void)key;
    (void)size;
    (void)err;
    ++*(int *)user;
    return AU_OK;
}

static inline int objects(fixture *f)
{
    int n = 0;
    OK(au_store_list(f->store, "", count_object, &n, &f->err));
    return n;
}

#endif
