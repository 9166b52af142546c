/* SPDX-License-Identifier: MIT */
/* What a store back end implements; internal to store/. store.c checks keys before it calls one. */
#ifndef AU_STORE_STORE_BACKEND_H
#define AU_STORE_STORE_BACKEND_H

#include "store/store.h"

/* A back end's object begins with this. */
struct au_store {
    const struct au_store_backend *backend;
};

typedef struct au_store_backend {
    const char *name;
    bool (*accepts)(const char *url);
    au_status (*open)(au_store **out, const char *url, au_err *err);
    void (*close)(au_store *s);
    au_status (*put)(au_store *s, const char *key, const void *data, size_t len, au_err *err);
    au_status (*put_file)(au_store *s, const char *key, const char *path, au_err *err);
    au_status (*open_read)(au_store *s, const char *key, int *fd, uint64_t *size, au_err *err);
    au_status (*exists)(au_store *s, const char *key, bool *exists, au_err *err);
    au_status (*remove)(au_store *s, const char *key, au_err *err);
    au_status (*list)(au_store *s, const char *prefix, au_store_list_fn fn, void *user,
                      au_err *err);
    au_status (*sweep_tmp)(au_store *s, int64_t max_age_ms, au_err *err);
    au_status (*free_bytes)(au_store *s, uint64_t *out, au_err *err);
    au_status (*local_path)(au_store *s, char **out, const char *prefix, au_err *err);
} au_store_backend;

extern const au_store_backend au_store_fs;

#endif
