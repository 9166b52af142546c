/* SPDX-License-Identifier: MIT */
/* The routes of the server, all of them. */
#include "api/api.h"

enum { MAKES = AU_ROUTE_JSON | AU_ROUTE_WRITE | AU_ROUTE_CREATES };

const au_http_route au_api_routes[] = {
    {"GET", "/", au_get_index, AU_ROUTE_PUBLIC},
    {"GET", "/healthz", au_get_health, AU_ROUTE_ALWAYS | AU_ROUTE_PUBLIC},
    {"GET", "/readyz", au_get_ready, AU_ROUTE_ALWAYS | AU_ROUTE_PUBLIC},
    {"GET", "/openapi.json", au_get_openapi, AU_ROUTE_PUBLIC},
    {"GET", "/docs", au_get_docs, AU_ROUTE_PUBLIC},
    {"POST", "/v1/prompts", au_post_prompt, MAKES},
    {"GET", "/v1/prompts", au_list_prompts, 0},
    {"GET", "/v1/prompts/{id}", au_get_prompt, 0},
    {"DELETE", "/v1/prompts/{id}", au_delete_prompt, AU_ROUTE_WRITE},
    {"POST", "/v1/jobs", au_post_job, MAKES},
    {"GET", "/v1/jobs", au_list_jobs, 0},
    {"GET", "/v1/jobs/{id}", au_get_job, 0},
    {"POST", "/v1/jobs/{id}/cancel", au_cancel_job, AU_ROUTE_JSON | AU_ROUTE_WRITE},
    {"GET", "/v1/jobs/{id}/events", au_get_job_events, 0},
    {"GET", "/v1/events", au_get_events, 0},
    {"GET", "/v1/samples", au_list_samples, 0},
    {"GET", "/v1/samples/{id}", au_get_sample, 0},
    {"GET", "/v1/samples/{id}/audio", au_get_audio, AU_ROUTE_LINK},
    {"GET", "/v1/samples/{id}/audio.{ext}", au_get_audio_as, AU_ROUTE_LINK},
    {"GET", "/v1/samples/{id}/peaks", au_get_peaks, 0},
    {"POST", "/v1/samples/{id}/link", au_post_link, AU_ROUTE_JSON},
    {"GET", "/v1/adapters", au_list_adapters, 0},
    {"GET", "/v1/adapters/{id}", au_get_adapter, 0},
    {"GET", "/v1/models", au_list_models, 0},
    {"GET", "/v1/models/{name}", au_get_model, 0},
    {"POST", "/v1/comparisons", au_post_comparison, MAKES},
    {"GET", "/v1/comparisons", au_list_comparisons, 0},
    {"GET", "/v1/comparisons/{id}", au_get_comparison, 0},
    {"POST", "/v1/keys", au_post_key, AU_ROUTE_JSON | AU_ROUTE_CREATES | AU_ROUTE_ADMIN},
    {"GET", "/v1/keys", au_list_keys, AU_ROUTE_ADMIN},
    {"GET", "/v1/keys/{id}", au_get_key, AU_ROUTE_ADMIN},
    {"DELETE", "/v1/keys/{id}", au_delete_key, AU_ROUTE_ADMIN},
    {"POST", "/v1/session", au_post_session, AU_ROUTE_JSON | AU_ROUTE_PUBLIC},
    {"GET", "/v1/session", au_get_session, 0},
    {"DELETE", "/v1/session", au_delete_session, AU_ROUTE_PUBLIC},
    {NULL, NULL, NULL, 0},
};
