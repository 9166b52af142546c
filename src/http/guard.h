/* SPDX-License-Identifier: MIT */
/* Which hosts and origins are served: the defence against DNS rebinding and cross-site requests.
 * Pure functions. */
#ifndef AU_HTTP_GUARD_H
#define AU_HTTP_GUARD_H

#include <stdbool.h>

typedef struct au_http_guard {
    const char
        *bound_host; /* address that the server listens on, without port and brackets; borrowed */
    const char *allowed_hosts; /* comma-separated names, or NULL; borrowed */
} au_http_guard;

/* Whether "name[:port]" is an authority at all. */
bool au_http_authority_valid(const char *authority);

/* Whether a Host is the bound address, a loopback name or address, or in allowed_hosts; the port is
 * not compared. With a wildcard address bound every IP literal will do, since rebinding needs a
 * name. */
bool au_http_guard_host(const au_http_guard *guard, const char *host);

/* Whether an unsafe request may come from where it says: Origin (NULL: none) must be this host or
 * an allowed one, Sec-Fetch-Site (NULL: none) must not be cross-site. `host` is the request's Host,
 * or NULL. */
bool au_http_guard_origin(const au_http_guard *guard, const char *host, const char *origin,
                          const char *fetch_site);

/* The same for a request whose browser sends a cookie along by itself: a sibling site is foreign,
 * too. */
bool au_http_guard_cookie(const au_http_guard *guard, const char *host, const char *origin,
                          const char *fetch_site);

/* Whether an address text is a loopback one (127.0.0.0/8, ::1). */
bool au_http_is_loopback(const char *address);

#endif
