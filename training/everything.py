#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""From nothing to a model folder with adapters and its report: every step of the README in order. A step that is done is not done again,
one that was cut off goes on from its checkpoint.

    python everything.py ROOT --aulos ../build/aulos --hours 20 --processes 2         two CPU cores
    python everything.py ROOT --aulos ../build/aulos --hours 1                        a GPU

The hours are those of the trainings; a third goes to the codec, a sixth to its adversarial phase, nearly half to the language model.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
SHARES = {"codec": 0.34, "adversary": 0.15, "lm": 0.46, "adapter": 0.025}
STYLES = {"lofi": "lo-fi", "chiptune": "chiptune"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="where everything is put, outside the repository; some 25 GB for the whole size")
    parser.add_argument("--aulos", default="aulos", help="the program, for the evaluation (%(default)s)")
    parser.add_argument("--hours", type=float, default=20)
    parser.add_argument("--clips", type=int, default=30000, help="composed clips of 10 s (%(default)s)")
    parser.add_argument("--layers", type=int, default=8, help="of the language model (%(default)s)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes that make data (%(default)s)")
    args = parser.parse_args()
    root = args.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    processes = ["--processes", args.processes]
    gpu = torch.cuda.is_available()
    codec_batch, lm_batch, adapter_batch = (48, 64, 32) if gpu else (6, 6, 6)

    def minutes(step):
        return ["--minutes", f"{args.hours * 60 * SHARES[step]:.1f}"]

    def do(name, script, *command):
        """Runs a step unless its mark is there."""
        mark = root / f".done-{name}"
        if mark.exists():
            return
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, HERE / script, *map(str, command)], check=True, cwd=HERE)
        mark.touch()

    base, vocabulary, model = root / "base", root / "vocabulary", root / "model"
    styles = {name: root / name for name in STYLES}
    do("data", "make_data.py", base, "--clips", args.clips, "--workers", args.workers)
    for name, style in STYLES.items():
        do(f"data-{name}", "make_data.py", styles[name], "--clips", max(200, args.clips // 12), "--style", style, "--workers", args.workers)
    do("vocabulary", "make_vocabulary.py", vocabulary)
    # The first tenth of the codec's time with a strong waveform loss, which gives it its phase; then a weak one.
    do("codec-start", "train_codec.py", base, root / "codec-start", "--style-data", *styles.values(), "--wave-weight", 3, "--batch", codec_batch,
       "--minutes", f"{args.hours * 6 * SHARES['codec']:.1f}", *processes)
    do("codec", "train_codec.py", base, root / "codec", "--style-data", *styles.values(), "--from", root / "codec-start" / "checkpoint.pt", "--floor", 5e-4,
       "--batch", codec_batch, *minutes("codec"), *processes)
    codec = root / "codec" / "checkpoint.pt"
    for name, folder in [("base", base), *styles.items()]:
        do(f"tokens-{name}", "encode_tokens.py", folder, codec)
    do("adversary", "train_codec.py", base, root / "adversary", "--style-data", *styles.values(), "--from", codec, "--adversary", "--freeze-encoder",
       "--learning-rate", 3e-4, "--batch", codec_batch, *minutes("adversary"), *processes)
    do("lm", "train_lm.py", root / "lm", "--data", base, "--vocabulary", vocabulary, "--codec", codec, "--layers", args.layers, "--batch", lm_batch,
       *minutes("lm"), *processes)
    do("export", "export.py", root / "lm" / "checkpoint.pt", root / "adversary" / "checkpoint.pt", model, "--vocabulary", vocabulary)
    for name, folder in styles.items():
        do(f"adapter-{name}", "train_adapter.py", model, folder, root / f"adapter-{name}", "--plain-captions", "--base-name", "aulos-small",
           "--batch", adapter_batch, *minutes("adapter"))
        target = model / "adapters" / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(root / f"adapter-{name}" / "adapter")
    do("report", "evaluate.py", model, root / "report", "--aulos", args.aulos)
    print(f"{model}; its report is in {root / 'report'}")


if __name__ == "__main__":
    main()
