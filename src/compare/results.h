/* SPDX-License-Identifier: MIT */
/* What the votes of a comparison say. Records live in the caller's arena; threads as for the
 * connection. */
#ifndef AU_COMPARE_RESULTS_H
#define AU_COMPARE_RESULTS_H

#include "compare/comparison.h"

typedef struct au_arm_score {
    int64_t wins, losses, ties, both_bad;
} au_arm_score;

/* Votes of one prompt, of one rater, or all. Of an abx test only votes, correct and the sides. */
typedef struct au_tally {
    int64_t votes;
    au_arm_score arms[AU_ARMS_MAX];
    int64_t x_chosen, y_chosen; /* of the votes for a side */
    int64_t correct;            /* abx: the side that is the reference */
    double heard_s;             /* both sides together */
} au_tally;

typedef struct au_prompt_tally {
    const char *prompt_id, *text;
    au_tally tally;
} au_prompt_tally;

typedef struct au_rater_tally {
    const char *rater; /* "" without a name; sessions of one name count as one rater */
    int session;       /* number of its first session */
    au_tally tally;
} au_rater_tally;

typedef struct au_bt_score {
    double score;     /* see au_bradley_terry */
    double low, high; /* 95 % by bootstrap over raters; NaN where it is not defined */
} au_bt_score;

typedef struct au_results {
    au_tally all;
    au_prompt_tally *prompts;
    size_t n_prompts;
    au_rater_tally *raters;
    size_t n_raters;
    bool has_scores; /* three or more arms, and the model has a maximum */
    au_bt_score scores[AU_ARMS_MAX];
    int bootstrap_used; /* of AU_BOOTSTRAP_ROUNDS resamples, those whose model has a maximum */
} au_results;

enum { AU_BOOTSTRAP_ROUNDS = 1000 };

/* Bradley-Terry and its bootstrap are left out with `scores` false. */
AU_MUST_CHECK au_status au_results_get(au_db *db, au_arena *a, const au_comparison *c, bool scores,
                                       au_results *out, au_err *err);

#endif
