/* SPDX-License-Identifier: MIT */
/* Internal to tensor/: the entries of a zip file whose contents are stored, not compressed. */
#ifndef AU_TENSOR_ZIP_H
#define AU_TENSOR_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct au_zip_entry {
    const char *name; /* borrowed from the file, not NUL-terminated */
    size_t name_len;
    const unsigned char *data; /* borrowed from the file; within it */
    size_t bytes;
} au_zip_entry;

typedef struct au_zip {
    au_zip_entry *entries; /* sorted by name; owned */
    size_t n;
} au_zip;

/* Reads the central directory of `data`. Zip64 and data descriptors are understood. AU_UNSUPPORTED
 * for compression, encryption and several disks, AU_CORRUPT for what does not fit the file. */
AU_MUST_CHECK au_status au_zip_open(au_zip *zip, const unsigned char *data, size_t len,
                                    const char *what, au_err *err);
void au_zip_close(au_zip *zip);
const au_zip_entry *au_zip_find(const au_zip *zip, const char *name, size_t name_len); /* or NULL */

#endif
