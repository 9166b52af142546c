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
    AU_FORMAT_MP3,
    AU_FORMAT_OPUS,
    AU_FORMAT_COUNT
} au_format;

const char *au_format_name(au_format f);      /* "wav", "wav24", "wavf", "flac", "mp3", "opus" */
const char *au_format_extension(au_format f); /* "wav", "flac", "mp3", "opus" */
const char *au_format_mime(au_format f);      /* "audio/wav", "audio/flac", "audio/mpeg",
                                                "audio/ogg" */
bool au_format_parse(const char *name, au_format *out);
/* The format that an extension ("wav" ...: 16 bit) or a file name's extension asks for; false if
 * unknown. */
bool au_format_of_extension(const char *extension, au_format *out);
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
    uint64_t n_frames;     /* of the file: another number than the clip's where the codec lacks */
    int sample_rate;       /* the clip's rate (MP3, Opus) */
    char sha256[65];       /* of the encoded bytes */
    char pcm_sha256[65];   /* of the quantised samples as little-endian PCM (f32 for wavf; 16 bit at
                              the clip's rate for mp3 and opus) */
} au_clip_stats;

/* Encodes into memory: *out owned by the caller (free). 16 and 24 bit by rounding to nearest, ties
 * to even, without dither. Title = first 80 characters of the prompt, comment = one line of JSON
 * with sorted keys: adapter, aulos, digital_source_type, model, negative, numerics, params, prompt,
 * seed, strength. Same input, same bytes. AU_INVALID for NaN or infinite samples (names the first).
 * MP3 is LAME's -V 2, Opus 96 kbit/s a channel at 48 kHz; both from the 16-bit samples, tags in
 * UTF-8; AU_UNSUPPORTED for rates under 1000 Hz. recipe NULL: a WAV without tags. */
AU_MUST_CHECK au_status au_audio_encode(const au_clip *clip, au_format format,
                                        const au_recipe *recipe, void **out, size_t *len,
                                        au_clip_stats *stats, au_err *err);

/* The frames of a stored file: *frames owned by the caller (free), clip->frames the same. fd: at
 * its beginning, stays the caller's. 16 and 24 bit come back exactly. AU_CORRUPT: not an audio
 * file, or not one that was made here. */
AU_MUST_CHECK au_status au_audio_decode(float **frames, au_clip *clip, int fd, au_err *err);

/* The clip at another rate (soxr, very high quality): *out [*n_out, channels], owned by the caller.
 * *n_out is au_audio_resampled_frames, at least 1. The clip itself is not changed; peaks may rise
 * above it. */
AU_MUST_CHECK au_status au_audio_resample(float **out, uint64_t *n_out, const au_clip *clip,
                                          int rate_hz, au_err *err);
/* n_frames · to / from, rounded to nearest. */
uint64_t au_audio_resampled_frames(uint64_t n_frames, int from_hz, int to_hz);

/* What a waveform is drawn from: for each bin the least, the largest and the root mean square of
 * all samples of all channels in it, clamped to -1 ... 1 and scaled by 127. */
enum { AU_PEAKS_MAX_BINS = 4096, AU_PEAKS_MINI = 64 };
typedef struct au_peaks {
    int bins; /* 1 ... AU_PEAKS_MAX_BINS */
    int8_t min[AU_PEAKS_MAX_BINS], max[AU_PEAKS_MAX_BINS], rms[AU_PEAKS_MAX_BINS];
} au_peaks;
/* As fine as they are kept: AU_PEAKS_MAX_BINS bins, or one a frame where there are fewer frames. */
AU_MUST_CHECK au_status au_peaks_measure(au_peaks *out, const au_clip *clip, au_err *err);
/* Fewer bins, or more (then values are repeated). Bin i of n is made of the bins from ⌊i·m/n⌋ up to
 * ⌊(i+1)·m/n⌋ of the m there are, of one at least. */
void au_peaks_reduce(au_peaks *out, const au_peaks *fine, int bins);
/* One object {bins, data: base64 of min, max, rms}, for the database; and back. AU_CORRUPT. */
AU_MUST_CHECK au_status au_peaks_pack(char **out, const au_peaks *p, au_err *err);
AU_MUST_CHECK au_status au_peaks_unpack(au_peaks *out, const char *text, au_err *err);
/* "[0,3,127 ...]": the larger of -min and max of each of AU_PEAKS_MINI bins. */
enum { AU_PEAKS_MINI_TEXT = 4 * AU_PEAKS_MINI + 2 };
void au_peaks_mini(char out[AU_PEAKS_MINI_TEXT], const au_peaks *fine);
/* Measured and packed, both forms; *packed owned by the caller (free). */
AU_MUST_CHECK au_status au_peaks_of_clip(char **packed, char mini[AU_PEAKS_MINI_TEXT],
                                         const au_clip *clip, au_err *err);

#endif
