# SPDX-License-Identifier: MIT
"""The front of the server against clients that are slow, lie or send nonsense: every route, and others beside them."""
import re
import select
import socket
import time

import pytest

import harness
from harness import MISSING_ID, check_problem

ROUTES = harness.ROOT / "src" / "api" / "routes.c"


def routes():
    """(method, pattern, flags) of the one table of routes."""
    found = re.findall(r'\{"([A-Z]+)",\s*"([^"]+)",\s*\w+,\s*([^}]*?)\}', ROUTES.read_text("utf-8"))
    assert len(found) > 20, "the table of routes reads differently"
    return found


def fill(pattern, value=MISSING_ID):
    return re.sub(r"\{(\w+)\}", lambda m: "wav" if m[1] == "ext" and value == MISSING_ID else value, pattern)


PATTERNS = sorted({pattern for _, pattern, _ in routes()})
METHODS = {pattern: {m for m, p, _ in routes() if p == pattern} for pattern in PATTERNS}


def fits(method, path):
    """Whether some route takes this method at this path: patterns overlap."""
    return any(m == method and re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(p)), path) for m, p, _ in routes())


@pytest.fixture(autouse=True)
def stays_up(request):
    yield
    if "api" in request.fixturenames:
        api = request.getfixturevalue("api")
        assert api.process.poll() is None, api.log()
        assert api.get("/healthz").status_code == 200


def ask(server, method, target, headers="", body=b""):
    """(status, whole answer) of a request as it stands, over a connection of its own."""
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n{headers}\r\n"
    answer, closed = server.raw(head.encode("latin-1") + body)
    assert closed, f"{method} {target}: still open after {answer[:200]!r}"
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert match, f"{method} {target}: {answer[:200]!r}"
    return int(match[1]), answer


# ---- Every route


@pytest.mark.parametrize("pattern", PATTERNS)
def test_methods_that_a_route_does_not_take_are_405(api, pattern):
    path = fill(pattern)
    for method in ("OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "POST", "GET", "HEAD", "BREW", "get", "PROPFIND"):
        if fits("GET" if method == "HEAD" else method, path):
            continue
        status, answer = ask(api, method, path)
        assert status == 405, f"{method} {path}: {status}"
        allow = re.search(rb"\r\nAllow: ([^\r]*)\r\n", answer)[1].decode().split(", ")
        assert METHODS[pattern] <= set(allow) and method not in allow and len(allow) == len(set(allow))
        if method != "HEAD":
            assert b"/problems/method-not-allowed" in answer


@pytest.mark.parametrize("pattern", sorted(p for m, p, _ in routes() if m == "GET" and "events" not in p))
def test_head_is_get_without_the_body(api, pattern):
    path = fill(pattern)
    status, answer = ask(api, "HEAD", path)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b""
    got, whole = ask(api, "GET", path)
    assert got == status < 500
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
    # What tells of this moment (free disk, uptime, counters) may be of another length a moment later.
    if got == 200 and not re.search("ready|system|metrics", pattern):
        assert int(length[1]) == len(whole.partition(b"\r\n\r\n")[2])


ODD_PATHS = {
    "double slash in front": lambda p: "/" + fill(p), "double slash inside": lambda p: fill(p).replace("/v1/", "/v1//"),
    "slash behind": lambda p: fill(p) + "/", "up": lambda p: fill(p) + "/..", "escaped up": lambda p: fill(p) + "%2e%2e%2f",
    "up as an id": lambda p: fill(p, "%2e%2e%2f%2e%2e%2fetc%2fpasswd"), "dots as an id": lambda p: fill(p, ".."),
    "NUL as an id": lambda p: fill(p, "%00"), "NUL behind": lambda p: fill(p) + "%00", "half an escape": lambda p: fill(p, "%2"),
    "not UTF-8": lambda p: fill(p, "%ff%fe"), "a long id": lambda p: fill(p, "a" * 4000), "an SQL id": lambda p: fill(p, "'%20or%201=1--"),
    "a line break": lambda p: fill(p, "a%0d%0aX:%20y"), "quotes": lambda p: fill(p, "%22%5c"), "emoji": lambda p: fill(p, "%f0%9f%8e%b9"),
    "a backslash": lambda p: fill(p, "..%5c..%5cx"), "an upper-case id": lambda p: fill(p, MISSING_ID.upper()),
    "an unknown query": lambda p: fill(p) + "?a%00=1", "a bad escape in the query": lambda p: fill(p) + "?limit=%zz",
    "a long query": lambda p: fill(p) + "?" + "&".join(f"a{i}=1" for i in range(700))}


@pytest.mark.parametrize("name", ODD_PATHS)
def test_odd_paths_on_every_route_are_4xx(api, name):
    for method, pattern, flags in routes():
        path = ODD_PATHS[name](pattern)
        if path == fill(pattern) or (path == "/" and method == "GET"):
            continue
        kind = "Content-Type: application/json\r\nContent-Length: 2\r\n" if method in ("POST", "PUT", "PATCH") else ""
        status, answer = ask(api, method, path, kind, b"{}" if kind else b"")
        # A key of a link or session may be made of nothing; what has an odd path may not.
        fine = name == "an upper-case id" and method == "DELETE" and status == 204
        assert 400 <= status < 500 or fine or (status == 204 and "session" in pattern), f"{method} {path}: {answer[:300]!r}"
        assert b"SQLite" not in answer and b"root:" not in answer
        assert b"\r\nX: y" not in answer, "a line break of the path is in the head of the answer"


@pytest.mark.parametrize("method,pattern,flags", [r for r in routes() if r[0] in ("POST", "PUT", "PATCH")],
                         ids=lambda v: v if v.startswith("/") or v.isupper() else "-")
def test_a_too_large_body_is_413_before_it_is_sent(api, method, pattern, flags):
    status, answer = ask(api, method, fill(pattern), "Content-Type: application/json\r\nContent-Length: 99999999999\r\n"
                         "Expect: 100-continue\r\n")
    assert status in (413, 415), answer[:200]
    assert b"100 Continue" not in answer
    if "UPLOAD" not in flags:
        assert status == 413


@pytest.mark.parametrize("method,pattern,flags", [r for r in routes() if r[0] in ("POST", "PUT", "PATCH")],
                         ids=lambda v: v if v.startswith("/") or v.isupper() else "-")
def test_bodies_of_no_sense_are_4xx_on_every_route(api, method, pattern, flags):
    if "/admin/" in pattern:
        return
    for kind, body in (("application/json", b"[]"), ("application/json", b"\x00\xff"), ("application/json", b"{\"a\":" * 3000),
                       ("application/json", b'{"' + b"k" * 5000 + b'": 1}'), ("text/plain", b"x"), ("multipart/form-data", b"x"),
                       ("multipart/form-data; boundary=b", b"--b\r\n\r\n"), ("application/x-www-form-urlencoded", b"a=b")):
        status, answer = ask(api, method, fill(pattern), f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n", body)
        assert 400 <= status < 500, (kind, body[:20], answer[:300])


def test_expectations(api):
    head = (f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
            "Content-Length: 12\r\nConnection: close\r\n").encode()
    with socket.create_connection(("127.0.0.1", api.port), timeout=30 * harness.SLOW) as s:
        s.sendall(head + b"Expect: 100-continue\r\n\r\n")
        go_on = s.recv(1000)
        assert go_on == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b'{"text":"a"}')
        assert harness.read_all(s)[0].startswith(b"HTTP/1.1 201 ")
    answer, closed = api.raw(head + b"Expect: a-miracle\r\n\r\n")
    assert closed and answer.startswith(b"HTTP/1.1 417 ")


# ---- Bodies that are not as long as they say


def test_a_body_that_ends_early_makes_nothing(api):
    before = len(harness.read_db(api.data, "SELECT id FROM prompts"))
    with socket.create_connection(("127.0.0.1", api.port), timeout=30 * harness.SLOW) as s:
        s.sendall(f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
                  "Content-Length: 20\r\n\r\n".encode() + b'{"text":"a"}')
        s.shutdown(socket.SHUT_WR)
        answer, closed = harness.read_all(s)
    assert closed and not answer.startswith(b"HTTP/1.1 2")
    assert len(harness.read_db(api.data, "SELECT id FROM prompts")) == before


def test_a_body_that_goes_on_is_another_request_and_a_bad_one(api):
    answer, closed = api.raw(f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
                             "Content-Length: 12\r\n\r\n".encode() + b'{"text":"a"}, and more\r\n\r\n')
    assert closed
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"201", b"400"]


# ---- Slow clients


def open_slow(server, count, data):
    """Connections that have sent `data` and nothing more; those that were let in."""
    held = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", server.port), timeout=20 * harness.SLOW)
        try:
            s.sendall(data)
        except OSError:
            s.close()
            continue
        held.append(s)
    return held


def healthy(server):
    try:
        return ask(server, "GET", "/healthz")[0] == 200
    except (AssertionError, OSError):
        return False


def is_closed(s):
    try:
        s.setblocking(False)
        return s.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("drip", [b"GET /v1/jobs HTTP/1.1\r\nX: ", b""], ids=["heads", "silence"])
def test_many_slow_heads_do_not_keep_others_out(make_server, drip):
    server = make_server("--max-connections", "60", "--header-timeout-ms", "60000", workers=0)
    held = open_slow(server, 300, drip)
    try:
        harness.wait_until(lambda: healthy(server), 30, "an answer beside slow clients")
        for _ in range(50):
            for s in held[::7]:
                try:
                    s.send(b"x")
                except OSError:
                    pass
            assert healthy(server), "no answer while heads drip in"
        harness.wait_until(lambda: ask(server, "GET", "/v1/jobs")[0] == 200, 30, "slow heads to give way")
    finally:
        for s in held:
            s.close()


def test_slow_heads_and_bodies_end_with_408(make_server):
    server = make_server("--header-timeout-ms", "600", workers=0)
    head = f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
    slow = open_slow(server, 20, head.encode() + b"X: ") + open_slow(server, 20, head.encode() + b"\r\n")
    end = time.monotonic() + 30 * harness.SLOW
    answers = {s: b"" for s in slow}
    left = set(slow)
    while left and time.monotonic() < end:
        for s in list(left):
            try:
                s.send(b"x")
            except OSError:
                pass
        readable, _, _ = select.select(list(left), [], [], 0.05)
        for s in readable:
            try:
                data = s.recv(65536)
            except OSError:
                data = b""
            answers[s] += data
            if not data:
                left.discard(s)
        assert healthy(server)
    assert not left, f"{len(left)} slow clients are still there"
    assert sum(a.startswith(b"HTTP/1.1 408 ") for a in answers.values()) >= 30, list(answers.values())[:3]
    for s in slow:
        s.close()


def test_readers_that_stop_do_not_hold_others_up(live, clip):
    """A hundred clients ask for audio again and again and read nothing of it."""
    sample, data = clip
    request = f"GET {sample['urls']['audio']} HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\n\r\n".encode() * 100
    held = []
    try:
        for _ in range(100):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(20 * harness.SLOW)
            s.connect(("127.0.0.1", live.port))
            s.sendall(request)
            held.append(s)
        for _ in range(20):
            assert live.get("/healthz").status_code == 200
            assert live.audio(sample) == data
        # Whoever begins to read gets everything.
        s = held[0]
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 3:
            got += s.recv(65536)
        assert data in got
    finally:
        for s in held:
            s.close()


def test_a_server_with_slow_clients_ends_gracefully(make_server):
    server = make_server(workers=0)
    held = open_slow(server, 30, b"GET /v1/jobs HTTP/1.1\r\n") + open_slow(server, 30, b"")
    try:
        assert server.stop() == 0
        harness.wait_until(lambda: all(is_closed(s) for s in held), 20, "the end of all connections")
    finally:
        for s in held:
            s.close()


# ---- Traces


def logged(server, request_id):
    """The lines of a request, once its last is there: it is written after the reply."""
    def lines():
        return [line for line in server.log_path.read_text("utf-8").splitlines() if request_id in line]

    harness.wait_until(lambda: any("msg=request" in line for line in lines()), 20, f"the log of {request_id}")
    return lines()


def test_the_trace_and_the_request_are_in_the_log(make_server):
    server = make_server(workers=0)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    reply = server.get("/v1/jobs/x", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    lines = logged(server, check_problem(reply, 404)["request_id"])
    assert all(f"trace={trace}" in line for line in lines), lines
    for bad in ("00-0-0-0", f"00-{trace.upper()}-00f067aa0ba902b7-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", "x" * 3000):
        reply = server.get("/v1/jobs", headers={"traceparent": bad})
        assert not [line for line in logged(server, reply.headers["X-Request-Id"]) if "trace=" in line]


def test_a_token_in_a_path_is_not_logged(make_server):
    server = make_server(workers=0)
    reply = server.get("/v1/sessions/a-secret-of-a-rater/next")
    lines = logged(server, reply.headers["X-Request-Id"])
    assert "a-secret-of-a-rater" not in server.log() and "/v1/sessions/{token}/next" in lines[-1]


def test_refusals_say_when_to_come_back(make_server):
    server = make_server("--queue-limit", "1", "--min-free-disk", "1M", workers=0)
    server.submit(prompt="a", duration_s=0.5)
    full = server.post("/v1/jobs", {"prompt": "a", "duration_s": 0.5})
    check_problem(full, 429)
    assert int(full.headers["Retry-After"]) >= 1
    assert full.headers["RateLimit-Policy"] == '"queue";q=1'
    assert full.headers["RateLimit"] == f'"queue";r=0;t={full.headers["Retry-After"]}'
