/* SPDX-License-Identifier: MIT */
/* What `aulos generate` is to make, worked out from the command line alone, before any model is
 * loaded: prompts, variants, seeds and the name of each file. */
#ifndef AU_CLI_GENERATE_PLAN_H
#define AU_CLI_GENERATE_PLAN_H

#include "audio/audio.h"
#include "cli/cli.h"

typedef struct au_plan_prompt {
    char *text;
    size_t line; /* of --prompts, from 1; 0 for the one prompt of the command line */
} au_plan_prompt;

typedef struct au_plan_variant {
    char *folder;    /* as typed, without the strength; NULL: no adapter */
    char *name;      /* last part of folder, or "none" */
    double strength; /* 1 unless given */
} au_plan_variant;

/* One file. Clips are in the order prompt, variant, sample. */
typedef struct au_plan_clip {
    size_t prompt, variant, index;
    uint64_t seed;
    char *path;
} au_plan_clip;

typedef struct au_plan {
    au_plan_prompt *prompts;
    size_t n_prompts;
    au_plan_variant *variants; /* at least one */
    size_t n_variants;
    size_t n_samples; /* of each prompt and variant */
    uint64_t seed;
    au_format format;
    au_plan_clip *clips; /* n_prompts * n_variants * n_samples */
    size_t n_clips;
} au_plan;

enum {
    AU_PLAN_MAX_PROMPTS = 10000,
    AU_PLAN_MAX_PROMPT_BYTES = 1024 * 1024,
    AU_PLAN_MAX_CLIPS = 100000
};

/* AU_INVALID: wrong usage. Reads standard input or --prompts where that is asked for.
 * au_plan_deinit frees, also after an error. */
AU_MUST_CHECK au_status au_plan_init(au_plan *plan, const au_options *o, au_err *err);
void au_plan_deinit(au_plan *plan);

/* Every file of the plan can be written: its folder is there and lets us, and nothing is in the way
 * unless `force`. */
AU_MUST_CHECK au_status au_plan_check_files(const au_plan *plan, bool force, au_err *err);

/* "DIR:STRENGTH" at its last colon if a number from -2 to 2 follows; else all of it is the folder.
 * Owned by the caller. */
AU_MUST_CHECK au_status au_plan_split_adapter(const char *value, char **folder, double *strength,
                                              au_err *err);

#endif
