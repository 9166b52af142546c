# SPDX-License-Identifier: MIT
"""A data set on disk: a folder with clips of one length.

    set.json               rate, seconds, clips, how it was made
    audio.i16              int16 [clips, rate * seconds], read through a memory map
    meta.jsonl             one object a clip: "caption", and "labels" where they are known
    tokens-LO-HI.u16       uint16 [HI - LO, codebooks, frames], written shard by shard by encode_tokens.py
"""

import json
from pathlib import Path

import numpy as np


class Dataset:
    """The clips of one folder; `held_out` at the front are never trained on."""

    def __init__(self, folder):
        self.folder = Path(folder)
        path = self.folder / "set.json"
        if not path.exists():
            raise FileNotFoundError(f"{path}: not a data set; make_data.py or import_clips.py makes one")
        self.about = json.loads(path.read_text())
        self.rate, self.seconds = self.about["rate"], self.about["seconds"]
        self.clips = self.about["clips"]
        self.audio = np.memmap(self.folder / "audio.i16", np.int16, "r", shape=(self.clips, self.about["samples"]))

    def wave(self, i, start=0, stop=None):
        return self.audio[i, start:stop].astype(np.float32) / 32768

    def meta(self):
        return [json.loads(line) for line in (self.folder / "meta.jsonl").read_text().splitlines()]

    def shards(self):
        """(first clip, end, path) of the token files that exist by now."""
        found = []
        for path in self.folder.glob("tokens-*-*.u16"):
            first, end = map(int, path.stem.split("-")[1:])
            found.append((first, end, path))
        return sorted(found)

    def tokens(self, codebooks, frames):
        """The rows of meta.jsonl that have tokens, and the tokens [clips, codebooks, frames]."""
        meta, rows, codes = self.meta(), [], []
        for first, end, path in self.shards():
            shard = np.fromfile(path, np.uint16).reshape(end - first, codebooks, -1)
            if shard.shape[2] < frames:
                raise ValueError(f"{path}: {shard.shape[2]} frames a clip, {frames} wanted")
            rows += meta[first:end]
            codes.append(shard[:, :, :frames])
        return rows, np.concatenate(codes) if codes else np.zeros((0, codebooks, frames), np.uint16)


def create(folder, clips, rate, seconds, **about):
    """An empty set to be filled through the returned map; any tokens of an older one are removed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("tokens-*.u16"):
        old.unlink()
    samples = int(rate * seconds)
    audio = np.memmap(folder / "audio.i16", np.int16, "w+", shape=(clips, samples))
    finish = {"rate": rate, "seconds": seconds, "clips": clips, "samples": samples, **about}
    (folder / "set.json").write_text(json.dumps(finish, indent=1) + "\n")
    return audio


def write_meta(folder, rows):
    (Path(folder) / "meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
