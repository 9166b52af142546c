/* SPDX-License-Identifier: MIT */
/* Prompt records. They never change; a job from a text finds the oldest live record of that text or
 * makes one. No state of its own. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "jobs/catalog.h"
#include "jobs/reader.h"

enum { DEFAULT_LIMIT = 20, MAX_LIMIT = 500 };

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

#define COLUMNS "id, text, negative_text, attributes, title, created_at, deleted_at "

static au_status read_prompt(const au_rows *rows, au_arena *a, au_prompt **out, au_err *err)
{
    au_reader r = au_reader_of(rows, a, err);
    au_prompt *p = au_arena_alloc(a, sizeof *p);
    if (!p)
        return au_fail(err, AU_LIMIT, "prompt does not fit the memory of the request");
    p->id = au_read_text(&r);
    p->text = au_read_text(&r);
    p->negative_text = au_read_text(&r);
    p->attributes = au_read_text(&r);
    p->title = au_read_text(&r);
    p->created_at = au_read_i64(&r);
    p->deleted_at = au_read_i64(&r);
    *out = p;
    return r.st;
}

au_status au_prompt_get(au_db *db, au_arena *a, const char *id, au_prompt **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    bool has_row;
    AU_TRY(au_db_query(&rows, db, err, "SELECT " COLUMNS "FROM prompts WHERE id = ?1", "t", id));
    AU_TRY(au_rows_next(rows, &has_row, err));
    AU_FAIL_IF(!has_row, AU_NOT_FOUND, "prompt %.40s does not exist", id);
    AU_TRY(read_prompt(rows, a, out, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_prompt_list(au_db *db, au_arena *a, const au_prompt_filter *f, au_prompt ***out,
                         size_t *n, bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    size_t cap = 0;
    bool has_row;
    int limit = f->limit <= 0 ? DEFAULT_LIMIT : f->limit > MAX_LIMIT ? MAX_LIMIT : f->limit;
    *out = NULL;
    *n = 0;
    *has_more = false;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " COLUMNS "FROM prompts WHERE deleted_at = 0 AND "
                       "id < COALESCE(?1, 'g') ORDER BY id DESC LIMIT ?2",
                       "ti", f->before_id, (int64_t)limit + 1));
    for (;;) {
        AU_TRY(au_rows_next(rows, &has_row, err));
        if (!has_row)
            break;
        if (*n == (size_t)limit) {
            *has_more = true;
            break;
        }
        au_prompt *p = NULL;
        AU_TRY(read_prompt(rows, a, &p, err));
        AU_TRY(au_page_push((void ***)out, n, &cap, p, a, err));
    }
done:
    au_rows_close(&rows);
    return st;
}

au_status au_prompt_delete(au_db *db, const char *id, bool *deleted, au_err *err)
{
    int64_t n = 0;
    au_status st = au_db_exec(db, &n, err,
                              "UPDATE prompts SET deleted_at = au_now_ms() WHERE id = ?1 AND "
                              "deleted_at = 0",
                              "t", id);
    *deleted = n == 1;
    return st;
}
