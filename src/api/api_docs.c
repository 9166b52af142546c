/* SPDX-License-Identifier: MIT */
/* /openapi.json and /docs: the description of this API, as data and as a page. Both are part of the
 * program, so they are those of this very version. */
#include "api/api.h"
#include "api/embedded.h"

static const char *const no_query[] = {NULL};

au_http_result au_get_openapi(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    return au_http_reply_fixed(rq, "application/json", au_openapi_json.text, au_openapi_json.len);
}

au_http_result au_get_docs(au_http_request *rq)
{
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    /* A page without scripts that asks for nothing may as well be held to that. */
    au_http_set_header(rq, "Content-Security-Policy",
                       "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    return au_http_reply_fixed(rq, "text/html; charset=utf-8", au_docs_html.text, au_docs_html.len);
}
