/* SPDX-License-Identifier: MIT */
/* Layers of neural networks over f32 activations: what models are made of. No model names here.
 *
 * All functions run on the thread that owns the au_nn and spread their work over its pool; the
 * result does not depend on the number of threads (each output element is computed by one kernel
 * call whose order of sums depends on shapes alone). None allocates. Activations are row-major; M
 * counts rows (tokens, or sequences at one step). */
#ifndef AU_NN_NN_H
#define AU_NN_NN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/threads.h"
#include "kernels/kernels.h"

typedef struct au_nn {
    const au_kernels *k;
    au_pool *pool; /* borrowed */
} au_nn;

/* What an adapter at a given strength does to one module (see adapters/adapters.h for the meaning
 * of the parts). All pointers are borrowed and outlive the session that uses them. */
typedef struct au_lora {
    int rank;                    /* 0: no low-rank part */
    float scale;                 /* strength times the adapter's own scale */
    const float *a;              /* linear [rank, in]; embedding [n, rank] */
    const float *b;              /* [out, rank] */
    const float *bias;           /* [out], already scaled; NULL: none */
    const float *factor;         /* [out] DoRA; NULL: none */
    const float *replace_weight; /* [out, in]; embedding [n, out]; norm [out]; NULL: keep */
    const float *replace_bias;   /* [out]; NULL: keep */
} au_lora;

enum { AU_LORA_MAX_RANK = 4096 };

/* An adapter at a strength, by module: loras[module] is NULL where it changes nothing. */
typedef struct au_applied {
    const au_lora *const *loras;
    size_t n;
} au_applied;

static inline const au_lora *au_applied_lora(const au_applied *applied, int module)
{
    return applied && module >= 0 && (size_t)module < applied->n ? applied->loras[module] : NULL;
}

/* A matrix of weights as stored: F32, F16 or BF16, row-major [rows, cols], any alignment. Borrowed.
 */
typedef struct au_mat {
    const void *data;
    au_dtype dtype;
    size_t rows, cols;
} au_mat;

typedef struct au_linear {
    au_mat w;          /* [out, in] */
    const float *bias; /* [out] or NULL */
    int module;        /* handle for adapters; -1: none can address it */
} au_linear;

/* y[m, :] = W x[m, :] + bias, each row with its adapter. Rows x may overlap (ldx < in) where
 * applied is NULL. */
typedef struct au_linear_op {
    float *y; /* [M, out], row stride ldy */
    size_t ldy;
    const float *x; /* [M, in], row stride ldx */
    size_t ldx;
    const au_linear *l;
    size_t M;
    const au_applied *const *applied; /* [M], entries may be NULL; NULL: none */
} au_linear_op;

/* Runs several independent products in one go (q, k and v of one input, say). n <= AU_LINEAR_OPS.
 */
enum { AU_LINEAR_OPS = 32 };
void au_nn_linear(const au_nn *nn, const au_linear_op *ops, size_t n);

/* LayerNorm (with bias) or RMSNorm, row by row. y may be x. */
typedef struct au_norm {
    const float *w, *b; /* [n]; b NULL for RMS */
    size_t n;
    float eps;
    bool rms;
    int module;
} au_norm;
void au_nn_norm(const au_nn *nn, float *y, const float *x, const au_norm *norm, size_t M,
                const au_applied *const *applied);

typedef struct au_embed {
    au_mat w; /* [n, d] */
    int module;
} au_embed;
/* y[d] = row `id` of the table, with the adapter. scratch [d]. */
void au_nn_embed(const au_nn *nn, float *y, const au_embed *e, size_t id, const au_applied *applied,
                 float *scratch);

/* Applies fn to n elements in place, in blocks over the pool. */
void au_nn_map(const au_nn *nn, void (*fn)(float *, const float *, size_t), float *x, size_t n);

/* One query position against T keys, for every head:
 *   s[t] = dot(q[h], k[h, t]) * scale + bias[h, t];  o[h] = sum_t softmax(s)[t] * v[h, t].
 * q, o [H, D] contiguous. Key t of head h is at k + h * head_stride + t * row_stride (elements),
 * values likewise. */
typedef struct au_attend {
    float *o;
    const float *q, *k, *v;
    size_t head_stride, row_stride;
    size_t T;
    const float *bias; /* bias of head h at bias + h * bias_stride; NULL: none */
    size_t bias_stride;
} au_attend;
/* n queries, H heads of D. scores: [threads, max_T] scratch. */
void au_nn_attention(const au_nn *nn, const au_attend *queries, size_t n, size_t H, size_t D,
                     float scale, float *scores, size_t max_T);

/* Fixed sinusoids of MusicGen: y[d] for a position: cos in the first half, sin in the second,
 * frequencies exp(-i ln(10000) / (d/2 - 1)); angles formed in f32 as torch does. freqs [d/2] from
 * au_nn_sinusoid_freqs. An odd d ends with a zero. */
void au_nn_sinusoid_freqs(float *freqs, size_t d);
void au_nn_sinusoid(float *y, const float *freqs, size_t d, size_t position);

/* A unidirectional LSTM of torch.nn.LSTM: gates i, f, g, o. */
typedef struct au_lstm_layer {
    au_mat w_ih, w_hh;        /* [4H, in], [4H, H] */
    const float *b_ih, *b_hh; /* [4H] */
} au_lstm_layer;
/* One layer over T more steps of B sequences, from the state that the last call left (zero it
 * before the first). y[b] [T, H] from x[b] [T, in]; y[b] may be x[b] where in = H. state [2, B, H];
 * gates: scratch [B, T + 1, 4H]. */
void au_nn_lstm(const au_nn *nn, float *const *y, const float *const *x, size_t B, size_t T,
                const au_lstm_layer *l, float *state, float *gates);

#endif
