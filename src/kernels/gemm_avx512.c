/* SPDX-License-Identifier: MIT */
/* The matrix product for AVX-512. One register holds the 16 partial sums of an output; 6 x 4 tiles
 * fill 29 of the 32 registers (24 of sums, 4 of w, 1 of x) and load 10 vectors for 24 products. */
#include "kernels/lanes_avx512.h"

enum {
    MR = 6,
    NR = 4,
    MR_WIDE = 3,
    NR_WIDE = 8,
    MR_COLUMN = 16,
};

#include "kernels/gemm_impl.h"

/* clang-format off */
#define UP_TO_6(type, packed, ahead)                                                               \
    TILE(type, 1, 4, packed, ahead) TILE(type, 2, 4, packed, ahead)                                \
    TILE(type, 3, 4, packed, ahead) TILE(type, 4, 4, packed, ahead)                                \
    TILE(type, 5, 4, packed, ahead) TILE(type, 6, 4, packed, ahead)
#define TILES(type)                                                                                \
    TILE(type, 1, 8, 1, 8) TILE(type, 2, 8, 1, 8) TILE(type, 3, 8, 1, 8)                           \
    UP_TO_6(type, 1, 4) UP_TO_6(type, 1, 2) UP_TO_6(type, 1, 1) UP_TO_6(type, 1, 0)                \
    UP_TO_6(type, 0, 0)                                                                            \
    TILE(type, 16, 1, 0, 0) TILE(type, 1, 1, 0, 0)
/* clang-format on */
TILES(F32)
TILES(F16)
TILES(BF16)

/* clang-format off */
#define ROW(type, what)                                                                            \
    {tile_##type##_1x4_##what, tile_##type##_2x4_##what, tile_##type##_3x4_##what,                 \
     tile_##type##_4x4_##what, tile_##type##_5x4_##what, tile_##type##_6x4_##what}
#define SET(type)                                                                                  \
    {                                                                                              \
        .wide = {tile_##type##_1x8_18, tile_##type##_2x8_18, tile_##type##_3x8_18},                \
        .packed = {ROW(type, 10), ROW(type, 11), ROW(type, 12), ROW(type, 14)},                    \
        .direct = ROW(type, 00),                                                                   \
        .columns = tile_##type##_16x1_00,                                                          \
        .column = tile_##type##_1x1_00,                                                            \
    }
/* clang-format on */
static const struct tiles tile_set[3] = {
    [AU_F32] = SET(F32), [AU_F16] = SET(F16), [AU_BF16] = SET(BF16)};

void au_gemm_avx512(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
                    size_t ldw, size_t M, size_t N, size_t K)
{
    gemm(y, ldy, x, ldx, w, wtype, ldw, M, N, K);
}

void au_dot_rows_avx512(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K)
{
    op_dot_rows(s, q, k, ldk, T, K);
}
