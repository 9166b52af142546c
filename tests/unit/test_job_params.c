/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "jobs/job_params.h"

static const char defaults[] =
    "{\"duration_s\":10,\"greedy\":false,\"guidance\":3,\"preset\":\"audiocraft\","
    "\"temperature\":1,\"top_k\":250,\"top_p\":0}";

static void test_one_text_for_equal_parameters(void **state)
{
    (void)state;
    au_params p = {sizeof p, AU_PRESET_AUDIOCRAFT, 10, 3, 1, 250, 0, false};
    char *text = NULL;
    assert_int_equal(au_params_text(&p, &text, NULL), AU_OK);
    assert_string_equal(text, defaults);
    free(text);
    p = (au_params){sizeof p, AU_PRESET_HF, 0.1, 1.5, 1e-6, 0, 0.9, true};
    assert_int_equal(au_params_text(&p, &text, NULL), AU_OK);
    assert_string_equal(text,
                        "{\"duration_s\":0.1,\"greedy\":true,\"guidance\":1.5,\"preset\":\"hf\","
                        "\"temperature\":1e-06,\"top_k\":0,\"top_p\":0.9}");
    free(text);
}

static void test_reads_what_it_wrote(void **state)
{
    (void)state;
    const au_params p = {sizeof p, AU_PRESET_HF, 29.999999999999996, 1.5, 0.1, 50, 0.9, true};
    au_params q;
    char *text = NULL;
    assert_int_equal(au_params_text(&p, &text, NULL), AU_OK);
    assert_int_equal(au_params_from_text(&q, text, NULL), AU_OK);
    free(text);
    assert_true(q.size == p.size && q.preset == p.preset && q.duration_s == p.duration_s &&
                q.guidance == p.guidance && q.temperature == p.temperature && q.top_k == p.top_k &&
                q.top_p == p.top_p && q.greedy == p.greedy);
}

static void test_refuses_other_texts(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *named;
    } edits[] = {
        {"\"duration_s\":10", "\"duration_s\":\"10\"", "duration_s"},
        {"\"guidance\":3,", "", "guidance"},
        {"audiocraft", "rock", "preset"},
        {"\"top_k\":250", "\"top_k\":2.5", "top_k"},
        {"\"top_k\":250", "\"top_k\":-1", "top_k"},
        {"\"top_k\":250", "\"top_k\":3000000000", "top_k"},
        {"false", "0", "greedy"},
        {"{", "[", "parameters"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char text[512];
        const char *at = strstr(defaults, edits[i].from);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - defaults), defaults, edits[i].to,
                 at + strlen(edits[i].from));
        au_params p;
        au_err err;
        assert_int_equal(au_params_from_text(&p, text, &err), AU_CORRUPT);
        assert_non_null(strstr(err.message, edits[i].named));
    }
}

static void test_preset_names(void **state)
{
    (void)state;
    au_preset p;
    assert_true(au_preset_parse("hf", &p) && p == AU_PRESET_HF);
    assert_true(au_preset_parse("audiocraft", &p) && p == AU_PRESET_AUDIOCRAFT);
    assert_false(au_preset_parse("HF", &p));
    assert_string_equal(au_preset_name(AU_PRESET_HF), "hf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_text_for_equal_parameters),
        cmocka_unit_test(test_reads_what_it_wrote),
        cmocka_unit_test(test_refuses_other_texts),
        cmocka_unit_test(test_preset_names),
    };
    return cmocka_run_group_tests_name("job_params", tests, NULL, NULL);
}
