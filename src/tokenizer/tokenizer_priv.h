/* SPDX-License-Identifier: MIT */
/* The tokenizer as it is used for encoding. Private to this folder; immutable after building, any
 * thread. */
#ifndef AU_TOKENIZER_TOKENIZER_PRIV_H
#define AU_TOKENIZER_TOKENIZER_PRIV_H

#include "tokenizer/charsmap.h"
#include "tokenizer/token_trie.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_source.h"

typedef struct au_added_use {
    int32_t id;
    bool lstrip, rstrip, single_word;
} au_added_use;

struct au_tokenizer {
    char file[32];
    double *scores; /* [n_pieces], log probabilities; owned */
    size_t n_pieces;
    au_trie pieces;   /* text -> id */
    double unk_score; /* of a character that no piece covers */
    au_charsmap charsmap;
    au_token_layout layout;
    au_added_use *added; /* owned */
    au_trie raw;         /* text -> index in added, looked for in the text as it came */
    au_trie folded;      /* those looked for in normalised text */
    int32_t eos_id;
    int32_t vocab; /* one past the largest id */
};

/* The value of exactly this text, or -1. */
static inline int32_t au_trie_get(const au_trie *t, const char *text, size_t len)
{
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++)
        if (!(node = au_trie_child(t, node, (uint8_t)text[i])))
            return -1;
    return t->nodes[node].value;
}

#endif
