/* SPDX-License-Identifier: MIT */
/* UUID version 7: 48 bits of Unix milliseconds, 12 bits of counter (RFC 9562 section 6.2, method
 * 1), 62 random bits. Time and counter are one 60-bit number that only rises, under a mutex; when
 * one millisecond's counter runs over, the time part runs ahead of the clock. */
#include "base/uuid.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/hash.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last; /* time << 12 | counter of the newest id */

void au_uuid7(char out[AU_UUID_TEXT])
{
    struct {
        uint64_t low;
        uint16_t start;
    } random;
    au_random_bytes(&random, sizeof random);
    uint64_t now = (uint64_t)au_time_ms() << 12 | (random.start & 0x7ff);

    pthread_mutex_lock(&lock);
    last = now >> 12 > last >> 12 ? now : last + 1;
    uint64_t stamp = last;
    pthread_mutex_unlock(&lock);

    uint64_t ms = stamp >> 12 & 0xffffffffffff;
    uint64_t low = (random.low & 0x3fffffffffffffff) | 0x8000000000000000;
    snprintf(out, AU_UUID_TEXT, "%08x-%04x-7%03x-%04x-%012llx", (unsigned)(ms >> 16),
             (unsigned)(ms & 0xffff), (unsigned)(stamp & 0xfff), (unsigned)(low >> 48),
             (unsigned long long)(low & 0xffffffffffff));
}

bool au_uuid_valid(const char *s)
{
    for (int i = 0; i < AU_UUID_TEXT - 1; i++) {
        char c = s[i];
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? c != '-' : !hex) /* the NUL of a short string is neither */
            return false;
    }
    return !s[AU_UUID_TEXT - 1];
}
