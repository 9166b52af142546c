/* SPDX-License-Identifier: MIT */
/* Rows of renditions. No state of its own. */
#include "jobs/renditions.h"

#include "jobs/reader.h"

au_status au_rendition_get(au_db *db, au_arena *a, const char *sample_id, const char *format,
                           int sample_rate, au_rendition **out, au_err *err)
{
    au_rows *rows = NULL;
    bool has_row;
    au_status st = AU_OK;
    *out = NULL;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT store_key, sha256, bytes FROM renditions WHERE sample_id = ?1 AND "
                       "format = ?2 AND sample_rate = ?3",
                       "tti", sample_id, format, (int64_t)sample_rate));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (!has_row)
        goto done;
    au_rendition *r = au_arena_alloc(a, sizeof *r);
    AU_FAIL_IF(!r, AU_LIMIT, "record does not fit the memory of the request");
    *r = (au_rendition){.sample_id = sample_id, .format = format, .sample_rate = sample_rate};
    au_reader reader = au_reader_of(rows, a, err);
    r->store_key = au_read_text(&reader);
    r->sha256 = au_read_text(&reader);
    r->bytes = au_read_i64(&reader);
    AU_TRY(reader.st);
    *out = r;
done:
    au_rows_close(&rows);
    return st;
}

au_status au_rendition_begin(au_db *db, const char *store_key, au_err *err)
{
    return au_db_exec(db, NULL, err,
                      "INSERT INTO uploads (key, created_at) VALUES (?1, au_now_ms())", "t",
                      store_key);
}

au_status au_rendition_commit(au_db *db, const au_rendition *r, bool *kept, au_err *err)
{
    au_status st = AU_OK;
    int64_t n = 0;
    AU_TRY(au_db_exec(
        db, &n, err,
        "INSERT INTO renditions (sample_id, format, sample_rate, store_key, bytes, sha256, "
        "created_at) SELECT id, ?2, ?3, ?4, ?5, ?6, au_now_ms() FROM samples WHERE id = ?1 AND "
        "deleted_at = 0 ON CONFLICT DO NOTHING",
        "ttitit", r->sample_id, r->format, (int64_t)r->sample_rate, r->store_key, r->bytes,
        r->sha256));
    *kept = n == 1;
    if (*kept)
        AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM uploads WHERE key = ?1", "t", r->store_key));
done:
    return st;
}

au_status au_sample_set_peaks(au_db *db, const char *sample_id, const char *peaks, const char *mini,
                              au_err *err)
{
    return au_db_exec(db, NULL, err,
                      "UPDATE samples SET peaks = ?2, mini = ?3 WHERE id = ?1 AND peaks IS NULL",
                      "ttt", sample_id, peaks, mini);
}
