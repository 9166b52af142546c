/* SPDX-License-Identifier: MIT */
/* Raters' sessions: trials made from the pairs, and their votes. A token is 256 random bits, so a
 * plain SHA-256 of it is enough to keep; it alone is the right to vote. No state of its own. */
#include <sodium/utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "compare/comparison.h"
#include "jobs/catalog.h"
#include "jobs/job.h"
#include "jobs/reader.h"

enum { TOKEN_BYTES = 32 };

static const char *const choice_names[] = {"x", "y", "tie", "both_bad"};

bool au_choice_parse(const char *name, au_choice *out)
{
    for (size_t i = 0; i < sizeof choice_names / sizeof *choice_names; i++) {
        if (strcmp(name, choice_names[i]) == 0) {
            *out = (au_choice)i;
            return true;
        }
    }
    return false;
}

/* ---- Making ---- */

static au_status check_open(const au_comparison *c, au_err *err)
{
    au_status st = AU_OK;
    size_t ready = 0, waiting = 0;
    AU_FAIL_IF(c->mode == AU_COMPARE_VIEW, AU_CONFLICT,
               "comparison %.40s is a view: nobody votes on it", c->id);
    AU_FAIL_IF(c->closed_at, AU_CONFLICT, "comparison %.40s is closed", c->id);
    for (size_t i = 0; i < c->n_pairs; i++) {
        ready += c->pairs[i].state == AU_PAIR_READY;
        waiting += c->pairs[i].state == AU_PAIR_GENERATING;
    }
    AU_FAIL_IF(waiting, AU_CONFLICT, "the samples of %zu of %zu pairs are still being made",
               waiting, c->n_pairs);
    AU_FAIL_IF(!ready, AU_CONFLICT, "none of the %zu pairs has both samples", c->n_pairs);
done:
    return st;
}

static au_status insert_trial(au_db *db, au_arena *a, const char *session_id,
                              const au_comparison *c, size_t pair, const au_trial_plan *plan, int n,
                              au_err *err)
{
    const au_pair *p = &c->pairs[pair];
    au_sample *x, *y;
    char id[AU_UUID_TEXT];
    double x_gain, y_gain;
    au_status st = AU_OK;
    AU_TRY(au_sample_get(db, a, plan->x_is_a ? p->sample_a : p->sample_b, &x, err));
    AU_TRY(au_sample_get(db, a, plan->x_is_a ? p->sample_b : p->sample_a, &y, err));
    au_match_loudness(&(au_loudness){x->loudness_lufs, x->true_peak_dbtp},
                      &(au_loudness){y->loudness_lufs, y->true_peak_dbtp}, &x_gain, &y_gain);
    au_uuid7(id);
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO trials (id, session_id, n, pair, x_is_a, reference_is_x, "
                      "sample_x, sample_y, x_gain_db, y_gain_db) "
                      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                      "ttiiiittdd", id, session_id, (int64_t)n, (int64_t)pair,
                      (int64_t)plan->x_is_a, (int64_t)plan->reference_is_x, x->id, y->id, x_gain,
                      y_gain));
done:
    return st;
}

/* A trial for each pair that is ready, planned over those alone. */
static au_status insert_trials(au_db *db, const char *session_id, int64_t number,
                               const au_comparison *c, au_err *err)
{
    au_trial_plan *plan = NULL;
    size_t *ready = NULL, n = 0;
    au_arena arena;
    au_status st = AU_OK;
    au_arena_init(&arena, 4 << 20);
    AU_TRY(au_calloc(&plan, c->n_pairs, sizeof *plan, err));
    AU_TRY(au_calloc(&ready, c->n_pairs, sizeof *ready, err));
    for (size_t i = 0; i < c->n_pairs; i++) {
        if (c->pairs[i].state == AU_PAIR_READY)
            ready[n++] = i;
    }
    au_trial_plan_make(c->seed, (uint64_t)number, plan, n);
    for (size_t i = 0; i < n; i++) {
        AU_TRY(insert_trial(db, &arena, session_id, c, ready[plan[i].pair], &plan[i], (int)i + 1,
                            err));
        au_arena_deinit(&arena);
    }
done:
    au_arena_deinit(&arena);
    free(ready);
    free(plan);
    return st;
}

static void hash_token(char out[AU_SHA256_TEXT], const char *token)
{
    au_sha256_hex(out, token, strlen(token));
}

static void make_token(char token[AU_RATER_TOKEN_TEXT])
{
    unsigned char bytes[TOKEN_BYTES];
    au_random_bytes(bytes, sizeof bytes);
    sodium_bin2base64(token, AU_RATER_TOKEN_TEXT, bytes, sizeof bytes,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

au_status au_rater_session_create(au_db *db, const au_comparison *c, const char *rater, char *token,
                                  au_err *err)
{
    char id[AU_UUID_TEXT], hash[AU_SHA256_TEXT];
    int64_t number;
    au_status st = AU_OK;
    AU_TRY(check_open(c, err));
    make_token(token);
    hash_token(hash, token);
    au_uuid7(id);
    AU_TRY(au_db_int(&number, db, 0, err,
                     "INSERT INTO rater_sessions (id, comparison_id, token_hash, rater, number, "
                     "created_at) SELECT ?1, ?2, ?3, ?4, COALESCE(MAX(number), -1) + 1, "
                     "au_now_ms() FROM rater_sessions WHERE comparison_id = ?2 RETURNING number",
                     "tttt", id, c->id, hash, rater));
    AU_TRY(insert_trials(db, id, number, c, err));
done:
    return st;
}

/* ---- Reading ---- */

static au_status read_session(au_reader *r, void *record)
{
    au_rater_session *s = record;
    s->id = au_read_text(r);
    s->comparison_id = au_read_text(r);
    s->rater = au_read_text(r);
    s->number = au_read_int(r);
    s->created_at = au_read_i64(r);
    s->n_trials = (size_t)au_read_i64(r);
    s->n_votes = (size_t)au_read_i64(r);
    return r->st;
}

au_status au_rater_session_get(au_db *db, au_arena *a, const char *token, au_rater_session **out,
                               au_err *err)
{
    char hash[AU_SHA256_TEXT];
    au_rows *rows = NULL;
    au_status st = AU_OK;
    hash_token(hash, token);
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT s.id, s.comparison_id, s.rater, s.number, s.created_at, "
                       "(SELECT COUNT(*) FROM trials t WHERE t.session_id = s.id), "
                       "(SELECT COUNT(*) FROM trials t JOIN votes v ON v.trial_id = t.id "
                       " WHERE t.session_id = s.id) "
                       "FROM rater_sessions s JOIN comparisons c ON c.id = s.comparison_id "
                       "WHERE s.token_hash = ?1 AND c.deleted_at = 0",
                       "t", hash));
    /* The token is a secret: errors name its hash. */
    AU_TRY(au_page_single(rows, a, read_session, sizeof **out, (void **)out, "session", hash, err));
done:
    au_rows_close(&rows);
    return st;
}

#define TRIAL                                                                                      \
    "SELECT t.id, t.n, t.sample_x, t.sample_y, t.reference_is_x, t.x_gain_db, t.y_gain_db, "       \
    "v.trial_id IS NOT NULL FROM trials t LEFT JOIN votes v ON v.trial_id = t.id "                 \
    "WHERE t.session_id = ?1 AND "

static au_status read_trial(au_reader *r, void *record)
{
    au_trial *t = record;
    t->id = au_read_text(r);
    t->n = au_read_int(r);
    t->sample_x = au_read_text(r);
    t->sample_y = au_read_text(r);
    t->reference_is_x = au_read_bool(r);
    t->x_gain_db = au_read_double(r);
    t->y_gain_db = au_read_double(r);
    t->voted = au_read_bool(r);
    return r->st;
}

au_status au_trial_next(au_db *db, au_arena *a, const char *session_id, au_trial **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, TRIAL "v.trial_id IS NULL ORDER BY t.n LIMIT 1", "t",
                       session_id));
    st = au_page_single(rows, a, read_trial, sizeof **out, (void **)out, "open trial of session",
                        session_id, err);
    if (st == AU_NOT_FOUND) {
        *out = NULL;
        st = AU_OK;
    }
done:
    au_rows_close(&rows);
    return st;
}

au_status au_trial_get(au_db *db, au_arena *a, const char *session_id, int n, const char *id,
                       au_trial **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, TRIAL "(t.n = ?2 OR t.id = ?3)", "tit", session_id,
                       (int64_t)n, id));
    AU_TRY(au_page_single(rows, a, read_trial, sizeof **out, (void **)out, "trial", id, err));
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Votes ---- */

au_status au_vote_add(au_db *db, const char *trial_id, au_choice choice, double heard_x_s,
                      double heard_y_s, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool found;
    char id[AU_UUID_TEXT], data[128];
    int64_t n;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT c.id, c.closed_at FROM trials t "
                       "JOIN rater_sessions s ON s.id = t.session_id "
                       "JOIN comparisons c ON c.id = s.comparison_id "
                       "WHERE t.id = ?1 AND c.deleted_at = 0",
                       "t", trial_id));
    AU_TRY(au_rows_next(rows, &found, err));
    AU_FAIL_IF(!found, AU_CONFLICT, "the comparison was deleted");
    AU_FAIL_IF(au_rows_int(rows, 1), AU_CONFLICT, "the comparison is closed");
    snprintf(id, sizeof id, "%s", au_rows_text(rows, 0));
    au_rows_close(&rows);
    AU_TRY(au_db_exec(db, &n, err,
                      "INSERT INTO votes (trial_id, choice, heard_x_s, heard_y_s, created_at) "
                      "VALUES (?1, ?2, ?3, ?4, au_now_ms()) ON CONFLICT (trial_id) DO NOTHING",
                      "ttdd", trial_id, choice_names[choice], heard_x_s, heard_y_s));
    AU_FAIL_IF(n == 0, AU_CONFLICT, "the trial has its vote already");
    AU_TRY(au_db_exec(db, NULL, err, "UPDATE comparisons SET revision = revision + 1 WHERE id = ?1",
                      "t", id));
    snprintf(data, sizeof data, "{\"id\":\"%s\",\"voted\":true}", id);
    AU_TRY(au_event_add(db, "comparison", id, "updated", data, err));
done:
    au_rows_close(&rows);
    return st;
}

static au_status read_vote(au_reader *r, void *record)
{
    au_vote *v = record;
    v->choice = au_read_text(r);
    v->heard_x_s = au_read_double(r);
    v->heard_y_s = au_read_double(r);
    v->created_at = au_read_i64(r);
    return r->st;
}

au_status au_vote_get(au_db *db, au_arena *a, const char *trial_id, au_vote **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(
        &rows, db, err,
        "SELECT choice, heard_x_s, heard_y_s, created_at FROM votes WHERE trial_id = ?1", "t",
        trial_id));
    AU_TRY(au_page_single(rows, a, read_vote, sizeof **out, (void **)out, "vote on trial", trial_id,
                          err));
done:
    au_rows_close(&rows);
    return st;
}
