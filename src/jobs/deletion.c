/* SPDX-License-Identifier: MIT */
/* What goes, and in which order: records are marked, objects are listed in `uploads`, rows are
 * removed children first. Nothing that a live record names is removed: prompts and adapters stay
 * while jobs or samples name them. Lists are read whole before anything changes. No state of its
 * own. */
#include "jobs/deletion.h"

#include <stdio.h>
#include <string.h>

#include "jobs/job_state.h"
#include "jobs/outbox.h"

enum { PAGE_MAX = 64 };

typedef struct id_page {
    char ids[PAGE_MAX][AU_UUID_TEXT];
    size_t n;
} id_page;

/* The first column of a query with a time and a limit, or a text and a limit. */
static au_status take_page(au_db *db, id_page *out, const char *sql, int64_t time, const char *text,
                           int limit, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    int64_t max = limit < PAGE_MAX ? limit : PAGE_MAX;
    out->n = 0;
    AU_TRY(au_db_query(&rows, db, err, sql, "iti", time, text, max));
    for (bool has_row; out->n < PAGE_MAX; out->n++) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        snprintf(out->ids[out->n], sizeof out->ids[0], "%s", au_rows_text(rows, 0));
    }
done:
    au_rows_close(&rows);
    return st;
}

static au_status tell(au_db *db, const char *kind, const char *id, const char *event, au_err *err)
{
    char data[AU_UUID_TEXT + 16];
    snprintf(data, sizeof data, "{\"id\":\"%s\"}", id);
    return au_event_add(db, kind, id, event, data, err);
}

/* ---- Marking ---- */

/* Lists the objects of a job's samples for the sweep, those that were deleted alone included. */
static au_status release_audio(au_db *db, const char *job_id, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO uploads (key, job_id, lease_token, created_at) "
                      "SELECT store_key, job_id, -1, au_now_ms() FROM samples WHERE job_id = ?1 "
                      "ON CONFLICT DO NOTHING",
                      "t", job_id));
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO uploads (key, job_id, lease_token, created_at) "
                      "SELECT r.store_key, s.job_id, -1, au_now_ms() FROM samples s JOIN "
                      "renditions r ON r.sample_id = s.id WHERE s.job_id = ?1 "
                      "ON CONFLICT DO NOTHING",
                      "t", job_id));
    AU_TRY(au_db_exec(db, NULL, err,
                      "DELETE FROM renditions WHERE sample_id IN (SELECT id FROM samples WHERE "
                      "job_id = ?1)",
                      "t", job_id));
done:
    return st;
}

static au_status mark_sample(au_db *db, const char *id, bool *deleted, au_err *err)
{
    int64_t n = 0;
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, &n, err,
                      "UPDATE samples SET deleted_at = au_now_ms(), revision = revision + 1 "
                      "WHERE id = ?1 AND deleted_at = 0",
                      "t", id));
    *deleted = n == 1;
    if (*deleted)
        AU_TRY(tell(db, "sample", id, "deleted", err));
done:
    return st;
}

static au_status mark_samples_of(au_db *db, const char *job_id, au_err *err)
{
    id_page page;
    bool deleted;
    au_status st = AU_OK;
    do {
        AU_TRY(take_page(db, &page,
                         "SELECT id FROM samples WHERE job_id = ?2 AND deleted_at = 0 LIMIT ?3", 0,
                         job_id, PAGE_MAX, err));
        for (size_t i = 0; i < page.n; i++)
            AU_TRY(mark_sample(db, page.ids[i], &deleted, err));
    } while (page.n == PAGE_MAX);
done:
    return st;
}

au_status au_job_delete(au_db *db, const char *id, bool *deleted, au_err *err)
{
    au_cancel_result result;
    au_job_state state;
    au_status st = AU_OK;
    int64_t before;
    *deleted = false;
    AU_TRY(au_db_int(&before, db, -1, err, "SELECT deleted_at FROM jobs WHERE id = ?1", "t", id));
    AU_FAIL_IF(before < 0, AU_NOT_FOUND, "job %.40s does not exist", id);
    if (before > 0)
        goto done;
    AU_TRY(au_job_cancel(db, id, &result, &state, err));
    /* Of a job that is cancelling its worker, or the janitor, removes what there is. */
    if (au_job_state_is_final(state)) {
        AU_TRY(release_audio(db, id, err));
        AU_TRY(mark_samples_of(db, id, err));
    }
    AU_TRY(au_db_exec(db, NULL, err, "UPDATE jobs SET deleted_at = au_now_ms() WHERE id = ?1", "t",
                      id));
    AU_TRY(au_job_emit(db, id, "deleted", "{}", err));
    AU_TRY(au_outbox_add(db, "job", id, "deleted", "{}", err));
    *deleted = true;
done:
    return st;
}

au_status au_sample_delete(au_db *db, const char *id, bool *deleted, au_err *err)
{
    int64_t known;
    au_status st = AU_OK;
    *deleted = false;
    AU_TRY(au_db_int(&known, db, 0, err, "SELECT COUNT(*) FROM samples WHERE id = ?1", "t", id));
    AU_FAIL_IF(!known, AU_NOT_FOUND, "sample %.40s does not exist", id);
    AU_TRY(mark_sample(db, id, deleted, err));
done:
    return st;
}

au_status au_sample_restore(au_db *db, const char *id, bool *restored, au_err *err)
{
    int64_t known, n = 0;
    au_status st = AU_OK;
    *restored = false;
    AU_TRY(au_db_int(&known, db, 0, err,
                     "SELECT COUNT(*) FROM samples s JOIN jobs j ON j.id = s.job_id WHERE s.id = "
                     "?1 AND j.deleted_at = 0",
                     "t", id));
    AU_FAIL_IF(!known, AU_NOT_FOUND, "sample %.40s does not exist any more", id);
    AU_TRY(au_db_exec(db, &n, err,
                      "UPDATE samples SET deleted_at = 0, revision = revision + 1 WHERE id = ?1 "
                      "AND deleted_at > 0",
                      "t", id));
    *restored = n == 1;
    if (*restored)
        AU_TRY(tell(db, "sample", id, "restored", err));
done:
    return st;
}

au_status au_jobs_retire(au_db *db, int64_t unix_ms, int limit, int *n, au_err *err)
{
    id_page page;
    bool deleted;
    au_status st = AU_OK;
    *n = 0;
    AU_TRY(take_page(db, &page,
                     "SELECT id FROM jobs WHERE finished_at > 0 AND finished_at <= ?1 AND "
                     "deleted_at = 0 LIMIT ?3",
                     unix_ms, NULL, limit, err));
    for (size_t i = 0; i < page.n; i++, (*n)++)
        AU_TRY(au_job_delete(db, page.ids[i], &deleted, err));
done:
    return st;
}

/* ---- Purging ---- */

static au_status forget_events(au_db *db, const char *subject, au_err *err)
{
    return au_db_exec(db, NULL, err, "DELETE FROM events WHERE subject = ?1", "t", subject);
}

static au_status purge_sample(au_db *db, const char *id, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO uploads (key, job_id, lease_token, created_at) "
                      "SELECT store_key, job_id, -1, au_now_ms() FROM samples WHERE id = ?1 "
                      "UNION ALL SELECT r.store_key, s.job_id, -1, au_now_ms() FROM samples s JOIN "
                      "renditions r ON r.sample_id = s.id WHERE s.id = ?1 ON CONFLICT DO NOTHING",
                      "t", id));
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM samples WHERE id = ?1", "t", id));
    AU_TRY(forget_events(db, id, err));
done:
    return st;
}

static au_status purge_job(au_db *db, const char *id, au_err *err)
{
    id_page page;
    au_status st = AU_OK;
    do {
        AU_TRY(take_page(db, &page, "SELECT id FROM samples WHERE job_id = ?2 LIMIT ?3", 0, id,
                         PAGE_MAX, err));
        for (size_t i = 0; i < page.n; i++)
            AU_TRY(purge_sample(db, page.ids[i], err));
    } while (page.n == PAGE_MAX);
    AU_TRY(forget_events(db, id, err));
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM jobs WHERE id = ?1", "t", id));
done:
    return st;
}

static au_status purge_prompt(au_db *db, const char *id, au_err *err)
{
    au_status st = forget_events(db, id, err);
    if (st == AU_OK)
        st = au_db_exec(db, NULL, err, "DELETE FROM prompts WHERE id = ?1", "t", id);
    return st;
}

/* The rows of its objects name the adapter where others name a job: nobody's, so they are swept. */
static au_status purge_adapter(au_db *db, const char *id, au_err *err)
{
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, NULL, err,
                      "INSERT INTO uploads (key, job_id, lease_token, created_at) "
                      "SELECT store_key, id, -1, au_now_ms() FROM adapters WHERE id = ?1 AND "
                      "store_key IS NOT NULL ON CONFLICT DO NOTHING",
                      "t", id));
    AU_TRY(forget_events(db, id, err));
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM adapters WHERE id = ?1", "t", id));
done:
    return st;
}

#define OVER(table, more)                                                                          \
    "SELECT id FROM " table " x WHERE deleted_at > 0 AND deleted_at <= ?1" more " LIMIT ?3"

static const struct purge_kind {
    const char *select;
    au_status (*purge)(au_db *db, const char *id, au_err *err);
} kinds[] = {
    {OVER("jobs", " AND state IN ('completed', 'failed', 'cancelled')"), purge_job},
    {OVER("samples", ""), purge_sample},
    {OVER("prompts", " AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.prompt_id = x.id) AND NOT "
                     "EXISTS (SELECT 1 FROM samples s WHERE s.prompt_id = x.id)"),
     purge_prompt},
    {OVER("adapters", " AND NOT EXISTS (SELECT 1 FROM job_samples j WHERE j.adapter_id = x.id) AND "
                      "NOT EXISTS (SELECT 1 FROM samples s WHERE s.adapter_id = x.id)"),
     purge_adapter},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

au_status au_purge_deleted(au_db *db, int64_t unix_ms, int limit, int *n, au_err *err)
{
    id_page page;
    au_status st = AU_OK;
    *n = 0;
    for (size_t k = 0; k < KINDS; k++) {
        AU_TRY(take_page(db, &page, kinds[k].select, unix_ms, NULL, limit, err));
        for (size_t i = 0; i < page.n; i++, (*n)++)
            AU_TRY(kinds[k].purge(db, page.ids[i], err));
    }
done:
    return st;
}

au_status au_purge_is_due(au_db *db, int64_t retire_ms, int64_t purge_ms, bool *due, au_err *err)
{
    id_page page = {.n = 0};
    int64_t retire = 0;
    au_status st = AU_OK;
    if (retire_ms >= 0)
        AU_TRY(au_db_int(&retire, db, 0, err,
                         "SELECT 1 FROM jobs WHERE finished_at > 0 AND finished_at <= ?1 AND "
                         "deleted_at = 0 LIMIT 1",
                         "i", retire_ms));
    for (size_t k = 0; k < KINDS && !retire && page.n == 0 && purge_ms >= 0; k++)
        AU_TRY(take_page(db, &page, kinds[k].select, purge_ms, NULL, 1, err));
    *due = retire || page.n > 0;
done:
    return st;
}
