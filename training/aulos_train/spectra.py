# SPDX-License-Identifier: MIT
"""Mel spectra in numpy and pictures of them."""

import numpy as np
from PIL import Image, ImageDraw


def mel_bank(rate, size, bands, lowest=30.0):
    """Triangles [bands, size / 2 + 1] with peaks of 1."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    bottom = 2595 * np.log10(1 + lowest / 700)
    points = 700 * (10 ** (np.linspace(bottom, top, bands + 2) / 2595) - 1)
    f = np.linspace(0, rate / 2, size // 2 + 1)
    low, centre, high = points[:-2, None], points[1:-1, None], points[2:, None]
    return np.maximum(0, np.minimum((f - low) / (centre - low), (high - f) / (high - centre))).astype(np.float32)


def log_mel(x, rate, size=2048, hop=240, bands=128):
    """dB [bands, frames]; silence is -70."""
    x = np.pad(np.asarray(x, np.float32), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop] * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)).T.astype(np.float32) ** 2
    return 10 * np.log10(mel_bank(rate, size, bands) @ power + 1e-7)


def log_mel_distance(x, y, rate):
    """Mean absolute difference in dB over 64 bands; what lies below -30 counts as silence."""
    a, b = (np.maximum(log_mel(v, rate, bands=64), -30) for v in (x, y))
    return float(np.abs(a - b).mean())


def picture(path, rows, rate, width=900, height=150, floor=-70):
    """A PNG of spectrograms, one above the other; rows are (title, waveform)."""
    image = Image.new("L", (width, len(rows) * (height + 14)), 255)
    draw = ImageDraw.Draw(image)
    for i, (title, x) in enumerate(rows):
        m = log_mel(x, rate)[::-1]
        m = m - m.max()
        shades = Image.fromarray((255 * np.clip(1 - m / floor, 0, 1)).astype(np.uint8)).resize((width, height))
        image.paste(shades, (0, i * (height + 14) + 14))
        draw.text((3, i * (height + 14) + 1), title[:140], fill=0)
    image.save(path, optimize=True)
