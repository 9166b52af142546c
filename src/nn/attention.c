/* SPDX-License-Identifier: MIT */
/* Attention of single query positions over cached keys and values. An item of work is one head of
 * one query. */
#include "nn/nn.h"

typedef struct attention_run {
    const au_nn *nn;
    const au_attend *queries;
    size_t H, D, max_T;
    float scale;
    float *scores;
} attention_run;

static void run_head(void *ctx, size_t item, int thread)
{
    const attention_run *run = ctx;
    const au_kernels *k = run->nn->k;
    const au_attend *a = &run->queries[item / run->H];
    size_t h = item % run->H, D = run->D;
    float *s = run->scores + (size_t)thread * run->max_T;
    k->dot_rows(s, a->q + h * D, a->k + h * a->head_stride, a->row_stride, a->T, D);
    if (run->scale != 1.0f)
        for (size_t t = 0; t < a->T; t++)
            s[t] *= run->scale;
    if (a->bias)
        k->add(s, s, a->bias + h * a->bias_stride, a->T);
    k->softmax(s, a->T);
    k->weighted_rows(a->o + h * D, s, a->v + h * a->head_stride, a->row_stride, a->T, D);
}

void au_nn_attention(const au_nn *nn, const au_attend *queries, size_t n, size_t H, size_t D,
                     float scale, float *scores, size_t max_T)
{
    attention_run run = {nn, queries, H, D, max_T, scale, scores};
    size_t work = 0;
    for (size_t i = 0; i < n; i++)
        work += queries[i].T;
    if (work * H * D < 8192)
        for (size_t i = 0; i < n * H; i++)
            run_head(&run, i, 0);
    else
        au_pool_run(nn->pool, n * H, run_head, &run);
}
