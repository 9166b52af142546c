/* SPDX-License-Identifier: MIT */
/* Finished clips: files in memory or on disk, tags, loudness. Stateless; any thread. */
#ifndef AU_AUDIO_AUDIO_H
#define AU_AUDIO_AUDIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum au_format {
    AU_FORMAT_WAV,
    AU_FORMAT_WAV24,
    AU_FORMAT_WAVF,
    AU_FORMAT_FLAC,
    AU_FORMAT_COUNT
} au_format;

const char *au_format_name(au_format f);      /* "wav", "wav24", "wavf", "flac" */
const char *au_format_extension(au_format f); /* "wav", "flac" */
const char *au_format_mime(au_format f);      /* "audio/wav", "audio/flac" */
bool au_format_parse(const char *name, au_format *out);
/* The format that a file name's extension asks for (".wav", ".flac"); false if unknown. */
bool au_format_of_path(const char *path, au_format *out);

/* What goes into the tags: the recipe and nothing that depends on job, time, host or folder
 * (architecture: same recipe, same bytes). */
typedef struct au_recipe {
    const char *prompt, *negative; /* negative NULL: none */
    const char *model_fingerprint;
    const char *adapter_sha256; /* NULL: none */
    double strength;
    uint64_t seed;
    const char *params_json; /* one JSON object, keys sorted */
    const char *numerics;
} au_recipe;

typedef struct au_clip {
    const float *frames; /* [n_frames, channels] interleaved, not clipped */
    uint64_t n_frames;
    int channels, sample_rate;
} au_clip;

/* What was measured while encoding. */
typedef struct au_clip_stats {
    double peak;           /* largest |sample| before clipping */
    uint64_t clipped;      /* sample values outside [-1, 1) that were clamped (not for wavf) */
    double loudness_lufs;  /* ITU-R BS.1770 integrated; -HUGE_VAL where it cannot be measured:
                              silence, clips under 400 ms, rates under 3364 Hz */
    double true_peak_dbtp; /* likewise -HUGE_VAL: silence, rates under 3364 Hz */
    char sha256[65];       /* of the encoded bytes */
    char pcm_sha256[65];   /* of the quantised samples as little-endian PCM (f32 for wavf) */
} au_clip_stats;

/* Encodes into memory: *out owned by the caller (free). 16 and 24 bit by rounding to nearest, ties
 * to even, without dither. Title = first 80 characters of the prompt, comment = one line of JSON
 * with sorted keys: adapter, aulos, digital_source_type, model, negative, numerics, params, prompt,
 * seed, strength. Same input, same bytes. AU_INVALID for NaN or infinite samples (names the first).
 */
AU_MUST_CHECK au_status au_audio_encode(const au_clip *clip, au_format format,
                                        const au_recipe *recipe, void **out, size_t *len,
                                        au_clip_stats *stats, au_err *err);

#endif
