/* SPDX-License-Identifier: MIT */
/* What the resources of the API share: the server's parts, reading and writing the database from
 * handlers, pages, and the JSON forms that occur in several of them. Internal to src/api.
 *
 * Handlers run on HTTP loop threads, each with a read-only connection of its own. They write
 * through au_api_write, which hands the request to the writer thread and continues on the loop
 * thread when the change is on the disk. */
#ifndef AU_API_API_H
#define AU_API_API_H

#include <jansson.h>
#include <stdatomic.h>

#include "api/auth.h"
#include "api/hub.h"
#include "api/metrics.h"
#include "api/serve.h"
#include "db/writer.h"
#include "http/http.h"
#include "jobs/catalog.h"
#include "jobs/intake.h"
#include "jobs/janitor.h"
#include "jobs/job.h"
#include "jobs/registry.h"
#include "jobs/supervisor.h"
#include "store/store.h"
#include "webhooks/sender.h"

enum {
    AU_TEXT_MAX_CHARS = 8192, /* of a prompt */
    AU_LABEL_MAX_CHARS = 200, /* of labels and titles */
    AU_DESCRIPTION_MAX_CHARS = 2000,
};

typedef struct au_api {
    const au_serve_config *config;
    au_limits limits;
    au_auth auth; /* constant after start, but for its atomics */
    au_writer *writer;
    au_store *store;
    struct au_media *media; /* see media.h */
    au_sender *sender;      /* NULL in tests */
    au_registry *registry;
    au_intake *intake;
    atomic_int uploads;  /* of adapters, under way */
    au_janitor *janitor; /* NULL in tests */
    au_metrics *metrics;
    int64_t started_at;                  /* Unix milliseconds */
    au_hub *hub;                         /* whoever waits learns of changes there */
    _Atomic(au_supervisor *) supervisor; /* NULL before it is there, and with --workers 0 */
    atomic_bool stopping;                /* SIGTERM came: not ready any more */
    atomic_bool draining;                /* no new jobs are taken */
} au_api;

/* The one table of routes; user is an au_api, the thread state an au_db. */
extern const au_http_route au_api_routes[];

au_api *au_api_of(const au_http_request *rq);
au_db *au_api_db(const au_http_request *rq); /* of this thread, for reading; not while pending */

/* The problem for a failed operation: 503 where trying again helps, 507 for a full disk, else 500
 * with the details in the log. */
au_http_result au_api_failed(au_http_request *rq, au_status status, const au_err *err);
/* 404 and 410 of a resource: "no job has the id ...". */
au_http_result au_api_not_found(au_http_request *rq, const char *what, const char *id);
au_http_result au_api_gone(au_http_request *rq, const char *what, const char *id);
/* 503 with Retry-After. */
au_http_result au_api_busy(au_http_request *rq, int retry_after_s, const char *why);

/* Runs fn(db, arg) on the writer thread, then calls `then` on the loop thread, which finds the
 * outcome with au_api_outcome. arg lives in the request's arena. Return what it returns. */
au_http_result au_api_write(au_http_request *rq, au_write_fn fn, void *arg, au_http_handler then);
typedef struct au_api_outcome {
    void *arg;
    au_status status;
    au_err err; /* valid when status is not AU_OK */
} au_api_outcome;
const au_api_outcome *au_api_outcome_of(const au_http_request *rq);
/* Whether the write failed; then the problem has been set: 404 for AU_NOT_FOUND, which means that
 * there is no `what` of that id, else as au_api_failed. */
bool au_api_write_failed(au_http_request *rq, const char *what, const char *id);

/* ---- Making things ----
 *
 * Every POST that makes something takes an Idempotency-Key. Its route has AU_ROUTE_CREATES and it
 * writes through au_api_create instead of au_api_write; that is all. A repeated request is then
 * answered with the status and Location of the first and the body that a GET of the Location has
 * now; the same key with another request is a 422; the key of a request that was refused (fn did
 * not return AU_OK) is free again. */
typedef struct au_api_creation {
    int status;         /* of the reply to the first request: 201, 202 */
    const char *prefix; /* the Location is prefix + id */
    const char *id;     /* where fn writes the new id; "" afterwards: nothing was made after all */
    /* A body that is not JSON: a text that is equal for equal requests (hashes of the parts); NULL:
     * JSON. Such a handler asks au_api_repeated itself once it knows the text. */
    const char *content;
    /* Called before the reply when a parallel request with the same key was first and fn was not
     * called: undoes what the handler prepared (staged files). Its result is ignored, it sets no
     * reply. NULL: nothing. */
    au_http_handler cleanup;
} au_api_creation;
/* `made` is copied; what it points to lives as long as the request. Example:
 *     return au_api_create(rq, write_prompt, p, prompt_written,
 *                          &(au_api_creation){.status = 201,
 *                                             .prefix = "/v1/prompts/",
 *                                             .id = p->id}); */
au_http_result au_api_create(au_http_request *rq, au_write_fn fn, void *arg, au_http_handler then,
                             const au_api_creation *made);
/* Whether the request has been answered because its key was used; for handlers of bodies that are
 * not JSON, as soon as they know `content`: "if (au_api_repeated(rq, hash, &result)) return
 * result;" */
bool au_api_repeated(au_http_request *rq, const char *content, au_http_result *result);
/* The server's hook that does this for JSON bodies. */
bool au_api_before(au_http_request *rq, au_http_result *result);

/* The sample of {id}, not deleted; NULL when a problem has been set. */
const au_sample *au_api_sample(au_http_request *rq);
/* The parameter {id}; NULL when it is not a UUID at all, so that nothing has that id. */
const char *au_api_id(const au_http_request *rq);

/* For requests whose body is optional, and an object without members. False: a problem has been
 * set. */
bool au_api_empty_body(au_http_request *rq);

/* ---- Pages (api_page.c) ---- */

typedef struct au_page {
    int limit;
    const char *before_id; /* from the cursor; NULL: the first page */
} au_page;

/* Reads limit and cursor of a parsed query. False: a 400 has been set. */
bool au_page_parse(au_http_request *rq, au_page *page);
/* {data, has_more, next_cursor} and the Link. Takes `data` over; last_id: of its last element, or
 * NULL. */
au_http_result au_page_reply(au_http_request *rq, json_t *data, bool has_more, const char *last_id);
/* The same with a cursor made already (NULL: the last page) and, where it was asked for, the number
 * of elements of all pages (else -1). */
au_http_result au_page_reply_at(au_http_request *rq, json_t *data, const char *cursor,
                                int64_t total);
/* 400 that names the parameter. `expected` completes "is not ...". */
bool au_query_refuse(au_http_request *rq, const char *name, const char *expected);
/* A parameter that must be a UUID when it is given. False: a 400 has been set. */
bool au_query_uuid(au_http_request *rq, const char *name, const char **out);
/* A parameter that is 0 or 1 when it is given, false when not. False: a 400 has been set. */
bool au_query_flag(au_http_request *rq, const char *name, bool *out);
/* Opaque text of a place in a list, and back. */
void au_cursor_encode(char out[AU_UUID_TEXT], const char *id);
bool au_cursor_decode(char id[AU_UUID_TEXT], const char *cursor);
/* The place in a list that is ordered in one of several ways: kind is a letter for the order and
 * must be the same again, bits the value that it is ordered by. */
enum { AU_CURSOR_TEXT = 1 + 16 + AU_UUID_TEXT };
void au_cursor_place_encode(char out[AU_CURSOR_TEXT], char kind, uint64_t bits, const char *id);
bool au_cursor_place_decode(const char *cursor, char kind, uint64_t *bits, char id[AU_UUID_TEXT]);

/* ---- Filters in the query (list_query.c). False: a 400 has been set. Absent: *out stays. ---- */

bool au_query_limit(au_http_request *rq, int max, int *out);
bool au_query_times(au_http_request *rq, int64_t *created_after, int64_t *created_before);
bool au_query_bool(au_http_request *rq, const char *name, bool *out);
/* q, as au_search_words makes it. */
bool au_query_words(au_http_request *rq, const char **out);
/* sort: the index in `names` (NULL-terminated). `expected` lists them. */
bool au_query_choice(au_http_request *rq, const char *name, const char *const *names,
                     const char *expected, int *out);
/* cursor, of a list whose order is `kind`; real: ordered by a real number. */
bool au_query_place(au_http_request *rq, char kind, bool real, const au_place **out);
/* The cursor after `place`. */
void au_place_cursor(char out[AU_CURSOR_TEXT], char kind, bool real, const au_place *place);

/* RFC 3339 with any offset, to Unix milliseconds. */
bool au_time_parse(const char *text, int64_t *unix_ms);

/* ---- JSON forms: new references, NULL when memory is exhausted ---- */

json_t *au_time_json(int64_t unix_ms);       /* null for 0 */
json_t *au_text_json(const char *json_text); /* the value that the text is; null for NULL */
json_t *au_adapter_use_json(const char *id, const char *name, double strength,
                            const char *sha256); /* null for id NULL */
json_t *au_job_json(const au_job *job);
/* {queued, processing, limit, paused, draining} */
json_t *au_queue_json(const au_api *api, const au_queue_stats *stats);
json_t *au_sample_json(const au_sample *sample);
json_t *au_sample_row_json(const au_sample *sample); /* small: for lists of hundreds */
json_t *au_prompt_json(const au_prompt *prompt);
json_t *au_key_json(const au_key *key);
json_t *au_scopes_json(unsigned scopes);
/* The adapter with its report as the reply: 404 and 410 where there is none. */
au_http_result au_adapter_reply(au_http_request *rq, int status, const char *id);
/* Appends `item`, taken over; a NULL item makes the whole list NULL, so that a reply never lacks
 * one silently. */
void au_list_add(json_t **list, json_t *item);

/* ---- Handlers ---- */

au_http_result au_get_index(au_http_request *rq);
au_http_result au_get_health(au_http_request *rq);
au_http_result au_get_ready(au_http_request *rq);
au_http_result au_get_metrics(au_http_request *rq);
au_http_result au_get_system(au_http_request *rq);
au_http_result au_get_openapi(au_http_request *rq);
au_http_result au_get_docs(au_http_request *rq);
au_http_result au_post_prompt(au_http_request *rq);
au_http_result au_list_prompts(au_http_request *rq);
au_http_result au_get_prompt(au_http_request *rq);
au_http_result au_patch_prompt(au_http_request *rq);
au_http_result au_delete_prompt(au_http_request *rq);
au_http_result au_restore_prompt(au_http_request *rq);
au_http_result au_post_job(au_http_request *rq);
au_http_result au_list_jobs(au_http_request *rq);
au_http_result au_get_job(au_http_request *rq);
au_http_result au_cancel_job(au_http_request *rq);
au_http_result au_delete_job(au_http_request *rq);
au_http_result au_retry_job(au_http_request *rq);
au_http_result au_get_recipe(au_http_request *rq);
au_http_result au_reproduce_sample(au_http_request *rq);
au_http_result au_post_pause(au_http_request *rq);
au_http_result au_post_resume(au_http_request *rq);
au_http_result au_post_drain(au_http_request *rq);
au_http_result au_get_job_events(au_http_request *rq);
au_http_result au_get_events(au_http_request *rq);
au_http_result au_list_samples(au_http_request *rq);
au_http_result au_get_sample(au_http_request *rq);
au_http_result au_patch_sample(au_http_request *rq);
au_http_result au_delete_sample(au_http_request *rq);
au_http_result au_restore_sample(au_http_request *rq);
au_http_result au_delete_samples(au_http_request *rq);
au_http_result au_restore_samples(au_http_request *rq);
au_http_result au_get_audio(au_http_request *rq);
au_http_result au_get_audio_as(au_http_request *rq);
au_http_result au_get_peaks(au_http_request *rq);
au_http_result au_list_adapters(au_http_request *rq);
au_http_result au_get_adapter(au_http_request *rq);
au_http_result au_post_adapter(au_http_request *rq);
au_http_result au_patch_adapter(au_http_request *rq);
au_http_result au_delete_adapter(au_http_request *rq);
au_http_result au_restore_adapter(au_http_request *rq);
au_http_result au_list_models(au_http_request *rq);
au_http_result au_get_model(au_http_request *rq);
au_http_result au_post_webhook(au_http_request *rq);
au_http_result au_list_webhooks(au_http_request *rq);
au_http_result au_get_webhook(au_http_request *rq);
au_http_result au_delete_webhook(au_http_request *rq);
au_http_result au_list_deliveries(au_http_request *rq);
au_http_result au_get_delivery(au_http_request *rq);
au_http_result au_redeliver(au_http_request *rq);
au_http_result au_post_comparison(au_http_request *rq);
au_http_result au_list_comparisons(au_http_request *rq);
au_http_result au_get_comparison(au_http_request *rq);
au_http_result au_post_key(au_http_request *rq);
au_http_result au_list_keys(au_http_request *rq);
au_http_result au_get_key(au_http_request *rq);
au_http_result au_delete_key(au_http_request *rq);
au_http_result au_post_session(au_http_request *rq);
au_http_result au_get_session(au_http_request *rq);
au_http_result au_delete_session(au_http_request *rq);
au_http_result au_post_link(au_http_request *rq);
au_http_result au_delete_comparison(au_http_request *rq);
au_http_result au_close_comparison(au_http_request *rq);
au_http_result au_get_results(au_http_request *rq);
au_http_result au_post_rater_session(au_http_request *rq);
au_http_result au_get_rater_session(au_http_request *rq);
au_http_result au_get_next_trial(au_http_request *rq);
au_http_result au_get_trial_x(au_http_request *rq);
au_http_result au_get_trial_y(au_http_request *rq);
au_http_result au_get_trial_reference(au_http_request *rq);
au_http_result au_post_vote(au_http_request *rq);
au_http_result au_get_vote(au_http_request *rq);

#endif
