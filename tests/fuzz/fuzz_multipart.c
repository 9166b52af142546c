/* SPDX-License-Identifier: MIT */
/* Bodies of multipart/form-data: byte 0 cuts them into pieces, and what is told must not depend on
 * where. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "http/multipart.h"

static au_status on_begin(void *user, const char *name, const char *file_name, au_err *err)
{
    (void)err;
    au_buf_printf(user, "<%s|%s|", name, file_name ? file_name : "-");
    return AU_OK;
}

static au_status on_data(void *user, const char *data, size_t len, au_err *err)
{
    (void)err;
    au_buf_append(user, data, len);
    return AU_OK;
}

static au_status on_end(void *user, au_err *err)
{
    (void)err;
    au_buf_str(user, ">");
    return AU_OK;
}

static au_status parse(au_buf *log, const uint8_t *data, size_t size, size_t piece)
{
    static const au_multipart_events events = {on_begin, on_data, on_end};
    au_multipart m;
    au_err err;
    au_status st = au_multipart_init(&m, "multipart/form-data; boundary=B", &events, log, &err);
    for (size_t i = 0; i < size && st == AU_OK; i += piece) {
        size_t n = size - i < piece ? size - i : piece;
        char *copy = malloc(n);
        if (!copy)
            abort();
        memcpy(copy, data + i, n);
        st = au_multipart_feed(&m, copy, n, &err);
        free(copy);
    }
    return st == AU_OK ? au_multipart_finish(&m, &err) : st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    au_buf whole, cut;
    au_buf_init(&whole, 4 * size + 65536);
    au_buf_init(&cut, 4 * size + 65536);
    au_status a = parse(&whole, data + 1, size - 1, size);
    au_status b = parse(&cut, data + 1, size - 1, 1 + data[0] % 17);
    if (a != b || (a == AU_OK && (whole.len != cut.len ||
                                  memcmp(au_buf_cstr(&whole), au_buf_cstr(&cut), whole.len) != 0)))
        abort();
    au_buf_deinit(&whole);
    au_buf_deinit(&cut);

    /* The Content-Type itself. */
    char *type = malloc(size);
    if (!type)
        abort();
    memcpy(type, data, size - 1);
    type[size - 1] = '\0';
    au_multipart m;
    (void)!au_multipart_init(&m, type, NULL, NULL, NULL);
    free(type);
    return 0;
}
