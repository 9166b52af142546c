/* SPDX-License-Identifier: MIT */
/* How fast the kernels are on this machine: bench_kernels [threads] [c|avx2|avx512].
 *
 * Read bandwidth first, then products at the sizes of decoding, whose weights come from memory:
 * GB/s of weights beside the read bandwidth, which is the limit until the arithmetic is. Then
 * products with many rows (text encoder, codec convolutions with overlapping rows), GFLOP/s. Then
 * vector operations in cache, ns per element, and the cost of an empty region of the pool. Each
 * figure is the best of many short runs, so that other work on the machine shows little. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/threads.h"
#include "kernels/bandwidth.h"
#include "kernels/kernels.h"

static const size_t WEIGHTS = 256u << 20; /* bytes; many times the last cache */
static const size_t ROWS = 96u << 20;     /* bytes of x and of y */

static const au_kernels *k;
static au_pool *pool;
static uint8_t *weights;
static float *in, *out;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct product {
    const uint8_t *w;
    au_dtype type;
    size_t M, N, K, ldx, items;
    bool by_rows; /* cut M, else N */
};

static void product_item(void *ctx, size_t item, int thread)
{
    const struct product *p = ctx;
    const size_t all = p->by_rows ? p->M : p->N;
    const size_t first = all * item / p->items, last = all * (item + 1) / p->items;
    const size_t size = p->type == AU_F32 ? 4 : 2;
    (void)thread;
    if (p->by_rows)
        k->gemm(out + first * p->N, p->N, in + first * p->ldx, p->ldx, p->w, p->type, p->K,
                last - first, p->N, p->K);
    else
        k->gemm(out + first, p->N, in, p->ldx, p->w + first * p->K * size, p->type, p->K, p->M,
                last - first, p->K);
}

/* Seconds of one product, best of those that fit `budget_s`; each takes the next weights, round and
 * round. */
static double time_product(struct product *p, double budget_s)
{
    const size_t bytes = p->N * p->K * (p->type == AU_F32 ? 4 : 2);
    const double end = now_s() + budget_s;
    double best = 1e30;
    size_t at = 0;
    do {
        p->w = weights + at;
        double start = now_s();
        au_pool_run(pool, p->items, product_item, p);
        double t = now_s() - start;
        best = t < best ? t : best;
        at = at + 2 * bytes <= WEIGHTS ? at + bytes : 0;
    } while (now_s() < end);
    return best;
}

static const char *const type_names[] = {[AU_F32] = "f32", [AU_F16] = "f16", [AU_BF16] = "bf16"};

static void bench_decode(int threads)
{
    static const size_t rows[] = {1, 2, 4, 8, 16};
    static const size_t shapes[][2] = {{4096, 1024}, {1024, 4096}};
    printf("\ndecoding, weights from memory: GB/s of weights (GFLOP/s)\n%-5s %12s", "type",
           "N x K");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("  %9s%-4zu", "M = ", rows[i]);
    for (au_dtype type = AU_F32; type <= AU_BF16; type++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            const size_t N = shapes[s][0], K = shapes[s][1];
            printf("\n%-5s %6zu x%5zu", type_names[type], N, K);
            for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct product p = {.type = type,
                                    .M = rows[i],
                                    .N = N,
                                    .K = K,
                                    .ldx = K,
                                    .items = 4 * (size_t)threads};
                double t = time_product(&p, 0.15),
                       bytes = (double)(N * K) * (type == AU_F32 ? 4 : 2);
                printf("  %6.1f (%4.0f)", 1e-9 * bytes / t, 2e-9 * (double)(N * K * rows[i]) / t);
                fflush(stdout);
            }
        }
}

static void bench_many_rows(int threads)
{
    static const struct {
        size_t M, N, K, ldx;
        const char *what;
    } shapes[] = {
        {200, 1020, 1024, 1024, ""},
        {200, 4092, 1024, 1024, "text encoder"},
        {100, 1024, 4096, 4096, "text encoder, short"},
        {300, 512, 3584, 512, "conv 512 to 512, 7 taps"},
        {10000, 64, 192, 64, "conv 64 to 64, 3 taps"},
        {10000, 32, 448, 64, "conv 64 to 32, 7 taps"},
        {40000, 1, 448, 64, "conv 64 to 1, 7 taps"},
        {20000, 32, 48, 48, "short rows"},
    };
    printf("\n\nmany rows: GFLOP/s\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        printf("M %6zu  N %4zu  K %4zu", shapes[i].M, shapes[i].N, shapes[i].K);
        for (au_dtype type = AU_F32; type <= AU_F16; type++) {
            struct product p = {.type = type,
                                .M = shapes[i].M,
                                .N = shapes[i].N,
                                .K = shapes[i].K,
                                .ldx = shapes[i].ldx};
            p.by_rows = p.M > p.N;
            p.items = 4 * (size_t)threads;
            double t = time_product(&p, 0.2);
            printf("  %s %6.1f", type_names[type], 2e-9 * (double)(p.M * p.N * p.K) / t);
            fflush(stdout);
        }
        printf("  %s\n", shapes[i].what);
    }
}

static void run_vector(int op, size_t n)
{
    switch (op) {
    case 0:
        k->exp(out, in, n);
        break;
    case 1:
        k->tanh(out, in, n);
        break;
    case 2:
        k->sigmoid(out, in, n);
        break;
    case 3:
        k->gelu(out, in, n);
        break;
    case 4:
        k->gelu_new(out, in, n);
        break;
    case 5:
        k->elu(out, in, n);
        break;
    case 6:
        k->add(out, in, in + n, n);
        break;
    case 7:
        k->layernorm(out, in, in + n, in + 2 * n, n, 1e-5f);
        break;
    case 8:
        memcpy(out, in, n * sizeof *in);
        k->softmax(out, n);
        break;
    case 9:
        k->lstm_cell(out, out + n, in, n);
        break;
    case 10:
        k->dot_rows(out, in, in, 64, n / 64, 64);
        break;
    default:
        k->weighted_rows(out, in, in, 64, n / 64, 64);
    }
}

static void bench_vectors(void)
{
    static const char *const names[] = {"exp",      "tanh",      "sigmoid",  "gelu",
                                        "gelu_new", "elu",       "add",      "layernorm",
                                        "softmax",  "lstm_cell", "dot_rows", "weighted_rows"};
    enum { N = 2048, RUNS = 20 };
    printf("\nvectors of %d in cache, one thread: ns an element\n", N);
    for (int op = 0; op < (int)(sizeof names / sizeof *names); op++) {
        double best = 1e30, end = now_s() + 0.05;
        do {
            double start = now_s();
            for (int i = 0; i < RUNS; i++)
                run_vector(op, N);
            double t = (now_s() - start) / RUNS / N;
            best = t < best ? t : best;
        } while (now_s() < end);
        printf("%s%s %.3f", op ? "  " : "", names[op], 1e9 * best);
    }
}

static void nothing(void *ctx, size_t item, int thread)
{
    (void)ctx, (void)item, (void)thread;
}

static void bench_pool(int threads)
{
    double best = 1e30, end = now_s() + 0.1;
    do {
        double start = now_s();
        for (int i = 0; i < 200; i++)
            au_pool_run(pool, 4 * (size_t)threads, nothing, NULL);
        double t = (now_s() - start) / 200;
        best = t < best ? t : best;
    } while (now_s() < end);
    printf("\n\nempty region of %d items on %d threads: %.2f us\n", 4 * threads, threads,
           1e6 * best);
}

static au_status run(int threads, au_err *err)
{
    au_status st = AU_OK;
    double rate = 0;
    AU_TRY(au_kernel_read_bandwidth(threads, WEIGHTS, &rate, err));
    AU_TRY(au_pool_new(&pool, threads, err));
    AU_TRY(au_alloc_aligned(&weights, WEIGHTS, err));
    AU_TRY(au_alloc_aligned(&in, ROWS, err));
    AU_TRY(au_alloc_aligned(&out, ROWS, err));
    for (size_t i = 0; i < WEIGHTS / 4; i++)
        memcpy(weights + 4 * i, &(uint32_t){0x3c003c00u + (uint32_t)(i % 977)}, 4);
    for (size_t i = 0; i < ROWS / 4; i++)
        in[i] = (float)(i % 1009) * 0x1p-9f - 1.0f;
    printf("%s, %d threads, read bandwidth %.1f GB/s\n", k->name, threads, 1e-9 * rate);
    bench_decode(threads);
    bench_many_rows(threads);
    bench_vectors();
    bench_pool(threads);
done:
    free(weights);
    free(in);
    free(out);
    au_pool_free(&pool);
    return st;
}

int main(int argc, char **argv)
{
    au_err err = {0};
    long threads = argc > 1 ? strtol(argv[1], NULL, 10) : au_threads_default();
    if (argc > 2)
        setenv("AU_CPU", argv[2], 1);
    if (argc > 3 || threads < 1 || threads > 256) {
        fprintf(stderr, "usage: %s [threads] [c|avx2|avx512]\n", argv[0]);
        return 2;
    }
    k = au_kernels_get();
    if (run((int)threads, &err) != AU_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    return 0;
}
