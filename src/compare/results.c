/* SPDX-License-Identifier: MIT */
/* Counts votes. One pass over a comparison's votes, in the order of sessions, fills the tallies of
 * all, of each prompt and of each rater, and a matrix of wins per rater, from which the bootstrap
 * draws. No state. */
#include "compare/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "jobs/reader.h"

enum { STREAM_BOOTSTRAP = 3 }; /* design.c has 0 to 2 */

typedef struct vote {
    const char *prompt_id, *prompt_text, *rater, *choice;
    int session;
    size_t arm_a, arm_b;
    bool x_is_a, reference_is_x;
    double heard_s;
} vote;

typedef struct counting {
    const au_comparison *c;
    au_arena *arena;
    au_results *out;
    size_t cap_prompts, cap_raters;
    au_wins *wins; /* [n_raters]; owned */
} counting;

/* Room for one more in an array of the arena. */
static au_status grow(void **items, size_t n, size_t *cap, size_t size, au_arena *a, au_err *err)
{
    if (n < *cap)
        return AU_OK;
    size_t bigger = *cap ? 2 * *cap : 8;
    void *copy = au_arena_alloc(a, bigger * size);
    if (!copy)
        return au_fail(err, AU_LIMIT, "results do not fit the memory of the request");
    if (n)
        memcpy(copy, *items, n * size);
    *items = copy;
    *cap = bigger;
    return AU_OK;
}

static au_status prompt_of(counting *k, const vote *v, au_tally **out, au_err *err)
{
    au_results *r = k->out;
    for (size_t i = 0; i < r->n_prompts; i++) {
        if (strcmp(r->prompts[i].prompt_id, v->prompt_id) == 0) {
            *out = &r->prompts[i].tally;
            return AU_OK;
        }
    }
    au_status st = grow((void **)&r->prompts, r->n_prompts, &k->cap_prompts, sizeof *r->prompts,
                        k->arena, err);
    if (st != AU_OK)
        return st;
    r->prompts[r->n_prompts] = (au_prompt_tally){.prompt_id = v->prompt_id, .text = v->prompt_text};
    *out = &r->prompts[r->n_prompts++].tally;
    return AU_OK;
}

/* Sessions without a name are raters of their own. */
static bool is_rater(const au_rater_tally *r, const vote *v)
{
    return *v->rater ? strcmp(r->rater, v->rater) == 0 : !*r->rater && r->session == v->session;
}

static au_status rater_of(counting *k, const vote *v, size_t *out, au_err *err)
{
    au_results *r = k->out;
    au_status st = AU_OK;
    for (*out = 0; *out < r->n_raters; ++*out) {
        if (is_rater(&r->raters[*out], v))
            return AU_OK;
    }
    size_t cap = k->cap_raters;
    AU_TRY(
        grow((void **)&r->raters, r->n_raters, &k->cap_raters, sizeof *r->raters, k->arena, err));
    if (k->cap_raters != cap) {
        au_wins *wins = realloc(k->wins, k->cap_raters * sizeof *wins);
        AU_FAIL_IF(!wins, AU_NOMEM, "out of memory");
        k->wins = wins;
    }
    k->wins[r->n_raters] = (au_wins){.n = k->c->n_arms};
    r->raters[r->n_raters++] = (au_rater_tally){.rater = v->rater, .session = v->session};
done:
    return st;
}

static void count(au_tally *t, const vote *v, bool abx)
{
    bool x = strcmp(v->choice, "x") == 0, y = strcmp(v->choice, "y") == 0;
    au_arm_score *a = &t->arms[v->arm_a], *b = &t->arms[v->arm_b];
    t->votes++;
    t->heard_s += v->heard_s;
    t->x_chosen += x;
    t->y_chosen += y;
    if (abx) {
        t->correct += v->reference_is_x ? x : y;
    } else if (x || y) {
        bool a_won = x == v->x_is_a;
        a->wins += a_won;
        a->losses += !a_won;
        b->wins += !a_won;
        b->losses += a_won;
    } else if (strcmp(v->choice, "tie") == 0) {
        a->ties++;
        b->ties++;
    } else {
        a->both_bad++;
        b->both_bad++;
    }
}

/* A tie is half a win for both; "both bad" prefers none either. */
static void add_win(au_wins *w, const vote *v)
{
    bool x = strcmp(v->choice, "x") == 0, y = strcmp(v->choice, "y") == 0;
    double a = x || y ? (x == v->x_is_a) : 0.5;
    w->wins[v->arm_a][v->arm_b] += a;
    w->wins[v->arm_b][v->arm_a] += 1 - a;
}

static au_status count_vote(counting *k, const vote *v, au_err *err)
{
    au_status st = AU_OK;
    au_tally *prompt;
    size_t rater;
    bool abx = k->c->mode == AU_COMPARE_ABX;
    AU_FAIL_IF(v->arm_a >= k->c->n_arms || v->arm_b >= k->c->n_arms, AU_CORRUPT,
               "comparison %.40s has a vote for an arm that it lacks", k->c->id);
    AU_TRY(prompt_of(k, v, &prompt, err));
    AU_TRY(rater_of(k, v, &rater, err));
    count(&k->out->all, v, abx);
    count(prompt, v, abx);
    count(&k->out->raters[rater].tally, v, abx);
    add_win(&k->wins[rater], v);
done:
    return st;
}

static const char votes_sql[] =
    "SELECT p.prompt_id, COALESCE(q.text, ''), s.rater, s.number, v.choice, p.arm_a, p.arm_b, "
    "t.x_is_a, t.reference_is_x, v.heard_x_s + v.heard_y_s "
    "FROM rater_sessions s JOIN trials t ON t.session_id = s.id JOIN votes v ON v.trial_id = t.id "
    "JOIN comparison_pairs p ON p.comparison_id = s.comparison_id AND p.position = t.pair "
    "LEFT JOIN prompts q ON q.id = p.prompt_id "
    "WHERE s.comparison_id = ?1 ORDER BY s.number, t.n";

static au_status count_all(counting *k, au_db *db, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, votes_sql, "t", k->c->id));
    for (bool has_row;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        au_reader r = au_reader_of(rows, k->arena, err);
        vote v;
        v.prompt_id = au_read_text(&r);
        v.prompt_text = au_read_text(&r);
        v.rater = au_read_text(&r);
        v.session = au_read_int(&r);
        v.choice = au_read_text(&r);
        v.arm_a = (size_t)au_read_i64(&r);
        v.arm_b = (size_t)au_read_i64(&r);
        v.x_is_a = au_read_bool(&r);
        v.reference_is_x = au_read_bool(&r);
        v.heard_s = au_read_double(&r);
        AU_TRY(r.st);
        AU_TRY(count_vote(k, &v, err));
    }
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Bradley-Terry ---- */

static void add_wins(au_wins *sum, const au_wins *w)
{
    for (size_t i = 0; i < w->n; i++) {
        for (size_t j = 0; j < w->n; j++)
            sum->wins[i][j] += w->wins[i][j];
    }
}

static size_t draw_rater(uint64_t seed, size_t round, size_t i, size_t n)
{
    uint32_t out[4];
    const uint32_t counter[4] = {(uint32_t)i, STREAM_BOOTSTRAP, (uint32_t)round, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    au_philox4x32(out, counter, key);
    return (size_t)((uint64_t)out[0] * n >> 32);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The share q of n sorted values, between neighbours by their distance (R's default, type 7). */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t low = (size_t)at;
    return low + 1 < n ? sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low])
                       : sorted[n - 1];
}

/* Resamples whole raters, since votes of one person are not independent. An interval from fewer
 * than half of the resamples would say more than it knows. */
static au_status bootstrap(counting *k, au_err *err)
{
    au_results *r = k->out;
    size_t n_arms = k->c->n_arms, used = 0;
    double *scores = NULL, found[AU_ARMS_MAX]; /* [n_arms, rounds] */
    au_status st = AU_OK;
    AU_TRY(au_calloc(&scores, n_arms * AU_BOOTSTRAP_ROUNDS, sizeof *scores, err));
    for (size_t round = 0; round < AU_BOOTSTRAP_ROUNDS; round++) {
        au_wins sum = {.n = n_arms};
        for (size_t i = 0; i < r->n_raters; i++)
            add_wins(&sum, &k->wins[draw_rater(k->c->seed, round, i, r->n_raters)]);
        if (!au_bradley_terry(&sum, found))
            continue;
        for (size_t i = 0; i < n_arms; i++)
            scores[i * AU_BOOTSTRAP_ROUNDS + used] = found[i];
        used++;
    }
    r->bootstrap_used = (int)used;
    if (r->n_raters < 2 || used < AU_BOOTSTRAP_ROUNDS / 2)
        goto done;
    for (size_t i = 0; i < n_arms; i++) {
        double *of_arm = scores + i * AU_BOOTSTRAP_ROUNDS;
        qsort(of_arm, used, sizeof *of_arm, compare_doubles);
        r->scores[i].low = quantile(of_arm, used, 0.025);
        r->scores[i].high = quantile(of_arm, used, 0.975);
    }
done:
    free(scores);
    return st;
}

static au_status find_scores(counting *k, au_err *err)
{
    au_wins all = {.n = k->c->n_arms};
    double found[AU_ARMS_MAX];
    for (size_t i = 0; i < k->out->n_raters; i++)
        add_wins(&all, &k->wins[i]);
    if (!au_bradley_terry(&all, found))
        return AU_OK;
    k->out->has_scores = true;
    for (size_t i = 0; i < all.n; i++)
        k->out->scores[i] = (au_bt_score){.score = found[i], .low = NAN, .high = NAN};
    return bootstrap(k, err);
}

au_status au_results_get(au_db *db, au_arena *a, const au_comparison *c, bool scores,
                         au_results *out, au_err *err)
{
    counting k = {.c = c, .arena = a, .out = out};
    au_status st = AU_OK;
    *out = (au_results){0};
    AU_TRY(count_all(&k, db, err));
    if (scores && c->mode == AU_COMPARE_AB && c->n_arms > 2)
        AU_TRY(find_scores(&k, err));
done:
    free(k.wins);
    return st;
}
