/* SPDX-License-Identifier: MIT */
/* Reader of safetensors: 8 bytes of little-endian header length, a JSON object, tensor data.
 *
 * The header maps names to {dtype, shape, data_offsets: [begin, end)}, offsets counted from the end
 * of the header. A file is taken only if its tensors cover the data exactly: no overlap, no hole,
 * nothing behind the last one. Everything is compared before it is used in arithmetic. */
#include "tensor/set.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

/* The limit of the reference implementation. */
enum { MAX_HEADER_BYTES = 100000000 };

typedef struct entry {
    const char *name;
    uint64_t begin, end;
} entry;

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* A JSON integer >= 0. */
static bool get_u64(const json_t *j, uint64_t *out)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return false;
    *out = (uint64_t)json_integer_value(j);
    return true;
}

static au_status read_dtype(au_dtype *out, const char *path, const char *name, const json_t *j,
                            au_err *err)
{
    const char *text = json_string_value(j);
    if (!text)
        return au_fail(err, AU_CORRUPT, "%s: tensor %s has no dtype", path, name);
    for (int t = 0; t < AU_DTYPE_COUNT; t++) {
        if (strcmp(text, au_dtype_name((au_dtype)t)) == 0) {
            *out = (au_dtype)t;
            return AU_OK;
        }
    }
    return au_fail(err, AU_UNSUPPORTED,
                   "%s: tensor %s has dtype %.32s, expected one of F32, F16, BF16, F64, I64, I32, "
                   "I16, I8, U8, BOOL",
                   path, name, text);
}

static au_status read_shape(au_tensor *t, const char *path, const char *name, const json_t *j,
                            au_err *err)
{
    if (!json_is_array(j))
        return au_fail(err, AU_CORRUPT, "%s: tensor %s has no shape", path, name);
    size_t rank = json_array_size(j);
    if (rank > AU_MAX_RANK)
        return au_fail(err, AU_UNSUPPORTED, "%s: tensor %s has %zu dimensions, more than %d", path,
                       name, rank, AU_MAX_RANK);
    t->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        uint64_t dim;
        if (!get_u64(json_array_get(j, i), &dim))
            return au_fail(err, AU_CORRUPT, "%s: dimension %zu of tensor %s is not an integer >= 0",
                           path, i, name);
        t->shape[i] = (int64_t)dim;
    }
    return AU_OK;
}

/* One header entry into the set. data_len: bytes behind the header. */
static au_status read_tensor(au_tensor_set *set, entry *e, const json_t *j,
                             const unsigned char *data, uint64_t data_len, au_err *err)
{
    const char *path = set->files[set->n_files - 1].pub.path;
    au_tensor t = {0};
    au_status st;
    uint64_t elements, bytes;
    char shape[200];
    AU_FAIL_IF(!json_is_object(j), AU_CORRUPT, "%s: the entry of tensor %s is not an object", path,
               e->name);
    AU_TRY(read_dtype(&t.dtype, path, e->name, json_object_get(j, "dtype"), err));
    AU_TRY(read_shape(&t, path, e->name, json_object_get(j, "shape"), err));
    au_tensor_shape_text(shape, sizeof shape, t.rank, t.shape);
    AU_FAIL_IF(!au_shape_bytes(t.dtype, t.rank, t.shape, &elements, &bytes), AU_CORRUPT,
               "%s: the size of tensor %s, shape %s, overflows", path, e->name, shape);
    const json_t *offsets = json_object_get(j, "data_offsets");
    AU_FAIL_IF(json_array_size(offsets) != 2 || !get_u64(json_array_get(offsets, 0), &e->begin) ||
                   !get_u64(json_array_get(offsets, 1), &e->end),
               AU_CORRUPT, "%s: tensor %s has no data_offsets of two integers >= 0", path, e->name);
    AU_FAIL_IF(e->begin > e->end, AU_CORRUPT,
               "%s: data_offsets of tensor %s run backwards: [%" PRIu64 ",%" PRIu64 "]", path,
               e->name, e->begin, e->end);
    AU_FAIL_IF(e->end > data_len, AU_CORRUPT,
               "%s: tensor %s ends at byte %" PRIu64
               " of the data, outside the file, which has %" PRIu64 " bytes of data (cut short?)",
               path, e->name, e->end, data_len);
    AU_FAIL_IF(e->end - e->begin != bytes, AU_CORRUPT,
               "%s: tensor %s has %" PRIu64 " bytes, expected %" PRIu64 " for %s %s", path, e->name,
               e->end - e->begin, bytes, au_dtype_name(t.dtype), shape);
    t.data = data + e->begin;
    t.bytes = (size_t)bytes;
    st = au_tensor_set_add(set, e->name, strlen(e->name), &t, err);
done:
    return st;
}

/* The tensors must cover the data from the first to the last byte, each byte once. */
static au_status check_cover(entry *entries, size_t n, uint64_t data_len, const char *path,
                             au_err *err)
{
    if (n)
        qsort(entries, n, sizeof *entries, compare_entries);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (entries[i].begin < at)
            return au_fail(err, AU_CORRUPT, "%s: tensor %s overlaps tensor %s", path,
                           entries[i].name, entries[i - 1].name);
        if (entries[i].begin > at)
            return au_fail(err, AU_CORRUPT,
                           "%s: %" PRIu64 " bytes before tensor %s belong to no tensor", path,
                           entries[i].begin - at, entries[i].name);
        at = entries[i].end;
    }
    if (at != data_len)
        return au_fail(err, AU_CORRUPT,
                       "%s: %" PRIu64 " bytes behind the last tensor belong to no tensor", path,
                       data_len - at);
    return AU_OK;
}

/* Length of the JSON header, checked against the file. */
static au_status header_length(size_t *out, const au_set_file *f, au_err *err)
{
    uint64_t len = 0;
    const char *path = f->pub.path;
    if (f->len < 8)
        return au_fail(err, AU_CORRUPT, "%s has %zu bytes, too few for a safetensors header", path,
                       f->len);
    for (int i = 7; i >= 0; i--)
        len = len << 8 | f->data[i];
    if (len > f->len - 8)
        return au_fail(err, AU_CORRUPT,
                       "%s: the header says it has %" PRIu64
                       " bytes, but the file has only %zu more",
                       path, len, f->len - 8);
    if (len > MAX_HEADER_BYTES)
        return au_fail(err, AU_LIMIT, "%s: the header has %" PRIu64 " bytes, more than %d", path,
                       len, MAX_HEADER_BYTES);
    if (len < 2 || f->data[8] != '{')
        return au_fail(err, AU_CORRUPT, "%s: the header does not begin with {", path);
    *out = (size_t)len;
    return AU_OK;
}

au_status au_safetensors_read(au_tensor_set *set, au_err *err)
{
    au_set_file *f = &set->files[set->n_files - 1];
    json_t *header = NULL, *value;
    entry *entries = NULL;
    const char *name;
    size_t len = 0, n = 0;
    au_status st;
    AU_TRY(header_length(&len, f, err));
    AU_TRY(au_json_parse(&header, (const char *)f->data + 8, len, f->pub.path, err));
    AU_TRY(au_calloc(&entries, json_object_size(header), sizeof *entries, err));
    f->pub.header = f->data;
    f->pub.header_bytes = 8 + len;
    const unsigned char *data = f->data + 8 + len;
    uint64_t data_len = f->len - 8 - len;
    json_object_foreach(header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        entries[n].name = name;
        AU_TRY(read_tensor(set, &entries[n], value, data, data_len, err));
        n++;
    }
    AU_TRY(check_cover(entries, n, data_len, f->pub.path, err));
done:
    free(entries);
    json_decref(header);
    return st;
}

au_status au_safetensors_open(au_tensor_set **out, const char *path, au_err *err)
{
    au_status st;
    AU_TRY(au_tensor_set_new(out, err));
    AU_TRY(au_tensor_set_map(*out, path, err));
    AU_TRY(au_safetensors_read(*out, err));
    AU_TRY(au_tensor_set_finish(*out, err));
done:
    if (st != AU_OK)
        au_tensor_set_close(out);
    return st;
}

au_status au_safetensors_from_memory(au_tensor_set **out, const void *data, size_t len,
                                     const char *what, au_err *err)
{
    au_status st;
    AU_TRY(au_tensor_set_new(out, err));
    AU_TRY(au_tensor_set_borrow(*out, what, data, len, err));
    AU_TRY(au_safetensors_read(*out, err));
    AU_TRY(au_tensor_set_finish(*out, err));
done:
    if (st != AU_OK)
        au_tensor_set_close(out);
    return st;
}
