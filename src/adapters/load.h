/* SPDX-License-Identifier: MIT */
/* Internal to adapters/: reading and checking an adapter, with everything found on the way, for the
 * set that the engine uses and for the report that people read. */
#ifndef AU_ADAPTERS_LOAD_H
#define AU_ADAPTERS_LOAD_H

#include "adapters/adapters.h"
#include "adapters/config.h"
#include "adapters/keys.h"
#include "base/arena.h"

/* What the file holds for one module. */
typedef struct au_target {
    const char *path; /* of the module; owned by the load's arena */
    const au_tensor *parts[AU_PART_COUNT];
    size_t module; /* index in the model's list, SIZE_MAX: not there, or no list was given */
    int64_t rank;  /* 0: no low-rank part */
    double scale;
    au_delta delta;
} au_target;

typedef struct au_adapter_load {
    au_problems problems;
    au_adapter_config config;
    bool usable; /* the config is that of a LoRA */
    au_arena arena;
    au_tensor_set *tensors; /* owned; NULL if the weights could not be read */
    au_target *targets;     /* in order of path; owned */
    size_t n_targets, matched;
    json_t *unmatched;        /* names of tensors that belong to no module */
    size_t *by_path;          /* indices of `modules` in order of path; owned */
    float *block;             /* all widened tensors; owned; NULL until load_widen */
    const au_module *modules; /* borrowed */
    size_t n_modules;
} au_adapter_load;

/* Checks config text and tensors (taken over, may be NULL) against the modules. What is wrong with
 * the adapter is found in l->problems; a status other than AU_OK means that no answer was possible.
 * Free in any case. */
AU_MUST_CHECK au_status au_adapter_load_run(au_adapter_load *l, const char *config,
                                            size_t config_len, au_tensor_set *tensors,
                                            const au_module *modules, size_t n, au_err *err);
/* Reads the files of a folder and runs the above. AU_NOT_FOUND if there is no such folder. */
AU_MUST_CHECK au_status au_adapter_load_dir(au_adapter_load *l, const char *dir,
                                            const au_module *modules, size_t n, au_err *err);
void au_adapter_load_free(au_adapter_load *l);

/* The checks of one target, in check.c. */
void au_target_check(au_adapter_load *l, au_target *t);
/* modules_to_save and target_modules against the model and the file. */
void au_config_check(au_adapter_load *l);
/* Widens the tensors of all targets into l->block. */
AU_MUST_CHECK au_status au_targets_widen(au_adapter_load *l, au_err *err);
/* A problem if no target would change the model at strength 1. */
AU_MUST_CHECK au_status au_targets_check_effect(au_adapter_load *l, au_err *err);

/* The name of the weights file in the folder: adapter_model.safetensors, or adapter_model.bin; NULL
 * if neither is there. */
const char *au_adapter_weights_name(const char *dir);
/* Path of a module index by its path, SIZE_MAX if it is not in the list. */
size_t au_adapter_find_module(const au_adapter_load *l, const char *path);

#endif
