/* SPDX-License-Identifier: MIT */
/* A stored file back to frames, for renditions of it. Through libsndfile, which knows each of our
 * formats; 16 and 24 bit come back exactly. Stateless. */
#include <math.h>
#include <stdlib.h>

#include "audio/audio_priv.h"
#include "base/mem.h"

/* Twice the longest clip that can be asked for, at the highest rate: more is not ours. */
#define MAX_FRAMES ((uint64_t)600 * AU_MAX_RATE)

au_status au_audio_decode(float **frames, au_clip *clip, int fd, au_err *err)
{
    au_status st = AU_OK;
    SF_INFO info = {0};
    float *data = NULL;
    SNDFILE *file = sf_open_fd(fd, SFM_READ, &info, SF_FALSE);
    AU_FAIL_IF(!file, AU_CORRUPT, "libsndfile cannot read the file: %s", sf_strerror(NULL));
    AU_FAIL_IF(info.channels < 1 || info.channels > AU_MAX_CHANNELS || info.samplerate < 1 ||
                   info.samplerate > AU_MAX_RATE || info.frames < 1 ||
                   (uint64_t)info.frames > MAX_FRAMES,
               AU_CORRUPT, "the file has %lld frames of %d channels at %d Hz",
               (long long)info.frames, info.channels, info.samplerate);
    AU_TRY(au_calloc(&data, (size_t)info.frames, (size_t)info.channels * sizeof *data, err));
    sf_count_t n = sf_readf_float(file, data, info.frames);
    AU_FAIL_IF(n != info.frames, AU_CORRUPT, "the file has %lld frames, its header says %lld",
               (long long)n, (long long)info.frames);
    *clip = (au_clip){data, (uint64_t)info.frames, info.channels, info.samplerate};
    *frames = data;
    data = NULL;
done:
    free(data);
    if (file)
        sf_close(file);
    return st;
}
