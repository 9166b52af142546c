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

#include "audio/audio.h"
#include "base/hash.h"
#include "base/json.h"

static const au_recipe RECIPE = {.prompt = "a calm piano melody",
                                 .model_fingerprint = "0123abcd",
                                 .strength = 1.0,
                                 .seed = 7,
                                 .params_json = "{\"duration_s\":2,\"guidance\":3.5}",
                                 .numerics = "f32"};

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
    for (int f = 0; f < AU_FORMAT_COUNT; f++) {
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
        if (f != AU_FORMAT_FLAC) { /* where other programs look for it */
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
    for (int f = 0; f < AU_FORMAT_COUNT; f++) {
        encoded e = encode(silence, 64, 1, 32000, (au_format)f, &r);
        SF_INFO info;
        SNDFILE *file = open_encoded(&e, &info);
        assert_int_equal(info.frames, 64);
        uint32_t len, sub = 0;
        const unsigned char *list =
            f == AU_FORMAT_FLAC ? NULL : find_chunk(e.data + 12, e.len - 12, "LIST", &len);
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
        for (int f = 0; f < AU_FORMAT_COUNT; f++) {
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

static void test_format_names(void **state)
{
    (void)state;
    au_format f;
    for (int i = 0; i < AU_FORMAT_COUNT; i++) {
        assert_true(au_format_parse(au_format_name((au_format)i), &f));
        assert_int_equal(f, i);
    }
    assert_false(au_format_parse("mp3", &f));
    assert_false(au_format_parse("WAV", &f));
    assert_true(au_format_of_path("dir.flac/a.b.WAV", &f));
    assert_int_equal(f, AU_FORMAT_WAV);
    assert_true(au_format_of_path("x.flac", &f));
    assert_int_equal(f, AU_FORMAT_FLAC);
    assert_false(au_format_of_path("dir.wav/x", &f));
    assert_false(au_format_of_path(".wav", &f));
    assert_false(au_format_of_path("x.mp3", &f));
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
    };
    return cmocka_run_group_tests_name("audio", tests, NULL, NULL);
}
