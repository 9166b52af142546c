/* SPDX-License-Identifier: MIT */
/* Host and Origin rules. A page on a foreign site can make a browser send requests here, and a name
 * under its control can be made to point here (DNS rebinding); neither may reach a server that
 * trusts its loopback. Stateless. */
#include "http/guard.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

enum { NAME_MAX_BYTES = 256 };

/* Copies the host of "host[:port]" without brackets. False: not an authority. */
static bool split_authority(char name[NAME_MAX_BYTES], const char *authority)
{
    const char *begin = authority, *end;
    if (*begin == '[') {
        end = strchr(++begin, ']');
        if (!end)
            return false;
    } else {
        end = begin + strcspn(begin, ":");
    }
    size_t len = (size_t)(end - begin);
    if (len == 0 || len >= NAME_MAX_BYTES)
        return false;
    const char *port = *end == ']' ? end + 1 : end;
    if (*port && (*port != ':' || strspn(port + 1, "0123456789") != strlen(port + 1)))
        return false;
    memcpy(name, begin, len);
    name[len] = '\0';
    return name[strcspn(name, " \t/?#@\\\"<>")] == '\0';
}

static bool is_address(const char *name)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

bool au_http_is_loopback(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, address, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, address, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool in_list(const char *list, const char *name)
{
    size_t want = strlen(name);
    while (list && *list) {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if (n == want && strncasecmp(list, name, n) == 0)
            return true;
        list += n;
    }
    return false;
}

static bool name_allowed(const au_http_guard *guard, const char *name)
{
    if (strcasecmp(name, "localhost") == 0 || au_http_is_loopback(name))
        return true;
    if (strcasecmp(name, guard->bound_host) == 0 || in_list(guard->allowed_hosts, name))
        return true;
    bool wildcard =
        strcmp(guard->bound_host, "0.0.0.0") == 0 || strcmp(guard->bound_host, "::") == 0;
    return wildcard && is_address(name);
}

bool au_http_authority_valid(const char *authority)
{
    char name[NAME_MAX_BYTES];
    return split_authority(name, authority);
}

bool au_http_guard_host(const au_http_guard *guard, const char *host)
{
    char name[NAME_MAX_BYTES];
    return split_authority(name, host) && name_allowed(guard, name);
}

bool au_http_guard_origin(const au_http_guard *guard, const char *host, const char *origin,
                          const char *fetch_site)
{
    if (fetch_site && strcasecmp(fetch_site, "cross-site") == 0)
        return false;
    if (!origin)
        return true;
    const char *authority = strstr(origin, "://");
    if (!authority)
        return false;
    authority += 3;
    if (host && strcasecmp(authority, host) == 0)
        return true;
    char name[NAME_MAX_BYTES];
    return split_authority(name, authority) && in_list(guard->allowed_hosts, name);
}

bool au_http_guard_cookie(const au_http_guard *guard, const char *host, const char *origin,
                          const char *fetch_site)
{
    if (fetch_site && strcasecmp(fetch_site, "same-origin") != 0 &&
        strcasecmp(fetch_site, "none") != 0)
        return false;
    return au_http_guard_origin(guard, host, origin, fetch_site);
}
