/* SPDX-License-Identifier: MIT */
/* Shared by the files of this folder only: what stands behind the opaque types of aulos.h. */
#ifndef AU_ENGINE_ENGINE_H
#define AU_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "adapters/adapters.h"
#include "aulos/aulos.h"
#include "models/model.h"

/* What the stages of this model cost on this machine, measured by the sessions that ran, for the
 * progress figure alone. Touched by the owner of the model's session only. */
typedef struct au_pace {
    double codec_s, codec_frames; /* seconds spent on so many frames, old ones fading; 0: none */
    /* By which share of the first step each later one takes longer than the one before it, since
     * the cache of the attention grows; -1: not known yet. */
    double growth;
} au_pace;

struct au_model {
    atomic_int refs;
    atomic_flag busy; /* a request is running */
    char *dir, *name;
    char fingerprint[65];
    json_t *config, *generation;
    au_tensor_set *tensors;
    au_tokenizer *tokenizer;
    const au_family *family;
    au_net *net;
    au_pool *pool;
    au_nn nn;
    au_model_info info;
    au_pace pace;
};

/* An adapter at one strength, ready for the layers. */
typedef struct au_strength {
    struct au_strength *next;
    double strength;
    int users; /* rows */
    au_applied applied;
    au_lora *loras;            /* [n] what applied.loras points to */
    const au_lora **by_module; /* [n modules] */
    float *floats;             /* factors and scaled biases */
} au_strength;

struct au_adapter {
    atomic_int refs;
    au_model *model; /* owns a reference */
    au_adapter_set *set;
    char *dir, *name;
    au_adapter_info info;
    au_strength
        *strengths; /* made so far; only touched while the model is busy with a session of ours */
};

/* The adapter at a strength, until au_adapter_let_go. Owner of the model's session only. */
AU_MUST_CHECK au_status au_adapter_at(au_adapter *adapter, double strength, const au_applied **out,
                                      au_err *err);
void au_adapter_let_go(au_adapter *adapter, const au_applied *applied);
/* Forgets strengths that no row uses, when many have gathered. */
void au_adapter_trim(au_adapter *adapter);

/* A row as a family wants it. */
typedef struct au_ready_row {
    au_clip_spec clip;
    au_params params;
    int32_t *tokens, *negative; /* owned */
    au_adapter *adapter;        /* owned reference or NULL */
    size_t steps;
    double codec_share; /* work of the codec for a frame, in first decoder steps */
    double growth;      /* as in au_pace; 0: not known */
} au_ready_row;
/* Checks the row and turns its texts into tokens. The clip points into `out`, which must stay where
 * it is; it has no adapter yet. */
AU_MUST_CHECK au_status au_ready_row_init(au_ready_row *out, const au_model *model,
                                          const au_row *row, double max_duration_s, au_err *err);
void au_ready_row_deinit(au_ready_row *row);
/* Work in first decoder steps, for progress: of the whole row, and what is done when a stage is at
 * `done` of `of`. */
double au_row_work(const au_ready_row *row);
double au_row_work_done(const au_ready_row *row, au_stage stage, size_t done, size_t of);
/* Session memory when the caller names no limit. */
uint64_t au_default_memory(void);

/* Identity of a checkpoint, 64 hexadecimal digits (architecture: "Model identity"). */
AU_MUST_CHECK au_status au_fingerprint(char out[65], const char *dir, const char *tokenizer_file,
                                       const au_tensor_set *tensors, au_err *err);

#endif
