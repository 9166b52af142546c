/* SPDX-License-Identifier: MIT */
/* `aulos adapter inspect`: the report of an adapter, checked against a model if one is named. */
#include <stdlib.h>
#include <string.h>

#include "aulos/aulos.h"
#include "base/fs.h"
#include "base/mem.h"
#include "cli/model_path.h"
#include "cli/report_text.h"

static au_status inspect(const au_options *o, const char *value, bool *rejected, au_err *err)
{
    bool with_model = au_options_count(o, AU_OPT_MODEL) > 0;
    au_model *model = NULL;
    char *model_dir = NULL, *dir = NULL, *json = NULL;
    json_t *report = NULL;
    au_status st = AU_OK;
    if (with_model) {
        AU_TRY(au_model_path_one(o, &model_dir, err));
        AU_TRY(au_model_open(model_dir, NULL, &model, err));
        AU_TRY(au_adapter_path_find(model_dir, value, &dir, err));
    } else {
        AU_FAIL_IF(!au_dir_exists(value), AU_NOT_FOUND, "no such adapter folder: %s", value);
        AU_TRY(au_strdup(&dir, value, err));
    }
    AU_TRY(au_adapter_report(model, dir, &json, err));
    AU_TRY(au_report_output(json, au_options_flag(o, AU_OPT_JSON), &report, err));
    const char *status = json_string_value(json_object_get(report, "status"));
    *rejected = !status || strcmp(status, "ready") != 0;
done:
    json_decref(report);
    au_model_unref(&model);
    free(model_dir);
    free(dir);
    return st;
}

int au_command_adapter(const au_options *o)
{
    const char *what = au_options_arg(o, 0);
    bool rejected = false;
    au_err err = {0};
    if (!what || strcmp(what, "inspect") != 0)
        return au_cli_usage(what ? "unknown subcommand adapter %s, expected \"inspect DIR\""
                                 : "adapter needs \"inspect DIR\"%s",
                            what ? what : "");
    if (au_options_n_args(o) != 2)
        return au_cli_usage("adapter inspect takes one DIR, found %zu", au_options_n_args(o) - 1);
    au_status st = inspect(o, au_options_arg(o, 1), &rejected, &err);
    if (st != AU_OK)
        return au_cli_error(&err, st == AU_INVALID ? AU_EXIT_USAGE : AU_EXIT_FAILED);
    return rejected ? AU_EXIT_FAILED : AU_EXIT_OK;
}
