/* SPDX-License-Identifier: MIT */
/* tokenizer.json of HF's `tokenizers`, as transformers 5 reads it for T5: the vocabulary with its
 * scores, the added tokens and the charsmap of the first Precompiled normaliser. The other
 * normalisers and the pre-tokenizer are built anew there, always as Precompiled and
 * [WhitespaceSplit, Metaspace(always)], so the layouts in circulation (T5's first one, the
 * re-export with Strip and Replace, prepend_scheme "first") mean the same there. In a folder that
 * does not say it is T5's, the layout counts as stored. Kinds that occur in none of them are
 * refused. */
#include <sodium/utils.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tokenizer/tokenizer_source.h"

static au_status decode_charsmap(au_token_source *s, json_t *text, au_err *err)
{
    if (!json_is_string(text))
        return au_fail(err, AU_CORRUPT, "%s: normalizer.precompiled_charsmap is not a string",
                       s->what);
    size_t len = json_string_length(text), out_len = 0;
    unsigned char *out = au_arena_alloc(&s->arena, len / 4 * 3 + 3);
    if (!out)
        return au_fail(err, AU_NOMEM, "%s: no memory for the charsmap", s->what);
    if (sodium_base642bin(out, len / 4 * 3 + 3, json_string_value(text), len, NULL, &out_len, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0)
        return au_fail(err, AU_CORRUPT, "%s: normalizer.precompiled_charsmap is not base64",
                       s->what);
    s->charsmap = out;
    s->charsmap_len = out_len;
    return AU_OK;
}

static au_status read_metaspace(au_token_source *s, json_t *step, au_err *err)
{
    json_t *split = json_object_get(step, "split");
    const char *scheme = json_string_value(json_object_get(step, "prepend_scheme"));
    if (!scheme) /* the older form */
        scheme = json_is_false(json_object_get(step, "add_prefix_space")) ? "never" : "always";
    if (json_is_false(split))
        return au_fail(err, AU_UNSUPPORTED,
                       "%s: pre_tokenizer Metaspace has split false, expected true", s->what);
    if (!strcmp(scheme, "always"))
        s->layout.prepend = AU_PREPEND_ALWAYS;
    else if (!strcmp(scheme, "first"))
        s->layout.prepend = AU_PREPEND_FIRST;
    else if (!strcmp(scheme, "never"))
        s->layout.prepend = AU_PREPEND_NEVER;
    else
        return au_fail(err, AU_UNSUPPORTED,
                       "%s: prepend_scheme is %.40s, expected always, first or never", s->what,
                       scheme);
    return AU_OK;
}

static au_status read_replace(au_token_source *s, json_t *step, au_err *err)
{
    const char *regex =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    const char *content = json_string_value(json_object_get(step, "content"));
    if (!regex || strcmp(regex, " {2,}") != 0 || !content || strcmp(content, "\xe2\x96\x81") != 0)
        return au_fail(err, AU_UNSUPPORTED,
                       "%s: normalizer Replace is not the one of T5 (two blanks or more)", s->what);
    s->layout.collapse = true;
    return AU_OK;
}

/* One normaliser or pre-tokenizer. */
static au_status read_step(au_token_source *s, json_t *step, const char *part, bool as_stored,
                           au_err *err)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    if (!type)
        return au_fail(err, AU_CORRUPT, "%s: %s has no type", s->what, part);
    bool normalizer = part[0] == 'n';
    if (normalizer && !strcmp(type, "Precompiled"))
        return s->charsmap ? AU_OK
                           : decode_charsmap(s, json_object_get(step, "precompiled_charsmap"), err);
    if (normalizer && !strcmp(type, "Strip")) {
        s->layout.strip_left |= as_stored && json_is_true(json_object_get(step, "strip_left"));
        s->layout.strip_right |= as_stored && json_is_true(json_object_get(step, "strip_right"));
        return AU_OK;
    }
    if (normalizer && !strcmp(type, "Replace"))
        return as_stored ? read_replace(s, step, err) : AU_OK;
    if (!normalizer && !strcmp(type, "WhitespaceSplit")) {
        s->layout.split_white = true;
        return AU_OK;
    }
    if (!normalizer && !strcmp(type, "Metaspace"))
        return as_stored ? read_metaspace(s, step, err) : AU_OK;
    return au_fail(err, AU_UNSUPPORTED, "%s: %s has type %.40s, which T5's tokenizer does not use",
                   s->what, part, type);
}

/* A normaliser, a pre-tokenizer, or a Sequence of them under `list`. */
static au_status read_steps(au_token_source *s, json_t *step, const char *part, const char *list,
                            bool as_stored, au_err *err)
{
    if (!step || json_is_null(step))
        return AU_OK;
    const char *type = json_string_value(json_object_get(step, "type"));
    if (!type || strcmp(type, "Sequence") != 0)
        return read_step(s, step, part, as_stored, err);
    json_t *steps = json_object_get(step, list), *element;
    size_t i;
    if (!json_is_array(steps))
        return au_fail(err, AU_CORRUPT, "%s: %s has no list %s", s->what, part, list);
    json_array_foreach(steps, i, element)
    {
        au_status st = read_step(s, element, part, as_stored, err);
        if (st != AU_OK)
            return st;
    }
    return AU_OK;
}

static au_status read_vocab(au_token_source *s, json_t *vocab, au_err *err)
{
    if (!json_is_array(vocab))
        return au_fail(err, AU_CORRUPT, "%s: model.vocab is not a list", s->what);
    size_t i;
    json_t *row;
    json_array_foreach(vocab, i, row)
    {
        json_t *text = json_array_get(row, 0), *score = json_array_get(row, 1);
        if (json_array_size(row) != 2 || !json_is_string(text) || !json_is_number(score))
            return au_fail(err, AU_CORRUPT, "%s: model.vocab[%zu] is not [text, score]", s->what,
                           i);
        au_status st = au_token_source_piece(s, json_string_value(text), json_string_length(text),
                                             json_number_value(score), err);
        if (st != AU_OK)
            return st;
    }
    if (s->n_pieces <= AU_TOKENIZER_UNK)
        return au_fail(err, AU_CORRUPT, "%s: model.vocab has %zu pieces, expected at least %d",
                       s->what, s->n_pieces, AU_TOKENIZER_UNK + 1);
    return AU_OK;
}

static au_status read_model(au_token_source *s, json_t *model, au_err *err)
{
    if (!json_is_object(model))
        return au_fail(err, AU_CORRUPT, "%s: no model", s->what);
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type || strcmp(type, "Unigram") != 0)
        return au_fail(err, AU_UNSUPPORTED, "%s: model.type is %.40s, expected Unigram", s->what,
                       type ? type : "missing");
    json_t *unk = json_object_get(model, "unk_id");
    if (unk && !json_is_null(unk) && json_integer_value(unk) != AU_TOKENIZER_UNK)
        return au_fail(err, AU_UNSUPPORTED, "%s: model.unk_id is %lld, expected %d", s->what,
                       (long long)json_integer_value(unk), AU_TOKENIZER_UNK);
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return au_fail(err, AU_UNSUPPORTED, "%s: model.byte_fallback is true, expected false",
                       s->what);
    return read_vocab(s, json_object_get(model, "vocab"), err);
}

/* Added tokens count in the order of their ids. */
static int compare_ids(const void *pa, const void *pb)
{
    json_int_t a = json_integer_value(json_object_get(*(json_t *const *)pa, "id"));
    json_int_t b = json_integer_value(json_object_get(*(json_t *const *)pb, "id"));
    return (a > b) - (a < b);
}

static au_status read_added(au_token_source *s, json_t *list, au_err *err)
{
    au_status st = AU_OK;
    if (!list || json_is_null(list))
        return AU_OK;
    if (!json_is_array(list))
        return au_fail(err, AU_CORRUPT, "%s: added_tokens is not a list", s->what);
    size_t n = json_array_size(list);
    if (n > AU_TOKENIZER_ADDED)
        return au_fail(err, AU_LIMIT, "%s: %zu added tokens, expected at most %d", s->what, n,
                       AU_TOKENIZER_ADDED);
    json_t **sorted = au_arena_alloc(&s->arena, (n + 1) * sizeof *sorted);
    if (!sorted)
        return au_fail(err, AU_NOMEM, "%s: no memory for the added tokens", s->what);
    for (size_t i = 0; i < n; i++) {
        sorted[i] = json_array_get(list, i);
        if (!json_is_integer(json_object_get(sorted[i], "id")))
            return au_fail(err, AU_CORRUPT, "%s: added_tokens[%zu] has no id", s->what, i);
    }
    qsort(sorted, n, sizeof *sorted, compare_ids);
    for (size_t i = 0; i < n && st == AU_OK; i++)
        st = au_token_read_added(s, sorted[i], err);
    return st;
}

au_status au_tokenizer_json_read(au_token_source *s, const void *data, size_t len,
                                 const au_token_config *config, au_err *err)
{
    au_status st = AU_OK;
    AU_FAIL_IF(len > AU_TOKENIZER_FILE_BYTES, AU_LIMIT, "%s: %zu bytes, expected at most %d",
               s->what, len, AU_TOKENIZER_FILE_BYTES);
    AU_TRY(au_json_parse(&s->json, data, len, s->what, err));
    AU_FAIL_IF(!json_is_object(s->json), AU_CORRUPT, "%s: not an object", s->what);
    AU_TRY(read_model(s, json_object_get(s->json, "model"), err));
    s->layout.split_white = !config->as_stored;
    AU_TRY(read_steps(s, json_object_get(s->json, "normalizer"), "normalizer", "normalizers",
                      config->as_stored, err));
    AU_TRY(read_steps(s, json_object_get(s->json, "pre_tokenizer"), "pre_tokenizer",
                      "pretokenizers", config->as_stored, err));
    if (!config->added_decoder)
        AU_TRY(read_added(s, json_object_get(s->json, "added_tokens"), err));
done:
    return st;
}
