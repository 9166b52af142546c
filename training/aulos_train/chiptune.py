# SPDX-License-Identifier: MIT
"""A small synthesizer of early game consoles: pulse leads, triangle bass, noise drums, 16 steps of volume; 2x oversampled."""

import numpy as np
from scipy.signal import resample_poly

from aulos_train.compose import BASS, DRUM, LEAD

KICK, SNARE, HAT = 36, 38, 42
STEPS = 15  # of volume


def drum(key, t, rng):
    hold = 4 if key in (KICK, SNARE) else 1
    noise = np.repeat(rng.choice([-1.0, 1.0], len(t) // hold + 1), hold)[: len(t)]
    if key == KICK:
        return np.sign(np.sin(2 * np.pi * (50 * t + 8 * (1 - np.exp(-t * 30))))) * np.exp(-t * 18)
    return noise * np.exp(-t * (60 if key == HAT else 25))


def tone(channel, key, t, duty):
    phase = (440 * 2 ** ((key - 69) / 12) * t) % 1
    if channel == BASS:
        wave, gain = 4 * np.abs(phase - 0.5) - 1, 0.7
    elif channel == LEAD:
        wave, gain = np.where(phase < duty, 1.0, -1.0) - (2 * duty - 1), 0.5
    else:
        wave, gain = np.where(phase < 0.5, 1.0, -1.0), 0.18
    fade = np.minimum(1, t * 300) * np.minimum(1, (len(t) - np.arange(len(t))) / 200)
    return gain * wave * fade * np.floor(STEPS * np.exp(-t * 1.5) + 0.5) / STEPS


def render(score, seconds, rate):
    """Mono float32 of the score; the programs of the channels do not matter."""
    rng = np.random.default_rng(score.labels["seed"])
    duty = (0.125, 0.25, 0.5)[rng.integers(3)]
    fast, n = rate * 2, int(seconds * rate * 2)
    out = np.zeros(n, np.float32)
    for start, duration, channel, key, velocity in score.notes:
        at = int(start * fast)
        length = min(int((min(duration, 0.12) if channel == DRUM else duration) * fast), n - at)
        if length < 8:
            continue
        t = np.arange(length) / fast
        wave = 0.5 * drum(key, t, rng) if channel == DRUM else tone(channel, key, t, duty)
        out[at:at + length] += (velocity / 127 * wave).astype(np.float32)
    return resample_poly(out, 1, 2).astype(np.float32)
