/* SPDX-License-Identifier: MIT */
/* Internal to tensor/: building a tensor set. One thread builds, then the set is read-only. */
#ifndef AU_TENSOR_SET_H
#define AU_TENSOR_SET_H

#include "base/arena.h"
#include "base/fs.h"
#include "tensor/tensor.h"

typedef struct au_set_file {
    au_tensor_file pub; /* path owned by the set's arena; header filled by the reader */
    au_map map;         /* empty for a file that lives in the caller's memory */
    const unsigned char *data;
    size_t len;
} au_set_file;

struct au_tensor_set {
    au_arena arena; /* names and paths */
    au_set_file *files;
    size_t n_files;
    au_tensor *items;
    size_t n, cap;
};

AU_MUST_CHECK au_status au_tensor_set_new(au_tensor_set **out, au_err *err);
/* A file to read tensors from; it is the last of set->files afterwards. Mapped, or in the caller's
 * memory. */
AU_MUST_CHECK au_status au_tensor_set_map(au_tensor_set *set, const char *path, au_err *err);
AU_MUST_CHECK au_status au_tensor_set_borrow(au_tensor_set *set, const char *what, const void *data,
                                             size_t len, au_err *err);
/* Adds a view; its name (not NUL-terminated, name_len bytes) is checked and copied, t->name
 * ignored. */
AU_MUST_CHECK au_status au_tensor_set_add(au_tensor_set *set, const char *name, size_t name_len,
                                          const au_tensor *t, au_err *err);
/* Sorts by name; AU_CORRUPT if two tensors share one. */
AU_MUST_CHECK au_status au_tensor_set_finish(au_tensor_set *set, au_err *err);

/* shape product x element size, for a shape of any origin; false on overflow or a negative
 * dimension. */
bool au_shape_bytes(au_dtype t, int rank, const int64_t *shape, uint64_t *elements,
                    uint64_t *bytes);

/* The readers: add the tensors of the set's last file. */
AU_MUST_CHECK au_status au_safetensors_read(au_tensor_set *set, au_err *err);
AU_MUST_CHECK au_status au_torch_read(au_tensor_set *set, au_err *err);

#endif
