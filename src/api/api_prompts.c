/* SPDX-License-Identifier: MIT */
/* /v1/prompts: make, list, read, change, delete, restore. The text of a prompt never changes, for
 * samples were made of it; its title and attributes may. A deleted one answers 410 until its record
 * is purged. */
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/buf.h"
#include "base/json.h"

enum { ATTRIBUTES_MAX_BYTES = 4096, ATTRIBUTES_ASKED_MAX = 8, LIST_MAX = 100 };

static const char *const no_query[] = {NULL};

typedef struct new_prompt {
    const char *text, *negative, *title, *attributes;
    char id[AU_UUID_TEXT];
} new_prompt;

/* Attributes are for people and searching: any object, within a size. */
static void check_attributes(au_check *c, const json_t *body, new_prompt *p)
{
    const json_t *j = json_object_get(body, "attributes");
    if (!j)
        return;
    au_buf text;
    au_buf_init(&text, ATTRIBUTES_MAX_BYTES);
    au_json_dump(&text, j);
    if (!json_is_object(j))
        au_check_add(c, "/attributes", "wrong_type", json_pack("{s:s}", "expected", "object"));
    else if (text.status != AU_OK)
        au_check_add(c, "/attributes", "too_long",
                     json_pack("{s:i}", "max_bytes", ATTRIBUTES_MAX_BYTES));
    else
        p->attributes = au_arena_strdup(c->arena, au_buf_cstr(&text));
    au_buf_deinit(&text);
}

static au_status write_prompt(au_db *db, void *arg, au_err *err)
{
    new_prompt *p = arg;
    au_status st = au_prompt_create(db, p->text, p->negative, p->attributes, p->title, p->id, err);
    return st == AU_OK ? au_event_add(db, "prompt", p->id, "created", "{}", err) : st;
}

/* The prompt, not deleted; NULL when a problem has been set. */
static const au_prompt *find_prompt(au_http_request *rq, const char *id)
{
    au_err err;
    au_prompt *prompt = NULL;
    au_status st = au_prompt_get(au_api_db(rq), au_http_arena(rq), id, &prompt, &err);
    if (st == AU_OK && !prompt->deleted_at)
        return prompt;
    if (st == AU_OK)
        au_api_gone(rq, "prompt", id);
    else if (st == AU_NOT_FOUND)
        au_api_not_found(rq, "prompt", id);
    else
        au_api_failed(rq, st, &err);
    return NULL;
}

static au_http_result reply_prompt(au_http_request *rq, int status, const char *id)
{
    const au_prompt *prompt = find_prompt(rq, id);
    return prompt ? au_http_reply_json(rq, status, au_prompt_json(prompt)) : AU_HTTP_DONE;
}

static au_http_result prompt_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const new_prompt *p = o->arg;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    au_http_set_header(rq, "Location", "/v1/prompts/%s", p->id);
    return reply_prompt(rq, 201, p->id);
}

au_http_result au_post_prompt(au_http_request *rq)
{
    static const char *const fields[] = {"text", "negative_text", "attributes", "title", NULL};
    json_t *body;
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    new_prompt *p = au_arena_alloc(au_http_arena(rq), sizeof *p);
    if (!p)
        return au_api_busy(rq, 1, "out of memory");
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    if (au_check_object(&c, body, "", fields)) {
        if (!json_object_get(body, "text"))
            au_check_add(&c, "/text", "missing", NULL);
        au_check_text(&c, body, "", "text", AU_TEXT_MAX_CHARS, &p->text);
        au_check_text(&c, body, "", "negative_text", AU_TEXT_MAX_CHARS, &p->negative);
        au_check_text(&c, body, "", "title", AU_LABEL_MAX_CHARS, &p->title);
        check_attributes(&c, body, p);
    }
    if (!au_check_ok(&c))
        return au_check_reply(&c, rq);
    au_check_deinit(&c);
    return au_api_create(rq, write_prompt, p, prompt_written,
                         &(au_api_creation){.status = 201, .prefix = "/v1/prompts/", .id = p->id});
}

/* ---- Lists ---- */

static char order_letter(const au_prompt_filter *f)
{
    return f->words ? (f->oldest_first ? 'O' : 'N') : f->oldest_first ? 'o' : 'n';
}

/* A JSON object of the values wanted, each a text, a number or a boolean. */
static bool query_attributes(au_http_request *rq, const char **out)
{
    static const char expected[] =
        "a JSON object of 1 to 8 texts, numbers or booleans, like {\"mood\":\"calm\"}";
    const char *text = au_http_query(rq, "attributes"), *key;
    json_t *j = NULL, *value;
    if (!text)
        return true;
    bool right = au_json_parse(&j, text, strlen(text), "attributes", NULL) == AU_OK &&
                 json_is_object(j) && json_object_size(j) >= 1 &&
                 json_object_size(j) <= ATTRIBUTES_ASKED_MAX;
    json_object_foreach(j, key, value)
    {
        (void)key;
        right &= json_is_string(value) || json_is_number(value) || json_is_boolean(value);
    }
    json_decref(j);
    *out = text;
    return right || au_query_refuse(rq, "attributes", expected);
}

static bool parse_filter(au_http_request *rq, au_prompt_filter *f, bool *total)
{
    static const char *const sorts[] = {"newest", "oldest", NULL};
    int sort = 0;
    if (!au_query_words(rq, &f->words) || !query_attributes(rq, &f->attributes) ||
        !au_query_times(rq, &f->created_after, &f->created_before) ||
        !au_query_choice(rq, "sort", sorts, "newest or oldest", &sort) ||
        !au_query_bool(rq, "total", total) || !au_query_limit(rq, LIST_MAX, &f->limit))
        return false;
    f->oldest_first = sort == 1;
    return au_query_place(rq, order_letter(f), false, &f->after);
}

au_http_result au_list_prompts(au_http_request *rq)
{
    static const char *const query[] = {"q",    "attributes", "created_after", "created_before",
                                        "sort", "total",      "limit",         "cursor",
                                        NULL};
    au_prompt_filter filter = {0};
    au_err err;
    bool want_total = false, more;
    int64_t total = -1;
    au_prompt **prompts;
    size_t n;
    if (!au_http_query_parse(rq, query) || !parse_filter(rq, &filter, &want_total))
        return AU_HTTP_DONE;
    au_db *db = au_api_db(rq);
    au_status st = au_prompt_list(db, au_http_arena(rq), &filter, &prompts, &n, &more, &err);
    if (st == AU_OK && want_total)
        st = au_prompt_count(db, &filter, &total, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, au_prompt_json(prompts[i]));
    char cursor[AU_CURSOR_TEXT];
    if (more) {
        au_place place = au_prompt_place(&filter, prompts[n - 1]);
        au_place_cursor(cursor, order_letter(&filter), false, &place);
    }
    return au_page_reply_at(rq, data, more ? cursor : NULL, total);
}

/* ---- One ---- */

au_http_result au_get_prompt(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const char *id = au_api_id(rq);
    return id ? reply_prompt(rq, 200, id) : au_api_not_found(rq, "prompt", au_http_param(rq, "id"));
}

/* ---- Changes ---- */

typedef struct change {
    const char *id, *title, *attributes;
    const au_prompt *was; /* NULL: whatever it is */
    au_change result;
} change;

/* Of a change, a deletion or a restoration that was not done. */
static au_http_result reply_unchanged(au_http_request *rq, const au_api_outcome *o)
{
    const change *c = o->arg;
    if (au_api_write_failed(rq, "prompt", c->id))
        return AU_HTTP_DONE;
    if (c->result == AU_CHANGE_GONE)
        return au_api_gone(rq, "prompt", c->id);
    return au_http_problem(rq, AU_PROBLEM_PRECONDITION,
                           "prompt %s was changed by somebody else meanwhile", c->id);
}

static bool is_done(const au_api_outcome *o)
{
    const change *c = o->arg;
    return o->status == AU_OK && (c->result == AU_CHANGE_DONE || c->result == AU_CHANGE_NOTHING);
}

/* The change of a prompt that is there and is what If-Match says; NULL: a problem has been set. */
static change *begin_change(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    if (!id) {
        au_api_not_found(rq, "prompt", au_http_param(rq, "id"));
        return NULL;
    }
    const au_prompt *prompt = find_prompt(rq, id);
    if (!prompt || !au_http_if_match(rq, au_prompt_json(prompt)))
        return NULL;
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c) {
        au_api_busy(rq, 1, "out of memory");
        return NULL;
    }
    c->id = id;
    c->was = au_http_header(rq, "if-match") ? prompt : NULL;
    return c;
}

static au_status write_change(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    return au_prompt_change(db, c->id, c->title, c->attributes, c->was, &c->result, err);
}

static au_http_result change_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const change *c = o->arg;
    return is_done(o) ? reply_prompt(rq, 200, c->id) : reply_unchanged(rq, o);
}

au_http_result au_patch_prompt(au_http_request *rq)
{
    static const char *const fields[] = {"title", "attributes", NULL};
    json_t *body;
    new_prompt p = {0};
    if (!au_http_query_parse(rq, no_query) || !au_http_body_json(rq, &body))
        return AU_HTTP_DONE;
    au_check check;
    au_check_init(&check, au_http_arena(rq));
    if (au_check_object(&check, body, "", fields)) {
        au_check_text(&check, body, "", "title", AU_LABEL_MAX_CHARS, &p.title);
        check_attributes(&check, body, &p);
    }
    if (!au_check_ok(&check))
        return au_check_reply(&check, rq);
    au_check_deinit(&check);
    change *c = begin_change(rq);
    if (!c)
        return AU_HTTP_DONE;
    if (json_object_size(body) == 0)
        return reply_prompt(rq, 200, c->id);
    c->title = p.title;
    c->attributes = p.attributes;
    return au_api_write(rq, write_change, c, change_written);
}

static au_status write_deletion(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    return au_prompt_delete(db, c->id, c->was, &c->result, err);
}

static au_http_result deletion_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    return is_done(o) ? au_http_reply_empty(rq, 204) : reply_unchanged(rq, o);
}

au_http_result au_delete_prompt(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    change *c = begin_change(rq);
    return c ? au_api_write(rq, write_deletion, c, deletion_written) : AU_HTTP_DONE;
}

static au_status write_restoration(au_db *db, void *arg, au_err *err)
{
    change *c = arg;
    return au_prompt_restore(db, c->id, &c->result, err);
}

au_http_result au_restore_prompt(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    if (!au_http_query_parse(rq, no_query) || !au_api_empty_body(rq))
        return AU_HTTP_DONE;
    if (!id)
        return au_api_not_found(rq, "prompt", au_http_param(rq, "id"));
    change *c = au_arena_alloc(au_http_arena(rq), sizeof *c);
    if (!c)
        return au_api_busy(rq, 1, "out of memory");
    c->id = id;
    return au_api_write(rq, write_restoration, c, change_written);
}
