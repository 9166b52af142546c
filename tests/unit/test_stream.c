/* SPDX-License-Identifier: MIT */
/* Streamed replies and requests that are woken, over raw sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/http.h"

enum { PIECE_BYTES = 1000, PIECES = 20000, REPLY_BYTES = PIECES * (PIECE_BYTES + 16) };

/* What the handlers do, seen from outside. */
static atomic_int begun, ended, calls, taken, news;

static void on_end(void *data)
{
    (void)data;
    atomic_fetch_add(&ended, 1);
}

static void begin(au_http_request *rq, void *data)
{
    au_http_set_header(rq, "X-Test", "yes");
    au_http_set_data(rq, data);
    au_http_on_end(rq, on_end, NULL);
    au_http_stream_begin(rq, "text/plain");
    atomic_fetch_add(&begun, 1);
}

/* Writes the number of the news whenever it has changed, ends at 3. */
static au_http_result pump_news(au_http_request *rq)
{
    atomic_fetch_add(&calls, 1);
    intptr_t seen = (intptr_t)au_http_data(rq);
    int now = atomic_load(&news);
    for (; seen < now && seen < 3; seen++) {
        char text[32];
        snprintf(text, sizeof text, "news %d\n", (int)seen + 1);
        assert_true(au_http_stream_write(rq, text, strlen(text)));
    }
    au_http_set_data(rq, (void *)seen);
    if (seen == 3 || au_http_draining(rq))
        return au_http_stream_end(rq);
    return au_http_stream_wait(rq, pump_news, 60000);
}

static au_http_result get_news(au_http_request *rq)
{
    begin(rq, (void *)0);
    return au_http_is_head(rq) ? au_http_stream_end(rq) : pump_news(rq);
}

/* As many pieces as the client takes. */
static au_http_result pump_flood(au_http_request *rq)
{
    intptr_t n = (intptr_t)au_http_data(rq);
    char piece[PIECE_BYTES];
    while (n < PIECES) {
        memset(piece, 'a' + (int)(n % 26), sizeof piece);
        if (!au_http_stream_write(rq, piece, sizeof piece))
            break;
        n++;
        atomic_store(&taken, (int)n);
    }
    au_http_set_data(rq, (void *)n);
    return n == PIECES ? au_http_stream_end(rq) : au_http_stream_wait(rq, pump_flood, 60000);
}

static au_http_result get_flood(au_http_request *rq)
{
    begin(rq, (void *)0);
    return pump_flood(rq);
}

/* A piece every millisecond, ten of them. */
static au_http_result pump_timed(au_http_request *rq)
{
    intptr_t n = (intptr_t)au_http_data(rq) + 1;
    au_http_set_data(rq, (void *)n);
    assert_true(au_http_stream_idle(rq));
    au_http_stream_write(rq, ".", 1);
    au_http_stream_write(rq, "", 0); /* would end a chunked body */
    return n == 10 ? au_http_stream_end(rq) : au_http_stream_wait(rq, pump_timed, 1);
}

static au_http_result get_timed(au_http_request *rq)
{
    begin(rq, (void *)0);
    return pump_timed(rq);
}

/* Answers once there are news, or at a drain. */
static au_http_result get_wait(au_http_request *rq)
{
    atomic_fetch_add(&calls, 1);
    if (atomic_load(&news) == 0 && !au_http_draining(rq))
        return au_http_wait(rq, get_wait, 60000);
    return au_http_reply_json(rq, 200, json_pack("{s:i}", "news", atomic_load(&news)));
}

static const au_http_route routes[] = {
    {"GET", "/news", get_news, 0}, {"GET", "/flood", get_flood, 0}, {"GET", "/timed", get_timed, 0},
    {"GET", "/wait", get_wait, 0}, {NULL, NULL, NULL, 0},
};

/* ---- A client ---- */

static au_http_server *server;
static int port;
static char *reply;
static size_t reply_len;

static int start_with(int64_t idle_timeout_ms)
{
    au_err err;
    const au_http_config config = {.listen = "127.0.0.1:0",
                                   .routes = routes,
                                   .threads = 2,
                                   .max_connections = 50,
                                   .max_body_bytes = 1000,
                                   .header_timeout_ms = 60000,
                                   .idle_timeout_ms = idle_timeout_ms};
    atomic_store(&begun, 0);
    atomic_store(&ended, 0);
    atomic_store(&calls, 0);
    atomic_store(&taken, 0);
    atomic_store(&news, 0);
    reply = malloc(REPLY_BYTES);
    if (au_http_server_start(&server, &config, &err) != AU_OK)
        fail_msg("%s", err.message);
    port = atoi(strrchr(au_http_server_url(server), ':') + 1);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return start_with(60000);
}

static int setup_impatient(void **state)
{
    (void)state;
    return start_with(200);
}

static int teardown(void **state)
{
    (void)state;
    au_http_server_stop(&server, 0);
    assert_int_equal(atomic_load(&begun), atomic_load(&ended));
    free(reply);
    return 0;
}

static int ask(const char *text)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    return fd;
}

/* Reads up to `mark`, or to the end with NULL. */
static void read_to(int fd, const char *mark)
{
    ssize_t n = 1;
    while (n > 0 && reply_len < REPLY_BYTES - 1 && !(mark && strstr(reply, mark))) {
        n = recv(fd, reply + reply_len, REPLY_BYTES - 1 - reply_len, 0);
        reply_len += n > 0 ? (size_t)n : 0;
        reply[reply_len] = '\0';
    }
    assert_true(!mark || strstr(reply, mark));
}

static void clear(void)
{
    reply_len = 0;
    reply[0] = '\0';
}

static void wait_for(atomic_int *what, int value)
{
    for (int i = 0; i < 6000 && atomic_load(what) < value; i++)
        au_sleep_ms(5);
    assert_true(atomic_load(what) >= value);
}

static void tell(int n)
{
    atomic_store(&news, n);
    au_http_server_wake(server);
}

#define GET(path, version, more) "GET " path " HTTP/" version "\r\nHost: localhost\r\n" more "\r\n"

/* ---- Tests ---- */

static void test_pieces_are_chunks_and_the_connection_stays(void **state)
{
    (void)state;
    clear();
    int fd = ask(GET("/timed", "1.1", "") GET("/wait", "1.1", ""));
    read_to(fd, "\r\n0\r\n\r\n");
    const char *body = strstr(reply, "\r\n\r\n") + 4;
    assert_non_null(strstr(reply, "Transfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(reply, "X-Test: yes\r\n"));
    assert_null(strstr(reply, "Content-Length"));
    for (int i = 0; i < 10; i++, body += 6)
        assert_memory_equal(body, "1\r\n.\r\n", 6);
    assert_string_equal(body, "0\r\n\r\n");
    tell(1);
    read_to(fd, "{\"news\":1}");
    close(fd);
}

static void test_old_clients_get_bytes_until_the_end(void **state)
{
    (void)state;
    clear();
    int fd = ask(GET("/timed", "1.0", "Connection: keep-alive\r\n"));
    read_to(fd, NULL);
    close(fd);
    assert_non_null(strstr(reply, "Connection: close\r\n"));
    assert_null(strstr(reply, "chunked"));
    assert_string_equal(strstr(reply, "\r\n\r\n") + 4, "..........");
}

static void test_head_gets_the_head(void **state)
{
    (void)state;
    clear();
    int fd = ask("HEAD /news HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    read_to(fd, NULL);
    close(fd);
    assert_non_null(strstr(reply, "HTTP/1.1 200 "));
    assert_string_equal(strstr(reply, "\r\n\r\n") + 4, "");
}

static void test_waking(void **state)
{
    (void)state;
    int fds[8];
    for (int i = 0; i < 8; i++)
        fds[i] = ask(i < 6 ? GET("/news", "1.1", "Connection: close\r\n")
                           : GET("/wait", "1.1", "Connection: close\r\n"));
    wait_for(&calls, 8);
    tell(1);
    tell(3);
    for (int i = 0; i < 8; i++) {
        clear();
        read_to(fds[i], NULL);
        close(fds[i]);
        assert_non_null(strstr(reply, i < 6 ? "7\r\nnews 3\n\r\n0\r\n\r\n" : "{\"news\":"));
    }
}

static void test_many_wakes_from_many_threads(void **state)
{
    (void)state;
    int fds[16];
    for (int i = 0; i < 16; i++)
        fds[i] = ask(GET("/news", "1.1", "Connection: close\r\n"));
    wait_for(&calls, 16);
    for (int n = 0; n < 1000; n++)
        au_http_server_wake(server);
    tell(3);
    for (int i = 0; i < 16; i++) {
        clear();
        read_to(fds[i], NULL);
        close(fds[i]);
        assert_non_null(strstr(reply, "news 1\n"));
        assert_non_null(strstr(reply, "news 3\n"));
    }
    assert_int_equal(atomic_load(&begun), 16);
}

static void test_a_slow_reader_is_waited_for_and_loses_nothing(void **state)
{
    (void)state;
    clear();
    int fd = ask(GET("/flood", "1.0", ""));
    /* The server stops writing long before the end: what it holds is bounded. */
    int before = -1;
    while (before != atomic_load(&taken) || before == 0) {
        before = atomic_load(&taken);
        au_sleep_ms(100);
    }
    assert_in_range(before, 1, PIECES - 1);
    tell(1); /* a wake does not change that */
    au_sleep_ms(50);
    assert_in_range(atomic_load(&taken), before, PIECES - 1);
    read_to(fd, NULL);
    close(fd);
    const char *body = strstr(reply, "\r\n\r\n") + 4;
    assert_int_equal(reply_len - (size_t)(body - reply), (size_t)PIECES * PIECE_BYTES);
    for (size_t i = 0; i < PIECES; i++) {
        assert_int_equal(body[i * PIECE_BYTES], 'a' + i % 26);
        assert_int_equal(body[(i + 1) * PIECE_BYTES - 1], 'a' + i % 26);
    }
}

static void test_who_reads_nothing_is_cut_off(void **state)
{
    (void)state;
    int fd = ask(GET("/flood", "1.1", ""));
    wait_for(&ended, 1);
    assert_in_range(atomic_load(&taken), 1, PIECES - 1);
    close(fd);
}

static void test_silent_streams_stay(void **state)
{
    (void)state;
    clear();
    int fd = ask(GET("/news", "1.1", ""));
    wait_for(&calls, 1);
    au_sleep_ms(600); /* three times the patience with those who do not read */
    assert_int_equal(atomic_load(&ended), 0);
    tell(3);
    read_to(fd, "news 3\n\r\n0\r\n\r\n");
    close(fd);
}

static void test_clients_that_leave_end_their_streams(void **state)
{
    (void)state;
    int news_fd = ask(GET("/news", "1.1", "")), flood_fd = ask(GET("/flood", "1.1", ""));
    wait_for(&begun, 2);
    close(news_fd);
    close(flood_fd);
    wait_for(&ended, 2);
}

static void test_a_drain_ends_streams(void **state)
{
    (void)state;
    clear();
    int fd = ask(GET("/news", "1.1", "")), waiting = ask(GET("/wait", "1.1", ""));
    wait_for(&calls, 2);
    au_http_server_drain(server);
    read_to(fd, NULL);
    assert_non_null(strstr(reply, "\r\n\r\n0\r\n\r\n"));
    clear();
    read_to(waiting, NULL);
    assert_non_null(strstr(reply, "{\"news\":0}"));
    close(fd);
    close(waiting);
}

static void test_stop_cuts_a_slow_reader_off(void **state)
{
    (void)state;
    int fd = ask(GET("/flood", "1.1", ""));
    wait_for(&taken, 10);
    au_http_server_stop(&server, 100);
    assert_int_equal(atomic_load(&ended), 1);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pieces_are_chunks_and_the_connection_stays, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_old_clients_get_bytes_until_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_gets_the_head, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waking, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_wakes_from_many_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_slow_reader_is_waited_for_and_loses_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_who_reads_nothing_is_cut_off, setup_impatient,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_silent_streams_stay, setup_impatient, teardown),
        cmocka_unit_test_setup_teardown(test_clients_that_leave_end_their_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_drain_ends_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_cuts_a_slow_reader_off, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
