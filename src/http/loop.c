/* SPDX-License-Identifier: MIT */
/* A loop thread: waits for its sockets with epoll, for deadlines, and for connections that other
 * threads give to it (new ones from the accepting loop, resumed ones from whoever held their
 * request). Loop 0 accepts and deals connections out in turn.
 *
 * Deadlines are found by walking the loop's connections when the nearest one known has passed; with
 * at most some thousand connections that costs less than keeping a heap in order. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/internal.h"

enum {
    EVENTS_PER_WAIT = 64,
    ACCEPTS_PER_EVENT = 64,
    ACCEPT_PAUSE_MS = 100,
    STOP_POLL_MS = 20,
    SHED_IDLE_MS = 500,
    SHED_HEAD_MS = 1000,
    SHED_OVERFLOW_MS = 100, /* their places are few, and a health check speaks at once */
    OVERFLOW_CONNECTIONS =
        64, /* above max_connections: they are told 503; beyond these they are just closed */
};

void au_http_loop_wake(au_http_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->event_fd, &one, sizeof one);
    (void)n; /* EAGAIN: the counter is full, so the loop will wake anyway */
}

void au_http_loop_post(au_http_loop *loop, au_http_conn *c)
{
    pthread_mutex_lock(&loop->mutex);
    bool was_empty = !loop->inbox;
    c->inbox_next = loop->inbox;
    loop->inbox = c;
    /* Under the lock: once the loop has taken c, loop and server may go. */
    if (was_empty)
        au_http_loop_wake(loop);
    pthread_mutex_unlock(&loop->mutex);
}

static void take_inbox(au_http_loop *loop)
{
    uint64_t count;
    ssize_t n = read(loop->event_fd, &count, sizeof count);
    (void)n; /* EAGAIN: somebody woke us and we looked already */
    pthread_mutex_lock(&loop->mutex);
    au_http_conn *c = loop->inbox;
    loop->inbox = NULL;
    pthread_mutex_unlock(&loop->mutex);
    /* Newest first: turn the list round, so that who came first is served first. */
    au_http_conn *ordered = NULL;
    while (c) {
        au_http_conn *next = c->inbox_next;
        c->inbox_next = ordered;
        ordered = c;
        c = next;
    }
    while (ordered) {
        au_http_conn *next = ordered->inbox_next;
        if (ordered->is_new)
            au_http_conn_start(ordered);
        else
            au_http_conn_resumed(ordered);
        ordered = next;
    }
}

static void listen_events(au_http_loop *loop, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = loop};
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, loop->server->listen_fd, &ev);
}

static void shed_idle(au_http_server *server)
{
    for (int i = 0; i < server->config.threads; i++) {
        if (!atomic_exchange(&server->loops[i].shed, true))
            au_http_loop_wake(&server->loops[i]);
    }
}

/* Kept connections that have been idle for a while, and those whose head still drips in, make room
 * for clients that ask for something. */
static void close_idle(au_http_loop *loop)
{
    int64_t now = au_mono_ms();
    for (au_http_conn *c = loop->conns, *next; c; c = next) {
        next = c->next;
        int64_t patience = c->overflow ? SHED_OVERFLOW_MS : c->in_len ? SHED_HEAD_MS : SHED_IDLE_MS;
        if (c->state == CONN_HEAD && now - c->head_since_ms >= patience)
            au_http_conn_close(c);
    }
}

/* Gives a new socket to the loop whose turn it is. */
static void deal(au_http_loop *loop, int fd)
{
    au_http_server *server = loop->server;
    au_http_loop *target = &server->loops[server->next_loop++ % (unsigned)server->config.threads];
    /* The ones that are told 503 are counted apart: else clients that come back at once would keep
     * everybody out. */
    bool overflow = atomic_load(&server->n_conns) >= server->config.max_connections;
    atomic_int *count = overflow ? &server->n_overflow : &server->n_conns;
    bool drop = overflow && atomic_load(count) >= OVERFLOW_CONNECTIONS;
    au_http_conn *c = drop ? NULL : au_http_conn_new(target, fd);
    if (overflow)
        shed_idle(server);
    if (!c) {
        close(fd);
        return;
    }
    atomic_fetch_add(count, 1);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->overflow = overflow;
    if (target == loop)
        au_http_conn_start(c);
    else
        au_http_loop_post(target, c);
}

static void accept_some(au_http_loop *loop)
{
    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        int fd = accept4(loop->server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            deal(loop, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            au_log(AU_LOG_WARN, "http", "cannot accept a connection: out of descriptors or memory");
            listen_events(loop, 0);
            loop->listen_again_ms = au_mono_ms() + ACCEPT_PAUSE_MS;
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

/* Calls what is due and finds the next deadline. */
static void check_deadlines(au_http_loop *loop, int64_t now)
{
    loop->next_check_ms = INT64_MAX;
    for (au_http_conn *c = loop->conns, *next; c; c = next) {
        next = c->next;
        if (c->deadline_ms <= now)
            au_http_conn_deadline(c);
        else if (c->deadline_ms < loop->next_check_ms)
            loop->next_check_ms = c->deadline_ms;
    }
}

/* Somebody has news for those who wait. */
static void wake_waiting(au_http_loop *loop)
{
    for (au_http_conn *c = loop->conns, *next; c; c = next) {
        next = c->next;
        if (c->rq.wakes)
            au_http_conn_woken(c);
    }
}

/* Draining: idle connections go; stopping past the grace period: all that are not pending go. */
static void close_some(au_http_loop *loop, bool all)
{
    if (loop->listening) {
        /* Closed, not just ignored: who connects now is refused rather than left waiting. */
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, loop->server->listen_fd, NULL); /* as in conn.c */
        close(loop->server->listen_fd);
        loop->server->listen_fd = -1;
        loop->listening = false;
    }
    for (au_http_conn *c = loop->conns, *next; c; c = next) {
        next = c->next;
        bool idle = c->state == CONN_HEAD && c->in_len == 0;
        /* Long polls look at au_http_draining and answer; streams end. */
        if (c->state == CONN_AGAIN && !all)
            au_http_conn_deadline(c);
        else if (c->state == CONN_STREAM && !all)
            au_http_conn_woken(c);
        else if (idle || (all && c->state != CONN_WAIT))
            au_http_conn_close(c);
    }
}

static int wait_ms(const au_http_loop *loop, int phase)
{
    int64_t until = loop->next_check_ms;
    if (loop->listen_again_ms && loop->listen_again_ms < until)
        until = loop->listen_again_ms;
    if (phase == SERVER_STOP)
        return STOP_POLL_MS;
    if (until == INT64_MAX)
        return -1;
    int64_t left = until - au_mono_ms();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

void *au_http_loop_main(void *arg)
{
    au_http_loop *loop = arg;
    au_http_server *server = loop->server;
    struct epoll_event events[EVENTS_PER_WAIT];
    int handled_phase = SERVER_RUN;
    while (true) {
        int phase = atomic_load(&server->phase);
        int64_t now = au_mono_ms();
        if (phase != handled_phase || phase == SERVER_STOP)
            close_some(loop, phase == SERVER_STOP && now >= atomic_load(&server->force_at_ms));
        handled_phase = phase;
        if (phase == SERVER_STOP && !loop->conns)
            break;
        int n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_WAIT, wait_ms(loop, phase));
        bool woken = false;
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            woken |= !what;
            if (what == loop)
                accept_some(loop);
            else if (what)
                au_http_conn_event(what, events[i].events);
        }
        /* After the sockets' events: a connection freed here may have had one in this batch. */
        if (woken)
            take_inbox(loop);
        if (woken && atomic_exchange(&loop->woken, false))
            wake_waiting(loop);
        now = au_mono_ms();
        if (loop->listen_again_ms && now >= loop->listen_again_ms) {
            loop->listen_again_ms = 0;
            if (loop->listening)
                listen_events(loop, EPOLLIN);
        }
        if (now >= loop->next_check_ms)
            check_deadlines(loop, now);
        if (atomic_exchange(&loop->shed, false))
            close_idle(loop);
    }
    return NULL;
}
