/* SPDX-License-Identifier: MIT */
/* JSON reports as lines of text for people. */
#ifndef AU_CLI_REPORT_TEXT_H
#define AU_CLI_REPORT_TEXT_H

#include "cli/cli.h"

/* Prints an object on standard output: one "key  value" line a member, objects and short lists on
 * one line, long lists an item a line. */
AU_MUST_CHECK au_status au_report_print(const json_t *report, au_err *err);

/* Prints the report `json` (a text that is freed here with au_text_free) as it is or as lines. */
AU_MUST_CHECK au_status au_report_output(char *json, bool as_json, json_t **keep, au_err *err);

#endif
