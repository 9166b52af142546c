# SPDX-License-Identifier: MIT
"""What every training loop needs: device and autocast, one-thread processes with averaged gradients, schedule, log, checkpoints.

On a CPU two processes of one thread each are faster than one of two threads as soon as something else runs on the machine: OpenMP's
barriers wait for the slowest thread at every operator, averaging waits once a step.
"""

import argparse
import datetime
import json
import math
import os
import socket
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

DEFAULT_ROOT = Path(os.environ.get("AULOS_TRAINING", Path.home() / "aulos-training"))


def add_arguments(parser, minutes, rate, rate_end, batch):
    """The options that all training commands share."""
    group = parser.add_argument_group("running")
    group.add_argument("--minutes", type=float, default=minutes, help="time to train, over all resumptions; the learning rate falls over it (%(default)s)")
    group.add_argument("--steps", type=int, default=10**9, help="or so many steps, if they are done first")
    group.add_argument("--learning-rate", type=float, default=rate, help="%(default)s")
    group.add_argument("--learning-rate-end", type=float, default=rate_end, help="%(default)s")
    group.add_argument("--batch", type=int, default=batch, help="clips a step and process (%(default)s)")
    group.add_argument("--processes", type=int, default=1, help="processes that average their gradients; on a CPU one a core (%(default)s)")
    group.add_argument("--threads", type=int, default=1, help="threads of each process (%(default)s)")
    group.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="%(default)s")
    group.add_argument("--full-precision", action="store_true", help="no bfloat16 autocast")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--evaluate-every", type=int, default=300, help="steps between evaluations on held-out clips (%(default)s)")
    group.add_argument("--save-every", type=float, default=300, help="seconds between checkpoints (%(default)s)")
    return group


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def entry(rank, function, args, port):
    if args.processes > 1:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(args.processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", timeout=datetime.timedelta(hours=2))
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # tiny gradients make a CPU 2 to 5 times slower otherwise
    torch.manual_seed(args.seed + 7919 * rank)
    function(args)
    if args.processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def launch(function, args):
    """Runs function(args) in args.processes processes."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.processes == 1:
        entry(0, function, args, 0)
    else:
        mp.spawn(entry, (function, args, free_port()), nprocs=args.processes)


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def world():
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_processes(tensor):
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def average_gradients(parameters):
    if not dist.is_initialized():
        return
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for p in parameters:
        p.grad.copy_(flat[at:at + p.numel()].view_as(p))
        at += p.numel()


def autocast(args):
    return torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=not args.full_precision)


class Clock:
    """Time used over all resumptions; the schedule is a part of it, so that a run ends when its minutes do."""

    def __init__(self, args):
        self.args = args
        self.before = 0.0
        self.started = time.monotonic()
        self.step = 0

    def used(self):
        return self.before + time.monotonic() - self.started

    def resume(self, state):
        self.before, self.step = state["used"], state["step"]
        self.started = time.monotonic()

    def more(self):
        """Whether to go on; all processes stop at the same step."""
        go = torch.tensor([float(self.step < self.args.steps and self.used() < self.args.minutes * 60)])
        if dist.is_initialized():
            dist.all_reduce(go, dist.ReduceOp.MIN)
        return bool(go)

    def learning_rate(self, warm_up=100):
        """A rise of `warm_up` steps and one cosine over the whole time."""
        a = self.args
        part = min(1.0, max(self.step / a.steps, self.used() / (a.minutes * 60)))
        rate = a.learning_rate_end + (a.learning_rate - a.learning_rate_end) * 0.5 * (1 + math.cos(math.pi * part))
        return rate * min(1.0, (self.step + 1) / warm_up)


class Log:
    """One JSON object a line, on standard output and in OUT/log.jsonl; only the first process writes."""

    def __init__(self, folder):
        self.file = open(Path(folder) / "log.jsonl", "a") if rank() == 0 else None
        self.sums, self.count, self.last = {}, 0, time.monotonic()

    def write(self, **record):
        if self.file:
            line = json.dumps(record)
            print(line, flush=True)
            self.file.write(line + "\n")
            self.file.flush()

    def add(self, **values):
        """Values of one step, for the means of the next report."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.count += 1

    def report(self, **record):
        means = {k: round(v / self.count, 4) for k, v in self.sums.items()}
        self.write(**record, seconds_a_step=round((time.monotonic() - self.last) / self.count, 3), **means)
        self.sums, self.count, self.last = {}, 0, time.monotonic()


class Checkpoint:
    """OUT/checkpoint.pt, replaced in one move; written by the first process when `save_every` seconds have gone by, or when asked."""

    def __init__(self, folder, args):
        self.path = Path(folder) / "checkpoint.pt"
        self.args = args
        self.saved = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def load(self):
        return torch.load(self.path, map_location="cpu", weights_only=True) if self.path.exists() else None

    def save(self, state, now=False):
        """`state` is a function, called only when something is written."""
        if rank() or not (now or time.monotonic() - self.saved > self.args.save_every):
            return
        part = self.path.with_suffix(".part")
        torch.save({**state(), "options": vars(self.args)}, part)
        os.replace(part, self.path)
        self.saved = time.monotonic()


def plain_path(text):
    """For argparse: an absolute path, as the processes of a run and its checkpoints name it."""
    return str(Path(text).expanduser().resolve())


def parser(description):
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
