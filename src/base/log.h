/* SPDX-License-Identifier: MIT */
/* Logging: one line of logfmt per event on standard error, or wherever the sink sends it.
 * Safe from any thread; a line is written with one write(). Prompts and keys are never logged above
 * debug. */
#ifndef AU_BASE_LOG_H
#define AU_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

typedef enum au_log_level {
    AU_LOG_ERROR,
    AU_LOG_WARN,
    AU_LOG_INFO,
    AU_LOG_DEBUG,
    AU_LOG_TRACE
} au_log_level;

void au_log_set_level(au_log_level level);                    /* default AU_LOG_WARN */
bool au_log_parse_level(const char *name, au_log_level *out); /* "error" ... "trace" */
bool au_log_enabled(au_log_level level);
/* Replaces standard error. `line` has no newline. Set before threads start. NULL restores. */
void au_log_set_sink(void (*sink)(void *user, au_log_level level, const char *line), void *user);

/* au_log(AU_LOG_INFO, "worker", "model loaded name=%s ms=%d", ...): the text after the component is
 * a message followed by key=value pairs. Values from outside go through au_log_quote. */
void au_log(au_log_level level, const char *component, const char *fmt, ...) AU_PRINTF(3, 4);

/* A logfmt-safe version of s in buf (quotes, escapes, cut with an ellipsis); returns buf. */
const char *au_log_quote(char *buf, size_t size, const char *s);

/* Names this thread's request or job in every later line of it ("req=..." / "job=..."); NULL
 * clears. */
void au_log_context(const char *key, const char *value);

#endif
