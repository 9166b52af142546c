/* SPDX-License-Identifier: MIT */
/* The statistics of listening tests against exact values (rational arithmetic, 40 digits) and
 * published ones; the plan of trials and its balance; loudness matching. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "compare/design.h"
#include "compare/stats.h"

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-9 * fmax(1e-3, fabs(b)))

static void test_binomial(void **state)
{
    (void)state;
    /* P(X <= min(k, n - k)) doubled, and P(X >= k), as fractions of 2^n. */
    static const struct {
        int64_t k, n;
        double two_sided, greater;
    } cases[] = {
        {15, 20, 0.04138946533203125, 0.020694732666015625},
        {5, 20, 0.04138946533203125, 0.99409103393554688},
        {10, 20, 1.0, 0.58809852600097656},
        {0, 10, 0.001953125, 1.0},
        {10, 10, 0.001953125, 0.0009765625},
        {1, 1, 1.0, 0.5},
        {0, 1, 1.0, 1.0},
        {60, 100, 0.056887933640980792, 0.028443966820490396},
        {530, 1000, 0.062023195098363181, 0.03101159754918159},
        {5100, 10000, 0.046585527704947389, 0.023292763852473694},
        {3, 7, 1.0, 0.7734375},
        {9, 10, 0.021484375, 0.0107421875},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        NEAR(au_binomial_two_sided(cases[i].k, cases[i].n), cases[i].two_sided);
        NEAR(au_binomial_greater(cases[i].k, cases[i].n), cases[i].greater);
    }
    assert_true(isnan(au_binomial_two_sided(0, 0)) && isnan(au_binomial_greater(0, 0)));
    assert_true(isnan(au_binomial_two_sided(-1, 5)) && isnan(au_binomial_greater(6, 5)));
    /* Far out, where the terms underflow, and with many trials. */
    double p = au_binomial_two_sided(0, 1000000);
    assert_true(p >= 0 && p < 1e-300);
    for (int64_t n = 1; n < 60; n++) {
        for (int64_t k = 0; k <= n; k++) {
            p = au_binomial_two_sided(k, n);
            assert_true(p > 0 && p <= 1);
            assert_true(fabs(p - au_binomial_two_sided(n - k, n)) <= 0);
        }
    }
}

static void test_wilson(void **state)
{
    (void)state;
    static const struct {
        int64_t k, n;
        double low, high;
    } cases[] = {
        {15, 20, 0.53129912238125596, 0.88813829859233434},
        {0, 10, 0, 0.27753279986288925},
        {10, 10, 0.72246720013711075, 1},
        {1, 2, 0.094531205734230713, 0.90546879426576929},
        {530, 1000, 0.4990103090930167, 0.56076008539784999},
    };
    double low, high;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        au_wilson95(cases[i].k, cases[i].n, &low, &high);
        NEAR(low, cases[i].low);
        NEAR(high, cases[i].high);
    }
    au_wilson95(0, 0, &low, &high);
    assert_true(isnan(low) && isnan(high));
}

static void test_bradley_terry(void **state)
{
    (void)state;
    /* American League 1987 (Agresti, Categorical Data Analysis, 1990): Milwaukee, Detroit, Toronto,
     * New York, Boston, Cleveland, Baltimore. Published abilities relative to the last: 1.581,
     * 1.436, 1.294, 1.248, 1.108, 0.684, 0; here with 17 digits and mean 0. */
    static const au_wins league = {7,
                                   {{0, 7, 9, 7, 7, 9, 11},
                                    {6, 0, 7, 5, 11, 9, 9},
                                    {4, 6, 0, 7, 7, 8, 12},
                                    {6, 8, 6, 0, 6, 7, 10},
                                    {6, 2, 6, 7, 0, 7, 12},
                                    {4, 4, 5, 6, 6, 0, 6},
                                    {2, 4, 1, 3, 1, 7, 0}}};
    static const double expected[] = {
        0.53115334065213108,  0.38620589580317359,  0.24428258790254341, 0.19741530913212463,
        0.057495169369391858, -0.36634976685010142, -1.0502025360092631};
    static const au_wins ties = {3, {{0, 2.5, 1}, {1.5, 0, 3}, {0.5, 1, 0}}};
    static const double with_ties[] = {0.5252801481050794, 0.1839005199766672,
                                       -0.70918066808174661};
    double score[AU_ARMS_MAX];
    assert_true(au_bradley_terry(&league, score));
    for (size_t i = 0; i < 7; i++)
        NEAR(score[i], expected[i]);
    NEAR(score[0] - score[6], 1.5813558766613942);
    assert_true(au_bradley_terry(&ties, score));
    for (size_t i = 0; i < 3; i++)
        NEAR(score[i], with_ties[i]);
    /* Two arms have the log odds; nothing but ties has no difference; lopsided counts end, too. */
    au_wins two = {2, {{0, 9}, {3, 0}}};
    assert_true(au_bradley_terry(&two, score));
    NEAR(score[0] - score[1], log(3));
    au_wins even = {3, {{0, 2, 2}, {2, 0, 2}, {2, 2, 0}}};
    assert_true(au_bradley_terry(&even, score));
    assert_true(fabs(score[0]) < 1e-12 && fabs(score[1]) < 1e-12);
    au_wins steep = {2, {{0, 1e6}, {0.5, 0}}};
    assert_true(au_bradley_terry(&steep, score));
    NEAR(score[0] - score[1], log(2e6));
}

static void test_bradley_terry_without_maximum(void **state)
{
    (void)state;
    double score[AU_ARMS_MAX];
    au_wins always = {3, {{0, 3, 3}, {0, 0, 2}, {0, 2, 0}}}; /* nobody ever beat arm 0 */
    assert_false(au_bradley_terry(&always, score));
    au_wins apart = {4, {{0, 1, 0, 0}, {1, 0, 0, 0}, {0, 0, 0, 1}, {0, 0, 1, 0}}};
    assert_false(au_bradley_terry(&apart, score));
    au_wins none = {3, {{0}}};
    assert_false(au_bradley_terry(&none, score));
    au_wins one = {1, {{0}}};
    assert_false(au_bradley_terry(&one, score));
}

enum { PAIRS = 21 };

static void test_plan(void **state)
{
    (void)state;
    au_trial_plan plan[PAIRS], again[PAIRS], other[PAIRS];
    for (uint64_t session = 0; session < 40; session++) {
        bool seen[PAIRS] = {false};
        int x_is_a = 0, reference_is_x = 0;
        au_trial_plan_make(7, session, plan, PAIRS);
        au_trial_plan_make(7, session, again, PAIRS);
        for (size_t i = 0; i < PAIRS; i++) {
            assert_int_equal(plan[i].pair, again[i].pair);
            assert_int_equal(plan[i].x_is_a, again[i].x_is_a);
            assert_int_equal(plan[i].reference_is_x, again[i].reference_is_x);
            assert_true(plan[i].pair < PAIRS && !seen[plan[i].pair]);
            seen[plan[i].pair] = true;
            x_is_a += plan[i].x_is_a;
            reference_is_x += plan[i].reference_is_x;
        }
        assert_true(x_is_a == PAIRS / 2 || x_is_a == PAIRS / 2 + 1);
        assert_true(reference_is_x == PAIRS / 2 || reference_is_x == PAIRS / 2 + 1);
    }
    /* Two sessions that belong together: the same pairs with all sides exchanged. */
    au_trial_plan_make(7, 4, plan, PAIRS);
    au_trial_plan_make(7, 5, other, PAIRS);
    size_t moved = 0;
    for (size_t i = 0; i < PAIRS; i++) {
        for (size_t j = 0; j < PAIRS; j++) {
            if (plan[i].pair == other[j].pair) {
                assert_true(plan[i].x_is_a != other[j].x_is_a);
                moved += i != j;
            }
        }
    }
    assert_true(moved > PAIRS / 2);
    /* Over many sessions every pair comes first sometimes. */
    int first[PAIRS] = {0};
    for (uint64_t session = 0; session < 2000; session++) {
        au_trial_plan_make(11, session, plan, PAIRS);
        first[plan[0].pair]++;
    }
    for (size_t i = 0; i < PAIRS; i++)
        assert_true(first[i] > 2000 / PAIRS / 2 && first[i] < 2000 / PAIRS * 2);
    au_trial_plan_make(7, 0, plan, 1);
    au_trial_plan_make(7, 1, other, 1);
    assert_true(plan[0].x_is_a && !other[0].x_is_a);
    au_trial_plan_make(7, 0, plan, 0);
}

static void test_loudness(void **state)
{
    (void)state;
    double x, y;
    /* Both have room: -16 LUFS. */
    au_match_loudness(&(au_loudness){-20, -8}, &(au_loudness){-18, -6}, &x, &y);
    NEAR(x, 4.0);
    NEAR(y, 2.0);
    /* The second would reach +4 dBTP at -16 LUFS: both 5 dB less. */
    au_match_loudness(&(au_loudness){-20, -8}, &(au_loudness){-30, -10}, &x, &y);
    NEAR(x, -1.0);
    NEAR(y, 9.0);
    NEAR(-20 + x, -30 + y);
    au_match_loudness(&(au_loudness){NAN, NAN}, &(au_loudness){-30, -10}, &x, &y);
    assert_true(fabs(x) + fabs(y) <= 0);
    au_match_loudness(&(au_loudness){-HUGE_VAL, -HUGE_VAL}, &(au_loudness){-30, -10}, &x, &y);
    assert_true(fabs(x) + fabs(y) <= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_binomial),      cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_bradley_terry), cmocka_unit_test(test_bradley_terry_without_maximum),
        cmocka_unit_test(test_plan),          cmocka_unit_test(test_loudness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
