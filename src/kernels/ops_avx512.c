/* SPDX-License-Identifier: MIT */
/* The table of AVX-512 F, BW, DQ and VL. */
#include "kernels/lanes_avx512.h"
#include "kernels/ops_impl.h"
#include "kernels/tables.h"

const au_kernels au_kernels_avx512 = {
    .name = "avx512",
    .gemm = au_gemm_avx512,
    .dot_rows = au_dot_rows_avx512,
    AU_OPS_TABLE,
};
