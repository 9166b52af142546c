/* SPDX-License-Identifier: MIT */
/* Shared by the files of this folder only: what stands behind the opaque types of aulos.h. */
#ifndef AU_ENGINE_ENGINE_H
#define AU_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "adapters/adapters.h"
#include "aulos/aulos.h"
#include "models/model.h"

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
};

/* An adapter at one strength, ready for the layers. */
typedef struct au_strength {
    struct au_strength *next;
    double strength;
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
        *strengths; /* made so far; only touched while the model is busy with a request of ours */
};

/* The adapter at a strength; borrowed until the adapter is closed or au_adapter_trim is called. The
 * caller runs the model's request. */
AU_MUST_CHECK au_status au_adapter_at(au_adapter *adapter, double strength, const au_applied **out,
                                      au_err *err);
/* Forgets strengths when many have gathered. Called before a request uses any. */
void au_adapter_trim(au_adapter *adapter);

/* Identity of a checkpoint, 64 hexadecimal digits (architecture: "Model identity"). */
AU_MUST_CHECK au_status au_fingerprint(char out[65], const char *dir, const char *tokenizer_file,
                                       const au_tensor_set *tensors, au_err *err);

#endif
