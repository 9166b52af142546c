#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a queue costs: durable submissions a second over 64 connections, and claims, lists, single jobs and submissions
while 1 000 and while 100 000 jobs wait (the goal is the same cost). No model runs; one server without workers.

    python3 bench/jobs.py [BUILD]        prints lines and writes bench/results/jobs.json

The client is one process that keeps 64 sockets busy with select, so that the server has most of the machine; its share is printed.
A submission is durable: it was fsynced before the reply. How fast that can be is the disk's: the bench also measures it bare.
"""
import json
import os
import selectors
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
CONNECTIONS, SECONDS = 64, 5.0
SMALL, LARGE = 1_000, 100_000
BODY = json.dumps({"prompt": "a calm harp arpeggio", "seed": 7, "duration_s": 1}).encode()


def start(data):
    words = [str(BUILD / "aulos"), "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--workers", "0", "--queue-limit", "1000000",
             "--min-free-disk", "1M", "--log-level", "error", "--model", str(ROOT / "models" / "aulos-small")]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ})
    line = server.stdout.readline()
    return server, int(line.rsplit(b":", 1)[1])


def request(method, path, body=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def complete(data):
    """Whether a whole reply is there."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = data.lower().find(b"content-length:")
    length = int(data[at + 15:data.find(b"\r\n", at)]) if 0 <= at < end else 0
    return len(data) >= end + 4 + length


def hammer(port, message, seconds, status):
    """Requests answered with `status` in a second, over CONNECTIONS sockets, and the worst time of an answer in ms."""
    poll = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        s = socket.create_connection(("127.0.0.1", port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setblocking(False)
        poll.register(s, selectors.EVENT_READ, [b"", time.perf_counter()])
        s.send(message)
    times, began, cpu = [], time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        for key, _ in poll.select(1):
            state = key.data
            state[0] += key.fileobj.recv(65536)
            if not complete(state[0]):
                continue
            assert state[0].startswith(b"HTTP/1.1 " + status), state[0][:300]
            now = time.perf_counter()
            times.append(now - state[1])
            state[0], state[1] = b"", now
            key.fileobj.send(message)
    took = time.perf_counter() - began
    client = (time.process_time() - cpu) / took
    for key in list(poll.get_map().values()):
        key.fileobj.close()
    times.sort()
    return len(times) / took, times[int(len(times) * 0.99)] * 1e3, client


def ask(port, path, status=b"200", times=40, method="GET", body=b""):
    """Median ms of one answer over one connection."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        took = []
        for _ in range(times):
            began = time.perf_counter()
            s.sendall(request(method, path, body))
            data = b""
            while not complete(data):
                data += s.recv(1 << 20)
            took.append((time.perf_counter() - began) * 1e3)
            assert data.startswith(b"HTTP/1.1 " + status), data[:300]
    return statistics.median(took), data


def fsyncs_per_second(folder):
    """Of the disk, bare: appending 4 KiB and waiting for them."""
    path = Path(folder) / "fsync"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < 1:
        os.write(fd, bytes(4096))
        os.fsync(fd)
        n += 1
    os.close(fd)
    path.unlink()
    return n / (time.perf_counter() - began)


def open_db(data):
    db = sqlite3.connect(Path(data) / "aulos.db", isolation_level=None)
    db.create_function("au_now_ms", 0, lambda: time.time_ns() // 1_000_000)
    db.create_function("au_clock_ms", 0, lambda: time.monotonic_ns() // 1_000_000)
    return db


def fill(data, total):
    """Copies of one waiting job, spread over an hour and over priorities, until `total` wait."""
    db = open_db(data)
    columns = [r[1] for r in db.execute("PRAGMA table_info(jobs)")]
    model = dict(zip(columns, db.execute("SELECT * FROM jobs WHERE state = 'queued' LIMIT 1").fetchone()))
    have = db.execute("SELECT COUNT(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
    now = time.time_ns() // 1_000_000
    db.execute("BEGIN IMMEDIATE")
    for i in range(total - have):
        at = now - 3_600_000 * (total - i) // total
        row = {**model, "id": f"{at >> 16:08x}-{at & 0xffff:04x}-7000-8000-{i:012x}", "created_at": at, "priority": i * 7919 % 201 - 100}
        row["queue_key"] = at - row["priority"] * 60000
        db.execute(f"INSERT INTO jobs ({','.join(row)}) VALUES ({','.join('?' * len(row))})", list(row.values()))
        db.execute("INSERT INTO job_samples (job_id, variant, idx, seed) VALUES (?, 0, 0, 7)", (row["id"],))
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


CLAIM = ("SELECT id, lease_token, queue_key, alone FROM jobs WHERE state = 'queued' AND model_name = ? AND run_after <= au_clock_ms() "
         "AND (deadline_at = 0 OR deadline_at > au_now_ms()) ORDER BY queue_key, id LIMIT 1")


def claim_ms(data):
    """Median ms of what a claim does in the database, its commit without the disk: finding the head, and the change of state."""
    db = open_db(data)
    db.execute("PRAGMA synchronous=NORMAL")
    took = []
    for _ in range(200):
        began = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        job = db.execute(CLAIM, ("aulos-small",)).fetchone()[0]
        db.execute("UPDATE jobs SET state = 'processing', lease_token = lease_token + 1 WHERE id = ? AND state = 'queued'", (job,))
        db.execute("COMMIT")
        took.append((time.perf_counter() - began) * 1e3)
    db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'processing'")
    db.close()
    return statistics.median(took)


def measure(port, data):
    """One of each, in ms."""
    listed, reply = ask(port, "/v1/jobs?limit=100")
    first = json.loads(reply[reply.find(b"\r\n\r\n"):])["data"][0]["id"]
    return {"claim": claim_ms(data), "list of 100": listed, "list of 20 queued": ask(port, "/v1/jobs?state=queued")[0],
            "one job with its position": ask(port, f"/v1/jobs/{first}")[0],
            "submission": ask(port, "/v1/jobs", b"202", 40, "POST", BODY)[0]}


def main():
    result = {"connections": CONNECTIONS}
    base = os.environ.get("AULOS_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="aulos-bench-", dir=base) as folder:
        data = Path(folder) / "data"
        server, port = start(data)
        try:
            result["fsyncs_per_s"] = fsyncs_per_second(folder)
            rate, p99, client = hammer(port, request("POST", "/v1/jobs", BODY), SECONDS, b"202")
            result |= {"submissions_per_s": rate, "submission_p99_ms": p99, "client_cpus": client}
            print(f"submissions  {rate:8.0f} /s durable over {CONNECTIONS} connections, p99 {p99:.1f} ms "
                  f"(disk: {result['fsyncs_per_s']:.0f} fsyncs/s; the client took {client:.2f} CPUs)")
            db = open_db(data)
            keep = db.execute("SELECT id FROM jobs ORDER BY id LIMIT 1").fetchone()[0]
            db.execute("DELETE FROM jobs WHERE id <> ?", (keep,))
            db.close()
            for total in (SMALL, LARGE):
                fill(data, total)
                result[str(total)] = measure(port, data)
            for name, small in result[str(SMALL)].items():
                large = result[str(LARGE)][name]
                print(f"{name:26} {small:8.3f} ms with {SMALL} waiting {large:8.3f} ms with {LARGE}, ratio {large / small:.2f}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    out = ROOT / "bench" / "results" / "jobs.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
