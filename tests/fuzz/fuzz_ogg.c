/* SPDX-License-Identifier: MIT */
/* Ogg pages. What is refused stays as it is; what is sealed is sealed again into the same bytes,
 * and whatever serial number it had before. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "audio/audio_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *first = malloc(size + 1), *again = malloc(size + 1);
    if (!first || !again)
        abort();
    memcpy(first, data, size);
    if (au_audio_ogg_seal(first, size, NULL) != AU_OK) {
        if (memcmp(first, data, size) != 0)
            abort();
    } else {
        memcpy(again, first, size);
        if (au_audio_ogg_seal(again, size, NULL) != AU_OK || memcmp(first, again, size) != 0)
            abort();
    }
    free(first);
    free(again);
    return 0;
}
