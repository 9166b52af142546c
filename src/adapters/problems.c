/* SPDX-License-Identifier: MIT */
/* Problems are collected rather than returned at the first one, so that a user sees them all at
 * once. */
#include "adapters/problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/str.h"

/* An adapter for another model has one problem for each of its tensors; more than this nobody
 * reads. */
enum { MAX_LISTED = 500, MAX_TEXT = 1000 };

au_status au_problems_init(au_problems *p, au_err *err)
{
    *p = (au_problems){.list = json_array(), .warnings = json_array()};
    return p->list && p->warnings ? AU_OK : au_fail(err, AU_NOMEM, "cannot allocate a list");
}

void au_problems_deinit(au_problems *p)
{
    json_decref(p->list);
    json_decref(p->warnings);
    *p = (au_problems){0};
}

static void AU_PRINTF(2, 0) add(json_t *list, const char *fmt, va_list ap)
{
    char text[MAX_TEXT];
    if (json_array_size(list) >= MAX_LISTED)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    bool valid = au_utf8_valid(text, strlen(text)); /* cutting may have split a character */
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f || (!valid && (unsigned char)*c >= 0x80))
            *c = '?';
    json_array_append_new(list, json_string(text));
}

void au_problem(au_problems *p, au_status status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(p->list, fmt, ap);
    va_end(ap);
    if (!p->count++)
        p->first = status;
}

void au_warning(au_problems *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(p->warnings, fmt, ap);
    va_end(ap);
}

au_status au_problems_check(const au_problems *p, au_err *err)
{
    if (!p->count)
        return AU_OK;
    au_buf text;
    au_buf_init(&text, MAX_LISTED * (MAX_TEXT + 1));
    size_t shown = 0, n = json_array_size(p->list), room = sizeof err->message - 40;
    for (; shown < n; shown++) {
        const char *line = json_string_value(json_array_get(p->list, shown));
        if (!line || text.len + strlen(line) + 1 > room)
            break;
        au_buf_printf(&text, "%s%s", shown ? "\n" : "", line);
    }
    if (shown < p->count)
        au_buf_printf(&text, "\nand %zu more", p->count - shown);
    au_status st = au_fail(err, p->first, "%s", au_buf_cstr(&text));
    au_buf_deinit(&text);
    return st;
}
