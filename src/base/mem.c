/* SPDX-License-Identifier: MIT */
/* Allocation with a status. Stateless. */
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

au_status au_calloc(void *out, size_t n, size_t size, au_err *err)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        return au_fail(err, AU_NOMEM, "cannot allocate %zu x %zu bytes", n, size);
    memcpy(out, &p, sizeof p);
    return AU_OK;
}

au_status au_alloc_aligned(void *out, size_t bytes, au_err *err)
{
    size_t rounded;
    void *p = NULL;
    if (au_size_add(bytes ? bytes : 1, 63, &rounded))
        p = aligned_alloc(64, rounded & ~(size_t)63);
    if (!p)
        return au_fail(err, AU_NOMEM, "cannot allocate %zu bytes", bytes);
    memset(p, 0, bytes);
    memcpy(out, &p, sizeof p);
    return AU_OK;
}

au_status au_strdup(char **out, const char *s, au_err *err)
{
    *out = NULL;
    if (!s)
        return AU_OK;
    *out = strdup(s);
    return *out ? AU_OK : au_fail(err, AU_NOMEM, "cannot allocate %zu bytes", strlen(s) + 1);
}
