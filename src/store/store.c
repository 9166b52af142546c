/* SPDX-License-Identifier: MIT */
/* The back-end-independent half of object storage: keys are made and checked here, so that no back
 * end ever sees a key that could leave its root. Stateless; any thread. */
#include "store/store.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/str.h"
#include "base/uuid.h"
#include "store/store_backend.h"

static const au_store_backend *const backends[] = {&au_store_fs};

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

/* Parts of key characters, none empty or hidden. `folder`: the last part may be empty. */
static bool key_is_valid(const char *key, bool folder)
{
    size_t len = strlen(key), part = 0;
    if (len >= AU_STORE_KEY || (len == 0 && !folder))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (key[i] == '/') {
            if (part == 0)
                return false;
            part = 0;
        } else if (!is_key_char(key[i]) || (part == 0 && key[i] == '.')) {
            return false;
        } else {
            part++;
        }
    }
    return part > 0 || folder;
}

static au_status check_key(const char *key, bool folder, au_err *err)
{
    if (key_is_valid(key, folder))
        return AU_OK;
    return au_fail(err, AU_INVALID, "store key \"%.80s\" is not valid", key);
}

au_status au_store_open(au_store **out, const char *url, au_err *err)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (backends[i]->accepts(url))
            return backends[i]->open(out, url, err);
    }
    return au_fail(err, AU_UNSUPPORTED,
                   "storage %s: not available in this version, expected a folder", url);
}

void au_store_close(au_store **store)
{
    if (store && *store) {
        (*store)->backend->close(*store);
        *store = NULL;
    }
}

au_status au_store_put(au_store *store, const char *key, const void *data, size_t len, au_err *err)
{
    au_status st = check_key(key, false, err);
    return st == AU_OK ? store->backend->put(store, key, data, len, err) : st;
}

au_status au_store_put_file(au_store *store, const char *key, const char *path, au_err *err)
{
    au_status st = check_key(key, false, err);
    return st == AU_OK ? store->backend->put_file(store, key, path, err) : st;
}

au_status au_store_open_read(au_store *store, const char *key, int *fd, uint64_t *size, au_err *err)
{
    *fd = -1;
    *size = 0;
    au_status st = check_key(key, false, err);
    return st == AU_OK ? store->backend->open_read(store, key, fd, size, err) : st;
}

au_status au_store_exists(au_store *store, const char *key, bool *exists, au_err *err)
{
    *exists = false;
    au_status st = check_key(key, false, err);
    return st == AU_OK ? store->backend->exists(store, key, exists, err) : st;
}

au_status au_store_delete(au_store *store, const char *key, au_err *err)
{
    au_status st = check_key(key, false, err);
    return st == AU_OK ? store->backend->remove(store, key, err) : st;
}

au_status au_store_list(au_store *store, const char *prefix, au_store_list_fn fn, void *user,
                        au_err *err)
{
    au_status st = check_key(prefix, true, err);
    return st == AU_OK ? store->backend->list(store, prefix, fn, user, err) : st;
}

au_status au_store_sweep_tmp(au_store *store, int64_t max_age_ms, au_err *err)
{
    return store->backend->sweep_tmp(store, max_age_ms, err);
}

au_status au_store_free_bytes(au_store *store, uint64_t *out, au_err *err)
{
    return store->backend->free_bytes(store, out, err);
}

au_status au_store_local_path(au_store *store, char **out, const char *prefix, au_err *err)
{
    *out = NULL;
    au_status st = check_key(prefix, true, err);
    return st == AU_OK ? store->backend->local_path(store, out, prefix, err) : st;
}

au_status au_store_sample_key(char *out, const char *sample_id, const char *extension, au_err *err)
{
    if (!au_uuid_valid(sample_id))
        return au_fail(err, AU_INVALID, "sample id \"%.40s\" is not a UUID", sample_id);
    int n = snprintf(out, AU_STORE_KEY, "samples/%.2s/%s.%s", sample_id, sample_id, extension);
    if (n < 0 || n >= AU_STORE_KEY)
        return au_fail(err, AU_INVALID, "extension \"%.40s\" is too long", extension);
    return check_key(out, false, err);
}

au_status au_store_adapter_key(char *out, const char *sha256, const char *file_name, au_err *err)
{
    size_t digits = strspn(sha256, "0123456789abcdef");
    if (digits != AU_SHA256_TEXT - 1 || sha256[digits] != 0)
        return au_fail(err, AU_INVALID, "adapter hash \"%.80s\" is not a SHA-256", sha256);
    int n = snprintf(out, AU_STORE_KEY, "adapters/%s/%s", sha256, file_name);
    if (n < 0 || n >= AU_STORE_KEY || strchr(file_name, '/'))
        return au_fail(err, AU_INVALID, "file name \"%.80s\" cannot be stored", file_name);
    return check_key(out, false, err);
}
