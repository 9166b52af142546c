/* SPDX-License-Identifier: MIT */
/* What every resource needs: the server's parts, and the replies for what can go wrong anywhere. No
 * state of its own. */
#include "api/api.h"

#include "api/json_check.h"

au_api *au_api_of(const au_http_request *rq)
{
    return au_http_user(rq);
}

au_db *au_api_db(const au_http_request *rq)
{
    return au_http_thread_state(rq);
}

const char *au_api_id(const au_http_request *rq)
{
    const char *id = au_http_param(rq, "id");
    return au_uuid_valid(id) ? id : NULL;
}

au_http_result au_api_busy(au_http_request *rq, int retry_after_s, const char *why)
{
    au_http_set_header(rq, "Retry-After", "%d", retry_after_s);
    return au_http_problem(rq, AU_PROBLEM_UNAVAILABLE, "%s", why);
}

au_http_result au_api_failed(au_http_request *rq, au_status status, const au_err *err)
{
    if (status == AU_AGAIN)
        return au_api_busy(rq, 1, "the database is busy");
    if (status == AU_NOMEM)
        return au_api_busy(rq, 1, "out of memory");
    if (status == AU_NOSPACE)
        return au_http_problem(rq, AU_PROBLEM_NO_SPACE, "no space is left for the database");
    return au_http_internal(rq, err);
}

au_http_result au_api_not_found(au_http_request *rq, const char *what, const char *id)
{
    return au_http_problem(rq, AU_PROBLEM_NOT_FOUND, "no %s has the id \"%.80s\"", what, id);
}

au_http_result au_api_gone(au_http_request *rq, const char *what, const char *id)
{
    return au_http_problem(rq, AU_PROBLEM_GONE, "the %s %s was deleted", what, id);
}

bool au_api_empty_body(au_http_request *rq)
{
    static const char *const fields[] = {NULL};
    json_t *body;
    if (au_http_body_len(rq) == 0)
        return true;
    if (!au_http_body_json(rq, &body))
        return false;
    au_check c;
    au_check_init(&c, au_http_arena(rq));
    au_check_object(&c, body, "", fields);
    if (!au_check_ok(&c)) {
        au_check_reply(&c, rq);
        return false;
    }
    au_check_deinit(&c);
    return true;
}
