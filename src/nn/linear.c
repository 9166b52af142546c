/* SPDX-License-Identifier: MIT */
/* Products with stored weights, and what adapters add to them.
 *
 * The base product of all rows is cut into tiles by shape and spread over the pool; so each weight
 * is read once whatever the number of rows. Then each row whose adapter addresses the module is
 * finished on its own: the low-rank part is two products with M = 1, whose bits do not depend on
 * the neighbours. */
#include "nn/nn.h"

#include "base/err.h"

enum {
    SMALL_M = 16, /* up to here all rows share one pass over the weights */
    TILE_M = 128, /* rows of a tile otherwise */
    TILE_WEIGHT =
        128 *
        1024, /* weights of a tile: long enough to stream, short enough to balance two threads */
    INLINE_MACS = 16 * 1024, /* less work than this is not worth waking anybody */
};

typedef struct tile_plan {
    size_t tile_m, tile_n; /* rows and outputs of a tile */
    size_t n_m, n_n;       /* tiles */
    size_t first;          /* number of its first item */
} tile_plan;

typedef struct linear_run {
    const au_nn *nn;
    const au_linear_op *ops;
    size_t n;
    tile_plan plans[AU_LINEAR_OPS];
} linear_run;

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static tile_plan plan_tiles(const au_linear_op *op, size_t first)
{
    size_t K = op->l->w.cols, N = op->l->w.rows;
    tile_plan p = {.first = first};
    p.tile_m = op->M <= SMALL_M ? op->M : TILE_M;
    p.tile_n = TILE_WEIGHT / (K ? K : 1);
    p.tile_n = p.tile_n < 8 ? 8 : (p.tile_n + 7) & ~(size_t)7;
    if (p.tile_n > N)
        p.tile_n = N;
    p.n_m = ceil_div(op->M, p.tile_m ? p.tile_m : 1);
    p.n_n = N ? ceil_div(N, p.tile_n) : 0;
    return p;
}

static void run_tile(void *ctx, size_t item, int thread)
{
    (void)thread;
    const linear_run *run = ctx;
    size_t i = run->n - 1;
    while (item < run->plans[i].first)
        i--;
    const tile_plan *p = &run->plans[i];
    const au_linear_op *op = &run->ops[i];
    const au_linear *l = op->l;
    size_t tile = item - p->first;
    /* Neighbouring items share the rows of x and walk over the weights. */
    size_t m0 = tile / p->n_n * p->tile_m, n0 = tile % p->n_n * p->tile_n;
    size_t M = op->M - m0 < p->tile_m ? op->M - m0 : p->tile_m;
    size_t N = l->w.rows - n0 < p->tile_n ? l->w.rows - n0 : p->tile_n;
    float *y = op->y + m0 * op->ldy + n0;
    const char *w = (const char *)l->w.data + n0 * l->w.cols * au_dtype_bytes(l->w.dtype);
    run->nn->k->gemm(y, op->ldy, op->x + m0 * op->ldx, op->ldx, w, l->w.dtype, l->w.cols, M, N,
                     l->w.cols);
    /* With adapters the bias comes after their part. */
    if (l->bias && !op->applied)
        for (size_t m = 0; m < M; m++)
            run->nn->k->add(y + m * op->ldy, y + m * op->ldy, l->bias + n0, N);
}

/* y (one row, base product) becomes the adapted output, with the base bias. */
static void finish_row(const au_kernels *k, const au_linear_op *op, size_t m)
{
    const au_linear *l = op->l;
    const au_lora *lora = au_applied_lora(op->applied[m], l->module);
    size_t out = l->w.rows, in = l->w.cols;
    float *y = op->y + m * op->ldy;
    const float *x = op->x + m * op->ldx;
    const float *bias = l->bias;
    if (lora && lora->replace_weight)
        k->gemm(y, out, x, in, lora->replace_weight, AU_F32, in, 1, out, in);
    if (lora && lora->replace_bias)
        bias = lora->replace_bias;
    if (lora && lora->rank) {
        float low[AU_LORA_MAX_RANK], part[256];
        size_t r = (size_t)lora->rank;
        k->gemm(low, r, x, in, lora->a, AU_F32, in, 1, r, in);
        for (size_t o = 0; o < out; o += 256) {
            size_t n = out - o < 256 ? out - o : 256;
            k->gemm(part, n, low, r, lora->b + o * r, AU_F32, r, 1, n, r);
            k->axpy(y + o, lora->scale, part, n);
        }
    }
    if (lora && lora->bias)
        k->add(y, y, lora->bias, out);
    if (lora && lora->factor)
        k->mul(y, y, lora->factor, out);
    if (bias)
        k->add(y, y, bias, out);
}

typedef struct finish_run {
    const au_nn *nn;
    const au_linear_op *ops;
    size_t first[AU_LINEAR_OPS];
    size_t n;
} finish_run;

static void run_finish(void *ctx, size_t item, int thread)
{
    (void)thread;
    const finish_run *run = ctx;
    size_t i = run->n - 1;
    while (item < run->first[i])
        i--;
    finish_row(run->nn->k, &run->ops[i], item - run->first[i]);
}

void au_nn_linear(const au_nn *nn, const au_linear_op *ops, size_t n)
{
    AU_ASSERT(n && n <= AU_LINEAR_OPS);
    linear_run run = {.nn = nn, .ops = ops, .n = n};
    finish_run finish = {.nn = nn, .ops = ops, .n = n};
    size_t items = 0, rows = 0, macs = 0;
    bool adapted = false;
    for (size_t i = 0; i < n; i++) {
        run.plans[i] = plan_tiles(&ops[i], items);
        items += run.plans[i].n_m * run.plans[i].n_n;
        macs += ops[i].M * ops[i].l->w.rows * ops[i].l->w.cols;
        finish.first[i] = rows;
        if (ops[i].applied) {
            rows += ops[i].M;
            adapted = true;
        }
    }
    if (macs <= INLINE_MACS)
        for (size_t i = 0; i < items; i++)
            run_tile(&run, i, 0);
    else
        au_pool_run(nn->pool, items, run_tile, &run);
    if (adapted)
        au_pool_run(nn->pool, rows, run_finish, &finish);
}

void au_nn_embed(const au_nn *nn, float *y, const au_embed *e, size_t id, const au_applied *applied,
                 float *scratch)
{
    const au_kernels *k = nn->k;
    const au_lora *lora = au_applied_lora(applied, e->module);
    size_t d = e->w.cols;
    AU_ASSERT(id < e->w.rows);
    if (lora && lora->replace_weight) {
        k->widen(y, lora->replace_weight + id * d, AU_F32, d);
        return;
    }
    k->widen(y, (const char *)e->w.data + id * d * au_dtype_bytes(e->w.dtype), e->w.dtype, d);
    if (lora && lora->rank) {
        size_t r = (size_t)lora->rank;
        k->gemm(scratch, d, lora->a + id * r, r, lora->b, AU_F32, r, 1, d, r);
        k->axpy(y, lora->scale, scratch, d);
    }
    if (lora && lora->factor)
        k->mul(y, y, lora->factor, d);
}
