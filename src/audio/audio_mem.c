/* SPDX-License-Identifier: MIT */
/* A file in memory as libsndfile writes and reads it. Used by one thread at a time. */
#include <stdlib.h>
#include <string.h>

#include "audio/audio_priv.h"

static sf_count_t file_length(void *user)
{
    const au_mem_file *f = user;
    return (sf_count_t)f->len;
}

static sf_count_t file_tell(void *user)
{
    const au_mem_file *f = user;
    return (sf_count_t)f->pos;
}

static sf_count_t file_seek(sf_count_t offset, int whence, void *user)
{
    au_mem_file *f = user;
    sf_count_t base = whence == SEEK_CUR   ? (sf_count_t)f->pos
                      : whence == SEEK_END ? (sf_count_t)f->len
                                           : 0;
    if (offset < -base || offset > (sf_count_t)f->len - base)
        return -1;
    f->pos = (size_t)(base + offset);
    return (sf_count_t)f->pos;
}

static sf_count_t file_read(void *out, sf_count_t count, void *user)
{
    au_mem_file *f = user;
    size_t n = f->len - f->pos < (size_t)count ? f->len - f->pos : (size_t)count;
    memcpy(out, f->data + f->pos, n);
    f->pos += n;
    return (sf_count_t)n;
}

static sf_count_t file_write(const void *data, sf_count_t count, void *user)
{
    return au_mem_file_write(user, data, (size_t)count) ? count : 0;
}

bool au_mem_file_write(au_mem_file *f, const void *data, size_t n)
{
    if (n > f->cap - f->pos) {
        size_t cap = f->cap * 2 > f->pos + n ? f->cap * 2 : f->pos + n;
        unsigned char *grown = f->failed ? NULL : realloc(f->data, cap);
        if (!grown) {
            f->failed = true;
            return false;
        }
        f->data = grown;
        f->cap = cap;
    }
    memcpy(f->data + f->pos, data, n);
    f->pos += n;
    if (f->pos > f->len)
        f->len = f->pos;
    return true;
}

SF_VIRTUAL_IO au_mem_file_io(void)
{
    return (SF_VIRTUAL_IO){file_length, file_seek, file_read, file_write, file_tell};
}
