/* SPDX-License-Identifier: MIT */
/* Loudness after ITU-R BS.1770 / EBU R 128 with libebur128. A mono clip counts as one channel: a
 * sine of -20 dBFS has -23 LUFS in mono and -20 LUFS in stereo. */
#include <ebur128.h>
#include <math.h>

#include "audio/audio_priv.h"

enum {
    BLOCK_FRAMES = 1 << 16, /* ebur128 takes size_t frames; blocks keep its buffers in the cache */
    K_SHELF_HZ = 1682,      /* corner of BS.1770's first filter */
};

static au_status measure_all(au_clip_stats *stats, ebur128_state *state, const au_clip *clip,
                             au_err *err)
{
    size_t channels = (size_t)clip->channels;
    for (uint64_t i = 0; i < clip->n_frames; i += BLOCK_FRAMES) {
        uint64_t n = clip->n_frames - i < BLOCK_FRAMES ? clip->n_frames - i : BLOCK_FRAMES;
        if (ebur128_add_frames_float(state, clip->frames + i * channels, (size_t)n) !=
            EBUR128_SUCCESS)
            return au_fail(err, AU_NOMEM, "no memory to measure loudness");
    }
    double true_peak = 0.0;
    for (unsigned c = 0; c < channels; c++) {
        double peak;
        if (ebur128_true_peak(state, c, &peak) != EBUR128_SUCCESS)
            return au_fail(err, AU_INTERNAL, "libebur128 gives no true peak for channel %u", c);
        true_peak = fmax(true_peak, peak);
    }
    if (ebur128_loudness_global(state, &stats->loudness_lufs) != EBUR128_SUCCESS)
        return au_fail(err, AU_INTERNAL, "libebur128 gives no loudness");
    stats->true_peak_dbtp = true_peak > 0.0 ? 20.0 * log10(true_peak) : -HUGE_VAL;
    return AU_OK;
}

au_status au_audio_measure(au_clip_stats *stats, const au_clip *clip, au_err *err)
{
    stats->peak = 0.0;
    for (uint64_t i = 0; i < clip->n_frames * (uint64_t)clip->channels; i++)
        stats->peak = fmax(stats->peak, fabs((double)clip->frames[i]));
    stats->loudness_lufs = stats->true_peak_dbtp = -HUGE_VAL;
    /* The weighting filter's corner must lie below half the rate: under that libebur128 gives
     * infinite loudness, and crashes at the very lowest rates. */
    if (clip->sample_rate < 2 * K_SHELF_HZ)
        return AU_OK;
    ebur128_state *state = ebur128_init((unsigned)clip->channels, (unsigned long)clip->sample_rate,
                                        EBUR128_MODE_I | EBUR128_MODE_TRUE_PEAK);
    if (!state)
        return au_fail(err, AU_NOMEM, "no memory to measure loudness at %d Hz", clip->sample_rate);
    au_status st = measure_all(stats, state, clip, err);
    ebur128_destroy(&state);
    return st;
}
