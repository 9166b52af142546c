/* SPDX-License-Identifier: MIT */
/* A trie over bytes: every key that is a prefix of a text, found in one walk. Immutable after
 * building; any thread. */
#ifndef AU_TOKENIZER_TOKEN_TRIE_H
#define AU_TOKENIZER_TOKEN_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct au_trie_key {
    const char *text; /* borrowed for the build */
    uint32_t len;
    int32_t value; /* >= 0 */
} au_trie_key;

typedef struct au_trie_node {
    uint32_t first; /* the children are nodes [first, first + count), by rising label */
    int32_t value;  /* of the key that ends here, or -1 */
    uint16_t count;
    uint8_t label;
} au_trie_node;

typedef struct au_trie {
    au_trie_node *nodes; /* node 0 is the root; owned */
    size_t n_nodes;
} au_trie;

/* Of equal keys the one with the largest value wins; empty keys are left out. Sorts `keys` in
 * place. The trie has at most one node a byte of the keys. */
AU_MUST_CHECK au_status au_trie_build(au_trie *t, au_trie_key *keys, size_t n, au_err *err);
void au_trie_deinit(au_trie *t);

/* The child of `node` for a byte, or 0 (the root is nobody's child). */
static inline uint32_t au_trie_child(const au_trie *t, uint32_t node, uint8_t label)
{
    uint32_t lo = t->nodes[node].first, hi = lo + t->nodes[node].count, end = hi;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->nodes[mid].label < label)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < end && t->nodes[lo].label == label ? lo : 0;
}

#endif
