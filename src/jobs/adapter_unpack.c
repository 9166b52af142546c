/* SPDX-License-Identifier: MIT */
/* Archives into a staging folder, with libarchive as a reader alone: it never writes a file, and
 * its paths, links and modes are looked at and thrown away. Formats are those named in the header
 * and no others, since each more is code that hostile bytes reach. */
#include "jobs/adapter_staging.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"

enum {
    BLOCK_BYTES = 64 << 10,
    /* Of zip. */
    END_BYTES = 22,
    COMMENT_MAX = 65535,
    ENTRY_BYTES = 46,
    END_MAGIC = 0x06054b50,
    ENTRY_MAGIC = 0x02014b50,
    DIRECTORY_MAX = 4 << 20, /* of more files than are taken */
};

static au_status failed(struct archive *a, const char *what, au_err *err)
{
    const char *why = archive_error_string(a);
    bool text = why && au_utf8_valid(why, strlen(why));
    if (archive_errno(a) == ENOMEM)
        return au_fail(err, AU_NOMEM, "out of memory");
    return au_fail(err, AU_INVALID, "the archive %s: %.200s", what, text ? why : "it is damaged");
}

static au_status new_reader(struct archive **out, au_err *err)
{
    struct archive *a = archive_read_new();
    *out = a;
    if (!a)
        return au_fail(err, AU_NOMEM, "out of memory");
    if (archive_read_support_filter_gzip(a) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(a) != ARCHIVE_OK ||
        archive_read_support_format_zip(a) != ARCHIVE_OK ||
        archive_read_support_format_tar(a) != ARCHIVE_OK)
        return au_fail(err, AU_INTERNAL, "libarchive lacks zip, tar, gzip or zstd");
    return AU_OK;
}

static uint32_t u16_at(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32_at(const unsigned char *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

static bool read_at(int fd, unsigned char *out, size_t len, uint64_t offset)
{
    return pread(fd, out, len, (off_t)offset) == (ssize_t)len;
}

/* Where the central directory of a zip lies (APPNOTE.TXT 4.3.16); false: not a zip, or one so large
 * that it needs the 64-bit records. */
static bool find_directory(int fd, uint64_t size, uint64_t *offset, size_t *len)
{
    unsigned char tail[END_BYTES + COMMENT_MAX];
    size_t n = size < sizeof tail ? (size_t)size : sizeof tail;
    if (!read_at(fd, tail, n, size - n))
        return false;
    for (size_t at = n < END_BYTES ? 0 : n - END_BYTES + 1; at-- > 0;) {
        if (u32_at(tail + at) != END_MAGIC)
            continue;
        *len = u32_at(tail + at + 12);
        *offset = u32_at(tail + at + 16);
        return *offset <= size && *len <= size - *offset;
    }
    return false;
}

/* A NUL ends a name for libarchive, so that a name of two readings would be seen with one of them:
 * looked for in the directory itself. */
static au_status check_zip_names(const char *path, uint64_t size, au_err *err)
{
    unsigned char *dir = NULL;
    uint64_t offset;
    size_t len;
    au_status st = AU_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        st = au_fail_errno(err, errno, "cannot open the archive");
        goto done;
    }
    if (!find_directory(fd, size, &offset, &len))
        goto done;
    AU_FAIL_IF(len > DIRECTORY_MAX, AU_INVALID, "the archive has a directory of more than %d bytes",
               (int)DIRECTORY_MAX);
    AU_TRY(au_calloc(&dir, len, 1, err));
    AU_FAIL_IF(!read_at(fd, dir, len, offset), AU_IO, "cannot read the archive's directory");
    for (size_t at = 0; len - at >= ENTRY_BYTES && u32_at(dir + at) == ENTRY_MAGIC;) {
        size_t name = u16_at(dir + at + 28);
        size_t whole = ENTRY_BYTES + name + u16_at(dir + at + 30) + u16_at(dir + at + 32);
        if (whole > len - at)
            break;
        AU_FAIL_IF(memchr(dir + at + ENTRY_BYTES, 0, name), AU_INVALID,
                   "the archive has a file whose name holds a NUL");
        at += whole;
    }
done:
    free(dir);
    if (fd >= 0)
        close(fd);
    return st;
}

/* Before anything of an entry is written. */
static au_status check_size(const au_staging *s, struct archive_entry *e, au_err *err)
{
    au_status st = AU_OK;
    int64_t size = archive_entry_size_is_set(e) ? archive_entry_size(e) : 0;
    AU_FAIL_IF(size < 0, AU_INVALID, "the archive has a file of negative size");
    AU_FAIL_IF((uint64_t)size > s->max_bytes - s->bytes, AU_INVALID,
               "the archive unpacks to more than %llu bytes", (unsigned long long)s->max_bytes);
done:
    return st;
}

static au_status check_ratio(const au_staging *s, struct archive *a, uint64_t packed, au_err *err)
{
    /* What was read so far; zip is read by seeking, so there the whole file counts. */
    int64_t read = archive_filter_bytes(a, -1);
    bool tar = (archive_format(a) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
    uint64_t base = tar && read > 0 ? (uint64_t)read : packed;
    if (s->bytes < AU_STAGING_RATIO_FROM || s->bytes / AU_STAGING_RATIO_MAX <= base)
        return AU_OK;
    return au_fail(err, AU_INVALID, "the archive unpacks to more than %d times its size",
                   (int)AU_STAGING_RATIO_MAX);
}

static au_status unpack_file(au_staging *s, struct archive *a, uint64_t packed, const char *name,
                             au_err *err)
{
    char block[BLOCK_BYTES];
    au_status st = AU_OK;
    AU_TRY(au_staging_begin(s, name, err));
    while (true) {
        la_ssize_t n = archive_read_data(a, block, sizeof block);
        if (n < 0) {
            st = failed(a, "cannot be read", err);
            goto done;
        }
        if (n == 0)
            break;
        AU_TRY(au_staging_write(s, block, (size_t)n, err));
        AU_TRY(check_ratio(s, a, packed, err));
    }
    AU_TRY(au_staging_end(s, err));
done:
    return st;
}

static au_status unpack_entry(au_staging *s, struct archive *a, struct archive_entry *e,
                              uint64_t packed, au_err *err)
{
    au_status st = AU_OK;
    /* Names in UTF-8 can be had whatever the locale; others only as they stand. */
    const char *name = archive_entry_pathname_utf8(e);
    if (!name)
        name = archive_entry_pathname(e);
    AU_FAIL_IF(!name, AU_INVALID, "the archive has a file whose name cannot be read");
    AU_FAIL_IF(archive_entry_hardlink(e) || archive_entry_hardlink_utf8(e) ||
                   archive_entry_symlink(e) || archive_entry_symlink_utf8(e) ||
                   archive_entry_filetype(e) == AE_IFLNK,
               AU_INVALID, "the archive holds a link");
    AU_FAIL_IF(archive_entry_is_encrypted(e), AU_INVALID, "the archive is encrypted");
    if (archive_entry_filetype(e) == AE_IFDIR) {
        st = strcmp(name, "./") == 0 || strcmp(name, ".") == 0 ? AU_OK
                                                               : au_staging_folder(s, name, err);
        goto done;
    }
    AU_FAIL_IF(archive_entry_filetype(e) != AE_IFREG, AU_INVALID,
               "the archive holds something that is neither a file nor a folder");
    AU_TRY(check_size(s, e, err));
    AU_TRY(unpack_file(s, a, packed, name, err));
done:
    return st;
}

static au_status unpack_all(au_staging *s, struct archive *a, uint64_t packed, au_err *err)
{
    au_status st = AU_OK;
    for (bool first = true;; first = false) {
        struct archive_entry *e;
        int rc = archive_read_next_header(a, &e);
        if (rc == ARCHIVE_EOF) {
            AU_FAIL_IF(first, AU_INVALID, "the archive is empty");
            break;
        }
        /* A warning is about a name that the locale cannot show: it is looked at all the same. */
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) {
            st = failed(a, "cannot be read", err);
            goto done;
        }
        AU_TRY(unpack_entry(s, a, e, packed, err));
        AU_TRY(check_ratio(s, a, packed, err));
    }
done:
    return st;
}

/* libarchive converts names to the locale's character set, and the C locale has only ASCII. */
static au_status unpack(au_staging *s, struct archive *a, uint64_t packed, au_err *err)
{
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    au_status st = unpack_all(s, a, packed, err);
    if (utf8) {
        uselocale(before);
        freelocale(utf8);
    }
    return st;
}

au_status au_staging_unpack(au_staging *s, au_err *err)
{
    struct archive *a = NULL;
    char *path = NULL;
    au_status st = AU_OK;
    AU_TRY(au_path_join(&path, s->dir, "archive", err));
    AU_TRY(check_zip_names(path, s->size[AU_ADAPTER_ARCHIVE], err));
    AU_TRY(new_reader(&a, err));
    if (archive_read_open_filename(a, path, BLOCK_BYTES) != ARCHIVE_OK) {
        st = failed(a, "is neither zip, tar, tar.gz nor tar.zst", err);
        goto done;
    }
    AU_TRY(unpack(s, a, s->size[AU_ADAPTER_ARCHIVE], err));
    if (unlink(path) != 0)
        st = au_fail_errno(err, errno, "cannot remove the archive");
done:
    if (a)
        archive_read_free(a);
    free(path);
    return st;
}
