/* SPDX-License-Identifier: MIT */
/* What a comparison is asked to be: samples in an order, pairs of samples, or prompts and variants
 * whose samples are made first. The last become the bodies of jobs, so that both are checked by the
 * same code. Runs on HTTP loop threads; reads only. */
#include "api/comparison_body.h"

#include <string.h>

#include "base/hash.h"

enum { MAX_VOTES = 1000000 };
static const double MAX_LISTEN_S = 300;

typedef struct parser {
    au_check *c;
    const au_api *api;
    au_db *db;
    const json_t *body;
    au_comparison_plan *plan;
    au_err *err;
} parser;

static void *reserve(parser *p, size_t n, size_t size)
{
    void *out = au_arena_alloc(p->c->arena, n * size);
    if (!out)
        p->c->no_memory = true;
    return out;
}

/* An array of min ... max members. */
static bool check_list(parser *p, const char *key, size_t min, size_t max, const json_t **list)
{
    const char *pointer = au_check_at(p->c, "", key);
    *list = json_object_get(p->body, key);
    if (!json_is_array(*list)) {
        au_check_add(p->c, pointer, "wrong_type", json_pack("{s:s}", "expected", "array"));
        return false;
    }
    if (json_array_size(*list) < min || json_array_size(*list) > max) {
        au_check_add(
            p->c, pointer, "out_of_range",
            json_pack("{s:I, s:I}", "min_items", (json_int_t)min, "max_items", (json_int_t)max));
        return false;
    }
    return true;
}

/* The id of a sample that is there; NULL: a problem was noted. */
static au_status check_sample(parser *p, const json_t *j, const char *pointer, const char **id)
{
    au_sample *sample;
    *id = json_string_value(j);
    if (!*id) {
        au_check_add(p->c, pointer, "wrong_type", json_pack("{s:s}", "expected", "string"));
        return AU_OK;
    }
    au_status st =
        au_uuid_valid(*id) ? au_sample_get(p->db, p->c->arena, *id, &sample, p->err) : AU_NOT_FOUND;
    if (st == AU_NOT_FOUND || (st == AU_OK && sample->deleted_at)) {
        au_check_add(p->c, pointer, "not_found", json_pack("{s:s}", "id", *id));
        *id = NULL;
        return AU_OK;
    }
    return st;
}

/* ---- Given samples ---- */

/* Abx asks whether two things can be told apart: two, not more. */
static void check_arms(parser *p, const char *pointer)
{
    const au_comparison *what = &p->plan->what;
    if (what->n_pairs == 0)
        au_check_add(p->c, pointer, "no_pairs",
                     json_pack("{s:s}", "expected",
                               "samples that share prompt, model, seed and params and differ in "
                               "the adapter"));
    else if (what->mode == AU_COMPARE_ABX && what->n_arms != 2)
        au_check_add(p->c, pointer, "out_of_range",
                     json_pack("{s:I, s:i}", "adapters", (json_int_t)what->n_arms, "expected", 2));
}

static au_status parse_samples(parser *p)
{
    const json_t *list;
    au_comparison *what = &p->plan->what;
    au_status st = AU_OK;
    if (!check_list(p, "sample_ids", what->mode == AU_COMPARE_VIEW ? 1 : 2,
                    AU_COMPARISON_MAX_SAMPLES, &list))
        return AU_OK;
    what->sample_ids = reserve(p, json_array_size(list), sizeof *what->sample_ids);
    if (!what->sample_ids)
        return AU_OK;
    for (size_t i = 0; i < json_array_size(list) && st == AU_OK; i++) {
        const char *id;
        st = check_sample(p, json_array_get(list, i), au_check_at_index(p->c, "/sample_ids", i),
                          &id);
        if (id)
            what->sample_ids[what->n_samples++] = id;
    }
    if (st != AU_OK || what->mode == AU_COMPARE_VIEW || !au_check_ok(p->c))
        return st;
    st = au_comparison_pair_up(p->db, p->c->arena, what, p->err);
    if (st == AU_LIMIT) {
        au_check_add(p->c, "/sample_ids", "out_of_range",
                     json_pack("{s:s}", "reason", p->err->message));
        return AU_OK;
    }
    what->n_samples = 0; /* the pairs name them */
    if (st == AU_OK)
        check_arms(p, "/sample_ids");
    return st;
}

static au_status parse_pairs(parser *p)
{
    const json_t *list;
    au_comparison *what = &p->plan->what;
    size_t bad;
    au_status st = AU_OK;
    if (!check_list(p, "pairs", 1, AU_COMPARISON_MAX_PAIRS, &list))
        return AU_OK;
    size_t n = json_array_size(list);
    const char **ids = reserve(p, 2 * n, sizeof *ids);
    for (size_t i = 0; ids && i < n && st == AU_OK; i++) {
        const json_t *pair = json_array_get(list, i);
        const char *pointer = au_check_at_index(p->c, "/pairs", i);
        if (!json_is_array(pair) || json_array_size(pair) != 2) {
            au_check_add(p->c, pointer, "wrong_type",
                         json_pack("{s:s}", "expected", "array of two sample ids"));
            continue;
        }
        for (size_t j = 0; j < 2 && st == AU_OK; j++)
            st = check_sample(p, json_array_get(pair, j), au_check_at_index(p->c, pointer, j),
                              &ids[2 * i + j]);
    }
    if (st != AU_OK || !au_check_ok(p->c))
        return st;
    st = au_comparison_take_pairs(p->db, p->c->arena, what, ids, n, &bad, p->err);
    if (st == AU_INVALID || st == AU_LIMIT) {
        au_check_add(
            p->c, au_check_at_index(p->c, "/pairs", bad), "unlike",
            json_pack("{s:s, s:s}", "differ_in", p->err->message, "expected", "the adapter alone"));
        return AU_OK;
    }
    if (st == AU_OK)
        check_arms(p, "/pairs");
    return st;
}

/* ---- Samples to be made ---- */

/* The errors of a job's body under the names that they have here. Of the second prompt on, only
 * what concerns the prompt is new. */
static void take_errors(parser *p, const au_check *job, size_t prompt)
{
    size_t i;
    json_t *e;
    json_array_foreach(job->errors, i, e)
    {
        const char *pointer = json_string_value(json_object_get(e, "pointer"));
        const char *code = json_string_value(json_object_get(e, "code"));
        bool of_prompt = strcmp(pointer, "/prompt_id") == 0;
        if (prompt > 0 && !of_prompt)
            continue;
        if (of_prompt)
            pointer = au_check_at_index(p->c, "/prompt_ids", prompt);
        else if (strcmp(pointer, "/num_samples") == 0)
            pointer = "/samples_per_prompt";
        json_t *more = json_copy(e);
        json_object_del(more, "pointer");
        json_object_del(more, "code");
        au_check_add(p->c, pointer, code, more);
    }
    p->c->no_memory |= job->no_memory;
}

/* {prompt_id, num_samples, ...} of one prompt; new reference. */
static json_t *job_body(const parser *p, const json_t *prompt_id, uint64_t seed)
{
    static const char *const same[] = {"variants", "params", "model", "duration_s", "priority"};
    json_t *body = json_pack("{s:O, s:I}", "prompt_id", prompt_id, "seed", (json_int_t)seed);
    for (size_t i = 0; body && i < sizeof same / sizeof *same; i++) {
        json_t *value = json_object_get(p->body, same[i]);
        if (value)
            json_object_set(body, same[i], value);
    }
    json_t *n = json_object_get(p->body, "samples_per_prompt");
    if (body && n)
        json_object_set(body, "num_samples", n);
    return body;
}

static au_status parse_job(parser *p, const json_t *prompt_id, size_t i, uint64_t seed)
{
    au_check job;
    const char *pointer = au_check_at_index(p->c, "/prompt_ids", i);
    if (!json_is_string(prompt_id)) {
        au_check_add(p->c, pointer, "wrong_type", json_pack("{s:s}", "expected", "string"));
        return AU_OK;
    }
    json_t *body = job_body(p, prompt_id, seed);
    if (!body)
        return au_fail(p->err, AU_NOMEM, "out of memory");
    au_check_init(&job, p->c->arena);
    au_status st = au_job_body_parse(&job, p->api, p->db, body, &p->plan->jobs[i], p->err);
    take_errors(p, &job, i);
    au_check_deinit(&job);
    json_decref(body); /* the plan borrows from its values, which are the request's own */
    return st;
}

/* The variants are the arms; all jobs have the same. */
static au_status take_arms(parser *p)
{
    au_comparison *what = &p->plan->what;
    const au_job_new *job = &p->plan->jobs[0].job;
    au_status st = AU_OK;
    what->arms = reserve(p, AU_ARMS_MAX, sizeof *what->arms);
    for (size_t i = 0; what->arms && i < job->n_variants && st == AU_OK; i++) {
        au_adapter_row *row = NULL;
        const au_job_variant *v = &job->variants[i];
        if (v->adapter_id)
            st = au_adapter_row_get(p->db, p->c->arena, v->adapter_id, &row, p->err);
        if (st == AU_OK)
            what->arms[what->n_arms++] = (au_arm){.adapter_id = v->adapter_id,
                                                  .adapter_name = row ? row->name : NULL,
                                                  .adapter_sha256 = row ? row->sha256 : NULL,
                                                  .strength = v->strength};
    }
    return st;
}

/* Every two arms of every index of every prompt. */
static void make_pairs(parser *p)
{
    au_comparison *what = &p->plan->what;
    size_t n_samples = (size_t)p->plan->jobs[0].job.num_samples;
    size_t n = what->n_jobs * n_samples * what->n_arms * (what->n_arms - 1) / 2;
    if (n > AU_COMPARISON_MAX_PAIRS) {
        au_check_add(
            p->c, "/samples_per_prompt", "out_of_range",
            json_pack("{s:I, s:i}", "pairs", (json_int_t)n, "max_pairs", AU_COMPARISON_MAX_PAIRS));
        return;
    }
    what->pairs = reserve(p, n, sizeof *what->pairs);
    for (size_t job = 0; what->pairs && job < what->n_jobs; job++) {
        for (size_t index = 0; index < n_samples; index++) {
            for (size_t a = 0; a < what->n_arms; a++) {
                for (size_t b = a + 1; b < what->n_arms; b++)
                    what->pairs[what->n_pairs++] =
                        (au_pair){.arm_a = a,
                                  .arm_b = b,
                                  .prompt_id = p->plan->jobs[job].job.prompt_id,
                                  .job_id = p->plan->jobs[job].result.job_id,
                                  .index = (int)index};
            }
        }
    }
}

static void check_variants(parser *p)
{
    const au_comparison *what = &p->plan->what;
    if (what->n_arms < 2 || (what->mode == AU_COMPARE_ABX && what->n_arms > 2)) {
        au_check_add(p->c, "/variants", "out_of_range",
                     json_pack("{s:i, s:i}", "min_items", 2, "max_items",
                               what->mode == AU_COMPARE_ABX ? 2 : AU_ARMS_MAX));
        return;
    }
    for (size_t i = 1; i < what->n_arms; i++) {
        for (size_t j = 0; j < i; j++) {
            if (au_arm_equal(&what->arms[i], &what->arms[j]))
                au_check_add(p->c, au_check_at_index(p->c, "/variants", i), "conflict",
                             json_pack("{s:s}", "with", au_check_at_index(p->c, "/variants", j)));
        }
    }
}

static au_status parse_prompts(parser *p)
{
    const json_t *list;
    au_comparison *what = &p->plan->what;
    int64_t seed = 0;
    au_status st = AU_OK;
    const json_t *asked = json_object_get(p->body, "seed");
    bool given = asked && !json_is_null(asked);
    if (given)
        au_check_int(p->c, p->body, "", "seed", 0, ((int64_t)1 << 53) - 1, &seed);
    if (!json_object_get(p->body, "variants"))
        au_check_add(p->c, "/variants", "missing", NULL);
    if (!check_list(p, "prompt_ids", 1, AU_COMPARISON_MAX_JOBS, &list))
        return AU_OK;
    what->n_jobs = json_array_size(list);
    p->plan->jobs = reserve(p, what->n_jobs, sizeof *p->plan->jobs);
    what->job_ids = reserve(p, what->n_jobs, sizeof *what->job_ids);
    for (size_t i = 0; p->plan->jobs && i < what->n_jobs && st == AU_OK; i++)
        st = parse_job(p, json_array_get(list, i), i, given ? (uint64_t)seed : au_random_seed());
    if (st != AU_OK || !au_check_ok(p->c))
        return st;
    for (size_t i = 0; i < what->n_jobs; i++) {
        p->plan->jobs[i].job.seed_source = given ? "request" : "random";
        what->job_ids[i] = p->plan->jobs[i].result.job_id;
    }
    if (what->mode == AU_COMPARE_VIEW)
        return AU_OK;
    st = take_arms(p);
    if (st == AU_OK)
        check_variants(p);
    if (st == AU_OK && au_check_ok(p->c))
        make_pairs(p);
    return st;
}

/* ---- The whole ---- */

/* Which of the three says what is compared; NULL where it is not exactly one. */
static const char *parse_source(parser *p)
{
    static const char *const keys[] = {"sample_ids", "pairs", "prompt_ids"};
    const char *found = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!json_object_get(p->body, keys[i]))
            continue;
        if (found) {
            au_check_add(p->c, au_check_at(p->c, "", keys[i]), "conflict",
                         json_pack("{s:s}", "with", au_check_at(p->c, "", found)));
            return NULL;
        }
        found = keys[i];
    }
    if (!found)
        au_check_add(p->c, "/sample_ids", "missing",
                     json_pack("{s:[s,s]}", "or", "/pairs", "/prompt_ids"));
    return found;
}

static void parse_mode(parser *p, const char *source)
{
    const char *name = NULL;
    au_comparison *what = &p->plan->what;
    what->mode = source && strcmp(source, "sample_ids") != 0 ? AU_COMPARE_AB : AU_COMPARE_VIEW;
    if (au_check_text(p->c, p->body, "", "mode", AU_LABEL_MAX_CHARS, &name) &&
        !au_comparison_mode_parse(name, &what->mode))
        au_check_add(p->c, "/mode", "unknown_value",
                     json_pack("{s:[s,s,s]}", "known", "view", "ab", "abx"));
    else if (what->mode == AU_COMPARE_VIEW && source && strcmp(source, "pairs") == 0)
        au_check_add(p->c, "/pairs", "conflict", json_pack("{s:s}", "with", "/mode"));
}

/* Fields that only one kind of comparison has. */
static void refuse_fields(parser *p, const char *const *fields, const char *with)
{
    for (size_t i = 0; fields[i]; i++) {
        if (json_object_get(p->body, fields[i]))
            au_check_add(p->c, au_check_at(p->c, "", fields[i]), "conflict",
                         json_pack("{s:s}", "with", with));
    }
}

static void parse_test(parser *p)
{
    static const char *const of_tests[] = {"blind", "votes_wanted", "min_listen_s", NULL};
    au_comparison *what = &p->plan->what;
    if (what->mode == AU_COMPARE_VIEW) {
        refuse_fields(p, of_tests, "/mode");
        return;
    }
    what->blind = true;
    what->votes_wanted = (int64_t)what->n_pairs;
    what->seed = au_random_seed();
    au_check_bool(p->c, p->body, "", "blind", &what->blind);
    au_check_int(p->c, p->body, "", "votes_wanted", 1, MAX_VOTES, &what->votes_wanted);
    au_check_real(p->c, p->body, "", "min_listen_s", 0, MAX_LISTEN_S, false, &what->min_listen_s);
    if (what->mode == AU_COMPARE_ABX && !what->blind)
        au_check_add(p->c, "/blind", "conflict", json_pack("{s:s}", "with", "/mode"));
}

au_status au_comparison_body_parse(au_check *c, const au_api *api, au_db *db, const json_t *body,
                                   au_comparison_plan *plan, au_err *err)
{
    static const char *const fields[] = {
        "mode",  "title",  "sample_ids",   "pairs",        "prompt_ids",
        "blind", "params", "votes_wanted", "min_listen_s", "samples_per_prompt",
        "model", "seed",   "duration_s",   "variants",     "priority",
        NULL};
    static const char *const of_jobs[] = {
        "samples_per_prompt", "variants", "params", "model", "seed",
        "duration_s",         "priority", NULL};
    parser p = {.c = c, .api = api, .db = db, .body = body, .plan = plan, .err = err};
    au_status st = AU_OK;
    *plan = (au_comparison_plan){0};
    if (!au_check_object(c, body, "", fields))
        return AU_OK;
    const char *source = parse_source(&p);
    parse_mode(&p, source);
    au_check_text(c, body, "", "title", AU_LABEL_MAX_CHARS, &plan->what.title);
    if (source && strcmp(source, "prompt_ids") == 0)
        st = parse_prompts(&p);
    else if (source)
        refuse_fields(&p, of_jobs, au_check_at(c, "", source));
    if (source && strcmp(source, "sample_ids") == 0)
        st = parse_samples(&p);
    else if (source && strcmp(source, "pairs") == 0)
        st = parse_pairs(&p);
    if (st == AU_OK)
        parse_test(&p);
    return st;
}
