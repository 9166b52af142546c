/* SPDX-License-Identifier: MIT */
/* Records of comparisons. Arms and pairs are fixed when a comparison is made; which samples a pair
 * of a job has is looked up whenever it is read, so that nothing must be told when the job ends. No
 * state of its own. */
#include "compare/comparison.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "jobs/job.h"
#include "jobs/reader.h"

static const char *const mode_names[] = {"view", "ab", "abx"};
static const char *const pair_states[] = {"generating", "ready", "failed"};

const char *au_comparison_mode_name(au_comparison_mode m)
{
    return mode_names[m];
}

bool au_comparison_mode_parse(const char *name, au_comparison_mode *out)
{
    for (size_t i = 0; i < sizeof mode_names / sizeof *mode_names; i++) {
        if (strcmp(name, mode_names[i]) == 0) {
            *out = (au_comparison_mode)i;
            return true;
        }
    }
    return false;
}

const char *au_pair_state_name(au_pair_state s)
{
    return pair_states[s];
}

/* ---- Making ---- */

static au_status emit(au_db *db, const char *id, const char *event, au_err *err)
{
    char data[96];
    snprintf(data, sizeof data, "{\"id\":\"%s\"}", id);
    return au_event_add(db, "comparison", id, event, data, err);
}

static au_status insert_samples(au_db *db, const char *id, const au_comparison *new, au_err *err)
{
    au_status st = AU_OK;
    int64_t known;
    for (size_t i = 0; i < new->n_samples; i++) {
        AU_TRY(au_db_int(&known, db, 0, err,
                         "SELECT COUNT(*) FROM samples WHERE id = ?1 AND deleted_at = 0", "t",
                         new->sample_ids[i]));
        AU_FAIL_IF(known == 0, AU_NOT_FOUND, "sample %.40s does not exist", new->sample_ids[i]);
        AU_TRY(au_db_exec(db, NULL, err,
                          "INSERT INTO comparison_samples (comparison_id, position, sample_id) "
                          "VALUES (?1, ?2, ?3)",
                          "tit", id, (int64_t)i, new->sample_ids[i]));
    }
done:
    return st;
}

static au_status insert_arms(au_db *db, const char *id, const au_comparison *new, au_err *err)
{
    au_status st = AU_OK;
    for (size_t i = 0; i < new->n_arms; i++) {
        const au_arm *arm = &new->arms[i];
        AU_TRY(au_db_exec(db, NULL, err,
                          "INSERT INTO comparison_arms (comparison_id, arm, adapter_id, "
                          "adapter_sha256, strength) VALUES (?1, ?2, ?3, ?4, ?5)",
                          "titt"
                          "d",
                          id, (int64_t)i, arm->adapter_id, arm->adapter_sha256, arm->strength));
    }
    for (size_t i = 0; i < new->n_pairs; i++) {
        const au_pair *p = &new->pairs[i];
        AU_TRY(au_db_exec(db, NULL, err,
                          "INSERT INTO comparison_pairs (comparison_id, position, prompt_id, "
                          "arm_a, arm_b, sample_a, sample_b, job_id, idx) "
                          "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                          "titiittti", id, (int64_t)i, p->prompt_id, (int64_t)p->arm_a,
                          (int64_t)p->arm_b, p->sample_a, p->sample_b, p->job_id,
                          (int64_t)p->index));
    }
done:
    return st;
}

au_status au_comparison_create(au_db *db, const au_comparison *new, char *id_out, au_err *err)
{
    au_status st = AU_OK;
    au_uuid7(id_out);
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO comparisons (id, mode, title, blind, votes_wanted, "
                      "min_listen_s, seed, created_at) "
                      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, au_now_ms())",
                      "tttiidi", id_out, mode_names[new->mode], new->title ? new->title : "",
                      (int64_t) new->blind, new->votes_wanted, new->min_listen_s,
                      (int64_t) new->seed));
    AU_TRY(insert_samples(db, id_out, new, err));
    AU_TRY(insert_arms(db, id_out, new, err));
    for (size_t i = 0; i < new->n_jobs; i++)
        AU_TRY(au_db_exec(db, NULL, err,
                          "INSERT INTO comparison_jobs (comparison_id, position, job_id) "
                          "VALUES (?1, ?2, ?3)",
                          "tit", id_out, (int64_t)i, new->job_ids[i]));
    AU_TRY(emit(db, id_out, "created", err));
done:
    return st;
}

au_status au_comparison_close(au_db *db, const char *id, bool *changed, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool found;
    *changed = false;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT mode, closed_at FROM comparisons WHERE id = ?1 AND deleted_at = 0",
                       "t", id));
    AU_TRY(au_rows_next(rows, &found, err));
    AU_FAIL_IF(!found, AU_NOT_FOUND, "comparison %.40s does not exist", id);
    AU_FAIL_IF(strcmp(au_rows_text(rows, 0), "view") == 0, AU_CONFLICT,
               "comparison %.40s is a view: nobody votes on it, so it cannot be closed", id);
    *changed = au_rows_int(rows, 1) == 0;
    au_rows_close(&rows);
    if (!*changed)
        goto done;
    AU_TRY(au_db_exec(db, NULL, err,
                      "UPDATE comparisons SET closed_at = au_now_ms(), revision = revision + 1 "
                      "WHERE id = ?1",
                      "t", id));
    AU_TRY(emit(db, id, "updated", err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_comparison_delete(au_db *db, const char *id, au_err *err)
{
    int64_t n;
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, &n, err,
                      "UPDATE comparisons SET deleted_at = au_now_ms(), revision = revision + 1 "
                      "WHERE id = ?1 AND deleted_at = 0",
                      "t", id));
    AU_FAIL_IF(n == 0, AU_NOT_FOUND, "comparison %.40s does not exist", id);
    AU_TRY(emit(db, id, "deleted", err));
done:
    return st;
}

/* ---- Reading ---- */

static au_status read_comparison(au_reader *r, void *record)
{
    au_comparison *c = record;
    c->id = au_read_text(r);
    const char *mode = au_read_text(r);
    c->title = au_read_text(r);
    c->blind = au_read_bool(r);
    c->votes_wanted = au_read_i64(r);
    c->min_listen_s = au_read_double(r);
    c->seed = (uint64_t)au_read_i64(r);
    c->created_at = au_read_i64(r);
    c->closed_at = au_read_i64(r);
    c->deleted_at = au_read_i64(r);
    c->revision = au_read_i64(r);
    c->votes = au_read_i64(r);
    c->sessions = au_read_i64(r);
    if (r->st == AU_OK && !au_comparison_mode_parse(mode, &c->mode))
        r->st = au_fail(r->err, AU_CORRUPT, "comparison %.40s has an unknown mode", c->id);
    return r->st;
}

#define COLUMNS                                                                                    \
    "c.id, c.mode, c.title, c.blind, c.votes_wanted, c.min_listen_s, c.seed, c.created_at, "       \
    "c.closed_at, c.deleted_at, c.revision, "                                                      \
    "(SELECT COUNT(*) FROM votes v JOIN trials t ON t.id = v.trial_id "                            \
    " JOIN rater_sessions s ON s.id = t.session_id WHERE s.comparison_id = c.id), "                \
    "(SELECT COUNT(*) FROM rater_sessions s WHERE s.comparison_id = c.id) "

/* The texts of a query's first column, in the arena. */
static au_status read_texts(au_rows *rows, au_arena *a, const char ***out, size_t *n, au_err *err)
{
    au_status st = AU_OK;
    size_t cap = 0;
    for (bool has_row;;) {
        char *text;
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        AU_TRY(au_rows_strdup(&text, rows, 0, a, err));
        AU_TRY(au_page_push((void ***)out, n, &cap, text, a, err));
    }
done:
    return st;
}

/* Given samples in their order, then those that its jobs have made, by prompt, index and variant.
 */
static au_status read_samples(au_db *db, au_arena *a, au_comparison *c, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT sample_id FROM (SELECT 0 AS kind, position, 0 AS idx, 0 AS variant, "
                       "sample_id FROM comparison_samples WHERE comparison_id = ?1 "
                       "UNION ALL SELECT 1, j.position, s.idx, s.variant, s.sample_id "
                       "FROM comparison_jobs j JOIN job_samples s ON s.job_id = j.job_id "
                       "WHERE j.comparison_id = ?1 AND s.sample_id IS NOT NULL) "
                       "ORDER BY kind, position, idx, variant",
                       "t", c->id));
    AU_TRY(read_texts(rows, a, &c->sample_ids, &c->n_samples, err));
done:
    au_rows_close(&rows);
    return st;
}

static au_status read_jobs(au_db *db, au_arena *a, au_comparison *c, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(
        au_db_query(&rows, db, err,
                    "SELECT job_id FROM comparison_jobs WHERE comparison_id = ?1 ORDER BY position",
                    "t", c->id));
    AU_TRY(read_texts(rows, a, &c->job_ids, &c->n_jobs, err));
done:
    au_rows_close(&rows);
    return st;
}

static au_status read_arms(au_db *db, au_arena *a, au_comparison *c, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    c->arms = au_arena_alloc(a, AU_ARMS_MAX * sizeof *c->arms);
    AU_FAIL_IF(!c->arms, AU_LIMIT, "comparison does not fit the memory of the request");
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT a.adapter_id, x.name, a.adapter_sha256, a.strength "
                       "FROM comparison_arms a LEFT JOIN adapters x ON x.id = a.adapter_id "
                       "WHERE a.comparison_id = ?1 ORDER BY a.arm LIMIT ?2",
                       "ti", c->id, (int64_t)AU_ARMS_MAX));
    for (bool has_row;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        au_reader r = au_reader_of(rows, a, err);
        au_arm *arm = &c->arms[c->n_arms++];
        arm->adapter_id = au_read_text(&r);
        arm->adapter_name = au_read_text(&r);
        arm->adapter_sha256 = au_read_text(&r);
        arm->strength = au_read_double(&r);
        AU_TRY(r.st);
    }
done:
    au_rows_close(&rows);
    return st;
}

/* `over`: the pair's job is final or gone. */
static au_pair_state state_of(const au_pair *p, bool a_there, bool b_there, bool over)
{
    if (a_there && b_there)
        return AU_PAIR_READY;
    return p->job_id && !over ? AU_PAIR_GENERATING : AU_PAIR_FAILED;
}

static au_status read_pair(au_reader *r, au_comparison *c, au_pair *p)
{
    p->arm_a = (size_t)au_read_i64(r);
    p->arm_b = (size_t)au_read_i64(r);
    p->prompt_id = au_read_text(r);
    p->job_id = au_read_text(r);
    p->index = au_read_int(r);
    p->sample_a = au_read_text(r);
    p->sample_b = au_read_text(r);
    bool over = au_read_bool(r), a_there = au_read_bool(r), b_there = au_read_bool(r);
    if (r->st == AU_OK && (p->arm_a >= c->n_arms || p->arm_b >= c->n_arms))
        r->st = au_fail(r->err, AU_CORRUPT, "comparison %.40s has a pair without its arms", c->id);
    p->state = state_of(p, a_there, b_there, over);
    return r->st;
}

static const char pairs_sql[] =
    "WITH p AS (SELECT position, arm_a, arm_b, prompt_id, job_id, idx, "
    " COALESCE(sample_a, (SELECT s.sample_id FROM job_samples s WHERE s.job_id = q.job_id AND "
    "  s.variant = q.arm_a AND s.idx = q.idx)) AS a, "
    " COALESCE(sample_b, (SELECT s.sample_id FROM job_samples s WHERE s.job_id = q.job_id AND "
    "  s.variant = q.arm_b AND s.idx = q.idx)) AS b "
    " FROM comparison_pairs q WHERE comparison_id = ?1) "
    "SELECT p.arm_a, p.arm_b, p.prompt_id, p.job_id, p.idx, p.a, p.b, "
    " NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = p.job_id AND j.deleted_at = 0 AND "
    "  j.state IN ('queued', 'processing')), "
    " EXISTS (SELECT 1 FROM samples s WHERE s.id = p.a AND s.deleted_at = 0), "
    " EXISTS (SELECT 1 FROM samples s WHERE s.id = p.b AND s.deleted_at = 0) "
    "FROM p ORDER BY p.position LIMIT ?2";

static au_status read_pairs(au_db *db, au_arena *a, au_comparison *c, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    c->pairs = au_arena_alloc(a, AU_COMPARISON_MAX_PAIRS * sizeof *c->pairs);
    AU_FAIL_IF(!c->pairs, AU_LIMIT, "comparison does not fit the memory of the request");
    AU_TRY(au_db_query(&rows, db, err, pairs_sql, "ti", c->id, (int64_t)AU_COMPARISON_MAX_PAIRS));
    for (bool has_row;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        au_reader r = au_reader_of(rows, a, err);
        AU_TRY(read_pair(&r, c, &c->pairs[c->n_pairs]));
        c->n_pairs++;
    }
done:
    au_rows_close(&rows);
    return st;
}

au_status au_comparison_get(au_db *db, au_arena *a, const char *id, au_comparison **out,
                            au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(
        au_db_query(&rows, db, err, "SELECT " COLUMNS "FROM comparisons c WHERE id = ?1", "t", id));
    AU_TRY(au_page_single(rows, a, read_comparison, sizeof **out, (void **)out, "comparison", id,
                          err));
    au_rows_close(&rows);
    AU_TRY(read_jobs(db, a, *out, err));
    AU_TRY(read_samples(db, a, *out, err));
    AU_TRY(read_arms(db, a, *out, err));
    AU_TRY(read_pairs(db, a, *out, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_comparison_list(au_db *db, au_arena *a, const char *before_id, int limit,
                             au_comparison ***out, size_t *n, bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    limit = au_page_limit(limit);
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " COLUMNS "FROM comparisons c WHERE deleted_at = 0 AND "
                       "c.id < COALESCE(?1, 'g') ORDER BY c.id DESC LIMIT ?2",
                       "ti", before_id, (int64_t)limit + 1));
    AU_TRY(au_page_collect(rows, a, read_comparison, sizeof ***out, limit, (void ***)out, n,
                           has_more, err));
    au_rows_close(&rows);
    for (size_t i = 0; i < *n; i++)
        AU_TRY(read_samples(db, a, (*out)[i], err));
done:
    au_rows_close(&rows);
    return st;
}
