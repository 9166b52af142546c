#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the server costs beside the model: memory, status replies while a model runs, submissions, streams of events.

    python3 bench/bench_http.py build [--model DIR] [--json FILE]

Every figure is taken over the network interface of this machine with clients that are plain sockets. They share the processors
with the server and the model, so the figures are upper bounds. The server's processor time is read from /proc.
"""
import argparse
import contextlib
import json
import os
import re
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STREAMS = 1000
CONNECTIONS = 64


class Server:
    def __init__(self, binary, model, *args):
        self.data = tempfile.mkdtemp(prefix="aulos-bench-")
        self.process = subprocess.Popen(
            [binary, "serve", "--data", self.data, "--listen", "127.0.0.1:0", "--model", model, "--log-level", "error",
             "--min-free-disk", "1M", "--max-connections", "3000", "--queue-limit", "1000000", *args],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        line = self.process.stdout.readline().decode()
        self.port = int(re.search(r":(\d+)$", line.strip()).group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        shutil.rmtree(self.data, ignore_errors=True)

    def rss_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def dial(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def request(self, method, path, body=None, fields=""):
        text = json.dumps(body) if body is not None else ""
        kind = f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n" if body is not None else ""
        return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}{fields}\r\n{text}".encode()

    def ask(self, s, request):
        """One request on a kept connection: (status, body)."""
        s.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += s.recv(65536)
        head, body = got.split(b"\r\n\r\n", 1)
        length = re.search(rb"Content-Length: (\d+)", head)
        while length and len(body) < int(length.group(1)):
            body += s.recv(65536)
        return int(head.split()[1]), body

    def json(self, method, path, body=None, fields=""):
        with self.dial() as s:
            return json.loads(self.ask(s, self.request(method, path, body, fields))[1])


def percentiles(times):
    times = sorted(times)
    return {"n": len(times), "p50_ms": 1000 * statistics.median(times), "p99_ms": 1000 * times[int(len(times) * 0.99)],
            "max_ms": 1000 * times[-1]}


def bench_memory(binary, model):
    with Server(binary, model, "--workers", "0") as server:
        time.sleep(1)
        return {"rss_mb": server.rss_mb()}


def bench_status(binary, model, seconds):
    """A job's status, asked for on one kept connection, while the model runs without a pause."""
    with Server(binary, model) as server:
        jobs = [server.json("POST", "/v1/jobs", {"prompt": "a long piece", "duration_s": 30, "num_samples": 8, "seed": i})
                for i in range(50)]
        while server.json("GET", f"/v1/jobs/{jobs[0]['id']}")["state"] == "queued":
            time.sleep(0.05)
        figures = {}
        for name, path in (("job", f"/v1/jobs/{jobs[0]['id']}"), ("queued job", f"/v1/jobs/{jobs[-1]['id']}"),
                           ("list", "/v1/jobs?limit=20"), ("health", "/healthz")):
            times = []
            request = server.request("GET", path)
            with server.dial() as s:
                end = time.perf_counter() + seconds
                while time.perf_counter() < end:
                    begin = time.perf_counter()
                    status, _ = server.ask(s, request)
                    times.append(time.perf_counter() - begin)
                    assert status == 200, status
                    time.sleep(0.002)
            figures[name] = percentiles(times)
        for job in jobs:
            server.json("POST", f"/v1/jobs/{job['id']}/cancel", {})
        return figures


def bench_submits(binary, model, seconds):
    """Jobs accepted, each on the disk before its reply, over 64 connections."""
    with Server(binary, model, "--workers", "0") as server, contextlib.ExitStack() as stack:
        selector = selectors.DefaultSelector()
        request = server.request("POST", "/v1/jobs", {"prompt": "a short piece", "duration_s": 1})
        for _ in range(CONNECTIONS):
            s = stack.enter_context(server.dial())
            s.setblocking(False)
            s.sendall(request)
            selector.register(s, selectors.EVENT_READ, [b"", time.perf_counter()])
        accepted, times = 0, []
        cpu, begin = server.cpu_s(), time.perf_counter()
        while time.perf_counter() < begin + seconds:
            for key, _ in selector.select(1):
                key.data[0] += key.fileobj.recv(65536)
                if not key.data[0].endswith(b"}\n"):
                    continue
                assert key.data[0].startswith(b"HTTP/1.1 202"), key.data[0][:200]
                now = time.perf_counter()
                times.append(now - key.data[1])
                accepted += 1
                key.data[:] = [b"", now]
                key.fileobj.sendall(request)
        took = time.perf_counter() - begin
        return {"per_s": accepted / took, "server_cpu_us_each": 1e6 * (server.cpu_s() - cpu) / accepted, **percentiles(times)}


def read_until(s, mark):
    got = b""
    while mark not in got:
        piece = s.recv(65536)
        assert piece, got
        got += piece


def bench_streams(binary, model, seconds):
    """1,000 streams of everything: what they cost while nothing happens, and how late they hear of a change."""
    with Server(binary, model, "--workers", "0") as server, contextlib.ExitStack() as stack:
        before = server.rss_mb()
        streams = []
        for _ in range(STREAMS):
            s = stack.enter_context(server.dial())
            s.sendall(server.request("GET", "/v1/events"))
            read_until(s, b"event: snapshot")
            streams.append(s)
        time.sleep(1)
        idle = {"rss_mb_more": server.rss_mb() - before}
        cpu, begin = server.cpu_s(), time.perf_counter()
        time.sleep(seconds)
        idle["cpu_percent"] = 100 * (server.cpu_s() - cpu) / (time.perf_counter() - begin)
        # Each change is told to all of them.
        late, cpu, begin = [], server.cpu_s(), time.perf_counter()
        job = None
        for i in range(20):
            job = server.json("POST", "/v1/jobs", {"prompt": "news", "duration_s": 1, "seed": i})
            answered = time.perf_counter()
            for s in streams:
                read_until(s, job["id"].encode())
            late.append(time.perf_counter() - answered)
        return {"idle": idle, "told": {"to_all_1000_ms": 1000 * statistics.median(late),
                                       "server_cpu_us_each": 1e6 * (server.cpu_s() - cpu) / (20 * STREAMS)}}


def bench_latency(binary, model):
    """From the answer to a cancel (on the disk by then) to the event, the long poll's answer."""
    with Server(binary, model, "--workers", "0") as server:
        streams, polls = [], []
        for i in range(50):
            job = server.json("POST", "/v1/jobs", {"prompt": "late", "duration_s": 1, "seed": i})
            with server.dial() as stream, server.dial() as poll:
                stream.sendall(server.request("GET", f"/v1/jobs/{job['id']}/events"))
                read_until(stream, b"event: snapshot")
                poll.sendall(server.request("GET", f"/v1/jobs/{job['id']}", fields="Prefer: wait=60\r\n"))
                time.sleep(0.03)
                server.json("POST", f"/v1/jobs/{job['id']}/cancel", {})
                answered = time.perf_counter()
                read_until(stream, b"event: done")
                streams.append(time.perf_counter() - answered)
                read_until(poll, b'"state":"cancelled"')
                polls.append(time.perf_counter() - answered)
        return {"event": percentiles(streams), "long poll": percentiles(polls)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--model", default=str(ROOT / "models" / "aulos-small"))
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--json", help="a file for the figures")
    args = parser.parse_args()
    binary = str(Path(args.build).resolve() / "aulos")
    figures = {}
    for name, run in (("server without a model at work", lambda: bench_memory(binary, args.model)),
                      ("status while generating", lambda: bench_status(binary, args.model, args.seconds)),
                      ("durable submissions, 64 connections", lambda: bench_submits(binary, args.model, args.seconds)),
                      ("1,000 streams of events", lambda: bench_streams(binary, args.model, args.seconds)),
                      ("from a change to who waits", lambda: bench_latency(binary, args.model))):
        figures[name] = run()
        print(f"{name}:")
        rows = figures[name]
        nested = all(isinstance(v, dict) for v in rows.values())
        for key, row in rows.items() if nested else [("", rows)]:
            print(f"  {key:12}" + "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
