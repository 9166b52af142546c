#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Several jobs at once beside one after the other: two servers on one machine in one run, in turns.

    python3 bench/batch_jobs.py build                        aulos-small, and BUILD/bench/musicgen-small if it is there
    python3 bench/batch_jobs.py build --model DIR --duration 2 --jobs 1,4

k clients submit a job of one sample each at the same moment; the time is that until the last has completed. "alone" is a
server with --max-batch 1, "batch" one with the default. The figures are the least of the rounds; processor seconds are the
worker's, and tell the ratio too where other programs use the machine meanwhile. The samples of both must be the same bytes.
"""

import argparse
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ("calm piano with soft strings", "loud guitars", "a slow waltz", "bright chiptune arpeggio", "warm pads",
           "drums and bass", "a choir in a large hall", "solo violin")


class Server:
    def __init__(self, build, folder, model, *args):
        self.process = subprocess.Popen(
            [str(Path(build) / "aulos"), "serve", "--data", str(folder), "--model", str(model), "--listen", "127.0.0.1:0",
             "--min-free-disk", "1M", *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.url = re.search(rb"http://\S+", self.process.stdout.readline()).group().decode()

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.load(reply)

    def job(self, body):
        job = self.call("/v1/jobs", body)
        while job["state"] not in ("completed", "failed", "cancelled"):
            time.sleep(0.01)
            job = self.call("/v1/jobs/" + job["id"])
        if job["state"] != "completed":
            raise SystemExit(f"job ended as {job['state']}: {job['error']}")
        return self.call("/v1/samples/" + job["samples"][0]["sample_id"])["sha256"]

    def worker_seconds(self):
        """Processor seconds of the children, all threads."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        total = 0
        for pid in set(children) | {c for t in Path(f"/proc/{self.process.pid}/task").iterdir()
                                    for c in (t / "children").read_text().split()}:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.process.stdout.close()


def measure(server, k, duration):
    bodies = [{"prompt": PROMPTS[i % len(PROMPTS)], "seed": i, "params": {"duration_s": duration}} for i in range(k)]
    cpu, began = server.worker_seconds(), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(k) as pool:
        hashes = list(pool.map(server.job, bodies))
    return time.monotonic() - began, server.worker_seconds() - cpu, hashes


def compare(build, model, duration, counts, rounds):
    print(f"{Path(model).name}: jobs of one sample of {duration:g} s, {len(os.sched_getaffinity(0))} processors")
    print("jobs   alone s  samples/s    batch s  samples/s   faster   processor s alone, batch, ratio")
    with tempfile.TemporaryDirectory(prefix="aulos-bench-") as folder:
        servers = [Server(build, f"{folder}/alone", model, "--max-batch", "1"), Server(build, f"{folder}/batch", model)]
        try:
            for server in servers:
                server.job({"prompt": "warm up", "seed": 0, "params": {"duration_s": duration}})
            for k in counts:
                best = [(float("inf"), float("inf"))] * 2
                hashes = [None, None]
                for _ in range(rounds):
                    for i, server in enumerate(servers):
                        wall, cpu, hashes[i] = measure(server, k, duration)
                        best[i] = (min(best[i][0], wall), min(best[i][1], cpu))
                if hashes[0] != hashes[1]:
                    raise SystemExit("the samples differ")
                (a, ca), (b, cb) = best
                print(f"{k:4} {a:9.2f} {k / a:10.3f} {b:10.2f} {k / b:10.3f} {a / b:7.2f}x  "
                      f"{ca:10.1f} {cb:8.1f} {ca / max(cb, 0.01):6.2f}x", flush=True)
        finally:
            for server in servers:
                server.stop()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("build")
    p.add_argument("--model", help="a checkpoint folder; instead of the two of the table above")
    p.add_argument("--duration", type=float, help="seconds of a sample")
    p.add_argument("--jobs", default="1,2,4,8")
    p.add_argument("--rounds", type=int, default=3)
    o = p.parse_args()
    counts = [int(x) for x in o.jobs.split(",")]
    if o.model:
        compare(o.build, o.model, o.duration or 5, counts, o.rounds)
        return
    compare(o.build, ROOT / "models" / "aulos-small", o.duration or 5, counts, o.rounds)
    big = Path(os.environ.get("AULOS_BENCH_MODEL", Path(o.build) / "bench" / "musicgen-small"))
    if (big / "config.json").exists():
        compare(o.build, big, o.duration or 1, counts, 1)
    else:
        print(f"{big}: not there (tools/reference/make_big.py makes it)")


main()
