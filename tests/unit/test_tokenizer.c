/* SPDX-License-Identifier: MIT */
/* The tokenizer against the ids of transformers 5.24 (fixtures/tokenizer/cases.json), the equality
 * of the two file forms, and what becomes of files that are damaged or ask for something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "tokenizer/tokenizer.h"

enum { MAX_IDS = 1 << 20 };

static char *fixture(const char *name)
{
    const char *source = getenv("AULOS_SOURCE");
    assert_non_null(source);
    char *dir, *path;
    assert_int_equal(au_path_join(&dir, source, "tests/fixtures", NULL), AU_OK);
    assert_int_equal(au_path_join(&path, dir, name, NULL), AU_OK);
    free(dir);
    return path;
}

static au_tokenizer *open_fixture(const char *folder)
{
    au_err err;
    au_tokenizer *t = NULL;
    char *path = fixture(folder);
    if (au_tokenizer_open(&t, path, &err) != AU_OK)
        fail_msg("%s: %s", folder, err.message);
    free(path);
    return t;
}

/* From one file of a folder, without what its tokenizer_config.json says. */
static au_tokenizer *open_file(const char *folder, const char *file)
{
    au_err err;
    au_tokenizer *t = NULL;
    char *dir = fixture(folder), *path, *data;
    size_t len;
    assert_int_equal(au_path_join(&path, dir, file, NULL), AU_OK);
    assert_int_equal(au_file_read(&data, &len, path, 64 << 20, NULL), AU_OK);
    if (au_tokenizer_from_memory(&t, data, len, !strcmp(file, "tokenizer.json"), file, &err) !=
        AU_OK)
        fail_msg("%s/%s: %s", folder, file, err.message);
    free(data);
    free(path);
    free(dir);
    return t;
}

static void print_ids(au_buf *b, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        au_buf_printf(b, " %d", (int)ids[i]);
}

/* Whether the text's ids are these; says where they are not. */
static bool check_ids(const au_tokenizer *t, const char *name, const char *text,
                      const int32_t *want, size_t n_want)
{
    au_err err;
    int32_t *ids = NULL;
    size_t n = 0;
    if (au_tokenizer_encode(t, text, strlen(text), MAX_IDS, &ids, &n, &err) != AU_OK) {
        print_error("%s: \"%.60s\": %s\n", name, text, err.message);
        return false;
    }
    bool same = n == n_want && !memcmp(ids, want, n * sizeof *ids);
    if (!same) {
        au_buf b;
        au_buf_init(&b, 1 << 20);
        print_ids(&b, ids, n);
        au_buf_str(&b, "\n  expected");
        print_ids(&b, want, n_want);
        print_error("%s: \"%.60s\"\n  got     %s\n", name, text, au_buf_cstr(&b));
        au_buf_deinit(&b);
    }
    free(ids);
    return same;
}

static size_t read_ids(json_t *list, int32_t **out)
{
    size_t n = json_array_size(list);
    *out = calloc(n + 1, sizeof **out);
    assert_non_null(*out);
    for (size_t i = 0; i < n; i++)
        (*out)[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static json_t *load_cases(void)
{
    au_err err;
    json_t *root = NULL;
    char *path = fixture("tokenizer/cases.json");
    if (au_json_load(&root, path, 4 << 20, &err) != AU_OK)
        fail_msg("%s", err.message);
    free(path);
    return root;
}

static void test_reference_cases_are_exact(void **state)
{
    (void)state;
    json_t *root = load_cases(), *row, *entry;
    const char *name;
    size_t i, checked = 0, wrong = 0;
    json_object_foreach(json_object_get(root, "tokenizers"), name, entry)
    {
        au_tokenizer *t = open_fixture(json_string_value(json_object_get(entry, "folder")));
        json_array_foreach(json_object_get(root, "cases"), i, row)
        {
            json_t *expect = json_object_get(json_object_get(row, "expect"), name);
            int32_t *want;
            size_t n = read_ids(json_object_get(expect, "ids"), &want);
            wrong += !check_ids(t, name, json_string_value(json_object_get(row, "text")), want, n);
            free(want);
            checked++;
        }
        au_tokenizer_close(&t);
    }
    json_decref(root);
    print_message("%zu token sequences compared\n", checked);
    assert_int_equal(wrong, 0);
    assert_true(checked >= 800);
}

static void test_both_forms_agree(void **state)
{
    (void)state;
    static const char *const folders[] = {"checkpoints/mono-f32", "checkpoints/mono-f32-published"};
    json_t *root = load_cases(), *row;
    size_t i, wrong = 0;
    for (size_t k = 0; k < sizeof folders / sizeof *folders; k++) {
        au_tokenizer *a = open_file(folders[k], "tokenizer.json"),
                     *b = open_file(folders[k], "spiece.model");
        assert_string_equal(au_tokenizer_file(a), "tokenizer.json");
        assert_string_equal(au_tokenizer_file(b), "spiece.model");
        assert_int_equal(au_tokenizer_vocab(a), au_tokenizer_vocab(b));
        json_array_foreach(json_object_get(root, "cases"), i, row)
        {
            const char *text = json_string_value(json_object_get(row, "text"));
            int32_t *ids;
            size_t n;
            assert_int_equal(au_tokenizer_encode(a, text, strlen(text), MAX_IDS, &ids, &n, NULL),
                             AU_OK);
            wrong += !check_ids(b, folders[k], text, ids, n);
            free(ids);
        }
        au_tokenizer_close(&a);
        au_tokenizer_close(&b);
    }
    json_decref(root);
    assert_int_equal(wrong, 0);
}

static void test_a_folder_with_one_form_opens(void **state)
{
    (void)state;
    static const int32_t t5[] = {3031, 2595, 723, 1};
    au_tokenizer *t = open_fixture("checkpoints/mono-f16-t5vocab");
    assert_string_equal(au_tokenizer_file(t), "spiece.model");
    assert_int_equal(au_tokenizer_vocab(t), 32100);
    assert_true(check_ids(t, "spiece.model alone", "electronic dance music", t5, 4));
    au_tokenizer_close(&t);
    assert_null(t);
    t = open_fixture("checkpoints/mono-bf16-noproj");
    assert_string_equal(au_tokenizer_file(t), "tokenizer.json");
    au_tokenizer_close(&t);
    au_tokenizer_close(&t);
}

static void test_limits_and_bad_text(void **state)
{
    (void)state;
    au_err err;
    int32_t *ids;
    size_t n;
    au_tokenizer *t = open_fixture("checkpoints/mono-f32");
    assert_int_equal(au_tokenizer_encode(t, "a\xff", 2, MAX_IDS, &ids, &n, &err), AU_INVALID);
    assert_int_equal(au_tokenizer_encode(t, "\xed\xa0\x80", 3, MAX_IDS, &ids, &n, NULL),
                     AU_INVALID);
    assert_int_equal(au_tokenizer_encode(t, "a b c d", 7, 3, &ids, &n, &err), AU_LIMIT);
    assert_non_null(strstr(err.message, "3 tokens"));
    assert_int_equal(au_tokenizer_encode(t, "", 0, 1, &ids, &n, NULL), AU_OK);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 1);
    free(ids);
    /* Without the length: the rest of the block is not text. */
    assert_int_equal(au_tokenizer_encode(t, "a\xff", 1, MAX_IDS, &ids, &n, NULL), AU_OK);
    free(ids);
    au_tokenizer_close(&t);
}

/* Long prompts: one word, many words, nothing but unknown characters, one grapheme cluster, blanks,
 * sentinels. */
static void test_long_prompts(void **state)
{
    (void)state;
    static const char *const units[] = {"a", "music ",       "\xf0\x9f\x8e\xb5", "\xcc\x81",
                                        " ", "<extra_id_0>", "<extra_id_"};
    au_tokenizer *t = open_fixture("checkpoints/mono-f16-t5vocab");
    for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
        au_buf b;
        au_buf_init(&b, 128 << 10);
        while (b.len < 64 << 10)
            au_buf_str(&b, units[k]);
        int32_t *ids;
        size_t n;
        assert_int_equal(au_tokenizer_encode(t, au_buf_cstr(&b), b.len, MAX_IDS, &ids, &n, NULL),
                         AU_OK);
        assert_int_equal(ids[n - 1], 1);
        free(ids);
        au_buf_deinit(&b);
    }
    au_tokenizer_close(&t);
}

#define VOCAB                                                                                      \
    "[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],[\"\xe2\x96\x81\",-2],[\"a\",-3],[\"\xe2\x96\x81"   \
    "a\",-4.5]]"

static au_status parse(const char *json, au_tokenizer **t, au_err *err)
{
    return au_tokenizer_from_memory(t, json, strlen(json), true, "test.json", err);
}

static void test_small_vocabulary(void **state)
{
    (void)state;
    static const char json[] =
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":" VOCAB "},\"added_tokens\":["
        "{\"id\":7,\"content\":\"<one>\",\"single_word\":true,\"lstrip\":true,\"rstrip\":true,"
        "\"normalized\":false},"
        "{\"id\":6,\"content\":\"<two>\",\"normalized\":true},{\"id\":8,\"content\":\"<one>\"}]}";
    au_tokenizer *t;
    assert_int_equal(parse(json, &t, NULL), AU_OK);
    /* In the order of their ids, after the vocabulary, then 100 sentinels. */
    assert_int_equal(au_tokenizer_vocab(t), 6 + 2 + 100);
    static const int32_t two[] = {6, 1}, one[] = {5, 7, 5, 1}, inside[] = {5, 2, 1},
                         sentinel[] = {8, 107, 1};
    assert_true(check_ids(t, "normalized", "<two>", two, 2));
    assert_true(check_ids(t, "single word", "a <one> a", one, 4));
    assert_true(check_ids(t, "not alone", "a<one>\xc3\xa9", inside, 3));
    assert_true(check_ids(t, "sentinels", "<extra_id_0><extra_id_99>", sentinel, 3));
    /* "▁a" at -4.5 beats "▁" + "a" at -5; unknown characters become one id per word. */
    static const int32_t best[] = {5, 4, 1}, unknown[] = {3, 2, 3, 2, 1};
    assert_true(check_ids(t, "viterbi", "aa", best, 3));
    assert_true(check_ids(t, "unknown", "xyz\txyz", unknown, 5));
    au_tokenizer_close(&t);
}

static void expect_refused(const char *json, au_status status, const char *message)
{
    au_err err = {0};
    au_tokenizer *t = NULL;
    au_status st = parse(json, &t, &err);
    if (st != status || !strstr(err.message, message))
        fail_msg("status %d, message \"%s\", expected \"%s\"", st, err.message, message);
    assert_null(t);
}

static void test_bad_json_is_refused(void **state)
{
    (void)state;
#define UNIGRAM "\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":" VOCAB "}"
    expect_refused("", AU_CORRUPT, "test.json");
    expect_refused("[]", AU_CORRUPT, "not an object");
    expect_refused("{}", AU_CORRUPT, "no model");
    expect_refused("{\"model\":{\"type\":\"BPE\"}}", AU_UNSUPPORTED, "BPE");
    expect_refused("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":" VOCAB "}}",
                   AU_UNSUPPORTED, "unk_id is 0");
    expect_refused("{\"model\":{\"type\":\"Unigram\",\"byte_fallback\":true,\"vocab\":" VOCAB "}}",
                   AU_UNSUPPORTED, "byte_fallback");
    expect_refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", AU_CORRUPT,
                   "1 pieces");
    expect_refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", AU_CORRUPT,
                   "vocab[0]");
    expect_refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"b\",0],[\"c\",0]]}}",
                   AU_CORRUPT, "</s>");
    expect_refused("{" UNIGRAM ",\"normalizer\":{\"type\":\"Lowercase\"}}", AU_UNSUPPORTED,
                   "Lowercase");
    expect_refused("{" UNIGRAM ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}", AU_UNSUPPORTED,
                   "ByteLevel");
    expect_refused("{" UNIGRAM
                   ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"*\"}}",
                   AU_CORRUPT, "base64");
    /* An array of 2^31 bytes in a blob of 8. */
    expect_refused(
        "{" UNIGRAM
        ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAAgAAAAAA=\"}}",
        AU_CORRUPT, "only 4 follow");
    expect_refused("{" UNIGRAM ",\"added_tokens\":[{\"content\":\"x\"}]}", AU_CORRUPT,
                   "added_tokens[0]");
}

/* A temporary folder with a tokenizer.json, and tokenizer_config.json and config.json where they
 * are not NULL. */
static au_status open_folder(au_tokenizer **t, const char *json, const char *config,
                             const char *model, au_err *err)
{
    char dir[] = "/tmp/aulos-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    const char *const files[][2] = {
        {"tokenizer.json", json}, {"tokenizer_config.json", config}, {"config.json", model}};
    for (size_t i = 0; i < 3; i++) {
        char *path;
        assert_int_equal(au_path_join(&path, dir, files[i][0], NULL), AU_OK);
        if (files[i][1])
            assert_int_equal(au_file_write(path, files[i][1], strlen(files[i][1]), false, NULL),
                             AU_OK);
        free(path);
    }
    au_status st = au_tokenizer_open(t, dir, err);
    assert_int_equal(au_remove_tree(dir, NULL), AU_OK);
    return st;
}

static void test_tokenizer_config(void **state)
{
    (void)state;
    static const char json[] = "{" UNIGRAM "}";
    au_tokenizer *t;
    au_err err;
    assert_int_equal(open_folder(&t, json, NULL, "{}", NULL), AU_OK);
    assert_int_equal(au_tokenizer_vocab(t), 106); /* 100 sentinels unless somebody says otherwise */
    au_tokenizer_close(&t);
    assert_int_equal(
        open_folder(&t, json,
                    "{\"extra_ids\":2,\"model_max_length\":1000000000000000019884624838656}", "{}",
                    &err),
        AU_OK);
    assert_int_equal(au_tokenizer_vocab(t), 8);
    static const int32_t second[] = {7, 1};
    assert_true(check_ids(t, "extra_ids", "<extra_id_1>", second, 2));
    au_tokenizer_close(&t);
    assert_int_equal(open_folder(&t, json,
                                 "{\"additional_special_tokens\":[\"<x>\",{\"content\":\"<y>\"}]}",
                                 "{}", NULL),
                     AU_OK);
    assert_int_equal(au_tokenizer_vocab(t), 8);
    static const int32_t listed[] = {6, 7, 1};
    assert_true(check_ids(t, "special tokens", "<x><y>", listed, 3));
    au_tokenizer_close(&t);
    assert_int_equal(
        open_folder(
            &t, json,
            "{\"extra_special_tokens\":[],\"added_tokens_decoder\":{\"10\":{\"content\":\"<b>\"},"
            "\"9\":{\"content\":\"<a>\"}}}",
            "{}", NULL),
        AU_OK);
    assert_true(check_ids(t, "added tokens", "<a><b>", listed, 3));
    au_tokenizer_close(&t);
    assert_int_equal(open_folder(&t, json, "{\"extra_ids\":2.5}", "{}", &err), AU_UNSUPPORTED);
    assert_int_equal(open_folder(&t, json, "{\"eos_token\":\"<end>\"}", "{}", &err),
                     AU_UNSUPPORTED);
    assert_non_null(strstr(err.message, "<end>"));
    assert_int_equal(open_folder(&t, json, "{", "{}", &err), AU_CORRUPT);
}

/* Without a word that it is T5's, the layout counts as it is stored: blanks alone separate here. */
static void test_layout_as_stored(void **state)
{
    (void)state;
    static const char json[] =
        "{" UNIGRAM ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\","
        "\"strip_left\":false,"
        "\"strip_right\":true},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" "
        "{2,}\"},\"content\":\"\xe2\x96\x81\"}]},"
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"}}";
    static const int32_t stored[] = {5, 2, 4, 5, 1}, rebuilt[] = {5, 5, 5, 1};
    au_tokenizer *t;
    assert_int_equal(open_folder(&t, json, NULL, NULL, NULL), AU_OK);
    assert_int_equal(au_tokenizer_vocab(t), 6);
    assert_true(check_ids(t, "as stored", "a\ta  a ", stored, 5));
    au_tokenizer_close(&t);
    assert_int_equal(open_folder(&t, json, NULL, "{}", NULL), AU_OK);
    assert_true(check_ids(t, "as T5's", "a\ta  a ", rebuilt, 4));
    au_tokenizer_close(&t);
}

static void test_bad_spiece_is_refused(void **state)
{
    (void)state;
    au_err err;
    au_tokenizer *t = NULL;
    char *path = fixture("checkpoints/mono-f32/spiece.model"), *data;
    size_t len;
    assert_int_equal(au_file_read(&data, &len, path, 64 << 20, NULL), AU_OK);
    for (size_t cut = 1; cut < 2000; cut += 7) {
        char *copy = malloc(cut);
        memcpy(copy, data, cut);
        au_status st = au_tokenizer_from_memory(&t, copy, cut, false, "cut", &err);
        assert_true(st == AU_CORRUPT ||
                    st == AU_OK); /* a cut between two pieces is a smaller vocabulary */
        au_tokenizer_close(&t);
        free(copy);
    }
    assert_int_equal(au_tokenizer_from_memory(&t, data, len - 100, false, "cut", &err), AU_CORRUPT);
    assert_int_equal(au_tokenizer_from_memory(&t, "", 0, false, "empty", &err), AU_CORRUPT);
    assert_int_equal(au_tokenizer_from_memory(&t, "{}", 2, false, "text", &err), AU_CORRUPT);
    free(data);
    free(path);
    path = fixture("tokenizer");
    assert_int_equal(au_tokenizer_open(&t, path, &err), AU_NOT_FOUND);
    assert_non_null(strstr(err.message, "tokenizer.json"));
    assert_non_null(strstr(err.message, "spiece.model"));
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_cases_are_exact),
        cmocka_unit_test(test_both_forms_agree),
        cmocka_unit_test(test_a_folder_with_one_form_opens),
        cmocka_unit_test(test_limits_and_bad_text),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_small_vocabulary),
        cmocka_unit_test(test_bad_json_is_refused),
        cmocka_unit_test(test_bad_spiece_is_refused),
        cmocka_unit_test(test_tokenizer_config),
        cmocka_unit_test(test_layout_as_stored),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
