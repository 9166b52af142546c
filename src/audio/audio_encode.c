/* SPDX-License-Identifier: MIT */
/* A clip to the bytes of a file, through libsndfile into memory.
 *
 * Quantising is ours, because libsndfile's float path truncates: x · 2^(bits-1), rounded to nearest
 * with ties to even, clamped. MP3 and Opus are made from the 16-bit samples, too, so that they are
 * the same whether made at once or from a stored WAV; where the codec lacks the clip's rate it gets
 * the next higher one that it has. The bytes are the same every time: no PEAK chunk (it holds the
 * time), no software string (libsndfile appends its version), serial numbers from the content. A
 * WAV's sizes have 32 bits; more is refused before anything is written. */
#include <math.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>

#include "audio/audio_priv.h"
#include "base/hash.h"
#include "base/mem.h"

enum {
    BLOCK_FRAMES = 4096,
    MAX_CHANNELS = AU_MAX_CHANNELS,
    MIN_RATE = 1,
    MAX_RATE = AU_MAX_RATE,
    MIN_LOSSY_RATE = 1000, /* below it is no audio, and resampling would blow it up */
};

/* Sample data of at most this many bytes, so that header and tags fit below 2^32. */
#define DATA_LIMIT (UINT32_MAX - (4u << 20))

typedef struct layout {
    int format;         /* libsndfile's */
    int bits;           /* 0: float */
    int bytes;          /* of a sample as little-endian PCM */
    const int *rates;   /* that the codec has, rising, ends with 0; NULL: any */
    double compression; /* libsndfile's level, where the codec is lossy */
} layout;

static const int mp3_rates[] = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 0};
static const int opus_rates[] = {48000, 0};

static const layout layouts[AU_FORMAT_COUNT] = {
    [AU_FORMAT_WAV] = {SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16, 2, NULL, 0},
    [AU_FORMAT_WAV24] = {SF_FORMAT_WAV | SF_FORMAT_PCM_24, 24, 3, NULL, 0},
    [AU_FORMAT_WAVF] = {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 0, 4, NULL, 0},
    [AU_FORMAT_FLAC] = {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 16, 2, NULL, 0},
    /* LAME's -V 2, held to be transparent; libsndfile's level is a tenth of it. */
    [AU_FORMAT_MP3] = {SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 16, 2, mp3_rates, 0.2},
    /* libsndfile spreads 256 ... 6 kbit/s a channel over 0 ... 1: 96 kbit/s. */
    [AU_FORMAT_OPUS] = {SF_FORMAT_OGG | SF_FORMAT_OPUS, 16, 2, opus_rates, 0.64},
};

static au_status check_clip(const au_clip *clip, au_format format, au_err *err)
{
    uint64_t frame_bytes = (uint64_t)clip->channels * (uint64_t)layouts[format].bytes;
    if (clip->channels < 1 || clip->channels > MAX_CHANNELS)
        return au_fail(err, AU_INVALID, "clip has %d channels, expected 1 or 2", clip->channels);
    if (clip->sample_rate < MIN_RATE || clip->sample_rate > MAX_RATE)
        return au_fail(err, AU_INVALID, "sample rate is %d Hz, expected %d ... %d",
                       clip->sample_rate, MIN_RATE, MAX_RATE);
    if (layouts[format].rates && clip->sample_rate < MIN_LOSSY_RATE)
        return au_fail(err, AU_UNSUPPORTED, "sample rate is %d Hz, %s takes %d Hz and more",
                       clip->sample_rate, au_format_name(format), MIN_LOSSY_RATE);
    if (!clip->n_frames)
        return au_fail(err, AU_INVALID, "clip has no frames, expected at least 1");
    if (clip->n_frames > DATA_LIMIT / frame_bytes)
        return au_fail(err, AU_LIMIT, "clip has %llu frames, a %s file holds at most %llu",
                       (unsigned long long)clip->n_frames, au_format_name(format),
                       (unsigned long long)(DATA_LIMIT / frame_bytes));
    for (uint64_t i = 0; i < clip->n_frames * (uint64_t)clip->channels; i++)
        if (!isfinite(clip->frames[i]))
            return au_fail(err, AU_INVALID, "sample %g at frame %llu of channel %llu is not finite",
                           (double)clip->frames[i],
                           (unsigned long long)i / (unsigned)clip->channels,
                           (unsigned long long)i % (unsigned)clip->channels);
    return AU_OK;
}

/* One block between the clip and libsndfile. */
typedef struct block {
    size_t n;                                       /* samples */
    int32_t quantised[BLOCK_FRAMES * MAX_CHANNELS]; /* the value in its own number of bits */
    int32_t wide[BLOCK_FRAMES *
                 MAX_CHANNELS]; /* the same at the top of 32 bits, as libsndfile wants it */
    unsigned char pcm[BLOCK_FRAMES * MAX_CHANNELS * 4]; /* little-endian */
} block;

static void quantise(block *b, const float *samples, int bits, uint64_t *clipped)
{
    const double scale = (double)(1 << (bits - 1));
    for (size_t i = 0; i < b->n; i++) {
        double x = (double)samples[i];
        *clipped += x < -1.0 || x >= 1.0;
        double v = rint(x * scale); /* the product is exact */
        v = v < -scale ? -scale : v > scale - 1.0 ? scale - 1.0 : v;
        b->quantised[i] = (int32_t)v;
        b->wide[i] = b->quantised[i] * (1 << (32 - bits));
    }
}

/* b->pcm from the quantised values, or from the floats (bits 0). */
static void to_pcm(block *b, const float *samples, const layout *l)
{
    unsigned char *p = b->pcm;
    for (size_t i = 0; i < b->n; i++) {
        uint32_t v;
        if (l->bits)
            v = (uint32_t)b->quantised[i];
        else
            memcpy(&v, &samples[i], sizeof v);
        for (int k = 0; k < l->bytes; k++)
            *p++ = (unsigned char)(v >> (8 * k));
    }
}

static au_status check_written(SNDFILE *file, const au_mem_file *mem, sf_count_t written,
                               uint64_t frames, au_err *err)
{
    if (mem->failed)
        return au_fail(err, AU_NOMEM, "no memory for an audio file of more than %zu bytes",
                       mem->len);
    if (written != (sf_count_t)frames)
        return au_fail(err, AU_INTERNAL, "libsndfile cannot write: %s", sf_strerror(file));
    return AU_OK;
}

/* Quantises and hashes block by block. Each block goes to `file`, or where that is NULL to `grid`
 * [n_frames, channels]: the 16-bit values as floats. */
static au_status write_frames(SNDFILE *file, float *grid, const au_mem_file *mem,
                              const au_clip *clip, const layout *l, au_clip_stats *stats,
                              au_err *err)
{
    au_sha256 hash;
    au_status st = AU_OK;
    block *b = NULL;
    AU_TRY(au_calloc(&b, 1, sizeof *b, err));
    au_sha256_init(&hash);
    for (uint64_t i = 0; i < clip->n_frames; i += BLOCK_FRAMES) {
        uint64_t frames = clip->n_frames - i < BLOCK_FRAMES ? clip->n_frames - i : BLOCK_FRAMES;
        const float *samples = clip->frames + i * (uint64_t)clip->channels;
        b->n = (size_t)frames * (size_t)clip->channels;
        if (l->bits)
            quantise(b, samples, l->bits, &stats->clipped);
        to_pcm(b, samples, l);
        au_sha256_update(&hash, b->pcm, b->n * (size_t)l->bytes);
        for (size_t k = 0; grid && k < b->n; k++)
            grid[i * (uint64_t)clip->channels + k] = (float)b->quantised[k] / 32768.0f;
        if (grid)
            continue;
        sf_count_t written = l->bits ? sf_writef_int(file, b->wide, (sf_count_t)frames)
                                     : sf_writef_float(file, samples, (sf_count_t)frames);
        AU_TRY(check_written(file, mem, written, frames, err));
    }
    au_sha256_final_hex(&hash, stats->pcm_sha256);
done:
    free(b);
    return st;
}

/* What a lossy codec is given: the 16-bit samples, at a rate that it has. *frames is owned by the
 * caller. */
static au_status prepare_lossy(float **frames, au_clip *played, const au_clip *clip,
                               const layout *l, au_clip_stats *stats, au_err *err)
{
    au_status st = AU_OK;
    const int *rate = l->rates;
    float *grid = NULL;
    AU_TRY(au_calloc(&grid, (size_t)clip->n_frames, (size_t)clip->channels * sizeof *grid, err));
    AU_TRY(write_frames(NULL, grid, NULL, clip, l, stats, err));
    *played = (au_clip){grid, clip->n_frames, clip->channels, clip->sample_rate};
    while (*rate < clip->sample_rate && rate[1])
        rate++;
    if (*rate != clip->sample_rate) {
        AU_TRY(au_audio_resample(frames, &played->n_frames, played, *rate, err));
        played->frames = *frames;
        played->sample_rate = *rate;
    } else {
        *frames = grid;
        grid = NULL;
    }
done:
    free(grid);
    return st;
}

static au_status write_lossy(SNDFILE *file, const au_mem_file *mem, const au_clip *played,
                             au_err *err)
{
    for (uint64_t i = 0; i < played->n_frames; i += BLOCK_FRAMES) {
        uint64_t n = played->n_frames - i < BLOCK_FRAMES ? played->n_frames - i : BLOCK_FRAMES;
        sf_count_t written =
            sf_writef_float(file, played->frames + i * (uint64_t)played->channels, (sf_count_t)n);
        au_status st = check_written(file, mem, written, n, err);
        if (st != AU_OK)
            return st;
    }
    return AU_OK;
}

/* `played`: at the codec's rate; the clip itself where nothing was resampled. */
static au_status write_file(au_mem_file *mem, const au_clip *clip, const au_clip *played,
                            const layout *l, const au_buf *title, const au_buf *comment,
                            au_clip_stats *stats, au_err *err)
{
    au_status st = AU_OK;
    SF_VIRTUAL_IO io = au_mem_file_io();
    SF_INFO info = {
        .samplerate = played->sample_rate, .channels = played->channels, .format = l->format};
    const int type = l->format & SF_FORMAT_TYPEMASK;
    double compression = l->compression;
    int mode = SF_BITRATE_MODE_VARIABLE;
    SNDFILE *file = sf_open_virtual(&io, SFM_WRITE, &info, mem);
    AU_FAIL_IF(!file, AU_INTERNAL, "libsndfile cannot make a file with %d channels at %d Hz: %s",
               played->channels, played->sample_rate, sf_strerror(NULL));
    sf_command(file, SFC_SET_ADD_PEAK_CHUNK, NULL, SF_FALSE);
    if (type == SF_FORMAT_MPEG)
        sf_command(file, SFC_SET_BITRATE_MODE, &mode, sizeof mode);
    if (l->rates)
        sf_command(file, SFC_SET_COMPRESSION_LEVEL, &compression, sizeof compression);
    if (type == SF_FORMAT_FLAC || type == SF_FORMAT_OGG) {
        bool tagged = (!title->len || !sf_set_string(file, SF_STR_TITLE, au_buf_cstr(title))) &&
                      !sf_set_string(file, SF_STR_COMMENT, au_buf_cstr(comment));
        AU_FAIL_IF(!tagged, AU_INTERNAL, "libsndfile cannot set the tags: %s", sf_strerror(file));
    }
    if (l->rates)
        AU_TRY(write_lossy(file, mem, played, err));
    else
        AU_TRY(write_frames(file, NULL, mem, clip, l, stats, err));
done:
    if (file && sf_close(file) != 0 && st == AU_OK)
        st =
            au_fail(err, mem->failed ? AU_NOMEM : AU_INTERNAL, "libsndfile cannot finish the file");
    return st;
}

static uint32_t get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Where the header of the chunk "data" begins, or 0. */
static size_t find_data(const au_mem_file *mem)
{
    for (size_t at = 12; at + 8 <= mem->len;) {
        if (!memcmp(mem->data + at, "data", 4))
            return at;
        size_t size = get_u32(mem->data + at + 4);
        at += 8 + size + (size & 1);
    }
    return 0;
}

/* Puts `chunk` before byte `at` of the file. */
static au_status insert(au_mem_file *mem, size_t at, const au_buf *chunk, au_err *err)
{
    au_status st = au_buf_check(chunk, err);
    size_t old = mem->len;
    if (st != AU_OK)
        return st;
    mem->pos = old; /* the chunk's length more at the end, then everything after `at` moves */
    if (!au_mem_file_write(mem, chunk->data, chunk->len))
        return au_fail(err, AU_NOMEM, "no memory for an audio file of %zu bytes", old + chunk->len);
    memmove(mem->data + at + chunk->len, mem->data + at, old - at);
    memcpy(mem->data + at, chunk->data, chunk->len);
    return AU_OK;
}

/* Puts the tags of a finished WAV in front of its sample data, those of an MP3 in front of
 * everything, and an Ogg stream into its final form. */
static au_status finish_file(au_mem_file *mem, const layout *l, const au_buf *title,
                             const au_buf *comment, au_err *err)
{
    au_status st = AU_OK;
    const int type = l->format & SF_FORMAT_TYPEMASK;
    au_buf chunk;
    au_buf_init(&chunk, AU_COMMENT_BYTES + 4096);
    if (type == SF_FORMAT_OGG)
        st = au_audio_ogg_seal(mem->data, mem->len, err);
    AU_TRY(st);
    if (type == SF_FORMAT_MPEG) {
        au_audio_id3_tag(&chunk, title, comment);
        AU_TRY(insert(mem, 0, &chunk, err));
    }
    if (type == SF_FORMAT_WAV && comment->len) {
        size_t at = find_data(mem);
        AU_FAIL_IF(!at, AU_INTERNAL, "libsndfile made a WAV without a data chunk");
        au_audio_info_chunk(&chunk, title, comment);
        AU_TRY(insert(mem, at, &chunk, err));
        uint32_t riff = (uint32_t)(mem->len - 8);
        for (int k = 0; k < 4; k++)
            mem->data[4 + k] = (unsigned char)(riff >> (8 * k));
    }
done:
    au_buf_deinit(&chunk);
    return st;
}

au_status au_audio_encode(const au_clip *clip, au_format format, const au_recipe *recipe,
                          void **out, size_t *len, au_clip_stats *stats, au_err *err)
{
    au_status st = AU_OK;
    const layout *l = &layouts[format];
    au_mem_file mem = {0};
    float *lossy = NULL;
    au_clip played = *clip;
    au_buf title, comment;
    au_buf_init(&title, 4 * AU_TITLE_CHARS);
    au_buf_init(&comment, AU_COMMENT_BYTES);
    *stats = (au_clip_stats){0};
    AU_TRY(check_clip(clip, format, err));
    AU_FAIL_IF(!recipe && (l->format & SF_FORMAT_TYPEMASK) != SF_FORMAT_WAV, AU_UNSUPPORTED,
               "%s without tags is not made", au_format_name(format));
    if (recipe)
        AU_TRY(au_audio_tags(&title, &comment, recipe, err));
    AU_TRY(au_audio_measure(stats, clip, err));
    if (l->rates)
        AU_TRY(prepare_lossy(&lossy, &played, clip, l, stats, err));
    stats->n_frames = played.n_frames;
    stats->sample_rate = played.sample_rate;
    mem.cap =
        (size_t)clip->n_frames * (size_t)clip->channels * (size_t)l->bytes + comment.len + 4096;
    AU_TRY(au_calloc(&mem.data, mem.cap, 1, err));
    AU_TRY(write_file(&mem, clip, &played, l, &title, &comment, stats, err));
    AU_TRY(finish_file(&mem, l, &title, &comment, err));
    au_sha256_hex(stats->sha256, mem.data, mem.len);
    *out = mem.data;
    *len = mem.len;
    mem.data = NULL;
done:
    free(mem.data);
    free(lossy);
    au_buf_deinit(&title);
    au_buf_deinit(&comment);
    return st;
}
