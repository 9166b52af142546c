# SPDX-License-Identifier: MIT
"""What the server refuses, and how: problems for every status, limits, framing, hosts and origins."""
import json
import random
import re
import socket
import threading

import pytest
import requests

import harness
from harness import MAX_SEED, MISSING_ID, check_problem, pointers

JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def stays_up(api):
    """Whatever a test sends, the server lives on and answers."""
    yield
    assert api.process.poll() is None, api.log()
    assert api.get("/healthz").status_code == 200


def post_raw(api, path, data, headers=None):
    return api.req("POST", path, data=data, headers=JSON if headers is None else headers)


# ---- Routes and methods


@pytest.mark.parametrize("path", [
    "/nowhere", "/v1", "/v1/", "/v2/jobs", "/v1/job", "/v1/jobs/", "//v1/jobs", "/v1//jobs", "/v1/jobs/x/y/z",
    f"/v1/jobs/{MISSING_ID}", f"/v1/samples/{MISSING_ID}", f"/v1/prompts/{MISSING_ID}", f"/v1/adapters/{MISSING_ID}",
    f"/v1/comparisons/{MISSING_ID}", "/v1/jobs/not-an-id", "/v1/samples/..%2f..%2faulos.db/audio",
    "/v1/samples/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/models/no-such-model", "/v1/samples/..%5c..%5cx/audio"])
def test_what_is_not_there_is_404(api, path):
    check_problem(api.get(api.url + path), 404)


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/jobs/a%00b", "/v1/jobs/%zz", "/v1/jobs/%", "/v1/jobs/%c3%28"])
def test_odd_escapes_are_refused(api, path):
    answer, _ = api.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nConnection: close\r\n\r\n".encode())
    assert int(answer.split()[1]) in (400, 404), answer[:200]


def test_dot_segments_reach_nothing(api):
    for path in ("/v1/../../etc/passwd", "/../aulos.db", "/v1/samples/../../aulos.db"):
        answer, _ = api.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nConnection: close\r\n\r\n".encode())
        assert int(answer.split()[1]) in (400, 404), answer[:200]
        assert b"SQLite" not in answer and b"root:" not in answer


@pytest.mark.parametrize("method,path", [
    ("PUT", "/v1/jobs"), ("DELETE", "/v1/jobs"), ("PATCH", "/v1/prompts"), ("POST", "/healthz"), ("POST", "/readyz"),
    ("PUT", "/v1/comparisons"), ("GET", f"/v1/jobs/{MISSING_ID}/cancel"), ("POST", f"/v1/samples/{MISSING_ID}")])
def test_wrong_method_is_405_with_allow(api, method, path):
    reply = api.req(method, path, json={} if method != "GET" else None)
    check_problem(reply, 405)
    assert reply.headers["Allow"]
    assert method not in [m.strip() for m in reply.headers["Allow"].split(",")]


def test_unknown_method_is_refused(api):
    reply = api.req("BREW", "/v1/jobs")
    check_problem(reply, 405, "method-not-allowed")
    check_problem(api.req("BREW", "/nowhere"), 404)


def test_health_and_readiness(api, live):
    assert api.get("/healthz").status_code == 200
    assert live.get("/readyz").status_code == 200
    ready = live.ok("/readyz")
    assert ready, "readyz says nothing"


@pytest.mark.parametrize("name", ["db", "store", "worker", "disk"])
def test_readiness_tells_each_part(live, name):
    assert live.ok("/readyz")["checks"][name]["ok"] is True


def test_readiness_says_what_is_wrong(make_server):
    server = make_server("--min-free-disk", "1000000G", workers=0)
    problem = check_problem(server.get("/readyz"), 503)
    assert problem["checks"]["disk"]["ok"] is False and problem["checks"]["disk"]["reason"]
    assert problem["checks"]["db"]["ok"] is True


def test_a_shutdown_is_seen_in_readiness_while_a_job_is_finished(make_server):
    server = make_server()
    job = server.submit(prompt="x", duration_s=10 * harness.LENGTH, num_samples=8)
    server.wait(job, "processing")
    server.process.send_signal(harness.signal.SIGTERM)

    def refused():
        try:
            return server.get("/readyz").status_code == 503
        except harness.requests.ConnectionError:
            return True

    harness.wait_until(refused, 30, "readiness to end")
    assert server.process.wait(60 * harness.SLOW) == 0


def test_every_reply_has_its_own_request_id(api):
    ids = {api.get(p).headers["X-Request-Id"] for p in ("/healthz", "/v1/jobs", "/nowhere", "/v1/prompts")}
    assert len(ids) == 4


# ---- Bodies


@pytest.mark.parametrize("path", ["/v1/prompts", "/v1/jobs", "/v1/comparisons"])
@pytest.mark.parametrize("body", [
    b"", b" ", b"{", b"{]", b'{"text":"a"} x', b"{'text':'a'}", b'{"text":"a",}', b"\xef\xbb\xbf{}", b'{"text":"\xff"}',
    b'{"text":"\xc3"}', b'{"text":"\\ud800"}', b'{"text":"\\udc00x"}', b'{"text":NaN}', b'{"text":Infinity}',
    b'{"text":1e999}', b'{"text":01}', b'{"text":"\n"}', b'{"text":"a","text":"a"}', b'{"params":{"top_k":1,"top_k":1}}',
    b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"nul", b"{}{}"],
    ids=lambda b: b[:24].decode("latin-1") if isinstance(b, bytes) else b.rsplit("/", 1)[1])
def test_what_is_not_json_is_400(api, path, body):
    check_problem(post_raw(api, path, body), 400)


@pytest.mark.parametrize("path", ["/v1/prompts", "/v1/jobs", "/v1/comparisons"])
@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"true"])
def test_json_that_is_no_object_is_refused(api, path, body):
    reply = post_raw(api, path, body)
    assert reply.status_code in (400, 422)
    check_problem(reply, reply.status_code)


def test_nul_in_a_string_is_refused(api):
    reply = post_raw(api, "/v1/prompts", b'{"text":"a\\u0000b"}')
    assert reply.status_code in (400, 422)
    check_problem(reply, reply.status_code)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data",
                                  "application/jsonx", None])
def test_another_content_type_is_415(api, kind):
    check_problem(post_raw(api, "/v1/prompts", b'{"text":"a"}', {"Content-Type": kind} if kind else {}), 415)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
def test_json_content_types_are_taken(api, kind):
    assert post_raw(api, "/v1/prompts", b'{"text":"a"}', {"Content-Type": kind}).status_code == 201


def test_too_large_a_body_is_413(api):
    huge = json.dumps({"text": "x" * (16 << 20)}).encode()
    try:
        reply = post_raw(api, "/v1/prompts", huge)
    except harness.requests.ConnectionError:
        # The server may close before the body is through; its answer must then have been a 413.
        head = f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n" \
               f"Content-Length: {len(huge)}\r\n\r\n"
        answer, _ = api.raw(head.encode())
        assert answer.split()[1] == b"413", answer[:200]
    else:
        check_problem(reply, 413)


def test_a_declared_huge_body_is_refused_before_it_is_sent(api):
    answer, _ = api.raw((f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
                         "Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n").encode())
    assert answer.split()[1] == b"413", answer[:200]


def test_chunked_bodies_are_read_and_capped(api):
    head = (f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n").encode()
    answer, _ = api.raw(head + b'6\r\n{"text\r\n6\r\n":"a"}\r\n0\r\n\r\n')
    assert answer.split()[1] == b"201", answer[:200]
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer, _ = api.raw(head + chunk * 300 + b"0\r\n\r\n")
    assert answer == b"" or answer.split()[1] == b"413", answer[:200]


# ---- Fields


def job_body(**more):
    return {"prompt": "a piano", "duration_s": 0.5, **more}


@pytest.mark.parametrize("path,body,pointer,near", [
    ("/v1/jobs", job_body(seeed=1), "/seeed", "seed"),
    ("/v1/jobs", job_body(num_sample=1), "/num_sample", "num_samples"),
    ("/v1/jobs", job_body(params={"guidence": 3}), "/params/guidence", "guidance"),
    ("/v1/jobs", job_body(params={"topk": 3}), "/params/topk", "top_k"),
    ("/v1/jobs", job_body(variants=[{"adaptor": None}]), "/variants/0/adaptor", "adapter"),
    ("/v1/prompts", {"text": "a", "titel": "b"}, "/titel", "title"),
    ("/v1/comparisons", {"sample_id": []}, "/sample_id", "sample_ids")])
def test_unknown_fields_are_refused_with_the_right_one(api, path, body, pointer, near):
    error = pointers(check_problem(api.post(path, body), 422))[pointer]
    assert error["code"] == "unknown_field"
    assert error["did_you_mean"] == near


def test_a_field_far_from_any_has_no_suggestion(api):
    error = pointers(check_problem(api.post("/v1/jobs", job_body(zzzzqqqq=1)), 422))["/zzzzqqqq"]
    assert error["code"] == "unknown_field"
    assert not error.get("did_you_mean")


def test_a_pointer_escapes_slash_and_tilde(api):
    assert "/a~1b~0c" in pointers(check_problem(api.post("/v1/prompts", {"text": "a", "a/b~c": 1}), 422))


def test_all_wrong_fields_are_listed_at_once(api):
    problem = check_problem(api.post("/v1/jobs", job_body(num_samples=17, seeed=1)), 422, "validation")
    errors = pointers(problem)
    assert errors["/num_samples"]["code"] == "out_of_range"
    assert errors["/num_samples"]["min"] == 1 and errors["/num_samples"]["max"] == 16
    assert errors["/seeed"]["did_you_mean"] == "seed"


GOOD = [
    {"num_samples": 1}, {"num_samples": 16}, {"duration_s": 0.02}, {"duration_s": 30}, {"duration_s": 30.0}, {"seed": 0},
    {"seed": MAX_SEED}, {"seed": None}, {"priority": -100}, {"priority": 100}, {"params": {}}, {"params": {"guidance": 1}},
    {"params": {"temperature": 0.01}}, {"params": {"top_k": 0}}, {"params": {"top_k": 1}}, {"params": {"top_p": 0}},
    {"params": {"top_p": 1}}, {"params": {"top_p": 0.9}}, {"params": {"preset": "hf"}}, {"params": {"preset": "audiocraft"}},
    {"format": "wav"}, {"label": "evening"}, {"variants": [{"adapter": None}]}, {"adapter": None}, {"prompt": ""},
    {"model": harness.MODEL.name}, {"deadline_s": 3600}]


@pytest.mark.parametrize("more", GOOD, ids=json.dumps)
def test_values_at_the_limits_are_taken(api, more):
    reply = api.post("/v1/jobs", job_body(**more))
    assert reply.status_code == 202, reply.text
    assert api.cancel(reply.json()).status_code == 200


BAD = [
    ({"num_samples": 0}, "/num_samples"), ({"num_samples": 17}, "/num_samples"), ({"num_samples": -1}, "/num_samples"),
    ({"num_samples": 10000}, "/num_samples"), ({"num_samples": 2**63}, "/num_samples"), ({"num_samples": 1.5}, "/num_samples"),
    ({"num_samples": "4"}, "/num_samples"), ({"num_samples": True}, "/num_samples"), ({"num_samples": []}, "/num_samples"),
    ({"duration_s": 0}, "/duration_s"), ({"duration_s": -1}, "/duration_s"), ({"duration_s": 30.5}, "/duration_s"),
    ({"duration_s": 10000}, "/duration_s"), ({"duration_s": 1e300}, "/duration_s"), ({"duration_s": "1"}, "/duration_s"),
    ({"seed": -1}, "/seed"), ({"seed": MAX_SEED + 1}, "/seed"), ({"seed": 1.5}, "/seed"), ({"seed": "7"}, "/seed"),
    ({"seed": 2**64}, "/seed"), ({"priority": 101}, "/priority"), ({"priority": -101}, "/priority"),
    ({"params": {"guidance": 0.99}}, "/params/guidance"), ({"params": {"guidance": 1e300}}, "/params/guidance"),
    ({"params": {"guidance": "3"}}, "/params/guidance"), ({"params": {"temperature": 0}}, "/params/temperature"),
    ({"params": {"temperature": -1}}, "/params/temperature"), ({"params": {"top_k": -1}}, "/params/top_k"),
    ({"params": {"top_k": 1.5}}, "/params/top_k"), ({"params": {"top_p": -0.1}}, "/params/top_p"),
    ({"params": {"top_p": 1.1}}, "/params/top_p"), ({"params": {"preset": "rock"}}, "/params/preset"),
    ({"params": 3}, "/params"), ({"params": None}, "/params"), ({"format": "MP3"}, "/format"), ({"format": "xyz"}, "/format"),
    ({"format": 1}, "/format"), ({"label": 5}, "/label"), ({"variants": []}, "/variants"), ({"variants": {}}, "/variants"),
    ({"variants": [1]}, "/variants/0"), ({"prompt": 5}, "/prompt"), ({"prompt": None}, "/prompt"),
    ({"model": "no-such-model"}, "/model"), ({"model": 1}, "/model"), ({"deadline_s": 0}, "/deadline_s"),
    ({"deadline_s": -5}, "/deadline_s")]


@pytest.mark.parametrize("more,pointer", BAD, ids=lambda v: json.dumps(v) if isinstance(v, dict) else v)
def test_values_past_the_limits_are_422_and_make_nothing(api, more, pointer):
    before = len(harness.read_db(api.data, "SELECT id FROM jobs"))
    problem = check_problem(api.post("/v1/jobs", job_body(**more)), 422)
    assert pointer in pointers(problem), problem
    assert pointers(problem)[pointer]["code"]
    assert len(harness.read_db(api.data, "SELECT id FROM jobs")) == before


@pytest.mark.parametrize("strength,good", [(-2, True), (2, True), (0, True), (0.5, True), (2.01, False), (-2.01, False),
                                           ("1", False), (1e300, False)])
def test_limits_of_strength(api, strength, good):
    body = job_body(variants=[{"adapter": {"name": "chiptune", "strength": strength}}])
    reply = api.post("/v1/jobs", body)
    if good:
        assert reply.status_code == 202, reply.text
        assert reply.json()["variants"][0]["adapter"]["strength"] == strength
        api.cancel(reply.json())
    else:
        assert "/variants/0/adapter/strength" in pointers(check_problem(reply, 422))


@pytest.mark.parametrize("body", [
    {"duration_s": 1}, {"prompt": "a", "prompt_id": MISSING_ID},
    {"prompt": "a", "adapter": None, "variants": [{"adapter": None}]}], ids=["no prompt", "two prompts", "adapter twice"])
def test_fields_that_exclude_or_need_each_other(api, body):
    check_problem(api.post("/v1/jobs", body), 422)


@pytest.mark.parametrize("adapter,pointer", [
    (MISSING_ID, "/adapter"), ({"id": MISSING_ID}, "/adapter"), ({"name": "no-such-adapter"}, "/adapter")])
def test_unknown_adapter_is_404_with_its_pointer(api, adapter, pointer):
    problem = check_problem(api.post("/v1/jobs", job_body(adapter=adapter)), 404)
    assert any(p.startswith(pointer) for p in pointers(problem)), problem


def test_unknown_adapter_of_a_variant_names_the_variant(api):
    problem = check_problem(api.post("/v1/jobs", job_body(variants=[{"adapter": None}, {"adapter": MISSING_ID}])), 404)
    assert any(p.startswith("/variants/1/adapter") for p in pointers(problem)), problem


def test_unknown_prompt_is_404(api):
    assert "/prompt_id" in pointers(check_problem(api.post("/v1/jobs", {"prompt_id": MISSING_ID}), 404))


def test_a_prompt_beyond_the_cap_is_refused(api):
    for path, body in (("/v1/prompts", {"text": "piano " * 20000}), ("/v1/jobs", {"prompt": "piano " * 20000})):
        reply = api.post(path, body)
        assert reply.status_code in (413, 422)
        check_problem(reply, reply.status_code)


@pytest.mark.parametrize("body", [{}, {"text": None}, {"text": 5}, {"text": ["a"]}])
def test_a_prompt_needs_a_text(api, body):
    assert "/text" in pointers(check_problem(api.post("/v1/prompts", body), 422))


def test_unknown_samples_of_a_comparison_are_all_listed(live, clip):
    other = MISSING_ID[:-1] + "1"
    problem = check_problem(live.post("/v1/comparisons", {"sample_ids": [MISSING_ID, clip[0]["id"], other]}), 404)
    assert set(pointers(problem)) == {"/sample_ids/0", "/sample_ids/2"}


@pytest.mark.parametrize("body", [{}, {"sample_ids": []}, {"sample_ids": "x"}, {"sample_ids": [1]}, {"mode": "view"}])
def test_a_comparison_needs_sample_ids(api, body):
    check_problem(api.post("/v1/comparisons", body), 422)


# ---- Queries


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/prompts", "/v1/samples"])
@pytest.mark.parametrize("query,name", [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("limit=", "limit"),
                                        ("limit=-1", "limit"), ("cursor=rubbish", "cursor"), ("bogus=1", "bogus")])
def test_bad_queries_are_400_with_the_name(api, path, query, name):
    problem = check_problem(api.get(f"{path}?{query}"), 400)
    assert name in json.dumps(problem)


@pytest.mark.parametrize("query", ["state=running", "prompt_id=x", "adapter_id=x", "created_after=yesterday"])
def test_bad_filters_are_400_with_the_name(api, query):
    problem = check_problem(api.get(f"/v1/jobs?{query}"), 400)
    assert query.split("=")[0] in json.dumps(problem)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/prompts"])
def test_pages_join_without_gap_or_double(api, path):
    for i in range(5):
        api.prompt(f"page {i}")
        api.cancel(api.submit(**job_body(label="pages")))
    whole = [x["id"] for x in api.all(f"{path}?limit=100")]
    assert len(whole) == len(set(whole)) >= 5
    assert [x["id"] for x in api.all(f"{path}?limit=3")] == whole
    page = api.get(f"{path}?limit=3")
    assert page.json()["has_more"] is True and len(page.json()["data"]) == 3
    assert page.links["next"]["url"]


# ---- Hosts and origins


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "169.254.169.254"])
def test_another_host_is_421(api, host):
    check_problem(api.get("/v1/jobs", headers={"Host": host}), 421)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST"])
def test_loopback_hosts_are_taken(api, host):
    assert api.get("/v1/jobs", headers={"Host": host.format(port=api.port)}).status_code == 200


def test_allowed_hosts_is_an_option(make_server):
    server = make_server("--allowed-hosts", "studio.example", workers=0)
    assert server.get("/v1/jobs", headers={"Host": "studio.example"}).status_code == 200
    check_problem(server.get("/v1/jobs", headers={"Host": "evil.example"}), 421)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
                                     {"Sec-Fetch-Site": "cross-site"}])
def test_a_foreign_page_cannot_write(api, headers):
    check_problem(api.post("/v1/prompts", {"text": "a"}, headers=headers), 403)


def test_our_own_page_can_write(api):
    for headers in ({"Origin": api.url}, {"Sec-Fetch-Site": "same-origin", "Origin": api.url}, {"Sec-Fetch-Site": "none"}):
        assert api.post("/v1/prompts", {"text": "a"}, headers=headers).status_code == 201


def test_a_foreign_page_gets_no_cors_grant(api):
    reply = api.get("/v1/jobs", headers={"Origin": "http://evil.example"})
    assert not [h for h in reply.headers if h.lower().startswith("access-control-")]


# ---- Framing


def framing(api, *lines, body=b""):
    head = "\r\n".join(lines).replace("{host}", f"127.0.0.1:{api.port}") + "\r\n\r\n"
    return head.encode("latin-1") + body


FRAMING = {
    "CL + TE": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Content-Length: 12",
                 "Transfer-Encoding: chunked"], b'c\r\n{"text":"a"}\r\n0\r\n\r\n'),
    "two CL": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Content-Length: 12",
                "Content-Length: 13"], b'{"text":"a"}'),
    "two equal CL": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Content-Length: 12",
                      "Content-Length: 12"], b'{"text":"a"}'),
    "CL list": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Content-Length: 12, 12"],
                b'{"text":"a"}'),
    "unknown TE": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json",
                    "Transfer-Encoding: chunked, identity"], b'c\r\n{"text":"a"}\r\n0\r\n\r\n'),
    "TE gzip": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Transfer-Encoding: gzip"], b"x"),
    "two TE": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Transfer-Encoding: chunked",
                "Transfer-Encoding: chunked"], b'c\r\n{"text":"a"}\r\n0\r\n\r\n'),
    "negative CL": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Content-Length: -1"], b""),
    "signed CL": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Content-Length: +12"],
                  b'{"text":"a"}'),
    "CL no number": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json", "Content-Length: twelve"], b""),
    "no Host": (["GET /v1/jobs HTTP/1.1"], b""),
    "two Hosts": (["GET /v1/jobs HTTP/1.1", "Host: {host}", "Host: evil.example"], b""),
    "space before colon": (["GET /v1/jobs HTTP/1.1", "Host: {host}", "X-A : b"], b""),
    "obs-fold": (["GET /v1/jobs HTTP/1.1", "Host: {host}", "X-A: b", " c"], b""),
    "no request line": (["garbage"], b""),
    "bad chunk size": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json",
                        "Transfer-Encoding: chunked"], b'xyz\r\n{"text":"a"}\r\n0\r\n\r\n'),
    "chunk size overflow": (["POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json",
                             "Transfer-Encoding: chunked"], b'fffffffffffffffff\r\n{"text":"a"}\r\n0\r\n\r\n'),
}


@pytest.mark.parametrize("name", FRAMING)
def test_framing_that_two_readers_could_take_differently_is_400_and_close(api, name):
    lines, body = FRAMING[name]
    before = len(harness.read_db(api.data, "SELECT id FROM prompts"))
    smuggled = framing(api, "GET /healthz HTTP/1.1", "Host: {host}")
    answer, closed = api.raw(framing(api, *lines, body=body) + smuggled)
    # Some faults are found by the HTTP library before anything is ours to answer: it may also close without a word.
    assert closed, f"still open after {answer[:300]!r}"
    assert answer == b"" or answer.split()[1] == b"400", answer[:300]
    assert answer.count(b"HTTP/1.1 ") <= 1, f"what follows was taken as a request: {answer!r}"
    assert len(harness.read_db(api.data, "SELECT id FROM prompts")) == before


def test_content_length_past_63_bits_is_refused(api):
    answer, closed = api.raw(framing(api, "POST /v1/prompts HTTP/1.1", "Host: {host}", "Content-Type: application/json",
                                     "Content-Length: 99999999999999999999"))
    assert closed and (answer == b"" or answer.split()[1] in (b"400", b"413")), answer[:300]


def test_bare_line_feeds_are_400_and_close(api):
    answer, closed = api.raw(f"GET /v1/jobs HTTP/1.1\nHost: 127.0.0.1:{api.port}\n\n".encode())
    assert closed
    assert answer == b"" or answer.split()[1] == b"400", answer[:300]


def test_too_long_headers_are_431_and_too_long_paths_414(api):
    answer, _ = api.raw(framing(api, "GET /v1/jobs HTTP/1.1", "Host: {host}", "X-A: " + "b" * 100_000))
    assert answer.split()[1] == b"431", answer[:200]
    answer, _ = api.raw(framing(api, "GET /v1/jobs?x=" + "b" * 100_000 + " HTTP/1.1", "Host: {host}"))
    assert answer.split()[1] in (b"414", b"431"), answer[:200]


def test_a_slow_header_ends_the_connection(make_server):
    server = make_server("--header-timeout-ms", "500", workers=0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30 * harness.SLOW) as s:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHos")
        answer, closed = harness.read_all(s)
    assert closed, "an unfinished request held the connection"
    assert answer == b"" or answer.split()[1] == b"408", answer[:200]
    assert server.get("/healthz").status_code == 200


def test_requests_on_one_connection_are_answered_in_order(api):
    one = framing(api, "GET /healthz HTTP/1.1", "Host: {host}")
    two = framing(api, "GET /nowhere HTTP/1.1", "Host: {host}", "Connection: close")
    answer, closed = api.raw(one + two)
    assert closed
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answer) == [b"200", b"404"]


# ---- Many and random


def test_many_clients_submit_read_and_cancel_at_once(make_server):
    """Eight at a time: every reply is right for its own request, and the end is as if they had come one by one."""
    server = make_server(workers=2)
    jobs, cancelled, wrong = [], [], []

    def client(n):
        http = harness.requests.Session()
        http.trust_env = False
        for i in range(6):
            text = f"client {n} job {i}"
            made = http.post(server.url + "/v1/jobs", json={"prompt": text, "duration_s": 0.1, "num_samples": 1 + i % 2})
            if made.status_code != 202 or made.json()["prompt"]["text"] != text:
                wrong.append(made.text)
                continue
            job = made.json()
            jobs.append(job)
            if http.get(f"{server.url}/v1/jobs/{job['id']}").json()["prompt"]["text"] != text:
                wrong.append(f"another job under {job['id']}")
            if i % 3 == 2:
                status = http.post(f"{server.url}/v1/jobs/{job['id']}/cancel").status_code
                if status in (200, 202):
                    cancelled.append(job)
                elif status != 409:
                    wrong.append(status)
        http.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len({j["id"] for j in jobs}) == 48
    for job in jobs:
        server.wait(job)
    harness.check_invariants(server, jobs, cancelled)


def test_random_bytes_do_no_harm(api):
    rng = random.Random(5)
    seeds = [f"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nRange: bytes=0-1\r\n\r\n".encode(),
             f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
             "Content-Length: 12\r\n\r\n{\"text\":\"a\"}".encode(),
             f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
             "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n3\r\n[]}\r\n0\r\n\r\n".encode()]
    for _ in range(400):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            form = rng.randrange(4)
            if form == 0:
                data[at] = rng.randrange(256)
            elif form == 1:
                del data[at:at + rng.randrange(1, 12)]
            elif form == 2:
                data[at:at] = rng.choice([b"\r\n", b"\0", b" ", b":", b"0" * 40, b"\xff", b"\r", b"\n", bytes(data[:at])])
            else:
                data = data[:at + 1]
            if not data:
                data = bytearray(b"x")
        with socket.create_connection(("127.0.0.1", api.port), timeout=20 * harness.SLOW) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            answer, closed = harness.read_all(s)
        assert closed, f"still open after {bytes(data)!r}"
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), f"{answer[:80]!r} to {bytes(data)!r}"
        assert not re.match(rb"HTTP/1\.1 50[0235]? ", answer) or answer.split()[1] == b"505", (bytes(data), answer)


def test_more_connections_than_allowed_are_503_and_then_served_again(make_server):
    server = make_server("--max-connections", "8", workers=0)
    # Half a request each: connections that are merely idle give way.
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(8)]
    for s in idle:
        s.sendall(b"GET /v1/jobs HTTP/1.1\r\n")
    try:
        def refused():
            answer, _ = server.raw(f"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n".encode())
            return answer == b"" or answer.split()[1] == b"503"

        harness.wait_until(refused, 20, "a refusal")
        assert requests.get(server.url + "/healthz", timeout=20).status_code == 200, "health answers when all is full"
    finally:
        for s in idle:
            s.close()
    harness.wait_until(lambda: not refused(), 20, "service again")


# ---- Keys and addresses


def test_another_address_without_keys_is_refused_at_start(tmp_path):
    done = harness.aulos("serve", "--data", tmp_path / "data", "--listen", "0.0.0.0:0", "--workers", "0",
                         "--model", harness.MODEL, timeout=30)
    assert done.returncode in (1, 2)
    assert "insecure-no-auth" in done.stderr
    assert "listening" not in done.stdout


def test_low_disk_is_507_before_a_job_is_taken(make_server):
    server = make_server("--min-free-disk", "1000000G", workers=0)
    check_problem(server.post("/v1/jobs", job_body()), 507)
    assert server.all("/v1/jobs") == []
    assert server.get("/healthz").status_code == 200
