/* SPDX-License-Identifier: MIT */
/* T5's SentencePiece unigram tokenizer: opening a folder's files and building the tables
 * (token_encode.c uses them).
 *
 * Mirrors transformers 5.24, T5Tokenizer (src/transformers/models/t5/tokenization_t5.py) on
 * tokenizers 0.23: which tokens are added in which order decides their ids, so the order of
 * au_token_config_before, the file, and au_token_config_after must stay. Without
 * tokenizer_config.json there are 100 sentinels, as there. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "tokenizer/tokenizer_priv.h"
#include "tokenizer/tokenizer_source.h"

#define UNK_PENALTY 10.0 /* HF and SentencePiece: kUnkPenalty */

static au_status build_pieces(au_tokenizer *t, const au_token_source *s, au_err *err)
{
    au_status st = AU_OK;
    au_trie_key *keys = NULL;
    AU_TRY(au_calloc(&t->scores, s->n_pieces, sizeof *t->scores, err));
    AU_TRY(au_calloc(&keys, s->n_pieces, sizeof *keys, err));
    double lowest = s->pieces[0].score;
    for (size_t i = 0; i < s->n_pieces; i++) {
        t->scores[i] = s->pieces[i].score;
        if (t->scores[i] < lowest)
            lowest = t->scores[i];
        keys[i] = (au_trie_key){s->pieces[i].text, s->pieces[i].len, (int32_t)i};
    }
    t->n_pieces = s->n_pieces;
    t->unk_score = lowest - UNK_PENALTY;
    AU_TRY(au_trie_build(&t->pieces, keys, s->n_pieces, err));
    t->eos_id = au_trie_get(&t->pieces, "</s>", 4);
    AU_FAIL_IF(t->eos_id < 0, AU_CORRUPT, "%s: no piece </s>", s->what);
done:
    free(keys);
    return st;
}

/* Ids for the added tokens: that of the piece with this text, else the next free one; of equal
 * texts only the first counts (the others get id -1). */
static au_status number_added(au_tokenizer *t, au_token_source *s, au_err *err)
{
    au_status st = AU_OK;
    au_trie all = {0};
    au_trie_key *keys = NULL;
    int32_t n = (int32_t)s->n_added;
    AU_TRY(au_calloc(&keys, s->n_added, sizeof *keys, err));
    for (int32_t i = 0; i < n; i++) /* the trie keeps the largest value, so values fall */
        keys[i] = (au_trie_key){s->added[i].text, s->added[i].len, n - 1 - i};
    AU_TRY(au_trie_build(&all, keys, s->n_added, err));
    t->vocab = (int32_t)t->n_pieces;
    for (int32_t i = 0; i < n; i++) {
        au_added_token *token = &s->added[i];
        bool first = au_trie_get(&all, token->text, token->len) == n - 1 - i;
        token->id = first ? au_trie_get(&t->pieces, token->text, token->len) : -1;
        if (first && token->id < 0)
            token->id = t->vocab++;
    }
done:
    au_trie_deinit(&all);
    free(keys);
    return st;
}

/* The key of an added token: its text, or its normalised text where it is looked for in normalised
 * text. */
static au_status added_key(au_trie_key *key, const au_tokenizer *t, au_token_source *s, int32_t i,
                           au_err *err)
{
    const au_added_token *token = &s->added[i];
    *key = (au_trie_key){token->text, token->len, i};
    if (!token->normalized)
        return AU_OK;
    au_status st = AU_OK;
    au_buf text;
    au_buf_init(&text, AU_TOKENIZER_PIECE_BYTES);
    au_charsmap_apply(&t->charsmap, &text, token->text, token->len);
    AU_TRY(au_buf_check(&text, err));
    key->text = au_arena_strndup(&s->arena, au_buf_cstr(&text), text.len);
    key->len = (uint32_t)text.len;
    AU_FAIL_IF(!key->text, AU_NOMEM, "%s: no memory for the added tokens", s->what);
done:
    au_buf_deinit(&text);
    return st;
}

static au_status build_added(au_tokenizer *t, au_token_source *s, au_err *err)
{
    au_status st = AU_OK;
    au_trie_key *raw = NULL, *folded = NULL;
    size_t n_raw = 0, n_folded = 0;
    AU_TRY(number_added(t, s, err));
    AU_TRY(au_calloc(&t->added, s->n_added, sizeof *t->added, err));
    AU_TRY(au_calloc(&raw, s->n_added, sizeof *raw, err));
    AU_TRY(au_calloc(&folded, s->n_added, sizeof *folded, err));
    for (size_t i = 0; i < s->n_added; i++) {
        const au_added_token *token = &s->added[i];
        if (token->id < 0)
            continue;
        t->added[i] = (au_added_use){token->id, token->lstrip, token->rstrip, token->single_word};
        AU_TRY(added_key(token->normalized ? &folded[n_folded++] : &raw[n_raw++], t, s, (int32_t)i,
                         err));
    }
    AU_TRY(au_trie_build(&t->raw, raw, n_raw, err));
    AU_TRY(au_trie_build(&t->folded, folded, n_folded, err));
done:
    free(raw);
    free(folded);
    return st;
}

static au_status from_memory(au_tokenizer **out, const void *data, size_t len, bool json,
                             const char *what, const au_token_config *config, au_err *err)
{
    au_status st = AU_OK;
    au_tokenizer *t = NULL;
    au_token_source s;
    au_token_source_init(&s, what);
    AU_TRY(au_calloc(&t, 1, sizeof *t, err));
    const char *file = json ? "tokenizer.json" : "spiece.model";
    memcpy(t->file, file, strlen(file) + 1);
    AU_TRY(au_token_config_before(&s, config, err));
    AU_TRY(json ? au_tokenizer_json_read(&s, data, len, config, err)
                : au_spiece_read(&s, data, len, config, err));
    AU_TRY(au_token_config_after(&s, config, err));
    t->layout = s.layout;
    AU_TRY(au_charsmap_open(&t->charsmap, s.charsmap, s.charsmap_len, what, err));
    AU_TRY(build_pieces(t, &s, err));
    AU_TRY(build_added(t, &s, err));
    *out = t;
    t = NULL;
done:
    au_tokenizer_close(&t);
    au_token_source_deinit(&s);
    return st;
}

au_status au_tokenizer_from_memory(au_tokenizer **out, const void *data, size_t len, bool json,
                                   const char *what, au_err *err)
{
    au_token_config config;
    au_status st = au_token_config_read(&config, NULL, 0, err);
    return st != AU_OK ? st : from_memory(out, data, len, json, what, &config, err);
}

/* The content of dir/name, or *data = NULL where there is no such file. */
static au_status read_if_there(char **data, size_t *len, char **path, const char *dir,
                               const char *name, au_err *err)
{
    au_status st = au_path_join(path, dir, name, err);
    if (st != AU_OK || !au_file_exists(*path))
        return st;
    return au_file_read(data, len, *path, AU_TOKENIZER_FILE_BYTES, err);
}

au_status au_tokenizer_open(au_tokenizer **out, const char *dir, au_err *err)
{
    static const char *const names[] = {"tokenizer.json", "spiece.model"};
    au_status st = AU_OK;
    au_token_config config = {0};
    char *data = NULL, *config_data = NULL, *path = NULL, *config_path = NULL, *model_path = NULL;
    size_t len = 0, config_len = 0;
    int which = 0;
    AU_TRY(
        read_if_there(&config_data, &config_len, &config_path, dir, "tokenizer_config.json", err));
    AU_TRY(au_token_config_read(&config, config_data, config_len, err));
    AU_TRY(au_path_join(&model_path, dir, "config.json", err));
    config.as_stored =
        !au_file_exists(model_path) && !json_object_get(config.json, "tokenizer_class");
    AU_TRY(read_if_there(&data, &len, &path, dir, names[0], err));
    if (!data) {
        which = 1;
        free(path);
        path = NULL;
        config.as_stored = false;
        AU_TRY(read_if_there(&data, &len, &path, dir, names[1], err));
    }
    AU_FAIL_IF(!data, AU_NOT_FOUND, "%s: no tokenizer: found neither %s nor %s", dir, names[0],
               names[1]);
    AU_TRY(from_memory(out, data, len, which == 0, path, &config, err));
done:
    au_token_config_deinit(&config);
    free(data);
    free(config_data);
    free(path);
    free(config_path);
    free(model_path);
    return st;
}

void au_tokenizer_close(au_tokenizer **pt)
{
    au_tokenizer *t = pt ? *pt : NULL;
    if (!t)
        return;
    free(t->scores);
    free(t->added);
    au_trie_deinit(&t->pieces);
    au_trie_deinit(&t->raw);
    au_trie_deinit(&t->folded);
    au_charsmap_close(&t->charsmap);
    free(t);
    *pt = NULL;
}

const char *au_tokenizer_file(const au_tokenizer *t)
{
    return t->file;
}

int32_t au_tokenizer_vocab(const au_tokenizer *t)
{
    return t->vocab;
}
