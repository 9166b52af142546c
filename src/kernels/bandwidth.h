/* SPDX-License-Identifier: MIT */
/* How fast this machine reads memory: the mark that decoding is measured against. */
#ifndef AU_KERNELS_BANDWIDTH_H
#define AU_KERNELS_BANDWIDTH_H

#include <stddef.h>

#include "base/err.h"

/* Bytes per second of `threads` threads (>= 1) reading `bytes` (>= 1 MiB) of fresh memory, the best
 * of several passes. Takes about a second for a gigabyte. AU_INVALID, AU_NOMEM. */
AU_MUST_CHECK au_status au_kernel_read_bandwidth(int threads, size_t bytes, double *bytes_per_s,
                                                 au_err *err);

#endif
