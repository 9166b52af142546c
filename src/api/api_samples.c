/* SPDX-License-Identifier: MIT */
/* /v1/samples: list, read, and the audio itself with everything that seeking needs. The audio of a
 * sample never changes, so it may be kept for ever; its tag is its hash. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"

static const char *const no_query[] = {NULL};

static const struct {
    const char *format, *extension, *type;
} formats[] = {
    {"wav", "wav", "audio/wav"},    {"wav24", "wav", "audio/wav"}, {"wavf", "wav", "audio/wav"},
    {"flac", "flac", "audio/flac"}, {"mp3", "mp3", "audio/mpeg"},  {"opus", "opus", "audio/ogg"},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

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

static au_http_result reply_audio(au_http_request *rq, const au_sample *s, const char *type)
{
    au_err err;
    const char *etag = au_arena_printf(au_http_arena(rq), "\"sha256-%s\"", s->sha256);
    if (!etag)
        return au_api_busy(rq, 1, "out of memory");
    au_http_file file = {.fd = -1,
                         .type = type,
                         .etag = etag,
                         .cache_control = "private, max-age=31536000, immutable"};
    au_status st =
        au_store_open_read(au_api_of(rq)->store, s->store_key, &file.fd, &file.size, &err);
    if (st == AU_NOT_FOUND)
        return au_http_problem(rq, AU_PROBLEM_OBJECT_MISSING,
                               "the audio of sample %s is missing in the object store", s->id);
    if (st != AU_OK)
        return au_api_busy(rq, 5, "the object store does not answer");
    if (file.size != (uint64_t)s->bytes) {
        close(file.fd);
        return au_http_problem(rq, AU_PROBLEM_OBJECT_MISSING,
                               "the audio of sample %s has %" PRIu64
                               " bytes in the object store, its record says %" PRId64,
                               s->id, file.size, s->bytes);
    }
    return au_http_reply_file(rq, &file);
}

/* extension NULL: whatever the sample is. */
static au_http_result get_audio(au_http_request *rq, const char *extension)
{
    bool known = !extension;
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    for (size_t i = 0; i < N_FORMATS; i++)
        known |= extension && strcmp(extension, formats[i].extension) == 0;
    if (!known)
        return au_http_problem(rq, AU_PROBLEM_NOT_FOUND, "audio has no form called \"%.20s\"",
                               extension);
    const au_sample *s = find_sample(rq);
    if (!s)
        return AU_HTTP_DONE;
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (strcmp(s->format, formats[i].format) != 0)
            continue;
        if (extension && strcmp(extension, formats[i].extension) != 0)
            return au_http_problem(rq, AU_PROBLEM_NOT_ACCEPTABLE,
                                   "sample %s is there as .%s, not as .%s", s->id,
                                   formats[i].extension, extension);
        return reply_audio(rq, s, formats[i].type);
    }
    return au_http_problem(rq, AU_PROBLEM_INTERNAL, "sample %s has the unknown format %s", s->id,
                           s->format);
}

au_http_result au_get_audio(au_http_request *rq)
{
    return get_audio(rq, NULL);
}

au_http_result au_get_audio_as(au_http_request *rq)
{
    return get_audio(rq, au_http_param(rq, "ext"));
}
