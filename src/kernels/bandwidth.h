/* SPDX-License-Identifier: MIT */
/* The read bandwidth of memory, the yardstick of every kernel that streams weights. */
#ifndef AU_KERNELS_BANDWIDTH_H
#define AU_KERNELS_BANDWIDTH_H

#include <stddef.h>

#include "base/err.h"

/* Bytes/s at which `threads` threads together read `bytes` bytes of fresh memory, each its own
 * part: the best of many slices of several passes. bytes should be many times the last cache.
 * AU_INVALID: threads < 1 or fewer than 64 KiB a thread. */
AU_MUST_CHECK au_status au_kernel_read_bandwidth(int threads, size_t bytes, double *bytes_per_s,
                                                 au_err *err);

#endif
