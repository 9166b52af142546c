/* SPDX-License-Identifier: MIT */
/* Texts that are part of the program: made at build time from src/api/openapi/. */
#ifndef AU_API_EMBEDDED_H
#define AU_API_EMBEDDED_H

#include <stddef.h>

typedef struct au_embedded {
    const char *text; /* ends with NUL, which len does not count */
    size_t len;
} au_embedded;

extern const au_embedded au_openapi_json; /* the OpenAPI document */
extern const au_embedded au_docs_html;    /* the same as a page */

#endif
