/* SPDX-License-Identifier: MIT */
/* The Idempotency-Key field, and hashes of JSON values. Stateless. */
#include "api/idempotency_key.h"

#include <stdlib.h>
#include <string.h>

static bool is_visible(char c)
{
    return c > 0x20 && c < 0x7f;
}

/* The character at *p of a quoted string, with its escape undone; '\0': none that may stand there.
 */
static char take_quoted(const char **p)
{
    if (**p == '\\') {
        (*p)++;
        return **p == '"' || **p == '\\' ? *(*p)++ : '\0';
    }
    return is_visible(**p) ? *(*p)++ : '\0';
}

bool au_idempotency_key_parse(char out[AU_IDEMPOTENCY_KEY_MAX + 1], const char *value)
{
    size_t n = 0;
    bool quoted = *value == '"';
    const char *p = value + quoted;
    while (*p && !(quoted && *p == '"')) {
        char c = quoted ? take_quoted(&p) : is_visible(*p) ? *p++ : '\0';
        if (!c || n == AU_IDEMPOTENCY_KEY_MAX)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    if (quoted && *p++ != '"')
        return false;
    return n > 0 && *p == '\0';
}

static void add_text(au_sha256 *h, char type, const char *text, size_t len)
{
    uint64_t n = len;
    au_sha256_update(h, &type, 1);
    au_sha256_update(h, &n, sizeof n);
    au_sha256_update(h, text, len);
}

/* 1, 1.0 and 1e0 are one number. An integer that a double cannot hold is its own kind. */
static void add_number(au_sha256 *h, const json_t *j)
{
    double d = json_number_value(j);
    json_int_t i = json_is_integer(j) ? json_integer_value(j) : 0;
    if (json_is_integer(j) && (d >= 0x1p63 || d < -0x1p63 || (json_int_t)d != i)) {
        add_text(h, 'i', (const char *)&i, sizeof i);
        return;
    }
    d = d == 0 ? 0 : d; /* no -0 */
    add_text(h, 'n', (const char *)&d, sizeof d);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool add_object(au_sha256 *h, const json_t *object)
{
    size_t n = json_object_size(object), i = 0;
    bool ok = true;
    const char *name;
    json_t *value;
    const char **names = calloc(n + 1, sizeof *names);
    if (!names)
        return false;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) names[i++] = name;
    qsort(names, n, sizeof *names, by_name);
    add_text(h, '{', (const char *)&(uint64_t){n}, sizeof(uint64_t));
    for (i = 0; ok && i < n; i++) {
        add_text(h, 'k', names[i], strlen(names[i]));
        ok = au_json_hash(h, json_object_get(object, names[i]));
    }
    free(names);
    return ok;
}

static bool add_array(au_sha256 *h, const json_t *array)
{
    uint64_t n = json_array_size(array);
    bool ok = true;
    add_text(h, '[', (const char *)&n, sizeof n);
    for (size_t i = 0; ok && i < n; i++)
        ok = au_json_hash(h, json_array_get(array, i));
    return ok;
}

/* Recursive: the reader bounds the depth. */
bool au_json_hash(au_sha256 *h, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return add_object(h, value);
    case JSON_ARRAY:
        return add_array(h, value);
    case JSON_STRING:
        add_text(h, 's', json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        add_number(h, value);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
    case JSON_NULL:
        add_text(h, json_is_true(value) ? 't' : json_is_false(value) ? 'f' : '0', "", 0);
        break;
    }
    return true;
}
