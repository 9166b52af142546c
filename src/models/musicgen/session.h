/* SPDX-License-Identifier: MIT */
/* A session: session.c lets clips join and leave and gives them memory, text.c encodes their texts,
 * step.c steps them, and render.c turns them into audio. Shared by these files only.
 *
 * A slot is one clip. It owns one or two lanes: the conditional branch and, with guidance, a second
 * one. A lane is one row of every product and has its own self-attention cache; both lanes of a
 * slot are fed the same codes. Slots stand at their own columns, so they may differ in length and
 * join and leave between any two units of work. One thread owns a session.
 *
 * Memory: one block a slot (codes, caches, the clip's audio), one a text (shared by the slots that
 * have it), and one block for the work of a unit, of which nothing lasts until the next. */
#ifndef AU_MODELS_MUSICGEN_SESSION_H
#define AU_MODELS_MUSICGEN_SESSION_H

#include "models/musicgen/musicgen.h"

/* A text as the decoder sees it: keys and values of every layer's cross-attention. One per distinct
 * (tokens, adapter). */
typedef struct mg_text {
    size_t bytes;    /* of the block, which begins with this */
    int users;       /* lanes */
    bool made;       /* k and v are there */
    int32_t *tokens; /* [S]; NULL: no text, one state of zero */
    size_t S;
    const au_applied *applied;
    float *k, *v; /* [L, S, d] */
} mg_text;

typedef struct mg_lane {
    mg_text *text; /* NULL: cross-attention is skipped */
    float *k, *v;  /* [L, H, columns, head_dim] */
} mg_lane;

typedef struct mg_slot {
    size_t bytes; /* of the block, which begins with this */
    const au_clip_spec *clip;
    au_delay delay;
    size_t steps;  /* in all */
    size_t column; /* the next to be fed; steps when complete */
    bool left;     /* cancelled: waits for its owner to let it leave */
    mg_lane lanes[2];
    size_t n_lanes;
    int32_t *codes;                /* [K, F] */
    size_t next[MG_MAX_CODEBOOKS]; /* the column to be fed */
    void *codec_memory;
    mg_decode *decode; /* NULL: not begun */
    float *frames;     /* [F * hop, channels] */
    int32_t *rows;     /* [K, F] codes, channel by channel */
} mg_slot;

/* What the work of a unit is sized by. */
typedef struct mg_extent {
    size_t lanes, columns, text, clips;
} mg_extent;

struct au_sequence {
    const au_net *net;
    const au_nn *nn;
    const au_watch *watch;
    mg_slot **slots; /* [n_slots]; NULL: free */
    size_t n_slots, cap_slots;
    mg_text **texts; /* [n_texts] */
    size_t n_texts, cap_texts;
    void *block; /* of the work; the rest points into it */
    size_t block_bytes;
    mg_extent extent;
    /* Of the running step, M lanes; those with text come first. */
    mg_slot **lane_slot;
    mg_lane **lanes;
    const au_applied **applied;
    au_attend *queries;
    mg_slot **active;
    size_t n_active;
    float *x, *h, *q, *k, *v, *o; /* [M, d] */
    float *wide;                  /* [M, ffn] */
    float *logits;                /* [M, K, V] */
    float *scores;                /* [threads, max(columns, S)] */
    float *sort;                  /* [threads, V] */
    float *text_scratch, *text_states, *encoder_states;
    void *codec_scratch;
    float *trace_logits; /* [steps, K, V] of the traced slot; heap */
};

/* Before a unit of work: who is cancelled takes part in nothing more. */
static inline void mg_ask(au_sequence *s)
{
    for (size_t i = 0; i < s->n_slots; i++) {
        mg_slot *slot = s->slots[i];
        if (slot && !slot->left && s->watch->cancelled)
            slot->left = s->watch->cancelled(s->watch->user, slot->clip);
    }
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
uint64_t au_mg_session_bytes(const au_net *net, const au_clip_spec *const *clips, size_t n,
                             int threads);
au_status au_mg_session_open(au_sequence **out, const au_net *net, const au_nn *nn,
                             const au_watch *watch, au_err *err);
void au_mg_session_close(au_sequence **s);
au_status au_mg_join(au_sequence *s, const au_clip_spec *clip, size_t *slot, au_err *err);
void au_mg_leave(au_sequence *s, size_t index);
bool au_mg_encode(au_sequence *s);
void au_mg_step(au_sequence *s);
bool au_mg_render(au_sequence *s, size_t index, const float **frames);

#endif
