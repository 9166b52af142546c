/* SPDX-License-Identifier: MIT */
#include <math.h>
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
#include "base/fs.h"
#include "base/json.h"

/* Opening checkpoints that are wrong: each is refused with the thing, the value found and the value
 * expected. */

static char fixtures[600], scratch[64];

/* A copy of a checkpoint by links, so that one file can be replaced. */
static void copy_of(const char *name)
{
    char from[1200], to[1200];
    static const char *const files[] = {"config.json",       "generation_config.json",
                                        "model.safetensors", "spiece.model",
                                        "tokenizer.json",    "pytorch_model.bin"};
    assert_int_equal(au_remove_tree(scratch, NULL), AU_OK);
    assert_int_equal(au_mkdirs(scratch, NULL), AU_OK);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(from, sizeof from, "%s/checkpoints/%s/%s", fixtures, name, files[i]);
        snprintf(to, sizeof to, "%s/%s", scratch, files[i]);
        if (au_file_exists(from))
            assert_int_equal(symlink(from, to), 0);
    }
}

static void replace(const char *file, const void *data, size_t len)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", scratch, file);
    assert_int_equal(au_file_write(path, data, len, true, NULL), AU_OK);
}

static char *content(const char *file, size_t *len)
{
    char path[1200], *data;
    snprintf(path, sizeof path, "%s/%s", scratch, file);
    assert_int_equal(au_file_read(&data, len, path, (size_t)64 << 20, NULL), AU_OK);
    return data;
}

static void refused(au_status status, const char *const *says)
{
    au_err err;
    au_model *m = NULL;
    au_status st = au_model_open(scratch, NULL, &m, &err);
    if (st == AU_OK)
        fail_msg("opened, expected: %s", says[0]);
    assert_null(m);
    for (; *says; says++)
        if (!strstr(err.message, *says))
            fail_msg("\"%s\" does not say \"%s\"", err.message, *says);
    assert_int_equal(st, status);
}

#define REFUSED(status, ...) refused((status), (const char *const[]){__VA_ARGS__, NULL})

/* Sets section.key (section NULL: the top) of the config to a JSON value. */
static void with_config(const char *section, const char *key, const char *value)
{
    char path[1200];
    copy_of("mono-f32");
    snprintf(path, sizeof path, "%s/config.json", scratch);
    json_t *config = NULL, *v = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    assert_int_equal(au_json_load(&config, path, 1 << 20, NULL), AU_OK);
    json_object_set_new(section ? json_object_get(config, section) : config, key, v);
    char *text = json_dumps(config, 0);
    assert_int_equal(unlink(path), 0);
    replace("config.json", text, strlen(text));
    free(text);
    json_decref(config);
}

static void test_options_are_supported_or_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *section, *key, *value;
    } cases[] = {
        {"audio_encoder", "norm_type", "\"time_group_norm\""},
        {"audio_encoder", "normalize", "true"},
        {"audio_encoder", "chunk_length_s", "1.0"},
        {"audio_encoder", "pad_mode", "\"replicate\""},
        {"audio_encoder", "audio_channels", "2"},
        {"audio_encoder", "num_lstm_layers", "0"},
        {"audio_encoder", "trim_right_ratio", "0.5"},
        {"audio_encoder", "upsampling_ratios", "[8, 0]"},
        {"audio_encoder", "upsampling_ratios", "\"8\""},
        {"audio_encoder", "target_bandwidths", "[0.0]"},
        {"audio_encoder", "model_type", "\"dac\""},
        {"decoder", "cross_attention_hidden_size", "64"},
        {"decoder", "activation_function", "\"silu\""},
        {"decoder", "num_attention_heads", "0"},
        {"decoder", "hidden_size", "-64"},
        {"decoder", "hidden_size", "64.0"},
        {"decoder", "hidden_size", "1e99"},
        {"decoder", "audio_channels", "3"},
        {"decoder", "scale_embedding", "\"yes\""},
        {"decoder", "model_type", "\"musicgen_melody_decoder\""},
        {"text_encoder", "model_type", "\"bert\""},
        {"text_encoder", "feed_forward_proj", "\"gated-silu\""},
        {"text_encoder", "dense_act_fn", "\"silu\""},
        {"text_encoder", "is_gated_act", "true"},
        {"text_encoder", "num_layers", "100000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s.%s is ", cases[i].section, cases[i].key);
        with_config(cases[i].section, cases[i].key, cases[i].value);
        REFUSED(AU_UNSUPPORTED, name, "expected");
    }
    with_config(NULL, "model_type", "\"musicgen_melody\"");
    REFUSED(AU_UNSUPPORTED, "musicgen_melody", "knows musicgen");
    with_config(NULL, "model_type", "null");
    REFUSED(AU_CORRUPT, "model_type");
    with_config(NULL, "decoder", "7");
    REFUSED(AU_CORRUPT, "decoder is missing");
    with_config("decoder", "num_attention_heads", "5");
    REFUSED(AU_CORRUPT, "hidden_size is ", "expected a multiple of num_attention_heads, 5");
}

static void test_several_problems_are_listed_together(void **state)
{
    (void)state;
    with_config("decoder", "hidden_size", "72");
    REFUSED(AU_CORRUPT, "tensor decoder.model.decoder.embed_tokens.0.weight has shape [",
            "tensor decoder.model.decoder.embed_tokens.1.weight has shape [", ",72]",
            "more problems");
    with_config("decoder", "num_hidden_layers", "4");
    REFUSED(AU_CORRUPT, "tensor decoder.model.decoder.layers.3.fc1.weight is missing");
    with_config("decoder", "num_hidden_layers", "2");
    REFUSED(AU_CORRUPT, "tensor decoder.model.decoder.layers.2.", "is not part of this model");
    with_config("audio_encoder", "num_residual_layers", "2");
    REFUSED(AU_CORRUPT, "audio_encoder.decoder.layers");
}

static void test_missing_and_damaged_files(void **state)
{
    (void)state;
    char path[1200];
    au_err err;
    au_model *m;
    assert_int_equal(au_model_open("/nonexistent/model", NULL, &m, &err), AU_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/model"));
    static const char *const needed[] = {"config.json", "model.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        copy_of("mono-f32");
        snprintf(path, sizeof path, "%s/%s", scratch, needed[i]);
        assert_int_equal(unlink(path), 0);
        REFUSED(AU_NOT_FOUND, needed[i]);
    }
    copy_of("mono-f32");
    static const char *const tokenizers[] = {"spiece.model", "tokenizer.json"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", scratch, tokenizers[i]);
        assert_int_equal(unlink(path), 0);
    }
    REFUSED(AU_NOT_FOUND, "tokenizer.json", "spiece.model");
    copy_of("mono-f32");
    size_t len;
    char *data = content("model.safetensors", &len);
    const size_t cuts[] = {0, 4, 8, 1000, len / 2, len - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        copy_of("mono-f32");
        replace("model.safetensors", data, cuts[i]);
        REFUSED(AU_CORRUPT, "model.safetensors");
    }
    free(data);
    copy_of("mono-f32");
    replace("config.json", "{\"model_type\": \"musicgen\"", 24);
    REFUSED(AU_CORRUPT, "config.json");
    copy_of("mono-f32");
    replace("config.json", "[]", 2);
    REFUSED(AU_CORRUPT, "not a JSON object");
    copy_of("mono-f32");
    replace("tokenizer.json", "{}", 2);
    REFUSED(AU_CORRUPT, "tokenizer.json");
}

static void test_a_type_that_is_no_weight(void **state)
{
    (void)state;
    copy_of("mono-f32");
    size_t len;
    char *data = content("model.safetensors", &len), *at;
    /* The same number of bytes under another type. */
    at = memmem(data, len, "\"decoder.lm_heads.0.weight\"", 27);
    assert_non_null(at);
    at = memmem(at, 100, "\"F32\"", 5);
    assert_non_null(at);
    memcpy(at, "\"I32\"", 5);
    replace("model.safetensors", data, len);
    REFUSED(AU_CORRUPT,
            "tensor decoder.lm_heads.0.weight has element type I32, expected F32, F16 or BF16");
    free(data);
}

static void test_fingerprints_tell_checkpoints_apart(void **state)
{
    (void)state;
    au_err err;
    au_model *a, *b;
    copy_of("mono-f32");
    assert_int_equal(au_model_open(scratch, NULL, &a, &err), AU_OK);
    size_t len;
    char *data = content("model.safetensors", &len);
    data[len - 3] ^= 1;
    replace("model.safetensors", data, len);
    free(data);
    assert_int_equal(au_model_open(scratch, NULL, &b, &err), AU_OK);
    assert_string_not_equal(au_model_get_info(a)->fingerprint, au_model_get_info(b)->fingerprint);
    au_model_unref(&b);
    copy_of("mono-f32"); /* the same content in another folder, or again */
    assert_int_equal(au_model_open(scratch, NULL, &b, &err), AU_OK);
    assert_string_equal(au_model_get_info(a)->fingerprint, au_model_get_info(b)->fingerprint);
    au_model_unref(&a);
    au_model_unref(&b);
}

static void test_reports(void **state)
{
    (void)state;
    au_err err;
    au_model *m;
    char *text;
    json_t *report = NULL;
    copy_of("mono-f32");
    assert_int_equal(au_model_open(scratch, NULL, &m, &err), AU_OK);
    assert_int_equal(au_model_report(m, true, &text, &err), AU_OK);
    assert_int_equal(au_json_parse(&report, text, strlen(text), "report", &err), AU_OK);
    assert_string_equal(json_string_value(json_object_get(report, "family")), "musicgen");
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(report, "decoder"), "layers")), 3);
    assert_int_equal(strlen(json_string_value(json_object_get(
                         json_array_get(json_object_get(report, "files"), 0), "sha256"))),
                     64);
    assert_true(json_array_size(json_object_get(report, "tensors")) > 50);
    json_decref(report);
    au_text_free(text);
    const au_model_options half = {.size = sizeof half, .weights = AU_WEIGHTS_F16};
    au_model *other;
    assert_int_equal(au_model_open(scratch, &half, &other, &err), AU_UNSUPPORTED);
    assert_non_null(strstr(err.message, "not available in this version"));
    au_model_unref(&m);
}

static int clean_up(void **state)
{
    (void)state;
    return au_remove_tree(scratch, NULL) == AU_OK ? 0 : -1;
}

int main(void)
{
    const char *source = getenv("AULOS_SOURCE");
    if (!source) {
        fprintf(stderr, "AULOS_SOURCE must name the source folder\n");
        return 1;
    }
    snprintf(fixtures, sizeof fixtures, "%s/tests/fixtures", source);
    snprintf(scratch, sizeof scratch, "/tmp/aulos-test-model-%d", (int)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_are_supported_or_refused_by_name),
        cmocka_unit_test(test_several_problems_are_listed_together),
        cmocka_unit_test(test_missing_and_damaged_files),
        cmocka_unit_test(test_a_type_that_is_no_weight),
        cmocka_unit_test(test_fingerprints_tell_checkpoints_apart),
        cmocka_unit_test(test_reports),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, clean_up);
}
