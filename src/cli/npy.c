/* SPDX-License-Identifier: MIT */
/* Writes .npy files: magic, version, header length, a Python dict padded so that the data begins at
 * a multiple of 64. */
#include "cli/npy.h"

#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"

static au_status element_type(const char *dtype, const char **descr, size_t *size, au_err *err)
{
    if (!strcmp(dtype, "f32")) {
        *descr = "<f4";
        *size = 4;
        return AU_OK;
    }
    if (!strcmp(dtype, "i64")) {
        *descr = "<i8";
        *size = 8;
        return AU_OK;
    }
    return au_fail(err, AU_INTERNAL, "dtype is %s, expected f32 or i64", dtype);
}

au_status au_npy_write(const char *path, const char *dtype, int rank, const int64_t *shape,
                       const void *data, au_err *err)
{
    enum { PREFIX = 10, ALIGN = 64 };
    const char *descr = NULL;
    size_t size = 0, bytes = 0;
    au_buf dict, head;
    au_atomic_file file = {0};
    au_status st = AU_OK;
    au_buf_init(&dict, 4096);
    au_buf_init(&head, 4096);

    AU_TRY(element_type(dtype, &descr, &size, err));
    bytes = size;
    au_buf_printf(&dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < rank; i++) {
        AU_FAIL_IF(shape[i] < 0 || !au_size_mul(bytes, (size_t)shape[i], &bytes), AU_INTERNAL,
                   "shape of %s is too large", path);
        au_buf_printf(&dict, rank == 1 ? "%lld," : i ? ", %lld" : "%lld", (long long)shape[i]);
    }
    au_buf_str(&dict, "), }");
    while ((PREFIX + dict.len + 1) % ALIGN != 0)
        au_buf_char(&dict, ' ');
    au_buf_char(&dict, '\n');
    au_buf_append(&head, "\x93NUMPY\x01\x00", 8);
    au_buf_char(&head, (char)(dict.len & 0xff));
    au_buf_char(&head, (char)(dict.len >> 8));
    au_buf_append(&head, au_buf_cstr(&dict), dict.len);
    AU_TRY(au_buf_check(&head, err));

    AU_TRY(au_atomic_begin(&file, path, err));
    AU_TRY(au_atomic_write(&file, head.data, head.len, err));
    if (bytes)
        AU_TRY(au_atomic_write(&file, data, bytes, err));
    AU_TRY(au_atomic_commit(&file, true, err));
done:
    au_atomic_abort(&file);
    au_buf_deinit(&dict);
    au_buf_deinit(&head);
    return st;
}
