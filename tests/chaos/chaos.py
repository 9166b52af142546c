#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Everything dies, again and again, and nothing is lost: a server with workers under clients and a destroyer.

    python3 tests/chaos/chaos.py build --kills 1000        minutes; `make chaos`
    python3 tests/chaos/chaos.py build --kills 30          the short form, part of the tests

Clients submit (with idempotency keys, repeated until answered), cancel, delete, retry and listen. Meanwhile processes are
killed (SIGKILL), stopped beyond their leases, ended gracefully, the disk is filled to the last byte (a tmpfs, where mounting
is allowed) and the wall clock steps by an hour (a preloaded library). After every epoch all jobs must have ended, and the
database and the folder of objects are held against what the clients were told. The last lines are the figures;
the exit status is 0 if all that must be 0 are.

The model is a tiny random one, so that jobs take milliseconds. --seed repeats the order of the destroyer's choices, not
the moments at which they hit.
"""

import argparse
import collections
import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/fixtures/checkpoints/mono-f32"
ADAPTERS = ROOT / "tests/fixtures/adapters/mono-f32"
FINAL = ("completed", "failed", "cancelled")
LEASE_MS = 1000
DISK = "400M"  # an epoch of 50 kills leaves some 140 MB


def kind(prompt, duration, samples=1, variants=None, **params):
    body = {"prompt": prompt, "num_samples": samples, "params": {"duration_s": duration, **params}}
    return {**body, "variants": variants} if variants else body


KINDS = (
    kind("a slow waltz", 0.2),
    kind("loud guitars", 0.6, 2, guidance=1.0),
    kind("a slow waltz", 0.3, 1, [{"adapter": None}, {"adapter": {"name": "plain", "strength": 0.7}},
                                  {"adapter": {"name": "dora"}}]),
    kind("a choir", 2.0, 1, [{"adapter": {"name": "regex-bias", "strength": 0.5}}]),
    kind("drums and bass", 4.0, 3),
    kind("", 8.0, 2, top_k=20),
)
for number, body in enumerate(KINDS):
    body["seed"] = 100 * number


class Refused(Exception):
    """No answer: the server is gone, going, or starting."""


class World:
    def __init__(self, options, place, can_fill, clock, shim):
        self.options, self.place, self.can_fill = options, place, can_fill
        self.clock, self.shim = clock, shim
        self.data = place / "data"
        self.log_path = place.parent / "server.log"
        self.mark = uuid.uuid4().hex
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = None
        self.lock = threading.Lock()        # of the process, and of the ledger
        self.counts = collections.Counter()
        self.forget_jobs()
        self.expected = {}                  # (kind, variant, index) -> hash
        self.quiet = threading.Event()      # an epoch ends: nothing new
        self.problems = []

    def forget_jobs(self):
        self.acknowledged = {}              # job id -> number of its kind
        self.cancelled, self.too_late, self.deleted, self.retried = set(), set(), set(), set()

    def say(self, text):
        print(text, flush=True)

    # ---- Processes

    def spawn(self, workers=2, max_batch=8):
        env = {k: v for k, v in os.environ.items() if not k.startswith("AULOS_")}
        env["AULOS_TEST_MARK"] = self.mark
        if self.shim:
            env.update(LD_PRELOAD=str(self.shim), CHAOS_CLOCK=str(self.clock))
        words = [str(Path(self.options.build) / "aulos"), "serve", "--data", self.data, "--model", MODEL, "--adapters", ADAPTERS,
                 "--listen", f"127.0.0.1:{self.port}", "--workers", workers, "--max-batch", max_batch, "--lease-ms", LEASE_MS,
                 "--heartbeat-ms", LEASE_MS // 5, "--stall-ms", 60000, "--restart-ms", 20, "--shutdown-grace-ms", 300,
                 "--min-free-disk", "0", "--queue-limit", 100000, "--deleted-retention", "2s"]
        with open(self.log_path, "ab") as log:
            process = subprocess.Popen([str(w) for w in words], env=env, stdout=subprocess.PIPE, stderr=log,
                                       stdin=subprocess.DEVNULL)
        line = process.stdout.readline()
        if not line.startswith(b"listening"):
            process.stdout.close()
            process.wait()
            return False
        self.process = process
        return True

    def start(self, **more):
        """Until it listens: a full disk, or workers that are not gone yet, may be in the way for a while."""
        end = time.monotonic() + 120 * self.options.slow
        while not self.spawn(**more):
            self.empty_disk()
            if time.monotonic() > end:
                raise SystemExit(f"the server does not start\n{self.log()}")
            time.sleep(0.05)

    def log(self):
        return self.log_path.read_text("utf-8", "replace")[-6000:]

    def forget(self):
        self.process.wait()
        self.process.stdout.close()

    def workers(self):
        pids = []
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                pids += [int(c) for c in (task / "children").read_text().split()]
        return pids

    def marked(self):
        needle, found = f"AULOS_TEST_MARK={self.mark}".encode(), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                if entry.name.isdigit() and needle in (entry / "environ").read_bytes().split(b"\0"):
                    if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                        found.append(int(entry.name))
        return found

    def kill(self, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.counts["kills"] += 1

    # ---- HTTP

    def call(self, method, path, body=None, key=None, raw=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * self.options.slow)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key:
            headers["Idempotency-Key"] = key
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as e:
            raise Refused(str(e)) from None
        finally:
            connection.close()
        if reply.status == 500:
            self.problems.append(f"{method} {path}: 500 {data[:300]!r}")
        return reply.status, data if raw else (json.loads(data) if data else None)

    def insist(self, method, path, body=None, key=None):
        """The answer, however often it takes; 429, 503 and 507 say: later."""
        end = time.monotonic() + 120 * self.options.slow
        while True:
            try:
                status, reply = self.call(method, path, body, key)
                if status not in (429, 500, 503, 507):
                    return status, reply
            except Refused:
                pass
            if time.monotonic() > end:
                raise SystemExit(f"{method} {path}: no answer for minutes\n{self.log()}")
            time.sleep(random.uniform(0.01, 0.1))

    # ---- Faults

    def filler(self):
        return self.place / "filler"

    def fill_disk(self):
        with contextlib.suppress(OSError), open(self.filler(), "wb", buffering=0) as f:
            while True:
                f.write(bytes(1 << 16))
        with contextlib.suppress(OSError), open(self.filler(), "ab", buffering=0) as f:
            while True:
                f.write(b"x")

    def empty_disk(self):
        with contextlib.suppress(OSError):
            self.filler().unlink()

    def step_clock(self, seconds):
        if self.shim:
            with open(self.clock, "r+b") as f:
                f.write(struct.pack("=q", seconds))


# ---- Clients


def client(world, seed):
    """Makes jobs and does things to them until the epoch ends."""
    dice = random.Random(seed)
    while not world.quiet.is_set():
        number = dice.choices(range(len(KINDS)), (4, 3, 3, 3, 2, 1))[0]
        key = str(uuid.UUID(int=dice.getrandbits(128)))
        status, job = world.insist("POST", "/v1/jobs", {**KINDS[number], "label": key, "priority": dice.randrange(-3, 4)}, key)
        if status != 202:
            world.problems.append(f"submit: {status} {job}")
            return
        with world.lock:
            world.acknowledged[job["id"]] = number
            world.counts["submitted"] += 1
        time.sleep(dice.choice((0, 0, 0.02, 0.1, 0.3)))
        act(world, dice, job["id"], number)


def act(world, dice, job, number):
    what = dice.choices(("wait", "leave", "cancel", "cancel twice", "delete", "retry"), (4, 4, 3, 1, 2, 2))[0]
    if what.startswith("cancel"):
        for _ in range(1 + what.endswith("twice")):
            cancel(world, job)
    elif what == "delete":
        with world.lock:
            world.deleted.add(job)
        status, reply = world.insist("DELETE", f"/v1/jobs/{job}")
        if status not in (204, 404, 410):
            world.problems.append(f"delete: {status} {reply}")
    elif what == "retry":
        cancel(world, job)
        key = str(uuid.UUID(int=dice.getrandbits(128)))
        status, reply = world.insist("POST", f"/v1/jobs/{job}/retry", {}, key)
        if status == 202:
            with world.lock:
                world.acknowledged[reply["id"]] = number
                world.counts["submitted"] += 1
        elif status != 409:
            world.problems.append(f"retry: {status} {reply}")
    elif what == "wait":
        listen(world, job, number)


def cancel(world, job):
    status, reply = world.insist("POST", f"/v1/jobs/{job}/cancel")
    with world.lock:
        if status in (200, 202):
            world.cancelled.add(job)
        elif status == 409:
            world.too_late.add(job)
        else:
            world.problems.append(f"cancel: {status} {reply}")


def listen(world, job, number):
    """Until it is over or the epoch is; what is sent must be what was made."""
    while not world.quiet.is_set():
        _, now = world.insist("GET", f"/v1/jobs/{job}")
        if now["state"] in FINAL:
            break
        time.sleep(0.05)
    else:
        return
    for place in now["samples"]:
        if not place.get("sample_id"):
            continue
        try:
            status, data = world.call("GET", f"/v1/samples/{place['sample_id']}/audio", raw=True)
        except Refused:
            continue
        if status == 200 and sha256(data) != world.expected[number, place["variant"], place["index"]]:
            world.counts["wrong bytes"] += 1
        world.counts["listened"] += status == 200


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---- The destroyer


def destroy(world, dice, kills):
    """So many kills, and other faults between them."""
    until = world.counts["kills"] + kills
    stopped = []  # (time, pid)
    faults = {"worker": 60, "server": 12, "all": 5, "stop worker": 8, "stop server": 2, "end server": 4, "end worker": 3,
              "disk": 4 if world.can_fill else 0, "clock": 4 if world.shim else 0}
    while world.counts["kills"] < until:
        time.sleep(dice.expovariate(1 / world.options.pace))
        now = time.monotonic()
        for when, pid in [s for s in stopped if s[0] <= now]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            stopped.remove((when, pid))
        fault = dice.choices(list(faults), list(faults.values()))[0]
        workers = [p for p in world.workers() if p not in [s[1] for s in stopped]]
        if "worker" in fault and not workers:
            continue
        world.counts[fault] += 1
        if fault == "worker":
            world.kill(dice.choice(workers))
        elif fault == "stop worker":
            pid = dice.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                stopped.append((now + dice.uniform(0.5, 3) * LEASE_MS / 1000, pid))
        elif fault == "end worker":
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(workers), signal.SIGTERM)
        elif fault == "stop server":
            world.process.send_signal(signal.SIGSTOP)
            time.sleep(dice.uniform(0.1, 1.5))
            world.process.send_signal(signal.SIGCONT)
        elif fault in ("server", "all"):
            world.kill(world.process.pid)
            for pid in workers if fault == "all" else ():
                world.kill(pid)
            world.forget()
            world.start()
        elif fault == "end server":
            world.process.send_signal(signal.SIGTERM)
            world.forget()
            world.start()
        elif fault == "disk":
            world.fill_disk()
            time.sleep(dice.uniform(0.05, 0.5))
            if dice.random() < 0.5 and workers:
                world.kill(dice.choice(workers))
            world.empty_disk()
        elif fault == "clock":
            world.step_clock(dice.choice((-3600, 0, 3600)))
    for _, pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# ---- What must hold


def rows(world, sql, *args):
    db = sqlite3.connect(f"file:{world.data / 'aulos.db'}?mode=ro", uri=True, timeout=30)
    try:
        db.row_factory = sqlite3.Row
        return [dict(r) for r in db.execute(sql, args)]
    finally:
        db.close()


def orphans(world):
    """(objects that no row names, rows whose object is missing, intents left). The rows of what was deleted stay for a
    while without their objects."""
    root = world.data / "objects"
    found = rows(world, "SELECT store_key, deleted_at FROM samples UNION SELECT store_key, 0 FROM renditions")
    keys, live = {r["store_key"] for r in found}, {r["store_key"] for r in found if not r["deleted_at"]}
    disk = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    disk = {k for k in disk if not k.startswith(("adapters/", ".tmp/"))}
    return disk - keys, live - disk, {r["key"] for r in rows(world, "SELECT key FROM uploads")}


def wait_for(check, seconds, step=0.1):
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True


def count(world, name, found):
    world.counts[name] += len(found)
    for one in list(found)[:5]:
        world.problems.append(f"{name}: {one}")


def check(world):
    slow = world.options.slow
    world.step_clock(0)
    active = "SELECT id, state FROM jobs WHERE state NOT IN ('completed', 'failed', 'cancelled')"
    wait_for(lambda: not rows(world, active), 300 * slow)
    wait_for(lambda: orphans(world) == (set(), set(), set()), 90 * slow)
    jobs = {r["id"]: r for r in rows(world, "SELECT * FROM jobs")}
    live = [j for j in jobs.values() if not j["deleted_at"]]
    # (a)
    count(world, "lost", [f"{i} is {jobs[i]['state'] if i in jobs else 'gone'}" for i in world.acknowledged
                          if i not in world.deleted and (i not in jobs or jobs[i]["state"] not in FINAL)])
    first = collections.Counter(j["label"] for j in jobs.values() if not j["retry_of"])
    again = collections.Counter(j["retry_of"] for j in jobs.values() if j["retry_of"])
    places = rows(world, "SELECT job_id, variant, idx, count(*) AS n FROM samples GROUP BY 1, 2, 3 HAVING n > 1")
    # (d), and one job for one key
    count(world, "doubled", [x for x, n in (first + again).items() if n > 1] + places)
    # (b)
    made = collections.defaultdict(list)
    for sample in rows(world, "SELECT * FROM samples WHERE deleted_at = 0"):
        made[sample["job_id"]].append(sample)
    count(world, "incomplete", [j["id"] for j in live if j["state"] == "completed" and
                                len(made[j["id"]]) != j["num_samples"] * j["num_variants"]])
    wrong = []
    for sample in (s for j in live for s in made[j["id"]]):
        path = world.data / "objects" / sample["store_key"]
        found = sha256(path.read_bytes()) if path.exists() else "no file"
        number = world.acknowledged.get(sample["job_id"])
        want = sample["sha256"] if number is None else world.expected[number, sample["variant"], sample["idx"]]
        if not found == want == sample["sha256"]:
            wrong.append(f"sample {sample['id']} is {found}, row {sample['sha256']}, expected {want}")
    count(world, "wrong bytes", wrong)
    # (c)
    count(world, "came back", [i for i in world.cancelled if i in jobs and jobs[i]["state"] != "cancelled"] +
          [j["id"] for j in live if j["state"] == "cancelled" and made[j["id"]]] +
          [i for i in world.too_late if i in jobs and jobs[i]["state"] not in ("completed", "failed")])
    # (e)
    count(world, "orphans", [f"{what} {x}" for what, found in zip(("object", "row", "intent"), orphans(world)) for x in found])
    # (f)
    events = collections.defaultdict(list)
    for event in rows(world, "SELECT subject, seq, event, data FROM events WHERE kind = 'job' ORDER BY id"):
        events[event["subject"]].append(event)
    count(world, "event gaps", [j["id"] for j in live if not well_told(events[j["id"]], j["state"])])
    world.counts["jobs"] += len(world.acknowledged)
    for job in live:
        world.counts[f"state {job['state']}"] += 1
        if job["error"]:
            world.counts[f"failed: {json.loads(job['error'])['type'].rsplit('/', 1)[1]}"] += 1


def well_told(events, state):
    told = [json.loads(e["data"])["state"] for e in events if e["event"] == "state"]
    return ([e["seq"] for e in events] == list(range(1, len(events) + 1)) and told and told[-1] == state and
            [e["event"] for e in events].count("done") == 1 and events[-1]["event"] == "done" and
            sum(s in FINAL for s in told) == 1)


# ---- The run


def learn(world):
    """The bytes of every kind, by a server that nobody disturbs and one job at a time."""
    world.start(workers=1, max_batch=1)
    for number, body in enumerate(KINDS):
        _, job = world.insist("POST", "/v1/jobs", body)
        wait_for(lambda: world.insist("GET", f"/v1/jobs/{job['id']}")[1]["state"] in FINAL, 120 * world.options.slow)
        _, job = world.insist("GET", f"/v1/jobs/{job['id']}")
        if job["state"] != "completed":
            raise SystemExit(f"a job failed in peace: {job['error']}\n{world.log()}")
        for place in job["samples"]:
            _, sample = world.insist("GET", f"/v1/samples/{place['sample_id']}")
            world.expected[number, place["variant"], place["index"]] = sample["sha256"]
    world.process.send_signal(signal.SIGTERM)
    world.forget()
    shutil.rmtree(world.data)


def epoch(world, dice, kills):
    world.quiet.clear()
    clients = [threading.Thread(target=client, args=(world, dice.getrandbits(64))) for _ in range(world.options.clients)]
    for c in clients:
        c.start()
    try:
        destroy(world, dice, kills)
    finally:
        world.quiet.set()
        world.empty_disk()
        for c in clients:
            c.join()


def end_server(world):
    """Gracefully; nothing may be left of it."""
    world.step_clock(0)
    world.process.send_signal(signal.SIGTERM)
    world.forget()
    left = world.marked()
    count(world, "processes left", left)
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def run(world):
    o, dice = world.options, random.Random(world.options.seed)
    learn(world)
    began, end = time.monotonic(), time.monotonic() + o.seconds
    while world.counts["kills"] < o.kills and time.monotonic() < end and not bad(world):
        if world.acknowledged:
            end_server(world)
            shutil.rmtree(world.data)
            world.forget_jobs()
        world.start()
        epoch(world, dice, min(o.epoch, o.kills - world.counts["kills"]))
        for name in [n for n in world.counts if n.startswith(("state ", "failed: "))]:
            del world.counts[name]
        check(world)
        world.say(f"{time.monotonic() - began:6.0f} s  {figures(world)}")
    end_server(world)
    world.start(workers=0)  # nobody is there: what was being written is swept
    world.process.send_signal(signal.SIGTERM)
    world.forget()
    count(world, "orphans", list((world.data / "objects" / ".tmp").glob("*")))


ZERO = ("lost", "doubled", "orphans", "wrong bytes", "incomplete", "came back", "event gaps", "processes left")


def bad(world):
    return any(world.counts[name] for name in ZERO) or world.problems


def figures(world):
    return ", ".join(f"{world.counts[n]} {n}" for n in ("kills", "jobs", *ZERO[:4]))


def mounted(place):
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(place)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("build")
    p.add_argument("--kills", type=int, default=1000)
    p.add_argument("--epoch", type=int, default=50, help="kills between two checks; each epoch has a data folder of its own")
    p.add_argument("--seconds", type=float, default=3600, help="no new epoch after so long")
    p.add_argument("--pace", type=float, default=0.2, help="seconds between two faults, on average")
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    p.add_argument("--slow", type=float, default=10 if {"ASAN_OPTIONS", "TSAN_OPTIONS"} & set(os.environ) else 1)
    o = p.parse_args()
    top = Path(tempfile.mkdtemp(prefix="aulos-chaos-"))
    place, clock = top / "disk", top / "clock"
    clock.write_bytes(bytes(8))
    shim = Path(o.build).resolve() / "tests/chaos/chaos_clock.so"
    if o.slow > 1 or not shim.exists():
        shim = None
        print("the clock does not step: no library for it, or a build with sanitizers")
    can_fill = mounted(place)
    if not can_fill:
        print("the disk is not filled: mounting a tmpfs is not permitted here")
    world = World(o, place, can_fill, clock, shim)
    print(f"seed {o.seed}")
    try:
        run(world)
    finally:
        for pid in world.marked():
            os.kill(pid, signal.SIGKILL)
        failed = bad(world)
        if failed and world.log_path.exists():
            kept = Path(tempfile.gettempdir()) / "aulos-chaos.log"
            shutil.copy(world.log_path, kept)
            print(f"the server's log is in {kept}")
        if can_fill:
            subprocess.run(["umount", "-l", str(place)], check=False)
        shutil.rmtree(top, ignore_errors=True)
    for problem in world.problems[:20]:
        print(f"problem: {problem}")
    print("; ".join(f"{name} {n}" for name, n in sorted(world.counts.items())
                    if name not in ZERO and name not in ("kills", "jobs")))
    print(", ".join(f"{world.counts[n]} {n}" for n in ("kills", "jobs", *ZERO)))
    return 1 if failed else 0


sys.exit(main())
