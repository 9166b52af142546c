/* SPDX-License-Identifier: MIT */
/* A blocking HTTP/1.1 client of some hundred lines: the server is ours, so one connection a request
 * that is read to its end will do. What comes back may have passed a proxy, so lengths and the
 * chunked coding are read properly. Main thread only. */
#include "cli/remote.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/key_text.h"
#include "base/json.h"
#include "base/str.h"
#include "http/http1.h"

enum {
    REPLY_MAX_BYTES = 64 << 20,
    REQUEST_MAX_BYTES = 1 << 20,
    HOST_BYTES = 256,
    PORT_BYTES = 8,
    TIMEOUT_S = 60,
};

/* ---- Replies ---- */

/* The value of a header field in head[0, len), or NULL. *n is its length. */
static const char *find_field(const char *head, size_t len, const char *name, size_t *n)
{
    size_t want = strlen(name);
    for (const char *p = head, *end = head + len; p < end;) {
        const char *cr = memchr(p, '\r', (size_t)(end - p));
        size_t line = cr ? (size_t)(cr - p) : (size_t)(end - p);
        if (line > want && p[want] == ':' && strncasecmp(p, name, want) == 0) {
            const char *value = p + want + 1;
            *n = line - want - 1;
            while (*n && *value == ' ') {
                value++;
                --*n;
            }
            return value;
        }
        p += line + 2;
    }
    return NULL;
}

static au_status read_body(au_buf *body, const char *head, size_t head_len, const char *data,
                           size_t len, au_err *err)
{
    au_status st = AU_OK;
    size_t n = 0, used = 0;
    char text[24];
    uint64_t expected;
    const char *coding = find_field(head, head_len, "transfer-encoding", &n);
    if (coding) {
        au_chunked chunked = {0};
        AU_FAIL_IF(n != 7 || strncasecmp(coding, "chunked", 7) != 0 ||
                       au_chunked_feed(&chunked, body, data, len, &used) != AU_SCAN_DONE,
                   AU_CORRUPT, "the reply is not in the chunked coding, or was cut");
        AU_TRY(au_buf_check(body, err));
        goto done;
    }
    const char *length = find_field(head, head_len, "content-length", &n);
    if (length) {
        snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1), length);
        AU_FAIL_IF(!au_parse_u64(text, &expected) || expected > len, AU_CORRUPT,
                   "the reply has %zu bytes, its Content-Length says %s", len, text);
        len = (size_t)expected;
    }
    au_buf_append(body, data, len);
    AU_TRY(au_buf_check(body, err));
done:
    return st;
}

au_status au_remote_parse(int *status, au_buf *body, const char *data, size_t len, au_err *err)
{
    au_status st = AU_OK;
    size_t scanned = 0, head_len = 0;
    AU_FAIL_IF(au_http1_scan(data, len, &scanned, &head_len) != AU_SCAN_DONE, AU_CORRUPT,
               "the reply has no complete HTTP head");
    uint64_t code = 0;
    char digits[4] = {0};
    AU_FAIL_IF(head_len < 15 || memcmp(data, "HTTP/1.", 7) != 0 || data[8] != ' ', AU_CORRUPT,
               "the reply does not begin with an HTTP status");
    memcpy(digits, data + 9, 3);
    AU_FAIL_IF(!au_parse_u64(digits, &code) || code < 200 || code > 599, AU_CORRUPT,
               "the reply has the status %s, expected 200 to 599", digits);
    *status = (int)code;
    AU_TRY(read_body(body, data, head_len, data + head_len, len - head_len, err));
done:
    return st;
}

/* ---- The connection ---- */

typedef struct target {
    char host[HOST_BYTES], port[PORT_BYTES];
    const char *authority, *base; /* point into the URL */
    size_t authority_len;
} target;

static au_status parse_server(target *t, const char *server, au_err *err)
{
    au_status st = AU_OK;
    static const char scheme[] = "http://";
    AU_FAIL_IF(!au_str_starts(server, scheme), AU_INVALID,
               "server is \"%s\", expected http://HOST:PORT (https is not spoken here)", server);
    t->authority = server + sizeof scheme - 1;
    t->authority_len = strcspn(t->authority, "/");
    t->base = t->authority + t->authority_len;
    const char *host = t->authority, *end = host + t->authority_len, *port = NULL;
    bool bracket = *host == '[';
    const char *close = bracket ? memchr(host, ']', t->authority_len) : NULL;
    const char *colon = memchr(close ? close : host, ':', (size_t)(end - (close ? close : host)));
    port = colon ? colon + 1 : "80";
    const char *host_end = close ? close : colon ? colon : end;
    host += bracket;
    size_t host_len = (size_t)(host_end - host), port_len = colon ? (size_t)(end - port) : 2;
    AU_FAIL_IF((bracket && !close) || host_end <= host || host_len >= HOST_BYTES || port_len == 0 ||
                   port_len >= PORT_BYTES || strpbrk(server, " \t\r\n?#@"),
               AU_INVALID, "server is \"%s\", expected http://HOST:PORT", server);
    memcpy(t->host, host, host_len);
    t->host[host_len] = '\0';
    memcpy(t->port, port, port_len);
    t->port[port_len] = '\0';
done:
    return st;
}

static au_status dial(int *out, const target *t, au_err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    const struct timeval patience = {.tv_sec = TIMEOUT_S};
    struct addrinfo *found = NULL;
    int fd = -1, saved = 0;
    int rc = getaddrinfo(t->host, t->port, &hints, &found);
    if (rc != 0)
        return au_fail(err, AU_IO, "server %s is not known: %s", t->host, gai_strerror(rc));
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            saved = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    *out = fd;
    return fd >= 0 ? AU_OK
                   : au_fail_errno(err, saved ? saved : errno, "cannot reach the server at %s:%s",
                                   t->host, t->port);
}

static au_status exchange(au_buf *in, const target *t, const au_buf *request, au_err *err)
{
    int fd = -1;
    char block[16384];
    au_status st = AU_OK;
    AU_TRY(dial(&fd, t, err));
    for (size_t sent = 0; sent < request->len;) {
        ssize_t n = send(fd, request->data + sent, request->len - sent, MSG_NOSIGNAL);
        if (n < 0) {
            st = au_fail_errno(err, errno, "cannot send to the server");
            goto done;
        }
        sent += (size_t)n;
    }
    for (;;) {
        ssize_t n = recv(fd, block, sizeof block, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = au_fail_errno(err, errno, "no reply from the server");
            goto done;
        }
        if (n == 0)
            break;
        au_buf_append(in, block, (size_t)n);
    }
    AU_TRY(au_buf_check(in, err));
done:
    if (fd >= 0)
        close(fd);
    return st;
}

static void write_request(au_buf *b, const target *t, const char *key, const char *method,
                          const char *path, const json_t *body)
{
    size_t base = strlen(t->base);
    while (base && t->base[base - 1] == '/')
        base--;
    au_buf_printf(b, "%s %.*s%s HTTP/1.1\r\nHost: %.*s\r\nConnection: close\r\n", method, (int)base,
                  t->base, path, (int)t->authority_len, t->authority);
    if (key)
        au_buf_printf(b, "Authorization: Bearer %s\r\n", key);
    au_buf json;
    au_buf_init(&json, REQUEST_MAX_BYTES);
    if (body) {
        au_json_dump(&json, body);
        au_buf_printf(b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", json.len);
    }
    au_buf_str(b, "\r\n");
    au_buf_append(b, au_buf_cstr(&json), json.len);
    if (json.status != AU_OK && b->status == AU_OK)
        b->status = json.status;
    au_buf_deinit(&json);
}

/* What a problem says, for people. */
static au_status fail_reply(int status, const json_t *problem, au_err *err)
{
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    return au_fail(err, status == 404 || status == 410 ? AU_NOT_FOUND : AU_IO,
                   "the server answered %d: %s", status, detail ? detail : "no details");
}

au_status au_remote_call(json_t **reply, const char *server, const char *key, const char *method,
                         const char *path, const json_t *body, au_err *err)
{
    au_buf request, in, text;
    target t = {0};
    json_t *json = NULL;
    int status = 0;
    au_status st = AU_OK;
    *reply = NULL;
    au_buf_init(&request, REQUEST_MAX_BYTES);
    au_buf_init(&in, REPLY_MAX_BYTES);
    au_buf_init(&text, REPLY_MAX_BYTES);
    AU_FAIL_IF(key && !au_key_text_valid(key, strlen(key)), AU_INVALID,
               "the key is not complete: expected aulos_ and 56 characters");
    AU_TRY(parse_server(&t, server, err));
    write_request(&request, &t, key, method, path, body);
    AU_TRY(au_buf_check(&request, err));
    AU_TRY(exchange(&in, &t, &request, err));
    AU_TRY(au_remote_parse(&status, &text, au_buf_cstr(&in), in.len, err));
    if (text.len &&
        au_json_parse(&json, text.data, text.len, "reply", status < 400 ? err : NULL) != AU_OK &&
        status < 400) {
        st = err ? err->status : AU_CORRUPT;
        goto done;
    }
    if (status >= 300) {
        st = fail_reply(status, json, err);
        goto done;
    }
    *reply = json;
    json = NULL;
done:
    json_decref(json);
    au_buf_deinit(&request);
    au_buf_deinit(&in);
    au_buf_deinit(&text);
    return st;
}
