/* SPDX-License-Identifier: MIT */
/* A PyTorch zip file: every tensor that is accepted must be readable at its first and its last byte
 * (views may overlap, so reading all of each would be quadratic). */
#include "tensor/tensor.h"

static volatile unsigned char sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    au_tensor_set *set;
    if (au_torch_from_memory(&set, data, size, "fuzz", NULL) != AU_OK)
        return 0;
    for (size_t i = 0; i < au_tensor_set_count(set); i++) {
        const au_tensor *t = au_tensor_set_at(set, i);
        AU_ASSERT(t->bytes == (size_t)au_tensor_elements(t) * au_dtype_bytes(t->dtype));
        if (!t->bytes)
            continue;
        sink = ((const unsigned char *)t->data)[0];
        sink = ((const unsigned char *)t->data)[t->bytes - 1];
    }
    au_tensor_set_close(&set);
    return 0;
}
