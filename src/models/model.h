/* SPDX-License-Identifier: MIT */
/* What a model family is to the engine: one vtable, one folder under models/. The engine owns
 * files, adapters, threads, grouping and callbacks; a family owns its config, its table of tensors
 * and its arithmetic. */
#ifndef AU_MODELS_MODEL_H
#define AU_MODELS_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters/adapters.h"
#include "aulos/aulos.h"
#include "nn/nn.h"
#include "tensor/tensor.h"
#include "tokenizer/tokenizer.h"

/* Everything a family reads from. Borrowed until the net is closed. */
typedef struct au_source {
    const json_t *config;     /* config.json */
    const json_t *generation; /* generation_config.json; NULL if there is none */
    const au_tensor_set *tensors;
    const au_tokenizer *tokenizer;
} au_source;

typedef struct au_net au_net;           /* a family's opened model: read-only */
typedef struct au_sequence au_sequence; /* a family's session: slots with clips in the making */

/* One clip to be made. Borrowed until the slot is left. */
typedef struct au_clip_spec {
    const int32_t *tokens; /* of the prompt, [S] */
    size_t n_tokens;
    const int32_t *negative; /* of the negative prompt; NULL: guidance against no text */
    size_t n_negative;
    const au_applied *applied; /* NULL: no adapter */
    uint64_t seed;
    size_t frames;           /* F */
    const au_params *params; /* checked */
} au_clip_spec;

/* Asked before each unit of work for each clip that takes part; true: that clip is to be left.
 * Called on the owner's thread. */
typedef struct au_watch {
    bool (*cancelled)(void *user, const au_clip_spec *clip);
    void (*unit_done)(void *user, const au_clip_spec *clip, au_stage stage, size_t done, size_t of);
    au_trace_fn trace; /* stages of `traced`; NULL: none */
    const au_clip_spec *traced;
    void *trace_user;
    void *user;
} au_watch;

typedef struct au_family {
    const char *name; /* model_type in config.json */

    /* Checks config and every tensor; lists all problems. Allocates what must be converted (folded
     * convolutions). */
    au_status (*open)(au_net **out, const au_source *source, au_err *err);
    void (*close)(au_net **net);
    void (*info)(const au_net *net,
                 au_model_info *info); /* fills all but name, dir, fingerprint, weights_bytes */
    const au_module *(*modules)(const au_net *net, size_t *n);
    /* Adds family-specific members to the report of `model inspect`. */
    au_status (*report)(const au_net *net, json_t *object, au_err *err);

    /* Bytes that a session for just these clips takes. */
    uint64_t (*session_bytes)(const au_net *net, const au_clip_spec *clips, size_t n, int threads);
    /* One planned allocation; clip i takes slot i and its text is encoded. */
    au_status (*session_open)(au_sequence **out, const au_net *net, const au_nn *nn,
                              const au_clip_spec *clips, size_t n, const au_watch *watch,
                              au_err *err);
    void (*session_close)(au_sequence **s);
    /* One decoder step for all slots that are not left or complete. *active: how many still need
     * steps afterwards. */
    au_status (*step)(au_sequence *s, size_t *active, au_err *err);
    void (*leave)(au_sequence *s, size_t slot);
    bool (*complete)(const au_sequence *s, size_t slot);
    /* The clip of a complete slot: frames [n_frames, channels]. AU_CANCELLED if the watch said so.
     */
    au_status (*render)(au_sequence *s, size_t slot, float *frames, au_err *err);
} au_family;

extern const au_family au_family_musicgen;

/* The family of a config's model_type; AU_UNSUPPORTED names the type and those that are known. */
AU_MUST_CHECK au_status au_family_find(const au_family **out, const json_t *config, au_err *err);

#endif
