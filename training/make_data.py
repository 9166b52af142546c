#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Composes and renders a data set. The same seeds give the same bytes.

    python make_data.py OUT --clips 8000                       instruments of the sound font
    python make_data.py OUT --clips 800 --style lo-fi          or chiptune: the styles of the adapters
"""

import argparse
import multiprocessing
import time

import numpy as np

from aulos_train import dataset
from aulos_train.fluid import Fluid
from aulos_train.render import STYLES, clip

# Seeds of different uses never meet: training clips, styles, held-out prompts and renders.
FIRST_SEED = {None: 1_000_000, "chiptune": 5_000_000, "lo-fi": 7_000_000}


def work(job):
    args, first, end = job
    data = dataset.Dataset(args.out)
    audio = np.memmap(data.folder / "audio.i16", np.int16, "r+", shape=data.audio.shape)
    fluid = None if args.style == "chiptune" else Fluid(args.rate)
    rows = []
    for i in range(first, end):
        x, labels, caption = clip(args.first_seed + i, args.seconds, args.rate, fluid, args.style)
        audio[i] = (x * 32767).astype(np.int16)
        rows.append({"caption": caption, "labels": labels})
    audio.flush()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--clips", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=24000)
    parser.add_argument("--style", choices=STYLES)
    parser.add_argument("--first-seed", type=int, help="seed of clip 0, clip i has the seed + i; by default one by the style")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.first_seed is None:
        args.first_seed = FIRST_SEED[args.style]
    started = time.monotonic()
    dataset.create(args.out, args.clips, args.rate, args.seconds, style=args.style, first_seed=args.first_seed)
    size = -(-args.clips // (args.workers * 4))
    jobs = [(args, first, min(args.clips, first + size)) for first in range(0, args.clips, size)]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        rows = [row for part in pool.imap(work, jobs) for row in part]
    dataset.write_meta(args.out, rows)
    took = time.monotonic() - started
    print(f"{args.clips} clips, {args.clips * args.seconds / 3600:.2f} h of audio in {took:.0f} s, {args.clips * args.seconds / took:.0f}x real time")


if __name__ == "__main__":
    main()
