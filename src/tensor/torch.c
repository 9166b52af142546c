/* SPDX-License-Identifier: MIT */
/* Reader of PyTorch checkpoints (torch.save since 1.6): a zip file of <prefix>/data.pkl, which
 * describes the tensors, and <prefix>/data/<key>, their storages, used in place. Several tensors
 * may share a storage.
 *
 * Dicts within the dict are walked, their keys joined by a dot; values that are neither dicts nor
 * tensors are passed over. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tensor/pickle.h"
#include "tensor/set.h"
#include "tensor/zip.h"

enum { MAX_DEPTH = 8, MAX_NAME = 1024 };

typedef struct reader {
    au_tensor_set *set;
    const char *path;
    au_zip zip;
    const char *prefix; /* not NUL-terminated; with the slash */
    size_t prefix_len;
    size_t visits_left; /* bounds the walk over a graph that shares objects */
    char name[MAX_NAME];
    size_t name_len;
    au_err *err;
} reader;

/* The entry <prefix>/<a><b>, or NULL. */
static const au_zip_entry *find_entry(const reader *r, const char *a, const char *b, size_t b_len)
{
    char name[512];
    size_t a_len = strlen(a);
    if (r->prefix_len > sizeof name - a_len || b_len > sizeof name - a_len - r->prefix_len)
        return NULL;
    memcpy(name, r->prefix, r->prefix_len);
    memcpy(name + r->prefix_len, a, a_len);
    memcpy(name + r->prefix_len + a_len, b, b_len);
    return au_zip_find(&r->zip, name, r->prefix_len + a_len + b_len);
}

/* Finds <prefix>/data.pkl with a prefix of one folder, and checks the byte order. */
static au_status find_pickle(reader *r, const au_zip_entry **out, au_err *err)
{
    static const char tail[] = "/data.pkl";
    *out = NULL;
    for (size_t i = 0; i < r->zip.n; i++) {
        const au_zip_entry *e = &r->zip.entries[i];
        size_t n = e->name_len;
        if (n < sizeof tail || memcmp(e->name + n - (sizeof tail - 1), tail, sizeof tail - 1) != 0)
            continue;
        r->prefix = e->name;
        r->prefix_len = n - (sizeof tail - 2);
        if (memchr(e->name, '/', r->prefix_len - 1))
            continue;
        *out = e;
        break;
    }
    if (!*out)
        return au_fail(err, AU_CORRUPT, "%s: a zip file without data.pkl is no PyTorch checkpoint",
                       r->path);
    const au_zip_entry *order = find_entry(r, "byteorder", "", 0);
    if (order && (order->bytes != 6 || memcmp(order->data, "little", 6) != 0))
        return au_fail(err, AU_UNSUPPORTED, "%s: its byte order is %.*s, expected little", r->path,
                       (int)(order->bytes < 20 ? order->bytes : 20), (const char *)order->data);
    return AU_OK;
}

/* Shape and strides of a tensor; it must be contiguous, so the strides only confirm the shape. */
static au_status read_shape(const reader *r, au_tensor *t, const au_pickle_object *shape,
                            const au_pickle_object *strides)
{
    if (shape->n > AU_MAX_RANK)
        return au_fail(r->err, AU_UNSUPPORTED, "%s: tensor %s has %zu dimensions, more than %d",
                       r->path, r->name, shape->n, AU_MAX_RANK);
    if (strides->n != shape->n)
        return au_fail(r->err, AU_CORRUPT, "%s: tensor %s has %zu dimensions but %zu strides",
                       r->path, r->name, shape->n, strides->n);
    t->rank = (int)shape->n;
    for (int i = 0; i < t->rank; i++) {
        if (shape->items[i].type != AU_PICKLE_INT || strides->items[i].type != AU_PICKLE_INT ||
            shape->items[i].i < 0)
            return au_fail(r->err, AU_CORRUPT,
                           "%s: dimension %d of tensor %s is not an integer >= 0", r->path, i,
                           r->name);
        t->shape[i] = shape->items[i].i;
    }
    uint64_t elements, bytes;
    char text[200];
    au_tensor_shape_text(text, sizeof text, t->rank, t->shape);
    if (!au_shape_bytes(t->dtype, t->rank, t->shape, &elements, &bytes))
        return au_fail(r->err, AU_CORRUPT, "%s: the size of tensor %s, shape %s, overflows",
                       r->path, r->name, text);
    t->bytes = (size_t)bytes;
    int64_t expected = 1;
    for (int i = t->rank - 1; i >= 0 && elements; i--) {
        /* The stride of a dimension of one is never used, and torch leaves anything there. */
        if (t->shape[i] != 1 && strides->items[i].i != expected)
            return au_fail(r->err, AU_UNSUPPORTED,
                           "%s: tensor %s, shape %s, is not contiguous: stride %" PRId64
                           " of dimension %d, expected %" PRId64,
                           r->path, r->name, text, strides->items[i].i, i, expected);
        expected *= t->shape[i];
    }
    return AU_OK;
}

static au_status add_tensor(reader *r, const au_pickle_object *o)
{
    const au_pickle_value *storage = o->items[0].object->items;
    const au_pickle_value *key = &storage[2];
    int64_t offset = o->items[1].i, count = storage[4].i;
    au_tensor t = {.dtype = (au_dtype)(storage[1].i - AU_PICKLE_STORAGE_TYPE)};
    size_t size = au_dtype_bytes(t.dtype);
    au_status st = read_shape(r, &t, o->items[2].object, o->items[3].object);
    if (st != AU_OK)
        return st;
    int show = (int)(key->len < 40 ? key->len : 40);
    const au_zip_entry *e = find_entry(r, "data/", key->text, key->len);
    if (!e)
        return au_fail(r->err, AU_CORRUPT, "%s: storage %.*s of tensor %s is not in the file",
                       r->path, show, key->text, r->name);
    if (count < 0 || e->bytes % size != 0 || (uint64_t)count != e->bytes / size)
        return au_fail(r->err, AU_CORRUPT,
                       "%s: storage %.*s of tensor %s has %zu bytes, expected %" PRId64 " x %zu",
                       r->path, show, key->text, r->name, e->bytes, count, size);
    if (offset < 0 || offset > count || t.bytes / size > (uint64_t)(count - offset))
        return au_fail(r->err, AU_CORRUPT,
                       "%s: tensor %s takes %zu elements at %" PRId64 " of a storage of %" PRId64,
                       r->path, r->name, t.bytes / size, offset, count);
    t.data = e->data + (size_t)offset * size;
    return au_tensor_set_add(r->set, r->name, r->name_len, &t, r->err);
}

static au_status walk_dict(reader *r, const au_pickle_object *dict, int depth);

static au_status walk_item(reader *r, const au_pickle_value *key, const au_pickle_value *value,
                           int depth)
{
    if (r->visits_left-- == 0)
        return au_fail(r->err, AU_LIMIT, "%s: the pickle refers to its parts too often", r->path);
    if (value->type != AU_PICKLE_DICT && value->type != AU_PICKLE_TENSOR)
        return AU_OK;
    if (key->type != AU_PICKLE_TEXT)
        return au_fail(r->err, AU_UNSUPPORTED, "%s: a dict has a key that is no text", r->path);
    size_t before = r->name_len;
    if (key->len > sizeof r->name - 2 - before)
        return au_fail(r->err, AU_LIMIT, "%s: a tensor's name has more than %d bytes", r->path,
                       MAX_NAME - 2);
    if (before)
        r->name[r->name_len++] = '.';
    memcpy(r->name + r->name_len, key->text, key->len);
    r->name_len += key->len;
    r->name[r->name_len] = 0;
    au_status st = value->type == AU_PICKLE_TENSOR ? add_tensor(r, value->object)
                                                   : walk_dict(r, value->object, depth + 1);
    r->name_len = before;
    r->name[before] = 0;
    return st;
}

static au_status walk_dict(reader *r, const au_pickle_object *dict, int depth)
{
    if (depth > MAX_DEPTH)
        return au_fail(r->err, AU_UNSUPPORTED, "%s: dicts nest deeper than %d", r->path, MAX_DEPTH);
    au_status st = AU_OK;
    for (size_t i = 0; i + 1 < dict->n && st == AU_OK; i += 2)
        st = walk_item(r, &dict->items[i], &dict->items[i + 1], depth);
    return st;
}

/* Says what a file is that is not a zip, as far as that helps. */
static au_status check_form(const au_set_file *f, au_err *err)
{
    static const unsigned char old[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46};
    if (f->len >= sizeof old && memcmp(f->data, old, sizeof old) == 0)
        return au_fail(err, AU_UNSUPPORTED,
                       "%s is in the format of PyTorch before 1.6; load and save it again, or "
                       "convert it to safetensors",
                       f->pub.path);
    if (f->len < 4 || memcmp(f->data, "PK\3\4", 4) != 0)
        return au_fail(err, AU_CORRUPT, "%s is not a PyTorch zip file", f->pub.path);
    return AU_OK;
}

au_status au_torch_read(au_tensor_set *set, au_err *err)
{
    au_set_file *f = &set->files[set->n_files - 1];
    reader r = {.set = set, .path = f->pub.path, .err = err};
    au_pickle pickle = {0};
    const au_zip_entry *e;
    au_status st;
    AU_TRY(check_form(f, err));
    AU_TRY(au_zip_open(&r.zip, f->data, f->len, r.path, err));
    AU_TRY(find_pickle(&r, &e, err));
    AU_TRY(au_pickle_read(&pickle, e->data, e->bytes, r.path, err));
    AU_FAIL_IF(pickle.root.type != AU_PICKLE_DICT, AU_UNSUPPORTED,
               "%s holds no dict of tensors at its top", r.path);
    f->pub.header = e->data;
    f->pub.header_bytes = e->bytes;
    /* An item of a dict takes several bytes of the pickle, unless its dict is shared. */
    r.visits_left = e->bytes;
    AU_TRY(walk_dict(&r, pickle.root.object, 0));
done:
    au_pickle_close(&pickle);
    au_zip_close(&r.zip);
    return st;
}

au_status au_torch_open(au_tensor_set **out, const char *path, au_err *err)
{
    au_status st;
    AU_TRY(au_tensor_set_new(out, err));
    AU_TRY(au_tensor_set_map(*out, path, err));
    AU_TRY(au_torch_read(*out, err));
    AU_TRY(au_tensor_set_finish(*out, err));
done:
    if (st != AU_OK)
        au_tensor_set_close(out);
    return st;
}

au_status au_torch_from_memory(au_tensor_set **out, const void *data, size_t len, const char *what,
                               au_err *err)
{
    au_status st;
    AU_TRY(au_tensor_set_new(out, err));
    AU_TRY(au_tensor_set_borrow(*out, what, data, len, err));
    AU_TRY(au_torch_read(*out, err));
    AU_TRY(au_tensor_set_finish(*out, err));
done:
    if (st != AU_OK)
        au_tensor_set_close(out);
    return st;
}
