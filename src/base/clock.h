/* SPDX-License-Identifier: MIT */
/* Wall time for records, monotonic time for durations and time-outs. Stateless. */
#ifndef AU_BASE_CLOCK_H
#define AU_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t au_time_ms(void); /* Unix time in milliseconds */
int64_t au_mono_ms(void); /* monotonic milliseconds since an arbitrary point */
int64_t au_mono_ns(void);
void au_sleep_ms(int64_t ms);

enum { AU_TIME_TEXT = 32 };
/* RFC 3339 UTC with milliseconds, "2026-11-24T09:30:00.123Z", in buf[AU_TIME_TEXT]; returns buf. */
const char *au_time_format(char *buf, int64_t unix_ms);

#endif
