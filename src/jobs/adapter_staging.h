/* SPDX-License-Identifier: MIT */
/* A staging folder: where the files of an adapter that a client sends are gathered before anything
 * else sees them. It lies in <data>/incoming/, on the file system of the store, and goes with its
 * request, or at the next start.
 *
 * Names that clients send are looked at and never become paths: only the files of au_adapter_file
 * are written, under names of our own. One owner; the files may be written from one thread and read
 * from another after it. */
#ifndef AU_JOBS_ADAPTER_STAGE_H
#define AU_JOBS_ADAPTER_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

typedef enum au_adapter_file {
    AU_ADAPTER_CONFIG,      /* adapter_config.json */
    AU_ADAPTER_SAFETENSORS, /* adapter_model.safetensors */
    AU_ADAPTER_BIN,         /* adapter_model.bin */
    AU_ADAPTER_FILES,
    AU_ADAPTER_ARCHIVE = AU_ADAPTER_FILES, /* as it was sent */
    AU_ADAPTER_OTHER,                      /* a README, say: left out */
} au_adapter_file;

enum {
    AU_STAGING_ENTRIES_MAX = 1000,
    AU_STAGING_NAME_MAX = 1024,
    AU_STAGING_CONFIG_MAX = 1 << 20,
    /* An archive may unpack to so many times its size, once that is more than a compressible config
     * could explain. Weights hardly shrink; what shrinks more is a bomb. */
    AU_STAGING_RATIO_MAX = 100,
    AU_STAGING_RATIO_FROM = 8 << 20,
};

typedef struct au_staging {
    char *dir;                 /* owned */
    uint64_t max_bytes, bytes; /* unpacked, of all entries */
    uint64_t min_free;         /* of the file system; checked now and then */
    uint64_t checked_at;       /* of `bytes` */
    au_arena arena;            /* for names */
    const char **seen;         /* names so far, in lower case */
    size_t n_seen;
    const char *folder; /* of the known files; NULL: none came yet */
    bool has[AU_ADAPTER_FILES];
    uint64_t size[AU_ADAPTER_OTHER];
    au_adapter_file current; /* being written */
    int fd;                  /* of it; -1: none */
} au_staging;

/* Makes <data_dir>/incoming/<uuid>/. The entries' sizes add up to max_bytes at most. */
AU_MUST_CHECK au_status au_staging_open(au_staging *s, const char *data_dir, uint64_t max_bytes,
                                        uint64_t min_free, au_err *err);
/* Removes the folder. A zeroed stage is fine. */
void au_staging_close(au_staging *s);
/* Removes what an earlier server left. */
AU_MUST_CHECK au_status au_staging_sweep(const char *data_dir, au_err *err);

/* One entry: its name, then its bytes, then its end. AU_INVALID: the name is not one that an
 * adapter needs to have (absolute, "..", a backslash, control characters, more than one folder
 * deep, given twice whatever the case of its letters), or a limit is exceeded; AU_NOSPACE, AU_IO.
 */
AU_MUST_CHECK au_status au_staging_begin(au_staging *s, const char *name, au_err *err);
AU_MUST_CHECK au_status au_staging_write(au_staging *s, const void *data, size_t len, au_err *err);
AU_MUST_CHECK au_status au_staging_end(au_staging *s, au_err *err);
/* An entry that is a folder: its name is checked alone. */
AU_MUST_CHECK au_status au_staging_folder(au_staging *s, const char *name, au_err *err);

/* An archive: begun with this, then au_staging_write and au_staging_end. */
AU_MUST_CHECK au_status au_staging_begin_archive(au_staging *s, au_err *err);
/* Its entries (zip, tar, tar.gz, tar.zst; told by its content); the archive is removed. AU_INVALID
 * as above, and for links, devices, encryption, damage, and bombs. */
AU_MUST_CHECK au_status au_staging_unpack(au_staging *s, au_err *err);
/* After the last entry: a config and weights are there (safetensors are kept where both kinds
 * came). AU_INVALID says which is missing. */
AU_MUST_CHECK au_status au_staging_finish(au_staging *s, au_err *err);

#endif
