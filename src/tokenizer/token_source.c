/* SPDX-License-Identifier: MIT */
/* Collects the vocabulary of a tokenizer file within the limits, and reads tokenizer_config.json.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "tokenizer/tokenizer_source.h"

void au_token_source_init(au_token_source *s, const char *what)
{
    *s = (au_token_source){.what = what, .layout = {.split_white = true}};
    au_arena_init(&s->arena, AU_TOKENIZER_FILE_BYTES + (4u << 20));
}

void au_token_source_deinit(au_token_source *s)
{
    free(s->pieces);
    free(s->added);
    au_arena_deinit(&s->arena);
    json_decref(s->json);
    *s = (au_token_source){0};
}

/* Room for one more element of `size` bytes. */
static au_status grow(void *array, size_t n, size_t *cap, size_t size, au_err *err)
{
    if (n < *cap)
        return AU_OK;
    size_t want = *cap ? *cap * 2 : 256;
    void **p = array, *grown = realloc(*p, want * size);
    if (!grown)
        return au_fail(err, AU_NOMEM, "cannot allocate %zu tokens", want);
    *p = grown;
    *cap = want;
    return AU_OK;
}

au_status au_token_source_piece(au_token_source *s, const char *text, size_t len, double score,
                                au_err *err)
{
    if (s->n_pieces >= AU_TOKENIZER_PIECES)
        return au_fail(err, AU_LIMIT, "%s: more than %d pieces", s->what, AU_TOKENIZER_PIECES);
    if (len > AU_TOKENIZER_PIECE_BYTES)
        return au_fail(err, AU_LIMIT, "%s: piece %zu has %zu bytes, expected at most %d", s->what,
                       s->n_pieces, len, AU_TOKENIZER_PIECE_BYTES);
    if (s->piece_bytes + len > AU_TOKENIZER_VOCAB_BYTES)
        return au_fail(err, AU_LIMIT, "%s: the pieces have more than %d bytes", s->what,
                       AU_TOKENIZER_VOCAB_BYTES);
    if (!au_utf8_valid(text, len))
        return au_fail(err, AU_CORRUPT, "%s: piece %zu is not valid UTF-8", s->what, s->n_pieces);
    if (!isfinite(score))
        return au_fail(err, AU_CORRUPT, "%s: the score of piece %zu is not finite", s->what,
                       s->n_pieces);
    au_status st = grow(&s->pieces, s->n_pieces, &s->cap_pieces, sizeof *s->pieces, err);
    if (st != AU_OK)
        return st;
    s->pieces[s->n_pieces++] = (au_token_piece){text, (uint32_t)len, score};
    s->piece_bytes += len;
    return AU_OK;
}

au_status au_token_source_added(au_token_source *s, const au_added_token *token, au_err *err)
{
    if (!token->len)
        return AU_OK; /* as the reference does */
    if (token->len > AU_TOKENIZER_PIECE_BYTES)
        return au_fail(err, AU_LIMIT,
                       "%s: an added token has %" PRIu32 " bytes, expected at most %d", s->what,
                       token->len, AU_TOKENIZER_PIECE_BYTES);
    if (s->n_added >= AU_TOKENIZER_ADDED)
        return au_fail(err, AU_LIMIT, "%s: more than %d added tokens", s->what, AU_TOKENIZER_ADDED);
    au_status st = grow(&s->added, s->n_added, &s->cap_added, sizeof *s->added, err);
    if (st != AU_OK)
        return st;
    s->added[s->n_added] = *token;
    s->added[s->n_added].id = (int32_t)s->n_added;
    s->n_added++;
    return AU_OK;
}

au_status au_token_read_added(au_token_source *s, json_t *element, au_err *err)
{
    json_t *content = json_is_object(element) ? json_object_get(element, "content") : element;
    if (!json_is_string(content))
        return au_fail(err, AU_CORRUPT, "%s: an added token has no text", s->what);
    au_added_token token = {.text = json_string_value(content), .len = 0};
    size_t len = json_string_length(content);
    if (len > AU_TOKENIZER_PIECE_BYTES)
        len = AU_TOKENIZER_PIECE_BYTES + 1; /* refused below; keeps the length in its type */
    token.len = (uint32_t)len;
    token.lstrip = json_is_true(json_object_get(element, "lstrip"));
    token.rstrip = json_is_true(json_object_get(element, "rstrip"));
    token.single_word = json_is_true(json_object_get(element, "single_word"));
    token.normalized = json_is_true(json_object_get(element, "normalized"));
    return au_token_source_added(s, &token, err);
}

/* The list of special tokens, as version 5 chooses it: a list under the new name, else one under
 * the old name, else the empty list under the new name. */
static json_t *extra_tokens(json_t *root)
{
    json_t *new_name = json_object_get(root, "extra_special_tokens");
    if (json_array_size(new_name))
        return new_name;
    json_t *old_name = json_object_get(root, "additional_special_tokens");
    return json_is_array(old_name) ? old_name : json_is_array(new_name) ? new_name : NULL;
}

au_status au_token_config_read(au_token_config *c, const void *data, size_t len, au_err *err)
{
    static const char what[] = "tokenizer_config.json";
    static const char *const fixed[][2] = {
        {"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
    au_status st = AU_OK;
    *c = (au_token_config){.extra_ids = 100};
    if (!data)
        return AU_OK;
    AU_TRY(au_json_parse_reals(&c->json, data, len, what, err));
    AU_FAIL_IF(!json_is_object(c->json), AU_CORRUPT, "%s: not an object", what);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        json_t *token = json_object_get(c->json, fixed[i][0]);
        const char *text =
            json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
        AU_FAIL_IF(text && strcmp(text, fixed[i][1]) != 0, AU_UNSUPPORTED,
                   "%s: %s is %.40s, expected %s", what, fixed[i][0], text, fixed[i][1]);
    }
    json_t *extra_ids = json_object_get(c->json, "extra_ids");
    if (extra_ids && !json_is_null(extra_ids)) {
        double n = json_is_real(extra_ids) ? json_real_value(extra_ids) : -1.0;
        AU_FAIL_IF(n < 0.0 || n > 10000.0 || n != floor(n), AU_UNSUPPORTED,
                   "%s: extra_ids is %g, expected a number of 0 ... 10000", what, n);
        c->extra_ids = (int)n;
    }
    c->extra_tokens = extra_tokens(c->json);
    c->added_decoder = json_object_get(c->json, "added_tokens_decoder");
    AU_FAIL_IF(c->added_decoder && !json_is_object(c->added_decoder), AU_CORRUPT,
               "%s: added_tokens_decoder is not an object", what);
done:
    if (st != AU_OK)
        au_token_config_deinit(c);
    return st;
}

typedef struct decoder_row {
    int64_t id;
    json_t *token;
} decoder_row;

static int compare_rows(const void *pa, const void *pb)
{
    const decoder_row *a = pa, *b = pb;
    return (a->id > b->id) - (a->id < b->id);
}

au_status au_token_config_before(au_token_source *s, const au_token_config *c, au_err *err)
{
    au_status st = AU_OK;
    decoder_row *rows = NULL;
    size_t n = 0;
    const char *key;
    json_t *token;
    AU_TRY(au_calloc(&rows, json_object_size(c->added_decoder), sizeof *rows, err));
    json_object_foreach(c->added_decoder, key, token)
    {
        AU_FAIL_IF(
            !au_parse_i64(key, &rows[n].id), AU_CORRUPT,
            "tokenizer_config.json: added_tokens_decoder has the key %.40s, expected a number",
            key);
        rows[n++].token = token;
    }
    qsort(rows, n, sizeof *rows, compare_rows);
    for (size_t i = 0; i < n; i++)
        AU_TRY(au_token_read_added(s, rows[i].token, err));
done:
    free(rows);
    return st;
}

au_status au_token_config_after(au_token_source *s, const au_token_config *c, au_err *err)
{
    static const char *const named[] = {"</s>", "<unk>", "<pad>"};
    au_status st = AU_OK;
    size_t i;
    json_t *element;
    if (c->as_stored)
        return AU_OK;
    for (i = 0; i < sizeof named / sizeof *named; i++) {
        au_added_token token = {.text = named[i], .len = (uint32_t)strlen(named[i])};
        AU_TRY(au_token_source_added(s, &token, err));
    }
    json_array_foreach(c->extra_tokens, i, element)
    {
        AU_TRY(au_token_read_added(s, element, err));
    }
    for (int k = 0; !c->extra_tokens && k < c->extra_ids; k++) {
        au_added_token token = {.text = au_arena_printf(&s->arena, "<extra_id_%d>", k)};
        AU_FAIL_IF(!token.text, AU_NOMEM, "%s: no memory for the sentinels", s->what);
        token.len = (uint32_t)strlen(token.text);
        AU_TRY(au_token_source_added(s, &token, err));
    }
done:
    return st;
}

void au_token_config_deinit(au_token_config *c)
{
    json_decref(c->json);
    *c = (au_token_config){0};
}
