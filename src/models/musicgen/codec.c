/* SPDX-License-Identifier: MIT */
/* The EnCodec decoder (transformers' EncodecDecoder), per channel:
 *
 *   z[f] = sum over q of codebook_q[code[q, f]]                        [F, hidden]
 *   conv kernel -> LSTM(x) + x                                         [F, filters * 2^n]
 *   per ratio: ELU, transposed conv (half the channels, ratio times the frames), residual blocks x
 * + conv1(ELU(conv(ELU(x)))) ELU, conv -> 1                                                     [F
 * * hop]
 *
 * The LSTM is causal and runs through the clip once, block by block. Everything behind it has a
 * short reach, so the output is made in chunks: for each, the stretch of input that every layer
 * needs is worked out backwards, and what two chunks share is computed twice. A layer pads by the
 * position in the whole clip, so chunks join to the bits of a whole-clip decode. Chunks are the
 * items of work of the pool; each thread has its own scratch. A clip is decoded a stretch at a
 * time: what must last between two stretches is the clip's, scratch is whoever's turn it is. */
#include "models/musicgen/musicgen.h"

#include <string.h>

enum {
    CHUNK_SAMPLES =
        8192,         /* output of a chunk: its widest layer stays near the second-level cache */
    LSTM_BLOCK = 256, /* frames between two questions whether to go on */
    MAX_LAYERS = MG_MAX_STAGES * (1 + MG_MAX_RESIDUAL) + 1,
};

/* The layers behind the LSTM in order, each one of three kinds. */
typedef struct layer {
    const au_convtr1d *up;
    const mg_residual *residual;
    const au_conv1d *conv;
} layer;

static size_t list_layers(const au_net *net, layer *layers)
{
    const mg_config *c = &net->config;
    size_t n = 0;
    for (int s = 0; s < c->codec.n_ratios; s++) {
        layers[n++] = (layer){.up = &net->codec.stages[s].up};
        for (int r = 0; r < c->codec.n_residual; r++)
            layers[n++] = (layer){.residual = &net->codec.stages[s].residual[r]};
    }
    layers[n++] = (layer){.conv = &net->codec.last};
    return n;
}

static size_t layer_out(const layer *l)
{
    return l->up ? l->up->out : l->residual ? l->residual->narrow.out : l->conv->out;
}

static int64_t layer_rate(const layer *l)
{
    return l->up ? (int64_t)l->up->stride : 1;
}

/* What the layer needs for outputs [first, first + len) of `total`, in frames of its input. */
static void layer_need(const layer *l, int64_t first, int64_t len, int64_t total,
                       int64_t *need_first, int64_t *need_len)
{
    if (l->up)
        au_convtr1d_need(l->up, first, len, total, need_first, need_len);
    else if (l->conv)
        au_conv1d_need(l->conv, first, len, total, need_first, need_len);
    else {
        /* The skip connection needs the outputs' own positions too. */
        au_conv1d_need(&l->residual->wide, first, len, total, need_first, need_len);
        int64_t end = *need_first + *need_len;
        if (end < first + len)
            end = first + len;
        if (*need_first > first)
            *need_first = first;
        *need_len = end - *need_first;
    }
}

/* ---- Sizes ---- */

typedef struct chunk_plan {
    int64_t frames;    /* codec frames of a chunk */
    size_t activation; /* floats of each of the two buffers that layers write in turn */
    size_t work;       /* floats of scratch for one layer */
} chunk_plan;

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static chunk_plan plan_chunks(const au_net *net)
{
    layer layers[MAX_LAYERS];
    size_t n = list_layers(net, layers);
    chunk_plan p = {.frames = CHUNK_SAMPLES / net->config.codec.hop};
    if (p.frames < 1)
        p.frames = 1;
    /* Lengths in the middle of an endless clip, plus what mirrored padding near an end may ask for.
     */
    const int64_t far = (int64_t)1 << 40;
    int64_t len = p.frames * net->config.codec.hop;
    for (size_t i = n; i-- > 0;) {
        const layer *l = &layers[i];
        int64_t first, need, reach = 0;
        size_t work;
        layer_need(l, far, len, 4 * far, &first, &need);
        if (l->up) {
            work = au_convtr1d_scratch(l->up, len);
        } else if (l->conv) {
            work = au_conv1d_scratch(l->conv, len);
            reach = (int64_t)((l->conv->kernel - 1) * l->conv->dilation);
        } else {
            const mg_residual *r = l->residual;
            work = (size_t)len * (r->wide.out + (r->shortcut.w ? r->shortcut.out : 0)) +
                   max_size(max_size(au_conv1d_scratch(&r->wide, len),
                                     au_conv1d_scratch(&r->narrow, len)),
                            r->shortcut.w ? au_conv1d_scratch(&r->shortcut, len) : 0);
            reach = (int64_t)((r->wide.kernel - 1) * r->wide.dilation);
        }
        p.work = max_size(p.work, work);
        p.activation = max_size(p.activation, (size_t)len * layer_out(l));
        len = need + 2 * reach + 2;
    }
    return p;
}

static size_t round_up(size_t floats)
{
    return (floats + 15) & ~(size_t)15;
}

/* ---- The part up to the LSTM ---- */

struct mg_decode {
    const au_net *net;
    const au_nn *nn;
    layer layers[MAX_LAYERS];
    size_t n_layers, channels;
    int64_t frames;
    chunk_plan plan;
    size_t block;     /* frames of a block of the LSTM */
    float *z[2];      /* [F, hidden] per channel */
    float *hidden[2]; /* [F, H] behind the LSTM, per channel */
    float *skip[2];   /* [block, H] */
    float *states[MG_MAX_LSTM];
    float *out;
    float *scratch;      /* of this call; per thread: two activations and the work space */
    int64_t lstm_done;   /* frames */
    int64_t first_chunk; /* of the running batch, or the next */
};

static void sum_codebooks(const au_net *net, const au_kernels *k, const int32_t *codes,
                          size_t frames, float *z, float *row)
{
    const mg_config *c = &net->config;
    size_t dim = (size_t)c->codec.codebook_dim, K = (size_t)(c->lm.codebooks / c->lm.channels);
    for (size_t f = 0; f < frames; f++)
        for (size_t q = 0; q < K; q++) {
            const au_mat *m = &net->codec.codebooks[q];
            const char *entry = (const char *)m->data +
                                (size_t)codes[q * frames + f] * dim * au_dtype_bytes(m->dtype);
            k->widen(q ? row : z + f * dim, entry, m->dtype, dim);
            if (q)
                k->add(z + f * dim, z + f * dim, row, dim);
        }
}

/* A block of frames through the first convolution and the LSTM, for all channels. */
static void run_block(mg_decode *d, float *conv_scratch, float *gates, int64_t first, int64_t len)
{
    const au_net *net = d->net;
    size_t H = net->codec.first.out, n = (size_t)len;
    float *block[2];
    for (size_t ch = 0; ch < d->channels; ch++) {
        block[ch] = d->hidden[ch] + (size_t)first * H;
        const au_stretch x = {d->z[ch], 0, d->frames, d->frames},
                         y = {block[ch], first, len, d->frames};
        au_conv1d_run(d->nn->k, &net->codec.first, &y, H, &x, NULL, conv_scratch);
        memcpy(d->skip[ch], block[ch], n * H * sizeof(float));
    }
    for (int l = 0; l < net->config.codec.n_lstm; l++)
        au_nn_lstm(d->nn, block, (const float *const *)block, d->channels, n, &net->codec.lstm[l],
                   d->states[l], gates);
    for (size_t ch = 0; ch < d->channels; ch++)
        d->nn->k->add(block[ch], block[ch], d->skip[ch], n * H);
}

/* ---- The part behind it ---- */

static void run_residual(const au_kernels *k, const mg_residual *r, const au_stretch *y,
                         const au_stretch *x, float *work)
{
    size_t C = r->narrow.out, len = (size_t)y->len;
    float *narrow = work, *skip = work + len * r->wide.out;
    float *rest = skip + (r->shortcut.w ? len * C : 0);
    const au_stretch h = {narrow, y->first, y->len, y->total};
    au_conv1d_run(k, &r->wide, &h, r->wide.out, x, k->elu, rest);
    au_conv1d_run(k, &r->narrow, y, C, &h, k->elu, rest);
    const float *from = x->data + (size_t)(y->first - x->first) * C;
    if (r->shortcut.w) {
        const au_stretch s = {skip, y->first, y->len, y->total};
        au_conv1d_run(k, &r->shortcut, &s, C, x, NULL, rest);
        from = skip;
    }
    k->add(y->data, from, y->data, len * C);
}

static void run_chunk(void *ctx, size_t item, int thread)
{
    const mg_decode *d = ctx;
    const au_kernels *k = d->nn->k;
    size_t ch = item % d->channels;
    int64_t chunk = d->first_chunk + (int64_t)(item / d->channels);
    int64_t hop = d->net->config.codec.hop, total = d->frames * hop;
    int64_t first[MAX_LAYERS + 1], len[MAX_LAYERS + 1], totals[MAX_LAYERS + 1];
    size_t n = d->n_layers;
    first[n] = chunk * d->plan.frames * hop;
    len[n] = total - first[n] < d->plan.frames * hop ? total - first[n] : d->plan.frames * hop;
    totals[n] = total;
    for (size_t i = n; i-- > 0;) {
        layer_need(&d->layers[i], first[i + 1], len[i + 1], totals[i + 1], &first[i], &len[i]);
        totals[i] = totals[i + 1] / layer_rate(&d->layers[i]);
    }
    size_t per_thread = 2 * round_up(d->plan.activation) + round_up(d->plan.work);
    float *base = d->scratch + (size_t)thread * per_thread;
    float *buffers[2] = {base, base + round_up(d->plan.activation)},
          *work = base + 2 * round_up(d->plan.activation);
    size_t H = d->net->codec.first.out;
    au_stretch x = {d->hidden[ch] + (size_t)first[0] * H, first[0], len[0], totals[0]};
    for (size_t i = 0; i < n; i++) {
        const layer *l = &d->layers[i];
        au_stretch y = {buffers[i % 2], first[i + 1], len[i + 1], totals[i + 1]};
        if (l->conv) {
            y.data = d->out + (size_t)first[n] * d->channels + ch;
            au_conv1d_run(k, l->conv, &y, d->channels, &x, k->elu, work);
            break;
        }
        AU_ASSERT((size_t)y.len * layer_out(l) <= d->plan.activation);
        if (l->up)
            au_convtr1d_run(k, l->up, &y, &x, k->elu, work);
        else
            run_residual(k, l->residual, &y, &x, work);
        x = y;
    }
}

/* ---- One clip, a stretch at a time ---- */

/* Lays a clip's state out over `base`, or with base NULL works out its size. */
static size_t lay_out(mg_decode *d, const au_net *net, size_t frames, size_t channels, char *base)
{
    const mg_config *c = &net->config;
    size_t H = net->codec.first.out, floats = 0,
           block = frames < LSTM_BLOCK ? frames : (size_t)LSTM_BLOCK;
    size_t head = (sizeof *d + 63) & ~(size_t)63;
    float *at = base ? (float *)(void *)(base + head) : NULL;
    size_t sizes[3] = {round_up(frames * (size_t)c->codec.hidden), round_up(frames * H),
                       round_up(block * H)};
    for (size_t ch = 0; ch < channels; ch++) {
        float **parts[3] = {&d->z[ch], &d->hidden[ch], &d->skip[ch]};
        for (int i = 0; i < 3; i++) {
            *parts[i] = at ? at + floats : NULL;
            floats += sizes[i];
        }
    }
    for (int l = 0; l < c->codec.n_lstm; l++) {
        d->states[l] = at ? at + floats : NULL;
        floats += round_up(2 * channels * H);
    }
    d->block = block;
    return head + floats * sizeof(float);
}

size_t au_mg_codec_bytes(const au_net *net, size_t frames, size_t channels)
{
    mg_decode d;
    return lay_out(&d, net, frames, channels, NULL);
}

size_t au_mg_codec_scratch(const au_net *net, size_t channels, int threads)
{
    chunk_plan p = plan_chunks(net);
    size_t H = net->codec.first.out;
    size_t lstm = round_up(au_conv1d_scratch(&net->codec.first, LSTM_BLOCK)) +
                  round_up(channels * (LSTM_BLOCK + 1) * 4 * H);
    size_t chunks = (size_t)threads * (2 * round_up(p.activation) + round_up(p.work));
    size_t row = (size_t)net->config.codec.codebook_dim;
    return max_size(row, max_size(lstm, chunks)) * sizeof(float);
}

mg_decode *au_mg_codec_begin(const au_net *net, const au_nn *nn, const int32_t *const *codes,
                             size_t channels, size_t frames, float *out, void *memory,
                             void *scratch)
{
    mg_decode *d = memory;
    *d = (mg_decode){.net = net,
                     .nn = nn,
                     .channels = channels,
                     .frames = (int64_t)frames,
                     .out = out,
                     .plan = plan_chunks(net)};
    d->n_layers = list_layers(net, d->layers);
    (void)lay_out(d, net, frames, channels, memory);
    for (int l = 0; l < net->config.codec.n_lstm; l++)
        memset(d->states[l], 0, 2 * channels * net->codec.first.out * sizeof(float));
    for (size_t ch = 0; ch < channels; ch++)
        sum_codebooks(net, nn->k, codes[ch], frames, d->z[ch], scratch);
    return d;
}

bool au_mg_codec_next(mg_decode *d, void *scratch, size_t *frames_done)
{
    const au_net *net = d->net;
    d->scratch = scratch;
    if (d->lstm_done < d->frames) {
        float *gates =
            d->scratch + round_up(au_conv1d_scratch(&net->codec.first, (int64_t)d->block));
        int64_t rest = d->frames - d->lstm_done, block = (int64_t)d->block;
        int64_t len = rest < block ? rest : block;
        run_block(d, d->scratch, gates, d->lstm_done, len);
        d->lstm_done += len;
        *frames_done = 0;
        return true;
    }
    int64_t chunks = (d->frames + d->plan.frames - 1) / d->plan.frames;
    /* Two chunks a thread. */
    int64_t batch = 2 * au_pool_threads(d->nn->pool), rest = chunks - d->first_chunk;
    int64_t n = rest < batch ? rest : batch;
    au_pool_run(d->nn->pool, (size_t)n * d->channels, run_chunk, d);
    d->first_chunk += n;
    int64_t done = d->first_chunk * d->plan.frames;
    *frames_done = (size_t)(done < d->frames ? done : d->frames);
    return d->first_chunk < chunks;
}
