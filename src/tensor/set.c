/* SPDX-License-Identifier: MIT */
/* The set of tensors: views sorted by name, over files that stay mapped until the set is closed. */
#include "tensor/set.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

/* Names are short; the limits only keep a hostile file from filling memory with them. */
enum { MAX_NAME = 1024, MAX_NAMES_BYTES = 256 << 20 };

au_status au_tensor_set_new(au_tensor_set **out, au_err *err)
{
    au_status st = au_calloc(out, 1, sizeof **out, err);
    if (st == AU_OK)
        au_arena_init(&(*out)->arena, MAX_NAMES_BYTES);
    return st;
}

void au_tensor_set_close(au_tensor_set **set)
{
    if (!set || !*set)
        return;
    for (size_t i = 0; i < (*set)->n_files; i++)
        au_map_close(&(*set)->files[i].map);
    free((*set)->files);
    free((*set)->items);
    au_arena_deinit(&(*set)->arena);
    free(*set);
    *set = NULL;
}

void au_tensor_set_rest(const au_tensor_set *set)
{
    for (size_t i = 0; i < set->n_files; i++)
        au_map_rest(&set->files[i].map);
}

/* An empty record at the end of set->files, with its path. */
static au_status add_file(au_set_file **out, au_tensor_set *set, const char *path, au_err *err)
{
    char *copy = au_arena_strdup(&set->arena, path);
    au_set_file *files = realloc(set->files, (set->n_files + 1) * sizeof *files);
    if (files)
        set->files = files;
    if (!copy || !files)
        return au_fail(err, AU_NOMEM, "cannot allocate the record of %s", path);
    *out = &files[set->n_files++];
    **out = (au_set_file){.pub = {.path = copy}};
    return AU_OK;
}

au_status au_tensor_set_map(au_tensor_set *set, const char *path, au_err *err)
{
    au_set_file *f = NULL;
    au_status st;
    AU_TRY(add_file(&f, set, path, err));
    AU_TRY(au_map_open(&f->map, path, err));
    f->data = f->map.data;
    f->len = f->map.len;
    f->pub.bytes = f->len;
done:
    return st;
}

au_status au_tensor_set_borrow(au_tensor_set *set, const char *what, const void *data, size_t len,
                               au_err *err)
{
    au_set_file *f = NULL;
    au_status st;
    AU_TRY(add_file(&f, set, what, err));
    f->data = data;
    f->len = len;
    f->pub.bytes = len;
done:
    return st;
}

au_status au_tensor_set_add(au_tensor_set *set, const char *name, size_t name_len,
                            const au_tensor *t, au_err *err)
{
    if (name_len > MAX_NAME)
        return au_fail(err, AU_CORRUPT, "a tensor's name has %zu bytes, more than %d", name_len,
                       MAX_NAME);
    if (memchr(name, 0, name_len) || !au_utf8_valid(name, name_len))
        return au_fail(err, AU_CORRUPT, "a tensor's name is not clean UTF-8");
    if (set->n == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 256;
        au_tensor *items = realloc(set->items, cap * sizeof *items);
        if (!items)
            return au_fail(err, AU_NOMEM, "cannot allocate %zu tensors", cap);
        set->items = items;
        set->cap = cap;
    }
    char *copy = au_arena_strndup(&set->arena, name, name_len);
    if (!copy)
        return au_fail(err, AU_LIMIT, "the tensors' names need more than %d bytes",
                       MAX_NAMES_BYTES);
    set->items[set->n] = *t;
    set->items[set->n++].name = copy;
    return AU_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const au_tensor *)a)->name, ((const au_tensor *)b)->name);
}

au_status au_tensor_set_finish(au_tensor_set *set, au_err *err)
{
    if (set->n)
        qsort(set->items, set->n, sizeof *set->items, compare_names);
    for (size_t i = 1; i < set->n; i++)
        if (strcmp(set->items[i - 1].name, set->items[i].name) == 0)
            return au_fail(err, AU_CORRUPT, "%s: tensor %s occurs twice",
                           set->files[set->n_files - 1].pub.path, set->items[i].name);
    return AU_OK;
}

size_t au_tensor_set_count(const au_tensor_set *set)
{
    return set->n;
}

const au_tensor *au_tensor_set_at(const au_tensor_set *set, size_t i)
{
    AU_ASSERT(i < set->n);
    return &set->items[i];
}

const au_tensor *au_tensor_set_find(const au_tensor_set *set, const char *name)
{
    const au_tensor key = {.name = name};
    return set->n ? bsearch(&key, set->items, set->n, sizeof key, compare_names) : NULL;
}

size_t au_tensor_set_files(const au_tensor_set *set)
{
    return set->n_files;
}

const au_tensor_file *au_tensor_set_file(const au_tensor_set *set, size_t i)
{
    AU_ASSERT(i < set->n_files);
    return &set->files[i].pub;
}
