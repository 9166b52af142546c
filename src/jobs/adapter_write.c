/* SPDX-License-Identifier: MIT */
/* Rows of adapters: uploads, names and versions, soft deletion. All of it runs in transactions of
 * the writer thread, but for au_upload_look. */
#include "jobs/adapter_write.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "jobs/job.h"
#include "store/store.h"

enum { EVENT_BYTES = 4096 };

au_status au_adapter_event(au_db *db, const char *id, const char *event, au_err *err)
{
    au_rows *rows = NULL;
    json_t *data = NULL;
    au_buf text;
    au_status st = AU_OK;
    bool has_row;
    au_buf_init(&text, EVENT_BYTES);
    AU_TRY(au_db_query(&rows, db, err, "SELECT name, version, status FROM adapters WHERE id = ?1",
                       "t", id));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (!has_row)
        goto done;
    data = json_pack("{s:s, s:s, s:I, s:s}", "id", id, "name", au_rows_text(rows, 0), "version",
                     (json_int_t)au_rows_int(rows, 1), "state", au_rows_text(rows, 2));
    AU_FAIL_IF(!data, AU_NOMEM, "out of memory");
    au_rows_close(&rows);
    au_json_dump(&text, data);
    AU_TRY(au_buf_check(&text, err));
    AU_TRY(au_event_add(db, "adapter", id, event, au_buf_cstr(&text), err));
done:
    au_rows_close(&rows);
    json_decref(data);
    au_buf_deinit(&text);
    return st;
}

/* ---- Uploads ---- */

/* The first column of the first row as an id, "" where there is none. `other` is ?2. */
static au_status find_id(au_db *db, char id[AU_UUID_TEXT], const char *sql, const char *value,
                         const char *other, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    id[0] = '\0';
    AU_TRY(au_db_query(&rows, db, err, sql, "tt", value, other));
    AU_TRY(au_rows_next(rows, &has_row, err));
    if (has_row)
        snprintf(id, AU_UUID_TEXT, "%s", au_rows_text(rows, 0));
done:
    au_rows_close(&rows);
    return st;
}

/* A live adapter other than ?2 that the name ?1 means, or that is being checked to. */
static const char sql_name_holder[] =
    "SELECT id FROM adapters WHERE name = ?1 AND id <> ?2 AND deleted_at = 0 AND "
    "((current = 1 AND status = 'ready') OR status = 'validating') ORDER BY version DESC LIMIT 1";

au_status au_upload_look(au_db *db, au_upload *u, au_err *err)
{
    char known[AU_UUID_TEXT], holder[AU_UUID_TEXT];
    int64_t usable;
    au_status st = AU_OK;
    AU_TRY(find_id(db, known, "SELECT id FROM adapters WHERE sha256 = ?1", u->sha256, "", err));
    AU_TRY(au_db_int(&usable, db, 0, err,
                     "SELECT deleted_at = 0 AND status <> 'rejected' AND (current OR NOT ?2 OR "
                     "name <> ?3 OR status = 'validating') FROM adapters WHERE id = ?1",
                     "tit", known, (int64_t)u->replace, u->name));
    if (known[0] && usable) {
        u->outcome = AU_UPLOAD_KNOWN;
        memcpy(u->id, known, sizeof u->id);
        goto done;
    }
    AU_TRY(find_id(db, holder, sql_name_holder, u->name, known, err));
    u->outcome = holder[0] && !u->replace ? AU_UPLOAD_NAME_TAKEN : AU_UPLOAD_NEW;
    memcpy(u->id, u->outcome == AU_UPLOAD_NEW ? known : holder, sizeof u->id);
done:
    return st;
}

static au_status insert_row(au_db *db, au_upload *u, au_err *err)
{
    au_uuid7(u->id);
    return au_db_exec(db, NULL, err,
                      "INSERT INTO adapters (id, name, version, current, source, sha256, status, "
                      "created_at) SELECT ?1, ?2, 1 + COALESCE(MAX(version), 0), 0, 'upload', ?3, "
                      "'validating', au_now_ms() FROM adapters WHERE name = ?2",
                      "ttt", u->id, u->name, u->sha256);
}

au_status au_upload_put(au_db *db, au_upload *u, au_err *err)
{
    char key[AU_STORE_KEY], holder[AU_UUID_TEXT];
    au_status st = AU_OK;
    snprintf(key, sizeof key, "adapters/%s/", u->sha256);
    AU_TRY(au_upload_look(db, u, err));
    if (u->outcome == AU_UPLOAD_NAME_TAKEN)
        goto done; /* the copy goes as one that nobody announced to the end */
    AU_TRY(au_db_exec(db, NULL, err, "DELETE FROM uploads WHERE key = ?1", "t", key));
    if (u->outcome == AU_UPLOAD_KNOWN)
        goto done;
    bool is_new = !u->id[0];
    if (is_new)
        AU_TRY(insert_row(db, u, err));
    AU_TRY(find_id(db, holder, sql_name_holder, u->name, u->id, err));
    /* The version of a row that takes another name is the next of that name. */
    AU_TRY(au_db_exec(
        db, NULL, err,
        "UPDATE adapters SET version = CASE WHEN name = ?2 THEN version ELSE (SELECT 1 + "
        "COALESCE(MAX(version), 0) FROM adapters WHERE name = ?2) END, name = ?2, description = "
        "COALESCE(?3, ''), base_model = COALESCE(?4, ''), source = 'upload', store_key = ?5, "
        "bytes = ?6, status = 'validating', report = '{}', error = NULL, deleted_at = 0, "
        "current = ?7 WHERE id = ?1",
        "tttttii", u->id, u->name, u->description, u->base_model, key, u->bytes,
        (int64_t)!holder[0]));
    AU_TRY(au_adapter_event(db, u->id, is_new ? "created" : "updated", err));
done:
    return st;
}

au_status au_upload_checked(au_db *db, const char *id, char *drop, au_err *err)
{
    char rejected[AU_UUID_TEXT];
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    drop[0] = '\0';
    AU_TRY(find_id(db, rejected, "SELECT id FROM adapters WHERE id = ?1 AND status = 'rejected'",
                   id, "", err));
    if (!rejected[0]) {
        AU_TRY(au_db_exec(db, NULL, err,
                          "UPDATE adapters SET current = (id = ?1) WHERE name = (SELECT name FROM "
                          "adapters WHERE id = ?1 AND deleted_at = 0)",
                          "t", id));
    } else {
        AU_TRY(
            au_db_query(&rows, db, err, "SELECT store_key FROM adapters WHERE id = ?1", "t", id));
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (has_row && !au_rows_is_null(rows, 0))
            snprintf(drop, AU_STORE_KEY, "%s", au_rows_text(rows, 0));
        au_rows_close(&rows);
        AU_TRY(au_db_exec(db, NULL, err, "UPDATE adapters SET store_key = NULL WHERE id = ?1", "t",
                          id));
        if (drop[0])
            AU_TRY(au_db_exec(db, NULL, err,
                              "INSERT INTO uploads (key, created_at) VALUES (?1, au_now_ms()) "
                              "ON CONFLICT (key) DO NOTHING",
                              "t", drop));
    }
    AU_TRY(au_adapter_event(db, id, "updated", err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_upload_dropped(au_db *db, const char *key, au_err *err)
{
    return au_db_exec(db, NULL, err, "DELETE FROM uploads WHERE key = ?1", "t", key);
}

/* ---- Names and deletion ---- */

au_status au_adapter_row_patch(au_db *db, const char *id, const char *name, const char *description,
                               au_err *err)
{
    char holder[AU_UUID_TEXT];
    int64_t changes;
    au_status st = AU_OK;
    if (name) {
        AU_TRY(find_id(db, holder, sql_name_holder, name, id, err));
        AU_FAIL_IF(holder[0], AU_EXISTS, "%s", holder);
        AU_TRY(au_db_exec(db, NULL, err,
                          "UPDATE adapters SET version = (SELECT 1 + COALESCE(MAX(version), 0) "
                          "FROM adapters WHERE name = ?2), name = ?2, current = 1 "
                          "WHERE id = ?1 AND name <> ?2 AND deleted_at = 0",
                          "tt", id, name));
    }
    AU_TRY(au_db_exec(db, &changes, err,
                      "UPDATE adapters SET description = COALESCE(?2, description) "
                      "WHERE id = ?1 AND deleted_at = 0",
                      "tt", id, description));
    AU_FAIL_IF(changes == 0, AU_NOT_FOUND, "adapter %.40s does not exist", id);
    AU_TRY(au_adapter_event(db, id, "updated", err));
done:
    return st;
}

au_status au_adapter_row_delete(au_db *db, const char *id, bool *changed, au_err *err)
{
    int64_t changes;
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, &changes, err,
                      "UPDATE adapters SET deleted_at = au_now_ms() WHERE id = ?1 AND "
                      "deleted_at = 0",
                      "t", id));
    *changed = changes > 0;
    if (*changed)
        AU_TRY(au_adapter_event(db, id, "deleted", err));
done:
    return st;
}

au_status au_adapter_row_restore(au_db *db, const char *id, bool *changed, au_err *err)
{
    int64_t changes;
    au_status st = AU_OK;
    AU_TRY(au_db_exec(db, &changes, err,
                      "UPDATE adapters SET deleted_at = 0, current = (current AND NOT EXISTS ("
                      "SELECT 1 FROM adapters o WHERE o.name = adapters.name AND o.id <> ?1 AND "
                      "o.deleted_at = 0 AND o.current)) WHERE id = ?1 AND deleted_at > 0",
                      "t", id));
    *changed = changes > 0;
    if (*changed)
        AU_TRY(au_adapter_event(db, id, "restored", err));
done:
    return st;
}
