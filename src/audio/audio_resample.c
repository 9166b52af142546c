/* SPDX-License-Identifier: MIT */
/* Another sample rate, with soxr at its very high quality (linear phase, 28 bits). Stateless. */
#include <math.h>
#include <soxr.h>
#include <stdlib.h>
#include <string.h>

#include "audio/audio_priv.h"
#include "base/mem.h"

uint64_t au_audio_resampled_frames(uint64_t n_frames, int from_hz, int to_hz)
{
    return (n_frames * (uint64_t)to_hz + (uint64_t)from_hz / 2) / (uint64_t)from_hz;
}

au_status au_audio_resample(float **out, uint64_t *n_out, const au_clip *clip, int rate_hz,
                            au_err *err)
{
    au_status st = AU_OK;
    float *frames = NULL;
    size_t done = 0, used = 0, channels = (size_t)clip->channels;
    AU_FAIL_IF(clip->channels < 1 || clip->channels > AU_MAX_CHANNELS || clip->sample_rate < 1 ||
                   rate_hz < 1 || clip->sample_rate > AU_MAX_RATE || rate_hz > AU_MAX_RATE,
               AU_INVALID, "%d channels at %d Hz cannot be resampled to %d Hz", clip->channels,
               clip->sample_rate, rate_hz);
    AU_FAIL_IF(clip->n_frames > (uint64_t)1 << 32, AU_LIMIT,
               "clip has %llu frames, at most 4294967296 can be resampled",
               (unsigned long long)clip->n_frames);
    uint64_t n = au_audio_resampled_frames(clip->n_frames, clip->sample_rate, rate_hz);
    n = n ? n : 1;
    AU_TRY(au_calloc(&frames, (size_t)n, channels * sizeof *frames, err));
    const soxr_io_spec_t io = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
    const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_VHQ, 0);
    const soxr_runtime_spec_t runtime = soxr_runtime_spec(1);
    /* What soxr gives beyond the rounded length is dropped, what it lacks stays silent: at most a
     * frame either way. */
    soxr_error_t failed = soxr_oneshot(clip->sample_rate, rate_hz, (unsigned)channels, clip->frames,
                                       (size_t)clip->n_frames, &used, frames, (size_t)n, &done, &io,
                                       &quality, &runtime);
    AU_FAIL_IF(failed, AU_INTERNAL, "soxr cannot resample from %d to %d Hz: %s", clip->sample_rate,
               rate_hz, failed);
    *out = frames;
    *n_out = n;
    frames = NULL;
done:
    free(frames);
    return st;
}
