/* SPDX-License-Identifier: MIT */
/* Parameters to and from JSON. Reals stay reals (10.0, not 10), so that a text depends on values
 * alone. Stateless. */
#include "jobs/params_json.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

enum { MAX_BYTES = 4096 };

static const char *const presets[] = {
    [AU_PRESET_AUDIOCRAFT] = "audiocraft",
    [AU_PRESET_HF] = "hf",
};

au_status au_params_json(const au_params *p, char **json, au_err *err)
{
    au_status st = AU_OK;
    json_t *j =
        json_pack("{s:s, s:f, s:f, s:f, s:i, s:f, s:b}", "preset", presets[p->preset], "duration_s",
                  p->duration_s, "guidance", p->guidance, "temperature", p->temperature, "top_k",
                  p->top_k, "top_p", p->top_p, "greedy", p->greedy);
    AU_FAIL_IF(!j, AU_INVALID, "parameters are not finite numbers");
    AU_TRY(au_json_text(json, j, MAX_BYTES, err));
done:
    json_decref(j);
    return st;
}

au_status au_params_from_json(au_params *p, const char *json, au_err *err)
{
    json_t *j = NULL;
    const char *preset;
    int greedy;
    json_error_t problem;
    au_status st = AU_OK;
    au_params_init(p, sizeof *p);
    AU_TRY(au_json_parse(&j, json, strlen(json), "parameters", err));
    AU_FAIL_IF(json_unpack_ex(j, &problem, 0, "{s:s, s:F, s:F, s:F, s:i, s:F, s:b}", "preset",
                              &preset, "duration_s", &p->duration_s, "guidance", &p->guidance,
                              "temperature", &p->temperature, "top_k", &p->top_k, "top_p",
                              &p->top_p, "greedy", &greedy) != 0,
               AU_CORRUPT, "parameters: %s", problem.text);
    p->greedy = greedy != 0;
    if (strcmp(preset, presets[AU_PRESET_HF]) == 0)
        p->preset = AU_PRESET_HF;
    else
        AU_FAIL_IF(strcmp(preset, presets[AU_PRESET_AUDIOCRAFT]) != 0, AU_CORRUPT,
                   "parameters: preset is %.40s, expected audiocraft or hf", preset);
done:
    json_decref(j);
    return st;
}
