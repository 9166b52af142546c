/* SPDX-License-Identifier: MIT */
/* A clip to the bytes of a file, through libsndfile into memory.
 *
 * Quantising is ours, because libsndfile's float path truncates: x · 2^(bits-1), rounded to nearest
 * with ties to even, clamped. The bytes are the same every time: no PEAK chunk (it holds the time),
 * no software string (libsndfile appends its version), no serial numbers. A WAV's sizes have 32
 * bits; more is refused before anything is written. */
#include <math.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>

#include "audio/audio_priv.h"
#include "base/hash.h"
#include "base/mem.h"

enum { BLOCK_FRAMES = 4096, MAX_CHANNELS = 2, MIN_RATE = 1, MAX_RATE = 384000 };

/* Sample data of at most this many bytes, so that header and tags fit below 2^32. */
#define DATA_LIMIT (UINT32_MAX - (4u << 20))

typedef struct layout {
    int format; /* libsndfile's */
    int bits;   /* 0: float */
    int bytes;  /* of a sample as little-endian PCM */
} layout;

static const layout layouts[AU_FORMAT_COUNT] = {
    [AU_FORMAT_WAV] = {SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16, 2},
    [AU_FORMAT_WAV24] = {SF_FORMAT_WAV | SF_FORMAT_PCM_24, 24, 3},
    [AU_FORMAT_WAVF] = {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 0, 4},
    [AU_FORMAT_FLAC] = {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 16, 2},
};

/* A file in memory for SF_VIRTUAL_IO. A failed allocation is sticky. */
typedef struct mem_file {
    unsigned char *data; /* owned */
    size_t len, cap, pos;
    bool failed;
} mem_file;

static sf_count_t file_length(void *user)
{
    const mem_file *f = user;
    return (sf_count_t)f->len;
}

static sf_count_t file_tell(void *user)
{
    const mem_file *f = user;
    return (sf_count_t)f->pos;
}

static sf_count_t file_seek(sf_count_t offset, int whence, void *user)
{
    mem_file *f = user;
    sf_count_t base = whence == SEEK_CUR   ? (sf_count_t)f->pos
                      : whence == SEEK_END ? (sf_count_t)f->len
                                           : 0;
    if (offset < -base || base + offset > (sf_count_t)f->len)
        return -1;
    f->pos = (size_t)(base + offset);
    return (sf_count_t)f->pos;
}

static sf_count_t file_read(void *out, sf_count_t count, void *user)
{
    mem_file *f = user;
    size_t n = f->len - f->pos < (size_t)count ? f->len - f->pos : (size_t)count;
    memcpy(out, f->data + f->pos, n);
    f->pos += n;
    return (sf_count_t)n;
}

static sf_count_t file_write(const void *data, sf_count_t count, void *user)
{
    mem_file *f = user;
    size_t n = (size_t)count;
    if (n > f->cap - f->pos) {
        size_t cap = f->cap * 2 > f->pos + n ? f->cap * 2 : f->pos + n;
        unsigned char *grown = f->failed ? NULL : realloc(f->data, cap);
        if (!grown) {
            f->failed = true;
            return 0;
        }
        f->data = grown;
        f->cap = cap;
    }
    memcpy(f->data + f->pos, data, n);
    f->pos += n;
    if (f->pos > f->len)
        f->len = f->pos;
    return count;
}

static au_status check_clip(const au_clip *clip, au_format format, au_err *err)
{
    uint64_t frame_bytes = (uint64_t)clip->channels * (uint64_t)layouts[format].bytes;
    if (clip->channels < 1 || clip->channels > MAX_CHANNELS)
        return au_fail(err, AU_INVALID, "clip has %d channels, expected 1 or 2", clip->channels);
    if (clip->sample_rate < MIN_RATE || clip->sample_rate > MAX_RATE)
        return au_fail(err, AU_INVALID, "sample rate is %d Hz, expected %d ... %d",
                       clip->sample_rate, MIN_RATE, MAX_RATE);
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

static au_status write_frames(SNDFILE *file, const mem_file *mem, const au_clip *clip,
                              const layout *l, au_clip_stats *stats, au_err *err)
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
        sf_count_t written = l->bits ? sf_writef_int(file, b->wide, (sf_count_t)frames)
                                     : sf_writef_float(file, samples, (sf_count_t)frames);
        AU_FAIL_IF(mem->failed, AU_NOMEM, "no memory for an audio file of more than %zu bytes",
                   mem->len);
        AU_FAIL_IF(written != (sf_count_t)frames, AU_INTERNAL, "libsndfile cannot write: %s",
                   sf_strerror(file));
    }
    au_sha256_final_hex(&hash, stats->pcm_sha256);
done:
    free(b);
    return st;
}

static au_status write_file(mem_file *mem, const au_clip *clip, const layout *l,
                            const au_buf *title, const au_buf *comment, au_clip_stats *stats,
                            au_err *err)
{
    au_status st = AU_OK;
    SF_VIRTUAL_IO io = {file_length, file_seek, file_read, file_write, file_tell};
    SF_INFO info = {
        .samplerate = clip->sample_rate, .channels = clip->channels, .format = l->format};
    SNDFILE *file = sf_open_virtual(&io, SFM_WRITE, &info, mem);
    AU_FAIL_IF(!file, AU_INTERNAL, "libsndfile cannot make a file with %d channels at %d Hz: %s",
               clip->channels, clip->sample_rate, sf_strerror(NULL));
    sf_command(file, SFC_SET_ADD_PEAK_CHUNK, NULL, SF_FALSE);
    if ((l->format & SF_FORMAT_TYPEMASK) == SF_FORMAT_FLAC) {
        bool tagged = (!title->len || !sf_set_string(file, SF_STR_TITLE, au_buf_cstr(title))) &&
                      !sf_set_string(file, SF_STR_COMMENT, au_buf_cstr(comment));
        AU_FAIL_IF(!tagged, AU_INTERNAL, "libsndfile cannot set the tags: %s", sf_strerror(file));
    }
    AU_TRY(write_frames(file, mem, clip, l, stats, err));
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
static size_t find_data(const mem_file *mem)
{
    for (size_t at = 12; at + 8 <= mem->len;) {
        if (!memcmp(mem->data + at, "data", 4))
            return at;
        size_t size = get_u32(mem->data + at + 4);
        at += 8 + size + (size & 1);
    }
    return 0;
}

/* Puts the tags of a finished WAV in front of its sample data. */
static au_status insert_info(mem_file *mem, const au_buf *title, const au_buf *comment, au_err *err)
{
    au_status st = AU_OK;
    au_buf chunk;
    au_buf_init(&chunk, AU_COMMENT_BYTES + 4096);
    au_audio_info_chunk(&chunk, title, comment);
    AU_TRY(au_buf_check(&chunk, err));
    size_t at = find_data(mem), old = mem->len;
    AU_FAIL_IF(!at, AU_INTERNAL, "libsndfile made a WAV without a data chunk");
    mem->pos = old; /* the chunk's length more at the end, then everything after `at` moves */
    file_write(chunk.data, (sf_count_t)chunk.len, mem);
    AU_FAIL_IF(mem->failed, AU_NOMEM, "no memory for an audio file of %zu bytes", old + chunk.len);
    memmove(mem->data + at + chunk.len, mem->data + at, old - at);
    memcpy(mem->data + at, chunk.data, chunk.len);
    uint32_t riff = (uint32_t)(mem->len - 8);
    for (int k = 0; k < 4; k++)
        mem->data[4 + k] = (unsigned char)(riff >> (8 * k));
done:
    au_buf_deinit(&chunk);
    return st;
}

au_status au_audio_encode(const au_clip *clip, au_format format, const au_recipe *recipe,
                          void **out, size_t *len, au_clip_stats *stats, au_err *err)
{
    au_status st = AU_OK;
    const layout *l = &layouts[format];
    mem_file mem = {0};
    au_buf title, comment;
    au_buf_init(&title, 4 * AU_TITLE_CHARS);
    au_buf_init(&comment, AU_COMMENT_BYTES);
    *stats = (au_clip_stats){0};
    AU_TRY(check_clip(clip, format, err));
    AU_TRY(au_audio_tags(&title, &comment, recipe, err));
    AU_TRY(au_audio_measure(stats, clip, err));
    mem.cap =
        (size_t)clip->n_frames * (size_t)clip->channels * (size_t)l->bytes + comment.len + 4096;
    AU_TRY(au_calloc(&mem.data, mem.cap, 1, err));
    AU_TRY(write_file(&mem, clip, l, &title, &comment, stats, err));
    if ((l->format & SF_FORMAT_TYPEMASK) == SF_FORMAT_WAV)
        AU_TRY(insert_info(&mem, &title, &comment, err));
    au_sha256_hex(stats->sha256, mem.data, mem.len);
    *out = mem.data;
    *len = mem.len;
    mem.data = NULL;
done:
    free(mem.data);
    au_buf_deinit(&title);
    au_buf_deinit(&comment);
    return st;
}
