/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/kernels.h"
#include "sample/delay.h"
#include "sample/sampler.h"

static size_t pick(const au_sampler *s, uint64_t seed, uint32_t step, const float *logits, size_t V)
{
    float copy[64], scratch[64];
    const au_draw draw = {seed, AU_STREAM_TOKENS, step, 0};
    assert_true(V <= 64);
    memcpy(copy, logits, V * sizeof *copy);
    return au_sample_token(au_kernels_get(), s, &draw, copy, V, scratch);
}

static void test_greedy_takes_the_smallest_id_of_the_largest(void **state)
{
    (void)state;
    const au_sampler s = {.greedy = true, .temperature = 1};
    const float logits[] = {0, 3, -1, 3, 2};
    assert_int_equal(pick(&s, 1, 1, logits, 5), 1);
}

static void test_draws_depend_on_seed_and_place_alone(void **state)
{
    (void)state;
    const au_draw a = {7, 0, 3, 1}, b = {7, 0, 3, 2}, c = {8, 0, 3, 1}, d = {7, 0, 4, 1};
    assert_true(au_draw_uniform(&a) == au_draw_uniform(&a));
    assert_true(au_draw_uniform(&a) != au_draw_uniform(&b));
    assert_true(au_draw_uniform(&a) != au_draw_uniform(&c));
    assert_true(au_draw_uniform(&a) != au_draw_uniform(&d));
    const au_draw wide = {((uint64_t)1 << 53) - 1, 0, 3, 1}, low = {0xffffffffu, 0, 3, 1};
    assert_true(au_draw_uniform(&wide) !=
                au_draw_uniform(&low)); /* the upper bits of a seed count */
    double sum = 0;
    for (uint32_t i = 0; i < 4096; i++) {
        const au_draw at = {1, 0, i, 0};
        double u = au_draw_uniform(&at);
        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    assert_true(fabs(sum / 4096 - 0.5) < 0.02);
}

/* Share of each token over many draws. */
static void shares(const au_sampler *s, const float *logits, size_t V, double *share)
{
    enum { DRAWS = 20000 };
    memset(share, 0, V * sizeof *share);
    for (uint32_t i = 0; i < DRAWS; i++)
        share[pick(s, 42, i, logits, V)] += 1.0 / DRAWS;
}

static void test_shares_follow_the_softmax(void **state)
{
    (void)state;
    const float logits[] = {0.5f, -1.0f, 2.0f, 0.0f, 1.0f};
    const double temperatures[] = {1.0, 0.5, 2.0};
    for (int t = 0; t < 3; t++) {
        const au_sampler s = {.temperature = (float)temperatures[t]};
        double share[5], total = 0;
        shares(&s, logits, 5, share);
        for (int i = 0; i < 5; i++)
            total += exp(logits[i] / temperatures[t]);
        for (int i = 0; i < 5; i++)
            assert_true(fabs(share[i] - exp(logits[i] / temperatures[t]) / total) < 0.015);
    }
}

static void test_top_k_keeps_ties_at_the_threshold(void **state)
{
    (void)state;
    const float logits[] = {1, 2, 0, 1, -3, 1};
    const au_sampler s = {.temperature = 1, .top_k = 2};
    double share[6];
    shares(&s, logits, 6, share);
    assert_true(share[0] > 0.1 && share[1] > 0.3 && share[3] > 0.1 && share[5] > 0.1);
    assert_true(share[2] == 0 && share[4] == 0);
    const au_sampler one = {.temperature = 1, .top_k = 1};
    assert_int_equal(pick(&one, 3, 3, logits, 6), 1);
}

static void test_top_k_agrees_with_a_sort(void **state)
{
    (void)state;
    enum { V = 61 };
    for (uint32_t trial = 0; trial < 300; trial++) {
        float logits[V];
        for (uint32_t i = 0; i < V; i++) {
            const au_draw at = {trial, 9, i, 0};
            logits[i] = (float)floor(au_draw_uniform(&at) * (trial % 3 ? 1000 : 7)) / 10;
        }
        size_t k = 1 + trial % V, above = 0;
        const au_sampler s = {.temperature = 1, .top_k = k};
        size_t token = pick(&s, trial, 1, logits, V);
        for (size_t i = 0; i < V; i++)
            above += logits[i] > logits[token];
        assert_true(above < k);
    }
}

static void test_top_p_keeps_the_most_probable(void **state)
{
    (void)state;
    const float logits[] = {logf(0.5f), logf(0.3f), logf(0.15f), logf(0.05f)};
    const au_sampler s = {.temperature = 1, .top_p = 0.75};
    double share[4];
    shares(&s, logits, 4, share);
    assert_true(share[2] == 0 && share[3] == 0);
    assert_true(fabs(share[0] - 0.625) < 0.015);
    const au_sampler tiny = {.temperature = 1, .top_p = 1e-6};
    assert_int_equal(pick(&tiny, 1, 1, logits, 4), 0);
}

static void test_delay_pattern(void **state)
{
    (void)state;
    /* K = 4 of one channel, F = 4: columns 1 ... 7, x is a frame. */
    static const char *const mono[] = {"xxxx...", ".xxxx..", "..xxxx.", "...xxxx"};
    const au_delay d = {4, 1, 4};
    assert_int_equal(au_delay_steps(&d), 7);
    for (size_t k = 0; k < 4; k++)
        for (size_t c = 1; c <= 7; c++) {
            size_t frame = 99;
            bool is = au_delay_frame(&d, k, c, &frame);
            assert_int_equal(is, mono[k][c - 1] == 'x');
            if (is)
                assert_int_equal(frame, c - 1 - k);
        }
    const au_delay stereo = {8, 2, 10};
    assert_int_equal(au_delay_steps(&stereo), 13);
    static const size_t delays[] = {0, 0, 1, 1, 2, 2, 3, 3};
    for (size_t k = 0; k < 8; k++)
        assert_int_equal(au_delay_of(&stereo, k), delays[k]);
}

static void test_guidance(void **state)
{
    (void)state;
    const float c[] = {1, 2}, u[] = {0.5f, 3};
    float y[2];
    au_sample_guide(y, c, u, 3, 2);
    assert_true(y[0] == 2.0f && y[1] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_takes_the_smallest_id_of_the_largest),
        cmocka_unit_test(test_draws_depend_on_seed_and_place_alone),
        cmocka_unit_test(test_shares_follow_the_softmax),
        cmocka_unit_test(test_top_k_keeps_ties_at_the_threshold),
        cmocka_unit_test(test_top_k_agrees_with_a_sort),
        cmocka_unit_test(test_top_p_keeps_the_most_probable),
        cmocka_unit_test(test_delay_pattern),
        cmocka_unit_test(test_guidance),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
