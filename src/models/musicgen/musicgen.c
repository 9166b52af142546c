/* SPDX-License-Identifier: MIT */
/* The MusicGen family: opening, and the session that steps all rows of a group together.
 *
 * A slot is one clip. It owns one or two lanes: the conditional branch and, with guidance, a second
 * one. A lane is one row of every product and has its own self-attention cache; both lanes of a
 * slot are fed the same codes. Slots stand at their own columns, so they may differ in length and
 * leave at any step. The second branch without a negative prompt has encoder states of zero: its
 * cross-attention gives exactly 0 and is skipped, unless an adapter adds a bias behind the value or
 * output projection.
 *
 * Everything a session needs is one planned block (mmap'd, so untouched pages cost nothing). One
 * thread owns it. */
#include "models/musicgen/musicgen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "sample/sampler.h"

/* A text as the decoder sees it: keys and values of every layer's cross-attention. One per distinct
 * (tokens, adapter). */
typedef struct mg_text {
    const int32_t *tokens; /* NULL: no text, one state of zero */
    size_t S;
    const au_applied *applied;
    float *k, *v; /* [L, S, d] */
} mg_text;

typedef struct mg_lane {
    const mg_text *text; /* NULL: cross-attention is skipped */
    float *k, *v;        /* [L, H, columns, head_dim] */
} mg_lane;

typedef struct mg_slot {
    const au_clip_spec *clip;
    au_delay delay;
    size_t steps;  /* in all */
    size_t column; /* the next to be fed; steps when complete */
    bool left;
    mg_lane lanes[2];
    size_t n_lanes;
    int32_t *codes;                /* [K, F] */
    size_t next[MG_MAX_CODEBOOKS]; /* the column to be fed */
} mg_slot;

struct au_sequence {
    const au_net *net;
    const au_nn *nn;
    const au_watch *watch;
    void *block;
    size_t block_bytes;
    mg_slot *slots;
    size_t n_slots;
    mg_text *texts;
    size_t n_texts;
    /* Of the running step, M lanes; those with text come first. */
    size_t max_lanes, max_columns, max_text;
    mg_slot **lane_slot;
    mg_lane **lanes;
    const au_applied **applied;
    au_attend *queries;
    float *x, *h, *q, *k, *v, *o; /* [M, d] */
    float *wide;                  /* [M, ffn] */
    float *logits;                /* [M, K, V] */
    float *scores;                /* [threads, max(columns, S)] */
    float *sort;                  /* [threads, V] */
    float *text_scratch, *text_states, *encoder_states;
    void *codec_scratch;
    float *trace_logits; /* [steps, K, V] of the traced slot; heap */
    mg_slot **active;
    size_t n_active;
};

/* ---- Opening ---- */

static void close_net(au_net **net)
{
    if (!*net)
        return;
    au_arena_deinit(&(*net)->arena);
    free(*net);
    *net = NULL;
}

static au_status open_net(au_net **out, const au_source *source, au_pool *pool, au_err *err)
{
    (void)pool;
    au_status st = AU_OK;
    au_net *net = NULL;
    mg_problems problems = {0};
    au_buf_init(&problems.text, sizeof err->message - 64);
    AU_TRY(au_calloc(&net, 1, sizeof *net, err));
    au_arena_init(&net->arena, SIZE_MAX / 4);
    mg_config_read(&net->config, source->config, source->generation, &problems);
    if (!problems.count)
        AU_TRY(mg_weights_bind(net, source->tensors, &problems, err));
    if (!problems.count && source->tokenizer &&
        au_tokenizer_vocab(source->tokenizer) > net->config.text.vocab)
        mg_problem(&problems, AU_CORRUPT,
                   "%s gives ids up to %d, config.json: text_encoder.vocab_size is %d",
                   au_tokenizer_file(source->tokenizer),
                   (int)au_tokenizer_vocab(source->tokenizer) - 1, net->config.text.vocab);
    if (problems.unlisted)
        st = au_fail(err, problems.status, "%s\nand %zu more problems", au_buf_cstr(&problems.text),
                     problems.unlisted);
    else if (problems.count)
        st = au_fail(err, problems.status, "%s", au_buf_cstr(&problems.text));
done:
    au_buf_deinit(&problems.text);
    if (st != AU_OK)
        close_net(&net);
    *out = net;
    return st;
}

static void net_info(const au_net *net, au_model_info *info)
{
    const mg_config *c = &net->config;
    info->family = "musicgen";
    info->sample_rate = c->codec.sample_rate;
    info->channels = c->lm.channels;
    info->frame_rate = c->codec.frame_rate;
    info->hop = c->codec.hop;
    info->codebooks = c->lm.codebooks;
    info->vocab = c->lm.vocab;
    info->text_width = c->text.width;
    info->width = c->lm.width;
    info->layers = c->lm.layers;
    info->trained_s = 30; /* every published MusicGen; the config has no field for it */
    info->max_prompt_tokens = MG_MAX_PROMPT_TOKENS;
    info->hf_guidance = c->generation.guidance;
    info->hf_temperature = c->generation.temperature;
    info->hf_top_k = c->generation.top_k;
    info->hf_top_p = c->generation.top_p;
}

static const au_module *net_modules(const au_net *net, size_t *n)
{
    *n = net->n_modules;
    return net->modules;
}

static au_status net_report(const au_net *net, json_t *object, au_err *err)
{
    const mg_config *c = &net->config;
    json_t *text =
        json_pack("{s:i, s:i, s:i, s:i, s:i}", "width", c->text.width, "layers", c->text.layers,
                  "heads", c->text.heads, "ffn", c->text.ffn, "vocab", c->text.vocab);
    json_t *lm = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "width", c->lm.width, "layers",
                           c->lm.layers, "heads", c->lm.heads, "ffn", c->lm.ffn, "codebooks",
                           c->lm.codebooks, "vocab", c->lm.vocab, "channels", c->lm.channels);
    json_t *codec =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i}", "sample_rate", c->codec.sample_rate, "hop",
                  c->codec.hop, "frame_rate", c->codec.frame_rate, "quantizers",
                  c->codec.quantizers, "filters", c->codec.filters, "lstm_layers", c->codec.n_lstm);
    int failed = json_object_set_new(object, "text_encoder", text) |
                 json_object_set_new(object, "decoder", lm) |
                 json_object_set_new(object, "codec", codec);
    return failed ? au_fail(err, AU_NOMEM, "cannot allocate the report") : AU_OK;
}

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
    size_t text = mg_text_scratch(net, s->max_text, threads) * sizeof(float);
    size_t codec = mg_codec_scratch(net, max_frames, (size_t)c->lm.channels, threads);
    s->text_scratch = take(base, &used, text > codec ? text : codec);
    s->codec_scratch = s->text_scratch;
    return used;
}

static uint64_t session_bytes(const au_net *net, const au_clip_spec *clips, size_t n, int threads)
{
    au_sequence s = {.texts = malloc((2 * n + 1) * sizeof *s.texts)};
    size_t bytes = s.texts ? lay_out(&s, net, clips, n, threads, NULL) : SIZE_MAX;
    free(s.texts);
    return bytes;
}

/* ---- Text ---- */

static bool clip_cancelled(const au_sequence *s, const mg_slot *slot)
{
    return s->watch->cancelled && s->watch->cancelled(s->watch->user, slot->clip);
}

static void unit_done(const au_sequence *s, const mg_slot *slot, au_stage stage, size_t done,
                      size_t of)
{
    if (s->watch->unit_done)
        s->watch->unit_done(s->watch->user, slot->clip, stage, done, of);
}

static bool traced(const au_sequence *s, const mg_slot *slot)
{
    return s->watch->trace && slot->clip == s->watch->traced;
}

static void trace(const au_sequence *s, const char *stage, const char *dtype, int rank,
                  const int64_t *shape, const void *data)
{
    s->watch->trace(stage, dtype, rank, shape, data, s->watch->trace_user);
}

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
        slot->left = clip_cancelled(w->s, slot);
        if (slot->left)
            continue;
        wanted = true;
        unit_done(w->s, slot, AU_STAGE_TEXT, layer, (size_t)w->s->net->config.text.layers);
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
    trace(s, "token_ids", "i64", 1, &S, ids);
    free(ids);
    trace(s, "text_states", "f32", 2, (int64_t[]){S, D}, s->text_states);
    trace(s, "encoder_states", "f32", 2, (int64_t[]){S, d}, states);
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
        if (!mg_text_encode(net, s->nn, text->tokens, S, text->applied, s->text_states,
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
            if (traced(s, &s->slots[i]) && s->slots[i].lanes[0].text == text)
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

static void session_close(au_sequence **sp)
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

static au_status session_open(au_sequence **out, const au_net *net, const au_nn *nn,
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
        if (traced(s, slot))
            AU_TRY(
                au_calloc(&s->trace_logits,
                          slot->steps * (size_t)(net->config.lm.codebooks * net->config.lm.vocab),
                          sizeof(float), err));
    }
    for (size_t i = 0; i < s->n_texts; i++)
        make_text(s, &s->texts[i]);
done:
    if (st != AU_OK)
        session_close(&s);
    *out = s;
    return st;
}

static void leave(au_sequence *s, size_t slot)
{
    s->slots[slot].left = true;
}

static bool complete(const au_sequence *s, size_t slot)
{
    return !s->slots[slot].left && s->slots[slot].column == s->slots[slot].steps;
}

/* ---- A step ---- */

/* Lists the active slots and their lanes, those with cross-attention first; returns how many those
 * are. */
static size_t gather_lanes(au_sequence *s, size_t *M)
{
    size_t m = 0, with_text = 0;
    s->n_active = 0;
    for (size_t i = 0; i < s->n_slots; i++) {
        mg_slot *slot = &s->slots[i];
        if (!slot->left && slot->column < slot->steps)
            slot->left = clip_cancelled(s, slot);
        if (!slot->left && slot->column < slot->steps)
            s->active[s->n_active++] = slot;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < s->n_active; i++)
            for (size_t l = 0; l < s->active[i]->n_lanes; l++) {
                mg_lane *lane = &s->active[i]->lanes[l];
                if ((pass == 0) != (lane->text != NULL))
                    continue;
                s->lane_slot[m] = s->active[i];
                s->applied[m] = s->active[i]->clip->applied;
                s->lanes[m++] = lane;
            }
        if (pass == 0)
            with_text = m;
    }
    *M = m;
    return with_text;
}

static void embed_columns(au_sequence *s, size_t M)
{
    const au_net *net = s->net;
    const au_kernels *kn = s->nn->k;
    size_t d = (size_t)net->config.lm.width;
    for (size_t m = 0; m < M; m++) {
        const mg_slot *slot = s->lane_slot[m];
        float *x = s->x + m * d;
        for (int k = 0; k < net->config.lm.codebooks; k++) {
            au_nn_embed(s->nn, k ? s->h : x, &net->lm.embed[k], slot->next[k], slot->clip->applied,
                        s->o);
            if (k)
                kn->add(x, x, s->h, d);
        }
        au_nn_sinusoid(s->h, net->lm.freqs, d, slot->column);
        kn->add(x, x, s->h, d);
    }
}

static void self_attention(au_sequence *s, const mg_lm_layer *layer, size_t l, size_t M,
                           const au_applied *const *applied)
{
    const mg_config *c = &s->net->config;
    size_t d = (size_t)c->lm.width, H = (size_t)c->lm.heads, D = (size_t)c->lm.head_dim;
    au_nn_norm(s->nn, s->h, s->x, &layer->self_norm, M, applied);
    au_nn_linear(s->nn,
                 (au_linear_op[]){{s->q, d, s->h, d, &layer->q, M, applied},
                                  {s->k, d, s->h, d, &layer->k, M, applied},
                                  {s->v, d, s->h, d, &layer->v, M, applied}},
                 3);
    for (size_t m = 0; m < M; m++) {
        const mg_slot *slot = s->lane_slot[m];
        size_t T = slot->steps, t = slot->column;
        float *k = s->lanes[m]->k + l * T * d, *v = s->lanes[m]->v + l * T * d; /* [H, T, D] */
        for (size_t h = 0; h < H; h++) {
            memcpy(k + (h * T + t) * D, s->k + m * d + h * D, D * sizeof *k);
            memcpy(v + (h * T + t) * D, s->v + m * d + h * D, D * sizeof *v);
        }
        s->queries[m] = (au_attend){.o = s->o + m * d,
                                    .q = s->q + m * d,
                                    .k = k,
                                    .v = v,
                                    .head_stride = T * D,
                                    .row_stride = D,
                                    .T = t + 1};
    }
    size_t max = s->max_columns > s->max_text ? s->max_columns : s->max_text;
    au_nn_attention(s->nn, s->queries, M, H, D, (float)pow((double)D, -0.5), s->scores, max);
    au_nn_linear(s->nn, &(au_linear_op){s->h, d, s->o, d, &layer->o, M, applied}, 1);
    s->nn->k->add(s->x, s->x, s->h, M * d);
}

static void cross_attention(au_sequence *s, const mg_lm_layer *layer, size_t l, size_t M,
                            const au_applied *const *applied)
{
    const mg_config *c = &s->net->config;
    size_t d = (size_t)c->lm.width, H = (size_t)c->lm.heads, D = (size_t)c->lm.head_dim;
    if (!M)
        return;
    au_nn_norm(s->nn, s->h, s->x, &layer->cross_norm, M, applied);
    au_nn_linear(s->nn, &(au_linear_op){s->q, d, s->h, d, &layer->cross_q, M, applied}, 1);
    for (size_t m = 0; m < M; m++) {
        const mg_text *t = s->lanes[m]->text;
        s->queries[m] = (au_attend){.o = s->o + m * d,
                                    .q = s->q + m * d,
                                    .k = t->k + l * t->S * d,
                                    .v = t->v + l * t->S * d,
                                    .head_stride = D,
                                    .row_stride = d,
                                    .T = t->S};
    }
    size_t max = s->max_columns > s->max_text ? s->max_columns : s->max_text;
    au_nn_attention(s->nn, s->queries, M, H, D, (float)pow((double)D, -0.5), s->scores, max);
    au_nn_linear(s->nn, &(au_linear_op){s->h, d, s->o, d, &layer->cross_o, M, applied}, 1);
    s->nn->k->add(s->x, s->x, s->h, M * d);
}

static void feed_forward(au_sequence *s, const mg_lm_layer *layer, size_t M,
                         const au_applied *const *applied)
{
    size_t d = (size_t)s->net->config.lm.width, ffn = (size_t)s->net->config.lm.ffn;
    au_nn_norm(s->nn, s->h, s->x, &layer->ffn_norm, M, applied);
    au_nn_linear(s->nn, &(au_linear_op){s->wide, ffn, s->h, d, &layer->fc1, M, applied}, 1);
    au_nn_map(s->nn, mg_activation_fn(s->nn->k, s->net->config.lm.act), s->wide, M * ffn);
    au_nn_linear(s->nn, &(au_linear_op){s->h, d, s->wide, ffn, &layer->fc2, M, applied}, 1);
    s->nn->k->add(s->x, s->x, s->h, M * d);
}

/* The logits [K, V] of a lane. */
static float *lane_logits(const au_sequence *s, const mg_lane *lane, size_t M)
{
    for (size_t m = 0; m < M; m++)
        if (s->lanes[m] == lane)
            return s->logits + m * (size_t)(s->net->config.lm.codebooks * s->net->config.lm.vocab);
    AU_ASSERT(!"lane of an active slot is missing");
    return NULL;
}

typedef struct choose_run {
    au_sequence *s;
    size_t M;
} choose_run;

/* One codebook of one active slot: guidance, then the token for the next column. */
static void choose_token(void *ctx, size_t item, int thread)
{
    const choose_run *run = ctx;
    au_sequence *s = run->s;
    const mg_config *c = &s->net->config;
    size_t K = (size_t)c->lm.codebooks, V = (size_t)c->lm.vocab, k = item % K, frame;
    mg_slot *slot = s->active[item / K];
    const au_params *p = slot->clip->params;
    float *logits = lane_logits(s, &slot->lanes[0], run->M) + k * V;
    if (slot->n_lanes == 2)
        au_sample_guide(logits, logits, lane_logits(s, &slot->lanes[1], run->M) + k * V,
                        (float)p->guidance, V);
    if (s->trace_logits && traced(s, slot))
        memcpy(s->trace_logits + (slot->column * K + k) * V, logits, V * sizeof *logits);
    size_t column = slot->column + 1;
    if (!au_delay_frame(&slot->delay, k, column, &frame)) {
        slot->next[k] = (size_t)c->lm.pad;
        return;
    }
    bool top_p = p->top_p > 0 && p->top_p < 1;
    const au_sampler sampler = {
        .greedy = p->greedy,
        .temperature = (float)p->temperature,
        .top_k = top_p && p->preset == AU_PRESET_AUDIOCRAFT ? 0 : (size_t)p->top_k,
        .top_p = p->top_p,
    };
    const au_draw draw = {slot->clip->seed, AU_STREAM_TOKENS, (uint32_t)column, (uint32_t)k};
    size_t token =
        au_sample_token(s->nn->k, &sampler, &draw, logits, V, s->sort + (size_t)thread * V);
    slot->codes[k * slot->delay.frames + frame] = (int32_t)token;
    slot->next[k] = token;
}

static au_status step(au_sequence *s, size_t *active, au_err *err)
{
    (void)err;
    const au_net *net = s->net;
    const mg_config *c = &net->config;
    size_t M, d = (size_t)c->lm.width, K = (size_t)c->lm.codebooks, V = (size_t)c->lm.vocab;
    size_t with_text = gather_lanes(s, &M);
    *active = 0;
    if (!M)
        return AU_OK;
    bool adapted = false;
    for (size_t m = 0; m < M; m++)
        adapted |= s->applied[m] != NULL;
    const au_applied *const *applied = adapted ? s->applied : NULL;
    embed_columns(s, M);
    for (size_t l = 0; l < (size_t)c->lm.layers; l++) {
        self_attention(s, &net->lm.layers[l], l, M, applied);
        cross_attention(s, &net->lm.layers[l], l, with_text, applied);
        feed_forward(s, &net->lm.layers[l], M, applied);
    }
    au_nn_norm(s->nn, s->x, s->x, &net->lm.final_norm, M, applied);
    au_linear_op heads[MG_MAX_CODEBOOKS];
    for (size_t k = 0; k < K; k++)
        heads[k] = (au_linear_op){s->logits + k * V, K * V, s->x, d, &net->lm.heads[k], M, applied};
    au_nn_linear(s->nn, heads, K);
    choose_run run = {s, M};
    au_pool_run(s->nn->pool, s->n_active * K, choose_token, &run);
    for (size_t i = 0; i < s->n_active; i++) {
        mg_slot *slot = s->active[i];
        slot->column++;
        *active += slot->column < slot->steps;
        unit_done(s, slot, AU_STAGE_DECODE, slot->column, slot->steps);
    }
    return AU_OK;
}

/* ---- Rendering ---- */

typedef struct render_watch {
    au_sequence *s;
    mg_slot *slot;
} render_watch;

static bool render_wanted(void *user, size_t frames_done)
{
    render_watch *w = user;
    if (clip_cancelled(w->s, w->slot)) {
        w->slot->left = true;
        return false;
    }
    unit_done(w->s, w->slot, AU_STAGE_CODEC, frames_done, w->slot->delay.frames);
    return true;
}

static void trace_clip(const au_sequence *s, const mg_slot *slot, const float *frames,
                       const int32_t *codes)
{
    const mg_config *c = &s->net->config;
    size_t K = (size_t)c->lm.codebooks, F = slot->delay.frames, n = F * (size_t)c->codec.hop,
           channels = (size_t)c->lm.channels;
    int64_t *wide = malloc(K * F * sizeof *wide);
    float *planar = malloc(n * channels * sizeof *planar);
    if (wide && planar) {
        for (size_t i = 0; i < K * F; i++)
            wide[i] = codes[i];
        for (size_t i = 0; i < n; i++)
            for (size_t ch = 0; ch < channels; ch++)
                planar[ch * n + i] = frames[i * channels + ch];
        trace(s, "logits", "f32", 3,
              (int64_t[]){(int64_t)slot->steps, c->lm.codebooks, c->lm.vocab}, s->trace_logits);
        trace(s, "codes", "i64", 2, (int64_t[]){(int64_t)K, (int64_t)F}, wide);
        trace(s, "audio", "f32", 2, (int64_t[]){(int64_t)channels, (int64_t)n}, planar);
    }
    free(wide);
    free(planar);
}

static au_status render(au_sequence *s, size_t index, float *frames, au_err *err)
{
    mg_slot *slot = &s->slots[index];
    const mg_config *c = &s->net->config;
    size_t K = (size_t)c->lm.codebooks, channels = (size_t)c->lm.channels, F = slot->delay.frames,
           Kc = K / channels;
    AU_ASSERT(slot->column == slot->steps && !slot->left);
    /* Rows L0, R0, L1, R1, ... become the two channels' rows, one after the other. */
    int32_t *rows;
    au_status st = au_calloc(&rows, K * F, sizeof *rows, err);
    if (st != AU_OK)
        return st;
    const int32_t *codes[2];
    for (size_t ch = 0; ch < channels; ch++) {
        codes[ch] = rows + ch * Kc * F;
        for (size_t q = 0; q < Kc; q++)
            memcpy(rows + (ch * Kc + q) * F, slot->codes + (q * channels + ch) * F,
                   F * sizeof *rows);
    }
    render_watch watch = {s, slot};
    if (!mg_codec_decode(s->net, s->nn, codes, channels, F, frames, s->codec_scratch, render_wanted,
                         &watch))
        st = au_fail(err, AU_CANCELLED, "cancelled while decoding audio");
    else if (traced(s, slot))
        trace_clip(s, slot, frames, slot->codes);
    free(rows);
    return st;
}

const au_family au_family_musicgen = {
    .name = "musicgen",
    .open = open_net,
    .close = close_net,
    .info = net_info,
    .modules = net_modules,
    .report = net_report,
    .session_bytes = session_bytes,
    .session_open = session_open,
    .session_close = session_close,
    .step = step,
    .leave = leave,
    .complete = complete,
    .render = render,
};
