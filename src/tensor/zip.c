/* SPDX-License-Identifier: MIT */
/* Reader of stored zip files, as torch.save writes them.
 *
 * Sizes and offsets are those of the central directory (local headers hold zeros where a data
 * descriptor follows the data); the local header gives only the place where the data begins.
 * Layouts: APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (central), 4.3.14 to 4.3.16
 * (ends), 4.5.3 (zip64 extra). */
#include "tensor/zip.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    MAX_COMMENT = 65535,
};
enum { LOCAL_MAGIC = 0x04034b50, CENTRAL_MAGIC = 0x02014b50, END_MAGIC = 0x06054b50 };
enum { END64_MAGIC = 0x06064b50, LOCATOR_MAGIC = 0x07064b50 };

static uint32_t u16_at(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32_at(const unsigned char *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

static uint64_t u64_at(const unsigned char *p)
{
    return u32_at(p) | (uint64_t)u32_at(p + 4) << 32;
}

typedef struct file {
    const unsigned char *data;
    size_t len;
    const char *what;
} file;

typedef struct directory {
    uint64_t offset, bytes, count;
} directory;

/* Position of the end record, or SIZE_MAX. It is the last thing in the file but for a comment. */
static size_t find_end(const file *f)
{
    if (f->len < END_BYTES)
        return SIZE_MAX;
    size_t last = f->len - END_BYTES;
    size_t first = last > MAX_COMMENT ? last - MAX_COMMENT : 0;
    for (size_t at = last + 1; at-- > first;)
        if (u32_at(f->data + at) == END_MAGIC && u16_at(f->data + at + 20) == last - at)
            return at;
    return SIZE_MAX;
}

/* Where the central directory lies, checked against the file. */
static au_status find_directory(directory *d, const file *f, au_err *err)
{
    size_t end = find_end(f);
    if (end == SIZE_MAX)
        return au_fail(err, AU_CORRUPT,
                       "%s: not a whole zip file: it has no end record (cut short?)", f->what);
    const unsigned char *p = f->data + end;
    uint64_t disks = u16_at(p + 4) | u16_at(p + 6);
    d->count = u16_at(p + 10);
    d->bytes = u32_at(p + 12);
    d->offset = u32_at(p + 16);
    uint64_t limit = end;
    if (end >= LOCATOR_BYTES && u32_at(p - LOCATOR_BYTES) == LOCATOR_MAGIC) {
        uint64_t at = u64_at(p - LOCATOR_BYTES + 8);
        if (end - LOCATOR_BYTES < END64_BYTES || at > end - LOCATOR_BYTES - END64_BYTES ||
            u32_at(f->data + at) != END64_MAGIC)
            return au_fail(err, AU_CORRUPT, "%s: the zip64 end record is not where it should be",
                           f->what);
        p = f->data + at;
        disks = u32_at(p + 16) | u32_at(p + 20);
        d->count = u64_at(p + 32);
        d->bytes = u64_at(p + 40);
        d->offset = u64_at(p + 48);
        limit = at;
    }
    if (disks)
        return au_fail(err, AU_UNSUPPORTED, "%s: zip over several disks is not supported", f->what);
    if (d->offset > limit || d->bytes > limit - d->offset || d->count > d->bytes / CENTRAL_BYTES)
        return au_fail(err, AU_CORRUPT,
                       "%s: the zip directory (%" PRIu64 " entries, %" PRIu64 " bytes at %" PRIu64
                       ") does not fit the file",
                       f->what, d->count, d->bytes, d->offset);
    return AU_OK;
}

/* Takes from the zip64 extra field those of the three values that are saturated; false if it lacks
 * one. */
static bool apply_zip64(const unsigned char *extra, size_t len, uint64_t *bytes, uint64_t *stored,
                        uint64_t *offset)
{
    uint64_t *values[] = {bytes, stored, offset};
    while (len >= 4) {
        size_t id = u16_at(extra), size = u16_at(extra + 2);
        extra += 4;
        len -= 4;
        if (size > len)
            break;
        if (id == 1) {
            for (int i = 0; i < 3; i++) {
                if (*values[i] != UINT32_MAX)
                    continue;
                if (size < 8)
                    return false;
                *values[i] = u64_at(extra);
                extra += 8;
                size -= 8;
            }
            return true;
        }
        extra += size;
        len -= size;
    }
    /* No zip64 field: then no value may need one. */
    return *bytes != UINT32_MAX && *stored != UINT32_MAX && *offset != UINT32_MAX;
}

/* Finds the data of an entry behind its local header. */
static au_status locate(au_zip_entry *e, const file *f, uint64_t offset, uint64_t bytes,
                        uint64_t limit, au_err *err)
{
    int show = (int)(e->name_len < 200 ? e->name_len : 200);
    if (limit < LOCAL_BYTES || offset > limit - LOCAL_BYTES ||
        u32_at(f->data + offset) != LOCAL_MAGIC)
        return au_fail(err, AU_CORRUPT, "%s: zip entry %.*s has no header at byte %" PRIu64,
                       f->what, show, e->name, offset);
    const unsigned char *p = f->data + offset;
    uint64_t room = limit - offset - LOCAL_BYTES, skip = u16_at(p + 26) + u16_at(p + 28);
    if (skip > room || bytes > room - skip)
        return au_fail(err, AU_CORRUPT, "%s: zip entry %.*s of %" PRIu64 " bytes runs over its end",
                       f->what, show, e->name, bytes);
    if (u16_at(p + 26) != e->name_len || memcmp(p + LOCAL_BYTES, e->name, e->name_len) != 0)
        return au_fail(err, AU_CORRUPT, "%s: zip entry %.*s has another name in its own header",
                       f->what, show, e->name);
    e->data = p + LOCAL_BYTES + skip;
    e->bytes = (size_t)bytes;
    return AU_OK;
}

/* One central header at p, of which `left` bytes are there; *used says how many it takes. */
static au_status read_entry(au_zip_entry *e, size_t *used, const file *f, const unsigned char *p,
                            size_t left, uint64_t limit, au_err *err)
{
    if (left < CENTRAL_BYTES || u32_at(p) != CENTRAL_MAGIC)
        return au_fail(err, AU_CORRUPT, "%s: the zip directory is damaged", f->what);
    size_t name_len = u16_at(p + 28), extra_len = u16_at(p + 30);
    size_t whole = CENTRAL_BYTES + name_len + extra_len + u16_at(p + 32);
    if (whole > left)
        return au_fail(err, AU_CORRUPT, "%s: the zip directory is cut short", f->what);
    uint32_t flags = u16_at(p + 8), method = u16_at(p + 10);
    uint64_t stored = u32_at(p + 20), bytes = u32_at(p + 24), offset = u32_at(p + 42);
    *e = (au_zip_entry){.name = (const char *)p + CENTRAL_BYTES, .name_len = name_len};
    int show = (int)(name_len < 200 ? name_len : 200);
    if (flags & 0x2041) /* encrypted, in any of three ways */
        return au_fail(err, AU_UNSUPPORTED, "%s: zip entry %.*s is encrypted", f->what, show,
                       e->name);
    if (method != 0)
        return au_fail(err, AU_UNSUPPORTED,
                       "%s: zip entry %.*s is compressed (method %" PRIu32 "), expected stored",
                       f->what, show, e->name, method);
    if (!apply_zip64(p + CENTRAL_BYTES + name_len, extra_len, &bytes, &stored, &offset))
        return au_fail(err, AU_CORRUPT, "%s: zip entry %.*s lacks its 64-bit sizes", f->what, show,
                       e->name);
    if (stored != bytes)
        return au_fail(err, AU_CORRUPT,
                       "%s: zip entry %.*s is stored in %" PRIu64 " bytes but has %" PRIu64,
                       f->what, show, e->name, stored, bytes);
    *used = whole;
    return locate(e, f, offset, bytes, limit, err);
}

static int compare_entries(const void *a, const void *b)
{
    const au_zip_entry *x = a, *y = b;
    size_t n = x->name_len < y->name_len ? x->name_len : y->name_len;
    int c = memcmp(x->name, y->name, n);
    return c ? c : x->name_len < y->name_len ? -1 : x->name_len > y->name_len;
}

au_status au_zip_open(au_zip *zip, const unsigned char *data, size_t len, const char *what,
                      au_err *err)
{
    const file f = {.data = data, .len = len, .what = what};
    directory d = {0};
    au_status st;
    *zip = (au_zip){0};
    AU_TRY(find_directory(&d, &f, err));
    AU_TRY(au_calloc(&zip->entries, (size_t)d.count, sizeof *zip->entries, err));
    size_t at = 0;
    for (; zip->n < d.count; zip->n++) {
        size_t used = 0;
        AU_TRY(read_entry(&zip->entries[zip->n], &used, &f, data + d.offset + at,
                          (size_t)d.bytes - at, d.offset, err));
        at += used;
    }
    if (zip->n)
        qsort(zip->entries, zip->n, sizeof *zip->entries, compare_entries);
    for (size_t i = 1; i < zip->n; i++) {
        const au_zip_entry *e = &zip->entries[i];
        AU_FAIL_IF(compare_entries(e - 1, e) == 0, AU_CORRUPT, "%s: zip entry %.*s occurs twice",
                   what, (int)(e->name_len < 200 ? e->name_len : 200), e->name);
    }
done:
    if (st != AU_OK)
        au_zip_close(zip);
    return st;
}

void au_zip_close(au_zip *zip)
{
    free(zip->entries);
    *zip = (au_zip){0};
}

const au_zip_entry *au_zip_find(const au_zip *zip, const char *name, size_t name_len)
{
    const au_zip_entry key = {.name = name, .name_len = name_len};
    return zip->n ? bsearch(&key, zip->entries, zip->n, sizeof key, compare_entries) : NULL;
}
