#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes a data set of your own audio: a folder of files with captions.

    python import_clips.py FOLDER OUT

Each audio file (wav, flac, ogg, mp3, aiff; any rate, mixed to mono) needs a caption: NAME.txt beside NAME.wav, or lines such as
{"file": "NAME.wav", "caption": "a slow piano melody"} in FOLDER/captions.jsonl. Long files are cut into clips of --seconds.
"""

import argparse

import numpy as np

from aulos_train import dataset, own_audio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=10, help="of a clip (%(default)s)")
    parser.add_argument("--rate", type=int, default=24000)
    parser.add_argument("--keep-level", action="store_true", help="do not bring each clip to -23 dBFS")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the clips: the first ones are held out from training")
    args = parser.parse_args()
    try:
        pairs = own_audio.captions_of(args.folder)
    except ValueError as problem:
        parser.error(str(problem))
    clips, rows = [], []
    for path, caption in pairs:
        for piece in own_audio.pieces(own_audio.read_mono(path, args.rate), int(args.rate * args.seconds)):
            x = piece if args.keep_level else own_audio.levelled(piece)
            clips.append((np.clip(x, -1, 1) * 32767).astype(np.int16))
            rows.append({"caption": caption, "file": path.name})
    if not clips:
        parser.error(f"{args.folder}: every file is shorter than {args.seconds * own_audio.SHORTEST:g} s")
    order = np.random.default_rng(args.seed).permutation(len(clips))
    audio = dataset.create(args.out, len(clips), args.rate, args.seconds, source="own audio")
    for place, i in enumerate(order):
        audio[place] = clips[i]
    audio.flush()
    dataset.write_meta(args.out, [rows[i] for i in order])
    print(f"{len(clips)} clips of {args.seconds:g} s from {len(pairs)} files")


if __name__ == "__main__":
    main()
