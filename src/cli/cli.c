/* SPDX-License-Identifier: MIT */
/* Finds the command, parses its options, runs it; help, errors and notes. */
#include "cli/cli.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aulos/aulos.h"
#include "base/str.h"

const au_command au_cli_commands[AU_COMMAND_COUNT] = {
    [AU_COMMAND_GENERATE] =
        {"generate", "PROMPT [OPTIONS]", "text to audio files, without a server",
         "PROMPT is the text, or - to read it from standard input, or --prompts FILE instead.\n"
         "One sample is written to FILE, several to FILE-<i>, several variants to "
         "FILE-<adapter|none>-<i>.\n"
         "Files that exist are refused before anything is loaded, unless --force.\n"
         "\n"
         "  aulos generate \"a calm piano melody\" -o calm.wav --duration 5\n"
         "  aulos generate \"fast arpeggio\" -n 4 --seed 1 --adapter none --adapter ./chiptune:0.8",
         au_command_generate},
    [AU_COMMAND_SERVE] =
        {"serve", "[OPTIONS]", "HTTP server and its workers",
         "Once it accepts requests it prints `listening on http://ADDR:PORT` on standard output.\n"
         "SIGTERM and SIGINT end it gracefully, a second one at once. SIGHUP looks for adapters "
         "again.",
         au_command_serve},
    [AU_COMMAND_WORKER] = {"worker", "[OPTIONS]", "one worker; serve starts them, or you by hand",
                           NULL, au_command_worker},
    [AU_COMMAND_TOKENIZE] =
        {"tokenize", "TEXT [OPTIONS]", "token ids of a text",
         "The ids, separated by spaces, on one line. TEXT is - for standard input.",
         au_command_tokenize},
    [AU_COMMAND_MODEL] = {"model", "list | inspect DIR|NAME [OPTIONS]",
                          "what a checkpoint is, and which there are", NULL, au_command_model},
    [AU_COMMAND_ADAPTER] =
        {"adapter", "inspect DIR [OPTIONS]", "what a LoRA adapter changes, and whether it fits",
         "With --model it is checked against that model. Exit status 1 if it is rejected.",
         au_command_adapter},
    [AU_COMMAND_BENCH] = {"bench", "[OPTIONS]", "speed on this machine, as CSV or JSON", NULL,
                          au_command_bench},
    [AU_COMMAND_KEY] =
        {"key", "create | list | revoke ID [OPTIONS]", "keys for the server's API",
         "In the data folder, whether its server runs or not, or through a server with --server "
         "and an\nadministrator's --key. The new key is printed once, on standard output; only a "
         "hash of it is kept.\nA server that listens on other than loopback addresses needs one "
         "key at least.\n"
         "\n"
         "  aulos key create --name studio --scopes read,write --expires-in 90d\n"
         "  aulos key list --server http://127.0.0.1:8080",
         au_command_key},
    [AU_COMMAND_JOBS] =
        {"jobs", "list | show ID | watch ID | cancel ID [OPTIONS]", "jobs, for operators",
         "In the data folder, whether its server runs or not, or through a server with --server.\n"
         "watch ends with the job: exit status 0 if it was completed, else 1.\n"
         "\n"
         "  aulos jobs list --server http://127.0.0.1:8080\n"
         "  aulos jobs watch 0197f3a2-6d1c-7c51-9d0e-3f6f1b2a4c5d --data ./aulos-data",
         au_command_jobs},
    [AU_COMMAND_MIGRATE] =
        {"migrate", "[OPTIONS]", "bring a data folder to this version's schema",
         "A server does so when it starts; no server may be at work with the folder. The old\n"
         "database stays beside the new one.",
         au_command_migrate},
    [AU_COMMAND_VERSION] = {"version", "[OPTIONS]", "version, build, processor features in use",
                            NULL, au_command_version},
    [AU_COMMAND_HELP] = {"help", "[COMMAND]", "this list, or the options of a command", NULL,
                         au_command_help},
};

int au_cli_error(const au_err *err, int exit_status)
{
    for (const char *line = err->message; line;) {
        const char *end = strchr(line, '\n');
        fprintf(stderr, "aulos: %.*s\n", (int)(end ? end - line : (long)strlen(line)), line);
        line = end ? end + 1 : NULL;
    }
    return exit_status;
}

int au_cli_usage(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("aulos: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return AU_EXIT_USAGE;
}

void au_cli_note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("aulos: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

au_status au_cli_print_json(const json_t *j, au_err *err)
{
    au_buf b;
    au_buf_init(&b, 256 * 1024 * 1024);
    au_json_dump(&b, j);
    au_status st = au_buf_check(&b, err);
    if (st == AU_OK && (printf("%s\n", au_buf_cstr(&b)) < 0 || fflush(stdout) != 0))
        st = au_fail(err, AU_IO, "cannot write to standard output");
    au_buf_deinit(&b);
    return st;
}

static void print_commands(FILE *to)
{
    fputs("Aulos turns text into audio with neural models.\n\nUsage: aulos COMMAND [OPTIONS]\n\n",
          to);
    for (size_t i = 0; i < AU_COMMAND_COUNT; i++)
        fprintf(to, "  %-10s %s\n", au_cli_commands[i].name, au_cli_commands[i].summary);
    fputs("\n`aulos help COMMAND` lists a command's options. Every option --some-name can be set "
          "as AULOS_SOME_NAME.\n",
          to);
}

static int print_command(size_t command)
{
    const au_command *c = &au_cli_commands[command];
    au_buf b;
    au_buf_init(&b, 1 << 20);
    au_options_help(&b, &au_cli_options, (unsigned)command);
    printf("Usage: aulos %s %s\n\n%c%s.\n", c->name, c->arguments, c->summary[0] - 'a' + 'A',
           c->summary + 1);
    if (c->details)
        printf("%s\n", c->details);
    printf("\n%s", au_buf_cstr(&b));
    au_buf_deinit(&b);
    return fflush(stdout) == 0 ? AU_EXIT_OK : AU_EXIT_FAILED;
}

/* The command's index; AU_COMMAND_COUNT, after an error message, if there is none of that name. */
static size_t find_command(const char *name)
{
    const char *names[AU_COMMAND_COUNT + 1] = {NULL};
    for (size_t i = 0; i < AU_COMMAND_COUNT; i++) {
        names[i] = au_cli_commands[i].name;
        if (!strcmp(name, names[i]))
            return i;
    }
    const char *nearest = au_str_nearest(name, names);
    if (nearest)
        au_cli_usage("unknown command %s, did you mean %s?", name, nearest);
    else
        au_cli_usage("unknown command %s, see `aulos help`", name);
    return AU_COMMAND_COUNT;
}

int au_command_help(const au_options *o)
{
    const char *name = au_options_arg(o, 0);
    if (au_options_n_args(o) > 1)
        return au_cli_usage("help takes one command, found also %s", au_options_arg(o, 1));
    if (!name) {
        print_commands(stdout);
        return fflush(stdout) == 0 ? AU_EXIT_OK : AU_EXIT_FAILED;
    }
    size_t command = find_command(name);
    return command == AU_COMMAND_COUNT ? AU_EXIT_USAGE : print_command(command);
}

int au_cli_main(int argc, char **argv)
{
    /* Numbers in files and JSON are written with a point, whatever the user's language. */
    setlocale(LC_ALL, "C");
    if (argc < 2) {
        print_commands(stderr);
        return AU_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        name = "help";
    else if (!strcmp(name, "--version") || !strcmp(name, "-V"))
        name = "version";
    size_t command = find_command(name);
    if (command == AU_COMMAND_COUNT)
        return AU_EXIT_USAGE;
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return print_command(command);
    au_options *options = NULL;
    au_err err;
    if (au_options_parse(&options, &au_cli_options, (unsigned)command, argc - 2, argv + 2, &err) !=
        AU_OK)
        return au_cli_error(&err, AU_EXIT_USAGE);
    int status = au_cli_commands[command].run(options);
    au_options_free(&options);
    return status;
}
