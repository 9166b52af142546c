/* SPDX-License-Identifier: MIT */
/* /healthz (is the process there), /readyz (can it do its work, and if not, why), / (what this is).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/fs.h"

enum { WHY_BYTES = 1024 };

static const char *const no_query[] = {NULL};

au_http_result au_get_index(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    return au_http_reply_json(
        rq, 200,
        json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}}", "name",
                  "aulos", "version", au_version(), "urls", "prompts", "/v1/prompts", "jobs",
                  "/v1/jobs", "samples", "/v1/samples", "adapters", "/v1/adapters", "models",
                  "/v1/models", "comparisons", "/v1/comparisons", "health", "/healthz", "ready",
                  "/readyz", "openapi", "/openapi.json", "docs", "/docs"));
}

au_http_result au_get_health(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    return au_http_reply_json(rq, 200, json_pack("{s:s}", "status", "ok"));
}

static json_t *check(bool ok, const char *reason)
{
    return json_pack("{s:b, s:s?}", "ok", ok, "reason", ok ? NULL : reason);
}

static json_t *check_db(au_db *db, bool *ready)
{
    au_err err;
    int64_t n;
    bool ok = au_db_int(&n, db, 0, &err, "SELECT COUNT(*) FROM models", "") == AU_OK;
    *ready &= ok;
    return check(ok, err.message);
}

static json_t *check_store(const au_api *api, bool *ready)
{
    au_err err;
    bool there;
    bool ok = au_store_exists(api->store, "samples/00/readyz", &there, &err) == AU_OK;
    *ready &= ok;
    return check(ok, err.message);
}

/* A worker that is loading its model for the first time is no fault: jobs are kept until it is
 * there. */
static json_t *check_worker(const au_api *api, au_db *db, au_arena *arena, bool *ready)
{
    char why[WHY_BYTES] = "";
    au_supervisor *supervisor = atomic_load(&api->supervisor);
    if (!supervisor)
        return check(true, NULL);
    int alive = au_supervisor_alive(supervisor, why, sizeof why);
    au_worker_row **rows = NULL;
    size_t n = 0, n_ready = 0;
    au_err err;
    if (au_worker_row_list(db, arena, &rows, &n, &err) != AU_OK)
        n = 0;
    for (size_t i = 0; i < n; i++)
        n_ready += strcmp(rows[i]->state, "ready") == 0;
    bool ok = alive > 0 && (n_ready > 0 || !why[0]);
    *ready &= ok;
    return check(ok, why[0] ? why : "no worker runs");
}

static json_t *check_disk(const au_api *api, bool *ready)
{
    char reason[128];
    uint64_t free_bytes = 0, min = api->limits.min_free_disk;
    bool known = au_fs_free_bytes(&free_bytes, api->config->data_dir, NULL) == AU_OK;
    bool ok = known && free_bytes >= min;
    if (known)
        snprintf(reason, sizeof reason, "%" PRIu64 " bytes are free, less than %" PRIu64,
                 free_bytes, min);
    else
        snprintf(reason, sizeof reason, "the free space cannot be read");
    *ready &= ok;
    return check(ok, reason);
}

/* A paused queue still takes jobs; a drained server sends clients elsewhere. */
static json_t *check_queue(const au_api *api, au_db *db, bool *ready)
{
    au_err err;
    bool paused = false, ok = au_queue_is_paused(db, &paused, &err) == AU_OK;
    bool draining = atomic_load(&api->draining);
    *ready &= ok && !draining;
    return json_pack("{s:b, s:s?, s:b, s:b}", "ok", ok && !draining, "reason",
                     !ok        ? err.message
                     : draining ? "the server is being drained and takes no new jobs"
                                : NULL,
                     "paused", paused, "draining", draining);
}

au_http_result au_get_ready(au_http_request *rq)
{
    au_api *api = au_api_of(rq);
    au_db *db = au_api_db(rq);
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    bool stopping = atomic_load(&api->stopping), ready = !stopping;
    json_t *checks = json_pack("{s:o, s:o, s:o, s:o, s:o}", "db", check_db(db, &ready), "store",
                               check_store(api, &ready), "worker",
                               check_worker(api, db, au_http_arena(rq), &ready), "disk",
                               check_disk(api, &ready), "queue", check_queue(api, db, &ready));
    if (ready)
        return au_http_reply_json(rq, 200,
                                  json_pack("{s:s, s:o}", "state", "ready", "checks", checks));
    return au_http_problem_more(
        rq, AU_PROBLEM_UNAVAILABLE, json_pack("{s:s, s:o}", "state", "not_ready", "checks", checks),
        stopping ? "the server is shutting down" : "not every part is ready");
}
