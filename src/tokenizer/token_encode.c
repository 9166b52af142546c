/* SPDX-License-Identifier: MIT */
/* Text to ids, in the stages of HF's `tokenizers`:
 *
 *   1. added tokens that are looked for in raw text are split off (leftmost, longest), with the
 * blanks beside them where they say so; each gets its id
 *   2. each gap between them is normalised by the charsmap, and added tokens that are looked for in
 * normalised text are split off
 *   3. each gap is cut at white space, which vanishes; each word gets "▁" in front unless it begins
 * with one; and every "▁" begins a segment
 *   4. each segment is cut into pieces by Viterbi: the largest sum of scores in double, ties to the
 * candidate found first; a character without a piece of its own may be <unk>, and neighbouring
 * <unk> become one
 *   5. </s>
 *
 * An encoding owns its scratch memory; the tokenizer is only read. Time is linear in the text but
 * for the length of the longest piece; memory is bounded by the limit on normalised text. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "tokenizer/tokenizer_priv.h"
#include "tokenizer/tokenizer_source.h"
#include "tokenizer/utf8_decode.h"

/* T5's charsmap makes at most 11 bytes of 1 ("ﷺ"); a file that makes more than this is hostile. */
enum { EXPANSION = 32, EXPANSION_BASE = 4096 };

static const char BLOCK[] = "\xe2\x96\x81"; /* U+2581 "▁" */
enum { BLOCK_LEN = 3 };

/* The best way to reach a byte of the segment. */
typedef struct step {
    double score;
    uint32_t from; /* where its last piece begins */
    int32_t id;    /* of that piece; -1: not reached */
} step;

typedef struct encoder {
    const au_tokenizer *t;
    const char *text;
    bool at_start;    /* the gap is where the text begins */
    au_buf normal;    /* a normalised gap */
    au_buf collapsed; /* the same with collapsed blanks, where the layout wants that */
    const char *gap;  /* where the normalised gap begins */
    au_buf words;     /* one of its words with the block in front */
    step *steps;
    size_t cap_steps;
    int32_t *ids;
    size_t n_ids, cap_ids, max_ids;
    au_err *err;
} encoder;

static au_status put_id(encoder *e, int32_t id)
{
    if (e->n_ids >= e->max_ids)
        return au_fail(e->err, AU_LIMIT, "the text has more than %zu tokens", e->max_ids);
    if (e->n_ids == e->cap_ids) {
        size_t cap = e->cap_ids ? e->cap_ids * 2 : 64;
        int32_t *ids = realloc(e->ids, cap * sizeof *ids);
        if (!ids)
            return au_fail(e->err, AU_NOMEM, "cannot allocate %zu token ids", cap);
        e->ids = ids;
        e->cap_ids = cap;
    }
    e->ids[e->n_ids++] = id;
    return AU_OK;
}

static au_status reserve_steps(encoder *e, size_t n)
{
    if (n <= e->cap_steps)
        return AU_OK;
    free(e->steps);
    e->steps = NULL;
    e->cap_steps = 0;
    au_status st = au_calloc(&e->steps, n, sizeof *e->steps, e->err);
    if (st == AU_OK)
        e->cap_steps = n;
    return st;
}

static void offer(step *to, double score, size_t from, int32_t id)
{
    if (to->id < 0 || score > to->score)
        *to = (step){score, (uint32_t)from, id};
}

static void viterbi(const au_tokenizer *t, step *steps, const char *s, size_t len)
{
    for (size_t i = 0; i <= len; i++)
        steps[i].id = -1;
    steps[0].score = 0.0;
    for (size_t i = 0; i < len;) {
        int32_t cp;
        size_t char_len = au_utf8_next(s + i, &cp);
        double here = steps[i].score;
        bool single = false;
        uint32_t node = 0;
        for (size_t j = i; j < len && (node = au_trie_child(&t->pieces, node, (uint8_t)s[j])) != 0;
             j++) {
            int32_t id = t->pieces.nodes[node].value;
            if (id < 0)
                continue;
            offer(&steps[j + 1], t->scores[id] + here, i, id);
            single |= j + 1 - i == char_len;
        }
        if (!single)
            offer(&steps[i + char_len], t->unk_score + here, i, AU_TOKENIZER_UNK);
        i += char_len;
    }
}

static au_status encode_segment(encoder *e, const char *s, size_t len)
{
    au_status st = reserve_steps(e, len + 1);
    if (st != AU_OK)
        return st;
    viterbi(e->t, e->steps, s, len);
    size_t first = e->n_ids;
    for (size_t at = len; at && st == AU_OK; at = e->steps[at].from) {
        int32_t id = e->steps[at].id;
        bool fused =
            id == AU_TOKENIZER_UNK && e->n_ids > first && e->ids[e->n_ids - 1] == AU_TOKENIZER_UNK;
        if (!fused)
            st = put_id(e, id);
    }
    for (size_t i = first, j = e->n_ids; i + 1 < j; i++) { /* they came last one first */
        int32_t id = e->ids[i];
        e->ids[i] = e->ids[--j];
        e->ids[j] = id;
    }
    return st;
}

/* Unicode's White_Space. */
static bool is_space(int32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

static bool starts_with_block(const char *s, size_t len)
{
    return len >= BLOCK_LEN && !memcmp(s, BLOCK, BLOCK_LEN);
}

/* A text between two separators: blanks become blocks, and every block begins a segment. */
static au_status encode_blocks(encoder *e, const char *s, size_t len, bool prefix)
{
    au_buf *w = &e->words;
    au_buf_clear(w);
    if (prefix && s[0] != ' ' && !starts_with_block(s, len))
        au_buf_append(w, BLOCK, BLOCK_LEN);
    for (size_t i = 0; i < len;) {
        size_t end = i;
        while (end < len && s[end] != ' ')
            end++;
        au_buf_append(w, s + i, end - i);
        if (end < len)
            au_buf_append(w, BLOCK, BLOCK_LEN);
        i = end + 1;
    }
    au_status st = au_buf_check(w, e->err);
    const char *text = au_buf_cstr(w);
    for (size_t start = 0; start < w->len && st == AU_OK;) {
        size_t end = start + 1;
        while (end < w->len && !starts_with_block(text + end, w->len - end))
            end++;
        st = encode_segment(e, text + start, end - start);
        start = end;
    }
    return st;
}

static size_t blanks_before(const char *s, size_t start, size_t least)
{
    while (start > least) {
        int32_t cp;
        size_t before = au_utf8_back(s, start);
        au_utf8_next(s + before, &cp);
        if (!is_space(cp))
            break;
        start = before;
    }
    return start;
}

static size_t blanks_after(const char *s, size_t len, size_t end)
{
    while (end < len) {
        int32_t cp;
        size_t n = au_utf8_next(s + end, &cp);
        if (!is_space(cp))
            break;
        end += n;
    }
    return end;
}

/* A gap of normalised text between added tokens. */
static au_status encode_words(encoder *e, const char *s, size_t len)
{
    const au_token_layout *layout = &e->t->layout;
    au_status st = AU_OK;
    bool first = e->at_start && s == e->gap;
    for (size_t start = 0; start < len && st == AU_OK;) {
        size_t end = layout->split_white ? start : len;
        for (int32_t cp; end < len; end += au_utf8_next(s + end, &cp)) {
            au_utf8_next(s + end, &cp);
            if (is_space(cp))
                break;
        }
        if (end > start)
            st = encode_blocks(e, s + start, end - start,
                               layout->prepend == AU_PREPEND_ALWAYS ||
                                   (layout->prepend == AU_PREPEND_FIRST && first && !start));
        start = blanks_after(s, len, end);
    }
    return st;
}

/* The longest added token at s[0]; its index, or -1. */
static int32_t added_at(const au_trie *trie, const char *s, size_t len, size_t *token_len)
{
    int32_t best = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < len && (node = au_trie_child(trie, node, (uint8_t)s[i])) != 0; i++)
        if (trie->nodes[node].value >= 0) {
            best = trie->nodes[node].value;
            *token_len = i + 1;
        }
    return best;
}

static bool is_word_char(int32_t cp)
{
    if (cp == 0x200c || cp == 0x200d)
        return true;
    utf8proc_category_t c = utf8proc_category(cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC;
}

/* Whether a token [start, end) that wants to be a word of its own is one. */
static bool stands_alone(const char *s, size_t len, size_t start, size_t end)
{
    int32_t cp;
    if (start) {
        au_utf8_next(s + au_utf8_back(s, start), &cp);
        if (is_word_char(cp))
            return false;
    }
    if (end == len)
        return true;
    au_utf8_next(s + end, &cp);
    return !is_word_char(cp);
}

/* Splits off the added tokens of `trie`; `gap` encodes what lies between. */
static au_status split_added(encoder *e, const au_trie *trie, const char *s, size_t len,
                             au_status (*gap)(encoder *, const char *, size_t))
{
    au_status st = AU_OK;
    size_t done = 0; /* everything before is encoded */
    for (size_t i = 0; trie->n_nodes > 1 && i < len;) {
        size_t token_len = 0;
        int32_t k = added_at(trie, s + i, len - i, &token_len);
        if (k < 0) {
            i++;
            continue;
        }
        size_t start = i, end = i + token_len;
        i = end;
        const au_added_use *use = &e->t->added[k];
        if (use->single_word && !stands_alone(s, len, start, end))
            continue;
        if (use->lstrip)
            start = blanks_before(s, start, done);
        if (use->rstrip)
            end = blanks_after(s, len, end);
        if (start > done && (st = gap(e, s + done, start - done)) != AU_OK)
            return st;
        if ((st = put_id(e, use->id)) != AU_OK)
            return st;
        done = end;
    }
    return done < len ? gap(e, s + done, len - done) : AU_OK;
}

/* Two or more blanks become one block. */
static void collapse_blanks(au_buf *out, const char *s, size_t len)
{
    au_buf_clear(out);
    for (size_t i = 0; i < len;) {
        size_t end = i;
        while (end < len && s[end] == ' ')
            end++;
        if (end - i >= 2) {
            au_buf_append(out, BLOCK, BLOCK_LEN);
            i = end;
        } else {
            au_buf_char(out, s[i++]);
        }
    }
}

static au_status encode_raw_gap(encoder *e, const char *s, size_t len)
{
    const au_token_layout *layout = &e->t->layout;
    e->at_start = s == e->text;
    au_buf_clear(&e->normal);
    au_charsmap_apply(&e->t->charsmap, &e->normal, s, len);
    au_status st = au_buf_check(&e->normal, e->err);
    if (st != AU_OK)
        return au_err_prefix(e->err, st, "normalised text");
    const char *n = au_buf_cstr(&e->normal);
    size_t start = layout->strip_left ? blanks_after(n, e->normal.len, 0) : 0;
    size_t end = layout->strip_right ? blanks_before(n, e->normal.len, start) : e->normal.len;
    e->gap = n + start;
    if (!layout->collapse)
        return split_added(e, &e->t->folded, e->gap, end - start, encode_words);
    collapse_blanks(&e->collapsed, e->gap, end - start);
    st = au_buf_check(&e->collapsed, e->err);
    e->gap = au_buf_cstr(&e->collapsed);
    return st != AU_OK ? st : split_added(e, &e->t->folded, e->gap, e->collapsed.len, encode_words);
}

au_status au_tokenizer_encode(const au_tokenizer *t, const char *text, size_t len, size_t max_ids,
                              int32_t **ids, size_t *n_ids, au_err *err)
{
    au_status st = AU_OK;
    encoder e = {.t = t, .text = text, .max_ids = max_ids, .err = err};
    AU_FAIL_IF(len > UINT32_MAX / (4 * EXPANSION), AU_LIMIT,
               "the text has %zu bytes, expected at most %u", len, UINT32_MAX / (4 * EXPANSION));
    AU_FAIL_IF(!au_utf8_valid(text, len), AU_INVALID, "the text is not valid UTF-8");
    size_t max = len * EXPANSION + EXPANSION_BASE;
    au_buf_init(&e.normal, max);
    au_buf_init(&e.collapsed, max * BLOCK_LEN);
    au_buf_init(&e.words, max * (1 + BLOCK_LEN));
    AU_TRY(split_added(&e, &t->raw, text, len, encode_raw_gap));
    AU_TRY(put_id(&e, t->eos_id));
    *ids = e.ids;
    *n_ids = e.n_ids;
    e.ids = NULL;
done:
    au_buf_deinit(&e.normal);
    au_buf_deinit(&e.collapsed);
    au_buf_deinit(&e.words);
    free(e.steps);
    free(e.ids);
    return st;
}
