#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Learns the text vocabulary from composed captions, or from those of data sets of your own.

    python make_vocabulary.py OUT                    composed captions, plain and of the styles
    python make_vocabulary.py OUT --data SET...      the captions of these sets, each a few times
"""

import argparse

from aulos_train import vocabulary
from aulos_train.captions import caption
from aulos_train.compose import compose
from aulos_train.dataset import Dataset
from aulos_train.render import STYLES

FIRST_SEED, CAPTIONS = 10_000_000, 12000


def composed():
    for seed in range(FIRST_SEED, FIRST_SEED + CAPTIONS):
        labels = compose(seed, 0.1).labels
        yield caption(labels, seed)
        if seed % 10 == 0:
            yield caption(labels, seed, STYLES[seed // 10 % len(STYLES)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--pieces", type=int, default=1000, help="at most so many (%(default)s)")
    args = parser.parse_args()
    captions = [row["caption"] for folder in args.data for row in Dataset(folder).meta()] if args.data else list(composed())
    tokenizer = vocabulary.learn(captions, args.out, args.pieces)
    print(f"{len(tokenizer)} pieces from {len(captions)} captions; for example {tokenizer.tokenize(captions[0])}")


if __name__ == "__main__":
    main()
