/* SPDX-License-Identifier: MIT */
/* NumPy's .npy files, version 1.0: little-endian, C order. */
#ifndef AU_CLI_NPY_H
#define AU_CLI_NPY_H

#include <stdint.h>

#include "base/err.h"

/* Writes `path` atomically, over a file that exists. dtype "f32" or "i64"; data [shape...]
 * row-major. */
AU_MUST_CHECK au_status au_npy_write(const char *path, const char *dtype, int rank,
                                     const int64_t *shape, const void *data, au_err *err);

#endif
