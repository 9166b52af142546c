# SPDX-License-Identifier: MIT
"""Webhooks: what happens is told, signed, and told again until it is heard; never to the server's own network."""
import base64
import hashlib
import hmac
import http.server
import json
import socket
import threading
import time

import pytest

from harness import check_problem, pointers, wait_until

NOBODY = "01900000-0000-7000-8000-000000000000"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789").decode()


class Receiver:
    """A target that answers as it is told and remembers what came."""

    def __init__(self):
        self.requests = []
        self.answers = []  # statuses, then 200 for ever; a callable writes the answer itself
        self.heard = threading.Condition()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.heard:
                    receiver.requests.append((self.path, dict(self.headers.items()), body))
                    answer = receiver.answers.pop(0) if receiver.answers else 200
                    receiver.heard.notify_all()
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer)
                if answer in (301, 307):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, n, timeout=60):
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.requests) >= n, timeout), f"{len(self.requests)} of {n} came"
        return self.requests

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def server(make_server):
    return make_server("--webhook-allow-private", "--webhook-backoff-ms", "20", "--webhook-timeout-ms", "2000", workers=0)


def webhook(server, url, **more):
    reply = server.post("/v1/webhooks", {"url": url, **more})
    assert reply.status_code == 201, reply.text
    assert reply.headers["Location"] == f"/v1/webhooks/{reply.json()['id']}"
    return reply.json()


def deliveries(server, hook):
    return server.ok(f"/v1/webhooks/{hook['id']}/deliveries")["data"]


def wait_for_end(server, hook, n=1):
    def ended():
        rows = deliveries(server, hook)
        return rows if len(rows) >= n and all(d["state"] != "pending" for d in rows) else None

    return wait_until(ended, 60, "the deliveries to end")


def test_the_end_of_a_job_is_told_and_signed(make_server, receiver):
    server = make_server("--webhook-allow-private")
    hook = webhook(server, receiver.url, secret=SECRET)
    assert hook["events"] == ["job.completed", "job.failed", "job.cancelled"]
    assert hook["secret"] == SECRET
    assert hook["url"] == receiver.url
    assert "secret" not in server.ok(f"/v1/webhooks/{hook['id']}")
    job = server.run(prompt="a calm harp arpeggio", num_samples=2, duration_s=0.1, label="x")
    path, headers, body = receiver.wait(1)[0]
    headers = {k.lower(): v for k, v in headers.items()}
    assert path == "/hook"
    assert headers["content-type"] == "application/json"
    stamp = headers["webhook-timestamp"]
    assert abs(int(stamp) - time.time()) < 300
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = hmac.new(key, f"{headers['webhook-id']}.{stamp}.".encode() + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(signed).decode()
    told = json.loads(body)
    assert told["type"] == "job.completed"
    assert (told["data"]["id"], told["data"]["state"], told["data"]["label"]) == (job["id"], "completed", "x")
    assert told["data"]["sample_ids"] == [s["sample_id"] for s in job["samples"]]
    delivery = wait_for_end(server, hook)[0]
    assert (delivery["id"], delivery["state"], delivery["attempts"], delivery["last_status"]) == (headers["webhook-id"], "delivered", 1, 200)
    assert delivery["payload"] == told
    assert len(receiver.requests) == 1


def test_every_event_that_is_wanted_and_no_other(make_server, receiver):
    server = make_server("--webhook-allow-private")
    webhook(server, receiver.url, events=["job.*", "sample.created", "comparison.*"])
    job = server.run(prompt="a calm harp arpeggio", duration_s=0.1)
    server.post("/v1/comparisons", {"sample_ids": [job["samples"][0]["sample_id"]]})
    receiver.wait(5)
    types = sorted(json.loads(body)["type"] for _, _, body in receiver.requests)
    assert types == ["comparison.created", "job.completed", "job.processing", "job.queued", "sample.created"]
    sample = next(json.loads(b) for _, _, b in receiver.requests if b'"sample.created"' in b)["data"]
    assert (sample["id"], sample["job_id"]) == (job["samples"][0]["sample_id"], job["id"])


def test_it_is_told_again_until_it_is_heard(server, receiver):
    receiver.answers = [500, 404, 301, 200]
    hook = webhook(server, receiver.url, events=["job.cancelled"])
    server.cancel(server.submit(prompt="a calm harp arpeggio"))
    delivery = wait_for_end(server, hook)[0]
    assert (delivery["state"], delivery["attempts"], delivery["last_status"]) == ("delivered", 4, 200)
    assert {h["webhook-id"] for _, h, _ in receiver.requests} == {delivery["id"]}
    assert len({b for _, _, b in receiver.requests}) == 1
    assert {p for p, _, _ in receiver.requests} == {"/hook"}  # the redirect was not followed


def test_a_target_that_is_gone_is_left_alone(server, receiver):
    receiver.answers = [410]
    hook = webhook(server, receiver.url, events=["*"])
    server.cancel(server.submit(prompt="a calm harp arpeggio"))
    wait_until(lambda: not server.ok(f"/v1/webhooks/{hook['id']}")["active"], 60, "the webhook to be switched off")
    before = len(deliveries(server, hook))
    server.cancel(server.submit(prompt="a calm harp arpeggio"))
    assert len(deliveries(server, hook)) == before


def test_the_last_attempt_fails_and_can_be_sent_again(make_server, receiver):
    server = make_server("--webhook-allow-private", "--webhook-backoff-ms", "1", workers=0)
    receiver.answers = [503] * 11
    hook = webhook(server, receiver.url, events=["job.queued"])
    server.submit(prompt="a calm harp arpeggio")
    failed = wait_for_end(server, hook)[0]
    assert (failed["state"], failed["attempts"], failed["last_status"]) == ("failed", 11, 503)
    assert failed["last_error"] == "answered 503, expected 2xx"
    again = server.post(failed["urls"]["redeliver"])
    assert again.status_code == 202
    assert server.get(again.headers["Location"]).json()["payload"] == failed["payload"]
    rows = wait_for_end(server, hook, 2)
    assert [d["state"] for d in rows] == ["delivered", "failed"]
    assert [d["id"] for d in server.ok(f"/v1/webhooks/{hook['id']}/deliveries?state=failed")["data"]] == [failed["id"]]
    check_problem(server.post(f"/v1/webhooks/{hook['id']}/deliveries/{NOBODY}/redeliver"), 404, "not-found")
    check_problem(server.get(f"/v1/webhooks/{hook['id']}/deliveries?state=x"), 400, "bad-query")


def test_a_hanging_target_and_an_endless_answer_hold_nobody_up(server, receiver):
    hold = threading.Event()

    def hang(handler):
        hold.wait(60)

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**10))
        handler.end_headers()
        try:
            while not hold.is_set():
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    other = Receiver()
    try:
        receiver.answers = [hang] * 12
        slow, fast = webhook(server, receiver.url, events=["job.cancelled"]), webhook(server, other.url, events=["job.cancelled"])
        for _ in range(12):
            server.cancel(server.submit(prompt="a calm harp arpeggio"))
        assert len(wait_for_end(server, fast, 12)) == 12
        hold.set()
        assert server.req("DELETE", f"/v1/webhooks/{slow['id']}").status_code == 204
        hold.clear()
        other.answers = [endless]
        server.cancel(server.submit(prompt="a calm harp arpeggio"))
        assert wait_for_end(server, fast, 13)[0]["state"] == "delivered"
    finally:
        hold.set()
        other.close()


def test_what_was_to_be_told_outlives_a_kill(make_server, receiver):
    server = make_server("--webhook-allow-private", "--webhook-backoff-ms", "20", workers=0)
    down = Receiver()
    hook = webhook(server, down.url, events=["job.cancelled"])
    port = down.server.server_address[1]
    down.close()
    server.cancel(server.submit(prompt="a calm harp arpeggio"))
    wait_until(lambda: deliveries(server, hook)[0]["attempts"] >= 1, 60, "an attempt")
    assert deliveries(server, hook)[0]["last_error"]
    server.kill_server()
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    again = http.server.ThreadingHTTPServer(("127.0.0.1", port), receiver.server.RequestHandlerClass)
    threading.Thread(target=again.serve_forever, daemon=True).start()
    try:
        server.start()
        assert wait_for_end(server, hook)[0]["state"] == "delivered"
        assert len(receiver.requests) >= 1
    finally:
        again.shutdown()
        again.server_close()


# ---- Who may be told ----

@pytest.mark.parametrize("url", [
    "http://127.0.0.1:9/", "http://localhost/x", "http://a.localhost/", "http://10.0.0.1/", "http://192.168.1.1/", "http://172.16.0.1/",
    "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://[fe80::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/",
    "http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://100.64.0.1/"])
def test_private_addresses_are_refused(api, url):
    problem = check_problem(api.post("/v1/webhooks", {"url": url}), 422, "validation")
    assert problem["errors"][0]["pointer"] == "/url"
    assert problem["errors"][0]["code"] == "private_address"


def test_a_name_is_looked_up_before_it_is_trusted(make_server):
    """A name that resolves to this machine is found out when it is connected to."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine has no name that resolves")
    if not address.startswith(("127.", "10.", "192.168.", "172.")):
        pytest.skip("the name of this machine resolves to a public address")
    server = make_server("--webhook-backoff-ms", "1", workers=0)
    listener = socket.create_server((address, 0))
    listener.settimeout(0.2)
    hook = webhook(server, f"http://{socket.gethostname()}:{listener.getsockname()[1]}/", events=["job.queued"])
    server.submit(prompt="a calm harp arpeggio")
    failed = wait_for_end(server, hook)[0]
    assert failed["state"] == "failed"
    assert failed["last_error"] == f"address {address} is not of the public internet"
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.close()


@pytest.mark.parametrize(("body", "where"), [
    ({}, ["/url"]),
    ({"url": "ftp://example.com/"}, ["/url"]),
    ({"url": "https://u:p@example.com/"}, ["/url"]),
    ({"url": 7}, ["/url"]),
    ({"url": "https://example.com/" + "x" * 2048}, ["/url"]),
    ({"url": "https://example.com/", "events": []}, ["/events"]),
    ({"url": "https://example.com/", "events": ["*"] * 33}, ["/events"]),
    ({"url": "https://example.com/", "events": "*"}, ["/events"]),
    ({"url": "https://example.com/", "events": ["job.done", 7]}, ["/events/0", "/events/1"]),
    ({"url": "https://example.com/", "secret": "x"}, ["/secret"]),
    ({"url": "https://example.com/", "description": "x" * 201}, ["/description"]),
    ({"url": "https://example.com/", "event": ["*"]}, ["/event"]),
])
def test_what_is_wrong_is_named(api, body, where):
    assert sorted(pointers(check_problem(api.post("/v1/webhooks", body), 422, "validation"))) == where


def test_webhooks_are_listed_and_deleted(api):
    hooks = [webhook(api, f"https://example.com/{i}", description=str(i)) for i in range(3)]
    assert len({h["secret"] for h in hooks}) == 3
    listed = api.all("/v1/webhooks?limit=2")
    assert [h["id"] for h in listed if h["id"] in {x["id"] for x in hooks}] == [h["id"] for h in reversed(hooks)]
    first = hooks[0]["urls"]["self"]
    assert api.req("DELETE", first, headers={"If-Match": '"x"'}).status_code == 412
    assert api.req("DELETE", first).status_code == 204
    check_problem(api.get(first), 410, "gone")
    check_problem(api.req("DELETE", first), 410, "gone")
    check_problem(api.get(f"/v1/webhooks/{NOBODY}"), 404, "not-found")
    check_problem(api.get(f"/v1/webhooks/{NOBODY}/deliveries"), 404, "not-found")
    for hook in hooks[1:]:
        assert api.req("DELETE", hook["urls"]["self"]).status_code == 204
