/* SPDX-License-Identifier: MIT */
/* Comparisons: samples side by side (view), blind preference tests (ab) and blind tests whether two
 * adapters can be told apart at all (abx), with their raters' sessions, trials and votes.
 *
 * Functions that write take a writing connection inside a transaction; functions that read take any
 * connection. Records and their strings live in the caller's arena. Times are Unix milliseconds,
 * 0 = never. Threads: what holds for the connection holds for the call. */
#ifndef AU_COMPARE_COMPARISON_H
#define AU_COMPARE_COMPARISON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/uuid.h"
#include "compare/design.h"
#include "compare/stats.h"
#include "db/db.h"

enum {
    AU_COMPARISON_MAX_SAMPLES = 100,
    AU_COMPARISON_MAX_PAIRS = 500,
    AU_COMPARISON_MAX_JOBS = 100,
};

typedef enum au_comparison_mode {
    AU_COMPARE_VIEW,
    AU_COMPARE_AB,
    AU_COMPARE_ABX
} au_comparison_mode;
const char *au_comparison_mode_name(au_comparison_mode m); /* "view" | "ab" | "abx" */
bool au_comparison_mode_parse(const char *name, au_comparison_mode *out);

/* One of the things compared: an adapter at a strength, or none. */
typedef struct au_arm {
    const char *adapter_id, *adapter_name, *adapter_sha256; /* NULL: none */
    double strength;
} au_arm;
/* The same adapter by its content, at the same strength; without an adapter strength says nothing.
 */
bool au_arm_equal(const au_arm *a, const au_arm *b);

typedef enum au_pair_state {
    AU_PAIR_GENERATING, /* its job has not made both samples yet */
    AU_PAIR_READY,
    AU_PAIR_FAILED, /* its job ended without them, or a sample was deleted */
} au_pair_state;
const char *au_pair_state_name(au_pair_state s);

typedef struct au_pair {
    size_t arm_a, arm_b;
    const char *prompt_id;
    const char *sample_a, *sample_b; /* NULL: not made */
    const char *job_id;              /* NULL: the samples were given */
    int index;                       /* of the job's samples */
    au_pair_state state;             /* when it was read */
} au_pair;

typedef struct au_comparison {
    const char *id, *title;
    au_comparison_mode mode;
    bool blind;
    int64_t votes_wanted;
    double min_listen_s;
    uint64_t seed;
    const char **sample_ids; /* of a view, in the asked order */
    size_t n_samples;
    const char **job_ids; /* that make the samples, one for each prompt */
    size_t n_jobs;
    au_arm *arms; /* not of a view */
    size_t n_arms;
    au_pair *pairs; /* likewise */
    size_t n_pairs;
    int64_t votes, sessions; /* so far */
    int64_t created_at, closed_at, deleted_at, revision;
} au_comparison;

/* Inserts what the fields up to n_pairs say, and the event; new->id is not read. id_out holds
 * AU_UUID_TEXT bytes. AU_NOT_FOUND: a sample that is named does not exist (any more). */
AU_MUST_CHECK au_status au_comparison_create(au_db *db, const au_comparison *new, char *id_out,
                                             au_err *err);
/* Deleted ones too. A view of jobs lists the samples that are there by now. AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_comparison_get(au_db *db, au_arena *a, const char *id,
                                          au_comparison **out, au_err *err);
/* Newest first, without arms and pairs. before_id NULL: the first page; limit 0: 20. */
AU_MUST_CHECK au_status au_comparison_list(au_db *db, au_arena *a, const char *before_id, int limit,
                                           au_comparison ***out, size_t *n, bool *has_more,
                                           au_err *err);
/* No more sessions and votes; what was blind can be seen. *changed false: was closed before.
 * AU_NOT_FOUND: unknown or deleted. AU_CONFLICT: a view. */
AU_MUST_CHECK au_status au_comparison_close(au_db *db, const char *id, bool *changed, au_err *err);
/* Soft. AU_NOT_FOUND: unknown or deleted before. */
AU_MUST_CHECK au_status au_comparison_delete(au_db *db, const char *id, au_err *err);

/* Which of the pairs that the samples allow exist: every two that share prompt, model, seed and
 * parameters and differ in the arm. Finds the arms, too: fills new->arms, n_arms, pairs, n_pairs
 * from new->sample_ids. AU_LIMIT: more than AU_ARMS_MAX arms or AU_COMPARISON_MAX_PAIRS pairs. */
AU_MUST_CHECK au_status au_comparison_pair_up(au_db *db, au_arena *a, au_comparison *new,
                                              au_err *err);
/* The same from given pairs of ids (ids[2 * n]). AU_INVALID: the two of pair *bad do not differ in
 * the arm alone; err says in what. AU_NOT_FOUND: one of them does not exist. */
AU_MUST_CHECK au_status au_comparison_take_pairs(au_db *db, au_arena *a, au_comparison *new,
                                                 const char *const *ids, size_t n, size_t *bad,
                                                 au_err *err);

/* ---- Sessions ---- */

enum { AU_RATER_TOKEN_TEXT = 48 }; /* bytes of a token with its NUL */

/* A rater's session with a trial for every pair. `token` (AU_RATER_TOKEN_TEXT bytes) is not stored,
 * only its hash. `c`: as read in this transaction. AU_CONFLICT: closed, a view, no pair is ready,
 * or some are still generating (err says which). */
AU_MUST_CHECK au_status au_rater_session_create(au_db *db, const au_comparison *c,
                                                const char *rater, char *token, au_err *err);

typedef struct au_rater_session {
    const char *id, *comparison_id, *rater;
    int number;
    size_t n_trials, n_votes;
    int64_t created_at;
} au_rater_session;
/* AU_NOT_FOUND: no such token. */
AU_MUST_CHECK au_status au_rater_session_get(au_db *db, au_arena *a, const char *token,
                                             au_rater_session **out, au_err *err);

typedef struct au_trial {
    const char *id, *sample_x, *sample_y;
    int n; /* from 1 */
    bool reference_is_x, voted;
    double x_gain_db, y_gain_db;
} au_trial;
/* The first one without a vote; *out NULL: none is left. */
AU_MUST_CHECK au_status au_trial_next(au_db *db, au_arena *a, const char *session_id,
                                      au_trial **out, au_err *err);
/* By its number from 1, or (n 0) by its id. AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_trial_get(au_db *db, au_arena *a, const char *session_id, int n,
                                     const char *id, au_trial **out, au_err *err);

typedef enum au_choice { AU_CHOICE_X, AU_CHOICE_Y, AU_CHOICE_TIE, AU_CHOICE_BOTH_BAD } au_choice;
bool au_choice_parse(const char *name, au_choice *out); /* "x" | "y" | "tie" | "both_bad" */

typedef struct au_vote {
    const char *choice;
    double heard_x_s, heard_y_s;
    int64_t created_at;
} au_vote;
/* AU_NOT_FOUND: the trial has none. */
AU_MUST_CHECK au_status au_vote_get(au_db *db, au_arena *a, const char *trial_id, au_vote **out,
                                    au_err *err);
/* AU_CONFLICT: the trial has its vote, or the comparison was closed or deleted. */
AU_MUST_CHECK au_status au_vote_add(au_db *db, const char *trial_id, au_choice choice,
                                    double heard_x_s, double heard_y_s, au_err *err);

#endif
