#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The demo: starts a server on a free port with a folder of its own, has it make one clip, saves it, stops the server.

usage: demo.py BUILD [PROMPT]
"""

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PROMPT = "a calm harp arpeggio"
SEED, SECONDS = 10, 5
LIMIT_S = 600  # of the whole demo, on a very slow machine
WIDTH = 36

# The server is on this machine, whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fail(text):
    sys.exit(f"demo: {text}")


def request(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    try:
        with OPENER.open(urllib.request.Request(url, data, headers, method=method), timeout=30) as reply:
            return reply.read()
    except urllib.error.HTTPError as problem:
        fail(f"{method} {url}: {problem.code} {problem.read().decode(errors='replace')}")


def start_server(aulos, data, log):
    """The process and its address, once it accepts requests."""
    server = subprocess.Popen([aulos, "serve", "--data", data, "--listen", "127.0.0.1:0", "--min-free-disk", "64M"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    line = b""
    end = time.monotonic() + 60
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([server.stdout], [], [], max(0, end - time.monotonic()))
        block = os.read(server.stdout.fileno(), 200) if ready else b""
        if not block:
            stop(server)
            log.seek(0)
            fail("the server did not start:\n" + log.read().decode(errors="replace"))
        line += block
    address = re.search(r"http://\S+", line.decode())
    return server, address.group(0)


def stop(server):
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


class Bar:
    """On a terminal a bar that moves, else a line each quarter."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.told = -1

    def show(self, percent, text):
        if self.terminal:
            full = int(percent / 100 * WIDTH)
            print(f"\r  [{'#' * full}{'.' * (WIDTH - full)}] {percent:3.0f} %  {text:<24}", end="", flush=True)
        elif int(percent // 25) > self.told:
            self.told = int(percent // 25)
            print(f"  {percent:3.0f} %  {text}", flush=True)

    def end(self):
        if self.terminal:
            print()


def wait_for(base, job_id):
    """The job at its end."""
    bar = Bar()
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        job = json.loads(request("GET", f"{base}/v1/jobs/{job_id}"))
        progress = job.get("progress") or {}
        if job["state"] == "completed":
            bar.show(100, "done")
            bar.end()
            return job
        if job["state"] in ("failed", "cancelled"):
            bar.end()
            fail(f"the job {job['state']}: {json.dumps(job.get('error'))}")
        stage = {"text": "reading the prompt", "decode": "composing", "codec": "making audio"}.get(progress.get("stage"), job["state"])
        bar.show(progress.get("percent") or 0, stage)
        time.sleep(0.05)
    bar.end()
    fail(f"no result within {LIMIT_S} s")


def save(audio):
    """aulos-demo.wav in the current folder, or the first aulos-demo-N.wav that is free."""
    for n in range(1, 10000):
        path = Path("aulos-demo.wav" if n == 1 else f"aulos-demo-{n}.wav")
        try:
            with open(path, "xb") as out:
                out.write(audio)
            return path
        except FileExistsError:
            continue
    fail("too many aulos-demo-N.wav in this folder")


def main():
    if len(sys.argv) not in (2, 3):
        fail("usage: demo.py BUILD [PROMPT]")
    aulos = os.path.join(sys.argv[1], "aulos")
    prompt = sys.argv[2] if len(sys.argv) == 3 and sys.argv[2] else PROMPT
    body = {"prompt": prompt, "num_samples": 1, "duration_s": SECONDS, "seed": SEED}
    # Ctrl-C and SIGTERM run the clean-up below, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="aulos-demo-") as folder, tempfile.TemporaryFile() as log:
        server, base = start_server(aulos, os.path.join(folder, "data"), log)
        try:
            print(f"\nserver   {base}\nprompt   {prompt}", flush=True)
            began = time.monotonic()
            job = json.loads(request("POST", f"{base}/v1/jobs", body))
            job = wait_for(base, job["id"])
            took = time.monotonic() - began
            sample = json.loads(request("GET", f"{base}/v1/samples/{job['samples'][0]['sample_id']}"))
            audio = request("GET", f"{base}/v1/samples/{sample['id']}/audio")
        finally:
            stop(server)
    path = save(audio)

    def number(value, unit):
        return "not measurable" if value is None else f"{value:.1f} {unit}"

    print(f"saved    {path.resolve()}  ({len(audio)} bytes)")
    print(f"took     {took:.1f} s for {sample['duration_s']:.2f} s of audio, from the request to the finished file")
    print(f"sounds   {sample['sample_rate']} Hz, {sample['channels']} channel, loudness {number(sample['loudness_lufs'], 'LUFS')}, "
          f"peak {number(sample['true_peak_dbtp'], 'dBTP')}, seed {sample['seed']}")
    body = shlex.quote(json.dumps({"prompt": prompt, "num_samples": 1, "duration_s": SECONDS}))
    words, address = shlex.quote(prompt), "http://127.0.0.1:8080"
    print(f"""
The server of this demo has been stopped. What to type next:

four files, without a server
    {aulos} generate {words} --duration {SECONDS} -n 4
the same seed with and without an adapter
    {aulos} generate {words} --duration {SECONDS} --adapter none --adapter chiptune
a server, with its data in ./aulos-data
    {aulos} serve
then, in another terminal: a job, its state (with the ids of its samples), a sample's audio
    curl -s {address}/v1/jobs -H 'Content-Type: application/json' -d {body}
    curl -s {address}/v1/jobs/ID
    curl -s {address}/v1/samples/ID/audio -o sample.wav
all commands
    {aulos} help""")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
