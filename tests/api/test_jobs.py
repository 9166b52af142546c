# SPDX-License-Identifier: MIT
"""Jobs: seeds, variants, the queue, cancelling in every state, failing, limits, progress."""
import contextlib
import os
import signal

import pytest

import harness
from harness import CHIPTUNE, MAX_SEED, MISSING_ID, MODEL, TIME, check_problem, generate, pointers, wait_until

LONG = {"prompt": "a long drone", "duration_s": 30 * harness.LENGTH, "num_samples": 8}
SHORT = {"prompt": "a short note", "duration_s": 0.3}


def only_worker(server):
    return wait_until(lambda: server.workers(), 30, "a worker process")[0]


@contextlib.contextmanager
def held_in_processing(server, **body):
    """A job that is processing and stays so: its worker is stopped (SIGSTOP) as soon as it has begun."""
    job = server.submit(**{**LONG, **body})
    server.wait(job, "processing")
    pid = only_worker(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert server.job(job)["state"] == "processing", "the job ended before its worker could be stopped"
        yield job
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# ---- Seeds


def test_a_seed_given_is_counted_up(api):
    job = api.submit(prompt="x", num_samples=4, seed=1000)
    assert job["seed"] == 1000 and job["seed_source"] == "request"
    assert [s["seed"] for s in job["samples"]] == [1000, 1001, 1002, 1003]


def test_seeds_wrap_at_2_to_the_53(api):
    job = api.submit(prompt="x", num_samples=3, seed=MAX_SEED)
    assert [s["seed"] for s in job["samples"]] == [MAX_SEED, 0, 1]


def test_seeds_not_given_are_drawn_stored_and_all_different(api):
    seeds = []
    for _ in range(40):
        job = api.submit(prompt="x", num_samples=4)
        assert job["seed_source"] == "random"
        assert [s["seed"] for s in api.job(job)["samples"]] == [(job["seed"] + i) % 2**53 for i in range(4)]
        seeds += [s["seed"] for s in job["samples"]]
        api.cancel(job)
    assert len(set(seeds)) == 160
    assert max(seeds) > 2**48, "seeds are drawn from a small range"


def test_a_null_seed_is_none_given(api):
    assert api.submit(prompt="x", seed=None)["seed_source"] == "random"


def test_sample_i_alone_is_the_same_file(live, tmp_path):
    job = live.run(prompt="soft strings", num_samples=4, seed=77, duration_s=0.5)
    samples = live.samples_of(job)
    alone = live.samples_of(live.run(prompt="soft strings", num_samples=1, seed=79, duration_s=0.5))[0]
    assert alone["sha256"] == samples[2]["sha256"]
    by_hand = generate(tmp_path / "a.wav", "soft strings", seed=79, duration=0.5)["samples"][0]
    assert by_hand["sha256"] == samples[2]["sha256"]
    assert live.audio(samples[2]) == (tmp_path / "a.wav").read_bytes()


def test_a_seed_drawn_makes_the_sample_again(live):
    first = live.samples_of(live.run(prompt="bells", duration_s=0.3))[0]
    again = live.samples_of(live.run(prompt="bells", duration_s=0.3, seed=first["seed"]))[0]
    assert first["sha256"] == again["sha256"] and first["id"] != again["id"]


def test_samples_do_not_depend_on_grouping(make_server, live, tmp_path):
    """A session memory that forces small groups gives the same files as one that takes the job whole."""
    body = {"prompt": "a slow waltz", "num_samples": 3, "seed": 9, "duration_s": 0.5,
            "variants": [{"adapter": None}, {"adapter": {"name": "chiptune"}}]}
    whole = {(s["variant"], s["index"]): s["sha256"] for s in live.samples_of(live.run(**body))}
    small = make_server("--session-memory", "1M", "--threads", "1")
    assert {(s["variant"], s["index"]): s["sha256"] for s in small.samples_of(small.run(**body))} == whole


# ---- Variants


def test_variants_share_the_seeds(api):
    adapter = api.adapters()["chiptune"]
    job = api.submit(prompt="x", num_samples=3, seed=5, variants=[
        {"adapter": None}, {"adapter": {"id": adapter["id"], "strength": 0.5}}, {"adapter": adapter["id"]}])
    assert len(job["samples"]) == 9
    for variant in range(3):
        assert [s["seed"] for s in job["samples"] if s["variant"] == variant] == [5, 6, 7]
    assert job["variants"][0]["adapter"] is None
    assert job["variants"][1]["adapter"] == {"id": adapter["id"], "name": "chiptune", "strength": 0.5,
                                             "sha256": adapter["sha256"]}
    assert job["variants"][2]["adapter"]["strength"] == 1.0


@pytest.mark.parametrize("form", ["id", "object", "name"])
def test_adapter_is_shorthand_for_one_variant(api, form):
    adapter = api.adapters()["chiptune"]
    job = api.submit(prompt="x", adapter={"id": adapter["id"], "object": {"id": adapter["id"]}, "name": {"name": "chiptune"}}[form])
    assert [v["adapter"]["id"] for v in job["variants"]] == [adapter["id"]]


def test_samples_times_variants_is_limited(api):
    variants = [{"adapter": None}, {"adapter": {"name": "chiptune"}}]
    assert api.post("/v1/jobs", {"prompt": "x", "num_samples": 8, "variants": variants}).status_code == 202
    problem = check_problem(api.post("/v1/jobs", {"prompt": "x", "num_samples": 9, "variants": variants}), 422)
    assert {"/num_samples", "/variants"} & set(pointers(problem))


def test_strength_zero_is_the_base_sound_under_the_adapters_name(live):
    body = {"prompt": "a flute", "seed": 4, "duration_s": 0.3}
    zero = live.samples_of(live.run(**body, adapter={"name": "chiptune", "strength": 0}))[0]
    none = live.samples_of(live.run(**body))[0]
    assert zero["adapter"]["strength"] == 0
    a, b = (harness.riff_chunks(live.audio(s))[b"data"] for s in (zero, none))
    assert a == b


def test_adapters_are_listed_with_what_they_match(api):
    adapter = api.adapters()["chiptune"]
    one = api.ok(f"/v1/adapters/{adapter['id']}")
    assert one["state"] == "ready"
    assert one["rank"] >= 1 and one["alpha"] > 0 and one["matched"] > 0 and one["unmatched"] == []
    assert one["bytes"] == (CHIPTUNE / "adapter_model.safetensors").stat().st_size
    assert harness.HEX64.match(one["sha256"])


def test_models_say_their_limits(api):
    models = api.ok("/v1/models")["data"]
    assert [m["name"] for m in models if m["default"]] == [MODEL.name]
    one = api.ok(f"/v1/models/{MODEL.name}")
    assert one["sample_rate"] == 24000 and one["channels"] == 1
    assert one["limits"]["max_duration_s"] == 30 and one["limits"]["max_samples"] == 16
    assert one["limits"]["max_prompt_tokens"] > 0
    assert harness.HEX64.match(one["fingerprint"])


# ---- Defaults


def test_a_job_of_a_prompt_text_makes_or_finds_the_prompt(api):
    first = api.submit(prompt="quite a new prompt")
    assert api.ok(f"/v1/prompts/{first['prompt_id']}")["text"] == "quite a new prompt"
    assert api.submit(prompt="quite a new prompt")["prompt_id"] == first["prompt_id"]


def test_prompts_are_kept_as_given(api):
    text = "  Ｃａｆé — “naïve” 音楽 🎵\n\tline two  "
    made = api.post("/v1/prompts", {"text": text, "title": "t", "negative_text": "noise", "attributes": {"mood": "calm"}})
    assert made.status_code == 201
    prompt = made.json()
    assert made.headers["Location"].endswith(f"/v1/prompts/{prompt['id']}")
    for body in (prompt, api.ok(f"/v1/prompts/{prompt['id']}")):
        assert body["text"] == text and body["title"] == "t" and body["negative_text"] == "noise"
        assert body["attributes"] == {"mood": "calm"}
        assert TIME.match(body["created_at"])
    assert api.submit(prompt_id=prompt["id"])["prompt"]["text"] == text


def test_defaults_of_a_job(api):
    job = api.submit(prompt="x")
    assert job["num_samples"] == 1 and job["variants"] == [{"adapter": None}]
    params = job["params"]
    assert params["preset"] == "audiocraft" and params["duration_s"] == 10.0 and params["guidance"] == 3.0
    assert params["temperature"] == 1.0 and params["top_k"] == 250 and params["top_p"] == 0.0
    assert job["priority"] == 0 and job["label"] == "" and job["error"] is None
    assert job["started_at"] is None and job["finished_at"] is None
    assert job["model"]["name"] == MODEL.name and harness.HEX64.match(job["model"]["fingerprint"])
    for name in ("self", "cancel"):
        assert job["id"] in job["urls"][name]


def test_the_hf_preset_reads_the_checkpoint(api):
    params = api.submit(prompt="x", params={"preset": "hf"})["params"]
    assert params["preset"] == "hf" and params["top_k"] == 50 and params["guidance"] == 3.0


def test_a_negative_prompt_changes_the_sound(live):
    prompt = live.prompt("piano", negative_text="drums and noise")
    body = {"seed": 2, "duration_s": 0.5}
    a = live.samples_of(live.run(prompt_id=prompt["id"], **body))[0]
    b = live.samples_of(live.run(prompt="piano", **body))[0]
    assert a["sha256"] != b["sha256"]


def test_filters_of_the_list(api):
    prompt = api.prompt("only for the filter")
    mine = [api.submit(prompt_id=prompt["id"], label="filtered")["id"] for _ in range(3)]
    assert sorted(j["id"] for j in api.all(f"/v1/jobs?prompt_id={prompt['id']}")) == sorted(mine)
    assert sorted(j["id"] for j in api.all("/v1/jobs?label=filtered")) == sorted(mine)
    api.cancel(mine[0])
    assert [j["id"] for j in api.all(f"/v1/jobs?prompt_id={prompt['id']}&state=cancelled")] == [mine[0]]


def test_a_job_resource_has_an_etag_that_changes_with_it(api):
    job = api.submit(prompt="x")
    first = api.get(f"/v1/jobs/{job['id']}")
    assert api.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    api.cancel(job)
    second = api.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["ETag"]})
    assert second.status_code == 200 and second.headers["ETag"] != first.headers["ETag"]


def test_a_long_poll_returns_when_the_job_ends(live):
    job = live.submit(prompt="x", duration_s=0.3)
    reply = live.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=30"})
    assert reply.status_code == 200
    assert reply.json()["state"] == "completed"


def test_a_long_poll_of_a_waiting_job_returns_after_its_time(api):
    job = api.submit(prompt="x")
    reply = api.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=1"})
    assert reply.status_code == 200 and reply.json()["state"] == "queued"


def test_prefer_wait_on_submission_is_201_with_the_end(live):
    reply = live.post("/v1/jobs", {"prompt": "x", "duration_s": 0.1}, headers={"Prefer": "wait=60"})
    assert reply.status_code == 201
    assert reply.json()["state"] == "completed"
    assert reply.headers["Location"].endswith(reply.json()["id"])


def test_prefer_wait_on_submission_that_is_not_seen_to_end_is_202(api):
    reply = api.post("/v1/jobs", {"prompt": "x"}, headers={"Prefer": "wait=1"})
    assert reply.status_code == 202 and reply.json()["state"] == "queued"


# ---- The queue


def test_positions_priorities_and_the_order_of_work(make_server):
    server = make_server(workers=0)
    low = server.submit(**SHORT, priority=-5)
    first, second = server.submit(**SHORT), server.submit(**SHORT)
    high = server.submit(**SHORT, priority=7)
    order = [high, first, second, low]
    assert [server.job(j)["queue"]["position"] for j in order] == [1, 2, 3, 4]
    assert server.cancel(first).status_code == 200
    order = [high, second, low]
    assert [server.job(j)["queue"]["position"] for j in order] == [1, 2, 3]
    # A worker by hand takes one job each time.
    for i, job in enumerate(order):
        assert server.job(job)["state"] == "queued"
        done = harness.aulos("worker", "--data", server.data, "--model", MODEL, "--once")
        assert done.returncode == 0, done.stderr
        assert server.job(job)["state"] == "completed"
        assert [server.job(j)["queue"]["position"] for j in order[i + 1:]] == list(range(1, len(order) - i))
    assert server.job(first)["state"] == "cancelled"
    harness.check_invariants(server, order, [first])


def test_started_in_order(make_server):
    server = make_server()
    with held_in_processing(server) as blocker:
        jobs = [server.submit(**SHORT, priority=p) for p in (0, 3, 0, 3)]
        server.cancel(blocker)
    done = [server.wait(j, "completed") for j in jobs]
    assert [j["started_at"] for j in (done[1], done[3], done[0], done[2])] == sorted(j["started_at"] for j in done)


def test_a_full_queue_is_429_until_a_place_is_free(make_server):
    server = make_server("--queue-limit", "3", workers=0)
    jobs = [server.submit(**SHORT) for _ in range(3)]
    for _ in range(2):
        reply = server.post("/v1/jobs", SHORT)
        check_problem(reply, 429, "queue-full")
        assert int(reply.headers["Retry-After"]) >= 1
    assert len(server.all("/v1/jobs")) == 3
    server.cancel(jobs[1])
    server.submit(**SHORT)
    check_problem(server.post("/v1/jobs", SHORT), 429)


def test_workers_share_the_queue_without_doubles(make_server):
    server = make_server(workers=2)
    jobs = [server.submit(prompt=f"job {i}", duration_s=0.3, num_samples=2) for i in range(8)]
    for job in jobs:
        server.wait(job, "completed")
    harness.check_invariants(server, jobs)


def test_status_stays_quick_while_the_model_runs(make_server):
    """Not a measurement: a server that computed itself, or locked, would time out here."""
    server = make_server()
    job = server.submit(**LONG)
    server.wait(job, "processing")
    for _ in range(200):
        assert server.get("/healthz", timeout=10 * harness.SLOW).status_code == 200
        assert server.get(f"/v1/jobs/{job['id']}", timeout=10 * harness.SLOW).status_code == 200
    server.cancel(job)
    server.wait(job, "cancelled")


# ---- Progress


def test_progress_never_falls_and_counts_steps(live):
    job = live.submit(**{**LONG, "num_samples": 4})
    seen = []

    def poll():
        now = live.job(job)
        if now["state"] == "processing":
            seen.append(now["progress"])
        return now["state"] in harness.FINAL

    wait_until(poll, 180, "the job to end", step=0.02)
    percents = [p["percent"] for p in seen]
    assert percents == sorted(percents)
    decode = [p for p in seen if p["stage"] == "decode"]
    assert decode, f"stages seen: {[p['stage'] for p in seen]}"
    assert all(0 <= p["step"] <= p["steps"] for p in decode)
    assert all(TIME.match(p["updated_at"]) for p in decode)
    assert live.job(job)["state"] == "completed"


def test_finished_samples_are_listed_while_others_are_made(make_server):
    """Small groups: the first samples are there, playable, while the job goes on."""
    server = make_server("--session-memory", harness.SMALL_MEMORY)
    job = server.submit(prompt="one by one", duration_s=10 * harness.LENGTH, num_samples=8)

    def some():
        now = server.job(job)
        made = [s for s in now["samples"] if s["state"] == "completed"]
        assert now["state"] not in harness.FINAL, f"{now['state']}: the samples came all at once, or never"
        return made if now["state"] == "processing" and made else None

    made = wait_until(some, 120, "a first sample", step=0.02)
    assert server.audio(made[0]["sample_id"])[:4] == b"RIFF"
    # Cancelling now takes those away again.
    reply = server.cancel(job)
    assert reply.status_code == 202
    server.wait(job, "cancelled")
    assert server.all(f"/v1/samples?job_id={job['id']}") == []
    assert server.get(f"/v1/samples/{made[0]['sample_id']}/audio").status_code in (404, 410)
    harness.check_invariants(server, [job], [job])


# ---- Cancelling


def test_cancel_of_a_processing_job_is_202_and_cannot_complete(make_server):
    server = make_server()
    with held_in_processing(server) as job:
        reply = server.cancel(job)
        assert reply.status_code == 202
        assert reply.json()["state"] == "cancelling"
        assert server.job(job)["state"] == "cancelling"
        again = server.cancel(job)
        assert again.status_code == 202 and again.json()["state"] == "cancelling"
    done = server.wait(job, "cancelled")
    assert TIME.match(done["finished_at"])
    assert all(s["state"] == "cancelled" for s in done["samples"])
    assert server.cancel(job).status_code == 200, "repeating it on a cancelled job"
    harness.check_invariants(server, [job], [job])
    assert harness.objects_on_disk(server.data) == set()
    for table in ("samples", "uploads"):
        assert harness.read_db(server.data, f"SELECT * FROM {table}") == []


def test_cancel_stops_the_work_and_not_only_the_record(make_server):
    """By processor time and not by the clock: what the worker still computes is a small part of what was left."""
    server = make_server()
    job = server.submit(**{**LONG, "num_samples": 16})
    first = wait_until(lambda: (now := server.job(job)["progress"]) and now["step"] and now, 60, "a step")
    pid = only_worker(server)
    assert server.cancel(job).status_code == 202
    before = harness.cpu_seconds(pid)
    done = server.wait(job, "cancelled")
    assert first["step"] < 0.5 * first["steps"], "hardly anything was left to be stopped"
    # The next job begins when the engine is free; then the processor time is told.
    server.run(**SHORT)
    assert server.workers() == [pid]
    spent = harness.cpu_seconds(pid) - before
    assert spent < 1.5 * harness.SLOW, f"{spent:.1f} s of processor time after the cancel; a whole job takes about 10 s"
    assert server.job(job)["progress"] == done["progress"]


def test_cancel_of_a_cancelled_job_is_200(api):
    job = api.submit(prompt="x")
    assert [api.cancel(job).status_code for _ in range(3)] == [200, 200, 200]


def test_cancel_of_a_finished_job_is_409_and_changes_nothing(live):
    job = live.run(prompt="x", duration_s=0.3)
    problem = check_problem(live.cancel(job), 409)
    assert "completed" in problem["detail"]
    assert live.job(job)["state"] == "completed"
    assert live.audio(live.samples_of(job)[0])[:4] == b"RIFF"


def test_cancel_of_an_unknown_job_is_404(api):
    check_problem(api.cancel(MISSING_ID), 404)


def test_cancel_needs_no_body(api):
    job = api.submit(prompt="x")
    reply = api.req("POST", f"/v1/jobs/{job['id']}/cancel")
    assert reply.status_code == 200 and reply.json()["state"] == "cancelled"


def test_cancel_takes_no_unknown_fields(api):
    job = api.submit(prompt="x")
    check_problem(api.post(f"/v1/jobs/{job['id']}/cancel", {"now": True}), 422)
    assert api.job(job)["state"] == "queued"


def test_cancelling_one_job_leaves_its_neighbour_alone(live, tmp_path):
    keep = live.submit(prompt="kept", adapter={"name": "chiptune"}, seed=31, duration_s=1, num_samples=2)
    drop = live.submit(prompt="dropped", adapter={"name": "chiptune"}, seed=31, duration_s=5, num_samples=2)
    live.cancel(drop)
    live.wait(keep, "completed")
    live.wait(drop, "cancelled")
    first = live.samples_of(keep)[0]
    assert first["sha256"] == generate(tmp_path / "k.wav", "kept", seed=31, duration=1, adapter=CHIPTUNE)["samples"][0]["sha256"]


def test_cancel_at_many_moments_never_completes(make_server):
    """From before the claim to after the commit: an accepted cancel is never followed by completed."""
    server = make_server()
    accepted, all_jobs = [], []
    for i in range(24):
        job = server.submit(prompt=f"moment {i}", duration_s=0.3, num_samples=2)
        all_jobs.append(job)
        for _ in range(i * 2):  # a growing number of requests in place of a pause
            server.job(job)
        status = server.cancel(job).status_code
        assert status in (200, 202, 409)
        if status != 409:
            accepted.append(job)
        else:
            assert server.job(job)["state"] == "completed"
    for job in all_jobs:
        server.wait(job)
    assert accepted
    harness.check_invariants(server, all_jobs, accepted)


# ---- Failing


def test_a_job_whose_adapter_copy_is_gone_fails_with_the_reason(make_server):
    server = make_server()
    adapter = server.adapters()["chiptune"]
    copy = server.data / "objects" / "adapters" / adapter["sha256"]
    for path in copy.iterdir():
        path.unlink()
    job = server.wait(server.submit(prompt="x", adapter=adapter["id"], duration_s=0.3), "failed")
    assert job["error"]["type"].startswith("/problems/")
    assert "adapter" in job["error"]["detail"]
    assert job["error"]["attempts"][-1]["reason"]
    assert all(s["state"] == "failed" for s in job["samples"])
    check_problem(server.cancel(job), 409)
    server.run(prompt="x", duration_s=0.3)
    harness.check_invariants(server, [job])
    server.kill()


def test_an_altered_adapter_copy_is_not_used(make_server):
    """One bit of the stored weights flips: the content hash pinned in the job no longer fits."""
    server = make_server()
    adapter = server.adapters()["chiptune"]
    weights = server.data / "objects" / "adapters" / adapter["sha256"] / "adapter_model.safetensors"
    os.chmod(weights, 0o644)
    raw = bytearray(weights.read_bytes())
    raw[-7] ^= 1
    weights.write_bytes(raw)
    job = server.wait(server.submit(prompt="x", adapter=adapter["id"], duration_s=0.3), "failed")
    assert "adapter" in job["error"]["detail"]
    assert server.all("/v1/samples") == []


def test_a_model_cut_under_the_running_server(make_server, tmp_path):
    """The server lives, and says what is wrong: in the job's error, or in readiness while the job waits. Weights are mapped, so
    a worker that reads where the file was dies of SIGBUS; that is no finding of a sanitizer."""
    model = harness.copy_tree(MODEL, tmp_path / "cut")
    env = {name: os.environ[name] + ":handle_sigbus=0" for name in ("ASAN_OPTIONS", "TSAN_OPTIONS") if name in os.environ}
    server = make_server(model=model, env=env)
    only_worker(server)
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 4)
    job = server.submit(prompt="x", duration_s=0.3)

    def reported():
        now = server.job(job)
        if now["state"] == "failed":
            return now["error"]["detail"]
        assert now["state"] in ("queued", "processing"), "audio from a file that is not there"
        ready = server.get("/readyz")
        return ready.text if ready.status_code == 503 else None

    assert wait_until(reported, 90, "the fault to be reported")
    assert server.get("/healthz").status_code == 200
    server.kill()


def test_deadlines_end_a_waiting_job(make_server):
    server = make_server(workers=0)
    job = server.wait(server.submit(**SHORT, deadline_s=1), "failed", timeout=30)
    assert job["error"]["type"] == "/problems/deadline"


# ---- Samples


def test_samples_list_filters_and_pages(live):
    job = live.run(prompt="for the list", num_samples=3, duration_s=0.3)
    ids = [s["sample_id"] for s in job["samples"]]
    found = live.all(f"/v1/samples?job_id={job['id']}&limit=2")
    assert sorted(s["id"] for s in found) == sorted(ids)
    assert {s["id"] for s in live.all(f"/v1/samples?prompt_id={job['prompt_id']}")} >= set(ids)


def test_a_sample_says_how_it_sounds_in_numbers(live):
    sample = live.samples_of(live.run(prompt="loud drums", duration_s=1, seed=8))[0]
    assert -70 < sample["loudness_lufs"] < 0
    assert sample["true_peak_dbtp"] < 3
    assert sample["marking"]["digital_source_type"].endswith("trainedAlgorithmicMedia")


def test_comparisons_may_name_samples_of_several_jobs(live):
    a = live.samples_of(live.run(prompt="one", duration_s=0.3))[0]["id"]
    b = live.samples_of(live.run(prompt="two", duration_s=0.3))[0]["id"]
    made = live.post("/v1/comparisons", {"sample_ids": [b, a]})
    assert made.status_code == 201
    assert [s["id"] for s in made.json()["samples"]] == [b, a]
