/* SPDX-License-Identifier: MIT */
/* Bodies of POST /v1/jobs against the model that ships: what is taken, and what is said about the
 * rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "api/job_body.h"
#include "api/job_params.h"
#include "base/fs.h"

static char dir[64];
static au_api api;
static au_serve_config config;
static au_db *reader;
static char prompt_id[AU_UUID_TEXT], deleted_id[AU_UUID_TEXT], adapter_id[AU_UUID_TEXT];

static au_status add_prompts(au_db *db, void *arg, au_err *err)
{
    (void)arg;
    au_change change;
    au_status st = au_prompt_create(db, "bells", "noise", NULL, NULL, prompt_id, err);
    if (st == AU_OK)
        st = au_prompt_create(db, "gone", NULL, NULL, NULL, deleted_id, err);
    return st == AU_OK ? au_prompt_delete(db, deleted_id, NULL, &change, err) : st;
}

static void check(au_status st, const au_err *err)
{
    if (st != AU_OK)
        fail_msg("%s", err->message);
}

static int setup(void **state)
{
    (void)state;
    au_err err;
    strcpy(dir, "/tmp/aulos-test-body-XXXXXX");
    assert_non_null(mkdtemp(dir));
    char db[128], objects[128], model[1024], adapters[1100];
    const char *source = getenv("AULOS_SOURCE");
    snprintf(db, sizeof db, "%s/aulos.db", dir);
    snprintf(objects, sizeof objects, "%s/objects", dir);
    snprintf(model, sizeof model, "%s/models/aulos-small", source ? source : ".");
    snprintf(adapters, sizeof adapters, "%s/adapters", model);
    const au_model_spec spec = {NULL, model};
    const char *const dirs[] = {adapters};
    const au_db_options options = {.read_only = true};
    au_serve_config_init(&config);
    config.data_dir = dir;
    api.config = &config;
    au_limits_init(&api.limits);
    check(au_db_migrate(db, &err), &err);
    check(au_store_open(&api.store, objects, &err), &err);
    check(au_writer_new(&api.writer, db, 0, &err), &err);
    check(au_registry_open(&api.registry, &spec, 1, api.writer, &err), &err);
    check(au_db_open(&reader, db, &options, &err), &err);
    check(au_registry_scan(api.registry, dirs, 1, reader, api.writer, api.store, &err), &err);
    check(au_writer_run(api.writer, add_prompts, NULL, &err), &err);
    au_arena arena;
    au_arena_init(&arena, 1 << 20);
    au_adapter_row *row;
    check(au_adapter_row_by_name(reader, &arena, "chiptune", &row, &err), &err);
    strcpy(adapter_id, row->id);
    au_arena_deinit(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    au_registry_close(&api.registry);
    au_writer_free(&api.writer);
    au_db_close(&reader);
    au_store_close(&api.store);
    return au_remove_tree(dir, NULL) != AU_OK;
}

typedef struct parsed {
    au_arena arena;
    json_t *body;
    au_check check;
    au_job_plan plan;
} parsed;

/* $P, $D and $A stand for the ids of a prompt, a deleted prompt, an adapter. */
static void parse(parsed *p, const char *text)
{
    char full[4096];
    size_t n = 0;
    for (const char *s = text; *s; s++) {
        const char *id = s[0] == '$' ? s[1] == 'P'   ? prompt_id
                                       : s[1] == 'D' ? deleted_id
                                                     : adapter_id
                                     : NULL;
        n += (size_t)snprintf(full + n, sizeof full - n, id ? "%s" : "%.1s", id ? id : s);
        s += id != NULL;
    }
    au_err err;
    memset(p, 0, sizeof *p);
    au_arena_init(&p->arena, 1 << 20);
    au_check_init(&p->check, &p->arena);
    p->body = json_loads(full, JSON_DECODE_ANY, NULL);
    assert_non_null(p->body);
    check(au_job_body_parse(&p->check, &api, reader, p->body, &p->plan, &err), &err);
}

static void drop(parsed *p)
{
    au_check_deinit(&p->check);
    json_decref(p->body);
    au_arena_deinit(&p->arena);
}

static void test_defaults(void **state)
{
    (void)state;
    parsed p;
    parse(&p, "{\"prompt\":\"a flute\"}");
    assert_true(au_check_ok(&p.check));
    const au_job_new *job = &p.plan.job;
    assert_string_equal(job->prompt_text, "a flute");
    assert_null(job->prompt_id);
    assert_string_equal(job->model_name, "aulos-small");
    assert_int_equal(job->num_samples, 1);
    assert_int_equal(job->n_variants, 1);
    assert_null(job->variants[0].adapter_id);
    assert_string_equal(job->seed_source, "random");
    assert_true(job->seed < UINT64_C(1) << 53);
    assert_string_equal(job->format, "wav");
    assert_string_equal(
        job->params,
        "{\"duration_s\":10.0,\"greedy\":false,\"guidance\":3.0,\"preset\":\"audiocraft\","
        "\"temperature\":1.0,\"top_k\":250,\"top_p\":0.0}");
    drop(&p);
}

static void test_everything_given(void **state)
{
    (void)state;
    parsed p;
    parse(&p, "{\"prompt_id\":\"$P\",\"model\":\"aulos-small\",\"variants\":[{\"adapter\":null},{"
              "\"adapter\":\"$A\"},"
              "{\"adapter\":{\"name\":\"chiptune\",\"strength\":-0.5}}],\"num_samples\":5,\"seed\":"
              "9007199254740991,"
              "\"duration_s\":2.5,\"params\":{\"preset\":\"hf\",\"guidance\":2,\"top_k\":7.0,"
              "\"greedy\":true},"
              "\"format\":\"wav\",\"label\":\"x\",\"priority\":-100,\"deadline_s\":1.5}");
    if (!au_check_ok(&p.check))
        fail_msg("%s", json_dumps(p.check.errors, 0));
    const au_job_new *job = &p.plan.job;
    assert_string_equal(job->prompt_id, prompt_id);
    assert_int_equal(job->n_variants, 3);
    assert_null(job->variants[0].adapter_id);
    assert_string_equal(job->variants[1].adapter_id, adapter_id);
    assert_true(job->variants[1].strength == 1);
    assert_string_equal(job->variants[2].adapter_id, adapter_id);
    assert_true(job->variants[2].strength == -0.5);
    assert_true(job->seed == 9007199254740991);
    assert_true(job->deadline_ms >= 1500);
    assert_non_null(strstr(job->params, "\"top_k\":7"));
    assert_non_null(strstr(job->params, "\"duration_s\":2.5"));
    drop(&p);
}

/* Each body has exactly the errors listed, as "pointer code" joined by blanks. */
static void test_what_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *body, *want;
    } rows[] = {
        {"[]", " wrong_type"},
        {"{}", "/prompt missing"},
        {"{\"prompt\":\"a\",\"prompt_id\":\"$P\"}", "/prompt conflict"},
        {"{\"prompt\":null}", "/prompt wrong_type"},
        {"{\"prompt_id\":\"nope\"}", "/prompt_id not_found"},
        {"{\"prompt_id\":\"$D\"}", "/prompt_id not_found"},
        {"{\"prompt_id\":\"0197ffff-0000-7000-8000-000000000000\"}", "/prompt_id not_found"},
        {"{\"prompt\":\"a\",\"num_samples\":17,\"seeed\":1}",
         "/seeed unknown_field /num_samples out_of_range"},
        {"{\"prompt\":\"a\",\"num_samples\":9,\"variants\":[{\"adapter\":null},{\"adapter\":\"$A\"}"
         "]}",
         "/num_samples out_of_range"},
        {"{\"prompt\":\"a\",\"adapter\":null,\"variants\":[{\"adapter\":null}]}",
         "/adapter conflict"},
        {"{\"prompt\":\"a\",\"variants\":[]}", "/variants out_of_range"},
        {"{\"prompt\":\"a\",\"variants\":[{}]}", "/variants/0/adapter missing"},
        {"{\"prompt\":\"a\",\"variants\":[{\"adapter\":3}]}", "/variants/0/adapter wrong_type"},
        {"{\"prompt\":\"a\",\"adapter\":{}}", "/adapter/id missing"},
        {"{\"prompt\":\"a\",\"adapter\":{\"id\":\"$A\",\"name\":\"x\"}}", "/adapter/name conflict"},
        {"{\"prompt\":\"a\",\"adapter\":{\"name\":\"x\"}}", "/adapter/name not_found"},
        {"{\"prompt\":\"a\",\"adapter\":\"x\"}", "/adapter not_found"},
        {"{\"prompt\":\"a\",\"adapter\":{\"id\":\"$A\",\"strength\":2.1}}",
         "/adapter/strength out_of_range"},
        {"{\"prompt\":\"a\",\"seed\":9007199254740992}", "/seed out_of_range"},
        {"{\"prompt\":\"a\",\"seed\":-1}", "/seed out_of_range"},
        {"{\"prompt\":\"a\",\"duration_s\":0}", "/duration_s out_of_range"},
        {"{\"prompt\":\"a\",\"duration_s\":0.001}", "/duration_s out_of_range"},
        {"{\"prompt\":\"a\",\"duration_s\":30.01}", "/duration_s out_of_range"},
        {"{\"prompt\":\"a\",\"duration_s\":1,\"params\":{\"duration_s\":2}}",
         "/params/duration_s conflict"},
        {"{\"prompt\":\"a\",\"params\":{\"guidance\":0.5,\"temperature\":0,\"top_k\":-1,\"top_p\":"
         "2,\"preset\":\"x\"}}",
         "/params/preset unknown_value /params/guidance out_of_range /params/temperature "
         "out_of_range "
         "/params/top_k out_of_range /params/top_p out_of_range"},
        {"{\"prompt_id\":\"$P\",\"params\":{\"guidance\":1}}", "/params/guidance out_of_range"},
        {"{\"prompt\":\"a\",\"model\":\"big\"}", "/model unknown_value"},
        {"{\"prompt\":\"a\",\"format\":\"ogg\"}", "/format unknown_value"},
        {"{\"prompt\":\"a\",\"priority\":101,\"deadline_s\":0,\"label\":1}",
         "/label wrong_type /priority out_of_range /deadline_s out_of_range"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        parsed p;
        char got[2048] = "";
        parse(&p, rows[i].body);
        for (size_t k = 0; k < json_array_size(p.check.errors); k++) {
            const json_t *e = json_array_get(p.check.errors, k);
            size_t n = strlen(got);
            snprintf(got + n, sizeof got - n, "%s%s %s", k ? " " : "",
                     json_string_value(json_object_get(e, "pointer")),
                     json_string_value(json_object_get(e, "code")));
        }
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("%s: got \"%s\", want \"%s\"", rows[i].body, got, rows[i].want);
        assert_int_equal(p.check.n_invalid == 0, strstr(rows[i].want, "not_found") != NULL);
        drop(&p);
    }
}

static void test_long_prompts(void **state)
{
    (void)state;
    static char text[AU_TEXT_MAX_CHARS * 2 + 64];
    for (int over = 0; over < 3; over++) {
        /* a limit of characters, and one of tokens: a row of rare characters is a token each */
        size_t n = over == 2 ? 3000 : AU_TEXT_MAX_CHARS + (size_t)over;
        size_t len = (size_t)sprintf(text, "{\"prompt\":\"");
        for (size_t i = 0; i < n; i++)
            text[len++] = over == 2 ? "qxzj"[i % 4] : 'a';
        strcpy(text + len, "\"}");
        au_arena arena;
        au_arena_init(&arena, 1 << 20);
        au_check c;
        au_check_init(&c, &arena);
        au_job_plan plan = {0};
        au_err err;
        json_t *body = json_loads(text, 0, NULL);
        check(au_job_body_parse(&c, &api, reader, body, &plan, &err), &err);
        size_t errors = json_array_size(c.errors);
        if (over == 1)
            assert_non_null(json_object_get(json_array_get(c.errors, 0), "max_chars"));
        if (over == 2)
            assert_non_null(json_object_get(json_array_get(c.errors, 0), "max_tokens"));
        assert_true(over == 0 || errors == 1);
        json_decref(body);
        au_check_deinit(&c);
        au_arena_deinit(&arena);
    }
}

static void test_the_schema_tells_the_limits(void **state)
{
    (void)state;
    json_t *schema = au_job_params_schema(&config, au_registry_model(api.registry, 0));
    assert_non_null(schema);
    assert_int_equal(json_array_size(schema), 7);
    size_t i;
    json_t *one;
    json_array_foreach(schema, i, one)
    {
        assert_true(json_is_string(json_object_get(one, "name")));
        assert_true(json_is_string(json_object_get(one, "help")));
        assert_non_null(json_object_get(one, "default"));
    }
    json_decref(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything_given),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_the_schema_tells_the_limits),
    };
    return cmocka_run_group_tests_name("job_body", tests, setup, teardown);
}
