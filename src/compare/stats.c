/* SPDX-License-Identifier: MIT */
/* The likelihood of Bradley-Terry is concave in the scores, so Newton's method with a halved step
 * where it overshoots finds its maximum in a few rounds. No state. */
#include "compare/stats.h"

#include <math.h>
#include <string.h>

enum { NEWTON_ROUNDS = 200, HALVINGS = 60 };
static const double Z95 = 1.959963984540054; /* 97.5 % quantile of the normal distribution */
static const double CONVERGED = 1e-13;       /* change of a score */

/* P(X <= m) for n fair trials, 0 <= m < n: the largest term by its logarithm, the others by their
 * ratios to it. */
static double lower_tail(int64_t m, int64_t n)
{
    double term = 1, sum = 1;
    for (int64_t i = m; i > 0 && term > 0x1p-60 * sum; i--) {
        term *= (double)i / (double)(n - i + 1);
        sum += term;
    }
    int sign;
    double log_top = lgamma_r((double)n + 1, &sign) - lgamma_r((double)m + 1, &sign) -
                     lgamma_r((double)(n - m) + 1, &sign);
    return sum * exp(log_top - (double)n * M_LN2);
}

double au_binomial_two_sided(int64_t k, int64_t n)
{
    if (n <= 0 || k < 0 || k > n)
        return NAN;
    int64_t less = k < n - k ? k : n - k;
    if (2 * less == n)
        return 1;
    double p = 2 * lower_tail(less, n);
    return p < 1 ? p : 1;
}

double au_binomial_greater(int64_t k, int64_t n)
{
    if (n <= 0 || k < 0 || k > n)
        return NAN;
    if (k == 0)
        return 1;
    /* P(X >= k) = P(X <= n - k); the smaller tail is summed, so that digits stay. */
    return 2 * k > n ? lower_tail(n - k, n) : 1 - lower_tail(k - 1, n);
}

void au_wilson95(int64_t k, int64_t n, double *low, double *high)
{
    if (n <= 0) {
        *low = *high = NAN;
        return;
    }
    double share = (double)k / (double)n, z2n = Z95 * Z95 / (double)n;
    double middle = (share + z2n / 2) / (1 + z2n);
    double half = Z95 / (1 + z2n) * sqrt(share * (1 - share) / (double)n + z2n / (4 * (double)n));
    *low = k == 0 ? 0 : middle - half;
    *high = k == n ? 1 : middle + half;
}

/* ---- Bradley-Terry ---- */

/* Whether chains of wins lead from every arm to every other one. */
static bool is_connected(const au_wins *w)
{
    bool reach[AU_ARMS_MAX][AU_ARMS_MAX] = {{false}};
    for (size_t i = 0; i < w->n; i++) {
        for (size_t j = 0; j < w->n; j++)
            reach[i][j] = i == j || w->wins[i][j] > 0;
    }
    for (size_t k = 0; k < w->n; k++) {
        for (size_t i = 0; i < w->n; i++) {
            for (size_t j = 0; j < w->n; j++)
                reach[i][j] |= reach[i][k] && reach[k][j];
        }
    }
    for (size_t i = 0; i < w->n; i++) {
        for (size_t j = 0; j < w->n; j++) {
            if (!reach[i][j])
                return false;
        }
    }
    return true;
}

static double log_likelihood(const au_wins *w, const double *score)
{
    double sum = 0;
    for (size_t i = 0; i < w->n; i++) {
        for (size_t j = 0; j < w->n; j++) {
            if (i != j && w->wins[i][j] > 0)
                sum -= w->wins[i][j] * log1p(exp(score[j] - score[i]));
        }
    }
    return sum;
}

typedef struct newton {
    size_t n;
    double gradient[AU_ARMS_MAX];
    double hessian[AU_ARMS_MAX][AU_ARMS_MAX]; /* of the negative likelihood */
} newton;

/* The scores are fixed up to a constant: adding 1/n to every element of the Hessian holds their sum
 * and makes it regular. */
static void derive(newton *d, const au_wins *w, const double *score)
{
    *d = (newton){.n = w->n};
    for (size_t i = 0; i < w->n; i++) {
        for (size_t j = 0; j < w->n; j++)
            d->hessian[i][j] = 1.0 / (double)w->n;
    }
    for (size_t i = 0; i < w->n; i++) {
        for (size_t j = i + 1; j < w->n; j++) {
            double games = w->wins[i][j] + w->wins[j][i];
            double p = 1 / (1 + exp(score[j] - score[i]));
            double g = w->wins[i][j] - games * p, h = games * p * (1 - p);
            d->gradient[i] += g;
            d->gradient[j] -= g;
            d->hessian[i][i] += h;
            d->hessian[j][j] += h;
            d->hessian[i][j] -= h;
            d->hessian[j][i] -= h;
        }
    }
}

/* gradient := hessian^-1 gradient, by Cholesky. False where the matrix is not positive in f64. */
static bool solve(newton *d)
{
    size_t n = d->n;
    double *x = d->gradient;
    for (size_t j = 0; j < n; j++) {
        for (size_t k = 0; k < j; k++)
            d->hessian[j][j] -= d->hessian[j][k] * d->hessian[j][k];
        if (!(d->hessian[j][j] > 0))
            return false;
        d->hessian[j][j] = sqrt(d->hessian[j][j]);
        for (size_t i = j + 1; i < n; i++) {
            for (size_t k = 0; k < j; k++)
                d->hessian[i][j] -= d->hessian[i][k] * d->hessian[j][k];
            d->hessian[i][j] /= d->hessian[j][j];
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++)
            x[i] -= d->hessian[i][k] * x[k];
        x[i] /= d->hessian[i][i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++)
            x[i] -= d->hessian[k][i] * x[k];
        x[i] /= d->hessian[i][i];
    }
    return true;
}

/* Goes along the step, half as far as long as that makes it worse. Returns how far it went at most.
 */
static double advance(const au_wins *w, double *score, const double *step)
{
    double now = log_likelihood(w, score), next[AU_ARMS_MAX], scale = 1;
    for (int halving = 0; halving < HALVINGS; halving++, scale /= 2) {
        double farthest = 0;
        for (size_t i = 0; i < w->n; i++) {
            next[i] = score[i] + scale * step[i];
            farthest = fmax(farthest, fabs(scale * step[i]));
        }
        if (log_likelihood(w, next) >= now || farthest < CONVERGED) {
            memcpy(score, next, w->n * sizeof *score);
            return farthest;
        }
    }
    return 0;
}

bool au_bradley_terry(const au_wins *w, double score[])
{
    double found[AU_ARMS_MAX] = {0}, mean = 0;
    newton d;
    if (w->n < 2 || w->n > AU_ARMS_MAX || !is_connected(w))
        return false;
    for (int round = 0; round < NEWTON_ROUNDS; round++) {
        derive(&d, w, found);
        if (!solve(&d) || advance(w, found, d.gradient) < CONVERGED)
            break;
    }
    for (size_t i = 0; i < w->n; i++)
        mean += found[i] / (double)w->n;
    for (size_t i = 0; i < w->n; i++)
        score[i] = found[i] - mean;
    return true;
}
