/* SPDX-License-Identifier: MIT */
/* The table of plain C, for any processor. */
#include "kernels/lanes_c.h"
#include "kernels/ops_impl.h"
#include "kernels/tables.h"

static void op_dot_rows(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K)
{
    au_gemm_c(s, T, q, K, k, AU_F32, ldk, 1, T, K);
}

const au_kernels au_kernels_c = {
    .name = "c",
    .gemm = au_gemm_c,
    .dot_rows = op_dot_rows,
    AU_OPS_TABLE,
};
