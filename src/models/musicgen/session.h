/* SPDX-License-Identifier: MIT */
/* A session: what session.c plans and fills with texts, step.c steps, and render.c turns into
 * audio. Shared by these files only.
 *
 * A slot is one clip. It owns one or two lanes: the conditional branch and, with guidance, a second
 * one. A lane is one row of every product and has its own self-attention cache; both lanes of a
 * slot are fed the same codes. Slots stand at their own columns, so they may differ in length and
 * leave at any step. One thread owns a session. */
#ifndef AU_MODELS_MUSICGEN_SESSION_H
#define AU_MODELS_MUSICGEN_SESSION_H

#include "models/musicgen/musicgen.h"

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

static inline bool mg_clip_cancelled(const au_sequence *s, const mg_slot *slot)
{
    return s->watch->cancelled && s->watch->cancelled(s->watch->user, slot->clip);
}

static inline void mg_unit_done(const au_sequence *s, const mg_slot *slot, au_stage stage,
                                size_t done, size_t of)
{
    if (s->watch->unit_done)
        s->watch->unit_done(s->watch->user, slot->clip, stage, done, of);
}

static inline bool mg_traced(const au_sequence *s, const mg_slot *slot)
{
    return s->watch->trace && slot->clip == s->watch->traced;
}

static inline void mg_trace(const au_sequence *s, const char *stage, const char *dtype, int rank,
                            const int64_t *shape, const void *data)
{
    s->watch->trace(stage, dtype, rank, shape, data, s->watch->trace_user);
}

/* See model.h for what these promise. */
uint64_t au_mg_session_bytes(const au_net *net, const au_clip_spec *clips, size_t n, int threads);
au_status au_mg_session_open(au_sequence **out, const au_net *net, const au_nn *nn,
                             const au_clip_spec *clips, size_t n, const au_watch *watch,
                             au_err *err);
void au_mg_session_close(au_sequence **s);
au_status au_mg_step(au_sequence *s, size_t *active, au_err *err);
au_status au_mg_render(au_sequence *s, size_t index, float *frames, au_err *err);

#endif
