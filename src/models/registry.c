/* SPDX-License-Identifier: MIT */
/* The families this build knows. */
#include "models/model.h"

#include <string.h>

#include "base/buf.h"

static const au_family *const families[] = {&au_family_musicgen};
enum { N_FAMILIES = sizeof families / sizeof *families };

au_status au_family_find(const au_family **out, const json_t *config, au_err *err)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type)
        return au_fail(err, AU_CORRUPT, "config.json has no model_type");
    au_buf known;
    au_buf_init(&known, 1000);
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(type, families[i]->name) == 0) {
            *out = families[i];
            au_buf_deinit(&known);
            return AU_OK;
        }
        au_buf_printf(&known, "%s%s", i ? ", " : "", families[i]->name);
    }
    au_status st =
        au_fail(err, AU_UNSUPPORTED, "config.json: model_type is \"%.80s\", this version knows %s",
                type, au_buf_cstr(&known));
    au_buf_deinit(&known);
    return st;
}
