/* SPDX-License-Identifier: MIT */
/* The T5 encoder (transformers' T5Stack without decoder), for one text:
 *
 *   x = table[tokens]
 *   per layer: x += O Attention(RMS(x));  x += Wo act(Wi RMS(x))        [act gated: gelu_new(Wi0 h)
 * * (Wi1 h)] RMS(x)
 *
 * Scores are not scaled; a bias by head and bucket of the distance, from layer 0's table, is added
 * in every layer. No padding exists here: each text is encoded alone, so its bits do not depend on
 * a batch. */
#include "models/musicgen/musicgen.h"

#include <math.h>

mg_map au_mg_activation_fn(const au_kernels *k, mg_activation act)
{
    return act == MG_GELU ? k->gelu : act == MG_GELU_NEW ? k->gelu_new : k->relu;
}

/* T5Attention._relative_position_bucket, bidirectional; f32 where torch has f32. */
static size_t bucket_of(int64_t relative, int buckets, int max_distance)
{
    int half = buckets / 2, exact = half / 2;
    size_t base = relative > 0 ? (size_t)half : 0;
    int64_t a = relative < 0 ? -relative : relative;
    if (a < exact)
        return base + (size_t)a;
    float ratio =
        (float)log((double)((float)a / (float)exact)) / (float)log((double)max_distance / exact);
    int64_t large = exact + (int64_t)(ratio * (float)(half - exact));
    return base + (size_t)(large < half - 1 ? large : half - 1);
}

size_t au_mg_text_scratch(const au_net *net, size_t S, int threads)
{
    const mg_config *c = &net->config;
    size_t D = (size_t)c->text.width, inner = (size_t)c->text.inner, ffn = (size_t)c->text.ffn;
    size_t floats =
        S * (D + 4 * inner + 2 * ffn) + (size_t)c->text.heads * (2 * S - 1) + (size_t)threads * S;
    size_t tail = S * (sizeof(au_attend) + sizeof(void *)) / sizeof(float) + 4;
    return floats + tail;
}

bool au_mg_text_encode(const au_net *net, const au_nn *nn, const int32_t *tokens, size_t S,
                       const au_applied *applied, float *states, float *scratch,
                       bool (*keep_going)(void *, size_t layer), void *user)
{
    const mg_config *c = &net->config;
    size_t D = (size_t)c->text.width, inner = (size_t)c->text.inner, ffn = (size_t)c->text.ffn;
    size_t H = (size_t)c->text.heads, span = 2 * S - 1;
    /* Structures first: the block is 64-byte aligned. */
    au_attend *queries = (au_attend *)scratch;
    const au_applied **rows = (const au_applied **)(queries + S);
    float *h = (float *)(rows + S), *q = h + S * D, *k = q + S * inner, *v = k + S * inner,
          *o = v + S * inner;
    float *wide = o + S * inner, *gate = wide + S * ffn, *bias = gate + S * ffn,
          *scores = bias + H * span;
    float *x = states;

    for (size_t i = 0; i < S; i++) {
        rows[i] = applied;
        au_nn_embed(nn, x + i * D, &net->text.embed, (size_t)tokens[i], applied, h);
    }
    for (size_t i = 0; i < span; i++) {
        size_t bucket =
            bucket_of((int64_t)i - (int64_t)(S - 1), c->text.buckets, c->text.max_distance);
        for (size_t head = 0; head < H; head++)
            bias[head * span + i] =
                net->text.position_bias[head * (size_t)c->text.buckets + bucket];
    }
    for (size_t i = 0; i < S; i++)
        queries[i] =
            (au_attend){o + i * inner,      q + i * inner, k, v, (size_t)c->text.head_dim, inner, S,
                        bias + (S - 1 - i), span};

    mg_map act = au_mg_activation_fn(nn->k, c->text.act);
    const au_applied *const *per_row = applied ? rows : NULL;
    for (int i = 0; i < c->text.layers; i++) {
        const mg_text_layer *l = &net->text.layers[i];
        if (!keep_going(user, (size_t)i))
            return false;
        au_nn_norm(nn, h, x, &l->attn_norm, S, per_row);
        au_nn_linear(nn,
                     (au_linear_op[]){{q, inner, h, D, &l->q, S, per_row},
                                      {k, inner, h, D, &l->k, S, per_row},
                                      {v, inner, h, D, &l->v, S, per_row}},
                     3);
        au_nn_attention(nn, queries, S, H, (size_t)c->text.head_dim, 1.0f, scores, S);
        au_nn_linear(nn, &(au_linear_op){h, D, o, inner, &l->o, S, per_row}, 1);
        nn->k->add(x, x, h, S * D);

        au_nn_norm(nn, h, x, &l->ffn_norm, S, per_row);
        au_nn_linear(nn,
                     (au_linear_op[]){{wide, ffn, h, D, &l->wi, S, per_row},
                                      {gate, ffn, h, D, &l->wi_gate, S, per_row}},
                     c->text.gated ? 2 : 1);
        au_nn_map(nn, act, wide, S * ffn);
        if (c->text.gated)
            nn->k->mul(wide, wide, gate, S * ffn);
        au_nn_linear(nn, &(au_linear_op){h, D, wide, ffn, &l->wo, S, per_row}, 1);
        nn->k->add(x, x, h, S * D);
    }
    au_nn_norm(nn, x, x, &net->text.final_norm, S, per_row);
    return true;
}
