/* SPDX-License-Identifier: MIT */
/* What a client says of itself: cookies, bearer tokens, keys, session tokens, trace contexts, the
 * query of a signed link, hosts and origins. The first byte chooses which. Nothing that is made of
 * nothing may be let in. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/auth.h"
#include "http/internal.h"

static const unsigned char secret[AU_SECRET_BYTES] = {7};
static const char sample_id[] = "0197ffff-0000-7000-8000-000000000000";

static void inside(const char *text, const char *part, size_t len)
{
    if (part < text || part + len > text + strlen(text))
        abort();
}

static void check_link(const char *query)
{
    au_http_request rq;
    au_http_request_init(&rq, NULL);
    rq.head.method = "GET";
    rq.head.path = "/v1/x";
    rq.head.query = query;
    size_t before = strlen(query);
    const char *expires = au_http_query_take(&rq, "expires");
    const char *signature = au_http_query_take(&rq, "signature");
    if (rq.head.query && strlen(rq.head.query) > before)
        abort();
    /* The corpus holds no signature of this secret, and nobody guesses one. */
    if (au_link_check(secret, sample_id, expires, signature, INT64_C(1800000000000)))
        abort();
    au_http_request_deinit(&rq);
}

static void check_trace(const char *text)
{
    char id[AU_TRACE_ID_TEXT];
    if (au_trace_id_parse(id, text) && (strlen(id) != 32 || strspn(id, "0") == 32))
        abort();
}

static void check_guard(const char *text)
{
    const au_http_guard guard = {"127.0.0.1", "aulos.example, other.example"};
    if (au_http_guard_host(&guard, text) && !au_http_authority_valid(text))
        abort();
    if (au_http_guard_cookie(&guard, "127.0.0.1:8080", text, NULL) &&
        !au_http_guard_origin(&guard, "127.0.0.1:8080", text, NULL))
        abort();
    au_http_guard_origin(&guard, NULL, text, text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *part;
    size_t len;
    char hash[AU_KEYED_HASH_TEXT];
    if (size < 1)
        return 0;
    char *text = calloc(1, size);
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    switch (data[0] % 6) {
    case 0:
        if (au_cookie_find(text, AU_SESSION_COOKIE, &part, &len)) {
            inside(text, part, len);
            au_session_hash(hash, secret, part, len);
        }
        break;
    case 1:
        if (au_bearer_token(text, &part, &len)) {
            inside(text, part, len);
            if (au_key_text_valid(part, len) && len != AU_KEY_TEXT - 1)
                abort();
        }
        break;
    case 2:
        /* Bytes as they are, a NUL among them: the length counts. */
        au_key_text_valid(text, size - 1);
        au_session_hash(hash, secret, text, size - 1);
        break;
    case 3:
        check_trace(text);
        break;
    case 4:
        check_link(text);
        break;
    default:
        check_guard(text);
    }
    free(text);
    return 0;
}
