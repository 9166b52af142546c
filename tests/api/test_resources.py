# SPDX-License-Identifier: MIT
"""What all resources have in common: tags, conditional requests, HEAD, deletion, waiting."""
import pytest

from harness import FINAL, MISSING_ID, MODEL, check_problem, pointers, wait_until


@pytest.fixture(scope="module")
def made(live, clip):
    """One URL of each kind of resource."""
    sample = clip[0]
    comparison = live.post("/v1/comparisons", {"sample_ids": [sample["id"], sample["id"]]}).json()
    return {"prompt": f"/v1/prompts/{sample['prompt']['id']}", "job": sample["urls"]["job"], "sample": sample["urls"]["self"],
            "adapter": f"/v1/adapters/{live.adapters()['chiptune']['id']}", "model": f"/v1/models/{MODEL.name}",
            "comparison": f"/v1/comparisons/{comparison['id']}", "prompts": "/v1/prompts", "jobs": "/v1/jobs",
            "samples": "/v1/samples", "adapters": "/v1/adapters", "models": "/v1/models", "comparisons": "/v1/comparisons"}


KINDS = ["prompt", "job", "sample", "adapter", "model", "comparison", "prompts", "jobs", "samples", "adapters", "models",
         "comparisons"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_resource_has_a_tag_and_a_head(live, made, kind):
    # What other tests left at work on this server may change between the two.
    get, head = wait_until(lambda: (pair := (live.get(made[kind]), live.head(made[kind])))[0].headers.get("ETag")
                           == pair[1].headers.get("ETag") and pair, 60, "two equal looks")
    assert get.status_code == head.status_code == 200
    assert head.content == b"" and head.headers["Content-Length"] == str(len(get.content))
    assert get.headers["ETag"] == head.headers["ETag"]
    again = live.get(made[kind], headers={"If-None-Match": f'"x", {get.headers["ETag"]}'})
    assert again.status_code == 304 and again.content == b"" and again.headers["ETag"] == get.headers["ETag"]
    assert live.get(made[kind], headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_every_resource_names_unknown_parameters(live, made, kind):
    problem = check_problem(live.get(made[kind] + "?lmit=1"), 400)
    assert problem["errors"][0]["parameter"] == "lmit"


def test_a_comparison_keeps_order_and_repetition(live, made):
    comparison = live.ok(made["comparison"])
    assert len(comparison["samples"]) == 2 and comparison["mode"] == "view"
    listed = [c for c in live.all("/v1/comparisons") if c["id"] == comparison["id"]]
    assert listed[0]["sample_ids"] == [s["id"] for s in comparison["samples"]]


# ---- Deletion


def test_a_deleted_prompt_is_gone_for_good(api):
    prompt = api.prompt("soon deleted")
    url = f"/v1/prompts/{prompt['id']}"
    job = api.submit(prompt_id=prompt["id"])
    assert api.req("DELETE", url).status_code == 204
    for reply in (api.get(url), api.req("DELETE", url)):
        check_problem(reply, 410)
    assert prompt["id"] not in [p["id"] for p in api.all("/v1/prompts")]
    assert "/prompt_id" in pointers(check_problem(api.post("/v1/jobs", {"prompt_id": prompt["id"]}), 404))
    # The job that was accepted keeps its text; the same text again is another record.
    assert api.job(job)["prompt"]["text"] == "soon deleted"
    assert api.submit(prompt="soon deleted")["prompt_id"] != prompt["id"]
    for one in (MISSING_ID, "not-an-id"):
        check_problem(api.req("DELETE", f"/v1/prompts/{one}"), 404)


def test_deletion_honours_if_match(api):
    url = f"/v1/prompts/{api.prompt('kept for a while')['id']}"
    tag = api.get(url).headers["ETag"]
    for wrong in ('"x"', f"W/{tag}"):
        check_problem(api.req("DELETE", url, headers={"If-Match": wrong}), 412)
    assert api.get(url).status_code == 200
    assert api.req("DELETE", url, headers={"If-Match": tag}).status_code == 204


# ---- Waiting


def test_a_submission_that_waits_sees_the_end(live):
    reply = live.post("/v1/jobs", {"prompt": "x", "duration_s": 0.3}, headers={"Prefer": "respond-async, wait=60"})
    assert reply.status_code == 201
    assert reply.json()["state"] == "completed"
    assert reply.headers["Location"] == f"/v1/jobs/{reply.json()['id']}"
    assert reply.headers["Preference-Applied"] == "wait=60"


def test_a_submission_whose_wait_is_over_is_202(api):
    reply = api.post("/v1/jobs", {"prompt": "x"}, headers={"Prefer": "wait=1"})
    assert reply.status_code == 202
    assert reply.json()["state"] == "queued"


def test_waiting_for_what_is_final_or_wrong_does_not_wait(api, live, made):
    assert live.get(made["job"], headers={"Prefer": "wait=300"}).json()["state"] in FINAL
    check_problem(api.get(f"/v1/jobs/{MISSING_ID}", headers={"Prefer": "wait=300"}), 404)
    check_problem(api.post("/v1/jobs", {"prompt": 1}, headers={"Prefer": "wait=300"}), 422)
    for odd in ("wait", "wait=", "wait=x", "wait=-1", 'wait="'):
        assert live.get(made["job"], headers={"Prefer": odd}).status_code == 200


def test_a_shutdown_ends_long_polls(make_server):
    import threading

    server = make_server(workers=0)
    job = server.submit(prompt="x")
    replies = []

    def poll():
        import requests

        replies.append(requests.get(f"{server.url}/v1/jobs/{job['id']}", headers={"Prefer": "wait=300"}, timeout=120))

    thread = threading.Thread(target=poll)
    thread.start()
    for _ in range(20):
        server.job(job)
    assert server.stop() == 0
    thread.join()
    assert replies[0].status_code == 200 and replies[0].json()["state"] == "queued"


# ---- Numbers


@pytest.mark.parametrize("text,status", [("4", 202), ("4.0", 202), ("9223372036854775808", 422), ("1" * 400, 400), ("4e0", 202)])
def test_numbers_of_any_spelling(api, text, status):
    reply = api.req("POST", "/v1/jobs", data=f'{{"prompt":"18446744073709551616","num_samples":{text}}}',
                    headers={"Content-Type": "application/json"})
    assert reply.status_code == status, reply.text
    if status == 422:
        assert "/num_samples" in pointers(reply.json())
