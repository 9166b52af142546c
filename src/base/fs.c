/* SPDX-License-Identifier: MIT */
/* Files and folders. Stateless; safe from any thread. Every descriptor is opened O_CLOEXEC, because
 * worker processes are started by fork and exec. */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"

/* Opens a regular file for reading. O_NONBLOCK: a FIFO of that name must not block the open. */
static au_status open_regular(int *fd, size_t *size, const char *path, au_err *err)
{
    struct stat sb;
    *size = 0;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return au_fail_errno(err, errno, "cannot open %s", path);
    au_status st = AU_OK;
    if (fstat(*fd, &sb) != 0)
        st = au_fail_errno(err, errno, "cannot examine %s", path);
    else if (!S_ISREG(sb.st_mode))
        st = au_fail(err, AU_IO, "%s is not a regular file", path);
    if (st != AU_OK) {
        close(*fd);
        *fd = -1;
        return st;
    }
    *size = (size_t)sb.st_size;
    return AU_OK;
}

au_status au_file_read(char **out, size_t *len, const char *path, size_t max_bytes, au_err *err)
{
    *out = NULL;
    *len = 0;
    char *data = NULL;
    size_t size, used = 0, cap;
    int fd;
    au_status st = open_regular(&fd, &size, path, err);
    if (st != AU_OK)
        return st;
    AU_FAIL_IF(size > max_bytes, AU_LIMIT, "%s has %zu bytes, more than the limit of %zu", path,
               size, max_bytes);
    /* Files of /proc and /sys say 0 bytes, and a file may grow meanwhile: read until the end. */
    cap = size + 1 < 4096 ? 4096 : size + 1;
    data = malloc(cap);
    AU_FAIL_IF(!data, AU_NOMEM, "cannot allocate %zu bytes for %s", cap, path);
    for (;;) {
        if (used == cap - 1) {
            char *more = cap > SIZE_MAX / 2 ? NULL : realloc(data, cap * 2);
            AU_FAIL_IF(!more, AU_NOMEM, "cannot allocate %zu bytes for %s", cap, path);
            data = more;
            cap *= 2;
        }
        ssize_t n = read(fd, data + used, cap - 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = au_fail_errno(err, errno, "cannot read %s", path);
            goto done;
        }
        if (n == 0)
            break;
        used += (size_t)n;
        AU_FAIL_IF(used > max_bytes, AU_LIMIT, "%s has more bytes than the limit of %zu", path,
                   max_bytes);
    }
    data[used] = 0;
    *out = data;
    *len = used;
    data = NULL;
done:
    free(data);
    close(fd);
    return st;
}

bool au_file_exists(const char *path)
{
    struct stat sb;
    return lstat(path, &sb) == 0;
}

bool au_dir_exists(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

au_status au_path_join(char **out, const char *dir, const char *name, au_err *err)
{
    size_t n = strlen(dir);
    const char *slash = n && dir[n - 1] == '/' ? "" : "/";
    *out = NULL;
    if (asprintf(out, "%s%s%s", dir, slash, name) < 0) {
        *out = NULL;
        return au_fail(err, AU_NOMEM, "cannot allocate a path in %s", dir);
    }
    return AU_OK;
}

const char *au_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The folder part of a path, owned by the caller: "." for a bare name, "/" for "/x". */
static au_status path_dir(char **out, const char *path, au_err *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return au_strdup(out, ".", err);
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    *out = strndup(path, n);
    return *out ? AU_OK : au_fail(err, AU_NOMEM, "cannot allocate %zu bytes", n);
}

au_status au_mkdirs(const char *path, au_err *err)
{
    char *copy;
    au_status st;
    AU_TRY(au_strdup(&copy, path, err));
    for (char *p = copy + 1; copy[0] && st == AU_OK; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = 0;
        if (mkdir(copy, 0777) != 0 && !au_dir_exists(copy))
            st = au_fail_errno(err, errno == EEXIST ? ENOTDIR : errno, "cannot make folder %s",
                               copy);
        *p = end;
        if (!end)
            break;
    }
    free(copy);
done:
    return st;
}

/* Removes `name` within the folder `at`, or sets errno. The depth of recursion is that of the tree.
 */
static int remove_at(int at, const char *name)
{
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -1;
    }
    int rc = 0;
    for (struct dirent *e; rc == 0 && (errno = 0, e = readdir(dir));) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = remove_at(fd, e->d_name);
    }
    int saved = errno;
    closedir(dir);
    errno = saved;
    if (rc != 0 || saved != 0)
        return -1;
    return unlinkat(at, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -1;
}

au_status au_remove_tree(const char *path, au_err *err)
{
    if (remove_at(AT_FDCWD, path) != 0)
        return au_fail_errno(err, errno, "cannot remove %s", path);
    return AU_OK;
}

au_status au_fsync_dir(const char *path, au_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return au_fail_errno(err, errno, "cannot open folder %s", path);
    /* Some file systems cannot sync a folder and say EINVAL; there is nothing more to do there. */
    int rc = fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
    close(fd);
    return rc ? au_fail_errno(err, rc, "cannot sync folder %s", path) : AU_OK;
}

au_status au_map_open(au_map *m, const char *path, au_err *err)
{
    *m = (au_map){0};
    int fd;
    size_t size;
    au_status st = open_regular(&fd, &size, path, err);
    if (st != AU_OK)
        return st;
    if (size) {
        void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            st = au_fail_errno(err, errno, "cannot map %s", path);
        else
            *m = (au_map){.data = p, .len = size};
    }
    close(fd);
    return st;
}

void au_map_close(au_map *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->len);
    *m = (au_map){0};
}

void au_map_rest(const au_map *m)
{
    /* Where the kernel will not, the pages just stay. */
    if (m->data)
        (void)madvise((void *)(uintptr_t)m->data, m->len, MADV_DONTNEED);
}

au_status au_atomic_begin(au_atomic_file *f, const char *path, au_err *err)
{
    *f = (au_atomic_file){.fd = -1};
    unsigned char random[8];
    char suffix[2 * sizeof random + 1];
    char *dir = NULL;
    au_status st;
    const char *base = au_path_base(path);
    AU_FAIL_IF(!*base, AU_INVALID, "%s does not name a file", path);
    AU_TRY(au_strdup(&f->path, path, err));
    AU_TRY(path_dir(&dir, path, err));
    au_random_bytes(random, sizeof random);
    au_hex(suffix, random, sizeof random);
    /* 200: a base of up to NAME_MAX bytes still leaves room for the dots and the suffix. */
    if (asprintf(&f->tmp_path, "%s/.%.200s.%s.tmp", dir, base, suffix) < 0) {
        f->tmp_path = NULL;
        st = au_fail(err, AU_NOMEM, "cannot allocate a path in %s", dir);
        goto done;
    }
    f->fd = open(f->tmp_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        st = au_fail_errno(err, errno, "cannot write in folder %s", dir);
        goto done;
    }
    f->open = true;
done:
    free(dir);
    if (st != AU_OK)
        au_atomic_abort(f);
    return st;
}

au_status au_atomic_write(au_atomic_file *f, const void *data, size_t len, au_err *err)
{
    const char *p = data;
    while (len) {
        ssize_t n = write(f->fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return au_fail_errno(err, errno, "cannot write %s", f->path);
        p += n;
        len -= (size_t)n;
    }
    return AU_OK;
}

/* Gives the finished file its name unless that is taken. Not every file system knows the flag of
 * renameat2, and not every one has links, hence both. */
static int rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (link(from, to) != 0)
        return -1;
    unlink(from);
    return 0;
}

au_status au_atomic_commit(au_atomic_file *f, bool replace, au_err *err)
{
    char *dir = NULL;
    au_status st;
    AU_TRY(path_dir(&dir, f->path, err));
    if (fsync(f->fd) != 0) {
        st = au_fail_errno(err, errno, "cannot write %s", f->path);
        goto done;
    }
    if ((replace ? rename(f->tmp_path, f->path) : rename_new(f->tmp_path, f->path)) != 0) {
        if (errno == EEXIST)
            st = au_fail(err, AU_EXISTS, "%s exists already", f->path);
        else
            st = au_fail_errno(err, errno, "cannot give %s its name", f->path);
        goto done;
    }
    free(f->tmp_path); /* gone: abort below must not remove what took its place */
    f->tmp_path = NULL;
    AU_TRY(au_fsync_dir(dir, err));
done:
    free(dir);
    au_atomic_abort(f);
    return st;
}

void au_atomic_abort(au_atomic_file *f)
{
    if (f->open) {
        close(f->fd);
        if (f->tmp_path)
            unlink(f->tmp_path);
    }
    free(f->tmp_path);
    free(f->path);
    *f = (au_atomic_file){.fd = -1};
}

au_status au_file_write(const char *path, const void *data, size_t len, bool replace, au_err *err)
{
    au_atomic_file f;
    au_status st;
    AU_TRY(au_atomic_begin(&f, path, err));
    st = au_atomic_write(&f, data, len, err);
    if (st == AU_OK)
        st = au_atomic_commit(&f, replace, err);
    au_atomic_abort(&f);
done:
    return st;
}

au_status au_fs_free_bytes(uint64_t *out, const char *path, au_err *err)
{
    struct statvfs v;
    if (statvfs(path, &v) != 0)
        return au_fail_errno(err, errno, "cannot examine the file system of %s", path);
    if (__builtin_mul_overflow((uint64_t)v.f_bavail, (uint64_t)v.f_frsize, out))
        *out = UINT64_MAX;
    return AU_OK;
}

au_status au_lock_file(int *fd, const char *path, au_err *err)
{
    char pid[24];
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (*fd < 0)
        return au_fail_errno(err, errno, "cannot open lock file %s", path);
    au_status st = AU_OK;
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(*fd, pid, sizeof pid - 1, 0);
            pid[n > 0 ? n : 0] = 0;
            pid[strcspn(pid, "\n")] = 0;
            st = au_fail(err, AU_CONFLICT, "%s is locked by process %s", path, *pid ? pid : "?");
        } else {
            st = au_fail_errno(err, errno, "cannot lock %s", path);
        }
    } else {
        int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
        if (ftruncate(*fd, 0) != 0 || pwrite(*fd, pid, (size_t)n, 0) != n)
            st = au_fail_errno(err, errno, "cannot write lock file %s", path);
    }
    if (st != AU_OK) {
        close(*fd);
        *fd = -1;
    }
    return st;
}

au_status au_exe_dir(char **out, au_err *err)
{
    char path[PATH_MAX];
    *out = NULL;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0)
        return au_fail_errno(err, errno, "cannot read /proc/self/exe");
    path[n] = 0;
    return path_dir(out, path, err);
}
