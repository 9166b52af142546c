/* SPDX-License-Identifier: MIT */
/* Internal to adapters/: what the name of a tensor in an adapter file says. */
#ifndef AU_ADAPTERS_KEYS_H
#define AU_ADAPTERS_KEYS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum au_part {
    AU_PART_A,         /* lora_A.weight */
    AU_PART_B,         /* lora_B.weight */
    AU_PART_B_BIAS,    /* lora_B.bias */
    AU_PART_EMBED_A,   /* lora_embedding_A */
    AU_PART_EMBED_B,   /* lora_embedding_B */
    AU_PART_MAGNITUDE, /* lora_magnitude_vector */
    AU_PART_WEIGHT,    /* the module's own weight: modules_to_save */
    AU_PART_BIAS,      /* the module's own bias: modules_to_save, or a trained base bias */
    AU_PART_COUNT
} au_part;

typedef struct au_key {
    const char *module; /* within the name, not NUL-terminated */
    size_t module_len;
    au_part part;
} au_key;

const char *au_part_name(au_part part);

/* Splits a name such as base_model.model.a.b.q_proj.lora_A.default.weight; false for a name of no
 * known form. */
bool au_key_parse(au_key *key, const char *name);

#endif
