/* SPDX-License-Identifier: MIT */
/* MusicGen ("Simple and Controllable Music Generation", 2023) in the layout of transformers'
 * MusicgenForConditionalGeneration:
 *
 *   token ids [S] -> T5 encoder [S, D] -> enc_to_dec_proj [S, d] -> cross-attention keys and
 * values, once column of K codes -> sum of K embeddings + sinusoid [d] -> L pre-norm layers -> K
 * heads [K, V], per step codes [K, F] -> sum of codebook vectors [F, C] -> EnCodec decoder -> audio
 * [F * hop, channels]
 *
 * Shared by the files of this folder only. docs/models/musicgen.md has the tables. */
#ifndef AU_MODELS_MUSICGEN_MUSICGEN_H
#define AU_MODELS_MUSICGEN_MUSICGEN_H

#include "base/arena.h"
#include "base/buf.h"
#include "models/model.h"
#include "nn/conv.h"
#include "sample/delay.h"

enum {
    MG_MAX_LAYERS = 256,
    MG_MAX_CODEBOOKS = 32,
    MG_MAX_STAGES = 16,  /* upsampling ratios of the codec */
    MG_MAX_RESIDUAL = 8, /* residual blocks a stage */
    MG_MAX_LSTM = 8,
    MG_MAX_PROMPT_TOKENS = 2048,
};

typedef void (*mg_map)(float *, const float *, size_t);
typedef enum mg_activation { MG_GELU, MG_GELU_NEW, MG_RELU } mg_activation;

typedef struct mg_config {
    struct {
        int width, inner, head_dim, heads, ffn, layers, vocab; /* inner = heads * head_dim */
        int buckets, max_distance;
        float eps;
        bool gated;
        mg_activation act;
    } text;
    struct {
        int width, layers, heads, head_dim, ffn, codebooks, channels, vocab, pad;
        mg_activation act;
        bool tied;
    } lm;
    struct {
        int sample_rate, codebook_size, codebook_dim, hidden, filters, kernel, last_kernel,
            residual_kernel;
        int ratios[MG_MAX_STAGES], n_ratios, hop;
        int dilation_growth, n_residual, compress, n_lstm;
        bool causal, shortcut;
        double trim_right_ratio;
        au_pad_mode pad_mode;
        int frame_rate; /* ceil(sample_rate / hop) */
        int quantizers;
    } codec;
    struct {
        double guidance, temperature, top_p;
        int top_k, max_length;
    } generation;
} mg_config;

/* Problems found while opening: all are collected, then reported together. */
typedef struct mg_problems {
    au_buf text;
    size_t count, unlisted;
    au_status status; /* of the first */
} mg_problems;
void au_mg_problem(mg_problems *p, au_status status, const char *fmt, ...) AU_PRINTF(3, 4);

/* Reads config.json and generation_config.json; what is missing has transformers' default. Problems
 * go to p. */
void au_mg_config_read(mg_config *c, const json_t *config, const json_t *generation,
                       mg_problems *p);

typedef struct mg_text_layer {
    au_norm attn_norm, ffn_norm;
    au_linear q, k, v, o, wi, wi_gate, wo; /* wi_gate: the linear half of a gated layer */
} mg_text_layer;

typedef struct mg_lm_layer {
    au_norm self_norm, cross_norm, ffn_norm;
    au_linear q, k, v, o, cross_q, cross_k, cross_v, cross_o, fc1, fc2;
} mg_lm_layer;

typedef struct mg_residual {
    au_conv1d wide, narrow,
        shortcut; /* kernel residual_kernel, then 1; shortcut.w NULL: identity */
} mg_residual;

typedef struct mg_stage {
    au_convtr1d up;
    mg_residual residual[MG_MAX_RESIDUAL];
} mg_stage;

struct au_net {
    mg_config config;
    au_arena arena; /* owns converted weights, names and the layer tables */
    const au_tensor_set *tensors;

    struct {
        au_embed embed;
        mg_text_layer *layers;
        au_norm final_norm;
        float *position_bias; /* [heads, buckets] widened, transposed from the stored [buckets,
                                 heads] */
    } text;
    bool has_proj;
    au_linear proj; /* enc_to_dec_proj */
    struct {
        au_embed embed[MG_MAX_CODEBOOKS];
        mg_lm_layer *layers;
        au_norm final_norm;
        au_linear heads[MG_MAX_CODEBOOKS];
        float *freqs; /* [d / 2] of the sinusoid */
    } lm;
    struct {
        au_mat codebooks[MG_MAX_CODEBOOKS]; /* [codebook_size, codebook_dim], one per codebook of a
                                               channel */
        au_conv1d first, last;
        au_lstm_layer lstm[MG_MAX_LSTM];
        mg_stage stages[MG_MAX_STAGES];
    } codec;

    au_module *modules; /* in the arena */
    size_t n_modules, cap_modules;
};

/* Binds every tensor of `tensors` to its place in net (whose config is read), converting what must
 * be. Missing, unknown and wrong tensors go to p. AU_NOMEM only. */
AU_MUST_CHECK au_status au_mg_weights_bind(au_net *net, const au_tensor_set *tensors,
                                           mg_problems *p, au_err *err);

mg_map au_mg_activation_fn(const au_kernels *k, mg_activation act);

/* ---- T5 encoder. states [S, D]; scratch of au_mg_text_scratch floats. keep_going is asked before
 * each layer; false: returns false. */
size_t au_mg_text_scratch(const au_net *net, size_t S, int threads);
bool au_mg_text_encode(const au_net *net, const au_nn *nn, const int32_t *tokens, size_t S,
                       const au_applied *applied, float *states, float *scratch,
                       bool (*keep_going)(void *, size_t layer), void *user);

/* ---- EnCodec decoder, a stretch at a time: a block of the LSTM, or two chunks for each thread.
 * codes[channel][quantiser] is a row of `frames` codes, read by begin alone; out [frames * hop,
 * channels] interleaved. A clip in the making is au_mg_codec_bytes of memory, aligned to 64;
 * scratch is au_mg_codec_scratch bytes of which nothing lasts between two calls. */
typedef struct mg_decode mg_decode;
size_t au_mg_codec_bytes(const au_net *net, size_t frames, size_t channels);
size_t au_mg_codec_scratch(const au_net *net, size_t channels, int threads);
mg_decode *au_mg_codec_begin(const au_net *net, const au_nn *nn, const int32_t *const *codes,
                             size_t channels, size_t frames, float *out, void *memory,
                             void *scratch);
/* The next stretch; *frames_done of codec frames. False: that was the last. */
bool au_mg_codec_next(mg_decode *d, void *scratch, size_t *frames_done);

#endif
