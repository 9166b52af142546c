/* SPDX-License-Identifier: MIT */
/* The parameters of a job: one table, from which bodies are checked and params_schema of a model is
 * made. */
#ifndef AU_API_JOB_PARAMS_H
#define AU_API_JOB_PARAMS_H

#include "api/api.h"
#include "api/json_check.h"

/* The longest clip that this server makes with a model. */
double au_job_max_duration_s(const au_serve_config *config, const au_model *model);

/* Reads "params" and "duration_s" of a job's body into *out, with the preset's defaults for what is
 * absent. Notes what is wrong. */
void au_job_params_parse(au_check *c, const json_t *body, const au_serve_config *config,
                         const au_model *model, au_params *out);
/* Array of {name, type, min, max, default, step, help}; new reference or NULL. */
json_t *au_job_params_schema(const au_serve_config *config, const au_model *model);

#endif
