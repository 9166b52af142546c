/* SPDX-License-Identifier: MIT */
/* Builds the trie level by level from the sorted keys, so that the children of a node lie side by
 * side: 12 bytes a node, no pointers, and a lookup is a binary search over at most 256 labels. Keys
 * come from files of unknown origin: sorting keeps the work at O(bytes · log n) whatever they are,
 * where a hash table could be made to collide. */
#include "tokenizer/token_trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* The keys [lo, hi) share their first `depth` bytes, which lead to a node. */
typedef struct range {
    uint32_t lo, hi, depth;
} range;

typedef struct builder {
    au_trie *trie;
    range *ranges; /* one a node */
    size_t cap;
} builder;

static int compare_keys(const void *pa, const void *pb)
{
    const au_trie_key *a = pa, *b = pb;
    int c = memcmp(a->text, b->text, a->len < b->len ? a->len : b->len);
    if (c)
        return c;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    return (a->value > b->value) - (a->value < b->value);
}

static au_status add_node(builder *b, uint8_t label, range keys, au_err *err)
{
    if (b->trie->n_nodes == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 1024;
        au_trie_node *nodes = realloc(b->trie->nodes, cap * sizeof *nodes);
        if (nodes)
            b->trie->nodes = nodes;
        range *ranges = realloc(b->ranges, cap * sizeof *ranges);
        if (ranges)
            b->ranges = ranges;
        if (!nodes || !ranges)
            return au_fail(err, AU_NOMEM, "cannot allocate a trie of %zu nodes", cap);
        b->cap = cap;
    }
    b->trie->nodes[b->trie->n_nodes] = (au_trie_node){.value = -1, .label = label};
    b->ranges[b->trie->n_nodes++] = keys;
    return AU_OK;
}

static au_status add_children(builder *b, uint32_t node, const au_trie_key *keys, au_err *err)
{
    range r = b->ranges[node];
    for (; r.lo < r.hi && keys[r.lo].len == r.depth; r.lo++)
        if (r.depth)
            b->trie->nodes[node].value = keys[r.lo].value;
    b->trie->nodes[node].first = (uint32_t)b->trie->n_nodes;
    while (r.lo < r.hi) {
        uint8_t label = (uint8_t)keys[r.lo].text[r.depth];
        range child = {r.lo, r.lo + 1, r.depth + 1};
        while (child.hi < r.hi && (uint8_t)keys[child.hi].text[r.depth] == label)
            child.hi++;
        au_status st = add_node(b, label, child, err);
        if (st != AU_OK)
            return st;
        b->trie->nodes[node].count++;
        r.lo = child.hi;
    }
    return AU_OK;
}

au_status au_trie_build(au_trie *t, au_trie_key *keys, size_t n, au_err *err)
{
    au_status st = AU_OK;
    builder b = {.trie = t};
    *t = (au_trie){0};
    AU_FAIL_IF(n > INT32_MAX, AU_LIMIT, "%zu keys are too many for a trie", n);
    if (n)
        qsort(keys, n, sizeof *keys, compare_keys);
    AU_TRY(add_node(&b, 0, (range){0, (uint32_t)n, 0}, err));
    for (size_t i = 0; i < t->n_nodes; i++) {
        AU_FAIL_IF(t->n_nodes > INT32_MAX, AU_LIMIT, "the keys need more than %d trie nodes",
                   INT32_MAX);
        AU_TRY(add_children(&b, (uint32_t)i, keys, err));
    }
done:
    free(b.ranges);
    if (st != AU_OK)
        au_trie_deinit(t);
    return st;
}

void au_trie_deinit(au_trie *t)
{
    free(t->nodes);
    *t = (au_trie){0};
}
