/* SPDX-License-Identifier: MIT */
/* Parameters of generation: their limits are those of the engine (au_params_check), in a table that
 * can be shown. Stateless. */
#include "api/job_params.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

typedef enum param_type { PARAM_REAL, PARAM_INT, PARAM_BOOL, PARAM_PRESET } param_type;

static const char *const type_names[] = {"number", "integer", "boolean", "string"};

static const struct param_spec {
    const char *name;
    param_type type;
    size_t offset; /* in au_params */
    double min, max, step;
    const char *help;
} specs[] = {
    {"preset", PARAM_PRESET, offsetof(au_params, preset), 0, 0, 0,
     "defaults of the other parameters, and how top_k and top_p combine: audiocraft, or hf (the "
     "checkpoint's own)"},
    {"duration_s", PARAM_REAL, offsetof(au_params, duration_s), 0, 0, 0.1,
     "length of a clip in seconds"},
    {"guidance", PARAM_REAL, offsetof(au_params, guidance), 1, 1000, 0.1,
     "how closely to follow the prompt; 1 is off and twice as fast"},
    {"temperature", PARAM_REAL, offsetof(au_params, temperature), 1e-6, 1000, 0.05,
     "of the draw: lower is safer, higher is stranger"},
    {"top_k", PARAM_INT, offsetof(au_params, top_k), 0, 1000000, 1,
     "draw among the likeliest tokens, so many; 0 is off"},
    {"top_p", PARAM_REAL, offsetof(au_params, top_p), 0, 1, 0.01,
     "draw among the likeliest tokens that have this probability together; 0 and 1 are off"},
    {"greedy", PARAM_BOOL, offsetof(au_params, greedy), 0, 0, 0, "always take the likeliest token"},
};
enum { N_SPECS = sizeof specs / sizeof *specs };

static const char *const field_names[] = {"preset", "duration_s", "guidance", "temperature",
                                          "top_k",  "top_p",      "greedy",   NULL};
static const char *const preset_names[] = {"audiocraft", "hf"};

double au_job_max_duration_s(const au_serve_config *config, const au_model *model)
{
    return config->max_duration_s > 0 ? config->max_duration_s : au_registry_max_duration_s(model);
}

static void parse_preset(au_check *c, const json_t *params, const au_model *model, au_params *out)
{
    const char *name;
    if (!au_check_text(c, params, "/params", "preset", AU_LABEL_MAX_CHARS, &name))
        return;
    for (int i = 0; i <= AU_PRESET_HF; i++) {
        if (strcmp(name, preset_names[i]) == 0) {
            au_params_preset(out, model, (au_preset)i);
            return;
        }
    }
    au_check_add(c, "/params/preset", "unknown_value",
                 json_pack("{s:[s, s]}", "known", preset_names[0], preset_names[1]));
}

static void parse_duration(au_check *c, const json_t *body, const char *parent, double max,
                           const au_model *model, au_params *out)
{
    if (!au_check_real(c, body, parent, "duration_s", 0, max, true, &out->duration_s))
        return;
    double rate = au_model_get_info(model)->frame_rate;
    if (llround(rate * out->duration_s) < 1)
        au_check_add(c, au_check_at(c, parent, "duration_s"), "out_of_range",
                     json_pack("{s:f, s:f}", "min", 1 / rate, "max", max));
}

void au_job_params_parse(au_check *c, const json_t *body, const au_serve_config *config,
                         const au_model *model, au_params *out)
{
    const json_t *params = json_object_get(body, "params");
    double max = au_job_max_duration_s(config, model);
    au_params_init(out, sizeof *out);
    parse_duration(c, body, "", max, model, out);
    if (!params || !au_check_object(c, params, "/params", field_names))
        return;
    parse_preset(c, params, model, out);
    if (json_object_get(params, "duration_s") && json_object_get(body, "duration_s"))
        au_check_add(c, "/params/duration_s", "conflict",
                     json_pack("{s:s}", "with", "/duration_s"));
    else
        parse_duration(c, params, "/params", max, model, out);
    for (size_t i = 0; i < N_SPECS; i++) {
        const struct param_spec *s = &specs[i];
        void *field = (char *)out + s->offset;
        int64_t n;
        if (s->type == PARAM_REAL && field != &out->duration_s)
            au_check_real(c, params, "/params", s->name, s->min, s->max, false, field);
        else if (s->type == PARAM_BOOL)
            au_check_bool(c, params, "/params", s->name, field);
        else if (s->type == PARAM_INT &&
                 au_check_int(c, params, "/params", s->name, (int64_t)s->min, (int64_t)s->max, &n))
            *(int *)field = (int)n;
    }
}

static json_t *value_json(const struct param_spec *s, const au_params *params)
{
    const void *field = (const char *)params + s->offset;
    switch (s->type) {
    case PARAM_REAL:
        return json_real(*(const double *)field);
    case PARAM_INT:
        return json_integer(*(const int *)field);
    case PARAM_BOOL:
        return json_boolean(*(const bool *)field);
    case PARAM_PRESET:
        break;
    }
    return json_string(preset_names[*(const au_preset *)field]);
}

json_t *au_job_params_schema(const au_serve_config *config, const au_model *model)
{
    au_params defaults;
    au_params_init(&defaults, sizeof defaults);
    json_t *list = json_array();
    for (size_t i = 0; list && i < N_SPECS; i++) {
        const struct param_spec *s = &specs[i];
        json_t *j = json_pack("{s:s, s:s, s:o, s:s}", "name", s->name, "type", type_names[s->type],
                              "default", value_json(s, &defaults), "help", s->help);
        bool duration = s->offset == offsetof(au_params, duration_s);
        double min = duration ? 1 / au_model_get_info(model)->frame_rate : s->min;
        double max = duration ? au_job_max_duration_s(config, model) : s->max;
        if (j && s->type == PARAM_INT)
            json_object_update_new(j, json_pack("{s:I, s:I, s:I}", "min", (json_int_t)min, "max",
                                                (json_int_t)max, "step", (json_int_t)s->step));
        else if (j && s->type == PARAM_REAL)
            json_object_update_new(
                j, json_pack("{s:f, s:f, s:f}", "min", min, "max", max, "step", s->step));
        else if (j && s->type == PARAM_PRESET)
            json_object_update_new(
                j, json_pack("{s:[s, s]}", "values", preset_names[0], preset_names[1]));
        au_list_add(&list, j);
    }
    return list;
}
