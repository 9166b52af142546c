/* SPDX-License-Identifier: MIT */
/* /v1/samples: what people change of a sample (title, tags, rating, star), deleting and restoring,
 * one or many. A deleted sample answers 410 and can be restored until the janitor purges it. What
 * If-Match asked for is asked again in the transaction. */
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"
#include "jobs/deletion.h"

enum {
    TAGS_MAX = 32,
    TAG_MAX_CHARS = 50,
    BULK_MAX = 500,
    TAGS_MAX_BYTES = TAGS_MAX * (TAG_MAX_CHARS * 6 + 4),
};

static const char *const no_query[] = {NULL};

/* The revision that a change is meant for: 0 without If-Match. False: a 412 has been set. */
static bool expected_revision(au_http_request *rq, const au_sample *s, int64_t *revision)
{
    *revision = au_http_header(rq, "if-match") ? s->revision : 0;
    return au_http_if_match(rq, au_sample_json(s));
}

/* What a change that did not happen is answered with. */
static au_http_result reply_unchanged(au_http_request *rq, au_change change, const char *id)
{
    if (change == AU_CHANGE_GONE)
        return au_api_gone(rq, "sample", id);
    return au_http_problem(rq, AU_PROBLEM_PRECONDITION,
                           "sample %s was changed by somebody else meanwhile", id);
}

/* ---- PATCH ---- */

static bool check_tag(au_check *c, const json_t *list, size_t i)
{
    const char *pointer = au_check_at_index(c, "/tags", i);
    const char *tag = json_string_value(json_array_get(list, i));
    if (!tag) {
        au_check_add(c, pointer, "wrong_type", json_pack("{s:s}", "expected", "string"));
        return false;
    }
    if (!*tag || tag[au_utf8_prefix(tag, TAG_MAX_CHARS)]) {
        au_check_add(c, pointer, "out_of_range",
                     json_pack("{s:i, s:i}", "min_chars", 1, "max_chars", TAG_MAX_CHARS));
        return false;
    }
    for (size_t k = 0; k < i; k++) {
        const char *other = json_string_value(json_array_get(list, k));
        if (other && strcmp(other, tag) == 0) {
            au_check_add(c, pointer, "conflict",
                         json_pack("{s:s}", "with", au_check_at_index(c, "/tags", k)));
            return false;
        }
    }
    return true;
}

static void check_tags(au_check *c, const json_t *body, au_sample_edit *edit)
{
    const json_t *list = json_object_get(body, "tags");
    bool right = true;
    if (!list)
        return;
    if (!json_is_array(list)) {
        au_check_add(c, "/tags", "wrong_type", json_pack("{s:s}", "expected", "array"));
        return;
    }
    if (json_array_size(list) > TAGS_MAX) {
        au_check_add(c, "/tags", "out_of_range", json_pack("{s:i}", "max_items", TAGS_MAX));
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++)
        right &= check_tag(c, list, i);
    if (!right)
        return;
    au_buf text;
    au_buf_init(&text, TAGS_MAX_BYTES);
    au_json_dump(&text, list);
    edit->tags = text.status == AU_OK ? au_arena_strdup(c->arena, au_buf_cstr(&text)) : NULL;
    c->no_memory |= !edit->tags;
    au_buf_deinit(&text);
}

static void check_edit(au_check *c, const json_t *body, au_sample_edit *edit)
{
    static const char *const fields[] = {"title", "tags", "rating", "starred", NULL};
    int64_t rating;
    bool starred;
    *edit = (au_sample_edit){.rating = -1, .starred = -1};
    if (!au_check_object(c, body, "", fields))
        return;
    au_check_text(c, body, "", "title", AU_LABEL_MAX_CHARS, &edit->title);
    check_tags(c, body, edit);
    if (json_is_null(json_object_get(body, "rating")))
        edit->rating = 0;
    else if (au_check_int(c, body, "", "rating", 1, 5, &rating))
        edit->rating = (int)rating;
    if (au_check_bool(c, body, "", "starred", &starred))
        edit->starred = starred;
}

typedef struct change {
    const char *id;
    int64_t revision;
    au_sample_edit edit;
    au_change result;
} change;

static au_status write_change(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    return au_sample_change(db, c->id, &c->edit, c->revision, &c->result, err);
}

static au_http_result change_written(au_http_request *rq)
{
    const change *c = au_api_outcome_of(rq)->arg;
    if (au_api_write_failed(rq, "sample", c->id))
        return AU_HTTP_DONE;
    if (c->result != AU_CHANGE_DONE)
        return reply_unchanged(rq, c->result, c->id);
    return au_get_sample(rq);
}

au_http_result au_patch_sample(au_http_request *rq)
{
    json_t *body;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c)
        return au_api_busy(rq, 1, "out of memory");
    au_check check;
    au_check_init(&check, au_http_arena(rq));
    check_edit(&check, body, &c->edit);
    if (!au_check_ok(&check))
        return au_check_reply(&check, rq);
    au_check_deinit(&check);
    const au_sample *s = au_api_sample(rq);
    if (!s || !expected_revision(rq, s, &c->revision))
        return AU_HTTP_DONE;
    if (json_object_size(body) == 0)
        return au_http_reply_json(rq, 200, au_sample_json(s));
    c->id = s->id;
    return au_api_write(rq, write_change, c, change_written);
}

/* ---- DELETE and restore, one ---- */

static au_status write_deletion(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    bool deleted;
    au_status st = AU_OK;
    AU_TRY(au_sample_look(db, c->id, c->revision, &c->result, err));
    if (c->result == AU_CHANGE_DONE)
        AU_TRY(au_sample_delete(db, c->id, &deleted, err));
done:
    return st;
}

static au_http_result deletion_written(au_http_request *rq)
{
    const change *c = au_api_outcome_of(rq)->arg;
    if (au_api_write_failed(rq, "sample", c->id))
        return AU_HTTP_DONE;
    return c->result == AU_CHANGE_DONE ? au_http_reply_empty(rq, 204)
                                       : reply_unchanged(rq, c->result, c->id);
}

au_http_result au_delete_sample(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c)
        return au_api_busy(rq, 1, "out of memory");
    const au_sample *s = au_api_sample(rq);
    if (!s || !expected_revision(rq, s, &c->revision))
        return AU_HTTP_DONE;
    c->id = s->id;
    return au_api_write(rq, write_deletion, c, deletion_written);
}

static au_status write_restoration(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    bool restored;
    au_status st = AU_OK;
    AU_TRY(au_sample_look(db, c->id, 0, &c->result, err)); /* an unknown id ends it here */
    st = au_sample_restore(db, c->id, &restored, err);
    c->result = st == AU_OK ? AU_CHANGE_DONE : AU_CHANGE_GONE;
    if (st == AU_NOT_FOUND)
        st = AU_OK;
done:
    return st;
}

static au_http_result restoration_written(au_http_request *rq)
{
    const change *c = au_api_outcome_of(rq)->arg;
    if (au_api_write_failed(rq, "sample", c->id))
        return AU_HTTP_DONE;
    if (c->result == AU_CHANGE_GONE)
        return au_http_problem(rq, AU_PROBLEM_GONE,
                               "sample %s was deleted with its job, so its audio is gone", c->id);
    return au_get_sample(rq);
}

au_http_result au_restore_sample(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "sample", au_http_param(rq, "id"));
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c)
        return au_api_busy(rq, 1, "out of memory");
    c->id = id;
    return au_api_write(rq, write_restoration, c, restoration_written);
}

/* ---- Many ---- */

typedef struct bulk {
    const char **ids;
    char *fates; /* of each: 'd' done, 'g' gone, 'n' not found, '=' was so already */
    size_t n;
    bool restore;
} bulk;

static au_status delete_one(au_db *db, const char *id, char *fate, au_err *err)
{
    bool deleted = false;
    au_status st = au_sample_delete(db, id, &deleted, err);
    *fate = st == AU_NOT_FOUND ? 'n' : deleted ? 'd' : 'g';
    return st == AU_NOT_FOUND ? AU_OK : st;
}

static au_status restore_one(au_db *db, const char *id, char *fate, au_err *err)
{
    bool restored = false;
    au_change found;
    au_status st = au_sample_look(db, id, 0, &found, err);
    if (st == AU_NOT_FOUND) {
        *fate = 'n';
        return AU_OK;
    }
    if (st == AU_OK)
        st = au_sample_restore(db, id, &restored, err);
    *fate = st == AU_NOT_FOUND ? 'g' : restored ? 'd' : '=';
    return st == AU_NOT_FOUND ? AU_OK : st;
}

static au_status write_bulk(au_db *db, void *arg, au_err *err)
{
    bulk *b = arg;
    au_status st = AU_OK;
    for (size_t i = 0; st == AU_OK && i < b->n; i++) {
        if (!au_uuid_valid(b->ids[i]))
            b->fates[i] = 'n';
        else
            st = b->restore ? restore_one(db, b->ids[i], &b->fates[i], err)
                            : delete_one(db, b->ids[i], &b->fates[i], err);
    }
    return st;
}

static json_t *ids_with(const bulk *b, char fate, char or_fate)
{
    json_t *list = json_array();
    for (size_t i = 0; i < b->n; i++) {
        if (b->fates[i] == fate || b->fates[i] == or_fate)
            au_list_add(&list, json_string(b->ids[i]));
    }
    return list;
}

static au_http_result bulk_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const bulk *b = o->arg;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    return au_http_reply_json(rq, 200,
                              json_pack("{s:o, s:o, s:o}", b->restore ? "restored" : "deleted",
                                        ids_with(b, 'd', '='), "gone", ids_with(b, 'g', 'g'),
                                        "not_found", ids_with(b, 'n', 'n')));
}

static bool check_ids(au_check *c, const json_t *body, bulk *b)
{
    static const char *const fields[] = {"ids", NULL};
    if (!au_check_object(c, body, "", fields))
        return true;
    const json_t *list = json_object_get(body, "ids");
    size_t n = json_array_size(list);
    if (!json_is_array(list)) {
        au_check_add(c, "/ids", list ? "wrong_type" : "missing",
                     json_pack("{s:s}", "expected", "array"));
        return true;
    }
    if (n < 1 || n > BULK_MAX) {
        au_check_add(c, "/ids", "out_of_range",
                     json_pack("{s:i, s:i}", "min_items", 1, "max_items", BULK_MAX));
        return true;
    }
    b->ids = au_arena_alloc(c->arena, n * sizeof *b->ids);
    b->fates = au_arena_alloc(c->arena, n);
    if (!b->ids || !b->fates)
        return false;
    for (size_t i = 0; i < n; i++) {
        b->ids[i] = json_string_value(json_array_get(list, i));
        if (!b->ids[i])
            au_check_add(c, au_check_at_index(c, "/ids", i), "wrong_type",
                         json_pack("{s:s}", "expected", "string"));
    }
    b->n = n;
    return true;
}

static au_http_result change_many(au_http_request *rq, bool restore)
{
    json_t *body;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    bulk *b = au_arena_alloc(au_http_arena(rq), sizeof *b);
    if (!b)
        return au_api_busy(rq, 1, "out of memory");
    b->restore = restore;
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    if (!check_ids(&c, body, b)) {
        au_check_deinit(&c);
        return au_api_busy(rq, 1, "out of memory");
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    return au_api_write(rq, write_bulk, b, bulk_written);
}

au_http_result au_delete_samples(au_http_request *rq)
{
    return change_many(rq, false);
}

au_http_result au_restore_samples(au_http_request *rq)
{
    return change_many(rq, true);
}
