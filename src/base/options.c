/* SPDX-License-Identifier: MIT */
/* The option table engine: parsing, help and the manual's rows.
 *
 * Every option has a slot of the same index with the texts that were given and the last one's
 * value. Defaults are parsed by the same code as values from outside, so a default outside its own
 * bounds is found by the first run (AU_ASSERT). All memory of an au_options is in one arena. */
#include "base/options.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/str.h"

enum { MAX_OPTIONS = 256, MAX_VALUES = 4096, ARENA_BYTES = 16 * 1024 * 1024 };

typedef struct slot {
    bool given;
    const char **values; /* n of them, NULL after the last; in the arena */
    size_t n, cap;
    int64_t integer;
    double real;
} slot;

struct au_options {
    const au_option_table *table;
    unsigned command;
    slot *slots; /* table->n */
    const char **args;
    size_t n_args;
    au_arena arena;
};

const char *au_option_env_name(char *buf, size_t size, const char *name)
{
    au_buf b;
    au_buf_init(&b, 256);
    au_buf_str(&b, "AULOS_");
    for (const char *p = name; *p; p++)
        au_buf_char(&b, *p == '-' ? '_' : (char)toupper((unsigned char)*p));
    size_t len = b.len < size ? b.len : size - 1;
    memcpy(buf, au_buf_cstr(&b), len);
    buf[len] = '\0';
    au_buf_deinit(&b);
    return buf;
}

/* ---- Values
 * ------------------------------------------------------------------------------------------- */

static bool parse_time(const char *text, int64_t *ms)
{
    static const struct {
        const char *suffix;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    if (!strcmp(text, "never")) {
        *ms = -1;
        return true;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t len = strlen(text), tail = strlen(units[i].suffix);
        char digits[24];
        uint64_t n;
        if (!au_str_ends(text, units[i].suffix) || len - tail >= sizeof digits)
            continue;
        memcpy(digits, text, len - tail);
        digits[len - tail] = '\0';
        if (au_parse_u64(digits, &n) && n <= (uint64_t)INT64_MAX / (uint64_t)units[i].ms) {
            *ms = (int64_t)n * units[i].ms;
            return true;
        }
    }
    return false;
}

static bool parse_flag(const char *text, bool *on)
{
    static const char *const yes[] = {"1", "yes", "true", "on"}, *const no[] = {"0", "no", "false",
                                                                                "off"};
    for (size_t i = 0; i < 4; i++) {
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *on = !strcmp(text, yes[i]);
            return true;
        }
    }
    return false;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strcspn(p, "|") == len && !strncmp(p, text, len) && len)
            return true;
    return false;
}

/* "1 to 16", "more than 0, at most 30": what a number may be. */
static void describe_bounds(au_buf *b, const au_option *opt)
{
    if (opt->flags & AU_OPTION_OPEN_MIN)
        au_buf_printf(b, "more than %.17g", opt->min);
    else
        au_buf_printf(b, isinf(opt->max) ? "at least %.17g" : "%.17g", opt->min);
    if (!isinf(opt->max))
        au_buf_printf(b, opt->flags & AU_OPTION_OPEN_MIN ? ", at most %.17g" : " to %.17g",
                      opt->max);
}

static au_status out_of_bounds(const au_option *opt, const char *source, const char *text,
                               au_err *err)
{
    au_buf b;
    au_buf_init(&b, 256);
    describe_bounds(&b, opt);
    au_status st =
        au_fail(err, AU_INVALID, "%s is %s, allowed is %s", source, text, au_buf_cstr(&b));
    au_buf_deinit(&b);
    return st;
}

/* Checks one value; `source` names it in errors ("option --seed", "environment variable
 * AULOS_SEED"). */
static au_status parse_value(slot *s, const au_option *opt, const char *source, const char *text,
                             au_err *err)
{
    uint64_t bytes = 0;
    bool on = false;
    switch (opt->type) {
    case AU_OPTION_FLAG:
        if (!parse_flag(text, &on))
            return au_fail(err, AU_INVALID, "%s is \"%s\", expected 0 or 1", source, text);
        s->integer = on;
        return AU_OK;
    case AU_OPTION_TEXT:
        if (!au_utf8_valid(text, strlen(text)))
            return au_fail(err, AU_INVALID, "%s is not valid UTF-8", source);
        return AU_OK;
    case AU_OPTION_PATH:
        if (!*text)
            return au_fail(err, AU_INVALID, "%s is empty, expected %s", source, opt->unit);
        return AU_OK;
    case AU_OPTION_CHOICE:
        if (!is_choice(opt->choices, text))
            return au_fail(err, AU_INVALID, "%s is \"%s\", expected one of %s", source, text,
                           opt->choices);
        return AU_OK;
    case AU_OPTION_INT:
        if (!au_parse_i64(text, &s->integer))
            return au_fail(err, AU_INVALID, "%s is \"%s\", expected a whole number", source, text);
        s->real = (double)s->integer;
        break;
    case AU_OPTION_REAL:
        if (!au_parse_f64(text, &s->real))
            return au_fail(err, AU_INVALID, "%s is \"%s\", expected a number", source, text);
        break;
    case AU_OPTION_BYTES:
        if (!au_parse_bytes(text, &bytes) || bytes > INT64_MAX)
            return au_fail(err, AU_INVALID, "%s is \"%s\", expected bytes such as 512M or 4G",
                           source, text);
        s->integer = (int64_t)bytes;
        s->real = (double)bytes;
        break;
    case AU_OPTION_TIME:
        if (!parse_time(text, &s->integer))
            return au_fail(
                err, AU_INVALID,
                "%s is \"%s\", expected a time such as 500ms, 30s, 15m, 24h, 7d or never", source,
                text);
        s->real = (double)s->integer;
        if (s->integer < 0)
            return AU_OK;
        break;
    }
    if (s->real < opt->min || s->real > opt->max ||
        (s->real == opt->min && (opt->flags & AU_OPTION_OPEN_MIN)))
        return out_of_bounds(opt, source, text, err);
    return AU_OK;
}

/* Keeps a value; without `append` it replaces what was there. */
static au_status keep_value(au_options *o, size_t i, const char *text, bool append, au_err *err)
{
    slot *s = &o->slots[i];
    if (!append)
        s->n = 0;
    if (s->n + 2 > s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 4;
        const char **values = au_arena_alloc(&o->arena, cap * sizeof *values);
        if (cap > MAX_VALUES || !values)
            return au_fail(err, AU_INVALID, "option --%s is given too often",
                           o->table->options[i].name);
        if (s->n)
            memcpy(values, s->values, s->n * sizeof *values);
        s->values = values;
        s->cap = cap;
    }
    const char *copy = au_arena_strdup(&o->arena, text);
    if (!copy)
        return au_fail(err, AU_INVALID, "the command line is too long");
    s->values[s->n++] = copy;
    s->values[s->n] = NULL;
    return AU_OK;
}

/* ---- Sources
 * ------------------------------------------------------------------------------------------ */

static bool belongs(const au_option *opt, unsigned command)
{
    return (opt->commands >> command & 1u) != 0;
}

static au_status take_default(au_options *o, size_t i, au_err *err)
{
    const au_option *opt = &o->table->options[i];
    if (!opt->fallback)
        return AU_OK;
    au_status st = parse_value(&o->slots[i], opt, "default", opt->fallback, NULL);
    AU_ASSERT(st == AU_OK);
    return keep_value(o, i, opt->fallback, false, err);
}

static au_status take_environment(au_options *o, size_t i, au_err *err)
{
    const au_option *opt = &o->table->options[i];
    char name[128], source[160];
    const char *text = getenv(au_option_env_name(name, sizeof name, opt->name));
    if (!text || !*text || (opt->flags & AU_OPTION_INTERNAL))
        return AU_OK;
    snprintf(source, sizeof source, "environment variable %s", name);
    o->slots[i].given = true;
    if (!(opt->flags & AU_OPTION_REPEAT)) {
        au_status st = parse_value(&o->slots[i], opt, source, text, err);
        return st != AU_OK ? st : keep_value(o, i, text, false, err);
    }
    char *copy = au_arena_strdup(&o->arena, text);
    if (!copy)
        return au_fail(err, AU_INVALID, "%s is too long", source);
    for (bool append = false; copy; append = true) {
        char *comma = strchr(copy, ',');
        if (comma)
            *comma = '\0';
        au_status st = parse_value(&o->slots[i], opt, source, copy, err);
        if (st == AU_OK)
            st = keep_value(o, i, copy, append, err);
        if (st != AU_OK)
            return st;
        copy = comma ? comma + 1 : NULL;
    }
    return AU_OK;
}

/* The error for an option that this command does not have. */
static au_status unknown_option(const au_options *o, const char *word, au_err *err)
{
    const au_option_table *t = o->table;
    const char *candidates[MAX_OPTIONS + 2], *command = t->commands[o->command];
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (belongs(&t->options[i], o->command) && !(t->options[i].flags & AU_OPTION_INTERNAL))
            candidates[n++] = t->options[i].name;
        else if (!strcmp(t->options[i].name, word))
            return au_fail(err, AU_INVALID, "option --%s is not for %s, see `aulos help %s`", word,
                           command, command);
    }
    candidates[n++] = "help";
    candidates[n] = NULL;
    const char *nearest = au_str_nearest(word, candidates);
    if (nearest)
        return au_fail(err, AU_INVALID, "unknown option --%s, did you mean --%s?", word, nearest);
    return au_fail(err, AU_INVALID, "unknown option --%s, see `aulos help %s`", word, command);
}

static au_status take_option(au_options *o, size_t i, const char *text, bool *seen, au_err *err)
{
    char source[160];
    snprintf(source, sizeof source, "option --%s", o->table->options[i].name);
    au_status st = parse_value(&o->slots[i], &o->table->options[i], source, text, err);
    if (st == AU_OK)
        st =
            keep_value(o, i, text, seen[i] && (o->table->options[i].flags & AU_OPTION_REPEAT), err);
    seen[i] = o->slots[i].given = true;
    return st;
}

/* One word that begins with a dash: "--name", "--name=value", "-x", "-xvalue". Moves *k to the last
 * word used. */
static au_status take_word(au_options *o, int argc, char *const *argv, int *k, bool *seen,
                           au_err *err)
{
    const au_option_table *t = o->table;
    const char *word = argv[*k], *value = NULL;
    char name[64];
    size_t found = t->n;
    if (word[1] == '-') {
        size_t len = strcspn(word + 2, "=");
        value = word[2 + len] ? word + 3 + len : NULL;
        snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : sizeof name - 1),
                 word + 2);
        for (size_t i = 0; i < t->n; i++)
            if (belongs(&t->options[i], o->command) && !strcmp(t->options[i].name, name))
                found = i;
        if (found == t->n)
            return unknown_option(o, name, err);
    } else {
        value = word[2] ? word + 2 : NULL;
        for (size_t i = 0; i < t->n; i++)
            if (belongs(&t->options[i], o->command) && t->options[i].letter == word[1])
                found = i;
        if (found == t->n)
            return au_fail(err, AU_INVALID, "unknown option -%c, see `aulos help %s`", word[1],
                           t->commands[o->command]);
    }
    const au_option *opt = &t->options[found];
    if (opt->type == AU_OPTION_FLAG) {
        if (value)
            return au_fail(err, AU_INVALID, "option --%s takes no value, found \"%s\"", opt->name,
                           value);
        return take_option(o, found, "1", seen, err);
    }
    if (!value) {
        if (*k + 1 >= argc)
            return au_fail(err, AU_INVALID, "option --%s needs a value: %s", opt->name, opt->unit);
        value = argv[++*k];
    }
    return take_option(o, found, value, seen, err);
}

au_status au_options_parse(au_options **out, const au_option_table *table, unsigned command,
                           int argc, char *const *argv, au_err *err)
{
    au_status st = AU_OK;
    au_options *o = NULL;
    bool seen[MAX_OPTIONS] = {false};
    bool options_end = false;
    *out = NULL;
    AU_ASSERT(table->n <= MAX_OPTIONS);
    AU_TRY(au_calloc(&o, 1, sizeof *o, err));
    au_arena_init(&o->arena, ARENA_BYTES);
    o->table = table;
    o->command = command;
    AU_TRY(au_calloc(&o->slots, table->n, sizeof *o->slots, err));
    AU_TRY(au_calloc(&o->args, (size_t)(argc > 0 ? argc : 0) + 1, sizeof *o->args, err));
    /* Command line first: its mistakes are told before those of the environment. */
    for (size_t i = 0; i < table->n; i++)
        AU_TRY(take_default(o, i, err));
    for (int k = 0; k < argc; k++) {
        if (!options_end && !strcmp(argv[k], "--"))
            options_end = true;
        else if (!options_end && argv[k][0] == '-' && argv[k][1])
            AU_TRY(take_word(o, argc, argv, &k, seen, err));
        else
            AU_FAIL_IF(!(o->args[o->n_args++] = au_arena_strdup(&o->arena, argv[k])), AU_INVALID,
                       "the command line is too long");
    }
    for (size_t i = 0; i < table->n; i++)
        if (belongs(&table->options[i], command) && !seen[i])
            AU_TRY(take_environment(o, i, err));
    *out = o;
    o = NULL;
done:
    au_options_free(&o);
    return st;
}

void au_options_free(au_options **o)
{
    if (!*o)
        return;
    free((*o)->slots);
    free((*o)->args);
    au_arena_deinit(&(*o)->arena);
    free(*o);
    *o = NULL;
}

/* ---- Values for the commands
 * -------------------------------------------------------------------------- */

static const slot *slot_at(const au_options *o, size_t i)
{
    AU_ASSERT(i < o->table->n && belongs(&o->table->options[i], o->command));
    return &o->slots[i];
}

bool au_options_given(const au_options *o, size_t i)
{
    return slot_at(o, i)->given;
}

bool au_options_flag(const au_options *o, size_t i)
{
    return slot_at(o, i)->integer != 0;
}

int64_t au_options_int(const au_options *o, size_t i)
{
    return slot_at(o, i)->integer;
}

double au_options_real(const au_options *o, size_t i)
{
    return slot_at(o, i)->real;
}

const char *au_options_text(const au_options *o, size_t i)
{
    const slot *s = slot_at(o, i);
    return s->n ? s->values[s->n - 1] : NULL;
}

size_t au_options_count(const au_options *o, size_t i)
{
    return slot_at(o, i)->n;
}

const char *const *au_options_list(const au_options *o, size_t i)
{
    return slot_at(o, i)->values;
}

size_t au_options_n_args(const au_options *o)
{
    return o->n_args;
}

const char *au_options_arg(const au_options *o, size_t k)
{
    return k < o->n_args ? o->args[k] : NULL;
}

/* ---- Help and manual
 * ---------------------------------------------------------------------------------- */

/* Appends `text` folded at `width` columns, each line after the first indented. */
static void fold(au_buf *b, const char *text, size_t indent, size_t width)
{
    size_t column = indent;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, " ");
        if (column > indent && column + 1 + len > width) {
            au_buf_printf(b, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            au_buf_char(b, ' ');
            column++;
        }
        au_buf_append(b, p, len);
        column += len;
        p += len + strspn(p + len, " ");
    }
    au_buf_char(b, '\n');
}

void au_options_help(au_buf *b, const au_option_table *table, unsigned command)
{
    enum { INDENT = 30, WIDTH = 100 };
    for (size_t i = 0; i < table->n; i++) {
        const au_option *opt = &table->options[i];
        if (!belongs(opt, command) || (opt->flags & AU_OPTION_INTERNAL))
            continue;
        au_buf line, text;
        au_buf_init(&line, 1024);
        au_buf_init(&text, 4096);
        if (opt->letter)
            au_buf_printf(&line, "  -%c, ", opt->letter);
        else
            au_buf_str(&line, "      ");
        au_buf_printf(&line, "--%s", opt->name);
        if (opt->unit)
            au_buf_printf(&line, " %s", opt->unit);
        if (line.len + 2 > INDENT)
            au_buf_printf(&line, "\n%*s", INDENT, "");
        else
            au_buf_printf(&line, "%*s", (int)(INDENT - line.len), "");
        au_buf_str(&text, opt->help);
        if (opt->flags & AU_OPTION_REPEAT)
            au_buf_str(&text, "; may be repeated");
        if (opt->fallback)
            au_buf_printf(&text, " (default %s)", opt->fallback);
        au_buf_str(b, au_buf_cstr(&line));
        fold(b, au_buf_cstr(&text), INDENT, WIDTH);
        au_buf_deinit(&line);
        au_buf_deinit(&text);
    }
    au_buf_printf(b, "  -h, --help%*s%s\n", INDENT - 12, "", "show this text");
}

/* "wav, wav24", "1 to 16", "0 or 1": the column of allowed values. */
static void doc_allowed(au_buf *b, const au_option *opt)
{
    switch (opt->type) {
    case AU_OPTION_CHOICE:
        for (const char *p = opt->choices; *p; p++)
            au_buf_str(b, *p == '|' ? ", " : (const char[]){*p, '\0'});
        break;
    case AU_OPTION_FLAG:
        au_buf_str(b, "0 or 1");
        break;
    case AU_OPTION_TEXT:
    case AU_OPTION_PATH:
        au_buf_str(b, "text");
        break;
    case AU_OPTION_TIME:
        au_buf_str(b, "a time (`500ms`, `30s`, `24h`, `7d`, `never`)");
        break;
    case AU_OPTION_BYTES:
        au_buf_str(b, "bytes (`512M`, `4G`)");
        break;
    case AU_OPTION_INT:
    case AU_OPTION_REAL:
        describe_bounds(b, opt);
        break;
    }
}

void au_options_doc_row(au_buf *b, const au_option_table *table, size_t i)
{
    const au_option *opt = &table->options[i];
    char env[128];
    au_buf_printf(b, "| `--%s%s%s`", opt->name, opt->unit ? " " : "", opt->unit ? opt->unit : "");
    if (opt->letter)
        au_buf_printf(b, ", `-%c`", opt->letter);
    au_buf_printf(b, " | `%s` | %s | ", au_option_env_name(env, sizeof env, opt->name),
                  opt->fallback ? opt->fallback : "");
    doc_allowed(b, opt);
    au_buf_str(b, " | ");
    const char *comma = "";
    for (unsigned c = 0; table->commands[c]; c++) {
        if (belongs(opt, c)) {
            au_buf_printf(b, "%s%s", comma, table->commands[c]);
            comma = ", ";
        }
    }
    au_buf_printf(b, " | %s%s |\n", opt->help,
                  opt->flags & AU_OPTION_REPEAT ? "; may be repeated" : "");
}
