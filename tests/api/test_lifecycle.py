# SPDX-License-Identifier: MIT
"""The lives of jobs beyond making samples: deletion and retention, retry, dry runs, recipes and reproduction, pause and
drain, priorities that age, and cancels at the worst moments."""
import os
import random
import shutil
import signal
import threading
import time

import pytest
import requests

import harness
from harness import (FINAL, MISSING_ID, MODEL, TIME, check_invariants, check_problem, objects_on_disk, read_db, sha256,
                     wait_until)

SHORT = {"prompt": "a short note", "duration_s": 0.3}
LONG = {"prompt": "a long drone", "duration_s": 20 * harness.LENGTH, "num_samples": 8}
ADMIN = "/v1/admin/"


def delete(server, job, **headers):
    return server.req("DELETE", f"/v1/jobs/{harness.job_id(job)}", headers=headers)


# ---- Deletion


def test_a_deleted_job_is_gone_with_its_audio_and_purged_in_the_end(make_server):
    server = make_server("--deleted-retention", "1h")
    job = server.run(**SHORT, num_samples=2)
    kept = server.run(**SHORT, label="kept")
    samples = server.samples_of(job)
    paths = {s["storage_path"] for s in samples}
    assert paths <= objects_on_disk(server.data)
    check_problem(delete(server, job, **{"If-Match": '"another"'}), 412)
    reply = delete(server, job, **{"If-Match": server.get(f"/v1/jobs/{job['id']}").headers["ETag"]})
    assert (reply.status_code, reply.content) == (204, b"")
    for path in (f"/v1/jobs/{job['id']}", *(f"/v1/samples/{s['id']}{tail}" for s in samples for tail in ("", "/audio", "/recipe"))):
        check_problem(server.get(path), 410, "gone")
    for action in ("cancel", "retry"):
        check_problem(server.post(f"/v1/jobs/{job['id']}/{action}"), 410, "gone")
    check_problem(delete(server, job), 410)
    assert [j["id"] for j in server.all("/v1/jobs")] == [kept["id"]]
    assert len(server.all("/v1/samples")) == 1
    wait_until(lambda: not paths & objects_on_disk(server.data), 30, "the audio to go")
    check_invariants(server, [kept])
    # The same folder with no patience: the record goes, and nothing knows it any more.
    assert server.stop() == 0
    server.words[server.words.index("1h")] = "0s"
    server.start()
    wait_until(lambda: server.get(f"/v1/jobs/{job['id']}").status_code == 404, 30, "the record to go")
    for sample in samples:
        check_problem(server.get(f"/v1/samples/{sample['id']}"), 404)
    check_problem(delete(server, job), 404)
    assert not read_db(server.data, "SELECT * FROM events WHERE subject = ?", job["id"])
    assert server.job(kept)["state"] == "completed"
    check_invariants(server, [kept])


def test_deleting_an_active_job_cancels_it_first(make_server):
    server = make_server()
    running = server.submit(**LONG)
    waiting = server.submit(**SHORT)
    server.begun(running)
    for job in (waiting, running):
        assert delete(server, job).status_code == 204
        check_problem(server.get(f"/v1/jobs/{job['id']}"), 410)
    wait_until(lambda: read_db(server.data, "SELECT * FROM jobs WHERE state = 'cancelled'") != [] and
               not read_db(server.data, "SELECT * FROM jobs WHERE state IN ('processing', 'cancelling')"), 60, "the end of both")
    states = {r["id"]: r["state"] for r in read_db(server.data, "SELECT id, state FROM jobs")}
    assert states == {running["id"]: "cancelled", waiting["id"]: "cancelled"}
    check_invariants(server)
    assert not objects_on_disk(server.data)
    assert server.run(**SHORT)["state"] == "completed"


@pytest.mark.parametrize("job", [MISSING_ID, "nothing"])
def test_deleting_what_never_was_is_404(api, job):
    check_problem(delete(api, job), 404)
    check_problem(api.post(f"/v1/jobs/{job}/retry"), 404)


def test_retention_removes_finished_jobs_alone(make_server):
    server = make_server("--retention", "1s", "--deleted-retention", "0s")
    done = server.run(**SHORT)
    assert server.post(ADMIN + "pause").status_code == 200
    waiting = server.submit(**SHORT)
    wait_until(lambda: server.get(f"/v1/jobs/{done['id']}").status_code == 404, 60, "the finished job to go")
    assert server.job(waiting)["state"] == "queued"
    wait_until(lambda: not objects_on_disk(server.data), 30, "its audio to go")
    assert not server.all("/v1/samples")


# ---- Retry


def test_retry_makes_a_new_job_with_the_same_recipe(make_server):
    server = make_server()
    first = server.submit(**{**LONG, "label": "mine", "priority": 7, "deadline_s": 3600,
                             "variants": [{"adapter": None}, {"adapter": {"name": "chiptune", "strength": 0.5}}], "num_samples": 2})
    check_problem(server.post(f"/v1/jobs/{first['id']}/retry"), 409, "conflict")
    server.cancel(first)
    server.wait(first, "cancelled")
    check_problem(server.post(f"/v1/jobs/{first['id']}/retry", {"seed": 1}), 422)
    reply = server.post(f"/v1/jobs/{first['id']}/retry")
    assert reply.status_code == 202
    again = reply.json()
    assert reply.headers["Location"] == f"/v1/jobs/{again['id']}"
    assert again["id"] != first["id"] and again["retry_of"] == first["id"]
    for field in ("prompt_id", "model", "variants", "params", "format", "num_samples", "seed", "seed_source", "label", "priority"):
        assert again[field] == first[field], field
    assert [s["seed"] for s in again["samples"]] == [s["seed"] for s in first["samples"]]
    assert TIME.match(again["deadline_at"]) and again["deadline_at"] > first["deadline_at"]
    assert server.job(first)["state"] == "cancelled"
    # It can be tried as often as one likes, and with a key once.
    for _ in range(2):
        keyed = server.post(f"/v1/jobs/{first['id']}/retry", headers={"Idempotency-Key": "k"})
        assert keyed.status_code == 202
    assert keyed.headers["Idempotency-Replayed"] == "true"
    assert len(server.all("/v1/jobs")) == 3
    for job in (again, keyed.json()):
        server.cancel(job)


def test_a_retried_job_makes_the_same_bytes(make_server, tmp_path):
    server = make_server("--queue-limit", "1", workers=0)
    job = server.submit(**SHORT, num_samples=2, seed=99)
    server.cancel(job)
    assert server.stop() == 0
    server.words[server.words.index("--workers") + 1] = "1"
    server.start()
    again = server.post(f"/v1/jobs/{job['id']}/retry", headers={"Prefer": "wait=60"})
    assert again.status_code == 201, again.text
    for sample in server.samples_of(again.json()):
        out = tmp_path / f"{sample['index']}.wav"
        assert harness.generate(out, SHORT["prompt"], seed=99 + sample["index"], duration=0.3)["samples"][0]["sha256"] == sample["sha256"]


def test_a_completed_job_cannot_be_retried(live, clip):
    check_problem(live.post(f"/v1/jobs/{clip[0]['job_id']}/retry"), 409)


# ---- Dry run


def test_a_dry_run_checks_everything_and_makes_nothing(make_server):
    server = make_server()
    body = {"prompt": "a dry harp", "num_samples": 2, "variants": [{"adapter": None}, {"adapter": {"name": "chiptune"}}]}
    reply = server.post("/v1/jobs?dry_run=1", {**body, "duration_s": 2})
    assert reply.status_code == 200, reply.text
    plan = reply.json()
    assert plan["dry_run"] is True and plan["seed"] is None and plan["prompt"]["text"] == "a dry harp"
    assert [v["adapter"] and v["adapter"]["name"] for v in plan["variants"]] == [None, "chiptune"]
    assert plan["params"]["duration_s"] == 2 and plan["estimate"]["time_ms"] is None
    assert server.post("/v1/jobs?dry_run=1", {**body, "seed": 5}).json()["seed"] == 5
    assert not server.all("/v1/jobs") and not server.all("/v1/prompts")
    # Close to what it then is: the bytes of the sound are exact, tags are allowed for.
    job = server.run(**{**body, "duration_s": 2})
    made = sum(s["bytes"] for s in server.samples_of(job))
    assert made <= plan["estimate"]["bytes"] <= made + 4 * 1024
    assert server.post("/v1/jobs?dry_run=1", {**body, "duration_s": 2}).json()["estimate"]["time_ms"] > 0
    problem = check_problem(server.post("/v1/jobs?dry_run=1", {"prompt": "x", "seeed": 1, "num_samples": 0}), 422)
    assert set(harness.pointers(problem)) == {"/seeed", "/num_samples"}
    check_problem(server.post("/v1/jobs?dry_run=1", {"prompt_id": MISSING_ID}), 404)
    check_problem(server.post("/v1/jobs?dry_run=2", body), 400, "bad-query")
    # The same key later makes the job: a dry run used it for nothing.
    key = {"Idempotency-Key": "dry"}
    assert server.post("/v1/jobs?dry_run=1", SHORT, headers=key).status_code == 200
    assert server.post("/v1/jobs", SHORT, headers=key).status_code == 202
    assert server.post("/v1/jobs?dry_run=0", SHORT).status_code == 202


def test_a_dry_run_of_a_full_queue_says_so(make_server):
    server = make_server("--queue-limit", "1", workers=0)
    assert server.post("/v1/jobs?dry_run=1", SHORT).json()["estimate"]["position"] == 1
    server.submit(**SHORT)
    check_problem(server.post("/v1/jobs?dry_run=1", SHORT), 429, "queue-full")


# ---- Recipe and reproduction


@pytest.mark.parametrize("body", [
    {"num_samples": 3, "seed": 2**53 - 2}, {"adapter": {"name": "bright", "strength": -0.5}, "format": "flac"},
    {"negative_text": "drums", "params": {"guidance": 4.0, "top_k": 20, "temperature": 0.9}}])
def test_a_recipe_makes_the_same_bytes(live, body):
    sample = live.samples_of(live.run(**SHORT, **body))[-1]
    recipe = live.ok(f"/v1/samples/{sample['id']}/recipe")
    again = live.samples_of(live.wait(live.submit(**recipe), "completed"))
    assert [s["sha256"] for s in again] == [sample["sha256"]]
    assert sha256(live.audio(again[0])) == sample["sha256"]


def test_a_sample_is_reproduced_byte_for_byte(live):
    sample = live.samples_of(live.run(**SHORT, num_samples=2, adapter={"name": "dark", "strength": 1.0}))[1]
    reply = live.post(f"/v1/samples/{sample['id']}/reproduce")
    assert reply.status_code == 202 and reply.headers["Location"].startswith("/v1/jobs/")
    assert reply.json()["reproduces"] == sample["id"] and "reproduction" not in reply.json()
    done = live.wait(reply.json(), "completed")
    assert done["reproduction"] == {"identical": True, "expected_sha256": sample["sha256"], "actual_sha256": sample["sha256"]}
    assert live.samples_of(done)[0]["id"] != sample["id"]
    assert "reproduction" not in live.job(sample["job_id"])


def test_reproduction_works_without_the_prompt_record(live):
    job = live.run(**{**SHORT, "prompt": "a prompt that goes"})
    assert live.req("DELETE", f"/v1/prompts/{job['prompt_id']}").status_code == 204
    reply = live.post(f"/v1/samples/{job['samples'][0]['sample_id']}/reproduce", headers={"Prefer": "wait=60"})
    assert reply.status_code == 201 and reply.json()["reproduction"]["identical"] is True


def test_what_cannot_be_reproduced_says_why(make_server, tmp_path):
    model = harness.copy_tree(MODEL, tmp_path / "models" / "shifting")
    server = make_server(model=model)
    sample = server.samples_of(server.run(**SHORT, adapter={"name": "bright", "strength": 1.0}))[0]
    plain = server.run(**SHORT)
    # Pretend other bytes came out then, and of another version.
    assert server.stop() == 0
    db = harness.sqlite3.connect(server.data / "aulos.db")
    db.create_function("au_now_ms", 0, lambda: 0)
    db.execute("UPDATE samples SET sha256 = ?, recipe = json_set(recipe, '$.version', '0.0.9') WHERE job_id = ?",
               ("0" * 64, plain["id"]))
    db.commit()
    db.close()
    server.start()
    odd = plain["samples"][0]["sample_id"]
    done = server.post(f"/v1/samples/{odd}/reproduce", headers={"Prefer": "wait=60"}).json()
    assert done["reproduction"]["identical"] is False and done["reproduction"]["expected_sha256"] == "0" * 64
    assert done["reproduction"]["actual_sha256"] == harness.sha256(server.audio(server.samples_of(done)[0]))
    assert "version 0.0.9" in done["reproduction"]["reason"]
    # Another model under the same name.
    assert server.stop() == 0
    harness.edit_json(model / "generation_config.json", guidance_scale=2.5)
    server.start()
    problem = check_problem(server.post(f"/v1/samples/{sample['id']}/reproduce"), 409, "conflict")
    assert "model shifting has changed" in problem["detail"]
    check_problem(server.post(f"/v1/samples/{MISSING_ID}/reproduce"), 404)


# ---- Pause, resume, drain


def test_a_paused_queue_takes_jobs_and_gives_none_out(make_server):
    server = make_server()
    reply = server.post(ADMIN + "pause")
    assert reply.status_code == 200 and reply.json()["paused"] is True
    job = server.submit(**SHORT)
    assert server.ok("/readyz")["checks"]["queue"] == {"ok": True, "reason": None, "paused": True, "draining": False}
    time.sleep(1)
    assert server.job(job)["state"] == "queued" and server.job(job)["queue"]["estimated_start_ms"] is None
    assert server.stop() == 0
    server.start()
    assert server.get("/readyz").json()["checks"]["queue"]["paused"] is True  # ready or not: its worker may not run yet
    time.sleep(1)
    assert server.job(job)["state"] == "queued"
    assert server.post(ADMIN + "resume").json()["paused"] is False
    server.wait(job, "completed")
    check_problem(server.post(ADMIN + "pause", {"for": 1}), 422)
    check_problem(server.get(ADMIN + "pause"), 405)


def test_a_job_that_runs_goes_on_when_the_queue_is_paused(make_server):
    server = make_server()
    job = server.submit(**{**LONG, "num_samples": 1})
    server.begun(job)
    assert server.post(ADMIN + "pause").json()["processing"] == 1
    waiting = server.submit(**SHORT)
    server.wait(job, "completed")
    assert server.job(waiting)["state"] == "queued"


def test_a_drained_server_takes_no_jobs_and_finishes_those_it_has(make_server):
    server = make_server()
    jobs = [server.submit(**{**LONG, "num_samples": 1}), server.submit(**SHORT)]
    key = {"Idempotency-Key": "before"}
    known = server.post("/v1/jobs", SHORT, headers=key)
    assert server.post(ADMIN + "drain").json()["draining"] is True
    refused = server.post("/v1/jobs", SHORT)
    check_problem(refused, 503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    check_problem(server.post("/v1/jobs?dry_run=1", SHORT), 503)
    assert server.post("/v1/jobs", SHORT, headers=key).json()["id"] == known.json()["id"]
    ready = check_problem(server.get("/readyz"), 503)
    assert ready["checks"]["queue"]["draining"] is True and ready["checks"]["queue"]["ok"] is False
    for job in [*jobs, known.json()]:
        server.wait(job, "completed")
    sample = server.samples_of(jobs[1])[0]
    check_problem(server.post(f"/v1/samples/{sample['id']}/reproduce"), 503)
    assert server.post(ADMIN + "resume").json()["draining"] is False
    assert server.ok("/readyz")["state"] == "ready"
    assert server.post("/v1/jobs", SHORT).status_code == 202


# ---- Cancels at bad moments


def test_cancel_at_any_moment_is_never_followed_by_completed(make_server):
    """Hard case 21: cancels spread over the whole life of jobs, the commit of the last sample included."""
    server = make_server("--session-memory", harness.SMALL_MEMORY)
    chance = random.Random(21)
    body = {"prompt": "a short note", "duration_s": 0.1, "num_samples": 2}
    started = time.monotonic()
    server.run(**body)
    whole = time.monotonic() - started
    kept, cancelled, too_late = [], [], 0
    for _ in range(60 if harness.SLOW == 1 else 15):
        job = server.submit(**body)
        time.sleep(chance.uniform(0, whole * 1.1))
        reply = server.cancel(job)
        assert reply.status_code in (200, 202, 409), reply.text
        if reply.status_code == 409:
            kept.append(job)
        else:
            assert reply.json()["state"] == ("cancelled" if reply.status_code == 200 else "cancelling")
            cancelled.append(job)
    for job in cancelled:
        server.wait(job, "cancelled")
    for job in kept:
        assert server.job(job)["state"] == "completed"
    check_invariants(server, kept + cancelled, cancelled)


def test_cancel_twice_delete_and_retry_at_once(make_server):
    """Hard case 23: each answer is one that the order of the four explains, whichever it was."""
    server = make_server("--deleted-retention", "1h")
    for i in range(12):
        job = server.submit(**LONG)
        if i % 2:
            server.begun(job)
        replies, barrier = {}, threading.Barrier(4)

        def act(name, method, path, job=job, replies=replies, barrier=barrier):
            with requests.Session() as session:
                session.trust_env = False
                barrier.wait()
                replies[name] = session.request(method, f"{server.url}/v1/jobs/{job['id']}{path}", timeout=60 * harness.SLOW)

        threads = [threading.Thread(target=act, args=a) for a in (
            ("one", "POST", "/cancel"), ("two", "POST", "/cancel"), ("delete", "DELETE", ""), ("retry", "POST", "/retry"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120 * harness.SLOW)
        status = {name: reply.status_code for name, reply in replies.items()}
        assert status["one"] in (200, 202, 410) and status["two"] in (200, 202, 410), status
        assert status["delete"] == 204, status
        assert status["retry"] in (202, 409, 410), status
        check_problem(server.get(f"/v1/jobs/{job['id']}"), 410)
        if status["retry"] == 202:
            server.cancel(replies["retry"].json())
    wait_until(lambda: not read_db(server.data, "SELECT 1 FROM jobs WHERE state NOT IN ('completed', 'failed', 'cancelled')"), 120,
               "every job to end")
    for row in read_db(server.data, "SELECT id FROM jobs"):
        events = read_db(server.data, "SELECT seq, event, data FROM events WHERE subject = ? ORDER BY seq", row["id"])
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        assert sum(e["event"] == "done" for e in events) == 1
        assert sum(e["event"] == "state" and '"cancelled"' in e["data"] for e in events) == 1
    check_invariants(server)
    assert not objects_on_disk(server.data)


def test_cancel_accepted_then_the_worker_is_killed_before_it_reacts(make_server):
    """Hard case 24, with the worker stopped so that it surely does not: cancelled, and not tried again."""
    server = make_server("--lease-ms", "3000", "--heartbeat-ms", "500")
    job = server.submit(**LONG)
    server.begun(job)
    worker = server.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    assert server.cancel(job).status_code == 202
    os.kill(worker, signal.SIGKILL)
    done = server.wait(job, "cancelled", timeout=60)
    assert done["attempt"] == 1 and done["error"] is None
    assert server.run(**SHORT)["state"] == "completed"
    check_invariants(server, [job], [job])


# ---- The queue


def test_one_place_for_many_who_wait(make_server):
    """Hard case 19: with the queue full and one place freed, exactly one of many gets it."""
    server = make_server("--queue-limit", "3", workers=0)
    jobs = [server.submit(**SHORT) for _ in range(3)]
    replies, barrier = [], threading.Barrier(50)

    def ask():
        with requests.Session() as session:
            session.trust_env = False
            barrier.wait()
            replies.append(session.post(f"{server.url}/v1/jobs", json=SHORT, timeout=60 * harness.SLOW))

    for expected in (0, 1):
        if expected:
            assert server.cancel(jobs[0]).status_code == 200
        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120 * harness.SLOW)
        status = [r.status_code for r in replies]
        assert status.count(202) == expected and status.count(429) == 50 - expected, status
        assert all(int(r.headers["Retry-After"]) >= 1 for r in replies if r.status_code == 429)
        replies.clear()
    assert len(server.all("/v1/jobs?state=queued")) == 3


def test_sigterm_while_the_model_is_loaded(tmp_path):
    """Hard case 29: the attempt of a job whose model is still being read does not count."""
    server = harness.Server(tmp_path / "data").start()
    try:
        server.post(ADMIN + "pause")
        job = server.submit(**SHORT)
        wait_until(lambda: read_db(server.data, "SELECT 1 FROM workers WHERE state = 'ready'"), 60, "a worker")
        server.post(ADMIN + "resume")
        wait_until(lambda: server.job(job)["state"] != "queued", 60, "the claim", step=0.001)
        assert server.stop() == 0
        server.start()
        done = server.wait(job, "completed")
        assert done["attempt"] == 1 or read_db(server.data, "SELECT interruptions FROM jobs")[0]["interruptions"] == 0
        check_invariants(server, [job])
        assert server.stop() == 0
    finally:
        server.kill()
