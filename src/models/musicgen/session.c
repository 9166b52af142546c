/* SPDX-License-Identifier: MIT */
/* Planning a session and encoding its texts.
 *
 * Everything a session needs is one planned block (mmap'd, so untouched pages cost nothing);
 * nothing is allocated in the step loop. The second branch without a negative prompt has encoder
 * states of zero: its cross-attention gives exactly 0 and is skipped, unless an adapter adds a bias
 * behind the value or output projection. */
#include "models/musicgen/session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

/* ---- Planning ---- */

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

/* Whether the slot's second branch has a text of its own (a negative prompt, or a state of zero).
 */
static bool second_text(const au_net *net, const au_clip_spec *clip)
{
    return clip->params->guidance > 1 && (clip->negative || cross_has_bias(net, clip->applied));
}

static mg_text *text_entry(mg_text *texts, size_t *n, const int32_t *tokens, size_t S,
                           const au_applied *applied)
{
    for (size_t i = 0; i < *n; i++)
        if (texts[i].S == S && texts[i].applied == applied && !texts[i].tokens == !tokens &&
            (!tokens || memcmp(texts[i].tokens, tokens, S * sizeof *tokens) == 0))
            return &texts[i];
    texts[*n] = (mg_text){tokens, S, applied, NULL, NULL};
    return &texts[(*n)++];
}

/* Takes `bytes` from a block; with base NULL only counts. */
static void *take(char *base, size_t *used, size_t bytes)
{
    void *p = base ? base + *used : NULL;
    *used += (bytes + 63) & ~(size_t)63;
    return p;
}

/* Lays the session out over `base`, or with base NULL works out its size. s is scratch in that
 * case. The texts are entered in both cases: s->texts has room for two per clip. */
static size_t lay_out(au_sequence *s, const au_net *net, const au_clip_spec *clips, size_t n,
                      int threads, char *base)
{
    const mg_config *c = &net->config;
    size_t used = 0, d = (size_t)c->lm.width, L = (size_t)c->lm.layers, K = (size_t)c->lm.codebooks,
           V = (size_t)c->lm.vocab;
    size_t max_frames = 0;
    s->n_texts = s->max_lanes = s->max_columns = s->max_text = 0;
    s->slots = take(base, &used, n * sizeof *s->slots);
    for (size_t i = 0; i < n; i++) {
        const au_clip_spec *clip = &clips[i];
        const au_delay delay = delay_of(net, clip);
        size_t steps = au_delay_steps(&delay), lanes = clip->params->guidance > 1 ? 2 : 1;
        int32_t *codes = take(base, &used, K * clip->frames * sizeof *codes);
        if (base)
            s->slots[i] = (mg_slot){
                .clip = clip, .delay = delay, .steps = steps, .n_lanes = lanes, .codes = codes};
        for (size_t l = 0; l < lanes; l++) {
            float *k = take(base, &used, L * steps * d * sizeof *k),
                  *v = take(base, &used, L * steps * d * sizeof *v);
            if (base)
                s->slots[i].lanes[l] = (mg_lane){NULL, k, v};
        }
        const mg_text *first = text_entry(s->texts, &s->n_texts, clip->tokens, clip->n_tokens,
                                          clip->applied),
                      *second = NULL;
        if (second_text(net, clip))
            second = text_entry(s->texts, &s->n_texts, clip->negative,
                                clip->negative ? clip->n_negative : 1, clip->applied);
        if (base) {
            s->slots[i].lanes[0].text = first;
            s->slots[i].lanes[1].text = second;
        }
        s->max_lanes += lanes;
        s->max_columns = s->max_columns > steps ? s->max_columns : steps;
        max_frames = max_frames > clip->frames ? max_frames : clip->frames;
    }
    for (size_t i = 0; i < s->n_texts; i++) {
        s->texts[i].k = take(base, &used, L * s->texts[i].S * d * sizeof(float));
        s->texts[i].v = take(base, &used, L * s->texts[i].S * d * sizeof(float));
        s->max_text = s->max_text > s->texts[i].S ? s->max_text : s->texts[i].S;
    }
    size_t M = s->max_lanes, rows = M > s->max_text ? M : s->max_text;
    size_t scores = s->max_columns > s->max_text ? s->max_columns : s->max_text;
    s->lane_slot = take(base, &used, M * sizeof *s->lane_slot);
    s->lanes = take(base, &used, M * sizeof *s->lanes);
    s->applied = take(base, &used, rows * sizeof *s->applied);
    s->queries = take(base, &used, M * sizeof *s->queries);
    s->active = take(base, &used, n * sizeof *s->active);
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
    s->text_states = take(base, &used, s->max_text * (size_t)c->text.width * sizeof(float));
    s->encoder_states = take(base, &used, s->max_text * d * sizeof(float));
    /* Text is encoded before the first step and clips are rendered one at a time: both use the same
     * stretch. */
    size_t text = au_mg_text_scratch(net, s->max_text, threads) * sizeof(float);
    size_t codec = au_mg_codec_scratch(net, max_frames, (size_t)c->lm.channels, threads);
    s->text_scratch = take(base, &used, text > codec ? text : codec);
    s->codec_scratch = s->text_scratch;
    return used;
}

uint64_t au_mg_session_bytes(const au_net *net, const au_clip_spec *clips, size_t n, int threads)
{
    au_sequence s = {.texts = malloc((2 * n + 1) * sizeof *s.texts)};
    size_t bytes = s.texts ? lay_out(&s, net, clips, n, threads, NULL) : SIZE_MAX;
    free(s.texts);
    return bytes;
}

/* ---- Text ---- */

typedef struct text_watch {
    au_sequence *s;
    const mg_text *text;
} text_watch;

/* A text is given up when nobody wants it any more. */
static bool text_wanted(void *user, size_t layer)
{
    const text_watch *w = user;
    bool wanted = false;
    for (size_t i = 0; i < w->s->n_slots; i++) {
        mg_slot *slot = &w->s->slots[i];
        if (slot->left || (slot->lanes[0].text != w->text && slot->lanes[1].text != w->text))
            continue;
        slot->left = mg_clip_cancelled(w->s, slot);
        if (slot->left)
            continue;
        wanted = true;
        mg_unit_done(w->s, slot, AU_STAGE_TEXT, layer, (size_t)w->s->net->config.text.layers);
    }
    return wanted;
}

static void trace_text(const au_sequence *s, const mg_text *text, const float *states)
{
    int64_t S = (int64_t)text->S, D = s->net->config.text.width, d = s->net->config.lm.width;
    int64_t *ids = malloc(text->S * sizeof *ids);
    if (!ids)
        return;
    for (size_t i = 0; i < text->S; i++)
        ids[i] = text->tokens[i];
    mg_trace(s, "token_ids", "i64", 1, &S, ids);
    free(ids);
    mg_trace(s, "text_states", "f32", 2, (int64_t[]){S, D}, s->text_states);
    mg_trace(s, "encoder_states", "f32", 2, (int64_t[]){S, d}, states);
}

static void make_text(au_sequence *s, const mg_text *text)
{
    const au_net *net = s->net;
    size_t S = text->S, d = (size_t)net->config.lm.width, D = (size_t)net->config.text.width;
    const float *states = s->encoder_states;
    text_watch watch = {s, text};
    for (size_t i = 0; i < S; i++)
        s->applied[i] = text->applied;
    const au_applied *const *applied = text->applied ? s->applied : NULL;
    if (!text->tokens) {
        memset(s->encoder_states, 0, S * d * sizeof *s->encoder_states);
    } else {
        if (!au_mg_text_encode(net, s->nn, text->tokens, S, text->applied, s->text_states,
                               s->text_scratch, text_wanted, &watch))
            return;
        if (net->has_proj)
            au_nn_linear(
                s->nn,
                &(au_linear_op){s->encoder_states, d, s->text_states, D, &net->proj, S, applied},
                1);
        else
            states = s->text_states;
        for (size_t i = 0; i < s->n_slots; i++)
            if (mg_traced(s, &s->slots[i]) && s->slots[i].lanes[0].text == text)
                trace_text(s, text, states);
    }
    for (int l = 0; l < net->config.lm.layers; l++) {
        const mg_lm_layer *layer = &net->lm.layers[l];
        float *k = text->k + (size_t)l * S * d, *v = text->v + (size_t)l * S * d;
        au_nn_linear(s->nn,
                     (au_linear_op[]){{k, d, states, d, &layer->cross_k, S, applied},
                                      {v, d, states, d, &layer->cross_v, S, applied}},
                     2);
    }
}

/* ---- Session ---- */

void au_mg_session_close(au_sequence **sp)
{
    au_sequence *s = *sp;
    if (!s)
        return;
    if (s->block)
        munmap(s->block, s->block_bytes);
    free(s->trace_logits);
    free(s->texts);
    free(s);
    *sp = NULL;
}

au_status au_mg_session_open(au_sequence **out, const au_net *net, const au_nn *nn,
                             const au_clip_spec *clips, size_t n, const au_watch *watch,
                             au_err *err)
{
    au_status st = AU_OK;
    au_sequence *s = NULL;
    int threads = au_pool_threads(nn->pool);
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->net = net;
    s->nn = nn;
    s->watch = watch;
    AU_TRY(au_calloc(&s->texts, 2 * n + 1, sizeof *s->texts, err));
    s->block_bytes = lay_out(s, net, clips, n, threads, NULL);
    void *block = mmap(NULL, s->block_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    AU_FAIL_IF(block == MAP_FAILED, AU_NOMEM, "cannot allocate a session of %zu bytes",
               s->block_bytes);
    s->block = block;
    lay_out(s, net, clips, n, threads, block);
    s->n_slots = n;
    for (size_t i = 0; i < n; i++) {
        mg_slot *slot = &s->slots[i];
        for (int k = 0; k < net->config.lm.codebooks; k++)
            slot->next[k] = (size_t)net->config.lm.pad;
        if (mg_traced(s, slot))
            AU_TRY(
                au_calloc(&s->trace_logits,
                          slot->steps * (size_t)(net->config.lm.codebooks * net->config.lm.vocab),
                          sizeof(float), err));
    }
    for (size_t i = 0; i < s->n_texts; i++)
        make_text(s, &s->texts[i]);
done:
    if (st != AU_OK)
        au_mg_session_close(&s);
    *out = s;
    return st;
}
