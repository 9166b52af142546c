/* SPDX-License-Identifier: MIT */
/* What handlers read of a request: queries, JSON bodies and their checks, Prefer, cursors, times.
 * The first byte chooses which. Refusals are made in full, so their JSON is exercised too. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/json_check.h"
#include "api/prefer.h"
#include "http/internal.h"

static const char *const fields[] = {"prompt", "seed", "params", "label", "greedy", NULL};

static void check_body(au_http_request *rq)
{
    json_t *body;
    if (!au_http_body_json(rq, &body))
        return;
    au_check c;
    au_check_init(&c, &rq->arena);
    int64_t n;
    double d;
    bool b;
    const char *t;
    if (au_check_object(&c, body, "", fields)) {
        if (au_check_int(&c, body, "", "seed", 0, 1000, &n) && (n < 0 || n > 1000))
            abort();
        if (au_check_text(&c, body, "", "label", 5, &t) && strlen(t) > 20)
            abort();
        au_check_bool(&c, body, "", "greedy", &b);
        const json_t *params = json_object_get(body, "params");
        if (params && au_check_object(&c, params, "/params", fields) &&
            au_check_real(&c, params, "/params", "seed", 0, 1, true, &d) && !(d > 0 && d <= 1))
            abort();
    }
    if (au_check_ok(&c))
        au_check_deinit(&c);
    else
        au_check_reply(&c, rq);
}

static void check_query(au_http_request *rq, const char *text)
{
    static const char *const allowed[] = {"limit", "cursor", "state", NULL};
    au_page page;
    rq->head.query = text;
    rq->head.path = "/v1/x";
    if (!au_http_query_parse(rq, allowed) || !au_page_parse(rq, &page))
        return;
    if (page.limit < 1 || page.limit > 100)
        abort();
    au_http_link_next(rq, "c");
}

static void check_cursor(const char *text)
{
    char id[AU_UUID_TEXT], back[AU_UUID_TEXT];
    if (!au_cursor_decode(id, text))
        return;
    au_cursor_encode(back, id);
    if (strcmp(back, text) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    char *text = calloc(1, size);
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    au_http_request rq;
    au_http_request_init(&rq, NULL);
    rq.head.method = "POST";
    int64_t ms;
    switch (data[0] % 5) {
    case 0:
        au_buf_init(&rq.body, 1 << 20);
        au_buf_append(&rq.body, text, size - 1);
        check_body(&rq);
        break;
    case 1:
        /* A target never holds these (http1.c). */
        if (strspn(text, " \r\n\t#") == 0)
            check_query(&rq, text);
        break;
    case 2:
        if (au_prefer_wait_s(text) > AU_PREFER_WAIT_MAX_S)
            abort();
        break;
    case 3:
        check_cursor(text);
        break;
    default:
        if (au_time_parse(text, &ms) && (ms < -86400000 || ms > INT64_C(300000000000000)))
            abort();
    }
    au_http_request_deinit(&rq);
    free(text);
    return 0;
}
