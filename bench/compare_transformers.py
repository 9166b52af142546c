#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Aulos beside transformers: both on one checkpoint, on one machine, in one run, in turns.

    python3 bench/compare_transformers.py build                     musicgen-small's shapes with random weights, f32
    python3 bench/compare_transformers.py build --model DIR --csv bench/results/NAME.csv

The checkpoint is made by tools/reference/make_big.py (2.4 GB, numpy needed) under BUILD/bench unless --model or
$AULOS_BENCH_MODEL names one. transformers runs in $AULOS_BENCH_PYTHON, or in this Python where it can be imported; where it
cannot, this says what is missing and measures Aulos alone.

A step is one turn of the decoder with guidance (two rows a sample) and sampling. Every figure is the best of --rounds, since
other load on the machine can only add time. Memory is the peak resident set, mapped weights included.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "calm piano with soft strings"
SAMPLES = (1, 4)


def machine():
    """What the figures depend on, in words."""
    model, memory = platform.processor() or "unknown", ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        kib = int(Path("/proc/meminfo").read_text().split("MemTotal:", 1)[1].split()[0])
        memory = f"{kib / 2**20:.0f} GiB"
    except (OSError, StopIteration, IndexError):
        pass
    return dict(cpu=model, cores=len(os.sched_getaffinity(0)), memory=memory)


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def checkpoint(args):
    """The folder to measure on; made when nobody names one."""
    named = args.model or os.environ.get("AULOS_BENCH_MODEL")
    if named:
        return Path(named).resolve()
    folder = Path(args.build).resolve() / "bench" / "musicgen-small"
    if not (folder / "model.safetensors").exists():
        partial = folder.with_name("musicgen-small.part")
        print(f"making {folder} (2.4 GB of random weights in musicgen-small's shapes)", flush=True)
        subprocess.run([sys.executable, ROOT / "tools/reference/make_big.py", "small", "--out", partial], check=True)
        partial.rename(folder)
    return folder


def other_python():
    """A Python with torch and transformers, or None and the reason."""
    python = os.environ.get("AULOS_BENCH_PYTHON") or sys.executable
    try:
        done = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True, text=True, timeout=300)
    except OSError as problem:
        return None, f"{python}: {problem.strerror}"
    if done.returncode == 0:
        return python, None
    reason = (done.stderr.strip().splitlines() or ["it ended with an error"])[-1]
    return None, f"{python}: {reason} (AULOS_BENCH_PYTHON can name a Python that has torch and transformers)"


def measured(command):
    """Runs a command; its output as JSON, and its peak resident set in bytes."""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=errors) as child:
            out = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{command[0]} ended with {child.returncode}: {errors.read().strip()}")
    return json.loads(out.strip().splitlines()[-1]) if out.strip() else {}, usage.ru_maxrss * 1024


def aulos_round(args, model, rate):
    """One round of ours: steps for one and for several samples, then a whole clip."""
    def generate(samples, seconds):
        with tempfile.TemporaryDirectory() as folder:
            return measured([str(Path(args.build) / "aulos"), "generate", PROMPT, "--model", f"{model}/", "-n", str(samples),
                             "--duration", str(seconds), "--seed", "1", "--threads", str(args.threads), "--json", "--quiet",
                             "-o", os.path.join(folder, "clip.wav")])

    result = {}
    for samples in SAMPLES:
        report, _ = generate(samples, args.steps / rate)
        result["step", samples] = 1 / report["timing"]["steps_per_s"]
    report, peak = generate(1, args.seconds)
    timing = report["timing"]
    steps = round(rate * args.seconds) + 3
    result["clip", 1], result["peak", 1], result["load", 1] = timing["total_s"], peak, timing["load_s"]
    result["codec", 1] = timing["total_s"] - timing["load_s"] - steps / timing["steps_per_s"]
    return result


def transformers_round(args, model, python):
    report, peak = measured([python, str(ROOT / "bench/transformers_worker.py"), str(model), "--threads", str(args.threads),
                             "--steps", str(args.other_steps), "--seconds", str(args.seconds), "--rounds", "1",
                             "--samples", *map(str, SAMPLES)])
    result = {("step", int(n)): value for n, value in report["step_s"].items()}
    result["codec", 1], result["peak", 1], result["load", 1] = report["codec_s"], peak, report["load_s"]
    return result, f"transformers {report['transformers']}, torch {report['torch']}"


def best(rounds):
    return {key: min(r[key] for r in rounds) for key in rounds[0]} if rounds else {}


UNITS = {"step": ("ms", 1e3), "codec": ("s", 1), "clip": ("s", 1), "load": ("s", 1), "peak": ("MB", 1e-6)}
LABELS = {"step": "decoder step with guidance", "codec": "EnCodec", "clip": "whole clip, load included", "load": "load",
          "peak": "peak memory"}


def label(args, key):
    measure, samples = key
    text = LABELS[measure]
    if measure == "step":
        return f"{text}, {samples} sample{'s' if samples > 1 else ''}"
    return f"{text}, {args.seconds:g} s of audio" if measure in ("codec", "clip", "peak") else text


def print_table(args, ours, theirs):
    print(f"\n{'':46}{'aulos':>12}{'transformers':>16}{'ratio':>9}")
    for key in ours:
        unit, scale = UNITS[key[0]]
        line = f"{label(args, key):46}{ours[key] * scale:9.1f} {unit:2}"
        if key in theirs:
            line += f"{theirs[key] * scale:13.1f} {unit:2}{theirs[key] / ours[key]:8.2f}x"
        print(line)


def write_csv(args, model, results, versions):
    facts = dict(date=datetime.date.today().isoformat(), commit=commit(), **machine(), threads=args.threads, model=model.name,
                 weights="f32", rounds=args.rounds)
    with open(args.csv, "w", newline="") as f:
        out = csv.DictWriter(f, [*facts, "engine", "version", "measure", "samples", "value", "unit"])
        out.writeheader()
        for engine, values in results.items():
            for (measure, samples), value in values.items():
                unit, scale = UNITS[measure]
                out.writerow(facts | dict(engine=engine, version=versions[engine], measure=measure, samples=samples,
                                          value=f"{value * scale:.4g}", unit=unit))


def main():
    parser = argparse.ArgumentParser(description="Aulos beside transformers on one checkpoint; see the head of this file")
    parser.add_argument("build", help="folder with the built aulos")
    parser.add_argument("--model", help="checkpoint folder")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=100, help="steps of ours a round")
    parser.add_argument("--other-steps", type=int, default=30, help="steps of transformers a round")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the whole clip and of the codec run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--csv", help="file for the figures")
    args = parser.parse_args()
    model = checkpoint(args)
    audio = json.loads((model / "config.json").read_text())["audio_encoder"]
    hop = 1
    for ratio in audio["upsampling_ratios"]:
        hop *= ratio
    rate = -(-audio["sampling_rate"] // hop)
    python, reason = other_python()
    facts = machine()
    print(f"{model.name}, f32, {args.threads} threads; {facts['cpu']}, {facts['cores']} cores, {facts['memory']}; {commit()}")
    if reason:
        print(f"transformers is not measured: {reason}")
    version = subprocess.run([str(Path(args.build) / "aulos"), "version"], capture_output=True, text=True).stdout.split("\n")[0]
    ours, theirs, versions = [], [], {"aulos": version}
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}: aulos", flush=True)
        ours.append(aulos_round(args, model, rate))
        if python:
            print(f"round {number + 1} of {args.rounds}: transformers", flush=True)
            values, versions["transformers"] = transformers_round(args, model, python)
            theirs.append(values)
    results = {"aulos": best(ours)} | ({"transformers": best(theirs)} if theirs else {})
    print_table(args, results["aulos"], results.get("transformers", {}))
    if args.csv:
        write_csv(args, model, results, versions)
        print(f"\nwritten: {args.csv}")


if __name__ == "__main__":
    main()
