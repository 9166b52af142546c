#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Ranges and whole files beside nginx: the same file of 10 MB, one thread each, on one core, asked by wrk on another.

    bench/ranges.py BUILD [--seconds S] [--rounds N] [--csv FILE]

Prints for both: requests and MB a second, and processor time a request (user and system, of the server). Rounds
alternate and the best of each counts, since other programs may run meanwhile. Without nginx or wrk (Debian packages of
these names, used here alone) it says so and ends with 0.
"""
import argparse
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "models" / "aulos-small"
SIZE, PART, CONNECTIONS = 10 << 20, 64 << 10, 32
NGINX = """
worker_processes 1;
daemon off;
{user}
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush off; keepalive_requests 1000000000; default_type audio/wav;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4;
  scgi_temp_path {dir}/t5;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
LUA = """
math.randomseed(7)
request = function()
  local first = math.random(0, {last})
  return wrk.format("GET", nil, {{["Range"] = "bytes=" .. first .. "-" .. (first + {part} - 1)}})
end
"""


def cores():
    """(of the server, of wrk): different ones where there are two."""
    there = sorted(os.sched_getaffinity(0))
    return there[0], there[-1]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def start_aulos(binary, data, core):
    process = subprocess.Popen(["taskset", "-c", str(core), str(binary), "serve", "--data", str(data), "--listen", "127.0.0.1:0",
                                "--http-threads", "1", "--log-level", "warn", "--min-free-disk", "1M", "--workers", "0", "--model", str(MODEL)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    line = process.stdout.readline().decode()
    if not line.startswith("listening on "):
        sys.exit("the server did not start")
    return process, line.split()[-1]


def make_data(binary, data):
    """A data folder with one sample whose object is SIZE random bytes; (path of the audio, object)."""
    with subprocess.Popen([str(binary), "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--min-free-disk", "1M", "--model", str(MODEL)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        url = server.stdout.readline().decode().split()[-1]
        body = b'{"prompt": "bench", "duration_s": 0.1, "seed": 1}'
        request = urllib.request.Request(url + "/v1/jobs", body, {"Content-Type": "application/json", "Prefer": "wait=60"})
        urllib.request.urlopen(request).read()
        server.send_signal(signal.SIGTERM)
    db = sqlite3.connect(data / "aulos.db")
    sample, key = db.execute("SELECT id, store_key FROM samples").fetchone()
    content = os.urandom(SIZE)
    (data / "objects" / key).write_bytes(content)
    db.execute("UPDATE samples SET bytes = ?, sha256 = ?", (SIZE, hashlib.sha256(content).hexdigest()))
    db.commit()
    db.close()
    return f"/v1/samples/{sample}/audio", key


def start_nginx(folder, data, core):
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (folder / "nginx.conf").write_text(NGINX.format(dir=folder, root=data / "objects", port=port,
                                                    user="user root;" if os.geteuid() == 0 else ""), encoding="utf-8")
    process = subprocess.Popen(["taskset", "-c", str(core), shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "-c",
                                str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    for _ in range(100):
        time.sleep(0.05)
        if children(process.pid):
            return process, f"http://127.0.0.1:{port}"
    sys.exit("nginx did not start")


def run_wrk(url, script, seconds, core):
    """(requests, bytes, seconds)"""
    words = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", url]
    text = subprocess.run(words + (["-s", str(script)] if script else []), capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"wrk met errors:\n{text}")
    n, took, amount, unit = re.search(r"(\d+) requests in ([\d.]+)s, ([\d.]+)([KMG]B) read", text).groups()
    return int(n), float(amount) * {"KB": 2**10, "MB": 2**20, "GB": 2**30}[unit], float(took)


def measure(pid, url, script, seconds, core):
    """(requests a second, MB a second, microseconds of processor time a request)"""
    before = cpu_seconds(pid)
    n, amount, took = run_wrk(url, script, seconds, core)
    return n / took, amount / took / 1e6, (cpu_seconds(pid) - before) / n * 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=Path)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [p for p in ("nginx", "wrk", "taskset") if not shutil.which(p, path=path)]
    if missing:
        print(f"ranges beside nginx: skipped, {' and '.join(missing)} not installed")
        return
    server_core, wrk_core = cores()
    lines = ["case,server,requests_per_s,mb_per_s,cpu_us_per_request"]
    with tempfile.TemporaryDirectory(prefix="aulos-bench-") as name:
        folder = Path(name)
        audio, key = make_data(args.build / "aulos", folder / "data")
        (folder / "part.lua").write_text(LUA.format(last=SIZE - PART, part=PART), encoding="utf-8")
        aulos, aulos_url = start_aulos(args.build / "aulos", folder / "data", server_core)
        nginx, nginx_url = start_nginx(folder, folder / "data", server_core)
        try:
            sides = {"aulos": (aulos.pid, aulos_url + audio), "nginx": (children(nginx.pid)[0], f"{nginx_url}/{key}")}
            for case, script in (("64 KB ranges", folder / "part.lua"), ("whole 10 MB", None)):
                best = {}
                for _ in range(args.rounds):
                    for side, (pid, url) in sides.items():
                        rate, mb, cpu = measure(pid, url, script, args.seconds, wrk_core)
                        old = best.get(side, (0, 0, float("inf")))
                        best[side] = (max(old[0], rate), max(old[1], mb), min(old[2], cpu))
                for side, (rate, mb, cpu) in best.items():
                    lines.append(f"{case},{side},{rate:.0f},{mb:.0f},{cpu:.1f}")
                print(f"{case}: aulos {best['aulos'][0]:.0f}/s {best['aulos'][1]:.0f} MB/s {best['aulos'][2]:.1f} us CPU, "
                      f"nginx {best['nginx'][0]:.0f}/s {best['nginx'][1]:.0f} MB/s {best['nginx'][2]:.1f} us CPU; "
                      f"{best['aulos'][0] / best['nginx'][0]:.2f} x the requests, "
                      f"{best['aulos'][2] / best['nginx'][2]:.2f} x the CPU a request")
        finally:
            for process in (aulos, nginx):
                process.terminate()
                process.wait()
    if args.csv:
        args.csv.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
