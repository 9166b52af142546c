/* SPDX-License-Identifier: MIT */
/* Tensor views, element types, and the set of tensors that a checkpoint's files hold. */
#ifndef AU_TENSOR_TENSOR_H
#define AU_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum au_dtype {
    AU_F32,
    AU_F16,
    AU_BF16, /* usable as weights */
    AU_F64,
    AU_I64,
    AU_I32,
    AU_I16,
    AU_I8,
    AU_U8,
    AU_BOOL, /* known, so that files which hold them open */
    AU_DTYPE_COUNT
} au_dtype;

size_t au_dtype_bytes(au_dtype t);
const char *au_dtype_name(au_dtype t); /* "F32", as safetensors spells it */

enum { AU_MAX_RANK = 8 };

/* A row-major view of read-only elements. The data may be unaligned. */
typedef struct au_tensor {
    const char *name; /* borrowed from the set */
    au_dtype dtype;
    int rank;
    int64_t shape[AU_MAX_RANK]; /* outermost first; all >= 0 */
    const void *data;           /* borrowed from the set */
    size_t bytes;
} au_tensor;

int64_t au_tensor_elements(const au_tensor *t);
/* "[1024,1024]" in buf; returns buf. */
const char *au_tensor_shape_text(char *buf, size_t size, int rank, const int64_t *shape);
/* Widens elements [first, first+n) to f32. dtype F32, F16, BF16. */
void au_tensor_read_f32(const au_tensor *t, size_t first, size_t n, float *out);

/* All tensors of one or several files, by name. Files stay mapped until the set is closed.
 * Read-only and safe from any thread after opening. */
typedef struct au_tensor_set au_tensor_set;

/* One .safetensors file. Checks everything before it is used: header length against the file, JSON,
 * dtype, shape product, offsets in order, inside, not overlapping, without holes, equal to dtype x
 * shape; duplicate names. AU_CORRUPT names the tensor, what was found and what was expected. */
AU_MUST_CHECK au_status au_safetensors_open(au_tensor_set **out, const char *path, au_err *err);
/* The same from memory that the caller keeps until the set is closed (tests, fuzzing). */
AU_MUST_CHECK au_status au_safetensors_from_memory(au_tensor_set **out, const void *data,
                                                   size_t len, const char *what, au_err *err);

/* One PyTorch zip-pickle file (torch.save since 1.6): a state dict of tensors, possibly nested in
 * OrderedDict. The reader knows the opcodes and the globals that a state dict needs and executes
 * nothing; any other global is AU_UNSUPPORTED and named. Tensors must be contiguous; storage is
 * used in place (zip entries are stored, not compressed). */
AU_MUST_CHECK au_status au_torch_open(au_tensor_set **out, const char *path, au_err *err);
AU_MUST_CHECK au_status au_torch_from_memory(au_tensor_set **out, const void *data, size_t len,
                                             const char *what, au_err *err);

/* The weights of a checkpoint folder, whichever form they have, in this order of preference:
 * model.safetensors; model.safetensors.index.json with its shards; pytorch_model.bin;
 * pytorch_model.bin.index.json with its shards. Every shard that the index names must exist, stay
 * inside the folder (no '/' in names) and hold just the tensors that the index says. AU_NOT_FOUND
 * lists what was looked for. */
AU_MUST_CHECK au_status au_checkpoint_open(au_tensor_set **out, const char *dir, au_err *err);

void au_tensor_set_close(au_tensor_set **set);
/* Gives back the pages of its files; they are read again when they are touched. Any thread. */
void au_tensor_set_rest(const au_tensor_set *set);
size_t au_tensor_set_count(const au_tensor_set *set);
const au_tensor *au_tensor_set_at(const au_tensor_set *set, size_t i); /* in order of name */
const au_tensor *au_tensor_set_find(const au_tensor_set *set,
                                    const char *name); /* NULL if absent */

/* The files of the set, in order: path (or `what`), size, and for the fingerprint the header bytes
 * (safetensors: length prefix and JSON; torch: the pickle). Borrowed from the set. */
typedef struct au_tensor_file {
    const char *path;
    uint64_t bytes;
    const void *header;
    size_t header_bytes;
} au_tensor_file;
size_t au_tensor_set_files(const au_tensor_set *set);
const au_tensor_file *au_tensor_set_file(const au_tensor_set *set, size_t i);

#endif
