/* SPDX-License-Identifier: MIT */
/* Changes of adapters, each inside a transaction of the writer (reading is catalog.h).
 *
 * A name means one adapter at a time, its current one. Content decides identity: the same files are
 * the same row for ever, whatever name they come with; other files under a name are a new version
 * of it, with an id of its own. Jobs pin ids, so versions that are replaced or deleted stay until
 * nothing names them. */
#ifndef AU_JOBS_ADAPTER_WRITE_H
#define AU_JOBS_ADAPTER_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/uuid.h"
#include "db/db.h"

typedef enum au_upload_outcome {
    AU_UPLOAD_NEW,   /* a new row, or one that was rejected or deleted, to be checked */
    AU_UPLOAD_KNOWN, /* this content is here already; nothing to check */
    AU_UPLOAD_NAME_TAKEN,
} au_upload_outcome;

typedef struct au_upload {
    const char *name, *description; /* description NULL: none */
    const char *base_model;         /* that it must fit; NULL: any */
    bool replace;                   /* may be a new version of a name */
    char sha256[AU_SHA256_TEXT];
    int64_t bytes;
    /* Found: */
    au_upload_outcome outcome;
    char id[AU_UUID_TEXT]; /* of the row; NAME_TAKEN: of the one that has the name */
} au_upload;

/* What would become of it now; reads alone. */
AU_MUST_CHECK au_status au_upload_look(au_db *db, au_upload *u, au_err *err);
/* Looks again and writes the row, state "validating", current only where nothing else has the name;
 * the content must be in the store. The intent of its copy is removed. */
AU_MUST_CHECK au_status au_upload_put(au_db *db, au_upload *u, au_err *err);

/* The check ended (au_finding_write was called): makes a ready one its name's current one; a
 * rejected one loses its copy: *drop is then its store key, whose objects the caller removes before
 * au_upload_dropped (AU_STORE_KEY bytes; "" otherwise). */
AU_MUST_CHECK au_status au_upload_checked(au_db *db, const char *id, char *drop, au_err *err);
AU_MUST_CHECK au_status au_upload_dropped(au_db *db, const char *key, au_err *err);

/* A new name or description (NULL: as it is). AU_NOT_FOUND; AU_EXISTS: another adapter that is not
 * rejected has the name. */
AU_MUST_CHECK au_status au_adapter_row_patch(au_db *db, const char *id, const char *name,
                                             const char *description, au_err *err);
/* Soft. *changed false: it was deleted already. */
AU_MUST_CHECK au_status au_adapter_row_delete(au_db *db, const char *id, bool *changed,
                                              au_err *err);
/* Undoes it; where its name means another adapter now, as an old version. *changed false: it is not
 * deleted. */
AU_MUST_CHECK au_status au_adapter_row_restore(au_db *db, const char *id, bool *changed,
                                               au_err *err);

/* Stores an event "created", "updated", "deleted" or "restored" with the row's id, name, version
 * and state. */
AU_MUST_CHECK au_status au_adapter_event(au_db *db, const char *id, const char *event, au_err *err);

#endif
