/* SPDX-License-Identifier: MIT */
/* The LSTM: the input half of all steps is one product, the recurrent half one product with M = B a
 * step. */
#include "nn/nn.h"

#include <string.h>

void au_nn_lstm(const au_nn *nn, float *const *y, const float *const *x, size_t B, size_t T,
                const au_lstm_layer *l, float *state, float *gates)
{
    size_t H = l->w_hh.cols, G = 4 * H;
    const au_linear input = {l->w_ih, l->b_ih, -1}, recurrent = {l->w_hh, l->b_hh, -1};
    for (size_t b = 0; b < B; b++) {
        const au_linear_op op = {gates + b * T * G, G, x[b], l->w_ih.cols, &input, T, NULL};
        au_nn_linear(nn, &op, 1);
    }
    float *h = state, *c = state + B * H, *step = gates + B * T * G;
    const au_linear_op op = {step, G, h, H, &recurrent, B, NULL};
    for (size_t t = 0; t < T; t++) {
        au_nn_linear(nn, &op, 1);
        for (size_t b = 0; b < B; b++) {
            nn->k->add(step + b * G, step + b * G, gates + (b * T + t) * G, G);
            nn->k->lstm_cell(h + b * H, c + b * H, step + b * G, H);
            memcpy(y[b] + t * H, h + b * H, H * sizeof *h);
        }
    }
}
