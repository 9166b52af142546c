# SPDX-License-Identifier: MIT
"""Audio files and captions as people have them."""

import json
import math
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}
SHORTEST = 0.25  # of a clip; what is left over at the end of a file and shorter is dropped


def captions_of(folder):
    """[(audio file, caption)] of a folder: NAME.txt beside NAME.wav, or one object a line in captions.jsonl or metadata.jsonl with
    "file" (or "file_name") and "caption" (or "text"). Files without a caption are an error, not a gap."""
    folder = Path(folder)
    audio = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not audio:
        raise ValueError(f"{folder}: no audio ({', '.join(sorted(SUFFIXES))})")
    listed = {}
    for name in ("captions.jsonl", "metadata.jsonl"):
        path = folder / name
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
            if line.strip():
                row = json.loads(line)
                file, caption = row.get("file", row.get("file_name")), row.get("caption", row.get("text"))
                if not file or not caption:
                    raise ValueError(f"{path}:{number}: an object with file and caption is expected, found {', '.join(row) or 'nothing'}")
                if not (folder / file).is_file():
                    raise ValueError(f"{path}:{number}: no such file: {file}")
                listed[(folder / file).resolve()] = caption
    pairs, without = [], []
    for path in audio:
        text = path.with_suffix(".txt")
        caption = text.read_text(encoding="utf-8") if text.exists() else listed.get(path.resolve(), "")
        caption = " ".join(caption.split())
        (pairs if caption else without).append((path, caption))
    if without:
        raise ValueError(f"{folder}: {len(without)} of {len(audio)} files have no caption, the first is {without[0][0].name}")
    return pairs


def read_mono(path, rate):
    x, own = soundfile.read(path, dtype="float32", always_2d=True)
    x = x.mean(1)
    if own != rate:
        common = math.gcd(own, rate)
        x = resample_poly(x, rate // common, own // common).astype(np.float32)
    return x


def pieces(x, length):
    """Successive pieces of the length; the last one is filled with silence, or dropped when there is little of it."""
    for start in range(0, len(x), length):
        piece = x[start:start + length]
        if len(piece) >= length * SHORTEST:
            yield np.pad(piece, (0, length - len(piece)))


def levelled(x, target_db=-23.0, peak=0.89):
    """No DC, the level that the codec was trained at, peaks kept below -1 dBFS; silence stays silence."""
    x = x - x.mean()
    rms = float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))
    if rms < 1e-5:
        return x
    x = x * (10 ** (target_db / 20) / rms)
    return x * min(1.0, peak / float(np.abs(x).max()))
