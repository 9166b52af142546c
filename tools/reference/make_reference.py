#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the fixtures of the parity tests: MusicGen checkpoints, PEFT adapters and what transformers does with them.

    python make_reference.py                      everything (about ten minutes on one core)
    python make_reference.py --only mono-f32      one checkpoint with its adapters and cases
    python make_reference.py --steps tokenizer    one kind of data (checkpoints, cases, adapters, bad, tokenizer)

What it writes, into tests/fixtures or --out:

    checkpoints/<name>/           tiny random-weight checkpoints in the Hugging Face layout
    adapters/<checkpoint>/<name>/ adapters made with peft on them;  adapters/bad/<name>/ adapters that must be refused
    cases/<checkpoint>/<name>/    case.json and stage outputs (.npy) of transformers, fp32, one thread
    tokenizer/cases.json          strings and their token ids
    summary.json                  sizes of the gaps, spreads and measured errors
    SHA256SUMS                    hashes of all of it

The only input is the T5 vocabulary (spiece.model, see tests/fixtures/NOTICE). Every random number comes from SEED and the
seeds in specs.py. Pinned versions are in requirements.txt; another version of torch may give other last digits and,
rarely, another prompt in the searches for wide margins. tests/fixtures/README.md describes the formats.
"""

import argparse
import hashlib
import json
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

from lora import make_adapters, make_bad, make_variants, write_mixed
from models import make_checkpoint
from running import Runner, precision, run_case
from specs import ADAPTERS, CASES, SPECS
from text import make_tokenizer_cases

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "fixtures")
T5 = os.path.join("checkpoints", "mono-f16-t5vocab", "spiece.model")
T5_SHA256 = "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"


def directory_size(root):
    return sum(os.path.getsize(os.path.join(p, f)) for p, _, files in os.walk(root) for f in files)


def update_summary(root, part):
    path = os.path.join(root, "summary.json")
    data = {}
    if os.path.exists(path):
        with open(path) as f:
            data = json.load(f)
    for key, value in part.items():
        data.setdefault(key, {}).update(value)
    with open(path, "w") as f:
        json.dump(data, f, indent=1, sort_keys=True)


def write_hashes(root):
    """SHA256SUMS, as sha256sum writes it; check with `sha256sum -c SHA256SUMS`."""
    lines = []
    for p, dirs, files in os.walk(root):
        dirs.sort()
        for name in sorted(files):
            rel = os.path.relpath(os.path.join(p, name), root)
            if rel.startswith(("checkpoints", "adapters", "cases", "tokenizer")):
                with open(os.path.join(p, name), "rb") as f:
                    lines.append(f"{hashlib.sha256(f.read()).hexdigest()}  {rel}\n")
    with open(os.path.join(root, "SHA256SUMS"), "w") as f:
        f.writelines(sorted(lines, key=lambda line: line[66:]))


def read_t5(path):
    with open(path, "rb") as f:
        data = f.read()
    if hashlib.sha256(data).hexdigest() != T5_SHA256:
        raise SystemExit(f"{path}: not the T5 vocabulary (sha256 {T5_SHA256} wanted)")
    return data


def main():
    parser = argparse.ArgumentParser(description="makes the reference data; see the head of this file")
    parser.add_argument("--out", default=FIXTURES)
    parser.add_argument("--only", nargs="*", help="names of checkpoints")
    parser.add_argument("--steps", nargs="*", default=["checkpoints", "cases", "adapters", "bad", "tokenizer"])
    parser.add_argument("--t5", default=os.path.join(FIXTURES, T5), help="T5's spiece.model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    warnings.filterwarnings("ignore")
    root, t5 = os.path.abspath(args.out), read_t5(args.t5)
    import peft
    import transformers
    chosen = [s for s in SPECS if not args.only or s.name in args.only]
    base = any(s.name == "mono-f32" for s in chosen)
    update_summary(root, {"versions": dict(torch=torch.__version__, transformers=transformers.__version__,
                                           peft=peft.__version__, numpy=np.__version__)})
    with torch.no_grad():
        for spec in chosen:
            if "checkpoints" in args.steps:
                directory = make_checkpoint(spec, root, t5)
                print(f"{spec.name}: {directory_size(directory) / 1e6:.2f} MB", flush=True)
            if "cases" in args.steps:
                runner = Runner(root, spec.name)
                stats = {}
                for name, settings in CASES[spec.name]:
                    stats[f"{spec.name}/{name}"] = run_case(runner, root, spec.name, name, **settings)
                update_summary(root, {"cases": stats, "precision": {
                    f"{spec.name}/{name}": precision(root, spec.name, f"cases/{spec.name}/{name}")
                    for name, _ in CASES[spec.name] if name in ("plain", "no-guidance", "long")}})
    if "adapters" in args.steps:
        update_summary(root, {"cases": make_adapters(root, ADAPTERS, [s.name for s in chosen])})
        if base:
            make_variants(root, "mono-f32", "plain")
            write_mixed(root, "mono-f32", ["middle", "adapter-plain", "adapter-dreambooth", "adapter-plain@0.5",
                                           "adapter-rslora-patterns"])
    if "bad" in args.steps and base:
        make_bad(root, "mono-f32", "plain")
    if "tokenizer" in args.steps and base:
        make_tokenizer_cases(root, {"t5": os.path.dirname(T5), "small": "checkpoints/mono-f32",
                                    "small-resave": "checkpoints/mono-f32-published"})
    write_hashes(root)
    print(f"total {directory_size(root) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
