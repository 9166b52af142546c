/* SPDX-License-Identifier: MIT */
/* The table of AVX2 with FMA and F16C. */
#include "kernels/lanes_avx2.h"
#include "kernels/ops_impl.h"
#include "kernels/tables.h"

const au_kernels au_kernels_avx2 = {
    .name = "avx2",
    .gemm = au_gemm_avx2,
    .dot_rows = au_dot_rows_avx2,
    AU_OPS_TABLE,
};
