/* SPDX-License-Identifier: MIT */
/* The check of an adapter against the models of a registry, and its way into the store: the same
 * for folders that a server finds and for uploads. */
#ifndef AU_JOBS_ADAPTER_CHECK_H
#define AU_JOBS_ADAPTER_CHECK_H

#include "base/hash.h"
#include "jobs/registry.h"

/* How the check against one model ended. */
typedef struct au_verdict {
    const char *fingerprint; /* of the model; borrowed from the registry */
    bool ready;
    char *report; /* JSON; owned */
} au_verdict;

typedef struct au_finding {
    const char *dir;             /* borrowed */
    const char *wanted;          /* the model that it must fit; NULL: any. Borrowed */
    char sha256[AU_SHA256_TEXT]; /* "": could not be computed */
    au_verdict *verdicts;        /* [n_models]; owned */
    size_t n_models;
    size_t chosen; /* the verdict that decides; n_models: there is none */
    bool ready;
    const char *family, *base_model; /* of the chosen model; NULL where not ready */
    char kind[16];
    int rank, targets;
    double alpha;
    int64_t bytes;
    au_err problem; /* why it is not ready */
} au_finding;

/* Checks the folder against every model. f->dir and f->wanted are set, the rest is zero. What is
 * wrong with the adapter is in the finding; a status other than AU_OK means that no answer was
 * possible. Deinit in any case. */
AU_MUST_CHECK au_status au_finding_run(au_finding *f, const au_registry *r, au_err *err);
void au_finding_deinit(au_finding *f);

/* The report that the row shows; borrowed from the finding. */
const char *au_finding_report(const au_finding *f);
/* The row's error: a problem as JSON, owned by the caller; NULL where it is ready. */
AU_MUST_CHECK au_status au_finding_error(char **out, const au_finding *f, au_err *err);
/* Writes what was found into the row `id`, and how the check against each model ended. With
 * `fits_only` the row itself stays as it is. In a transaction. */
AU_MUST_CHECK au_status au_finding_write(au_db *db, const au_finding *f, const char *id,
                                         bool fits_only, au_err *err);

/* Copies config and weights of `dir` to adapters/<sha256>/ and makes sure that the copy has that
 * hash (AU_AGAIN: the folder changed meanwhile). An intent in uploads comes first, unless a row
 * owns the copy already; whoever writes the row removes it. One thread at a time: under
 * au_registry_lock. */
AU_MUST_CHECK au_status au_adapter_store(au_store *store, au_writer *writer, const char *sha256,
                                         const char *dir, au_err *err);
/* "adapter_model.safetensors" or "adapter_model.bin", as the folder has it, or NULL. */
const char *au_adapter_weights_file(const char *dir);

#endif
