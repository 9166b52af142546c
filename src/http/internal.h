/* SPDX-License-Identifier: MIT */
/* What the files of src/http share: a connection with its current request, and the loops.
 * Everything here belongs to the loop thread of its connection, except a pending request (see
 * http.h) and what is marked. */
#ifndef AU_HTTP_INTERNAL_H
#define AU_HTTP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/uuid.h"
#include "http/fields.h"
#include "http/guard.h"
#include "http/http.h"
#include "http/http1.h"
#include "http/range.h"
#include "http/router.h"
#include "http/counters.h"

enum {
    ARENA_MAX_BYTES = 16 << 20,    /* of one request: its head, and the records a handler reads */
    RESPONSE_MAX_BYTES = 64 << 20, /* of one reply in memory */
    SEGMENTS_MAX = 2 * AU_RANGES_MAX + 2,
    QUERY_MAX = 32,
};

/* A piece of what is sent: memory, or bytes of the reply's file. */
typedef struct segment {
    const char *mem; /* NULL: the file */
    uint64_t offset; /* in the file */
    uint64_t left;
} segment;

typedef struct response {
    bool set;
    int status;
    int status_for_ok; /* stands in place of 200; 0: 200 it is */
    au_buf fields;     /* "Name: value\r\n" of the handler */
    au_buf body;       /* in memory; for multipart the lines between the parts */
    bool has_length;
    uint64_t length;
    int fd; /* -1: none */
    au_buf head;
    segment segments[SEGMENTS_MAX]; /* [0] is the head */
    size_t n_segments, current;
    uint64_t sent;
} response;

/* The unsent part of a streamed reply. */
typedef struct stream {
    bool begun, ended;
    bool refused; /* a piece found no room: call the pump once there is */
    bool chunked;
    au_buf out;
    size_t sent;      /* of out */
    int64_t pump_ms;  /* when the pump wants to be called */
    int64_t stall_ms; /* while bytes are unsent: when the client has read too little for too long */
    int64_t blocked_ms;  /* since when bytes are unsent; 0: none are */
    uint64_t blocked_at; /* res.sent then */
} stream;

typedef struct query_param {
    const char *name, *value;
} query_param;

struct au_http_request {
    struct au_http_conn *conn;
    bool active; /* counted in server->n_active */
    au_arena arena;
    au_http_head head;
    au_http_match match;
    au_buf body;
    json_t *json;
    query_param query[QUERY_MAX];
    size_t n_query;
    char id[AU_UUID_TEXT];
    char trace[AU_TRACE_ID_TEXT]; /* of a traceparent; "": none */
    const void *caller;
    int64_t started_ms, started_ns;
    void *data;
    au_http_handler next; /* of resume, again, wait, receive and streams */
    bool wakes;           /* next is called on a wake, too */
    au_http_piece_fn piece;
    void (*on_end)(void *data);
    void *end_data;
    response res;
    stream stream;
};

typedef enum conn_state {
    CONN_HEAD,   /* waiting for or reading a head */
    CONN_BODY,   /* reading a body */
    CONN_WAIT,   /* the request is pending */
    CONN_AGAIN,  /* a handler will be called at the deadline */
    CONN_WRITE,  /* sending the reply */
    CONN_STREAM, /* sending a reply that its handler still writes */
    CONN_LINGER, /* sent; reading what the client still sends, so that a reset does not destroy the
                    reply */
} conn_state;

typedef struct au_http_conn {
    struct au_http_loop *loop;
    struct au_http_conn *prev, *next; /* in loop->conns */
    struct au_http_conn *inbox_next;  /* under loop->mutex: new or resumed */
    int fd;
    conn_state state;
    uint32_t events; /* registered with epoll */
    int64_t deadline_ms;
    int64_t head_since_ms; /* CONN_HEAD: idle since then, or the first byte came then */
    int64_t write_started_ms;
    bool is_new;   /* not yet in loop->conns */
    bool overflow; /* above max_connections: answered with 503 */
    bool peer_gone;
    bool close_after; /* this reply is the last */
    char *in;
    size_t in_len, in_cap, scanned;
    uint64_t body_left, body_received;
    uint64_t upload_bytes; /* given to rq.piece */
    int64_t body_started_ms;
    size_t burst; /* bytes of an upload taken in this event */
    au_chunked chunked;
    au_http_request rq;
} au_http_conn;

typedef struct au_http_loop {
    struct au_http_server *server;
    int index;
    int epoll_fd, event_fd;
    pthread_t thread;
    bool thread_started, state_begun;
    void *state; /* of config.thread_begin */
    bool listening;
    atomic_bool woken;       /* of au_http_server_wake; any thread */
    atomic_bool shed;        /* connections are short: close idle ones; any thread */
    int64_t listen_again_ms; /* accept was paused for want of descriptors; 0: not */
    au_http_conn *conns;
    int64_t next_check_ms;
    pthread_mutex_t mutex;
    au_http_conn *inbox; /* under mutex */
} au_http_loop;

enum { SERVER_RUN, SERVER_DRAIN, SERVER_STOP };

struct au_http_server {
    au_http_config config;
    au_http_guard guard;
    char *bound_host; /* owned */
    bool remote;      /* that is no loopback address */
    char *url;        /* owned */
    int listen_fd;    /* of the accepting loop while that runs; -1: closed */
    atomic_int phase; /* SERVER_RUN ... */
    _Atomic int64_t force_at_ms;
    atomic_int n_conns, n_overflow, n_active; /* overflow connections are not in n_conns */
    au_http_stats *stats;
    unsigned next_loop; /* of the accepting loop alone */
    au_http_loop *loops;
};

/* conn.c */
au_http_conn *au_http_conn_new(au_http_loop *loop, int fd);
void au_http_conn_start(au_http_conn *c);                  /* on its loop: registers and reads */
void au_http_conn_event(au_http_conn *c, uint32_t events); /* may free c, as may the following */
void au_http_conn_deadline(au_http_conn *c);               /* it has passed */
void au_http_conn_resumed(au_http_conn *c);
void au_http_conn_woken(au_http_conn *c);
void au_http_conn_close(au_http_conn *c); /* not in CONN_WAIT */
void au_http_conn_set_deadline(au_http_conn *c, int64_t deadline_ms);
void au_http_conn_decide_close(au_http_conn *c); /* whether the reply is the connection's last */

/* loop.c */
void *au_http_loop_main(void *loop);
void au_http_loop_post(au_http_loop *loop, au_http_conn *c); /* any thread */
void au_http_loop_wake(au_http_loop *loop);                  /* any thread */

/* request.c */
void au_http_request_init(au_http_request *rq, au_http_conn *c);
void au_http_request_deinit(au_http_request *rq);

/* response.c */
void au_http_response_init(response *res);
void au_http_response_deinit(response *res);
/* Builds the head and the list of segments. keep_alive false adds Connection: close. False: no
 * memory. */
bool au_http_response_prepare(au_http_request *rq, bool keep_alive);

typedef enum send_result { SEND_DONE, SEND_BLOCKED, SEND_BROKEN } send_result;
send_result au_http_response_send(au_http_request *rq, int fd);

/* stream.c: the head, then what was written. DONE: all of it. */
send_result au_http_stream_send(au_http_request *rq, int fd);

#endif
