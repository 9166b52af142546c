# SPDX-License-Identifier: MIT
"""Adapters that clients send: files and archives, versions by content, hostile ones refused without a trace."""
import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness
from harness import ADAPTERS, CHECKPOINTS, HEX64, Server, check_problem, pointers, wait_until

PLAIN = ADAPTERS / "mono-f32" / "plain"
OTHER = ADAPTERS / "mono-f32" / "dreambooth"
MONO = CHECKPOINTS / "mono-f32"
NAMES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def files_of(folder):
    return {n: (folder / n).read_bytes() for n in NAMES if (folder / n).is_file()}


def zip_of(files, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return out.getvalue()


def tar_of(files, edit=None, mode="w", fmt=tarfile.PAX_FORMAT):
    """files: {name: bytes}; edit(name, info) may change an entry."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=fmt) as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if edit:
                edit(name, info)
            t.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def zstd_of(data):
    """A Zstandard frame of blocks that are stored as they are (RFC 8878, 3.1.1)."""
    out = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data))
    for at in range(0, len(data), 1 << 16):
        block = data[at:at + (1 << 16)]
        out += struct.pack("<I", len(block) << 3 | (at + len(block) == len(data)))[:3] + block
    return out


def upload(server, name="style", files=None, archive=None, query="", headers=None, **fields):
    """The reply to POST /v1/adapters."""
    parts = [("files", (n, d)) for n, d in (files.items() if isinstance(files, dict) else files or [])]
    if archive is not None:
        parts.append(("archive", ("adapter", archive)))
    if name is not None:
        fields["name"] = name
    return server.req("POST", "/v1/adapters" + query, data=fields, files=parts or {"": ""}, headers=headers)


def settled(server, adapter):
    def look():
        now = server.ok(f"/v1/adapters/{adapter['id']}")
        return now if now["state"] != "validating" else None

    return wait_until(look, 60, "the upload to be checked")


def accept(server, **kw):
    """An upload that becomes ready."""
    reply = upload(server, **kw)
    assert reply.status_code == 202, reply.text
    adapter = reply.json()
    assert reply.headers["Location"] == f"/v1/adapters/{adapter['id']}"
    assert adapter["state"] in ("validating", "ready")
    done = settled(server, adapter)
    assert done["state"] == "ready", done
    return done


def staging_is_empty(server):
    folder = server.data / "incoming"
    return not folder.exists() or not any(folder.iterdir())


def copies(server):
    folder = server.data / "objects" / "adapters"
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A server without workers and with an empty folder of adapters."""
    base = tmp_path_factory.mktemp("up")
    (base / "none").mkdir()
    server = Server(base / "data", "--adapters", base / "none", "--max-upload", "4M", workers=0, model=MONO).start()
    yield server
    try:
        wait_until(lambda: staging_is_empty(server), 30, "the staging folder to be empty")
        for folder in copies(server):
            assert server.req("GET", f"/v1/adapters?limit=100").status_code == 200
            assert harness.read_db(server.data, "SELECT 1 FROM adapters WHERE sha256 = ?", folder), "a copy without an adapter"
        assert not harness.read_db(server.data, "SELECT * FROM uploads")
        assert not [p for p in server.data.rglob("*") if p.name in ("evil", "passwd")]
        assert server.stop() == 0
    finally:
        server.kill()


# ---- What works


def test_files_become_an_adapter_that_jobs_use(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", model=MONO)
    adapter = accept(server, files=files_of(PLAIN), description="as found", base_model="mono-f32")
    assert adapter["name"] == "style" and adapter["version"] == 1 and adapter["current"] is True
    assert adapter["description"] == "as found" and adapter["base_model"] == "mono-f32"
    assert adapter["kind"] == "lora" and adapter["rank"] > 0 and adapter["alpha"] > 0 and adapter["targets"] > 0
    assert adapter["matched"] > 0 and adapter["unmatched"] == [] and adapter["error"] is None
    assert adapter["report"]["problems"] == []
    assert HEX64.match(adapter["sha256"])
    assert adapter["bytes"] == (PLAIN / "adapter_model.safetensors").stat().st_size
    alone = harness.generate(tmp_path / "a.wav", "electronic dance music", model=MONO, seed=1, adapter=PLAIN)["samples"][0]
    for use in (adapter["id"], {"name": "style", "strength": 1}):
        job = server.run(prompt="electronic dance music", adapter=use, seed=1, duration_s=0.5)
        assert server.samples_of(job)[0]["sha256"] == alone["sha256"]
    assert job["variants"][0]["adapter"] == {"id": adapter["id"], "name": "style", "strength": 1, "sha256": adapter["sha256"]}
    assert staging_is_empty(server)


PACKED = {
    "zip": lambda f: zip_of(f), "zip-stored": lambda f: zip_of(f, zipfile.ZIP_STORED),
    "tar": lambda f: tar_of(f), "tar-gnu": lambda f: tar_of(f, fmt=tarfile.GNU_FORMAT), "tar.gz": lambda f: tar_of(f, mode="w:gz"),
    "tar.zst": lambda f: zstd_of(tar_of(f)),
    "zip-folder": lambda f: zip_of({"my lora/" + n: d for n, d in f.items()}),
    "tar-dot": lambda f: tar_of({"./" + n: d for n, d in f.items()}),
    "with-more": lambda f: zip_of({**f, "README.md": b"read me", "Ünicode.txt": b"x", "__MACOSX/a/b/._c": b"x"}),
}


@pytest.mark.parametrize("kind", PACKED)
def test_archives(up, kind):
    """However it is packed, the content decides: the same id as the files alone."""
    first = upload(up, name="packed", files=files_of(OTHER))
    assert first.status_code in (200, 202), first.text
    settled(up, first.json())
    reply = upload(up, name="packed", archive=PACKED[kind](files_of(OTHER)))
    assert reply.status_code == 200, reply.text
    assert reply.json()["id"] == first.json()["id"] and reply.json()["state"] == "ready"


def test_pytorch_bin(up):
    done = accept(up, name="bin", files=files_of(ADAPTERS / "mono-f32" / "plain-bin"))
    assert done["matched"] > 0


def test_safetensors_come_before_bin(up):
    both = {**files_of(ADAPTERS / "mono-f32" / "rslora-patterns"), "adapter_model.bin": b"never looked at"}
    assert accept(up, name="both", files=both)["state"] == "ready"


def test_expect_100_continue_and_chunked(up):
    boundary = b"bb"
    body = b"".join(b'--bb\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n' % (n.encode(), d)
                    for n, d in files_of(ADAPTERS / "mono-f32" / "dora").items())
    body += b'--bb\r\nContent-Disposition: form-data; name="name"\r\n\r\nchunked\r\n--bb--\r\n'
    head = (b"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=%s\r\n"
            b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n" % boundary)
    with harness.socket.create_connection(("127.0.0.1", up.port), timeout=30 * harness.SLOW) as s:
        s.sendall(head)
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for i in range(0, len(body), 5000):
            piece = body[i:i + 5000]
            s.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        s.sendall(b"0\r\n\r\n")
        got, _ = harness.read_all(s)
    assert got.startswith(b"HTTP/1.1 202 ")


# ---- Identity, names, versions


def test_versions(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", workers=0, model=MONO)
    first = accept(server, files=files_of(PLAIN))
    again = upload(server, files=files_of(PLAIN))
    assert again.status_code == 200 and again.json()["id"] == first["id"]
    # The same content under another name is the same adapter, and keeps its name.
    other_name = upload(server, name="else", files=files_of(PLAIN))
    assert other_name.status_code == 200 and other_name.json()["name"] == "style"
    problem = check_problem(upload(server, files=files_of(OTHER)), 409, "conflict")
    assert pointers(problem)["/name"]["id"] == first["id"]
    assert len(copies(server)) == 1
    waiting = server.submit(prompt="x", adapter={"name": "style"}, duration_s=0.2)
    second = accept(server, files=files_of(OTHER), query="?replace=1")
    assert second["id"] != first["id"] and second["version"] == 2
    assert {a["id"]: a["current"] for a in server.all("/v1/adapters?all=1")} == {first["id"]: False, second["id"]: True}
    assert [a["id"] for a in server.all("/v1/adapters")] == [second["id"]]
    assert [a["id"] for a in server.all("/v1/adapters?name=style&version=1")] == [first["id"]]
    assert server.all("/v1/adapters?name=nothing") == []
    assert server.job(waiting)["variants"][0]["adapter"]["id"] == first["id"]
    assert server.submit(prompt="x", adapter={"name": "style"}, duration_s=0.2)["variants"][0]["adapter"]["id"] == second["id"]
    # An old version can be asked for by its id, and made the current one again by its content.
    assert server.submit(prompt="x", adapter=first["id"], duration_s=0.2)["variants"][0]["adapter"]["sha256"] == first["sha256"]
    back = upload(server, files=files_of(PLAIN), query="?replace=1")
    assert back.status_code == 202 and back.json()["id"] == first["id"]
    assert settled(server, first)["current"] is True
    assert server.ok(f"/v1/adapters/{second['id']}")["current"] is False


def test_a_rejected_version_does_not_take_the_name(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", workers=0, model=MONO)
    first = accept(server, files=files_of(PLAIN))
    bad = upload(server, files=files_of(ADAPTERS / "bad" / "wrong-shape-a"), query="?replace=1")
    assert bad.status_code == 202
    assert settled(server, bad.json())["state"] == "rejected"
    job = server.submit(prompt="x", adapter={"name": "style"}, duration_s=0.2)
    assert job["variants"][0]["adapter"]["id"] == first["id"]
    # And a name that only a rejected one has is free.
    settled(server, upload(server, name="free", files=files_of(ADAPTERS / "bad" / "ia3")).json())
    assert accept(server, name="free", files=files_of(OTHER))["version"] == 2


def test_rejected_with_its_report(up):
    reply = upload(up, name="bad", files=files_of(ADAPTERS / "bad" / "unmatched-tensor"))
    assert reply.status_code == 202
    done = settled(up, reply.json())
    assert done["state"] == "rejected"
    assert done["unmatched"] and any("99" in name for name in done["report"]["unmatched"])
    assert done["report"]["problems"]
    assert done["error"]["status"] == 422 and done["error"]["detail"] and done["error"]["type"].startswith("/problems/")
    problem = check_problem(up.post("/v1/jobs", {"prompt": "x", "adapter": done["id"]}), 422)
    assert pointers(problem)["/adapter"]["report"]["problems"]
    wait_until(lambda: done["sha256"] not in copies(up), 30, "the files of the rejected adapter to be gone")
    assert done["id"] in {a["id"] for a in up.all("/v1/adapters?state=rejected")}


def test_base_model_decides(make_server, tmp_path):
    """Fits the first model, is meant for the second."""
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", "--model", CHECKPOINTS / "mono-bf16-noproj", workers=0, model=MONO)
    problem = check_problem(upload(server, files=files_of(PLAIN), base_model="mono-f33"), 422, "validation")
    assert pointers(problem)["/base_model"]["known"] == ["mono-f32", "mono-bf16-noproj"]
    reply = upload(server, files=files_of(PLAIN), base_model="mono-bf16-noproj")
    assert settled(server, reply.json())["state"] == "rejected"
    done = accept(server, files=files_of(PLAIN))
    assert done["id"] == reply.json()["id"] and done["base_model"] == "mono-f32"
    assert [a["id"] for a in server.all("/v1/adapters?base_model=mono-f32")] == [done["id"]]
    assert server.all("/v1/adapters?base_model=mono-bf16-noproj") == []


def test_idempotency_key(up):
    key = {"Idempotency-Key": "an-upload-1"}
    files = files_of(ADAPTERS / "mono-f32" / "modules-to-save")
    first = upload(up, name="keyed", files=files, headers=key)
    assert first.status_code == 202 and "Idempotency-Replayed" not in first.headers
    again = upload(up, name="keyed", archive=zip_of(files), headers=key)
    assert again.status_code == 202 and again.headers["Idempotency-Replayed"] == "true", again.text
    assert again.json()["id"] == first.json()["id"] and again.headers["Location"] == first.headers["Location"]
    assert upload(up, name="keyed2", files=files, headers=key).status_code == 422


# ---- PATCH, DELETE, restore


def test_patch(up):
    adapter = accept(up, name="before", files=files_of(ADAPTERS / "mono-f32" / "text-encoder"))
    path = f"/v1/adapters/{adapter['id']}"
    etag = up.get(path).headers["ETag"]
    changed = up.req("PATCH", path, json={"name": "after", "description": "d"}, headers={"If-Match": etag})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["name"], changed.json()["description"], changed.json()["id"]) == ("after", "d", adapter["id"])
    check_problem(up.req("PATCH", path, json={"name": "x"}, headers={"If-Match": etag}), 412)
    assert up.req("PATCH", path, json={}).status_code == 200
    problem = check_problem(up.req("PATCH", path, json={"nme": "x", "description": 1}), 422, "validation")
    assert pointers(problem)["/nme"]["did_you_mean"] == "name" and "/description" in pointers(problem)
    for name in ("", "a\nb", "x" * 201):
        check_problem(up.req("PATCH", path, json={"name": name}), 422)
    assert up.req("PATCH", path, json={"name": "x" * 200}).status_code == 200
    packed = upload(up, name="packed", files=files_of(OTHER)).json()
    settled(up, packed)
    problem = check_problem(up.req("PATCH", path, json={"name": "packed"}), 409)
    assert pointers(problem)["/name"]["id"] == packed["id"]
    check_problem(up.req("PATCH", f"/v1/adapters/{harness.MISSING_ID}", json={}), 404)


def test_delete_keeps_what_jobs_need(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", "--deleted-retention", "0s", workers=0, model=MONO)
    adapter = accept(server, files=files_of(PLAIN))
    path = f"/v1/adapters/{adapter['id']}"
    job = server.submit(prompt="electronic dance music", adapter=adapter["id"], seed=1, duration_s=0.5)
    check_problem(server.req("DELETE", path, headers={"If-Match": '"no"'}), 412)
    assert server.req("DELETE", path).status_code == 204
    check_problem(server.get(path), 410)
    check_problem(server.req("DELETE", path), 410)
    assert server.all("/v1/adapters?all=1") == []
    for use in (adapter["id"], {"name": "style"}):
        problem = check_problem(server.post("/v1/jobs", {"prompt": "x", "adapter": use}), 404)
        assert any(p.startswith("/adapter") for p in pointers(problem))
    done = harness.aulos("worker", "--data", server.data, "--model", MONO, "--once")
    assert done.returncode == 0, done.stderr
    alone = harness.generate(tmp_path / "a.wav", "electronic dance music", model=MONO, seed=1, adapter=PLAIN)["samples"][0]
    sample = server.samples_of(job)[0]
    assert sample["sha256"] == alone["sha256"] and sample["adapter"]["id"] == adapter["id"]
    assert copies(server) == {adapter["sha256"]}
    # The name is free; the content comes back under its id.
    assert accept(server, files=files_of(OTHER))["version"] == 2
    assert server.post(f"{path}/restore").json()["current"] is False
    assert server.req("DELETE", path).status_code == 204
    back = accept(server, name="style again", files=files_of(PLAIN))
    assert back["id"] == adapter["id"] and back["name"] == "style again"


def test_restore(up):
    adapter = accept(up, name="gone", files=files_of(ADAPTERS / "mono-f32" / "regex-bias"))
    path = f"/v1/adapters/{adapter['id']}"
    assert up.req("DELETE", path).status_code == 204
    back = up.post(f"{path}/restore")
    assert back.status_code == 200 and back.json()["id"] == adapter["id"]
    assert up.post(f"{path}/restore").status_code == 200
    assert up.get(path).status_code == 200
    check_problem(up.post(f"/v1/adapters/{harness.MISSING_ID}/restore"), 404)


# ---- The form


def test_what_is_wrong_with_the_form(up):
    files = files_of(PLAIN)
    one = {"adapter_config.json": files["adapter_config.json"]}
    assert "/name" in pointers(check_problem(upload(up, name=None, files=files), 422, "validation"))
    both = pointers(check_problem(upload(up, name=None, nmae="x"), 422, "validation"))
    assert both["/nmae"]["did_you_mean"] == "name" and both["/files"]["code"] == "missing" and "/" in both
    for name in ("", "a\tb", "x" * 201, "x" * 20000):
        assert "/name" in pointers(check_problem(upload(up, name=name, files=files), 422, "validation"))
    assert "/description" in pointers(check_problem(upload(up, files=files, description="é" * 2001), 422, "validation"))
    assert "adapter_model" in check_problem(upload(up, files=one), 422)["detail"]
    assert "adapter_config" in check_problem(upload(up, files={"adapter_model.safetensors": b"x"}), 422)["detail"]
    assert "/archive" in pointers(check_problem(upload(up, files=files, archive=zip_of(files)), 422))
    check_problem(up.post("/v1/adapters", {"name": "x"}), 415)
    check_problem(up.req("POST", "/v1/adapters", data=b"x", headers={"Content-Type": "multipart/form-data"}), 400)
    check_problem(up.req("POST", "/v1/adapters", data=b"--b\r\nx", headers={"Content-Type": "multipart/form-data; boundary=b"}), 400)
    check_problem(up.req("POST", "/v1/adapters"), 415)
    check_problem(upload(up, files=files, query="?replace=yes"), 400, "bad-query")
    check_problem(upload(up, files=files, query="?replce=1"), 400, "bad-query")
    for query in ("?state=x", "?version=0", "?all=2", "?nam=x"):
        check_problem(up.get("/v1/adapters" + query), 400, "bad-query")


def test_size_limits(up):
    """--max-upload is 4M: of what is sent (413), and of what comes out (422); a config has 1 MiB."""
    files = files_of(PLAIN)
    check_problem(upload(up, files={**files, "README": bytes(4 << 20)}), 413)
    room = (4 << 20) - sum(len(d) for d in files.values())
    fill = os.urandom(room + 1)
    for more, ok in ((-1, True), (0, True), (1, False)):
        packed = zip_of({**files, "README": bytes(room + more)})
        reply = upload(up, name="limit", archive=packed)
        assert (reply.status_code in (200, 202)) == ok, reply.text
    assert len(fill) > 0 and "bytes" in check_problem(upload(up, name="limit", archive=packed), 422)["detail"]
    config = files["adapter_config.json"]
    for size, ok in (((1 << 20) - 1, True), (1 << 20, True), ((1 << 20) + 1, False)):
        big = config + b" " * (size - len(config))
        reply = upload(up, name=f"big {size}", files={**files, "adapter_config.json": big})
        assert (reply.status_code == 202) == ok, reply.text
        if ok:
            settled(up, reply.json())


# ---- Hostile archives and names


def evil_tars():
    good = files_of(PLAIN)

    def kind(what, link=""):
        def edit(name, info):
            if name == "evil":
                info.type, info.linkname, info.size = what, link, 0
        return tar_of({**good, "evil": b""}, edit)

    yield "dotdot", tar_of({**good, "../evil": b"x"})
    yield "dotdot inside", tar_of({**good, "a/../../evil": b"x"})
    yield "dotdot at the end", tar_of({**good, "a/..": b"x"})
    yield "absolute", tar_of({**good, "/tmp/evil": b"x"})
    yield "dotdot config", tar_of({"../adapter_config.json": good["adapter_config.json"],
                                   "../adapter_model.safetensors": good["adapter_model.safetensors"]})
    yield "symlink", kind(tarfile.SYMTYPE, "/etc/passwd")
    yield "symlink inside", kind(tarfile.SYMTYPE, "adapter_config.json")
    yield "hardlink", kind(tarfile.LNKTYPE, "/etc/passwd")
    yield "hardlink inside", kind(tarfile.LNKTYPE, "adapter_config.json")
    yield "character device", kind(tarfile.CHRTYPE)
    yield "block device", kind(tarfile.BLKTYPE)
    yield "fifo", kind(tarfile.FIFOTYPE)
    yield "equal names", tar_of({**good, "Adapter_Config.JSON": b"{}"})
    yield "equal names elsewhere", tar_of({**good, "readme": b"", "README": b""})
    yield "newline", tar_of({**good, "a\nb": b"x"})
    yield "control character", tar_of({**good, "a\x1bb": b"x"})
    yield "backslash", tar_of({**good, "..\\evil": b"x"})
    yield "drive", tar_of({**good, "C:\\evil": b"x"})
    yield "too deep", tar_of({"a/b/" + n: d for n, d in good.items()})
    yield "two folders", tar_of({"a/adapter_config.json": good["adapter_config.json"],
                                 "b/adapter_model.safetensors": good["adapter_model.safetensors"]})
    yield "two adapters", tar_of({**good, **{"b/" + n: d for n, d in good.items()}})
    yield "long name", tar_of({**good, "x" * 1025: b""})
    yield "10000 entries", tar_of({**good, **{f"f{i}": b"" for i in range(10000)}}, mode="w:gz")
    yield "truncated", tar_of(good)[:3000]
    yield "truncated gzip", tar_of(good, mode="w:gz")[:2000]
    yield "bomb by size", gzip.compress(tar_of({**good, "zeros": bytes(64 << 20)}), 9)
    yield "nothing known", tar_of({"README": b"x"})
    yield "folders alone", tar_of({"a": b""}, lambda _, i: setattr(i, "type", tarfile.DIRTYPE))
    yield "empty", b""
    yield "no archive", b"hello " * 1000
    yield "gzip of nothing", gzip.compress(b"")
    yield "zip in zip", zip_of({"a.zip": zip_of(good)})
    yield "zip dotdot", zip_of({**good, "../../evil": b"x"})
    yield "zip absolute", zip_of({**good, "/etc/evil": b"x"})
    yield "zip bomb", zip_of({**good, "zeros": bytes(64 << 20)})
    link = zipfile.ZipInfo("evil")
    link.external_attr, link.create_system = 0o120777 << 16, 3
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for n, d in good.items():
            z.writestr(n, d)
        z.writestr(link, "/etc/passwd")
    yield "zip symlink", out.getvalue()
    whole = zip_of(good)
    yield "zip truncated", whole[:len(whole) // 2]
    yield "zip flipped", whole[:200] + bytes(b ^ 0x55 for b in whole[200:600]) + whole[600:]
    encrypted = bytearray(zip_of(good))
    at = encrypted.index(b"PK\x01\x02")
    encrypted[6] |= 1
    encrypted[at + 8] |= 1
    yield "zip encrypted", bytes(encrypted)
    nul = zip_of({**good, "aXb": b"x"}).replace(b"aXb", b"a\0b")
    yield "zip NUL", nul


EVIL = dict(evil_tars())


@pytest.mark.parametrize("kind", EVIL)
def test_hostile_archives_are_refused(up, kind):
    before, rows = copies(up), len(up.all("/v1/adapters?all=1"))
    problem = check_problem(upload(up, name="evil", archive=EVIL[kind]), 422, "validation")
    assert "/archive" in pointers(problem) and len(problem["detail"]) > 10
    assert copies(up) == before and len(up.all("/v1/adapters?all=1")) == rows
    wait_until(lambda: staging_is_empty(up), 30, "the staging folder to be empty")
    assert not any(p.exists() for p in (up.data / "evil", up.data.parent / "evil", harness.Path("/tmp/evil"), harness.Path("/etc/evil")))


@pytest.mark.parametrize("name", ["../adapter_config.json", "/etc/adapter_config.json", "a/b/adapter_config.json", "..\\x",
                                  "a/../adapter_config.json", "a//b", "", "ADAPTER_CONFIG.json"])
def test_hostile_file_names_are_refused(up, name):
    files = [("adapter_config.json", b"{}"), (name, b"{}"), ("adapter_model.safetensors", b"x")]
    boundary = "bb"
    body = b"".join(b'--bb\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n' % (n.encode(), d) for n, d in files)
    body += b'--bb\r\nContent-Disposition: form-data; name="name"\r\n\r\nevil\r\n--bb--\r\n'
    reply = up.req("POST", "/v1/adapters", data=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert "/files" in pointers(check_problem(reply, 422, "validation"))


def test_names_with_nul_or_newline_in_the_form(up):
    for name, status in ((b"a\0b", 422), (b"a\x01b", 422), (b"a\xffb", 422), (b"a\r\nb", 400)):
        body = b'--bb\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\nx\r\n--bb--\r\n' % name
        reply = up.req("POST", "/v1/adapters", data=body, headers={"Content-Type": "multipart/form-data; boundary=bb"})
        check_problem(reply, status)


def test_a_folder_upload_of_a_browser(up):
    """Names with one folder before them, other files beside."""
    files = {f"my lora/{n}": d for n, d in files_of(ADAPTERS / "mono-f32" / "plain-named-default").items()}
    accept(up, name="browser", files={**files, "my lora/README.md": b"# hello"})


# ---- Hostile contents (the checks are those of folders; here they come through the front door)


def tensors(header, data=b"", length=None, pad=True):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(dtype="F32", shape=(1,), offsets=(0, 4), name="a"):
    return {name: {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


WEIGHTS = {
    "empty": b"", "seven bytes": b"1234567", "length 0": struct.pack("<Q", 0), "length 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "length all ones": b"\xff" * 8 + b"{}", "length beyond the file": tensors(b"{}", length=1000), "not JSON": tensors(b"{]      "),
    "an array": tensors(b"[]"), "a long header": tensors(b"{" + b" " * 3000000 + b"}"), "deep": tensors(b'{"a":' * 3000 + b"1" + b"}" * 3000),
    "reversed offsets": tensors(one(offsets=(4, 0)), bytes(4)), "offsets outside": tensors(one(offsets=(0, 400)), bytes(4)),
    "negative offset": tensors(one(offsets=(-4, 0)), bytes(4)), "huge offsets": tensors(one(offsets=(2**63, 2**63 + 4)), bytes(4)),
    "shape overflow": tensors(one(shape=(2**32, 2**32, 2**32)), bytes(4)), "negative shape": tensors(one(shape=(-1,)), bytes(4)),
    "size mismatch": tensors(one(shape=(2,)), bytes(4)), "unknown type": tensors(one(dtype="Q7"), bytes(4)),
    "duplicate names": tensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "overlap": tensors({**one(), **one(name="b", offsets=(0, 4))}, bytes(4)), "trailing bytes": tensors(one(), bytes(400)),
    "a hole": tensors({**one(), **one(name="b", offsets=(8, 12))}, bytes(12)), "NUL in a name": tensors(b'{"a\\u0000b":{}}'),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_hostile_weights_are_rejected(up, kind):
    reply = upload(up, name=f"weights {kind}", files={**files_of(PLAIN), "adapter_model.safetensors": WEIGHTS[kind]})
    if reply.status_code == 422:
        return
    assert reply.status_code == 202, reply.text
    done = settled(up, reply.json())
    assert done["state"] == "rejected" and done["error"]["detail"] and done["report"]["problems"]


def test_weights_that_are_not_finite_or_do_nothing(up):
    header, data = harness.read_safetensors(PLAIN / "adapter_model.safetensors")
    for name, value in (("nan", float("nan")), ("inf", float("inf"))):
        raw = bytearray(data)
        struct.pack_into("<f", raw, 0, value)
        text = json.dumps(header).encode()
        done = settled(up, upload(up, name=name, files={**files_of(PLAIN), "adapter_model.safetensors": tensors(text, bytes(raw))}).json())
        assert done["state"] == "rejected"
    done = settled(up, upload(up, name="zero", files={**files_of(PLAIN), "adapter_model.safetensors": tensors(header, bytes(len(data)))}).json())
    assert done["state"] == "rejected" and "nothing" in done["error"]["detail"]


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/aulos-evil",))


def pickles():
    import pickle
    good = (ADAPTERS / "mono-f32" / "plain-bin" / "adapter_model.bin").read_bytes()
    evil = pickle.dumps({"a": Evil()}, protocol=2)
    yield "a bare pickle", evil
    with zipfile.ZipFile(io.BytesIO(good)) as z:
        entries = {n: z.read(n) for n in z.namelist()}
    inside = {n: (evil if n.endswith("data.pkl") else d) for n, d in entries.items()}
    yield "a call in data.pkl", zip_of(inside, zipfile.ZIP_STORED)
    yield "compressed", zip_of(entries)
    yield "cut", good[:len(good) // 2]
    yield "a bomb of references", zip_of({n: (b"\x80\x02]" + b"2" * 100000 + b"." if n.endswith("data.pkl") else d) for n, d in entries.items()},
                                         zipfile.ZIP_STORED)
    yield "no pickle", b"hello" * 100


PICKLES = dict(pickles())


@pytest.mark.parametrize("kind", PICKLES)
def test_hostile_pickles_are_rejected(up, kind):
    config = files_of(ADAPTERS / "mono-f32" / "plain-bin")["adapter_config.json"]
    reply = upload(up, name=f"pickle {kind}", files={"adapter_config.json": config, "adapter_model.bin": PICKLES[kind]})
    assert reply.status_code == 202, reply.text
    assert settled(up, reply.json())["state"] == "rejected"
    assert not os.path.exists("/tmp/aulos-evil")


CONFIGS = {
    "empty": b"", "not JSON": b"{]", "array": b"[]", "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000, "not UTF-8": b'{"peft_type":"\xff"}',
    "no type": b"{}", "huge rank": {"r": 2**31}, "negative rank": {"r": -1}, "rank is text": {"r": "8"}, "huge alpha": {"lora_alpha": 1e308},
    "nested pattern": {"rank_pattern": {"(" * 2000 + ")" * 2000: 4}}, "catastrophic": {"rank_pattern": {"(.*)*(.*)*(.*)*x" * 20: 4}},
    "bad pattern": {"alpha_pattern": {"(": 4}}, "many patterns": {"rank_pattern": {f"(.*)*m{i}": 4 for i in range(20000)}},
    "other kind": {"peft_type": "IA3"}, "unknown field": {"use_dora_of_tomorrow": True, "layer_replication": [[0, 4]]},
    "duplicate key": b'{"peft_type":"LORA","peft_type":"LORA"}',
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_hostile_configs_are_rejected(up, kind):
    config = CONFIGS[kind]
    if isinstance(config, dict):
        config = json.dumps({**json.loads((PLAIN / "adapter_config.json").read_text()), **config}).encode()
    reply = upload(up, name=f"config {kind}", files={**files_of(PLAIN), "adapter_config.json": config})
    assert reply.status_code == 202, reply.text
    # A pattern that matches nothing, however long it takes to find out, changes nothing.
    assert settled(up, reply.json())["state"] == ("ready" if kind == "catastrophic" else "rejected")


# ---- Crashes, full disks, clients that leave


def test_a_check_is_done_again_after_a_crash(make_server, tmp_path):
    """Killed at some moment after the 202: the next server finishes what was promised."""
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", workers=0, model=MONO)
    made = [upload(server, name=n, files=files_of(ADAPTERS / "mono-f32" / n)).json() for n in ("plain", "dora", "rslora-patterns")]
    server.kill()
    (server.data / "incoming" / "left").mkdir(parents=True)
    (server.data / "incoming" / "left" / "archive").write_bytes(b"x" * 100000)
    server.start()
    for adapter in made:
        assert settled(server, adapter)["state"] == "ready"
    assert staging_is_empty(server)


def test_an_order_left_by_a_crash_is_carried_out(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", workers=0, model=MONO)
    good, bad = accept(server, name="good", files=files_of(PLAIN)), accept(server, name="bad", files=files_of(OTHER))
    server.stop()
    db = harness.sqlite3.connect(server.data / "aulos.db")
    db.execute("UPDATE adapters SET status = 'validating'")
    db.execute("DELETE FROM adapter_models")
    db.commit()
    db.close()
    (server.data / "objects" / "adapters" / bad["sha256"] / "adapter_model.safetensors").unlink()
    server.start()
    assert settled(server, good)["state"] == "ready"
    assert settled(server, bad)["state"] == "rejected"
    assert server.submit(prompt="x", adapter=good["id"], duration_s=0.2)


def test_a_ready_upload_is_checked_against_a_new_model(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", workers=0, model=MONO)
    adapter = accept(server, files=files_of(PLAIN))
    server.stop()
    server = make_server("--adapters", tmp_path / "none", workers=0, model=CHECKPOINTS / "mono-bf16-noproj", data=server.data)
    wait_until(lambda: server.post("/v1/jobs", {"prompt": "x", "adapter": adapter["id"]}).json()["errors"][0]["report"]["problems"], 30,
               "the check against the new model")
    assert server.ok(f"/v1/adapters/{adapter['id']}")["state"] == "ready"


def test_a_client_that_leaves_leaves_nothing(up):
    before = copies(up)
    for cut in (10, 2000, 8000):
        body = b'--bb\r\nContent-Disposition: form-data; name="archive"; filename="a"\r\n\r\n' + zip_of(files_of(PLAIN)) * 3
        with harness.socket.create_connection(("127.0.0.1", up.port), timeout=30) as s:
            s.sendall(b"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=bb\r\n"
                      b"Content-Length: 100000\r\n\r\n" + body[:cut])
    wait_until(lambda: staging_is_empty(up), 30, "the staging folder to be empty")
    assert copies(up) == before


def test_too_many_at_a_time(up):
    held = []
    try:
        for _ in range(8):
            s = harness.socket.create_connection(("127.0.0.1", up.port), timeout=30)
            s.sendall(b"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=bb\r\n"
                      b"Content-Length: 100000\r\n\r\n--bb")
            held.append(s)
        wait_until(lambda: len(list((up.data / "incoming").iterdir())) == 8, 30, "eight uploads to have begun")
        reply = upload(up, files=files_of(PLAIN))
        check_problem(reply, 503)
        assert int(reply.headers["Retry-After"]) >= 1
    finally:
        for s in held:
            s.close()
    wait_until(lambda: upload(up, name=None).status_code == 422, 30, "a place to be free")


def test_low_disk_is_refused_before_the_body(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", "--min-free-disk", "1000T", workers=0, model=MONO)
    check_problem(upload(server, files=files_of(PLAIN)), 507, "insufficient-storage")
    assert staging_is_empty(server) and copies(server) == set()


def test_many_clients_send_the_same(up):
    """One adapter comes of it, with one copy."""
    files = files_of(PLAIN)
    files["adapter_config.json"] += b"\n\n"
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda i: upload(up, name="crowd", files=files), range(6)))
    assert {r.status_code for r in replies} <= {200, 202}, [r.text for r in replies]
    assert len({r.json()["id"] for r in replies}) == 1
    assert sum(r.status_code == 202 for r in replies) == 1
    assert settled(up, replies[0].json())["state"] == "ready"


def test_events_tell_of_adapters(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", workers=0, model=MONO)
    adapter = accept(server, files=files_of(PLAIN))
    server.req("PATCH", f"/v1/adapters/{adapter['id']}", json={"description": "x"})
    server.req("DELETE", f"/v1/adapters/{adapter['id']}")
    server.post(f"/v1/adapters/{adapter['id']}/restore")
    rows = harness.read_db(server.data, "SELECT event, data, seq FROM events WHERE kind = 'adapter' ORDER BY id")
    assert [r["event"] for r in rows] == ["created", "updated", "updated", "deleted", "restored"]
    assert [json.loads(r["data"])["state"] for r in rows] == ["validating", "ready", "ready", "ready", "ready"]
    assert [r["seq"] for r in rows] == [1, 2, 3, 4, 5]


def test_stop_with_uploads_under_way(make_server, tmp_path):
    (tmp_path / "none").mkdir()
    server = make_server("--adapters", tmp_path / "none", "--shutdown-grace-ms", "1000", workers=0, model=MONO)
    s = harness.socket.create_connection(("127.0.0.1", server.port), timeout=30)
    s.sendall(b"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=bb\r\n"
              b"Content-Length: 100000\r\n\r\n--bb")
    wait_until(lambda: not staging_is_empty(server), 30, "the upload to have begun")
    assert server.stop() == 0
    s.close()
    assert staging_is_empty(server)
