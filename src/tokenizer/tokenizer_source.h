/* SPDX-License-Identifier: MIT */
/* What the two file forms have in common before a tokenizer is built from them: the vocabulary, the
 * charsmap and the tokens that are split off from the raw text. Private to this folder; one owner.
 */
#ifndef AU_TOKENIZER_TOKENIZER_SOURCE_H
#define AU_TOKENIZER_TOKENIZER_SOURCE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

/* Limits for files of unknown origin, far above what tokenizers have (T5: 32 100 pieces of up to 20
 * bytes). The length of a piece bounds the work for each byte of a prompt, the bytes of all pieces
 * the size of the trie. */
enum {
    AU_TOKENIZER_FILE_BYTES = 64 << 20,
    AU_TOKENIZER_PIECES = 1 << 20,
    AU_TOKENIZER_PIECE_BYTES = 1024,
    AU_TOKENIZER_VOCAB_BYTES = 16 << 20,
    AU_TOKENIZER_ADDED = 20000,
    AU_TOKENIZER_UNK =
        2, /* transformers builds T5's Unigram with unk_id 2, whatever the file says */
};

typedef struct au_token_piece {
    const char *text; /* borrowed from the file's content or the arena */
    uint32_t len;
    double score;
} au_token_piece;

typedef struct au_added_token {
    const char *text; /* likewise */
    uint32_t len;
    int32_t id; /* order of adding while read; the id once built */
    bool lstrip, rstrip, single_word, normalized;
} au_added_token;

/* How normalised text becomes segments. T5's: white space separates words, each gets a block in
 * front. A tokenizer.json may say otherwise, but is heard only where nothing says that the
 * tokenizer is T5's (au_token_config.as_stored). */
typedef enum au_prepend { AU_PREPEND_ALWAYS, AU_PREPEND_FIRST, AU_PREPEND_NEVER } au_prepend;
typedef struct au_token_layout {
    bool split_white; /* WhitespaceSplit; else blanks alone separate, and become blocks */
    bool strip_left, strip_right; /* Strip */
    bool collapse;                /* Replace: two or more blanks become one block */
    au_prepend
        prepend; /* Metaspace: the block in front of every word, of the text's first one, or none */
} au_token_layout;

typedef struct au_token_source {
    const char *what;       /* file name for errors */
    au_token_piece *pieces; /* owned */
    size_t n_pieces, cap_pieces, piece_bytes;
    au_added_token *added; /* owned */
    size_t n_added, cap_added;
    const void *charsmap; /* borrowed or in the arena; NULL: none */
    size_t charsmap_len;
    au_token_layout layout;
    au_arena arena;
    json_t *json; /* the parsed file that texts are borrowed from; owned */
} au_token_source;

/* What tokenizer_config.json beside the tokenizer says. */
typedef struct au_token_config {
    int extra_ids;         /* sentinels <extra_id_0> ...; 100 if it does not say */
    json_t *extra_tokens;  /* list of special tokens that replaces the default one; borrowed from
                              json; NULL: default */
    json_t *added_decoder; /* object id -> token, which replaces the tokenizer's own list; borrowed;
                              NULL: none */
    bool as_stored;        /* transformers would take tokenizer.json as it is, not as T5's */
    json_t *json;          /* owned */
} au_token_config;

void au_token_source_init(au_token_source *s, const char *what);
void au_token_source_deinit(au_token_source *s);
/* Checks the limits, that the text is UTF-8 and the score finite. */
AU_MUST_CHECK au_status au_token_source_piece(au_token_source *s, const char *text, size_t len,
                                              double score, au_err *err);
AU_MUST_CHECK au_status au_token_source_added(au_token_source *s, const au_added_token *token,
                                              au_err *err);

/* Readers of the two forms. */
AU_MUST_CHECK au_status au_spiece_read(au_token_source *s, const void *data, size_t len,
                                       const au_token_config *config, au_err *err);
AU_MUST_CHECK au_status au_tokenizer_json_read(au_token_source *s, const void *data, size_t len,
                                               const au_token_config *config, au_err *err);

/* tokenizer_config.json: `data` NULL gives the defaults. */
AU_MUST_CHECK au_status au_token_config_read(au_token_config *c, const void *data, size_t len,
                                             au_err *err);
void au_token_config_deinit(au_token_config *c);
/* The two steps around reading a file: the config's own list comes before the file's, </s>, <unk>,
 * <pad> and the list of special tokens after it. */
AU_MUST_CHECK au_status au_token_config_before(au_token_source *s, const au_token_config *c,
                                               au_err *err);
AU_MUST_CHECK au_status au_token_config_after(au_token_source *s, const au_token_config *c,
                                              au_err *err);
/* One element of a list of added tokens, a string or an object with "content" and flags. Special
 * tokens are not normalised unless they say so. A token with a text that came before is dropped at
 * the end. */
AU_MUST_CHECK au_status au_token_read_added(au_token_source *s, json_t *element, au_err *err);

#endif
