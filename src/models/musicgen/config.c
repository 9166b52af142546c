/* SPDX-License-Identifier: MIT */
/* The configuration of a MusicGen checkpoint. Mirrors MusicgenConfig, MusicgenDecoderConfig,
 * T5Config and EncodecConfig of transformers: what a file leaves out has the default there. An
 * option this engine does not have is refused by field and value, never ignored. */
#include "models/musicgen/musicgen.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 20 };

void au_mg_problem(mg_problems *p, au_status status, const char *fmt, ...)
{
    if (!p->count++)
        p->status = status;
    if (p->count > MAX_LISTED) {
        p->unlisted++;
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    if (p->text.len)
        au_buf_char(&p->text, '\n');
    au_buf_vprintf(&p->text, fmt, ap);
    va_end(ap);
}

/* A part of config.json with its name, so that messages can say "decoder.hidden_size". */
typedef struct section {
    const json_t *object;
    const char *name;
    mg_problems *p;
} section;

static const json_t *field(const section *s, const char *key)
{
    const json_t *v = json_object_get(s->object, key);
    return json_is_null(v) ? NULL : v;
}

/* Appends " is <value as JSON>" to what a message says of a field. */
static void refuse(const section *s, const char *key, const json_t *v, const char *expected)
{
    au_buf text;
    au_buf_init(&text, 200);
    json_t *copy = json_deep_copy(v);
    if (copy && (json_is_object(copy) || json_is_array(copy)))
        au_buf_str(&text, json_is_object(copy) ? "{...}" : "[...]");
    else if (copy) {
        char *dump = json_dumps(copy, JSON_ENCODE_ANY);
        if (dump)
            au_buf_printf(&text, "%.120s", dump);
        free(dump);
    }
    json_decref(copy);
    au_mg_problem(s->p, AU_UNSUPPORTED, "config.json: %s.%s is %s, expected %s", s->name, key,
                  au_buf_cstr(&text), expected);
    au_buf_deinit(&text);
}

/* An integer in [min, max]; absent: `absent`, or a problem where that is below min. */
static int integer(const section *s, const char *key, int absent, int min, int max)
{
    const json_t *v = field(s, key);
    if (!v) {
        if (absent < min)
            au_mg_problem(s->p, AU_CORRUPT, "config.json: %s.%s is missing", s->name, key);
        return absent < min ? min : absent;
    }
    json_int_t i = json_integer_value(v);
    if (!json_is_integer(v) || i < min || i > max) {
        char expected[64];
        snprintf(expected, sizeof expected, "an integer in %d ... %d", min, max);
        refuse(s, key, v, expected);
        return min;
    }
    return (int)i;
}

static double number(const section *s, const char *key, double absent, double min, double max)
{
    const json_t *v = field(s, key);
    if (!v)
        return absent;
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= min && d <= max)) {
        char expected[64];
        snprintf(expected, sizeof expected, "a number in %g ... %g", min, max);
        refuse(s, key, v, expected);
        return absent;
    }
    return d;
}

static bool boolean(const section *s, const char *key, bool absent)
{
    const json_t *v = field(s, key);
    if (!v)
        return absent;
    if (!json_is_boolean(v))
        refuse(s, key, v, "true or false");
    return json_is_true(v);
}

static const char *string(const section *s, const char *key, const char *absent)
{
    const json_t *v = field(s, key);
    if (!v)
        return absent;
    if (!json_is_string(v)) {
        refuse(s, key, v, "a string");
        return absent;
    }
    return json_string_value(v);
}

static void must_be(const section *s, const char *key, const char *absent, const char *expected)
{
    if (strcmp(string(s, key, absent), expected) != 0) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\"", expected);
        refuse(s, key, field(s, key), quoted);
    }
}

static section open_section(const json_t *config, const char *name, mg_problems *p)
{
    section s = {json_object_get(config, name), name, p};
    if (!json_is_object(s.object)) {
        au_mg_problem(p, AU_CORRUPT, "config.json: %s is missing", name);
        s.object = NULL;
    }
    return s;
}

static mg_activation activation(const section *s, const char *key, const char *name)
{
    if (strcmp(name, "gelu") == 0)
        return MG_GELU;
    if (strcmp(name, "gelu_new") == 0)
        return MG_GELU_NEW;
    if (strcmp(name, "relu") != 0)
        refuse(s, key, field(s, key), "\"gelu\", \"gelu_new\" or \"relu\"");
    return MG_RELU;
}

static void read_text(mg_config *c, const section *s)
{
    must_be(s, "model_type", "t5", "t5");
    c->text.width = integer(s, "d_model", 512, 1, 1 << 16);
    c->text.head_dim = integer(s, "d_kv", 64, 1, 1 << 12);
    c->text.heads = integer(s, "num_heads", 8, 1, 1 << 10);
    c->text.inner = c->text.heads * c->text.head_dim;
    c->text.ffn = integer(s, "d_ff", 2048, 1, 1 << 18);
    c->text.layers = integer(s, "num_layers", 6, 1, MG_MAX_LAYERS);
    c->text.vocab = integer(s, "vocab_size", 32128, 1, 1 << 24);
    c->text.buckets = integer(s, "relative_attention_num_buckets", 32, 4, 1 << 12);
    c->text.max_distance = integer(s, "relative_attention_max_distance", 128, 2, 1 << 20);
    if (c->text.buckets % 4 || c->text.max_distance <= c->text.buckets / 4)
        au_mg_problem(s->p, AU_UNSUPPORTED,
                      "config.json: text_encoder.relative_attention_num_buckets is %d and "
                      "relative_attention_max_distance %d, expected "
                      "a multiple of 4, and more than a quarter of it",
                      c->text.buckets, c->text.max_distance);
    c->text.eps = (float)number(s, "layer_norm_epsilon", 1e-6, 0, 1);
    const char *ffn = string(s, "feed_forward_proj", "relu");
    c->text.gated = strcmp(ffn, "gated-gelu") == 0;
    c->text.act =
        c->text.gated ? MG_GELU_NEW : MG_RELU; /* transformers reads gated-gelu as gelu_new */
    if (!c->text.gated && strcmp(ffn, "relu") != 0)
        refuse(s, "feed_forward_proj", field(s, "feed_forward_proj"), "\"relu\" or \"gated-gelu\"");
    /* Usually derived from feed_forward_proj, but transformers believes these where they differ. */
    const char *act = c->text.gated ? "gelu_new" : "relu";
    must_be(s, "dense_act_fn", act, act);
    if (boolean(s, "is_gated_act", c->text.gated) != c->text.gated)
        refuse(s, "is_gated_act", field(s, "is_gated_act"), c->text.gated ? "true" : "false");
}

static void read_lm(mg_config *c, const section *s)
{
    must_be(s, "model_type", "musicgen_decoder", "musicgen_decoder");
    c->lm.width = integer(s, "hidden_size", 1024, 4, 1 << 16);
    c->lm.layers = integer(s, "num_hidden_layers", 24, 1, MG_MAX_LAYERS);
    c->lm.heads = integer(s, "num_attention_heads", 16, 1, 1 << 10);
    c->lm.ffn = integer(s, "ffn_dim", 4096, 1, 1 << 18);
    c->lm.codebooks = integer(s, "num_codebooks", 4, 1, MG_MAX_CODEBOOKS);
    c->lm.channels = integer(s, "audio_channels", 1, 1, 2);
    c->lm.vocab = integer(s, "vocab_size", 2048, 1, 1 << 20);
    c->lm.pad = integer(s, "pad_token_id", 2048, 0, 1 << 20);
    c->lm.act = activation(s, "activation_function", string(s, "activation_function", "gelu"));
    c->lm.tied = boolean(s, "tie_word_embeddings", false);
    /* scale_embedding is read and has no effect, as in transformers: MusicgenDecoder computes
     * embed_scale and never uses it. */
    (void)boolean(s, "scale_embedding", false);
    c->lm.head_dim = c->lm.width / c->lm.heads;
    if (c->lm.width % c->lm.heads)
        au_mg_problem(s->p, AU_CORRUPT,
                      "config.json: decoder.hidden_size is %d, expected a multiple of "
                      "num_attention_heads, %d",
                      c->lm.width, c->lm.heads);
    if (c->lm.codebooks % c->lm.channels)
        au_mg_problem(
            s->p, AU_CORRUPT,
            "config.json: decoder.num_codebooks is %d, expected a multiple of audio_channels, %d",
            c->lm.codebooks, c->lm.channels);
    if (c->lm.pad > c->lm.vocab)
        au_mg_problem(s->p, AU_CORRUPT,
                      "config.json: decoder.pad_token_id is %d, expected at most vocab_size, %d",
                      c->lm.pad, c->lm.vocab);
    if (field(s, "cross_attention_hidden_size"))
        refuse(s, "cross_attention_hidden_size", field(s, "cross_attention_hidden_size"), "null");
}

static void read_ratios(mg_config *c, const section *s)
{
    static const int absent[] = {8, 5, 4, 2};
    const json_t *v = field(s, "upsampling_ratios");
    size_t n = v ? json_array_size(v) : 4;
    bool ok = !v || (json_is_array(v) && n >= 1 && n <= MG_MAX_STAGES);
    c->codec.hop = 1;
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *r = v ? json_array_get(v, i) : NULL;
        json_int_t ratio = v ? json_integer_value(r) : absent[i];
        ok = ratio >= 1 && ratio <= 64 && c->codec.hop * ratio <= 1 << 20;
        if (ok) {
            c->codec.ratios[c->codec.n_ratios++] = (int)ratio;
            c->codec.hop *= (int)ratio;
        }
    }
    if (!ok)
        refuse(s, "upsampling_ratios", v, "1 to 16 integers in 1 ... 64");
}

static void read_quantizers(mg_config *c, const section *s)
{
    const json_t *list = field(s, "target_bandwidths");
    const json_t *last =
        json_array_get(list, json_array_size(list) ? json_array_size(list) - 1 : 0);
    double bandwidth = list ? json_number_value(last) : 24.0; /* kbit/s */
    int bits = 0;
    while ((1 << bits) < c->codec.codebook_size)
        bits++;
    double quantizers =
        floor(1000.0 * bandwidth / ((double)c->codec.frame_rate * (bits ? bits : 1)));
    if (!(quantizers >= 1 && quantizers <= 1024))
        refuse(s, "target_bandwidths", list, "a list whose last number gives 1 ... 1024 codebooks");
    else
        c->codec.quantizers = (int)quantizers;
}

static void read_codec(mg_config *c, const section *s)
{
    must_be(s, "model_type", "encodec", "encodec");
    must_be(s, "norm_type", "weight_norm", "weight_norm");
    integer(s, "audio_channels", 1, 1, 1);
    c->codec.sample_rate = integer(s, "sampling_rate", 24000, 1, 1 << 20);
    c->codec.codebook_size = integer(s, "codebook_size", 1024, 1, 1 << 20);
    c->codec.hidden = integer(s, "hidden_size", 128, 1, 1 << 14);
    c->codec.codebook_dim = integer(s, "codebook_dim", c->codec.hidden, 1, 1 << 14);
    c->codec.filters = integer(s, "num_filters", 32, 1, 1 << 12);
    c->codec.kernel = integer(s, "kernel_size", 7, 1, 255);
    c->codec.last_kernel = integer(s, "last_kernel_size", 7, 1, 255);
    c->codec.residual_kernel = integer(s, "residual_kernel_size", 3, 1, 255);
    c->codec.dilation_growth = integer(s, "dilation_growth_rate", 2, 1, 8);
    c->codec.n_residual = integer(s, "num_residual_layers", 1, 0, MG_MAX_RESIDUAL);
    c->codec.compress = integer(s, "compress", 2, 1, 1 << 10);
    c->codec.n_lstm = integer(s, "num_lstm_layers", 2, 1, MG_MAX_LSTM);
    c->codec.causal = boolean(s, "use_causal_conv", true);
    c->codec.shortcut = boolean(s, "use_conv_shortcut", true);
    c->codec.trim_right_ratio = number(s, "trim_right_ratio", 1.0, 0, 1);
    if (!c->codec.causal && c->codec.trim_right_ratio != 1.0)
        refuse(s, "trim_right_ratio", field(s, "trim_right_ratio"),
               "1.0 where use_causal_conv is false");
    const char *pad = string(s, "pad_mode", "reflect");
    c->codec.pad_mode = strcmp(pad, "constant") == 0 ? AU_PAD_CONSTANT : AU_PAD_REFLECT;
    if (strcmp(pad, "constant") != 0 && strcmp(pad, "reflect") != 0)
        refuse(s, "pad_mode", field(s, "pad_mode"), "\"reflect\" or \"constant\"");
    if (boolean(s, "normalize", false))
        refuse(s, "normalize", field(s, "normalize"), "false");
    if (field(s, "chunk_length_s"))
        refuse(s, "chunk_length_s", field(s, "chunk_length_s"), "null");
    read_ratios(c, s);
    if (c->codec.codebook_dim != c->codec.hidden)
        au_mg_problem(s->p, AU_UNSUPPORTED,
                      "config.json: audio_encoder.codebook_dim is %d, expected hidden_size, %d",
                      c->codec.codebook_dim, c->codec.hidden);
    if (c->codec.filters / c->codec.compress < 1)
        au_mg_problem(s->p, AU_UNSUPPORTED,
                      "config.json: audio_encoder.compress is %d, expected at most num_filters, %d",
                      c->codec.compress, c->codec.filters);
    if ((int64_t)c->codec.filters << c->codec.n_ratios > 1 << 16)
        au_mg_problem(
            s->p, AU_UNSUPPORTED,
            "config.json: audio_encoder.num_filters is %d with %d upsampling_ratios, expected at "
            "most 65536 channels",
            c->codec.filters, c->codec.n_ratios);
    c->codec.frame_rate = (c->codec.sample_rate + c->codec.hop - 1) / c->codec.hop;
    read_quantizers(c, s);
}

static void read_generation(mg_config *c, const json_t *generation, mg_problems *p)
{
    section s = {generation, "generation_config.json", p};
    c->generation.guidance = number(&s, "guidance_scale", 3.0, 1, 1000);
    c->generation.temperature = number(&s, "temperature", 1.0, 1e-6, 1000);
    c->generation.top_p = number(&s, "top_p", 1.0, 0, 1);
    c->generation.top_k =
        integer(&s, "top_k", 50, 0, 1 << 20); /* transformers' default where the file names none */
    c->generation.max_length = integer(&s, "max_length", 1500, 1, 1 << 20);
}

void au_mg_config_read(mg_config *c, const json_t *config, const json_t *generation, mg_problems *p)
{
    *c = (mg_config){0};
    section text = open_section(config, "text_encoder", p);
    section codec = open_section(config, "audio_encoder", p);
    section lm = open_section(config, "decoder", p);
    if (!text.object || !codec.object || !lm.object)
        return;
    read_text(c, &text);
    read_lm(c, &lm);
    read_codec(c, &codec);
    read_generation(c, generation, p);
    if (p->count)
        return;
    if (c->lm.codebooks / c->lm.channels > c->codec.quantizers)
        au_mg_problem(
            p, AU_CORRUPT,
            "config.json: decoder.num_codebooks is %d for %d channels, the codec has %d codebooks",
            c->lm.codebooks, c->lm.channels, c->codec.quantizers);
    if (c->lm.vocab > c->codec.codebook_size)
        au_mg_problem(p, AU_CORRUPT,
                      "config.json: decoder.vocab_size is %d, expected at most "
                      "audio_encoder.codebook_size, %d",
                      c->lm.vocab, c->codec.codebook_size);
}
