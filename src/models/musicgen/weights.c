/* SPDX-License-Identifier: MIT */
/* The table of tensors: every name, shape and element type that a MusicGen checkpoint must have,
 * bound to its place.
 *
 * Matrices stay where they are in the map. Vectors are widened to f32. The codec's convolutions are
 * folded (W = g v / |v|) and laid out for products over time-major data. Names that are known and
 * not needed (the codec's encoder, training state, a stored position table, which transformers
 * ignores too) are passed over; any other name is an error. */
#include "models/musicgen/musicgen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct binder {
    au_net *net;
    const au_tensor_set *tensors;
    mg_problems *p;
    json_t *seen; /* names that were looked up: an object as a set */
    bool nomem;
} binder;

static void *keep(binder *b, size_t bytes)
{
    void *p = au_arena_alloc(&b->net->arena, bytes);
    if (!p)
        b->nomem = true;
    return p;
}

static const au_tensor *find(binder *b, const char *name)
{
    const au_tensor *t = au_tensor_set_find(b->tensors, name);
    if (t && json_object_set_new(b->seen, name, json_true()) != 0)
        b->nomem = true;
    return t;
}

/* The tensor, checked; NULL after noting a problem. */
static const au_tensor *checked(binder *b, const au_tensor *t, const char *name, int rank,
                                const int64_t *shape)
{
    if (!t) {
        au_mg_problem(b->p, AU_CORRUPT, "tensor %s is missing", name);
        return NULL;
    }
    if (t->dtype > AU_BF16) {
        au_mg_problem(b->p, AU_CORRUPT, "tensor %s has element type %s, expected F32, F16 or BF16",
                      name, au_dtype_name(t->dtype));
        return NULL;
    }
    if (t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0) {
        char found[128], expected[128];
        au_mg_problem(b->p, AU_CORRUPT, "tensor %s has shape %s, expected %s", name,
                      au_tensor_shape_text(found, sizeof found, t->rank, t->shape),
                      au_tensor_shape_text(expected, sizeof expected, rank, shape));
        return NULL;
    }
    return t;
}

static const au_tensor *want(binder *b, const char *name, int rank, const int64_t *shape)
{
    return checked(b, find(b, name), name, rank, shape);
}

static const float *widened(binder *b, const au_tensor *t)
{
    if (!t)
        return NULL;
    size_t n = (size_t)au_tensor_elements(t);
    float *p = keep(b, n * sizeof *p);
    if (p)
        au_tensor_read_f32(t, 0, n, p);
    return p;
}

static const float *vector(binder *b, int64_t n, const char *path, const char *leaf)
{
    char name[256];
    snprintf(name, sizeof name, "%s.%s", path, leaf);
    return widened(b, want(b, name, 1, (int64_t[]){n}));
}

static au_mat matrix_of(const au_tensor *t)
{
    return t ? (au_mat){t->data, t->dtype, (size_t)t->shape[0], (size_t)t->shape[1]} : (au_mat){0};
}

static au_mat matrix(binder *b, int64_t rows, int64_t cols, const char *path, const char *leaf)
{
    char name[256];
    snprintf(name, sizeof name, "%s.%s", path, leaf);
    return matrix_of(want(b, name, 2, (int64_t[]){rows, cols}));
}

/* Lists a module that adapters can address; returns its handle. */
static int module(binder *b, const char *path, au_module_kind kind, int64_t in, int64_t out,
                  bool has_bias, const char *weight)
{
    au_net *net = b->net;
    if (net->n_modules == net->cap_modules)
        return -1; /* the table was sized for all: only after an allocation failed */
    au_module *m = &net->modules[net->n_modules];
    char name[256];
    snprintf(name, sizeof name, "%s.bias", path);
    *m = (au_module){
        .path = au_arena_strdup(&net->arena, path),
        .kind = kind,
        .in = in,
        .out = out,
        .has_bias = has_bias,
        .weight = au_tensor_set_find(b->tensors, weight),
        .bias = has_bias ? au_tensor_set_find(b->tensors, name) : NULL,
    };
    if (!m->path)
        b->nomem = true;
    return (int)net->n_modules++;
}

static au_linear linear(binder *b, int64_t out, int64_t in, bool bias, const char *fmt, ...)
    AU_PRINTF(5, 6);
static au_linear linear(binder *b, int64_t out, int64_t in, bool bias, const char *fmt, ...)
{
    char path[200], name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    snprintf(name, sizeof name, "%s.weight", path);
    au_linear l = {.w = matrix_of(want(b, name, 2, (int64_t[]){out, in}))};
    if (bias)
        l.bias = vector(b, out, path, "bias");
    l.module = module(b, path, AU_MODULE_LINEAR, in, out, bias, name);
    return l;
}

static au_norm norm(binder *b, int64_t n, float eps, bool rms, const char *fmt, ...)
    AU_PRINTF(5, 6);
static au_norm norm(binder *b, int64_t n, float eps, bool rms, const char *fmt, ...)
{
    char path[200], name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    au_norm result = {.n = (size_t)n, .eps = eps, .rms = rms};
    result.w = vector(b, n, path, "weight");
    if (!rms)
        result.b = vector(b, n, path, "bias");
    snprintf(name, sizeof name, "%s.weight", path);
    result.module = module(b, path, AU_MODULE_NORM, 0, n, !rms, name);
    return result;
}

/* ---- Text encoder ---- */

static void bind_position_bias(binder *b)
{
    const mg_config *c = &b->net->config;
    const char *name =
        "text_encoder.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    const au_tensor *t = want(b, name, 2, (int64_t[]){c->text.buckets, c->text.heads});
    const float *stored = widened(b, t);
    size_t buckets = (size_t)c->text.buckets, heads = (size_t)c->text.heads;
    float *bias = keep(b, buckets * heads * sizeof *bias);
    if (!stored || !bias)
        return;
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < buckets; i++)
            bias[h * buckets + i] = stored[i * heads + h];
    b->net->text.position_bias = bias;
}

static void bind_text(binder *b)
{
    au_net *net = b->net;
    const mg_config *c = &net->config;
    int64_t D = c->text.width, inner = c->text.inner, ffn = c->text.ffn;
    /* One table under one of two names, or under both. */
    const char *shared = "text_encoder.shared.weight",
               *tied = "text_encoder.encoder.embed_tokens.weight";
    const au_tensor *copy = find(b, tied), *table = find(b, shared);
    if (!table)
        table = copy;
    table = checked(b, table, shared, 2, (int64_t[]){c->text.vocab, D});
    net->text.embed.w = matrix_of(table);
    net->text.embed.module = module(b, "text_encoder.shared", AU_MODULE_EMBEDDING, c->text.vocab, D,
                                    false, table ? table->name : shared);
    net->text.layers = keep(b, (size_t)c->text.layers * sizeof *net->text.layers);
    if (!net->text.layers)
        return;
    for (int i = 0; i < c->text.layers; i++) {
        mg_text_layer *l = &net->text.layers[i];
        const char *block = "text_encoder.encoder.block";
        l->attn_norm = norm(b, D, c->text.eps, true, "%s.%d.layer.0.layer_norm", block, i);
        l->q = linear(b, inner, D, false, "%s.%d.layer.0.SelfAttention.q", block, i);
        l->k = linear(b, inner, D, false, "%s.%d.layer.0.SelfAttention.k", block, i);
        l->v = linear(b, inner, D, false, "%s.%d.layer.0.SelfAttention.v", block, i);
        l->o = linear(b, D, inner, false, "%s.%d.layer.0.SelfAttention.o", block, i);
        l->ffn_norm = norm(b, D, c->text.eps, true, "%s.%d.layer.1.layer_norm", block, i);
        if (c->text.gated) {
            l->wi = linear(b, ffn, D, false, "%s.%d.layer.1.DenseReluDense.wi_0", block, i);
            l->wi_gate = linear(b, ffn, D, false, "%s.%d.layer.1.DenseReluDense.wi_1", block, i);
        } else {
            l->wi = linear(b, ffn, D, false, "%s.%d.layer.1.DenseReluDense.wi", block, i);
        }
        l->wo = linear(b, D, ffn, false, "%s.%d.layer.1.DenseReluDense.wo", block, i);
    }
    bind_position_bias(b);
    net->text.final_norm = norm(b, D, c->text.eps, true, "text_encoder.encoder.final_layer_norm");
    net->has_proj = D != c->lm.width;
    if (net->has_proj)
        net->proj = linear(b, c->lm.width, D, true, "enc_to_dec_proj");
}

/* ---- Decoder ---- */

static void bind_head(binder *b, int k)
{
    au_net *net = b->net;
    const mg_config *c = &net->config;
    char name[64];
    snprintf(name, sizeof name, "decoder.lm_heads.%d.weight", k);
    if (c->lm.tied && !au_tensor_set_find(b->tensors, name)) {
        /* The first V rows of the embedding; its last is the pad token, which no head predicts. */
        net->lm.heads[k] = (au_linear){net->lm.embed[k].w, NULL, -1};
        net->lm.heads[k].w.rows = (size_t)c->lm.vocab;
        return;
    }
    net->lm.heads[k] = linear(b, c->lm.vocab, c->lm.width, false, "decoder.lm_heads.%d", k);
}

static void bind_lm(binder *b)
{
    au_net *net = b->net;
    const mg_config *c = &net->config;
    int64_t d = c->lm.width, ffn = c->lm.ffn;
    const float eps = 1e-5f; /* torch.nn.LayerNorm's default; the config has no field for it */
    const char *prefix = "decoder.model.decoder";
    for (int k = 0; k < c->lm.codebooks; k++) {
        char path[64], name[80];
        snprintf(path, sizeof path, "%s.embed_tokens.%d", prefix, k);
        snprintf(name, sizeof name, "%s.weight", path);
        net->lm.embed[k].w = matrix_of(want(b, name, 2, (int64_t[]){c->lm.vocab + 1, d}));
        net->lm.embed[k].module =
            module(b, path, AU_MODULE_EMBEDDING, c->lm.vocab + 1, d, false, name);
    }
    net->lm.layers = keep(b, (size_t)c->lm.layers * sizeof *net->lm.layers);
    net->lm.freqs = keep(b, (size_t)(d / 2) * sizeof *net->lm.freqs);
    if (!net->lm.layers || !net->lm.freqs)
        return;
    au_nn_sinusoid_freqs(net->lm.freqs, (size_t)d);
    for (int i = 0; i < c->lm.layers; i++) {
        mg_lm_layer *l = &net->lm.layers[i];
        l->self_norm = norm(b, d, eps, false, "%s.layers.%d.self_attn_layer_norm", prefix, i);
        l->q = linear(b, d, d, false, "%s.layers.%d.self_attn.q_proj", prefix, i);
        l->k = linear(b, d, d, false, "%s.layers.%d.self_attn.k_proj", prefix, i);
        l->v = linear(b, d, d, false, "%s.layers.%d.self_attn.v_proj", prefix, i);
        l->o = linear(b, d, d, false, "%s.layers.%d.self_attn.out_proj", prefix, i);
        l->cross_norm = norm(b, d, eps, false, "%s.layers.%d.encoder_attn_layer_norm", prefix, i);
        l->cross_q = linear(b, d, d, false, "%s.layers.%d.encoder_attn.q_proj", prefix, i);
        l->cross_k = linear(b, d, d, false, "%s.layers.%d.encoder_attn.k_proj", prefix, i);
        l->cross_v = linear(b, d, d, false, "%s.layers.%d.encoder_attn.v_proj", prefix, i);
        l->cross_o = linear(b, d, d, false, "%s.layers.%d.encoder_attn.out_proj", prefix, i);
        l->ffn_norm = norm(b, d, eps, false, "%s.layers.%d.final_layer_norm", prefix, i);
        l->fc1 = linear(b, ffn, d, false, "%s.layers.%d.fc1", prefix, i);
        l->fc2 = linear(b, d, ffn, false, "%s.layers.%d.fc2", prefix, i);
    }
    net->lm.final_norm = norm(b, d, eps, false, "%s.layer_norm", prefix);
    for (int k = 0; k < c->lm.codebooks; k++)
        bind_head(b, k);
}

/* ---- Codec ---- */

/* The weight of a convolution, [dim0, dim1, kernel] in torch's order, folded to f32: stored whole,
 * or as direction and length in one of two spellings. The norm is over all axes but the first.
 * Owned by the caller (free). */
static float *folded(binder *b, const char *path, int64_t dim0, int64_t dim1, int64_t kernel)
{
    static const char *const spellings[][2] = {
        {"weight_v", "weight_g"},
        {"parametrizations.weight.original1", "parametrizations.weight.original0"}};
    const int64_t shape[] = {dim0, dim1, kernel};
    char name[256], length_name[256];
    snprintf(name, sizeof name, "%s.weight", path);
    const au_tensor *v = find(b, name), *g = NULL;
    for (size_t i = 0; !v && i < 2; i++) {
        snprintf(name, sizeof name, "%s.%s", path, spellings[i][0]);
        snprintf(length_name, sizeof length_name, "%s.%s", path, spellings[i][1]);
        if ((v = find(b, name)))
            g = want(b, length_name, 3, (int64_t[]){dim0, 1, 1});
        if (v && !g)
            return NULL;
    }
    if (!v)
        snprintf(name, sizeof name, "%s.weight (or weight_v, or parametrizations.weight.original1)",
                 path);
    if (!(v = checked(b, v, name, 3, shape)))
        return NULL;
    size_t rest = (size_t)(dim1 * kernel);
    float *w = malloc((size_t)dim0 * rest * sizeof *w);
    if (!w) {
        b->nomem = true;
        return NULL;
    }
    au_tensor_read_f32(v, 0, (size_t)dim0 * rest, w);
    for (size_t i = 0; g && i < (size_t)dim0; i++) {
        float length, *row = w + i * rest;
        double sum = 0;
        au_tensor_read_f32(g, i, 1, &length);
        for (size_t j = 0; j < rest; j++)
            sum += (double)row[j] * (double)row[j];
        float factor = (float)((double)length / sqrt(sum));
        for (size_t j = 0; j < rest; j++)
            row[j] *= factor;
    }
    return w;
}

static au_conv1d conv(binder *b, int out, int in, int kernel, int dilation, const char *fmt, ...)
    AU_PRINTF(6, 7);
static au_conv1d conv(binder *b, int out, int in, int kernel, int dilation, const char *fmt, ...)
{
    const mg_config *c = &b->net->config;
    char path[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    size_t span = (size_t)(kernel - 1) * (size_t)dilation;
    au_conv1d cv = {.in = (size_t)in,
                    .out = (size_t)out,
                    .kernel = (size_t)kernel,
                    .dilation = (size_t)dilation};
    cv.pad_right = c->codec.causal ? 0 : span / 2;
    cv.pad_left = span - cv.pad_right;
    cv.pad_mode = c->codec.pad_mode;
    float *w = folded(b, path, out, in, kernel);
    cv.bias = vector(b, out, path, "bias");
    float *swapped = w ? keep(b, cv.out * cv.in * cv.kernel * sizeof *swapped) : NULL;
    for (size_t o = 0; swapped && o < cv.out; o++)
        for (size_t i = 0; i < cv.in; i++)
            for (size_t t = 0; t < cv.kernel; t++)
                swapped[(o * cv.kernel + t) * cv.in + i] = w[(o * cv.in + i) * cv.kernel + t];
    cv.w = swapped;
    free(w);
    return cv;
}

static au_convtr1d convtr(binder *b, int in, int out, int stride, const char *path)
{
    const mg_config *c = &b->net->config;
    size_t s = (size_t)stride, n_in = (size_t)in, n_out = (size_t)out;
    au_convtr1d cv = {.in = n_in, .out = n_out, .stride = s};
    size_t right =
        c->codec.causal ? (size_t)ceil((double)stride * c->codec.trim_right_ratio) : s / 2;
    cv.trim_left = s - right;
    float *w = folded(b, path, in, out, 2 * stride);
    const float *bias = vector(b, out, path, "bias");
    /* Sizes are the file's own once the tensors were found: allocate only then. */
    bool found = w && bias;
    float *rows = found ? keep(b, s * n_out * 2 * n_in * sizeof *rows) : NULL;
    float *repeated = found ? keep(b, s * n_out * sizeof *repeated) : NULL;
    bool complete = rows && repeated;
    for (size_t p = 0; complete && p < s; p++)
        for (size_t o = 0; o < n_out; o++) {
            float *row = rows + (p * n_out + o) * 2 * n_in;
            for (size_t i = 0; i < n_in; i++) {
                row[i] = w[(i * n_out + o) * 2 * s + p + s];
                row[n_in + i] = w[(i * n_out + o) * 2 * s + p];
            }
            repeated[p * n_out + o] = bias[o];
        }
    cv.w = rows;
    cv.bias = repeated;
    free(w);
    return cv;
}

static void bind_lstm(binder *b, int64_t H)
{
    const char *path = "audio_encoder.decoder.layers.1.lstm";
    for (int i = 0; i < b->net->config.codec.n_lstm; i++) {
        au_lstm_layer *l = &b->net->codec.lstm[i];
        char leaf[32];
        snprintf(leaf, sizeof leaf, "weight_ih_l%d", i);
        l->w_ih = matrix(b, 4 * H, H, path, leaf);
        snprintf(leaf, sizeof leaf, "weight_hh_l%d", i);
        l->w_hh = matrix(b, 4 * H, H, path, leaf);
        snprintf(leaf, sizeof leaf, "bias_ih_l%d", i);
        l->b_ih = vector(b, 4 * H, path, leaf);
        snprintf(leaf, sizeof leaf, "bias_hh_l%d", i);
        l->b_hh = vector(b, 4 * H, path, leaf);
    }
}

static void bind_codec(binder *b)
{
    au_net *net = b->net;
    const mg_config *c = &net->config;
    const char *prefix = "audio_encoder.decoder.layers";
    for (int q = 0; q < c->lm.codebooks / c->lm.channels; q++) {
        char path[80];
        snprintf(path, sizeof path, "audio_encoder.quantizer.layers.%d.codebook", q);
        net->codec.codebooks[q] =
            matrix(b, c->codec.codebook_size, c->codec.codebook_dim, path, "embed");
    }
    int channels = c->codec.filters << c->codec.n_ratios, layer = 2;
    net->codec.first = conv(b, channels, c->codec.hidden, c->codec.kernel, 1, "%s.0.conv", prefix);
    bind_lstm(b, channels);
    for (int s = 0; s < c->codec.n_ratios; s++) {
        mg_stage *stage = &net->codec.stages[s];
        char path[200];
        layer++; /* an ELU without parameters */
        snprintf(path, sizeof path, "%s.%d.conv", prefix, layer++);
        stage->up = convtr(b, channels, channels / 2, c->codec.ratios[s], path);
        channels /= 2;
        int dilation = 1, narrow = channels / c->codec.compress;
        for (int r = 0; r < c->codec.n_residual;
             r++, layer++, dilation *= c->codec.dilation_growth) {
            mg_residual *res = &stage->residual[r];
            res->wide = conv(b, narrow, channels, c->codec.residual_kernel, dilation,
                             "%s.%d.block.1.conv", prefix, layer);
            res->narrow = conv(b, channels, narrow, 1, 1, "%s.%d.block.3.conv", prefix, layer);
            if (c->codec.shortcut)
                res->shortcut =
                    conv(b, channels, channels, 1, 1, "%s.%d.shortcut.conv", prefix, layer);
        }
    }
    net->codec.last =
        conv(b, 1, channels, c->codec.last_kernel, 1, "%s.%d.conv", prefix, layer + 1);
}

static bool passed_over(const char *name)
{
    return strncmp(name, "audio_encoder.encoder.", 22) == 0 ||
           strncmp(name, "audio_encoder.quantizer.", 24) == 0 ||
           strcmp(name, "decoder.model.decoder.embed_positions.weights") == 0;
}

au_status au_mg_weights_bind(au_net *net, const au_tensor_set *tensors, mg_problems *p, au_err *err)
{
    const mg_config *c = &net->config;
    binder b = {.net = net, .tensors = tensors, .p = p, .seen = json_object()};
    net->tensors = tensors;
    net->cap_modules =
        16 + (size_t)c->text.layers * 9 + (size_t)c->lm.layers * 13 + 2 * MG_MAX_CODEBOOKS;
    net->modules = keep(&b, net->cap_modules * sizeof *net->modules);
    if (b.seen && net->modules) {
        bind_text(&b);
        bind_lm(&b);
        bind_codec(&b);
    }
    for (size_t i = 0; b.seen && i < au_tensor_set_count(tensors); i++) {
        const char *name = au_tensor_set_at(tensors, i)->name;
        if (!passed_over(name) && !json_object_get(b.seen, name))
            au_mg_problem(p, AU_CORRUPT, "tensor %s is not part of this model", name);
    }
    bool nomem = b.nomem || !b.seen || !net->modules;
    json_decref(b.seen);
    return nomem ? au_fail(err, AU_NOMEM, "cannot allocate the converted weights") : AU_OK;
}
