/* SPDX-License-Identifier: MIT */
/* From what the user typed to a folder: models by name, adapters by name. */
#ifndef AU_CLI_MODEL_PATH_H
#define AU_CLI_MODEL_PATH_H

#include "cli/cli.h"

#define AU_SHIPPED_MODEL "aulos-small"

/* Where names of models are looked up, in order: --model-path, <data>/models, the build tree's and
 * the installed models. Owned texts; folders need not exist. */
typedef struct au_model_path {
    char **dirs;
    size_t n;
} au_model_path;

AU_MUST_CHECK au_status au_model_path_init(au_model_path *p, const au_options *o, au_err *err);
void au_model_path_deinit(au_model_path *p);

/* The folder of a model, with a '/' in it, owned by the caller (free). `value` with a '/' is a
 * folder, else a name. AU_NOT_FOUND says where it was looked for. */
AU_MUST_CHECK au_status au_model_path_find(const au_model_path *p, const char *value, char **dir,
                                           au_err *err);

/* The one model of a command that takes one: its --model, else the model that ships. AU_INVALID if
 * several are given. */
AU_MUST_CHECK au_status au_model_path_one(const au_options *o, char **dir, au_err *err);

/* All models of serve and worker, in the order given (the model that ships if none). An array of n
 * owned texts, owned by the caller (au_model_path_free_list). */
AU_MUST_CHECK au_status au_model_path_all(const au_options *o, char ***dirs, size_t *n,
                                          au_err *err);
void au_model_path_free_list(char ***dirs, size_t n);

/* The folder of an adapter: `value` where it is a folder, else <model_dir>/adapters/<value>. */
AU_MUST_CHECK au_status au_adapter_path_find(const char *model_dir, const char *value, char **dir,
                                             au_err *err);

#endif
