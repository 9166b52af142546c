/* SPDX-License-Identifier: MIT */
/* The matrix product for AVX2. Two registers hold the 16 partial sums of an output; 3 x 2 tiles
 * fill 15 of the 16 registers (12 of sums, 2 of w, 1 of x) and load 5 vectors for 6 products. */
#include "kernels/lanes_avx2.h"

enum {
    MR = 3,
    NR = 2,
    MR_WIDE = 1,
    NR_WIDE = 4,
    MR_COLUMN = 4,
};

#include "kernels/gemm_impl.h"

/* clang-format off */
#define UP_TO_3(type, packed, ahead)                                                               \
    TILE(type, 1, 2, packed, ahead)                                                                \
    TILE(type, 2, 2, packed, ahead)                                                                \
    TILE(type, 3, 2, packed, ahead)
#define TILES(type)                                                                                \
    TILE(type, 1, 4, 1, 4)                                                                         \
    UP_TO_3(type, 1, 2) UP_TO_3(type, 1, 1) UP_TO_3(type, 1, 0) UP_TO_3(type, 0, 0)                \
    TILE(type, 4, 1, 0, 0) TILE(type, 1, 1, 0, 0)
/* clang-format on */
TILES(F32)
TILES(F16)
TILES(BF16)

/* clang-format off */
#define ROW(type, what)                                                                            \
    {tile_##type##_1x2_##what, tile_##type##_2x2_##what, tile_##type##_3x2_##what}
#define SET(type)                                                                                  \
    {                                                                                              \
        .wide = {tile_##type##_1x4_14},                                                            \
        .packed = {ROW(type, 10), ROW(type, 11), ROW(type, 11), ROW(type, 12)},                    \
        .direct = ROW(type, 00),                                                                   \
        .columns = tile_##type##_4x1_00,                                                           \
        .column = tile_##type##_1x1_00,                                                            \
    }
/* clang-format on */
static const struct tiles tile_set[3] = {
    [AU_F32] = SET(F32), [AU_F16] = SET(F16), [AU_BF16] = SET(BF16)};

void au_gemm_avx2(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
                  size_t ldw, size_t M, size_t N, size_t K)
{
    gemm(y, ldy, x, ldx, w, wtype, ldw, M, N, K);
}

void au_dot_rows_avx2(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K)
{
    op_dot_rows(s, q, k, ldk, T, K);
}
