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

/* One clip to be made. Borrowed from join to leave. */
typedef struct au_clip_spec {
    const int32_t *tokens; /* of the prompt, [S] */
    size_t n_tokens;
    const int32_t *negative; /* of the negative prompt; NULL: guidance against no text */
    size_t n_negative;
    const au_applied *applied; /* NULL: no adapter */
    uint64_t seed;
    size_t frames;           /* F */
    const au_params *params; /* checked */
    bool alone; /* for session_bytes: counts its texts as its own, whatever else is there */
} au_clip_spec;

/* Called on the owner's thread. */
typedef struct au_watch {
    /* Asked before each unit of work (a decoder step, a layer of the text encoder, a stretch of
     * audio) for each clip of the session; true: it takes part in nothing more, and is to be left.
     */
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

    /* A session is a set of slots. Its owner does one unit of work after the other, and between any
     * two lets clips join and leave. Memory is mapped and unmapped when a clip joins or leaves,
     * never by a unit of work; the arithmetic of a slot does not depend on its neighbours. */

    /* Bytes that a session with just these clips takes. */
    uint64_t (*session_bytes)(const au_net *net, const au_clip_spec *const *clips, size_t n,
                              int threads);
    au_status (*session_open)(au_sequence **out, const au_net *net, const au_nn *nn,
                              const au_watch *watch, au_err *err);
    void (*session_close)(au_sequence **s);
    /* AU_NOMEM: nothing changed. The number of a slot is that of its clip until it is left. */
    au_status (*join)(au_sequence *s, const au_clip_spec *clip, size_t *slot, au_err *err);
    void (*leave)(au_sequence *s, size_t slot);
    /* One text that a slot waits for; false: none does. */
    bool (*encode)(au_sequence *s);
    /* One decoder step for all slots that have their text and are not complete. */
    void (*step)(au_sequence *s);
    bool (*complete)(const au_sequence *s, size_t slot);
    /* The next stretch of audio of a complete slot; false: its clip was cancelled. *frames is set
     * when the clip is whole: [n_frames, channels], the slot's until it is left. One slot at a
     * time. */
    bool (*render)(au_sequence *s, size_t slot, const float **frames);
} au_family;

extern const au_family au_family_musicgen;

/* The family of a config's model_type; AU_UNSUPPORTED names the type and those that are known. */
AU_MUST_CHECK au_status au_family_find(const au_family **out, const json_t *config, au_err *err);

#endif
