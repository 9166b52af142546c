/* SPDX-License-Identifier: MIT */
/* Objects as files below a folder. A write goes to .tmp/ on the same file system, is fsynced,
 * renamed to its place, and the folder is fsynced: after a crash the object is whole or not there.
 * Objects never change, so a reader's descriptor stays valid after a delete.
 *
 * Folders are made when needed and removed when a delete empties them; a put that loses that race
 * makes its folder again. Only `root` is kept; any thread. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/store_backend.h"

enum { PATH_MAX_BYTES = 4096, PUT_TRIES = 8, COPY_BYTES = 1 << 16, LIST_DEPTH = 8 };

typedef struct fs_store {
    au_store base;
    char *root;
} fs_store;

static bool accepts(const char *url)
{
    return !strstr(url, "://");
}

static au_status make_path(char *out, const fs_store *s, const char *a, const char *b, au_err *err)
{
    int n = snprintf(out, PATH_MAX_BYTES, "%s/%s%s", s->root, a, b);
    if (n < 0 || n >= PATH_MAX_BYTES)
        return au_fail(err, AU_INVALID, "path of object %s is too long", a);
    return AU_OK;
}

static void close_fs(au_store *store)
{
    fs_store *s = (fs_store *)store;
    free(s->root);
    free(s);
}

static au_status open_fs(au_store **out, const char *url, au_err *err)
{
    fs_store *s = NULL;
    au_status st = AU_OK;
    char tmp[PATH_MAX_BYTES];
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->base.backend = &au_store_fs;
    AU_TRY(au_strdup(&s->root, url, err));
    AU_TRY(make_path(tmp, s, ".tmp", "", err));
    AU_TRY(au_mkdirs(tmp, err));
    *out = &s->base;
    s = NULL;
done:
    if (s)
        close_fs(&s->base);
    return st;
}

/* The place in .tmp/ where an object is written: found again by its key, so that deleting the key
 * removes what a dead writer left there too. */
static au_status tmp_path(char *out, const fs_store *s, const char *key, au_err *err)
{
    char flat[AU_STORE_KEY];
    size_t i = 0;
    for (; key[i]; i++)
        flat[i] = key[i] == '/' ? '+' : key[i];
    flat[i] = 0;
    return make_path(out, s, ".tmp/", flat, err);
}

static au_status open_tmp(int *fd, char *path, const fs_store *s, const char *key, au_err *err)
{
    au_status st = tmp_path(path, s, key, err);
    if (st != AU_OK)
        return st;
    (void)unlink(path); /* of a writer that died */
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return *fd >= 0 ? AU_OK : au_fail_errno(err, errno, "cannot create %s", path);
}

static au_status write_all(int fd, const void *data, size_t len, const char *path, au_err *err)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return au_fail_errno(err, errno, "cannot write %s", path);
        p += n;
        len -= (size_t)n;
    }
    return AU_OK;
}

/* fsyncs and closes fd, and gives the file its name. */
static au_status publish(const fs_store *s, int *fd, const char *tmp, const char *key, au_err *err)
{
    char path[PATH_MAX_BYTES], dir[PATH_MAX_BYTES];
    au_status st = AU_OK;
    AU_TRY(make_path(path, s, key, "", err));
    memcpy(dir, path, sizeof dir);
    *strrchr(dir, '/') = 0;
    if (fsync(*fd) != 0) {
        st = au_fail_errno(err, errno, "cannot write %s to the disk", tmp);
        goto done;
    }
    int rc = close(*fd);
    *fd = -1;
    if (rc != 0) {
        st = au_fail_errno(err, errno, "cannot close %s", tmp);
        goto done;
    }
    for (int i = 0; i < PUT_TRIES; i++) {
        AU_TRY(au_mkdirs(dir, err));
        if (rename(tmp, path) == 0) {
            /* The folder, and those above it that may be new. */
            for (size_t root = strlen(s->root); strlen(dir) >= root; *strrchr(dir, '/') = 0) {
                AU_TRY(au_fsync_dir(dir, err));
                if (strlen(dir) == root)
                    break;
            }
            goto done;
        }
        if (errno != ENOENT)
            break;
    }
    st = au_fail_errno(err, errno, "cannot rename %s to %s", tmp, path);
done:
    return st;
}

static void discard(int fd, const char *tmp)
{
    if (fd >= 0)
        close(fd);
    if (tmp[0])
        (void)unlink(tmp); /* gone already after a successful rename */
}

static au_status put(au_store *store, const char *key, const void *data, size_t len, au_err *err)
{
    fs_store *s = (fs_store *)store;
    char tmp[PATH_MAX_BYTES] = "";
    int fd = -1;
    au_status st = AU_OK;
    AU_TRY(open_tmp(&fd, tmp, s, key, err));
    AU_TRY(write_all(fd, data, len, tmp, err));
    AU_TRY(publish(s, &fd, tmp, key, err));
done:
    discard(fd, tmp);
    return st;
}

static au_status put_file(au_store *store, const char *key, const char *path, au_err *err)
{
    fs_store *s = (fs_store *)store;
    char tmp[PATH_MAX_BYTES] = "";
    char *block = NULL;
    int from = -1, fd = -1;
    au_status st = AU_OK;
    AU_TRY(au_calloc(&block, COPY_BYTES, 1, err));
    from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        st = au_fail_errno(err, errno, "cannot open %s", path);
        goto done;
    }
    AU_TRY(open_tmp(&fd, tmp, s, key, err));
    for (;;) {
        ssize_t n = read(from, block, COPY_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = au_fail_errno(err, errno, "cannot read %s", path);
            goto done;
        }
        if (n == 0)
            break;
        AU_TRY(write_all(fd, block, (size_t)n, tmp, err));
    }
    AU_TRY(publish(s, &fd, tmp, key, err));
done:
    if (from >= 0)
        close(from);
    discard(fd, tmp);
    free(block);
    return st;
}

static au_status open_read(au_store *store, const char *key, int *fd, uint64_t *size, au_err *err)
{
    char path[PATH_MAX_BYTES];
    struct stat info;
    au_status st = make_path(path, (fs_store *)store, key, "", err);
    if (st != AU_OK)
        return st;
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (f < 0)
        return au_fail_errno(err, errno, "cannot open object %s", key);
    if (fstat(f, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(f);
        return au_fail(err, AU_IO, "object %s is not a regular file", key);
    }
    *fd = f;
    *size = (uint64_t)info.st_size;
    return AU_OK;
}

static au_status exists(au_store *store, const char *key, bool *found, au_err *err)
{
    char path[PATH_MAX_BYTES];
    struct stat info;
    au_status st = make_path(path, (fs_store *)store, key, "", err);
    if (st != AU_OK)
        return st;
    if (lstat(path, &info) == 0)
        *found = S_ISREG(info.st_mode);
    else if (errno != ENOENT && errno != ENOTDIR)
        return au_fail_errno(err, errno, "cannot look at object %s", key);
    return AU_OK;
}

/* Removes folders that became empty, up to the root. */
static void prune(const fs_store *s, char *path)
{
    size_t root = strlen(s->root);
    for (;;) {
        char *slash = strrchr(path, '/');
        if (!slash || (size_t)(slash - path) <= root)
            return;
        *slash = 0;
        if (rmdir(path) != 0)
            return;
    }
}

static au_status delete_object(au_store *store, const char *key, au_err *err)
{
    fs_store *s = (fs_store *)store;
    char path[PATH_MAX_BYTES], tmp[PATH_MAX_BYTES];
    au_status st = make_path(path, s, key, "", err);
    if (st == AU_OK)
        st = tmp_path(tmp, s, key, err);
    if (st != AU_OK)
        return st;
    (void)unlink(tmp);
    if (unlink(path) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return AU_OK;
        return au_fail_errno(err, errno, "cannot delete object %s", key);
    }
    prune(s, path);
    return AU_OK;
}

typedef struct walk {
    const fs_store *s;
    const char *prefix;
    au_store_list_fn fn;
    void *user;
} walk;

/* All files below root/key ("" or ending in '/'). Symbolic links and hidden names are not objects.
 */
static au_status list_dir(const walk *w, const char *key, int depth, au_err *err)
{
    char path[PATH_MAX_BYTES];
    DIR *dir = NULL;
    au_status st = AU_OK;
    AU_TRY(make_path(path, w->s, key, "", err));
    dir = opendir(path);
    if (!dir) {
        if (errno != ENOENT)
            st = au_fail_errno(err, errno, "cannot list %s", path);
        goto done;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        char child[AU_STORE_KEY];
        struct stat info;
        if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        bool folder = S_ISDIR(info.st_mode);
        int n = snprintf(child, sizeof child, "%s%s%s", key, e->d_name, folder ? "/" : "");
        if (n < 0 || (size_t)n >= sizeof child)
            continue; /* longer than any key: nothing of ours */
        if (folder && depth < LIST_DEPTH)
            AU_TRY(list_dir(w, child, depth + 1, err));
        else if (S_ISREG(info.st_mode))
            AU_TRY(w->fn(w->user, child, (uint64_t)info.st_size, err));
    }
done:
    if (dir)
        closedir(dir);
    return st;
}

static au_status list(au_store *store, const char *prefix, au_store_list_fn fn, void *user,
                      au_err *err)
{
    size_t len = strlen(prefix);
    if (len > 0 && prefix[len - 1] != '/')
        return au_fail(err, AU_INVALID, "store prefix \"%s\" does not end in '/'", prefix);
    walk w = {.s = (fs_store *)store, .prefix = prefix, .fn = fn, .user = user};
    return list_dir(&w, prefix, 0, err);
}

static au_status sweep_tmp(au_store *store, int64_t max_age_ms, au_err *err)
{
    fs_store *s = (fs_store *)store;
    char path[PATH_MAX_BYTES];
    au_status st = make_path(path, s, ".tmp", "", err);
    if (st != AU_OK)
        return st;
    DIR *dir = opendir(path);
    if (!dir)
        return au_fail_errno(err, errno, "cannot list %s", path);
    int64_t now = au_time_ms();
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat info;
        if (e->d_name[0] == '.' ||
            fstatat(dirfd(dir), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            continue;
        int64_t changed = (int64_t)info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1000000;
        if (now - changed >= max_age_ms)
            (void)unlinkat(dirfd(dir), e->d_name, 0); /* a racing sweep may have been first */
    }
    closedir(dir);
    return AU_OK;
}

static au_status free_bytes(au_store *store, uint64_t *out, au_err *err)
{
    return au_fs_free_bytes(out, ((fs_store *)store)->root, err);
}

static au_status local_path(au_store *store, char **out, const char *prefix, au_err *err)
{
    return au_path_join(out, ((fs_store *)store)->root, prefix, err);
}

const au_store_backend au_store_fs = {
    .name = "fs",
    .accepts = accepts,
    .open = open_fs,
    .close = close_fs,
    .put = put,
    .put_file = put_file,
    .open_read = open_read,
    .exists = exists,
    .remove = delete_object,
    .list = list,
    .sweep_tmp = sweep_tmp,
    .free_bytes = free_bytes,
    .local_path = local_path,
};
