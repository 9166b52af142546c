# SPDX-License-Identifier: MIT
"""The canary: many jobs at once over many adapters and none, and every sample must be the one that it would have been alone.

Clients submit jobs of one to three variants, cancel some at random moments, and meanwhile one adapter is replaced by other
content and back, and another is deleted and sent again. Each finished sample's bytes are compared with those of `aulos
generate` run alone with the adapter that the job was pinned to. AULOS_CANARY_JOBS sets the number of jobs (`make canary`).
"""
import copy
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests

import harness
from harness import ADAPTERS, CHECKPOINTS
from test_uploads import files_of, settled, upload

MODEL = CHECKPOINTS / "mono-f32"
# Two contents take turns as "swapped"; "gone" is deleted and sent again; the others stay.
STEADY = ["plain", "plain-bin", "dora", "rslora-patterns", "modules-to-save", "text-encoder"]
SWAPPED = ["dreambooth", "regex-bias"]
GONE = "plain-named-default"
# Of a name: what tells adapters apart must not be the strength.
STRENGTHS = {"plain-bin": 0.5, "dora": -1, "text-encoder": 2}
PROMPTS = ["electronic dance music", "a piano"]
SEEDS = 6
SECONDS = 0.2
JOBS = int(os.environ.get("AULOS_CANARY_JOBS", "0")) or max(12, int(160 / harness.SLOW))
CLIENTS = 8
SEED = int(os.environ.get("AULOS_CANARY_SEED", "1"))


class Solo:
    """What a sample is when nothing else is made: one process for one clip, remembered."""

    def __init__(self, folder):
        self.folder = folder
        self.known = {}
        self.lock = threading.Lock()

    def sha256(self, prompt, name, strength, seed):
        key = (prompt, name, strength, seed)
        with self.lock:
            slot = self.known.setdefault(key, [threading.Lock(), None, len(self.known)])
        with slot[0]:
            if slot[1] is None:
                report = harness.generate(self.folder / f"{slot[2]}.wav", prompt, "--threads", 1, model=MODEL, seed=seed,
                                          duration=SECONDS, adapter=ADAPTERS / "mono-f32" / name if name else None,
                                          strength=strength if name else None)
                slot[1] = report["samples"][0]["sha256"]
        return slot[1]


class Canary:
    def __init__(self, server):
        self.server = server
        self.names = {}  # sha256 of an adapter's content: its folder
        self.ids = {}    # folder: id, which the same content keeps
        self.jobs = []   # (id, whether a cancel was accepted)
        self.refused = 0
        self.lock = threading.Lock()
        self.done = threading.Event()

    def client(self):
        one = copy.copy(self.server)
        one.session = requests.Session()
        one.session.trust_env = False
        return one

    def send(self, client, folder, name, query=""):
        reply = upload(client, name=name, files=files_of(ADAPTERS / "mono-f32" / folder), query=query)
        assert reply.status_code in (200, 202), reply.text
        adapter = settled(client, reply.json())
        assert adapter["state"] == "ready", adapter
        self.names[adapter["sha256"]] = folder
        self.ids[folder] = adapter["id"]
        return adapter

    def variant(self, dice):
        choice = dice.randrange(10)
        if choice == 0:
            return None
        if choice == 1:
            return {"name": "swapped", "strength": 1}
        if choice == 2:
            return {"id": self.ids[GONE], "strength": 1}
        if choice == 3:
            return {"id": self.ids[dice.choice(SWAPPED)], "strength": 1}
        folder = dice.choice(STEADY)
        return {"id": self.ids[folder], "strength": STRENGTHS.get(folder, 1)}

    def submit_some(self, number, count):
        """One client: submits, cancels now and then, never more than a handful waiting."""
        dice, client = random.Random(SEED * 1000 + number), self.client()
        waiting = []
        while count > 0:
            n = dice.randint(1, 3)
            body = {"prompt": dice.choice(PROMPTS), "seed": dice.randrange(SEEDS - n + 1), "num_samples": n, "duration_s": SECONDS,
                    "priority": dice.choice((0, 0, 0, 5))}
            variants = [{"adapter": self.variant(dice)} for _ in range(dice.choice((1, 1, 2, 3)))]
            body.update({"adapter": variants[0]["adapter"]} if len(variants) == 1 else {"variants": variants})
            reply = client.post("/v1/jobs", body)
            if reply.status_code in (404, 422):
                # The deleted one, or one that is being checked again.
                with self.lock:
                    self.refused += 1
                time.sleep(0.02)
                continue
            assert reply.status_code == 202, reply.text
            count -= 1
            job = reply.json()["id"]
            cancelled = False
            if dice.random() < 0.2:
                time.sleep(dice.random() * 0.1)
                cancelled = client.cancel(job).status_code in (200, 202)
            waiting.append(job)
            with self.lock:
                self.jobs.append((job, cancelled))
            while len(waiting) > 12:
                client.wait(waiting.pop(0))
        client.session.close()

    def disturb(self):
        """Versions that change and an adapter that comes and goes, until all jobs are submitted."""
        client, turn = self.client(), 0
        changes = {"replaced": 0, "deleted": 0}
        while not self.done.is_set() or not changes["deleted"]:
            turn += 1
            self.send(client, SWAPPED[turn % 2], "swapped", "?replace=1")
            changes["replaced"] += 1
            assert client.req("DELETE", f"/v1/adapters/{self.ids[GONE]}").status_code == 204
            changes["deleted"] += 1
            self.done.wait(0.1)
            self.send(client, GONE, "gone")
            self.done.wait(0.1)
        client.session.close()
        return changes

    def check(self, solo, job_id):
        """(samples compared, [what is wrong]) of one job."""
        with self.lock:
            client = self.free.pop() if self.free else self.client()
        job = client.job(job_id)
        wrong, n = [], 0
        for entry in job["samples"]:
            if not entry.get("sample_id"):
                continue
            sample = client.sample(entry["sample_id"])
            adapter = job["variants"][entry["variant"]]["adapter"]
            name = self.names[adapter["sha256"]] if adapter else None
            assert (sample["adapter"] or {}).get("sha256") == (adapter or {}).get("sha256")
            expected = solo.sha256(job["prompt"]["text"], name, adapter["strength"] if adapter else None, sample["seed"])
            got = harness.sha256(client.audio(sample))
            n += 1
            if not got == expected == sample["sha256"]:
                wrong.append((job_id, name, sample["seed"], got, expected))
        with self.lock:
            self.free.append(client)
        return n, wrong

    def check_all(self, solo):
        self.free = []
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda j: self.check(solo, j), [j for j, _ in self.jobs]))
        return sum(n for n, _ in results), [w for _, found in results for w in found]


def test_every_sample_is_as_if_alone(make_server, tmp_path):
    began = time.monotonic()
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", "--threads", 1, workers=2, model=MODEL)
    canary = Canary(server)
    for folder in STEADY:
        canary.send(server, folder, folder)
    canary.send(server, SWAPPED[1], "swapped")
    canary.send(server, SWAPPED[0], "swapped", "?replace=1")
    canary.send(server, GONE, "gone")
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        disturbed = pool.submit(canary.disturb)
        clients = [pool.submit(canary.submit_some, i, JOBS // CLIENTS + (i < JOBS % CLIENTS)) for i in range(CLIENTS)]
        try:
            for client in clients:
                client.result()
        finally:
            canary.done.set()
        changes = disturbed.result()
    states = [server.wait(job, ("completed", "cancelled"))["state"] for job, _ in canary.jobs]
    made = time.monotonic() - began
    compared, wrong = canary.check_all(Solo(tmp_path))
    cancelled = states.count("cancelled")
    print(f"\ncanary: {len(states)} jobs, {cancelled} cancelled, {changes['replaced']} versions, {changes['deleted']} deletions, "
          f"{canary.refused} refused; {compared} samples compared, {len(wrong)} wrong; {made:.0f} s + {time.monotonic() - began - made:.0f} s")
    assert not wrong, wrong[:5]
    assert len(states) == JOBS and compared >= (JOBS - cancelled)
    for (job, accepted), state in zip(canary.jobs, states):
        assert not accepted or state == "cancelled", f"the cancel of {job} was accepted, and it is {state}"
    # Every adapter was met, and none more often than it should be by chance alone.
    met = {row["adapter_sha256"] for row in harness.read_db(server.data, "SELECT DISTINCT adapter_sha256 FROM samples")}
    assert JOBS < 100 or {canary.names[s] for s in met if s} | {None} == {*STEADY, *SWAPPED, GONE, None}
