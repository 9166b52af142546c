/* SPDX-License-Identifier: MIT */
/* From a complete slot's codes to frames of audio, a stretch at a time. */
#include "models/musicgen/session.h"

#include <stdlib.h>
#include <string.h>

static void trace_clip(const au_sequence *s, const mg_slot *slot)
{
    const mg_config *c = &s->net->config;
    size_t K = (size_t)c->lm.codebooks, F = slot->delay.frames, n = F * (size_t)c->codec.hop,
           channels = (size_t)c->lm.channels;
    int64_t *wide = malloc(K * F * sizeof *wide);
    float *planar = malloc(n * channels * sizeof *planar);
    if (wide && planar) {
        for (size_t i = 0; i < K * F; i++)
            wide[i] = slot->codes[i];
        for (size_t i = 0; i < n; i++)
            for (size_t ch = 0; ch < channels; ch++)
                planar[ch * n + i] = slot->frames[i * channels + ch];
        mg_trace(s, "logits", "f32", 3,
                 (int64_t[]){(int64_t)slot->steps, c->lm.codebooks, c->lm.vocab}, s->trace_logits);
        mg_trace(s, "codes", "i64", 2, (int64_t[]){(int64_t)K, (int64_t)F}, wide);
        mg_trace(s, "audio", "f32", 2, (int64_t[]){(int64_t)channels, (int64_t)n}, planar);
    }
    free(wide);
    free(planar);
}

/* Rows L0, R0, L1, R1, ... become the two channels' rows, one after the other. */
static void begin(au_sequence *s, mg_slot *slot)
{
    const mg_config *c = &s->net->config;
    size_t K = (size_t)c->lm.codebooks, channels = (size_t)c->lm.channels, F = slot->delay.frames,
           Kc = K / channels;
    const int32_t *codes[2];
    for (size_t ch = 0; ch < channels; ch++) {
        codes[ch] = slot->rows + ch * Kc * F;
        for (size_t q = 0; q < Kc; q++)
            memcpy(slot->rows + (ch * Kc + q) * F, slot->codes + (q * channels + ch) * F,
                   F * sizeof *slot->rows);
    }
    slot->decode = au_mg_codec_begin(s->net, s->nn, codes, channels, F, slot->frames,
                                     slot->codec_memory, s->codec_scratch);
}

bool au_mg_render(au_sequence *s, size_t index, const float **frames)
{
    mg_slot *slot = s->slots[index];
    size_t done;
    AU_ASSERT(slot->column == slot->steps);
    mg_ask(s);
    if (slot->left)
        return false;
    if (!slot->decode)
        begin(s, slot);
    bool more = au_mg_codec_next(slot->decode, s->codec_scratch, &done);
    if (!more && mg_traced(s, slot))
        trace_clip(s, slot);
    *frames = more ? NULL : slot->frames;
    mg_unit_done(s, slot, AU_STAGE_CODEC, done, slot->delay.frames);
    return true;
}
