/* SPDX-License-Identifier: MIT */
/* The command line's table against its manual, .npy files, and names of models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/str.h"
#include "cli/model_path.h"
#include "cli/npy.h"

/* Between these lines docs/cli.md holds the table of options. AULOS_UPDATE_DOCS=1 writes it. */
static const char begin_mark[] = "<!-- options: begin -->\n",
                  end_mark[] = "<!-- options: end -->\n";

static void make_table(au_buf *b)
{
    au_buf_str(b, "| option | environment | default | allowed | commands | what it does "
                  "|\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < AU_OPT_COUNT; i++)
        if (!(au_cli_options.options[i].flags & AU_OPTION_INTERNAL))
            au_options_doc_row(b, &au_cli_options, i);
}

static void test_the_manual_has_the_table_of_options(void **state)
{
    (void)state;
    char path[4096], *page = NULL;
    size_t len = 0;
    const char *source = getenv("AULOS_SOURCE");
    assert_non_null(source);
    snprintf(path, sizeof path, "%s/docs/cli.md", source);
    assert_int_equal(au_file_read(&page, &len, path, 1 << 20, NULL), AU_OK);
    char *begin = strstr(page, begin_mark), *end = strstr(page, end_mark);
    assert_true(begin && end && begin < end);
    begin += strlen(begin_mark);
    au_buf table;
    au_buf_init(&table, 1 << 20);
    make_table(&table);
    if (getenv("AULOS_UPDATE_DOCS")) {
        au_buf all;
        au_buf_init(&all, 1 << 20);
        au_buf_append(&all, page, (size_t)(begin - page));
        au_buf_str(&all, au_buf_cstr(&table));
        au_buf_str(&all, end);
        assert_int_equal(au_file_write(path, all.data, all.len, true, NULL), AU_OK);
        au_buf_deinit(&all);
    } else if ((size_t)(end - begin) != table.len || memcmp(begin, table.data, table.len) != 0) {
        fail_msg(
            "docs/cli.md differs from the option table: run this test with AULOS_UPDATE_DOCS=1");
    }
    au_buf_deinit(&table);
    free(page);
}

static void test_the_table_is_sound(void **state)
{
    (void)state;
    size_t n_commands = 0;
    while (au_cli_options.commands[n_commands])
        n_commands++;
    assert_int_equal(n_commands, AU_COMMAND_COUNT);
    for (size_t c = 0; c < AU_COMMAND_COUNT; c++) {
        assert_string_equal(au_cli_options.commands[c], au_cli_commands[c].name);
        /* Parsing nothing checks every default. */
        au_options *o = NULL;
        assert_int_equal(au_options_parse(&o, &au_cli_options, (unsigned)c, 0, NULL, NULL), AU_OK);
        au_options_free(&o);
    }
    for (size_t i = 0; i < AU_OPT_COUNT; i++) {
        const au_option *a = &au_cli_options.options[i];
        assert_true(a->name && a->help && a->commands &&
                    (a->type == AU_OPTION_FLAG) == (a->unit == NULL));
        assert_true(strspn(a->name, "abcdefghijklmnopqrstuvwxyz-") == strlen(a->name) &&
                    strcmp(a->name, "help") != 0);
        assert_true((a->type == AU_OPTION_CHOICE) == (a->choices != NULL) && a->letter != 'h');
        for (size_t k = 0; k < i; k++) {
            const au_option *b = &au_cli_options.options[k];
            assert_string_not_equal(a->name, b->name);
            assert_true(!a->letter || a->letter != b->letter || !(a->commands & b->commands));
        }
    }
}

static void test_npy_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_cli.XXXXXX", path[64], *bytes = NULL;
    size_t len = 0;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.npy", dir);
    const float f[6] = {1, 2, 3, 4, 5, 6};
    assert_int_equal(au_npy_write(path, "f32", 2, (const int64_t[]){2, 3}, f, NULL), AU_OK);
    assert_int_equal(au_file_read(&bytes, &len, path, 4096, NULL), AU_OK);
    size_t header = (size_t)(unsigned char)bytes[8] + ((size_t)(unsigned char)bytes[9] << 8);
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00", 8);
    assert_int_equal((10 + header) % 64, 0);
    assert_int_equal(len, 10 + header + sizeof f);
    assert_true(
        au_str_starts(bytes + 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"));
    assert_int_equal(bytes[10 + header - 1], '\n');
    assert_memory_equal(bytes + 10 + header, f, sizeof f);
    free(bytes);
    const int64_t n[1] = {7};
    assert_int_equal(au_npy_write(path, "i64", 1, (const int64_t[]){1}, n, NULL), AU_OK);
    assert_int_equal(au_file_read(&bytes, &len, path, 4096, NULL), AU_OK);
    assert_true(
        au_str_starts(bytes + 10, "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }"));
    free(bytes);
    assert_int_equal(au_npy_write(path, "f64", 1, (const int64_t[]){1}, n, NULL), AU_INTERNAL);
    unlink(path);
    assert_int_equal(au_npy_write("/nowhere/a.npy", "i64", 1, (const int64_t[]){1}, n, NULL),
                     AU_NOT_FOUND);
    assert_int_equal(rmdir(dir), 0);
}

static au_options *parse(unsigned command, const char *const *words)
{
    int n = 0;
    au_options *o = NULL;
    while (words[n])
        n++;
    assert_int_equal(au_options_parse(&o, &au_cli_options, command, n, (char *const *)words, NULL),
                     AU_OK);
    return o;
}

static void test_models_by_name(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_cli.XXXXXX", first[64], second[64], list[160], *found = NULL;
    au_err err;
    assert_non_null(mkdtemp(dir));
    snprintf(first, sizeof first, "%s/first", dir);
    snprintf(second, sizeof second, "%s/second", dir);
    mkdir(first, 0700);
    mkdir(second, 0700);
    snprintf(list, sizeof list, "/nowhere::%s/none:%s", dir, dir);
    au_options *o = parse(AU_COMMAND_GENERATE,
                          (const char *const[]){"--model-path", list, "--model", "second", NULL});
    assert_int_equal(au_model_path_one(o, &found, &err), AU_OK);
    assert_string_equal(found, second);
    free(found);
    au_options_free(&o);
    o = parse(AU_COMMAND_GENERATE, (const char *const[]){"--model", first, NULL});
    assert_int_equal(au_model_path_one(o, &found, &err), AU_OK);
    assert_string_equal(found, first);
    free(found);
    au_options_free(&o);
    static const char *const missing[] = {"third", "..", ".", "/nowhere/at/all"};
    for (size_t i = 0; i < 4; i++) {
        o = parse(AU_COMMAND_GENERATE,
                  (const char *const[]){"--model-path", list, "--model", missing[i], NULL});
        assert_int_equal(au_model_path_one(o, &found, &err), AU_NOT_FOUND);
        assert_null(found);
        assert_non_null(strstr(err.message, missing[i]));
        au_options_free(&o);
    }
    o = parse(AU_COMMAND_SERVE, (const char *const[]){"--model-path", list, "--model", "second",
                                                      "--model", first, NULL});
    char **dirs = NULL;
    size_t n = 0;
    assert_int_equal(au_model_path_all(o, &dirs, &n, &err), AU_OK);
    assert_int_equal(n, 2);
    assert_string_equal(dirs[0], second);
    assert_string_equal(dirs[1], first);
    au_model_path_free_list(&dirs, n);
    au_options_free(&o);
    o = parse(AU_COMMAND_GENERATE,
              (const char *const[]){"--model", first, "--model", second, NULL});
    assert_int_equal(au_model_path_one(o, &found, &err), AU_INVALID);
    au_options_free(&o);
    rmdir(first);
    rmdir(second);
    rmdir(dir);
}

static void test_adapters_by_name(void **state)
{
    (void)state;
    char model[] = "/tmp/test_cli.XXXXXX", adapters[64], one[80], *found = NULL;
    assert_non_null(mkdtemp(model));
    snprintf(adapters, sizeof adapters, "%s/adapters", model);
    snprintf(one, sizeof one, "%s/one", adapters);
    mkdir(adapters, 0700);
    mkdir(one, 0700);
    assert_int_equal(au_adapter_path_find("/nowhere", one, &found, NULL), AU_OK);
    assert_string_equal(found, one);
    free(found);
    assert_int_equal(au_adapter_path_find(model, "one", &found, NULL), AU_OK);
    assert_string_equal(found, one);
    free(found);
    assert_int_equal(au_adapter_path_find(model, "two", &found, NULL), AU_NOT_FOUND);
    assert_int_equal(au_adapter_path_find(model, "../one", &found, NULL), AU_NOT_FOUND);
    assert_null(found);
    rmdir(one);
    rmdir(adapters);
    rmdir(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_manual_has_the_table_of_options),
        cmocka_unit_test(test_the_table_is_sound),
        cmocka_unit_test(test_npy_files),
        cmocka_unit_test(test_models_by_name),
        cmocka_unit_test(test_adapters_by_name),
    };
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
