/* SPDX-License-Identifier: MIT */
/* /v1/prompts: make, list, read, delete. Prompts never change; a deleted one answers 410 until its
 * record is purged. */
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/buf.h"
#include "base/json.h"

enum { ATTRIBUTES_MAX_BYTES = 4096 };

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
    return au_prompt_create(db, p->text, p->negative, p->attributes, p->title, p->id, err);
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
    static const char *const no_query[] = {NULL};
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

au_http_result au_list_prompts(au_http_request *rq)
{
    static const char *const query[] = {"limit", "cursor", NULL};
    au_page page;
    au_err err;
    if (!au_http_query_parse(rq, query) || !au_page_parse(rq, &page))
        return AU_HTTP_DONE;
    const au_prompt_filter filter = {page.before_id, page.limit};
    au_prompt **prompts;
    size_t n;
    bool more;
    au_status st =
        au_prompt_list(au_api_db(rq), au_http_arena(rq), &filter, &prompts, &n, &more, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&data, au_prompt_json(prompts[i]));
    return au_page_reply(rq, data, more, n ? prompts[n - 1]->id : NULL);
}

au_http_result au_get_prompt(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    const char *id = au_api_id(rq);
    return id ? reply_prompt(rq, 200, id) : au_api_not_found(rq, "prompt", au_http_param(rq, "id"));
}

typedef struct deletion {
    const char *id;
    bool deleted;
} deletion;

static au_status write_deletion(au_db *db, void *arg, au_err *err)
{
    deletion *d = arg;
    return au_prompt_delete(db, d->id, &d->deleted, err);
}

static au_http_result deletion_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    const deletion *d = o->arg;
    if (o->status != AU_OK && o->status != AU_NOT_FOUND)
        return au_api_failed(rq, o->status, &o->err);
    /* Somebody else may have been first. */
    return d->deleted ? au_http_reply_empty(rq, 204) : au_api_gone(rq, "prompt", d->id);
}

au_http_result au_delete_prompt(au_http_request *rq)
{
    const char *id = au_api_id(rq);
    if (!id)
        return au_api_not_found(rq, "prompt", au_http_param(rq, "id"));
    const au_prompt *prompt = find_prompt(rq, id);
    if (!prompt || !au_http_if_match(rq, au_prompt_json(prompt)))
        return AU_HTTP_DONE;
    deletion *d = au_arena_alloc(au_http_arena(rq), sizeof *d);
    if (!d)
        return au_api_busy(rq, 1, "out of memory");
    d->id = id;
    return au_api_write(rq, write_deletion, d, deletion_written);
}
