/* SPDX-License-Identifier: MIT */
/* The entry point; everything else is in the library, where tests can reach it. */
#include "cli/cli.h"

int main(int argc, char **argv)
{
    return au_cli_main(argc, argv);
}
