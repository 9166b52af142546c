/* SPDX-License-Identifier: MIT */
/* Routes are one table of (method, pattern, handler). */
#ifndef AU_HTTP_ROUTER_H
#define AU_HTTP_ROUTER_H

#include <stddef.h>

#include "base/arena.h"
#include "http/http.h"

enum { AU_HTTP_PARAMS_MAX = 4 };

typedef struct au_http_match {
    const au_http_route *route; /* NULL: none */
    struct {
        const char *name; /* borrowed from the pattern: not terminated, name_len bytes */
        size_t name_len;
        const char *value; /* decoded, in the arena */
    } params[AU_HTTP_PARAMS_MAX];
    size_t n_params;
    char allow[64]; /* "GET, HEAD, POST": the methods of the path, when no route takes the method */
} au_http_match;

/* Finds the route of a request in a table that ends with a NULL method. A pattern's segments are
 * literal, "{name}" (any one non-empty segment), or a literal prefix before a name ("audio.{ext}").
 * The path is split before it is decoded, so %2F never makes a segment. HEAD is answered by GET
 * routes; a method that nobody knows is one that the path does not take. NONE: found. Else
 * NOT_FOUND, METHOD_NOT_ALLOWED (allow is set) or BAD_REQUEST (a bad escape in the path). */
au_problem au_http_route_find(au_http_match *match, const au_http_route *routes, au_arena *arena,
                              const char *method, const char *path);

#endif
