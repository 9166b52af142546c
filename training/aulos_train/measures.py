# SPDX-License-Identifier: MIT
"""What can be measured of a clip: the instrument (a classifier), the tempo, the mode, the level, and defects."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from aulos_train.spectra import log_mel

BANDS, SIZE, HOP = 64, 1024, 480
SILENT_DB = -40


def features(x, rate=24000):
    """dB [BANDS, frames], 50 frames a second at 24 kHz."""
    return np.maximum(log_mel(x, rate, SIZE, HOP, BANDS), SILENT_DB).astype(np.float32)


class Classifier(nn.Module):
    def __init__(self, classes, channels=96):
        super().__init__()
        layers, inputs = [], BANDS
        for outputs, stride in ((channels, 1), (channels, 2), (channels, 2), (128, 2)):
            layers += [nn.Conv1d(inputs, outputs, 5, stride, 2), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.1)]
            inputs = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(256, classes)

    def forward(self, f):
        f = (f - f.amax((1, 2), keepdim=True)) / 20 + 1.5  # loudness is no cue
        h = self.body(f)
        return self.head(torch.cat([h.mean(2), h.amax(2)], 1))


def band_of(hz, rate=24000):
    mel = lambda f: 2595 * np.log10(1 + f / 700)
    return (mel(hz) - mel(30.0)) / (mel(rate / 2) - mel(30.0)) * BANDS


def disturb(f):
    """Mild changes that keep an instrument what it is: band limit 6 to 12 kHz, EQ, noise from -60 to -40 dB, level. f [N, BANDS, T] dB."""
    n = len(f)
    limits = torch.from_numpy(band_of(np.random.default_rng(int(torch.randint(2**31, ()))).uniform(6000, 12500, n))).float()
    band = torch.arange(BANDS)[None, :, None]
    fall = (band - limits[:, None, None]).clamp(min=0) * 6
    keep = torch.rand(n, 1, 1) < 0.3  # some clips keep their whole band
    f = f - torch.where(keep, torch.zeros(()), fall)
    equalizer = F.interpolate(torch.randn(n, 1, 6) * 2.5, size=BANDS, mode="linear")[:, 0, :, None]
    f = f + equalizer + torch.randn(n, 1, 1) * 3
    noise = f.amax((1, 2), keepdim=True) - 40 - 20 * torch.rand(n, 1, 1) + torch.randn_like(f)
    f = 10 * torch.log10(10 ** (f / 10) + 10 ** (noise / 10))
    return f.clamp(min=SILENT_DB)


def train_classifier(f, labels, classes, steps=1200, batch=48, rate=2e-3, seed=0):
    """f [N, BANDS, T] of real renders; crops of 40 to 100 % of the length, so that shorter clips can be judged too."""
    torch.manual_seed(seed)
    net = Classifier(classes)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    f, labels = torch.from_numpy(f), torch.as_tensor(labels)
    length = f.shape[2]
    for step in range(steps):
        chosen = torch.randint(len(f), (batch,))
        width = int(torch.randint(int(length * 0.4), length + 1, ()))
        start = int(torch.randint(length - width + 1, ()))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps)
        loss = F.cross_entropy(net(disturb(f[chosen][:, :, start:start + width])), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@torch.no_grad()
def classify(net, waves, rate=24000):
    """Probabilities [N, classes]."""
    return np.concatenate([net(torch.from_numpy(features(x, rate))[None]).softmax(1).numpy() for x in waves])


def tempo(x, rate=24000):
    """bpm by the autocorrelation of the spectral flux, with a mild preference for tempi near 110."""
    hop = 240
    m = np.maximum(log_mel(x, rate, 1024, hop, 40), -45)
    flux = np.maximum(0, np.diff(m, axis=1)).mean(0)
    flux = np.maximum(0, flux - np.convolve(flux, np.ones(50) / 50, "same"))
    flux = flux - flux.mean()
    n = len(flux)
    r = np.fft.irfft(np.abs(np.fft.rfft(flux, 4 * n)) ** 2)[:n]
    r = r / (r[0] + 1e-9) * n / (n - np.arange(n) * 0.8)
    lags = np.arange(int(60 / 200 * rate / hop), min(int(60 / 45 * rate / hop) + 1, n // 2))
    bpm = 60 * rate / hop / lags
    score = r[lags] + 0.5 * r[np.minimum(2 * lags, n - 1)]  # a beat comes again after two
    k = int(np.argmax(score * np.exp(-0.5 * (np.log2(bpm / 110) / 0.9) ** 2)))
    lag = float(lags[k])
    if 0 < k < len(lags) - 1:
        a, b, c = score[k - 1:k + 2]
        lag += 0.5 * (a - c) / (a - 2 * b + c + 1e-9)
    return 60 * rate / hop / lag


def same_tempo(measured, named, tolerance=0.08):
    """Within the tolerance, or an octave away."""
    return any(abs(measured / (named * factor) - 1) < tolerance for factor in (0.5, 1, 2))


# Krumhansl and Kessler's profiles
PROFILES = {
    "major": np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88]),
    "minor": np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17]),
}


def chroma(x, rate=24000):
    size = 8192
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, size // 2), size)[::2048] * np.hanning(size)
    spectrum = np.abs(np.fft.rfft(frames, axis=1))
    f = np.fft.rfftfreq(size, 1 / rate)
    used = (f > 60) & (f < 1500)
    key = 69 + 12 * np.log2(f[used] / 440)
    weight = np.exp(-0.5 * ((key - np.round(key)) / 0.2) ** 2)
    power = (spectrum[:, used] ** 0.7 * weight).sum(0)
    return np.bincount(np.round(key).astype(int) % 12, power, 12)


def key_and_mode(x, rate=24000):
    """(pitch class of the tonic, "major" or "minor")"""
    c = chroma(x, rate)
    if c.std() < 1e-9:
        return 0, "major"
    best = max((np.corrcoef(np.roll(profile, k), c)[0, 1], k, mode) for mode, profile in PROFILES.items() for k in range(12))
    return best[1], best[2]


def centroid(x, rate=24000):
    """Mean frequency in Hz, weighted by power."""
    frames = np.lib.stride_tricks.sliding_window_view(x, 1024)[::512] * np.hanning(1024)
    spectrum = (np.abs(np.fft.rfft(frames)) ** 2).sum(0)
    return float((spectrum * np.fft.rfftfreq(1024, 1 / rate)).sum() / max(spectrum.sum(), 1e-12))


def level_db(x):
    return float(20 * np.log10(np.sqrt(np.mean(x.astype(np.float64) ** 2)) + 1e-6))


def defects(x, rate=24000):
    """The names of what is wrong: "silent" (below -50 dB in all), "drop-out" (after the start a second or more 45 dB below the loud
    parts), "stuck" (the same spectrum for four seconds at undiminished level), "clipped"."""
    found = []
    if level_db(x) < -50:
        return ["silent"]
    m = np.maximum(log_mel(x, rate, 1024, 480, 40), -60)
    loud = m.max(0)
    quiet = (loud < np.percentile(loud, 95) - 45).astype(int)
    run = longest = 0
    for q in quiet:
        run = run + 1 if q else 0
        longest = max(longest, run)
    if longest >= 50:
        found.append("drop-out")
    window = 200
    if m.shape[1] > window:
        change = np.abs(np.diff(np.maximum(m, loud - 30), axis=1)).mean(0)  # of what can be heard
        steady = np.convolve(change < 1.0, np.ones(window), "valid")
        level = np.convolve(loud > np.percentile(loud, 95) - 15, np.ones(window), "valid")
        if ((steady > 0.97 * window) & (level[: len(steady)] > 0.97 * window)).any():
            found.append("stuck")
    if (np.abs(x) > 0.999).mean() > 1e-3:
        found.append("clipped")
    return found
