/* SPDX-License-Identifier: MIT */
/* Looks up models and adapters by name. Names never leave the folders that are searched: a name has
 * no '/'. */
#include "cli/model_path.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

enum { MAX_DIRS = 64 };

static au_status add_dir(au_model_path *p, const char *a, const char *b, au_err *err)
{
    if (p->n == MAX_DIRS)
        return au_fail(err, AU_INVALID, "--model-path has more than %d folders", MAX_DIRS - 3);
    au_status st = b ? au_path_join(&p->dirs[p->n], a, b, err) : au_strdup(&p->dirs[p->n], a, err);
    p->n += st == AU_OK;
    return st;
}

au_status au_model_path_init(au_model_path *p, const au_options *o, au_err *err)
{
    au_status st = AU_OK;
    char *list = NULL, *exe = NULL, *rest = NULL;
    memset(p, 0, sizeof *p);
    AU_TRY(au_calloc(&p->dirs, MAX_DIRS, sizeof *p->dirs, err));
    AU_TRY(au_strdup(&list, au_options_text(o, AU_OPT_MODEL_PATH), err));
    rest = list;
    for (char *dir; (dir = strsep(&rest, ":"));)
        if (*dir)
            AU_TRY(add_dir(p, dir, NULL, err));
    AU_TRY(add_dir(p, au_options_text(o, AU_OPT_DATA), "models", err));
    AU_TRY(au_exe_dir(&exe, err));
    AU_TRY(add_dir(p, exe, "../models", err));
    AU_TRY(add_dir(p, exe, "../share/aulos/models", err));
done:
    free(list);
    free(exe);
    if (st != AU_OK)
        au_model_path_deinit(p);
    return st;
}

void au_model_path_deinit(au_model_path *p)
{
    au_model_path_free_list(&p->dirs, p->n);
    p->n = 0;
}

static bool is_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

au_status au_model_path_find(const au_model_path *p, const char *value, char **dir, au_err *err)
{
    *dir = NULL;
    if (strchr(value, '/')) {
        if (!au_dir_exists(value))
            return au_fail(err, AU_NOT_FOUND, "no such model folder: %s", value);
        return au_strdup(dir, value, err);
    }
    for (size_t i = 0; is_name(value) && i < p->n; i++) {
        char *candidate = NULL, *found = NULL;
        au_status st = au_path_join(&candidate, p->dirs[i], value, err);
        if (st == AU_OK && au_dir_exists(candidate)) {
            found = realpath(candidate, NULL);
            st = found ? AU_OK : au_fail(err, AU_IO, "cannot read folder %s", candidate);
        }
        free(candidate);
        *dir = found;
        if (st != AU_OK || found)
            return st;
    }
    au_buf b;
    au_buf_init(&b, 2000);
    for (size_t i = 0; i < p->n; i++)
        au_buf_printf(&b, "%s%s", i ? ", " : "", p->dirs[i]);
    au_status st = au_fail(err, AU_NOT_FOUND, "no model named %s in %s%s%s", value, au_buf_cstr(&b),
                           au_dir_exists(value) ? "; for the folder of that name type ./" : "",
                           au_dir_exists(value) ? value : "");
    au_buf_deinit(&b);
    return st;
}

au_status au_model_path_all(const au_options *o, char ***dirs, size_t *n, au_err *err)
{
    static const char *const shipped[] = {AU_SHIPPED_MODEL};
    size_t given = au_options_count(o, AU_OPT_MODEL);
    const char *const *values = given ? au_options_list(o, AU_OPT_MODEL) : shipped;
    au_status st = AU_OK;
    au_model_path p = {0};
    *n = 0;
    *dirs = NULL;
    AU_TRY(au_model_path_init(&p, o, err));
    AU_TRY(au_calloc(dirs, given ? given : 1, sizeof **dirs, err));
    for (size_t i = 0; i < (given ? given : 1); i++, ++*n)
        AU_TRY(au_model_path_find(&p, values[i], &(*dirs)[i], err));
done:
    au_model_path_deinit(&p);
    if (st != AU_OK) {
        au_model_path_free_list(dirs, *n);
        *n = 0;
    }
    return st;
}

void au_model_path_free_list(char ***dirs, size_t n)
{
    for (size_t i = 0; *dirs && i < n; i++)
        free((*dirs)[i]);
    free(*dirs);
    *dirs = NULL;
}

au_status au_model_path_one(const au_options *o, char **dir, au_err *err)
{
    char **dirs = NULL;
    size_t n = 0;
    *dir = NULL;
    if (au_options_count(o, AU_OPT_MODEL) > 1)
        return au_fail(err, AU_INVALID,
                       "option --model is given %zu times, this command takes one model",
                       au_options_count(o, AU_OPT_MODEL));
    au_status st = au_model_path_all(o, &dirs, &n, err);
    if (st == AU_OK) {
        *dir = dirs[0];
        dirs[0] = NULL;
    }
    au_model_path_free_list(&dirs, n);
    return st;
}

au_status au_adapter_path_find(const char *model_dir, const char *value, char **dir, au_err *err)
{
    *dir = NULL;
    if (au_dir_exists(value))
        return au_strdup(dir, value, err);
    if (!is_name(value))
        return au_fail(err, AU_NOT_FOUND, "no such adapter folder: %s", value);
    char *adapters = NULL;
    au_status st = au_path_join(&adapters, model_dir, "adapters", err);
    if (st == AU_OK)
        st = au_path_join(dir, adapters, value, err);
    if (st == AU_OK && !au_dir_exists(*dir)) {
        st = au_fail(err, AU_NOT_FOUND, "no adapter folder %s, and none of that name in %s", value,
                     adapters);
        free(*dir);
        *dir = NULL;
    }
    free(adapters);
    return st;
}
