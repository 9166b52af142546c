/* SPDX-License-Identifier: MIT */
/* /v1/models: what this server was given to run. The set is fixed while it runs, so nothing is read
 * from the database. */
#include <string.h>

#include "api/api.h"
#include "api/job_params.h"

/* Memory that one clip of ten seconds with guidance needs beside the weights; 0 when it cannot be
 * told. */
static json_int_t session_bytes(au_model *model)
{
    au_params params;
    au_params_init(&params, sizeof params);
    const au_row row = {.size = sizeof row, .prompt = "", .strength = 1, .params = &params};
    const au_request request = {
        .size = sizeof request, .model = model, .rows = &row, .n_rows = 1, .max_duration_s = 300};
    uint64_t bytes;
    return au_request_memory(&request, &bytes, NULL) == AU_OK ? (json_int_t)bytes : 0;
}

static json_t *model_json(const au_api *api, size_t i)
{
    au_model *model = au_registry_model(api->registry, i);
    const au_model_info *info = au_model_get_info(model);
    const char *name = au_registry_name(api->registry, i);
    json_t *limits =
        json_pack("{s:f, s:I, s:i}", "max_duration_s", au_job_max_duration_s(api->config, model),
                  "max_samples", (json_int_t)api->config->max_samples, "max_prompt_tokens",
                  info->max_prompt_tokens);
    json_t *memory = json_pack("{s:I, s:I}", "weights_bytes", (json_int_t)info->weights_bytes,
                               "session_bytes", session_bytes(model));
    return json_pack("{s:s, s:s, s:s, s:b, s:i, s:i, s:f, s:f, s:o, s:o, s:o, s:{s:o}}", "name",
                     name, "family", info->family, "fingerprint", info->fingerprint, "default",
                     i == 0, "sample_rate", info->sample_rate, "channels", info->channels,
                     "frame_rate", info->frame_rate, "trained_s", info->trained_s, "limits", limits,
                     "memory", memory, "params_schema", au_job_params_schema(api->config, model),
                     "urls", "self", json_sprintf("/v1/models/%s", name));
}

static const char *const no_query[] = {NULL};

au_http_result au_list_models(au_http_request *rq)
{
    const au_api *api = au_api_of(rq);
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    json_t *data = json_array();
    for (size_t i = 0; i < au_registry_count(api->registry); i++)
        au_list_add(&data, model_json(api, i));
    return au_page_reply(rq, data, false, NULL);
}

au_http_result au_get_model(au_http_request *rq)
{
    const au_api *api = au_api_of(rq);
    const char *name = au_http_param(rq, "name");
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    for (size_t i = 0; i < au_registry_count(api->registry); i++) {
        if (strcmp(au_registry_name(api->registry, i), name) == 0)
            return au_http_reply_json(rq, 200, model_json(api, i));
    }
    return au_http_problem(rq, AU_PROBLEM_NOT_FOUND, "no model has the name \"%.80s\"", name);
}
