/* SPDX-License-Identifier: MIT */
/* Internal to adapters/: adapter_config.json of PEFT. */
#ifndef AU_ADAPTERS_CONFIG_H
#define AU_ADAPTERS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "adapters/pattern.h"
#include "adapters/problems.h"

typedef struct au_adapter_config {
    json_t *json; /* the whole object; owned */
    int64_t r;
    double alpha;
    bool rslora, dora, lora_bias;
    bool base_biases; /* bias is "all" or "lora_only" */
    au_patterns rank_pattern, alpha_pattern;
    const json_t *modules_to_save; /* array of texts, or NULL; borrowed from json */
    const json_t *target_modules;  /* array of texts, a text, or NULL; borrowed */
    const char *base_model;        /* or NULL; borrowed */
} au_adapter_config;

/* Reads what is there; what is wrong goes to `problems`. False if it is no LoRA at all, so that
 * looking at the tensors would only add noise. A status other than AU_OK: no memory. */
AU_MUST_CHECK au_status au_adapter_config_read(au_adapter_config *c, bool *usable, const char *text,
                                               size_t len, au_problems *problems, au_err *err);
void au_adapter_config_free(au_adapter_config *c);

/* Rank and alpha of a module: the first pattern that matches, else the defaults. A pattern that
 * takes too long is a problem. */
int64_t au_adapter_config_rank(au_adapter_config *c, const char *module, const char **pattern,
                               au_problems *problems);
double au_adapter_config_alpha(au_adapter_config *c, const char *module, au_problems *problems);
/* Whether modules_to_save names the module or a container of it, as PEFT matches: by plain suffix.
 */
bool au_adapter_config_saves(const au_adapter_config *c, const char *module);
/* Whether modules_to_save entry `entry` does. */
bool au_adapter_entry_saves(const char *entry, const char *module);

#endif
