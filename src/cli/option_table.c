/* SPDX-License-Identifier: MIT */
/* The option table of the program, made from options.def. */
#include <math.h>

#include "cli/cli.h"

enum {
    GENERATE = 1 << AU_COMMAND_GENERATE,
    SERVE = 1 << AU_COMMAND_SERVE,
    WORKER = 1 << AU_COMMAND_WORKER,
    TOKENIZE = 1 << AU_COMMAND_TOKENIZE,
    MODEL = 1 << AU_COMMAND_MODEL,
    ADAPTER = 1 << AU_COMMAND_ADAPTER,
    BENCH = 1 << AU_COMMAND_BENCH,
    KEY = 1 << AU_COMMAND_KEY,
    JOBS = 1 << AU_COMMAND_JOBS,
    MIGRATE = 1 << AU_COMMAND_MIGRATE,
    VERSION = 1 << AU_COMMAND_VERSION,
};
enum { REPEAT = AU_OPTION_REPEAT, OPEN_MIN = AU_OPTION_OPEN_MIN, INTERNAL = AU_OPTION_INTERNAL };

static const au_option options[AU_OPT_COUNT] = {
#define OPTION(id, name, letter, type, unit, fallback, min, max, choices, commands, flags, help)   \
    [AU_OPT_##id] = {name, letter,  AU_OPTION_##type, unit,  fallback, min,                        \
                     max,  choices, commands,         flags, help},
#include "cli/options.def"
#undef OPTION
};

static const char *const command_names[] = {"generate", "serve", "worker", "tokenize", "model",
                                            "adapter",  "bench", "key",    "jobs",     "migrate",
                                            "version",  "help",  NULL};

const au_option_table au_cli_options = {options, AU_OPT_COUNT, command_names};
