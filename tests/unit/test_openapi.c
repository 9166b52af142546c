/* SPDX-License-Identifier: MIT */
/* The API description and the table of routes say the same: each route is described, each
 * description has its route, and both ask for the same scope. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "api/embedded.h"
#include "base/json.h"

static json_t *document;

static int load(void **state)
{
    (void)state;
    au_err err;
    if (au_json_parse(&document, au_openapi_json.text, au_openapi_json.len, "openapi", &err) !=
        AU_OK)
        print_error("%s\n", err.message);
    return document ? 0 : -1;
}

static int drop(void **state)
{
    (void)state;
    json_decref(document);
    return 0;
}

static const json_t *operation_of(const char *method, const char *path)
{
    char lower[16] = "";
    for (size_t i = 0; method[i] && i < sizeof lower - 1; i++)
        lower[i] = (char)tolower((unsigned char)method[i]);
    return json_object_get(json_object_get(json_object_get(document, "paths"), path), lower);
}

static const au_http_route *route_of(const char *lower_method, const char *path)
{
    for (const au_http_route *r = au_api_routes; r->method; r++) {
        if (strcasecmp(r->method, lower_method) == 0 && strcmp(r->pattern, path) == 0)
            return r;
    }
    return NULL;
}

static const char *scope_of(unsigned flags)
{
    return flags & AU_ROUTE_PUBLIC  ? "public"
           : flags & AU_ROUTE_ADMIN ? "admin"
           : flags & AU_ROUTE_WRITE ? "write"
                                    : "read";
}

static void every_route_is_described(void **state)
{
    (void)state;
    for (const au_http_route *r = au_api_routes; r->method; r++) {
        const json_t *op = operation_of(r->method, r->pattern);
        if (!op)
            fail_msg("%s %s is not described in src/api/openapi/", r->method, r->pattern);
        const json_t *key =
            json_object_get(json_array_get(json_object_get(op, "security"), 0), "key");
        const char *scope = json_string_value(json_array_get(key, 0));
        scope = scope ? scope : "public";
        if (strcmp(scope, scope_of(r->flags)) != 0)
            fail_msg("%s %s needs scope %s, described is %s", r->method, r->pattern,
                     scope_of(r->flags), scope);
        bool json_body = json_object_get(
            json_object_get(json_object_get(op, "requestBody"), "content"), "application/json");
        if (json_body != ((r->flags & AU_ROUTE_JSON) != 0))
            fail_msg("%s %s: a JSON body is %s", r->method, r->pattern,
                     json_body ? "described, but the route does not ask for one" : "not described");
        bool repeatable = false;
        const json_t *parameters = json_object_get(op, "parameters");
        for (size_t i = 0; i < json_array_size(parameters); i++)
            repeatable |=
                strcmp(json_string_value(json_object_get(json_array_get(parameters, i), "$ref")),
                       "#/components/parameters/Idempotency-Key") == 0;
        if (repeatable != ((r->flags & AU_ROUTE_CREATES) != 0))
            fail_msg("%s %s: an Idempotency-Key is %s", r->method, r->pattern,
                     repeatable ? "described, but not taken" : "not described");
    }
}

static void every_description_has_a_route(void **state)
{
    (void)state;
    const char *path, *method;
    json_t *methods, *op;
    size_t n = 0;
    json_object_foreach(json_object_get(document, "paths"), path, methods)
    {
        json_object_foreach(methods, method, op)
        {
            if (!route_of(method, path))
                fail_msg("%s %s is described, but is no route", method, path);
            n++;
        }
    }
    assert_true(n > 0);
}

static void every_problem_is_in_the_schema(void **state)
{
    (void)state;
    const json_t *schemas = json_object_get(json_object_get(document, "components"), "schemas");
    const json_t *type =
        json_object_get(json_object_get(json_object_get(schemas, "Problem"), "properties"), "type");
    const json_t *known = json_object_get(type, "enum");
    for (int p = AU_PROBLEM_NONE + 1; p < AU_PROBLEM_COUNT; p++) {
        char name[80];
        snprintf(name, sizeof name, "/problems/%s", au_problem_get((au_problem)p)->slug);
        bool found = false;
        for (size_t i = 0; i < json_array_size(known); i++)
            found |= strcmp(json_string_value(json_array_get(known, i)), name) == 0;
        if (!found)
            fail_msg("%s is not in the schema of problems", name);
    }
}

static void the_page_links_what_it_has(void **state)
{
    (void)state;
    const char *path, *method;
    json_t *methods, *op;
    assert_int_equal(strlen(au_docs_html.text), au_docs_html.len);
    json_object_foreach(json_object_get(document, "paths"), path, methods)
    {
        json_object_foreach(methods, method, op)
        {
            char text[128];
            const char *id = json_string_value(json_object_get(op, "operationId"));
            snprintf(text, sizeof text, "<article id=\"%s\">", id);
            assert_non_null(strstr(au_docs_html.text, text));
            snprintf(text, sizeof text, "href=\"#%s\"", id);
            assert_non_null(strstr(au_docs_html.text, text));
        }
    }
    /* It is served under a policy that lets it load nothing. */
    assert_null(strstr(au_docs_html.text, "<script"));
    assert_null(strstr(au_docs_html.text, "src="));
    assert_null(strstr(au_docs_html.text, "url("));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_described),
        cmocka_unit_test(every_description_has_a_route),
        cmocka_unit_test(every_problem_is_in_the_schema),
        cmocka_unit_test(the_page_links_what_it_has),
    };
    return cmocka_run_group_tests(tests, load, drop);
}
