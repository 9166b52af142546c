/* SPDX-License-Identifier: MIT */
/* Streamed replies: a head without a length, then pieces as the handler writes them, each a chunk.
 *
 * `out` holds what the socket has not taken: pieces are taken only while it holds less than
 * AU_HTTP_STREAM_BUFFER, so its size is bounded by that and the largest piece; its memory is given
 * back when it is empty, since most streams are silent most of the time. All of it on the loop
 * thread of the connection. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "http/internal.h"

enum {
    OUT_MAX_BYTES = 64 << 20, /* of a piece, as of any reply in memory */
    KEEP_BYTES = 4096,        /* an empty buffer larger than this is given back */
};

void au_http_stream_begin(au_http_request *rq, const char *type)
{
    stream *s = &rq->stream;
    au_http_conn *c = rq->conn;
    AU_ASSERT(!rq->res.set);
    *s = (stream){.begun = true, .chunked = rq->head.minor >= 1, .pump_ms = INT64_MAX};
    au_buf_init(&s->out, OUT_MAX_BYTES);
    au_http_set_header(rq, "Content-Type", "%s", type);
    rq->res.set = true;
    rq->res.status = 200;
    if (!s->chunked)
        c->close_after = true; /* its end is the reply's */
    au_http_conn_decide_close(c);
    if (!au_http_response_prepare(rq, !c->close_after))
        s->out.status = AU_NOMEM;
}

static size_t unsent(const stream *s)
{
    return s->out.len - s->sent;
}

bool au_http_stream_has_room(au_http_request *rq)
{
    stream *s = &rq->stream;
    s->refused = s->refused || unsent(s) >= AU_HTTP_STREAM_BUFFER;
    return unsent(s) < AU_HTTP_STREAM_BUFFER;
}

bool au_http_stream_write(au_http_request *rq, const void *piece, size_t len)
{
    stream *s = &rq->stream;
    AU_ASSERT(s->begun && !s->ended);
    if (len == 0 || au_http_is_head(rq))
        return true;
    if (!au_http_stream_has_room(rq))
        return false;
    if (s->sent >= AU_HTTP_STREAM_BUFFER) { /* a reader that never quite catches up */
        s->out.len -= s->sent;
        memmove(s->out.data, s->out.data + s->sent, s->out.len);
        s->sent = 0;
    }
    if (s->chunked)
        au_buf_printf(&s->out, "%zx\r\n", len);
    au_buf_append(&s->out, piece, len);
    if (s->chunked)
        au_buf_str(&s->out, "\r\n");
    rq->res.length += len;
    return true;
}

bool au_http_stream_idle(const au_http_request *rq)
{
    return unsent(&rq->stream) == 0;
}

au_http_result au_http_stream_wait(au_http_request *rq, au_http_handler pump, int64_t delay_ms)
{
    AU_ASSERT(rq->stream.begun && !rq->stream.ended);
    rq->next = pump;
    rq->wakes = true;
    rq->stream.pump_ms = au_mono_ms() + delay_ms;
    return AU_HTTP_STREAM;
}

au_http_result au_http_stream_end(au_http_request *rq)
{
    stream *s = &rq->stream;
    AU_ASSERT(s->begun && !s->ended);
    if (s->chunked && !au_http_is_head(rq))
        au_buf_str(&s->out, "0\r\n\r\n");
    s->ended = true;
    s->refused = false;
    rq->wakes = false;
    return AU_HTTP_STREAM;
}

send_result au_http_stream_send(au_http_request *rq, int fd)
{
    stream *s = &rq->stream;
    if (s->out.status != AU_OK)
        return SEND_BROKEN; /* out of memory: a piece is missing */
    send_result result = au_http_response_send(rq, fd);
    while (result == SEND_DONE && unsent(s) > 0) {
        ssize_t n = send(fd, s->out.data + s->sent, unsent(s), MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? SEND_BLOCKED : SEND_BROKEN;
        s->sent += (size_t)n;
        rq->res.sent += (uint64_t)n;
    }
    if (result != SEND_DONE)
        return result;
    s->sent = 0;
    if (s->out.cap > KEEP_BYTES)
        au_buf_deinit(&s->out);
    else
        au_buf_clear(&s->out);
    return SEND_DONE;
}
