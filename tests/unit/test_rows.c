/* SPDX-License-Identifier: MIT */
/* Sessions whose rows come and go: whatever stands beside a row, whenever it joined and whoever
 * left meanwhile, its bytes are those of a run on its own. On tiny random checkpoints. */
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
#include "base/philox.h"

enum { KINDS = 24, JOINS = 300, MAX_ADAPTERS = 10 };

static const char *source;
static au_err err;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != AU_OK)                                                                       \
            fail_msg("%s: %s", #call, err.message);                                                \
    } while (0)

/* Numbers that are the same in every run. */
static uint32_t drawn;
static uint32_t draw(uint32_t below)
{
    uint32_t out[4];
    au_philox4x32(out, (const uint32_t[4]){drawn++}, (const uint32_t[2]){20});
    return out[0] % below;
}

typedef struct clip {
    float *audio;
    size_t n;
} clip;

/* A row that was added. */
typedef struct ticket {
    int kind;          /* of the rows */
    uint32_t patience; /* questions until it is cancelled; UINT32_MAX: never */
    uint32_t asked;
    double fraction;
    uint64_t step;
    bool left, done;
} ticket;

typedef struct world {
    au_model *model;
    au_adapter *adapters[MAX_ADAPTERS];
    int n_adapters;
    au_params params[4];
    au_row rows[KINDS];
    clip solo[KINDS];
    int finished, left;
} world;

static au_status keep_solo(void *user, size_t row, const au_audio *audio, au_err *e)
{
    clip *c = user;
    (void)row;
    (void)e;
    c->n = (size_t)audio->n_frames * (size_t)audio->channels;
    c->audio = malloc(c->n * sizeof *c->audio);
    memcpy(c->audio, audio->frames, c->n * sizeof *c->audio);
    return AU_OK;
}

static void open_world(world *w, const char *checkpoint, const char *const *adapters, int threads)
{
    char path[700];
    const au_model_options options = {.size = sizeof options, .threads = threads};
    memset(w, 0, sizeof *w);
    snprintf(path, sizeof path, "%s/tests/fixtures/checkpoints/%s", source, checkpoint);
    OK(au_model_open(path, &options, &w->model, &err));
    for (; adapters[w->n_adapters]; w->n_adapters++) {
        snprintf(path, sizeof path, "%s/tests/fixtures/adapters/%s/%s", source, checkpoint,
                 adapters[w->n_adapters]);
        OK(au_adapter_open(w->model, path, &w->adapters[w->n_adapters], &err));
    }
    for (int i = 0; i < 4; i++) {
        au_params_init(&w->params[i], sizeof w->params[i]);
        w->params[i].duration_s = 0.1 + 0.13 * i;
    }
    w->params[1].guidance = 1;
    w->params[2].top_p = 0.8;
    w->params[3].temperature = 0.7;
    static const char *const prompts[] = {"a slow waltz", "", "loud guitars and a choir"};
    for (int i = 0; i < KINDS; i++) {
        au_row *row = &w->rows[i];
        *row = (au_row){.size = sizeof *row,
                        .prompt = prompts[i % 3],
                        .negative = i % 5 == 0 && i % 4 != 1 ? "drums" : NULL,
                        .strength = 0.1 * (i % 13) + 0.2,
                        .seed = (uint64_t)i / 2,
                        .params = &w->params[i % 4]};
        if (w->n_adapters && i % 3)
            row->adapter = w->adapters[i % w->n_adapters];
        const au_request q = {.size = sizeof q,
                              .model = w->model,
                              .rows = row,
                              .n_rows = 1,
                              .user = &w->solo[i],
                              .on_audio = keep_solo};
        OK(au_generate(&q, &err));
    }
}

static void close_world(world *w)
{
    for (int i = 0; i < w->n_adapters; i++)
        au_adapter_unref(&w->adapters[i]);
    for (int i = 0; i < KINDS; i++)
        free(w->solo[i].audio);
    au_model_unref(&w->model);
}

static bool on_cancelled(void *user, void *tag)
{
    ticket *t = tag;
    (void)user;
    assert_false(t->left || t->done);
    return t->asked++ >= t->patience;
}

static void on_left(void *user, void *tag)
{
    ticket *t = tag;
    assert_true(t->asked > t->patience);
    assert_false(t->left || t->done);
    t->left = true;
    ((world *)user)->left++;
}

static void on_progress(void *user, void *tag, const au_row_progress *p)
{
    ticket *t = tag;
    (void)user;
    assert_true(p->fraction >= t->fraction && p->fraction <= 1);
    assert_true(p->step >= t->step && p->step <= p->steps);
    t->fraction = p->fraction;
    t->step = p->step;
}

static au_status on_audio(void *user, void *tag, const au_audio *audio, au_err *e)
{
    world *w = user;
    ticket *t = tag;
    const clip *solo = &w->solo[t->kind];
    (void)e;
    assert_false(t->left || t->done);
    assert_true(t->fraction == 1);
    assert_int_equal(audio->n_frames * (uint64_t)audio->channels, solo->n);
    assert_memory_equal(audio->frames, solo->audio, solo->n * sizeof(float));
    t->done = true;
    w->finished++;
    return AU_OK;
}

static au_session *open_session(world *w, uint64_t memory)
{
    const au_session_options o = {.size = sizeof o,
                                  .model = w->model,
                                  .memory_bytes = memory,
                                  .user = w,
                                  .cancelled = on_cancelled,
                                  .on_left = on_left,
                                  .on_progress = on_progress,
                                  .on_audio = on_audio};
    au_session *s;
    OK(au_session_open(&o, &s, &err));
    return s;
}

/* Rows join at random moments, up to so many, and a third of them is cancelled at some unit. */
static void mix(const char *checkpoint, const char *const *adapters, int threads, size_t most)
{
    world w;
    static ticket tickets[JOINS];
    int joined = 0, impatient = 0;
    memset(tickets, 0, sizeof tickets);
    open_world(&w, checkpoint, adapters, threads);
    au_session *s = open_session(&w, 0);
    while (joined < JOINS || au_session_rows(s) > 0) {
        for (uint32_t n = draw(3); n > 0 && joined < JOINS && au_session_rows(s) < most; n--) {
            ticket *t = &tickets[joined++];
            t->kind = (int)draw(KINDS);
            t->patience = draw(3) ? UINT32_MAX : draw(40);
            impatient += t->patience != UINT32_MAX;
            OK(au_session_fits(s, &w.rows[t->kind], &err));
            OK(au_session_add(s, &w.rows[t->kind], t, &err));
        }
        OK(au_session_step(s, &err));
    }
    assert_int_equal(w.finished + w.left, JOINS);
    assert_true(w.left > JOINS / 10 && w.left <= impatient);
    for (int i = 0; i < JOINS; i++)
        assert_true(tickets[i].done != tickets[i].left);
    au_session_close(&s);
    close_world(&w);
}

static const char *const mono[] = {
    "plain", "dora", "regex-bias", "rslora-patterns", "modules-to-save", "text-encoder", NULL};
static const char *const stereo[] = {"dreambooth", NULL}, *const none[] = {NULL};

static void test_mixed_rows_equal_solo_runs(void **state)
{
    (void)state;
    mix("mono-f32", mono, 1, 4);
    mix("mono-f32", mono, 3, 17);
    mix("stereo-f16-sharded", stereo, 2, 6);
}

/* A row is found cancelled at the next unit, whatever the others are at: texts, steps, audio. */
static void test_a_cancelled_row_is_gone_within_a_unit(void **state)
{
    (void)state;
    world w;
    open_world(&w, "mono-f32", mono, 1);
    for (uint32_t patience = 0;; patience++) {
        ticket other = {.kind = 3, .patience = UINT32_MAX}, t = {.kind = 7, .patience = patience};
        au_session *s = open_session(&w, 0);
        OK(au_session_add(s, &w.rows[3], &other, &err));
        for (int i = 0; i < 20; i++)
            OK(au_session_step(s, &err));
        OK(au_session_add(s, &w.rows[7], &t, &err));
        while (au_session_rows(s) == 2)
            OK(au_session_step(s, &err));
        if (t.left) {
            assert_int_equal(t.asked, patience + 1);
            while (au_session_rows(s))
                OK(au_session_step(s, &err));
            assert_true(other.done);
        }
        au_session_close(&s);
        if (other.done && !t.left)
            break; /* the first was finished while the second was at work */
        assert_true(t.left);
    }
    close_world(&w);
}

static au_status add(au_session *s, const au_row *row, ticket *t)
{
    *t = (ticket){.patience = UINT32_MAX};
    return au_session_add(s, row, t, &err);
}

static void test_memory_is_kept_to(void **state)
{
    (void)state;
    world w;
    ticket t[4];
    uint64_t one, three;
    open_world(&w, "mono-f32", none, 1);
    const au_row same[3] = {w.rows[3], w.rows[3], w.rows[3]};
    au_request q = {.size = sizeof q, .model = w.model, .rows = same, .n_rows = 3};
    OK(au_request_memory(&q, &three, &err));
    q.n_rows = 1;
    OK(au_request_memory(&q, &one, &err));
    assert_true(three > one && three < 3 * one);
    /* Exactly enough for three, and a byte less. */
    for (int less = 0; less < 2; less++) {
        au_session *s = open_session(&w, three - (uint64_t)less);
        w.finished = 0;
        assert_int_equal(add(s, &same[0], &t[0]), AU_OK);
        assert_int_equal(add(s, &same[0], &t[1]), AU_OK);
        assert_int_equal(add(s, &same[0], &t[2]), less ? AU_AGAIN : AU_OK);
        assert_int_equal(add(s, &same[0], &t[3]), AU_AGAIN);
        assert_int_equal(au_session_fits(s, &same[0], &err), AU_AGAIN);
        for (int i = 0; i < 4; i++)
            t[i].kind = 3;
        while (w.finished == 0)
            OK(au_session_step(s, &err));
        assert_int_equal(add(s, &same[0], &t[3]), AU_OK);
        t[3].kind = 3;
        while (au_session_rows(s))
            OK(au_session_step(s, &err));
        assert_int_equal(w.finished, 4 - less);
        au_session_close(&s);
    }
    /* An only row may be over the limit, up to four times. */
    au_session *s = open_session(&w, (one + 3) / 4 + 4096); /* fits counts a text that may be */
    assert_int_equal(au_session_fits(s, &same[0], &err), AU_OK);
    assert_int_equal(add(s, &same[0], &t[0]), AU_OK);
    assert_int_equal(add(s, &same[0], &t[1]), AU_AGAIN);
    au_session_close(&s);
    s = open_session(&w, one / 4 - 1);
    assert_int_equal(au_session_fits(s, &same[0], &err), AU_LIMIT);
    assert_int_equal(add(s, &same[0], &t[0]), AU_LIMIT);
    assert_non_null(strstr(err.message, "session memory"));
    assert_int_equal(au_session_rows(s), 0);
    OK(au_session_step(s, &err)); /* nothing to do */
    au_session_close(&s);
    close_world(&w);
}

static au_status refuse(void *user, void *tag, const au_audio *audio, au_err *e)
{
    (void)user;
    (void)tag;
    (void)audio;
    (void)e;
    return AU_NOSPACE;
}

static void test_what_is_refused(void **state)
{
    (void)state;
    world w;
    ticket t;
    au_session *second;
    open_world(&w, "mono-f32", none, 1);
    au_session_options o = {.size = sizeof o, .model = w.model, .user = &w, .on_audio = refuse};
    au_session *s = open_session(&w, 0);
    assert_int_equal(au_session_open(&o, &second, &err), AU_CONFLICT);
    assert_null(second);
    au_row row = w.rows[3];
    row.seed = (uint64_t)1 << 53;
    assert_int_equal(add(s, &row, &t), AU_INVALID);
    row = w.rows[3];
    row.prompt = "\xff";
    assert_int_equal(add(s, &row, &t), AU_INVALID);
    assert_int_equal(au_session_fits(s, &row, &err), AU_INVALID);
    au_session_close(&s);
    assert_null(s);
    au_session_close(&s);
    o.size--;
    assert_int_equal(au_session_open(&o, &s, &err), AU_INVALID);
    o.size++;
    o.on_audio = NULL;
    assert_int_equal(au_session_open(&o, &s, &err), AU_INVALID);
    o.on_audio = refuse;
    o.max_duration_s = -1;
    assert_int_equal(au_session_open(&o, &s, &err), AU_INVALID);
    /* The caller's failure is passed on, the row is gone, the others stay. */
    o.max_duration_s = 0;
    OK(au_session_open(&o, &s, &err));
    assert_int_equal(add(s, &w.rows[0], &t), AU_OK);
    assert_int_equal(add(s, &w.rows[3], &t), AU_OK);
    au_status st = AU_OK;
    while (st == AU_OK)
        st = au_session_step(s, &err);
    assert_int_equal(st, AU_NOSPACE);
    assert_int_equal(au_session_rows(s), 1);
    au_session_close(&s); /* with a row in it */
    close_world(&w);
}

int main(void)
{
    source = getenv("AULOS_SOURCE");
    if (!source) {
        fprintf(stderr, "AULOS_SOURCE must name the source folder\n");
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed_rows_equal_solo_runs),
        cmocka_unit_test(test_a_cancelled_row_is_gone_within_a_unit),
        cmocka_unit_test(test_memory_is_kept_to),
        cmocka_unit_test(test_what_is_refused),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
