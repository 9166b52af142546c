/* SPDX-License-Identifier: MIT */
/* What a server knows how to run: models opened and checked before it listens, adapter folders
 * checked against each of them and copied into the store.
 *
 * The set of models is fixed at opening and read by any thread. au_registry_scan may run on one
 * thread at a time; it writes through the writer. */
#ifndef AU_JOBS_REGISTRY_H
#define AU_JOBS_REGISTRY_H

#include "aulos/aulos.h"
#include "db/writer.h"
#include "store/store.h"

typedef struct au_registry au_registry;

/* One model as given: a name that is unique, and a folder. */
typedef struct au_model_spec {
    const char *name; /* NULL: last part of dir */
    const char *dir;
} au_model_spec;

/* Opens every model (AU_CONFLICT for equal names; what au_model_open says with the name before it)
 * and writes their rows; the first is the default. */
AU_MUST_CHECK au_status au_registry_open(au_registry **out, const au_model_spec *models, size_t n,
                                         au_writer *writer, au_err *err);
void au_registry_close(au_registry **r);

size_t au_registry_count(const au_registry *r);
const char *au_registry_name(const au_registry *r, size_t i);
au_model *au_registry_model(const au_registry *r, size_t i); /* borrowed */
/* NULL name: the default. NULL result: no such model. */
au_model *au_registry_find(const au_registry *r, const char *name);
/* Longest clip in seconds that jobs for this model may ask for: 30, or what it was trained on where
 * that is more. */
double au_registry_max_duration_s(const au_model *m);

/* Held by whoever copies an adapter's files into the store and writes its row, so that two who have
 * the same content at the same time do so one after the other. */
void au_registry_lock(au_registry *r);
void au_registry_unlock(au_registry *r);

/* Checks every subfolder of `dirs` against every model. Good ones are copied into the store and
 * become (or stay) rows "ready"; bad ones become rows "rejected" with their report. Missing folders
 * are skipped. Fails only when database or store do. */
AU_MUST_CHECK au_status au_registry_scan(au_registry *r, const char *const *dirs, size_t n_dirs,
                                         au_db *reader, au_writer *writer, au_store *store,
                                         au_err *err);

#endif
