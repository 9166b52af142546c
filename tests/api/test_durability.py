# SPDX-License-Identifier: MIT
"""Nothing is lost: killed workers, killed servers, stopped processes, full disks. After each, the invariants hold."""
import os
import signal
import subprocess
import time

import pytest

import harness
from harness import FINAL, MODEL, Server, check_problem, wait_until

LONG = {"prompt": "a long drone", "duration_s": 20 * harness.LENGTH, "num_samples": 8}
SHORT = {"prompt": "a short note", "duration_s": 0.3, "num_samples": 2}


def a_worker(server):
    return wait_until(server.workers, 60, "a worker process")[0]


def all_end(server, jobs, timeout=180):
    for job in jobs:
        wait_until(lambda j=job: server.job(j)["state"] in FINAL, timeout, f"job {job['id']} to end; log:\n{server.log()}", step=0.1)


# ---- Workers


def test_kill_9_of_a_worker_and_the_job_still_completes_once(make_server):
    server = make_server()
    job = server.submit(**LONG)
    waiting = [server.submit(**SHORT) for _ in range(2)]
    server.begun(job)
    pid = a_worker(server)
    os.kill(pid, signal.SIGKILL)
    for j in (job, *waiting):
        server.wait(j, "completed")
    done = server.job(job)
    assert done["attempt"] == 2
    assert pid not in server.workers() and len(server.workers()) == 1
    harness.check_invariants(server, [job, *waiting])


def test_kill_9_of_a_worker_between_samples_keeps_what_is_done(make_server):
    """The second attempt makes only the missing ones: those committed keep their ids."""
    server = make_server("--session-memory", harness.SMALL_MEMORY)
    job = server.submit(**{**LONG, "duration_s": 10 * harness.LENGTH})

    def some():
        now = server.job(job)
        assert now["state"] not in FINAL, now["error"]
        return [s["sample_id"] for s in now["samples"] if s["state"] == "completed"]

    kept = wait_until(some, 120, "a first sample", step=0.02)
    os.kill(a_worker(server), signal.SIGKILL)
    done = server.wait(job, "completed")
    assert set(kept) <= {s["sample_id"] for s in done["samples"]}
    harness.check_invariants(server, [job])


def test_a_job_that_kills_its_worker_twice_is_poisoned(make_server):
    server = make_server()
    job = server.submit(**LONG)
    for attempt in (1, 2):
        wait_until(lambda a=attempt: server.job(job)["attempt"] == a, 60, f"attempt {attempt}", step=0.02)
        server.begun(job)
        os.kill(a_worker(server), signal.SIGKILL)
        wait_until(lambda: server.job(job)["state"] != "processing", 60, "the loss to be seen", step=0.02)
    done = server.wait(job, "failed")
    assert done["error"]["type"] == "/problems/poisoned"
    assert len(done["error"]["attempts"]) == 2
    # Others go on.
    server.wait(server.submit(**SHORT), "completed")
    harness.check_invariants(server, [job])


def test_cancel_accepted_then_kill_9_of_the_worker(make_server):
    server = make_server()
    job = server.submit(**LONG)
    server.begun(job)
    pid = a_worker(server)
    os.kill(pid, signal.SIGSTOP)
    assert server.cancel(job).status_code == 202
    os.kill(pid, signal.SIGKILL)
    server.wait(job, "cancelled")
    harness.check_invariants(server, [job], [job])
    assert server.job(job)["attempt"] == 1, "a cancelled job was tried again"


def test_a_heartbeat_keeps_a_job_that_is_longer_than_its_lease(make_server):
    server = make_server("--lease-ms", "600", "--heartbeat-ms", "100", workers=2)
    job = server.wait(server.submit(**{**LONG, "duration_s": 10 * harness.LENGTH}), "completed")
    assert job["attempt"] == 1
    harness.check_invariants(server, [job])


@pytest.mark.parametrize("wakes", ["while another works", "after another is done"])
def test_a_worker_that_wakes_after_its_lease_writes_nothing(make_server, wakes):
    server = make_server("--lease-ms", "1500", "--heartbeat-ms", "500", workers=2)
    wait_until(lambda: len(server.workers()) == 2, 60, "two workers")
    job = server.submit(**{**LONG, "duration_s": 10 * harness.LENGTH})
    server.begun(job)
    # Which of the two has the job is not told: the one that has been computing.
    pid = max(server.workers(), key=harness.cpu_seconds)
    os.kill(pid, signal.SIGSTOP)
    try:
        if wakes == "while another works":
            wait_until(lambda: (now := server.job(job))["attempt"] == 2 and now["state"] == "processing", 60,
                       "the other worker to have it", step=0.02)
        else:
            server.wait(job, "completed")
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # ended for its silence: allowed as well
    done = server.wait(job, "completed")
    assert done["attempt"] == 2
    # It finds out at its next write; another job runs after that.
    server.wait(server.submit(**SHORT), "completed")
    harness.check_invariants(server, [job], timeout=60)


def test_a_worker_is_started_again_when_idle(make_server):
    server = make_server()
    pid = a_worker(server)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.workers() and pid not in server.workers(), 60, "another worker")
    server.wait(server.submit(**SHORT), "completed")


# ---- The server


def test_kill_9_of_the_server_loses_no_acknowledged_job(tmp_path):
    server = Server(tmp_path / "data").start()
    try:
        finished = server.run(**SHORT)
        jobs = [server.submit(**LONG)] + [server.submit(**{**SHORT, "prompt": f"job {i}"}) for i in range(4)]
        dropped = server.submit(**SHORT)
        assert server.cancel(dropped).status_code == 200
        server.begun(jobs[0])
        server.kill_server()
        wait_until(lambda: not server.processes(), 60, "the workers to end by themselves")
        server.start()
        all_end(server, jobs)
        assert [server.job(j)["state"] for j in jobs] == ["completed"] * 5
        harness.check_invariants(server, [finished, *jobs, dropped], [dropped])
        assert server.stop() == 0
    finally:
        server.kill()


def test_kill_9_of_server_and_workers_at_once(tmp_path):
    server = Server(tmp_path / "data", workers=2).start()
    try:
        jobs = [server.submit(**{**LONG, "duration_s": 4 * harness.LENGTH}) for _ in range(3)]
        server.begun(jobs[0])
        server.kill()
        server.start()
        all_end(server, jobs)
        assert [server.job(j)["state"] for j in jobs] == ["completed"] * 3
        harness.check_invariants(server, jobs)
        assert server.stop() == 0
    finally:
        server.kill()


def test_kill_9_of_everything_again_and_again(tmp_path):
    """Kills at growing distances from the start: wherever they fall, each job ends once, and cancels hold."""
    server = Server(tmp_path / "data").start()
    jobs, cancelled = [], []
    try:
        for turn in range(5):
            mine = [server.submit(prompt=f"turn {turn}.{i}", duration_s=1, num_samples=2) for i in range(3)]
            jobs += mine
            for _ in range(turn * 15):
                server.job(mine[0])
            if server.cancel(mine[2]).status_code in (200, 202):
                cancelled.append(mine[2])
            server.kill()
            server.start()
        all_end(server, jobs)
        harness.check_invariants(server, jobs, cancelled)
        assert all(server.job(j)["state"] in ("completed", "cancelled") for j in jobs)
        assert cancelled
        assert server.stop() == 0
    finally:
        server.kill()


def test_death_of_the_server_does_not_count_as_an_attempt(tmp_path):
    server = Server(tmp_path / "data").start()
    try:
        job = server.submit(**LONG)
        for _ in range(3):
            server.begun(job)
            server.kill()
            server.start()
        # Three interruptions: as deaths of the worker two would have been enough to poison it.
        done = server.wait(job, "completed")
        assert done["state"] == "completed" and done["error"] is None
        harness.check_invariants(server, [job])
        assert server.stop() == 0
    finally:
        server.kill()


def test_what_was_made_is_still_there_after_a_restart(tmp_path):
    server = Server(tmp_path / "data").start()
    try:
        job = server.run(**SHORT)
        before = [(s, server.audio(s)) for s in server.samples_of(job)]
        adapter = server.adapters()["chiptune"]
        made = server.post("/v1/comparisons", {"sample_ids": [s["id"] for s, _ in before]}).json()
        assert server.stop() == 0
        server.start()
        for sample, data in before:
            again = server.sample(sample["id"])
            assert {k: v for k, v in again.items() if k != "urls"} == {k: v for k, v in sample.items() if k != "urls"}
            assert server.get(f"/v1/samples/{sample['id']}/audio").content == data
        assert server.adapters()["chiptune"]["id"] == adapter["id"], "same content, same id for ever"
        assert [s["id"] for s in server.ok(f"/v1/comparisons/{made['id']}")["samples"]] == [s["id"] for s, _ in before]
        assert server.stop() == 0
    finally:
        server.kill()


def test_a_second_server_on_the_folder_is_refused_with_the_pid(make_server, tmp_path):
    server = make_server(workers=0)
    second = harness.aulos("serve", "--data", server.data, "--listen", "127.0.0.1:0", "--workers", "0", "--model", MODEL)
    assert second.returncode == 1
    assert str(server.process.pid) in second.stderr
    assert second.stdout == ""
    server.submit(**SHORT)


def test_a_used_port_is_refused(make_server, tmp_path):
    server = make_server(workers=0)
    second = harness.aulos("serve", "--data", tmp_path / "other", "--listen", f"127.0.0.1:{server.port}", "--workers", "0",
                           "--model", MODEL)
    assert second.returncode == 1
    assert str(server.port) in second.stderr


@pytest.mark.parametrize("models,word", [(["{model}", "{copy}/{name}"], MODEL.name), (["{copy}/nothing"], "nothing"),
                                         (["no-such-name"], "no-such-name")], ids=["equal names", "no folder", "unknown name"])
def test_models_that_cannot_be_served_are_refused_at_start(tmp_path, models, word):
    copy = harness.copy_tree(MODEL, tmp_path / "copy" / MODEL.name).parent
    words = [w for m in models for w in ("--model", m.format(model=MODEL, copy=copy, name=MODEL.name))]
    done = harness.aulos("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", *words)
    assert done.returncode in (1, 2) and word in done.stderr
    assert done.stdout == ""


def test_a_database_of_another_version_is_refused(tmp_path):
    server = Server(tmp_path / "data", workers=0).start()
    try:
        assert server.stop() == 0
        db = harness.sqlite3.connect(tmp_path / "data" / "aulos.db")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("PRAGMA user_version = 9999")
        db.commit()
        db.close()
        done = harness.aulos("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--workers", "0", "--model", MODEL)
        assert done.returncode == 1
        assert "9999" in done.stderr and str(version) in done.stderr
    finally:
        server.kill()


# ---- Graceful ends


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_end_is_exit_0(tmp_path, how):
    server = Server(tmp_path / "data").start()
    try:
        server.run(**SHORT)
        server.process.send_signal(how)
        assert server.process.wait(60 * harness.SLOW) == 0
        wait_until(lambda: not server.processes(), 10, "all processes to be gone")
    finally:
        server.kill()


def test_sigterm_lets_a_short_job_finish(tmp_path):
    server = Server(tmp_path / "data").start()
    try:
        job = server.submit(**{**LONG, "duration_s": 2 * harness.LENGTH})
        server.begun(job)
        assert server.stop() == 0
        server.words[server.words.index("--workers") + 1] = "0"
        server.start()
        assert server.job(job)["state"] == "completed"
        harness.check_invariants(server, [job])
        assert server.stop() == 0
    finally:
        server.kill()


def test_sigterm_hands_back_what_does_not_finish_within_the_grace(tmp_path):
    server = Server(tmp_path / "data", "--shutdown-grace-ms", "200").start()
    try:
        job = server.submit(**{**LONG, "duration_s": 30 * harness.LENGTH, "num_samples": 16})
        server.begun(job)
        assert server.stop() == 0
        server.words[server.words.index("--workers") + 1] = "0"
        server.start()
        now = server.job(job)
        assert now["state"] == "queued" and now["attempt"] == 0, "handing back does not count as an attempt"
        assert server.cancel(job).status_code == 200
        harness.check_invariants(server, [job], [job])
        assert server.stop() == 0
    finally:
        server.kill()


def test_a_second_signal_ends_at_once(tmp_path):
    server = Server(tmp_path / "data", "--shutdown-grace-ms", "600000").start()
    try:
        job = server.submit(**{**LONG, "duration_s": 30 * harness.LENGTH, "num_samples": 16})
        server.begun(job)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # not to be merged with the second by the kernel
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60 * harness.SLOW)
        wait_until(lambda: not server.processes(), 30, "all processes to be gone")
        server.start()
        assert server.job(job)["state"] in ("queued", "processing")
        server.cancel(job)
        server.wait(job, "cancelled")
        harness.check_invariants(server, [job], [job])
        assert server.stop() == 0
    finally:
        server.kill()


def test_sigterm_to_a_worker_by_hand(make_server):
    """A worker on its own hands its job back and ends 0; another takes it up."""
    server = make_server(workers=0)
    job = server.submit(**{**LONG, "duration_s": 30 * harness.LENGTH, "num_samples": 16})
    worker = subprocess.Popen([str(harness.BIN), "worker", "--data", str(server.data), "--model", str(MODEL),
                               "--shutdown-grace-ms", "100"], env=server.env, stderr=subprocess.DEVNULL)
    try:
        server.begun(job)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60 * harness.SLOW) == 0
        now = server.job(job)
        assert now["state"] == "queued" and now["attempt"] == 0
        assert server.cancel(job).status_code == 200
    finally:
        worker.kill()
        worker.wait()


# ---- Disks


@pytest.fixture
def mount(tmp_path):
    """mount(place, size): a tmpfs there. Mounting needs a right that not every place gives."""
    mounted = []

    def mount(place, size):
        place.mkdir(parents=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting a tmpfs is not permitted here")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def no_adapters(tmp_path):
    (tmp_path / "no-adapters").mkdir()
    return ["--adapters", tmp_path / "no-adapters", "--min-free-disk", "0"]


def still_readable(server, job):
    assert server.get("/healthz").status_code == 200
    for sample in server.samples_of(job):
        assert harness.sha256(server.audio(sample)) == sample["sha256"]


def test_a_sample_that_finds_no_space_fails_its_job(mount, tmp_path, no_adapters):
    """The object store is full and the database is not: finished samples stay, the job says why it failed."""
    objects = mount(tmp_path / "data" / "objects", "700k")
    server = Server(tmp_path / "data", *no_adapters).start()
    try:
        good = server.run(**SHORT)
        big = server.wait(server.submit(prompt="too much", duration_s=10, num_samples=2), "failed")  # 2 x 480 kB
        assert "space" in big["error"]["detail"]
        assert len(server.samples_of(big)) == 1
        still_readable(server, good)
        harness.check_invariants(server, [good, big])
        subprocess.run(["mount", "-o", "remount,size=8m", str(objects)], check=True)
        harness.check_invariants(server, [good, big, server.run(**SHORT)])
        assert server.stop() == 0
    finally:
        server.kill()


def test_a_disk_that_is_full_to_the_last_byte_tears_no_job(mount, tmp_path, no_adapters):
    """Not even the database can write then: what is asked for is refused, and all goes on once there is space again."""
    disk = mount(tmp_path / "small", "8m")
    server = Server(disk / "data", *no_adapters)
    server.log_path = tmp_path / "log"
    server.start()
    try:
        good = server.run(**SHORT)
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize - 700_000))
        job = server.submit(prompt="too much", duration_s=10, num_samples=4)  # 4 x 480 kB
        wait_until(lambda: server.post("/v1/prompts", {"text": "x" * 5000}).status_code == 507 or server.job(job)["state"] in FINAL,
                   90, "the disk to be full", step=0.2)
        still_readable(server, good)
        (disk / "filler").unlink()
        wait_until(lambda: server.job(job)["state"] in FINAL, 90, "the job to end", step=0.1)
        harness.check_invariants(server, [good, job, server.run(**SHORT)])
        assert server.stop() == 0
    finally:
        server.kill()


def test_low_disk_refuses_jobs_and_serves_reads(mount, tmp_path):
    server = Server(mount(tmp_path / "small", "8m") / "data", "--min-free-disk", "1G", workers=0)
    server.log_path = tmp_path / "log"
    server.start()
    try:
        check_problem(server.post("/v1/jobs", SHORT), 507)
        assert server.all("/v1/jobs") == []
        assert server.stop() == 0
    finally:
        server.kill()
