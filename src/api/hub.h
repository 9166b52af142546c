/* SPDX-License-Identifier: MIT */
/* News of the database for those who wait: streams of events, and requests that wait for a job.
 *
 * One thread of its own reads what is new, once for all who wait, and keeps it for a while: stored
 * events as the text that clients get, and the latest progress of the jobs that run. It looks when
 * this process has committed (au_hub_changed), and every 20 ms whether a worker process has, but
 * only while somebody has joined; else it sleeps. After each change it calls `wake`; then the
 * subscribers take what is theirs, each on its own thread and at its own pace. A subscriber that
 * has fallen too far behind reads the database itself: nothing is lost, and a slow one holds
 * nothing up.
 *
 * Threads: all functions may be called from any; a subscriber belongs to one thread at a time. */
#ifndef AU_API_HUB_H
#define AU_API_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "db/db.h"
#include "jobs/job.h"

typedef struct au_hub au_hub;

/* base_path: what stands before the paths in JSON; NULL: nothing; borrowed. */
AU_MUST_CHECK au_status au_hub_new(au_hub **out, const char *db_url, const char *base_path,
                                   au_err *err);
void au_hub_free(au_hub **hub); /* NULL is fine; nobody may have joined */
/* Who is told of news, on the hub's thread, which must not be held up. NULL: nobody; then the one
 * before is not running any more. */
void au_hub_on_news(au_hub *hub, void (*wake)(void *user), void *user);
/* The database has changed. Costs next to nothing while nobody waits. */
void au_hub_changed(void *hub);

/* Kinds of events, as bits: those of a job (its samples and progress, too), and of the rest. */
enum {
    AU_HUB_JOBS = 1,
    AU_HUB_SAMPLES = 2,
    AU_HUB_ADAPTERS = 4,
    AU_HUB_COMPARISONS = 8,
    AU_HUB_PROMPTS = 16,
    AU_HUB_ALL = 31,
};
/* The bit of an event's kind ("job" ...); 0 for an unknown one. */
unsigned au_hub_kind(const char *kind);

/* Where a subscriber is. */
typedef struct au_hub_sub {
    const char *subject; /* events of this one alone; NULL: of all; borrowed */
    unsigned kinds;
    bool progress; /* wants progress, too */
    int64_t id;    /* events up to this one (au_event.id) are done with */
    int64_t seq;   /* with a subject: its events up to this number are */
    int64_t read;  /* progress that was read up to here is (au_hub_mark) */
} au_hub_sub;

/* From now on news are read; every join needs its leave. */
void au_hub_join(au_hub *hub, const au_hub_sub *sub);
void au_hub_leave(au_hub *hub, const au_hub_sub *sub);
/* How many have joined for progress. */
int au_hub_streams(au_hub *hub);
/* Past all events that the hub knows of: before what they tell of is read from the database. */
void au_hub_skip(au_hub *hub, au_hub_sub *sub);
/* Call after the state was read that the subscriber begins with: progress that may be older is not
 * given to it. */
void au_hub_mark(au_hub *hub, au_hub_sub *sub);

typedef enum au_hub_result {
    AU_HUB_DONE,   /* all that is new was given */
    AU_HUB_FULL,   /* put said false: that event and later ones will be given again */
    AU_HUB_BEHIND, /* the next events are not kept any more: read the database, advance id */
} au_hub_result;

/* A piece of news. Text: "event: ...\ndata: ...\n\n"; id < 0: progress, which may be dropped. */
typedef struct au_hub_item {
    int64_t id, seq;
    bool last; /* `done` of a job */
    const char *text;
    size_t len;
} au_hub_item;
/* Gives what is new to `put`, in order, events first; advances the subscriber by what was taken.
 * put is called under the hub's lock and calls no function of the hub. NULL put: looks only whether
 * there are events (FULL), and advances past those of others. */
au_hub_result au_hub_take(au_hub *hub, au_hub_sub *sub,
                          bool (*put)(void *user, const au_hub_item *item), void *user);

/* The event as its stream gives it (without the id), with the JSON of what it tells of as it is
 * now. Reads with `db`; the arena holds records meanwhile. */
AU_MUST_CHECK au_status au_hub_text(au_buf *out, au_db *db, au_arena *a, const au_event *event,
                                    const char *base_path, au_err *err);

#endif
