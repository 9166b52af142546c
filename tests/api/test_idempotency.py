# SPDX-License-Identifier: MIT
"""Idempotency-Key: a request that is sent again makes nothing again, whatever happened in between."""
import random
import threading
import time
import uuid

import pytest
import requests

from harness import MISSING_ID, check_problem, read_db

MAKING = [  # path, body, the same body written otherwise, another body
    ("/v1/prompts", '{"text":"a quiet harp","title":"t"}', '{ "title": "\\u0074", "text" : "a quiet harp" }',
     '{"text":"a loud harp"}'),
    ("/v1/jobs", '{"prompt":"a quiet harp","duration_s":1,"seed":5}', '{"seed":5.0e0,"duration_s":1.0,"prompt":"a quiet harp"}',
     '{"prompt":"a quiet harp","duration_s":2,"seed":5}'),
]


def send(server, path, text, key, **headers):
    return server.req("POST", path, data=text.encode(), headers={"Content-Type": "application/json",
                                                                 "Idempotency-Key": key, **headers})


@pytest.mark.parametrize("path,body,same,other", MAKING)
def test_a_repeated_request_is_answered_with_what_it_made(api, path, body, same, other):
    key = str(uuid.uuid4())
    first = send(api, path, body, key)
    assert first.status_code in (201, 202), first.text
    assert "Idempotency-Replayed" not in first.headers
    for text, again in ((body, key), (same, key), (body, f'"{key}"')):
        reply = send(api, path, text, again)
        assert reply.status_code == first.status_code, reply.text
        assert reply.headers["Idempotency-Replayed"] == "true"
        assert reply.headers["Location"] == first.headers["Location"]
        assert reply.json() == api.ok(first.headers["Location"])
        assert reply.json()["id"] == first.json()["id"]
    check_problem(send(api, path, other, key), 422, "idempotency-key-reused")
    # Another path is another request, and so is the same body with another key.
    check_problem(send(api, "/v1/prompts" if path == "/v1/jobs" else "/v1/jobs", body, key), 422, "idempotency-key-reused")
    fresh = send(api, path, body, str(uuid.uuid4()))
    assert fresh.status_code == first.status_code and fresh.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key,status", [
    ("k" * 254, 202), ("k" * 255, 202), ("k" * 256, 400), ('"' + "q" * 255 + '"', 202), ('"' + "q" * 256 + '"', 400),
    ("!~", 202), ('"a\\"b"', 202), ("a b", 400), ('"unclosed', 400), ('""', 400), ("", 400), ('"a";b=1', 400)])
def test_what_a_key_may_be(api, key, status):
    reply = send(api, "/v1/jobs", '{"prompt":"syntax"}', key)
    assert reply.status_code == status, reply.text
    if status == 400:
        assert "Idempotency-Key" in check_problem(reply, 400)["detail"]


def test_two_keys_in_one_request_are_refused(api):
    body = b'{"prompt":"twice"}'
    reply, _ = api.raw(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                       b"Idempotency-Key: a\r\nIdempotency-Key: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert reply.startswith(b"HTTP/1.1 400 ")


def test_the_body_of_the_reply_is_the_current_one(api):
    key = str(uuid.uuid4())
    first = send(api, "/v1/jobs", '{"prompt":"now"}', key).json()
    assert api.cancel(first).status_code == 200
    again = send(api, "/v1/jobs", '{"prompt":"now"}', key)
    assert again.status_code == 202
    assert again.json()["state"] == "cancelled"
    # The prompt is gone: a new job would be refused, the repeated request is not.
    by_id = f'{{"prompt_id":"{first["prompt_id"]}"}}'
    key = str(uuid.uuid4())
    made = send(api, "/v1/jobs", by_id, key)
    assert made.status_code == 202
    assert api.req("DELETE", f"/v1/prompts/{first['prompt_id']}").status_code == 204
    check_problem(send(api, "/v1/jobs", by_id, str(uuid.uuid4())), 404)
    again = send(api, "/v1/jobs", by_id, key)
    assert (again.status_code, again.json()["id"]) == (202, made.json()["id"])


def test_a_refused_request_leaves_its_key_free(api):
    key = str(uuid.uuid4())
    check_problem(send(api, "/v1/jobs", '{"prompt":"x","seeed":1}', key), 422, "validation")
    check_problem(send(api, "/v1/jobs", f'{{"prompt_id":"{MISSING_ID}"}}', key), 404)
    check_problem(send(api, "/v1/jobs", '{"prompt":', key), 400, "bad-json")
    reply = send(api, "/v1/jobs", '{"prompt":"x"}', key)
    assert reply.status_code == 202 and "Idempotency-Replayed" not in reply.headers


def test_a_full_queue_refuses_new_requests_not_repeated_ones(make_server):
    server = make_server("--queue-limit", "1", workers=0)
    made = send(server, "/v1/jobs", '{"prompt":"one"}', "a")
    assert made.status_code == 202
    check_problem(send(server, "/v1/jobs", '{"prompt":"two"}', "b"), 429)
    assert send(server, "/v1/jobs", '{"prompt":"one"}', "a").json()["id"] == made.json()["id"]
    assert server.cancel(made.json()).status_code == 200
    reply = send(server, "/v1/jobs", '{"prompt":"two"}', "b")
    assert reply.status_code == 202 and "Idempotency-Replayed" not in reply.headers


def test_a_repeated_submission_may_wait_for_the_end(live):
    key = str(uuid.uuid4())
    body = '{"prompt":"waited for","duration_s":0.2}'
    first = send(live, "/v1/jobs", body, key)
    assert first.status_code == 202
    again = send(live, "/v1/jobs", body, key, Prefer="wait=60")
    assert again.status_code == 201
    assert again.json()["id"] == first.json()["id"] and again.json()["state"] == "completed"
    assert again.headers["Idempotency-Replayed"] == "true"


def test_keys_outlive_a_restart_and_a_comparison_has_them_too(make_server):
    server = make_server()
    job = server.run(prompt="kept", duration_s=0.2)
    body = f'{{"sample_ids":["{job["samples"][0]["sample_id"]}"]}}'
    first = send(server, "/v1/comparisons", body, "c")
    assert first.status_code == 201
    assert server.stop() == 0
    server.start()
    again = send(server, "/v1/comparisons", body, "c")
    assert again.status_code == 201 and again.json()["id"] == first.json()["id"]
    assert len(server.all("/v1/comparisons")) == 1


class Submitter(threading.Thread):
    """Sends one submission again and again until it is answered with a job, as a client does that lost the reply."""

    def __init__(self, server, key, until):
        super().__init__(daemon=True)
        self.server, self.key, self.until, self.answers = server, key, until, []

    def run(self):
        while time.monotonic() < self.until:
            try:
                with requests.Session() as session:
                    session.trust_env = False
                    reply = session.post(f"{self.server.url}/v1/jobs", json={"prompt": "one and the same", "seed": 7},
                                         headers={"Idempotency-Key": self.key}, timeout=60)
                self.answers.append(reply)
                if reply.status_code == 202:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.02)


def test_parallel_equal_requests_and_kill_9_make_one_job(make_server):
    """Hard case 16: 100 parallel equal submissions, the server killed in the middle, repeated."""
    server = make_server(workers=0)
    chance = random.Random(16)
    for round_number in range(4):
        key = f"round-{round_number}"
        threads = [Submitter(server, key, time.monotonic() + 300) for _ in range(100)]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0, 0.15))
        server.kill_server()
        server.start()
        for thread in threads:
            thread.join(300)
        assert all(t.answers and t.answers[-1].status_code == 202 for t in threads)
        odd = [r.text for t in threads for r in t.answers if r.status_code not in (202, 503)]
        assert not odd, odd[:3]
        assert len({t.answers[-1].json()["id"] for t in threads}) == 1
        assert len(server.all("/v1/jobs?limit=100")) == round_number + 1
    assert len(read_db(server.data, "SELECT * FROM idempotency")) == 4
