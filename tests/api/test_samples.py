# SPDX-License-Identifier: MIT
"""Finding samples and prompts, and what people change of them: filters, orders, pages, words, stars, deleting, undoing."""
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode

import pytest

from harness import MISSING_ID, check_problem, pointers, read_db, wait_until

PER_JOB = 3


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A server with samples of four jobs, none of which a test changes; two more jobs are for changing."""
    from harness import Server
    server = Server(tmp_path_factory.mktemp("library") / "data").start()
    server.jobs = [
        server.run(prompt="a calm harp arpeggio", num_samples=PER_JOB, duration_s=0.3, seed=1),
        server.run(prompt="a wild drum solo", num_samples=PER_JOB, duration_s=0.1, seed=2),
        server.run(prompt="a calm drum", num_samples=PER_JOB, duration_s=0.2, seed=3, adapter={"name": "chiptune"}),
        server.run(prompt="Café de nuit", num_samples=PER_JOB, duration_s=0.4, seed=4),
    ]
    server.kept = [s for job in server.jobs for s in server.samples_of(job)]
    for i, sample in enumerate(server.kept):
        change = {"rating": 1 + i % 5} if i % 2 else {"starred": True}
        change["tags"] = ["all", f"t{i % 3}"]
        assert server.patch(f"/v1/samples/{sample['id']}", change).status_code == 200
    server.kept = [server.sample(s["id"]) for s in server.kept]
    yield server
    try:
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.fixture
def sample(library):
    """A sample to change; it is deleted afterwards, so that lists stay as they are."""
    job = library.run(prompt="for changing", duration_s=0.1)
    made = library.samples_of(job)[0]
    yield made
    library.req("DELETE", f"/v1/samples/{made['id']}")


def ids(page):
    return [s["id"] for s in page]


def listed(server, **query):
    """Over all pages, two at a time."""
    return ids(server.all("/v1/samples?" + urlencode({"limit": 2, **query})))


# ---- Lists of samples -------------------------------------------------------------------------------------------


def test_newest_first_and_oldest_first(library):
    newest = listed(library)
    assert set(newest) == set(ids(library.kept))
    assert listed(library, sort="newest") == newest
    assert listed(library, sort="oldest") == newest[::-1]
    times = [library.sample(i)["created_at"] for i in newest]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(("sort", "key", "reverse"), [
    ("rating", lambda s: s["rating"] or 0, True), ("longest", lambda s: s["duration_s"], True),
    ("shortest", lambda s: s["duration_s"], False)])
def test_other_orders(library, sort, key, reverse):
    for limit in (1, 2, 5, 100):
        found = [library.sample(i) for i in listed(library, sort=sort, limit=limit)]
        values = [key(s) for s in found]
        assert values == sorted(values, reverse=reverse)
        assert set(ids(found)) == set(ids(library.kept))
        assert len(found) == len(library.kept)


def test_filters(library):
    kept, jobs = library.kept, library.jobs
    of = {name: {s["id"] for s in kept if check(s)} for name, check in {
        "job": lambda s: s["job_id"] == jobs[1]["id"], "prompt": lambda s: s["prompt"]["id"] == jobs[2]["prompt_id"],
        "adapter": lambda s: s["adapter"], "star": lambda s: s["starred"], "no star": lambda s: not s["starred"],
        "good": lambda s: (s["rating"] or 0) >= 4, "t1": lambda s: "t1" in s["tags"]}.items()}
    assert set(listed(library, job_id=jobs[1]["id"])) == of["job"]
    assert set(listed(library, prompt_id=jobs[2]["prompt_id"])) == of["prompt"]
    adapter = next(s["adapter"]["id"] for s in kept if s["adapter"])
    assert set(listed(library, adapter_id=adapter)) == of["adapter"] == of["prompt"]
    assert set(listed(library, starred=1)) == set(listed(library, starred="true")) == of["star"]
    assert set(listed(library, starred=0)) == set(listed(library, starred="false")) == of["no star"]
    assert set(listed(library, min_rating=4)) == of["good"]
    assert set(listed(library, tag="t1")) == of["t1"]
    assert set(listed(library, tag="t1", starred=1, job_id=jobs[1]["id"])) == of["t1"] & of["star"] & of["job"]
    model = kept[0]["model"]["name"]
    assert len(listed(library, model=model)) == len(kept)
    for nothing in ({"model": "none"}, {"tag": "T1"}, {"tag": ""}, {"job_id": MISSING_ID}, {"adapter_id": MISSING_ID}):
        assert listed(library, **nothing) == []


def test_times(library):
    by_age = sorted(library.kept, key=lambda s: (s["created_at"], s["id"]))
    middle = by_age[len(by_age) // 2]["created_at"]
    before = listed(library, created_before=middle)
    after = listed(library, created_after=middle)
    at = [s["id"] for s in by_age if s["created_at"] == middle]
    assert set(before) == {s["id"] for s in by_age if s["created_at"] < middle}
    assert set(after) == {s["id"] for s in by_age if s["created_at"] > middle}
    assert len(before) + len(after) + len(at) == len(by_age)
    assert listed(library, created_before="1971-01-01T00:00:00Z") == []
    assert len(listed(library, created_after="1971-01-01T02:00:00+02:00")) == len(by_age)


def test_words(library):
    def texts(q, **more):
        return sorted({library.sample(i)["prompt"]["text"] for i in listed(library, q=q, **more)})

    assert texts("calm") == ["a calm drum", "a calm harp arpeggio"]
    assert texts("CALM dru") == ["a calm drum"]
    assert texts("rum") == []
    assert texts("cafe") == texts("CAFÉ") == ["Café de nuit"]
    assert texts("drum", starred=1, sort="longest") == ["a calm drum", "a wild drum solo"]
    assert texts("drum", job_id=library.jobs[1]["id"]) == ["a wild drum solo"]
    assert texts('"') == texts("harp*drum") == texts("calm OR wild") == texts("-") == []
    newest = listed(library, q="drum")
    assert newest == listed(library, q="drum", sort="oldest")[::-1]
    assert len(newest) == 2 * PER_JOB
    assert set(listed(library, q="a", sort="shortest")) == set(listed(library, q="a"))


def test_totals(library):
    page = library.ok("/v1/samples?limit=1&total=1")
    assert page["total"] == len(library.kept)
    assert library.ok(f"/v1/samples?limit=1&total=true&cursor={page['next_cursor']}")["total"] == len(library.kept)
    assert library.ok("/v1/samples?q=drum&total=1&starred=1")["total"] == len(listed(library, q="drum", starred=1))
    assert library.ok("/v1/samples?q=drum&total=1")["total"] == 2 * PER_JOB
    assert "total" not in library.ok("/v1/samples?total=0")
    assert "total" not in library.ok("/v1/samples")


def test_rows_are_small(library):
    rows = library.ok("/v1/samples?fields=row&limit=500")["data"]
    full = {s["id"]: s for s in library.ok("/v1/samples?limit=100")["data"]}
    assert len(rows) == len(full)
    for row in rows:
        whole = full[row["id"]]
        for field in ("job_id", "seed", "duration_s", "title", "tags", "rating", "starred", "mini", "created_at"):
            assert row[field] == whole[field], field
        assert row["prompt"] == {"id": whole["prompt"]["id"], "text": whole["prompt"]["text"]}
        assert row["urls"]["audio"] == whole["urls"]["audio"]
        assert (row["adapter"] or {}).get("name") == (whole["adapter"] or {}).get("name")
        assert len(row["mini"]) == 64
        assert "params" not in row
        assert len(json.dumps(row)) < len(json.dumps(whole))


def test_the_link_keeps_the_filters(library):
    reply = library.get("/v1/samples?q=drum&sort=rating&limit=2&fields=row&total=1")
    seen = ids(reply.json()["data"])
    while "next" in reply.links:
        reply = library.get(reply.links["next"]["url"])
        seen += ids(reply.json()["data"])
        assert reply.json()["total"] == 2 * PER_JOB
    assert seen == listed(library, q="drum", sort="rating")


BAD = [("limit", "0"), ("limit", "101"), ("limit", "-1"), ("limit", "1.0"), ("limit", ""), ("cursor", "x"), ("cursor", ""),
       ("q", ""), ("q", "x" * 201), ("q", " ".join("abcdefghijklmnopq")), ("total", "yes"), ("created_after", "yesterday"),
       ("created_before", "2026-11-24"), ("sort", "best"), ("sort", "")]
BAD_SAMPLES = BAD + [("job_id", "x"), ("prompt_id", "1"), ("adapter_id", "../x"), ("starred", "2"), ("starred", ""),
                     ("min_rating", "0"), ("min_rating", "6"), ("min_rating", "10"), ("min_rating", ""), ("fields", "all"),
                     ("fields", ""), ("sort", "Newest")]
BAD_PROMPTS = BAD + [("sort", "rating"), ("attributes", "mood"), ("attributes", "{}"), ("attributes", "[]"),
                     ("attributes", '{"a":null}'), ("attributes", '{"a":{}}'), ("attributes", '{"a":1,"a":2}'),
                     ("attributes", json.dumps({str(i): i for i in range(9)}))]
BAD_JOBS = [("limit", "0"), ("limit", "101"), ("cursor", "x"), ("state", "done"), ("created_after", "x"), ("created_before", "x"),
            ("prompt_id", "x"), ("adapter_id", "x")]


@pytest.mark.parametrize(("path", "name", "value"), [
    ("/v1/samples", *b) for b in BAD_SAMPLES] + [("/v1/prompts", *b) for b in BAD_PROMPTS] + [("/v1/jobs", *b) for b in BAD_JOBS])
def test_a_bad_parameter_is_named(library, path, name, value):
    problem = check_problem(library.get(f"{path}?{name}={quote(value)}"), 400, "bad-query")
    assert name in problem["detail"]
    assert problem["errors"][0]["parameter"] == name


@pytest.mark.parametrize(("path", "name", "meant"), [
    ("/v1/samples", "jobid", "job_id"), ("/v1/samples", "Starred", "starred"), ("/v1/samples", "state", None),
    ("/v1/prompts", "attribute", "attributes"), ("/v1/prompts", "fields", None), ("/v1/jobs", "stat", "state"),
    ("/v1/jobs", "created_befor", "created_before")])
def test_an_unknown_parameter_is_named(library, path, name, meant):
    problem = check_problem(library.get(f"{path}?{name}=1"), 400, "bad-query")
    assert problem["errors"][0]["parameter"] == name
    if meant:
        assert problem["errors"][0]["did_you_mean"] == meant


def test_limits_at_their_ends(library):
    assert len(library.ok("/v1/samples?limit=1")["data"]) == 1
    assert len(library.ok("/v1/samples?limit=100")["data"]) == len(library.kept)
    assert len(library.ok("/v1/samples?limit=500&fields=row")["data"]) == len(library.kept)
    check_problem(library.get("/v1/samples?limit=501&fields=row"), 400, "bad-query")
    check_problem(library.get("/v1/samples?limit=101"), 400, "bad-query")
    library.ok("/v1/samples?q=" + "x" * 200)
    library.ok("/v1/samples?q=" + quote("é" * 200))
    library.ok("/v1/samples?q=" + quote(" ".join("abcdefghijklmnop")))


def test_a_cursor_belongs_to_its_order(library):
    cursor = library.ok("/v1/samples?limit=1")["next_cursor"]
    for other in ("sort=rating", "sort=oldest", "q=drum", "sort=longest"):
        problem = check_problem(library.get(f"/v1/samples?{other}&cursor={cursor}"), 400, "bad-query")
        assert problem["errors"][0]["parameter"] == "cursor"
    longest = library.ok("/v1/samples?limit=1&sort=longest")["next_cursor"]
    assert len(library.ok(f"/v1/samples?sort=longest&cursor={longest}")["data"]) == len(library.kept) - 1
    # No number is not a place among numbers.
    for bits in ("7ff0000000000000", "7ff8000000000000", "fff0000000000000"):
        check_problem(library.get(f"/v1/samples?sort=longest&cursor=l{bits}{longest[17:]}"), 400, "bad-query")


# ---- Changing a sample ------------------------------------------------------------------------------------------


def patch(server, sample, body, **headers):
    return server.patch(f"/v1/samples/{sample['id']}", body, headers=headers)


def test_a_change_is_kept(library, sample):
    assert (sample["title"], sample["tags"], sample["rating"], sample["starred"]) == ("", [], None, False)
    reply = patch(library, sample, {"title": "für später", "tags": ["a", "b c"], "rating": 4, "starred": True})
    assert reply.status_code == 200
    changed = reply.json()
    assert changed == library.sample(sample["id"])
    assert (changed["title"], changed["tags"], changed["rating"], changed["starred"]) == ("für später", ["a", "b c"], 4, True)
    # What is not named stays.
    assert patch(library, sample, {"rating": None}).json()["rating"] is None
    assert patch(library, sample, {"tags": []}).json()["title"] == "für später"
    after = patch(library, sample, {"starred": False}).json()
    assert (after["title"], after["tags"], after["rating"], after["starred"]) == ("für später", [], None, False)
    unchanged = {k: v for k, v in after.items() if k not in ("title", "tags", "rating", "starred")}
    assert unchanged == {k: v for k, v in sample.items() if k not in ("title", "tags", "rating", "starred")}
    # The title is searched, too.
    assert listed(library, q="spater changing") == [sample["id"]]


def test_an_empty_change_changes_nothing(library, sample):
    before = library.get(f"/v1/samples/{sample['id']}")
    assert patch(library, sample, {}).json() == before.json()
    assert library.get(f"/v1/samples/{sample['id']}").headers["ETag"] == before.headers["ETag"]


@pytest.mark.parametrize("body", [
    {"title": "x" * 199}, {"title": "é" * 200}, {"title": ""}, {"rating": 1}, {"rating": 5}, {"rating": 3.0},
    {"tags": [str(i) for i in range(32)]}, {"tags": ["é" * 50]}, {"tags": ["x"]}])
def test_changes_at_their_limits(library, sample, body):
    assert patch(library, sample, body).status_code == 200


@pytest.mark.parametrize(("body", "pointer", "code"), [
    ({"title": "x" * 201}, "/title", "too_long"), ({"title": None}, "/title", "wrong_type"), ({"title": 1}, "/title", "wrong_type"),
    ({"rating": 0}, "/rating", "out_of_range"), ({"rating": 6}, "/rating", "out_of_range"),
    ({"rating": 2.5}, "/rating", "wrong_type"), ({"rating": "4"}, "/rating", "wrong_type"),
    ({"starred": 1}, "/starred", "wrong_type"), ({"starred": None}, "/starred", "wrong_type"),
    ({"tags": "a"}, "/tags", "wrong_type"), ({"tags": [1]}, "/tags/0", "wrong_type"), ({"tags": [""]}, "/tags/0", "out_of_range"),
    ({"tags": ["x" * 51]}, "/tags/0", "out_of_range"), ({"tags": [str(i) for i in range(33)]}, "/tags", "out_of_range"),
    ({"tags": ["a", "b", "a"]}, "/tags/2", "conflict"), ({"seed": 1}, "/seed", "unknown_field"), ([], "", "wrong_type")])
def test_wrong_changes_are_refused(library, sample, body, pointer, code):
    before = library.get(f"/v1/samples/{sample['id']}").headers["ETag"]
    problem = check_problem(patch(library, sample, body), 422, "validation")
    assert pointers(problem)[pointer]["code"] == code
    assert library.get(f"/v1/samples/{sample['id']}").headers["ETag"] == before


def test_a_slip_is_told_and_all_that_is_wrong_at_once(library, sample):
    problem = check_problem(patch(library, sample, {"titel": "x", "rating": 9, "tags": [1, ""]}), 422)
    found = pointers(problem)
    assert found["/titel"]["did_you_mean"] == "title"
    assert set(found) == {"/titel", "/rating", "/tags/0", "/tags/1"}


def test_if_match(library, sample):
    url = f"/v1/samples/{sample['id']}"
    etag = library.get(url).headers["ETag"]
    assert patch(library, sample, {"rating": 1}, **{"If-Match": etag}).status_code == 200
    fresh = library.get(url).headers["ETag"]
    assert fresh != etag
    check_problem(patch(library, sample, {"rating": 2}, **{"If-Match": etag}), 412, "precondition-failed")
    check_problem(patch(library, sample, {}, **{"If-Match": etag}), 412)
    check_problem(library.req("DELETE", url, headers={"If-Match": etag}), 412)
    assert library.sample(sample["id"])["rating"] == 1
    assert patch(library, sample, {"rating": 3}, **{"If-Match": f'"x", {fresh}'}).status_code == 200
    assert patch(library, sample, {"rating": 4}, **{"If-Match": "*"}).status_code == 200
    check_problem(patch(library, sample, {"rating": 5}, **{"If-Match": "W/" + library.get(url).headers["ETag"]}), 412)
    last = library.get(url).headers["ETag"]
    assert library.get(url, headers={"If-None-Match": last}).status_code == 304
    assert library.req("DELETE", url, headers={"If-Match": last}).status_code == 204


def test_of_many_who_saw_the_same_one_changes_it(library, sample):
    etag = library.get(f"/v1/samples/{sample['id']}").headers["ETag"]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda i: patch(library, sample, {"title": f"by {i}"}, **{"If-Match": etag}), range(24)))
    codes = [r.status_code for r in replies]
    assert codes.count(200) == 1
    assert codes.count(412) == 23
    assert library.sample(sample["id"])["title"] == f"by {codes.index(200)}"


# ---- Deleting and undoing ---------------------------------------------------------------------------------------


def test_delete_and_restore(library, sample):
    url, before = f"/v1/samples/{sample['id']}", library.audio(sample)
    assert patch(library, sample, {"tags": ["undo"], "title": "undo me"}).status_code == 200
    reply = library.req("DELETE", url)
    assert (reply.status_code, reply.content) == (204, b"")
    for path in (url, url + "/audio", url + "/audio.wav", url + "/peaks"):
        check_problem(library.get(path), 410, "gone")
    check_problem(library.req("DELETE", url), 410, "gone")
    check_problem(patch(library, sample, {"rating": 1}), 410, "gone")
    assert sample["id"] not in listed(library)
    assert listed(library, tag="undo") == listed(library, q="undo") == []
    back = library.post(url + "/restore")
    assert back.status_code == 200
    assert back.json() == library.sample(sample["id"])
    assert listed(library, tag="undo") == listed(library, q="undo") == [sample["id"]]
    assert library.audio(sample) == before
    assert library.post(url + "/restore").status_code == 200
    events = [e["event"] for e in read_db(library.data, "SELECT event FROM events WHERE subject = ? ORDER BY seq", sample["id"])]
    assert events == ["updated", "deleted", "restored"]


def test_what_does_not_exist(library):
    for what in (MISSING_ID, "x"):
        for method, path in (("DELETE", ""), ("POST", "/restore"), ("PATCH", "")):
            for kind in ("samples", "prompts"):
                body = {"json": {}} if method != "DELETE" else {}
                check_problem(library.req(method, f"/v1/{kind}/{what}{path}", **body), 404, "not-found")
    check_problem(library.post(f"/v1/samples/{MISSING_ID}/restore", {"x": 1}), 422)
    check_problem(library.req("DELETE", f"/v1/samples/{MISSING_ID}?x=1"), 400)


def test_many_at_once(library):
    job = library.run(prompt="many", num_samples=4, duration_s=0.1)
    mine = [s["sample_id"] for s in job["samples"]]
    assert library.req("DELETE", f"/v1/samples/{mine[0]}").status_code == 204
    reply = library.post("/v1/samples/delete", {"ids": [*mine, MISSING_ID, "x"]})
    assert reply.status_code == 200
    assert reply.json() == {"deleted": mine[1:], "gone": mine[:1], "not_found": [MISSING_ID, "x"]}
    assert not set(mine) & set(listed(library))
    reply = library.post("/v1/samples/restore", {"ids": mine + [MISSING_ID]})
    assert reply.json() == {"restored": mine, "gone": [], "not_found": [MISSING_ID]}
    assert set(mine) <= set(listed(library))
    # One that is named twice is deleted once.
    reply = library.post("/v1/samples/delete", {"ids": [mine[0], mine[0], *mine[1:]]})
    assert reply.json()["deleted"] == mine
    assert reply.json()["gone"] == mine[:1]


@pytest.mark.parametrize(("body", "pointer", "code"), [
    ({}, "/ids", "missing"), ({"ids": []}, "/ids", "out_of_range"), ({"ids": "x"}, "/ids", "wrong_type"),
    ({"ids": [1]}, "/ids/0", "wrong_type"), ({"ids": ["x"] * 501}, "/ids", "out_of_range"), ({"id": ["x"]}, "/id", "unknown_field")])
@pytest.mark.parametrize("what", ["delete", "restore"])
def test_wrong_lists_are_refused(library, what, body, pointer, code):
    problem = check_problem(library.post(f"/v1/samples/{what}", body), 422, "validation")
    assert pointers(problem)[pointer]["code"] == code


def test_as_many_as_may_be_at_once(library):
    asked = [f"0197ffff-0000-7000-8000-{i:012d}" for i in range(500)]
    for what in ("delete", "restore"):
        reply = library.post(f"/v1/samples/{what}", {"ids": asked})
        assert reply.status_code == 200
        assert reply.json()["not_found"] == asked


def test_the_audio_of_a_deleted_job_is_not_restored(library):
    job = library.run(prompt="with its job", duration_s=0.1)
    mine = job["samples"][0]["sample_id"]
    if library.req("DELETE", f"/v1/jobs/{job['id']}").status_code != 204:
        pytest.fail("jobs cannot be deleted")
    check_problem(library.get(f"/v1/samples/{mine}"), 410, "gone")
    check_problem(library.post(f"/v1/samples/{mine}/restore"), 410, "gone")
    assert library.post("/v1/samples/restore", {"ids": [mine]}).json() == {"restored": [], "gone": [mine], "not_found": []}


def test_what_was_deleted_is_purged_in_time(make_server):
    server = make_server("--deleted-retention", "0ms")
    job = server.run(prompt="soon gone", duration_s=0.1)
    mine = job["samples"][0]["sample_id"]
    assert server.req("DELETE", f"/v1/samples/{mine}").status_code == 204
    wait_until(lambda: server.get(f"/v1/samples/{mine}").status_code == 404, 60, "the sample to be purged")
    check_problem(server.post(f"/v1/samples/{mine}/restore"), 404, "not-found")


# ---- Prompts ----------------------------------------------------------------------------------------------------


def prompt_ids(server, **query):
    return ids(server.all("/v1/prompts?" + urlencode({"limit": 2, **query})))


def test_prompts_by_word(library):
    a = library.prompt("Zither in the rain", title="Opening")["id"]
    b = library.prompt("Rain on a roof", attributes={"mood": "zestful", "instruments": ["zither"]})["id"]
    assert prompt_ids(library, q="zither") == [b, a]
    assert prompt_ids(library, q="zither", sort="oldest") == [a, b]
    assert prompt_ids(library, q="rain zith") == [b, a]
    assert prompt_ids(library, q="opening rain") == [a]
    assert prompt_ids(library, q="zestful") == [b]
    assert prompt_ids(library, q="zither", created_after="2100-01-01T00:00:00Z") == []
    assert library.ok("/v1/prompts?q=zither&total=1&limit=1")["total"] == 2


def test_prompts_by_attribute(library):
    def wanted(**attributes):
        return prompt_ids(library, attributes=json.dumps(attributes))

    a = library.prompt("x", attributes={"key": "c minor", "bpm": 81, "with": ["oboe", "horn"], "live": True})["id"]
    b = library.prompt("y", attributes={"key": "c minor", "bpm": 81.0, "with": "oboe", "live": False})["id"]
    assert wanted(key="c minor") == wanted(bpm=81) == wanted(bpm=81.0) == [b, a]
    assert wanted(key="c minor", live=True) == [a]
    assert set(wanted(**{"with": "oboe"})) == {a, b}
    assert wanted(**{"with": "horn"}) == [a]
    assert wanted(key="C minor") == wanted(bpm="81") == wanted(other="x") == []
    eight = {f"k{i}": i for i in range(8)}
    c = library.prompt("z", attributes=eight)["id"]
    assert wanted(**eight) == [c]


def test_a_prompt_is_changed_but_not_its_text(library):
    made = library.prompt("to be changed", attributes={"mood": "odd"})
    url = f"/v1/prompts/{made['id']}"
    etag = library.get(url).headers["ETag"]
    reply = library.patch(url, {"title": "A title"}, headers={"If-Match": etag})
    assert reply.status_code == 200
    assert reply.json() == {**made, "title": "A title"} == library.ok(url)
    check_problem(library.patch(url, {"title": "Late"}, headers={"If-Match": etag}), 412, "precondition-failed")
    assert library.patch(url, {"attributes": {"mood": "even"}}).json()["attributes"] == {"mood": "even"}
    assert library.ok(url)["title"] == "A title"
    assert library.patch(url, {}).json() == library.ok(url)
    problem = check_problem(library.patch(url, {"text": "other"}), 422)
    assert pointers(problem)["/text"]["code"] == "unknown_field"
    assert library.patch(url, {"title": "x" * 200}).status_code == 200
    for body, pointer in (({"title": "x" * 201}, "/title"), ({"attributes": []}, "/attributes"), ({"attributes": None}, "/attributes"),
                          ({"attributes": {"x": "y" * 4100}}, "/attributes")):
        assert pointer in pointers(check_problem(library.patch(url, body), 422))


def test_a_prompt_is_deleted_and_restored(library):
    made = library.prompt("vanishing oboe")
    url = f"/v1/prompts/{made['id']}"
    assert library.req("DELETE", url).status_code == 204
    check_problem(library.get(url), 410, "gone")
    check_problem(library.patch(url, {"title": "x"}), 410, "gone")
    check_problem(library.req("DELETE", url), 410, "gone")
    assert prompt_ids(library, q="vanishing") == []
    problem = check_problem(library.post("/v1/jobs", {"prompt_id": made["id"]}), 404)
    assert "/prompt_id" in pointers(problem)
    assert library.post(url + "/restore").json() == made
    assert library.post(url + "/restore").json() == made
    assert prompt_ids(library, q="vanishing") == [made["id"]]
    events = [e["event"] for e in read_db(library.data, "SELECT event FROM events WHERE subject = ? ORDER BY seq", made["id"])]
    assert events == ["created", "deleted", "restored"]


# ---- Jobs -------------------------------------------------------------------------------------------------------


def test_jobs_between_two_times(library):
    jobs = sorted(library.all("/v1/jobs?limit=100"), key=lambda j: (j["created_at"], j["id"]))
    first, last = jobs[1]["created_at"], jobs[3]["created_at"]
    found = library.all(f"/v1/jobs?limit=1&created_after={first}&created_before={last}")
    assert set(ids(found)) == {j["id"] for j in jobs if first < j["created_at"] < last}
    assert library.all(f"/v1/jobs?created_before={jobs[0]['created_at']}") == []


def test_jobs_of_a_model(library):
    model = library.jobs[0]["model"]["name"]
    assert len(library.all(f"/v1/jobs?model={model}&limit=100")) == len(library.all("/v1/jobs?limit=100"))
    assert library.all("/v1/jobs?model=none") == []
