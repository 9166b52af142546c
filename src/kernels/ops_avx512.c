/* SPDX-License-Identifier: MIT */
/* The table of AVX-512 F, BW, DQ and VL. */
#include "kernels/lanes_avx512.h"
#include "kernels/ops_impl.h"
#include "kernels/tables.h"

static void op_dot_rows(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K)
{
    au_gemm_c(s, T, q, K, k, AU_F32, ldk, 1, T, K);
}

const au_kernels au_kernels_avx512 = {
    .name = "avx512",
    .gemm = au_gemm_c,
    .dot_rows = op_dot_rows,
    AU_OPS_TABLE,
};
