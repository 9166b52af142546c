# SPDX-License-Identifier: MIT
"""From a seed to a clip: composer, instrument renderer, style and level."""

import numpy as np
from scipy.signal import lfilter

from aulos_train import chiptune, lofi
from aulos_train.captions import caption
from aulos_train.compose import compose

STYLES = ("chiptune", "lo-fi")
LEVEL_DB = {"soft": -26, "medium": -23, "loud": -20}
PEAK = 0.89  # -1 dBFS


def set_level(x, dynamics):
    """No DC (some FluidR3 samples carry some), RMS by the dynamics, peaks at most -1 dBFS."""
    x = lfilter([1, -1], [1, -0.995], x.astype(np.float32)).astype(np.float32)
    rms = np.sqrt(np.mean(x.astype(np.float64) ** 2)) + 1e-9
    x = x * (10 ** (LEVEL_DB[dynamics] / 20) / rms)
    return (x * min(1, PEAK / max(np.abs(x).max(), 1e-9))).astype(np.float32)


def clip(seed, seconds, rate, fluid=None, style=None):
    """-> (waveform, labels, caption). `fluid` renders everything but chiptune."""
    score = compose(seed, seconds)
    if style == "chiptune":
        x = chiptune.render(score, seconds, rate)
    elif style == "lo-fi":
        x = lofi.lofi(fluid.render(lofi.swing(score), seconds), rate, seed)
    else:
        x = fluid.render(score, seconds)
    return set_level(x, score.labels["dynamics"]), score.labels, caption(score.labels, seed, style)
