/* SPDX-License-Identifier: MIT */
/* From a complete slot's codes to frames of audio. */
#include "models/musicgen/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef struct render_watch {
    au_sequence *s;
    mg_slot *slot;
} render_watch;

static bool render_wanted(void *user, size_t frames_done)
{
    render_watch *w = user;
    if (mg_clip_cancelled(w->s, w->slot)) {
        w->slot->left = true;
        return false;
    }
    mg_unit_done(w->s, w->slot, AU_STAGE_CODEC, frames_done, w->slot->delay.frames);
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
        mg_trace(s, "logits", "f32", 3,
                 (int64_t[]){(int64_t)slot->steps, c->lm.codebooks, c->lm.vocab}, s->trace_logits);
        mg_trace(s, "codes", "i64", 2, (int64_t[]){(int64_t)K, (int64_t)F}, wide);
        mg_trace(s, "audio", "f32", 2, (int64_t[]){(int64_t)channels, (int64_t)n}, planar);
    }
    free(wide);
    free(planar);
}

au_status au_mg_render(au_sequence *s, size_t index, float *frames, au_err *err)
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
    if (!au_mg_codec_decode(s->net, s->nn, codes, channels, F, frames, s->codec_scratch,
                            render_wanted, &watch))
        st = au_fail(err, AU_CANCELLED, "cancelled while decoding audio");
    else if (mg_traced(s, slot))
        trace_clip(s, slot, frames, slot->codes);
    free(rows);
    return st;
}
