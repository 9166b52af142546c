/* SPDX-License-Identifier: MIT */
/* Generation parameters as JSON: the one text that jobs store, recipes in files carry and replies
 * show. Stateless.
 *
 * {"duration_s":10,"greedy":false,"guidance":3,"preset":"audiocraft","temperature":1,"top_k":250,"top_p":0}:
 * one line, keys sorted, all values resolved. Equal parameters give equal bytes, whoever writes
 * them, so that a clip made by the command line is the same file as one made by a job. */
#ifndef AU_JOBS_JOB_PARAMS_H
#define AU_JOBS_JOB_PARAMS_H

#include "aulos/aulos.h"
#include "base/json.h"

const char *au_preset_name(au_preset preset); /* "audiocraft", "hf" */
bool au_preset_parse(const char *name, au_preset *out);

/* A new reference. NULL when out of memory. */
json_t *au_params_to_json(const au_params *params);
/* The text; owned by the caller (free). */
AU_MUST_CHECK au_status au_params_text(const au_params *params, char **out, au_err *err);
/* From such a text. AU_CORRUPT names what is missing or not understood; values are not checked
 * (au_params_check). */
AU_MUST_CHECK au_status au_params_from_text(au_params *out, const char *text, au_err *err);

#endif
