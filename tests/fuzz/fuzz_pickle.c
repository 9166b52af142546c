/* SPDX-License-Identifier: MIT */
/* The pickle of a PyTorch file alone, put into a zip with two storages, so that mutations reach the
 * stack machine. */
#include <string.h>

#include "base/buf.h"
#include "tensor/tensor.h"

static void put(au_buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        au_buf_char(b, (char)(v >> 8 * i));
}

static void add(au_buf *out, au_buf *directory, const char *name, const void *data, size_t len)
{
    size_t offset = out->len;
    for (int central = 0; central < 2; central++) {
        au_buf *b = central ? directory : out;
        put(b, central ? 0x02014b50 : 0x04034b50, 4);
        put(b, 20, central ? 4 : 2); /* versions */
        put(b, 0, 8);                /* flags, method, time */
        put(b, 0, 4);
        put(b, len, 4);
        put(b, len, 4);
        put(b, strlen(name), 2);
        put(b, 0, 2);
        if (central) {
            put(b, 0, 8);
            put(b, 0, 2);
            put(b, offset, 4);
        }
        au_buf_str(b, name);
    }
    au_buf_append(out, data, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char storage[24];
    static volatile unsigned char sink;
    if (size > 1 << 16)
        return 0;
    au_buf out, directory;
    au_buf_init(&out, 1 << 20);
    au_buf_init(&directory, 1 << 16);
    add(&out, &directory, "a/data.pkl", data, size);
    add(&out, &directory, "a/data/0", storage, 24);
    add(&out, &directory, "a/data/1", storage, 6);
    size_t at = out.len;
    au_buf_append(&out, directory.data, directory.len);
    put(&out, 0x06054b50, 4);
    put(&out, 0, 4);
    put(&out, 3, 2);
    put(&out, 3, 2);
    put(&out, directory.len, 4);
    put(&out, at, 4);
    put(&out, 0, 2);
    au_tensor_set *set;
    if (au_torch_from_memory(&set, out.data, out.len, "fuzz", NULL) == AU_OK) {
        for (size_t i = 0; i < au_tensor_set_count(set); i++) {
            const au_tensor *t = au_tensor_set_at(set, i);
            for (size_t k = 0; k < t->bytes; k++)
                sink = ((const unsigned char *)t->data)[k];
        }
        au_tensor_set_close(&set);
    }
    au_buf_deinit(&out);
    au_buf_deinit(&directory);
    (void)sink;
    return 0;
}
