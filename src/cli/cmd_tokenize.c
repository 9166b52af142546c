/* SPDX-License-Identifier: MIT */
/* `aulos tokenize`: token ids of a text, on one line. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aulos/aulos.h"
#include "base/str.h"
#include "cli/model_path.h"

enum { MAX_TEXT = 16 * 1024 * 1024 };

/* Standard input to its end, in b. */
static au_status read_all(au_buf *b, au_err *err)
{
    char block[65536];
    for (size_t n; (n = fread(block, 1, sizeof block, stdin)) > 0;)
        au_buf_append(b, block, n);
    if (ferror(stdin))
        return au_fail_errno(err, errno, "cannot read standard input");
    if (b->len && b->data[b->len - 1] == '\n')
        b->data[--b->len] = '\0';
    if (b->len && memchr(b->data, '\0', b->len))
        return au_fail(err, AU_INVALID, "the text contains a NUL byte");
    return au_buf_check(b, err);
}

static au_status print_ids(const au_options *o, const int32_t *ids, size_t n, au_err *err)
{
    if (au_options_flag(o, AU_OPT_JSON)) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(list, json_integer(ids[i]));
        json_t *j = json_pack("{s:o}", "ids", list);
        au_status st = j ? au_cli_print_json(j, err) : au_fail(err, AU_NOMEM, "out of memory");
        json_decref(j);
        return st;
    }
    for (size_t i = 0; i < n; i++)
        printf(i ? " %d" : "%d", ids[i]);
    putchar('\n');
    return fflush(stdout) == 0 && !ferror(stdout)
               ? AU_OK
               : au_fail(err, AU_IO, "cannot write to standard output");
}

int au_command_tokenize(const au_options *o)
{
    au_err err_details = {0}, *err = &err_details;
    au_status st = AU_OK;
    const char *text = au_options_arg(o, 0);
    char *dir = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    au_buf input;
    au_buf_init(&input, MAX_TEXT);
    if (!text)
        return au_cli_usage("no TEXT given, see `aulos help tokenize`");
    if (au_options_n_args(o) > 1)
        return au_cli_usage("one TEXT expected, found also \"%s\" (quote a text of several words)",
                            au_options_arg(o, 1));
    if (!strcmp(text, "-")) {
        AU_TRY(read_all(&input, err));
        text = au_buf_cstr(&input);
    }
    AU_FAIL_IF(!au_utf8_valid(text, strlen(text)), AU_INVALID, "the text is not valid UTF-8");
    AU_TRY(au_model_path_one(o, &dir, err));
    AU_TRY(au_tokenize_dir(dir, text, &ids, &n, err));
    AU_TRY(print_ids(o, ids, n, err));
done:
    free(ids);
    free(dir);
    au_buf_deinit(&input);
    return st == AU_OK ? AU_EXIT_OK
                       : au_cli_error(err, st == AU_INVALID ? AU_EXIT_USAGE : AU_EXIT_FAILED);
}
