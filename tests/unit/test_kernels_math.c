/* SPDX-License-Identifier: MIT */
/* The kernels compute what they are meant to: functions of one variable against libm in double over
 * the whole range of floats, sums against double, special values. On the table in use; test_kernels
 * says that all are equal. */
#include "kernel_check.h"

static const au_kernels *k;

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}
static double gelu(double x) /* 1 + erf(z) = erfc(-z), which keeps its bits in the tail */
{
    return 0.5 * x * erfc(-x / sqrt(2.0));
}
static double gelu_new(double x)
{
    return x * sigmoid(2 * sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x));
}
static double elu(double x)
{
    return x > 0 ? x : expm1(x);
}

/* The error in units of the last place of the exact value, or of the smallest denormal. */
static double ulps(float got, double want)
{
    double size = fabs(want) < 0x1p-126 ? 0x1p-149 : ldexp(1.0, ilogb(want) - 23);
    return fabs((double)got - want) / size;
}

/* Over every stride-th float: at most max_ulps, or a relative error of at most max_relative and two
 * of the smallest denormals. */
static void check_function(const char *name, void (*fn)(float *, const float *, size_t),
                           double (*exact)(double), double max_ulps, double max_relative)
{
    enum { BLOCK = 4096 };
    static float x[BLOCK], y[BLOCK];
    double worst_ulps = 0, worst_relative = 0;
    const uint64_t stride = emulated() ? 20011 : 499;
    for (uint64_t u = below(499), n = 0; u < 1ull << 32; u += stride) {
        x[n++] = from_bits((uint32_t)u);
        if (n < BLOCK && u + stride < 1ull << 32)
            continue;
        fn(y, x, n);
        for (size_t i = 0; i < n; i++) {
            double want = exact((double)x[i]);
            if (isnan(x[i]) || isinf((float)want) || isinf(x[i])) {
                if (!isinf(x[i]) && !(isnan(x[i]) ? isnan(y[i]) : y[i] == (float)want))
                    fail_msg("%s(%a) is %a, expected %a", name, (double)x[i], (double)y[i], want);
                continue;
            }
            double u_err = ulps(y[i], want),
                   rel = fabs((double)y[i] - want) / (fabs(want) + 0x1p-126);
            worst_ulps = fmax(worst_ulps, u_err);
            worst_relative = fmax(worst_relative, rel);
            if (!(max_ulps > 0 ? u_err <= max_ulps : rel <= max_relative || u_err <= 2))
                fail_msg("%s(%a) is %a, expected %a: %.3f ulp, %.3g relative", name, (double)x[i],
                         (double)y[i], want, u_err, rel);
        }
        n = 0;
    }
    printf("%s: at most %.3f ulp, %.3g relative\n", name, worst_ulps, worst_relative);
}

static void test_functions(void **state)
{
    (void)state;
    check_function("exp", k->exp, exp, 2, 0);
    check_function("tanh", k->tanh, tanh, 4, 0);
    check_function("sigmoid", k->sigmoid, sigmoid, 4, 0);
    check_function("elu", k->elu, elu, 2, 0);
    check_function("gelu", k->gelu, gelu, 0, 1e-6);
    /* its argument grows like x^3, so exp of it must lose bits in the far tail */
    check_function("gelu_new", k->gelu_new, gelu_new, 0, 2e-5);
}

static float one(void (*fn)(float *, const float *, size_t), float x)
{
    float y;
    fn(&y, &x, 1);
    return y;
}

static void test_special_values(void **state)
{
    (void)state;
    const float inf = INFINITY, tiny = 0x1p-149f;
    struct {
        const char *name;
        void (*fn)(float *, const float *, size_t);
        float x, y;
    } cases[] = {
        {"exp", k->exp, 0, 1},
        {"exp", k->exp, -0.0f, 1},
        {"exp", k->exp, inf, inf},
        {"exp", k->exp, -inf, 0},
        {"exp", k->exp, 1e30f, inf},
        {"exp", k->exp, -1e30f, 0},
        {"exp", k->exp, tiny, 1},
        {"tanh", k->tanh, inf, 1},
        {"tanh", k->tanh, -inf, -1},
        {"tanh", k->tanh, -0.0f, -0.0f},
        {"tanh", k->tanh, -tiny, -tiny},
        {"tanh", k->tanh, 20, 1},
        {"sigmoid", k->sigmoid, 0, 0.5f},
        {"sigmoid", k->sigmoid, inf, 1},
        {"sigmoid", k->sigmoid, -inf, 0},
        {"elu", k->elu, inf, inf},
        {"elu", k->elu, -inf, -1},
        {"elu", k->elu, -0.0f, -0.0f},
        {"elu", k->elu, -tiny, -tiny},
        {"elu", k->elu, -1e-6f, -0x1.0c6f72p-20f}, /* not 1 - 1 */
        {"elu", k->elu, 3.5f, 3.5f},
        {"gelu", k->gelu, inf, inf},
        {"gelu", k->gelu, -inf, -0.0f},
        {"gelu", k->gelu, 0, 0},
        {"gelu", k->gelu, 1e30f, 1e30f},
        {"gelu", k->gelu, -1e30f, -0.0f},
        {"gelu_new", k->gelu_new, inf, inf},
        {"gelu_new", k->gelu_new, -inf, -0.0f},
        {"gelu_new", k->gelu_new, 1e30f, 1e30f},
        {"gelu_new", k->gelu_new, -1e30f, -0.0f},
        {"relu", k->relu, -0.0f, 0},
        {"relu", k->relu, -inf, 0},
        {"relu", k->relu, inf, inf},
        {"relu", k->relu, -tiny, 0},
        {"relu", k->relu, tiny, tiny},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float y = one(cases[i].fn, cases[i].x);
        if (to_bits(y) != to_bits(cases[i].y))
            fail_msg("%s(%g) is %a, expected %a", cases[i].name, (double)cases[i].x, (double)y,
                     (double)cases[i].y);
    }
    assert_true(isnan(one(k->exp, NAN)) && isnan(one(k->tanh, NAN)) && isnan(one(k->sigmoid, NAN)));
    assert_true(isnan(one(k->elu, NAN)) && isnan(one(k->relu, NAN)));
    assert_true(isnan(one(k->gelu, -NAN)) && isnan(one(k->gelu_new, NAN)));
}

static void test_widen_values(void **state)
{
    (void)state;
    static const struct {
        uint16_t h;
        float f;
    } f16[] = {{0x0000, 0},         {0x8000, -0.0f},         {0x3c00, 1},
               {0xc000, -2},        {0x7bff, 65504},         {0x0400, 0x1p-14f},
               {0x0001, 0x1p-24f},  {0x83ff, -0x1.ff8p-15f}, {0x7c00, INFINITY},
               {0xfc00, -INFINITY}, {0x3555, 0x1.554p-2f}},
      bf16[] = {{0x3f80, 1},           {0xc000, -2},        {0x8000, -0.0f},
                {0x7f7f, 0x1.fep127f}, {0x0001, 0x1p-133f}, {0xff80, -INFINITY}};
    for (size_t i = 0; i < sizeof f16 / sizeof *f16; i++) {
        float y;
        k->widen(&y, &f16[i].h, AU_F16, 1);
        assert_int_equal(to_bits(y), to_bits(f16[i].f));
    }
    for (size_t i = 0; i < sizeof bf16 / sizeof *bf16; i++) {
        float y;
        k->widen(&y, &bf16[i].h, AU_BF16, 1);
        assert_int_equal(to_bits(y), to_bits(bf16[i].f));
    }
}

static double dot(const float *a, const float *b, size_t n, double *magnitude)
{
    double s = 0;
    *magnitude = 0;
    for (size_t i = 0; i < n; i++) {
        s += (double)a[i] * (double)b[i];
        *magnitude += fabs((double)a[i] * (double)b[i]);
    }
    return s;
}

/* 16 chains of n / 16 roundings and a tree: the error stays under (n / 16 + 5) half ulps of the
 * magnitudes. */
static void test_products_against_double(void **state)
{
    (void)state;
    enum { M = 9, N = 13, K = 777 };
    static float x[M * K], w[N * K], y[M * N], s[N], p[N], o[K];
    fill(x, M * K, TAME);
    fill(w, N * K, TAME);
    fill(p, N, TAME);
    k->gemm(y, N, x, K, w, AU_F32, K, M, N, K);
    k->dot_rows(s, x, w, K, N, K);
    const double bound = (K / 16 + 6) * 0x1p-24;
    double magnitude;
    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < N; n++) {
            double want = dot(x + m * K, w + n * K, K, &magnitude);
            assert_true(fabs((double)y[m * N + n] - want) <= bound * magnitude);
            assert_true(m > 0 || s[n] == y[n]);
        }
    k->weighted_rows(o, p, w, K, N, K);
    for (size_t d = 0; d < K; d++) {
        double want = 0, size = 0;
        for (size_t t = 0; t < N; t++) {
            want += (double)p[t] * (double)w[t * K + d];
            size += fabs((double)p[t] * (double)w[t * K + d]);
        }
        assert_true(fabs((double)o[d] - want) <= N * 0x1p-24 * size);
    }
}

/* The order of sums is the contract: shown by values that another order would lose. */
static void test_order_of_sums(void **state)
{
    (void)state;
    float x[40], w[40], y;
    for (int i = 0; i < 40; i++)
        x[i] = 0, w[i] = 1;
    x[0] = 0x1p24f, x[16] = 1, x[32] = -0x1p24f; /* partial 0: the 1 is lost in 2^24 */
    x[8] = 3;                                    /* partial 8 joins at the end */
    k->gemm(&y, 1, x, 40, w, AU_F32, 40, 1, 1, 40);
    assert_true(y == 3);
    x[16] = 0, x[17] = 1; /* partial 1: kept */
    k->gemm(&y, 1, x, 40, w, AU_F32, 40, 1, 1, 40);
    assert_true(y == 4);
    for (int i = 0; i < 40; i++)
        x[i] = 0;
    x[0] = 0x1p24f, x[4] = 1, x[12] = -1, x[8] = 1; /* 8 joins 0 first: lost; 4 and 12 cancel */
    k->gemm(&y, 1, x, 40, w, AU_F32, 40, 1, 1, 40);
    assert_true(y == 0x1p24f);
    x[0] = 1 + 0x1p-12f, w[0] = 1 - 0x1p-12f, x[4] = x[12] = x[8] = 0,
    x[16] = -1; /* the product is not rounded */
    k->gemm(&y, 1, x, 40, w, AU_F32, 40, 1, 1, 40);
    assert_true(y == -0x1p-24f);
}

static void test_norms_and_softmax(void **state)
{
    (void)state;
    enum { N = 1000 };
    static float x[N], w[N], b[N], y[N];
    static double want[N];
    for (size_t n = 1; n <= N; n += 37) {
        fill(x, n, TAME);
        fill(w, n, TAME);
        fill(b, n, TAME);
        for (size_t i = 0; i < n; i++)
            x[i] = x[i] * 5 + 3;
        double mean = 0, var = 0, square = 0, largest = -INFINITY, total = 0;
        for (size_t i = 0; i < n; i++) {
            mean += (double)x[i] / (double)n;
            square += (double)x[i] * (double)x[i] / (double)n;
            largest = fmax(largest, (double)x[i]);
        }
        for (size_t i = 0; i < n; i++)
            var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
        k->layernorm(y, x, w, b, n, 1e-5f);
        for (size_t i = 0; i < n; i++)
            assert_true(
                fabs((double)y[i] - (((double)x[i] - mean) / sqrt(var + 1e-5) * (double)w[i] +
                                     (double)b[i])) < 2e-5);
        k->rmsnorm(y, x, w, n, 1e-6f);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)y[i] - (double)x[i] / sqrt(square + 1e-6) * (double)w[i]) <
                        5e-6);
        for (size_t i = 0; i < n; i++)
            total += want[i] = exp((double)x[i] - largest);
        k->softmax(x, n);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)x[i] - want[i] / total) <= 2e-6 * want[i] / total);
    }
    float extreme[3] = {-INFINITY, 1000, -1000}, same[5] = {7, 7, 7, 7, 7}, nan[2] = {0, NAN};
    k->softmax(extreme, 3);
    assert_true(extreme[0] == 0 && extreme[1] == 1 && extreme[2] == 0);
    k->softmax(same, 5);
    assert_true(same[0] == 0.2f && same[4] == 0.2f);
    k->softmax(nan, 2);
    assert_true(isnan(nan[0]) && isnan(nan[1]));
}

static void test_lstm_cell(void **state)
{
    (void)state;
    enum { H = 50 };
    float gates[4 * H], h[H], c[H], c0[H];
    fill(gates, 4 * H, TAME);
    fill(c0, H, TAME);
    memcpy(c, c0, sizeof c);
    k->lstm_cell(h, c, gates, H);
    for (size_t i = 0; i < H; i++) {
        double gi = sigmoid(gates[i]), gf = sigmoid(gates[H + i]), go = sigmoid(gates[3 * H + i]);
        double want = gf * (double)c0[i] + gi * tanh(gates[2 * H + i]);
        assert_true(fabs((double)c[i] - want) < 1e-6);
        assert_true(fabs((double)h[i] - go * tanh(want)) < 1e-6);
    }
}

static void test_simple_vectors(void **state)
{
    (void)state;
    float a[3] = {1, 2, 3}, b[3] = {10, 20, 0x1p-12f}, y[3];
    k->add(y, a, b, 3);
    assert_true(y[0] == 11 && y[1] == 22 && y[2] == 3 + 0x1p-12f);
    k->mul(y, a, b, 3);
    assert_true(y[0] == 10 && y[1] == 40 && y[2] == 0x1.8p-11f);
    float base[3] = {1, 1, -1}, x[3] = {1, 2, 1 - 0x1p-12f};
    k->axpy(base, 1 + 0x1p-12f, x, 3);
    assert_true(base[0] == 2 + 0x1p-12f && base[2] == -0x1p-24f); /* fused */
}

int main(void)
{
    rng_start();
    k = au_kernels_get();
    printf("table %s\n", k->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions),     cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_widen_values),  cmocka_unit_test(test_products_against_double),
        cmocka_unit_test(test_order_of_sums), cmocka_unit_test(test_norms_and_softmax),
        cmocka_unit_test(test_lstm_cell),     cmocka_unit_test(test_simple_vectors),
    };
    return cmocka_run_group_tests_name("kernels_math", tests, NULL, NULL);
}
