/* SPDX-License-Identifier: MIT */
/* The supervisor, with shell scripts in the place of workers: starts, restarts, requeues, stops,
 * and what is left when the server is killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "jobs/supervisor.h"
#include "jobs_fixture.h"

/* "sh -c SCRIPT --worker-id ID --parent-fd FD": $1 is the id, $3 the descriptor. Says that it
 * lives, then reads until end-of-file. */
#define LIVES "echo $1 $$ >> started; exec cat /dev/fd/$3"

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    fixture_open(f);
    assert_int_equal(chdir(f->dir), 0);
    f->limits.shutdown_grace_ms = 5000;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(chdir("/"), 0);
    fixture_close(*state);
    free(*state);
    return 0;
}

/* The n-th line of `started` (from 0): id and pid. Waits for it. */
static void started(int n, char id[AU_UUID_TEXT], int *pid)
{
    for (;;) {
        char *text = NULL;
        size_t len;
        int line = 0;
        if (au_file_read(&text, &len, "started", 65536, NULL) == AU_OK) {
            for (char *p = text, *end; (end = strchr(p, '\n')); p = end + 1, line++) {
                if (line == n && sscanf(p, "%36s %d", id, pid) == 2) {
                    free(text);
                    return;
                }
            }
        }
        free(text);
        au_sleep_ms(10);
    }
}

static bool is_running(int pid)
{
    char path[64], *text = NULL;
    size_t len;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    bool running = au_file_read(&text, &len, path, 4096, NULL) == AU_OK;
    if (running) {
        const char *p = strrchr(text, ')');
        running = p && p[2] != 'Z' && p[2] != 'X';
    }
    free(text);
    return running;
}

static void note(void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
}

static au_supervisor *start(fixture *f, au_writer *w, int n, const char *script,
                            atomic_int *requeued)
{
    static const char *argv[4];
    au_supervisor *s;
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = script;
    const au_supervisor_config config = {.n_workers = n,
                                         .argv = argv,
                                         .exe = "/bin/sh",
                                         .writer = w,
                                         .limits = f->limits,
                                         .on_requeued = requeued ? note : NULL,
                                         .user = requeued};
    OK(au_supervisor_new(&s, &config, &f->err));
    return s;
}

static void test_restart_and_stop(void **state)
{
    fixture *f = *state;
    au_writer *w;
    atomic_int requeued = 0;
    char ids[3][AU_UUID_TEXT], job_id[AU_UUID_TEXT];
    int pids[3];
    char why[256];
    au_job_new job = plain_job();
    au_lease lease;
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    au_supervisor *s = start(f, w, 2, LIVES, &requeued);
    started(0, ids[0], &pids[0]);
    started(1, ids[1], &pids[1]);
    assert_string_not_equal(ids[0], ids[1]);
    assert_int_equal(au_supervisor_alive(s, why, sizeof why), 2);
    assert_string_equal(why, "");
    submit(f, &job, job_id);
    assert_true(claim_as(f, ids[0], &lease));
    au_supervisor_kill(s, "01970000-0000-7000-8000-000000000001"); /* nobody's id */
    au_supervisor_kill(s, ids[0]);
    while (requeued == 0)
        au_sleep_ms(5);
    assert_int_equal(look(f, job_id)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, job_id)->attempt, 1);
    assert_non_null(strstr(look(f, job_id)->attempts, "signal 9"));
    started(2, ids[2], &pids[2]);
    assert_string_not_equal(ids[2], ids[0]);
    assert_true(is_running(pids[1]) && is_running(pids[2]));
    au_supervisor_free(&s, false);
    assert_false(is_running(pids[1]) || is_running(pids[2]));
    au_writer_free(&w);
}

static void test_cannot_start(void **state)
{
    fixture *f = *state;
    au_writer *w;
    atomic_int ended = 0;
    char why[256];
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    au_supervisor *s = start(f, w, 1, "exit 3", &ended);
    while (ended == 0)
        au_sleep_ms(5);
    (void)au_supervisor_alive(s, why, sizeof why);
    assert_string_equal(why, "the worker ended with status 3");
    au_supervisor_free(&s, false);
    s = start(f, w, 0, "exit 3", NULL);
    assert_int_equal(au_supervisor_alive(s, NULL, 0), 0);
    au_supervisor_free(&s, true);
    au_writer_free(&w);
}

/* One that ignores SIGTERM is killed; its job is an interruption, not a death. */
static void test_stubborn(void **state)
{
    fixture *f = *state;
    au_writer *w;
    char id[AU_UUID_TEXT], job_id[AU_UUID_TEXT];
    int pid;
    au_job_new job = plain_job();
    au_lease lease;
    OK(au_writer_new(&w, f->db_path, 0, &f->err));
    au_supervisor *s =
        start(f, w, 1, "trap '' TERM; echo $1 $$ >> started; while :; do sleep 0.05; done", NULL);
    started(0, id, &pid);
    submit(f, &job, job_id);
    assert_true(claim_as(f, id, &lease));
    au_supervisor_free(&s, true);
    assert_false(is_running(pid));
    assert_int_equal(look(f, job_id)->state, AU_JOB_QUEUED);
    assert_int_equal(look(f, job_id)->attempt, 0);
    assert_int_equal(look(f, job_id)->interruptions, 1);
    au_writer_free(&w);
}

/* kill -9 of the server: its workers read end-of-file. */
static void test_server_killed(void **state)
{
    fixture *f = *state;
    char id[AU_UUID_TEXT];
    int pid, status;
    au_db_close(&f->db);
    pid_t server = fork();
    assert_true(server >= 0);
    if (server == 0) {
        au_writer *w;
        if (au_writer_new(&w, f->db_path, 0, NULL) != AU_OK)
            _exit(1);
        (void)start(f, w, 1, LIVES, NULL);
        for (;;)
            pause();
    }
    started(0, id, &pid);
    assert_true(is_running(pid));
    kill(server, SIGKILL);
    assert_int_equal(waitpid(server, &status, 0), server);
    while (is_running(pid))
        au_sleep_ms(5);
    OK(au_db_open(&f->db, f->db_path, NULL, &f->err));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(test_restart_and_stop), T(test_cannot_start),
                                       T(test_stubborn), T(test_server_killed)};
    return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
