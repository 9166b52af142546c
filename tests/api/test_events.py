# SPDX-License-Identifier: MIT
"""Server-sent events: of one job and of everything, replay from every point, readers that are slow, old, many or gone."""
import contextlib
import json
import signal
import socket
import threading
import time

import pytest
import requests

from harness import FINAL, MISSING_ID, SLOW, aulos, check_problem, read_db, wait_until


class Stream:
    """An event stream over a raw socket, so that nothing is buffered, read ahead or retried behind the test's back."""

    def __init__(self, server, path, headers=None, version="1.1", rcvbuf=None, method="GET"):
        self.socket = socket.socket()
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.settimeout(60 * SLOW)
        self.socket.connect(("127.0.0.1", server.port))
        fields = {"Host": "localhost", "Accept": "text/event-stream", **(headers or {})}
        lines = [f"{method} {path} HTTP/{version}"] + [f"{k}: {v}" for k, v in fields.items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.raw = b""
        self.text = b""
        self.ended = False  # the server has said that this is all
        head = self._until(b"\r\n\r\n").decode().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
        self.chunked = self.headers.get("transfer-encoding") == "chunked"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def _more(self):
        got = self.socket.recv(65536)
        self.raw += got
        return bool(got)

    def _until(self, mark):
        while mark not in self.raw:
            assert self._more(), f"the connection ended within {self.raw!r}"
        found, self.raw = self.raw.split(mark, 1)
        return found

    def _piece(self):
        """The next bytes of the body; b"" at its end."""
        if not self.chunked:
            if not self.raw and not self._more():
                return b""
            piece, self.raw = self.raw, b""
            return piece
        size = int(self._until(b"\r\n"), 16)
        while len(self.raw) < size + 2:
            assert self._more(), "the connection ended within a chunk"
        piece, rest = self.raw[:size], self.raw[size:size + 2]
        assert rest == b"\r\n"
        self.raw = self.raw[size + 2:]
        return piece

    def event(self):
        """The next (id, event, data), or a comment as (None, None, text); None at the end."""
        while b"\n\n" not in self.text:
            piece = self._piece()
            if not piece:
                assert not self.text, f"the stream ended within {self.text!r}"
                self.ended = True
                return None
            self.text += piece
        block, self.text = self.text.split(b"\n\n", 1)
        fields = {}
        for line in block.decode().split("\n"):
            if line.startswith(":"):
                return None, None, line
            name, value = line.split(": ", 1)
            assert name in ("id", "event", "data"), line
            fields[name] = fields[name] + "\n" + value if name in fields else value
        number = fields.get("id")
        return int(number) if number is not None else None, fields["event"], json.loads(fields["data"])

    def events(self):
        """What comes until the server ends the stream, comments apart."""
        found = []
        while True:
            event = self.event()
            if event is None:
                return found
            if event[1] is not None:
                found.append(event)

    def until(self, check):
        """What comes up to the first event for which check holds."""
        found = []
        while True:
            event = self.event()
            assert event is not None, f"the stream ended after {found}"
            if event[1] is not None:
                found.append(event)
                if check(event):
                    return found


def job_stream(server, job, last=None, **kw):
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    return Stream(server, f"/v1/jobs/{job['id']}/events", headers, **kw)


def stored(events):
    return [e for e in events if e[1] not in ("snapshot", "progress")]


def stored_in_db(server, job):
    rows = read_db(server.data, "SELECT seq, event FROM events WHERE subject = ? ORDER BY seq", job["id"])
    return [(r["seq"], r["event"]) for r in rows]


def check_order(events):
    """Numbers without gaps or doubles; percent never falls within an attempt."""
    numbers = [e[0] for e in events if e[0] is not None]
    assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    percent = {}
    for number, name, data in events:
        if name == "progress":
            assert number is None
            assert data["percent"] >= percent.get(data["attempt"], 0), events
            percent[data["attempt"]] = data["percent"]


# ---- One job ----------------------------------------------------------------------------------------------------


def test_a_job_from_its_submission_to_done(live):
    job = live.submit(prompt="a slow pad", duration_s=8, num_samples=2, seed=5)
    assert job["urls"]["events"] == f"/v1/jobs/{job['id']}/events"
    with job_stream(live, job) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        events = stream.events()
        assert stream.ended
    number, name, snapshot = events[0]
    assert name == "snapshot"
    assert snapshot["id"] == job["id"]
    assert number >= 1
    check_order(events)
    assert events[-1][1] == "done"
    assert events[-1][2]["state"] == "completed"
    final = live.job(job)
    for _, name, data in events[1:]:
        if name == "sample":
            assert data["job_id"] == job["id"]
            assert data == {**live.sample(data["sample_id"]), "sample_id": data["id"], "at": data["at"]}
    assert [s["sample_id"] for s in final["samples"]] == sorted(
        (e[2]["sample_id"] for e in events if e[1] == "sample"), key=[s["sample_id"] for s in final["samples"]].index)
    assert [(e[0], e[1]) for e in stored(events)] == stored_in_db(live, job)[number:]


def test_replay_from_every_point(live):
    job = live.run(prompt="replay", duration_s=0.5, num_samples=3, seed=1)
    kept = stored_in_db(live, job)
    assert kept[0] == (1, "state")
    assert kept[-1][1] == "done"
    for last in range(len(kept)):
        with job_stream(live, job, last) as stream:
            events = stream.events()
        assert [(e[0], e[1]) for e in events] == kept[last:]
    for last in (len(kept), ):
        with job_stream(live, job, last) as stream:
            assert stream.status == 204
    # The parameter does what the field does, which has the last word.
    with Stream(live, f"/v1/jobs/{job['id']}/events?last_event_id=1") as stream:
        assert [(e[0], e[1]) for e in stream.events()] == kept[1:]
    with Stream(live, f"/v1/jobs/{job['id']}/events?last_event_id=1", {"Last-Event-ID": "2"}) as stream:
        assert [(e[0], e[1]) for e in stream.events()] == kept[2:]


def test_a_final_job_without_a_number_is_a_snapshot_and_the_end(live):
    job = live.run(prompt="snapshot", duration_s=0.5, seed=1)
    last = len(stored_in_db(live, job))
    for number in (None, last + 1, 2**63 - 1):
        if number is not None:
            with job_stream(live, job, number) as stream:
                assert stream.status == 204
            continue
        with job_stream(live, job) as stream:
            events = stream.events()
        assert [(e[0], e[1]) for e in events] == [(last, "snapshot")]
        assert events[0][2]["state"] == "completed"


@pytest.mark.parametrize("value", ["", "x", "-1", "+1", "1.0", "1 2", "0x1", "9223372036854775808", "1" * 400])
def test_numbers_that_are_none_are_400(api, value):
    job = api.submit(prompt="numbers", duration_s=0.5)
    for path in (f"/v1/jobs/{job['id']}/events", "/v1/events"):
        check_problem(api.get(path, headers={"Last-Event-ID": value}), 400)
        check_problem(api.get(path, params={"last_event_id": value}), 400, "bad-query")
    with Stream(api, "/v1/events", {"Last-Event-ID": "1\r\nLast-Event-ID: 2"}) as stream:
        assert stream.status == 400
    check_problem(api.get("/v1/events?nonsense=1"), 400, "bad-query")


def test_unknown_and_removed_jobs(api):
    for bad in (MISSING_ID, "nonsense"):
        check_problem(api.get(f"/v1/jobs/{bad}/events"), 404, "not-found")
    assert api.post("/v1/events").status_code == 405
    for path in (f"/v1/jobs/{api.submit(prompt='head', duration_s=0.5)['id']}/events", "/v1/events"):
        reply = api.head(path)
        assert reply.status_code == 200
        assert reply.headers["Content-Type"] == "text/event-stream"
        assert not reply.content


def test_cancelled_jobs_end_their_streams(api):
    job = api.submit(prompt="waits for ever", duration_s=0.5)
    with job_stream(api, job) as stream:
        assert stream.event()[1] == "snapshot"
        api.cancel(job)
        events = stream.events()
    assert [(e[0], e[1], e[2]["state"]) for e in events] == [(2, "state", "cancelled"), (3, "done", "cancelled")]


def test_http_1_0_clients_get_the_stream_as_it_is(api):
    job = api.submit(prompt="old client", duration_s=0.5)
    with job_stream(api, job, version="1.0") as stream:
        assert "transfer-encoding" not in stream.headers
        assert stream.headers["connection"] == "close"
        assert stream.event()[1] == "snapshot"
        api.cancel(job)
        assert [e[1] for e in stream.events()] == ["state", "done"]


def test_the_connection_is_kept_after_a_stream(api):
    job = api.submit(prompt="kept", duration_s=0.5)
    api.cancel(job)
    with job_stream(api, job) as stream:
        stream.events()
        stream.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in stream._until(b"\r\n\r\n")


# ---- Everything -------------------------------------------------------------------------------------------------


def test_one_stream_for_everything(live):
    before = live.submit(prompt="before", duration_s=20, num_samples=4)
    with Stream(live, "/v1/events") as stream:
        number, name, snapshot = stream.event()
        assert name == "snapshot"
        assert before["id"] in [j["id"] for j in snapshot["jobs"]] or live.job(before)["state"] in FINAL
        assert set(snapshot["queue"]) == {"queued", "processing", "paused"}
        jobs = [live.submit(prompt=f"all {i}", duration_s=0.5, num_samples=2, seed=i) for i in range(3)]
        live.cancel(before)
        left = {j["id"] for j in jobs}

        def finished(event):
            if event[1] == "done":
                left.discard(event[2]["job_id"])
            return not left

        events = stream.until(finished)
    check_order([(number, "snapshot", snapshot), *[e for e in events if e[1] != "progress"]])
    for job in jobs:
        mine = [e for e in events if e[2].get("job_id") == job["id"]]
        assert [e[1] for e in stored(mine)] == [name for _, name in stored_in_db(live, job)]
        assert {e[2]["id"] for e in mine if e[1] == "sample"} == {s["id"] for s in live.samples_of(job)}
    # The same again from the database, by number.
    with Stream(live, "/v1/events", {"Last-Event-ID": str(number)}) as stream:
        again = stream.until(lambda e: e[0] == events[-1][0])
    assert [e[:2] for e in stored(again)] == [e[:2] for e in stored(events)]


def test_replay_of_everything_and_kinds(api):
    jobs = [api.submit(prompt=f"kinds {i}", duration_s=0.5) for i in range(3)]
    api.cancel(jobs[0])
    top = read_db(api.data, "SELECT MAX(id) AS top FROM events")[0]["top"]
    with Stream(api, "/v1/events", {"Last-Event-ID": "0"}) as stream:
        events = stream.until(lambda e: e[0] == top)
    assert [e[0] for e in events] == [r["id"] for r in read_db(api.data, "SELECT id FROM events ORDER BY id")]
    with Stream(api, "/v1/events?kind=job,sample", {"Last-Event-ID": str(top - 1)}) as stream:
        assert stream.event()[0] >= top
    # None but adapters: what happens to jobs is not told.
    with Stream(api, "/v1/events?kind=adapter") as quiet, Stream(api, "/v1/events?kind=job") as loud:
        assert quiet.event()[1] == loud.event()[1] == "snapshot"
        api.cancel(jobs[1])
        assert loud.event()[2]["job_id"] == jobs[1]["id"]
        quiet.socket.settimeout(0.5)
        with pytest.raises(socket.timeout):
            quiet.event()
    for bad in ("", "jobs", "job,", ",", "job,nonsense"):
        check_problem(api.get("/v1/events", params={"kind": bad}), 400, "bad-query")
    # A number that was never given: the client's memory is not ours, so it begins anew.
    with Stream(api, "/v1/events", {"Last-Event-ID": str(2**62)}) as stream:
        assert stream.event()[1] == "snapshot"


def test_what_happens_to_other_things_is_told(live):
    job = live.run(prompt="told of", duration_s=0.3, num_samples=1, seed=8)
    with Stream(live, "/v1/events?kind=job,prompt") as stream:
        assert stream.event()[1] == "snapshot"
        prompt = live.prompt("a prompt of its own to tell of")
        number, name, data = stream.until(lambda e: e[1] == "prompt")[-1]
        assert (data["id"], data["change"]) == (prompt["id"], "created")
        assert live.req("DELETE", f"/v1/jobs/{job['id']}").status_code == 204
        number, name, data = stream.until(lambda e: e[1] == "job")[-1]
        assert (data["id"], data["change"]) == (job["id"], "deleted")
    check_problem(live.get(f"/v1/jobs/{job['id']}/events"), 410, "gone")


# ---- Many, slow, gone -------------------------------------------------------------------------------------------


def test_numbers_are_gap_free_under_many_jobs_at_once(make_server):
    server = make_server(workers=2)
    jobs = []
    with Stream(server, "/v1/events", {"Last-Event-ID": "0"}) as stream:
        def submit(n):
            for i in range(8):
                job = server_post(server, {"prompt": f"many {n} {i}", "duration_s": 0.3, "num_samples": 2, "seed": i})
                jobs.append(job)
                if i % 4 == 3:
                    server_post(server, {}, f"/v1/jobs/{job['id']}/cancel")

        threads = [threading.Thread(target=submit, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = {j["id"] for j in jobs}
        assert len(left) == 32

        def finished(event):
            if event[1] == "done":
                left.remove(event[2]["job_id"])
            return not left

        events = stream.until(finished)
    check_order([e for e in events if e[1] != "progress"])
    assert events[0][0] == 1
    for job in jobs:
        mine = [e for e in events if e[2].get("job_id") == job["id"]]
        check_order([e for e in mine if e[1] == "progress"])
        assert [e[1] for e in stored(mine)] == [name for _, name in stored_in_db(server, job)]
        assert mine[-1][1] == "done"
        with job_stream(server, job, 0) as stream:
            assert [(e[0], e[1]) for e in stream.events()] == stored_in_db(server, job)


def server_post(server, body, path="/v1/jobs"):
    """From any thread: without the server's shared session."""
    reply = requests.post(server.url + path, json=body, timeout=60 * SLOW)
    assert reply.status_code in (200, 202, 409), reply.text
    return reply.json()


def test_clients_that_come_back_during_changes_miss_nothing(live):
    job = live.submit(prompt="come back", duration_s=6, num_samples=6, seed=3)
    last, events = 0, []
    for _ in range(1000):
        with job_stream(live, job, last) as stream:
            if stream.status == 204:
                break
            for _ in range(2):
                event = stream.event()
                if event is None:
                    break
                if event[0] is not None:
                    events.append(event)
                    last = event[0]
    assert [(e[0], e[1]) for e in events] == stored_in_db(live, job)


def test_a_slow_reader_gets_every_stored_event_and_holds_nobody_up(make_server):
    server = make_server("--queue-limit", "100000", workers=0)
    n = 1500
    with Stream(server, "/v1/events", {"Last-Event-ID": "0"}, rcvbuf=4096) as slow:
        for i in range(n):
            server.submit(prompt="slow reader " + "x" * 200, duration_s=0.5, seed=i)
        job = server.submit(prompt="the last", duration_s=0.5)
        last = read_db(server.data, "SELECT MAX(id) AS top FROM events")[0]["top"]
        assert last > n
        with Stream(server, "/v1/events", {"Last-Event-ID": str(last - 1)}) as quick:
            assert quick.event()[2]["job_id"] == job["id"]
        before = server_rss_kb(server)
        events = slow.until(lambda e: e[0] == last)
        assert [e[0] for e in events] == list(range(1, last + 1))
        assert server_rss_kb(server) < before + 20000


def server_rss_kb(server):
    with open(f"/proc/{server.process.pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_two_hundred_clients(make_server):
    server = make_server()
    job = server.submit(prompt="a crowd", duration_s=5, num_samples=2, seed=1)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(job_stream(server, job) if i % 2 else
                                       Stream(server, "/v1/events", {"Last-Event-ID": "0"})) for i in range(200)]
        kept = stored_in_db_once_done(server, job)
        for i, stream in enumerate(streams):
            events = stream.until(lambda e: e[1] == "done")
            check_order([e for e in events if e[1] != "progress"])
            if i % 2 == 0:
                mine = [e[1] for e in stored(events) if e[2].get("job_id") == job["id"]]
                assert mine == [name for _, name in kept]
            else:
                assert [(e[0], e[1]) for e in stored(events)] == kept[events[0][0]:]
                assert stream.event() is None


def stored_in_db_once_done(server, job):
    server.wait(job, "completed")
    return stored_in_db(server, job)


def test_streams_give_way_to_requests(make_server):
    server = make_server("--max-connections", "16", workers=0)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(server, "/v1/events")) for _ in range(14)]
        assert [s.status for s in streams] == [200] * 14
        with Stream(server, "/v1/events") as one_more:
            assert one_more.status == 503
            assert int(one_more.headers["retry-after"]) >= 1
        assert server.get("/v1/jobs").status_code == 200
    wait_until(lambda: stream_status(server) == 200, 30, "room for a stream after the others have gone")


def stream_status(server):
    with Stream(server, "/v1/events") as stream:
        return stream.status


def test_comments_come_while_nothing_happens(api):
    with Stream(api, "/v1/events") as stream:
        assert stream.event()[1] == "snapshot"
        while True:
            number, name, text = stream.event()
            if name is None:
                assert text == ": ping"
                break


def test_a_drain_ends_streams_and_long_polls(make_server):
    server = make_server(workers=0)
    job = server.submit(prompt="waits", duration_s=0.5)
    got = {}

    def poll():
        got["job"] = server.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"}).json()

    thread = threading.Thread(target=poll)
    with Stream(server, "/v1/events") as one, job_stream(server, job) as two:
        assert one.event()[1] == two.event()[1] == "snapshot"
        thread.start()
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert one.events() == []
        assert two.events() == []
        assert one.ended and two.ended
    thread.join()
    assert got["job"]["state"] == "queued"
    assert server.process.wait(60 * SLOW) == 0


def test_a_stream_ends_with_its_key(make_server):
    server = make_server("--auth", "required", workers=0)
    keys = make_keys(server)
    auth = {"Authorization": f"Bearer {keys['read']['secret']}"}
    with Stream(server, "/v1/events") as stream:
        assert stream.status == 401
    with Stream(server, "/v1/events", auth) as stream:
        assert stream.event()[1] == "snapshot"
        reply = server.req("DELETE", f"/v1/keys/{keys['read']['id']}",
                           headers={"Authorization": f"Bearer {keys['admin']['secret']}"})
        assert reply.status_code == 204, reply.text
        begin = time.monotonic()
        stream.events()
        assert stream.ended
        assert time.monotonic() - begin < 30 * SLOW


def make_keys(server):
    """A key for each scope, by the command line."""
    keys = {}
    for scope in ("admin", "read"):
        done = aulos("key", "create", "--data", server.data, "--name", scope, "--scopes", scope, "--json")
        assert done.returncode == 0, done.stderr
        keys[scope] = json.loads(done.stdout)
    return keys


# ---- Long polls -------------------------------------------------------------------------------------------------


def test_long_polls_answer_at_the_end_of_their_own_job(live):
    other = live.submit(prompt="the other", duration_s=0.3, num_samples=1, seed=1)
    job = live.submit(prompt="polled", duration_s=3, num_samples=2, seed=1)
    assert live.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=0"}).json()["state"] not in FINAL
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(wait_for_end(live, job))) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert wait_for_end(live, other)["state"] == "completed"
    for thread in threads:
        thread.join()
    assert [r["state"] for r in replies] == ["completed"] * 20
    # One that ended before is answered at once, and so is a submission that sees the end.
    assert wait_for_end(live, job)["state"] == "completed"
    reply = live.post("/v1/jobs", {"prompt": "short", "duration_s": 0.3, "seed": 2}, headers={"Prefer": "wait=60"})
    assert reply.status_code == 201, reply.text
    assert reply.json()["state"] == "completed"


def wait_for_end(server, job):
    reply = requests.get(f"{server.url}/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"}, timeout=90 * SLOW)
    assert reply.status_code == 200
    return reply.json()


def test_a_long_poll_ends_with_its_time(api):
    job = api.submit(prompt="not for now", duration_s=0.5)
    begin = time.monotonic()
    reply = api.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=1"})
    assert reply.status_code == 200
    assert reply.headers["Preference-Applied"] == "wait=1"
    assert reply.json()["state"] == "queued"
    assert time.monotonic() - begin >= 1
    assert api.post("/v1/jobs", {"prompt": "nor this", "duration_s": 0.5}, headers={"Prefer": "wait=1"}).status_code == 202
