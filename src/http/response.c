/* SPDX-License-Identifier: MIT */
/* Replies: setting them (JSON, text, a file with ranges and preconditions, a problem) and sending
 * them as a list of segments, memory by sendmsg and files by sendfile. A reply is set once, by
 * whoever holds the request. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "http/internal.h"

enum {
    FIELDS_MAX_BYTES = 16384,
    HEAD_MAX_BYTES = 32768,
    IOV_MAX_HERE = 8,
    RETRY_AFTER_S = 5, /* where whoever refuses knows no better */
    SENDFILE_BYTES = 1 << 20,
    COPIED_BYTES = 16 << 10,
    SEND_BUDGET_BYTES = 4 << 20, /* then other connections of the loop get their turn */
};

void au_http_response_init(response *res)
{
    *res = (response){.fd = -1};
    au_buf_init(&res->fields, FIELDS_MAX_BYTES);
    au_buf_init(&res->body, RESPONSE_MAX_BYTES);
    au_buf_init(&res->head, HEAD_MAX_BYTES);
}

void au_http_response_deinit(response *res)
{
    au_buf_deinit(&res->fields);
    au_buf_deinit(&res->body);
    au_buf_deinit(&res->head);
    if (res->fd >= 0)
        close(res->fd);
    res->fd = -1;
}

void au_http_set_header(au_http_request *rq, const char *name, const char *fmt, ...)
{
    au_buf *fields = &rq->res.fields;
    au_buf_printf(fields, "%s: ", name);
    size_t begin = fields->len;
    va_list ap;
    va_start(ap, fmt);
    au_buf_vprintf(fields, fmt, ap);
    va_end(ap);
    for (size_t i = begin; fields->data && i < fields->len; i++)
        AU_ASSERT((unsigned char)fields->data[i] >= 0x20);
    const char *base = au_http_base_path(rq);
    if (*base && strcmp(name, "Location") == 0 && fields->data && fields->data[begin] == '/') {
        size_t len = fields->len - begin, n = strlen(base);
        au_buf_str(fields, base); /* for its room */
        if (fields->status == AU_OK) {
            memmove(fields->data + begin + n, fields->data + begin, len);
            memcpy(fields->data + begin, base, n);
        }
    }
    au_buf_str(fields, "\r\n");
}

static au_http_result set_reply(au_http_request *rq, int status)
{
    AU_ASSERT(!rq->res.set);
    rq->res.set = true;
    rq->res.status = status == 200 && rq->res.status_for_ok ? rq->res.status_for_ok : status;
    return AU_HTTP_DONE;
}

/* What was appended to the body so far is one segment more. */
static void add_segment(response *res, const char *mem, uint64_t offset, uint64_t len)
{
    AU_ASSERT(res->n_segments < SEGMENTS_MAX);
    if (res->n_segments == 0)
        res->n_segments = 1; /* [0] is kept for the head */
    res->segments[res->n_segments++] = (segment){mem, offset, len};
    res->length += len;
    res->has_length = true;
}

au_http_result au_http_reply_empty(au_http_request *rq, int status)
{
    return set_reply(rq, status);
}

static au_http_result reply_body(au_http_request *rq, int status, const char *type)
{
    response *res = &rq->res;
    au_http_set_header(rq, "Content-Type", "%s", type);
    add_segment(res, au_buf_cstr(&res->body), 0, res->body.len);
    return set_reply(rq, status);
}

au_http_result au_http_reply_text(au_http_request *rq, int status, const char *type,
                                  const char *text, size_t len)
{
    au_buf_append(&rq->res.body, text, len);
    return reply_body(rq, status, type);
}

/* A reply without memory for its body: the smallest problem there is. */
static au_http_result reply_out_of_memory(au_http_request *rq)
{
    au_buf_deinit(&rq->res.body);
    au_log(AU_LOG_ERROR, "http", "out of memory for a reply");
    return reply_body(rq, 500, "application/problem+json");
}

enum { ETAG_BYTES = 40 };

const char *au_http_base_path(const au_http_request *rq)
{
    const char *base = rq->conn ? rq->conn->loop->server->config.base_path : NULL;
    return base ? base : "";
}

static void place_urls(const char *base, json_t *json, bool all)
{
    const char *key;
    json_t *value;
    size_t i;
    void *next;
    json_array_foreach(json, i, value) place_urls(base, value, false);
    json_object_foreach_safe(json, next, key, value)
    {
        const char *text = json_string_value(value);
        if (text && text[0] == '/' && (all || strcmp(key, "url") == 0))
            json_object_set_new(json, key, json_sprintf("%s%s", base, text));
        else if (!text && strcmp(key, "attributes") != 0) /* those are the client's own */
            place_urls(base, value, strcmp(key, "urls") == 0);
    }
}

void au_http_place_urls(const au_http_request *rq, json_t *json)
{
    au_http_place_urls_at(au_http_base_path(rq), json);
}

void au_http_place_urls_at(const char *base_path, json_t *json)
{
    if (base_path && *base_path)
        place_urls(base_path, json, false);
}

/* An etag of the bytes is cheap beside making them. */
static void bytes_etag(char etag[ETAG_BYTES], const char *data, size_t len)
{
    char hex[AU_SHA256_TEXT];
    au_sha256_hex(hex, data, len);
    snprintf(etag, ETAG_BYTES, "\"%.32s\"", hex);
}

static void dump(au_buf *body, const json_t *json)
{
    au_json_dump(body, json);
    au_buf_char(body, '\n'); /* for people with curl */
}

bool au_http_if_match(au_http_request *rq, json_t *current)
{
    const char *match = au_http_header(rq, "if-match");
    char etag[ETAG_BYTES];
    au_buf body;
    au_buf_init(&body, RESPONSE_MAX_BYTES);
    au_http_place_urls(rq, current);
    if (match && current)
        dump(&body, current);
    bytes_etag(etag, body.data, body.len);
    bool holds = !match || (body.status == AU_OK && au_etag_list_has(match, etag, true));
    if (!holds)
        au_http_problem(rq, AU_PROBLEM_PRECONDITION, "If-Match does not name %s, which is here now",
                        etag);
    au_buf_deinit(&body);
    json_decref(current);
    return holds;
}

/* Whether a conditional GET of these bytes ends here. */
static bool not_modified(au_http_request *rq, const char *data, size_t len)
{
    char etag[ETAG_BYTES];
    bytes_etag(etag, data, len);
    au_http_set_header(rq, "ETag", "%s", etag);
    au_http_set_header(rq, "Cache-Control", "private, no-cache");
    const char *none_match = au_http_header(rq, "if-none-match");
    return none_match && au_etag_list_has(none_match, etag, false);
}

au_http_result au_http_reply_fixed(au_http_request *rq, const char *type, const char *text,
                                   size_t len)
{
    if (not_modified(rq, text, len))
        return set_reply(rq, 304);
    au_http_set_header(rq, "Content-Type", "%s", type);
    add_segment(&rq->res, text, 0, len);
    return set_reply(rq, 200);
}

au_http_result au_http_reply_json(au_http_request *rq, int status, json_t *json)
{
    response *res = &rq->res;
    if (!json)
        return reply_out_of_memory(rq);
    au_http_place_urls(rq, json);
    dump(&res->body, json);
    json_decref(json);
    if (res->body.status != AU_OK)
        return reply_out_of_memory(rq);
    bool get = strcmp(rq->head.method, "GET") == 0 || au_http_is_head(rq);
    if (status == 200 && get && not_modified(rq, res->body.data, res->body.len))
        return set_reply(rq, 304);
    return reply_body(rq, status, "application/json");
}

/* Merges `more` into the problem and takes it over. */
static au_http_result reply_problem(au_http_request *rq, au_problem problem, json_t *more,
                                    const char *fmt, va_list ap) AU_PRINTF(4, 0);
static au_http_result reply_problem(au_http_request *rq, au_problem problem, json_t *more,
                                    const char *fmt, va_list ap)
{
    response *res = &rq->res;
    au_buf detail;
    au_buf_init(&detail, 4096);
    au_buf_vprintf(&detail, fmt, ap);
    json_t *j = au_problem_json(problem, au_buf_cstr(&detail), rq->id);
    au_buf_deinit(&detail);
    if (j && more)
        json_object_update(j, more);
    if (j)
        au_json_dump(&res->body, j);
    au_buf_char(&res->body, '\n');
    json_decref(more);
    json_decref(j);
    au_http_set_header(rq, "Cache-Control", "no-store");
    int status = au_problem_get(problem)->status;
    /* "Come back" always says when. */
    if ((status == 429 || status == 503) && !strstr(au_buf_cstr(&res->fields), "Retry-After: "))
        au_http_set_header(rq, "Retry-After", "%d", RETRY_AFTER_S);
    return reply_body(rq, status, "application/problem+json");
}

au_http_result au_http_problem(au_http_request *rq, au_problem problem, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    reply_problem(rq, problem, NULL, fmt, ap);
    va_end(ap);
    return AU_HTTP_DONE;
}

au_http_result au_http_problem_more(au_http_request *rq, au_problem problem, json_t *more,
                                    const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    reply_problem(rq, problem, more, fmt, ap);
    va_end(ap);
    return AU_HTTP_DONE;
}

au_http_result au_http_internal(au_http_request *rq, const au_err *err)
{
    char text[512];
    au_log_context("req", rq->id);
    au_log(AU_LOG_ERROR, "http", "request failed error=%s",
           au_log_quote(text, sizeof text, err->message));
    au_log_context("req", NULL);
    return au_http_problem(
        rq, AU_PROBLEM_INTERNAL,
        "something went wrong here; the log has the details under this request id");
}

/* ---- Files ---- */

/* RFC 9110 13.2.2: If-Match, then If-None-Match. 0: go on. */
static int check_preconditions(const au_http_request *rq, const char *etag)
{
    const char *match = au_http_header(rq, "if-match");
    const char *none_match = au_http_header(rq, "if-none-match");
    if (match && !au_etag_list_has(match, etag, true))
        return 412;
    if (none_match && au_etag_list_has(none_match, etag, false))
        return 304;
    return 0;
}

/* Ranges are for GET alone; a repeated field, or an If-Range that does not hold, means the whole.
 */
static au_range_kind choose_ranges(const au_http_request *rq, const au_http_file *file,
                                   au_range *ranges, size_t *n)
{
    size_t count;
    const char *range = au_http_field_get(&rq->head, "range", &count);
    const char *if_range = au_http_header(rq, "if-range");
    if (count != 1 || au_http_is_head(rq) || (if_range && !au_if_range_holds(if_range, file->etag)))
        return AU_RANGE_IGNORE;
    return au_range_parse(ranges, n, range, file->size);
}

/* multipart/byteranges. The text between the parts is made first and cut into segments afterwards,
 * since it may move while it grows. */
static void add_parts(au_http_request *rq, const au_http_file *file, const au_range *ranges,
                      size_t n)
{
    response *res = &rq->res;
    size_t cut[AU_RANGES_MAX + 2] = {0};
    for (size_t i = 0; i < n; i++) {
        au_buf_printf(&res->body,
                      "%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64
                      "/%" PRIu64 "\r\n\r\n",
                      i ? "\r\n" : "", rq->id, file->type, ranges[i].first, ranges[i].last,
                      file->size);
        cut[i + 1] = res->body.len;
    }
    au_buf_printf(&res->body, "\r\n--%s--\r\n", rq->id);
    cut[n + 1] = res->body.len;
    const char *text = au_buf_cstr(&res->body);
    for (size_t i = 0; i <= n; i++) {
        add_segment(res, text + cut[i], 0, cut[i + 1] - cut[i]);
        if (i < n)
            add_segment(res, NULL, ranges[i].first, ranges[i].last - ranges[i].first + 1);
    }
    au_http_set_header(rq, "Content-Type", "multipart/byteranges; boundary=%s", rq->id);
}

static au_http_result reply_ranges(au_http_request *rq, const au_http_file *file,
                                   const au_range *ranges, size_t n)
{
    if (n > 1) {
        add_parts(rq, file, ranges, n);
        return set_reply(rq, 206);
    }
    au_http_set_header(rq, "Content-Type", "%s", file->type);
    au_http_set_header(rq, "Content-Range", "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
                       ranges[0].first, ranges[0].last, file->size);
    add_segment(&rq->res, NULL, ranges[0].first, ranges[0].last - ranges[0].first + 1);
    return set_reply(rq, 206);
}

au_http_result au_http_reply_file(au_http_request *rq, const au_http_file *file)
{
    au_range ranges[AU_RANGES_MAX];
    size_t n = 0;
    rq->res.fd = file->fd;
    int verdict = check_preconditions(rq, file->etag);
    if (verdict == 412)
        return au_http_problem(rq, AU_PROBLEM_PRECONDITION, "If-Match does not name %s",
                               file->etag);
    au_http_set_header(rq, "ETag", "%s", file->etag);
    au_http_set_header(rq, "Accept-Ranges", "bytes");
    au_range_kind kind = verdict ? AU_RANGE_IGNORE : choose_ranges(rq, file, ranges, &n);
    if (kind == AU_RANGE_UNSATISFIABLE) {
        au_http_set_header(rq, "Content-Range", "bytes */%" PRIu64, file->size);
        return au_http_problem(rq, AU_PROBLEM_RANGE,
                               "no range asked for lies within %" PRIu64 " bytes", file->size);
    }
    au_http_set_header(rq, "Cache-Control", "%s", file->cache_control);
    if (verdict == 304)
        return set_reply(rq, 304);
    if (kind == AU_RANGE_PARTIAL)
        return reply_ranges(rq, file, ranges, n);
    au_http_set_header(rq, "Content-Type", "%s", file->type);
    add_segment(&rq->res, NULL, 0, file->size);
    return set_reply(rq, 200);
}

/* ---- Sending ---- */

static void add_date(au_buf *head)
{
    char text[64];
    struct tm tm;
    time_t now = (time_t)(au_time_ms() / 1000);
    gmtime_r(&now, &tm);
    /* The process never leaves the C locale, so the names are the English ones that HTTP wants. */
    strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    au_buf_printf(head, "Date: %s\r\n", text);
}

bool au_http_response_prepare(au_http_request *rq, bool keep_alive)
{
    response *res = &rq->res;
    au_buf *head = &res->head;
    bool bodiless = res->status == 204 || res->status == 304;
    au_buf_printf(head, "HTTP/1.1 %d %s\r\n", res->status, au_http_reason(res->status));
    add_date(head);
    au_buf_printf(head, "X-Request-Id: %s\r\nX-Content-Type-Options: nosniff\r\n", rq->id);
    if (rq->stream.begun && rq->stream.chunked)
        au_buf_str(head, "Transfer-Encoding: chunked\r\n");
    else if (!bodiless && !rq->stream.begun)
        au_buf_printf(head, "Content-Length: %" PRIu64 "\r\n", res->length);
    if (!keep_alive)
        au_buf_str(head, "Connection: close\r\n");
    au_buf_append(head, au_buf_cstr(&res->fields), res->fields.len);
    au_buf_str(head, "\r\n");
    if (head->status != AU_OK || res->fields.status != AU_OK || res->body.status != AU_OK)
        return false;
    if (res->n_segments == 0 || bodiless || au_http_is_head(rq)) {
        res->n_segments = 1;
        res->length = bodiless ? 0 : res->length;
    }
    res->segments[0] = (segment){head->data, 0, head->len};
    return true;
}

static void advance(response *res, uint64_t n)
{
    res->sent += n;
    while (n) {
        segment *s = &res->segments[res->current];
        uint64_t step = n < s->left ? n : s->left;
        if (s->mem)
            s->mem += step;
        else
            s->offset += step;
        s->left -= step;
        n -= step;
        res->current += s->left == 0;
    }
}

/* Whether a piece of a file is copied and sent together with its neighbours: up to a few pages that
 * costs less than a call and a packet of its own. Longer ones go without a copy; the head is then
 * not held back for them (MSG_MORE), which made 64 KB half as dear again (bench/ranges.py). */
static bool is_copied(const segment *s)
{
    return !s->mem && s->left <= COPIED_BYTES;
}

/* Sends consecutive segments with one call: memory, and copies of short pieces of the file. 0: the
 * file is shorter than it was. */
static ssize_t send_memory(response *res, int fd)
{
    static _Thread_local char scratch[COPIED_BYTES];
    struct iovec iov[IOV_MAX_HERE];
    size_t n = 0, i = res->current, used = 0;
    for (; i < res->n_segments && n < IOV_MAX_HERE; i++) {
        const segment *s = &res->segments[i];
        if (s->left == 0)
            continue;
        if (s->mem) {
            iov[n++] = (struct iovec){(void *)(uintptr_t)s->mem, s->left};
            continue;
        }
        if (!is_copied(s) || s->left > sizeof scratch - used)
            break;
        ssize_t got = pread(res->fd, scratch + used, (size_t)s->left, (off_t)s->offset);
        if (got <= 0 && n == 0)
            return got;
        if (got <= 0) /* what stands before it first; then this shows again */
            break;
        iov[n++] = (struct iovec){scratch + used, (size_t)got};
        used += (size_t)got;
        if ((uint64_t)got < s->left)
            break;
    }
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

send_result au_http_response_send(au_http_request *rq, int fd)
{
    response *res = &rq->res;
    uint64_t budget = SEND_BUDGET_BYTES;
    while (res->current < res->n_segments) {
        segment *s = &res->segments[res->current];
        if (s->left == 0) {
            res->current++;
            continue;
        }
        if (budget == 0)
            return SEND_BLOCKED;
        ssize_t n;
        if (s->mem || is_copied(s)) {
            n = send_memory(res, fd);
        } else {
            off_t offset = (off_t)s->offset;
            n = sendfile(fd, res->fd, &offset,
                         s->left < SENDFILE_BYTES ? (size_t)s->left : SENDFILE_BYTES);
        }
        if (n == 0) {
            au_log(AU_LOG_ERROR, "http", "a file is shorter than its record says req=%s", rq->id);
            return SEND_BROKEN;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return SEND_BLOCKED;
        if (n < 0)
            return SEND_BROKEN;
        advance(res, (uint64_t)n);
        budget -= (uint64_t)n < budget ? (uint64_t)n : budget;
    }
    return SEND_DONE;
}
