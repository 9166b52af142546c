/* SPDX-License-Identifier: MIT */
/* One step of the decoder (transformers' MusicgenDecoder) for all active lanes together, and the
 * choice of the next codes:
 *
 *   x = sum of K embeddings + sinusoid(column)
 *   per layer: x += Wo SelfAttention(LN x);  x += Wo' CrossAttention(LN x, E);  x += fc2 act(fc1 LN
 * x) K heads of LN x; guidance, sampling, delay pattern */
#include "models/musicgen/session.h"

#include <math.h>
#include <string.h>

#include "sample/sampler.h"

static bool has_texts(const mg_slot *slot)
{
    for (size_t l = 0; l < slot->n_lanes; l++)
        if (slot->lanes[l].text && !slot->lanes[l].text->made)
            return false;
    return true;
}

/* Lists the active slots and their lanes, those with cross-attention first; returns how many those
 * are. */
static size_t gather_lanes(au_sequence *s, size_t *M)
{
    size_t m = 0, with_text = 0;
    s->n_active = 0;
    mg_ask(s);
    for (size_t i = 0; i < s->n_slots; i++) {
        mg_slot *slot = s->slots[i];
        if (slot && !slot->left && slot->column < slot->steps && has_texts(slot))
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
    size_t max = s->extent.columns > s->extent.text ? s->extent.columns : s->extent.text;
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
    size_t max = s->extent.columns > s->extent.text ? s->extent.columns : s->extent.text;
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
    au_nn_map(s->nn, au_mg_activation_fn(s->nn->k, s->net->config.lm.act), s->wide, M * ffn);
    au_nn_linear(s->nn, &(au_linear_op){s->h, d, s->wide, ffn, &layer->fc2, M, applied}, 1);
    s->nn->k->add(s->x, s->x, s->h, M * d);
}

/* The logits [K, V] of a lane that took part in this step. */
static float *lane_logits(const au_sequence *s, const mg_lane *lane, size_t M)
{
    size_t m = 0;
    while (m < M && s->lanes[m] != lane)
        m++;
    AU_ASSERT(m < M);
    return s->logits + m * (size_t)(s->net->config.lm.codebooks * s->net->config.lm.vocab);
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
    if (s->trace_logits && mg_traced(s, slot))
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

void au_mg_step(au_sequence *s)
{
    const au_net *net = s->net;
    const mg_config *c = &net->config;
    size_t M, d = (size_t)c->lm.width, K = (size_t)c->lm.codebooks, V = (size_t)c->lm.vocab;
    size_t with_text = gather_lanes(s, &M);
    if (!M)
        return;
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
        mg_unit_done(s, slot, AU_STAGE_DECODE, slot->column, slot->steps);
    }
}
