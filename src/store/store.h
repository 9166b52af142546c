/* SPDX-License-Identifier: MIT */
/* Object storage: immutable bytes under keys. Back ends behind one vtable; the local folder is the
 * embedded one.
 *
 * Keys are made here, from ids and hashes, never from what a client sent:
 * samples/<id[0:2]>/<id>.<ext>, adapters/<hash>/<file>. Every key is checked: parts of
 * [A-Za-z0-9._-], none beginning with a dot, joined by '/', at most 255 bytes; anything else is
 * AU_INVALID. Any thread may use a store. */
#ifndef AU_STORE_STORE_H
#define AU_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

typedef struct au_store au_store;

enum { AU_STORE_KEY = 256 }; /* bytes of a key with its NUL */

/* `url`: a folder path, made when missing, with its .tmp/ inside. */
AU_MUST_CHECK au_status au_store_open(au_store **out, const char *url, au_err *err);
void au_store_close(au_store **store);

/* The whole object, durable when it returns: written beside, fsynced, renamed, folder fsynced.
 * Replaces an object of that key. AU_NOSPACE, AU_IO. After a failure no object of that key was
 * made. */
AU_MUST_CHECK au_status au_store_put(au_store *store, const char *key, const void *data, size_t len,
                                     au_err *err);
/* From a local file. */
AU_MUST_CHECK au_status au_store_put_file(au_store *store, const char *key, const char *path,
                                          au_err *err);

/* Opens for reading: *fd at offset 0, O_CLOEXEC, closed by the caller; stays readable if the object
 * is deleted meanwhile. AU_NOT_FOUND. */
AU_MUST_CHECK au_status au_store_open_read(au_store *store, const char *key, int *fd,
                                           uint64_t *size, au_err *err);
AU_MUST_CHECK au_status au_store_exists(au_store *store, const char *key, bool *exists,
                                        au_err *err);
/* Removes the object and what an unfinished write of it left. A missing object is no error. */
AU_MUST_CHECK au_status au_store_delete(au_store *store, const char *key, au_err *err);

/* Calls fn for every key that begins with `prefix` ("" or a folder ending in '/'), in no order. fn
 * may delete. Another status than AU_OK ends it. */
typedef au_status (*au_store_list_fn)(void *user, const char *key, uint64_t size, au_err *err);
AU_MUST_CHECK au_status au_store_list(au_store *store, const char *prefix, au_store_list_fn fn,
                                      void *user, au_err *err);

/* Removes unfinished writes of processes that are gone (older than max_age_ms). */
AU_MUST_CHECK au_status au_store_sweep_tmp(au_store *store, int64_t max_age_ms, au_err *err);
/* Bytes that can still be written; UINT64_MAX where that has no meaning. */
AU_MUST_CHECK au_status au_store_free_bytes(au_store *store, uint64_t *out, au_err *err);
/* A local folder with the objects below `prefix` ("adapters/<hash>"), for readers that map files:
 * the store's own folder where it is local (then *out is that path), else AU_UNSUPPORTED. *out
 * owned by the caller. */
AU_MUST_CHECK au_status au_store_local_path(au_store *store, char **out, const char *prefix,
                                            au_err *err);

/* Keys. `out` holds AU_STORE_KEY bytes. AU_INVALID when an id, a hash or a file name is not one. */
AU_MUST_CHECK au_status au_store_sample_key(char *out, const char *sample_id, const char *extension,
                                            au_err *err);
AU_MUST_CHECK au_status au_store_adapter_key(char *out, const char *sha256, const char *file_name,
                                             au_err *err);

#endif
