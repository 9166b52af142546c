/* SPDX-License-Identifier: MIT */
/* Worker processes of a server. One thread owns the slots and does everything that waits; other
 * threads only look at them, and ask (stop, kill) by flags and signals under `lock`.
 *
 * A child is started by posix_spawn with an empty signal mask and its own process group, so that a
 * terminal's Ctrl-C reaches the server alone, which then tells the workers. It inherits the read
 * end of one pipe whose write end only the server has: end-of-file there means that the server is
 * gone. A pid is signalled only while its slot holds it, and a slot drops it right after waitpid:
 * never a stranger's. */
#include "jobs/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "jobs/job.h"

enum {
    MOST = 60, /* times restart_ms: the longest pause, and a life that forgets deaths */
    LONGEST_SLEEP_MS = 60000,
    POLL_MS = 100,         /* where the kernel has no pidfd */
    EXTRA_GRACE_MS = 5000, /* after the workers' own grace period, for handing back */
    MAX_WORKERS = 64,
    WHY_BYTES = 1024,
};

typedef struct slot {
    pid_t pid; /* 0: none */
    int pidfd; /* -1: none */
    char id[AU_UUID_TEXT];
    int64_t started, next_start; /* monotonic ms */
    int64_t backoff_ms;
} slot;

struct au_supervisor {
    au_supervisor_config config;
    char **argv; /* config.argv with four more words; the strings of config are borrowed */
    size_t argc;
    char fd_text[16];
    int pipe[2]; /* [0] goes to the children */
    int event;   /* wakes the thread */
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* of everything below */
    slot slots[MAX_WORKERS];
    bool stopping, kill_now;
    char why[WHY_BYTES];
};

/* ---- Starting
 * --------------------------------------------------------------------------------------------- */

static au_status prepare_actions(const au_supervisor *s, posix_spawn_file_actions_t *actions,
                                 posix_spawnattr_t *attr, au_err *err)
{
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGTERM);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGHUP);
    /* dup2 of a descriptor onto itself clears its close-on-exec flag. */
    int rc = posix_spawn_file_actions_adddup2(actions, s->pipe[0], s->pipe[0]);
    if (rc == 0)
        rc = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    if (rc == 0) /* standard output is for the server's own line */
        rc = posix_spawn_file_actions_adddup2(actions, 2, 1);
    if (rc == 0)
        rc = posix_spawnattr_setsigmask(attr, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(attr, &defaults);
    if (rc == 0)
        rc = posix_spawnattr_setpgroup(attr, 0);
    if (rc == 0)
        rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                POSIX_SPAWN_SETPGROUP);
    return rc == 0 ? AU_OK : au_fail_errno(err, rc, "cannot prepare a worker");
}

static au_status spawn(au_supervisor *s, slot *w, au_err *err)
{
    extern char **environ;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    au_status st = AU_OK;
    pid_t pid;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    AU_TRY(prepare_actions(s, &actions, &attr, err));
    au_uuid7(w->id);
    s->argv[s->argc + 1] = w->id;
    int rc = posix_spawn(&pid, s->config.exe ? s->config.exe : "/proc/self/exe", &actions, &attr,
                         s->argv, environ);
    if (rc != 0) {
        st = au_fail_errno(err, rc, "cannot start a worker");
        goto done;
    }
    w->pid = pid;
    w->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (w->pidfd >= 0)
        (void)fcntl(w->pidfd, F_SETFD, FD_CLOEXEC);
    w->started = au_mono_ms();
    au_log(AU_LOG_INFO, "supervisor", "worker started worker=%s pid=%d", w->id, (int)pid);
done:
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return st;
}

static void delay_start(const au_supervisor *s, slot *w, int64_t now)
{
    int64_t first = s->config.limits.restart_ms, most = first * MOST;
    if (w->backoff_ms == 0 || now - w->started >= most)
        w->backoff_ms = first;
    else
        w->backoff_ms = w->backoff_ms * 2 > most ? most : w->backoff_ms * 2;
    int64_t half = w->backoff_ms / 2;
    w->next_start = now + half + (int64_t)(au_random_seed() % (uint64_t)(half + 1));
}

static void start_due(au_supervisor *s)
{
    int64_t now = au_mono_ms();
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->config.n_workers && !s->stopping; i++) {
        slot *w = &s->slots[i];
        au_err err;
        if (w->pid != 0 || now < w->next_start)
            continue;
        if (spawn(s, w, &err) != AU_OK) {
            snprintf(s->why, sizeof s->why, "%.1000s", err.message);
            w->started = now;
            delay_start(s, w, now);
        }
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- Reaping
 * ---------------------------------------------------------------------------------------------- */

typedef struct burial {
    const au_limits *limits;
    char id[AU_UUID_TEXT];
    char reason[128];
    char detail[WHY_BYTES]; /* what the worker said of itself before it ended */
    au_loss loss;
    int n;
} burial;

static au_status bury(au_db *db, void *arg, au_err *err)
{
    burial *b = arg;
    au_rows *rows = NULL;
    bool has_row;
    au_status st = AU_OK;
    b->detail[0] = 0;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT detail FROM workers WHERE id = ?1 AND state = 'failed'", "t",
                       b->id));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (has_row)
        snprintf(b->detail, sizeof b->detail, "%s", au_rows_text(rows, 0));
    au_rows_close(&rows);
    AU_TRY(au_jobs_worker_gone(db, b->id, b->loss, b->reason, b->limits, &b->n, err));
done:
    au_rows_close(&rows);
    return st;
}

static void describe_end(char *out, size_t size, int status)
{
    if (WIFSIGNALED(status))
        snprintf(out, size, "the worker was killed by signal %d", WTERMSIG(status));
    else
        snprintf(out, size, "the worker ended with status %d", WEXITSTATUS(status));
}

/* Takes a dead child out of its slot; false: none is dead. */
static bool reap_one(au_supervisor *s, burial *b, int *status)
{
    bool found = false;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->config.n_workers && !found; i++) {
        slot *w = &s->slots[i];
        if (w->pid == 0 || waitpid(w->pid, status, WNOHANG) != w->pid)
            continue;
        found = true;
        au_log(AU_LOG_INFO, "supervisor", "worker ended worker=%s pid=%d", w->id, (int)w->pid);
        w->pid = 0;
        if (w->pidfd >= 0)
            close(w->pidfd);
        w->pidfd = -1;
        memcpy(b->id, w->id, sizeof b->id);
        b->loss = s->stopping ? AU_LOSS_INTERRUPTED : AU_LOSS_DEATH;
        delay_start(s, w, au_mono_ms());
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

static void reap(au_supervisor *s)
{
    burial b = {.limits = &s->config.limits};
    int status = 0;
    while (reap_one(s, &b, &status)) {
        au_err err = {0};
        describe_end(b.reason, sizeof b.reason, status);
        if (au_writer_run(s->config.writer, bury, &b, &err) != AU_OK)
            /* The janitor finds the free lock file. */
            au_log(AU_LOG_ERROR, "supervisor",
                   "end of a worker is not recorded worker=%s detail=%s", b.id,
                   au_log_quote((char[512]){0}, 512, err.message));
        pthread_mutex_lock(&s->lock);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            snprintf(s->why, sizeof s->why, "%s", b.detail[0] ? b.detail : b.reason);
        pthread_mutex_unlock(&s->lock);
        if (s->config.on_requeued)
            s->config.on_requeued(s->config.user);
    }
}

/* ---- The thread
 * -------------------------------------------------------------------------------------------- */

static void signal_all(au_supervisor *s, int sig)
{
    for (int i = 0; i < s->config.n_workers; i++) {
        if (s->slots[i].pid > 0)
            (void)kill(s->slots[i].pid, sig);
    }
}

/* Sleeps until a child ends, somebody wakes us, or the next start is due. */
static void wait_for_work(au_supervisor *s)
{
    struct pollfd fds[MAX_WORKERS + 1];
    nfds_t n = 1;
    int64_t now = au_mono_ms(), wait = LONGEST_SLEEP_MS;
    fds[0] = (struct pollfd){.fd = s->event, .events = POLLIN};
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->config.n_workers; i++) {
        const slot *w = &s->slots[i];
        if (w->pid != 0 && w->pidfd >= 0)
            fds[n++] = (struct pollfd){.fd = w->pidfd, .events = POLLIN};
        else if (w->pid != 0)
            wait = wait < POLL_MS ? wait : POLL_MS;
        else if (!s->stopping && w->next_start - now < wait)
            wait = w->next_start > now ? w->next_start - now : 0;
    }
    pthread_mutex_unlock(&s->lock);
    (void)poll(fds, n, (int)wait);
    uint64_t count;
    if (read(s->event, &count, sizeof count) < 0 && errno != EAGAIN)
        au_log(AU_LOG_ERROR, "supervisor", "cannot read the event descriptor");
}

static bool is_finished(au_supervisor *s)
{
    pthread_mutex_lock(&s->lock);
    bool finished = s->stopping;
    for (int i = 0; i < s->config.n_workers; i++)
        finished = finished && s->slots[i].pid == 0;
    if (s->kill_now)
        signal_all(s, SIGKILL);
    pthread_mutex_unlock(&s->lock);
    return finished;
}

static void *supervisor_main(void *arg)
{
    au_supervisor *s = arg;
    while (!is_finished(s)) {
        start_due(s);
        wait_for_work(s);
        reap(s);
    }
    return NULL;
}

/* ---- From outside
 * ------------------------------------------------------------------------------------------- */

static void free_parts(au_supervisor *s)
{
    if (s->pipe[0] >= 0)
        close(s->pipe[0]);
    if (s->pipe[1] >= 0)
        close(s->pipe[1]);
    if (s->event >= 0)
        close(s->event);
    free(s->argv);
    free(s);
}

static au_status build_argv(au_supervisor *s, au_err *err)
{
    au_status st = AU_OK;
    while (s->config.argv[s->argc])
        s->argc++;
    AU_TRY(au_calloc(&s->argv, s->argc + 5, sizeof *s->argv, err));
    for (size_t i = 0; i < s->argc; i++)
        s->argv[i] = (char *)s->config.argv[i];
    snprintf(s->fd_text, sizeof s->fd_text, "%d", s->pipe[0]);
    s->argv[s->argc] = "--worker-id"; /* its value is set at each start */
    s->argv[s->argc + 2] = "--parent-fd";
    s->argv[s->argc + 3] = s->fd_text;
done:
    return st;
}

au_status au_supervisor_new(au_supervisor **out, const au_supervisor_config *config, au_err *err)
{
    au_supervisor *s = NULL;
    au_status st = AU_OK;
    *out = NULL;
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->config = *config;
    s->pipe[0] = s->pipe[1] = s->event = -1;
    AU_FAIL_IF(config->n_workers < 0 || config->n_workers > MAX_WORKERS, AU_INVALID,
               "%d workers, expected 0 to %d", config->n_workers, (int)MAX_WORKERS);
    s->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->event < 0 || pipe2(s->pipe, O_CLOEXEC) != 0) {
        st = au_fail_errno(err, errno, "cannot make a pipe");
        goto done;
    }
    AU_TRY(build_argv(s, err));
    for (int i = 0; i < MAX_WORKERS; i++)
        s->slots[i].pidfd = -1;
    pthread_mutex_init(&s->lock, NULL);
    int rc = pthread_create(&s->thread, NULL, supervisor_main, s);
    if (rc != 0) {
        pthread_mutex_destroy(&s->lock);
        st = au_fail_errno(err, rc, "cannot start the supervisor thread");
        goto done;
    }
    *out = s;
    s = NULL;
done:
    if (s)
        free_parts(s);
    return st;
}

int au_supervisor_alive(au_supervisor *s, char *why, size_t size)
{
    int n = 0;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->config.n_workers; i++)
        n += s->slots[i].pid != 0;
    if (why)
        snprintf(why, size, "%s", s->why);
    pthread_mutex_unlock(&s->lock);
    return n;
}

void au_supervisor_kill(au_supervisor *s, const char *worker_id)
{
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->config.n_workers; i++) {
        if (s->slots[i].pid > 0 && strcmp(s->slots[i].id, worker_id) == 0)
            (void)kill(s->slots[i].pid, SIGKILL);
    }
    pthread_mutex_unlock(&s->lock);
}

static void ask_to_stop(au_supervisor *s, bool kill_now)
{
    const uint64_t one = 1;
    pthread_mutex_lock(&s->lock);
    if (!s->stopping)
        signal_all(s, SIGTERM);
    s->stopping = true;
    s->kill_now = s->kill_now || kill_now;
    pthread_mutex_unlock(&s->lock);
    if (write(s->event, &one, sizeof one) < 0 && errno != EAGAIN)
        au_log(AU_LOG_ERROR, "supervisor", "cannot write to the event descriptor");
}

void au_supervisor_stop(au_supervisor *s)
{
    ask_to_stop(s, false);
}

void au_supervisor_free(au_supervisor **supervisor, bool at_once)
{
    au_supervisor *s = supervisor ? *supervisor : NULL;
    if (!s)
        return;
    ask_to_stop(s, at_once);
    int64_t end = au_mono_ms() + s->config.limits.shutdown_grace_ms + EXTRA_GRACE_MS;
    while (au_supervisor_alive(s, NULL, 0) > 0 && au_mono_ms() < end)
        au_sleep_ms(10);
    ask_to_stop(s, true);
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->lock);
    free_parts(s);
    *supervisor = NULL;
}
