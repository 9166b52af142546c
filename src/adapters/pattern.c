/* SPDX-License-Identifier: MIT */
/* Patterns of adapters in PCRE2. They come from outside, so three limits hold: PCRE2's own for a
 * match and its depth, and one for all matches of a set together, counted by automatic callouts
 * (one per step of the pattern), so that no adapter can keep a processor busy. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "adapters/pattern.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    MAX_PATTERNS = 4096,
    MAX_KEY = 1000,
    MAX_MATCH = 100000,
    MAX_DEPTH = 1000,
    MAX_HEAP_KB = 1024,
    MAX_NESTING = 50,
    MAX_WORK = 100000000, /* a few seconds; honest adapters with a key per module need a tenth */
};

struct au_pattern {
    char *key;
    double value;
    pcre2_code *code;
};

au_status au_patterns_add(au_patterns *p, const char *key, double value, au_err *err)
{
    if (p->n == MAX_PATTERNS || strlen(key) > MAX_KEY)
        return au_fail(err, AU_LIMIT, "more than %d patterns, or one of more than %d characters",
                       MAX_PATTERNS, MAX_KEY);
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 16;
        au_pattern *items = realloc(p->items, cap * sizeof *items);
        if (!items)
            return au_fail(err, AU_NOMEM, "cannot allocate %zu patterns", cap);
        p->items = items;
        p->cap = cap;
    }
    char *text = NULL;
    au_pattern item = {.value = value};
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    int code = 0;
    PCRE2_SIZE where = 0;
    au_status st = AU_OK;
    AU_FAIL_IF(!context, AU_NOMEM, "cannot allocate a pattern");
    AU_TRY(au_strdup(&item.key, key, err));
    AU_FAIL_IF(asprintf(&text, "(.*\\.)?(%s)$", key) < 0, AU_NOMEM, "cannot allocate a pattern");
    pcre2_set_parens_nest_limit(context, MAX_NESTING);
    item.code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                              PCRE2_ANCHORED | PCRE2_DOLLAR_ENDONLY | PCRE2_UTF |
                                  PCRE2_NEVER_BACKSLASH_C | PCRE2_AUTO_CALLOUT,
                              &code, &where, context);
    if (!item.code) {
        PCRE2_UCHAR why[120] = "";
        pcre2_get_error_message(code, why, sizeof why);
        st = au_fail(err, AU_INVALID, "\"%s\" is not a regular expression: %s", key,
                     (const char *)why);
        goto done;
    }
    p->items[p->n++] = item;
    item = (au_pattern){0};
done:
    free(item.key);
    free(text);
    pcre2_compile_context_free(context);
    return st;
}

static int count_step(pcre2_callout_block *block, void *data)
{
    (void)block;
    au_patterns *p = data;
    return ++p->work > MAX_WORK ? PCRE2_ERROR_MATCHLIMIT : 0;
}

const char *au_patterns_find(au_patterns *p, const char *name, double *value)
{
    const char *found = NULL;
    if (!p->n)
        return NULL;
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    p->exhausted |= !context || !data;
    if (!p->exhausted) {
        pcre2_set_match_limit(context, MAX_MATCH);
        pcre2_set_depth_limit(context, MAX_DEPTH);
        pcre2_set_heap_limit(context, MAX_HEAP_KB);
        pcre2_set_callout(context, count_step, p);
    }
    for (size_t i = 0; i < p->n && !found && !p->exhausted; i++) {
        int rc = pcre2_match(p->items[i].code, (PCRE2_SPTR)name, strlen(name), 0, 0, data, context);
        if (rc >= 0) {
            found = p->items[i].key;
            *value = p->items[i].value;
        } else if (rc != PCRE2_ERROR_NOMATCH) {
            p->exhausted = true;
        }
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    return found;
}

void au_patterns_free(au_patterns *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->items[i].key);
        pcre2_code_free(p->items[i].code);
    }
    free(p->items);
    *p = (au_patterns){0};
}
