# SPDX-License-Identifier: MIT
"""The lo-fi style: the instruments stay, the recording ages. Swing in the score; low-pass, wow, saturation, crackle and hiss in the sound."""

from dataclasses import replace

import numpy as np
from scipy.signal import butter, lfilter, sosfilt


def swing(score, amount=0.3):
    """Off-beat eighths come later by that part of an eighth; their ends stay where they were."""
    eighth = 30.0 / score.labels["bpm"]
    notes = []
    for start, duration, *rest in score.notes:
        place = start / eighth
        odd = abs(place - round(place)) < 0.26 and round(place) % 2 == 1
        late = amount * eighth if odd else 0.0
        notes.append((start + late, max(0.05, duration - late), *rest))
    return replace(score, notes=sorted(notes))


def wow(x, rate, rng):
    """Slow and fast changes of speed, as of a worn tape."""
    t = np.arange(len(x)) / rate
    slow = 0.0022 * np.sin(2 * np.pi * (rng.uniform(0.45, 0.8) * t + rng.random())) / (2 * np.pi * 0.6)
    fast = 0.00035 * np.sin(2 * np.pi * (rng.uniform(5, 7) * t + rng.random())) / (2 * np.pi * 6)
    n = np.arange(len(x))
    return np.interp(n + (slow + fast) * rate, n, x)


def lofi(x, rate, seed):
    """Mono float32; no level set."""
    rng = np.random.default_rng(seed)
    n = len(x)
    x = wow(x, rate, rng)
    x = np.tanh(1.6 * x / (np.abs(x).max() + 1e-9))
    x = sosfilt(butter(4, rng.uniform(2200, 3600), fs=rate, output="sos"), x)
    x = sosfilt(butter(2, 90, "high", fs=rate, output="sos"), x)
    level = np.sqrt(np.mean(x**2)) + 1e-9
    clicks = np.where(rng.random(n) < 14 / rate, rng.standard_normal(n) * rng.exponential(1, n), 0)
    crackle = lfilter([1], [1, -0.75], clicks)
    hiss = lfilter([1, -0.6], [1, -0.4], rng.standard_normal(n))
    return (x + level * (1.1 * crackle + 0.035 * hiss)).astype(np.float32)
