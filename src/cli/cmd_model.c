/* SPDX-License-Identifier: MIT */
/* `aulos model list` and `aulos model inspect`. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aulos/aulos.h"
#include "base/fs.h"
#include "cli/model_path.h"
#include "cli/report_text.h"

/* One row for the folder, if it looks like a model (it has a config.json). */
static au_status describe(const char *dir, const char *name, json_t *list, au_err *err)
{
    char *config = NULL;
    au_status st = au_path_join(&config, dir, "config.json", err);
    bool is_model = st == AU_OK && au_file_exists(config);
    free(config);
    if (!is_model)
        return st;
    au_model *model = NULL;
    au_err problem = {0};
    json_t *row;
    if (au_model_open(dir, NULL, &model, &problem) == AU_OK) {
        const au_model_info *info = au_model_get_info(model);
        row = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:I}", "name", name, "dir", dir, "family",
                        info->family, "fingerprint", info->fingerprint, "sample_rate",
                        info->sample_rate, "channels", info->channels, "weights_bytes",
                        (json_int_t)info->weights_bytes);
    } else {
        row = json_pack("{s:s, s:s, s:s}", "name", name, "dir", dir, "problem", problem.message);
    }
    au_model_unref(&model);
    return json_array_append_new(list, row) == 0 ? AU_OK : au_fail(err, AU_NOMEM, "out of memory");
}

/* Rows for the subfolders of `dir`, in alphabetical order. A folder that is not there has none. */
static au_status list_folder(const char *dir, json_t *list, au_err *err)
{
    struct dirent **entries = NULL;
    au_status st = AU_OK;
    int n = scandir(dir, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *path = NULL;
        if (st == AU_OK && entries[i]->d_name[0] != '.')
            st = au_path_join(&path, dir, entries[i]->d_name, err);
        if (st == AU_OK && path)
            st = describe(path, entries[i]->d_name, list, err);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return st;
}

static au_status print_list(const json_t *list, au_err *err)
{
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        const char *dir = json_string_value(json_object_get(row, "dir"));
        const char *problem = json_string_value(json_object_get(row, "problem"));
        if (problem)
            printf("%-20s cannot be used: %.*s  %s\n", name, (int)strcspn(problem, "\n"), problem,
                   dir);
        else
            printf("%-20s %s, %lld Hz, %lld channel%s, %.1f MB  %s\n", name,
                   json_string_value(json_object_get(row, "family")),
                   (long long)json_integer_value(json_object_get(row, "sample_rate")),
                   (long long)json_integer_value(json_object_get(row, "channels")),
                   json_integer_value(json_object_get(row, "channels")) == 1 ? "" : "s",
                   (double)json_integer_value(json_object_get(row, "weights_bytes")) / 1e6, dir);
    }
    return fflush(stdout) == 0 ? AU_OK : au_fail(err, AU_IO, "cannot write to standard output");
}

static au_status list_models(const au_options *o, au_err *err)
{
    au_model_path path = {0};
    json_t *list = json_array(), *j = NULL;
    au_status st = AU_OK;
    AU_TRY(au_model_path_init(&path, o, err));
    /* Two ways to one folder (a build tree's and an installed one's) are one row. */
    for (size_t i = 0; i < path.n; i++) {
        char *real = realpath(path.dirs[i], NULL);
        if (!real)
            continue;
        free(path.dirs[i]);
        path.dirs[i] = real;
        size_t k = 0;
        while (k < i && strcmp(path.dirs[k], path.dirs[i]) != 0)
            k++;
        if (k == i)
            AU_TRY(list_folder(path.dirs[i], list, err));
    }
    if (au_options_flag(o, AU_OPT_JSON)) {
        j = json_pack("{s:O}", "models", list);
        AU_FAIL_IF(!j, AU_NOMEM, "out of memory");
        AU_TRY(au_cli_print_json(j, err));
    } else {
        AU_TRY(print_list(list, err));
    }
done:
    json_decref(j);
    json_decref(list);
    au_model_path_deinit(&path);
    return st;
}

static au_status inspect(const au_options *o, const char *value, au_err *err)
{
    au_model_path path = {0};
    au_model *model = NULL;
    char *dir = NULL, *json = NULL;
    au_status st = AU_OK;
    AU_TRY(au_model_path_init(&path, o, err));
    if (au_dir_exists(value))
        dir = strdup(value);
    else
        AU_TRY(au_model_path_find(&path, value, &dir, err));
    AU_FAIL_IF(!dir, AU_NOMEM, "out of memory");
    AU_TRY(au_model_open(dir, NULL, &model, err));
    AU_TRY(au_model_report(model, au_options_flag(o, AU_OPT_HASH), &json, err));
    AU_TRY(au_report_output(json, au_options_flag(o, AU_OPT_JSON), NULL, err));
done:
    au_model_unref(&model);
    au_model_path_deinit(&path);
    free(dir);
    return st;
}

int au_command_model(const au_options *o)
{
    const char *what = au_options_arg(o, 0);
    size_t n = au_options_n_args(o);
    au_err err = {0};
    au_status st;
    if (!what)
        return au_cli_usage("model needs \"list\" or \"inspect DIR\"");
    if (!strcmp(what, "list") && n == 1)
        st = list_models(o, &err);
    else if (!strcmp(what, "inspect") && n == 2)
        st = inspect(o, au_options_arg(o, 1), &err);
    else if (!strcmp(what, "inspect") && n < 2)
        return au_cli_usage("model inspect needs a DIR or a NAME");
    else if (!strcmp(what, "list") || !strcmp(what, "inspect"))
        return au_cli_usage("unexpected argument %s", au_options_arg(o, n - 1));
    else
        return au_cli_usage("unknown subcommand model %s, expected \"list\" or \"inspect DIR\"",
                            what);
    return st == AU_OK ? AU_EXIT_OK : au_cli_error(&err, AU_EXIT_FAILED);
}
