/* SPDX-License-Identifier: MIT */
/* The HTTP server over raw sockets: framing, limits, errors as problems, keep-alive, files and
 * ranges, pending requests, drain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/http.h"

enum { FILE_BYTES = 10000, MAX_BODY = 1000, MAX_UPLOAD = 3000000, REPLY_BYTES = 1 << 20 };

static unsigned char file_bytes[FILE_BYTES];
static char file_path[64];

/* ---- Handlers ---- */

static au_http_result get_json(au_http_request *rq)
{
    return au_http_reply_json(rq, 200, json_pack("{s:s}", "id", au_http_param(rq, "id")));
}

static au_http_result post_json(au_http_request *rq)
{
    json_t *body;
    if (!au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    return au_http_reply_json(rq, 201, json_pack("{s:O}", "got", body));
}

static au_http_result get_file(au_http_request *rq)
{
    FILE *f = fopen(file_path, "rb");
    assert_non_null(f);
    au_http_file file = {dup(fileno(f)), FILE_BYTES, "audio/wav", "\"tag\"", "private"};
    fclose(f);
    return au_http_reply_file(rq, &file);
}

/* A file with a hole, larger than 32 bits can say: at each whole GiB stands its number. */
enum { HUGE_GIB = 5 };
static char huge_path[64];
static const uint64_t GIB = (uint64_t)1 << 30;

static au_http_result get_huge(au_http_request *rq)
{
    FILE *f = fopen(huge_path, "rb");
    assert_non_null(f);
    au_http_file file = {dup(fileno(f)), HUGE_GIB * GIB, "audio/wav", "\"big\"", "private"};
    fclose(f);
    return au_http_reply_file(rq, &file);
}

static au_http_result get_empty(au_http_request *rq)
{
    FILE *f = fopen("/dev/null", "rb");
    assert_non_null(f);
    au_http_file file = {dup(fileno(f)), 0, "audio/wav", "\"none\"", "private"};
    fclose(f);
    return au_http_reply_file(rq, &file);
}

static au_http_result get_query(au_http_request *rq)
{
    static const char *const allowed[] = {"limit", "cursor", NULL};
    if (!au_http_query_parse(rq, allowed))
        return AU_HTTP_DONE;
    const char *limit = au_http_query(rq, "limit");
    return au_http_reply_json(rq, 200, json_pack("{s:s}", "limit", limit ? limit : "-"));
}

static au_http_result answer_later(au_http_request *rq)
{
    return au_http_reply_json(rq, 200, json_pack("{s:b}", "later", 1));
}

static void *resume(void *rq)
{
    au_sleep_ms(20);
    au_http_resume(rq, answer_later);
    return NULL;
}

static au_http_result get_pending(au_http_request *rq)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, resume, rq), 0);
    pthread_detach(thread);
    return AU_HTTP_PENDING;
}

static au_http_result get_again(au_http_request *rq)
{
    intptr_t n = (intptr_t)au_http_data(rq);
    if (n == 3 || au_http_draining(rq))
        return au_http_reply_json(rq, 200, json_pack("{s:I}", "calls", (json_int_t)n));
    au_http_set_data(rq, (void *)(n + 1));
    return au_http_again(rq, get_again, 5);
}

/* Counts what comes in pieces; refuses a body with an 'x' in it; and tells of the end. */
typedef struct upload {
    size_t len, pieces;
} upload;

static atomic_int uploads_ended;

static void end_upload(void *data)
{
    (void)data;
    atomic_fetch_add(&uploads_ended, 1);
}

static bool take_piece(au_http_request *rq, const char *data, size_t len)
{
    upload *u = au_http_data(rq);
    u->len += len;
    u->pieces++;
    if (!memchr(data, 'x', len))
        return true;
    au_http_problem(rq, AU_PROBLEM_VALIDATION, "there is an x");
    return false;
}

static au_http_result upload_done(au_http_request *rq)
{
    const upload *u = au_http_data(rq);
    return au_http_reply_json(rq, 201, json_pack("{s:I}", "len", (json_int_t)u->len));
}

static au_http_result post_upload(au_http_request *rq)
{
    if (au_http_header(rq, "x-refuse"))
        return au_http_problem(rq, AU_PROBLEM_MEDIA_TYPE, "not wanted");
    au_http_set_data(rq, au_arena_alloc(au_http_arena(rq), sizeof(upload)));
    au_http_on_end(rq, end_upload, NULL);
    return au_http_receive(rq, take_piece, upload_done);
}

/* What a hook found out about the caller. */
static au_http_result get_caller(au_http_request *rq)
{
    const char *caller = au_http_caller(rq);
    au_http_set_header(rq, "Location", "%s", "/json/1");
    return au_http_reply_json(rq, 200,
                              json_pack("{s:s, s:s, s:{s:s, s:s}, s:[{s:s}], s:{s:s}}", "caller",
                                        caller ? caller : "-", "url", "/json/1", "urls", "self",
                                        "/caller", "other", "http://a/", "data", "url", "/x",
                                        "attributes", "url", "/own"));
}

static au_http_result post_caller(au_http_request *rq)
{
    return au_http_reply_empty(rq, 204);
}

static au_http_result get_busy(au_http_request *rq)
{
    return au_http_problem(rq, AU_PROBLEM_QUEUE_FULL, "full");
}

static au_http_result get_busy_for(au_http_request *rq)
{
    au_http_set_header(rq, "Retry-After", "77");
    return au_http_problem(rq, AU_PROBLEM_UNAVAILABLE, "busy");
}

enum { BIG_BYTES = 64 << 20 };

/* More than the buffers of a connection hold. */
static au_http_result get_big(au_http_request *rq)
{
    int fd = open(file_path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    au_http_file file = {fd, BIG_BYTES, "audio/wav", "\"big\"", "private"};
    return au_http_reply_file(rq, &file);
}

/* Lets in whom the query names, and takes the name out of it. */
static bool authorize(au_http_request *rq)
{
    const char *who = au_http_query_take(rq, "who");
    if (au_http_route_flags(rq) & AU_ROUTE_PUBLIC)
        return true;
    if (!who || !*who) {
        au_http_problem(rq, AU_PROBLEM_UNAUTHORIZED, "nobody");
        return false;
    }
    au_http_set_caller(rq, who);
    return true;
}

static const au_http_route routes[] = {
    {"POST", "/upload", post_upload, AU_ROUTE_UPLOAD},
    {"GET", "/json/{id}", get_json, 0},
    {"POST", "/json", post_json, AU_ROUTE_JSON},
    {"GET", "/file", get_file, 0},
    {"GET", "/huge", get_huge, 0},
    {"GET", "/empty", get_empty, 0},
    {"GET", "/query", get_query, 0},
    {"GET", "/pending", get_pending, 0},
    {"GET", "/again", get_again, 0},
    {"GET", "/caller", get_caller, AU_ROUTE_WRITE},
    {"POST", "/caller", post_caller, AU_ROUTE_JSON},
    {"GET", "/public/{id}", get_json, AU_ROUTE_PUBLIC},
    {"GET", "/busy", get_busy, 0},
    {"GET", "/busy-for", get_busy_for, 0},
    {"GET", "/big", get_big, 0},
    {"GET", "/health/{id}", get_json, AU_ROUTE_ALWAYS},
    {NULL, NULL, NULL, 0},
};

/* ---- A client ---- */

static au_http_server *server;
static int port;
static char reply[REPLY_BYTES];
static size_t reply_len;

static au_http_config base_config(void)
{
    return (au_http_config){.listen = "127.0.0.1:0",
                            .routes = routes,
                            .threads = 2,
                            .max_connections = 50,
                            .max_body_bytes = MAX_BODY,
                            .max_upload_bytes = MAX_UPLOAD,
                            .header_timeout_ms = 5000,
                            .idle_timeout_ms = 5000};
}

static void start(const au_http_config *config)
{
    au_err err;
    if (au_http_server_start(&server, config, &err) != AU_OK)
        fail_msg("%s", err.message);
    port = atoi(strrchr(au_http_server_url(server), ':') + 1);
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void put(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads until the server closes. */
static void drain_socket(int fd)
{
    reply_len = 0;
    ssize_t n;
    while (reply_len < sizeof reply - 1 &&
           (n = recv(fd, reply + reply_len, sizeof reply - 1 - reply_len, 0)) > 0)
        reply_len += (size_t)n;
    reply[reply_len] = '\0';
}

/* Sends a request, reads to the end of the connection, returns the status of the first reply.
 */
static int ask(const char *text)
{
    int fd = dial();
    put(fd, text);
    drain_socket(fd);
    close(fd);
    int status = 0;
    if (sscanf(reply, "HTTP/1.1 %d ", &status) != 1)
        return 0;
    return status;
}

static const char *body(void)
{
    const char *end = strstr(reply, "\r\n\r\n");
    return end ? end + 4 : "";
}

static bool has(const char *text)
{
    return strstr(reply, text) != NULL;
}

#define END "Host: localhost\r\nConnection: close\r\n\r\n"

static int setup(void **state)
{
    (void)state;
    strcpy(file_path, "/tmp/aulos-test-server-XXXXXX");
    int fd = mkstemp(file_path);
    for (int i = 0; i < FILE_BYTES; i++)
        file_bytes[i] = (unsigned char)(i * 7 + i / 256);
    if (fd < 0 || write(fd, file_bytes, FILE_BYTES) != FILE_BYTES)
        return -1;
    close(fd);
    au_http_config config = base_config();
    start(&config);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    au_http_server_stop(&server, 0);
    unlink(file_path);
    return 0;
}

/* ---- Tests ---- */

static void test_replies(void **state)
{
    (void)state;
    assert_int_equal(ask("GET /json/abc HTTP/1.1\r\n" END), 200);
    assert_string_equal(body(), "{\"id\":\"abc\"}\n");
    assert_true(has("Content-Type: application/json\r\n"));
    assert_true(has("X-Request-Id: "));
    assert_true(has("ETag: \""));
    char request[512];
    const char *etag = strstr(reply, "ETag: ") + 6;
    snprintf(request, sizeof request, "GET /json/abc HTTP/1.1\r\nIf-None-Match: %.34s\r\n" END,
             etag);
    assert_int_equal(ask(request), 304);
    assert_string_equal(body(), "");
    assert_int_equal(ask("HEAD /json/abc HTTP/1.1\r\n" END), 200);
    assert_string_equal(body(), "");
    assert_true(has("Content-Length: 13\r\n"));
    assert_int_equal(ask("GET http://127.0.0.1/json/abc HTTP/1.1\r\n" END), 200);
}

static void test_errors_are_problems(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
        const char *with;
    } rows[] = {
        {"GET /nowhere HTTP/1.1\r\n" END, 404, "/problems/not-found"},
        {"PUT /json/x HTTP/1.1\r\n" END, 405, "Allow: GET, HEAD\r\n"},
        {"BREW /json/x HTTP/1.1\r\n" END, 405, "Allow: GET, HEAD\r\n"},
        {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "Host is missing"},
        {"GET / HTTP/1.1\nHost: localhost\n\n", 400, "CR LF"},
        {"GET / HTTP/3.0\r\n" END, 505, "/problems/http-version"},
        {"GET /json/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421,
         "/problems/misdirected-request"},
        {"GET /json/x HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "Host is not"},
        {"POST /json HTTP/1.1\r\nOrigin: http://evil.example\r\n" END, 403, "forbidden-origin"},
        {"POST /json HTTP/1.1\r\nSec-Fetch-Site: cross-site\r\n" END, 403, "forbidden-origin"},
        {"POST /json HTTP/1.1\r\nContent-Length: 1001\r\n" END, 413, "content-too-large"},
        {"POST /json HTTP/1.1\r\nContent-Length: 2\r\n" END "{}", 415, "unsupported-media-type"},
        {"POST /json HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n" END "{}", 415,
         ""},
        {"POST /json HTTP/1.1\r\nContent-Type: application/json; "
         "charset=latin1\r\nContent-Length: "
         "2\r\n" END "{}",
         415, ""},
        {"POST /json HTTP/1.1\r\nContent-Type: application/json\r\nContent-Encoding: "
         "gzip\r\nContent-Length: 2\r\n" END "{}",
         415, "Content-Encoding"},
        {"POST /json HTTP/1.1\r\nContent-Type: application/json\r\n" END, 400, "bad-json"},
        {"POST /json HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n" END "{]",
         400, "bad-json"},
        {"POST /json HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 13\r\n" END
         "{\"a\":1,\"a\":2}",
         400, "bad-json"},
        {"POST /json HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: "
         "chunked\r\n" END "zz\r\n",
         400, "chunked"},
        {"POST /json HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n" END
         "0\r\n\r\n",
         400, "beside"},
        {"POST /json HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n" END, 400, ""},
        {"POST /json HTTP/1.1\r\nExpect: more\r\n" END, 417, ""},
        {"GET /query?limit=1&limit=2 HTTP/1.1\r\n" END, 400, "\"parameter\":\"limit\""},
        {"GET /query?limt=1 HTTP/1.1\r\n" END, 400, "\"did_you_mean\":\"limit\""},
        {"GET /query?limit=%zz HTTP/1.1\r\n" END, 400, "bad-query"},
        {"GET /json/%00 HTTP/1.1\r\n" END, 400, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status = ask(rows[i].request);
        if (status != rows[i].status || !has(rows[i].with))
            fail_msg("%s: %s", rows[i].request, reply);
        assert_true(has("Content-Type: application/problem+json\r\n"));
        json_error_t error;
        json_t *j = json_loads(body(), 0, &error);
        assert_non_null(j);
        assert_int_equal(json_integer_value(json_object_get(j, "status")), status);
        assert_non_null(strstr(reply, json_string_value(json_object_get(j, "request_id"))));
        json_decref(j);
    }
}

static void test_long_lines_and_heads(void **state)
{
    (void)state;
    static char text[120000];
    memset(text, 'a', sizeof text);
    memcpy(text, "GET /", 5);
    text[20000] = '\0';
    assert_int_equal(ask(text), 414);
    size_t n = (size_t)sprintf(text, "GET /json/x HTTP/1.1\r\nX: ");
    memset(text + n, 'a', 100000);
    strcpy(text + 100000, "\r\n" END);
    assert_int_equal(ask(text), 431);
    n = (size_t)sprintf(text, "GET /json/x HTTP/1.1\r\nRange: bytes=");
    while (n < 20000)
        n += (size_t)sprintf(text + n, "0-0,");
    strcpy(text + n, "0-0\r\n" END);
    assert_int_equal(ask(text), 200);
}

static void test_bodies(void **state)
{
    (void)state;
    assert_int_equal(
        ask("POST /json HTTP/1.1\r\nContent-Type: application/json; charset=\"UTF-8\"\r\n"
            "Transfer-Encoding: chunked\r\n" END "3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n"),
        201);
    assert_string_equal(body(), "{\"got\":{\"a\":1}}\n");
    char text[2000];
    int n = sprintf(text, "POST /json HTTP/1.1\r\nContent-Type: "
                          "application/json\r\nContent-Length: 1000\r\n" END);
    memset(text + n, ' ', MAX_BODY);
    memcpy(text + n, "{}", 2);
    text[n + MAX_BODY] = '\0';
    assert_int_equal(ask(text), 201);
    n = sprintf(text, "POST /json HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: "
                      "chunked\r\n" END "400\r\n");
    memset(text + n, ' ', 1024);
    text[n + 1024] = '\0';
    assert_int_equal(ask(text), 413);

    /* The server asks for a body only when it wants it. */
    int fd = dial();
    put(fd, "POST /json HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            "Content-Length: 2\r\n" END);
    char first[64] = {0};
    assert_true(recv(fd, first, sizeof first - 1, 0) > 0);
    assert_string_equal(first, "HTTP/1.1 100 Continue\r\n\r\n");
    put(fd, "{}");
    drain_socket(fd);
    close(fd);
    assert_true(has("HTTP/1.1 201 "));
    assert_int_equal(
        ask("POST /json HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            "Content-Length: 2000\r\n" END),
        413);
    assert_false(has("100 Continue"));
}

static void test_connections_are_kept(void **state)
{
    (void)state;
    int fd = dial();
    put(fd, "\r\nGET /json/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
            "POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
            "application/json\r\nContent-Length: 2\r\n\r\n{}"
            "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
            "GET /pending HTTP/1.1\r\nHost: localhost\r\n\r\n"
            "GET /json/b HTTP/1.1\r\n" END);
    drain_socket(fd);
    close(fd);
    const char *p = reply;
    static const char *const want[] = {"HTTP/1.1 200", "{\"id\":\"a\"}", "HTTP/1.1 201",
                                       "HTTP/1.1 404", "HTTP/1.1 200",   "\"later\":true",
                                       "HTTP/1.1 200", "{\"id\":\"b\"}"};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        p = strstr(p, want[i]);
        assert_non_null(p);
        p += strlen(want[i]);
    }
    assert_int_equal(ask("GET /json/a HTTP/1.0\r\n\r\n"), 200);
    assert_true(has("Connection: close"));
}

static void test_files(void **state)
{
    (void)state;
    assert_int_equal(ask("GET /file HTTP/1.1\r\n" END), 200);
    assert_int_equal(reply_len - (size_t)(body() - reply), FILE_BYTES);
    assert_memory_equal(body(), file_bytes, FILE_BYTES);
    assert_true(has("Content-Length: 10000\r\n") && has("Accept-Ranges: bytes\r\n") &&
                has("ETag: \"tag\"\r\n"));
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=5000-5009\r\n" END), 206);
    assert_true(has("Content-Range: bytes 5000-5009/10000\r\n") && has("Content-Length: 10\r\n"));
    assert_memory_equal(body(), file_bytes + 5000, 10);
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=10000-\r\n" END), 416);
    assert_true(has("Content-Range: bytes */10000\r\n") && has("application/problem+json"));
    assert_int_equal(ask("HEAD /file HTTP/1.1\r\nRange: bytes=0-1\r\n" END), 200);
    assert_true(has("Content-Length: 10000\r\n"));
    assert_string_equal(body(), "");
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n" END),
                     200);
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=0-1\r\nIf-Range: \"tag\"\r\n" END),
                     206);
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=0-1\r\nIf-Range: W/\"tag\"\r\n" END),
                     200);
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=0-1\r\nIf-Range: Tue, 24 Nov 2026 "
                         "10:00:00 GMT\r\n" END),
                     200);
    assert_int_equal(
        ask("GET /file HTTP/1.1\r\nRange: bytes=0-1\r\nIf-None-Match: W/\"tag\"\r\n" END), 304);
    assert_true(has("ETag: \"tag\"\r\n") && !has("Content-Length"));
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=0-1\r\nIf-Match: \"no\"\r\n" END),
                     412);
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=0-1\r\nIf-Match: *\r\n" END), 206);
}

static void test_several_ranges(void **state)
{
    (void)state;
    assert_int_equal(ask("GET /file HTTP/1.1\r\nRange: bytes=20-29,0-1,9998-\r\n" END), 206);
    assert_false(has("\r\nContent-Range: bytes 20-29/10000\r\n\r\n\r\n"));
    char boundary[64], text[256];
    assert_int_equal(sscanf(strstr(reply, "Content-Type: multipart/byteranges; boundary="),
                            "Content-Type: multipart/byteranges; boundary=%60s", boundary),
                     1);
    int length;
    assert_int_equal(sscanf(strstr(reply, "Content-Length: "), "Content-Length: %d", &length), 1);
    assert_int_equal(reply_len - (size_t)(body() - reply), length);
    const char *p = body();
    static const int parts[][2] = {{20, 29}, {0, 1}, {9998, 9999}};
    for (int i = 0; i < 3; i++) {
        int n = snprintf(
            text, sizeof text,
            "%s--%s\r\nContent-Type: audio/wav\r\nContent-Range: bytes %d-%d/10000\r\n\r\n",
            i ? "\r\n" : "", boundary, parts[i][0], parts[i][1]);
        assert_memory_equal(p, text, n);
        p += n;
        int bytes = parts[i][1] - parts[i][0] + 1;
        assert_memory_equal(p, file_bytes + parts[i][0], bytes);
        p += bytes;
    }
    int n = snprintf(text, sizeof text, "\r\n--%s--\r\n", boundary);
    assert_memory_equal(p, text, n);
    assert_ptr_equal(p + n, reply + reply_len);
}

/* Offsets beyond 32 bits, as an RF64 file has them; many at once, in no order. */
static void test_a_file_of_more_than_4_gib(void **state)
{
    (void)state;
    strcpy(huge_path, "/tmp/aulos-test-huge-XXXXXX");
    int file = mkstemp(huge_path);
    assert_int_equal(ftruncate(file, (off_t)(HUGE_GIB * GIB)), 0);
    for (uint64_t i = 0; i < HUGE_GIB; i++) {
        char mark[9];
        snprintf(mark, sizeof mark, "<gib %d>.", (int)i);
        assert_int_equal(pwrite(file, mark, 8, (off_t)(i * GIB)), 8);
    }
    assert_int_equal(pwrite(file, "the end.", 8, (off_t)(HUGE_GIB * GIB - 8)), 8);
    close(file);
    char text[256], want[64];
    assert_int_equal(ask("HEAD /huge HTTP/1.1\r\n" END), 200);
    assert_true(has("Content-Length: 5368709120\r\n"));
    assert_int_equal(ask("GET /huge HTTP/1.1\r\nRange: bytes=-8\r\n" END), 206);
    assert_true(has("Content-Range: bytes 5368709112-5368709119/5368709120\r\n"));
    assert_string_equal(body(), "the end.");
    assert_int_equal(ask("GET /huge HTTP/1.1\r\nRange: bytes=5368709120-\r\n" END), 416);
    assert_true(has("Content-Range: bytes */5368709120\r\n"));
    for (int i = 0; i < 200; i++) {
        uint64_t at = (uint64_t)(i * 7 % HUGE_GIB) * GIB;
        snprintf(text, sizeof text, "GET /huge HTTP/1.1\r\nRange: bytes=%llu-%llu\r\n" END,
                 (unsigned long long)at, (unsigned long long)at + 7);
        assert_int_equal(ask(text), 206);
        snprintf(want, sizeof want, "<gib %d>.", i * 7 % HUGE_GIB);
        assert_memory_equal(body(), want, 8);
    }
    /* Long parts over the border of 32 bits, without a copy. */
    snprintf(text, sizeof text, "GET /huge HTTP/1.1\r\nRange: bytes=%llu-%llu,0-7\r\n" END,
             (unsigned long long)(4 * GIB - 50000), (unsigned long long)(4 * GIB + 49999));
    assert_int_equal(ask(text), 206);
    int length;
    assert_int_equal(sscanf(strstr(reply, "Content-Length: "), "Content-Length: %d", &length), 1);
    const char *part = strstr(body(), "\r\n\r\n") + 4;
    assert_int_equal(reply_len - (size_t)(body() - reply), length);
    assert_memory_equal(part + 50000, "<gib 4>.", 8);
    for (int i = 0; i < 50000; i++)
        assert_int_equal(part[i], 0);
    assert_non_null(
        memmem(part + 100000, reply_len - (size_t)(part + 100000 - reply), "<gib 0>.", 8));
    unlink(huge_path);
}

static void test_an_empty_file(void **state)
{
    (void)state;
    assert_int_equal(ask("GET /empty HTTP/1.1\r\n" END), 200);
    assert_true(has("Content-Length: 0\r\n"));
    assert_string_equal(body(), "");
    static const char *const fields[] = {"0-", "-1", "-0", "0-0", "5-9,-3"};
    char text[256];
    for (int i = 0; i < 5; i++) {
        snprintf(text, sizeof text, "GET /empty HTTP/1.1\r\nRange: bytes=%s\r\n" END, fields[i]);
        assert_int_equal(ask(text), 416);
        assert_true(has("Content-Range: bytes */0\r\n"));
    }
    assert_int_equal(ask("GET /empty HTTP/1.1\r\nRange: bytes=1-0\r\n" END), 200);
    assert_int_equal(ask("HEAD /empty HTTP/1.1\r\nRange: bytes=0-\r\n" END), 200);
    assert_true(has("Content-Length: 0\r\n"));
}

/* A file that is cut while it is sent: the connection ends before Content-Length is met, whether
 * the piece goes by copy or without. */
static void test_a_file_that_shrinks_cuts_the_connection(void **state)
{
    (void)state;
    static const char *const ranges[] = {"", "Range: bytes=0-9\r\n", "Range: bytes=100-\r\n"};
    char text[256];
    assert_int_equal(truncate(file_path, 50), 0);
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "GET /file HTTP/1.1\r\n%s" END, ranges[i]);
        int status = ask(text), length;
        assert_int_equal(status, i ? 206 : 200);
        assert_int_equal(sscanf(strstr(reply, "Content-Length: "), "Content-Length: %d", &length),
                         1);
        int want = i == 0 ? 50 : i == 1 ? 10 : 0;
        assert_int_equal(reply_len - (size_t)(body() - reply), want);
        assert_true(i == 1 ? length == 10 : length > want);
    }
    int file = open(file_path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(file, file_bytes, FILE_BYTES), FILE_BYTES);
    close(file);
    assert_int_equal(ask("GET /file HTTP/1.1\r\n" END), 200);
    assert_memory_equal(body(), file_bytes, FILE_BYTES);
}

/* A second descriptor of the server's end of a connection: a process that is being started has such
 * ones until it has executed its program. */
static int hold_server_end(int client)
{
    struct sockaddr_in own = {0}, peer;
    socklen_t len = sizeof own;
    assert_int_equal(getsockname(client, (struct sockaddr *)&own, &len), 0);
    for (int fd = 3; fd < 1024; fd++) {
        len = sizeof peer;
        if (fd != client && getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
            peer.sin_port == own.sin_port)
            return (int)syscall(SYS_dup, fd); /* not dup: it is the loop's own descriptor, which
                                                 ThreadSanitizer would take for a race */
    }
    fail_msg("the server has no end of the connection");
    return -1;
}

static void test_a_connection_held_by_others_ends(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        char byte;
        int fd = dial();
        put(fd, "GET /json/7 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_int_equal(recv(fd, &byte, 1, 0), 1);
        int held = hold_server_end(fd);
        assert_true(held >= 0);
        close(fd); /* the server closes its end, which is still open */
        for (int k = 0; k < 5; k++)
            assert_int_equal(
                ask("GET /json/7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), 200);
        close(held);
    }
}

static void test_pending_and_again(void **state)
{
    (void)state;
    assert_int_equal(ask("GET /pending HTTP/1.1\r\n" END), 200);
    assert_string_equal(body(), "{\"later\":true}\n");
    assert_int_equal(ask("GET /again HTTP/1.1\r\n" END), 200);
    assert_string_equal(body(), "{\"calls\":3}\n");
    /* Clients that leave while their request is pending. */
    for (int i = 0; i < 10; i++) {
        int fd = dial();
        put(fd, "GET /pending HTTP/1.1\r\nHost: localhost\r\n\r\n");
        struct linger reset = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        fd = dial();
        put(fd, "GET /again HTTP/1.1\r\nHost: localhost\r\n\r\n");
        close(fd);
    }
    for (int i = 0; i < 500 && au_http_server_active(server) > 0; i++)
        au_sleep_ms(10);
    assert_int_equal(au_http_server_active(server), 0);
}

/* A second server with limits of its own, beside the group's. */
static void with_server(const au_http_config *config, void (*check)(void))
{
    au_http_server *kept = server;
    int kept_port = port;
    start(config);
    check();
    au_http_server_stop(&server, 1000);
    server = kept;
    port = kept_port;
}

static void check_slow_clients(void)
{
    /* Drips of both kinds end with 408, however steadily they come. */
    static const char *const slow[] = {
        "GET /json/x HTTP/1.1\r\nX: ",
        "POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 900\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        int fd = dial();
        put(fd, slow[i]);
        struct pollfd p = {fd, POLLIN, 0};
        for (int k = 0; k < 1000 && poll(&p, 1, 20) == 0; k++)
            send(fd, " ", 1, MSG_NOSIGNAL);
        drain_socket(fd);
        close(fd);
        assert_true(has("HTTP/1.1 408 ") && has("/problems/request-timeout"));
    }
    /* Who says nothing is let go without a word. */
    int fd = dial();
    drain_socket(fd);
    assert_int_equal(reply_len, 0);
    close(fd);
}

static void test_slow_clients(void **state)
{
    (void)state;
    au_http_config config = base_config();
    config.header_timeout_ms = 200;
    with_server(&config, check_slow_clients);
}

static void check_too_many(void)
{
    int held[2] = {dial(), dial()};
    put(held[0], "GET /");
    put(held[1], "GET /");
    assert_int_equal(ask("GET /json/x HTTP/1.1\r\n" END), 503);
    assert_true(has("Retry-After: 1\r\n") && has("/problems/unavailable"));
    assert_int_equal(ask("GET /health/x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200);
    assert_true(has("Connection: close\r\n"));
    close(held[0]);
    close(held[1]);
    int status = 503;
    for (int i = 0; i < 500 && status == 503; i++)
        status = ask("GET /json/x HTTP/1.1\r\n" END);
    assert_int_equal(status, 200);
    /* Two that keep their connection and ask for nothing more give way. */
    for (int i = 0; i < 2; i++) {
        held[i] = dial();
        put(held[i], "GET /json/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    status = 503;
    for (int i = 0; i < 500 && status == 503; i++) {
        status = ask("GET /json/x HTTP/1.1\r\n" END);
        au_sleep_ms(10);
    }
    assert_int_equal(status, 200);
    close(held[0]);
    close(held[1]);
}

static void test_too_many_connections(void **state)
{
    (void)state;
    au_http_config config = base_config();
    config.max_connections = 2;
    with_server(&config, check_too_many);
}

static void check_authorized(void)
{
    assert_int_equal(ask("GET /caller HTTP/1.1\r\n" END), 401);
    assert_true(has("/problems/unauthorized") && has("nobody"));
    assert_int_equal(ask("GET /caller?who= HTTP/1.1\r\n" END), 401);
    assert_int_equal(ask("GET /caller?who=%zz HTTP/1.1\r\n" END), 401);
    assert_int_equal(ask("GET /caller?a=1&who=an%20a&b=2 HTTP/1.1\r\n" END), 200);
    assert_true(has("\"caller\":\"an a\""));
    /* The parameter is gone, the others are not. */
    assert_int_equal(ask("GET /query?limit=3&who=ann HTTP/1.1\r\n" END), 200);
    assert_true(has("\"limit\":\"3\""));
    assert_int_equal(ask("GET /query?who=ann&who=bob HTTP/1.1\r\n" END), 400);
    assert_int_equal(ask("GET /public/x HTTP/1.1\r\n" END), 200);
    /* What is not there is said to everybody; what may not be asked is refused before the body.
     */
    assert_int_equal(ask("GET /nowhere HTTP/1.1\r\n" END), 404);
    assert_int_equal(ask("DELETE /caller HTTP/1.1\r\n" END), 405);
    assert_int_equal(ask("POST /caller HTTP/1.1\r\nOrigin: http://evil.example\r\n" END), 403);
    assert_int_equal(ask("POST /caller HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: "
                         "99999\r\nHost: localhost\r\n\r\n"),
                     401);
    assert_true(has("Connection: close\r\n") && !has("100 Continue"));
    assert_int_equal(ask("POST /caller?who=ann HTTP/1.1\r\nContent-Length: 99999\r\n" END), 413);
    assert_int_equal(ask("POST /caller?who=ann HTTP/1.1\r\n" END), 204);
    /* A refusal without a body leaves the connection. */
    assert_int_equal(ask("GET /caller HTTP/1.1\r\nHost: localhost\r\n\r\n"
                         "GET /caller?who=ann HTTP/1.1\r\n" END),
                     401);
    assert_true(has("HTTP/1.1 200 OK"));
}

static void test_a_hook_decides_before_the_body(void **state)
{
    (void)state;
    au_http_config config = base_config();
    config.authorize = authorize;
    with_server(&config, check_authorized);
}

static void check_base_path(void)
{
    static const char *const paths[] = {"/caller", "/au/los/caller"};
    for (int i = 0; i < 2; i++) {
        char request[256];
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" END, paths[i]);
        assert_int_equal(ask(request), 200);
        assert_true(has("Location: /au/los/json/1\r\n"));
        assert_true(has("\"url\":\"/au/los/json/1\""));
        assert_true(has("{\"other\":\"http://a/\",\"self\":\"/au/los/caller\"}"));
        assert_true(has("[{\"url\":\"/au/los/x\"}]"));
        assert_true(has("\"attributes\":{\"url\":\"/own\"}"));
    }
    assert_int_equal(ask("GET /au/los HTTP/1.1\r\n" END), 404); /* this table has no "/" */
    assert_int_equal(ask("GET /au/lost/caller HTTP/1.1\r\n" END), 404);
    assert_int_equal(ask("GET /au/los/au/los/caller HTTP/1.1\r\n" END), 404);
}

static void test_a_base_path_is_taken_off_and_put_before(void **state)
{
    (void)state;
    au_http_config config = base_config();
    config.base_path = "/au/los";
    with_server(&config, check_base_path);
}

static void test_come_back_says_when(void **state)
{
    (void)state;
    assert_int_equal(ask("GET /busy HTTP/1.1\r\n" END), 429);
    assert_true(has("Retry-After: 5\r\n"));
    assert_int_equal(ask("GET /busy-for HTTP/1.1\r\n" END), 503);
    assert_true(has("Retry-After: 77\r\n"));
    assert_null(strstr(strstr(reply, "Retry-After") + 1, "Retry-After"));
}

/* Asks for more than the socket holds, then reads `step` bytes every 10 ms, or nothing. */
static bool cut_off(size_t step)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    put(fd, "GET /big HTTP/1.1\r\n" END);
    char bytes[4096];
    size_t got = 0;
    for (int i = 0; i < 100 && step; i++) {
        ssize_t n = recv(fd, bytes, step, 0);
        got += n > 0 ? (size_t)n : 0;
        au_sleep_ms(10);
    }
    /* Others are answered meanwhile. */
    assert_int_equal(ask("GET /json/x HTTP/1.1\r\n" END), 200);
    for (int i = 0; i < 3000 && au_http_server_active(server) > 0; i++)
        au_sleep_ms(10);
    bool over = au_http_server_active(server) == 0;
    for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, 0)) > 0;)
        got += (size_t)n;
    close(fd);
    return over && got < BIG_BYTES;
}

static void check_slow_readers(void)
{
    assert_int_equal(truncate(file_path, BIG_BYTES), 0);
    assert_true(cut_off(0));
    assert_true(cut_off(1));
    assert_int_equal(truncate(file_path, FILE_BYTES), 0);
}

static void test_slow_readers_are_cut_off(void **state)
{
    (void)state;
    au_http_config config = base_config();
    config.idle_timeout_ms = 300;
    with_server(&config, check_slow_readers);
}

static char logged[4096];

static void keep_line(void *user, au_log_level level, const char *line)
{
    (void)user;
    (void)level;
    if (strstr(line, "/json/trace"))
        snprintf(logged, sizeof logged, "%s", line);
}

static void check_trace(void)
{
    assert_int_equal(ask("GET /json/trace HTTP/1.1\r\ntraceparent: "
                         "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" END),
                     200);
}

static void check_bad_trace(void)
{
    assert_int_equal(ask("GET /json/trace HTTP/1.1\r\ntraceparent: 00-x-y-01\r\n" END), 200);
}

static void test_the_trace_of_the_caller_is_logged(void **state)
{
    (void)state;
    au_http_config config = base_config();
    au_log_set_level(AU_LOG_INFO);
    au_log_set_sink(keep_line, NULL);
    with_server(&config, check_trace); /* the server has ended when this returns */
    assert_non_null(strstr(logged, "trace=4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_non_null(strstr(logged, "req="));
    with_server(&config, check_bad_trace);
    assert_non_null(strstr(logged, "req="));
    assert_null(strstr(logged, "trace="));
    au_log_set_sink(NULL, NULL);
    au_log_set_level(AU_LOG_WARN);
}

static void check_dripping_heads(void)
{
    /* Two heads that never end fill the server; they have to give way to a request. */
    int held[2] = {dial(), dial()};
    put(held[0], "GET /json/x HTTP/1.1\r\n");
    put(held[1], "GET /json/x HTTP/1.1\r\n");
    int status = 503;
    for (int i = 0; i < 3000 && status == 503; i++) {
        send(held[i % 2], "X", 1, MSG_NOSIGNAL);
        status = ask("GET /json/x HTTP/1.1\r\n" END);
        au_sleep_ms(10);
    }
    assert_int_equal(status, 200);
    close(held[0]);
    close(held[1]);
}

static void test_dripping_heads_give_way(void **state)
{
    (void)state;
    au_http_config config = base_config();
    config.max_connections = 2;
    config.header_timeout_ms = 600000;
    with_server(&config, check_dripping_heads);
}

static void check_drain(void)
{
    int idle = dial(), busy = dial();
    put(busy, "GET /pending HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (int i = 0; i < 500 && au_http_server_active(server) == 0; i++)
        au_sleep_ms(1);
    au_http_server_drain(server);
    drain_socket(busy);
    assert_true(has("\"later\":true") && has("Connection: close"));
    drain_socket(idle);
    assert_int_equal(reply_len, 0);
    close(idle);
    close(busy);
}

static void test_drain_answers_what_is_under_way(void **state)
{
    (void)state;
    au_http_config config = base_config();
    with_server(&config, check_drain);
}

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *listen;
        au_status want;
    } rows[] = {{"0.0.0.0:0", AU_INVALID},   {"[::]:0", AU_INVALID},
                {"127.0.0.1", AU_INVALID},   {":80", AU_INVALID},
                {"127.0.0.1:", AU_INVALID},  {"127.0.0.1:70000", AU_INVALID},
                {"127.0.0.1:x", AU_INVALID}, {"localhost:0", AU_OK}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        au_http_config config = base_config();
        config.listen = rows[i].listen;
        au_http_server *s = NULL;
        au_err err;
        assert_int_equal(au_http_server_start(&s, &config, &err), rows[i].want);
        au_http_server_stop(&s, 0);
    }
    char taken[64];
    snprintf(taken, sizeof taken, "127.0.0.1:%d", port);
    au_http_config config = base_config();
    config.listen = taken;
    au_http_server *s = NULL;
    assert_int_equal(au_http_server_start(&s, &config, NULL), AU_CONFLICT);
    config.listen = "0.0.0.0:0";
    config.allow_remote = true;
    assert_int_equal(au_http_server_start(&s, &config, NULL), AU_OK);
    au_http_server_stop(&s, 0);
}

/* Sends a head and n bytes of '-', reads to the end of the connection; the status. */
static int upload_bytes(const char *head, size_t n, const char *tail)
{
    static char block[65536];
    int fd = dial();
    put(fd, head);
    memset(block, '-', sizeof block);
    for (size_t left = n; left;) {
        size_t part = left < sizeof block ? left : sizeof block;
        ssize_t sent = send(fd, block, part, MSG_NOSIGNAL);
        if (sent <= 0)
            break; /* refused before the end */
        left -= (size_t)sent;
    }
    if (tail[0] && send(fd, tail, strlen(tail), MSG_NOSIGNAL) < 0)
        tail = "";
    drain_socket(fd);
    close(fd);
    int status = 0;
    return sscanf(reply, "HTTP/1.1 %d ", &status) == 1 ? status : 0;
}

static void test_uploads_come_in_pieces(void **state)
{
    (void)state;
    char head[256];
    int ended = atomic_load(&uploads_ended);
    for (int d = -1; d <= 1; d++) {
        snprintf(head, sizeof head, "POST /upload HTTP/1.1\r\nContent-Length: %d\r\n" END,
                 MAX_UPLOAD + d);
        assert_int_equal(upload_bytes(head, d > 0 ? 0 : MAX_UPLOAD + d, ""), d > 0 ? 413 : 201);
    }
    assert_int_equal(ask("POST /upload HTTP/1.1\r\nContent-Length: 0\r\n" END), 201);
    assert_string_equal(body(), "{\"len\":0}\n");
    for (int d = -1; d <= 1; d++) {
        snprintf(head, sizeof head,
                 "POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "%x\r\n",
                 MAX_UPLOAD + d);
        assert_int_equal(upload_bytes(head, MAX_UPLOAD + d, "\r\n0\r\n\r\n"), d > 0 ? 413 : 201);
    }
    assert_int_equal(
        ask("POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "2\r\n--\r\nq"), 400);
    assert_int_equal(ask("POST /upload HTTP/1.1\r\nContent-Length: 100000\r\n" END "--x--"), 422);
    assert_int_equal(
        ask("POST /upload HTTP/1.1\r\nX-Refuse: 1\r\nContent-Length: 5\r\n" END "-----"), 415);
    /* Neither the one refused by its length nor the one refused by its head was begun. */
    int begun = 2 + 1 + 3 + 1 + 1;
    for (int i = 0; i < 2000 && atomic_load(&uploads_ended) - ended < begun; i++)
        au_sleep_ms(5);
    assert_int_equal(atomic_load(&uploads_ended) - ended, begun);
}

static void test_upload_is_asked_for_and_ends_with_its_client(void **state)
{
    (void)state;
    int ended = atomic_load(&uploads_ended);
    int fd = dial();
    char first[64] = {0};
    put(fd, "POST /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n" END);
    assert_true(recv(fd, first, sizeof first - 1, 0) > 0);
    assert_string_equal(first, "HTTP/1.1 100 Continue\r\n\r\n");
    put(fd, "-----");
    close(fd);
    for (int i = 0; i < 2000 && atomic_load(&uploads_ended) == ended; i++)
        au_sleep_ms(5);
    assert_int_equal(atomic_load(&uploads_ended), ended + 1);
    /* A refusal comes instead of the invitation. */
    assert_int_equal(ask("POST /upload HTTP/1.1\r\nX-Refuse: 1\r\nExpect: 100-continue\r\n"
                         "Content-Length: 10\r\n" END),
                     415);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uploads_come_in_pieces),
        cmocka_unit_test(test_upload_is_asked_for_and_ends_with_its_client),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_errors_are_problems),
        cmocka_unit_test(test_long_lines_and_heads),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_connections_are_kept),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_several_ranges),
        cmocka_unit_test(test_a_file_of_more_than_4_gib),
        cmocka_unit_test(test_an_empty_file),
        cmocka_unit_test(test_a_file_that_shrinks_cuts_the_connection),
        cmocka_unit_test(test_a_connection_held_by_others_ends),
        cmocka_unit_test(test_pending_and_again),
        cmocka_unit_test(test_slow_clients),
        cmocka_unit_test(test_too_many_connections),
        cmocka_unit_test(test_a_hook_decides_before_the_body),
        cmocka_unit_test(test_a_base_path_is_taken_off_and_put_before),
        cmocka_unit_test(test_come_back_says_when),
        cmocka_unit_test(test_slow_readers_are_cut_off),
        cmocka_unit_test(test_the_trace_of_the_caller_is_logged),
        cmocka_unit_test(test_dripping_heads_give_way),
        cmocka_unit_test(test_drain_answers_what_is_under_way),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests_name("server", tests, setup, teardown);
}
