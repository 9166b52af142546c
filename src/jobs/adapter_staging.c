/* SPDX-License-Identifier: MIT */
/* Staging folders: the names of entries, the files that are kept, the limits. Unpacking of archives
 * is adapter_unpack.c. One owner. */
#include "jobs/adapter_staging.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/uuid.h"

enum {
    ARENA_BYTES = 4 << 20,
    SPACE_EVERY_BYTES = 4 << 20, /* how often free space is looked at */
};

static const char *const file_names[AU_ADAPTER_OTHER] = {
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "archive"};

/* ---- The folder ---- */

static au_status incoming(char **out, const char *data_dir, au_err *err)
{
    return au_path_join(out, data_dir, "incoming", err);
}

au_status au_staging_open(au_staging *s, const char *data_dir, uint64_t max_bytes,
                          uint64_t min_free, au_err *err)
{
    char id[AU_UUID_TEXT], *parent = NULL;
    au_status st = AU_OK;
    *s = (au_staging){.max_bytes = max_bytes, .min_free = min_free, .fd = -1};
    au_arena_init(&s->arena, ARENA_BYTES);
    au_uuid7(id);
    AU_TRY(au_calloc(&s->seen, AU_STAGING_ENTRIES_MAX, sizeof *s->seen, err));
    AU_TRY(incoming(&parent, data_dir, err));
    AU_TRY(au_path_join(&s->dir, parent, id, err));
    AU_TRY(au_mkdirs(s->dir, err));
done:
    free(parent);
    if (st != AU_OK)
        au_staging_close(s);
    return st;
}

void au_staging_close(au_staging *s)
{
    if (s->dir) {
        if (s->fd >= 0)
            close(s->fd);
        /* What cannot be removed now is swept at the next start. */
        (void)!au_remove_tree(s->dir, NULL);
    }
    free(s->dir);
    free(s->seen);
    au_arena_deinit(&s->arena);
    *s = (au_staging){.fd = -1};
}

au_status au_staging_sweep(const char *data_dir, au_err *err)
{
    char *parent = NULL;
    au_status st = AU_OK;
    AU_TRY(incoming(&parent, data_dir, err));
    AU_TRY(au_remove_tree(parent, err));
done:
    free(parent);
    return st;
}

/* ---- Names ---- */

/* The parts of a name: what is wrong with it, or where its last part begins. */
static au_status split_name(const char *name, const char **base, au_err *err)
{
    au_status st = AU_OK;
    size_t depth = 0;
    AU_FAIL_IF(!*name, AU_INVALID, "a file has an empty name");
    AU_FAIL_IF(strlen(name) > AU_STAGING_NAME_MAX, AU_INVALID,
               "a file has a name of more than %d bytes", (int)AU_STAGING_NAME_MAX);
    AU_FAIL_IF(!au_utf8_valid(name, strlen(name)), AU_INVALID,
               "a file has a name that is not valid UTF-8");
    for (const char *p = name; *p; p++)
        AU_FAIL_IF((unsigned char)*p < 0x20 || *p == 0x7f, AU_INVALID,
                   "a file has a name with a control character");
    AU_FAIL_IF(strchr(name, '\\'), AU_INVALID, "file name \"%.200s\" holds a backslash", name);
    AU_FAIL_IF(*name == '/', AU_INVALID, "file name \"%.200s\" is an absolute path", name);
    *base = name;
    for (const char *p = name; *p;) {
        size_t n = strcspn(p, "/");
        AU_FAIL_IF(n == 2 && p[0] == '.' && p[1] == '.', AU_INVALID,
                   "file name \"%.200s\" leads out of its folder", name);
        AU_FAIL_IF(n == 1 && p[0] == '.' && p != name, AU_INVALID,
                   "file name \"%.200s\" holds the part \".\"", name);
        AU_FAIL_IF(n == 0, AU_INVALID, "file name \"%.200s\" holds an empty part", name);
        *base = p;
        depth += !(n == 1 && p[0] == '.');
        p += n + (p[n] == '/');
    }
    /* What the Finder adds to archives; its parts are never an adapter's. */
    bool finder = au_str_starts(name, "__MACOSX/");
    AU_FAIL_IF(depth > 2 && !finder, AU_INVALID,
               "file name \"%.200s\" is more than one folder deep", name);
    if (finder)
        *base = name;
done:
    return st;
}

/* "./a/b/" and "a/b" are one name, and so are "A/b" and "a/b" on some file systems. */
static au_status add_seen(au_staging *s, const char *name, bool folder, au_err *err)
{
    au_status st = AU_OK;
    while (au_str_starts(name, "./"))
        name += 2;
    size_t len = strlen(name);
    while (len > 0 && name[len - 1] == '/')
        len--;
    AU_FAIL_IF(s->n_seen == AU_STAGING_ENTRIES_MAX, AU_INVALID, "there are more than %d files",
               (int)AU_STAGING_ENTRIES_MAX);
    char *lower = au_arena_strndup(&s->arena, name, len);
    AU_FAIL_IF(!lower, AU_NOMEM, "out of memory");
    for (char *p = lower; *p; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    }
    /* Archives may name a folder twice; it is nothing that could be overwritten. */
    for (size_t i = 0; i < s->n_seen; i++)
        AU_FAIL_IF(strcmp(s->seen[i], lower) == 0 && !folder, AU_INVALID,
                   "file name \"%.200s\" occurs twice (large and small letters are the same here)",
                   name);
    s->seen[s->n_seen++] = lower;
done:
    return st;
}

/* All files of an adapter lie in one folder. */
static au_status check_folder(au_staging *s, const char *name, const char *base, au_err *err)
{
    au_status st = AU_OK;
    if (au_str_starts(name, "./"))
        name += 2;
    char *folder = au_arena_strndup(&s->arena, name, base > name ? (size_t)(base - name) : 0);
    AU_FAIL_IF(!folder, AU_NOMEM, "out of memory");
    AU_FAIL_IF(s->folder && strcmp(s->folder, folder) != 0, AU_INVALID,
               "there are adapters in two folders, \"%.80s\" and \"%.80s\"", s->folder, folder);
    s->folder = folder;
done:
    return st;
}

static au_adapter_file file_of(const char *base)
{
    for (int i = 0; i < AU_ADAPTER_FILES; i++) {
        if (strcmp(base, file_names[i]) == 0)
            return (au_adapter_file)i;
    }
    return AU_ADAPTER_OTHER;
}

/* ---- Entries ---- */

au_status au_staging_folder(au_staging *s, const char *name, au_err *err)
{
    const char *base;
    au_status st = AU_OK;
    AU_TRY(split_name(name, &base, err));
    AU_TRY(add_seen(s, name, true, err));
done:
    return st;
}

static au_status open_current(au_staging *s, au_err *err)
{
    char *path = NULL;
    au_status st = AU_OK;
    AU_TRY(au_path_join(&path, s->dir, file_names[s->current], err));
    s->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (s->fd < 0)
        st = au_fail_errno(err, errno, "cannot create a file in the staging folder");
done:
    free(path);
    return st;
}

au_status au_staging_begin(au_staging *s, const char *name, au_err *err)
{
    const char *base;
    au_status st = AU_OK;
    AU_ASSERT(s->fd < 0);
    AU_TRY(split_name(name, &base, err));
    AU_TRY(add_seen(s, name, false, err));
    s->current = file_of(base);
    if (s->current == AU_ADAPTER_OTHER)
        goto done;
    AU_TRY(check_folder(s, name, base, err));
    AU_TRY(open_current(s, err));
    s->has[s->current] = true;
done:
    return st;
}

au_status au_staging_begin_archive(au_staging *s, au_err *err)
{
    AU_ASSERT(s->fd < 0);
    s->current = AU_ADAPTER_ARCHIVE;
    return open_current(s, err);
}

static au_status check_space(au_staging *s, au_err *err)
{
    uint64_t left;
    au_status st = AU_OK;
    if (s->bytes - s->checked_at < SPACE_EVERY_BYTES)
        return AU_OK;
    s->checked_at = s->bytes;
    AU_TRY(au_fs_free_bytes(&left, s->dir, err));
    AU_FAIL_IF(left < s->min_free, AU_NOSPACE,
               "%llu bytes are free on the disk, expected at least %llu", (unsigned long long)left,
               (unsigned long long)s->min_free);
done:
    return st;
}

au_status au_staging_write(au_staging *s, const void *data, size_t len, au_err *err)
{
    const char *p = data;
    au_status st = AU_OK;
    AU_FAIL_IF(len > s->max_bytes - s->bytes, AU_INVALID,
               "the files are larger than %llu bytes together", (unsigned long long)s->max_bytes);
    s->bytes += len;
    if (s->fd < 0)
        goto done;
    s->size[s->current] += len;
    AU_FAIL_IF(s->current == AU_ADAPTER_CONFIG && s->size[s->current] > AU_STAGING_CONFIG_MAX,
               AU_INVALID, "%s is larger than %d bytes", file_names[s->current],
               (int)AU_STAGING_CONFIG_MAX);
    while (len > 0) {
        ssize_t n = write(s->fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = au_fail_errno(err, errno, "cannot write to the staging folder");
            goto done;
        }
        p += n;
        len -= (size_t)n;
    }
    AU_TRY(check_space(s, err));
done:
    return st;
}

au_status au_staging_end(au_staging *s, au_err *err)
{
    if (s->fd < 0)
        return AU_OK;
    int rc = close(s->fd);
    s->fd = -1;
    /* What counts now is what comes out of it. */
    if (s->current == AU_ADAPTER_ARCHIVE)
        s->bytes = s->checked_at = 0;
    return rc == 0 ? AU_OK : au_fail_errno(err, errno, "cannot write to the staging folder");
}

au_status au_staging_finish(au_staging *s, au_err *err)
{
    char *path = NULL;
    au_status st = AU_OK;
    AU_FAIL_IF(!s->has[AU_ADAPTER_CONFIG], AU_INVALID, "%s is missing",
               file_names[AU_ADAPTER_CONFIG]);
    AU_FAIL_IF(!s->has[AU_ADAPTER_SAFETENSORS] && !s->has[AU_ADAPTER_BIN], AU_INVALID,
               "%s is missing (or %s)", file_names[AU_ADAPTER_SAFETENSORS],
               file_names[AU_ADAPTER_BIN]);
    if (s->has[AU_ADAPTER_SAFETENSORS] && s->has[AU_ADAPTER_BIN]) {
        AU_TRY(au_path_join(&path, s->dir, file_names[AU_ADAPTER_BIN], err));
        if (unlink(path) != 0)
            st = au_fail_errno(err, errno, "cannot remove a file from the staging folder");
    }
done:
    free(path);
    return st;
}
