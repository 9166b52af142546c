/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "http/router.h"

static const au_http_route routes[] = {
    {"GET", "/", NULL, 0},
    {"GET", "/v1/jobs", NULL, 0},
    {"POST", "/v1/jobs", NULL, 0},
    {"GET", "/v1/jobs/{id}", NULL, 0},
    {"DELETE", "/v1/jobs/{id}", NULL, 0},
    {"POST", "/v1/jobs/{id}/cancel", NULL, 0},
    {"GET", "/v1/samples/{id}/audio", NULL, 0},
    {"GET", "/v1/samples/{id}/audio.{ext}", NULL, 0},
    {"GET", "/v1/tags/{id}", NULL, 0},
    {"PATCH", "/v1/tags/{id}", NULL, 0},
    {"GET", "/v1/tags/all", NULL, 0},
    {"DELETE", "/v1/tags/all", NULL, 0},
    {NULL, NULL, NULL, 0},
};

static void test_finds_routes(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path;
        int status, index; /* index in the table when status is 0 */
        const char *allow;
    } rows[] = {
        {"GET", "/", 0, 0, ""},
        {"GET", "/v1/jobs", 0, 1, ""},
        {"HEAD", "/v1/jobs", 0, 1, ""},
        {"POST", "/v1/jobs", 0, 2, ""},
        {"PUT", "/v1/jobs", 405, 0, "GET, HEAD, POST"},
        {"OPTIONS", "/v1/jobs/x", 405, 0, "GET, HEAD, DELETE"},
        {"GET", "/v1/jobs/x/cancel", 405, 0, "POST"},
        {"GET", "/v1/jobs/x", 0, 3, ""},
        {"GET", "/v1/samples/x/audio", 0, 6, ""},
        {"GET", "/v1/samples/x/audio.wav", 0, 7, ""},
        {"GET", "/v1/samples/x/audio.", 404, 0, ""},
        {"GET", "/v1/samples/x/audiowav", 404, 0, ""},
        {"POST", "/v1/tags/all", 405, 0, "GET, HEAD, PATCH, DELETE"},
        {"GET", "/v1/jobs/", 404, 0, ""},
        {"GET", "//v1/jobs", 404, 0, ""},
        {"GET", "/v1//jobs", 404, 0, ""},
        {"GET", "/v1/jobs/a/b", 404, 0, ""},
        {"GET", "/v1/../v1/jobs", 404, 0, ""},
        {"GET", "/%2e%2e%2fetc", 404, 0, ""},
        {"GET", "/v1/jobs/%00", 400, 0, ""},
        {"GET", "/v1/jobs/%zz", 400, 0, ""},
        {"GET", "/nowhere/%ff", 400, 0, ""},
        {"BREW", "/v1/jobs", 405, 0, "GET, HEAD, POST"},
        {"get", "/v1/jobs", 405, 0, "GET, HEAD, POST"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        au_arena arena;
        au_arena_init(&arena, 4096);
        au_http_match match;
        au_problem p = au_http_route_find(&match, routes, &arena, rows[i].method, rows[i].path);
        int status = p ? au_problem_get(p)->status : 0;
        if (status != rows[i].status)
            fail_msg("%s %s: %d", rows[i].method, rows[i].path, status);
        if (!p)
            assert_ptr_equal(match.route, &routes[rows[i].index]);
        assert_string_equal(match.allow, rows[i].allow);
        au_arena_deinit(&arena);
    }
}

static void test_decodes_parameters_after_splitting(void **state)
{
    (void)state;
    au_arena arena;
    au_arena_init(&arena, 4096);
    au_http_match match;
    assert_int_equal(
        au_http_route_find(&match, routes, &arena, "GET", "/v1/samples/a%2Fb%20c/audio.wav"), 0);
    assert_int_equal(match.n_params, 2);
    assert_memory_equal(match.params[0].name, "id", 2);
    assert_string_equal(match.params[0].value, "a/b c");
    assert_memory_equal(match.params[1].name, "ext", 3);
    assert_string_equal(match.params[1].value, "wav");
    au_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_routes),
        cmocka_unit_test(test_decodes_parameters_after_splitting),
    };
    return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
