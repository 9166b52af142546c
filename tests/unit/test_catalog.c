/* SPDX-License-Identifier: MIT */
/* Records beside jobs: prompts, models and samples; pages and their cursors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>

#include "jobs_fixture.h"

#define W1 "01970000-0000-7000-8000-000000000001"

static void test_prompts(void **state)
{
    fixture *f = *state;
    char a[AU_UUID_TEXT], b[AU_UUID_TEXT], c[AU_UUID_TEXT];
    bool made, more;
    au_change change;
    au_prompt *p, **page;
    size_t n;
    TX(au_prompt_create(f->db, "text", NULL, NULL, NULL, a, &f->err));
    TX(au_prompt_create(f->db, "text", "no", "{\"mood\":\"dark\"}", "A title", b, &f->err));
    OK(au_prompt_get(f->db, &f->arena, b, &p, &f->err));
    assert_string_equal(p->negative_text, "no");
    assert_string_equal(p->attributes, "{\"mood\":\"dark\"}");
    assert_string_equal(p->title, "A title");
    assert_true(p->created_at > 0 && p->deleted_at == 0);
    OK(au_prompt_get(f->db, &f->arena, a, &p, &f->err));
    assert_null(p->negative_text);
    assert_string_equal(p->attributes, "{}");
    TX(au_prompt_find_or_create(f->db, "text", NULL, c, &made, &f->err));
    assert_false(made);
    assert_string_equal(c, a);
    /* The two texts are not run together. */
    TX(au_prompt_find_or_create(f->db, "", "text", c, &made, &f->err));
    assert_true(made);
    OK(au_prompt_list(f->db, &f->arena, &(au_prompt_filter){.limit = 2}, &page, &n, &more,
                      &f->err));
    assert_int_equal(n, 2);
    assert_true(more);
    assert_string_equal(page[0]->id, c);
    au_prompt_filter filter = {.limit = 2};
    const au_place place = au_prompt_place(&filter, page[1]);
    filter.after = &place;
    OK(au_prompt_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
    assert_int_equal(n, 1);
    assert_false(more);
    assert_string_equal(page[0]->id, a);
    TX(au_prompt_delete(f->db, a, NULL, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_DONE);
    TX(au_prompt_delete(f->db, a, NULL, &change, &f->err));
    assert_int_equal(change, AU_CHANGE_GONE);
    OK(au_prompt_get(f->db, &f->arena, a, &p, &f->err));
    assert_true(p->deleted_at > 0);
    TX(au_prompt_find_or_create(f->db, "text", NULL, c, &made, &f->err));
    assert_true(made); /* a deleted one is not found */
    assert_int_equal(au_prompt_get(f->db, &f->arena, W1, &p, &f->err), AU_NOT_FOUND);
    au_job_new job = plain_job();
    au_submit_result r;
    job.prompt_id = a;
    OK(au_db_begin(f->db, AU_DB_DURABLE, &f->err));
    assert_int_equal(au_job_submit(f->db, &job, &f->limits, &r, &f->err), AU_NOT_FOUND);
    au_db_rollback(f->db);
}

static void test_models(void **state)
{
    fixture *f = *state;
    au_model_row *m, **page;
    size_t n;
    au_model_row row = {.name = "a",
                        .family = "musicgen",
                        .fingerprint = "f1",
                        .dir = "/m/a",
                        .info = "{}",
                        .active = true};
    TX(au_model_row_put(f->db, &row, &f->err));
    row = (au_model_row){.name = "b",
                         .family = "musicgen",
                         .fingerprint = "f2",
                         .dir = "/m/b",
                         .info = "{}",
                         .active = true,
                         .is_default = true};
    TX(au_model_row_put(f->db, &row, &f->err));
    OK(au_model_row_get(f->db, &f->arena, NULL, &m, &f->err));
    assert_string_equal(m->name, "b");
    OK(au_model_row_list(f->db, &f->arena, &page, &n, &f->err));
    assert_int_equal(n, 2);
    assert_string_equal(page[0]->name, "b");
    assert_true(page[0]->is_default);
    row.active = false;
    TX(au_model_row_put(f->db, &row, &f->err));
    assert_int_equal(au_model_row_get(f->db, &f->arena, "b", &m, &f->err), AU_NOT_FOUND);
}

static void test_samples(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    au_lease lease;
    job.num_samples = 3;
    submit(f, &job, id);
    assert_true(claim_as(f, W1, &lease));
    for (int i = 0; i < 3; i++)
        assert_true(make_sample(f, &lease, 0, i));
    au_sample **page, *s;
    size_t n;
    bool more;
    OK(au_sample_list(f->db, &f->arena, &(au_sample_filter){.job_id = id, .limit = 2}, &page, &n,
                      &more, &f->err));
    assert_int_equal(n, 2);
    assert_true(more);
    assert_int_equal(page[0]->index, 2);
    assert_true(page[0]->loudness_lufs == -23);
    assert_null(page[0]->adapter_id);
    au_sample_filter filter = {.model_name = "m"};
    const au_place place = au_sample_place(&filter, page[1]);
    filter.after = &place;
    OK(au_sample_list(f->db, &f->arena, &filter, &page, &n, &more, &f->err));
    assert_int_equal(n, 1);
    OK(au_sample_list(f->db, &f->arena, &(au_sample_filter){.adapter_id = W1}, &page, &n, &more,
                      &f->err));
    assert_int_equal(n, 0);
    assert_int_equal(au_sample_get(f->db, &f->arena, W1, &s, &f->err), AU_NOT_FOUND);
}

/* Values that cannot be measured are stored as unknown; a request's memory is a limit. */
static void test_unknown_values_and_limits(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    au_job_new job = plain_job();
    submit(f, &job, id);
    au_lease lease;
    bool held, completed;
    assert_true(claim_as(f, W1, &lease));
    TX(au_upload_begin(f->db, &lease, "samples/aa/x.wav", &held, &f->err));
    au_sample_new s = {.id = W1,
                       .store_key = "samples/aa/x.wav",
                       .format = "wav",
                       .sha256 = "",
                       .pcm_sha256 = "",
                       .recipe = "{}",
                       .loudness_lufs = -HUGE_VAL,
                       .true_peak_dbtp = -HUGE_VAL,
                       .peak = 0};
    TX(au_job_commit_sample(f->db, &lease, &s, &held, &completed, &f->err));
    assert_true(held && completed);
    au_sample *row;
    OK(au_sample_get(f->db, &f->arena, W1, &row, &f->err));
    assert_true(isnan(row->loudness_lufs) && isnan(row->true_peak_dbtp) && row->peak == 0);
    au_arena small;
    au_job *j;
    au_arena_init(&small, 300);
    assert_int_equal(au_job_get(f->db, &small, id, &j, &f->err), AU_LIMIT);
    assert_false(au_db_in_transaction(f->db));
    au_arena_deinit(&small);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(test_prompts), T(test_models), T(test_samples),
                                       T(test_unknown_values_and_limits)};
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
