#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Finds prompts that work well: of many candidates those whose clips have the instrument, the tempo and the mode that the prompt names,
with several seeds. Writes them to MODEL/prompts.txt, one a line, as `aulos generate --prompts` reads them.

    python choose_prompts.py MODEL --aulos ../build/aulos --classifiers RUN/classifiers
"""

import argparse
import itertools
import json
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from aulos_train import measures
from aulos_train.captions import MOODS
from aulos_train.compose import EIGHTH_FRAMES, NAMES, bpm_of
from evaluate import instrument_classifier, read_wave

SEEDS = (1, 2, 3, 4)
KEYS = ("C", "D", "F", "G", "A")


def candidates(each, random):
    """(prompt, instrument, bpm, mode)"""
    for name, texture in itertools.product(NAMES, ("melody", "arpeggio", "chords")):
        for _ in range(each):
            band = random.choice(list(EIGHTH_FRAMES))
            bpm = bpm_of(random.choice(EIGHTH_FRAMES[band]))
            mode = random.choice(["major", "minor"])
            mood = random.choice(MOODS[mode, band])
            drums = random.choice(["", "", " with rock drums", " with house drums"])
            tempo = "mid-tempo" if band == "medium" else band
            yield f"{tempo} {mood} {name} {texture}{drums}, {bpm:.0f} bpm, {random.choice(KEYS)} {mode}", name, bpm, mode


def score(args, net, folder, number, prompt, name, bpm, mode):
    """Of 1, the mean over the seeds: half for the instrument, the rest for tempo, mode and absence of defects."""
    points = []
    for seed in SEEDS:
        path = folder / f"{number}-{seed}.wav"
        subprocess.run([args.aulos, "generate", prompt, "--model", f"{args.model}/", "--seed", str(seed), "--duration", "8", "--threads", "1", "-o", path, "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)
        x = read_wave(path)
        path.unlink()
        right = NAMES[measures.classify(net, [x])[0].argmax()] == name
        in_time = measures.same_tempo(measures.tempo(x), bpm)
        in_mode = measures.key_and_mode(x)[1] == mode
        points.append(0.5 * right + 0.2 * in_time + 0.15 * in_mode + 0.15 * (not measures.defects(x)))
    return float(np.mean(points))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=lambda p: str(Path(p).resolve()))
    parser.add_argument("--aulos", default="aulos", help="the program (%(default)s)")
    parser.add_argument("--classifiers", type=Path, required=True, help="folder that evaluate.py keeps")
    parser.add_argument("--each", type=int, default=3, help="candidates for each instrument and texture (%(default)s)")
    parser.add_argument("--keep", type=int, default=16, help="at most three of an instrument (%(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = instrument_classifier(args.classifiers)
    asked = list(candidates(args.each, np.random.default_rng(0)))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        scores = list(pool.map(lambda i: score(args, net, Path(folder), i, *asked[i]), range(len(asked))))
    kept, count = [], dict.fromkeys(NAMES, 0)
    for points, (prompt, name, _, _) in sorted(zip(scores, asked), key=lambda p: -p[0]):
        if count[name] < 3 and len(kept) < args.keep:
            count[name] += 1
            kept.append(prompt)
            print(json.dumps({"prompt": prompt, "score": round(points, 3)}))
    (Path(args.model) / "prompts.txt").write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    main()
