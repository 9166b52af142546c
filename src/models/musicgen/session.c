/* SPDX-License-Identifier: MIT */
/* Clips that join and leave a session, and its memory.
 *
 * Blocks are mmap'd, so untouched pages cost nothing. A slot and a text have a block each, unmapped
 * when the slot leaves or the last lane has left the text; the block of the work is sized by what
 * is there now and mapped anew when a clip that joins needs another size. Nothing is mapped or
 * allocated by a unit of work. The second branch without a negative prompt has encoder states of
 * zero: its cross-attention gives exactly 0 and is skipped, unless an adapter adds a bias behind
 * the value or output projection. */
#include "models/musicgen/session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

enum { PAGE = 4096, FIRST_CAP = 8 };

/* ---- Sizes ---- */

static au_delay delay_of(const au_net *net, const au_clip_spec *clip)
{
    return (au_delay){(size_t)net->config.lm.codebooks, (size_t)net->config.lm.channels,
                      clip->frames};
}

/* Whether the branch without text still gets something from cross-attention. */
static bool cross_has_bias(const au_net *net, const au_applied *applied)
{
    for (int i = 0; applied && i < net->config.lm.layers; i++) {
        const au_lora *v = au_applied_lora(applied, net->lm.layers[i].cross_v.module);
        const au_lora *o = au_applied_lora(applied, net->lm.layers[i].cross_o.module);
        if ((v && v->bias) || (o && o->bias))
            return true;
    }
    return false;
}

/* A text that a lane needs. */
typedef struct need {
    const int32_t *tokens;
    size_t S;
    const au_applied *applied;
} need;

/* The texts of a clip, first the prompt's; returns how many. The second branch has one of its own
 * with a negative prompt, or when a state of zero does something. */
static size_t list_needs(need needs[2], const au_net *net, const au_clip_spec *clip)
{
    size_t n = 0;
    needs[n++] = (need){clip->tokens, clip->n_tokens, clip->applied};
    if (clip->params->guidance > 1 &&
        (clip->negative || clip->alone || cross_has_bias(net, clip->applied)))
        needs[n++] = (need){clip->negative, clip->negative ? clip->n_negative : 1, clip->applied};
    return n;
}

static bool same_text(const need *a, const int32_t *tokens, size_t S, const au_applied *applied)
{
    return a->S == S && a->applied == applied && !a->tokens == !tokens &&
           (!tokens || memcmp(a->tokens, tokens, S * sizeof *tokens) == 0);
}

/* Takes `bytes` from a block; with base NULL only counts. */
static void *take(char *base, size_t *used, size_t bytes)
{
    void *p = base ? base + *used : NULL;
    *used += (bytes + 63) & ~(size_t)63;
    return p;
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* Lays a slot out over `base`, or with base NULL works out its size; likewise below. */
static size_t lay_out_slot(const au_net *net, const au_clip_spec *clip, char *base)
{
    const mg_config *c = &net->config;
    size_t used = 0, d = (size_t)c->lm.width, L = (size_t)c->lm.layers, K = (size_t)c->lm.codebooks,
           channels = (size_t)c->lm.channels, F = clip->frames;
    const au_delay delay = delay_of(net, clip);
    size_t steps = au_delay_steps(&delay), lanes = clip->params->guidance > 1 ? 2 : 1;
    mg_slot *slot = take(base, &used, sizeof *slot), parts = {.clip = clip};
    parts.delay = delay;
    parts.steps = steps;
    parts.n_lanes = lanes;
    parts.codes = take(base, &used, K * F * sizeof *parts.codes);
    for (size_t l = 0; l < lanes; l++) {
        parts.lanes[l].k = take(base, &used, L * steps * d * sizeof(float));
        parts.lanes[l].v = take(base, &used, L * steps * d * sizeof(float));
    }
    parts.rows = take(base, &used, K * F * sizeof *parts.rows);
    parts.codec_memory = take(base, &used, au_mg_codec_bytes(net, F, channels));
    parts.frames = take(base, &used, F * (size_t)c->codec.hop * channels * sizeof(float));
    for (size_t k = 0; k < K; k++)
        parts.next[k] = (size_t)c->lm.pad;
    parts.bytes = whole_pages(used);
    if (slot)
        *slot = parts;
    return parts.bytes;
}

static size_t lay_out_text(const au_net *net, const need *n, char *base)
{
    size_t used = 0,
           kv = (size_t)net->config.lm.layers * n->S * (size_t)net->config.lm.width * sizeof(float);
    mg_text *text = take(base, &used, sizeof *text), parts = {.S = n->S, .applied = n->applied};
    parts.tokens = take(base, &used, n->S * sizeof *parts.tokens);
    parts.k = take(base, &used, kv);
    parts.v = take(base, &used, kv);
    parts.bytes = whole_pages(used);
    if (text) {
        *text = parts;
        if (n->tokens)
            memcpy(parts.tokens, n->tokens, n->S * sizeof *parts.tokens);
        else
            text->tokens = NULL;
    }
    return parts.bytes;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t lay_out_work(au_sequence *s, const au_net *net, const mg_extent *e, int threads,
                           char *base)
{
    const mg_config *c = &net->config;
    size_t used = 0, d = (size_t)c->lm.width, K = (size_t)c->lm.codebooks, V = (size_t)c->lm.vocab,
           M = e->lanes, rows = max_size(M, e->text), scores = max_size(e->columns, e->text);
    s->lane_slot = take(base, &used, M * sizeof *s->lane_slot);
    s->lanes = take(base, &used, M * sizeof *s->lanes);
    s->applied = take(base, &used, rows * sizeof *s->applied);
    s->queries = take(base, &used, M * sizeof *s->queries);
    s->active = take(base, &used, e->clips * sizeof *s->active);
    s->x = take(base, &used, M * d * sizeof(float));
    s->h = take(base, &used, M * d * sizeof(float));
    s->q = take(base, &used, M * d * sizeof(float));
    s->k = take(base, &used, M * d * sizeof(float));
    s->v = take(base, &used, M * d * sizeof(float));
    s->o = take(base, &used, M * d * sizeof(float));
    s->wide = take(base, &used, M * (size_t)c->lm.ffn * sizeof(float));
    s->logits = take(base, &used, M * K * V * sizeof(float));
    s->scores = take(base, &used, (size_t)threads * scores * sizeof(float));
    s->sort = take(base, &used, (size_t)threads * V * sizeof(float));
    s->text_states = take(base, &used, e->text * (size_t)c->text.width * sizeof(float));
    s->encoder_states = take(base, &used, e->text * d * sizeof(float));
    /* A unit encodes a text or makes audio: both use the same stretch. */
    size_t text = au_mg_text_scratch(net, e->text, threads) * sizeof(float);
    size_t codec = au_mg_codec_scratch(net, (size_t)c->lm.channels, threads);
    s->text_scratch = take(base, &used, max_size(text, codec));
    s->codec_scratch = s->text_scratch;
    return whole_pages(used);
}

static void extend(mg_extent *e, const au_net *net, const au_clip_spec *clip)
{
    const au_delay delay = delay_of(net, clip);
    need needs[2];
    size_t n = list_needs(needs, net, clip);
    e->clips++;
    e->lanes += clip->params->guidance > 1 ? 2 : 1;
    e->columns = max_size(e->columns, au_delay_steps(&delay));
    for (size_t i = 0; i < n; i++)
        e->text = max_size(e->text, needs[i].S);
}

/* Whether one of the clips before `end` has the text already. */
static bool text_is_there(const need *n, const au_net *net, const au_clip_spec *const *clips,
                          size_t end)
{
    need needs[2];
    for (size_t i = 0; i < end; i++) {
        size_t count = list_needs(needs, net, clips[i]);
        for (size_t k = 0; k < count; k++)
            if (same_text(n, needs[k].tokens, needs[k].S, needs[k].applied))
                return true;
    }
    return false;
}

uint64_t au_mg_session_bytes(const au_net *net, const au_clip_spec *const *clips, size_t n,
                             int threads)
{
    au_sequence s = {0};
    mg_extent extent = {0};
    uint64_t bytes = 0;
    need needs[2];
    for (size_t i = 0; i < n; i++) {
        size_t count = list_needs(needs, net, clips[i]);
        extend(&extent, net, clips[i]);
        bytes += lay_out_slot(net, clips[i], NULL);
        for (size_t k = 0; k < count; k++)
            if (clips[i]->alone || !text_is_there(&needs[k], net, clips, i))
                bytes += lay_out_text(net, &needs[k], NULL);
    }
    return bytes + lay_out_work(&s, net, &extent, threads, NULL);
}

/* ---- Blocks ---- */

/* NULL: AU_NOMEM is in err. */
static void *map(size_t bytes, au_err *err)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p != MAP_FAILED)
        return p;
    (void)au_fail(err, AU_NOMEM, "cannot allocate %zu bytes of a session", bytes);
    return NULL;
}

static void unmap(void *block, size_t bytes)
{
    if (block)
        munmap(block, bytes);
}

/* Room for one more pointer in an array of them. */
static au_status reserve(void *array, size_t n, size_t *cap, au_err *err)
{
    void *old;
    if (n < *cap)
        return AU_OK;
    memcpy(&old, array, sizeof old);
    size_t want = *cap ? 2 * *cap : FIRST_CAP;
    void *p = realloc(old, want * sizeof p);
    if (!p)
        return au_fail(err, AU_NOMEM, "cannot allocate a list of %zu", want);
    memcpy(array, &p, sizeof p);
    *cap = want;
    return AU_OK;
}

/* The block of the work for what is there and, unless it is NULL, for one more clip. */
static au_status fit_work(au_sequence *s, const au_clip_spec *more, au_err *err)
{
    int threads = au_pool_threads(s->nn->pool);
    mg_extent extent = {0};
    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i])
            extend(&extent, s->net, s->slots[i]->clip);
    if (more)
        extend(&extent, s->net, more);
    au_sequence sized = *s;
    size_t bytes = lay_out_work(&sized, s->net, &extent, threads, NULL);
    if (bytes != s->block_bytes) {
        void *block = map(bytes, err);
        if (!block)
            return AU_NOMEM;
        unmap(s->block, s->block_bytes);
        s->block = block;
        s->block_bytes = bytes;
    }
    s->extent = extent;
    (void)lay_out_work(s, s->net, &extent, threads, s->block);
    return AU_OK;
}

static void drop_text(au_sequence *s, mg_text *text)
{
    if (!text || --text->users > 0)
        return;
    for (size_t i = 0; i < s->n_texts; i++)
        if (s->texts[i] == text) {
            s->texts[i] = s->texts[--s->n_texts];
            break;
        }
    unmap(text, text->bytes);
}

static au_status take_text(au_sequence *s, const need *n, mg_text **out, au_err *err)
{
    for (size_t i = 0; i < s->n_texts; i++) {
        mg_text *t = s->texts[i];
        if (same_text(n, t->tokens, t->S, t->applied)) {
            t->users++;
            *out = t;
            return AU_OK;
        }
    }
    au_status st = reserve(&s->texts, s->n_texts, &s->cap_texts, err);
    if (st != AU_OK)
        return st;
    void *block = map(lay_out_text(s->net, n, NULL), err);
    if (!block)
        return AU_NOMEM;
    (void)lay_out_text(s->net, n, block);
    *out = block;
    (*out)->users = 1;
    s->texts[s->n_texts++] = *out;
    return AU_OK;
}

static void drop_slot(au_sequence *s, mg_slot *slot)
{
    for (size_t l = 0; l < slot->n_lanes; l++)
        drop_text(s, slot->lanes[l].text);
    unmap(slot, slot->bytes);
}

/* ---- Session ---- */

au_status au_mg_join(au_sequence *s, const au_clip_spec *clip, size_t *index, au_err *err)
{
    const mg_config *c = &s->net->config;
    mg_slot *slot = NULL;
    need needs[2];
    size_t count = list_needs(needs, s->net, clip), at = 0;
    au_status st = AU_OK;
    while (at < s->n_slots && s->slots[at])
        at++;
    AU_TRY(reserve(&s->slots, at, &s->cap_slots, err));
    slot = map(lay_out_slot(s->net, clip, NULL), err);
    if (!slot)
        return AU_NOMEM;
    (void)lay_out_slot(s->net, clip, (char *)slot);
    for (size_t i = 0; i < count; i++)
        AU_TRY(take_text(s, &needs[i], &slot->lanes[i].text, err));
    if (mg_traced(s, slot)) {
        free(s->trace_logits);
        s->trace_logits = NULL;
        AU_TRY(au_calloc(&s->trace_logits, slot->steps * (size_t)(c->lm.codebooks * c->lm.vocab),
                         sizeof(float), err));
    }
    AU_TRY(fit_work(s, clip, err));
    s->slots[at] = slot;
    s->n_slots = max_size(s->n_slots, at + 1);
    *index = at;
done:
    if (st != AU_OK && slot)
        drop_slot(s, slot);
    return st;
}

void au_mg_leave(au_sequence *s, size_t index)
{
    drop_slot(s, s->slots[index]);
    s->slots[index] = NULL;
}

void au_mg_session_close(au_sequence **sp)
{
    au_sequence *s = *sp;
    if (!s)
        return;
    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i])
            drop_slot(s, s->slots[i]);
    unmap(s->block, s->block_bytes);
    free(s->trace_logits);
    free(s->texts);
    free(s->slots);
    free(s);
    *sp = NULL;
}

au_status au_mg_session_open(au_sequence **out, const au_net *net, const au_nn *nn,
                             const au_watch *watch, au_err *err)
{
    au_status st = au_calloc(out, 1, sizeof **out, err);
    if (st == AU_OK) {
        (*out)->net = net;
        (*out)->nn = nn;
        (*out)->watch = watch;
    }
    return st;
}
