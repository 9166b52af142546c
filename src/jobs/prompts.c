/* SPDX-License-Identifier: MIT */
/* Prompt records. Their texts never change; a job from a text finds the oldest live record of that
 * text or makes one. Lists and searches are as in samples.c. No state of its own. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "jobs/catalog.h"
#include "jobs/job.h"
#include "jobs/reader.h"

enum { SQL_BYTES = 4096 };

static void content_hash(char out[AU_SHA256_TEXT], const char *text, const char *negative)
{
    au_sha256 h;
    au_sha256_init(&h);
    au_sha256_update(&h, text, strlen(text) + 1); /* the NUL divides the two */
    if (negative)
        au_sha256_update(&h, negative, strlen(negative) + 1);
    au_sha256_final_hex(&h, out);
}

au_status au_prompt_create(au_db *db, const char *text, const char *negative,
                           const char *attributes, const char *title, char *id_out, au_err *err)
{
    char hash[AU_SHA256_TEXT];
    content_hash(hash, text, negative);
    au_uuid7(id_out);
    return au_db_exec(
        db, NULL, err,
        "INSERT INTO prompts (id, text, negative_text, attributes, title, content_hash, "
        "created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, au_now_ms())",
        "tttttt", id_out, text, negative, attributes ? attributes : "{}", title ? title : "", hash);
}

au_status au_prompt_find_or_create(au_db *db, const char *text, const char *negative, char *id_out,
                                   bool *made, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    char hash[AU_SHA256_TEXT];
    bool has_row;
    content_hash(hash, text, negative);
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT id FROM prompts WHERE content_hash = ?1 AND deleted_at = 0 "
                       "ORDER BY id LIMIT 1",
                       "t", hash));
    AU_TRY(au_rows_next(rows, &has_row, err));
    *made = !has_row;
    if (has_row)
        snprintf(id_out, AU_UUID_TEXT, "%s", au_rows_text(rows, 0));
    else
        AU_TRY(au_prompt_create(db, text, negative, NULL, NULL, id_out, err));
done:
    au_rows_close(&rows);
    return st;
}

#define COLUMNS "p.id, p.text, p.negative_text, p.attributes, p.title, p.created_at, p.deleted_at "

static au_status read_prompt(au_reader *r, void *record)
{
    au_prompt *p = record;
    *p = (au_prompt){0};
    p->id = au_read_text(r);
    p->text = au_read_text(r);
    p->negative_text = au_read_text(r);
    p->attributes = au_read_text(r);
    p->title = au_read_text(r);
    p->created_at = au_read_i64(r);
    p->deleted_at = au_read_i64(r);
    return r->st;
}

/* In lists the number of the document comes last. */
static au_status read_listed(au_reader *r, void *record)
{
    au_status st = read_prompt(r, record);
    ((au_prompt *)record)->doc = au_read_i64(r);
    return st;
}

au_status au_prompt_get(au_db *db, au_arena *a, const char *id, au_prompt **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(
        au_db_query(&rows, db, err, "SELECT " COLUMNS "FROM prompts p WHERE p.id = ?1", "t", id));
    AU_TRY(au_page_single(rows, a, read_prompt, sizeof **out, (void **)out, "prompt", id, err));
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Lists
 * ------------------------------------------------------------------------------------------- */

au_place au_prompt_place(const au_prompt_filter *f, const au_prompt *last)
{
    return (au_place){.id = last->id, .number = f->words ? last->doc : last->created_at};
}

/* Attributes are looked up by name and value; those who have all of them are wanted. */
static void add_tables_and_conditions(au_buf *sql, const au_prompt_filter *f)
{
    au_buf_str(sql, f->words ? "FROM prompt_words w CROSS JOIN prompt_docs d ON d.doc = w.rowid "
                               "CROSS JOIN prompts p ON p.id = d.prompt_id "
                               "WHERE w.prompt_words MATCH ?1"
                             : "FROM prompts p WHERE p.deleted_at = 0");
    if (f->attributes)
        au_buf_str(sql, " AND p.id IN (SELECT v.prompt_id FROM json_each(?2) m JOIN "
                        "prompt_attributes v ON v.name = m.key AND v.value = m.value GROUP BY "
                        "v.prompt_id HAVING COUNT(*) = (SELECT COUNT(*) FROM json_each(?2)))");
    if (f->created_after)
        au_buf_str(sql, " AND p.created_at > ?3");
    if (f->created_before)
        au_buf_str(sql, " AND p.created_at < ?4");
}

static au_status run(au_rows **rows, au_db *db, const au_prompt_filter *f, const au_buf *sql,
                     int64_t limit, au_err *err)
{
    static const au_place nowhere = {0};
    const au_place *p = f->after ? f->after : &nowhere;
    au_status st = au_buf_check(sql, err);
    if (st == AU_OK)
        st = au_db_query(rows, db, err, au_buf_cstr(sql), "ttiiiti", f->words, f->attributes,
                         f->created_after, f->created_before, p->number, p->id, limit);
    return st;
}

au_status au_prompt_list(au_db *db, au_arena *a, const au_prompt_filter *f, au_prompt ***out,
                         size_t *n, bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_buf sql;
    au_status st = AU_OK;
    int limit = au_page_limit(f->limit);
    const char *sign = f->oldest_first ? ">" : "<", *way = f->oldest_first ? "" : " DESC";
    au_buf_init(&sql, SQL_BYTES);
    au_buf_str(&sql, "SELECT " COLUMNS);
    au_buf_str(&sql, f->words ? ", d.doc " : ", 0 ");
    add_tables_and_conditions(&sql, f);
    if (f->after && f->words)
        au_buf_printf(&sql, " AND w.rowid %s ?5", sign);
    else if (f->after)
        au_buf_printf(&sql, " AND (p.created_at, p.id) %s (?5, ?6)", sign);
    if (f->words)
        au_buf_printf(&sql, " ORDER BY w.rowid%s LIMIT ?7", way);
    else
        au_buf_printf(&sql, " ORDER BY p.created_at%s, p.id%s LIMIT ?7", way, way);
    AU_TRY(run(&rows, db, f, &sql, (int64_t)limit + 1, err));
    AU_TRY(au_page_collect(rows, a, read_listed, sizeof ***out, limit, (void ***)out, n, has_more,
                           err));
done:
    au_rows_close(&rows);
    au_buf_deinit(&sql);
    return st;
}

au_status au_prompt_count(au_db *db, const au_prompt_filter *f, int64_t *n, au_err *err)
{
    au_rows *rows = NULL;
    au_buf sql;
    au_status st = AU_OK;
    bool has_row;
    au_buf_init(&sql, SQL_BYTES);
    au_buf_str(&sql, "SELECT COUNT(*) ");
    add_tables_and_conditions(&sql, f);
    AU_TRY(run(&rows, db, f, &sql, 0, err));
    AU_TRY(au_rows_next(rows, &has_row, err));
    *n = has_row ? au_rows_int(rows, 0) : 0;
done:
    au_rows_close(&rows);
    au_buf_deinit(&sql);
    return st;
}

/* ---- Changes
 * ----------------------------------------------------------------------------------------- */

/* After an update that changed n rows: the event, or why it changed none. */
static au_status finish(au_db *db, const char *id, int64_t n, const char *event, au_change *out,
                        au_err *err)
{
    int64_t deleted_at;
    au_status st = AU_OK;
    *out = AU_CHANGE_DONE;
    if (n > 0)
        return au_event_add(db, "prompt", id, event, "{}", err);
    AU_TRY(au_db_int(&deleted_at, db, -1, err, "SELECT deleted_at FROM prompts WHERE id = ?1", "t",
                     id));
    AU_FAIL_IF(deleted_at < 0, AU_NOT_FOUND, "prompt %.40s does not exist", id);
    *out = deleted_at ? AU_CHANGE_GONE : AU_CHANGE_STALE;
done:
    return st;
}

/* Of a prompt only its title and attributes can change, so they say whether it is still as it was:
 * ?2 and ?3, NULL where that does not matter. */
#define STILL                                                                                      \
    "id = ?1 AND deleted_at = 0 AND (?2 IS NULL OR title = ?2) AND (?3 IS NULL OR attributes = "   \
    "?3)"

au_status au_prompt_change(au_db *db, const char *id, const char *title, const char *attributes,
                           const au_prompt *was, au_change *out, au_err *err)
{
    int64_t n = 0;
    au_status st = au_db_exec(db, &n, err,
                              "UPDATE prompts SET title = COALESCE(?4, title), attributes = "
                              "COALESCE(?5, attributes) WHERE " STILL,
                              "ttttt", id, was ? was->title : NULL, was ? was->attributes : NULL,
                              title, attributes);
    return st == AU_OK ? finish(db, id, n, "updated", out, err) : st;
}

au_status au_prompt_delete(au_db *db, const char *id, const au_prompt *was, au_change *out,
                           au_err *err)
{
    int64_t n = 0;
    au_status st =
        au_db_exec(db, &n, err, "UPDATE prompts SET deleted_at = au_now_ms() WHERE " STILL, "ttt",
                   id, was ? was->title : NULL, was ? was->attributes : NULL);
    return st == AU_OK ? finish(db, id, n, "deleted", out, err) : st;
}

au_status au_prompt_restore(au_db *db, const char *id, au_change *out, au_err *err)
{
    int64_t n = 0;
    au_status st = au_db_exec(
        db, &n, err, "UPDATE prompts SET deleted_at = 0 WHERE id = ?1 AND deleted_at > 0", "t", id);
    if (st == AU_OK)
        st = finish(db, id, n, "restored", out, err);
    if (st == AU_OK && *out != AU_CHANGE_DONE)
        *out = AU_CHANGE_NOTHING; /* it was not deleted */
    return st;
}
