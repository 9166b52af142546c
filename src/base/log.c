/* SPDX-License-Identifier: MIT */
/* logfmt lines. The level is atomic, the context belongs to its thread, the sink is set before
 * threads start; a line is built on the stack and leaves in one write(), so lines of several
 * threads and processes on one pipe do not mix (up to PIPE_BUF). */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"

enum { LINE_BYTES = 4096, CONTEXT_COUNT = 4 };

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static atomic_int log_level = AU_LOG_WARN;
static void (*log_sink)(void *user, au_log_level level, const char *line);
static void *log_user;

static _Thread_local struct {
    char key[16];
    char value[72];
} context[CONTEXT_COUNT];

void au_log_set_level(au_log_level level)
{
    atomic_store(&log_level, (int)level);
}

bool au_log_parse_level(const char *name, au_log_level *out)
{
    for (int i = 0; i <= AU_LOG_TRACE; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (au_log_level)i;
            return true;
        }
    }
    return false;
}

bool au_log_enabled(au_log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

void au_log_set_sink(void (*sink)(void *user, au_log_level level, const char *line), void *user)
{
    log_sink = sink;
    log_user = user;
}

void au_log_context(const char *key, const char *value)
{
    int slot = -1;
    for (int i = 0; i < CONTEXT_COUNT; i++) {
        if (strncmp(context[i].key, key, sizeof context[i].key - 1) == 0) {
            slot = i;
            break;
        }
        if (slot < 0 && !context[i].key[0])
            slot = i;
    }
    if (slot < 0) /* more names than slots: the last one gives way */
        slot = CONTEXT_COUNT - 1;
    if (!value) {
        context[slot].key[0] = 0;
        return;
    }
    snprintf(context[slot].key, sizeof context[slot].key, "%s", key);
    au_log_quote(context[slot].value, sizeof context[slot].value, value);
}

static bool is_plain(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if ((unsigned char)*s <= ' ' || *s == '"' || *s == '=' || *s == '\\' || *s == 0x7f)
            return false;
    return true;
}

/* Bytes of the UTF-8 sequence at s, or 0 if it is none. */
static size_t sequence(const char *s)
{
    for (size_t n = 1; n <= 4 && s[n - 1]; n++)
        if (au_utf8_valid(s, n))
            return n;
    return 0;
}

/* One character of s in quoted form into out (at most 4 bytes, no NUL); *used bytes of s are taken.
 */
static size_t escape(char out[8], const char *s, size_t *used)
{
    static const char letters[] = "\"\"\\\\\nn\rr\tt";
    *used = 1;
    for (const char *p = letters; *p; p += 2) {
        if (*s == *p) {
            out[0] = '\\';
            out[1] = p[1];
            return 2;
        }
    }
    size_t n = sequence(s);
    unsigned char c = (unsigned char)*s;
    if (n == 0 || c < 0x20 || c == 0x7f) {
        snprintf(out, 8, "\\x%02x", c);
        return 4;
    }
    memcpy(out, s, n);
    *used = n;
    return n;
}

const char *au_log_quote(char *buf, size_t size, const char *s)
{
    static const char ellipsis[] = "\xe2\x80\xa6\"";
    size_t len = strlen(s);
    if (len < size && is_plain(s) && au_utf8_valid(s, len)) {
        memcpy(buf, s, len + 1);
        return buf;
    }
    if (size < sizeof ellipsis + 1) { /* no room for the shortest quoted text */
        if (size)
            buf[0] = 0;
        return buf;
    }
    size_t n = 0, keep = 1; /* keep: the longest prefix after which the ellipsis still fits */
    buf[n++] = '"';
    while (*s) {
        char piece[8];
        size_t used, m = escape(piece, s, &used);
        if (n + m + 2 > size) {
            memcpy(buf + keep, ellipsis, sizeof ellipsis);
            return buf;
        }
        memcpy(buf + n, piece, m);
        n += m;
        s += used;
        if (n + sizeof ellipsis <= size)
            keep = n;
    }
    buf[n++] = '"';
    buf[n] = 0;
    return buf;
}

/* Where the first "key=" word of the text begins; its length if there is none. */
static size_t message_length(const char *text)
{
    size_t word = 0;
    for (size_t i = 0; text[i]; i++) {
        if (text[i] == ' ')
            word = i + 1;
        else if (text[i] == '=')
            return word;
    }
    return strlen(text);
}

void au_log(au_log_level level, const char *component, const char *fmt, ...)
{
    if (!au_log_enabled(level))
        return;
    char text[LINE_BYTES / 2], message[LINE_BYTES / 2], line[LINE_BYTES], when[AU_TIME_TEXT];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';

    size_t split = message_length(text), words = split;
    while (words && text[words - 1] == ' ')
        words--;
    const char *pairs = text + split;
    char plain[sizeof text];
    memcpy(plain, text, words);
    plain[words] = 0;
    size_t n = (size_t)snprintf(line, sizeof line, "time=%s level=%s at=%s msg=%s",
                                au_time_format(when, au_time_ms()), level_names[level], component,
                                au_log_quote(message, sizeof message, plain));
    if (*pairs && n < sizeof line)
        n += (size_t)snprintf(line + n, sizeof line - n, " %s", pairs);
    for (int i = 0; i < CONTEXT_COUNT && n < sizeof line; i++)
        if (context[i].key[0])
            n += (size_t)snprintf(line + n, sizeof line - n, " %s=%s", context[i].key,
                                  context[i].value);
    n = n < sizeof line ? n : sizeof line - 1;
    if (log_sink) {
        log_sink(log_user, level, line);
        return;
    }
    line[n] = '\n'; /* in place of the NUL */
    ssize_t ignored = write(STDERR_FILENO, line, n + 1);
    (void)ignored; /* there is nobody left to tell */
}
