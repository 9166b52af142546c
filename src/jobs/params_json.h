/* SPDX-License-Identifier: MIT */
/* Generation parameters as the one JSON text that jobs, recipes and files carry. Command line,
 * server and worker use these two, so that the same parameters give the same text, and with it the
 * same file. Stateless. */
#ifndef AU_JOBS_PARAMS_JSON_H
#define AU_JOBS_PARAMS_JSON_H

#include "aulos/aulos.h"

/* {"duration_s":10.0,"greedy":false,"guidance":3.0,"preset":"audiocraft","temperature":1.0,"top_k":250,"top_p":0.0};
 * owned by the caller (free). */
AU_MUST_CHECK au_status au_params_json(const au_params *params, char **json, au_err *err);

/* Reads such a text; every member must be there. AU_CORRUPT names what is missing. */
AU_MUST_CHECK au_status au_params_from_json(au_params *params, const char *json, au_err *err);

#endif
