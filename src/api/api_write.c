/* SPDX-License-Identifier: MIT */
/* Writing from handlers, and Idempotency-Key on what makes something.
 *
 * A key is looked up twice. Before the handler runs (au_api_before), with the loop thread's reading
 * connection: a repeated request is answered even where it would be refused today, because its
 * prompt was deleted or the queue is full. And in the transaction that makes the thing, where
 * parallel first uses come one after the other and all but the first find its row. */
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "api/idempotency_key.h"

/* What a key stands for in this request. */
typedef struct key_use {
    char key[AU_IDEMPOTENCY_KEY_MAX + 1];
    char request_hash[AU_SHA256_TEXT];
    const char *owner;
} key_use;

typedef struct write_op {
    au_api_outcome outcome; /* first: au_http_data points here */
    au_http_request *rq;
    au_write_fn fn;
    au_http_handler then;
    /* Of a creation. */
    const key_use *use; /* NULL: no key was sent */
    int status;
    const char *prefix, *id; /* of the Location */
    au_http_handler cleanup;
    bool repeated;       /* the key was used: fn was not called */
    au_idempotency made; /* then: by whom */
} write_op;

/* ---- Keys ---- */

/* The key of the request, without its hash. False: a 400 has been set. *use NULL: none was sent. */
static bool read_key(au_http_request *rq, key_use **use)
{
    const char *value = au_http_header(rq, "idempotency-key");
    *use = NULL;
    if (!value)
        return true;
    key_use *u = au_arena_alloc(au_http_arena(rq), sizeof *u);
    if (!u) {
        au_api_busy(rq, 1, "out of memory");
        return false;
    }
    if (au_http_header_count(rq, "idempotency-key") > 1 ||
        !au_idempotency_key_parse(u->key, value)) {
        au_http_problem(rq, AU_PROBLEM_BAD_REQUEST,
                        "Idempotency-Key is not one key of 1 to %d visible characters",
                        AU_IDEMPOTENCY_KEY_MAX);
        return false;
    }
    u->owner = au_api_principal(rq)
                   ->key_id; /* those of different API keys have nothing to do with each other */
    *use = u;
    return true;
}

/* content: what stands for a body that is not JSON; NULL: the body is. No body at all is {}. False:
 * a problem has been set. */
static bool hash_request(au_http_request *rq, const char *content, key_use *use)
{
    json_t *body = NULL;
    au_sha256 h;
    bool ok = true;
    const char *query = au_http_query_text(rq);
    if (!content && au_http_body_len(rq) > 0 && !au_http_body_json(rq, &body))
        return false;
    au_sha256_init(&h);
    au_sha256_update(&h, au_http_method(rq), strlen(au_http_method(rq)) + 1);
    au_sha256_update(&h, au_http_path(rq), strlen(au_http_path(rq)) + 1);
    if (query)
        au_sha256_update(&h, query, strlen(query));
    au_sha256_update(&h, "", 1);
    if (content) {
        au_sha256_update(&h, content, strlen(content));
    } else if (body) {
        ok = au_json_hash(&h, body);
    } else {
        json_t *empty = json_object();
        ok = empty && au_json_hash(&h, empty);
        json_decref(empty);
    }
    au_sha256_final_hex(&h, use->request_hash);
    if (!ok)
        au_api_busy(rq, 1, "out of memory");
    return ok;
}

/* The reply to a request whose key has been used. */
static au_http_result reply_used(au_http_request *rq, const key_use *use,
                                 const au_idempotency *made)
{
    if (strcmp(made->request_hash, use->request_hash) != 0)
        return au_http_problem(rq, AU_PROBLEM_KEY_REUSED,
                               "Idempotency-Key \"%s\" was used for another request; a new request "
                               "needs a new key",
                               use->key);
    const char *location = au_arena_strdup(au_http_arena(rq), made->location);
    if (!location)
        return au_api_busy(rq, 1, "out of memory");
    au_http_set_header(rq, "Idempotency-Replayed", "true");
    au_http_set_header(rq, "Location", "%s", location);
    return au_http_serve_get(rq, location, made->status);
}

/* Whether the request was answered, by a problem or as a repeated one. */
static bool look_up(au_http_request *rq, const char *content, au_http_result *result)
{
    key_use *use;
    au_idempotency made;
    bool found;
    au_err err;
    *result = AU_HTTP_DONE;
    if (!read_key(rq, &use) || (use && !hash_request(rq, content, use)))
        return true;
    if (!use)
        return false;
    au_status st = au_idempotency_find(au_api_db(rq), use->owner, use->key, &made, &found, &err);
    if (st != AU_OK)
        *result = au_api_failed(rq, st, &err);
    else if (found)
        *result = reply_used(rq, use, &made);
    return st != AU_OK || found;
}

bool au_api_before(au_http_request *rq, au_http_result *result)
{
    unsigned flags = au_http_route_flags(rq);
    /* Of other bodies the handler knows what counts. */
    if (!(flags & AU_ROUTE_CREATES) || !(flags & AU_ROUTE_JSON))
        return false;
    return look_up(rq, NULL, result);
}

bool au_api_repeated(au_http_request *rq, const char *content, au_http_result *result)
{
    return look_up(rq, content, result);
}

/* ---- Writing ---- */

/* On the writer thread. */
static au_status run_write(au_db *db, void *arg, au_err *err)
{
    write_op *op = arg;
    const key_use *use = op->use;
    au_status st = AU_OK;
    op->repeated = false; /* this may be called again after the group was rolled back */
    if (use)
        AU_TRY(au_idempotency_find(db, use->owner, use->key, &op->made, &op->repeated, err));
    if (op->repeated)
        goto done;
    AU_TRY(op->fn(db, op->outcome.arg, err));
    if (!use || !op->id[0])
        goto done;
    op->made.status = op->status;
    snprintf(op->made.request_hash, sizeof op->made.request_hash, "%s", use->request_hash);
    int n = snprintf(op->made.location, sizeof op->made.location, "%s%s", op->prefix, op->id);
    AU_FAIL_IF(n < 0 || (size_t)n >= sizeof op->made.location, AU_INTERNAL,
               "the location of what was made has %d characters, at most %zu fit", n,
               sizeof op->made.location - 1);
    AU_TRY(au_idempotency_put(db, use->owner, use->key, &op->made, err));
done:
    return st;
}

static au_http_result write_ended(au_http_request *rq)
{
    write_op *op = au_http_data(rq);
    if (op->outcome.status != AU_OK || !op->repeated)
        return op->then(rq);
    if (op->cleanup)
        op->cleanup(rq);
    return reply_used(rq, op->use, &op->made);
}

static void write_done(void *arg, au_status status, const au_err *err)
{
    write_op *op = arg;
    op->outcome.status = status;
    if (status != AU_OK)
        op->outcome.err = *err;
    au_http_resume(op->rq, write_ended);
}

static au_http_result submit(au_http_request *rq, const write_op *values)
{
    au_err err;
    write_op *op = au_arena_alloc(au_http_arena(rq), sizeof *op);
    if (!op)
        return au_api_busy(rq, 1, "out of memory");
    *op = *values;
    op->rq = rq;
    au_http_set_data(rq, op);
    if (au_writer_submit(au_api_of(rq)->writer, run_write, op, write_done, &err) != AU_OK)
        return au_api_busy(rq, 1, "too many changes wait to be written");
    return AU_HTTP_PENDING;
}

au_http_result au_api_write(au_http_request *rq, au_write_fn fn, void *arg, au_http_handler then)
{
    return submit(rq, &(write_op){.outcome.arg = arg, .fn = fn, .then = then});
}

au_http_result au_api_create(au_http_request *rq, au_write_fn fn, void *arg, au_http_handler then,
                             const au_api_creation *made)
{
    key_use *use;
    AU_ASSERT(au_http_route_flags(rq) & AU_ROUTE_CREATES);
    if (!read_key(rq, &use) || (use && !hash_request(rq, made->content, use)))
        return AU_HTTP_DONE;
    return submit(rq, &(write_op){.outcome.arg = arg,
                                  .fn = fn,
                                  .then = then,
                                  .use = use,
                                  .status = made->status,
                                  .prefix = made->prefix,
                                  .id = made->id,
                                  .cleanup = made->cleanup});
}

const au_api_outcome *au_api_outcome_of(const au_http_request *rq)
{
    return au_http_data(rq);
}

bool au_api_write_failed(au_http_request *rq, const char *what, const char *id)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    if (o->status == AU_NOT_FOUND)
        au_api_not_found(rq, what, id);
    else if (o->status != AU_OK)
        au_api_failed(rq, o->status, &o->err);
    return o->status != AU_OK;
}
