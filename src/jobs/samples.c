/* SPDX-License-Identifier: MIT */
/* Records of samples: reading, lists, what people change of them. No state of its own.
 *
 * A list is one query made for its filters. Every order ends with the id, so that a place in it is
 * a value and an id, and what comes or goes meanwhile makes neither gaps nor doubles. What was
 * searched for is joined from the index of words outwards (CROSS JOIN), in the order of its
 * document numbers, which is that of age: only as much of it is looked at as the page needs. Left
 * to itself the planner would ask the index anew for each sample. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/catalog.h"
#include "jobs/job.h"
#include "jobs/reader.h"

enum { SQL_BYTES = 4096 };

#define SAMPLE_COLUMNS                                                                             \
    "s.id, s.job_id, s.idx, s.variant, s.seed, s.prompt_id, p.text, s.model_name, s.adapter_id, "  \
    "a.name, s.strength, s.format, s.duration_s, s.loudness_lufs, s.mini, s.title, s.tags, "       \
    "s.rating, s.starred, s.created_at, s.deleted_at, s.revision, "                                \
    "p.negative_text, s.model_fingerprint, s.adapter_sha256, s.params, s.sha256, s.pcm_sha256, "   \
    "s.store_key, s.sample_rate, s.channels, s.frames, s.bytes, s.clipped, s.true_peak_dbtp, "     \
    "s.peak, s.recipe "
/* The first of them, and as much of the prompt as one line shows. */
#define ROW_COLUMNS                                                                                \
    "s.id, s.job_id, s.idx, s.variant, s.seed, s.prompt_id, substr(p.text, 1, 200), "              \
    "s.model_name, s.adapter_id, a.name, s.strength, s.format, s.duration_s, s.loudness_lufs, "    \
    "s.mini, s.title, s.tags, s.rating, s.starred, s.created_at, s.deleted_at, s.revision "
#define JOINS "JOIN prompts p ON p.id = s.prompt_id LEFT JOIN adapters a ON a.id = s.adapter_id "
#define FOUND                                                                                      \
    "FROM sample_words w CROSS JOIN sample_docs d ON d.doc = w.rowid CROSS JOIN samples s "        \
    "ON s.id = d.sample_id "

static void read_row(au_reader *r, au_sample *s)
{
    *s = (au_sample){0};
    s->id = au_read_text(r);
    s->job_id = au_read_text(r);
    s->index = au_read_int(r);
    s->variant = au_read_int(r);
    s->seed = (uint64_t)au_read_i64(r);
    s->prompt_id = au_read_text(r);
    s->prompt_text = au_read_text(r);
    s->model_name = au_read_text(r);
    s->adapter_id = au_read_text(r);
    s->adapter_name = au_read_text(r);
    s->strength = au_read_double(r);
    s->format = au_read_text(r);
    s->duration_s = au_read_double(r);
    s->loudness_lufs = au_read_double(r);
    s->mini = au_read_text(r);
    s->title = au_read_text(r);
    s->tags = au_read_text(r);
    s->rating = au_read_int(r);
    s->starred = au_read_bool(r);
    s->created_at = au_read_i64(r);
    s->deleted_at = au_read_i64(r);
    s->revision = au_read_i64(r);
}

static void read_rest(au_reader *r, au_sample *s)
{
    s->negative_text = au_read_text(r);
    s->model_fingerprint = au_read_text(r);
    s->adapter_sha256 = au_read_text(r);
    s->params = au_read_text(r);
    s->sha256 = au_read_text(r);
    s->pcm_sha256 = au_read_text(r);
    s->store_key = au_read_text(r);
    s->sample_rate = au_read_int(r);
    s->channels = au_read_int(r);
    s->frames = au_read_i64(r);
    s->bytes = au_read_i64(r);
    s->clipped = au_read_i64(r);
    s->true_peak_dbtp = au_read_double(r);
    s->peak = au_read_double(r);
    s->recipe = au_read_text(r);
}

static au_status read_sample(au_reader *r, void *record)
{
    read_row(r, record);
    read_rest(r, record);
    return r->st;
}

/* In lists the number of the document comes last. */
static au_status read_listed(au_reader *r, void *record)
{
    read_row(r, record);
    read_rest(r, record);
    ((au_sample *)record)->doc = au_read_i64(r);
    return r->st;
}

static au_status read_listed_row(au_reader *r, void *record)
{
    read_row(r, record);
    ((au_sample *)record)->doc = au_read_i64(r);
    return r->st;
}

au_status au_sample_get(au_db *db, au_arena *a, const char *id, au_sample **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT " SAMPLE_COLUMNS "FROM samples s " JOINS "WHERE s.id = ?1", "t",
                       id));
    AU_TRY(au_page_single(rows, a, read_sample, sizeof **out, (void **)out, "sample", id, err));
done:
    au_rows_close(&rows);
    return st;
}

static au_status read_sound(au_reader *r, void *record)
{
    au_sample *s = record;
    *s = (au_sample){.id = au_read_text(r)};
    s->format = au_read_text(r);
    s->sha256 = au_read_text(r);
    s->store_key = au_read_text(r);
    s->sample_rate = au_read_int(r);
    s->bytes = au_read_i64(r);
    s->deleted_at = au_read_i64(r);
    return r->st;
}

au_status au_sample_get_sound(au_db *db, au_arena *a, const char *id, au_sample **out, au_err *err)
{
    au_rows *rows = NULL;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err,
                       "SELECT id, format, sha256, store_key, sample_rate, bytes, deleted_at FROM "
                       "samples WHERE id = ?1",
                       "t", id));
    AU_TRY(au_page_single(rows, a, read_sound, sizeof **out, (void **)out, "sample", id, err));
done:
    au_rows_close(&rows);
    return st;
}

au_status au_sample_peaks(au_db *db, au_arena *a, const char *id, char **out, au_err *err)
{
    au_rows *rows = NULL;
    bool has_row;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, "SELECT peaks FROM samples WHERE id = ?1", "t", id));
    AU_TRY(au_rows_next(rows, &has_row, err));
    AU_FAIL_IF(!has_row, AU_NOT_FOUND, "sample %.80s does not exist", id);
    AU_TRY(au_rows_strdup(out, rows, 0, a, err));
done:
    au_rows_close(&rows);
    return st;
}

/* ---- Lists
 * ------------------------------------------------------------------------------------------- */

/* What a list is ordered by: `after` is the condition that something comes after the place ?11
 * (number), ?12 (real), ?13 (id). */
typedef struct order {
    const char *by, *after;
} order;

static const order orders[AU_SORT_COUNT] = {
    [AU_SORT_NEWEST] = {"s.created_at DESC, s.id DESC", "(s.created_at, s.id) < (?11, ?13)"},
    [AU_SORT_OLDEST] = {"s.created_at, s.id", "(s.created_at, s.id) > (?11, ?13)"},
    /* Written so that the index on the expression is entered at the place. */
    [AU_SORT_RATING] = {"COALESCE(s.rating, 0) DESC, s.id DESC",
                        "COALESCE(s.rating, 0) <= ?11 AND (COALESCE(s.rating, 0) < ?11 OR "
                        "s.id < ?13)"},
    [AU_SORT_LONGEST] = {"s.duration_s DESC, s.id DESC", "(s.duration_s, s.id) < (?12, ?13)"},
    [AU_SORT_SHORTEST] = {"s.duration_s, s.id", "(s.duration_s, s.id) > (?12, ?13)"},
};
static const order newest_found = {"w.rowid DESC", "w.rowid < ?11"};
static const order oldest_found = {"w.rowid", "w.rowid > ?11"};

static bool by_doc(const au_sample_filter *f)
{
    return f->words && (f->sort == AU_SORT_NEWEST || f->sort == AU_SORT_OLDEST);
}

static const order *order_of(const au_sample_filter *f)
{
    if (by_doc(f))
        return f->sort == AU_SORT_NEWEST ? &newest_found : &oldest_found;
    return &orders[f->sort];
}

au_place au_sample_place(const au_sample_filter *f, const au_sample *last)
{
    au_place place = {.id = last->id, .real = last->duration_s, .number = last->created_at};
    if (by_doc(f))
        place.number = last->doc;
    else if (f->sort == AU_SORT_RATING)
        place.number = last->rating;
    return place;
}

/* Parameters have fixed numbers, whatever is left out. */
static void add_conditions(au_buf *sql, const au_sample_filter *f)
{
    /* The words hold nothing that is deleted. */
    au_buf_str(sql, f->words ? "WHERE w.sample_words MATCH ?6" : "WHERE s.deleted_at = 0");
    if (f->job_id)
        au_buf_str(sql, " AND s.job_id = ?1");
    if (f->prompt_id)
        au_buf_str(sql, " AND s.prompt_id = ?2");
    if (f->adapter_id)
        au_buf_str(sql, " AND s.adapter_id = ?3");
    if (f->model_name)
        au_buf_str(sql, " AND s.model_name = ?4");
    if (f->tag)
        au_buf_str(sql, " AND s.id IN (SELECT sample_id FROM sample_tags WHERE tag = ?5)");
    if (f->starred) /* as the index on starred ones says it */
        au_buf_str(sql, f->starred > 0 ? " AND s.starred = 1" : " AND s.starred = 0");
    if (f->min_rating > 0)
        au_buf_str(sql, " AND COALESCE(s.rating, 0) >= ?8");
    if (f->created_after)
        au_buf_str(sql, " AND s.created_at > ?9");
    if (f->created_before)
        au_buf_str(sql, " AND s.created_at < ?10");
}

static au_status run(au_rows **rows, au_db *db, const au_sample_filter *f, const au_buf *sql,
                     int64_t limit, au_err *err)
{
    static const au_place nowhere = {0};
    const au_place *p = f->after ? f->after : &nowhere;
    au_status st = au_buf_check(sql, err);
    if (st == AU_OK)
        st = au_db_query(rows, db, err, au_buf_cstr(sql), "ttttttiiiiidti", f->job_id, f->prompt_id,
                         f->adapter_id, f->model_name, f->tag, f->words, (int64_t)f->starred,
                         (int64_t)f->min_rating, f->created_after, f->created_before, p->number,
                         p->real, p->id, limit);
    return st;
}

au_status au_sample_list(au_db *db, au_arena *a, const au_sample_filter *f, au_sample ***out,
                         size_t *n, bool *has_more, au_err *err)
{
    au_rows *rows = NULL;
    au_buf sql;
    au_status st = AU_OK;
    int limit = au_page_limit(f->limit);
    au_buf_init(&sql, SQL_BYTES);
    au_buf_str(&sql, f->rows ? "SELECT " ROW_COLUMNS : "SELECT " SAMPLE_COLUMNS);
    au_buf_str(&sql, f->words ? ", d.doc " FOUND JOINS : ", 0 FROM samples s " JOINS);
    add_conditions(&sql, f);
    if (f->after)
        au_buf_printf(&sql, " AND %s", order_of(f)->after);
    au_buf_printf(&sql, " ORDER BY %s LIMIT ?14", order_of(f)->by);
    AU_TRY(run(&rows, db, f, &sql, (int64_t)limit + 1, err));
    AU_TRY(au_page_collect(rows, a, f->rows ? read_listed_row : read_listed, sizeof ***out, limit,
                           (void ***)out, n, has_more, err));
done:
    au_rows_close(&rows);
    au_buf_deinit(&sql);
    return st;
}

/* Whether the words alone decide, so that only they need be counted. */
static bool words_alone(const au_sample_filter *f)
{
    return f->words && !f->job_id && !f->prompt_id && !f->adapter_id && !f->model_name && !f->tag &&
           !f->starred && f->min_rating <= 0 && !f->created_after && !f->created_before;
}

au_status au_sample_count(au_db *db, const au_sample_filter *f, int64_t *n, au_err *err)
{
    au_rows *rows = NULL;
    au_buf sql;
    au_status st = AU_OK;
    bool has_row;
    au_buf_init(&sql, SQL_BYTES);
    au_buf_str(&sql, "SELECT COUNT(*) ");
    au_buf_str(&sql, words_alone(f) ? "FROM sample_words w "
                     : f->words     ? FOUND
                                    : "FROM samples s ");
    add_conditions(&sql, f);
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

au_status au_sample_look(au_db *db, const char *id, int64_t revision, au_change *out, au_err *err)
{
    au_rows *rows = NULL;
    bool has_row;
    au_status st = AU_OK;
    AU_TRY(au_db_query(&rows, db, err, "SELECT deleted_at, revision FROM samples WHERE id = ?1",
                       "t", id));
    AU_TRY(au_rows_next(rows, &has_row, err));
    AU_FAIL_IF(!has_row, AU_NOT_FOUND, "sample %.40s does not exist", id);
    *out = au_rows_int(rows, 0)                           ? AU_CHANGE_GONE
           : revision && au_rows_int(rows, 1) != revision ? AU_CHANGE_STALE
                                                          : AU_CHANGE_DONE;
done:
    au_rows_close(&rows);
    return st;
}

au_status au_sample_change(au_db *db, const char *id, const au_sample_edit *edit, int64_t revision,
                           au_change *out, au_err *err)
{
    const int64_t rating = edit->rating, starred = edit->starred;
    au_status st = AU_OK;
    AU_TRY(au_sample_look(db, id, revision, out, err));
    if (*out != AU_CHANGE_DONE)
        goto done;
    AU_TRY(au_db_exec(db, NULL, err,
                      "UPDATE samples SET title = COALESCE(?2, title), tags = COALESCE(?3, tags), "
                      "rating = CASE WHEN ?4 < 0 THEN rating ELSE NULLIF(?4, 0) END, "
                      "starred = CASE WHEN ?5 < 0 THEN starred ELSE ?5 END, "
                      "revision = revision + 1 WHERE id = ?1",
                      "tttii", id, edit->title, edit->tags, rating, starred));
    AU_TRY(au_event_add(db, "sample", id, "updated", "{}", err));
done:
    return st;
}
