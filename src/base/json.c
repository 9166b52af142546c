/* SPDX-License-Identifier: MIT */
/* Reading and writing JSON with jansson. Stateless; safe from any thread.
 *
 * Reading: jansson refuses NaN, \u0000, lone surrogates and bad UTF-8 itself; duplicate keys by a
 * flag. Its nesting limit (2048) is far above what any of our texts needs, so the depth is checked
 * before, which also bounds the recursion of everything that walks a tree later.
 *
 * Writing is our own, because json_dumps prints 0.1 as 0.10000000000000001. */
#include "base/json.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

enum { MAX_DEPTH = 64 };

/* Whether brackets outside strings nest at most MAX_DEPTH deep. Says nothing of well-formedness. */
static bool depth_is_sane(const char *text, size_t len)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if ((c == '[' || c == '{') && ++depth > MAX_DEPTH) {
            return false;
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return true;
}

static au_status parse(json_t **out, const char *text, size_t len, size_t flags, const char *what,
                       au_err *err)
{
    *out = NULL;
    if (!depth_is_sane(text, len))
        return au_fail(err, AU_CORRUPT, "%s: JSON nests deeper than %d levels", what, MAX_DEPTH);
    json_error_t e;
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | flags, &e);
    if (*out)
        return AU_OK;
    if (json_error_code(&e) == json_error_out_of_memory)
        return au_fail(err, AU_NOMEM, "%s: out of memory while reading JSON", what);
    return au_fail(err, AU_CORRUPT, "%s: not valid JSON: line %d, column %d: %s", what, e.line,
                   e.column, e.text);
}

au_status au_json_parse(json_t **out, const char *text, size_t len, const char *what, au_err *err)
{
    return parse(out, text, len, 0, what, err);
}

au_status au_json_parse_reals(json_t **out, const char *text, size_t len, const char *what,
                              au_err *err)
{
    return parse(out, text, len, JSON_DECODE_INT_AS_REAL, what, err);
}

au_status au_json_load(json_t **out, const char *path, size_t max_bytes, au_err *err)
{
    *out = NULL;
    char *text = NULL;
    size_t len;
    au_status st = au_file_read(&text, &len, path, max_bytes, err);
    if (st == AU_OK)
        st = au_json_parse(out, text, len, path, err);
    free(text);
    return st;
}

static void dump_string(au_buf *b, const char *s, size_t len)
{
    au_buf_char(b, '"');
    size_t from = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        au_buf_append(b, s + from, i - from);
        from = i + 1;
        static const char letters[] = "\"\"\\\\\bb\ff\nn\rr\tt";
        const char *p = letters;
        while (*p && (unsigned char)*p != c)
            p += 2;
        if (*p)
            au_buf_printf(b, "\\%c", p[1]);
        else
            au_buf_printf(b, "\\u%04x", c);
    }
    au_buf_append(b, s + from, len - from);
    au_buf_char(b, '"');
}

/* The fewest digits that read back to v: as a plain decimal where the exponent is small, else with
 * an exponent. Always recognisable as a real. */
static void dump_real(au_buf *b, double v)
{
    /* Room for a plain decimal of 17 digits after 5 zeros, or before 16 digits. */
    char text[64];
    int digits = 0;
    do
        snprintf(text, sizeof text, "%.*e", digits, v);
    while (strtod(text, NULL) != v && ++digits < 17);
    int exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= -5 && exponent < 16)
        snprintf(text, sizeof text, "%.*f", digits > exponent ? digits - exponent : 0, v);
    /* Both directions above use the locale's decimal point; JSON has just one. */
    char *point = strchr(text, localeconv()->decimal_point[0]);
    if (point)
        *point = '.';
    au_buf_str(b, text);
    if (!strpbrk(text, ".e"))
        au_buf_str(b, ".0");
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void dump_object(au_buf *b, const json_t *j)
{
    json_t *object = (json_t *)(uintptr_t)j; /* jansson's iterators are not const */
    size_t n = 0, count = json_object_size(j);
    const char **keys = calloc(count ? count : 1, sizeof *keys);
    if (!keys) {
        b->status = AU_NOMEM;
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) keys[n++] = key;
    qsort(keys, n, sizeof *keys, compare_keys);
    au_buf_char(b, '{');
    for (size_t i = 0; i < n; i++) {
        if (i)
            au_buf_char(b, ',');
        dump_string(b, keys[i], strlen(keys[i]));
        au_buf_char(b, ':');
        au_json_dump(b, json_object_get(j, keys[i]));
    }
    au_buf_char(b, '}');
    free(keys);
}

void au_json_dump(au_buf *b, const json_t *j)
{
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        dump_object(b, j);
        break;
    case JSON_ARRAY:
        au_buf_char(b, '[');
        for (size_t i = 0; i < json_array_size(j); i++) {
            if (i)
                au_buf_char(b, ',');
            au_json_dump(b, json_array_get(j, i));
        }
        au_buf_char(b, ']');
        break;
    case JSON_STRING:
        dump_string(b, json_string_value(j), json_string_length(j));
        break;
    case JSON_INTEGER:
        au_buf_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
        break;
    case JSON_REAL:
        dump_real(b, json_real_value(j));
        break;
    case JSON_TRUE:
        au_buf_str(b, "true");
        break;
    case JSON_FALSE:
        au_buf_str(b, "false");
        break;
    case JSON_NULL:
        au_buf_str(b, "null");
        break;
    }
}

au_status au_json_text(char **out, const json_t *j, size_t max_bytes, au_err *err)
{
    au_buf text;
    au_buf_init(&text, max_bytes);
    au_json_dump(&text, j);
    au_status st = au_buf_take(&text, out, NULL, err);
    au_buf_deinit(&text);
    return st;
}
