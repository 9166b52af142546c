/* SPDX-License-Identifier: MIT */
/* au_params to JSON and back. Whole numbers are written as integers, so that 10 and 10.0 are one
 * text. */
#include "jobs/job_params.h"

#include <limits.h>
#include <math.h>
#include <string.h>

static const char *const preset_names[] = {
    [AU_PRESET_AUDIOCRAFT] = "audiocraft", [AU_PRESET_HF] = "hf"};

const char *au_preset_name(au_preset preset)
{
    AU_ASSERT((unsigned)preset <= AU_PRESET_HF);
    return preset_names[preset];
}

bool au_preset_parse(const char *name, au_preset *out)
{
    for (int i = 0; i <= AU_PRESET_HF; i++) {
        if (!strcmp(name, preset_names[i])) {
            *out = (au_preset)i;
            return true;
        }
    }
    return false;
}

static json_t *number(double x)
{
    return x == floor(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(x);
}

json_t *au_params_to_json(const au_params *params)
{
    return json_pack("{s:o, s:b, s:o, s:s, s:o, s:i, s:o}", "duration_s",
                     number(params->duration_s), "greedy", (int)params->greedy, "guidance",
                     number(params->guidance), "preset", au_preset_name(params->preset),
                     "temperature", number(params->temperature), "top_k", params->top_k, "top_p",
                     number(params->top_p));
}

au_status au_params_text(const au_params *params, char **out, au_err *err)
{
    json_t *j = au_params_to_json(params);
    au_buf b;
    *out = NULL;
    if (!j)
        return au_fail(err, AU_NOMEM, "out of memory");
    au_buf_init(&b, 4096);
    au_json_dump(&b, j);
    au_status st = au_buf_take(&b, out, NULL, err);
    au_buf_deinit(&b);
    json_decref(j);
    return st;
}

au_status au_params_from_text(au_params *out, const char *text, au_err *err)
{
    static const struct {
        const char *name;
        size_t offset;
    } numbers[] = {{"duration_s", offsetof(au_params, duration_s)},
                   {"guidance", offsetof(au_params, guidance)},
                   {"temperature", offsetof(au_params, temperature)},
                   {"top_p", offsetof(au_params, top_p)}};
    json_t *j = NULL;
    au_status st = AU_OK;
    AU_TRY(au_json_parse(&j, text, strlen(text), "parameters", err));
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const json_t *v = json_object_get(j, numbers[i].name);
        AU_FAIL_IF(!json_is_number(v), AU_CORRUPT, "parameter %s is missing or not a number",
                   numbers[i].name);
        double x = json_number_value(v);
        memcpy((char *)out + numbers[i].offset, &x, sizeof x);
    }
    const json_t *preset = json_object_get(j, "preset"), *top_k = json_object_get(j, "top_k"),
                 *greedy = json_object_get(j, "greedy");
    AU_FAIL_IF(!json_is_string(preset) || !au_preset_parse(json_string_value(preset), &out->preset),
               AU_CORRUPT, "parameter preset is missing or unknown");
    AU_FAIL_IF(!json_is_integer(top_k) || json_integer_value(top_k) < 0 ||
                   json_integer_value(top_k) > INT_MAX,
               AU_CORRUPT, "parameter top_k is missing or out of range");
    AU_FAIL_IF(!json_is_boolean(greedy), AU_CORRUPT,
               "parameter greedy is missing or not true or false");
    out->top_k = (int)json_integer_value(top_k);
    out->greedy = json_is_true(greedy);
done:
    json_decref(j);
    return st;
}
