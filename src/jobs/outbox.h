/* SPDX-License-Identifier: MIT */
/* Webhooks and what is to be told to them: the outbox. A delivery is a row, written in the
 * transaction of the change that it tells of, so that nothing that happened is forgotten; the
 * sender (src/webhooks) works it off.
 *
 * Functions that write take a writing connection inside a transaction; functions that read take any
 * connection. Records live in the caller's arena. Times are Unix milliseconds, 0 = never. */
#ifndef AU_JOBS_OUTBOX_H
#define AU_JOBS_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/uuid.h"
#include "db/db.h"

/* ---- Telling ---- */

/* A change of `kind` ("job", "adapter" ...) with the id `subject`: a delivery for every active
 * webhook that wants "<kind>.<what>". data: what is told beside the id, a JSON object; of a job its
 * record's outline is told instead, as the transaction sees it. Costs one look into an empty table
 * where there are no webhooks. */
AU_MUST_CHECK au_status au_outbox_add(au_db *db, const char *kind, const char *subject,
                                      const char *what, const char *data, au_err *err);

/* ---- Webhooks ---- */

enum {
    AU_WEBHOOK_URL_MAX = 2048,
    AU_WEBHOOK_EVENTS_MAX = 32,
    AU_WEBHOOKS_MAX = 50, /* of a server */
    AU_WEBHOOK_SECRET_TEXT = 128,
};

/* Whether `pattern` is one: "*", "job.*", "job.completed": a kind and what happened, either as *.
 */
bool au_webhook_pattern_valid(const char *pattern);

typedef struct au_webhook {
    const char *id, *url, *description;
    const char *secret; /* "whsec_" and base64 of 24 to 64 bytes */
    const char *events; /* JSON array of patterns */
    bool active;        /* false: its target said that it is gone (410) */
    int64_t created_at, deleted_at;
} au_webhook;
/* id_out [AU_UUID_TEXT]. AU_LIMIT: there are AU_WEBHOOKS_MAX already. */
AU_MUST_CHECK au_status au_webhook_create(au_db *db, const au_webhook *webhook, char *id_out,
                                          au_err *err);
AU_MUST_CHECK au_status au_webhook_get(au_db *db, au_arena *a, const char *id, au_webhook **out,
                                       au_err *err); /* deleted ones too */
AU_MUST_CHECK au_status au_webhook_list(au_db *db, au_arena *a, const char *before_id, int limit,
                                        au_webhook ***out, size_t *n, bool *has_more, au_err *err);
/* Soft; what waits for it is not sent any more. *deleted false: it was before, or never was. */
AU_MUST_CHECK au_status au_webhook_delete(au_db *db, const char *id, bool *deleted, au_err *err);

/* ---- Deliveries ---- */

typedef struct au_delivery {
    const char *id; /* the webhook-id header: the same at every attempt */
    const char *webhook_id, *event, *payload;
    const char *state; /* "pending" | "delivered" | "failed" */
    int attempts, last_status;
    const char *last_error; /* "" where the last attempt was answered well */
    int64_t created_at, ended_at;
    const char *url, *secret; /* of the webhook; in au_delivery_take alone */
} au_delivery;
AU_MUST_CHECK au_status au_delivery_list(au_db *db, au_arena *a, const char *webhook_id,
                                         const char *state, const char *before_id, int limit,
                                         au_delivery ***out, size_t *n, bool *has_more,
                                         au_err *err);
AU_MUST_CHECK au_status au_delivery_get(au_db *db, au_arena *a, const char *webhook_id,
                                        const char *id, au_delivery **out, au_err *err);
/* A new delivery of the same event, due now. id_out [AU_UUID_TEXT]. AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_delivery_repeat(au_db *db, const char *webhook_id, const char *id,
                                           char *id_out, au_err *err);

/* For the sender: how many milliseconds until the next pending one is due: 0 now, -1 none. A read.
 */
AU_MUST_CHECK au_status au_delivery_due_ms(au_db *db, int64_t *out, au_err *err);
/* Up to `limit` due ones, each put off by hold_ms, so that a sender that dies has not lost them and
 * another one does not send them meanwhile. */
AU_MUST_CHECK au_status au_delivery_take(au_db *db, au_arena *a, int limit, int64_t hold_ms,
                                         au_delivery ***out, size_t *n, au_err *err);
typedef struct au_delivery_end {
    const char *id;
    bool ok;
    bool gone;         /* 410: the webhook is switched off */
    int status;        /* of HTTP; 0: no answer */
    const char *error; /* "" */
    int64_t retry_ms;  /* -1: that was the last attempt */
} au_delivery_end;
AU_MUST_CHECK au_status au_delivery_finish(au_db *db, const au_delivery_end *end, au_err *err);
/* Removes deliveries that ended before this time. */
AU_MUST_CHECK au_status au_delivery_purge(au_db *db, int64_t ended_before, au_err *err);

#endif
