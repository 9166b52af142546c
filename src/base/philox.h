/* SPDX-License-Identifier: MIT */
/* Philox 4x32-10: counter-based random numbers (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). The same key and counter always give the same four words; nothing is stored.
 */
#ifndef AU_BASE_PHILOX_H
#define AU_BASE_PHILOX_H

#include <stdint.h>

/* out = philox4x32_10(counter, key). */
void au_philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
