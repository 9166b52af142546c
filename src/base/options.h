/* SPDX-License-Identifier: MIT */
/* Command-line options from one table: argv, the environment, --help and the manual come from it.
 *
 * An option `--some-name` is also read from AULOS_SOME_NAME (when that is set and not empty); the
 * command line wins over the environment, the environment over the default. Of an option given
 * twice the last value counts, except where the table says that it repeats (in the environment:
 * separated by commas). Immutable after parsing; one thread parses, any may read. */
#ifndef AU_BASE_OPTIONS_H
#define AU_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

typedef enum au_option_type {
    AU_OPTION_FLAG,   /* no value; in the environment 0 or 1, no or yes, false or true, off or on */
    AU_OPTION_TEXT,   /* valid UTF-8 */
    AU_OPTION_PATH,   /* any bytes */
    AU_OPTION_INT,    /* decimal, min ... max */
    AU_OPTION_REAL,   /* decimal, min ... max */
    AU_OPTION_BYTES,  /* 512M, 4G: powers of 1024 */
    AU_OPTION_TIME,   /* 500ms, 30s, 15m, 24h, 7d, or "never" (-1); in milliseconds */
    AU_OPTION_CHOICE, /* one of `choices` */
} au_option_type;

enum {
    AU_OPTION_REPEAT = 1,   /* may be given several times */
    AU_OPTION_OPEN_MIN = 2, /* more than min, not equal to it */
    AU_OPTION_INTERNAL = 4, /* between our own processes: not in --help, no environment variable */
};

typedef struct au_option {
    const char *name; /* without the dashes */
    char letter;      /* 'o' for -o; 0: none */
    au_option_type type;
    const char *unit;     /* what stands for the value in --help: "SECONDS"; NULL for flags */
    const char *fallback; /* the default as text; NULL: none */
    double min, max;      /* for INT, REAL, BYTES and TIME (milliseconds) */
    const char *choices;  /* "wav|flac", for CHOICE */
    unsigned commands;    /* bit i: belongs to command i */
    unsigned flags;
    const char *help;
} au_option;

typedef struct au_option_table {
    const au_option *options;
    size_t n;
    const char *const *commands; /* names by bit, NULL at the end */
} au_option_table;

typedef struct au_options au_options;

/* Parses the arguments after the command's name. *out is owned by the caller (au_options_free).
 * AU_INVALID names the option at fault, what was found, what is expected, and for an unknown option
 * the nearest right one. */
AU_MUST_CHECK au_status au_options_parse(au_options **out, const au_option_table *table,
                                         unsigned command, int argc, char *const *argv,
                                         au_err *err);
void au_options_free(au_options **o);

/* `i` is the index in the table. The option must have the type that is asked for and belong to the
 * command. */
bool au_options_given(const au_options *o,
                      size_t i); /* on the command line or in the environment */
bool au_options_flag(const au_options *o, size_t i);
int64_t au_options_int(const au_options *o,
                       size_t i); /* INT, BYTES, TIME; 0 if there is no value */
double au_options_real(const au_options *o, size_t i); /* REAL; 0 if there is no value */
const char *au_options_text(const au_options *o,
                            size_t i); /* the value as text or NULL; borrowed until free */
size_t au_options_count(const au_options *o, size_t i); /* how often a repeated option was given */
const char *const *au_options_list(const au_options *o,
                                   size_t i); /* that many texts; borrowed until free */

/* What is not an option. "--" ends the options; "-" alone is an argument. */
size_t au_options_n_args(const au_options *o);
const char *au_options_arg(const au_options *o, size_t k); /* NULL past the end */

/* The options of one command for --help, and one row of the manual's table:
 * | `--name UNIT` | `AULOS_NAME` | default | allowed | commands | help | */
void au_options_help(au_buf *b, const au_option_table *table, unsigned command);
void au_options_doc_row(au_buf *b, const au_option_table *table, size_t i);
/* AULOS_SOME_NAME for "some-name"; returns buf. */
const char *au_option_env_name(char *buf, size_t size, const char *name);

#endif
