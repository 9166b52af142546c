/* SPDX-License-Identifier: MIT */
/* A clip's tags: the recipe, from which the same bytes can be made again, and the mark that the
 * sound is synthetic (IPTC's digital source type). Nothing in them depends on the job, the time,
 * the host or a folder. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "audio/audio_priv.h"
#include "base/json.h"
#include "base/str.h"

#define SEED_LIMIT ((uint64_t)1 << 53) /* seeds survive JSON readers that have doubles alone */

/* text, or null where there is none. */
static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static au_status make_comment(json_t **out, const au_recipe *r, au_err *err)
{
    json_t *params = NULL, *comment = NULL;
    const struct {
        const char *what, *text;
    } texts[] = {{"prompt", r->prompt},
                 {"negative prompt", r->negative},
                 {"model fingerprint", r->model_fingerprint},
                 {"adapter hash", r->adapter_sha256},
                 {"numerics class", r->numerics}};
    au_status st = AU_OK;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        AU_FAIL_IF(texts[i].text && !au_utf8_valid(texts[i].text, strlen(texts[i].text)),
                   AU_INVALID, "the %s is not valid UTF-8", texts[i].what);
    AU_FAIL_IF(r->seed >= SEED_LIMIT, AU_INVALID, "seed %" PRIu64 " is not below 2^53", r->seed);
    AU_FAIL_IF(!isfinite(r->strength), AU_INVALID, "adapter strength %g is not finite",
               r->strength);
    AU_TRY(
        au_json_parse(&params, r->params_json, strlen(r->params_json), "params of a recipe", err));
    comment = json_object();
    bool ok = comment && !json_object_set_new(comment, "aulos", json_integer(1)) &&
              !json_object_set_new(comment, "prompt", json_string(r->prompt)) &&
              !json_object_set_new(comment, "negative", text_or_null(r->negative)) &&
              !json_object_set_new(comment, "model", text_or_null(r->model_fingerprint)) &&
              !json_object_set_new(comment, "adapter", text_or_null(r->adapter_sha256)) &&
              !json_object_set_new(comment, "strength", json_real(r->strength)) &&
              !json_object_set_new(comment, "seed", json_integer((json_int_t)r->seed)) &&
              !json_object_set(comment, "params", params) &&
              !json_object_set_new(comment, "numerics", text_or_null(r->numerics)) &&
              !json_object_set_new(comment, "digital_source_type",
                                   json_string("trainedAlgorithmicMedia"));
    AU_FAIL_IF(!ok, AU_NOMEM, "no memory for the tags");
    *out = comment;
    comment = NULL;
done:
    json_decref(params);
    json_decref(comment);
    return st;
}

au_status au_audio_tags(au_buf *title, au_buf *comment, const au_recipe *recipe, au_err *err)
{
    json_t *json = NULL;
    au_status st = AU_OK;
    AU_TRY(make_comment(&json, recipe, err));
    au_json_dump(comment, json);
    st = au_buf_check(comment, err);
    if (st != AU_OK) {
        st = au_err_prefix(err, st, "the recipe does not fit the tags");
        goto done;
    }
    au_buf_append(title, recipe->prompt, au_utf8_prefix(recipe->prompt, AU_TITLE_CHARS));
    AU_TRY(au_buf_check(title, err));
done:
    json_decref(json);
    return st;
}

static void put_u32(au_buf *b, uint32_t v)
{
    for (int shift = 0; shift < 32; shift += 8)
        au_buf_char(b, (char)(v >> shift));
}

/* One entry: the size counts the NUL, a pad byte makes it even. */
static void put_entry(au_buf *b, const char *id, const au_buf *text)
{
    au_buf_str(b, id);
    put_u32(b, (uint32_t)text->len + 1);
    au_buf_append(b, au_buf_cstr(text), text->len + 1);
    if (text->len % 2 == 0)
        au_buf_char(b, 0);
}

void au_audio_info_chunk(au_buf *chunk, const au_buf *title, const au_buf *comment)
{
    au_buf body;
    au_buf_init(&body, chunk->max);
    au_buf_str(&body, "INFO");
    if (title->len)
        put_entry(&body, "INAM", title);
    put_entry(&body, "ICMT", comment);
    if (body.status != AU_OK)
        chunk->status = body.status;
    au_buf_str(chunk, "LIST");
    put_u32(chunk, (uint32_t)body.len);
    au_buf_append(chunk, au_buf_cstr(&body), body.len);
    au_buf_deinit(&body);
}

/* ID3v2.4 sizes have 7 bits a byte. */
static void put_syncsafe(au_buf *b, size_t v)
{
    for (int shift = 21; shift >= 0; shift -= 7)
        au_buf_char(b, (char)(v >> shift & 0x7f));
}

/* Encoding 3 is UTF-8. `extra`: what stands between it and the text. */
static void put_frame(au_buf *b, const char *id, const char *extra, size_t extra_len,
                      const au_buf *text)
{
    au_buf_str(b, id);
    put_syncsafe(b, 1 + extra_len + text->len);
    au_buf_append(b, "\0\0\3", 3);
    au_buf_append(b, extra, extra_len);
    au_buf_append(b, au_buf_cstr(text), text->len);
}

void au_audio_id3_tag(au_buf *tag, const au_buf *title, const au_buf *comment)
{
    au_buf body;
    au_buf_init(&body, tag->max);
    if (title->len)
        put_frame(&body, "TIT2", "", 0, title);
    put_frame(&body, "COMM", "eng\0", 4, comment); /* a language and an empty description */
    if (body.status != AU_OK)
        tag->status = body.status;
    au_buf_append(tag, "ID3\4\0\0", 6);
    put_syncsafe(tag, body.len);
    au_buf_append(tag, au_buf_cstr(&body), body.len);
    au_buf_deinit(&body);
}
