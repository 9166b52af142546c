/* SPDX-License-Identifier: MIT */
/* An HTTP/1.1 server for APIs: what handlers see of requests and responses, and the server's life.
 *
 * Threads. A server runs n loop threads; each owns its connections and calls handlers for them. A
 * handler must not block: reads of the database are fine (each loop thread has a state of its own
 * for its connection), writes go to another thread meanwhile the request is pending:
 *
 *     au_http_result create(au_http_request *rq)
 *     {
 *         ...                                          // check the request, copy what the other
 * thread needs into the arena submit(writer, work, done, rq);              // from here on rq
 * belongs to the other thread return AU_HTTP_PENDING;
 *     }
 *     static void done(void *rq) { au_http_resume(rq, answer); } // on the other thread; rq goes
 * back to its loop static au_http_result answer(au_http_request *rq) { return
 * au_http_reply_json(rq, 201, ...); } // on the loop thread again
 *
 * A pending request stays valid even if its client has gone. Every pending request must be resumed
 * before the server can stop. */
#ifndef AU_HTTP_HTTP_H
#define AU_HTTP_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "http/problem.h"

typedef struct au_http_server au_http_server;
typedef struct au_http_request au_http_request;

typedef enum au_http_result {
    AU_HTTP_DONE,    /* a reply was set */
    AU_HTTP_PENDING, /* au_http_resume will be called, perhaps already was; rq must not be touched
                        any more */
    AU_HTTP_AGAIN,   /* au_http_again or au_http_wait was called */
    AU_HTTP_RECEIVE, /* au_http_receive was called */
    AU_HTTP_STREAM,  /* au_http_stream_wait or au_http_stream_end was called */
} au_http_result;

typedef au_http_result (*au_http_handler)(au_http_request *rq);

enum {
    AU_ROUTE_JSON = 1,   /* a body must be application/json, else 415 */
    AU_ROUTE_ALWAYS = 2, /* answered on connections above the limit, too: health */
    /* What a key must allow; a route with none of these needs "read". */
    AU_ROUTE_PUBLIC = 4, /* no key */
    AU_ROUTE_WRITE = 8,
    AU_ROUTE_ADMIN = 16,
    AU_ROUTE_CREATES = 32, /* makes something: the application looks for an Idempotency-Key */
    AU_ROUTE_LINK = 256,   /* a signed link may stand for the key */
    /* The handler is called when the head has arrived, before the body, and refuses, or takes the
     * body in pieces with au_http_receive. Bounded by max_upload_bytes instead of max_body_bytes.
     */
    AU_ROUTE_UPLOAD = 64,
};

typedef struct au_http_route {
    const char *method, *pattern; /* see router.h */
    au_http_handler handler;
    unsigned flags;
} au_http_route;

/* ---- The request. Everything returned is borrowed until the reply is sent. ---- */

bool au_http_is_head(const au_http_request *rq);
const char *au_http_param(const au_http_request *rq,
                          const char *name); /* of the pattern; asserts that it exists */
const char *au_http_header(const au_http_request *rq,
                           const char *lower_name); /* the first of that name, or NULL */
size_t au_http_header_count(const au_http_request *rq, const char *lower_name);
/* GET and HEAD, which change nothing. */
bool au_http_is_safe(const au_http_request *rq);
unsigned au_http_route_flags(const au_http_request *rq); /* AU_ROUTE_... */
/* Whether the server listens on another than a loopback address. */
bool au_http_is_remote(const au_http_request *rq);
/* Whether an Origin (NULL: none) is this host or an allowed one, and Sec-Fetch-Site says nothing
 * else: what a request that is authorised by a cookie must be. */
bool au_http_is_same_origin(const au_http_request *rq);
/* Who asks, as `authorize` found out; NULL before. */
const void *au_http_caller(const au_http_request *rq);
void au_http_set_caller(au_http_request *rq, const void *caller);
const char *au_http_id(const au_http_request *rq); /* X-Request-Id */
const char *au_http_method(const au_http_request *rq);
const char *au_http_path(const au_http_request *rq);       /* as sent, percent-encoded */
const char *au_http_query_text(const au_http_request *rq); /* likewise; NULL: none */
au_arena *au_http_arena(au_http_request *rq);
void *au_http_user(const au_http_request *rq); /* of the server's configuration */
void *au_http_thread_state(
    const au_http_request *rq); /* of the loop thread; not while the request is pending */
void *au_http_data(
    const au_http_request *rq); /* what the handler kept with au_http_set_data, at first NULL */
void au_http_set_data(au_http_request *rq, void *data);
int64_t au_http_started_ms(const au_http_request *rq); /* au_mono_ms when the head had arrived */

/* Splits and decodes the query string; every parameter must be in `allowed` (NULL-terminated) and
 * stand once. False: a 400 with the parameter's name has been set as the reply. Then au_http_query
 * gives a parameter's value, or NULL. */
bool au_http_query_parse(au_http_request *rq, const char *const *allowed);
const char *au_http_query(const au_http_request *rq, const char *name);
/* Takes a parameter out of the query before that is parsed, so that no handler sees it. NULL: it is
 * not there; "" when it cannot be decoded. */
const char *au_http_query_take(au_http_request *rq, const char *name);

/* What stands before every path behind a proxy: "/aulos", or "". */
const char *au_http_base_path(const au_http_request *rq);
/* Puts it before the paths that stand in a JSON value as "url" or in "urls". Replies do that
 * themselves; this is for JSON that is sent in another way. */
void au_http_place_urls(const au_http_request *rq, json_t *json);
void au_http_place_urls_at(const char *base_path, json_t *json); /* NULL: "" */

/* Link: rel="next" to this path with the same parameters and another cursor. */
void au_http_link_next(au_http_request *rq, const char *cursor);

size_t au_http_body_len(const au_http_request *rq);
/* The body as JSON, owned by the request and read once. False: a 400 has been set as the reply. */
bool au_http_body_json(au_http_request *rq, json_t **out);

/* Of an AU_ROUTE_UPLOAD route, for a handler's return statement: each piece of the body goes to
 * `piece`, and `then` is called when all of it has arrived. A piece function that returns false has
 * set the reply; no more is read. Both run on the loop thread, so a piece function may write to a
 * file's cache, but not wait. */
typedef bool (*au_http_piece_fn)(au_http_request *rq, const char *data, size_t len);
au_http_result au_http_receive(au_http_request *rq, au_http_piece_fn piece, au_http_handler then);
/* Calls fn(data) once on the loop thread when the request ends, in whatever way: answered, its
 * client gone, its server stopped. Before its arena goes; one a request. */
void au_http_on_end(au_http_request *rq, void (*fn)(void *data), void *data);
void *au_http_end_data(const au_http_request *rq); /* that data; NULL before */
bool au_http_body_announced(const au_http_request *rq,
                            uint64_t *len); /* Content-Length; false: not known before the end */

/* ---- The reply: set exactly once. Functions return AU_HTTP_DONE, for a handler's return
 * statement. ---- */

/* May be called before or after the body is set. Control characters are not allowed in the value. A
 * Location that is a path gets the base path. */
void au_http_set_header(au_http_request *rq, const char *name, const char *fmt, ...)
    AU_PRINTF(3, 4);

/* Takes `json` over; NULL (out of memory while it was built) becomes a 500. An ETag of the bytes is
 * added to a 200, and If-None-Match honoured (304). */
au_http_result au_http_reply_json(au_http_request *rq, int status, json_t *json);
/* For changes of a resource whose JSON is `current` (taken over) now: whether If-Match, where it is
 * given, names its ETag. False: a 412 has been set. */
bool au_http_if_match(au_http_request *rq, json_t *current);
/* Copies. */
au_http_result au_http_reply_text(au_http_request *rq, int status, const char *type,
                                  const char *text, size_t len);
/* A text that lives as long as the program, not copied: 200 with an ETag, or 304. */
au_http_result au_http_reply_fixed(au_http_request *rq, const char *type, const char *text,
                                   size_t len);
au_http_result au_http_reply_empty(au_http_request *rq, int status);

/* Answers as a GET of `path` would, but with `status` in place of 200; from a handler, in place of
 * a reply. A path that no GET route takes: `status` without a body. */
au_http_result au_http_serve_get(au_http_request *rq, const char *path, int status);

typedef struct au_http_file {
    int fd; /* taken over, closed when sent */
    uint64_t size;
    const char *type; /* borrowed until the reply is sent, as are the others */
    const char *etag; /* strong, with its quotes */
    const char *cache_control;
} au_http_file;
/* A file with everything RFC 9110 says about preconditions and ranges: 200, 206, 304, 412, 416. */
au_http_result au_http_reply_file(au_http_request *rq, const au_http_file *file);

au_http_result au_http_problem(au_http_request *rq, au_problem problem, const char *fmt, ...)
    AU_PRINTF(3, 4);
/* With the members of `more` beside the usual ones ({"errors": [...]}); takes it over. */
au_http_result au_http_problem_more(au_http_request *rq, au_problem problem, json_t *more,
                                    const char *fmt, ...) AU_PRINTF(4, 5);
/* 500, with the details in the log only. */
au_http_result au_http_internal(au_http_request *rq, const au_err *err);

/* Calls `handler` on the loop thread after delay_ms (0 or more); dropped when the client leaves
 * first. */
au_http_result au_http_again(au_http_request *rq, au_http_handler handler, int64_t delay_ms);
/* The same, and also whenever au_http_server_wake was called meanwhile. */
au_http_result au_http_wait(au_http_request *rq, au_http_handler handler, int64_t delay_ms);
/* Gives a pending request back to its loop, which calls `handler` (NULL: the reply was set by this
 * thread). Any thread, exactly once. */
void au_http_resume(au_http_request *rq, au_http_handler handler);
/* Whether a shutdown has begun: long polls should answer now. */
bool au_http_draining(const au_http_request *rq);

/* ---- Streams: replies that are written piece by piece, for as long as there is something to say.
 *
 * The first handler sets headers, calls au_http_stream_begin and returns what its pump returns:
 *
 *     static au_http_result pump(au_http_request *rq)
 *     {
 *         while (... there is a piece and au_http_stream_write(rq, piece, len)) ...
 *         return over ? au_http_stream_end(rq) : au_http_stream_wait(rq, pump, 15000);
 *     }
 *
 * The pump runs on the loop thread: when the delay has passed, after au_http_server_wake, once a
 * client that read slowly has caught up, and when a drain begins (au_http_draining: end soon).
 * A client that has unsent bytes and reads none for idle_timeout_ms, or hardly any for longer, is
 * cut off, and so is one that leaves; au_http_on_end tells. Pieces go out in the chunked coding; to
 * an HTTP/1.0 client as they are until the connection closes. To HEAD the head alone is sent: end
 * at once. ---- */

enum { AU_HTTP_STREAM_BUFFER = 64 << 10 };

void au_http_stream_begin(au_http_request *rq, const char *type);
/* Copies the piece, whole. False, and nothing is taken, while AU_HTTP_STREAM_BUFFER bytes or more
 * are unsent: so a slow client costs that much and one piece. Out of memory ends the connection. */
bool au_http_stream_write(au_http_request *rq, const void *piece, size_t len);
/* Whether nothing is unsent: then there is no need to write a comment to keep proxies awake. */
bool au_http_stream_idle(const au_http_request *rq);
/* Whether a piece would be taken now; if not, the pump is called once one would. */
bool au_http_stream_has_room(au_http_request *rq);
au_http_result au_http_stream_wait(au_http_request *rq, au_http_handler pump, int64_t delay_ms);
au_http_result au_http_stream_end(au_http_request *rq);

/* What the server has counted, in the text format of Prometheus; appended. Any loop thread. */
void au_http_write_metrics(const au_http_request *rq, au_buf *out);

/* ---- The server ---- */

typedef struct au_http_config {
    const char *listen; /* "127.0.0.1:8080", "[::1]:0", "localhost:0" */
    const au_http_route *routes;
    void *user;
    int threads;
    int max_connections;       /* beyond: 503 */
    size_t max_body_bytes;     /* beyond: 413 */
    uint64_t max_upload_bytes; /* the same for AU_ROUTE_UPLOAD */
    int64_t header_timeout_ms; /* absolute, from the first byte of a head; a body has as long, and 1
                                  s more for each 16 KiB */
    int64_t idle_timeout_ms;   /* of a kept connection, and of a client that does not read */
    bool allow_remote;         /* other than loopback addresses may be bound */
    const char *allowed_hosts; /* see guard.h */
    /* "/aulos": taken off the paths of requests where it stands, and put before those in replies;
     * NULL or "": none. */
    const char *base_path;
    /* Called on the loop thread for every request whose route is known, before a body is read.
     * False: it has set a reply. NULL: everybody may do everything. */
    bool (*authorize)(au_http_request *rq);
    /* Called when a request is complete, before its handler; NULL: none. True: the request is
     * answered, *result is what a handler would have returned. */
    bool (*before)(au_http_request *rq, au_http_result *result);
    /* Called on each loop thread when it begins and ends; NULL: none. */
    au_status (*thread_begin)(void *user, void **state, au_err *err);
    void (*thread_end)(void *user, void *state);
} au_http_config;

/* Listens and starts the threads. Strings and routes are borrowed until the server is freed.
 * AU_INVALID: the address is not understood, or not loopback without allow_remote. AU_CONFLICT:
 * somebody listens there already. */
AU_MUST_CHECK au_status au_http_server_start(au_http_server **out, const au_http_config *config,
                                             au_err *err);
/* "http://127.0.0.1:40123": with the port that was really bound. Borrowed until the server is
 * freed. */
const char *au_http_server_url(const au_http_server *server);
/* Calls the handlers of all requests that wait (au_http_wait) and all pumps, each on its loop. Any
 * thread; returns at once. */
void au_http_server_wake(au_http_server *server);
/* Stops listening and ends idle connections; requests go on, each the last of its connection. */
void au_http_server_drain(au_http_server *server);
/* Requests that are not answered yet. */
int au_http_server_active(const au_http_server *server);
/* Drains, waits up to grace_ms for active requests, closes what is left, joins the threads and
 * clears the pointer. Pending requests are waited for whatever the grace: whoever holds them must
 * still be alive. NULL is fine. */
void au_http_server_stop(au_http_server **server, int64_t grace_ms);

#endif
