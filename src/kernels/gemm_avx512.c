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
    SHARE_HALF = 2,
    SHARE_QUARTER = 1
};

#include "kernels/gemm_impl.h"

/* clang-format off */
#define TILES(type)                                                                                                    \
    TILE(type, 1, 8, 1, 8) TILE(type, 2, 8, 1, 8) TILE(type, 3, 8, 1, 8)                                               \
    TILE(type, 1, 4, 1, 4) TILE(type, 2, 4, 1, 4) TILE(type, 3, 4, 1, 4)                                               \
    TILE(type, 4, 4, 1, 4) TILE(type, 5, 4, 1, 4) TILE(type, 6, 4, 1, 4)                                               \
    TILE(type, 3, 4, 1, 2) TILE(type, 4, 4, 1, 2) TILE(type, 5, 4, 1, 2) TILE(type, 6, 4, 1, 2)                        \
    TILE(type, 4, 4, 1, 1) TILE(type, 5, 4, 1, 1) TILE(type, 6, 4, 1, 1)                                               \
    TILE(type, 1, 4, 0, 0) TILE(type, 2, 4, 0, 0) TILE(type, 3, 4, 0, 0)                                               \
    TILE(type, 4, 4, 0, 0) TILE(type, 5, 4, 0, 0) TILE(type, 6, 4, 0, 0)                                               \
    TILE(type, 16, 1, 0, 0) TILE(type, 1, 1, 0, 0)
/* clang-format on */
TILES(F32)
TILES(F16)
TILES(BF16)

/* Seven to eighteen rows make groups of three or more, nineteen or more of four. */
#define SET(type)                                                                                  \
    {                                                                                              \
        .wide = {tile_##type##_1x8_18, tile_##type##_2x8_18, tile_##type##_3x8_18},                \
        .main = {tile_##type##_1x4_14, tile_##type##_2x4_14, tile_##type##_3x4_14,                 \
                 tile_##type##_4x4_14, tile_##type##_5x4_14, tile_##type##_6x4_14},                \
        .half = {NULL,                                                                             \
                 NULL,                                                                             \
                 tile_##type##_3x4_12,                                                             \
                 tile_##type##_4x4_12,                                                             \
                 tile_##type##_5x4_12,                                                             \
                 tile_##type##_6x4_12},                                                            \
        .quarter =                                                                                 \
            {NULL, NULL, NULL, tile_##type##_4x4_11, tile_##type##_5x4_11, tile_##type##_6x4_11},  \
        .direct = {tile_##type##_1x4_00, tile_##type##_2x4_00, tile_##type##_3x4_00,               \
                   tile_##type##_4x4_00, tile_##type##_5x4_00, tile_##type##_6x4_00},              \
        .columns = tile_##type##_16x1_00, .column = tile_##type##_1x1_00,                          \
    }
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
