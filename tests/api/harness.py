# SPDX-License-Identifier: MIT
"""What the black-box tests share: the binary, a server with its processes, waiting, files, the invariants.

Nothing here looks into the program: it is started, spoken to over HTTP and the command line, and its data folder is
read (the SQLite file read-only). Every process of a server carries a mark in its environment, by which those
that outlive it are found. Waits are bounded and the bounds are generous: no test passes or fails by speed.
"""
import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import time
import uuid
from pathlib import Path

import numpy as np
import requests

from contract import CONTRACT

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("AULOS_BIN", ROOT / "build" / "aulos")).resolve()
MODEL = Path(os.environ.get("AULOS_MODEL", ROOT / "models" / "aulos-small")).resolve()
FIXTURES = Path(os.environ.get("AULOS_FIXTURES", ROOT / "tests" / "fixtures")).resolve()
CHECKPOINTS = FIXTURES / "checkpoints"
ADAPTERS = FIXTURES / "adapters"
CASES = FIXTURES / "cases"
CHIPTUNE = MODEL / "adapters" / "chiptune"

# Builds with sanitizers are slower, AddressSanitizer's 5 times and ThreadSanitizer's 40 times: the bounds of waits are
# stretched, and clips that are long only so that their job can be met at work are shorter.
ASAN, TSAN = "ASAN_OPTIONS" in os.environ, "TSAN_OPTIONS" in os.environ
SLOW = float(os.environ.get("AULOS_TEST_SLOW", "10" if ASAN or TSAN else "1"))
LENGTH = 0.05 if TSAN else 0.3 if ASAN else 1
# Session memory in which the rows of such clips of 10 s run one at a time: less than one needs, more than a quarter.
SMALL_MEMORY = int((3 + 5 * LENGTH) * (1 << 20))

UUID7 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
HEX64 = re.compile(r"^[0-9a-f]{64}$")
FINAL = ("completed", "failed", "cancelled")
STATES = ("queued", "processing", "cancelling") + FINAL
MISSING_ID = "0197ffff-0000-7000-8000-000000000000"
MAX_SEED = 2**53 - 1


def clean_env(extra=None):
    """The caller's environment without AULOS_*: each of those would be an option of the program."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AULOS_") and k != "AU_CPU"}
    env.update(extra or {})
    return env


# ---- The command line -------------------------------------------------------------------------------------------


def aulos(*args, stdin=None, env=None, cwd=None, timeout=120, binary=False):
    """Runs the program to its end. The result has returncode, stdout, stderr."""
    done = subprocess.run(
        [str(BIN), *[a if isinstance(a, bytes) else str(a) for a in args]], input=stdin, env=clean_env(env),
        cwd=cwd, capture_output=True, timeout=timeout * SLOW, check=False)
    if not binary:
        done.stdout = done.stdout.decode("utf-8")
        done.stderr = done.stderr.decode("utf-8", "backslashreplace")
    return done


def generate(out, prompt, *args, model=None, seed=1, duration=0.5, adapter=None, strength=None, **kw):
    """One clip by the command line alone, asserted to succeed; its JSON report."""
    words = ["generate", "--model", model or MODEL, "--seed", seed, "--duration", duration, "-o", out, "--json", "--quiet"]
    if adapter is not None:
        words += ["--adapter", adapter if strength is None else f"{adapter}:{strength}"]
    done = aulos(*words, *args, "--", prompt, **kw)
    assert done.returncode == 0, f"generate {prompt!r} exited {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)


def sha256(data):
    return hashlib.sha256(data if isinstance(data, bytes) else Path(data).read_bytes()).hexdigest()


# ---- Processes --------------------------------------------------------------------------------------------------


def marked_processes(mark):
    """{pid: command line} of the live processes whose environment holds AULOS_TEST_MARK=<mark>."""
    needle = f"AULOS_TEST_MARK={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if needle not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if state not in "ZX":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except (OSError, IndexError):
            continue
    return found


def cpu_seconds(pid):
    """Processor time that a process has used, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(check, timeout=30, what="the condition", step=0.03):
    """Calls check() until it gives a true value, which is returned; fails after the bound."""
    end = time.monotonic() + timeout * SLOW
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {timeout * SLOW:.0f} s"
        time.sleep(step)


class Server:
    """One `aulos serve` on a free port with a data folder, and what it started."""

    def __init__(self, data, *args, workers=1, model=None, env=None):
        self.data = Path(data)
        self.log_path = self.data.parent / f"{self.data.name}.log"
        self.mark = uuid.uuid4().hex
        # The mark is an AULOS_ variable that is no option: unknown ones must not disturb.
        self.env = clean_env({**(env or {}), "AULOS_TEST_MARK": self.mark})
        self.words = [str(BIN), "serve", "--data", str(self.data), "--listen", "127.0.0.1:0", "--workers", str(workers),
                      "--model", str(model or MODEL), *[str(a) for a in args]]
        # Test machines need not have a free gigabyte.
        if "--min-free-disk" not in self.words:
            self.words += ["--min-free-disk", "1M"]
        self.process = None
        self.port = None
        self.session = requests.Session()
        self.session.trust_env = False

    def log(self):
        return self.log_path.read_text("utf-8", "replace")[-4000:] if self.log_path.exists() else ""

    def spawn(self):
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(self.words, env=self.env, stdout=subprocess.PIPE, stderr=log,
                                        stdin=subprocess.DEVNULL)
        log.close()
        return self

    def start(self, timeout=60):
        self.spawn()
        line = b""
        end = time.monotonic() + timeout * SLOW
        while not line.endswith(b"\n"):
            left = end - time.monotonic()
            ready = left > 0 and select.select([self.process.stdout], [], [], left)[0]
            chunk = os.read(self.process.stdout.fileno(), 256) if ready else b""
            if not chunk:
                self.kill()
                raise AssertionError(f"the server did not say that it listens; said {line!r}, log:\n{self.log()}")
            line += chunk
        match = re.fullmatch(rb"listening on http://127\.0\.0\.1:(\d+)\n", line)
        if not match:
            self.kill()
            raise AssertionError(f"first line is {line!r}")
        self.port = int(match.group(1))
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def processes(self):
        return marked_processes(self.mark)

    def workers(self):
        """Pids of the live worker processes."""
        return sorted(pid for pid, words in self.processes().items() if "worker" in words[1:2])

    def stop(self, timeout=60):
        """Graceful end. The exit status, after a check that no process is left."""
        self.session.close()
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end within {timeout * SLOW:.0f} s of SIGTERM, log:\n{self.log()}") from None
        self.process.stdout.close()
        self.process = None
        left = self.processes()
        self._kill_all()
        assert not left, f"still running after the server's end: {left}"
        return code

    def _kill_all(self):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_server(self):
        """kill -9 of the server process alone; its workers must end by themselves."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None
        self.session.close()

    def kill(self):
        """Ends everything at once (for clean-up)."""
        if self.process is not None:
            self.kill_server()
        self._kill_all()
        wait_until(lambda: not self.processes(), 10, "killed processes to be gone")

    # HTTP

    def req(self, method, path, **kw):
        kw.setdefault("timeout", 60 * SLOW)
        kw.setdefault("allow_redirects", False)
        url = path if path.startswith("http") else self.url + path
        reply = self.session.request(method, url, **kw)
        where = reply.request.url
        if "--base-path" in self.words:
            where = where.replace(self.words[self.words.index("--base-path") + 1] + "/", "/", 1)
        CONTRACT.check(method, where, kw.get("json"), reply, streamed=kw.get("stream", False))
        return reply

    def get(self, path, **kw):
        return self.req("GET", path, **kw)

    def head(self, path, **kw):
        return self.req("HEAD", path, **kw)

    def post(self, path, body=None, **kw):
        return self.req("POST", path, json={} if body is None and "data" not in kw else body, **kw)

    def patch(self, path, body, **kw):
        return self.req("PATCH", path, json=body, **kw)

    def ok(self, path):
        """The JSON of a GET that must be a 200."""
        reply = self.get(path)
        assert reply.status_code == 200, f"GET {path}: {reply.status_code} {reply.text}"
        return reply.json()

    def prompt(self, text, **more):
        reply = self.post("/v1/prompts", {"text": text, **more})
        assert reply.status_code == 201, reply.text
        return reply.json()

    def submit(self, **body):
        """An accepted job."""
        reply = self.post("/v1/jobs", body)
        assert reply.status_code == 202, f"POST /v1/jobs {body}: {reply.status_code} {reply.text}"
        return reply.json()

    def job(self, job):
        return self.ok(f"/v1/jobs/{job_id(job)}")

    def wait(self, job, states=FINAL, timeout=180):
        """The job once it is in one of the states. A final state that is not among them fails at once."""
        states = (states,) if isinstance(states, str) else tuple(states)

        def look():
            now = self.job(job)
            if now["state"] in states:
                return now
            assert now["state"] not in FINAL, f"waited for {states}, is {now['state']}: {now['error']}\n{self.log()}"
            return None

        return wait_until(look, timeout, f"job {job_id(job)} to be one of {states}")

    def begun(self, job):
        """The job once it has made a step; fails if it ends first: then its clip is too short for what it is to show."""
        def look():
            now = self.job(job)
            assert now["state"] not in FINAL, f"job {now['id']} was {now['state']} before it was seen at work"
            return now["state"] == "processing" and (now["progress"] or {}).get("step") and now

        return wait_until(look, 90, "the job to have begun", step=0.02)

    def run(self, **body):
        """A job made and completed."""
        return self.wait(self.submit(**body), "completed")

    def sample(self, sample_id):
        return self.ok(f"/v1/samples/{sample_id}")

    def samples_of(self, job):
        """The job's samples in its own order, in full."""
        return [self.sample(s["sample_id"]) for s in self.job(job)["samples"] if s.get("sample_id")]

    def audio(self, sample):
        reply = self.get(sample["urls"]["audio"] if isinstance(sample, dict) else f"/v1/samples/{sample}/audio")
        assert reply.status_code == 200, reply.text
        return reply.content

    def cancel(self, job):
        return self.post(f"/v1/jobs/{job_id(job)}/cancel")

    def listening_test(self, prompt="a calm harp arpeggio", variants=None, duration_s=0.2, **body):
        """The id of a test whose samples have been made, of chiptune against none unless said otherwise."""
        body["variants"] = variants or [{"adapter": None}, {"adapter": {"name": "chiptune"}}]
        reply = self.post("/v1/comparisons", {"prompt_ids": [self.prompt(prompt)["id"]], "duration_s": duration_s, **body})
        assert reply.status_code == 201, reply.text
        test = reply.json()["id"]
        wait_until(lambda: all(p["state"] == "ready" for p in self.ok(f"/v1/comparisons/{test}")["pairs"]), 180,
                   "the samples of the test")
        return test

    def adapters(self):
        """{name: adapter}, over all pages."""
        return {a["name"]: a for a in self.all("/v1/adapters")}

    def all(self, path):
        """Every element of a list, page by page."""
        found, cursor = [], None
        while True:
            glue = "&" if "?" in path else "?"
            page = self.ok(path + (f"{glue}cursor={cursor}" if cursor else ""))
            found += page["data"]
            if not page["has_more"]:
                return found
            cursor = page["next_cursor"]

    def raw(self, data, timeout=15):
        """Bytes to the port, everything that comes back until the other side closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout * SLOW) as s:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(data)
            return read_all(s)


def read_all(s):
    """(bytes, closed): what a socket gives until end, reset or its time-out."""
    got = b""
    while True:
        try:
            chunk = s.recv(65536)
        except (TimeoutError, socket.timeout):
            return got, False
        except ConnectionResetError:
            return got, True
        if not chunk:
            return got, True
        got += chunk


def job_id(job):
    return job if isinstance(job, str) else job["id"]


# ---- Problems ---------------------------------------------------------------------------------------------------


def check_problem(reply, status, kind=None):
    """An RFC 9457 problem with the fields that every one has; its JSON."""
    assert reply.status_code == status, f"{reply.status_code} for {status}: {reply.text[:600]}"
    assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json"
    body = reply.json()
    assert body["status"] == status
    assert body["type"].startswith("/problems/")
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == reply.headers["X-Request-Id"]
    if kind:
        assert body["type"] == f"/problems/{kind}"
    return body


def pointers(problem):
    return {e["pointer"]: e for e in problem["errors"]}


# ---- The data folder --------------------------------------------------------------------------------------------


def read_db(data, sql, *args):
    """Rows of a read-only query as dicts."""
    db = sqlite3.connect(f"file:{Path(data) / 'aulos.db'}?mode=ro", uri=True, timeout=10)
    try:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql, args)]
    finally:
        db.close()


def objects_on_disk(data):
    """Keys of all files under objects/, temporary ones included, adapters left out."""
    root = Path(data) / "objects"
    if not root.is_dir():
        return set()
    keys = {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}
    return {k for k in keys if not k.startswith("adapters/")}


def leftovers(server):
    """(objects without a sample row, sample rows without an object, upload intents)."""
    rows = {s["storage_path"] for s in server.all("/v1/samples?limit=100")}
    rows |= {r["store_key"] for r in read_db(server.data, "SELECT store_key FROM renditions")}
    # A sample that was deleted alone keeps its audio, for it can be restored; with a job the audio goes.
    rows |= {r["store_key"] for r in read_db(server.data, "SELECT s.store_key FROM samples s JOIN jobs j ON j.id = s.job_id "
                                                          "WHERE s.deleted_at > 0 AND j.deleted_at = 0")}
    disk = objects_on_disk(server.data)
    return disk - rows, rows - disk, len(read_db(server.data, "SELECT * FROM uploads"))


def check_invariants(server, acknowledged=(), cancelled=(), timeout=30):
    """The invariants that hold after any fault, once no job is active (api: job states).

    acknowledged: ids of jobs that were accepted; cancelled: those whose cancel was accepted.
    """
    jobs = {j["id"]: j for j in server.all("/v1/jobs?limit=100")}
    # (a) each acknowledged job ends in exactly one final state
    for j in acknowledged:
        assert job_id(j) in jobs, f"acknowledged job {job_id(j)} is lost"
        assert jobs[job_id(j)]["state"] in FINAL
    # (c) an accepted cancel is never followed by completed
    for j in cancelled:
        assert jobs[job_id(j)]["state"] == "cancelled"
    # (e) after the janitor: no object without a row, no row without an object, no intent
    wait_until(lambda: leftovers(server) == (set(), set(), 0), timeout,
               f"no orphans; found {leftovers(server)}", step=0.2)
    samples = {}
    deleted = {r["id"] for r in read_db(server.data, "SELECT id FROM samples WHERE deleted_at > 0")}
    for sample in server.all("/v1/samples?limit=100"):
        samples.setdefault(sample["job_id"], []).append(sample)
    for jid, job in jobs.items():
        job = server.job(jid)
        made = samples.get(jid, [])
        # (d) at most one commit for each index
        places = [(s["index"], s["variant"]) for s in made]
        assert len(places) == len(set(places)), f"job {jid} has a sample twice: {places}"
        # (b) completed: exactly the samples asked for, all with the right hash
        if job["state"] == "completed":
            there = {s["id"] for s in made} | {s["sample_id"] for s in job["samples"] if s["sample_id"] in deleted}
            assert len(there) == job["num_samples"] * len(job["variants"])
            assert there == {s["sample_id"] for s in job["samples"]}
        if job["state"] == "cancelled":
            assert not made
        for sample in made:
            data = (server.data / "objects" / sample["storage_path"]).read_bytes()
            assert len(data) == sample["bytes"]
            assert sha256(data) == sample["sha256"]
        # (f) a job's events are gap-free and rising
        numbers = [e["seq"] for e in read_db(server.data, "SELECT seq FROM events WHERE subject = ? ORDER BY rowid", jid)]
        assert numbers == list(range(1, len(numbers) + 1)), f"job {jid} has events {numbers}"
        assert numbers


# ---- Audio files ------------------------------------------------------------------------------------------------


def riff_chunks(data):
    """{id: bytes} of a WAV file, sizes checked against the file."""
    assert data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8, "RIFF size is not the file's"
    chunks, at = {}, 12
    while at < len(data):
        name, size = data[at:at + 4], struct.unpack("<I", data[at + 4:at + 8])[0]
        assert at + 8 + size <= len(data), f"chunk {name} runs past the end"
        chunks[name] = data[at + 8:at + 8 + size]
        at += 8 + size + size % 2
    return chunks


def wav_info(data):
    """(format tag, channels, rate, bits, frames) of a WAV file; WAVE_FORMAT_EXTENSIBLE is looked through."""
    chunks = riff_chunks(data)
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", chunks[b"fmt "][:16])
    if tag == 0xFFFE:
        tag = struct.unpack("<H", chunks[b"fmt "][24:26])[0]
    assert align == channels * bits // 8
    assert len(chunks[b"data"]) % align == 0
    return tag, channels, rate, bits, len(chunks[b"data"]) // align


def wav_frames(data):
    """float64 [frames, channels] of a 16-bit WAV file."""
    tag, channels, _, bits, _ = wav_info(data)
    assert (tag, bits) == (1, 16)
    return np.frombuffer(riff_chunks(data)[b"data"], "<i2").reshape(-1, channels) / 32768.0


def flac_info(data):
    """(rate, channels, bits, frames) from a FLAC file's STREAMINFO."""
    assert data[:4] == b"fLaC" and data[4] & 0x7F == 0
    word = int.from_bytes(data[18:26], "big")
    return word >> 44, (word >> 41 & 7) + 1, (word >> 36 & 31) + 1, word & (1 << 36) - 1


def centroid_hz(data):
    """Spectral centroid of a WAV file, by power, over the whole clip."""
    x = wav_frames(data).mean(axis=1)
    power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
    freqs = np.fft.rfftfreq(len(x), 1 / wav_info(data)[2])
    return float((freqs * power).sum() / max(power.sum(), 1e-20))


# ---- Model folders ----------------------------------------------------------------------------------------------


def copy_tree(source, target):
    shutil.copytree(source, target)
    for path in [target, *Path(target).rglob("*")]:
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
    return Path(target)


def read_safetensors(path):
    """(header dict, data bytes)."""
    raw = Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + size]), raw[8 + size:]


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def edit_json(path, **changes):
    """Sets fields of a JSON file; a name a__b is field b of object a."""
    data = json.loads(Path(path).read_text())
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = data
        for key in outer:
            place = place[key]
        place[last] = value
    Path(path).write_text(json.dumps(data))
