/* SPDX-License-Identifier: MIT */
/* POST /v1/samples/{id}/link: a URL of the sample's audio that opens it without a key for a while.
 * Nothing is stored: the signature holds the sample and the time (auth.c checks it). A link ends
 * with its time or its sample; it does not end with the key that asked for it. */
#include <inttypes.h>
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "base/clock.h"

enum { DEFAULT_S = 3600 };

/* False: a problem has been set. The body may be left out. */
static bool read_seconds(au_http_request *rq, int64_t *seconds)
{
    static const char *const fields[] = {"expires_in_s", NULL};
    json_t *body;
    *seconds = DEFAULT_S;
    if (au_http_body_len(rq) == 0)
        return true;
    if (!au_http_body_json(rq, &body))
        return false;
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    if (au_check_object(&c, body, "", fields))
        au_check_int(&c, body, "", "expires_in_s", 1, AU_LINK_MAX_S, seconds);
    if (!au_check_ok(&c)) {
        au_check_reply(&c, rq);
        return false;
    }
    au_check_deinit(&c);
    return true;
}

au_http_result au_post_link(au_http_request *rq)
{
    static const char *const no_query[] = {NULL};
    int64_t seconds;
    if (!au_http_query_parse(rq, no_query) || !read_seconds(rq, &seconds))
        return AU_HTTP_DONE;
    const au_sample *sample = au_api_sample(rq);
    if (!sample)
        return AU_HTTP_DONE;
    char signature[AU_KEYED_HASH_TEXT];
    int64_t expires_at = au_time_ms() + seconds * 1000;
    au_link_sign(signature, au_api_of(rq)->auth.secret, sample->id, expires_at);
    json_t *url = json_sprintf("/v1/samples/%s/audio?expires=%" PRId64 "&signature=%s", sample->id,
                               expires_at, signature);
    au_http_set_header(rq, "Cache-Control", "no-store");
    return au_http_reply_json(
        rq, 201, json_pack("{s:o, s:o}", "url", url, "expires_at", au_time_json(expires_at)));
}
