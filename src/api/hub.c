/* SPDX-License-Identifier: MIT */
/* The hub: a ring of the latest events as text, the latest progress of each running job, and the
 * thread that fills both.
 *
 * `lock` guards everything but `db`, `arena` and `version`, which are the thread's own. Events are
 * read in the order of their ids, and ids are given under the database's write lock, so that no
 * event appears later with a lower id. Progress is read in the same view of the database as the
 * events before it; a state event of a job voids its progress of before, so that no subscriber sees
 * the progress of an attempt after the end of that attempt. */
#include "api/hub.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/api.h"
#include "api/sse.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    RING_EVENTS = 1024,
    RING_BYTES = 4 << 20,
    READ_EVENTS = 256,
    ARENA_BYTES = 32 << 20,
    TEXT_MAX_BYTES = 4 << 20,
    POLL_MS = 20,      /* how often a look is taken whether another process has written */
    PAUSE_MS = 5,      /* between two readings: many commits make one */
    PROGRESS_MS = 250, /* at most four a second of a job */
    PROGRESS_JOBS = 256,
    RETRY_MS = 200,
};

typedef struct record {
    int64_t id, seq;
    unsigned kind;
    bool last;
    char *subject; /* owned, as is the text */
    char *text;
    size_t len;
} record;

typedef struct progress {
    char job_id[AU_UUID_TEXT];
    int64_t revision;
    int64_t read; /* number of the reading that found it; 0: void */
    char *text;   /* owned */
    size_t len;
} progress;

/* What one reading found. */
typedef struct news {
    record events[READ_EVENTS];
    char state_of[READ_EVENTS][AU_UUID_TEXT]; /* the job whose state the event tells of, or "" */
    size_t n_events;
    bool more; /* events are left for the next reading */
    bool has_progress;
    progress jobs[PROGRESS_JOBS];
    size_t n_jobs;
    int64_t top; /* of the first reading: where the ring begins */
} news;

struct au_hub {
    const char *base_path;
    au_db *db;
    au_arena arena;
    int64_t version;
    news *news;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool stopping, changed;
    bool valid;        /* the ring holds every event in (base, top] */
    bool progress_due; /* something has changed since the last reading of progress */
    int n_subs, n_progress;
    record ring[RING_EVENTS];
    size_t first, count, bytes;
    int64_t base, top;
    progress jobs[PROGRESS_JOBS];
    size_t n_jobs;
    int64_t reads, published; /* numbers of the reading begun, and published, last */
    void (*wake)(void *user);
    void *user;
};

/* ---- Text ------------------------------------------------------------------------------------ */

unsigned au_hub_kind(const char *kind)
{
    static const char *const names[] = {"job", "sample", "adapter", "comparison", "prompt"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(kind, names[i]) == 0)
            return 1u << i;
    }
    return 0;
}

/* Replaces *data by the sample as it is now, with the members of *data that it lacks; by nothing
 * when there is no such sample any more. */
static au_status add_sample(json_t **data, au_db *db, au_arena *a, const char *id, au_err *err)
{
    au_sample *sample;
    au_status st = au_sample_get(db, a, id, &sample, err);
    if (st == AU_NOT_FOUND || (st == AU_OK && sample->deleted_at))
        return AU_OK;
    if (st != AU_OK)
        return st;
    json_t *full = au_sample_json(sample);
    if (!full || json_object_update_missing(full, *data) != 0) {
        json_decref(full);
        return au_fail(err, AU_NOMEM, "out of memory");
    }
    json_decref(*data);
    *data = full;
    return AU_OK;
}

/* Of a job: the names of the contract; of what else happens to something, its kind. */
static const char *stream_name(const au_event *e)
{
    bool job = strcmp(e->kind, "job") == 0;
    bool own = strcmp(e->event, "state") == 0 || strcmp(e->event, "sample") == 0 ||
               strcmp(e->event, "done") == 0;
    return job && own ? e->event : e->kind;
}

au_status au_hub_text(au_buf *out, au_db *db, au_arena *a, const au_event *e, const char *base_path,
                      au_err *err)
{
    au_status st = AU_OK;
    json_t *data = NULL;
    au_buf text;
    au_buf_init(&text, TEXT_MAX_BYTES);
    AU_TRY(au_json_parse(&data, e->data, strlen(e->data), "data of an event", err));
    const char *name = stream_name(e);
    bool job = strcmp(e->kind, "job") == 0, sample = strcmp(e->kind, "sample") == 0;
    bool change = strcmp(name, e->kind) == 0;
    AU_FAIL_IF(!json_is_object(data), AU_CORRUPT, "data of event %lld is not an object",
               (long long)e->id);
    int rc = 0;
    if (job)
        rc |= json_object_set_new(data, "job_id", json_string(e->subject));
    if (change)
        rc |= json_object_set_new(data, "id", json_string(e->subject)) |
              json_object_set_new(data, "change", json_string(e->event));
    if (sample)
        rc |= json_object_set_new(data, "sample_id", json_string(e->subject));
    rc |= json_object_set_new(data, "at", au_time_json(e->created_at));
    AU_FAIL_IF(rc != 0, AU_NOMEM, "out of memory");
    const char *sample_id = json_string_value(json_object_get(data, "sample_id"));
    if (sample_id && (sample || strcmp(e->event, "sample") == 0))
        AU_TRY(add_sample(&data, db, a, sample_id, err));
    au_http_place_urls_at(base_path, data);
    au_json_dump(&text, data);
    AU_TRY(au_buf_check(&text, err));
    au_sse_event(out, name, au_buf_cstr(&text));
    AU_TRY(au_buf_check(out, err));
done:
    json_decref(data);
    au_buf_deinit(&text);
    return st;
}

/* ---- Reading (the hub's thread) -------------------------------------------------------------- */

static void record_deinit(record *r)
{
    free(r->subject);
    free(r->text);
    *r = (record){0};
}

static void news_clear(news *n)
{
    for (size_t i = 0; i < n->n_events; i++)
        record_deinit(&n->events[i]);
    for (size_t i = 0; i < n->n_jobs; i++)
        free(n->jobs[i].text);
    n->n_events = n->n_jobs = 0;
    n->more = n->has_progress = false;
}

static au_status read_event(au_hub *h, const au_event *e, au_err *err)
{
    news *n = h->news;
    record *r = &n->events[n->n_events];
    char *state_of = n->state_of[n->n_events];
    au_status st = AU_OK;
    au_buf text;
    au_buf_init(&text, TEXT_MAX_BYTES);
    *r = (record){.id = e->id, .seq = e->seq, .kind = au_hub_kind(e->kind)};
    n->n_events++;
    bool job = r->kind == AU_HUB_JOBS;
    r->last = job && strcmp(e->event, "done") == 0;
    state_of[0] = '\0';
    if (job && strcmp(e->event, "sample") != 0)
        snprintf(state_of, AU_UUID_TEXT, "%s", e->subject);
    AU_TRY(au_strdup(&r->subject, e->subject, err));
    AU_TRY(au_hub_text(&text, h->db, &h->arena, e, h->base_path, err));
    AU_TRY(au_buf_take(&text, &r->text, &r->len, err));
done:
    au_buf_deinit(&text);
    return st;
}

static au_status progress_text(progress *p, const au_rows *rows, au_err *err)
{
    au_buf json, text;
    au_status st = AU_OK;
    int64_t eta_ms = au_rows_int(rows, 7);
    const char *stage = au_rows_text(rows, 4);
    au_buf_init(&json, 4096);
    au_buf_init(&text, 4096);
    json_t *data =
        json_pack("{s:s, s:I, s:f, s:s?, s:I, s:I, s:o, s:o}", "job_id", p->job_id, "attempt",
                  (json_int_t)au_rows_int(rows, 2), "percent", au_rows_double(rows, 3), "stage",
                  stage && *stage ? stage : NULL, "step", (json_int_t)au_rows_int(rows, 5), "steps",
                  (json_int_t)au_rows_int(rows, 6), "eta_ms",
                  eta_ms >= 0 ? json_integer(eta_ms) : json_null(), "updated_at",
                  au_time_json(au_rows_int(rows, 8)));
    AU_FAIL_IF(!data, AU_NOMEM, "out of memory");
    au_json_dump(&json, data);
    AU_TRY(au_buf_check(&json, err));
    au_sse_event(&text, "progress", au_buf_cstr(&json));
    AU_TRY(au_buf_take(&text, &p->text, &p->len, err));
done:
    json_decref(data);
    au_buf_deinit(&json);
    au_buf_deinit(&text);
    return st;
}

static au_status read_progress(au_hub *h, au_err *err)
{
    news *n = h->news;
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, h->db, err,
                       "SELECT id, revision, attempt, percent, stage, step, steps, eta_ms, "
                       "progress_at FROM jobs WHERE state = 'processing' LIMIT 256",
                       ""));
    for (bool has_row; n->n_jobs < PROGRESS_JOBS;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        progress *p = &n->jobs[n->n_jobs++];
        *p = (progress){.revision = au_rows_int(rows, 1)};
        snprintf(p->job_id, sizeof p->job_id, "%s", au_rows_text(rows, 0));
        AU_TRY(progress_text(p, rows, err));
    }
    n->has_progress = true;
done:
    au_rows_close(&rows);
    return st;
}

/* Everything new since `top`, in one view. The first time only where the end is. */
static au_status read_news(au_hub *h, bool first, int64_t top, bool with_progress, au_err *err)
{
    news *n = h->news;
    au_event *events;
    size_t n_events;
    au_status st = AU_OK;
    AU_TRY(au_db_begin_read(h->db, err));
    if (first) {
        AU_TRY(au_db_int(&n->top, h->db, 0, err, "SELECT MAX(id) FROM events", ""));
    } else {
        AU_TRY(au_event_list(h->db, &h->arena, NULL, top, READ_EVENTS, &events, &n_events, err));
        for (size_t i = 0; i < n_events; i++)
            AU_TRY(read_event(h, &events[i], err));
        n->more = n_events == READ_EVENTS;
    }
    if (with_progress && !n->more)
        AU_TRY(read_progress(h, err));
done:
    au_db_rollback(h->db);
    au_arena_deinit(&h->arena);
    return st;
}

/* ---- Publishing (under the lock) ------------------------------------------------------------- */

static void drop_oldest(au_hub *h)
{
    record *r = &h->ring[h->first];
    h->base = r->id;
    h->bytes -= r->len;
    record_deinit(r);
    h->first = (h->first + 1) % RING_EVENTS;
    h->count--;
}

static void forget(au_hub *h)
{
    while (h->count)
        drop_oldest(h);
    for (size_t i = 0; i < h->n_jobs; i++)
        free(h->jobs[i].text);
    h->n_jobs = 0;
    h->valid = false;
}

static void add_event(au_hub *h, record *r)
{
    while (h->count == RING_EVENTS || (h->count && h->bytes + r->len > RING_BYTES))
        drop_oldest(h);
    h->ring[(h->first + h->count++) % RING_EVENTS] = *r;
    h->bytes += r->len;
    h->top = r->id;
    *r = (record){0};
}

static void void_progress(au_hub *h, const char *job_id)
{
    for (size_t i = 0; job_id[0] && i < h->n_jobs; i++) {
        if (strcmp(h->jobs[i].job_id, job_id) == 0)
            h->jobs[i].read = 0;
    }
}

/* The new list replaces the old one; what has not changed keeps the number of its reading. */
static bool replace_progress(au_hub *h)
{
    news *n = h->news;
    bool any = false;
    for (size_t i = 0; i < n->n_jobs; i++) {
        progress *p = &n->jobs[i];
        p->read = h->reads;
        for (size_t k = 0; k < h->n_jobs; k++) {
            const progress *old = &h->jobs[k];
            if (old->read && old->revision == p->revision && strcmp(old->job_id, p->job_id) == 0)
                p->read = old->read;
        }
        any = any || p->read == h->reads;
    }
    for (size_t k = 0; k < h->n_jobs; k++)
        free(h->jobs[k].text);
    memcpy(h->jobs, n->jobs, n->n_jobs * sizeof *n->jobs);
    h->n_jobs = n->n_jobs;
    n->n_jobs = 0;
    return any;
}

static bool publish(au_hub *h)
{
    news *n = h->news;
    bool any = n->n_events > 0;
    if (!h->valid) {
        h->valid = any = true;
        h->base = h->top = n->top;
    }
    for (size_t i = 0; i < n->n_events; i++) {
        void_progress(h, n->state_of[i]);
        add_event(h, &n->events[i]);
    }
    n->n_events = 0;
    if (n->has_progress)
        any = replace_progress(h) || any;
    h->published = h->reads;
    return any;
}

/* ---- The thread ------------------------------------------------------------------------------ */

static void wait_until(au_hub *h, int64_t mono_ms)
{
    struct timespec ts = {.tv_sec = mono_ms / 1000, .tv_nsec = mono_ms % 1000 * 1000000};
    pthread_cond_timedwait(&h->cond, &h->lock, &ts);
}

/* Whether another connection has committed since the last time. Not known: yes. */
static bool version_changed(au_hub *h)
{
    int64_t now;
    if (au_db_data_version(h->db, &now, NULL) != AU_OK)
        return true;
    bool changed = now != h->version;
    h->version = now;
    return changed;
}

/* One turn with the lock held, which is left meanwhile. For how many milliseconds there shall not
 * be another. */
static int turn(au_hub *h, int64_t *next_progress)
{
    bool told = h->changed || !h->valid, first = !h->valid, wants = h->n_progress > 0;
    int64_t top = h->top, now = au_mono_ms();
    au_err err;
    h->changed = false;
    pthread_mutex_unlock(&h->lock);
    bool changed = version_changed(h) || told;
    pthread_mutex_lock(&h->lock);
    h->progress_due = h->progress_due || changed;
    bool due = wants && h->progress_due && now >= *next_progress;
    if (!changed && !due)
        return 0;
    h->reads++;
    pthread_mutex_unlock(&h->lock);
    au_status st = read_news(h, first, top, due, &err);
    pthread_mutex_lock(&h->lock);
    h->changed = h->changed || st != AU_OK || h->news->more;
    if (st == AU_OK) {
        if (h->news->has_progress) {
            h->progress_due = false;
            *next_progress = now + PROGRESS_MS;
        }
        if (publish(h) && h->wake)
            h->wake(h->user);
    } else {
        char text[512];
        au_log(AU_LOG_WARN, "events", "news cannot be read error=%s",
               au_log_quote(text, sizeof text, err.message));
    }
    bool more = h->news->more;
    news_clear(h->news);
    return st != AU_OK ? RETRY_MS : more ? 0 : PAUSE_MS;
}

static void *hub_main(void *arg)
{
    au_hub *h = arg;
    int64_t next_progress = 0;
    pthread_mutex_lock(&h->lock);
    while (!h->stopping) {
        if (h->n_subs == 0) {
            forget(h);
            pthread_cond_wait(&h->cond, &h->lock);
            continue;
        }
        int64_t begun = au_mono_ms();
        int64_t pause = begun + turn(h, &next_progress), look = begun + POLL_MS;
        while (!h->stopping && au_mono_ms() < pause)
            wait_until(h, pause);
        /* Up to the next look, unless somebody tells of a change. */
        while (!h->stopping && !h->changed && h->n_subs && au_mono_ms() < look)
            wait_until(h, look);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* ---- Outside --------------------------------------------------------------------------------- */

static void destroy(au_hub *h)
{
    pthread_cond_destroy(&h->cond);
    pthread_mutex_destroy(&h->lock);
    forget(h);
    au_db_close(&h->db);
    free(h->news);
    free(h);
}

au_status au_hub_new(au_hub **out, const char *db_url, const char *base_path, au_err *err)
{
    au_hub *h = NULL;
    pthread_condattr_t attr;
    au_status st = AU_OK;
    const au_db_options options = {.read_only = true};
    AU_TRY(au_calloc(&h, 1, sizeof *h, err));
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->cond, &attr);
    pthread_condattr_destroy(&attr);
    au_arena_init(&h->arena, ARENA_BYTES);
    h->base_path = base_path;
    AU_TRY(au_calloc(&h->news, 1, sizeof *h->news, err));
    AU_TRY(au_db_open(&h->db, db_url, &options, err));
    int rc = pthread_create(&h->thread, NULL, hub_main, h);
    if (rc != 0) {
        st = au_fail_errno(err, rc, "cannot start the thread that looks for news");
        goto done;
    }
    *out = h;
    h = NULL;
done:
    if (h)
        destroy(h);
    return st;
}

void au_hub_free(au_hub **hub)
{
    au_hub *h = *hub;
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    AU_ASSERT(h->n_subs == 0);
    h->stopping = true;
    pthread_cond_signal(&h->cond);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    destroy(h);
    *hub = NULL;
}

void au_hub_on_news(au_hub *h, void (*wake)(void *user), void *user)
{
    pthread_mutex_lock(&h->lock);
    h->wake = wake;
    h->user = user;
    pthread_mutex_unlock(&h->lock);
}

void au_hub_changed(void *hub)
{
    au_hub *h = hub;
    pthread_mutex_lock(&h->lock);
    if (h->n_subs && !h->changed) {
        h->changed = true;
        pthread_cond_signal(&h->cond);
    }
    pthread_mutex_unlock(&h->lock);
}

void au_hub_join(au_hub *h, const au_hub_sub *sub)
{
    pthread_mutex_lock(&h->lock);
    h->n_subs++;
    h->n_progress += sub->progress;
    if (h->n_subs == 1)
        pthread_cond_signal(&h->cond);
    pthread_mutex_unlock(&h->lock);
}

void au_hub_leave(au_hub *h, const au_hub_sub *sub)
{
    pthread_mutex_lock(&h->lock);
    h->n_subs--;
    h->n_progress -= sub->progress;
    pthread_mutex_unlock(&h->lock);
}

int au_hub_streams(au_hub *h)
{
    pthread_mutex_lock(&h->lock);
    int n = h->n_progress;
    pthread_mutex_unlock(&h->lock);
    return n;
}

void au_hub_skip(au_hub *h, au_hub_sub *sub)
{
    pthread_mutex_lock(&h->lock);
    if (h->valid && h->top > sub->id)
        sub->id = h->top;
    pthread_mutex_unlock(&h->lock);
}

void au_hub_mark(au_hub *h, au_hub_sub *sub)
{
    pthread_mutex_lock(&h->lock);
    sub->read = h->reads;
    pthread_mutex_unlock(&h->lock);
}

/* The place in the ring of the first event after `id`, by halving. */
static size_t find_after(const au_hub *h, int64_t id)
{
    size_t low = 0, high = h->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (h->ring[(h->first + mid) % RING_EVENTS].id <= id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool is_for(const au_hub_sub *sub, const record *r)
{
    if (!sub->subject)
        return (r->kind & sub->kinds) != 0;
    return strcmp(r->subject, sub->subject) == 0 && r->seq > sub->seq;
}

static au_hub_result take_events(au_hub *h, au_hub_sub *sub,
                                 bool (*put)(void *user, const au_hub_item *item), void *user)
{
    for (size_t i = find_after(h, sub->id); i < h->count; i++) {
        const record *r = &h->ring[(h->first + i) % RING_EVENTS];
        if (is_for(sub, r)) {
            const au_hub_item item = {r->id, r->seq, r->last, r->text, r->len};
            if (!put || !put(user, &item))
                return AU_HUB_FULL;
            sub->seq = sub->subject ? r->seq : sub->seq;
        }
        sub->id = r->id;
    }
    return AU_HUB_DONE;
}

static void take_progress(au_hub *h, au_hub_sub *sub,
                          bool (*put)(void *user, const au_hub_item *item), void *user)
{
    for (size_t i = 0; i < h->n_jobs; i++) {
        const progress *p = &h->jobs[i];
        const au_hub_item item = {-1, 0, false, p->text, p->len};
        if (p->read > sub->read && (!sub->subject || strcmp(sub->subject, p->job_id) == 0))
            put(user, &item);
    }
    if (sub->read < h->published)
        sub->read = h->published;
}

au_hub_result au_hub_take(au_hub *h, au_hub_sub *sub,
                          bool (*put)(void *user, const au_hub_item *item), void *user)
{
    au_hub_result result = AU_HUB_DONE;
    pthread_mutex_lock(&h->lock);
    if (h->valid) {
        result = sub->id < h->base ? AU_HUB_BEHIND : take_events(h, sub, put, user);
        if (result == AU_HUB_DONE && put && sub->progress && (sub->kinds & AU_HUB_JOBS))
            take_progress(h, sub, put, user);
    }
    pthread_mutex_unlock(&h->lock);
    return result;
}
