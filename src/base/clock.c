/* SPDX-License-Identifier: MIT */
/* Clocks. Stateless; safe from any thread. */
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static int64_t read_clock_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts); /* cannot fail for the two clocks used here */
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t au_time_ms(void)
{
    return read_clock_ns(CLOCK_REALTIME) / 1000000;
}

int64_t au_mono_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

int64_t au_mono_ms(void)
{
    return au_mono_ns() / 1000000;
}

void au_sleep_ms(int64_t ms)
{
    if (ms <= 0)
        return;
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts) == EINTR) {
    }
}

const char *au_time_format(char *buf, int64_t unix_ms)
{
    /* RFC 3339 has four-digit years: clamp to 0000-01-01 ... 9999-12-31. */
    const int64_t first = -62167219200000, last = 253402300799999;
    unix_ms = unix_ms < first ? first : unix_ms > last ? last : unix_ms;
    int64_t ms = unix_ms % 1000, s = unix_ms / 1000;
    if (ms < 0) {
        ms += 1000;
        s--;
    }
    time_t t = (time_t)s;
    struct tm tm;
    gmtime_r(&t, &tm);
    /* By hand: %Y does not pad years below 1000. */
    size_t n = (size_t)snprintf(buf, AU_TIME_TEXT, "%04u", (unsigned)(tm.tm_year + 1900) % 10000u);
    n += strftime(buf + n, AU_TIME_TEXT - n, "-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, AU_TIME_TEXT - n, ".%03uZ", (unsigned)ms % 1000u);
    return buf;
}
