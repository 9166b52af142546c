/* SPDX-License-Identifier: MIT */
/* The hub: who learns what, in which order, and when; also with many threads at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "api/hub.h"
#include "base/clock.h"
#include "jobs_fixture.h"

/* ---- A subscriber that notes what it gets ---- */

typedef struct seen {
    int64_t id, seq;
    bool last;
    char text[2048];
} seen;
enum { SEEN_MAX = 64 };
typedef struct notes {
    seen items[SEEN_MAX];
    int n, room; /* room: how many more are taken */
} notes;

static bool note(void *user, const au_hub_item *item)
{
    notes *x = user;
    if (x->room-- <= 0 || x->n == SEEN_MAX)
        return false;
    seen *s = &x->items[x->n++];
    *s = (seen){.id = item->id, .seq = item->seq, .last = item->last};
    snprintf(s->text, sizeof s->text, "%.*s", (int)item->len, item->text);
    return true;
}

static atomic_int wakes;

static void on_wake(void *user)
{
    (void)user;
    atomic_fetch_add(&wakes, 1);
}

typedef struct hub_fixture {
    fixture base;
    au_hub *hub;
} hub_fixture;

static int setup(void **state)
{
    hub_fixture *h = calloc(1, sizeof *h);
    fixture *f = &h->base;
    fixture_open(f);
    OK(au_hub_new(&h->hub, f->db_path, NULL, &f->err));
    atomic_store(&wakes, 0);
    au_hub_on_news(h->hub, on_wake, NULL);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    hub_fixture *h = *state;
    au_hub_free(&h->hub);
    fixture_close(&h->base);
    free(h);
    return 0;
}

/* Takes until `n` items are there, waiting as long as that needs. */
static void take(au_hub *hub, au_hub_sub *sub, notes *x, int n)
{
    for (int i = 0; i < 6000 && x->n < n; i++) {
        x->room = SEEN_MAX;
        assert_int_equal(au_hub_take(hub, sub, note, x), AU_HUB_DONE);
        if (x->n < n)
            au_sleep_ms(5);
    }
    assert_int_equal(x->n, n);
}

/* The first who joins: the hub knows what there is already once this returns. */
static void join_first(au_hub *hub, const au_hub_sub *sub)
{
    au_hub_join(hub, sub);
    for (int i = 0; i < 6000 && atomic_load(&wakes) == 0; i++)
        au_sleep_ms(5);
    assert_int_not_equal(atomic_load(&wakes), 0);
}

/* ---- Tests ---- */

static void test_commits_of_others_are_seen(void **state)
{
    hub_fixture *h = *state;
    fixture *f = &h->base;
    char a[AU_UUID_TEXT], b[AU_UUID_TEXT];
    const au_job_new job = plain_job();
    submit(f, &job, a);
    au_hub_sub all = {.kinds = AU_HUB_ALL, .id = 1}, none = {.kinds = AU_HUB_ADAPTERS, .id = 1};
    notes x = {0}, y = {0};
    join_first(h->hub, &all);
    au_hub_join(h->hub, &none);
    /* Nobody tells the hub: it looks by itself. */
    submit(f, &job, b);
    take(h->hub, &all, &x, 1);
    assert_int_equal(x.items[0].id, 2);
    assert_int_equal(x.items[0].seq, 1);
    assert_false(x.items[0].last);
    char text[256];
    snprintf(text, sizeof text, "event: state\ndata: {\"at\":\"");
    assert_memory_equal(x.items[0].text, text, strlen(text));
    snprintf(text, sizeof text, "\",\"attempt\":0,\"job_id\":\"%s\",\"state\":\"queued\"}\n\n", b);
    assert_non_null(strstr(x.items[0].text, text));
    au_cancel_result result;
    au_job_state now;
    TX(au_job_cancel(f->db, b, &result, &now, &f->err));
    take(h->hub, &all, &x, 3);
    assert_true(x.items[2].last);
    y.room = SEEN_MAX;
    assert_int_equal(au_hub_take(h->hub, &none, note, &y), AU_HUB_DONE);
    assert_int_equal(y.n, 0);
    assert_int_equal(none.id, 4); /* past what is not its own */
    au_hub_leave(h->hub, &all);
    au_hub_leave(h->hub, &none);
}

static void test_one_subject(void **state)
{
    hub_fixture *h = *state;
    fixture *f = &h->base;
    char a[AU_UUID_TEXT], b[AU_UUID_TEXT];
    au_lease lease;
    const au_job_new job = plain_job();
    au_hub_sub all = {.kinds = AU_HUB_ALL};
    join_first(h->hub, &all);
    submit(f, &job, a);
    submit(f, &job, b);
    assert_true(claim_as(f, "w", &lease));
    assert_string_equal(lease.job_id, a);
    assert_true(make_sample(f, &lease, 0, 0));
    notes x = {0}, y = {0};
    take(h->hub, &all, &x, 6);
    au_hub_sub one = {.subject = a, .kinds = AU_HUB_JOBS, .seq = 2};
    au_hub_join(h->hub, &one);
    take(h->hub, &one, &y, 3);
    assert_int_equal(y.items[0].seq, 3);
    assert_non_null(strstr(y.items[0].text, "event: sample\ndata: {"));
    assert_non_null(strstr(y.items[0].text, "\"sha256\":\"aa\""));
    assert_int_equal(y.items[2].seq, 5);
    assert_true(y.items[2].last);
    /* Only looking: there is something, it stays, and what belongs to others does not count. */
    au_hub_sub look = {.subject = a, .kinds = AU_HUB_JOBS, .seq = 4};
    assert_int_equal(au_hub_take(h->hub, &look, NULL, NULL), AU_HUB_FULL);
    assert_int_equal(au_hub_take(h->hub, &look, NULL, NULL), AU_HUB_FULL);
    look.seq = 5;
    assert_int_equal(au_hub_take(h->hub, &look, NULL, NULL), AU_HUB_DONE);
    look = (au_hub_sub){.subject = b, .kinds = AU_HUB_JOBS, .seq = 1};
    assert_int_equal(au_hub_take(h->hub, &look, NULL, NULL), AU_HUB_DONE);
    assert_int_equal(look.id, 6);
    au_hub_leave(h->hub, &one);
    au_hub_leave(h->hub, &all);
}

static void test_a_full_subscriber_gets_the_same_again(void **state)
{
    hub_fixture *h = *state;
    fixture *f = &h->base;
    char id[AU_UUID_TEXT];
    const au_job_new job = plain_job();
    au_hub_sub all = {.kinds = AU_HUB_ALL}, slow = all;
    notes x = {0}, y = {.room = 2};
    join_first(h->hub, &all);
    for (int i = 0; i < 5; i++)
        submit(f, &job, id);
    take(h->hub, &all, &x, 5);
    assert_int_equal(au_hub_take(h->hub, &slow, note, &y), AU_HUB_FULL);
    assert_int_equal(y.n, 2);
    assert_int_equal(slow.id, 2);
    take(h->hub, &slow, &y, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(y.items[i].id, i + 1);
    au_hub_leave(h->hub, &all);
}

/* Who is behind what is kept reads the database, and says so by its id. */
static void test_falling_behind(void **state)
{
    enum { MANY = 1500 };
    hub_fixture *h = *state;
    fixture *f = &h->base;
    notes x = {.room = 4};
    au_hub_sub all = {.kinds = AU_HUB_ALL}, late = all;
    join_first(h->hub, &all);
    OK(au_db_begin(f->db, AU_DB_RELAXED, &f->err));
    for (int i = 0; i < MANY; i++)
        OK(au_event_add(f->db, "adapter", "an adapter", "updated", "{}", &f->err));
    OK(au_db_commit(f->db, &f->err));
    /* `all` keeps up and is given every one, whatever number of readings that takes. */
    int got = 0;
    for (int i = 0; i < 6000 && all.id < MANY; i++) {
        notes more = {.room = SEEN_MAX};
        au_hub_result r = au_hub_take(h->hub, &all, note, &more);
        if (r == AU_HUB_BEHIND) { /* as its database reading would leave it */
            got += (int)(count(f, "SELECT MIN(id) - 1 FROM events WHERE id > 476") - all.id);
            all.id = MANY - 1024;
        }
        got += more.n;
        au_sleep_ms(1);
    }
    assert_int_equal(all.id, MANY);
    assert_int_equal(got, MANY);
    assert_int_equal(au_hub_take(h->hub, &late, note, &x), AU_HUB_BEHIND);
    assert_int_equal(late.id, 0);
    late.id = MANY - 3;
    assert_int_equal(au_hub_take(h->hub, &late, note, &x), AU_HUB_DONE);
    assert_int_equal(x.n, 3);
    assert_non_null(strstr(x.items[0].text, "event: adapter\ndata: {"));
    assert_non_null(strstr(x.items[0].text, "\"change\":\"updated\""));
    assert_non_null(strstr(x.items[0].text, "\"id\":\"an adapter\""));
    au_hub_leave(h->hub, &all);
}

static void set_progress(fixture *f, const au_lease *lease, double percent, int64_t step)
{
    bool held;
    const au_job_progress p = {percent, "decode", step, 100, 1000};
    TX(au_job_set_progress(f->db, lease, &p, &held, &f->err));
    assert_true(held);
}

static bool keep_progress(void *user, const au_hub_item *item)
{
    return item->id >= 0 || note(user, item);
}

static void take_progress(au_hub *hub, au_hub_sub *sub, notes *x, int n)
{
    for (int i = 0; i < 6000 && x->n < n; i++) {
        x->room = SEEN_MAX;
        assert_int_equal(au_hub_take(hub, sub, keep_progress, x), AU_HUB_DONE);
        if (x->n < n)
            au_sleep_ms(5);
    }
    assert_int_equal(x->n, n);
}

static void test_progress_is_merged_and_never_of_an_attempt_that_is_over(void **state)
{
    hub_fixture *h = *state;
    fixture *f = &h->base;
    char a[AU_UUID_TEXT];
    au_lease lease;
    const au_job_new job = plain_job();
    notes x = {0}, y = {0};
    submit(f, &job, a);
    assert_true(claim_as(f, "w", &lease));
    au_hub_sub all = {.kinds = AU_HUB_ALL, .progress = true}, plain = {.kinds = AU_HUB_ALL};
    all.id = plain.id = 2;
    au_hub_mark(h->hub, &all);
    join_first(h->hub, &all);
    take_progress(h->hub, &all, &x, 1); /* as it is at the first reading */
    set_progress(f, &lease, 30, 30);
    take_progress(h->hub, &all, &x, 2);
    assert_non_null(strstr(x.items[1].text, "event: progress\ndata: {"));
    assert_non_null(strstr(x.items[1].text, "\"percent\":30.0"));
    assert_non_null(strstr(x.items[1].text, "\"eta_ms\":1000"));
    /* Many changes within the time of one: the last counts. */
    for (int i = 0; i < 20; i++)
        set_progress(f, &lease, 40 + i, 40 + i);
    for (int i = 0; i < 6000 && !strstr(x.items[x.n - 1].text, "\"percent\":59.0"); i++) {
        x.room = SEEN_MAX;
        au_hub_take(h->hub, &all, keep_progress, &x);
        au_sleep_ms(5);
    }
    assert_in_range(x.n, 3, 12);
    /* A subscriber that has read the state itself is given only what is newer. */
    au_hub_sub fresh = all;
    fresh.id = 2;
    au_hub_mark(h->hub, &fresh);
    assert_int_equal(au_hub_take(h->hub, &fresh, keep_progress, &y), AU_HUB_DONE);
    assert_int_equal(y.n, 0);
    /* The attempt ends: nobody who comes late hears of its progress. */
    au_hub_sub late = {.kinds = AU_HUB_ALL, .progress = true, .id = 2};
    bool held;
    TX(au_job_hand_back(f->db, &lease, false, &f->limits, &held, &f->err));
    notes z = {0};
    take(h->hub, &plain, &z, 1); /* the event has been read */
    y.room = SEEN_MAX;
    assert_int_equal(au_hub_take(h->hub, &late, keep_progress, &y), AU_HUB_DONE);
    assert_int_equal(y.n, 0);
    au_hub_leave(h->hub, &all);
}

static void test_nothing_is_read_while_nobody_waits(void **state)
{
    hub_fixture *h = *state;
    fixture *f = &h->base;
    char id[AU_UUID_TEXT];
    const au_job_new job = plain_job();
    au_hub_changed(h->hub);
    submit(f, &job, id);
    au_sleep_ms(60);
    assert_int_equal(atomic_load(&wakes), 0);
    au_hub_sub all = {.kinds = AU_HUB_ALL, .progress = true};
    join_first(h->hub, &all);
    assert_int_equal(au_hub_streams(h->hub), 1);
    /* What was there before is not news. */
    assert_int_equal(au_hub_take(h->hub, &all, NULL, NULL), AU_HUB_BEHIND);
    au_hub_skip(h->hub, &all);
    assert_int_equal(all.id, 1);
    assert_int_equal(au_hub_take(h->hub, &all, NULL, NULL), AU_HUB_DONE);
    au_hub_leave(h->hub, &all);
    assert_int_equal(au_hub_streams(h->hub), 0);
    au_sleep_ms(60);
    int before = atomic_load(&wakes);
    submit(f, &job, id);
    au_hub_changed(h->hub);
    au_sleep_ms(60);
    assert_int_equal(atomic_load(&wakes), before);
}

/* ---- Many threads ---- */

enum { THREADS = 6, EVENTS = 400 };

typedef struct crowd {
    au_hub *hub;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int news;
} crowd;

static void wake_crowd(void *user)
{
    crowd *c = user;
    pthread_mutex_lock(&c->lock);
    c->news++;
    pthread_cond_broadcast(&c->cond);
    pthread_mutex_unlock(&c->lock);
}

static bool count_up(void *user, const au_hub_item *item)
{
    int64_t *last = user;
    if (item->id != *last + 1)
        return false;
    *last = item->id;
    return true;
}

/* Joins and leaves now and then, and must see every event once, in order. */
static void *listen_in(void *arg)
{
    crowd *c = arg;
    au_hub_sub sub = {.kinds = AU_HUB_ALL, .progress = true};
    int64_t last = 0;
    int seen_news = 0;
    au_hub_join(c->hub, &sub);
    while (last < EVENTS) {
        if (au_hub_take(c->hub, &sub, count_up, &last) == AU_HUB_BEHIND)
            return (void *)"behind";
        if (sub.id != last)
            return (void *)"gap";
        if (last % 7 == 3) {
            au_hub_join(c->hub, &sub);
            au_hub_mark(c->hub, &sub);
            au_hub_leave(c->hub, &sub);
        }
        pthread_mutex_lock(&c->lock);
        while (c->news == seen_news && last < EVENTS)
            pthread_cond_wait(&c->cond, &c->lock);
        seen_news = c->news;
        pthread_mutex_unlock(&c->lock);
    }
    au_hub_leave(c->hub, &sub);
    return NULL;
}

static void *tell_often(void *arg)
{
    crowd *c = arg;
    for (int i = 0; i < 2000; i++)
        au_hub_changed(c->hub);
    return NULL;
}

static void test_many_threads(void **state)
{
    hub_fixture *h = *state;
    fixture *f = &h->base;
    crowd c = {.hub = h->hub};
    pthread_t threads[THREADS], teller;
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.cond, NULL);
    au_hub_sub mine = {.kinds = AU_HUB_ALL};
    join_first(h->hub, &mine);
    au_hub_on_news(h->hub, wake_crowd, &c);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, listen_in, &c), 0);
    assert_int_equal(pthread_create(&teller, NULL, tell_often, &c), 0);
    for (int i = 0; i < EVENTS; i++) {
        TX(au_event_add(f->db, "prompt", "p", "created", "{}", &f->err));
        if (i % 3 == 0)
            au_hub_changed(h->hub);
    }
    for (int i = 0; i < THREADS; i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        if (problem)
            fail_msg("%s", (const char *)problem);
    }
    pthread_join(teller, NULL);
    au_hub_leave(h->hub, &mine);
    au_hub_on_news(h->hub, NULL, NULL);
    pthread_cond_destroy(&c.cond);
    pthread_mutex_destroy(&c.lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commits_of_others_are_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_subject, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_subscriber_gets_the_same_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_falling_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_progress_is_merged_and_never_of_an_attempt_that_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_read_while_nobody_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
