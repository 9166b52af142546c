/* SPDX-License-Identifier: MIT */
/* /v1/samples: list and read. Their sound is in api_audio.c. */
#include "api/api.h"

static const char *const no_query[] = {NULL};

au_http_result au_list_samples(au_http_request *rq)
{
    static const char *const query[] = {"limit",      "cursor", "job_id", "prompt_id",
                                        "adapter_id", "model",  NULL};
    au_page page;
    au_err err;
    au_sample_filter filter = {0};
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page) ||
        !au_query_uuid(rq, "job_id", &filter.job_id) ||
        !au_query_uuid(rq, "prompt_id", &filter.prompt_id) ||
        !au_query_uuid(rq, "adapter_id", &filter.adapter_id))
        return AU_HTTP_DONE;
    filter.model_name = au_http_query(rq, "model");
    filter.before_id = page.before_id;
    filter.limit = page.limit;
    au_sample **samples;
    size_t n;
    bool more;
    au_status st =
        au_sample_list(au_api_db(rq), au_http_arena(rq), &filter, &samples, &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, au_sample_json(samples[i]));
    return au_page_reply(rq, data, more, n ? samples[n - 1]->id : NULL);
}

/* The sample of {id}; NULL when a problem has been set. */
static const au_sample *find_sample(au_http_request *rq)
{
    au_err err;
    au_sample *sample;
    const char *id = au_api_id(rq);
    if (!id) {
        au_api_not_found(rq, "sample", au_http_param(rq, "id"));
        return NULL;
    }
    au_status st = au_sample_get(au_api_db(rq), au_http_arena(rq), id, &sample, &err);
    if (st == AU_OK && !sample->deleted_at)
        return sample;
    if (st == AU_OK)
        au_api_gone(rq, "sample", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "sample", id);
    else
        au_api_failed(rq, st, &err);
    return NULL;
}

au_http_result au_get_sample(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const au_sample *sample = find_sample(rq);
    return sample ? au_http_reply_json(rq, 200, au_sample_json(sample)) : AU_HTTP_DONE;
}
