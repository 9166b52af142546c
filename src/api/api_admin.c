/* SPDX-License-Identifier: MIT */
/* POST /v1/admin/{pause,resume,drain}. Paused, the queue takes jobs and gives none out; that is a
 * setting in the database, which workers read, and outlives restarts. Drained, this server takes no
 * jobs and works off those it has; that ends with the process, since a server is drained in order
 * to end it. */
#include "api/api.h"
#include "api/submit.h"

static const char *const no_query[] = {NULL};

json_t *au_queue_json(const au_api *api, const au_queue_stats *stats)
{
    return json_pack("{s:I, s:I, s:I, s:b, s:b}", "queued", (json_int_t)stats->queued, "processing",
                     (json_int_t)stats->processing, "limit", (json_int_t)api->limits.queue_limit,
                     "paused", stats->paused, "draining", atomic_load(&api->draining));
}

static au_status write_pause(au_db *db, void *arg, au_err *err)
{
    return au_queue_set_paused(db, *(const bool *)arg, err);
}

static au_http_result reply_queue(au_http_request *rq)
{
    au_queue_stats stats;
    au_err err;
    au_status st = au_queue_stats_get(au_api_db(rq), &stats, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    return au_http_reply_json(rq, 200, au_queue_json(au_api_of(rq), &stats));
}

static au_http_result pause_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    return reply_queue(rq);
}

static au_http_result set_paused(au_http_request *rq, bool paused)
{
    bool *arg = au_arena_alloc(au_http_arena(rq), sizeof *arg);
    if (!arg)
        return au_api_busy(rq, 1, "out of memory");
    *arg = paused;
    return au_api_write(rq, write_pause, arg, pause_written);
}

au_http_result au_post_pause(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    return set_paused(rq, true);
}

au_http_result au_post_resume(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    atomic_store(&au_api_of(rq)->draining, false);
    return set_paused(rq, false);
}

au_http_result au_post_drain(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    atomic_store(&au_api_of(rq)->draining, true);
    return reply_queue(rq);
}
