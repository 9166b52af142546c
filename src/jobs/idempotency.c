/* SPDX-License-Identifier: MIT */
/* Rows of idempotency keys. A key is unique for its owner, and free again when its time is over,
 * whether or not the janitor has been there. No state of its own. */
#include "jobs/idempotency.h"

#include <stdio.h>

au_status au_idempotency_find(au_db *db, const char *owner, const char *key, au_idempotency *out,
                              bool *found, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    *out = (au_idempotency){.status = 0};
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT request_hash, location, status FROM idempotency WHERE owner = ?1 "
                       "AND key = ?2 AND created_at > au_now_ms() - ?3",
                       "tti", owner, key, (int64_t)AU_IDEMPOTENCY_KEPT_MS));
    AU_TRY(au_rows_next(rows, found, err));
    if (!*found)
        goto done;
    snprintf(out->request_hash, sizeof out->request_hash, "%s", au_rows_text(rows, 0));
    snprintf(out->location, sizeof out->location, "%s", au_rows_text(rows, 1));
    out->status = (int)au_rows_int(rows, 2);
done:
    au_rows_close(&rows);
    return st;
}

au_status au_idempotency_put(au_db *db, const char *owner, const char *key,
                             const au_idempotency *made, au_err *err)
{
    /* What is in the way is over: the caller has found the key free. */
    return au_db_exec(db, NULL, err,
                      "INSERT INTO idempotency (owner, key, request_hash, status, location, "
                      "created_at) VALUES (?1, ?2, ?3, ?4, ?5, au_now_ms()) "
                      "ON CONFLICT (owner, key) DO UPDATE SET request_hash = "
                      "excluded.request_hash, status = excluded.status, "
                      "location = excluded.location, created_at = excluded.created_at",
                      "tttit", owner, key, made->request_hash, (int64_t)made->status,
                      made->location);
}

au_status au_idempotency_purge(au_db *db, int limit, int64_t *n, au_err *err)
{
    return au_db_exec(db, n, err,
                      "DELETE FROM idempotency WHERE (owner, key) IN (SELECT owner, key FROM "
                      "idempotency WHERE created_at <= au_now_ms() - ?1 ORDER BY created_at "
                      "LIMIT ?2)",
                      "ii", (int64_t)AU_IDEMPOTENCY_KEPT_MS, (int64_t)limit);
}
