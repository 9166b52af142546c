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

#include "aulos/aulos.h"

/* au_generate as callers use it: checks, seeds, cancelling, progress, threads. On a tiny random
 * checkpoint. */

static char path_f32[600], path_stereo[600];

typedef struct caught {
    float *audio[16];
    size_t n[16];
    int order[16], rows;
    uint64_t step;         /* decoder steps of the request, from progress */
    uint64_t units;        /* questions asked about row 1 */
    uint64_t cancel_after; /* of them */
    double fraction;
    au_status answer;
} caught;

static au_status on_audio(void *user, size_t row, const au_audio *audio, au_err *err)
{
    caught *c = user;
    c->n[row] = (size_t)audio->n_frames * (size_t)audio->channels;
    free(c->audio[row]);
    c->audio[row] = malloc(c->n[row] * sizeof(float));
    memcpy(c->audio[row], audio->frames, c->n[row] * sizeof(float));
    c->order[c->rows++] = (int)row;
    if (c->answer != AU_OK && err)
        snprintf(err->message, sizeof err->message, "the caller's reason");
    return c->answer;
}

static void on_progress(void *user, const au_progress *p)
{
    caught *c = user;
    assert_true(p->fraction >= c->fraction && p->fraction <= 1);
    assert_true(p->step <= p->steps);
    c->fraction = p->fraction;
    c->step = p->step;
}

static void release(caught *c)
{
    for (int i = 0; i < 16; i++)
        free(c->audio[i]);
    memset(c, 0, sizeof *c);
}

static au_model *open_model(const char *dir, int threads)
{
    au_err err;
    au_model *m;
    const au_model_options options = {.size = sizeof options, .threads = threads};
    if (au_model_open(dir, &options, &m, &err) != AU_OK)
        fail_msg("%s", err.message);
    return m;
}

static au_params short_params(void)
{
    au_params p;
    au_params_init(&p, sizeof p);
    p.duration_s = 0.4;
    return p;
}

static au_request request_of(au_model *m, const au_row *rows, size_t n, caught *c)
{
    return (au_request){.size = sizeof(au_request),
                        .model = m,
                        .rows = rows,
                        .n_rows = n,
                        .user = c,
                        .on_audio = on_audio,
                        .on_progress = on_progress};
}

static void generate(const au_request *q)
{
    au_err err;
    if (au_generate(q, &err) != AU_OK)
        fail_msg("%s", err.message);
}

static void test_a_row_does_not_depend_on_neighbours_or_threads(void **state)
{
    (void)state;
    const char *const paths[] = {path_f32, path_stereo};
    for (int p = 0; p < 2; p++) {
        au_params a = short_params(), b = short_params(), longer = short_params();
        b.guidance = 1;
        longer.duration_s = 0.7;
        longer.top_p = 0.9;
        const au_row rows[] = {
            {.size = sizeof(au_row), .prompt = "a slow waltz", .seed = 5, .params = &a},
            {.size = sizeof(au_row), .prompt = "", .seed = 6, .params = &b},
            {.size = sizeof(au_row),
             .prompt = "loud guitars",
             .negative = "drums",
             .seed = 5,
             .params = &longer},
            {.size = sizeof(au_row),
             .prompt = "a slow waltz",
             .seed = 9007199254740991,
             .params = &a},
        };
        caught first = {0};
        for (int threads = 1; threads <= 3; threads++) {
            au_model *m = open_model(paths[p], threads);
            caught all = {0}, alone = {0};
            const au_request q = request_of(m, rows, 4, &all);
            generate(&q);
            assert_int_equal(all.rows, 4);
            for (size_t i = 0; i < 4; i++) {
                au_request solo = request_of(m, &rows[i], 1, &alone);
                alone.fraction = 0;
                alone.rows = 0;
                generate(&solo);
                assert_int_equal(alone.n[0], all.n[i]);
                assert_memory_equal(alone.audio[0], all.audio[i], all.n[i] * sizeof(float));
                if (threads > 1)
                    assert_memory_equal(first.audio[i], all.audio[i], all.n[i] * sizeof(float));
            }
            assert_true(memcmp(all.audio[0], all.audio[3], all.n[0] * sizeof(float)) !=
                        0); /* another seed */
            if (threads == 1)
                first = all;
            else
                release(&all);
            release(&alone);
            au_model_unref(&m);
        }
        release(&first);
    }
}

static bool cancel_row_1(void *user, size_t row)
{
    caught *c = user;
    return row == 1 && ++c->units > c->cancel_after;
}

static void test_a_cancelled_row_leaves_and_the_others_stay_what_they_are(void **state)
{
    (void)state;
    au_model *m = open_model(path_f32, 2);
    au_params p = short_params();
    au_row rows[3];
    for (uint64_t i = 0; i < 3; i++)
        rows[i] = (au_row){.size = sizeof(au_row), .prompt = "techno", .seed = i, .params = &p};
    caught whole = {.cancel_after = UINT64_MAX};
    au_request q = request_of(m, rows, 3, &whole);
    q.cancelled = cancel_row_1;
    generate(&q);
    assert_true(whole.units > 20);
    /* At every moment: in the text encoder, at each step, in the codec. */
    for (uint64_t after = 0; after <= whole.units; after++) {
        caught c = {.cancel_after = after};
        au_request cancelled = request_of(m, rows, 3, &c);
        cancelled.cancelled = cancel_row_1;
        generate(&cancelled);
        assert_int_equal(c.rows, after < whole.units ? 2 : 3);
        for (int i = 0; i < 3; i++)
            if (c.audio[i])
                assert_memory_equal(c.audio[i], whole.audio[i], whole.n[i] * sizeof(float));
        assert_int_equal(c.audio[1] == NULL, c.rows == 2);
        /* Once told, the engine does not ask about that row again. */
        assert_true(c.units <= after + 1);
        release(&c);
    }
    release(&whole);
    au_model_unref(&m);
}

static bool cancel_all(void *user, size_t row)
{
    (void)row;
    caught *c = user;
    return ++c->units > c->cancel_after;
}

static void test_all_cancelled_ends_within_a_step(void **state)
{
    (void)state;
    au_model *m = open_model(path_f32, 1);
    au_params p = short_params();
    const au_row row = {.size = sizeof row, .prompt = "techno", .seed = 1, .params = &p};
    caught c = {.cancel_after = 10};
    au_err err;
    au_request q = request_of(m, &row, 1, &c);
    q.cancelled = cancel_all;
    assert_int_equal(au_generate(&q, &err), AU_CANCELLED);
    assert_int_equal(c.rows, 0);
    assert_int_equal(c.step, 10 - 2); /* two questions belong to the text encoder's layers */
    assert_int_equal(c.units, 11);
    release(&c);
    au_model_unref(&m);
}

static void test_the_callers_failure_ends_the_request(void **state)
{
    (void)state;
    au_model *m = open_model(path_f32, 1);
    au_params p = short_params();
    const au_row row = {.size = sizeof row, .prompt = "techno", .seed = 1, .params = &p};
    caught c = {.answer = AU_NOSPACE};
    au_err err;
    const au_request q = request_of(m, &row, 1, &c);
    assert_int_equal(au_generate(&q, &err), AU_NOSPACE);
    assert_string_equal(err.message, "the caller's reason");
    c.answer = AU_OK;
    c.fraction = 0;
    generate(&q); /* the model is free again */
    release(&c);
    au_model_unref(&m);
}

static void refused(au_model *m, const au_row *row, const char *says)
{
    caught c = {0};
    au_err err;
    const au_request q = request_of(m, row, 1, &c);
    assert_int_equal(au_generate(&q, &err), AU_INVALID);
    if (!strstr(err.message, says))
        fail_msg("\"%s\" does not say \"%s\"", err.message, says);
    assert_int_equal(c.rows, 0);
}

static void test_what_is_wrong_is_said_before_work_begins(void **state)
{
    (void)state;
    au_model *m = open_model(path_f32, 1);
    const au_params good = short_params();
    au_params p = good;
    const au_row base = {.size = sizeof base, .prompt = "x", .params = &p};
    au_row row = base;
    row.prompt = "\xff\xfe";
    refused(m, &row, "UTF-8");
    row = base;
    row.seed = (uint64_t)1 << 53;
    refused(m, &row, "seed");
    row = base;
    row.strength = 2.5;
    refused(m, &row, "strength");
    row = base;
    row.prompt = NULL;
    refused(m, &row, "prompt");
    row = base;
#define WITH(field, value, says)                                                                   \
    p = good;                                                                                      \
    p.field = value;                                                                               \
    refused(m, &row, says)
    WITH(duration_s, 0, "duration");
    WITH(duration_s, -1, "duration");
    WITH(duration_s, 0.001, "frame");
    WITH(duration_s, 10000, "300 s");
    WITH(duration_s, NAN, "duration");
    WITH(guidance, 0.5, "guidance");
    WITH(guidance, NAN, "guidance");
    WITH(guidance, INFINITY, "guidance");
    WITH(temperature, 0, "temperature");
    WITH(temperature, NAN, "temperature");
    WITH(top_k, -1, "top_k");
    WITH(top_p, 1.5, "top_p");
    WITH(top_p, NAN, "top_p");
#undef WITH
    p = good;
    p.guidance = 1;
    row.negative = "noise";
    refused(m, &row, "negative");
    char *endless = malloc(400001);
    for (int i = 0; i < 200000; i++)
        memcpy(endless + 2 * i, "a ", 2);
    endless[400000] = 0;
    p = good;
    row = base;
    row.prompt = endless;
    refused(m, &row, "tokens");
    free(endless);
    au_model_unref(&m);
}

static void test_one_request_at_a_time(void **state)
{
    (void)state;
    au_model *m = open_model(path_f32, 1);
    au_err err;
    au_params p = short_params();
    const au_row row = {.size = sizeof row, .prompt = "x", .params = &p};
    caught c = {0};
    const au_request q = request_of(m, &row, 0, &c);
    assert_int_equal(au_generate(&q, &err), AU_INVALID); /* no rows */
    au_model *again = au_model_ref(m);
    au_model_unref(&m);
    assert_null(m);
    assert_int_equal(au_model_get_info(again)->codebooks, 4);
    au_model_unref(&again);
}

static void test_lengths_are_exact(void **state)
{
    (void)state;
    au_model *m = open_model(path_f32, 1);
    const au_model_info *info = au_model_get_info(m);
    const double seconds[] = {1 / 50.0, 0.029, 0.031, 0.5, 0.51};
    for (int i = 0; i < 5; i++) {
        au_params p = short_params();
        p.duration_s = seconds[i];
        const au_row row = {.size = sizeof row, .prompt = "x", .params = &p};
        caught c = {0};
        const au_request q = request_of(m, &row, 1, &c);
        generate(&q);
        assert_int_equal(c.n[0],
                         (size_t)llround(info->frame_rate * seconds[i]) * (size_t)info->hop);
        release(&c);
    }
    au_model_unref(&m);
}

int main(void)
{
    const char *source = getenv("AULOS_SOURCE");
    if (!source) {
        fprintf(stderr, "AULOS_SOURCE must name the source folder\n");
        return 1;
    }
    snprintf(path_f32, sizeof path_f32, "%s/tests/fixtures/checkpoints/mono-f32", source);
    snprintf(path_stereo, sizeof path_stereo, "%s/tests/fixtures/checkpoints/stereo-f16-sharded",
             source);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_does_not_depend_on_neighbours_or_threads),
        cmocka_unit_test(test_a_cancelled_row_leaves_and_the_others_stay_what_they_are),
        cmocka_unit_test(test_all_cancelled_ends_within_a_step),
        cmocka_unit_test(test_the_callers_failure_ends_the_request),
        cmocka_unit_test(test_what_is_wrong_is_said_before_work_begins),
        cmocka_unit_test(test_one_request_at_a_time),
        cmocka_unit_test(test_lengths_are_exact),
    };
    return cmocka_run_group_tests_name("generate", tests, NULL, NULL);
}
