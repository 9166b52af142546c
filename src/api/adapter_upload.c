/* SPDX-License-Identifier: MIT */
/* POST /v1/adapters. The body is parsed as it arrives, on the loop thread; its files go into a
 * staging folder. Then the request waits while the intake thread unpacks and hashes, and again
 * while it copies into the store; in between the loop thread looks whether the key was used, the
 * content is known, or the name taken. Last the writer makes the row, the reply leaves, and the
 * intake checks.
 *
 * An upload has one owner at a time: loop, intake, writer, loop. When its request ends, in whatever
 * way, it goes to the intake once more, which removes what is left of it. */
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "http/multipart.h"
#include "jobs/adapter_check.h"
#include "jobs/adapter_staging.h"
#include "jobs/adapter_write.h"
#include "jobs/intake.h"

enum {
    UPLOADS_MAX = 8,                                /* at a time */
    FIELD_BYTES = 4 * AU_DESCRIPTION_MAX_CHARS + 1, /* the longest field in UTF-8, and one more */
};

typedef enum part {
    PART_NAME,
    PART_BASE_MODEL,
    PART_DESCRIPTION,
    PART_FILES,
    PART_ARCHIVE,
    PARTS
} part;
static const char *const part_names[PARTS + 1] = {"name",  "base_model", "description",
                                                  "files", "archive",    NULL};
enum { FIELDS = PART_FILES };

typedef struct upload {
    au_api *api;
    au_http_request *rq; /* not after its end */
    au_multipart form;
    au_staging stage;
    au_check check;
    part part;       /* being read; PARTS: one that is not known */
    int seen[PARTS]; /* how often each came */
    char *fields[FIELDS];
    size_t lens[FIELDS];
    au_upload row;
    char made_id[AU_UUID_TEXT]; /* "": nothing was made */
    const char *content;        /* see au_api_creation */
    au_status status;           /* of what the intake did */
    au_err err;
    bool stored; /* the copy was begun, and no row has it yet */
} upload;

/* ---- The end ---- */

static void free_upload(void *arg)
{
    upload *u = arg;
    au_staging_close(&u->stage);
    if (u->stored)
        au_intake_discard(u->api->intake, u->row.sha256);
    for (int i = 0; i < FIELDS; i++)
        free(u->fields[i]);
    free(u);
}

static void end_upload(void *arg)
{
    upload *u = arg;
    atomic_fetch_sub(&u->api->uploads, 1);
    au_check_deinit(&u->check);
    /* Removing large files takes a while, and the copy is for the intake to judge. Without memory
     * to ask it, the next start removes the copy. */
    if (au_intake_run(u->api->intake, free_upload, u, NULL) != AU_OK) {
        u->stored = false;
        free_upload(u);
    }
}

/* ---- Problems ---- */

static au_http_result refuse_files(upload *u, const char *detail)
{
    const char *pointer = u->seen[PART_ARCHIVE] ? "/archive" : "/files";
    json_t *more = json_pack("{s:[{s:s, s:s}]}", "errors", "pointer", pointer, "code", "invalid");
    return au_http_problem_more(u->rq, AU_PROBLEM_VALIDATION, more, "%s", detail);
}

static au_http_result failed(upload *u, au_status status, const au_err *err)
{
    switch (status) {
    case AU_CORRUPT:
        return au_http_problem(u->rq, AU_PROBLEM_BAD_REQUEST, "%s", err->message);
    case AU_INVALID:
        return refuse_files(u, err->message);
    case AU_NOSPACE:
        return au_http_problem(u->rq, AU_PROBLEM_NO_SPACE, "no space is left for the adapter");
    default:
        return au_api_failed(u->rq, status, err);
    }
}

/* ---- The parts of the form ---- */

static au_status begin_field(upload *u, const char *file_name, au_err *err)
{
    (void)file_name; /* a field may come from a file */
    if (u->fields[u->part])
        return AU_OK; /* a repeated one is noted at the end */
    return au_calloc(&u->fields[u->part], FIELD_BYTES, 1, err);
}

static au_status begin_part(void *user, const char *name, const char *file_name, au_err *err)
{
    upload *u = user;
    au_status st = AU_OK;
    for (u->part = 0; u->part < PARTS && strcmp(name, part_names[u->part]) != 0;)
        u->part++;
    if (u->part == PARTS) {
        au_check_add(&u->check, au_check_at(&u->check, "", name), "unknown_field",
                     json_pack("{s:s*}", "did_you_mean", au_str_nearest(name, part_names)));
        return AU_OK;
    }
    bool again = u->seen[u->part]++ > 0;
    if (u->part < PART_FILES)
        return begin_field(u, file_name, err);
    AU_FAIL_IF(u->seen[PART_FILES] && u->seen[PART_ARCHIVE], AU_INVALID,
               "there are both files and an archive, expected one of them");
    AU_FAIL_IF(u->part == PART_ARCHIVE && again, AU_INVALID, "there are two archives");
    AU_FAIL_IF(u->part == PART_FILES && !file_name, AU_INVALID,
               "a part \"files\" has no file name");
    if (u->part == PART_ARCHIVE)
        AU_TRY(au_staging_begin_archive(&u->stage, err));
    else
        AU_TRY(au_staging_begin(&u->stage, file_name, err));
done:
    return st;
}

static au_status part_data(void *user, const char *data, size_t len, au_err *err)
{
    upload *u = user;
    if (u->part == PARTS || (u->part < PART_FILES && u->seen[u->part] > 1))
        return AU_OK;
    if (u->part >= PART_FILES)
        return au_staging_write(&u->stage, data, len, err);
    size_t *have = &u->lens[u->part];
    /* One byte too many is kept, which tells that it is too long. */
    size_t room = FIELD_BYTES - *have, take = len < room ? len : room;
    memcpy(u->fields[u->part] + *have, data, take);
    *have += take;
    return AU_OK;
}

static au_status end_part(void *user, au_err *err)
{
    upload *u = user;
    return u->part == PART_FILES || u->part == PART_ARCHIVE ? au_staging_end(&u->stage, err)
                                                            : AU_OK;
}

static bool take_piece(au_http_request *rq, const char *data, size_t len)
{
    upload *u = au_http_data(rq);
    au_err err;
    au_status st = au_multipart_feed(&u->form, data, len, &err);
    if (st == AU_OK)
        return true;
    failed(u, st, &err);
    return false;
}

/* ---- Fields, once all of it is there ---- */

static const char *check_field(upload *u, part p, size_t max_chars)
{
    const char *pointer = au_check_at(&u->check, "", part_names[p]);
    const char *text = u->fields[p];
    size_t len = u->lens[p];
    if (!text)
        return NULL;
    const char *code = NULL;
    if (u->seen[p] > 1)
        code = "repeated";
    else if (len == FIELD_BYTES)
        code = "too_long";
    else if (memchr(text, '\0', len) || !au_utf8_valid(text, len))
        code = "invalid";
    else if (text[au_utf8_prefix(text, max_chars)] != '\0')
        code = "too_long";
    if (!code)
        return text;
    au_check_add(&u->check, pointer, code,
                 strcmp(code, "too_long") == 0
                     ? json_pack("{s:I}", "max_chars", (json_int_t)max_chars)
                     : NULL);
    return NULL;
}

bool au_adapter_name_check(au_check *c, const char *name)
{
    bool right = name[0] != '\0';
    for (const char *p = name; *p; p++)
        right &= (unsigned char)*p >= 0x20 && *p != 0x7f;
    if (!right)
        au_check_add(c, "/name", "invalid",
                     json_pack("{s:s}", "expected", "text without control characters"));
    return right;
}

static void check_base_model(upload *u, const char *name)
{
    const au_registry *r = u->api->registry;
    if (!name || au_registry_find(r, name))
        return;
    json_t *known = json_array();
    for (size_t i = 0; i < au_registry_count(r); i++)
        au_list_add(&known, json_string(au_registry_name(r, i)));
    au_check_add(&u->check, "/base_model", "unknown_value", json_pack("{s:o}", "known", known));
}

static void check_fields(upload *u)
{
    u->row.name = check_field(u, PART_NAME, AU_LABEL_MAX_CHARS);
    u->row.base_model = check_field(u, PART_BASE_MODEL, AU_LABEL_MAX_CHARS);
    u->row.description = check_field(u, PART_DESCRIPTION, AU_DESCRIPTION_MAX_CHARS);
    if (!u->seen[PART_NAME])
        au_check_add(&u->check, "/name", "missing", NULL);
    if (u->row.name)
        au_adapter_name_check(&u->check, u->row.name);
    check_base_model(u, u->row.base_model);
    if (!u->seen[PART_FILES] && !u->seen[PART_ARCHIVE])
        au_check_add(&u->check, "/files", "missing", json_pack("{s:s}", "or", "/archive"));
}

/* ---- On the intake thread ---- */

static au_status stage_files(upload *u, au_err *err)
{
    au_status st = AU_OK;
    if (u->seen[PART_ARCHIVE])
        AU_TRY(au_staging_unpack(&u->stage, err));
    AU_TRY(au_staging_finish(&u->stage, err));
    AU_TRY(au_adapter_hash(u->stage.dir, u->row.sha256, err));
    u->row.bytes =
        (int64_t)u->stage
            .size[u->stage.has[AU_ADAPTER_SAFETENSORS] ? AU_ADAPTER_SAFETENSORS : AU_ADAPTER_BIN];
done:
    return st;
}

static au_http_result staged(au_http_request *rq);
static au_http_result stored(au_http_request *rq);

static void stage_work(void *arg)
{
    upload *u = arg;
    u->status = stage_files(u, &u->err);
    au_http_resume(u->rq, staged);
}

static void store_work(void *arg)
{
    upload *u = arg;
    au_registry_lock(u->api->registry);
    u->stored = true;
    u->status =
        au_adapter_store(u->api->store, u->api->writer, u->row.sha256, u->stage.dir, &u->err);
    au_registry_unlock(u->api->registry);
    au_http_resume(u->rq, stored);
}

static au_http_result hand_over(upload *u, void (*work)(void *))
{
    if (au_intake_run(u->api->intake, work, u, NULL) != AU_OK)
        return au_api_busy(u->rq, 1, "out of memory");
    return AU_HTTP_PENDING;
}

/* ---- The loop thread again ---- */

static au_http_result name_taken(upload *u)
{
    json_t *more = json_pack("{s:[{s:s, s:s, s:s}]}", "errors", "pointer", "/name", "code",
                             "conflict", "id", u->row.id);
    return au_http_problem_more(u->rq, AU_PROBLEM_CONFLICT, more,
                                "adapter %s has the name \"%s\"; ?replace=1 makes this its next "
                                "version",
                                u->row.id, u->row.name);
}

static au_http_result reply_row(upload *u, int status)
{
    au_http_set_header(u->rq, "Location", "/v1/adapters/%s", u->row.id);
    return au_adapter_reply(u->rq, status, u->row.id);
}

static au_http_result body_complete(au_http_request *rq)
{
    upload *u = au_http_data(rq);
    au_err err;
    au_status st = au_multipart_finish(&u->form, &err);
    if (st != AU_OK)
        return failed(u, st, &err);
    check_fields(u);
    if (!au_check_ok(&u->check))
        return au_check_reply(&u->check, rq);
    return hand_over(u, stage_work);
}

/* What makes two uploads the same: what was meant, not how it was packed. */
static const char *content_of(upload *u)
{
    const char *content = NULL;
    au_buf text;
    au_buf_init(&text, 1 << 16);
    json_t *j =
        json_pack("{s:s, s:s?, s:s?, s:s}", "name", u->row.name, "base_model", u->row.base_model,
                  "description", u->row.description, "sha256", u->row.sha256);
    if (j)
        au_json_dump(&text, j);
    if (j && text.status == AU_OK)
        content = au_arena_strdup(au_http_arena(u->rq), au_buf_cstr(&text));
    json_decref(j);
    au_buf_deinit(&text);
    return content;
}

static au_http_result staged(au_http_request *rq)
{
    upload *u = au_http_data(rq);
    au_http_result result;
    au_err err;
    if (u->status != AU_OK)
        return failed(u, u->status, &u->err);
    u->content = content_of(u);
    if (!u->content)
        return au_api_busy(rq, 1, "out of memory");
    if (au_api_repeated(rq, u->content, &result))
        return result;
    au_status st = au_upload_look(au_api_db(rq), &u->row, &err);
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    if (u->row.outcome == AU_UPLOAD_NAME_TAKEN)
        return name_taken(u);
    if (u->row.outcome == AU_UPLOAD_KNOWN)
        return reply_row(u, 200);
    return hand_over(u, store_work);
}

/* On the writer thread. */
static au_status put_row(au_db *db, void *arg, au_err *err)
{
    upload *u = arg;
    au_status st = au_upload_put(db, &u->row, err);
    bool made = st == AU_OK && u->row.outcome == AU_UPLOAD_NEW;
    memcpy(u->made_id, made ? u->row.id : "", made ? sizeof u->made_id : 1);
    return st;
}

static au_http_result row_written(au_http_request *rq)
{
    const au_api_outcome *o = au_api_outcome_of(rq);
    upload *u = o->arg;
    if (o->status != AU_OK)
        return au_api_failed(rq, o->status, &o->err);
    if (u->row.outcome == AU_UPLOAD_NAME_TAKEN)
        return name_taken(u);
    u->stored = false;
    if (u->row.outcome == AU_UPLOAD_KNOWN)
        return reply_row(u, 200);
    au_http_result result = reply_row(u, 202);
    au_intake_kick(u->api->intake);
    return result;
}

static au_http_result stored(au_http_request *rq)
{
    upload *u = au_http_data(rq);
    if (u->status != AU_OK)
        return failed(u, u->status, &u->err);
    return au_api_create(
        rq, put_row, u, row_written,
        &(au_api_creation){
            .status = 202, .prefix = "/v1/adapters/", .id = u->made_id, .content = u->content});
}

/* ---- The beginning: the head alone is here ---- */

/* Room for what was announced, beside what must stay free. */
static bool has_room(const au_api *api, const au_http_request *rq)
{
    uint64_t announced, left;
    if (!au_http_body_announced(rq, &announced))
        announced = 0;
    if (au_fs_free_bytes(&left, api->config->data_dir, NULL) != AU_OK)
        return true; /* writing will tell */
    return left >= announced && left - announced >= api->limits.min_free_disk;
}

static au_http_result begin_upload(au_http_request *rq, upload *u, bool replace)
{
    static const au_multipart_events events = {begin_part, part_data, end_part};
    au_api *api = u->api;
    au_err err;
    au_status st =
        au_multipart_init(&u->form, au_http_header(rq, "content-type"), &events, u, &err);
    if (st == AU_UNSUPPORTED)
        return au_http_problem(rq, AU_PROBLEM_MEDIA_TYPE, "%s", err.message);
    if (st != AU_OK)
        return au_http_problem(rq, AU_PROBLEM_BAD_REQUEST, "%s", err.message);
    if (!has_room(api, rq))
        return au_http_problem(rq, AU_PROBLEM_NO_SPACE, "no space is left for the adapter");
    st = au_staging_open(&u->stage, api->config->data_dir, api->config->max_upload_bytes,
                         api->limits.min_free_disk, &err);
    if (st != AU_OK)
        return failed(u, st, &err);
    u->row.replace = replace;
    return au_http_receive(rq, take_piece, body_complete);
}

au_http_result au_post_adapter(au_http_request *rq)
{
    static const char *const query[] = {"replace", NULL};
    au_api *api = au_api_of(rq);
    upload *u = NULL;
    bool replace;
    if (!au_http_query_parse(rq, query) || !au_query_flag(rq, "replace", &replace))
        return AU_HTTP_DONE;
    if (au_calloc(&u, 1, sizeof *u, NULL) != AU_OK)
        return au_api_busy(rq, 1, "out of memory");
    u->api = api;
    u->rq = rq;
    u->stage.fd = -1;
    au_check_init(&u->check, au_http_arena(rq));
    au_http_set_data(rq, u);
    int before = atomic_fetch_add(&api->uploads, 1);
    au_http_on_end(rq, end_upload, u);
    if (before >= UPLOADS_MAX)
        return au_api_busy(rq, 1, "too many uploads at a time");
    return begin_upload(rq, u, replace);
}
