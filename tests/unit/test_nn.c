/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nn/conv.h"
#include "nn/nn.h"

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / (float)(1 << 23) - 1.0f;
}

static float *randoms(size_t n, uint32_t seed)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = noise(&seed);
    return x;
}

static au_nn make_nn(int threads)
{
    au_nn nn = {au_kernels_get(), NULL};
    assert_int_equal(au_pool_new(&nn.pool, threads, NULL), AU_OK);
    return nn;
}

/* Conv1d as torch computes it on the padded sequence, in double. x [T, in], w [out, kernel, in]. */
static double conv_at(const au_conv1d *c, const float *x, int64_t T, int64_t t, size_t o)
{
    int64_t max_pad = (int64_t)(c->pad_left > c->pad_right ? c->pad_left : c->pad_right);
    int64_t longer = T <= max_pad ? max_pad + 1 : T;
    double sum = (double)c->bias[o];
    for (size_t tap = 0; tap < c->kernel; tap++) {
        int64_t i = t + (int64_t)(tap * c->dilation) - (int64_t)c->pad_left;
        if (c->pad_mode == AU_PAD_REFLECT) {
            if (i < 0)
                i = -i;
            if (i >= longer)
                i = 2 * (longer - 1) - i;
        }
        if (i < 0 || i >= T)
            continue;
        for (size_t k = 0; k < c->in; k++)
            sum +=
                (double)x[(size_t)i * c->in + k] * (double)c->w[(o * c->kernel + tap) * c->in + k];
    }
    return sum;
}

static void check_conv(size_t kernel, size_t dilation, size_t left, au_pad_mode mode, int64_t T)
{
    const size_t in = 3, out = 2, span = (kernel - 1) * dilation;
    float *w = randoms(out * kernel * in, 1), *bias = randoms(out, 2),
          *x = randoms((size_t)T * in, 3);
    const au_conv1d c = {w, bias, in, out, kernel, dilation, left, span - left, mode};
    const au_kernels *k = au_kernels_get();
    float *whole = malloc((size_t)T * out * sizeof *whole),
          *scratch = malloc((au_conv1d_scratch(&c, T) + 1) * sizeof *scratch);
    const au_stretch input = {x, 0, T, T}, output = {whole, 0, T, T};
    au_conv1d_run(k, &c, &output, out, &input, NULL, scratch);
    for (int64_t t = 0; t < T; t++)
        for (size_t o = 0; o < out; o++)
            assert_true(fabs(whole[(size_t)t * out + o] - conv_at(&c, x, T, t, o)) < 1e-5);
    /* Any cut into chunks, each given just what it needs, gives the same bits. */
    for (int64_t chunk = 1; chunk <= 5; chunk++)
        for (int64_t first = 0; first < T; first += chunk) {
            int64_t len = T - first < chunk ? T - first : chunk, a, n;
            au_conv1d_need(&c, first, len, T, &a, &n);
            assert_true(a >= 0 && a + n <= T);
            float part[5 * 2];
            float *given = malloc((size_t)n * in * sizeof *given +
                                  1); /* so that a sanitizer sees a read past it */
            memcpy(given, x + (size_t)a * in, (size_t)n * in * sizeof *given);
            const au_stretch need = {given, a, n, T}, piece = {part, first, len, T};
            au_conv1d_run(k, &c, &piece, out, &need, NULL, scratch);
            assert_memory_equal(part, whole + (size_t)first * out,
                                (size_t)len * out * sizeof *part);
            free(given);
        }
    free(w), free(bias), free(x), free(whole), free(scratch);
}

static void test_conv1d_equals_the_definition_in_any_chunks(void **state)
{
    (void)state;
    for (int64_t T = 1; T <= 23; T++)
        for (int mode = AU_PAD_REFLECT; mode <= AU_PAD_CONSTANT; mode++) {
            check_conv(7, 1, 3, (au_pad_mode)mode, T);
            check_conv(3, 3, 3, (au_pad_mode)mode, T);
            check_conv(7, 1, 6, (au_pad_mode)mode, T); /* causal */
            check_conv(1, 1, 0, (au_pad_mode)mode, T);
            check_conv(4, 2, 3, (au_pad_mode)mode, T);
        }
}

static void identity(float *y, const float *x, size_t n)
{
    memcpy(y, x, n * sizeof *y);
}

static void test_convtr1d_equals_the_definition_in_any_chunks(void **state)
{
    (void)state;
    for (size_t s = 1; s <= 5; s++)
        for (size_t trim = 0; trim <= s; trim++)
            for (int64_t T = 1; T <= 6; T++) {
                const size_t in = 3, out = 2;
                float *torch = randoms(in * out * 2 * s, 1), *bias = randoms(out, 2),
                      *x = randoms((size_t)T * in, 3);
                float *w = malloc(s * out * 2 * in * sizeof *w),
                      *repeated = malloc(s * out * sizeof *w);
                for (size_t p = 0; p < s; p++)
                    for (size_t o = 0; o < out; o++) {
                        for (size_t i = 0; i < in; i++) {
                            w[(p * out + o) * 2 * in + i] = torch[(i * out + o) * 2 * s + p + s];
                            w[(p * out + o) * 2 * in + in + i] = torch[(i * out + o) * 2 * s + p];
                        }
                        repeated[p * out + o] = bias[o];
                    }
                const au_convtr1d c = {w, repeated, in, out, s, trim};
                int64_t N = T * (int64_t)s;
                float *whole = malloc((size_t)N * out * sizeof *whole),
                      *scratch = malloc(au_convtr1d_scratch(&c, N) * sizeof *scratch);
                const au_stretch input = {x, 0, T, T}, output = {whole, 0, N, N};
                au_convtr1d_run(au_kernels_get(), &c, &output, &input, identity, scratch);
                for (int64_t n = 0; n < N; n++)
                    for (size_t o = 0; o < out; o++) {
                        double sum = bias[o];
                        int64_t raw = n + (int64_t)trim;
                        for (int64_t t = 0; t < T; t++) {
                            int64_t tap = raw - t * (int64_t)s;
                            for (size_t i = 0; tap >= 0 && tap < 2 * (int64_t)s && i < in; i++)
                                sum += (double)x[(size_t)t * in + i] *
                                       (double)torch[(i * out + o) * 2 * s + (size_t)tap];
                        }
                        assert_true(fabs(whole[(size_t)n * out + o] - sum) < 1e-5);
                    }
                for (int64_t chunk = 1; chunk <= 4; chunk++)
                    for (int64_t first = 0; first < N; first += chunk) {
                        int64_t len = N - first < chunk ? N - first : chunk, a, n;
                        float part[4 * 2];
                        au_convtr1d_need(&c, first, len, N, &a, &n);
                        assert_true(a >= 0 && n >= 0 && a + n <= T);
                        const au_stretch need = {x + (size_t)a * in, a, n, T},
                                         piece = {part, first, len, N};
                        au_convtr1d_run(au_kernels_get(), &c, &piece, &need, identity, scratch);
                        assert_memory_equal(part, whole + (size_t)first * out,
                                            (size_t)len * out * sizeof *part);
                    }
                free(torch), free(bias), free(x), free(w), free(repeated), free(whole),
                    free(scratch);
            }
}

static void test_lstm_equals_the_definition_and_goes_on_from_its_state(void **state)
{
    (void)state;
    enum { H = 5, T = 12, B = 2, G = 4 * H };
    au_nn nn = make_nn(2);
    float *w_ih = randoms(G * H, 1), *w_hh = randoms(G * H, 2), *b_ih = randoms(G, 3),
          *b_hh = randoms(G, 4);
    const au_lstm_layer l = {{w_ih, AU_F32, G, H}, {w_hh, AU_F32, G, H}, b_ih, b_hh};
    float *x[B] = {randoms(T * H, 5), randoms(T * H, 6)}, y[B][T * H], gates[B * (T + 1) * G],
          st[2 * B * H] = {0};
    float *out[B] = {y[0], y[1]};
    au_nn_lstm(&nn, out, (const float *const *)x, B, T, &l, st, gates);
    for (int b = 0; b < B; b++) {
        double h[H] = {0}, c[H] = {0}, g[G];
        for (int t = 0; t < T; t++) {
            for (int i = 0; i < G; i++) {
                g[i] = (double)b_ih[i] + (double)b_hh[i];
                for (int j = 0; j < H; j++)
                    g[i] += (double)w_ih[i * H + j] * (double)x[b][t * H + j] +
                            (double)w_hh[i * H + j] * h[j];
            }
            for (int i = 0; i < H; i++) {
                c[i] = c[i] / (1 + exp(-g[H + i])) + tanh(g[2 * H + i]) / (1 + exp(-g[i]));
                h[i] = tanh(c[i]) / (1 + exp(-g[3 * H + i]));
                assert_true(fabs(h[i] - (double)y[b][t * H + i]) < 1e-5);
            }
        }
    }
    /* In two halves, in place. */
    float parts[B][T * H], again[2 * B * H] = {0};
    for (int half = 0; half < 2; half++) {
        float *at[B];
        for (int b = 0; b < B; b++) {
            at[b] = parts[b] + half * (T / 2) * H;
            memcpy(at[b], x[b] + half * (T / 2) * H, T / 2 * H * sizeof(float));
        }
        au_nn_lstm(&nn, at, (const float *const *)at, B, T / 2, &l, again, gates);
    }
    assert_memory_equal(parts, y, sizeof parts);
    free(w_ih), free(w_hh), free(b_ih), free(b_hh), free(x[0]), free(x[1]);
    au_pool_free(&nn.pool);
}

/* y = factor * (W x + s B A x + bias_lora) + bias, in double. */
static double adapted_at(const au_linear *l, const au_lora *lora, const float *x, size_t o)
{
    const float *w = l->w.data;
    double sum = 0, low = 0;
    for (size_t i = 0; i < l->w.cols; i++)
        sum += (double)x[i] *
               (double)(lora && lora->replace_weight ? lora->replace_weight : w)[o * l->w.cols + i];
    for (int r = 0; lora && r < lora->rank; r++) {
        double a = 0;
        for (size_t i = 0; i < l->w.cols; i++)
            a += (double)lora->a[(size_t)r * l->w.cols + i] * (double)x[i];
        low += a * (double)lora->b[o * (size_t)lora->rank + (size_t)r];
    }
    sum += lora ? (double)lora->scale * low : 0;
    sum += lora && lora->bias ? (double)lora->bias[o] : 0;
    sum *= lora && lora->factor ? (double)lora->factor[o] : 1;
    return sum + (l->bias ? (double)l->bias[o] : 0);
}

static void test_rows_of_a_product_have_their_own_adapters(void **state)
{
    (void)state;
    enum { IN = 37, OUT = 300, M = 6, R = 3 };
    float *w = randoms(OUT * IN, 1), *bias = randoms(OUT, 2), *x = randoms(M * IN, 3),
          *a = randoms(R * IN, 4), *b = randoms(OUT * R, 5);
    float *other = randoms(OUT * IN, 6), *factor = randoms(OUT, 7), *add = randoms(OUT, 8);
    const au_linear l = {{w, AU_F32, OUT, IN}, bias, 0};
    const au_lora plain = {.rank = R, .scale = 0.5f, .a = a, .b = b},
                  dora = {.rank = R, .scale = 2, .a = a, .b = b, .factor = factor},
                  biased = {.rank = R, .scale = 1, .a = a, .b = b, .bias = add},
                  replaced = {.replace_weight = other};
    const au_lora *const loras[M] = {NULL, &plain, &dora, &biased, &replaced, &plain};
    au_applied applied[M];
    const au_applied *rows[M];
    for (int m = 0; m < M; m++) {
        applied[m] = (au_applied){&loras[m], 1};
        rows[m] = m ? &applied[m] : NULL;
    }
    for (int threads = 1; threads <= 3; threads++) {
        au_nn nn = make_nn(threads);
        float y[M][OUT], solo[OUT];
        au_nn_linear(&nn, &(au_linear_op){y[0], OUT, x, IN, &l, M, rows}, 1);
        for (int m = 0; m < M; m++) {
            for (size_t o = 0; o < OUT; o++)
                assert_true(fabs((double)y[m][o] - adapted_at(&l, loras[m], x + m * IN, o)) < 2e-5);
            /* The bits of a run without neighbours. */
            au_nn_linear(&nn,
                         &(au_linear_op){solo, OUT, x + m * IN, IN, &l, 1, m ? &rows[m] : NULL}, 1);
            assert_memory_equal(solo, y[m], sizeof solo);
        }
        au_pool_free(&nn.pool);
    }
    free(w), free(bias), free(x), free(a), free(b), free(other), free(factor), free(add);
}

static void test_embeddings_with_adapters(void **state)
{
    (void)state;
    enum { N = 9, D = 21, R = 2 };
    float *w = randoms(N * D, 1), *a = randoms(N * R, 2), *b = randoms(D * R, 3), y[D], scratch[D];
    const au_embed e = {{w, AU_F32, N, D}, 0};
    const au_lora lora = {.rank = R, .scale = -1.5f, .a = a, .b = b};
    const au_lora *const loras[] = {&lora};
    const au_applied applied = {loras, 1};
    au_nn nn = make_nn(1);
    for (size_t id = 0; id < N; id++) {
        au_nn_embed(&nn, y, &e, id, &applied, scratch);
        for (size_t d = 0; d < D; d++) {
            double want = (double)w[id * D + d];
            for (size_t r = 0; r < R; r++)
                want += -1.5 * (double)a[id * R + r] * (double)b[d * R + r];
            assert_true(fabs(want - (double)y[d]) < 1e-6);
        }
    }
    free(w), free(a), free(b);
    au_pool_free(&nn.pool);
}

static void test_attention_equals_the_definition(void **state)
{
    (void)state;
    enum { H = 3, D = 5, T = 40 };
    au_nn nn = make_nn(2);
    float *q = randoms(H * D, 1), *k = randoms(H * T * D, 2), *v = randoms(H * T * D, 3),
          *bias = randoms(H * T, 4), o[H * D], scores[2 * T];
    const au_attend query = {o, q, k, v, T * D, D, T, bias, T};
    au_nn_attention(&nn, &query, 1, H, D, 0.7f, scores, T);
    for (size_t h = 0; h < H; h++) {
        double p[T], sum = 0;
        for (size_t t = 0; t < T; t++) {
            double s = 0;
            for (size_t d = 0; d < D; d++)
                s += (double)q[h * D + d] * (double)k[(h * T + t) * D + d];
            p[t] = exp(s * 0.7 + (double)bias[h * T + t]);
            sum += p[t];
        }
        for (size_t d = 0; d < D; d++) {
            double want = 0;
            for (size_t t = 0; t < T; t++)
                want += p[t] / sum * (double)v[(h * T + t) * D + d];
            assert_true(fabs(want - (double)o[h * D + d]) < 1e-5);
        }
    }
    free(q), free(k), free(v), free(bias);
    au_pool_free(&nn.pool);
}

static void test_sinusoids_are_correctly_rounded(void **state)
{
    (void)state;
    enum { D = 1023 }; /* odd: the last element is zero */
    float freqs[D / 2], y[D];
    au_nn_sinusoid_freqs(freqs, D);
    const float step = (float)-(log(10000.0) / (D / 2 - 1));
    size_t differ = 0;
    for (size_t i = 0; i < D / 2; i++)
        assert_true(freqs[i] == (float)exp((double)((float)i * step)));
    for (size_t p = 0; p < 15000; p += p < 100 ? 1 : 97) {
        au_nn_sinusoid(y, freqs, D, p);
        for (size_t i = 0; i < D / 2; i++) {
            double angle = (double)((float)p * freqs[i]);
            assert_true(fabs((double)y[i] - cos(angle)) <= 6e-8);
            assert_true(fabs((double)y[D / 2 + i] - sin(angle)) <= 6e-8);
            differ += y[i] != (float)cos(angle);
        }
        assert_true(y[D - 1] == 0);
    }
    assert_int_equal(differ, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv1d_equals_the_definition_in_any_chunks),
        cmocka_unit_test(test_convtr1d_equals_the_definition_in_any_chunks),
        cmocka_unit_test(test_lstm_equals_the_definition_and_goes_on_from_its_state),
        cmocka_unit_test(test_rows_of_a_product_have_their_own_adapters),
        cmocka_unit_test(test_embeddings_with_adapters),
        cmocka_unit_test(test_attention_equals_the_definition),
        cmocka_unit_test(test_sinusoids_are_correctly_rounded),
    };
    return cmocka_run_group_tests_name("nn", tests, NULL, NULL);
}
