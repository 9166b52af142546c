/* SPDX-License-Identifier: MIT */
/* Generation parameters: defaults, presets, checks. Stateless. */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "engine/engine.h"

static const double LONGEST_S =
    300; /* memory for keys and values grows with length; nothing was ever trained near this */

void au_params_init(au_params *params, size_t size)
{
    const au_params defaults = {.size = size,
                                .preset = AU_PRESET_AUDIOCRAFT,
                                .duration_s = 10,
                                .guidance = 3,
                                .temperature = 1,
                                .top_k = 250,
                                .top_p = 0,
                                .greedy = false};
    memcpy(params, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

void au_params_preset(au_params *params, const au_model *model, au_preset preset)
{
    const au_model_info *info = &model->info;
    bool hf = preset == AU_PRESET_HF;
    params->preset = preset;
    params->guidance = hf ? info->hf_guidance : 3;
    params->temperature = hf ? info->hf_temperature : 1;
    params->top_k = hf ? info->hf_top_k : 250;
    params->top_p = hf ? info->hf_top_p : 0;
}

au_status au_params_check(const au_params *params, const au_model *model, double max_duration_s,
                          au_err *err)
{
    double longest = max_duration_s > 0 ? max_duration_s : LONGEST_S;
    if (params->size < sizeof *params)
        return au_fail(err, AU_INVALID, "au_params.size is %zu, expected %zu", params->size,
                       sizeof *params);
    if (!(params->duration_s > 0 && params->duration_s <= longest))
        return au_fail(err, AU_INVALID, "duration is %g s, expected more than 0 and at most %g s",
                       params->duration_s, longest);
    if (model && llround(model->info.frame_rate * params->duration_s) < 1)
        return au_fail(err, AU_INVALID, "duration is %g s, expected at least one frame of %g s",
                       params->duration_s, 1 / model->info.frame_rate);
    if (!(params->guidance >= 1 && params->guidance <= 1000))
        return au_fail(err, AU_INVALID, "guidance is %g, expected 1 ... 1000", params->guidance);
    if (!(params->temperature >= 1e-6 && params->temperature <= 1000))
        return au_fail(err, AU_INVALID, "temperature is %g, expected more than 0 and at most 1000",
                       params->temperature);
    if (params->top_k < 0)
        return au_fail(err, AU_INVALID, "top_k is %d, expected 0 (off) or more", params->top_k);
    if (!(params->top_p >= 0 && params->top_p <= 1))
        return au_fail(err, AU_INVALID, "top_p is %g, expected 0 ... 1 (0 and 1 are off)",
                       params->top_p);
    if ((unsigned)params->preset > AU_PRESET_HF)
        return au_fail(err, AU_INVALID, "preset is %d, expected a value of au_preset",
                       (int)params->preset);
    return AU_OK;
}
