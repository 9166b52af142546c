/* SPDX-License-Identifier: MIT */
/* Checking a JSON body and collecting what is wrong. One owner; no locking. */
#include "api/json_check.h"

#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/str.h"

enum { POINTER_MAX_BYTES = 1024, ERRORS_MAX = 100 };

void au_check_init(au_check *c, au_arena *arena)
{
    *c = (au_check){.arena = arena, .errors = json_array()};
    c->no_memory = !c->errors;
}

void au_check_deinit(au_check *c)
{
    json_decref(c->errors);
    c->errors = NULL;
}

bool au_check_ok(const au_check *c)
{
    return !c->no_memory && json_array_size(c->errors) == 0;
}

const char *au_check_at(au_check *c, const char *parent, const char *key)
{
    au_buf b;
    au_buf_init(&b, POINTER_MAX_BYTES);
    au_buf_str(&b, parent);
    au_buf_char(&b, '/');
    /* A key too long to be repeated is cut, at the end of a character. */
    size_t room = POINTER_MAX_BYTES / 2 - 2, len = strlen(key);
    if (len > room) {
        len = room;
        while (len && ((unsigned char)key[len] & 0xc0) == 0x80)
            len--;
    }
    for (size_t i = 0; i < len; i++) {
        if (key[i] == '~' || key[i] == '/')
            au_buf_str(&b, key[i] == '~' ? "~0" : "~1");
        else
            au_buf_char(&b, key[i]);
    }
    const char *pointer = b.status == AU_OK ? au_arena_strdup(c->arena, au_buf_cstr(&b)) : parent;
    au_buf_deinit(&b);
    c->no_memory |= !pointer;
    return pointer ? pointer : "";
}

const char *au_check_at_index(au_check *c, const char *parent, size_t index)
{
    const char *pointer = au_arena_printf(c->arena, "%s/%zu", parent, index);
    c->no_memory |= !pointer;
    return pointer ? pointer : "";
}

void au_check_add(au_check *c, const char *pointer, const char *code, json_t *more)
{
    json_t *error = json_pack("{s:s, s:s}", "pointer", pointer, "code", code);
    c->n_invalid += strcmp(code, "not_found") != 0;
    if (error && more && json_object_update(error, more) != 0)
        c->no_memory = true;
    json_decref(more);
    /* A body of thousands of wrong fields is wrong enough with a hundred. */
    if (json_array_size(c->errors) >= ERRORS_MAX)
        json_decref(error);
    else if (!error || json_array_append_new(c->errors, error) != 0)
        c->no_memory = true;
}

static void wrong_type(au_check *c, const char *pointer, const char *expected)
{
    au_check_add(c, pointer, "wrong_type", json_pack("{s:s}", "expected", expected));
}

bool au_check_object(au_check *c, const json_t *j, const char *pointer, const char *const *fields)
{
    if (!json_is_object(j)) {
        wrong_type(c, pointer, "object");
        return false;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)j, key, value)
    {
        (void)value;
        bool known = false;
        for (size_t i = 0; fields[i]; i++)
            known |= strcmp(key, fields[i]) == 0;
        if (!known)
            au_check_add(c, au_check_at(c, pointer, key), "unknown_field",
                         json_pack("{s:s*}", "did_you_mean", au_str_nearest(key, fields)));
    }
    return true;
}

bool au_check_int(au_check *c, const json_t *object, const char *parent, const char *key,
                  int64_t min, int64_t max, int64_t *out)
{
    const json_t *j = json_object_get(object, key);
    if (!j)
        return false;
    const char *pointer = au_check_at(c, parent, key);
    /* 4.0 is an integer for JSON; what lies beyond 64 bits arrives as a real (au_http_body_json).
     */
    double real = json_number_value(j);
    if (!json_is_number(j) || real != floor(real)) {
        wrong_type(c, pointer, "integer");
        return false;
    }
    bool exact = json_is_integer(j);
    int64_t value = exact ? json_integer_value(j) : fabs(real) < 9e15 ? (int64_t)real : 0;
    if ((!exact && fabs(real) >= 9e15) || value < min || value > max) {
        au_check_add(c, pointer, "out_of_range",
                     json_pack("{s:I, s:I}", "min", (json_int_t)min, "max", (json_int_t)max));
        return false;
    }
    *out = value;
    return true;
}

bool au_check_real(au_check *c, const json_t *object, const char *parent, const char *key,
                   double min, double max, bool open_min, double *out)
{
    const json_t *j = json_object_get(object, key);
    if (!j)
        return false;
    const char *pointer = au_check_at(c, parent, key);
    if (!json_is_number(j)) {
        wrong_type(c, pointer, "number");
        return false;
    }
    double value = json_number_value(j);
    if (!(open_min ? value > min : value >= min) || !(value <= max)) {
        au_check_add(c, pointer, "out_of_range",
                     json_pack("{s:f, s:f}", open_min ? "exclusive_min" : "min", min, "max", max));
        return false;
    }
    *out = value;
    return true;
}

bool au_check_bool(au_check *c, const json_t *object, const char *parent, const char *key,
                   bool *out)
{
    const json_t *j = json_object_get(object, key);
    if (!j)
        return false;
    if (!json_is_boolean(j)) {
        wrong_type(c, au_check_at(c, parent, key), "boolean");
        return false;
    }
    *out = json_is_true(j);
    return true;
}

bool au_check_text(au_check *c, const json_t *object, const char *parent, const char *key,
                   size_t max_chars, const char **out)
{
    const json_t *j = json_object_get(object, key);
    if (!j)
        return false;
    const char *text = json_string_value(j);
    if (!text) {
        wrong_type(c, au_check_at(c, parent, key), "string");
        return false;
    }
    if (text[au_utf8_prefix(text, max_chars)] != '\0') {
        au_check_add(c, au_check_at(c, parent, key), "too_long",
                     json_pack("{s:I}", "max_chars", (json_int_t)max_chars));
        return false;
    }
    *out = text;
    return true;
}

au_http_result au_check_reply(au_check *c, au_http_request *rq)
{
    if (c->no_memory) {
        au_check_deinit(c);
        return au_http_problem(rq, AU_PROBLEM_UNAVAILABLE,
                               "out of memory while the body was checked");
    }
    size_t n = json_array_size(c->errors);
    json_t *more = json_pack("{s:o}", "errors", c->errors);
    c->errors = NULL;
    if (c->n_invalid == 0)
        return au_http_problem_more(rq, AU_PROBLEM_NOT_FOUND, more,
                                    n == 1 ? "%zu thing that the body names does not exist"
                                           : "%zu things that the body names do not exist",
                                    n);
    return au_http_problem_more(rq, AU_PROBLEM_VALIDATION, more,
                                n == 1 ? "%zu field is wrong" : "%zu fields are wrong", n);
}
