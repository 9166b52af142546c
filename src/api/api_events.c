/* SPDX-License-Identifier: MIT */
/* Server-sent events: /v1/jobs/{id}/events and /v1/events.
 *
 * A stream begins with a snapshot, or, where the client says what it has seen last, with what was
 * stored since; then come the news of the hub. Its place is two numbers in a row of the database,
 * so a client that reads slowly is simply behind: it holds no memory beyond its buffer, loses no
 * stored event, and what it missed of the hub it is given from the database. Everything here runs
 * on the loop thread of the request. */
#include <inttypes.h>
#include <string.h>

#include "api/api.h"
#include "api/sse.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

enum {
    REPLAY_EVENTS = 64, /* read at once; then other clients of the loop have their turn */
    REPLAY_ARENA_BYTES = 16 << 20,
    PIECE_MAX_BYTES = 8 << 20,
    SNAPSHOT_JOBS = 100, /* of each state */
    PING_MS = 15000,
    CHECK_MS = 5000, /* how often it is looked whether the key still allows it */
    GRID_MS = 1000,  /* turns of many streams fall together, so that the loop wakes less often */
};

/* A stream that is open; in the arena of its request. */
typedef struct feed {
    au_hub_sub sub;
    bool behind;               /* events are to be read from the database before the hub's */
    bool over;                 /* the job's last event was given */
    int64_t ping_ms, check_ms; /* when the next are due */
    au_http_request *rq;
} feed;

static int64_t due_in(int64_t now, int64_t ms)
{
    return (now + ms) / GRID_MS * GRID_MS;
}

/* One event to the client. False: no room, try again. */
static bool put_text(feed *f, int64_t number, const char *text, size_t len)
{
    au_buf piece;
    au_buf_init(&piece, PIECE_MAX_BYTES);
    if (number >= 0)
        au_sse_id(&piece, number);
    au_buf_append(&piece, text, len);
    bool taken = au_http_stream_write(f->rq, au_buf_cstr(&piece), piece.len);
    au_buf_deinit(&piece);
    return taken;
}

/* Called under the hub's lock: copies, no more. */
static bool put_item(void *user, const au_hub_item *item)
{
    feed *f = user;
    if (item->id < 0) /* progress is old by the time a slow client has read what it has */
        return au_http_stream_idle(f->rq) && put_text(f, -1, item->text, item->len);
    if (!put_text(f, f->sub.subject ? item->seq : item->id, item->text, item->len))
        return false;
    f->over = f->over || (f->sub.subject && item->last);
    return true;
}

static bool is_wanted(const feed *f, const au_event *e)
{
    return f->sub.subject || (au_hub_kind(e->kind) & f->sub.kinds);
}

static au_status put_stored(feed *f, const au_event *e, au_db *db, au_arena *a, bool *taken,
                            au_err *err)
{
    au_buf text;
    au_status st = AU_OK;
    au_buf_init(&text, PIECE_MAX_BYTES);
    AU_TRY(au_hub_text(&text, db, a, e, au_http_base_path(f->rq), err));
    *taken = put_text(f, f->sub.subject ? e->seq : e->id, au_buf_cstr(&text), text.len);
    f->over = f->over || (*taken && f->sub.subject && strcmp(e->event, "done") == 0);
done:
    au_buf_deinit(&text);
    return st;
}

/* Gives events that the hub does not hold any more, some of them: `behind` says whether that was
 * all. In one view of the database, so that nothing falls between them and the hub's. */
static au_status catch_up(feed *f, au_arena *a, au_err *err)
{
    au_db *db = au_api_db(f->rq);
    au_hub_sub *sub = &f->sub;
    au_event *events;
    size_t n;
    int64_t top, left = 1;
    bool taken = true;
    au_status st = AU_OK;
    AU_TRY(au_db_begin_read(db, err));
    AU_TRY(au_event_list(db, a, sub->subject, sub->subject ? sub->seq : sub->id, REPLAY_EVENTS,
                         &events, &n, err));
    AU_TRY(au_db_int(&top, db, 0, err, "SELECT MAX(id) FROM events", ""));
    for (size_t i = 0; i < n && taken; i++) {
        if (is_wanted(f, &events[i]))
            AU_TRY(put_stored(f, &events[i], db, a, &taken, err));
        if (taken && sub->subject)
            sub->seq = events[i].seq;
        else if (taken)
            sub->id = events[i].id;
    }
    if (!taken || n == REPLAY_EVENTS)
        goto done;
    f->behind = false;
    if (top > sub->id)
        sub->id = top;
    /* A job that was removed meanwhile, or whose last events were, has nothing more to say. */
    if (sub->subject && !f->over)
        AU_TRY(au_db_int(&left, db, 0, err,
                         "SELECT 1 FROM jobs WHERE id = ?1 AND finished_at = 0 AND deleted_at = 0",
                         "t", sub->subject));
    f->over = f->over || !left;
done:
    au_db_rollback(db);
    return st;
}

/* All that can be given now. */
static void give(feed *f)
{
    au_arena arena;
    au_err err;
    au_status st = AU_OK;
    if (!au_http_stream_has_room(f->rq))
        return;
    if (!f->behind)
        f->behind = au_hub_take(au_api_of(f->rq)->hub, &f->sub, put_item, f) == AU_HUB_BEHIND;
    if (!f->behind)
        return;
    au_arena_init(&arena, REPLAY_ARENA_BYTES);
    st = catch_up(f, &arena, &err);
    au_arena_deinit(&arena);
    if (st != AU_OK) {
        /* The client comes back and says what it has seen. */
        char text[512];
        au_log(AU_LOG_WARN, "events", "events cannot be read error=%s",
               au_log_quote(text, sizeof text, err.message));
        f->over = true;
    }
}

static bool is_allowed(feed *f, int64_t now)
{
    if (now < f->check_ms)
        return true;
    f->check_ms = au_api_principal(f->rq)->key_needed ? due_in(now, CHECK_MS) : INT64_MAX;
    return au_api_still_allowed(f->rq);
}

static au_http_result pump(au_http_request *rq)
{
    feed *f = au_http_end_data(rq);
    int64_t now = au_mono_ms();
    give(f);
    if (f->over || au_http_draining(rq) || !is_allowed(f, now))
        return au_http_stream_end(rq);
    if (now >= f->ping_ms) {
        static const char ping[] = ": ping\n\n";
        if (au_http_stream_idle(rq))
            au_http_stream_write(rq, ping, sizeof ping - 1);
        f->ping_ms = due_in(now, PING_MS);
    }
    /* Behind: more from the database at once, unless the client must read first, which calls the
     * pump by itself. */
    bool at_once = f->behind && au_http_stream_has_room(rq);
    int64_t next = f->ping_ms < f->check_ms ? f->ping_ms : f->check_ms;
    return au_http_stream_wait(rq, pump, at_once ? 0 : next - now);
}

static void leave(void *arg)
{
    const feed *f = arg;
    au_hub_leave(au_api_of(f->rq)->hub, &f->sub);
}

/* The number of the event that the client has seen last, -1 when it does not say. False: a 400 has
 * been set. The query parameter is for clients that cannot set the field the first time; what
 * EventSource sends when it comes back is newer. */
static bool parse_last_id(au_http_request *rq, int64_t *last)
{
    const char *field = au_http_header(rq, "last-event-id");
    const char *parameter = au_http_query(rq, "last_event_id");
    *last = -1;
    if (parameter && !au_sse_last_id(parameter, last))
        return au_query_refuse(rq, "last_event_id", "the number of an event");
    if (field && (au_http_header_count(rq, "last-event-id") > 1 || !au_sse_last_id(field, last))) {
        au_http_problem(rq, AU_PROBLEM_BAD_REQUEST, "Last-Event-ID is not one number of an event");
        return false;
    }
    return true;
}

static bool has_room(au_http_request *rq)
{
    /* Some connections stay for those who do not only listen. */
    int max = au_api_of(rq)->config->max_connections;
    if (au_hub_streams(au_api_of(rq)->hub) < max - max / 8)
        return true;
    au_api_busy(rq, 10, "too many streams of events are open");
    return false;
}

/* snapshot: what the stream begins with, taken over; NULL: it goes on where the client was. */
static au_http_result begin(au_http_request *rq, feed *f, int64_t number, json_t *snapshot)
{
    au_buf json, text;
    f->rq = rq;
    f->ping_ms = due_in(au_mono_ms(), PING_MS);
    au_http_set_header(rq, "Cache-Control", "no-store");
    au_http_set_header(rq, "X-Accel-Buffering", "no");
    au_http_stream_begin(rq, "text/event-stream");
    if (au_http_is_head(rq)) {
        json_decref(snapshot);
        return au_http_stream_end(rq);
    }
    au_hub_mark(au_api_of(rq)->hub, &f->sub);
    au_hub_join(au_api_of(rq)->hub, &f->sub);
    au_http_on_end(rq, leave, f);
    if (snapshot) {
        au_buf_init(&json, PIECE_MAX_BYTES);
        au_buf_init(&text, PIECE_MAX_BYTES);
        au_http_place_urls(rq, snapshot);
        au_json_dump(&json, snapshot);
        au_sse_event(&text, "snapshot", au_buf_cstr(&json));
        f->over = f->over || json.status != AU_OK || text.status != AU_OK;
        if (json.status == AU_OK && text.status == AU_OK)
            put_text(f, number, au_buf_cstr(&text), text.len);
        au_buf_deinit(&json);
        au_buf_deinit(&text);
        json_decref(snapshot);
    }
    return pump(rq);
}

static feed *new_feed(au_http_request *rq)
{
    feed *f = au_arena_alloc(au_http_arena(rq), sizeof *f);
    if (!f)
        au_api_busy(rq, 1, "out of memory");
    else
        f->sub = (au_hub_sub){.kinds = AU_HUB_ALL, .progress = true};
    return f;
}

/* ---- Of one job ---- */

/* The job and the place of a stream that begins with it. */
static au_status read_job(au_http_request *rq, const char *id, au_arena *a, au_job **job,
                          au_hub_sub *sub, au_err *err)
{
    au_db *db = au_api_db(rq);
    au_status st = AU_OK;
    AU_TRY(au_db_begin_read(db, err));
    AU_TRY(au_job_get(db, a, id, job, err));
    AU_TRY(au_db_int(&sub->id, db, 0, err, "SELECT MAX(id) FROM events", ""));
    sub->seq = (*job)->event_seq;
done:
    au_db_rollback(db);
    return st;
}

static au_http_result begin_job(au_http_request *rq, const char *id, int64_t last, au_arena *a)
{
    au_err err;
    au_job *job;
    feed *f = new_feed(rq);
    if (!f)
        return AU_HTTP_DONE;
    f->sub.subject = id;
    au_status st = read_job(rq, id, a, &job, &f->sub, &err);
    if (st == AU_NOT_FOUND)
        return au_api_not_found(rq, "job", id);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (job->deleted_at)
        return au_api_gone(rq, "job", id);
    bool final = au_job_state_is_final(job->state);
    if (final && last >= job->event_seq) {
        au_http_set_header(rq, "Cache-Control", "no-store");
        return au_http_reply_empty(rq, 204);
    }
    if (!has_room(rq))
        return AU_HTTP_DONE;
    if (last < 0 || last > job->event_seq) { /* numbers that are not ours: begin anew */
        f->over = final;
        json_t *snapshot = au_job_json(job);
        return snapshot ? begin(rq, f, job->event_seq, snapshot)
                        : au_api_busy(rq, 1, "out of memory");
    }
    f->behind = last < job->event_seq;
    f->sub.seq = last;
    return begin(rq, f, 0, NULL);
}

au_http_result au_get_job_events(au_http_request *rq)
{
    static const char *const query[] = {"last_event_id", NULL};
    const char *id = au_api_id(rq);
    int64_t last;
    au_arena arena;
    if (!au_http_query_parse(rq, query) || !parse_last_id(rq, &last))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "job", au_http_param(rq, "id"));
    au_arena_init(&arena, REPLAY_ARENA_BYTES);
    au_http_result result = begin_job(rq, id, last, &arena);
    au_arena_deinit(&arena);
    return result;
}

/* ---- Of everything ---- */

/* The jobs of a state, the newest first, appended to `list`. */
static au_status add_jobs(json_t **list, au_db *db, au_arena *a, au_job_state state, au_err *err)
{
    au_job **jobs;
    size_t n;
    bool more;
    const au_job_filter filter = {.state = au_job_state_name(state), .limit = SNAPSHOT_JOBS};
    au_status st = au_job_list(db, a, &filter, &jobs, &n, &more, err);
    for (size_t i = 0; st == AU_OK && i < n; i++)
        au_list_add(list, au_job_json(jobs[i]));
    return st;
}

/* {jobs, queue}: what is going on, and the number of the last event. */
static au_status read_all(au_http_request *rq, au_arena *a, json_t **snapshot, int64_t *top,
                          au_err *err)
{
    au_db *db = au_api_db(rq);
    au_status st = AU_OK;
    au_queue_stats stats;
    json_t *jobs = json_array();
    AU_TRY(au_db_begin_read(db, err));
    AU_TRY(au_db_int(top, db, 0, err, "SELECT MAX(id) FROM events", ""));
    AU_TRY(add_jobs(&jobs, db, a, AU_JOB_PROCESSING, err));
    AU_TRY(add_jobs(&jobs, db, a, AU_JOB_CANCELLING, err));
    AU_TRY(add_jobs(&jobs, db, a, AU_JOB_QUEUED, err));
    AU_TRY(au_queue_stats_get(db, &stats, err));
    *snapshot = json_pack("{s:O, s:{s:I, s:I, s:b}}", "jobs", jobs, "queue", "queued",
                          (json_int_t)stats.queued, "processing", (json_int_t)stats.processing,
                          "paused", stats.paused);
    AU_FAIL_IF(!*snapshot, AU_NOMEM, "out of memory");
done:
    json_decref(jobs);
    au_db_rollback(db);
    return st;
}

/* "job,adapter": of which kinds events are wanted. */
static bool parse_kinds(au_http_request *rq, unsigned *kinds)
{
    const char *p = au_http_query(rq, "kind");
    char name[16];
    if (!p)
        return true;
    *kinds = 0;
    while (true) {
        size_t n = strcspn(p, ",");
        unsigned kind = 0;
        if (n < sizeof name) {
            memcpy(name, p, n);
            name[n] = '\0';
            kind = au_hub_kind(name);
        }
        if (!kind)
            return au_query_refuse(
                rq, "kind", "a list, with commas, of job, sample, adapter, comparison and prompt");
        *kinds |= kind;
        if (!p[n])
            return true;
        p += n + 1;
    }
}

static au_http_result begin_all(au_http_request *rq, feed *f, int64_t last, au_arena *a)
{
    au_err err;
    json_t *snapshot = NULL;
    int64_t top = 0;
    au_status st = read_all(rq, a, &snapshot, &top, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (last < 0 || last > top) {
        f->sub.id = top;
        return begin(rq, f, top, snapshot);
    }
    json_decref(snapshot);
    f->sub.id = last;
    f->behind = last < top;
    return begin(rq, f, 0, NULL);
}

au_http_result au_get_events(au_http_request *rq)
{
    static const char *const query[] = {"last_event_id", "kind", NULL};
    int64_t last;
    au_arena arena;
    if (!au_http_query_parse(rq, query) || !parse_last_id(rq, &last))
        return AU_HTTP_DONE;
    feed *f = new_feed(rq);
    if (!f || !parse_kinds(rq, &f->sub.kinds) || !has_room(rq))
        return AU_HTTP_DONE;
    au_arena_init(&arena, REPLAY_ARENA_BYTES);
    au_http_result result = begin_all(rq, f, last, &arena);
    au_arena_deinit(&arena);
    return result;
}
