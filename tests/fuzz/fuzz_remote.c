/* SPDX-License-Identifier: MIT */
/* Replies as the command line's HTTP client reads them. */
#include <stdint.h>
#include <stdlib.h>

#include "cli/remote.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int status = 0;
    au_buf body;
    au_buf_init(&body, 1 << 16);
    if (au_remote_parse(&status, &body, (const char *)data, size, NULL) == AU_OK &&
        (status < 200 || status > 599 || body.len > size))
        abort();
    au_buf_deinit(&body);
    return 0;
}
