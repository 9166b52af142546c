/* SPDX-License-Identifier: MIT */
/* The tables and the matrix kernels of each instruction set, for cpu.c and the ops_*.c alone. A
 * library compiled for an instruction set may run only after au_cpu_flags has seen it. */
#ifndef AU_KERNELS_TABLES_H
#define AU_KERNELS_TABLES_H

#include "kernels/kernels.h"

extern const au_kernels au_kernels_c, au_kernels_avx2, au_kernels_avx512;

void au_gemm_c(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
               size_t ldw, size_t M, size_t N, size_t K);
void au_gemm_avx2(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
                  size_t ldw, size_t M, size_t N, size_t K);
void au_gemm_avx512(float *y, size_t ldy, const float *x, size_t ldx, const void *w, au_dtype wtype,
                    size_t ldw, size_t M, size_t N, size_t K);
void au_dot_rows_avx2(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K);
void au_dot_rows_avx512(float *s, const float *q, const float *k, size_t ldk, size_t T, size_t K);

#endif
