/* SPDX-License-Identifier: MIT */
/* Idempotency keys: which request a key stood for, and what that made. The row is written in the
 * transaction that made the thing, so there is never one without the other. Connections as in
 * job.h. */
#ifndef AU_JOBS_IDEMPOTENCY_H
#define AU_JOBS_IDEMPOTENCY_H

#include <stdbool.h>

#include "base/hash.h"
#include "db/db.h"

enum {
    AU_IDEMPOTENCY_KEY_MAX = 255,
    AU_IDEMPOTENCY_LOCATION = 256,
    AU_IDEMPOTENCY_KEPT_MS = 86400000, /* afterwards a key is free again */
};

typedef struct au_idempotency {
    char request_hash[AU_SHA256_TEXT];
    char location[AU_IDEMPOTENCY_LOCATION];
    int status;
} au_idempotency;

/* owner: the API key that asked, "" for none. *found false: the key is free. */
AU_MUST_CHECK au_status au_idempotency_find(au_db *db, const char *owner, const char *key,
                                            au_idempotency *out, bool *found, au_err *err);
/* The key must have been found free in this transaction. */
AU_MUST_CHECK au_status au_idempotency_put(au_db *db, const char *owner, const char *key,
                                           const au_idempotency *made, au_err *err);
/* Forgets at most `limit` keys whose time is over. *n: how many. */
AU_MUST_CHECK au_status au_idempotency_purge(au_db *db, int limit, int64_t *n, au_err *err);

#endif
