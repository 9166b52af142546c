/* SPDX-License-Identifier: MIT */
/* UUID version 7 (RFC 9562 section 5.7): time-ordered ids. */
#ifndef AU_BASE_UUID_H
#define AU_BASE_UUID_H

#include <stdbool.h>

enum { AU_UUID_TEXT = 37 };

/* A new id in lower-case text form. Ids made by one process rise strictly, also within one
 * millisecond. Any thread. */
void au_uuid7(char out[AU_UUID_TEXT]);

/* Whether s is exactly the 36-character lower- or upper-case text form of some UUID. */
bool au_uuid_valid(const char *s);

#endif
