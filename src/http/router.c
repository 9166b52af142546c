/* SPDX-License-Identifier: MIT */
/* Matching of paths against the table of routes: a linear walk, since a server has some dozens.
 * Stateless. */
#include "http/router.h"

#include <stdbool.h>
#include <string.h>

#include "http/http1.h"

/* Matches one segment of the pattern against one of the path; a parameter is kept undecoded as
 * value. */
static bool match_segment(au_http_match *match, const char *pattern, size_t pattern_len,
                          const char *segment, size_t len, size_t *value_len)
{
    const char *brace = memchr(pattern, '{', pattern_len);
    size_t literal = brace ? (size_t)(brace - pattern) : pattern_len;
    if (len < literal || memcmp(pattern, segment, literal) != 0)
        return false;
    if (!brace)
        return len == literal;
    if (len == literal)
        return false;
    AU_ASSERT(match->n_params < AU_HTTP_PARAMS_MAX && pattern[pattern_len - 1] == '}');
    match->params[match->n_params].name = brace + 1;
    match->params[match->n_params].name_len = pattern_len - literal - 2;
    match->params[match->n_params].value = segment + literal;
    value_len[match->n_params++] = len - literal;
    return true;
}

static bool match_path(au_http_match *match, const char *pattern, const char *path,
                       size_t *value_len)
{
    match->n_params = 0;
    while (*pattern == '/' && *path == '/') {
        size_t m = strcspn(++pattern, "/");
        size_t n = strcspn(++path, "/");
        if (!match_segment(match, pattern, m, path, n, value_len))
            return false;
        pattern += m;
        path += n;
    }
    return *pattern == '\0' && *path == '\0';
}

static bool decode_params(au_http_match *match, au_arena *arena, const size_t *value_len)
{
    for (size_t i = 0; i < match->n_params; i++) {
        match->params[i].value =
            au_http_unescape(arena, match->params[i].value, value_len[i], false);
        if (!match->params[i].value)
            return false;
    }
    return true;
}

static bool allows(const au_http_match *match, const char *method)
{
    size_t len = strlen(method);
    for (const char *p = match->allow; *p; p += strspn(p, ", ")) {
        size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, method, n) == 0)
            return true;
        p += n;
    }
    return false;
}

/* Several patterns may fit a path: each method is named once. */
static void add_allow(au_http_match *match, const char *method)
{
    if (allows(match, method))
        return;
    size_t used = strlen(match->allow);
    size_t need = strlen(method) + (used ? 2 : 0);
    AU_ASSERT(used + need < sizeof match->allow);
    if (used)
        memcpy(match->allow + used, ", ", 2);
    memcpy(match->allow + used + (used ? 2 : 0), method, strlen(method) + 1);
}

au_problem au_http_route_find(au_http_match *match, const au_http_route *routes, au_arena *arena,
                              const char *method, const char *path)
{
    *match = (au_http_match){0};
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    size_t value_len[AU_HTTP_PARAMS_MAX];
    for (const au_http_route *r = routes; r->method; r++) {
        if (!match_path(match, r->pattern, path, value_len))
            continue;
        if (strcmp(r->method, wanted) == 0) {
            match->route = r;
            match->allow[0] = '\0';
            return decode_params(match, arena, value_len) ? AU_PROBLEM_NONE
                                                          : AU_PROBLEM_BAD_REQUEST;
        }
        add_allow(match, r->method);
        if (strcmp(r->method, "GET") == 0)
            add_allow(match, "HEAD");
    }
    if (match->allow[0])
        return AU_PROBLEM_METHOD_NOT_ALLOWED;
    /* A path that cannot be decoded at all is malformed rather than unknown. */
    return au_http_unescape(arena, path, strlen(path), false) ? AU_PROBLEM_NOT_FOUND
                                                              : AU_PROBLEM_BAD_REQUEST;
}
