/* SPDX-License-Identifier: MIT */
/* The texts of a session: token ids to the keys and values that the decoder's cross-attention
 * reads, once for all slots that have the text with the same adapter. */
#include "models/musicgen/session.h"

#include <stdlib.h>
#include <string.h>

typedef struct text_watch {
    au_sequence *s;
    const mg_text *text;
} text_watch;

/* A text is given up when nobody wants it any more. */
static bool text_wanted(void *user, size_t layer)
{
    const text_watch *w = user;
    bool wanted = false;
    mg_ask(w->s);
    for (size_t i = 0; i < w->s->n_slots; i++) {
        const mg_slot *slot = w->s->slots[i];
        if (!slot || slot->left ||
            (slot->lanes[0].text != w->text && slot->lanes[1].text != w->text))
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

static void make_text(au_sequence *s, mg_text *text)
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
            if (s->slots[i] && mg_traced(s, s->slots[i]) && s->slots[i]->lanes[0].text == text)
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
    text->made = true;
}

bool au_mg_encode(au_sequence *s)
{
    for (size_t i = 0; i < s->n_slots; i++) {
        const mg_slot *slot = s->slots[i];
        for (size_t l = 0; slot && !slot->left && l < slot->n_lanes; l++)
            if (slot->lanes[l].text && !slot->lanes[l].text->made) {
                make_text(s, slot->lanes[l].text);
                return true;
            }
    }
    return false;
}
