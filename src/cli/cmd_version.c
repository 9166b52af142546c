/* SPDX-License-Identifier: MIT */
/* `aulos version`: version, build, processor features in use. */
#include <stdio.h>

#include "aulos/aulos.h"
#include "base/threads.h"
#include "cli/cli.h"

#if defined __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

int au_command_version(const au_options *o)
{
    if (au_options_n_args(o))
        return au_cli_usage("version takes no argument, found %s", au_options_arg(o, 0));
    if (!au_options_flag(o, AU_OPT_JSON)) {
        printf("aulos %s\ncompiler  %s\nthreads   %d\nnumerics  %s\nkernels   %s\n", au_version(),
               COMPILER, au_threads_default(), au_numerics_class(), au_cpu_name());
        return fflush(stdout) == 0 ? AU_EXIT_OK : AU_EXIT_FAILED;
    }
    au_err err;
    json_t *j = json_pack("{s:s, s:s, s:i, s:s, s:s}", "version", au_version(), "compiler",
                          COMPILER, "threads", au_threads_default(), "numerics",
                          au_numerics_class(), "kernels", au_cpu_name());
    au_status st = j ? au_cli_print_json(j, &err) : au_fail(&err, AU_NOMEM, "out of memory");
    json_decref(j);
    return st == AU_OK ? AU_EXIT_OK : au_cli_error(&err, AU_EXIT_FAILED);
}
