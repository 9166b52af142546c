#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Encodes a data set to tokens with a codec (a checkpoint or an exported folder), shard by shard; train_lm.py takes up shards as they come.

    python encode_tokens.py DATA CODEC                 shards that exist are kept; --again makes them anew
    python encode_tokens.py DATA CODEC --part 0 2      this process makes every second shard, another one --part 1 2

On a CPU one clip at a time: it stays in the cache, three times as fast as a batch of ten.
"""

import argparse
import time

import numpy as np
import torch

from aulos_train import codec
from aulos_train.dataset import Dataset
from aulos_train.quantizer import Quantizer
from aulos_train.weights import codec_weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("codec")
    parser.add_argument("--shard", type=int, default=500, help="clips a file (%(default)s)")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data = Dataset(args.data)
    model = codec.build()
    model.load_state_dict(codec_weights(args.codec))
    model.eval().to(args.device)
    codec.fold_weight_norm(model.encoder)
    quantizer = Quantizer(model)
    batch = 1 if args.device == "cpu" else 64
    whole = data.audio.shape[1] // codec.HOP * codec.HOP
    started, done = time.monotonic(), 0
    with torch.inference_mode():
        for number, first in enumerate(range(0, data.clips, args.shard)):
            end = min(data.clips, first + args.shard)
            path = data.folder / f"tokens-{first}-{end}.u16"
            if number % args.part[1] != args.part[0] or (path.exists() and not args.again):
                continue
            codes = []
            for i in range(first, end, batch):
                x = np.stack([data.wave(j, 0, whole) for j in range(i, min(end, i + batch))])
                with torch.autocast(args.device.split(":")[0], torch.bfloat16):  # a third faster; 99 % of the codes are the same
                    z = model.encoder(torch.from_numpy(x)[:, None].to(args.device)).float()
                codes.append(quantizer(z)[2].cpu().numpy().astype(np.uint16))
            part = path.with_suffix(".part")
            np.concatenate(codes).tofile(part)
            part.replace(path)
            done += end - first
            print(f"{path.name}: {done * data.seconds / (time.monotonic() - started):.0f}x real time", flush=True)


if __name__ == "__main__":
    main()
