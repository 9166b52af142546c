/* SPDX-License-Identifier: MIT */
/* The example of aulos.h, compiled and run. A test compares the two texts, so the header cannot
 * drift. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "aulos/aulos.h"

static uint64_t saved_frames;

static au_status save(void *user, size_t row, const au_audio *audio, au_err *err)
{
    (void)user;
    (void)row;
    (void)err;
    saved_frames += audio->n_frames;
    return AU_OK;
}

static int example(void)
{
    /* example begins */
    au_err err;
    au_model *model = NULL;
    if (au_model_open("models/aulos-small", NULL, &model, &err) != AU_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    au_params params;
    au_params_init(&params, sizeof params);
    params.duration_s = 2.0;
    au_row row = {.size = sizeof row, .prompt = "a calm piano melody", .seed = 7};
    row.params = &params;
    au_request request = {.size = sizeof request, .model = model, .on_audio = save};
    request.rows = &row;
    request.n_rows = 1;
    if (au_generate(&request, &err) != AU_OK)
        fprintf(stderr, "%s\n", err.message);
    au_model_unref(&model);
    /* example ends */
    return 0;
}

static void test_it_runs(void **state)
{
    (void)state;
    saved_frames = 0;
    assert_int_equal(example(), 0);
    assert_int_equal(saved_frames, 2 * 24000);
}

/* The lines between two marks, without blanks and without the margin of a comment. */
static char *lines_of(const char *path, const char *from, const char *to)
{
    static char text[1 << 20];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    char *begin = strstr(text, from), *end = begin ? strstr(begin, to) : NULL;
    char *out = calloc(1, sizeof text), *w = out;
    assert_non_null(end);
    begin = strchr(begin, '\n');
    for (char *p = begin; p < end; p++) {
        bool margin = *p == '*' && p >= begin + 2 && p[-1] == ' ' && p[-2] == '\n';
        if (*p != ' ' && *p != '\n' && !margin)
            *w++ = *p;
    }
    return out;
}

static void test_the_header_shows_the_same(void **state)
{
    (void)state;
    char *shown = lines_of("include/aulos/aulos.h", "test_example.c)", "save(user, row");
    char *run = lines_of("tests/unit/test_example.c", "example begins */", "/* example ends");
    assert_string_equal(shown, run);
    free(shown);
    free(run);
}

int main(void)
{
    const char *source = getenv("AULOS_SOURCE");
    if (!source || chdir(source) != 0) {
        fprintf(stderr, "AULOS_SOURCE must name the source folder\n");
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_runs),
        cmocka_unit_test(test_the_header_shows_the_same),
    };
    return cmocka_run_group_tests_name("example", tests, NULL, NULL);
}
