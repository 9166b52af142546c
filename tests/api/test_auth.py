# SPDX-License-Identifier: MIT
"""Who may do what: keys and their scopes, the command that makes them, browser sessions, signed links, addresses."""
import datetime
import fcntl
import json
import re
import sqlite3
import subprocess

import pytest
import requests

import harness
from harness import MISSING_ID, UUID7, aulos, check_problem, pointers

SECRET = re.compile(r"^aulos_[a-z2-7]{56}$")
ROUTES = harness.ROOT / "src" / "api" / "routes.c"


def key_of(server_or_data, *args):
    """A new key, made in the data folder."""
    data = getattr(server_or_data, "data", server_or_data)
    done = aulos("key", "create", "--data", data, "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bearer(key):
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key['secret']}"}


def check_401(reply):
    problem = check_problem(reply, 401, "unauthorized")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    return problem


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A server that wants a key from everybody, and a key of each scope."""
    data = tmp_path_factory.mktemp("locked") / "data"
    keys = {scope: key_of(data, "--name", scope, "--scopes", scope) for scope in ("read", "write", "admin")}
    server = harness.Server(data, "--auth", "required", workers=0).start()
    server.keys = keys
    yield server
    try:
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.fixture
def admin(locked):
    return bearer(locked.keys["admin"])


def routes():
    """(method, path with ids filled in, flags) of the one table of routes; of the last segments, whatever fits."""
    found = re.findall(r'\{"([A-Z]+)",\s*"([^"]+)",\s*\w+,\s*([^}]*?)\}', ROUTES.read_text("utf-8"))
    assert len(found) > 20, "the table of routes reads differently"
    for method, pattern, flags in found:
        path = re.sub(r"\{(\w+)\}", lambda m: "wav" if m[1] == "ext" else MISSING_ID, pattern)
        yield method, path, flags


# ---- Nobody gets in without


@pytest.mark.parametrize("method,path,flags", routes(), ids=lambda v: v if v.startswith("/") or v.isupper() else "-")
def test_every_route_asks_for_a_key_that_is_not_public(locked, method, path, flags):
    wrong = "aulos_" + "a" * 56
    public = "PUBLIC" in flags
    for headers in ({}, bearer(wrong), {"Authorization": "Basic YTpi"}, {"Cookie": "aulos_session=" + "0" * 64}):
        reply = locked.req(method, path, headers=headers, data=b"x" if method in ("POST", "PUT", "PATCH") else None)
        if public:
            assert reply.status_code != 403 and reply.status_code < 500, reply.text
        else:
            check_401(reply)
    if public:
        return
    scopes = ["read", "write", "admin"]
    makes = re.search(r"\bMAKES\b|WRITE", flags)
    needed = 2 if "ADMIN" in flags else 1 if makes else 0
    if method in ("DELETE", "PATCH", "PUT"):
        assert needed >= 1, f"{method} {path} changes things with the scope read"
    for i, scope in enumerate(scopes):
        if i >= needed and path.startswith("/v1/admin/"):
            continue  # it would do it
        # A body that no route takes: who may ask is settled before.
        reply = requests.request(method, locked.url + path, headers=bearer(locked.keys[scope]), stream=True,
                                 data=b"x" if method in ("POST", "PUT", "PATCH") else None, timeout=30 * harness.SLOW)
        if i < needed:
            check_problem(reply, 403, "forbidden-scope")
        else:
            reply.close()
            assert reply.status_code not in (401, 403), f"{method} {path} with {scope}: {reply.status_code}"
            assert reply.status_code < 500


def test_what_is_public_is_public(locked):
    for path in ("/", "/healthz", "/readyz"):
        assert locked.get(path).status_code == 200


@pytest.mark.parametrize("value", [
    "", "Bearer", "Bearer ", "Bearer x", "Bearer aulos_", "Token {key}", "{key}", "Bearer {key}x", "Bearer {short}", "Bearer {upper}",
    "Bearer {key} {key}", "Bearer\t{key}", "Bearer {swapped}", "Basic {key}"])
def test_odd_credentials_are_401(locked, value):
    key = locked.keys["admin"]["secret"]
    value = value.format(key=key, short=key[:-1], upper=key.upper(), swapped=key[:10] + key[11] + key[10] + key[12:]
                         if key[10] != key[11] else key[:-1])
    check_401(locked.get("/v1/jobs", headers={"Authorization": value}))


def test_two_authorizations_are_401(locked):
    key = locked.keys["admin"]["secret"]
    line = f"Authorization: Bearer {key}\r\n"
    answer, _ = locked.raw(f"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}{line}Connection: close\r\n\r\n".encode())
    assert answer.split()[1] == b"401"


def test_the_scheme_is_read_in_any_case(locked):
    assert locked.get("/v1/jobs", headers={"Authorization": f"bearer  {locked.keys['read']['secret']}"}).status_code == 200


def test_a_refused_body_is_not_read(locked):
    answer, closed = locked.raw(f"POST /v1/prompts HTTP/1.1\r\nHost: 127.0.0.1:{locked.port}\r\nContent-Type: application/json\r\n"
                                "Content-Length: 900000\r\nExpect: 100-continue\r\n\r\n".encode())
    assert answer.split()[1] == b"401" and b"100 Continue" not in answer
    assert closed


def test_a_foreign_page_is_refused_with_a_key_too(locked, admin):
    check_problem(locked.post("/v1/prompts", {"text": "a"}, headers={**admin, "Origin": "http://evil.example"}), 403)
    check_problem(locked.get("/v1/jobs", headers={**admin, "Host": "evil.example"}), 421)


# ---- Keys


def test_a_key_is_made_shown_once_listed_and_revoked(locked, admin):
    body = {"name": "studio", "scopes": ["read", "write"]}
    made = locked.post("/v1/keys", body, headers=admin)
    assert made.status_code == 201, made.text
    assert made.headers["Cache-Control"] == "no-store"
    key = made.json()
    assert UUID7.match(key["id"]) and SECRET.match(key["secret"])
    assert key["name"] == "studio" and key["scopes"] == ["read", "write"] and key["expires_at"] is None
    assert key["prefix"] == key["secret"][:8] and len(key["prefix"]) == 8
    assert made.headers["Location"] == f"/v1/keys/{key['id']}"

    one = locked.get(made.headers["Location"], headers=admin)
    listed = [k for k in locked.get("/v1/keys?limit=100", headers=admin).json()["data"] if k["id"] == key["id"]]
    for shown in (one.json(), *listed):
        assert "secret" not in shown and shown["prefix"] == key["prefix"]
        assert key["secret"] not in json.dumps(shown)
    assert len(listed) == 1
    assert locked.get(made.headers["Location"], headers={**admin, "If-None-Match": one.headers["ETag"]}).status_code == 304

    assert locked.post("/v1/prompts", {"text": "a"}, headers=bearer(key)).status_code == 201
    check_problem(locked.req("DELETE", f"/v1/keys/{key['id']}", headers={**admin, "If-Match": '"other"'}), 412)
    assert locked.req("DELETE", f"/v1/keys/{key['id']}", headers=admin).status_code == 204
    check_401(locked.get("/v1/jobs", headers=bearer(key)))
    check_problem(locked.get(f"/v1/keys/{key['id']}", headers=admin), 410)
    check_problem(locked.req("DELETE", f"/v1/keys/{key['id']}", headers=admin), 410)
    assert not [k for k in locked.get("/v1/keys?limit=100", headers=admin).json()["data"] if k["id"] == key["id"]]


def test_the_database_and_the_log_know_no_secret(locked, admin):
    key = locked.post("/v1/keys", {"name": "quiet", "scopes": ["read"]}, headers=admin).json()
    locked.get("/v1/jobs", headers=bearer(key))
    session = locked.post("/v1/session", {"key": key["secret"]})
    token = session.cookies["aulos_session"]
    for name in ("aulos.db", "aulos.db-wal"):
        content = (locked.data / name).read_bytes()
        assert key["secret"].encode() not in content and key["secret"][6:].encode() not in content
        assert token.encode() not in content
    log = locked.log_path.read_text("utf-8", "replace")
    assert key["secret"] not in log and token not in log


def test_the_database_is_for_its_owner_alone(locked):
    for name in ("aulos.db", "aulos.db-wal", "aulos.db-shm"):
        assert (locked.data / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("body,pointer", [
    ({"scopes": ["read"]}, "/name"), ({"name": "", "scopes": ["read"]}, "/name"), ({"name": 1, "scopes": ["read"]}, "/name"),
    ({"name": "x" * 201, "scopes": ["read"]}, "/name"), ({"name": "a"}, "/scopes"), ({"name": "a", "scopes": []}, "/scopes"),
    ({"name": "a", "scopes": "read"}, "/scopes"), ({"name": "a", "scopes": ["root"]}, "/scopes/0"),
    ({"name": "a", "scopes": ["read", 1]}, "/scopes/1"), ({"name": "a", "scopes": ["read"], "expires_at": "soon"}, "/expires_at"),
    ({"name": "a", "scopes": ["read"], "expires_at": 5}, "/expires_at"),
    ({"name": "a", "scopes": ["read"], "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
    ({"name": "a", "scopes": ["read"], "scope": "read"}, "/scope")])
def test_bad_keys_are_422_with_the_pointer(locked, admin, body, pointer):
    assert pointer in pointers(check_problem(locked.post("/v1/keys", body, headers=admin), 422))


def test_names_at_their_limit_are_taken(locked, admin):
    for name in ("x", "é" * 200):
        assert locked.post("/v1/keys", {"name": name, "scopes": ["read"]}, headers=admin).json()["name"] == name


def in_seconds(s):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=s)).isoformat(timespec="milliseconds")


def test_a_key_ends_at_its_time(locked, admin):
    key = locked.post("/v1/keys", {"name": "short", "scopes": ["read"], "expires_at": in_seconds(2 * harness.SLOW)},
                      headers=admin).json()
    assert harness.TIME.match(key["expires_at"])
    assert locked.get("/v1/jobs", headers=bearer(key)).status_code == 200
    harness.wait_until(lambda: locked.get("/v1/jobs", headers=bearer(key)).status_code == 401, 20, "the end of the key")
    # It is over, not gone.
    assert locked.get(f"/v1/keys/{key['id']}", headers=admin).status_code == 200


def test_use_is_noted(locked, admin):
    key = locked.post("/v1/keys", {"name": "used", "scopes": ["read"]}, headers=admin).json()
    path = f"/v1/keys/{key['id']}"
    assert locked.get(path, headers=admin).json()["last_used_at"] is None
    locked.get("/v1/jobs", headers=bearer(key))
    harness.wait_until(lambda: locked.get(path, headers=admin).json()["last_used_at"], 20, "a note of the use")
    first = locked.get(path, headers=admin).json()["last_used_at"]
    for _ in range(20):
        locked.get("/v1/jobs", headers=bearer(key))
    assert locked.get(path, headers=admin).json()["last_used_at"] == first, "not with every request"


def test_pages_of_keys(locked, admin):
    for i in range(5):
        locked.post("/v1/keys", {"name": f"page {i}", "scopes": ["read"]}, headers=admin)
    page = locked.get("/v1/keys?limit=2", headers=admin).json()
    assert len(page["data"]) == 2 and page["has_more"] and page["next_cursor"]
    following = locked.get(f"/v1/keys?limit=2&cursor={page['next_cursor']}", headers=admin).json()
    assert not {k["id"] for k in page["data"]} & {k["id"] for k in following["data"]}
    check_problem(locked.get("/v1/keys?bogus=1", headers=admin), 400)


def test_the_making_of_a_key_is_repeated_without_its_secret(locked, admin):
    headers = {**admin, "Idempotency-Key": "make-one"}
    first = locked.post("/v1/keys", {"name": "one", "scopes": ["read"]}, headers=headers)
    again = locked.post("/v1/keys", {"name": "one", "scopes": ["read"]}, headers=headers)
    assert first.status_code == again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"] and "secret" not in again.json()


def test_idempotency_keys_of_two_keys_are_independent(locked):
    other = key_of(locked, "--name", "other")
    made = [locked.post("/v1/prompts", {"text": text}, headers={**bearer(key), "Idempotency-Key": "same"})
            for key, text in ((locked.keys["write"], "one"), (other, "two"))]
    assert [r.status_code for r in made] == [201, 201], [r.text for r in made]
    assert made[0].json()["id"] != made[1].json()["id"]


# ---- The command


def test_a_key_made_before_the_first_start_opens_the_server(tmp_path):
    data = tmp_path / "new" / "data"
    done = aulos("key", "create", "--data", data, "--name", "first", "--scopes", "admin")
    assert done.returncode == 0, done.stderr
    secret = done.stdout.strip()
    assert SECRET.match(secret) and secret not in done.stderr
    server = harness.Server(data, "--auth", "required", workers=0).start()
    try:
        assert server.get("/v1/keys", headers=bearer(secret)).json()["data"][0]["name"] == "first"
    finally:
        server.stop()
        server.kill()


def test_keys_made_and_revoked_beside_a_running_server_count_at_once(locked):
    key = key_of(locked, "--name", "late", "--scopes", "read,write", "--expires-in", "1h")
    assert key["scopes"] == ["read", "write"] and key["expires_at"]
    assert locked.get("/v1/jobs", headers=bearer(key)).status_code == 200
    listed = json.loads(aulos("key", "list", "--data", locked.data, "--json").stdout)["data"]
    assert key["id"] in [k["id"] for k in listed]
    table = aulos("key", "list", "--data", locked.data).stdout
    assert "late" in table and key["secret"] not in table and "read,write" in table
    assert aulos("key", "revoke", key["id"], "--data", locked.data).returncode == 0
    check_401(locked.get("/v1/jobs", headers=bearer(key)))
    again = aulos("key", "revoke", key["id"], "--data", locked.data)
    assert again.returncode == 1 and "revoked before" in again.stderr


def test_the_command_asks_a_server(locked):
    env = {"AULOS_KEY": locked.keys["admin"]["secret"], "AULOS_SERVER": locked.url}
    made = aulos("key", "create", "--name", "far", "--scopes", "read", env=env)
    assert made.returncode == 0 and SECRET.match(made.stdout.strip()), made.stderr
    assert locked.get("/v1/jobs", headers=bearer(made.stdout.strip())).status_code == 200
    # More than a page.
    for i in range(101):
        key_of(locked, "--name", f"many {i}")
    listed = json.loads(aulos("key", "list", "--json", env=env).stdout)["data"]
    assert len(listed) > 100 and len({k["id"] for k in listed}) == len(listed)
    far = next(k for k in listed if k["name"] == "far")
    assert aulos("key", "revoke", far["id"], env=env).returncode == 0
    check_401(locked.get("/v1/jobs", headers=bearer(made.stdout.strip())))
    gone = aulos("key", "revoke", far["id"], env=env)
    assert gone.returncode == 1 and "410" in gone.stderr
    denied = aulos("key", "list", "--server", locked.url, "--key", locked.keys["read"]["secret"])
    assert denied.returncode == 1 and "403" in denied.stderr and "admin" in denied.stderr


@pytest.mark.parametrize("words,code,text", [
    (["key"], 2, "create"), (["key", "make"], 2, "make"), (["key", "create", "--scopes", "root"], 2, "--scopes"),
    (["key", "create", "--scopes", ""], 2, "--scopes"), (["key", "create", "--name", ""], 2, "--name"),
    (["key", "create", "--name", "x" * 201], 2, "--name"), (["key", "create", "extra"], 2, "extra"),
    (["key", "create", "--expires-in", "0s"], 2, "--expires-in"), (["key", "revoke"], 2, "ID"), (["key", "revoke", "x"], 2, "x"),
    (["key", "revoke", MISSING_ID], 1, "no data folder"), (["key", "list"], 1, "no data folder"),
    (["key", "list", "--server", "https://127.0.0.1"], 2, "http://"), (["key", "list", "--server", "http://127.0.0.1:1"], 1, "127.0.0.1:1"),
    (["key", "list", "--server", "http://127.0.0.1:1", "--key", "aulos_x"], 2, "not complete")])
def test_wrong_uses_of_the_command(tmp_path, words, code, text):
    done = aulos(*words, "--data", tmp_path / "none")
    assert done.returncode == code and text in done.stderr, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "none").exists()


def test_an_unknown_key_cannot_be_revoked(locked):
    done = aulos("key", "revoke", MISSING_ID, "--data", locked.data)
    assert done.returncode == 1 and "does not exist" in done.stderr


def test_keys_may_be_made_while_the_server_starts_for_the_first_time(tmp_path):
    data = tmp_path / "data"
    server = harness.Server(data, "--auth", "required", workers=0)
    made = [subprocess.Popen([str(harness.BIN), "key", "create", "--data", str(data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env=harness.clean_env()) for _ in range(4)]
    try:
        server.start()
        for process in made:
            out, problem = process.communicate(timeout=60 * harness.SLOW)
            assert process.returncode == 0, problem
            assert server.get("/v1/jobs", headers=bearer(out.decode().strip())).status_code == 200
    finally:
        server.stop()
        server.kill()


def test_an_older_folder_is_brought_up_to_date_unless_a_server_is_at_work(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    db = sqlite3.connect(data / "aulos.db")
    db.executescript((harness.ROOT / "src" / "db" / "migrations" / "sqlite" / "0001_init.sql").read_text("utf-8"))
    db.execute("PRAGMA user_version=1")
    db.close()
    with open(data / "server.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = aulos("key", "create", "--data", data)
        assert refused.returncode == 1 and "another version" in refused.stderr
    assert key_of(data)["prefix"].startswith("aulos_")
    assert (data / "aulos.db.v1.bak").stat().st_mode & 0o077 == 0


# ---- Who needs one


def test_nobody_needs_a_key_on_loopback(api):
    assert api.get("/v1/keys").status_code == 200
    for headers in (bearer("aulos_wrong"), {"Authorization": "Basic YTpi"}, {"Cookie": "aulos_session=x"}):
        assert api.get("/v1/jobs", headers=headers).status_code == 200
    session = api.ok("/v1/session")
    assert session == {"key": None, "scopes": ["read", "write", "admin"], "expires_at": None, "key_needed": False}


def remote_server(tmp_path, *args):
    """A server on another address than loopback, as far as it can tell: all of them."""
    server = harness.Server(tmp_path / "data", *args, workers=0)
    at = server.words.index("--listen") + 1
    server.words[at] = "0.0.0.0:0"
    server.process = subprocess.Popen(server.words, env=server.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                      stderr=open(server.log_path, "ab"))
    line = server.process.stdout.readline()
    match = re.fullmatch(rb"listening on http://0\.0\.0\.0:(\d+)\n", line)
    assert match, (line, server.log())
    server.port = int(match.group(1))
    return server


def test_another_address_needs_a_key_to_exist_and_then_from_everybody(tmp_path):
    data = tmp_path / "data"
    words = ["serve", "--data", data, "--listen", "0.0.0.0:0", "--workers", "0", "--model", harness.MODEL]
    for more in ([], ["--auth", "required"]):
        refused = aulos(*words, *more, timeout=30)
        assert refused.returncode in (1, 2) and "aulos key create" in refused.stderr and "listening" not in refused.stdout
    key = key_of(data, "--scopes", "read")
    gone = key_of(data, "--scopes", "admin")
    aulos("key", "revoke", gone["id"], "--data", data)
    server = remote_server(tmp_path)
    try:
        check_401(server.get("/v1/jobs"))
        assert server.get("/healthz").status_code == 200
        assert server.get("/v1/jobs", headers=bearer(key)).status_code == 200
        assert server.get("/v1/session", headers=bearer(key)).json()["key_needed"] is True
    finally:
        server.stop()
        server.kill()
    # A revoked key is none.
    aulos("key", "revoke", key["id"], "--data", data)
    assert aulos(*words, timeout=30).returncode in (1, 2)


def test_open_to_everybody_only_by_name(tmp_path):
    server = remote_server(tmp_path, "--insecure-no-auth")
    try:
        assert server.get("/v1/jobs").status_code == 200
    finally:
        server.stop()
        server.kill()


def test_required_wins_over_insecure(make_server):
    server = make_server("--auth", "required", "--insecure-no-auth", workers=0)
    check_401(server.get("/v1/jobs"))


# ---- Browser sessions


def log_in(server, key, **kw):
    reply = server.post("/v1/session", {"key": key["secret"]}, **kw)
    assert reply.status_code == 201, reply.text
    return reply, {"Cookie": f"aulos_session={reply.cookies['aulos_session']}"}


@pytest.fixture(autouse=True)
def no_cookies_kept(request):
    """Cookies are sent by the tests, not by the client."""
    yield
    for name in ("locked", "api", "live"):
        if name in request.fixturenames:
            request.getfixturevalue(name).session.cookies.clear()


def test_a_key_becomes_a_cookie_with_its_scopes(locked):
    reply, cookie = log_in(locked, locked.keys["write"])
    parts = [p.strip() for p in reply.headers["Set-Cookie"].split(";")]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(parts) and "Secure" not in parts
    assert reply.json()["scopes"] == ["write"] and reply.json()["key"]["name"] == "write"
    assert locked.keys["write"]["secret"] not in reply.text + reply.headers["Set-Cookie"]
    locked.session.cookies.clear()
    shown = locked.get("/v1/session", headers=cookie)
    assert shown.json() == reply.json()
    assert locked.get("/v1/jobs", headers=cookie).status_code == 200
    assert locked.post("/v1/prompts", {"text": "a"}, headers={**cookie, "Origin": locked.url}).status_code == 201
    check_problem(locked.get("/v1/keys", headers=cookie), 403, "forbidden-scope")
    ended = locked.req("DELETE", "/v1/session", headers=cookie)
    assert ended.status_code == 204 and "Max-Age=0" in ended.headers["Set-Cookie"]
    check_401(locked.get("/v1/session", headers=cookie))
    check_401(locked.get("/v1/jobs", headers=cookie))
    assert locked.req("DELETE", "/v1/session").status_code == 204


def test_the_cookie_is_secure_behind_https(locked):
    reply, _ = log_in(locked, locked.keys["read"], headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in [p.strip() for p in reply.headers["Set-Cookie"].split(";")]


def test_a_session_can_be_had_by_the_header_alone(locked):
    reply = locked.req("POST", "/v1/session", headers=bearer(locked.keys["read"]))
    assert reply.status_code == 201 and reply.cookies["aulos_session"]


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                                     {"Sec-Fetch-Site": "same-site"}])
def test_with_a_cookie_only_our_own_pages_change_things(locked, headers):
    _, cookie = log_in(locked, locked.keys["admin"])
    locked.session.cookies.clear()
    check_problem(locked.post("/v1/prompts", {"text": "a"}, headers={**cookie, **headers}), 403, "forbidden-origin")
    check_problem(locked.req("DELETE", "/v1/session", headers={**cookie, **headers}), 403, "forbidden-origin")
    assert locked.get("/v1/session", headers=cookie).status_code == 200


def test_a_revoked_key_ends_its_sessions(locked):
    key = key_of(locked, "--name", "browser")
    _, cookie = log_in(locked, key)
    locked.session.cookies.clear()
    assert locked.get("/v1/jobs", headers=cookie).status_code == 200
    aulos("key", "revoke", key["id"], "--data", locked.data)
    check_401(locked.get("/v1/jobs", headers=cookie))


def test_bad_keys_open_no_session(locked):
    check_401(locked.post("/v1/session", {"key": "aulos_" + "b" * 56}))
    check_401(locked.post("/v1/session", {"key": "x"}))
    assert "/key" in pointers(check_problem(locked.post("/v1/session", {}), 422))
    assert "/key" in pointers(check_problem(locked.post("/v1/session", {"key": 5}), 422))
    assert "/kye" in pointers(check_problem(locked.post("/v1/session", {"kye": "x"}), 422))


def test_a_wrong_header_is_not_saved_by_a_cookie(locked):
    _, cookie = log_in(locked, locked.keys["read"])
    check_401(locked.get("/v1/jobs", headers={**cookie, **bearer("aulos_" + "c" * 56)}))
    # One of another kind, from a proxy, is.
    locked.session.cookies.clear()
    assert locked.get("/v1/jobs", headers={**cookie, "Authorization": "Basic YTpi"}).status_code == 200


# ---- Links


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A server that wants keys, with two finished samples: (server, its read key's header, the samples)."""
    data = tmp_path_factory.mktemp("heard") / "data"
    key = key_of(data, "--scopes", "admin")
    server = harness.Server(data, "--auth", "required").start()
    server.session.headers.update(bearer(key))
    job = server.run(prompt="a calm piano", duration_s=0.5, seed=3, num_samples=2)
    samples = server.samples_of(job)
    yield server, samples
    try:
        assert server.stop() == 0
    finally:
        server.kill()


def test_a_link_opens_the_audio_of_its_sample_and_nothing_else(heard):
    server, (sample, other) = heard
    made = server.post(f"/v1/samples/{sample['id']}/link")
    assert made.status_code == 201, made.text
    link = made.json()
    assert set(link) == {"url", "expires_at"} and harness.TIME.match(link["expires_at"])
    url = server.url + link["url"]
    audio = requests.get(url, timeout=30)
    assert audio.status_code == 200 and harness.sha256(audio.content) == sample["sha256"]
    assert requests.head(url, timeout=30).status_code == 200
    assert requests.get(url, headers={"Range": "bytes=0-9"}, timeout=30).status_code == 206
    path, query = link["url"].split("?")
    assert requests.get(f"{server.url}{path}.wav?{query}", timeout=30).content == audio.content
    named = requests.get(f"{url}&download=1", timeout=30)
    assert named.content == audio.content and "attachment" in named.headers["Content-Disposition"]
    check_problem(requests.get(f"{url}&bogus=1", timeout=30), 400, "bad-query")
    for method, target in (("GET", f"/v1/samples/{sample['id']}"), ("GET", "/v1/jobs"), ("GET", f"/v1/samples/{sample['id']}/peaks"),
                           ("DELETE", f"/v1/samples/{sample['id']}"), ("POST", f"/v1/samples/{sample['id']}/link")):
        reply = requests.request(method, f"{server.url}{target}?{query}", timeout=30)
        assert reply.status_code in (401, 404, 405), (method, target, reply.status_code)
    foreign = requests.get(f"{server.url}/v1/samples/{other['id']}/audio?{query}", timeout=30)
    check_problem(foreign, 403, "bad-link")
    check_401(requests.get(server.url + path, timeout=30))
    assert requests.post(url, timeout=30).status_code == 405


@pytest.mark.parametrize("change", [
    lambda q: q[:-1] + ("0" if q[-1] != "0" else "1"), lambda q: q[:-1], lambda q: q.replace("expires=", "expires=1"),
    lambda q: q.split("&")[0], lambda q: q.split("&")[1], lambda q: q.replace("signature=", "signature=%"),
    lambda q: "expires=&signature=", lambda q: "expires=99999999999999999999&signature=x", lambda q: q + "%00"])
def test_a_changed_link_is_403(heard, change):
    server, (sample, _) = heard
    path, query = server.post(f"/v1/samples/{sample['id']}/link").json()["url"].split("?")
    check_problem(requests.get(f"{server.url}{path}?{change(query)}", timeout=30), 403, "bad-link")
    # A key does not mend it.
    check_problem(server.get(f"{path}?{change(query)}"), 403, "bad-link")


def test_a_link_ends(heard):
    server, (sample, _) = heard
    url = server.url + server.post(f"/v1/samples/{sample['id']}/link", {"expires_in_s": 1}).json()["url"]
    harness.wait_until(lambda: requests.get(url, timeout=30).status_code == 403, 20, "the end of the link")
    check_problem(requests.get(url, timeout=30), 403, "bad-link")


@pytest.mark.parametrize("seconds,good", [(1, True), (86400, True), (0, False), (86401, False), (-1, False), (1.5, False), ("60", False)])
def test_limits_of_a_link(heard, seconds, good):
    server, (sample, _) = heard
    reply = server.post(f"/v1/samples/{sample['id']}/link", {"expires_in_s": seconds})
    if good:
        assert reply.status_code == 201
    else:
        assert "/expires_in_s" in pointers(check_problem(reply, 422))


def test_links_of_what_is_not_there(heard):
    server, _ = heard
    check_problem(server.post(f"/v1/samples/{MISSING_ID}/link"), 404)
    check_problem(server.post("/v1/samples/x/link"), 404)
    check_problem(server.post(f"/v1/samples/{MISSING_ID}/link", {"expires": 5}), 422)


def test_a_read_key_may_make_links(heard):
    server, (sample, _) = heard
    key = key_of(server, "--scopes", "read")
    reply = server.post(f"/v1/samples/{sample['id']}/link", headers=bearer(key))
    assert reply.status_code == 201
    assert server.post("/v1/prompts", {"text": "a"}, headers=bearer(key)).status_code == 403


def test_links_survive_a_restart(heard, tmp_path):
    server, (sample, _) = heard
    link = server.post(f"/v1/samples/{sample['id']}/link").json()["url"]
    server.stop()
    server.start()
    assert requests.get(server.url + link, timeout=30).status_code == 200


# ---- Behind a proxy


def test_a_base_path_stands_in_every_url(make_server):
    server = make_server("--base-path", "/studio/aulos", workers=0)
    base = "/studio/aulos"
    for prefix in ("", base):
        made = server.post(f"{prefix}/v1/jobs", {"prompt": "a", "duration_s": 0.5})
        assert made.status_code == 202, made.text
        job = made.json()
        assert made.headers["Location"] == f"{base}/v1/jobs/{job['id']}"
        assert all(u.startswith(base + "/") for u in job["urls"].values()), job["urls"]
        assert server.get(made.headers["Location"]).json()["id"] == job["id"]
    page = server.get(f"{base}/v1/jobs?limit=1")
    assert page.links["next"]["url"].startswith(f"{base}/v1/jobs?")
    assert server.get(page.links["next"]["url"]).json()["data"][0]["id"] != page.json()["data"][0]["id"]
    assert all(u.startswith(base + "/") for u in server.ok(base + "/")["urls"].values())
    one = server.get(f"/v1/jobs/{job['id']}")
    assert server.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": one.headers["ETag"]}).status_code == 304
    check_problem(server.get(f"{base}x/v1/jobs"), 404)
    key = key_of(server)
    cookie = server.post("/v1/session", {"key": key["secret"]}).headers["Set-Cookie"]
    assert f"Path={base};" in cookie


@pytest.mark.parametrize("path", ["studio", "/", "/a/", "//a", "/a//b", "/a b", "/..", "/a?b", "/v1", "/v1/x", "/" + "a" * 200])
def test_odd_base_paths_are_wrong_usage(tmp_path, path):
    done = aulos("serve", "--data", tmp_path / "data", "--base-path", path, "--workers", "0")
    assert done.returncode == 2 and "--base-path" in done.stderr
