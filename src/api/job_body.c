/* SPDX-License-Identifier: MIT */
/* Everything about a job that can be known before it is accepted is checked here: fields, prompt,
 * model, adapters and whether they fit, limits. The transaction that accepts it looks at the
 * records again (they may have gone meanwhile). Runs on HTTP loop threads; reads only. */
#include "api/job_body.h"

#include <stdlib.h>
#include <string.h>

#include "api/job_params.h"
#include "audio/audio.h"
#include "base/hash.h"
#include "jobs/params_json.h"

static const int64_t SEED_MAX = ((int64_t)1 << 53) - 1;
static const double DEADLINE_MAX_S = 365.0 * 86400;

enum { VARIANTS_MAX = 16 };

typedef struct parser {
    au_check *c;
    const au_api *api;
    au_db *db;
    const json_t *body;
    const char *model_name;
    au_model *model;
    au_job_plan *plan;
    au_err *err;
} parser;

static void note_unknown_model(parser *p)
{
    json_t *known = json_array();
    for (size_t i = 0; i < au_registry_count(p->api->registry); i++)
        au_list_add(&known, json_string(au_registry_name(p->api->registry, i)));
    au_check_add(p->c, "/model", "unknown_value", json_pack("{s:o}", "known", known));
}

/* Goes on with the default model where the name is wrong, so that other problems are found too. */
static void parse_model(parser *p)
{
    const char *name = NULL;
    p->model_name = au_registry_name(p->api->registry, 0);
    if (au_check_text(p->c, p->body, "", "model", AU_LABEL_MAX_CHARS, &name)) {
        if (au_registry_find(p->api->registry, name))
            p->model_name = name;
        else
            note_unknown_model(p);
    }
    p->model = au_registry_find(p->api->registry, p->model_name);
    p->plan->job.model_name = p->model_name;
    p->plan->job.model_fingerprint = au_model_get_info(p->model)->fingerprint;
}

/* The model reads so many tokens and no more. */
static void check_tokens(parser *p, const char *text, const char *pointer)
{
    int32_t *ids = NULL;
    size_t n = 0, max = (size_t)au_model_get_info(p->model)->max_prompt_tokens;
    if (au_tokenize(p->model, text, &ids, &n, NULL) != AU_OK)
        au_check_add(p->c, pointer, "unreadable", NULL);
    else if (n > max)
        au_check_add(
            p->c, pointer, "too_long",
            json_pack("{s:I, s:I}", "tokens", (json_int_t)n, "max_tokens", (json_int_t)max));
    free(ids);
}

static au_status parse_prompt_id(parser *p)
{
    au_prompt *prompt = NULL;
    const char *id;
    if (!au_check_text(p->c, p->body, "", "prompt_id", AU_LABEL_MAX_CHARS, &id))
        return AU_OK;
    au_status st =
        au_uuid_valid(id) ? au_prompt_get(p->db, p->c->arena, id, &prompt, p->err) : AU_NOT_FOUND;
    if (st == AU_NOT_FOUND || (st == AU_OK && prompt->deleted_at)) {
        au_check_add(p->c, "/prompt_id", "not_found", json_pack("{s:s}", "id", id));
        return AU_OK;
    }
    if (st != AU_OK)
        return st;
    p->plan->job.prompt_id = id;
    p->plan->job.negative_text = prompt->negative_text;
    check_tokens(p, prompt->text, "/prompt_id");
    if (prompt->negative_text)
        check_tokens(p, prompt->negative_text, "/prompt_id");
    return AU_OK;
}

static au_status parse_prompt(parser *p)
{
    bool has_id = json_object_get(p->body, "prompt_id"),
         has_text = json_object_get(p->body, "prompt");
    const char *text;
    if (has_id && has_text)
        au_check_add(p->c, "/prompt", "conflict", json_pack("{s:s}", "with", "/prompt_id"));
    else if (!has_id && !has_text)
        au_check_add(p->c, "/prompt", "missing", json_pack("{s:s}", "or", "/prompt_id"));
    if (au_check_text(p->c, p->body, "", "prompt", AU_TEXT_MAX_CHARS, &text)) {
        p->plan->job.prompt_text = text;
        check_tokens(p, text, "/prompt");
    }
    if (au_check_text(p->c, p->body, "", "negative_text", AU_TEXT_MAX_CHARS, &text)) {
        p->plan->job.negative_text = text;
        check_tokens(p, text, "/negative_text");
        if (has_id)
            au_check_add(p->c, "/negative_text", "conflict",
                         json_pack("{s:s}", "with", "/prompt_id"));
    }
    return parse_prompt_id(p);
}

/* What was found by id or name is ready and fits the model, or the check says why not. */
static au_status check_adapter(parser *p, const au_adapter_row *row, const char *pointer)
{
    const char *status = NULL, *report = row->report;
    au_status st = au_adapter_fit(p->db, p->c->arena, row->id, p->plan->job.model_fingerprint,
                                  &status, &report, p->err);
    if (st != AU_OK && st != AU_NOT_FOUND)
        return st;
    bool ready = strcmp(row->status, "ready") == 0;
    if (ready && st == AU_OK && strcmp(status, "ready") == 0)
        return AU_OK;
    au_check_add(p->c, pointer, "unfit",
                 json_pack("{s:s, s:s, s:s, s:o*}", "id", row->id, "name", row->name, "model",
                           p->model_name, "report", au_text_json(report)));
    return AU_OK;
}

/* `key` is the member by which the adapter is named, NULL for the text alone. */
static au_status find_adapter(parser *p, const char *value, bool by_name, const char *pointer,
                              const char **id)
{
    au_adapter_row *row = NULL;
    au_status st;
    if (by_name)
        st = au_adapter_row_by_name(p->db, p->c->arena, value, &row, p->err);
    else
        st = au_uuid_valid(value) ? au_adapter_row_get(p->db, p->c->arena, value, &row, p->err)
                                  : AU_NOT_FOUND;
    if (st == AU_NOT_FOUND || (st == AU_OK && row->deleted_at)) {
        au_check_add(p->c, pointer, "not_found",
                     json_pack("{s:s}", by_name ? "name" : "id", value));
        return AU_OK;
    }
    if (st != AU_OK)
        return st;
    *id = row->id;
    return check_adapter(p, row, pointer);
}

/* null, "id", or {"id" | "name", "strength"}. */
static au_status parse_adapter(parser *p, const json_t *j, const char *pointer, au_job_variant *out)
{
    static const char *const fields[] = {"id", "name", "strength", NULL};
    const char *id = NULL, *name = NULL;
    *out = (au_job_variant){.strength = 1};
    if (json_is_null(j))
        return AU_OK;
    if (json_is_string(j))
        return find_adapter(p, json_string_value(j), false, pointer, &out->adapter_id);
    if (!au_check_object(p->c, j, pointer, fields))
        return AU_OK;
    au_check_real(p->c, j, pointer, "strength", -2, 2, false, &out->strength);
    bool has_id = json_object_get(j, "id"), has_name = json_object_get(j, "name");
    if (has_id == has_name) {
        au_check_add(p->c, au_check_at(p->c, pointer, has_id ? "name" : "id"),
                     has_id ? "conflict" : "missing",
                     json_pack("{s:s}", has_id ? "with" : "or",
                               au_check_at(p->c, pointer, has_id ? "id" : "name")));
        return AU_OK;
    }
    if (au_check_text(p->c, j, pointer, "id", AU_LABEL_MAX_CHARS, &id))
        return find_adapter(p, id, false, au_check_at(p->c, pointer, "id"), &out->adapter_id);
    if (au_check_text(p->c, j, pointer, "name", AU_LABEL_MAX_CHARS, &name))
        return find_adapter(p, name, true, au_check_at(p->c, pointer, "name"), &out->adapter_id);
    return AU_OK;
}

static au_status parse_variant(parser *p, const json_t *j, size_t i, au_job_variant *out)
{
    static const char *const fields[] = {"adapter", NULL};
    const char *pointer = au_check_at_index(p->c, "/variants", i);
    if (!au_check_object(p->c, j, pointer, fields))
        return AU_OK;
    const json_t *adapter = json_object_get(j, "adapter");
    const char *at = au_check_at(p->c, pointer, "adapter");
    if (!adapter) {
        au_check_add(p->c, at, "missing", NULL);
        return AU_OK;
    }
    return parse_adapter(p, adapter, at, out);
}

static au_status parse_variants(parser *p)
{
    au_status st = AU_OK;
    const json_t *list = json_object_get(p->body, "variants");
    const json_t *adapter = json_object_get(p->body, "adapter");
    size_t n = list ? json_array_size(list) : 1;
    if (list && adapter)
        au_check_add(p->c, "/adapter", "conflict", json_pack("{s:s}", "with", "/variants"));
    if (list && !json_is_array(list)) {
        au_check_add(p->c, "/variants", "wrong_type", json_pack("{s:s}", "expected", "array"));
        return AU_OK;
    }
    if (n < 1 || n > VARIANTS_MAX) {
        au_check_add(p->c, "/variants", "out_of_range",
                     json_pack("{s:i, s:i}", "min_items", 1, "max_items", VARIANTS_MAX));
        return AU_OK;
    }
    au_job_variant *variants = au_arena_alloc(p->c->arena, n * sizeof *variants);
    if (!variants)
        return au_fail(p->err, AU_NOMEM, "out of memory");
    variants[0].strength = 1;
    for (size_t i = 0; list && i < n && st == AU_OK; i++)
        st = parse_variant(p, json_array_get(list, i), i, &variants[i]);
    if (adapter && !list)
        st = parse_adapter(p, adapter, "/adapter", &variants[0]);
    p->plan->job.variants = variants;
    p->plan->job.n_variants = n;
    return st;
}

/* num_samples alone, then together with the variants. */
static void parse_counts(parser *p)
{
    int64_t max = p->api->limits.max_samples, n = 1;
    size_t variants = p->plan->job.n_variants ? p->plan->job.n_variants : 1;
    bool right = au_check_int(p->c, p->body, "", "num_samples", 1, max, &n) ||
                 !json_object_get(p->body, "num_samples");
    if (right && n * (int64_t)variants > max)
        au_check_add(p->c, "/num_samples", "out_of_range",
                     json_pack("{s:i, s:I, s:I, s:I}", "min", 1, "max",
                               (json_int_t)(max / (int64_t)variants), "variants",
                               (json_int_t)variants, "max_total", (json_int_t)max));
    p->plan->job.num_samples = (int)n;
}

static void parse_seed(parser *p)
{
    const json_t *seed = json_object_get(p->body, "seed");
    int64_t n = 0;
    p->plan->job.seed_source = "random";
    if (!seed || json_is_null(seed))
        p->plan->job.seed = au_random_seed();
    else if (au_check_int(p->c, p->body, "", "seed", 0, SEED_MAX, &n)) {
        p->plan->job.seed = (uint64_t)n;
        p->plan->job.seed_source = "request";
    }
}

static void parse_rest(parser *p)
{
    int64_t priority = 0;
    double deadline_s = 0;
    const char *format = "wav";
    au_format known;
    au_check_text(p->c, p->body, "", "label", AU_LABEL_MAX_CHARS, &p->plan->job.label);
    au_check_int(p->c, p->body, "", "priority", -100, 100, &priority);
    if (au_check_real(p->c, p->body, "", "deadline_s", 0, DEADLINE_MAX_S, true, &deadline_s))
        p->plan->job.deadline_ms = (int64_t)(deadline_s * 1000) + 1;
    if (au_check_text(p->c, p->body, "", "format", AU_LABEL_MAX_CHARS, &format) &&
        !au_format_parse(format, &known)) {
        json_t *names = json_array();
        for (int f = 0; f < AU_FORMAT_COUNT; f++)
            au_list_add(&names, json_string(au_format_name((au_format)f)));
        au_check_add(p->c, "/format", "unknown_value", json_pack("{s:o}", "known", names));
        format = "wav";
    }
    p->plan->job.priority = (int)priority;
    p->plan->job.format = format;
}

static au_status parse_params(parser *p)
{
    au_params *params = &p->plan->params;
    const char *negative = p->plan->job.negative_text;
    au_job_params_parse(p->c, p->body, p->api->config, p->model, params);
    if (negative && params->guidance <= 1)
        au_check_add(p->c, "/params/guidance", "out_of_range",
                     json_pack("{s:i, s:s}", "exclusive_min", 1, "because",
                               "the prompt has a negative text, which guidance 1 would ignore"));
    au_err refusal;
    if (au_check_ok(p->c) &&
        au_params_check(params, p->model, au_job_max_duration_s(p->api->config, p->model),
                        &refusal) != AU_OK)
        au_check_add(p->c, "/params", "invalid", json_pack("{s:s}", "detail", refusal.message));
    char *text = NULL;
    au_status st = au_params_json(params, &text, p->err);
    if (st != AU_OK)
        return st;
    p->plan->job.params = au_arena_strdup(p->c->arena, text);
    free(text);
    return p->plan->job.params ? AU_OK : au_fail(p->err, AU_NOMEM, "out of memory");
}

au_status au_job_body_parse(au_check *c, const au_api *api, au_db *db, const json_t *body,
                            au_job_plan *plan, au_err *err)
{
    static const char *const fields[] = {
        "prompt_id", "prompt",      "negative_text", "model",      "adapter",
        "variants",  "num_samples", "seed",          "duration_s", "params",
        "format",    "label",       "priority",      "deadline_s", NULL};
    parser p = {.c = c, .api = api, .db = db, .body = body, .plan = plan, .err = err};
    au_status st = AU_OK;
    if (!au_check_object(c, body, "", fields))
        return AU_OK;
    plan->limits = api->limits;
    parse_model(&p);
    AU_TRY(parse_prompt(&p));
    AU_TRY(parse_variants(&p));
    parse_counts(&p);
    parse_seed(&p);
    parse_rest(&p);
    AU_TRY(parse_params(&p));
done:
    return st;
}
