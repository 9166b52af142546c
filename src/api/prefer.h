/* SPDX-License-Identifier: MIT */
/* The Prefer field (RFC 7240): the one preference that is honoured here. */
#ifndef AU_API_PREFER_H
#define AU_API_PREFER_H

#include <stdbool.h>

enum { AU_PREFER_WAIT_MAX_S = 300 };

/* The seconds of wait=N, at most AU_PREFER_WAIT_MAX_S; -1 where there is no such preference or it
 * makes no sense (preferences that are not understood are ignored, never refused). */
int au_prefer_wait_s(const char *value);

#endif
