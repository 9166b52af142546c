# SPDX-License-Identifier: MIT
"""Comparisons: samples side by side, and listening tests from their making to their results."""
import collections
import concurrent.futures
import itertools
import math

import pytest

from harness import check_problem, pointers, read_db, wait_until, wav_frames

NOBODY = "01900000-0000-7000-8000-000000000000"
TWO = [{"adapter": None}, {"adapter": {"name": "chiptune"}}]
THREE = [*TWO, {"adapter": {"name": "dark"}}]


@pytest.fixture(scope="module")
def pairs(live):
    """Two prompts, two seeds, with and without an adapter: {(prompt, index, variant): sample id}."""
    made = {}
    for prompt in ("a calm harp arpeggio", "happy flute melody"):
        job = live.run(prompt=prompt, num_samples=2, variants=TWO, seed=5, duration_s=0.2)
        for s in job["samples"]:
            made[prompt, s["index"], s["variant"]] = s["sample_id"]
    return made


def session(server, test, rater=""):
    reply = server.post(f"/v1/comparisons/{test}/sessions", {"rater": rater})
    assert reply.status_code == 201, reply.text
    assert reply.headers["Location"] == f"/v1/sessions/{reply.json()['token']}"
    assert reply.json()["url"] == f"/t#{reply.json()['token']}"
    return reply.json()["token"]


def next_trial(server, token):
    reply = server.get(f"/v1/sessions/{token}/next")
    assert reply.status_code in (200, 204)
    return reply.json() if reply.status_code == 200 else None


def vote(server, token, trial, choice, heard=(2, 3)):
    return server.post(f"/v1/sessions/{token}/votes",
                       {"trial_id": trial["trial_id"], "choice": choice, "heard_x_s": heard[0], "heard_y_s": heard[1]})


def vote_all(server, token, choose):
    """Votes on what is left; choose(trial) says how."""
    n = 0
    while trial := next_trial(server, token):
        reply = vote(server, token, trial, choose(trial))
        assert reply.status_code == 201, reply.text
        n += 1
    return n


def close(server, test):
    reply = server.post(f"/v1/comparisons/{test}/close")
    assert reply.status_code == 200, reply.text
    return reply.json()


def binomial_two_sided(k, n):
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(min(k, n - k) + 1)) / 2**n)


# ---- Making ----

def test_a_view_hides_nothing_and_takes_no_votes(live, pairs):
    ids = [pairs["a calm harp arpeggio", 0, 1], pairs["a calm harp arpeggio", 0, 0]]
    made = live.post("/v1/comparisons", {"sample_ids": ids, "title": "harp"}).json()
    assert (made["mode"], made["title"], made["blind"], made["state"]) == ("view", "harp", False, "open")
    assert [s["id"] for s in made["samples"]] == ids
    assert [s["adapter"] and s["adapter"]["name"] for s in made["samples"]] == ["chiptune", None]
    for path, method in (("sessions", "post"), ("close", "post"), ("results", "get")):
        check_problem(getattr(live, method)(f"/v1/comparisons/{made['id']}/{path}"), 409, "conflict")


def test_pairs_are_found_among_samples(live, pairs):
    made = live.post("/v1/comparisons", {"mode": "ab", "sample_ids": list(pairs.values()), "blind": False}).json()
    assert len(made["pairs"]) == 4  # two prompts, two seeds
    assert [a["adapter"] and a["adapter"]["name"] for a in made["arms"]] == [None, "chiptune"]
    by_sample = {sample: (prompt, index) for (prompt, index, _), sample in pairs.items()}
    for pair in made["pairs"]:
        assert pair["state"] == "ready"
        assert by_sample[pair["a"]["sample_id"]] == by_sample[pair["b"]["sample_id"]]
        assert {pair["a"]["variant"], pair["b"]["variant"]} == {0, 1}
        for side in "ab":
            assert live.get(pair[side]["urls"]["audio"]).status_code == 200


def test_pairs_differ_in_the_adapter_alone(live, pairs):
    def refused(a, b):
        reply = live.post("/v1/comparisons", {"pairs": [[good[0], good[1]], [a, b]]})
        problem = check_problem(reply, 422, "validation")
        assert list(pointers(problem)) == ["/pairs/1"]
        return problem["errors"][0]["differ_in"]

    harp = {(i, v): pairs["a calm harp arpeggio", i, v] for i in (0, 1) for v in (0, 1)}
    good = [harp[0, 0], harp[0, 1]]
    assert live.post("/v1/comparisons", {"pairs": [good]}).json()["mode"] == "ab"
    assert refused(harp[0, 0], harp[1, 1]) == "seed"
    assert refused(harp[0, 0], pairs["happy flute melody", 0, 1]) == "prompt"
    assert refused(harp[0, 0], harp[0, 0]) == "nothing"
    other = live.samples_of(live.run(prompt="a calm harp arpeggio", seed=5, adapter={"name": "chiptune"}, duration_s=0.4))[0]
    assert refused(harp[0, 0], other["id"]) == "params"
    reply = live.post("/v1/comparisons", {"pairs": [[good[0], NOBODY], [NOBODY, "x"]]})
    assert list(pointers(check_problem(reply, 404, "not-found"))) == ["/pairs/0/1", "/pairs/1/0", "/pairs/1/1"]
    reply = live.post("/v1/comparisons", {"mode": "ab", "sample_ids": [harp[0, 0], harp[1, 1]]})
    assert check_problem(reply, 422, "validation")["errors"][0]["code"] == "no_pairs"


@pytest.mark.parametrize(("body", "where"), [
    ({}, ["/sample_ids"]),
    ({"sample_ids": []}, ["/sample_ids"]),
    ({"sample_ids": [NOBODY] * 101}, ["/sample_ids"]),
    ({"sample_ids": "x"}, ["/sample_ids"]),
    ({"sample_ids": [7]}, ["/sample_ids/0"]),
    ({"pairs": [[NOBODY]]}, ["/pairs/0"]),
    ({"pairs": []}, ["/pairs"]),
    ({"prompt_ids": [], "variants": TWO}, ["/prompt_ids"]),
    ({"sample_ids": [NOBODY], "pairs": [[NOBODY, NOBODY]]}, ["/pairs"]),
    ({"mode": "abc", "pairs": [["x"]]}, ["/mode", "/pairs/0"]),
    ({"mode": "view", "pairs": [["x"]]}, ["/pairs", "/pairs/0"]),
    ({"sample_ids": [1], "blind": True}, ["/blind", "/sample_ids/0"]),
    ({"sample_ids": [1], "votes_wanted": 1}, ["/sample_ids/0", "/votes_wanted"]),
    ({"sample_ids": [1], "variants": TWO}, ["/sample_ids/0", "/variants"]),
    ({"pairs": [["x"]], "votes_wanted": 0}, ["/pairs/0", "/votes_wanted"]),
    ({"pairs": [["x"]], "votes_wanted": 1000001}, ["/pairs/0", "/votes_wanted"]),
    ({"pairs": [["x"]], "min_listen_s": -0.1}, ["/min_listen_s", "/pairs/0"]),
    ({"pairs": [["x"]], "min_listen_s": 300.1}, ["/min_listen_s", "/pairs/0"]),
    ({"pairs": [["x"]], "mode": "abx", "blind": False}, ["/blind", "/pairs/0"]),
    ({"pairs": [["x"]], "vote_wanted": 3}, ["/pairs/0", "/vote_wanted"]),
    ({"pairs": [["x"]], "title": "x" * 201}, ["/pairs/0", "/title"]),
])
def test_what_is_wrong_is_named(api, body, where):
    assert sorted(pointers(check_problem(api.post("/v1/comparisons", body), 422, "validation"))) == where


def test_what_is_wrong_with_the_jobs_is_named_here(api):
    prompt = api.prompt("a calm harp arpeggio")["id"]

    def refused(status=422, **body):
        before = len(api.all("/v1/jobs?limit=100"))
        reply = api.post("/v1/comparisons", {"prompt_ids": [prompt], "variants": TWO, **body})
        kind = "not-found" if status == 404 else "validation"
        found = sorted(pointers(check_problem(reply, status, kind)))
        assert len(api.all("/v1/jobs?limit=100")) == before
        return found

    assert refused(404, prompt_ids=[prompt, NOBODY]) == ["/prompt_ids/1"]
    assert refused(prompt_ids=[7]) == ["/prompt_ids/0"]
    assert refused(samples_per_prompt=0) == ["/samples_per_prompt"]
    assert refused(samples_per_prompt=9) == ["/samples_per_prompt"]  # 9 x 2 > 16
    assert refused(variants=TWO[:1]) == ["/variants"]
    assert refused(variants=[TWO[0], TWO[0]]) == ["/variants/1"]
    assert refused(variants=[TWO[1], TWO[1]]) == ["/variants/1"]
    assert refused(variants=THREE, mode="abx") == ["/variants"]
    assert refused(404, variants=[TWO[0], {"adapter": {"name": "nobody"}}]) == ["/variants/1/adapter/name"]
    assert refused(seed=-1) == ["/seed"]
    assert refused(duration_s=0) == ["/duration_s"]
    assert refused(params={"guidance": 0.5}) == ["/params/guidance"]
    assert refused(model="nobody") == ["/model"]
    assert refused(prompt_ids=[prompt] * 101) == ["/prompt_ids"]


def test_samples_are_made_for_a_test(live):
    prompts = [live.prompt(text)["id"] for text in ("a calm harp arpeggio", "happy flute melody")]
    body = {"prompt_ids": prompts, "variants": THREE, "samples_per_prompt": 2, "duration_s": 0.2, "seed": 3, "blind": False}
    reply = live.post("/v1/comparisons", body)
    assert reply.status_code == 201
    test = reply.json()["id"]
    assert len(reply.json()["job_ids"]) == 2
    assert reply.json()["votes_wanted"] == len(reply.json()["pairs"]) == 2 * 2 * 3

    def ready():
        seen = live.ok(f"/v1/comparisons/{test}")
        return seen if all(p["state"] == "ready" for p in seen["pairs"]) else None

    seen = wait_until(ready, 180, "the samples")
    for pair in seen["pairs"]:
        a, b = (live.sample(pair[side]["sample_id"]) for side in "ab")
        assert (a["seed"], a["prompt"]["id"], a["params"]) == (b["seed"], b["prompt"]["id"], b["params"])
        assert (a["variant"], b["variant"]) == (pair["a"]["variant"], pair["b"]["variant"])
        assert a["adapter"] != b["adapter"]
    assert len(seen["samples"]) == 12
    assert {s["seed"] for s in seen["samples"]} == {3, 4}


def test_a_test_whose_job_was_cancelled(api):
    body = {"prompt_ids": [api.prompt("a calm harp arpeggio")["id"]], "variants": TWO, "blind": False}
    made = api.post("/v1/comparisons", body).json()
    assert made["pairs"][0]["state"] == "generating"
    check_problem(api.post(f"/v1/comparisons/{made['id']}/sessions"), 409, "conflict")
    assert api.cancel(made["job_ids"][0]).status_code == 200
    assert api.ok(f"/v1/comparisons/{made['id']}")["pairs"][0]["state"] == "failed"
    check_problem(api.post(f"/v1/comparisons/{made['id']}/sessions"), 409, "conflict")
    results = api.ok(f"/v1/comparisons/{made['id']}/results")
    assert (results["votes"], results["final"], results["p_value"]) == (0, False, None)
    assert [a["win_share"] for a in results["arms"]] == [None, None]


# ---- Blindness ----

def test_nothing_tells_the_sides_apart(live):
    test = live.listening_test(samples_per_prompt=2)
    seen = live.get(f"/v1/comparisons/{test}")
    assert seen.json()["arms"] is None
    assert "chiptune" not in seen.text
    assert "/v1/samples/" not in seen.text
    assert "/v1/jobs/" not in seen.text
    assert all(set(p) == {"prompt_id", "state"} for p in seen.json()["pairs"])
    check_problem(live.get(f"/v1/comparisons/{test}/results"), 403, "blind")
    token = session(live, test)
    while trial := next_trial(live, token):
        assert set(trial) == {"trial_id", "n", "of", "mode", "x", "y", "min_listen_s"}
        x, y = (live.get(trial[side]["url"]) for side in "xy")
        assert x.content != y.content
        # All but the sound, the tag of the side and what every reply has of its own.
        own = {"ETag", "X-Request-Id", "Date"}
        assert {k: v for k, v in x.headers.items() if k not in own} == {k: v for k, v in y.headers.items() if k not in own}
        assert x.headers["Content-Type"] == "audio/wav"
        assert x.headers["ETag"] == f'"{trial["trial_id"]}-x"'
        assert x.content[:44] == y.content[:44]
        for audio in (x.content, y.content):
            assert audio[36:40] == b"data"  # no tags
            assert b"harp" not in audio
        ranged = live.get(trial["x"]["url"], headers={"Range": "bytes=44-143", "If-Range": x.headers["ETag"]})
        assert (ranged.status_code, ranged.content) == (206, x.content[44:144])
        assert live.head(trial["y"]["url"]).headers["Content-Length"] == str(len(y.content))
        assert vote(live, token, trial, "tie").status_code == 201
    shown = close(live, test)
    assert [a["adapter"] and a["adapter"]["name"] for a in shown["arms"]] == [None, "chiptune"]
    assert len(shown["samples"]) == 4
    pair = shown["pairs"][0]
    plain = live.get(pair["a"]["urls"]["audio"]).content
    assert len(wav_frames(plain)) > 0


def test_the_sides_are_the_samples(live):
    """What is heard is what the sample holds, bit for bit, and the gain makes both equally loud."""
    test = live.listening_test(duration_s=1)
    token = session(live, test)
    trial = next_trial(live, token)
    heard = {side: live.get(trial[side]["url"]).content for side in "xy"}
    gains = {side: trial[side]["gain_db"] for side in "xy"}
    close(live, test)
    pair = live.ok(f"/v1/comparisons/{test}")["pairs"][0]
    found = {}
    for side in "ab":
        sample = live.sample(pair[side]["sample_id"])
        frames = wav_frames(live.get(sample["urls"]["audio"]).content)
        which = [s for s in "xy" if list(wav_frames(heard[s])) == list(frames)]
        assert len(which) == 1
        found[which[0]] = sample
    assert set(found) == {"x", "y"}
    loud = {s: found[s]["loudness_lufs"] + gains[s] for s in "xy"}
    assert abs(loud["x"] - loud["y"]) < 0.1
    assert max(found[s]["true_peak_dbtp"] + gains[s] for s in "xy") <= -1 + 1e-6
    assert max(loud.values()) <= -16 + 1e-6


def test_sides_are_balanced_and_orders_differ(live):
    test = live.listening_test(samples_per_prompt=4, votes_wanted=100)
    for i in range(4):
        token = session(live, test, f"r{i}")
        assert live.ok(f"/v1/sessions/{token}")["trials"] == 4
    rows = read_db(live.data, "SELECT s.number, t.n, t.pair, t.x_is_a FROM trials t JOIN rater_sessions s ON "
                   "s.id = t.session_id WHERE s.comparison_id = ? ORDER BY s.number, t.n", test)
    by_session = collections.defaultdict(dict)
    for r in rows:
        by_session[r["number"]][r["pair"]] = r["x_is_a"]
    for sides in by_session.values():
        assert sorted(sides) == [0, 1, 2, 3]
        assert sum(sides.values()) == 2
    for first, second in ((0, 1), (2, 3)):
        assert all(by_session[first][p] != by_session[second][p] for p in range(4))
    orders = {tuple(r["pair"] for r in group) for _, group in itertools.groupby(rows, key=lambda r: r["number"])}
    assert len(orders) > 1


# ---- Votes ----

def test_votes_and_their_refusals(live):
    test = live.listening_test(samples_per_prompt=2, min_listen_s=1.5)
    token = session(live, test, "ann")
    trial = next_trial(live, token)
    assert (trial["n"], trial["of"], trial["min_listen_s"]) == (1, 2, 1.5)
    problem = check_problem(vote(live, token, trial, "x", (1.4, 1.5)), 422, "validation")
    assert problem["errors"][0]["pointer"] == "/heard_x_s"
    assert problem["errors"][0]["code"] == "not_listened"
    assert abs(problem["errors"][0]["missing_s"] - 0.1) < 1e-9
    assert list(pointers(check_problem(vote(live, token, trial, "z"), 422))) == ["/choice"]
    assert list(pointers(check_problem(vote(live, token, trial, "x", (-1, 86401)), 422))) == ["/heard_x_s", "/heard_y_s"]
    missing = live.post(f"/v1/sessions/{token}/votes", {"trial_id": trial["trial_id"]})
    assert sorted(pointers(check_problem(missing, 422))) == ["/choice", "/heard_x_s", "/heard_y_s"]
    check_problem(vote(live, token, {"trial_id": NOBODY}, "x"), 404, "not-found")
    check_problem(live.get("/v1/sessions/nobody/next"), 404, "not-found")
    check_problem(vote(live, "nobody", trial, "x"), 404, "not-found")
    other = session(live, test, "ben")
    check_problem(vote(live, other, trial, "x"), 404, "not-found")  # the trial of another session
    made = vote(live, token, trial, "x", (1.5, 1.5))
    assert made.status_code == 201
    assert made.json()["remaining"] == 1
    assert live.get(made.headers["Location"]).json() == made.json()
    check_problem(vote(live, token, trial, "y"), 409, "conflict")
    second = next_trial(live, token)
    assert second["n"] == 2
    assert vote(live, token, second, "both_bad").status_code == 201
    assert next_trial(live, token) is None
    for n, kind in ((0, "not-found"), (3, "not-found"), ("x", "not-found")):
        check_problem(live.get(f"/v1/sessions/{token}/trials/{n}/x.wav"), 404, kind)
    check_problem(live.get(f"/v1/sessions/{token}/trials/1/x.mp3"), 406, "not-acceptable")
    check_problem(live.get(f"/v1/sessions/{token}/trials/1/reference.wav"), 404, "not-found")


def test_one_vote_a_trial_however_many_browsers(live):
    test = live.listening_test()
    token = session(live, test)
    trial = next_trial(live, token)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda i: vote(live, token, trial, "xy"[i % 2]).status_code, range(8)))
    assert sorted(replies) == [201] + [409] * 7
    assert live.ok(f"/v1/comparisons/{test}")["votes"] == 1


def test_a_vote_sent_again_with_its_key_is_one_vote(live):
    test = live.listening_test()
    token = session(live, test)
    trial = next_trial(live, token)
    body = {"trial_id": trial["trial_id"], "choice": "x", "heard_x_s": 1, "heard_y_s": 1}
    first, again = (live.post(f"/v1/sessions/{token}/votes", body, headers={"Idempotency-Key": f"vote-{token}"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json() == again.json()
    body["choice"] = "y"
    check_problem(live.post(f"/v1/sessions/{token}/votes", body, headers={"Idempotency-Key": f"vote-{token}"}), 422)


def test_votes_outlive_a_kill(make_server):
    server = make_server()
    test = server.listening_test(samples_per_prompt=2)
    token = session(server, test)
    trial = next_trial(server, token)
    assert vote(server, token, trial, "x").status_code == 201
    server.kill_server()
    server.start()
    check_problem(vote(server, token, trial, "y"), 409, "conflict")
    assert next_trial(server, token)["n"] == 2
    assert server.ok(f"/v1/comparisons/{test}")["votes"] == 1


def test_close_ends_voting_and_delete_ends_the_test(live):
    test = live.listening_test(samples_per_prompt=2)
    token = session(live, test)
    trial = next_trial(live, token)
    first = close(live, test)
    assert first["state"] == "closed"
    assert close(live, test) == first
    check_problem(vote(live, token, trial, "x"), 409, "conflict")
    check_problem(live.get(f"/v1/sessions/{token}/next"), 409, "conflict")
    check_problem(live.post(f"/v1/comparisons/{test}/sessions"), 409, "conflict")
    assert live.req("DELETE", f"/v1/comparisons/{test}", headers={"If-Match": '"other"'}).status_code == 412
    assert live.req("DELETE", f"/v1/comparisons/{test}").status_code == 204
    check_problem(live.get(f"/v1/comparisons/{test}"), 410, "gone")
    check_problem(live.req("DELETE", f"/v1/comparisons/{test}"), 410, "gone")
    check_problem(live.get(f"/v1/sessions/{token}/next"), 404, "not-found")
    check_problem(live.post(f"/v1/comparisons/{NOBODY}/close"), 404, "not-found")
    assert test not in [c["id"] for c in live.all("/v1/comparisons?limit=100")]


# ---- Results ----

def test_results_of_two_arms(live):
    test = live.listening_test(samples_per_prompt=4, votes_wanted=12, blind=False)
    pairs = live.ok(f"/v1/comparisons/{test}")["pairs"]
    chip = {p[side]["sample_id"] for p in pairs for side in "ab" if p[side]["variant"] == 1}
    # The sides that hold the adapter, from the database: the API does not tell.
    def choose(trial):
        row = read_db(live.data, "SELECT sample_x FROM trials WHERE id = ?", trial["trial_id"])[0]
        return "x" if row["sample_x"] in chip else "y"

    assert vote_all(live, session(live, test, "ann"), choose) == 4
    results = live.ok(f"/v1/comparisons/{test}/results")
    assert (results["final"], results["votes"], results["p_value"]) == (False, 4, None)
    assert results["side_bias"]["p_value"] is None
    assert vote_all(live, session(live, test, "ben"), choose) == 4
    seen = itertools.cycle(["x", "tie", "both_bad", "y"])
    vote_all(live, session(live, test, "ben"), lambda trial: next(seen))
    results = live.ok(f"/v1/comparisons/{test}/results")
    assert (results["final"], results["votes"]) == (True, 12)
    none, chiptune = results["arms"]
    assert none["adapter"] is None
    assert chiptune["adapter"]["name"] == "chiptune"
    assert chiptune["wins"] == none["losses"]
    assert chiptune["wins"] + chiptune["losses"] == 10
    assert (chiptune["ties"], chiptune["both_bad"]) == (1, 1)
    assert abs(results["p_value"] - binomial_two_sided(chiptune["wins"], 10)) < 1e-12
    assert chiptune["win_share"] == chiptune["wins"] / 10
    assert chiptune["ci95"][0] < chiptune["win_share"] <= chiptune["ci95"][1] <= 1
    assert results["bradley_terry"] is None
    assert results["abx"] is None
    assert [r["rater"] for r in results["by_rater"]] == ["ann", "ben"]
    assert [r["votes"] for r in results["by_rater"]] == [4, 8]
    assert results["by_prompt"][0]["votes"] == 12
    assert abs(results["by_prompt"][0]["heard_s"] - 60) < 1e-9
    assert results["side_bias"]["x_share"] is not None


def test_results_of_three_arms(live):
    test = live.listening_test(variants=THREE, votes_wanted=9, blind=False)
    # X always: whoever stood there wins, so every arm wins somewhere over the balanced sessions.
    for i in range(4):
        vote_all(live, session(live, test, f"r{i}"), lambda trial: "x")
    results = live.ok(f"/v1/comparisons/{test}/results")
    assert results["final"]
    assert results["p_value"] is None
    assert results["side_bias"]["x_share"] == 1
    assert results["side_bias"]["p_value"] == pytest.approx(binomial_two_sided(12, 12), rel=1e-9)
    scores = [s["score"] for s in results["bradley_terry"]["scores"]]
    assert abs(sum(scores)) < 1e-9
    for i, j in itertools.combinations(range(3), 2):
        assert abs(scores[i] - scores[j]) < 1e-9  # each pair was heard both ways equally often


def test_all_ties_and_no_votes_are_defined(live):
    test = live.listening_test(variants=THREE, votes_wanted=3, blind=False)
    nothing = live.ok(f"/v1/comparisons/{test}/results")
    assert (nothing["votes"], nothing["final"], nothing["bradley_terry"]) == (0, False, None)
    assert nothing["by_rater"] == nothing["by_prompt"] == []
    vote_all(live, session(live, test), lambda trial: "tie")
    results = live.ok(f"/v1/comparisons/{test}/results")
    assert results["final"]
    assert [(a["wins"], a["ties"], a["win_share"], a["ci95"]) for a in results["arms"]] == [(0, 2, None, None)] * 3
    assert [s["score"] for s in results["bradley_terry"]["scores"]] == pytest.approx([0, 0, 0])
    assert results["side_bias"] == {"x_share": None, "p_value": None}


def test_abx(live):
    test = live.listening_test(mode="abx", samples_per_prompt=4, votes_wanted=4)
    token = session(live, test)

    def choose(trial):
        x, reference = (live.get(trial[side]["url"]).content for side in ("x", "reference"))
        y = live.get(trial["y"]["url"]).content
        assert (reference == x) != (reference == y)
        return "x" if reference == x else "y"

    trial = next_trial(live, token)
    assert trial["mode"] == "abx"
    assert list(pointers(check_problem(vote(live, token, trial, "tie"), 422))) == ["/choice"]
    assert vote_all(live, token, choose) == 4
    check_problem(live.get(f"/v1/comparisons/{test}/results"), 403, "blind")
    close(live, test)
    results = live.ok(f"/v1/comparisons/{test}/results")
    assert (results["abx"]["correct"], results["abx"]["trials"]) == (4, 4)
    assert results["p_value"] == results["abx"]["p_value"] == pytest.approx(1 / 16, rel=1e-9)
