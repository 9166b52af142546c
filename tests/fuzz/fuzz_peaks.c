/* SPDX-License-Identifier: MIT */
/* Peaks as the database holds them. What is read can be reduced to any number of bins and packed
 * again. The first two bytes choose that number. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "audio/audio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static au_peaks fine, few, back;
    char mini[AU_PEAKS_MINI_TEXT], *packed = NULL;
    if (size < 2)
        return 0;
    char *text = malloc(size - 1);
    if (!text)
        abort();
    memcpy(text, data + 2, size - 2);
    text[size - 2] = '\0';
    if (au_peaks_unpack(&fine, text, NULL) == AU_OK) {
        au_peaks_reduce(&few, &fine, 1 + (data[0] << 8 | data[1]) % AU_PEAKS_MAX_BINS);
        au_peaks_mini(mini, &fine);
        if (au_peaks_pack(&packed, &few, NULL) != AU_OK ||
            au_peaks_unpack(&back, packed, NULL) != AU_OK || back.bins != few.bins ||
            memcmp(back.rms, few.rms, (size_t)few.bins) != 0)
            abort();
    }
    free(packed);
    free(text);
    return 0;
}
