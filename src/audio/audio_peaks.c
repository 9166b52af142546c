/* SPDX-License-Identifier: MIT */
/* Waveforms for pictures. Measured once, at the finest resolution that is kept, and reduced to what
 * is asked for. Stateless. */
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audio/audio_priv.h"
#include "base/json.h"
#include "base/mem.h"

enum { SCALE = 127, BASE64 = sodium_base64_VARIANT_ORIGINAL };

static int8_t quantised(double x)
{
    return (int8_t)rint(fmin(fmax(x, -1.0), 1.0) * SCALE);
}

/* Where bin i of n begins among m things. */
static uint64_t begin_of(uint64_t i, uint64_t n, uint64_t m)
{
    return i * m / n; /* at most 4096 times a clip's frames */
}

au_status au_peaks_measure(au_peaks *out, const au_clip *clip, au_err *err)
{
    uint64_t channels = (uint64_t)clip->channels, n = clip->n_frames;
    if (clip->channels < 1 || !n || n > UINT64_MAX / AU_PEAKS_MAX_BINS)
        return au_fail(err, AU_INVALID, "a clip of %llu frames with %d channels has no peaks",
                       (unsigned long long)n, clip->channels);
    out->bins = n < AU_PEAKS_MAX_BINS ? (int)n : AU_PEAKS_MAX_BINS;
    for (int bin = 0; bin < out->bins; bin++) {
        uint64_t at = begin_of((uint64_t)bin, (uint64_t)out->bins, n) * channels;
        uint64_t end = begin_of((uint64_t)bin + 1, (uint64_t)out->bins, n) * channels;
        double least = clip->frames[at], most = least, sum = 0;
        for (uint64_t i = at; i < end; i++) {
            double x = clip->frames[i];
            least = fmin(least, x);
            most = fmax(most, x);
            sum += x * x;
        }
        out->min[bin] = quantised(least);
        out->max[bin] = quantised(most);
        out->rms[bin] = quantised(sqrt(sum / (double)(end - at)));
    }
    return AU_OK;
}

void au_peaks_reduce(au_peaks *out, const au_peaks *fine, int bins)
{
    AU_ASSERT(bins >= 1 && bins <= AU_PEAKS_MAX_BINS && out != fine);
    const uint64_t n = (uint64_t)bins, m = (uint64_t)fine->bins;
    out->bins = bins;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = begin_of(i, n, m), end = begin_of(i + 1, n, m);
        end = end > at ? end : at + 1;
        double sum = 0;
        int least = fine->min[at], most = fine->max[at];
        for (uint64_t k = at; k < end; k++) {
            least = fine->min[k] < least ? fine->min[k] : least;
            most = fine->max[k] > most ? fine->max[k] : most;
            sum += (double)fine->rms[k] * fine->rms[k];
        }
        out->min[i] = (int8_t)least;
        out->max[i] = (int8_t)most;
        out->rms[i] = (int8_t)rint(sqrt(sum / (double)(end - at)));
    }
}

au_status au_peaks_pack(char **out, const au_peaks *p, au_err *err)
{
    au_status st = AU_OK;
    const size_t bins = (size_t)p->bins, text = sodium_base64_ENCODED_LEN(3 * bins, BASE64);
    unsigned char *bytes = NULL;
    char *packed = NULL;
    AU_TRY(au_calloc(&bytes, bins, 3, err));
    AU_TRY(au_calloc(&packed, text + 64, 1, err));
    memcpy(bytes, p->min, bins);
    memcpy(bytes + bins, p->max, bins);
    memcpy(bytes + 2 * bins, p->rms, bins);
    int n = snprintf(packed, 64, "{\"bins\":%d,\"data\":\"", p->bins);
    sodium_bin2base64(packed + n, text, bytes, 3 * bins, BASE64);
    memcpy(packed + n + text - 1, "\"}", 3); /* over the NUL */
    *out = packed;
    packed = NULL;
done:
    free(bytes);
    free(packed);
    return st;
}

au_status au_peaks_unpack(au_peaks *out, const char *text, au_err *err)
{
    au_status st = AU_OK;
    json_t *json = NULL;
    size_t n = 0;
    unsigned char bytes[3 * AU_PEAKS_MAX_BINS];
    AU_TRY(au_json_parse(&json, text, strlen(text), "peaks", err));
    const json_int_t bins = json_integer_value(json_object_get(json, "bins"));
    const char *data = json_string_value(json_object_get(json, "data"));
    AU_FAIL_IF(bins < 1 || bins > AU_PEAKS_MAX_BINS || !data, AU_CORRUPT,
               "peaks have %lld bins, expected 1 ... %d", (long long)bins, AU_PEAKS_MAX_BINS);
    bool decoded =
        sodium_base642bin(bytes, sizeof bytes, data, strlen(data), NULL, &n, NULL, BASE64) == 0;
    AU_FAIL_IF(!decoded || n != 3 * (size_t)bins, AU_CORRUPT, "peaks of %lld bins have %zu bytes",
               (long long)bins, n);
    out->bins = (int)bins;
    memcpy(out->min, bytes, (size_t)bins);
    memcpy(out->max, bytes + bins, (size_t)bins);
    memcpy(out->rms, bytes + 2 * bins, (size_t)bins);
done:
    json_decref(json);
    return st;
}

void au_peaks_mini(char out[AU_PEAKS_MINI_TEXT], const au_peaks *fine)
{
    au_peaks *few = &(au_peaks){0};
    size_t len = 0;
    au_peaks_reduce(few, fine, AU_PEAKS_MINI);
    for (int i = 0; i < AU_PEAKS_MINI; i++) {
        int low = few->min[i] < -SCALE ? SCALE : -few->min[i];
        int value = few->max[i] > low ? few->max[i] : low;
        value = value > 0 ? value : 0;
        len += (size_t)snprintf(out + len, AU_PEAKS_MINI_TEXT - len, "%c%d", i ? ',' : '[', value);
    }
    snprintf(out + len, AU_PEAKS_MINI_TEXT - len, "]");
}

au_status au_peaks_of_clip(char **packed, char mini[AU_PEAKS_MINI_TEXT], const au_clip *clip,
                           au_err *err)
{
    au_status st = AU_OK;
    au_peaks *fine = NULL;
    AU_TRY(au_calloc(&fine, 1, sizeof *fine, err));
    AU_TRY(au_peaks_measure(fine, clip, err));
    au_peaks_mini(mini, fine);
    AU_TRY(au_peaks_pack(packed, fine, err));
done:
    free(fine);
    return st;
}
