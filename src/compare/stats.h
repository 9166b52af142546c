/* SPDX-License-Identifier: MIT */
/* Statistics of listening tests: the exact binomial test, Wilson's interval and the Bradley-Terry
 * model. Pure functions; any thread. */
#ifndef AU_COMPARE_STATS_H
#define AU_COMPARE_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* p-values of k successes in n trials against a chance of one half: the exact binomial (sign) test.
 * Two-sided as R's binom.test; `greater` is P(X >= k). NaN for n = 0 or k outside 0 ... n. */
double au_binomial_two_sided(int64_t k, int64_t n);
double au_binomial_greater(int64_t k, int64_t n);

/* Wilson's 95 % score interval of a share without continuity correction (Wilson, JASA 22, 1927).
 * NaN for n = 0. */
void au_wilson95(int64_t k, int64_t n, double *low, double *high);

enum { AU_ARMS_MAX = 16 };

/* wins[i][j]: how often i was preferred to j; a tie counts one half for both. The diagonal is not
 * read. */
typedef struct au_wins {
    size_t n; /* arms, 2 ... AU_ARMS_MAX */
    double wins[AU_ARMS_MAX][AU_ARMS_MAX];
} au_wins;

/* Maximum likelihood of the Bradley-Terry model (Biometrika 39, 1952): score[i] is the logarithm of
 * i's worth, with mean 0, so that i is preferred to j with probability 1 / (1 + exp(score[j] -
 * score[i])). False where the maximum does not exist, and then score is not set: from some arm no
 * chain of wins leads to some other one (Ford, American Mathematical Monthly 64, 1957). */
bool au_bradley_terry(const au_wins *w, double score[]);

#endif
