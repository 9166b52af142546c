/* SPDX-License-Identifier: MIT */
/* One connection: reads a head, checks it, reads a body, calls the handler, sends the reply, and
 * begins again. All of it on the connection's loop thread.
 *
 * Everything that can be refused before the body is read is refused then (route, host, origin,
 * length, type), and such a connection ends after the reply, since what follows on it is the body.
 * Deadlines are absolute, so a client that sends a byte now and then gains nothing. Framing is
 * strict (http1.c), which is why this is not left to a library that repairs requests silently and
 * words its own error pages. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/internal.h"

enum {
    INPUT_FIRST_BYTES = 4096,
    INPUT_MAX_BYTES = AU_HTTP_HEAD_MAX + 1,
    LINGER_MS = 2000,
    BODY_BYTES_PER_MS = 16, /* the slowest average at which a body may arrive */
    SEND_BYTES_PER_MS =
        1, /* the slowest average at which a reply may be read: slower than any audio plays */
    DISCARD_PER_EVENT = 16,
    UPLOAD_BYTES_PER_EVENT = 256 << 10, /* then the other connections of the loop have their turn */
};

typedef enum step { STEP_GO, STEP_BLOCKED, STEP_CLOSED } step;

void au_http_conn_set_deadline(au_http_conn *c, int64_t deadline_ms)
{
    c->deadline_ms = deadline_ms;
    if (deadline_ms < c->loop->next_check_ms)
        c->loop->next_check_ms = deadline_ms;
}

static void set_events(au_http_conn *c, uint32_t events)
{
    if (events == c->events || c->peer_gone)
        return;
    struct epoll_event ev = {.events = events, .data.ptr = c};
    if (epoll_ctl(c->loop->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) == 0)
        c->events = events;
}

au_http_conn *au_http_conn_new(au_http_loop *loop, int fd)
{
    au_http_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->loop = loop;
    c->fd = fd;
    c->is_new = true;
    c->deadline_ms = INT64_MAX;
    return c;
}

static void begin_head(au_http_conn *c)
{
    const au_http_config *config = &c->loop->server->config;
    int64_t now = au_mono_ms();
    au_http_request_init(&c->rq, c);
    c->state = CONN_HEAD;
    c->scanned = 0;
    c->close_after = false;
    c->head_since_ms = now;
    au_http_conn_set_deadline(
        c, now + (c->in_len ? config->header_timeout_ms : config->idle_timeout_ms));
}

static void drive(au_http_conn *c);

void au_http_conn_start(au_http_conn *c)
{
    au_http_loop *loop = c->loop;
    c->is_new = false;
    c->next = loop->conns;
    if (c->next)
        c->next->prev = c;
    loop->conns = c;
    begin_head(c);
    /* A client that connects and says nothing is not worth more than one that is slow to speak. */
    au_http_conn_set_deadline(c, au_mono_ms() + loop->server->config.header_timeout_ms);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    c->events = EPOLLIN;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        au_http_conn_close(c);
        return;
    }
    drive(c);
}

static void end_request(au_http_conn *c)
{
    if (c->rq.active)
        atomic_fetch_sub(&c->loop->server->n_active, 1);
    au_http_request_deinit(&c->rq);
}

void au_http_conn_close(au_http_conn *c)
{
    AU_ASSERT(c->state != CONN_WAIT);
    au_http_loop *loop = c->loop;
    if (c->prev)
        c->prev->next = c->next;
    else
        loop->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    end_request(c);
    /* Closing alone would not end its events: a process that is being started holds a copy of the
     * descriptor until it has executed its program, and epoll knows the open socket, not the
     * number. */
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    atomic_fetch_sub(c->overflow ? &loop->server->n_overflow : &loop->server->n_conns, 1);
    free(c->in);
    free(c);
}

static void consume(au_http_conn *c, size_t n)
{
    memmove(c->in, c->in + n, c->in_len - n);
    c->in_len -= n;
}

/* Reads more into `in`. BLOCKED: nothing there yet. */
static step receive(au_http_conn *c)
{
    if (c->in_len == c->in_cap) {
        size_t cap = c->in_cap ? c->in_cap * 2 : INPUT_FIRST_BYTES;
        if (cap > INPUT_MAX_BYTES)
            cap = INPUT_MAX_BYTES;
        char *in = realloc(c->in, cap);
        if (!in)
            return STEP_CLOSED;
        c->in = in;
        c->in_cap = cap;
    }
    ssize_t n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        set_events(c, EPOLLIN);
        return STEP_BLOCKED;
    }
    if (n <= 0)
        return STEP_CLOSED;
    c->in_len += (size_t)n;
    return STEP_GO;
}

void au_http_conn_decide_close(au_http_conn *c)
{
    if (!c->rq.head.keep_alive || c->overflow || atomic_load(&c->loop->server->phase) != SERVER_RUN)
        c->close_after = true;
}

static step begin_write(au_http_conn *c)
{
    au_http_server *server = c->loop->server;
    AU_ASSERT(c->rq.res.set && !c->rq.stream.begun);
    au_http_conn_decide_close(c);
    if (!au_http_response_prepare(&c->rq, !c->close_after))
        return STEP_CLOSED;
    c->state = CONN_WRITE;
    c->write_started_ms = au_mono_ms();
    au_http_conn_set_deadline(c, c->write_started_ms + server->config.idle_timeout_ms);
    return STEP_GO;
}

/* Answers with a problem and ends the connection: what follows on it cannot be trusted, or is a
 * body that nobody reads. */
static step refuse(au_http_conn *c, au_problem problem, const char *detail)
{
    c->close_after = true;
    au_http_problem(&c->rq, problem, "%s", detail);
    return begin_write(c);
}

/* Lines of this thread name the request, and the caller's trace where there is one, from here on.
 */
static void log_begin(const au_http_request *rq)
{
    au_log_context("req", rq->id);
    au_log_context("trace", rq->trace[0] ? rq->trace : NULL);
}

static void log_end(void)
{
    au_log_context("req", NULL);
    au_log_context("trace", NULL);
}

static step run_handler(au_http_conn *c, au_http_handler handler)
{
    log_begin(&c->rq);
    au_http_result result = handler(&c->rq);
    log_end();
    switch (result) {
    case AU_HTTP_DONE:
        return begin_write(c);
    case AU_HTTP_AGAIN:
        /* au_http_again set handler and deadline. A request that has nothing to read notices a
         * client that leaves. */
        c->state = CONN_AGAIN;
        set_events(c, EPOLLRDHUP);
        return STEP_BLOCKED;
    case AU_HTTP_STREAM:
        c->state = CONN_STREAM;
        return STEP_GO;
    case AU_HTTP_PENDING:
        break;
    case AU_HTTP_RECEIVE:
        AU_ASSERT(false && "only the first handler of an upload receives");
    }
    c->state = CONN_WAIT;
    c->deadline_ms = INT64_MAX;
    return STEP_BLOCKED;
}

static au_http_result call_route(au_http_request *rq)
{
    const au_http_config *config = &rq->conn->loop->server->config;
    au_http_result result;
    if (config->before && config->before(rq, &result))
        return result;
    return rq->match.route->handler(rq);
}

static bool is_json_type(const char *type)
{
    static const char json[] = "application/json";
    size_t n = strcspn(type, "; \t");
    if (n != sizeof json - 1 || strncasecmp(type, json, n) != 0)
        return false;
    const char *p = type + n;
    while (*p) {
        p += strspn(p, "; \t");
        if (strncasecmp(p, "charset=", 8) == 0) {
            const char *charset = p + 8;
            size_t quote = *charset == '"';
            if (strncasecmp(charset + quote, "utf-8", 5) != 0)
                return false;
            p = charset + quote + 5 + quote;
            if (*p && !strchr("; \t", *p))
                return false;
        } else {
            p += strcspn(p, ";");
        }
    }
    return true;
}

static uint64_t max_body(const au_http_conn *c)
{
    const au_http_config *config = &c->loop->server->config;
    bool upload = c->rq.match.route->flags & AU_ROUTE_UPLOAD;
    return upload ? config->max_upload_bytes : config->max_body_bytes;
}

/* Behind a proxy that does not take the base path off. */
static void strip_base_path(au_http_request *rq, const char *base)
{
    size_t n = base ? strlen(base) : 0;
    const char *path = rq->head.path;
    if (n && strncmp(path, base, n) == 0 && (path[n] == '/' || path[n] == '\0'))
        rq->head.path = path[n] ? path + n : "/";
}

/* Whether the request is for something here, and may come from where it does. */
static au_problem check_target(au_http_conn *c, const char **detail)
{
    au_http_request *rq = &c->rq;
    au_http_server *server = c->loop->server;
    const au_http_head *head = &rq->head;
    if (head->host && !au_http_authority_valid(head->host)) {
        *detail = "Host is not a host name with an optional port";
        return AU_PROBLEM_BAD_REQUEST;
    }
    if (head->host && !au_http_guard_host(&server->guard, head->host)) {
        *detail =
            "Host is neither the address listened on, nor loopback, nor one of the allowed hosts";
        return AU_PROBLEM_MISDIRECTED;
    }
    strip_base_path(rq, server->config.base_path);
    au_problem p =
        au_http_route_find(&rq->match, server->config.routes, &rq->arena, head->method, head->path);
    if (p) {
        if (p == AU_PROBLEM_METHOD_NOT_ALLOWED)
            au_http_set_header(rq, "Allow", "%s", rq->match.allow);
        *detail = p == AU_PROBLEM_NOT_FOUND ? "nothing is at this path"
                  : p == AU_PROBLEM_METHOD_NOT_ALLOWED
                      ? "the path does not take this method"
                      : "the path holds an escape that cannot be decoded";
        return p;
    }
    if (c->overflow && !(rq->match.route->flags & AU_ROUTE_ALWAYS)) {
        *detail = "too many connections";
        au_http_set_header(rq, "Retry-After", "1");
        return AU_PROBLEM_UNAVAILABLE;
    }
    if (!au_http_is_safe(rq) &&
        !au_http_guard_origin(&server->guard, head->host, au_http_header(rq, "origin"),
                              au_http_header(rq, "sec-fetch-site"))) {
        *detail = "Origin or Sec-Fetch-Site names a foreign site";
        return AU_PROBLEM_FORBIDDEN_ORIGIN;
    }
    return AU_PROBLEM_NONE;
}

/* What can be refused of a body before it is read. */
static au_problem check_body_head(au_http_conn *c, const char **detail)
{
    au_http_request *rq = &c->rq;
    const au_http_head *head = &rq->head;
    bool has_body = head->chunked || head->length > 0;
    if (has_body && head->length > max_body(c)) {
        *detail = "the body is larger than this server takes";
        return AU_PROBLEM_TOO_LARGE;
    }
    const char *encoding = au_http_header(rq, "content-encoding");
    const char *type = au_http_header(rq, "content-type");
    if (has_body && encoding && strcasecmp(encoding, "identity") != 0) {
        *detail = "Content-Encoding is not supported";
        return AU_PROBLEM_MEDIA_TYPE;
    }
    if (has_body && (rq->match.route->flags & AU_ROUTE_JSON) && (!type || !is_json_type(type))) {
        *detail = "Content-Type is not application/json";
        return AU_PROBLEM_MEDIA_TYPE;
    }
    return AU_PROBLEM_NONE;
}

static void set_body_deadline(au_http_conn *c)
{
    int64_t paid = (int64_t)(c->body_received / BODY_BYTES_PER_MS);
    au_http_conn_set_deadline(c, c->body_started_ms + c->loop->server->config.header_timeout_ms +
                                     paid);
}

static bool is_authorized(au_http_conn *c)
{
    bool (*authorize)(au_http_request *) = c->loop->server->config.authorize;
    if (!authorize)
        return true;
    log_begin(&c->rq);
    bool may = authorize(&c->rq);
    log_end();
    return may;
}

static step begin_body(au_http_conn *c)
{
    au_http_request *rq = &c->rq;
    c->state = CONN_BODY;
    c->body_left = rq->head.length;
    c->body_received = c->upload_bytes = 0;
    c->body_started_ms = rq->started_ms;
    c->chunked = (au_chunked){0};
    au_buf_init(&rq->body, rq->piece ? INPUT_MAX_BYTES : c->loop->server->config.max_body_bytes);
    set_body_deadline(c);
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (rq->head.expect_continue && c->in_len == 0 &&
        send(c->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL) != (ssize_t)sizeof go_on - 1)
        return STEP_CLOSED;
    return STEP_GO;
}

/* The handler decides on the head alone whether it wants the body. */
static step begin_upload(au_http_conn *c)
{
    au_http_request *rq = &c->rq;
    bool has_body = rq->head.chunked || rq->head.length > 0;
    log_begin(rq);
    au_http_result result = rq->match.route->handler(rq);
    log_end();
    AU_ASSERT(result == AU_HTTP_DONE || result == AU_HTTP_RECEIVE);
    if (result == AU_HTTP_DONE) {
        c->close_after = has_body;
        return begin_write(c);
    }
    return has_body ? begin_body(c) : run_handler(c, rq->next);
}

static step begin_request(au_http_conn *c, size_t head_len)
{
    au_http_request *rq = &c->rq;
    au_http_server *server = c->loop->server;
    const char *detail = "";
    rq->started_ms = au_mono_ms();
    rq->started_ns = au_mono_ns();
    rq->active = true;
    atomic_fetch_add(&server->n_active, 1);
    au_problem p = au_http1_parse(&rq->head, &rq->arena, c->in, head_len, &detail);
    consume(c, head_len);
    const char *traceparent = p ? NULL : au_http_header(rq, "traceparent");
    if (traceparent && !au_trace_id_parse(rq->trace, traceparent))
        rq->trace[0] = '\0';
    if (!p)
        p = check_target(c, &detail);
    if (!p && !is_authorized(c)) {
        c->close_after = rq->head.chunked || rq->head.length > 0;
        return begin_write(c);
    }
    if (!p)
        p = check_body_head(c, &detail);
    if (p) {
        /* Where the head is sound and no body follows, the connection may stay. */
        if (rq->match.allow[0] || p == AU_PROBLEM_NOT_FOUND || p == AU_PROBLEM_FORBIDDEN_ORIGIN)
            c->close_after = rq->head.chunked || rq->head.length > 0;
        else
            c->close_after = true;
        au_http_problem(rq, p, "%s", detail);
        return begin_write(c);
    }
    if (rq->match.route->flags & AU_ROUTE_UPLOAD)
        return begin_upload(c);
    if (!rq->head.chunked && rq->head.length == 0)
        return run_handler(c, call_route);
    return begin_body(c);
}

static step step_head(au_http_conn *c)
{
    /* RFC 9112 2.2: an empty line before the request line is forgiven. */
    if (c->scanned == 0 && c->in_len >= 2 && memcmp(c->in, "\r\n", 2) == 0)
        consume(c, 2);
    size_t head_len = 0;
    switch (au_http1_scan(c->in, c->in_len, &c->scanned, &head_len)) {
    case AU_SCAN_DONE:
        return head_len <= AU_HTTP_HEAD_MAX ? begin_request(c, head_len)
                                            : refuse(c, AU_PROBLEM_HEADERS_TOO_LARGE,
                                                     "request head is larger than 32768 bytes");
    case AU_SCAN_BAD:
        return refuse(c, AU_PROBLEM_BAD_REQUEST,
                      "request head holds a NUL, or a line that does not end with CR LF");
    case AU_SCAN_MORE:
        break;
    }
    if (c->in_len >= AU_HTTP_LINE_MAX && !memchr(c->in, '\n', AU_HTTP_LINE_MAX))
        return refuse(c, AU_PROBLEM_URI_TOO_LONG, "request line is longer than 8192 bytes");
    if (c->in_len >= INPUT_MAX_BYTES)
        return refuse(c, AU_PROBLEM_HEADERS_TOO_LARGE, "request head is larger than 32768 bytes");
    bool first = c->in_len == 0;
    step s = receive(c);
    if (s == STEP_GO && first) {
        c->head_since_ms = au_mono_ms();
        au_http_conn_set_deadline(c, c->head_since_ms + c->loop->server->config.header_timeout_ms);
    }
    return s;
}

/* Gives what has arrived to the handler of an upload: straight from the input, or as the chunked
 * coding left it in rq->body. False: refused, and the reply is set. */
static bool give_piece(au_http_conn *c, const char *data, size_t len)
{
    au_http_request *rq = &c->rq;
    c->upload_bytes += len;
    c->burst += len;
    if (c->upload_bytes > c->loop->server->config.max_upload_bytes) {
        au_http_problem(rq, AU_PROBLEM_TOO_LARGE, "the body is larger than this server takes");
        return false;
    }
    log_begin(rq);
    bool taken = len == 0 || rq->piece(rq, data, len);
    log_end();
    return taken;
}

static step step_upload(au_http_conn *c)
{
    au_http_request *rq = &c->rq;
    au_http_scan scan = AU_SCAN_MORE;
    size_t used = 0;
    bool taken;
    if (rq->head.chunked) {
        au_buf_clear(&rq->body);
        scan = au_chunked_feed(&c->chunked, &rq->body, c->in, c->in_len, &used);
        if (rq->body.status != AU_OK)
            return refuse(c, AU_PROBLEM_UNAVAILABLE, "out of memory");
        taken = give_piece(c, rq->body.data, rq->body.len);
    } else {
        used = c->in_len < c->body_left ? c->in_len : (size_t)c->body_left;
        c->body_left -= used;
        scan = c->body_left == 0 ? AU_SCAN_DONE : AU_SCAN_MORE;
        taken = give_piece(c, c->in, used);
    }
    c->body_received += used;
    consume(c, used);
    if (!taken || scan == AU_SCAN_BAD)
        c->close_after = true;
    if (!taken)
        return begin_write(c);
    if (scan == AU_SCAN_BAD)
        return refuse(c, AU_PROBLEM_BAD_REQUEST, "body is not in the chunked coding");
    if (scan == AU_SCAN_DONE)
        return run_handler(c, rq->next);
    set_body_deadline(c);
    if (c->burst < UPLOAD_BYTES_PER_EVENT)
        return receive(c);
    set_events(c, EPOLLIN); /* level-triggered: the rest is told of again */
    return STEP_BLOCKED;
}

static step step_body(au_http_conn *c)
{
    if (c->rq.piece)
        return step_upload(c);
    au_http_request *rq = &c->rq;
    au_http_scan scan = AU_SCAN_MORE;
    size_t used = 0;
    if (rq->head.chunked) {
        scan = au_chunked_feed(&c->chunked, &rq->body, c->in, c->in_len, &used);
    } else {
        used = c->in_len < c->body_left ? c->in_len : (size_t)c->body_left;
        au_buf_append(&rq->body, c->in, used);
        c->body_left -= used;
        if (c->body_left == 0)
            scan = AU_SCAN_DONE;
    }
    c->body_received += used;
    consume(c, used);
    if (rq->body.status == AU_NOMEM)
        return refuse(c, AU_PROBLEM_UNAVAILABLE, "out of memory");
    if (rq->body.status != AU_OK)
        return refuse(c, AU_PROBLEM_TOO_LARGE, "the body is larger than this server takes");
    if (scan == AU_SCAN_BAD)
        return refuse(c, AU_PROBLEM_BAD_REQUEST, "body is not in the chunked coding");
    if (scan == AU_SCAN_DONE)
        return run_handler(c, call_route);
    set_body_deadline(c);
    return receive(c);
}

/* A token in a path lets in whoever knows it: then the log has the pattern alone. */
static const char *path_for_log(const au_http_request *rq)
{
    const au_http_route *route = rq->match.route;
    if (route && strstr(route->pattern, "{token}"))
        return route->pattern;
    return rq->head.path ? rq->head.path : "-";
}

/* The reply is sent: the next request, or the end. */
static step end_reply(au_http_conn *c)
{
    au_http_request *rq = &c->rq;
    const int64_t taken_ns = rq->started_ns ? au_mono_ns() - rq->started_ns : 0;
    au_http_stats_count(c->loop->server->stats, rq->match.route, rq->res.status, taken_ns,
                        rq->res.length);
    if (au_log_enabled(AU_LOG_INFO)) {
        char path[256];
        log_begin(rq);
        au_log(AU_LOG_INFO, "http", "request method=%s path=%s status=%d bytes=%llu us=%lld",
               rq->head.method ? rq->head.method : "-",
               au_log_quote(path, sizeof path, path_for_log(rq)), rq->res.status,
               (unsigned long long)rq->res.length, (long long)(taken_ns / 1000));
        log_end();
    }
    bool last = c->close_after;
    end_request(c);
    begin_head(c);
    if (last) {
        shutdown(c->fd, SHUT_WR);
        c->state = CONN_LINGER;
        c->in_len = 0;
        au_http_conn_set_deadline(c, au_mono_ms() + LINGER_MS);
    } else if (c->in_len == 0) {
        /* The next request has hardly come yet: rather than a look that finds nothing, wait. */
        set_events(c, EPOLLIN);
        return STEP_BLOCKED;
    }
    return STEP_GO;
}

/* Whoever reads nothing for a while is cut off, and so is who reads a byte now and then. */
static void set_write_deadline(au_http_conn *c)
{
    int64_t patience = c->loop->server->config.idle_timeout_ms;
    int64_t paid = (int64_t)(c->rq.res.sent / SEND_BYTES_PER_MS);
    int64_t idle = au_mono_ms() + patience, slow = c->write_started_ms + patience + paid;
    au_http_conn_set_deadline(c, idle < slow ? idle : slow);
}

static step step_write(au_http_conn *c)
{
    au_http_request *rq = &c->rq;
    uint64_t before = rq->res.sent;
    send_result result = au_http_response_send(rq, c->fd);
    if (result == SEND_BROKEN)
        return STEP_CLOSED;
    if (result == SEND_BLOCKED) {
        if (rq->res.sent != before)
            set_write_deadline(c);
        set_events(c, EPOLLOUT);
        return STEP_BLOCKED;
    }
    return end_reply(c);
}

/* The same for a stream, from when it could not send all that there was. */
static void set_stall_time(au_http_conn *c, uint64_t sent_before)
{
    stream *s = &c->rq.stream;
    int64_t patience = c->loop->server->config.idle_timeout_ms, now = au_mono_ms();
    if (!s->blocked_ms) {
        s->blocked_ms = now;
        s->blocked_at = c->rq.res.sent;
        s->stall_ms = now + patience;
    } else if (c->rq.res.sent != sent_before) {
        int64_t paid = (int64_t)((c->rq.res.sent - s->blocked_at) / SEND_BYTES_PER_MS);
        int64_t idle = now + patience, slow = s->blocked_ms + patience + paid;
        s->stall_ms = idle < slow ? idle : slow;
    }
}

/* What the pump wrote goes out; then it is waited for the pump's next turn. A client that reads
 * slowly is waited for without the pump, until it has read all or for too long nothing. */
static step step_stream(au_http_conn *c)
{
    stream *s = &c->rq.stream;
    uint64_t before = c->rq.res.sent;
    send_result result = au_http_stream_send(&c->rq, c->fd);
    if (result == SEND_BROKEN)
        return STEP_CLOSED;
    if (result == SEND_BLOCKED) {
        set_stall_time(c, before);
        au_http_conn_set_deadline(c,
                                  s->ended || s->stall_ms < s->pump_ms ? s->stall_ms : s->pump_ms);
        set_events(c, EPOLLOUT | EPOLLRDHUP);
        return STEP_BLOCKED;
    }
    s->stall_ms = s->blocked_ms = 0;
    if (s->ended) {
        au_http_conn_decide_close(c); /* a drain may have begun since the head was sent */
        return end_reply(c);
    }
    if (s->refused) {
        s->refused = false;
        return run_handler(c, c->rq.next);
    }
    if (c->in_len == 0) {
        /* Nothing is read meanwhile, perhaps for hours. */
        free(c->in);
        c->in = NULL;
        c->in_cap = 0;
    }
    au_http_conn_set_deadline(c, s->pump_ms);
    set_events(c, EPOLLRDHUP);
    return STEP_BLOCKED;
}

static step step_linger(au_http_conn *c)
{
    char waste[16384];
    for (int i = 0; i < DISCARD_PER_EVENT; i++) {
        ssize_t n = recv(c->fd, waste, sizeof waste, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return STEP_CLOSED;
        if (n < 0)
            break;
    }
    set_events(c, EPOLLIN);
    return STEP_BLOCKED;
}

static void drive(au_http_conn *c)
{
    step s = STEP_GO;
    while (s == STEP_GO) {
        switch (c->state) {
        case CONN_HEAD:
            s = step_head(c);
            break;
        case CONN_BODY:
            s = step_body(c);
            break;
        case CONN_WRITE:
            s = step_write(c);
            break;
        case CONN_STREAM:
            s = step_stream(c);
            break;
        case CONN_LINGER:
            s = step_linger(c);
            break;
        case CONN_WAIT:
        case CONN_AGAIN:
            s = STEP_BLOCKED;
            break;
        }
    }
    if (s == STEP_CLOSED)
        au_http_conn_close(c);
}

void au_http_conn_event(au_http_conn *c, uint32_t events)
{
    bool gone = (events & (EPOLLHUP | EPOLLERR)) != 0;
    c->burst = 0;
    if (c->state == CONN_WAIT) {
        /* Nothing can be done now; stop level-triggered events until the reply is there. */
        if (gone) {
            epoll_ctl(c->loop->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
            c->peer_gone = true;
        } else {
            set_events(c, 0);
        }
        return;
    }
    if (c->state == CONN_AGAIN || (c->state == CONN_STREAM && (gone || (events & EPOLLRDHUP)))) {
        /* A half-closed client is taken for one that has gone: browsers and curl close both ways.
         */
        au_http_conn_close(c);
        return;
    }
    drive(c);
}

void au_http_conn_deadline(au_http_conn *c)
{
    step s = STEP_CLOSED;
    if (c->state == CONN_AGAIN) {
        s = run_handler(c, c->rq.next);
    } else if (c->state == CONN_STREAM) {
        const stream *out = &c->rq.stream;
        bool stalled = out->stall_ms && out->stall_ms <= au_mono_ms();
        if (!stalled)
            s = run_handler(c, c->rq.next);
    } else if (c->state == CONN_BODY) {
        s = refuse(c, AU_PROBLEM_TIMEOUT, "the body did not arrive in time");
    } else if (c->state == CONN_HEAD && c->in_len > 0) {
        s = refuse(c, AU_PROBLEM_TIMEOUT, "the request head did not arrive in time");
    }
    if (s == STEP_CLOSED)
        au_http_conn_close(c);
    else if (s == STEP_GO)
        drive(c);
}

void au_http_conn_woken(au_http_conn *c)
{
    if (c->state != CONN_AGAIN && (c->state != CONN_STREAM || c->rq.stream.ended))
        return;
    step s = run_handler(c, c->rq.next);
    if (s == STEP_CLOSED)
        au_http_conn_close(c);
    else if (s == STEP_GO)
        drive(c);
}

void au_http_conn_resumed(au_http_conn *c)
{
    AU_ASSERT(c->state == CONN_WAIT);
    c->state = CONN_AGAIN; /* may be closed from here */
    step s = STEP_CLOSED;
    if (!c->peer_gone)
        s = c->rq.next ? run_handler(c, c->rq.next) : begin_write(c);
    if (s == STEP_CLOSED)
        au_http_conn_close(c);
    else if (s == STEP_GO)
        drive(c);
}
