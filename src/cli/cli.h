/* SPDX-License-Identifier: MIT */
/* The command line: one table of commands, one of options, one function a command.
 *
 * Results go to standard output, everything else to standard error. Every function here runs on the
 * main thread. */
#ifndef AU_CLI_CLI_H
#define AU_CLI_CLI_H

#include "base/json.h"
#include "base/options.h"

enum { AU_EXIT_OK = 0, AU_EXIT_FAILED = 1, AU_EXIT_USAGE = 2, AU_EXIT_INTERRUPTED = 130 };

typedef enum au_command_id {
    AU_COMMAND_GENERATE,
    AU_COMMAND_SERVE,
    AU_COMMAND_WORKER,
    AU_COMMAND_TOKENIZE,
    AU_COMMAND_MODEL,
    AU_COMMAND_ADAPTER,
    AU_COMMAND_BENCH,
    AU_COMMAND_KEY,
    AU_COMMAND_JOBS,
    AU_COMMAND_MIGRATE,
    AU_COMMAND_VERSION,
    AU_COMMAND_HELP,
    AU_COMMAND_COUNT,
} au_command_id;

/* AU_OPT_<ID>: the index of an option in au_cli_options. */
enum {
#define OPTION(id, ...) AU_OPT_##id,
#include "cli/options.def"
#undef OPTION
    AU_OPT_COUNT
};

extern const au_option_table au_cli_options;

typedef struct au_command {
    const char *name;
    const char *arguments; /* "PROMPT [OPTIONS]" */
    const char *summary;   /* one line */
    const char *details;   /* NULL, or more for `aulos help NAME` */
    int (*run)(const au_options *o);
} au_command;

extern const au_command au_cli_commands[AU_COMMAND_COUNT];

/* The whole program: exit status. argv[0] is the program's name. */
int au_cli_main(int argc, char **argv);

int au_command_generate(const au_options *o);
int au_command_serve(const au_options *o);
int au_command_worker(const au_options *o);
int au_command_tokenize(const au_options *o);
int au_command_model(const au_options *o);
int au_command_adapter(const au_options *o);
int au_command_bench(const au_options *o);
int au_command_key(const au_options *o);
int au_command_jobs(const au_options *o);
int au_command_migrate(const au_options *o);
int au_command_version(const au_options *o);
int au_command_help(const au_options *o);

/* "aulos: <message>" on standard error, each line of a list of problems on its own; returns
 * `exit_status`. */
int au_cli_error(const au_err *err, int exit_status);
/* The same for a message made here: wrong usage, always AU_EXIT_USAGE. */
int au_cli_usage(const char *fmt, ...) AU_PRINTF(1, 2);
/* A note on standard error, "aulos: <text>". */
void au_cli_note(const char *fmt, ...) AU_PRINTF(1, 2);

/* One line of JSON, keys sorted, on standard output. */
AU_MUST_CHECK au_status au_cli_print_json(const json_t *j, au_err *err);

#endif
