/* SPDX-License-Identifier: MIT */
/* Files: whole reads with a limit, read-only maps, atomic writes, folders, locks. Stateless. */
#ifndef AU_BASE_FS_H
#define AU_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The whole file, NUL-terminated (the NUL is not in *len); owned by the caller (free). AU_LIMIT
 * when larger than max_bytes; AU_NOT_FOUND; AU_IO (a folder, a device). */
AU_MUST_CHECK au_status au_file_read(char **out, size_t *len, const char *path, size_t max_bytes,
                                     au_err *err);

bool au_file_exists(const char *path); /* anything of that name */
bool au_dir_exists(const char *path);

/* dir + "/" + name, owned by the caller. */
AU_MUST_CHECK au_status au_path_join(char **out, const char *dir, const char *name, au_err *err);
const char *au_path_base(const char *path); /* after the last '/'; borrowed from path */

/* mkdir -p with mode 0777 & ~umask. */
AU_MUST_CHECK au_status au_mkdirs(const char *path, au_err *err);
/* Removes a folder with everything in it; does not follow links. Missing is fine. */
AU_MUST_CHECK au_status au_remove_tree(const char *path, au_err *err);
AU_MUST_CHECK au_status au_fsync_dir(const char *path, au_err *err);

/* A read-only shared map of a regular file. An empty file gives data = NULL, len = 0. */
typedef struct au_map {
    const unsigned char *data;
    size_t len;
} au_map;
AU_MUST_CHECK au_status au_map_open(au_map *m, const char *path, au_err *err);
void au_map_close(au_map *m);
/* Gives its pages back; they are read from the file again when they are touched. */
void au_map_rest(const au_map *m);

/* Atomic write: begin makes "<dir>/.<base>.<random>.tmp" beside the target, write appends, commit
 * fsyncs the file, renames it and fsyncs the folder, abort removes it. `replace` false: commit
 * fails with AU_EXISTS if the target exists (no race). The file may be seeked through fd. abort
 * after commit, or on a zeroed struct, does nothing. */
typedef struct au_atomic_file {
    int fd;
    char *tmp_path, *path; /* owned */
    bool open;
} au_atomic_file;
AU_MUST_CHECK au_status au_atomic_begin(au_atomic_file *f, const char *path, au_err *err);
AU_MUST_CHECK au_status au_atomic_write(au_atomic_file *f, const void *data, size_t len,
                                        au_err *err);
AU_MUST_CHECK au_status au_atomic_commit(au_atomic_file *f, bool replace, au_err *err);
void au_atomic_abort(au_atomic_file *f);
/* All four in one. */
AU_MUST_CHECK au_status au_file_write(const char *path, const void *data, size_t len, bool replace,
                                      au_err *err);

/* Bytes free for unprivileged users on the file system of `path`. */
AU_MUST_CHECK au_status au_fs_free_bytes(uint64_t *out, const char *path, au_err *err);

/* Takes an exclusive flock on `path` (created, O_CLOEXEC), and writes this process's pid into it.
 * AU_CONFLICT with the owner's pid in the message when another process holds it. *fd is closed (and
 * so unlocked) by the caller. */
AU_MUST_CHECK au_status au_lock_file(int *fd, const char *path, au_err *err);

/* The folder of the running executable (/proc/self/exe), owned by the caller. */
AU_MUST_CHECK au_status au_exe_dir(char **out, au_err *err);

#endif
