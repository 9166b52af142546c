/* SPDX-License-Identifier: MIT */
/* Every kernel of every instruction set that this processor has gives the bits of plain C: odd
 * sizes, tails, unaligned data, awkward values, nothing read or written past the ends, rows that
 * overlap, split ranges. */
#include "kernel_check.h"

#include "base/threads.h"
#include "kernels/bandwidth.h"

static const au_kernels *c_table, *tables[2];
static int n_tables;

static const size_t type_bytes[] = {[AU_F32] = 4, [AU_F16] = 2, [AU_BF16] = 2};

/* One product on each table against C. K, ldx, ldw and ldy in elements; w begins `shift` bytes into
 * its buffer. */
struct product {
    size_t M, N, K, ldx, ldw, ldy, shift;
    au_dtype type;
    int kind;
};

static void fill_weights(uint8_t *w, size_t bytes, const struct product *p)
{
    if (p->type == AU_F32)
        for (size_t i = 0; i + 4 <= bytes; i += 4) {
            float f = some_float(p->kind);
            memcpy(w + i, &f, 4);
        }
    else
        for (size_t i = 0; i + 2 <= bytes; i += 2) {
            uint16_t h = (uint16_t)rng();
            if (p->kind == TAME) /* magnitudes around 1 */
                h = p->type == AU_F16 ? (h & 0x83ffu) | (0x3800u + (rng() & 0x400u))
                                      : (h & 0x80ffu) | 0x3f00u;
            memcpy(w + i, &h, 2);
        }
}

static void check_product(const struct product *p)
{
    const size_t rows_x = p->M ? (p->M - 1) * p->ldx + p->K : 0,
                 rows_w = p->N ? (p->N - 1) * p->ldw + p->K : 0;
    const size_t y_len = p->M * p->ldy + 8, y_rows = y_len - 8;
    const size_t w_bytes = rows_w * type_bytes[p->type];
    fenced x = fence(rows_x * 4), w = fence(w_bytes + p->shift);
    float *want = malloc(y_len * 4), *got = malloc(y_len * 4);
    assert_true(want && got);
    uint8_t *weights =
        w.data; /* `shift` bytes before the fence: unaligned, and the rest of the page readable */
    if (p->shift == 0 || rng() % 2)
        weights += p->shift;
    fill((float *)(void *)x.data, rows_x, p->kind);
    fill_weights(weights, w_bytes, p);
    memset(want, GUARD, y_len * 4);
    c_table->gemm(want, p->ldy, (float *)(void *)x.data, p->ldx, weights, p->type, p->ldw, p->M,
                  p->N, p->K);
    for (size_t i = 0; i < y_rows; i++) /* C too leaves the gaps alone */
        if (i % p->ldy >= p->N)
            assert_int_equal(to_bits(want[i]), 0x5a5a5a5a);
    for (int t = 0; t < n_tables; t++) {
        memset(got, GUARD, y_len * 4);
        tables[t]->gemm(got, p->ldy, (float *)(void *)x.data, p->ldx, weights, p->type, p->ldw,
                        p->M, p->N, p->K);
        size_t bad = first_difference(want, got, y_len);
        if (bad != y_len)
            fail_msg("%s gemm M %zu N %zu K %zu ldx %zu ldw %zu ldy %zu shift %zu type %d kind %d: "
                     "y[%zu] is %a, C has %a",
                     tables[t]->name, p->M, p->N, p->K, p->ldx, p->ldw, p->ldy, p->shift,
                     (int)p->type, p->kind, bad, (double)got[bad], (double)want[bad]);
    }
    free(want);
    free(got);
    unfence(&x);
    unfence(&w);
}

static void test_gemm_at_random(void **state)
{
    (void)state;
    static const size_t some_M[] = {1,  2,  3,  4,  5,  6,  7,  8,  11, 12, 13,
                                    16, 17, 18, 19, 23, 24, 31, 64, 65, 71, 90};
    static const size_t some_N[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 16, 17, 24, 33};
    static const size_t some_K[] = {0,  1,  3,  7,  8,  9,  15,  16,  17,  24,  31,
                                    32, 33, 48, 63, 64, 65, 100, 128, 200, 448, 513};
    for (int i = 0; i < (emulated() ? 200 : 1500); i++) {
        struct product p = {
            .M = PICK(some_M), .N = PICK(some_N), .K = PICK(some_K), .type = (au_dtype)below(3)};
        if (p.M * p.N * p.K > 60000)
            continue;
        p.kind = rng() % 4 ? TAME : WILD;
        p.ldx = rng() % 3 ? p.K + below(20) : p.K / 3 + 1; /* overlapping rows */
        p.ldw = p.K + (rng() % 2 ? below(20) : 0);
        p.ldy = p.N + (rng() % 2 ? below(5) : 0);
        if (p.ldy == 0)
            p.ldy = 1;
        p.shift = below(4);
        check_product(&p);
    }
}

static void test_gemm_chosen(void **state)
{
    (void)state;
    static const struct product chosen[] = {
        {.M = 130,
         .N = 37,
         .K = 129,
         .ldx = 129,
         .ldw = 131,
         .ldy = 37,
         .type = AU_F32}, /* x packed in parts */
        {.M = 90, .N = 26, .K = 3000, .ldx = 500, .ldw = 3000, .ldy = 27, .type = AU_F16},
        {.M = 5,
         .N = 11,
         .K = 40000,
         .ldx = 40000,
         .ldw = 40000,
         .ldy = 11,
         .type = AU_F32}, /* no room to pack */
        {.M = 70,
         .N = 101,
         .K = 1000,
         .ldx = 1000,
         .ldw = 1000,
         .ldy = 101,
         .type = AU_F32}, /* blocks of w */
        {.M = 70, .N = 201, .K = 1000, .ldx = 1000, .ldw = 1000, .ldy = 201, .type = AU_BF16},
        {.M = 64, .N = 9, .K = 2100, .ldx = 2100, .ldw = 2100, .ldy = 9, .type = AU_F16},
        {.M = 2,
         .N = 40,
         .K = 4096,
         .ldx = 4096,
         .ldw = 4096,
         .ldy = 40,
         .type = AU_F16}, /* prefetch inside a row */
        {.M = 6, .N = 22, .K = 4099, .ldx = 4099, .ldw = 4099, .ldy = 22, .type = AU_F32},
        {.M = 1, .N = 3, .K = 20000, .ldx = 20000, .ldw = 20000, .ldy = 3, .type = AU_F32},
        {.M = 1000,
         .N = 1,
         .K = 448,
         .ldx = 64,
         .ldw = 448,
         .ldy = 1,
         .type = AU_F32}, /* the codec's last convolution */
        {.M = 500, .N = 32, .K = 48, .ldx = 16, .ldw = 48, .ldy = 64, .type = AU_F16},
        {.M = 3, .N = 1, .K = 1, .ldx = 1, .ldw = 1, .ldy = 1, .type = AU_BF16, .shift = 1},
        {.M = 4, .N = 4, .K = 0, .ldx = 0, .ldw = 0, .ldy = 4, .type = AU_F32},
        {.M = 0, .N = 4, .K = 5, .ldx = 5, .ldw = 5, .ldy = 4, .type = AU_F32},
        {.M = 9,
         .N = 8,
         .K = 37,
         .ldx = 0,
         .ldw = 0,
         .ldy = 8,
         .type = AU_F32}, /* the same row again and again */
    };
    for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
        check_product(&chosen[i]);
}

/* Products that underflow leave -0 in every partial sum, which a zero added in the tail would turn
 * into +0. */
static void test_gemm_tail_adds_nothing(void **state)
{
    (void)state;
    enum { M = 7, N = 9, K = 21 };
    float x[M * K], w[N * K], y[M * N];
    for (int i = 0; i < M * K; i++)
        x[i] = -0x1p-100f;
    for (int i = 0; i < N * K; i++)
        w[i] = 0x1p-100f;
    for (int t = -1; t < n_tables; t++)
        for (size_t m = 1; m <= M; m++) {
            (t < 0 ? c_table : tables[t])->gemm(y, N, x, K, w, AU_F32, K, m, N, K);
            for (size_t i = 0; i < m * N; i++)
                assert_int_equal(to_bits(y[i]), 0x80000000);
        }
}

/* A row of y is the same alone, with others, and when the range of w is cut anywhere. */
struct split {
    const au_kernels *k;
    float *y;
    const float *x, *w;
    size_t M, N, K, chunk;
};
static void run_chunk(void *ctx, size_t item, int thread)
{
    struct split *s = ctx;
    size_t n = item * s->chunk, count = s->N - n < s->chunk ? s->N - n : s->chunk;
    (void)thread;
    s->k->gemm(s->y + n, s->N, s->x, s->K, s->w + n * s->K, AU_F32, s->K, s->M, count, s->K);
}
static void test_gemm_split(void **state)
{
    (void)state;
    enum { M = 21, N = 53, K = 150 };
    static float x[M * K], w[N * K], whole[M * N], got[M * N];
    fill(x, M * K, TAME);
    fill(w, N * K, TAME);
    c_table->gemm(whole, N, x, K, w, AU_F32, K, M, N, K);
    for (int t = 0; t <= n_tables; t++) {
        const au_kernels *k = t < n_tables ? tables[t] : c_table;
        for (size_t m = 0; m < M; m++) {
            k->gemm(got, N, x + m * K, K, w, AU_F32, K, 1, N, K);
            assert_memory_equal(got, whole + m * N, N * sizeof *got);
        }
        for (int threads = 1; threads <= 4; threads++) {
            au_pool *pool = NULL;
            assert_int_equal(au_pool_new(&pool, threads, NULL), AU_OK);
            for (size_t chunk = 1; chunk <= 16; chunk += 5) {
                struct split s = {k, got, x, w, M, N, K, chunk};
                memset(got, GUARD, sizeof got);
                au_pool_run(pool, (N + chunk - 1) / chunk, run_chunk, &s);
                assert_memory_equal(got, whole, sizeof got);
            }
            au_pool_free(&pool);
        }
    }
}

static void check_rows(size_t T, size_t K, size_t ld, int kind)
{
    const size_t len = T ? (T - 1) * ld + K : 0, longest = (T > K ? T : K) + 4;
    fenced rows = fence(len * 4), q = fence(K * 4), p = fence(T * 4);
    float *want = malloc(longest * 4), *got = malloc(longest * 4);
    assert_true(want && got);
    fill((float *)(void *)rows.data, len, kind);
    fill((float *)(void *)q.data, K, kind);
    fill((float *)(void *)p.data, T, kind);
    for (int what = 0; what < 2; what++)
        for (int t = -1; t < n_tables; t++) {
            const au_kernels *k = t < 0 ? c_table : tables[t];
            float *out = t < 0 ? want : got;
            memset(out, GUARD, longest * 4);
            if (what == 0)
                k->dot_rows(out, (float *)(void *)q.data, (float *)(void *)rows.data, ld, T, K);
            else
                k->weighted_rows(out, (float *)(void *)p.data, (float *)(void *)rows.data, ld, T,
                                 K);
            size_t bad = t < 0 ? longest : first_difference(want, got, longest);
            if (bad != longest)
                fail_msg("%s %s T %zu K %zu ld %zu kind %d: [%zu] is %a, C has %a", k->name,
                         what ? "weighted_rows" : "dot_rows", T, K, ld, kind, bad, (double)got[bad],
                         (double)want[bad]);
        }
    free(want);
    free(got);
    unfence(&rows);
    unfence(&q);
    unfence(&p);
}

static void test_attention_rows(void **state)
{
    (void)state;
    static const size_t some_T[] = {0, 1, 2, 3, 7, 8, 9, 31, 40, 41, 48, 100, 515};
    static const size_t some_K[] = {0, 1, 5, 8, 15, 16, 17, 32, 48, 63, 64, 65, 80, 128, 140};
    for (int i = 0; i < (emulated() ? 60 : 300); i++) {
        size_t K = PICK(some_K);
        check_rows(PICK(some_T), K, K + (rng() % 2 ? below(70) : 0), rng() % 4 ? TAME : WILD);
    }
}

/* All operations on vectors, by number. `in` holds three inputs of n; `out` two outputs. */
enum {
    SOFTMAX,
    LAYERNORM,
    RMSNORM,
    GELU,
    GELU_NEW,
    RELU,
    ELU,
    EXP,
    TANH,
    SIGMOID,
    ADD,
    MUL,
    AXPY,
    LSTM,
    N_OPS
};
static const char *const op_names[] = {"softmax", "layernorm", "rmsnorm", "gelu",     "gelu_new",
                                       "relu",    "elu",       "exp",     "tanh",     "sigmoid",
                                       "add",     "mul",       "axpy",    "lstm_cell"};

static void (*unary(const au_kernels *k, int op))(float *, const float *, size_t)
{
    switch (op) {
    case GELU:
        return k->gelu;
    case GELU_NEW:
        return k->gelu_new;
    case RELU:
        return k->relu;
    case ELU:
        return k->elu;
    case EXP:
        return k->exp;
    case TANH:
        return k->tanh;
    default:
        return k->sigmoid;
    }
}

static void apply(const au_kernels *k, int op, float *out, float *out2, float *const in[3],
                  const float *gates, size_t n)
{
    switch (op) {
    case SOFTMAX:
        memcpy(out, in[0], n * 4);
        if (n)
            k->softmax(out, n);
        break;
    case LAYERNORM:
        k->layernorm(out, in[0], in[1], in[2], n, 1e-5f);
        break;
    case RMSNORM:
        k->rmsnorm(out, in[0], in[1], n, 1e-6f);
        break;
    case ADD:
        k->add(out, in[0], in[1], n);
        break;
    case MUL:
        k->mul(out, in[0], in[1], n);
        break;
    case AXPY:
        memcpy(out, in[1], n * 4);
        k->axpy(out, 0.37f, in[0], n);
        break;
    case LSTM:
        memcpy(out2, in[1], n * 4);
        k->lstm_cell(out, out2, gates, n);
        break;
    default:
        unary(k, op)(out, in[0], n);
    }
}

static void check_vectors(int op, size_t n, int kind)
{
    fenced inputs[3], outputs[2], gates = fence(16 * n);
    float *in[3], *out[2], *want[2];
    for (int i = 0; i < 3; i++) {
        inputs[i] = fence(n * 4);
        in[i] = (float *)(void *)inputs[i].data;
        fill(in[i], n, kind);
    }
    fill((float *)(void *)gates.data, 4 * n, kind);
    for (int i = 0; i < 2; i++) { /* a guard before, the fence behind */
        outputs[i] = fence(n * 4 + 16);
        out[i] = (float *)(void *)outputs[i].data;
        want[i] = malloc(n * 4 + 16);
        assert_non_null(want[i]);
    }
    for (int t = -1; t < n_tables; t++) {
        float **o = t < 0 ? want : out;
        const au_kernels *k = t < 0 ? c_table : tables[t];
        memset(o[0], GUARD, n * 4 + 16);
        memset(o[1], GUARD, n * 4 + 16);
        apply(k, op, o[0] + 4, o[1] + 4, in, (float *)(void *)gates.data, n);
        for (int i = 0; i < 2 && t >= 0; i++) {
            size_t bad = first_difference(want[i], out[i], n + 4);
            if (bad != n + 4)
                fail_msg("%s %s n %zu kind %d: [%zu] of input %a is %a, C has %a", k->name,
                         op_names[op], n, kind, bad - 4, (double)in[0][bad - 4],
                         (double)out[i][bad], (double)want[i][bad]);
        }
        if (op >= GELU && op <= SIGMOID) { /* in place */
            memcpy(out[1] + 4, in[0], n * 4);
            unary(k, op)(out[1] + 4, out[1] + 4, n);
            assert_int_equal(first_difference(want[0] + 4, out[1] + 4, n), n);
        }
    }
    for (int i = 0; i < 3; i++)
        unfence(&inputs[i]);
    for (int i = 0; i < 2; i++) {
        unfence(&outputs[i]);
        free(want[i]);
    }
    unfence(&gates);
}

static void test_vectors(void **state)
{
    (void)state;
    static const size_t longer[] = {71, 100, 127, 128, 129, 1000, 1024, 2049};
    for (int op = 0; op < N_OPS; op++) {
        for (size_t n = 0; n < 70; n++)
            check_vectors(op, n, n % 3 ? TAME : WILD);
        for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) {
            check_vectors(op, longer[i], TAME);
            check_vectors(op, longer[i], WILD);
        }
    }
}

/* The functions of one variable over the whole range of floats. */
static void test_every_kind_of_float(void **state)
{
    (void)state;
    enum { BLOCK = 4096 };
    static float x[BLOCK], want[BLOCK], got[BLOCK];
    const uint32_t stride = 1009 * BLOCK * (emulated() ? 20 : 1);
    for (uint32_t start = rng() % stride, round = 0; round < 0xffffffffu / stride;
         round++, start += stride)
        for (int op = GELU; op <= SIGMOID; op++) {
            for (uint32_t i = 0; i < BLOCK; i++)
                x[i] = from_bits(start + i * 1009);
            unary(c_table, op)(want, x, BLOCK);
            for (int t = 0; t < n_tables; t++) {
                unary(tables[t], op)(got, x, BLOCK);
                size_t bad = first_difference(want, got, BLOCK);
                if (bad != BLOCK)
                    fail_msg("%s %s(%a) is %a, C has %a", tables[t]->name, op_names[op],
                             (double)x[bad], (double)got[bad], (double)want[bad]);
            }
        }
}

static void test_widen(void **state)
{
    (void)state;
    static float want[65536], got[65536];
    static uint16_t all[65536];
    for (uint32_t i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    for (au_dtype type = AU_F16; type <= AU_BF16; type++) {
        c_table->widen(want, all, type, 65536);
        for (int t = 0; t < n_tables; t++) {
            tables[t]->widen(got, all, type, 65536);
            assert_int_equal(first_difference(want, got, 65536), 65536);
        }
        for (size_t n = 0; n < 40; n++) { /* tails, at an odd address */
            fenced f = fence(2 * n + 1);
            memcpy(f.data, (uint8_t *)all + 2 * n * 100, 2 * n);
            for (int t = -1; t < n_tables; t++) {
                memset(got, GUARD, 48 * 4);
                (t < 0 ? c_table : tables[t])->widen(got, f.data, type, n);
                assert_int_equal(first_difference(want + n * 100, got, n), n);
                assert_int_equal(to_bits(got[n]), 0x5a5a5a5a);
            }
            unfence(&f);
        }
    }
    for (int t = -1; t < n_tables; t++) {
        (t < 0 ? c_table : tables[t])->widen(got, want, AU_F32, 1000);
        assert_memory_equal(got, want, 4000);
    }
}

static void test_tables(void **state)
{
    (void)state;
    assert_string_equal(au_kernels_for(0)->name, "c");
    assert_ptr_equal(au_kernels_get(), au_kernels_for(au_cpu_flags()));
    setenv("AU_CPU", "c", 1);
    assert_int_equal(au_cpu_flags(), 0);
    setenv("AU_CPU", "avx2", 1);
    assert_int_equal(au_cpu_flags() & AU_CPU_AVX512, 0);
    setenv("AU_CPU", "nonsense", 1);
    unsigned all = au_cpu_flags();
    unsetenv("AU_CPU");
    assert_int_equal(au_cpu_flags(), all);
}

static void test_bandwidth(void **state)
{
    (void)state;
    au_err err;
    double rate = 0;
    for (int threads = 1; threads <= 3; threads++) {
        assert_int_equal(au_kernel_read_bandwidth(threads, 4 << 20, &rate, &err), AU_OK);
        assert_true(rate > 1e6 && rate < 1e14);
    }
    assert_int_equal(au_kernel_read_bandwidth(0, 4 << 20, &rate, &err), AU_INVALID);
    assert_int_equal(au_kernel_read_bandwidth(1, 0, &rate, &err), AU_INVALID);
}

int main(void)
{
    rng_start();
    c_table = au_kernels_for(0);
    n_tables = faster_tables(tables);
    for (int t = 0; t < n_tables; t++)
        printf("table %s\n", tables[t]->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_at_random),
        cmocka_unit_test(test_gemm_chosen),
        cmocka_unit_test(test_gemm_tail_adds_nothing),
        cmocka_unit_test(test_gemm_split),
        cmocka_unit_test(test_attention_rows),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_every_kind_of_float),
        cmocka_unit_test(test_widen),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_bandwidth),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
