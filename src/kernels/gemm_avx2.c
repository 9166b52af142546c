/* SPDX-License-Identifier: MIT */
/* The matrix product for AVX2. Two registers hold the 16 partial sums of an output; 3 x 2 tiles
 * fill 15 of the 16 registers (12 of sums, 2 of w, 1 of x) and load 5 vectors for 6 products. */
#include "kernels/lanes_avx2.h"

enum { MR = 3, NR = 2, MR_WIDE = 1, NR_WIDE = 4, MR_COLUMN = 4, SHARE_HALF = 1, SHARE_QUARTER = 1 };

#include "kernels/gemm_impl.h"

/* clang-format off */
#define TILES(type)                                                                                                    \
    TILE(type, 1, 4, 1, 4)                                                                                             \
    TILE(type, 1, 2, 1, 2) TILE(type, 2, 2, 1, 2) TILE(type, 3, 2, 1, 2)                                               \
    TILE(type, 2, 2, 1, 1) TILE(type, 3, 2, 1, 1)                                                                      \
    TILE(type, 1, 2, 0, 0) TILE(type, 2, 2, 0, 0) TILE(type, 3, 2, 0, 0)                                               \
    TILE(type, 4, 1, 0, 0) TILE(type, 1, 1, 0, 0)
/* clang-format on */
TILES(F32)
TILES(F16)
TILES(BF16)

/* Four rows and more make groups of two or three. */
#define SET(type)                                                                                  \
    {                                                                                              \
        .wide = {tile_##type##_1x4_14},                                                            \
        .main = {tile_##type##_1x2_12, tile_##type##_2x2_12, tile_##type##_3x2_12},                \
        .half = {NULL, tile_##type##_2x2_11, tile_##type##_3x2_11},                                \
        .quarter = {NULL, tile_##type##_2x2_11, tile_##type##_3x2_11},                             \
        .direct = {tile_##type##_1x2_00, tile_##type##_2x2_00, tile_##type##_3x2_00},              \
        .columns = tile_##type##_4x1_00, .column = tile_##type##_1x1_00,                           \
    }
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
