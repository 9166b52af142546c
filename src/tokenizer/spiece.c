/* SPDX-License-Identifier: MIT */
/* spiece.model: a protocol buffer (sentencepiece_model.proto, ModelProto). Only the few fields that
 * T5 needs are read; others are skipped by their wire type.
 *
 *   ModelProto      1 repeated pieces {1 text, 2 score f32, 3 type}, 2 trainer_spec, 3
 * normalizer_spec TrainerSpec     3 model_type (1 unigram), 24 treat_whitespace_as_suffix, 35
 * byte_fallback NormalizerSpec  2 precompiled_charsmap
 *
 * The vocabulary is the pieces in their order, followed by the sentinels, the last one first. As in
 * transformers 5, every piece can be matched in normalised text, whatever its type, and the
 * normaliser's three booleans are not looked at. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tokenizer/tokenizer_source.h"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct reader {
    const unsigned char *p, *end;
} reader;

typedef struct field {
    uint64_t number;
    int wire;
    uint64_t value; /* varint, or the bits of a fixed-size value */
    reader bytes;   /* for WIRE_BYTES */
} field;

static bool read_varint(reader *r, uint64_t *out)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end)
            return false;
        uint8_t byte = *r->p++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool read_fixed(reader *r, size_t bytes, uint64_t *out)
{
    if ((size_t)(r->end - r->p) < bytes)
        return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++)
        *out |= (uint64_t)*r->p++ << (8 * i);
    return true;
}

/* The next field, or false at a damaged one. Not called at the end. */
static bool read_field(reader *r, field *f)
{
    uint64_t key;
    if (!read_varint(r, &key) || !(key >> 3))
        return false;
    *f = (field){.number = key >> 3, .wire = (int)(key & 7)};
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(r, &f->value);
    case WIRE_64:
        return read_fixed(r, 8, &f->value);
    case WIRE_32:
        return read_fixed(r, 4, &f->value);
    case WIRE_BYTES:
        if (!read_varint(r, &f->value) || f->value > (uint64_t)(r->end - r->p))
            return false;
        f->bytes = (reader){r->p, r->p + f->value};
        r->p += f->value;
        return true;
    default: /* groups, which this format does not use */
        return false;
    }
}

static au_status damaged(const au_token_source *s, const char *part, au_err *err)
{
    return au_fail(err, AU_CORRUPT, "%s: %s is damaged; not a sentencepiece model", s->what, part);
}

static au_status read_piece(au_token_source *s, reader r, au_err *err)
{
    field f;
    reader text = {(const unsigned char *)"", (const unsigned char *)""};
    uint32_t score_bits = 0;
    uint64_t type = TYPE_NORMAL;
    while (r.p < r.end) {
        if (!read_field(&r, &f))
            return damaged(s, "a piece", err);
        if (f.number == 1 && f.wire == WIRE_BYTES)
            text = f.bytes;
        else if (f.number == 2 && f.wire == WIRE_32)
            score_bits = (uint32_t)f.value;
        else if (f.number == 3 && f.wire == WIRE_VARINT)
            type = f.value;
    }
    float score;
    memcpy(&score, &score_bits, sizeof score);
    size_t len = (size_t)(text.end - text.p), id = s->n_pieces;
    au_status st = au_token_source_piece(s, (const char *)text.p, len, (double)score, err);
    if (st != AU_OK)
        return st;
    if ((type == TYPE_UNKNOWN) != (id == AU_TOKENIZER_UNK))
        return au_fail(err, AU_UNSUPPORTED,
                       "%s: piece %zu has type %llu; only piece %d may be the unknown one", s->what,
                       id, (unsigned long long)type, AU_TOKENIZER_UNK);
    if (type != TYPE_CONTROL && type != TYPE_USER)
        return AU_OK;
    au_added_token token = {.text = (const char *)text.p, .len = (uint32_t)len};
    return au_token_source_added(s, &token, err);
}

static au_status read_trainer(au_token_source *s, reader r, au_err *err)
{
    field f;
    while (r.p < r.end) {
        if (!read_field(&r, &f))
            return damaged(s, "the trainer's part", err);
        if (f.wire != WIRE_VARINT)
            continue;
        if (f.number == 3 && f.value != 1)
            return au_fail(err, AU_UNSUPPORTED, "%s: model type %llu, expected 1 (unigram)",
                           s->what, (unsigned long long)f.value);
        if ((f.number == 24 || f.number == 35) && f.value)
            return au_fail(err, AU_UNSUPPORTED, "%s: %s is on, expected off", s->what,
                           f.number == 24 ? "treat_whitespace_as_suffix" : "byte_fallback");
    }
    return AU_OK;
}

static au_status read_normalizer(au_token_source *s, reader r, au_err *err)
{
    field f;
    while (r.p < r.end) {
        if (!read_field(&r, &f))
            return damaged(s, "the normaliser's part", err);
        if (f.number == 2 && f.wire == WIRE_BYTES) {
            s->charsmap = f.bytes.p;
            s->charsmap_len = (size_t)(f.bytes.end - f.bytes.p);
        }
    }
    return AU_OK;
}

static au_status add_sentinels(au_token_source *s, const au_token_config *config, au_err *err)
{
    for (int i = config->extra_ids - 1; i >= 0; i--) {
        const char *text = au_arena_printf(&s->arena, "<extra_id_%d>", i);
        if (!text)
            return au_fail(err, AU_NOMEM, "%s: no memory for the sentinels", s->what);
        au_status st = au_token_source_piece(s, text, strlen(text), 0.0, err);
        if (st != AU_OK)
            return st;
    }
    return AU_OK;
}

au_status au_spiece_read(au_token_source *s, const void *data, size_t len,
                         const au_token_config *config, au_err *err)
{
    au_status st = AU_OK;
    reader r = {data, (const unsigned char *)data + len};
    field f;
    size_t n_added = s->n_added;
    AU_FAIL_IF(len > AU_TOKENIZER_FILE_BYTES, AU_LIMIT, "%s: %zu bytes, expected at most %d",
               s->what, len, AU_TOKENIZER_FILE_BYTES);
    while (r.p < r.end) {
        AU_FAIL_IF(!read_field(&r, &f), AU_CORRUPT,
                   "%s: damaged at byte %zu; not a sentencepiece model", s->what,
                   (size_t)(r.p - (const unsigned char *)data));
        if (f.wire != WIRE_BYTES)
            continue;
        if (f.number == 1)
            AU_TRY(read_piece(s, f.bytes, err));
        else if (f.number == 2)
            AU_TRY(read_trainer(s, f.bytes, err));
        else if (f.number == 3)
            AU_TRY(read_normalizer(s, f.bytes, err));
    }
    AU_FAIL_IF(s->n_pieces <= AU_TOKENIZER_UNK, AU_CORRUPT, "%s: %zu pieces, expected at least %d",
               s->what, s->n_pieces, AU_TOKENIZER_UNK + 1);
    if (config->extra_tokens)
        s->n_added = n_added; /* the config's list replaces that of the model */
    AU_TRY(add_sentinels(s, config, err));
done:
    return st;
}
