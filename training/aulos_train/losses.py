# SPDX-License-Identifier: MIT
"""What the codec is trained against: spectra, the waveform, and a discriminator."""

import torch
import torch.nn.functional as F
from torch import nn

from aulos_train.spectra import mel_bank

MEL_RESOLUTIONS = ((2048, 128), (512, 64), (128, 16))  # window, bands
PLAIN_RESOLUTIONS = (2048, 512)


class SpectralLoss(nn.Module):
    """L1 on log and linear mel magnitudes at three resolutions, and on the log spectrum itself at two.

    `floor` is an amplitude: with less than 5e-4 at the start quiet bins own the gradient."""

    def __init__(self, rate, floor=1e-3):
        super().__init__()
        self.floor = floor
        for size, bands in MEL_RESOLUTIONS:
            bank = torch.from_numpy(mel_bank(rate, size, bands))
            bank = bank / bank.sum(1, keepdim=True).clamp(min=1e-8)
            self.register_buffer(f"bank{size}", bank[bank.sum(1) > 0], persistent=False)
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)

    def log_distance(self, a, b):
        return (torch.log(a + self.floor) - torch.log(b + self.floor)).abs().mean()

    def forward(self, y, x):
        total = 0
        for size, _ in MEL_RESOLUTIONS:
            s = torch.stft(torch.cat([y, x]), size, size // 4, window=getattr(self, f"window{size}"), return_complex=True)
            magnitude = torch.sqrt(s.real**2 + s.imag**2 + 1e-12) * (2 / size)
            a, b = torch.matmul(getattr(self, f"bank{size}"), magnitude).chunk(2)
            total = total + self.log_distance(a, b) + 20 * (a - b).abs().mean()
            if size in PLAIN_RESOLUTIONS:
                total = total + 0.5 * self.log_distance(*magnitude.chunk(2))
        return total / len(MEL_RESOLUTIONS)


def wave_loss(y, x):
    """Energy of the error by energy of the signal. It gives the phase its first hold; an L1 loss stays at silence."""
    return ((y - x) ** 2).mean() / (x**2).mean().clamp(min=1e-5)


class ScaleDiscriminator(nn.Module):
    """Looks at the complex spectrum of one window size."""

    def __init__(self, size, channels):
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        c = channels
        shapes = [(2, c, 9, 1, 1), (c, c, 9, 2, 1), (c, 2 * c, 9, 2, 2), (2 * c, 2 * c, 9, 2, 4), (2 * c, 2 * c, 3, 1, 1)]
        self.layers = nn.ModuleList(self.convolution(*shape) for shape in shapes)
        self.last = self.convolution(2 * c, 1, 3, 1, 1)

    @staticmethod
    def convolution(inputs, outputs, width, stride, dilation):
        layer = nn.Conv2d(inputs, outputs, (3, width), (1, stride), (dilation, (width - 1) // 2), dilation=(dilation, 1))
        return nn.utils.parametrizations.weight_norm(layer)

    def forward(self, x):
        s = torch.stft(x, self.size, self.size // 4, window=self.window, return_complex=True, normalized=True).transpose(1, 2)
        h, features = torch.stack([s.real, s.imag], 1) * 8, []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
            features.append(h)
        return self.last(h), features


class Discriminator(nn.Module):
    def __init__(self, sizes=(1024, 256), channels=8):
        super().__init__()
        self.scales = nn.ModuleList(ScaleDiscriminator(size, channels) for size in sizes)

    def forward(self, x):
        return [scale(x) for scale in self.scales]


def discriminator_loss(real, made):
    return sum(F.relu(1 - r.float()).mean() + F.relu(1 + m.float()).mean() for (r, _), (m, _) in zip(real, made)) / len(real)


def generator_losses(real, made):
    """-> (how far the discriminator is from being fooled, relative distance of its features)."""
    fooled = sum(-m.float().mean() for m, _ in made) / len(made)
    pairs = [(r.detach().float(), m.float()) for (_, rs), (_, ms) in zip(real, made) for r, m in zip(rs, ms)]
    features = sum((r - m).abs().mean() / (r.abs().mean() + 1e-6) for r, m in pairs) / len(pairs)
    return fooled, features


def si_sdr(y, x):
    """dB, for each row."""
    y, x = (v - v.mean(-1, keepdim=True) for v in (y, x))
    gain = (y * x).sum(-1, keepdim=True) / (x * x).sum(-1, keepdim=True).clamp(min=1e-9)
    return 10 * torch.log10(((gain * x) ** 2).sum(-1) / ((y - gain * x) ** 2).sum(-1).clamp(min=1e-9))
