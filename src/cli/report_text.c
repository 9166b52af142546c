/* SPDX-License-Identifier: MIT */
/* Turns a JSON report into lines. It knows nothing of what is in it, so a report that grows a
 * member shows it at once. */
#include "cli/report_text.h"

#include <stdio.h>
#include <string.h>

#include "aulos/aulos.h"

enum { SHORT_LIST = 8, REPORT_BYTES = 256 * 1024 * 1024 };

static void print_scalar(au_buf *b, const json_t *v)
{
    if (json_is_string(v))
        au_buf_str(b, json_string_value(v));
    else if (json_is_null(v))
        au_buf_str(b, "none");
    else
        au_json_dump(b, v);
}

/* A value on one line: [2, 3], a=1 b=2. */
static void print_inline(au_buf *b, const json_t *v)
{
    const char *key, *gap = "";
    json_t *member;
    size_t i;
    if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, key, member)
        {
            au_buf_printf(b, "%s%s=", gap, key);
            print_inline(b, member);
            gap = " ";
        }
    } else if (json_is_array(v)) {
        au_buf_char(b, '[');
        json_array_foreach(v, i, member)
        {
            au_buf_str(b, gap);
            print_inline(b, member);
            gap = ", ";
        }
        au_buf_char(b, ']');
    } else {
        print_scalar(b, v);
    }
}

static bool holds_containers(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_number(json_array_get(list, i)))
            return true;
    return false;
}

au_status au_report_print(const json_t *report, au_err *err)
{
    const char *key;
    json_t *member, *item;
    size_t i;
    au_buf b;
    au_buf_init(&b, REPORT_BYTES);
    json_object_foreach((json_t *)(uintptr_t)report, key, member)
    {
        if (!json_is_array(member) ||
            (json_array_size(member) <= SHORT_LIST && !holds_containers(member))) {
            au_buf_printf(&b, "%-18s ", key);
            print_inline(&b, member);
            au_buf_char(&b, '\n');
            continue;
        }
        au_buf_printf(&b, "%-18s %zu\n", key, json_array_size(member));
        json_array_foreach(member, i, item)
        {
            au_buf_str(&b, "  ");
            print_inline(&b, item);
            au_buf_char(&b, '\n');
        }
    }
    au_status st = au_buf_check(&b, err);
    if (st == AU_OK && (fputs(au_buf_cstr(&b), stdout) < 0 || fflush(stdout) != 0))
        st = au_fail(err, AU_IO, "cannot write to standard output");
    au_buf_deinit(&b);
    return st;
}

au_status au_report_output(char *json, bool as_json, json_t **keep, au_err *err)
{
    json_t *report = NULL;
    au_status st = au_json_parse(&report, json, strlen(json), "report", err);
    au_text_free(json);
    if (st == AU_OK)
        st = as_json ? au_cli_print_json(report, err) : au_report_print(report, err);
    if (st == AU_OK && keep)
        *keep = json_incref(report);
    json_decref(report);
    return st;
}
