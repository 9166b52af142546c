/* SPDX-License-Identifier: MIT */
/* The life of a server: address, listening socket, loop threads, drain and stop. Start and stop
 * belong to one thread; the rest of the struct is read by the loops, its atomics by anybody. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "http/internal.h"

enum { BACKLOG = 511, ADDRESS_BYTES = 256 };

/* "host:port" into two strings; "[::1]:80" keeps no brackets. */
static bool split_listen(char host[ADDRESS_BYTES], char port[8], const char *listen)
{
    const char *colon = strrchr(listen, ':');
    if (!colon || colon == listen)
        return false;
    const char *begin = listen, *end = colon;
    if (*begin == '[') {
        begin++;
        if (end[-1] != ']')
            return false;
        end--;
    }
    size_t host_len = (size_t)(end - begin), port_len = strlen(colon + 1);
    if (host_len == 0 || host_len >= ADDRESS_BYTES || port_len == 0 || port_len > 5 ||
        strspn(colon + 1, "0123456789") != port_len)
        return false;
    memcpy(host, begin, host_len);
    host[host_len] = '\0';
    memcpy(port, colon + 1, port_len + 1);
    return strtoul(port, NULL, 10) <= 65535;
}

static au_status open_listener(au_http_server *s, const char *host, const char *port, au_err *err)
{
    au_status st = AU_OK;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char address[ADDRESS_BYTES];
    int rc = getaddrinfo(host, port, &hints, &found);
    AU_FAIL_IF(rc != 0, AU_INVALID, "listen address %s is not known: %s", host, gai_strerror(rc));
    rc = getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof address, NULL, 0,
                     NI_NUMERICHOST);
    AU_FAIL_IF(rc != 0, AU_INVALID, "listen address %s is not usable: %s", host, gai_strerror(rc));
    s->remote = !au_http_is_loopback(address);
    AU_FAIL_IF(s->remote && !s->config.allow_remote, AU_INVALID,
               "listen address %s is not a loopback address, and there is no key yet, so everybody "
               "who reaches it could use it: make a key with `aulos key create` first, or allow "
               "that with --insecure-no-auth",
               host);
    s->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->listen_fd < 0) {
        st = au_fail_errno(err, errno, "cannot make a socket");
        goto done;
    }
    int on = 1;
    setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s->listen_fd, found->ai_addr, found->ai_addrlen) != 0 ||
        listen(s->listen_fd, BACKLOG) != 0) {
        int saved = errno;
        AU_FAIL_IF(saved == EADDRINUSE, AU_CONFLICT, "%s:%s is in use by another program", host,
                   port);
        st = au_fail_errno(err, saved, "cannot listen on %s:%s", host, port);
        goto done;
    }
    AU_TRY(au_strdup(&s->bound_host, address, err));
done:
    if (found)
        freeaddrinfo(found);
    return st;
}

static au_status make_url(au_http_server *s, au_err *err)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    if (getsockname(s->listen_fd, (struct sockaddr *)&addr, &len) != 0)
        return au_fail_errno(err, errno, "cannot ask for the port");
    bool v6 = addr.ss_family == AF_INET6;
    int port = ntohs(v6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                        : ((struct sockaddr_in *)&addr)->sin_port);
    char url[ADDRESS_BYTES + 32];
    snprintf(url, sizeof url, v6 ? "http://[%s]:%d" : "http://%s:%d", s->bound_host, port);
    return au_strdup(&s->url, url, err);
}

static au_status prepare_loop(au_http_server *s, au_http_loop *loop, au_err *err)
{
    au_status st = AU_OK;
    if (s->config.thread_begin) {
        AU_TRY(s->config.thread_begin(s->config.user, &loop->state, err));
        loop->state_begun = true;
    }
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (loop->epoll_fd < 0 || loop->event_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->event_fd, &ev) != 0) {
        st = au_fail_errno(err, errno, "cannot make an event loop");
        goto done;
    }
    loop->listening = loop->index == 0;
    ev.data.ptr = loop;
    if (loop->listening && epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, s->listen_fd, &ev) != 0) {
        st = au_fail_errno(err, errno, "cannot watch the listening socket");
        goto done;
    }
done:
    return st;
}

static au_status start_loop(au_http_loop *loop, au_err *err)
{
    /* Signals are for the main thread; SIGPIPE of sendfile is for nobody. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&loop->thread, NULL, au_http_loop_main, loop);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return au_fail(err, AU_IO, "cannot start a thread: %s", strerror(rc));
    loop->thread_started = true;
    return AU_OK;
}

au_status au_http_server_start(au_http_server **out, const au_http_config *config, au_err *err)
{
    au_status st = AU_OK;
    au_http_server *s = NULL;
    char host[ADDRESS_BYTES], port[8];
    AU_ASSERT(config->threads >= 1 && config->max_connections >= 1);
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->config = *config;
    s->listen_fd = -1;
    AU_FAIL_IF(!split_listen(host, port, config->listen), AU_INVALID,
               "listen address \"%s\" is not HOST:PORT", config->listen);
    AU_TRY(open_listener(s, host, port, err));
    AU_TRY(make_url(s, err));
    AU_TRY(au_http_stats_new(&s->stats, config->routes, err));
    s->guard = (au_http_guard){s->bound_host, config->allowed_hosts};
    AU_TRY(au_calloc(&s->loops, (size_t)config->threads, sizeof *s->loops, err));
    for (int i = 0; i < config->threads; i++) {
        s->loops[i] = (au_http_loop){
            .server = s, .index = i, .epoll_fd = -1, .event_fd = -1, .next_check_ms = INT64_MAX};
        pthread_mutex_init(&s->loops[i].mutex, NULL);
    }
    /* All are ready before any runs: the one that accepts gives connections to the others. */
    for (int i = 0; i < config->threads; i++)
        AU_TRY(prepare_loop(s, &s->loops[i], err));
    for (int i = 0; i < config->threads; i++)
        AU_TRY(start_loop(&s->loops[i], err));
    *out = s;
    s = NULL;
done:
    au_http_server_stop(&s, 0);
    return st;
}

const char *au_http_server_url(const au_http_server *server)
{
    return server->url;
}

void au_http_write_metrics(const au_http_request *rq, au_buf *out)
{
    const au_http_server *server = rq->conn->loop->server;
    au_http_stats_write(server->stats, out);
    au_buf_printf(out,
                  "# HELP aulos_http_connections Connections that are open.\n"
                  "# TYPE aulos_http_connections gauge\naulos_http_connections %d\n",
                  atomic_load(&server->n_conns));
}

int au_http_server_active(const au_http_server *server)
{
    return atomic_load(&server->n_active);
}

void au_http_server_wake(au_http_server *server)
{
    for (int i = 0; i < server->config.threads; i++) {
        if (!atomic_exchange(&server->loops[i].woken, true))
            au_http_loop_wake(&server->loops[i]);
    }
}

static void set_phase(au_http_server *s, int phase)
{
    if (atomic_load(&s->phase) < phase)
        atomic_store(&s->phase, phase);
    for (int i = 0; s->loops && i < s->config.threads; i++) {
        if (s->loops[i].thread_started)
            au_http_loop_wake(&s->loops[i]);
    }
}

void au_http_server_drain(au_http_server *server)
{
    set_phase(server, SERVER_DRAIN);
}

void au_http_server_stop(au_http_server **server, int64_t grace_ms)
{
    au_http_server *s = *server;
    if (!s)
        return;
    *server = NULL;
    atomic_store(&s->force_at_ms, au_mono_ms() + grace_ms);
    set_phase(s, SERVER_STOP);
    for (int i = 0; s->loops && i < s->config.threads; i++) {
        au_http_loop *loop = &s->loops[i];
        if (loop->thread_started)
            pthread_join(loop->thread, NULL);
    }
    /* Only now: a loop that accepted may have given a connection to one that had ended. */
    for (int i = 0; s->loops && i < s->config.threads; i++) {
        au_http_loop *loop = &s->loops[i];
        for (au_http_conn *c = loop->inbox, *next; c; c = next) {
            next = c->inbox_next;
            close(c->fd);
            free(c);
        }
        if (loop->state_begun && s->config.thread_end)
            s->config.thread_end(s->config.user, loop->state);
        if (loop->epoll_fd >= 0)
            close(loop->epoll_fd);
        if (loop->event_fd >= 0)
            close(loop->event_fd);
        pthread_mutex_destroy(&loop->mutex);
    }
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    free(s->loops);
    free(s->bound_host);
    au_http_stats_free(&s->stats);
    free(s->url);
    free(s);
}
