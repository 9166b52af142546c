/* SPDX-License-Identifier: MIT */
/* Encoded clips read back with libsndfile and by hand: samples, tags, sizes, hashes, loudness, and
 * what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <sndfile.h>
#include <unistd.h>

#include "audio/audio_priv.h"
#include "base/hash.h"
#include "base/json.h"

static const au_recipe RECIPE = {.prompt = "a calm piano melody",
                                 .model_fingerprint = "0123abcd",
                                 .strength = 1.0,
                                 .seed = 7,
                                 .params_json = "{\"duration_s\":2,\"guidance\":3.5}",
                                 .numerics = "f32"};

enum { LOSSLESS = AU_FORMAT_FLAC + 1 }; /* the formats before it keep every sample */

typedef struct encoded {
    unsigned char *data;
    size_t len, pos;
    au_clip_stats stats;
} encoded;

static encoded encode(const float *frames, uint64_t n, int channels, int rate, au_format format,
                      const au_recipe *recipe)
{
    au_err err;
    encoded e = {0};
    au_clip clip = {frames, n, channels, rate};
    void *data = NULL;
    if (au_audio_encode(&clip, format, recipe, &data, &e.len, &e.stats, &err) != AU_OK)
        fail_msg("%s", err.message);
    e.data = data;
    return e;
}

static sf_count_t get_length(void *user)
{
    return (sf_count_t)((encoded *)user)->len;
}

static sf_count_t get_position(void *user)
{
    return (sf_count_t)((encoded *)user)->pos;
}

static sf_count_t set_position(sf_count_t offset, int whence, void *user)
{
    encoded *e = user;
    sf_count_t base = whence == SEEK_SET   ? 0
                      : whence == SEEK_CUR ? (sf_count_t)e->pos
                                           : (sf_count_t)e->len;
    if (base + offset < 0 || base + offset > (sf_count_t)e->len)
        return -1;
    return (sf_count_t)(e->pos = (size_t)(base + offset));
}

static sf_count_t get_bytes(void *out, sf_count_t count, void *user)
{
    encoded *e = user;
    size_t n = e->len - e->pos < (size_t)count ? e->len - e->pos : (size_t)count;
    memcpy(out, e->data + e->pos, n);
    e->pos += n;
    return (sf_count_t)n;
}

static SNDFILE *open_encoded(encoded *e, SF_INFO *info)
{
    static SF_VIRTUAL_IO io = {get_length, set_position, get_bytes, NULL, get_position};
    e->pos = 0;
    *info = (SF_INFO){0};
    SNDFILE *file = sf_open_virtual(&io, SFM_READ, info, e);
    if (!file)
        fail_msg("libsndfile cannot read the file: %s", sf_strerror(NULL));
    return file;
}

/* -1, 1, ties and their neighbours, in units of the last bit of a sample of `bits`. */
static void test_rounding_and_clipping(void **state)
{
    (void)state;
    static const struct {
        double value; /* in last bits; full scale where |value| > 8 */
        int want16, want24;
    } cases[] = {{0.0, 0, 0},    {0.5, 0, 0},    {1.5, 2, 2},  {2.5, 2, 2},  {-0.5, 0, 0},
                 {-1.5, -2, -2}, {-2.5, -2, -2}, {1.25, 1, 1}, {1.75, 2, 2}, {-1.75, -2, -2}};
    enum { N = sizeof cases / sizeof *cases };
    static const au_format formats[] = {AU_FORMAT_WAV, AU_FORMAT_FLAC, AU_FORMAT_WAV24};
    for (int k = 0; k < 3; k++) {
        int bits = k == 2 ? 24 : 16, top = (1 << (bits - 1)) - 1;
        float in[N + 6];
        int got[N + 6], want[N + 6];
        for (int i = 0; i < N; i++) {
            in[i] = (float)(cases[i].value / (1 << (bits - 1)));
            want[i] = k == 2 ? cases[i].want24 : cases[i].want16;
        }
        float edges[6] = {-1.0f, 1.0f, 1.5f, -1.0001f, 3e38f, nextafterf(1.0f, 0.0f)};
        int limits[6] = {-top - 1, top, top, -top - 1, top, top};
        memcpy(in + N, edges, sizeof edges);
        memcpy(want + N, limits, sizeof limits);
        encoded e = encode(in, N + 6, 1, 32000, formats[k], &RECIPE);
        SF_INFO info;
        SNDFILE *file = open_encoded(&e, &info);
        assert_int_equal(info.frames, N + 6);
        assert_int_equal(info.channels, 1);
        assert_int_equal(info.samplerate, 32000);
        assert_int_equal(sf_readf_int(file, got, N + 6), N + 6);
        for (int i = 0; i < N + 6; i++)
            if (got[i] >> (32 - bits) != want[i])
                fail_msg("%s: sample %d is %d, expected %d", au_format_name(formats[k]), i,
                         got[i] >> (32 - bits), want[i]);
        assert_int_equal(e.stats.clipped, 4);
        assert_true(e.stats.peak == (double)3e38f);
        sf_close(file);
        free(e.data);
    }
}

static void test_float_is_exact(void **state)
{
    (void)state;
    const float in[] = {0.0f, 1.5f, -2.25f, 1e-30f, 0.1f, -0.0f};
    float got[6];
    encoded e = encode(in, 3, 2, 44100, AU_FORMAT_WAVF, &RECIPE);
    SF_INFO info;
    SNDFILE *file = open_encoded(&e, &info);
    assert_int_equal(info.format & SF_FORMAT_SUBMASK, SF_FORMAT_FLOAT);
    assert_int_equal(sf_readf_float(file, got, 3), 3);
    assert_memory_equal(got, in, sizeof in);
    assert_int_equal(e.stats.clipped, 0);
    assert_true(e.stats.peak == 2.25);
    sf_close(file);
    char hash[65];
    au_sha256_hex(hash, in, sizeof in); /* this machine is little-endian */
    assert_string_equal(hash, e.stats.pcm_sha256);
    free(e.data);
}

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The chunk of a WAV, walking it as any reader does; its length in *len. */
static const unsigned char *find_chunk(const unsigned char *p, size_t size, const char *id,
                                       uint32_t *len)
{
    for (size_t at = 0; at + 8 <= size;) {
        *len = u32(p + at + 4);
        assert_true(*len <= size - at - 8);
        if (!memcmp(p + at, id, 4))
            return p + at + 8;
        at += 8 + *len + (*len & 1);
    }
    return NULL;
}

static void test_wav_container_and_hashes(void **state)
{
    (void)state;
    enum { FRAMES = 5001 };
    static float in[FRAMES * 2];
    for (int i = 0; i < FRAMES * 2; i++)
        in[i] = (float)sin(i * 0.01) * 0.5f;
    static const int bytes[AU_FORMAT_COUNT] = {2, 3, 4, 0};
    char flac_pcm[65] = "";
    for (int f = 0; f < LOSSLESS; f++) {
        encoded e = encode(in, FRAMES, 2, 32000, (au_format)f, &RECIPE);
        char hash[65];
        au_sha256_hex(hash, e.data, e.len);
        assert_string_equal(hash, e.stats.sha256);
        if (f == AU_FORMAT_FLAC) {
            assert_memory_equal(e.data, "fLaC", 4);
            assert_true(e.len < FRAMES * 4);
            assert_string_equal(e.stats.pcm_sha256, flac_pcm);
        } else {
            uint32_t len;
            assert_memory_equal(e.data, "RIFF", 4);
            assert_int_equal(u32(e.data + 4), e.len - 8);
            assert_null(find_chunk(e.data + 12, e.len - 12, "PEAK", &len));
            const unsigned char *data = find_chunk(e.data + 12, e.len - 12, "data", &len);
            assert_int_equal(len, FRAMES * 2 * bytes[f]);
            au_sha256_hex(hash, data, len);
            assert_string_equal(hash, e.stats.pcm_sha256);
            if (f == AU_FORMAT_WAV)
                memcpy(flac_pcm, hash, sizeof hash); /* FLAC holds the same 16-bit samples */
        }
        free(e.data);
    }
}

static void test_same_input_same_bytes(void **state)
{
    (void)state;
    static float in[8000];
    for (int i = 0; i < 8000; i++)
        in[i] = (float)sin(i * 0.05) * 0.9f;
    au_recipe other = RECIPE;
    other.seed = 8;
    for (int f = 0; f < AU_FORMAT_COUNT; f++) {
        encoded a = encode(in, 4000, 2, 32000, (au_format)f, &RECIPE);
        encoded b = encode(in, 4000, 2, 32000, (au_format)f, &RECIPE);
        encoded c = encode(in, 4000, 2, 32000, (au_format)f, &other);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        assert_string_not_equal(a.stats.sha256, c.stats.sha256); /* the recipe is in the tags */
        assert_string_equal(a.stats.pcm_sha256, c.stats.pcm_sha256);
        free(a.data);
        free(b.data);
        free(c.data);
    }
}

static void check_tags(encoded *e, const char *title, const char *comment)
{
    SF_INFO info;
    SNDFILE *file = open_encoded(e, &info);
    const char *got = sf_get_string(file, SF_STR_TITLE);
    if (title)
        assert_string_equal(got ? got : "(none)", title);
    else
        assert_null(got);
    got = sf_get_string(file, SF_STR_COMMENT);
    assert_string_equal(got ? got : "(none)", comment);
    if (e->data[0] != 'O') /* of Opus libsndfile makes one from the library's version */
        assert_null(sf_get_string(file, SF_STR_SOFTWARE));
    assert_null(sf_get_string(file, SF_STR_DATE));
    sf_close(file);
}

static void test_tags(void **state)
{
    (void)state;
    static const float silence[64];
    static const char plain[] =
        "{\"adapter\":null,\"aulos\":1,\"digital_source_type\":\"trainedAlgorithmicMedia\","
        "\"model\":\"0123abcd\",\"negative\":null,\"numerics\":\"f32\","
        "\"params\":{\"duration_s\":2,\"guidance\":3.5},\"prompt\":\"a calm piano melody\","
        "\"seed\":7,\"strength\":1.0}";
    for (int f = 0; f < AU_FORMAT_COUNT; f++) {
        encoded e = encode(silence, 64, 1, 32000, (au_format)f, &RECIPE);
        check_tags(&e, RECIPE.prompt, plain);
        if (f < AU_FORMAT_FLAC) { /* where other programs look for it */
            uint32_t len, sub;
            const unsigned char *list = find_chunk(e.data + 12, e.len - 12, "LIST", &len);
            assert_non_null(list);
            assert_memory_equal(list, "INFO", 4);
            assert_string_equal((const char *)find_chunk(list + 4, len - 4, "INAM", &sub),
                                RECIPE.prompt);
            assert_string_equal((const char *)find_chunk(list + 4, len - 4, "ICMT", &sub), plain);
        }
        free(e.data);
    }
}

static void test_titles_are_cut_at_characters(void **state)
{
    (void)state;
    static const float silence[64];
    char prompt[3 * 100 + 1], title[3 * 80 + 1];
    for (int i = 0; i < 100; i++)
        memcpy(prompt + 3 * i, "\xe9\x9f\xb3", 4); /* 音 */
    memcpy(title, prompt, 240);
    title[240] = 0;
    au_recipe r = RECIPE;
    r.prompt = prompt;
    r.negative = "\"quoted\"\nline";
    r.adapter_sha256 = "ffee";
    r.strength = -0.5;
    r.seed = ((uint64_t)1 << 53) - 1;
    for (int f = 0; f < AU_FORMAT_COUNT; f++) {
        encoded e = encode(silence, 32, 2, 32000, (au_format)f, &r);
        SF_INFO info;
        SNDFILE *file = open_encoded(&e, &info);
        assert_string_equal(sf_get_string(file, SF_STR_TITLE), title);
        json_t *j;
        const char *comment = sf_get_string(file, SF_STR_COMMENT);
        assert_null(strchr(comment, '\n'));
        assert_int_equal(au_json_parse(&j, comment, strlen(comment), "comment", NULL), AU_OK);
        assert_string_equal(json_string_value(json_object_get(j, "prompt")), prompt);
        assert_string_equal(json_string_value(json_object_get(j, "negative")), r.negative);
        assert_string_equal(json_string_value(json_object_get(j, "adapter")), "ffee");
        assert_true(json_real_value(json_object_get(j, "strength")) == -0.5);
        assert_true(json_integer_value(json_object_get(j, "seed")) == 9007199254740991);
        json_decref(j);
        sf_close(file);
        free(e.data);
    }
    r = RECIPE;
    r.prompt = "";
    encoded e = encode(silence, 1, 1, 32000, AU_FORMAT_WAV, &r);
    SF_INFO info;
    SNDFILE *file = open_encoded(&e, &info);
    assert_int_equal(info.frames, 1);
    assert_null(sf_get_string(file, SF_STR_TITLE));
    sf_close(file);
    free(e.data);
}

/* A long prompt comes back whole (from a WAV by hand: libsndfile reads no entry of more than 2 KB);
 * one that does not fit the tags is refused. */
static void test_long_prompts(void **state)
{
    (void)state;
    static const float silence[64];
    enum { LONG = 60000, TOO_LONG = 1 << 20 };
    char *prompt = calloc(TOO_LONG + 1, 1);
    memset(prompt, 'x', LONG);
    au_recipe r = RECIPE;
    r.prompt = prompt;
    for (int f = 0; f < AU_FORMAT_OPUS; f++) { /* libsndfile reads no Opus tags of several pages */
        encoded e = encode(silence, 64, 1, 32000, (au_format)f, &r);
        SF_INFO info;
        SNDFILE *file = open_encoded(&e, &info);
        assert_int_equal(info.frames, 64);
        uint32_t len, sub = 0;
        const unsigned char *list =
            f >= AU_FORMAT_FLAC ? NULL : find_chunk(e.data + 12, e.len - 12, "LIST", &len);
        const char *comment = list ? (const char *)find_chunk(list + 4, len - 4, "ICMT", &sub)
                                   : sf_get_string(file, SF_STR_COMMENT);
        assert_non_null(comment);
        if (list)
            assert_int_equal(strlen(comment) + 1, sub);
        assert_non_null(strstr(comment, prompt));
        sf_close(file);
        free(e.data);
    }
    memset(prompt, 'x', TOO_LONG);
    au_err err;
    au_clip_stats stats;
    void *out = NULL;
    size_t len;
    au_clip clip = {silence, 64, 1, 32000};
    assert_int_equal(au_audio_encode(&clip, AU_FORMAT_WAV, &r, &out, &len, &stats, &err), AU_LIMIT);
    assert_non_null(strstr(err.message, "tags"));
    free(prompt);
}

static void expect_near(double got, double want, double within, const char *what)
{
    if (!(fabs(got - want) <= within))
        fail_msg("%s is %.4f, expected %.4f within %.4f", what, got, want, within);
}

/* A sine of 997 Hz is where BS.1770's filter has its reference: -20 dBFS gives -23 LUFS in one
 * channel (3 dB below full scale is the sine's own factor), 3 dB more in two. */
static void test_loudness_of_a_known_sine(void **state)
{
    (void)state;
    enum { RATE = 48000, SECONDS = 5 };
    float *in = calloc((size_t)RATE * SECONDS * 2, sizeof *in);
    for (int channels = 1; channels <= 2; channels++) {
        for (int i = 0; i < RATE * SECONDS; i++)
            for (int c = 0; c < channels; c++)
                in[i * channels + c] = (float)(0.1 * sin(2.0 * M_PI * 997.0 * i / RATE));
        encoded e = encode(in, RATE * SECONDS, channels, RATE, AU_FORMAT_WAV, &RECIPE);
        expect_near(e.stats.loudness_lufs, channels == 1 ? -23.0 : -20.0, 0.05, "loudness");
        expect_near(e.stats.true_peak_dbtp, -20.0, 0.1, "true peak");
        expect_near(e.stats.peak, 0.1, 1e-4, "peak");
        assert_int_equal(e.stats.clipped, 0);
        free(e.data);
    }
    /* The true peak of a quarter-rate sine sampled at its 45-degree points lies 3 dB above every
     * sample. */
    for (int i = 0; i < RATE; i++)
        in[i] = (float)(0.5 * sin(M_PI / 2.0 * i + M_PI / 4.0));
    encoded e = encode(in, RATE, 1, RATE, AU_FORMAT_WAV, &RECIPE);
    expect_near(20.0 * log10(e.stats.peak), -9.03, 0.01, "peak");
    expect_near(e.stats.true_peak_dbtp, -6.02, 0.3, "true peak");
    free(e.data);
    free(in);
}

static void test_silence_and_short_clips_have_no_loudness(void **state)
{
    (void)state;
    static const float silence[32000];
    encoded e = encode(silence, 32000, 1, 32000, AU_FORMAT_FLAC, &RECIPE);
    assert_true(e.stats.loudness_lufs == -HUGE_VAL);
    assert_true(e.stats.true_peak_dbtp == -HUGE_VAL);
    assert_true(e.stats.peak == 0.0);
    free(e.data);
    const float click[] = {0.5f, -0.5f, 0.25f};
    e = encode(click, 3, 1, 32000, AU_FORMAT_WAV, &RECIPE);
    assert_true(e.stats.loudness_lufs == -HUGE_VAL);
    assert_true(e.stats.peak == 0.5);
    free(e.data);
}

static void test_low_rates_are_encoded_without_loudness(void **state)
{
    (void)state;
    static float sine[6000];
    for (int i = 0; i < 6000; i++)
        sine[i] = 0.25f * (float)sin(0.3 * i);
    const int rates[] = {1, 16, 300, 3363};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        for (int f = 0; f < LOSSLESS; f++) {
            encoded e = encode(sine, 6000, 1, rates[i], (au_format)f, &RECIPE);
            assert_true(e.stats.loudness_lufs == -HUGE_VAL);
            assert_true(e.stats.peak > 0.24);
            free(e.data);
        }
    }
    encoded e = encode(sine, 6000, 1, 4000, AU_FORMAT_WAV, &RECIPE);
    assert_true(isfinite(e.stats.loudness_lufs));
    free(e.data);
}

static void expect_refused(au_clip clip, const au_recipe *recipe, au_status status,
                           const char *message)
{
    for (int f = 0; f < AU_FORMAT_COUNT; f++) {
        au_err err = {0};
        au_clip_stats stats;
        void *out = NULL;
        size_t len;
        au_status st = au_audio_encode(&clip, (au_format)f, recipe, &out, &len, &stats, &err);
        if (st != status || !strstr(err.message, message))
            fail_msg("status %d, message \"%s\", expected \"%s\"", st, err.message, message);
        assert_null(out);
    }
}

static void test_bad_clips_are_refused(void **state)
{
    (void)state;
    const float nan_in[] = {0.0f, 0.5f, 0.0f, NAN}, inf_in[] = {-INFINITY, 0.0f},
                fine[] = {0.0f, 0.0f};
    expect_refused((au_clip){nan_in, 2, 2, 32000}, &RECIPE, AU_INVALID, "frame 1 of channel 1");
    expect_refused((au_clip){inf_in, 2, 1, 32000}, &RECIPE, AU_INVALID, "sample -inf at frame 0");
    expect_refused((au_clip){fine, 0, 1, 32000}, &RECIPE, AU_INVALID, "no frames");
    expect_refused((au_clip){fine, 1, 0, 32000}, &RECIPE, AU_INVALID, "0 channels");
    expect_refused((au_clip){fine, 1, 3, 32000}, &RECIPE, AU_INVALID, "3 channels");
    expect_refused((au_clip){fine, 1, 1, 0}, &RECIPE, AU_INVALID, "0 Hz");
    /* Refused before a sample is read. */
    expect_refused((au_clip){fine, UINT64_MAX, 2, 32000}, &RECIPE, AU_LIMIT,
                   "18446744073709551615 frames");
    expect_refused((au_clip){fine, (uint64_t)1 << 32, 1, 32000}, &RECIPE, AU_LIMIT,
                   "4294967296 frames");
    au_recipe r = RECIPE;
    r.prompt = "\xff";
    expect_refused((au_clip){fine, 1, 1, 32000}, &r, AU_INVALID, "prompt is not valid UTF-8");
    r = RECIPE;
    r.seed = (uint64_t)1 << 53;
    expect_refused((au_clip){fine, 1, 1, 32000}, &r, AU_INVALID, "9007199254740992");
    r = RECIPE;
    r.params_json = "{";
    expect_refused((au_clip){fine, 1, 1, 32000}, &r, AU_CORRUPT, "params of a recipe");
}

/* A chord, so that every codec has something to do. */
static void fill_chord(float *out, int frames, int channels, int rate)
{
    for (int i = 0; i < frames; i++)
        for (int c = 0; c < channels; c++)
            out[i * channels + c] = (float)(0.3 * sin(2 * M_PI * 440 * i / rate) +
                                            0.2 * sin(2 * M_PI * (660 + 110 * c) * i / rate));
}

/* An MP3 or Opus file gives back the clip's length (at the codec's rate) and, but for what the ear
 * does not miss, its sound. */
static void test_lossy_formats(void **state)
{
    (void)state;
    static const struct {
        au_format format;
        int rate, channels, file_rate;
    } rows[] = {{AU_FORMAT_MP3, 32000, 1, 32000},  {AU_FORMAT_MP3, 44100, 2, 44100},
                {AU_FORMAT_MP3, 9000, 1, 11025},   {AU_FORMAT_MP3, 96000, 1, 48000},
                {AU_FORMAT_OPUS, 32000, 1, 48000}, {AU_FORMAT_OPUS, 48000, 2, 48000},
                {AU_FORMAT_OPUS, 44100, 2, 48000}, {AU_FORMAT_OPUS, 16000, 1, 48000}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int rate = rows[i].rate, channels = rows[i].channels, to = rows[i].file_rate;
        const int frames = rate + 17;
        float *in = calloc((size_t)frames * channels, sizeof *in);
        fill_chord(in, frames, channels, rate);
        encoded e = encode(in, frames, channels, rate, rows[i].format, &RECIPE);
        const uint64_t want = au_audio_resampled_frames(frames, rate, to);
        assert_int_equal(e.stats.n_frames, want);
        assert_int_equal(e.stats.sample_rate, to);
        SF_INFO info;
        SNDFILE *file = open_encoded(&e, &info);
        assert_int_equal(info.frames, want);
        assert_int_equal(info.samplerate, to);
        assert_int_equal(info.channels, channels);
        float *got = calloc((size_t)want * channels, sizeof *got);
        float *ref = calloc((size_t)want * channels, sizeof *ref);
        assert_int_equal(sf_readf_float(file, got, want), want);
        fill_chord(ref, (int)want, channels, to);
        double signal = 0, noise = 0;
        for (uint64_t k = 0; k < want * channels; k++) {
            signal += ref[k] * ref[k];
            noise += (got[k] - ref[k]) * (got[k] - ref[k]);
        }
        if (!(signal > 100 * noise)) /* 20 dB */
            fail_msg("%s at %d Hz: %.1f dB", au_format_name(rows[i].format), rate,
                     10 * log10(signal / noise));
        sf_close(file);
        free(ref);
        free(got);
        free(in);
        free(e.data);
    }
    const float few[] = {0.1f, -0.1f};
    for (int f = LOSSLESS; f < AU_FORMAT_COUNT; f++) {
        encoded e = encode(few, 1, 2, 32000, (au_format)f, &RECIPE);
        SF_INFO info;
        sf_close(open_encoded(&e, &info));
        assert_int_equal(info.frames, e.stats.n_frames);
        free(e.data);
        au_clip low = {few, 2, 1, 999};
        au_err err;
        size_t len;
        void *out = NULL;
        assert_int_equal(au_audio_encode(&low, (au_format)f, &RECIPE, &out, &len, &e.stats, &err),
                         AU_UNSUPPORTED);
        assert_non_null(strstr(err.message, "999 Hz"));
        low.sample_rate = 1000;
        e = encode(few, 2, 1, 1000, (au_format)f, &RECIPE);
        free(e.data);
    }
}

/* Made from a stored 16-bit WAV or at once: the same bytes. */
static void test_renditions_are_the_file_made_at_once(void **state)
{
    (void)state;
    enum { FRAMES = 20011, RATE = 32000 };
    float *in = calloc(FRAMES * 2, sizeof *in);
    fill_chord(in, FRAMES, 2, RATE);
    in[5] = 1.5f;
    encoded wav = encode(in, FRAMES, 2, RATE, AU_FORMAT_WAV, &RECIPE);
    FILE *file = tmpfile();
    assert_int_equal(fwrite(wav.data, 1, wav.len, file), wav.len);
    fflush(file);
    rewind(file);
    float *frames;
    au_clip clip;
    au_err err;
    assert_int_equal(au_audio_decode(&frames, &clip, fileno(file), &err), AU_OK);
    assert_int_equal(clip.n_frames, FRAMES);
    static const au_format formats[] = {AU_FORMAT_WAV, AU_FORMAT_FLAC, AU_FORMAT_MP3,
                                        AU_FORMAT_OPUS};
    for (int i = 0; i < 4; i++) {
        encoded at_once = encode(in, FRAMES, 2, RATE, formats[i], &RECIPE);
        encoded later = encode(frames, FRAMES, 2, RATE, formats[i], &RECIPE);
        assert_int_equal(at_once.len, later.len);
        assert_memory_equal(at_once.data, later.data, later.len);
        assert_string_equal(at_once.stats.pcm_sha256, wav.stats.pcm_sha256);
        free(at_once.data);
        free(later.data);
    }
    free(frames);
    assert_int_equal(ftruncate(fileno(file), (off_t)wav.len / 2), 0);
    rewind(file);
    assert_int_equal(au_audio_decode(&frames, &clip, fileno(file), &err),
                     AU_OK); /* as long as it is */
    assert_true(clip.n_frames < FRAMES);
    free(frames);
    assert_int_equal(ftruncate(fileno(file), 20), 0);
    rewind(file);
    assert_int_equal(au_audio_decode(&frames, &clip, fileno(file), &err), AU_CORRUPT);
    fclose(file);
    free(in);
    free(wav.data);
}

static void test_mp3_begins_with_an_id3_tag_in_utf8(void **state)
{
    (void)state;
    static const float silence[2000];
    au_recipe r = RECIPE;
    r.prompt = "Gr\xc3\xbc\xc3\x9f"
               "e \xe9\x9f\xb3";
    encoded e = encode(silence, 2000, 1, 32000, AU_FORMAT_MP3, &r);
    assert_memory_equal(e.data, "ID3\4\0\0", 6);
    size_t size =
        (size_t)e.data[6] << 21 | (size_t)e.data[7] << 14 | (size_t)e.data[8] << 7 | e.data[9];
    assert_memory_equal(e.data + 10, "TIT2", 4);
    assert_int_equal(e.data[17], 1 + strlen(r.prompt));
    assert_memory_equal(e.data + 18, "\0\0\3", 3);
    assert_memory_equal(e.data + 21, r.prompt, strlen(r.prompt));
    assert_memory_equal(e.data + 21 + strlen(r.prompt), "COMM", 4);
    assert_int_equal(e.data[10 + size], 0xff); /* a frame's sync word follows */
    assert_int_equal(e.data[10 + size + 1] & 0xe0, 0xe0);
    free(e.data);
}

static uint32_t slow_crc(const unsigned char *page, size_t len)
{
    uint32_t crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc ^= (uint32_t)(i >= 22 && i < 26 ? 0 : page[i]) << 24;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x80000000u ? crc << 1 ^ 0x04c11db7u : crc << 1;
    }
    return crc;
}

/* Every page has the same serial number and its right checksum, whatever the encoder drew. */
static void test_opus_pages(void **state)
{
    (void)state;
    enum { FRAMES = 100000 };
    float *in = calloc(FRAMES, sizeof *in);
    fill_chord(in, FRAMES, 1, 48000);
    encoded e = encode(in, FRAMES, 1, 48000, AU_FORMAT_OPUS, &RECIPE);
    int pages = 0;
    for (size_t at = 0; at < e.len; pages++) {
        assert_memory_equal(e.data + at, "OggS", 4);
        assert_memory_equal(e.data + at + 14, e.data + 14, 4);
        size_t n = 27 + (size_t)e.data[at + 26];
        for (int i = 0; i < e.data[at + 26]; i++)
            n += e.data[at + 27 + i];
        assert_int_equal(slow_crc(e.data + at, n), u32(e.data + at + 22));
        at += n;
    }
    assert_true(pages >= 3);
    unsigned char *copy = malloc(e.len);
    memcpy(copy, e.data, e.len);
    for (size_t at = 0; at + 27 <= e.len; at++)
        if (!memcmp(copy + at, "OggS", 4))
            memcpy(copy + at + 14, "\1\2\3\4\0\0\0\0\xff\xff\xff\xff", 12);
    /* Page numbers were overwritten, too, so only the serial of equal content is compared. */
    au_err err;
    assert_int_equal(au_audio_ogg_seal(copy, e.len, &err), AU_OK);
    unsigned char serial[4];
    memcpy(serial, copy + 14, 4);
    assert_int_equal(au_audio_ogg_seal(copy, e.len, &err), AU_OK);
    assert_memory_equal(copy + 14, serial, 4);
    assert_int_equal(au_audio_ogg_seal(copy, e.len - 1, &err), AU_CORRUPT);
    assert_int_equal(au_audio_ogg_seal(copy, 0, &err), AU_CORRUPT);
    copy[0] = 'o';
    assert_int_equal(au_audio_ogg_seal(copy, e.len, &err), AU_CORRUPT);
    free(copy);
    free(in);
    free(e.data);
}

static void test_resampling(void **state)
{
    (void)state;
    enum { RATE = 32000, FRAMES = 32000 };
    static float in[FRAMES * 2];
    for (int i = 0; i < FRAMES; i++) {
        in[2 * i] = (float)(0.5 * sin(2 * M_PI * 1000 * i / RATE));
        in[2 * i + 1] = -in[2 * i];
    }
    au_clip clip = {in, FRAMES, 2, RATE};
    static const int rates[] = {8000, 44100, 48000, 96000};
    for (int k = 0; k < 4; k++) {
        float *out;
        uint64_t n;
        au_err err;
        assert_int_equal(au_audio_resample(&out, &n, &clip, rates[k], &err), AU_OK);
        assert_int_equal(n, rates[k]);
        double worst = 0;
        for (uint64_t i = n / 10; i < n - n / 10; i++) { /* the ends ring */
            double want = 0.5 * sin(2 * M_PI * 1000 * (double)i / rates[k]);
            worst = fmax(worst, fabs(out[2 * i] - want));
            worst = fmax(worst, fabs(out[2 * i + 1] + want));
        }
        if (worst > 1e-5)
            fail_msg("%d Hz: error %g", rates[k], worst);
        free(out);
    }
    assert_int_equal(au_audio_resampled_frames(1, 48000, 8000), 0);
    assert_int_equal(au_audio_resampled_frames(3, 48000, 8000), 1);
    float *out;
    uint64_t n;
    au_err err;
    clip.n_frames = 1;
    assert_int_equal(au_audio_resample(&out, &n, &clip, 8000, &err), AU_OK);
    assert_int_equal(n, 1);
    free(out);
    assert_int_equal(au_audio_resample(&out, &n, &clip, 0, &err), AU_INVALID);
    assert_int_equal(au_audio_resample(&out, &n, &clip, 384001, &err), AU_INVALID);
}

static void test_peaks_of_a_known_clip(void **state)
{
    (void)state;
    /* Ten frames of two channels: bin i of 5 holds frames 2i and 2i + 1. */
    const float in[] = {0,     0,     0, 0,  1, -1, 0.5f,  0,     0.25f, 0.25f,
                        0.25f, 0.25f, 2, -3, 0, 0,  -0.5f, -0.5f, -0.5f, -0.5f};
    au_clip clip = {in, 10, 2, 32000};
    static au_peaks fine, few, many, back;
    au_err err;
    assert_int_equal(au_peaks_measure(&fine, &clip, &err), AU_OK);
    assert_int_equal(fine.bins, 10);
    assert_int_equal(fine.min[2], -127);
    assert_int_equal(fine.max[2], 127);
    assert_int_equal(fine.rms[2], 127);
    assert_int_equal(fine.max[3], 64); /* 63.5, to even */
    au_peaks_reduce(&few, &fine, 5);
    static const int min[] = {0, -127, 32, -127, -64}, max[] = {0, 127, 32, 127, -64};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(few.min[i], min[i]);
        assert_int_equal(few.max[i], max[i]);
    }
    assert_int_equal(few.rms[0], 0);
    assert_int_equal(few.rms[2], 32);
    assert_int_equal(few.rms[4], 64);
    au_peaks_reduce(&few, &fine, 1);
    assert_int_equal(few.min[0], -127);
    assert_int_equal(few.max[0], 127);
    au_peaks_reduce(&many, &fine, AU_PEAKS_MAX_BINS);
    assert_int_equal(many.bins, AU_PEAKS_MAX_BINS);
    assert_int_equal(many.max[0], fine.max[0]);
    assert_int_equal(many.min[AU_PEAKS_MAX_BINS - 1], fine.min[9]);
    char *text = NULL;
    assert_int_equal(au_peaks_pack(&text, &many, &err), AU_OK);
    assert_int_equal(au_peaks_unpack(&back, text, &err), AU_OK);
    assert_memory_equal(&back, &many, sizeof back);
    free(text);
    char mini[AU_PEAKS_MINI_TEXT];
    au_peaks_mini(mini, &fine);
    json_t *list = json_loads(mini, 0, NULL);
    assert_int_equal(json_array_size(list), AU_PEAKS_MINI);
    assert_int_equal(json_integer_value(json_array_get(list, 0)), 0);
    assert_int_equal(json_integer_value(json_array_get(list, 63)), 64);
    json_decref(list);
    static const char *const bad[] = {"",
                                      "{}",
                                      "[]",
                                      "{\"bins\":0,\"data\":\"\"}",
                                      "{\"bins\":1,\"data\":\"AAA\"}",
                                      "{\"bins\":4097,\"data\":\"AAAA\"}",
                                      "{\"bins\":2,\"data\":\"AAAA\"}",
                                      "{\"bins\":1}",
                                      "{\"bins\":1,\"data\":\"AAAAAAAA\"}",
                                      "{\"bins\":1,\"data\":\"AA-_\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(au_peaks_unpack(&back, bad[i], &err), AU_CORRUPT);
    assert_int_equal(au_peaks_unpack(&back, "{\"bins\":1,\"data\":\"AAAA\"}", &err), AU_OK);
}

/* Every frame is in one bin: a click anywhere shows in exactly one, whatever the number of bins. */
static void test_no_frame_is_missing_in_the_peaks(void **state)
{
    (void)state;
    enum { FRAMES = 100003 };
    float *in = calloc(FRAMES, sizeof *in);
    static au_peaks fine, out;
    au_err err;
    au_clip clip = {in, FRAMES, 1, 32000};
    for (int at = 0; at < FRAMES; at += 7919) {
        in[at] = -1;
        assert_int_equal(au_peaks_measure(&fine, &clip, &err), AU_OK);
        assert_int_equal(fine.bins, AU_PEAKS_MAX_BINS);
        static const int bins[] = {1, 3, 64, 1000, 1024, AU_PEAKS_MAX_BINS};
        for (int k = 0; k < 6; k++) {
            if (bins[k] == AU_PEAKS_MAX_BINS)
                out = fine;
            else
                au_peaks_reduce(&out, &fine, bins[k]);
            int found = 0;
            for (int i = 0; i < out.bins; i++)
                found += out.min[i] == -127;
            assert_int_equal(found, 1);
        }
        in[at] = 0;
    }
    free(in);
    au_clip none = {NULL, 0, 1, 32000};
    assert_int_equal(au_peaks_measure(&fine, &none, &err), AU_INVALID);
}

/* Signals in the manner of EBU Tech 3341: stereo sines of 1 kHz whose programme loudness is known,
 * with the quiet parts that the gates leave out (cases 1 to 3), and true peaks (cases 15 to 19). */
static void test_loudness_of_ebu_signals(void **state)
{
    (void)state;
    enum { RATE = 48000 };
    static const struct {
        struct {
            double dbfs, seconds;
        } parts[3];
        double want;
    } rows[] = {{{{-23, 20}}, -23.0},
                {{{-33, 20}}, -33.0},
                {{{-36, 10}, {-23, 60}, {-36, 10}}, -23.0},
                {{{-72, 10}, {-36, 10}, {-23, 60}}, -23.0}};
    float *in = calloc((size_t)RATE * 80 * 2, sizeof *in);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        size_t n = 0;
        for (int p = 0; p < 3; p++) {
            const double gain = pow(10, rows[r].parts[p].dbfs / 20);
            for (size_t i = 0; i < (size_t)(rows[r].parts[p].seconds * RATE); i++, n++)
                in[2 * n] = in[2 * n + 1] = (float)(gain * sin(2 * M_PI * 1000 * (double)n / RATE));
        }
        encoded e = encode(in, n, 2, RATE, AU_FORMAT_WAV, &RECIPE);
        expect_near(e.stats.loudness_lufs, rows[r].want, 0.1, "loudness");
        free(e.data);
    }
    /* A quarter of the rate, at phases of 0, 45, 60 and 67.5 degrees: -6.0 dBTP with +0.2 / -0.4.
     */
    static const double phases[] = {0, 45, 60, 67.5};
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < RATE; i++)
            in[2 * i] = in[2 * i + 1] =
                (float)(0.5 * sin(M_PI / 2 * (double)i + phases[k] * M_PI / 180));
        encoded e = encode(in, RATE, 2, RATE, AU_FORMAT_WAV, &RECIPE);
        expect_near(e.stats.true_peak_dbtp, -6.1, 0.3, "true peak");
        free(e.data);
    }
    free(in);
}

static void test_format_names(void **state)
{
    (void)state;
    au_format f;
    for (int i = 0; i < AU_FORMAT_COUNT; i++) {
        assert_true(au_format_parse(au_format_name((au_format)i), &f));
        assert_int_equal(f, i);
    }
    assert_false(au_format_parse("ogg", &f));
    assert_false(au_format_parse("WAV", &f));
    assert_true(au_format_of_path("dir.flac/a.b.WAV", &f));
    assert_int_equal(f, AU_FORMAT_WAV);
    assert_true(au_format_of_path("x.flac", &f));
    assert_int_equal(f, AU_FORMAT_FLAC);
    assert_false(au_format_of_path("dir.wav/x", &f));
    assert_false(au_format_of_path(".wav", &f));
    assert_true(au_format_of_path("x.Opus", &f));
    assert_int_equal(f, AU_FORMAT_OPUS);
    assert_false(au_format_of_path("x.ogg", &f));
    assert_false(au_format_of_path("mp3", &f));
    assert_true(au_format_of_extension("mp3", &f));
    assert_int_equal(f, AU_FORMAT_MP3);
    assert_false(au_format_of_extension("wav24", &f));
    assert_string_equal(au_format_mime(AU_FORMAT_MP3), "audio/mpeg");
    assert_string_equal(au_format_mime(AU_FORMAT_OPUS), "audio/ogg");
    assert_string_equal(au_format_mime(AU_FORMAT_WAV24), "audio/wav");
    assert_string_equal(au_format_extension(AU_FORMAT_FLAC), "flac");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_and_clipping),
        cmocka_unit_test(test_float_is_exact),
        cmocka_unit_test(test_wav_container_and_hashes),
        cmocka_unit_test(test_same_input_same_bytes),
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_titles_are_cut_at_characters),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_loudness_of_a_known_sine),
        cmocka_unit_test(test_silence_and_short_clips_have_no_loudness),
        cmocka_unit_test(test_low_rates_are_encoded_without_loudness),
        cmocka_unit_test(test_bad_clips_are_refused),
        cmocka_unit_test(test_format_names),
        cmocka_unit_test(test_lossy_formats),
        cmocka_unit_test(test_renditions_are_the_file_made_at_once),
        cmocka_unit_test(test_mp3_begins_with_an_id3_tag_in_utf8),
        cmocka_unit_test(test_opus_pages),
        cmocka_unit_test(test_resampling),
        cmocka_unit_test(test_peaks_of_a_known_clip),
        cmocka_unit_test(test_no_frame_is_missing_in_the_peaks),
        cmocka_unit_test(test_loudness_of_ebu_signals),
    };
    return cmocka_run_group_tests_name("audio", tests, NULL, NULL);
}
