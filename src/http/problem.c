/* SPDX-License-Identifier: MIT */
/* Problems: one row of problem.def each. The reason phrases of the status line are here too, since
 * every status above 399 that the server sends comes from that table. Stateless. */
#include "http/problem.h"

#include <stddef.h>

#include "base/err.h"

static const au_problem_info problems[AU_PROBLEM_COUNT] = {
#define AU_PROBLEM(id, slug, status, title) [AU_PROBLEM_##id] = {slug, title, status},
#include "http/problem.def"
#undef AU_PROBLEM
};

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

const au_problem_info *au_problem_get(au_problem problem)
{
    AU_ASSERT(problem > AU_PROBLEM_NONE && problem < AU_PROBLEM_COUNT);
    return &problems[problem];
}

json_t *au_problem_json(au_problem problem, const char *detail, const char *request_id)
{
    const au_problem_info *info = au_problem_get(problem);
    return json_pack("{s:o, s:s, s:i, s:s*, s:s*}", "type",
                     json_sprintf("/problems/%s", info->slug), "title", info->title, "status",
                     info->status, "detail", detail, "request_id", request_id);
}

const char *au_http_reason(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return "Unknown";
}
