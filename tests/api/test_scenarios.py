# SPDX-License-Identifier: MIT
"""The fourteen scenarios, each by its number, over HTTP against the real program and the model that ships."""
import os
import signal

import harness
from harness import CHIPTUNE, MISSING_ID, TIME, UUID7, check_problem, generate, pointers, sha256, wait_until

PROMPT = "a calm piano melody"
LONG = {"duration_s": 30 * harness.LENGTH, "num_samples": 8}


def chiptune(server):
    adapter = server.adapters()["chiptune"]
    assert adapter["state"] == "ready"
    return adapter


# ---- Submission


def test_s01_submission_makes_a_job_returns_its_id_and_queues_it(api):
    prompt = api.prompt(PROMPT)
    reply = api.post("/v1/jobs", {"prompt_id": prompt["id"], "duration_s": 0.5})
    assert reply.status_code == 202
    job = reply.json()
    assert UUID7.match(job["id"])
    assert reply.headers["Location"].endswith(f"/v1/jobs/{job['id']}")
    assert job["state"] == "queued"
    assert job["prompt_id"] == prompt["id"]
    assert job["prompt"]["text"] == PROMPT
    assert TIME.match(job["created_at"])
    again = api.job(job)
    assert again["id"] == job["id"]
    assert again["queue"]["position"] >= 1
    assert job["id"] in [j["id"] for j in api.all("/v1/jobs?state=queued&limit=100")]


def test_s01_a_submitted_job_is_processed(live):
    prompt = live.prompt(PROMPT)
    job = live.run(prompt_id=prompt["id"], duration_s=0.5)
    assert len(job["samples"]) == 1


def test_s02_four_samples_are_four_with_four_seeds(live):
    job = live.run(prompt=PROMPT, num_samples=4, duration_s=0.5)
    assert job["num_samples"] == 4
    assert [s["index"] for s in job["samples"]] == [0, 1, 2, 3]
    samples = live.samples_of(job)
    assert len({s["id"] for s in samples}) == 4
    assert len({s["seed"] for s in samples}) == 4
    assert len({s["sha256"] for s in samples}) == 4, "the same audio under two seeds"
    assert [s["seed"] for s in samples] == [s["seed"] for s in job["samples"]]


def test_s03_the_adapter_named_is_the_one_that_made_the_audio(live, tmp_path):
    adapter = chiptune(live)
    job = live.run(prompt=PROMPT, adapter=adapter["id"], seed=5, duration_s=1)
    sample = live.samples_of(job)[0]
    assert sample["adapter"]["id"] == adapter["id"]
    assert sample["adapter"]["sha256"] == adapter["sha256"]
    # That adapter and no other: the bytes are those of the command line alone with it, and not those without.
    alone = generate(tmp_path / "with.wav", PROMPT, seed=5, duration=1, adapter=CHIPTUNE)["samples"][0]
    base = generate(tmp_path / "without.wav", PROMPT, seed=5, duration=1)["samples"][0]
    assert sample["sha256"] == alone["sha256"] == sha256(live.audio(sample))
    assert sample["sha256"] != base["sha256"]
    assert harness.riff_chunks((tmp_path / "with.wav").read_bytes())[b"data"] \
        != harness.riff_chunks((tmp_path / "without.wav").read_bytes())[b"data"]


def test_s03_the_audio_reflects_what_the_adapter_was_trained_on(live, tmp_path):
    """`bright` and `dark` were trained to move the spectral centroid, one up and one down: at equal seeds each moves it its way in
    at least 7 of 8 samples, three variants a job; and each sample has the bytes that its adapter makes alone."""
    prompt = "a calm harp arpeggio"
    names = [None, "bright", "dark"]
    hz, hashes = {n: {} for n in names}, {}
    for seed in (100, 104):  # two jobs: one may have 16 samples
        job = live.run(prompt=prompt, variants=[{"adapter": n and {"name": n}} for n in names], num_samples=4, seed=seed, duration_s=2)
        for sample in live.samples_of(job):
            name = names[sample["variant"]]
            assert (sample["adapter"] or {}).get("name") == name
            hz[name][sample["seed"]] = harness.centroid_hz(live.audio(sample))
            hashes[name, sample["seed"]] = sample["sha256"]
    assert len(set(hashes.values())) == 24
    assert sum(hz["bright"][s] > hz[None][s] for s in range(100, 108)) >= 7, hz
    assert sum(hz["dark"][s] < hz[None][s] for s in range(100, 108)) >= 7, hz
    for name in names[1:]:
        alone = generate(tmp_path / f"{name}.wav", prompt, seed=103, duration=2, adapter=harness.MODEL / "adapters" / name)["samples"][0]
        assert alone["sha256"] == hashes[name, 103]


def test_s03_chiptune_is_brighter(live):
    job = live.run(prompt=PROMPT, variants=[{"adapter": None}, {"adapter": {"id": chiptune(live)["id"]}}],
                   num_samples=8, seed=100, duration_s=2)
    hz = {0: {}, 1: {}}
    for sample in live.samples_of(job):
        hz[sample["variant"]][sample["index"]] = harness.centroid_hz(live.audio(sample))
    assert sorted(hz[0]) == sorted(hz[1]) == list(range(8))
    assert sum(hz[1][i] > hz[0][i] for i in range(8)) >= 7, f"centroids without {hz[0]} and with {hz[1]}"


def test_s04_an_unknown_prompt_is_not_found_and_nothing_is_made(api):
    before = len(api.all("/v1/jobs?limit=100"))
    problem = check_problem(api.post("/v1/jobs", {"prompt_id": MISSING_ID}), 404)
    assert "/prompt_id" in pointers(problem)
    assert len(api.all("/v1/jobs?limit=100")) == before


# ---- Status


def test_s05_polling_shows_state_and_percent(live):
    job = live.submit(prompt=PROMPT, **LONG)
    seen, percents = [], []

    def poll():
        now = live.job(job)
        assert now["state"] in harness.STATES
        if not seen or seen[-1] != now["state"]:
            seen.append(now["state"])
        if now["state"] == "processing" and now["progress"]["percent"] is not None:
            percents.append(now["progress"]["percent"])
        return now["state"] in harness.FINAL

    wait_until(poll, 180, "the job to end", step=0.02)
    order = ["queued", "processing", "completed"]
    assert seen == [s for s in order if s in seen] and seen[-1] == "completed"
    assert "processing" in seen
    assert all(0 <= p <= 100 for p in percents)
    assert percents == sorted(percents), "the percentage fell"
    assert len(set(percents)) > 2, "the percentage stood still"
    assert live.job(job)["progress"]["percent"] == 100


def test_s06_a_completed_job_lists_its_sample_ids(live):
    job = live.run(prompt=PROMPT, num_samples=3, duration_s=0.5)
    again = live.job(job)
    assert again["state"] == "completed"
    ids = [s["sample_id"] for s in again["samples"]]
    assert len(set(ids)) == 3 and all(UUID7.match(i) for i in ids)
    assert all(s["state"] == "completed" for s in again["samples"])
    assert again["progress"]["percent"] == 100 and again["progress"]["step"] == again["progress"]["steps"]
    assert TIME.match(again["finished_at"]) and again["error"] is None
    for i in ids:
        assert live.sample(i)["job_id"] == job["id"]


def test_s07_a_failed_job_says_why(make_server):
    server = make_server(workers=0)
    adapter = chiptune(server)
    job = server.submit(prompt=PROMPT, adapter=adapter["id"], duration_s=0.5)
    # The adapter's copy in the store is cut while the job waits; then a worker meets it.
    weights = server.data / "objects" / "adapters" / adapter["sha256"] / "adapter_model.safetensors"
    os.chmod(weights, 0o644)
    os.truncate(weights, weights.stat().st_size // 2)
    assert server.stop() == 0
    server.words[server.words.index("--workers") + 1] = "1"
    server.start()
    job = server.wait(job, "failed")
    assert job["error"]["type"].startswith("/problems/")
    assert "adapter" in (job["error"]["title"] + job["error"]["detail"]).lower()
    assert job["error"]["retryable"] is False
    assert TIME.match(job["finished_at"])
    assert all(s.get("sample_id") is None for s in job["samples"])
    # The fault is the job's own: the next one is fine.
    server.run(prompt=PROMPT, duration_s=0.5)


# ---- Cancellation


def test_s08_cancelling_a_queued_job_takes_it_out_of_the_queue(api):
    first = api.submit(prompt=PROMPT, duration_s=0.5, priority=50)
    second = api.submit(prompt=PROMPT, duration_s=0.5, priority=50)
    before = api.job(second)["queue"]["position"]
    reply = api.cancel(first)
    assert reply.status_code == 200
    assert reply.json()["state"] == "cancelled"
    assert api.job(first)["state"] == "cancelled"
    assert api.job(first)["queue"] is None
    assert api.job(second)["queue"]["position"] == before - 1
    assert first["id"] not in [j["id"] for j in api.all("/v1/jobs?state=queued&limit=100")]


def test_s09_cancelling_a_processing_job_stops_it_and_cleans_up(make_server):
    server = make_server()
    job = server.submit(prompt=PROMPT, **LONG)
    wait_until(lambda: (server.job(job)["progress"] or {}).get("percent"), 60, "progress")
    reply = server.cancel(job)
    assert reply.status_code == 202
    assert reply.json()["state"] in ("cancelling", "cancelled")
    job = server.wait(job, "cancelled")
    assert all(s.get("sample_id") is None for s in job["samples"])
    assert server.all(f"/v1/samples?job_id={job['id']}") == []
    assert harness.read_db(server.data, "SELECT * FROM samples") == []
    assert harness.read_db(server.data, "SELECT * FROM uploads") == []
    assert harness.objects_on_disk(server.data) == set()
    assert server.job(job)["state"] == "cancelled"
    # The worker is free at once.
    server.run(prompt=PROMPT, duration_s=0.5)


# ---- Storage and retrieval


def test_s10_a_finished_sample_is_in_the_object_store_with_a_record(live):
    job = live.run(prompt=PROMPT, duration_s=1, seed=3)
    sample = live.samples_of(job)[0]
    assert sample["duration_s"] == 1.0
    assert sample["sample_rate"] == 24000 and sample["channels"] == 1 and sample["frames"] == 24000
    stored = (live.data / "objects" / sample["storage_path"]).read_bytes()
    assert not os.path.isabs(sample["storage_path"])
    assert sha256(stored) == sample["sha256"]
    assert len(stored) == sample["bytes"]
    assert harness.wav_info(stored) == (1, 1, 24000, 16, 24000)
    assert abs(harness.wav_frames(stored)).max() > 0.01, "silence"


def test_s11_streaming_with_type_and_ranges(live, clip):
    sample, data = clip
    reply = live.get(sample["urls"]["audio"])
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "audio/wav"
    assert int(reply.headers["Content-Length"]) == len(reply.content) == sample["bytes"]
    assert reply.headers["Accept-Ranges"] == "bytes"
    middle = len(data) // 2
    part = live.get(sample["urls"]["audio"], headers={"Range": f"bytes={middle}-"})
    assert part.status_code == 206
    assert part.headers["Content-Range"] == f"bytes {middle}-{len(data) - 1}/{len(data)}"
    assert part.content == data[middle:]


def test_s12_metadata_of_a_sample(live):
    adapter = chiptune(live)
    job = live.run(prompt=PROMPT, adapter={"id": adapter["id"], "strength": 0.5}, seed=21, duration_s=0.5, params={
        "guidance": 2.5, "temperature": 0.9, "top_k": 40})
    sample = live.samples_of(job)[0]
    assert sample["duration_s"] == 0.5 and sample["sample_rate"] == 24000
    assert TIME.match(sample["created_at"])
    assert sample["seed"] == 21
    assert sample["params"]["guidance"] == 2.5
    assert sample["params"]["temperature"] == 0.9
    assert sample["params"]["top_k"] == 40
    assert sample["params"]["duration_s"] == 0.5
    assert sample["prompt"] == {"id": job["prompt_id"], "text": PROMPT}
    assert sample["adapter"] == {"id": adapter["id"], "name": "chiptune", "strength": 0.5, "sha256": adapter["sha256"]}
    assert sample["model"]["name"] == harness.MODEL.name
    base = live.samples_of(live.run(prompt=PROMPT, duration_s=0.5))[0]
    assert base["adapter"] is None


# ---- Comparison


def test_s13_comparing_samples_of_one_prompt(live):
    prompt = live.prompt("strings over a slow beat")
    job = live.run(prompt_id=prompt["id"], num_samples=3, duration_s=0.5)
    ids = [s["sample_id"] for s in job["samples"]]
    asked = [ids[2], ids[0], ids[1]]
    reply = live.post("/v1/comparisons", {"sample_ids": asked})
    assert reply.status_code == 201
    made = reply.json()
    assert reply.headers["Location"].endswith(f"/v1/comparisons/{made['id']}")
    for body in (made, live.ok(f"/v1/comparisons/{made['id']}")):
        assert [s["id"] for s in body["samples"]] == asked
        for sample in body["samples"]:
            whole = live.sample(sample["id"])
            for field in ("duration_s", "sample_rate", "seed", "prompt", "params", "created_at", "adapter"):
                assert sample[field] == whole[field], field
            assert sha256(live.audio(sample)) == whole["sha256"]


def test_s14_comparing_adapters_from_the_same_seeds(live, tmp_path):
    adapter = chiptune(live)
    job = live.run(prompt=PROMPT, num_samples=2, seed=40, duration_s=0.5,
                   variants=[{"adapter": None}, {"adapter": {"id": adapter["id"], "strength": 1.0}}])
    samples = live.samples_of(job)
    by_place = {(s["variant"], s["index"]): s for s in samples}
    assert sorted(by_place) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    made = live.post("/v1/comparisons", {"sample_ids": [by_place[0, 1]["id"], by_place[1, 1]["id"]]})
    assert made.status_code == 201
    a, b = made.json()["samples"]
    # Which adapter made each; everything else equal, so that the two may be judged against each other.
    assert a["adapter"] is None and b["adapter"]["name"] == "chiptune"
    assert a["seed"] == b["seed"] == 41
    assert a["prompt"] == b["prompt"] and a["params"] == b["params"] and a["model"] == b["model"]
    assert sha256(live.audio(a)) != sha256(live.audio(b))
    # And each is what its adapter makes alone: nothing leaked between the variants of the batch.
    for (variant, index), sample in by_place.items():
        alone = generate(tmp_path / f"{variant}-{index}.wav", PROMPT, seed=40 + index,
                         adapter=CHIPTUNE if variant else None)["samples"][0]
        assert sample["sha256"] == alone["sha256"], (variant, index)


def test_canary_mixed_jobs_each_sample_equals_its_solo_run(live, tmp_path):
    """Jobs with and without the adapter, interleaved and some cancelled: no sample has the wrong adapter."""
    adapter = chiptune(live)["id"]
    jobs, extra = [], []
    for i in range(6):
        variants = [[{"adapter": None}], [{"adapter": {"id": adapter}}],
                    [{"adapter": {"id": adapter, "strength": 0.5}}, {"adapter": None}]][i % 3]
        jobs.append((i, variants, live.submit(prompt=f"melody number {i}", variants=variants, num_samples=2,
                                              seed=1000 + 10 * i, duration_s=0.3)))
        if i % 2:
            extra.append(live.submit(prompt="not wanted", adapter=adapter, num_samples=4, duration_s=5))
    for job in extra:
        assert live.cancel(job).status_code in (200, 202, 409)
    wrong = []
    for i, variants, job in jobs:
        live.wait(job, "completed")
        for s in live.samples_of(job):
            use = variants[s["variant"]]["adapter"]
            alone = generate(tmp_path / f"{i}-{s['variant']}-{s['index']}.wav", f"melody number {i}", seed=s["seed"],
                             duration=0.3, adapter=CHIPTUNE if use else None,
                             strength=use.get("strength") if use else None)["samples"][0]
            if alone["sha256"] != s["sha256"]:
                wrong.append((i, s["variant"], s["index"]))
    assert not wrong


def test_signals_do_not_end_the_shared_server(live):
    """SIGHUP reloads; it does not end or disturb the server."""
    os.kill(live.process.pid, signal.SIGHUP)
    live.run(prompt=PROMPT, duration_s=0.3)
    assert live.process.poll() is None
