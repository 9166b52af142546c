#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Aulos beside transformers: both on one checkpoint, on one machine, in one run, in turns.

    python3 bench/compare_transformers.py build                     musicgen-small's shapes with random weights, f32
    python3 bench/compare_transformers.py build --model DIR --csv bench/results/NAME.csv

The checkpoint is made by tools/reference/make_big.py (2.4 GB) under BUILD/bench unless --model or
$AULOS_BENCH_MODEL names one. transformers runs in $AULOS_BENCH_PYTHON, or in this Python where it can be imported. Where it
cannot, this says what is missing, and measures Aulos alone if a checkpoint is named.

A step is one turn of the decoder with guidance (two rows a sample) and sampling. The figures are those of the round in
which other programs used the processors least. Memory is the peak resident set, mapped weights included.
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
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "calm piano with soft strings"
SAMPLES = (1, 4)
MAX_BUSY = 0.1      # share of the processors that others may use before the figures are called doubtful


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


def busy_seconds():
    """Processor seconds that all programs of the machine have used; None where that cannot be read."""
    try:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def checkpoint(args, named, python):
    """The folder to measure on; made, with the numpy of `python`, when nobody names one."""
    if named:
        return Path(named).absolute()
    folder = Path(args.build).resolve() / "bench" / "musicgen-small"
    if not (folder / "model.safetensors").exists():
        partial = folder.with_name("musicgen-small.part")
        print(f"making {folder} (2.4 GB of random weights in musicgen-small's shapes)", flush=True)
        subprocess.run([python, ROOT / "tools/reference/make_big.py", "small", "--out", partial], check=True)
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


class Run:
    """A command that has run: its output as JSON, peak resident set in bytes, seconds from start to end, and the share of
    the processors that others used meanwhile."""

    def __init__(self, command):
        start, before = time.perf_counter(), busy_seconds()
        with tempfile.TemporaryFile("w+") as errors:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=errors) as child:
                out = child.stdout.read()
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                errors.seek(0)
                raise SystemExit(f"{command[0]} ended with {child.returncode}: {errors.read().strip()}")
        self.seconds, after = time.perf_counter() - start, busy_seconds()
        own = usage.ru_utime + usage.ru_stime
        self.report, self.peak = json.loads(out), usage.ru_maxrss * 1024
        self.others = 0.0 if before is None else max(0.0, (after - before - own) / self.seconds / os.cpu_count())


def aulos_round(args, model):
    """One round of ours: `aulos bench` for steps and codec, then a whole clip by `aulos generate`."""
    tool = [str(Path(args.build) / "aulos")]
    common = ["--model", f"{model}/", "--threads", str(args.threads), "--json", "--quiet"]
    bench = Run([*tool, "bench", *common])
    figures = {name: entry["value"] for name, entry in bench.report["figures"].items()}
    result = {("step", samples): figures[f"step_{samples}"] / 1e3 for samples in SAMPLES}
    result["codec", 1] = args.seconds / figures["codec_1"]
    with tempfile.TemporaryDirectory() as folder:
        clip = Run([*tool, "generate", PROMPT, *common, "--duration", str(args.seconds), "--seed", "1", "-o",
                    os.path.join(folder, "clip.wav")])
    result["clip", 1], result["load", 1], result["peak", 1] = clip.seconds, clip.report["timing"]["load_s"], clip.peak
    return result, max(bench.others, clip.others)


def transformers_round(args, model, python):
    run = Run([python, str(ROOT / "bench/transformers_worker.py"), str(model), "--threads", str(args.threads), "--steps",
               str(args.steps), "--seconds", str(args.seconds), "--rounds", "1", "--samples", *map(str, SAMPLES)])
    report = run.report
    result = {("step", int(n)): value for n, value in report["step_s"].items()}
    result["codec", 1], result["peak", 1], result["load", 1] = report["codec_s"], run.peak, report["load_s"]
    return result, run.others, f"transformers {report['transformers']}, torch {report['torch']}"


UNITS = {"step": ("ms", 1e3), "codec": ("s", 1), "clip": ("s", 1), "load": ("s", 1), "peak": ("MB", 1e-6)}
LABELS = {"step": "decoder step with guidance", "codec": "EnCodec", "clip": "whole clip, start to end", "load": "load",
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


def write_csv(args, model, results, versions, others):
    facts = dict(date=datetime.date.today().isoformat(), commit=commit(), **machine(), threads=args.threads, model=model.name,
                 weights="f32", rounds=args.rounds, others_busy=f"{others:.2f}")
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
    parser.add_argument("--steps", type=int, default=50, help="steps of transformers a round (`aulos bench` sets its own)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the whole clip and of the codec run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--csv", help="file for the figures")
    args = parser.parse_args()
    named = args.model or os.environ.get("AULOS_BENCH_MODEL")
    python, reason = other_python()
    if reason:
        print(f"transformers is not measured: {reason}")
        if not named:
            return
    model = checkpoint(args, named, python)
    facts = machine()
    print(f"{model.name}, f32, {args.threads} threads; {facts['cpu']}, {facts['cores']} cores, {facts['memory']}; {commit()}")
    version = subprocess.run([str(Path(args.build) / "aulos"), "version"], capture_output=True, text=True).stdout.split("\n")[0]
    ours, theirs, versions = [], [], {"aulos": version}
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", end="", flush=True)
        ours.append(aulos_round(args, model))
        print(f": aulos beside {100 * ours[-1][1]:.0f} % of others", end="", flush=True)
        if python:
            *values, versions["transformers"] = transformers_round(args, model, python)
            theirs.append(values)
            print(f", transformers beside {100 * values[1]:.0f} %", end="", flush=True)
        print()
    quietest = {name: min(rounds, key=lambda r: r[1]) for name, rounds in (("aulos", ours), ("transformers", theirs)) if rounds}
    results = {name: values for name, (values, _) in quietest.items()}
    others = max(share for _, share in quietest.values())
    print_table(args, results["aulos"], results.get("transformers", {}))
    if others > MAX_BUSY:
        print(f"\nother programs used {100 * others:.0f} % of the processors meanwhile: these figures say little")
    if args.csv:
        write_csv(args, model, results, versions, others)
        print(f"\nwritten: {args.csv}")


if __name__ == "__main__":
    main()
