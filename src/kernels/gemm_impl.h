/* SPDX-License-Identifier: MIT */
/* The matrix product and dot_rows over lanes, compiled once per instruction set: a file includes
 * one lanes_*.h, defines the tile sizes below, and includes this.
 *
 *   MR, NR        the main tile: MR rows of x by NR rows of w
 *   MR_WIDE, NR_WIDE  the tile for up to MR_WIDE rows of x in all
 *   MR_COLUMN     rows of x against one row of w, for what NR leaves over
 *
 * A tile keeps the 16 partial sums of each of its outputs in registers all along K and applies the
 * tree at the end. Weights of 16 bits are widened as they are loaded. A further kind of weights
 * needs a load_w and a row of SET.
 *
 * Up to FEW rows of x go together, packed a step of a tile after the other: rows of 4096 bytes
 * would all lie in the same few lines of the first cache. Tiles of all these rows go down w, and
 * the steps of a tile prefetch the tile that follows, evenly, since the processor's own prefetcher
 * stops at every page. So w comes from memory at its full speed when x is short (decoding), and is
 * no hindrance when x is long and w is read once for each FEW rows. With less than PACK_N rows of w
 * packing does not pay, and with very long rows there is no room: then w is cut into blocks that
 * stay in the second cache, and x goes past each block MR rows at a time, as it lies. */
#ifndef AU_KERNELS_GEMM_IMPL_H
#define AU_KERNELS_GEMM_IMPL_H

#include "kernels/tables.h"

/* Loops of constant length, unrolled wholly so that the sums live in registers. */
#define foreach(i, n) UNROLL for (int i = 0; i < (n); i++)
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

enum {
    FEW = 60,                  /* rows of x that are packed together */
    PACK_N = 24,               /* rows of w from which packing of many rows of x pays */
    PACK_FLOATS = 128 << 10,   /* of packed x, on the stack: 16 rows of 8192 */
    W_BLOCK_BYTES = 384 << 10, /* of w that stays in the second cache */
    AHEAD_BYTES = 2048, /* in each of NR rows of w: what memory delivers in its latency, and more */
    DOT_AHEAD = 32,     /* rows of keys that dot_rows prefetches */
};

/* A product as its tiles see it. */
struct task {
    float *y;
    const float *x; /* rows ldx apart; packed: groups of rows, see pack_rows */
    const uint8_t *w;
    size_t ldy, ldx, ldw_bytes, K, padded_K;
};

INLINE vf load_w(const uint8_t *p, const au_dtype type)
{
    if (type == AU_F16)
        return vf_load_f16(p);
    if (type == AU_BF16)
        return vf_load_bf16(p);
    return vf_load((const float *)(const void *)p);
}

/* The first n < 16 elements from p on that fall into vector j of the step. */
INLINE vf load_w_tail(const uint8_t *p, const au_dtype type, size_t n)
{
    if (type == AU_F16)
        return vf_load_f16_n(p, n);
    if (type == AU_BF16)
        return vf_load_bf16_n(p, n);
    return vf_load_n((const float *)(const void *)p, n);
}

/* y[m.., n..] of mr x nr; mr, nr, type, packed and ahead are constants. `ahead` rows of the tile
 * that begins at `next` are prefetched, a line each a step: the whole tile, if nr, AHEAD_BYTES
 * before it is used, else a share of it. */
INLINE void tile(const struct task *t, size_t m, size_t n, const uint8_t *next, const int mr,
                 const int nr, const au_dtype type, const bool packed, const int ahead)
{
    const size_t size = type == AU_F32 ? 4 : 2;
    const size_t x_row = packed ? 16 : t->ldx, x_step = packed ? 16 * (size_t)mr : 16;
    const size_t K = t->K, ldw = t->ldw_bytes;
    const size_t distance = ahead < nr || K < AHEAD_BYTES / size ? K : AHEAD_BYTES / size;
    const float *x = t->x + m * (packed ? t->padded_K : t->ldx);
    const uint8_t *w = t->w + n * ldw;
    vf acc[32][NACC], wv[8];
    size_t k = 0;
    foreach (i, mr * nr) {
        foreach (l, NACC)
            acc[i][l] = vf_set1(0.0f);
    }
    for (; k + 16 <= K; k += 16) {
        const uint8_t *fetch =
            k + distance < K ? w + distance * size : next + (k + distance - K) * size;
        foreach (i, ahead)
            __builtin_prefetch(fetch + (size_t)i * ldw, 0, 3);
        foreach (l, NACC) {
            foreach (j, nr)
                wv[j] = load_w(w + (size_t)j * ldw + (size_t)(l * VL) * size, type);
            foreach (i, mr) {
                vf xv = vf_load(x + (size_t)i * x_row + l * VL);
                foreach (j, nr)
                    acc[i * nr + j][l] = vf_fma(xv, wv[j], acc[i * nr + j][l]);
            }
        }
        x += x_step;
        w += 16 * size;
    }
    foreach (l, NACC) {
        if (k + (size_t)(l * VL) >= K)
            break;
        const size_t left = K - k - (size_t)(l * VL), some = left < VL ? left : VL;
        foreach (j, nr)
            wv[j] = load_w_tail(w + (size_t)j * ldw + (size_t)(l * VL) * size, type, some);
        foreach (i, mr) {
            vf xv = vf_load_n(x + (size_t)i * x_row + l * VL, some);
            foreach (j, nr) {
                vf *a = &acc[i * nr + j][l];
                *a = vf_select(vm_first(some), vf_fma(xv, wv[j], *a), *a);
            }
        }
    }
    float out[32];
    UNROLL for (int i = 0; i + 4 <= mr * nr; i += 4)
        lanes_sum4(out + i, acc[i], acc[i + 1], acc[i + 2], acc[i + 3]);
    UNROLL for (int i = mr * nr / 4 * 4; i < mr * nr; i++) out[i] = lanes_sum(acc[i]);
    foreach (i, mr)
        memcpy(t->y + (m + (size_t)i) * t->ldy + n, out + i * nr, (size_t)nr * 4);
}

typedef void tile_fn(const struct task *t, size_t m, size_t n, const uint8_t *next);

#define TILE(type, mr, nr, packed, ahead)                                                          \
    static void tile_##type##_##mr##x##nr##_##packed##ahead(const struct task *t, size_t m,        \
                                                            size_t n, const uint8_t *next)         \
    {                                                                                              \
        tile(t, m, n, next, mr, nr, AU_##type, packed, ahead);                                     \
    }

/* The tiles of one type of weights, by rows of x minus one. */
struct tiles {
    tile_fn *wide[MR_WIDE];    /* x NR_WIDE, packed, fetching the whole next tile */
    tile_fn *packed[4][MR];    /* x NR, packed, fetching 0, 1, NR / 2, NR rows of the next tile */
    tile_fn *direct[MR];       /* x NR, not packed, fetching nothing */
    tile_fn *columns, *column; /* MR_COLUMN or one x 1, not packed */
};
static const struct tiles tile_set[3]; /* by au_dtype; defined after the tiles */

static void column(const struct tiles *f, const struct task *t, size_t M, size_t n)
{
    size_t m = 0;
    for (; m + MR_COLUMN <= M; m += MR_COLUMN)
        f->columns(t, m, n, t->w);
    for (; m < M; m++)
        f->column(t, m, n, t->w);
}

/* x in groups of rows, each group as its tiles walk it: 16 elements of its first row, of its second
 * ..., then the next
 * 16. Group g of P has M / P rows, and one more if g < M % P. */
static void pack_rows(float *out, const float *x, size_t ldx, size_t M, size_t P, size_t K)
{
    for (size_t g = 0; g < P; g++) {
        size_t rows = M / P + (g < M % P);
        for (size_t k = 0; k < K; k += 16)
            for (size_t i = 0; i < rows; i++, out += 16)
                if (k + 16 <= K)
                    memcpy(out, x + i * ldx + k, 16 * sizeof *out);
                else
                    memcpy(out, x + i * ldx + k, (K - k) * sizeof *out);
        x += rows * ldx;
    }
}

/* Returns how many rows of w it has done, all but fewer than NR. */
static size_t few_rows(const struct tiles *f, struct task *t, size_t M, size_t N)
{
    _Alignas(64) float packed[PACK_FLOATS];
    /* P groups of at most MR rows; each fetches `share` rows of the next tile, as long as there are
     * some left, which three groups cannot do evenly with four rows */
    const size_t least = (M + MR - 1) / MR, P = least == 3 && NR == 4 ? 4 : least, ldx = t->ldx;
    const size_t share = P == 1 ? NR : P == 2 ? NR / 2 : 1;
    const int fetch = P == 1 ? 3 : P == 2 ? 2 : 1;
    const float *x = t->x;
    size_t n = 0;
    if (M > 1) {
        pack_rows(packed, x, ldx, M, P, t->K);
        t->x = packed;
    }
    if (M <= MR_WIDE)
        for (; n + NR_WIDE <= N; n += NR_WIDE)
            f->wide[M - 1](t, 0, n, t->w + t->ldw_bytes * (n + 2 * NR_WIDE <= N ? n + NR_WIDE : n));
    for (; n + NR <= N; n += NR) {
        const uint8_t *next = t->w + t->ldw_bytes * (n + 2 * NR <= N ? n + NR : n);
        for (size_t g = 0, m = 0; g < P; g++) {
            size_t rows = M / P + (g < M % P);
            f->packed[g * share < NR ? fetch : 0][rows - 1](t, m, n,
                                                            next + t->ldw_bytes * g * share);
            m += rows;
        }
    }
    t->x = x;
    return n;
}

static size_t many_rows(const struct tiles *f, const struct task *t, size_t M, size_t N)
{
    size_t whole = N / NR * NR, block = W_BLOCK_BYTES / (t->ldw_bytes + 1) / NR * NR;
    if (block < NR)
        block = NR;
    for (size_t n0 = 0; n0 < whole; n0 += block) {
        size_t n1 = whole - n0 < block ? whole : n0 + block;
        for (size_t m = 0; m < M; m += MR) {
            tile_fn *fn = f->direct[(M - m < MR ? M - m : MR) - 1];
            for (size_t n = n0; n < n1; n += NR)
                fn(t, m, n, t->w);
        }
    }
    return whole;
}

static void gemm(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
                 size_t ldw, size_t M, size_t N, size_t K)
{
    const struct tiles *f = &tile_set[wtype];
    const size_t padded = (K + 15) / 16 * 16, fit = padded ? PACK_FLOATS / padded : FEW;
    const size_t most = (fit < FEW ? fit : FEW) / MR * MR;
    struct task t = {y, x, w, ldy, ldx, ldw * (wtype == AU_F32 ? 4 : 2), K, padded};
    size_t done = 0;
    if (M == 0 || N == 0)
        return;
    if (most == 0 || (M > FEW && N < PACK_N)) {
        done = many_rows(f, &t, M, N);
    } else {
        const size_t parts = (M + most - 1) / most;
        for (size_t i = 0; i < parts; i++) {
            size_t first = M * i / parts, last = M * (i + 1) / parts;
            t.x = x + first * ldx;
            t.y = y + first * ldy;
            done = few_rows(f, &t, last - first, N);
        }
        t.x = x;
        t.y = y;
    }
    for (; done < N; done++)
        column(f, &t, M, done);
}

/* Rows of keys may lie far apart, where whole rows are a few lines: so rows are prefetched, not
 * parts of rows. */
static void op_dot_rows(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K)
{
    const struct tiles *f = &tile_set[AU_F32];
    struct task t = {s, q, (const uint8_t *)(const void *)k, T, K, 4 * ldk, K, K};
    size_t n = 0;
    for (; n + NR_WIDE <= T; n += NR_WIDE)
        f->wide[0](&t, 0, n,
                   t.w + t.ldw_bytes * (n + DOT_AHEAD + NR_WIDE <= T ? n + DOT_AHEAD : n));
    for (; n < T; n++)
        f->column(&t, 0, n, t.w);
}

#endif
