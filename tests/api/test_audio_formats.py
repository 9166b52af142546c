# SPDX-License-Identifier: MIT
"""Formats: what is asked for at submit and by the command line, what the files hold, equal bytes."""
import json
import random
import re
import select
import socket
import sqlite3
import struct
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests

import harness
from harness import generate, sha256

PROMPT = "Grüße: \"calm\" 音楽 piano"
TYPES = {"wav": "audio/wav", "wav24": "audio/wav", "wavf": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg",
         "opus": "audio/ogg"}


def ogg_packets(data):
    """(serials, first packets of the stream), the checksum of every page checked."""
    serials, packets, part, at = set(), [], b"", 0
    while at < len(data):
        assert data[at:at + 4] == b"OggS" and data[at + 4] == 0
        serials.add(data[at + 14:at + 18])
        lacing = data[at + 27:at + 27 + data[at + 26]]
        body = at + 27 + len(lacing)
        end = body + sum(lacing)
        page, crc = bytearray(data[at:end]), 0
        want = struct.unpack("<I", page[22:26])[0]
        page[22:26] = bytes(4)
        for byte in page:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
        assert crc == want
        for n in lacing:
            part += data[body:body + n]
            body += n
            if n < 255:
                packets.append(part)
                part = b""
        at = end
    return serials, packets


def vorbis_comments(packet):
    """{name: text} of an OpusTags packet."""
    assert packet[:8] == b"OpusTags"
    at = 12 + struct.unpack("<I", packet[8:12])[0]
    count, at, found = struct.unpack("<I", packet[at:at + 4])[0], at + 4, {}
    for _ in range(count):
        n = struct.unpack("<I", packet[at:at + 4])[0]
        name, text = packet[at + 4:at + 4 + n].decode("utf-8").split("=", 1)
        found[name.upper()] = text
        at += 4 + n
    return found


def id3_frames(data):
    """({id: text}, what follows the tag) of a file that begins with an ID3v2.4 tag."""
    assert data[:6] == b"ID3\4\0\0"

    def syncsafe(b):
        return b[0] << 21 | b[1] << 14 | b[2] << 7 | b[3]

    end, at, found = 10 + syncsafe(data[6:10]), 10, {}
    while at < end:
        name, n = data[at:at + 4].decode(), syncsafe(data[at + 4:at + 8])
        body = data[at + 10:at + 10 + n]
        assert body[0] == 3, "not UTF-8"
        found[name] = (body[5:] if name == "COMM" else body[1:]).decode("utf-8")
        at += 10 + n
    return found, data[end:]


def recipe_of(data):
    """(title, comment) of an MP3 or Opus file."""
    if data[:3] == b"ID3":
        frames, rest = id3_frames(data)
        assert rest[0] == 0xFF and rest[1] & 0xE0 == 0xE0
        return frames["TIT2"], json.loads(frames["COMM"])
    tags = vorbis_comments(ogg_packets(data)[1][1])
    return tags["TITLE"], json.loads(tags["COMMENT"])


# ---- The command line


@pytest.mark.parametrize("ending", ["mp3", "opus"])
def test_generate_writes_lossy_formats_with_the_recipe(tmp_path, ending):
    a = generate(tmp_path / f"a.{ending}", PROMPT, seed=5)["samples"][0]
    b = generate(tmp_path / f"b.{ending}", PROMPT, seed=5)["samples"][0]
    other = generate(tmp_path / f"c.{ending}", PROMPT, seed=6)["samples"][0]
    wav = generate(tmp_path / "d.wav", PROMPT, seed=5)["samples"][0]
    assert a["sha256"] == b["sha256"] == sha256(tmp_path / f"a.{ending}") != other["sha256"]
    assert a["pcm_sha256"] == wav["pcm_sha256"]
    assert a["sample_rate"] == (48000 if ending == "opus" else wav["sample_rate"])
    assert a["frames"] * wav["sample_rate"] == wav["frames"] * a["sample_rate"]
    title, recipe = recipe_of((tmp_path / f"a.{ending}").read_bytes())
    assert title == PROMPT and recipe["prompt"] == PROMPT and recipe["seed"] == 5
    assert recipe["digital_source_type"] == "trainedAlgorithmicMedia"


def test_opus_streams_have_one_serial_made_from_the_content(tmp_path):
    serials = []
    for seed in (1, 1, 2):
        generate(tmp_path / "a.opus", "x", "--force", seed=seed)
        of_file, packets = ogg_packets((tmp_path / "a.opus").read_bytes())
        assert len(of_file) == 1 and packets[0][:8] == b"OpusHead"
        serials.append(of_file.pop())
    assert serials[0] == serials[1] != serials[2]


# ---- Jobs


@pytest.mark.parametrize("name", TYPES)
def test_a_job_makes_the_format_that_it_asks_for(live, tmp_path, name):
    job = live.run(prompt=PROMPT, duration_s=0.4, seed=5, format=name)
    assert job["format"] == name
    sample = live.samples_of(job)[0]
    reply = live.get(sample["urls"]["audio"])
    assert sample["format"] == name and reply.headers["Content-Type"] == TYPES[name]
    assert sample["storage_path"].endswith("." + (name if name in ("flac", "mp3", "opus") else "wav"))
    assert sha256(reply.content) == sample["sha256"] and len(reply.content) == sample["bytes"]
    assert abs(sample["frames"] / sample["sample_rate"] - sample["duration_s"]) < 0.001
    made = generate(tmp_path / f"a.{name[:3] if name.startswith('wav') else name}", PROMPT, "--format", name, seed=5,
                    duration=0.4)["samples"][0]
    assert made["sha256"] == sample["sha256"], "the recipe alone decides the bytes"


@pytest.mark.parametrize("value", ["WAV", "ogg", "wav16", "", 3, None])
def test_unknown_formats_are_422(live, value):
    problem = harness.check_problem(live.post("/v1/jobs", {"prompt": "x", "format": value}), 422)
    assert "/format" in harness.pointers(problem)


# ---- Renditions


def wait_swept(server):
    harness.wait_until(lambda: harness.leftovers(server) == (set(), set(), 0), 90, "no orphans", step=0.2)


@pytest.fixture(scope="module")
def sample(live):
    return live.samples_of(live.run(prompt=PROMPT, duration_s=0.6, seed=21))[0]


@pytest.mark.parametrize("name", ["flac", "mp3", "opus"])
def test_a_rendition_is_the_file_that_a_job_would_have_made(live, sample, name):
    twin = live.samples_of(live.run(prompt=PROMPT, duration_s=0.6, seed=21, format=name))[0]
    for _ in range(2):
        reply = live.get(f"{sample['urls']['audio']}.{name}")
        assert reply.status_code == 200, reply.text
        assert reply.headers["Content-Type"] == TYPES[name]
        assert reply.headers["ETag"] == f'"sha256-{sha256(reply.content)}"' == f'"sha256-{twin["sha256"]}"'
        assert reply.headers["Accept-Ranges"] == "bytes"
    part = live.get(f"{sample['urls']['audio']}.{name}", headers={"Range": "bytes=5-99"})
    assert part.status_code == 206 and part.content == reply.content[5:100]
    head = live.head(f"{sample['urls']['audio']}.{name}")
    assert head.headers["Content-Length"] == str(len(reply.content)) and head.headers["ETag"] == reply.headers["ETag"]
    assert live.get(f"{sample['urls']['audio']}.{name}", headers={"If-None-Match": head.headers["ETag"]}).status_code == 304
    rows = harness.read_db(live.data, "SELECT * FROM renditions WHERE sample_id = ? AND format = ?", sample["id"], name)
    assert len(rows) == 1 and sha256(live.data / "objects" / rows[0]["store_key"]) == rows[0]["sha256"]
    # and the other way round, but for what the codec left out
    back = live.get(f"{twin['urls']['audio']}.wav")
    tag, channels, rate, bits, frames = harness.wav_info(back.content)
    assert (tag, bits, channels, rate, frames) == (1, 16, twin["channels"], twin["sample_rate"], twin["frames"])
    if name == "flac":
        assert back.content == live.audio(sample)


def test_head_makes_a_rendition_too(live):
    made = live.samples_of(live.run(prompt="head first", duration_s=0.3))[0]
    head = live.head(f"{made['urls']['audio']}.flac")
    assert head.status_code == 200 and int(head.headers["Content-Length"]) > 0
    assert len(live.get(f"{made['urls']['audio']}.flac").content) == int(head.headers["Content-Length"])


def test_many_first_requests_make_one_rendition(live):
    made = live.samples_of(live.run(prompt="asked by many", duration_s=0.5))[0]

    def ask(i):
        with requests.Session() as s:
            return s.get(f"{live.url}{made['urls']['audio']}.{'mp3' if i % 2 else 'opus'}", timeout=60 * harness.SLOW)

    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(ask, range(24)))
    assert {r.status_code for r in replies} == {200}
    assert len({r.content for r in replies}) == 2
    assert len(harness.read_db(live.data, "SELECT * FROM renditions WHERE sample_id = ?", made["id"])) == 2
    assert not harness.read_db(live.data, "SELECT * FROM uploads WHERE job_id IS NULL")


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 192000])
def test_wav_at_another_rate(live, sample, rate):
    reply = live.get(f"{sample['urls']['audio']}.wav?rate={rate}")
    assert reply.status_code == 200, reply.text
    tag, channels, got, bits, frames = harness.wav_info(reply.content)
    assert (tag, channels, got, bits) == (1, sample["channels"], rate, 16)
    assert frames == round(sample["frames"] * rate / sample["sample_rate"])
    assert reply.headers["ETag"] == f'"sha256-{sha256(reply.content)}"'


def test_the_own_rate_is_the_file_itself(live, sample):
    reply = live.get(f"{sample['urls']['audio']}?rate={sample['sample_rate']}")
    assert sha256(reply.content) == sample["sha256"]


@pytest.mark.parametrize("query", ["rate=7999", "rate=192001", "rate=0", "rate=-1", "rate=48k", "rate=", "rate=1e4", "rat=48000",
                                   "download=2", "download=yes", "rate=48000&rate=48000"])
def test_bad_queries_are_400(live, sample, query):
    problem = harness.check_problem(live.get(f"{sample['urls']['audio']}.wav?{query}"), 400)
    assert problem["errors"][0]["parameter"] == query.split("=")[0]


@pytest.mark.parametrize("name", ["mp3", "opus"])
def test_lossy_forms_have_no_other_rate(live, sample, name):
    harness.check_problem(live.get(f"{sample['urls']['audio']}.{name}?rate=48000"), 400)


def test_renditions_go_with_a_cancelled_job(make_server):
    server = make_server("--session-memory", harness.SMALL_MEMORY)
    job = server.submit(prompt="partly", num_samples=4, duration_s=10 * harness.LENGTH)
    first = harness.wait_until(lambda: [s["sample_id"] for s in server.job(job)["samples"] if s.get("sample_id")], 120,
                               "a first sample")[0]
    assert server.get(f"/v1/samples/{first}/audio.flac").status_code == 200
    if server.cancel(job).status_code in (200, 202):
        server.wait(job, "cancelled")
        assert server.get(f"/v1/samples/{first}/audio.flac").status_code in (404, 410)
        wait_swept(server)
        assert not harness.objects_on_disk(server.data)


def test_renditions_survive_the_sweep_and_a_restart(make_server, tmp_path):
    server = make_server(data=tmp_path / "d")
    made = server.samples_of(server.run(prompt="kept", duration_s=0.3))[0]
    whole = server.get(f"{made['urls']['audio']}.opus").content
    server.stop()
    stray = tmp_path / "d" / "objects" / "samples" / "01" / "01970000-0000-7000-8000-000000000000.mp3"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"nobody's")
    again = make_server(data=tmp_path / "d", workers=0)  # a start sweeps everything
    harness.wait_until(lambda: not stray.exists(), 30, "the stray object to go")
    assert again.get(f"{made['urls']['audio']}.opus").content == whole


def test_no_rendition_of_a_missing_or_damaged_object(make_server):
    server = make_server()
    gone, flipped = server.samples_of(server.run(prompt="soon gone", duration_s=0.3, num_samples=2))
    (server.data / "objects" / gone["storage_path"]).unlink()
    harness.check_problem(server.get(f"{gone['urls']['audio']}.mp3"), 502, "object-missing")
    flip(server.data / "objects" / flipped["storage_path"])
    harness.check_problem(server.get(f"{flipped['urls']['audio']}.mp3"), 502, "object-corrupt")
    assert not harness.read_db(server.data, "SELECT * FROM renditions")
    assert not harness.read_db(server.data, "SELECT * FROM uploads")
    server.kill()


def flip(path, at=-100):
    """Changes one bit of a file in place."""
    with open(path, "r+b") as f:
        f.seek(at, 0 if at >= 0 else 2)
        byte = f.read(1)[0]
        f.seek(-1, 1)
        f.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-99"}])
def test_a_flipped_bit_is_a_502_before_and_after_it_was_served(make_server, headers):
    server = make_server()
    first, second = server.samples_of(server.run(prompt="damaged", duration_s=0.3, num_samples=2))
    flip(server.data / "objects" / first["storage_path"])
    harness.check_problem(server.get(first["urls"]["audio"], headers=headers), 502, "object-corrupt")
    assert server.head(first["urls"]["audio"]).status_code == 502
    assert sha256(server.audio(second)) == second["sha256"]
    time.sleep(0.05)  # file times are as fine as the kernel's tick
    flip(server.data / "objects" / second["storage_path"])
    harness.check_problem(server.get(second["urls"]["audio"], headers=headers), 502, "object-corrupt")
    assert "object differs from its record" in server.log()
    server.kill()


# ---- Names of downloads


def disposition(reply):
    value = reply.headers["Content-Disposition"]
    plain = re.match(r'attachment; filename="([^"]*)"', value).group(1)
    long = re.search(r"filename\*=UTF-8''(\S+)", value)
    return plain, urllib.parse.unquote(long.group(1)) if long else None


def test_downloads_have_a_name(live, sample):
    reply = live.get(f"{sample['urls']['audio']}?download=1")
    assert disposition(reply) == ("Gr__e calm __ piano - 21.wav", "Grüße calm 音楽 piano - 21.wav")
    assert sha256(reply.content) == sample["sha256"]
    assert disposition(live.get(f"{sample['urls']['audio']}.mp3?download=1"))[0].endswith(" - 21.mp3")
    assert "Content-Disposition" not in live.get(f"{sample['urls']['audio']}?download=0").headers
    assert "Content-Disposition" in live.get(f"{sample['urls']['audio']}?download=1", headers={"Range": "bytes=0-9"}).headers


@pytest.mark.parametrize("prompt,name", [("../../etc/passwd", "etc passwd - 3.wav"), ("...", "aulos - 3.wav"), ("a\r\nb\tc", "a b c - 3.wav"),
                                         ('quo"te\\back', "quo te back - 3.wav"), ("x" * 200, "x" * 60 + " - 3.wav"),
                                         ("50% off", "50_ off - 3.wav")])
def test_names_are_safe(live, prompt, name):
    made = live.samples_of(live.run(prompt=prompt, duration_s=0.1, seed=3))[0]
    plain, long = disposition(live.get(f"{made['urls']['audio']}?download=1"))
    assert plain == name
    assert long == ("50% off - 3.wav" if "%" in prompt else None)


# ---- Peaks


def peaks_of(x, bins):
    """The slow way, by frames, from float64 [frames, channels]."""
    edges = [i * len(x) // bins for i in range(bins + 1)]
    cuts = [x[a:max(b, a + 1)] for a, b in zip(edges, edges[1:])]
    return [np.clip(np.rint(127 * np.array([f(c) for c in cuts])), -127, 127).astype(int).tolist()
            for f in (np.min, np.max, lambda c: np.sqrt(np.mean(c**2)))]


@pytest.mark.parametrize("bins", [None, 1, 2, 63, 64, 1000, 1024, 4095, 4096])
def test_peaks_are_those_of_the_audio(live, sample, bins):
    reply = live.ok(sample["urls"]["peaks"] + (f"?bins={bins}" if bins else ""))
    bins = bins or 1024
    assert reply["version"] == 1 and reply["bins"] == bins
    for name in ("min", "max", "rms"):
        assert len(reply[name]) == bins and all(isinstance(v, int) and -127 <= v <= 127 for v in reply[name])
    assert all(low <= high for low, high in zip(reply["min"], reply["max"]))
    x = harness.wav_frames(live.audio(sample))
    low, high, rms = peaks_of(x, bins)
    assert min(reply["min"]) == min(low) and max(reply["max"]) == max(high)
    if 4096 % bins == 0:  # else edges lie between the bins that are kept
        for got, want in ((reply["min"], low), (reply["max"], high), (reply["rms"], rms)):
            assert np.abs(np.array(got) - np.array(want)).max() <= 1


@pytest.mark.parametrize("value", ["0", "4097", "-1", "", "x", "1.5", "99999999999999999999"])
def test_bad_bins_are_400(live, sample, value):
    problem = harness.check_problem(live.get(f"{sample['urls']['peaks']}?bins={value}"), 400)
    assert problem["errors"][0]["parameter"] == "bins"


def test_rows_of_lists_carry_small_waveforms(live, sample):
    row = next(s for s in live.all("/v1/samples?limit=100") if s["id"] == sample["id"])
    fine = live.ok(sample["urls"]["peaks"] + "?bins=64")
    assert row["mini"] == sample["mini"] == [max(-a, b) for a, b in zip(fine["min"], fine["max"])]


def test_peaks_that_are_not_stored_are_measured_from_the_object(make_server, tmp_path):
    server = make_server(data=tmp_path / "d")
    made = server.samples_of(server.run(prompt="old row", duration_s=0.4))[0]
    want = server.ok(made["urls"]["peaks"])
    server.stop()
    db = sqlite3.connect(tmp_path / "d" / "aulos.db")
    db.execute("UPDATE samples SET peaks = NULL, mini = NULL")
    db.commit()
    db.close()
    again = make_server(data=tmp_path / "d", workers=0)
    assert again.sample(made["id"])["mini"] is None
    got = again.ok(made["urls"]["peaks"])
    for name in ("min", "max", "rms"):
        assert np.abs(np.array(got[name]) - np.array(want[name])).max() <= 1
    assert len(again.sample(made["id"])["mini"]) == 64


def test_peaks_of_nothing(live):
    harness.check_problem(live.get(f"/v1/samples/{harness.MISSING_ID}/peaks"), 404)
    harness.check_problem(live.get("/v1/samples/x/peaks"), 404)


# ---- Ranges of any form, by a slow reading of the rule


def expected(field, data):
    """200, 416, or the list of (first, last)."""
    if not re.match(r"(?i)bytes=", field):
        return 200
    size, kept, elements = len(data), [], [e.strip(" \t") for e in field[6:].split(",")]
    elements = [e for e in elements if e]
    if not elements or len(elements) > 16:
        return 200
    for e in elements:
        m = re.fullmatch(r"([0-9]*)-([0-9]*)", e)
        if not m or m.group(0) == "-" or (m.group(1) and m.group(2) and int(m.group(2)) < int(m.group(1))):
            return 200
        if m.group(1):
            first, last = int(m.group(1)), min(int(m.group(2) or size), size - 1)
        else:
            first, last = max(0, size - int(m.group(2))), size - 1
            if m.group(2).strip("0") == "":
                first = size
        if first < size:
            kept.append([first, last])
    merged = []
    for r in kept:
        while True:  # whatever touches, before or after
            more = [k for k in kept if k[0] <= r[1] + 1 and r[0] <= k[1] + 1]
            new = [min(k[0] for k in more), max(k[1] for k in more)]
            if new == r:
                break
            r = new
        if r not in merged:
            merged.append(r)
    return merged or 416


def random_field(rng, size):
    def number():
        return str(rng.choice([0, 1, size - 1, size, size + 1, rng.randrange(size), rng.randrange(2 * size), 2**64, "007"]))

    def element():
        a = rng.randrange(size)
        return rng.choice([f"{number()}-{number()}", f"{number()}-", f"-{number()}", f"{a}-{a + rng.randrange(500)}"])

    field = "bytes=" + rng.choice([",", ", ", ",,", " ,\t"]).join(element() for _ in range(rng.choice([1, 1, 2, 3, 5, 16, 17])))
    if rng.random() < 0.1:
        at = rng.randrange(len(field))
        field = field[:at] + rng.choice("x-,= 9") + field[at + 1:]
    return field


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_random_range_fields(live, sample, name):
    where, rng = f"{sample['urls']['audio']}.{name}", random.Random(name)
    data, seen = live.get(where).content, set()
    for _ in range(300):
        field = random_field(rng, len(data))
        reply, want = live.get(where, headers={"Range": field}), expected(field.strip(), data)
        seen.add(want if isinstance(want, int) else min(len(want), 2))
        if want in (200, 416):
            assert reply.status_code == want, field
            assert want == 416 or reply.content == data
            continue
        assert reply.status_code == 206, field
        if len(want) == 1:
            first, last = want[0]
            assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}", field
            assert reply.content == data[first:last + 1]
            continue
        boundary = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", reply.headers["Content-Type"]).group(1).encode()
        text = b""
        for i, (first, last) in enumerate(want):
            text += (b"\r\n" if i else b"") + b"--" + boundary + f"\r\nContent-Type: {TYPES[name]}\r\n".encode()
            text += f"Content-Range: bytes {first}-{last}/{len(data)}\r\n\r\n".encode() + data[first:last + 1]
        assert reply.content == text + b"\r\n--" + boundary + b"--\r\n", field
        assert int(reply.headers["Content-Length"]) == len(reply.content)
    assert seen == {200, 416, 1, 2}


def test_an_object_that_is_deleted_while_it_is_sent_is_sent_whole(make_server):
    server = make_server(model=harness.CHECKPOINTS / "mono-f32")
    made = server.samples_of(server.run(prompt="x", duration_s=30, format="wavf"))[0]
    assert made["bytes"] > 3_000_000, "it would fit the sockets' buffers"
    with requests.get(server.url + made["urls"]["audio"], stream=True, timeout=60 * harness.SLOW) as reply:
        first = reply.raw.read(1000)
        (server.data / "objects" / made["storage_path"]).unlink()
        assert sha256(first + reply.raw.read()) == made["sha256"]
    harness.check_problem(server.get(made["urls"]["audio"]), 502, "object-missing")
    server.kill()


# ---- Limits of making


def test_nothing_is_made_where_the_disk_is_low(make_server, tmp_path):
    server = make_server(data=tmp_path / "d")
    made = server.samples_of(server.run(prompt="x", duration_s=0.3))[0]
    server.stop()
    low = make_server("--min-free-disk", "1000T", data=tmp_path / "d", workers=0)
    assert sha256(low.audio(made)) == made["sha256"]
    harness.check_problem(low.get(f"{made['urls']['audio']}.mp3"), 507)
    assert not harness.read_db(low.data, "SELECT * FROM uploads")


def test_only_so_many_forms_wait_to_be_made(make_server):
    server = make_server()
    made = server.samples_of(server.run(prompt="x", duration_s=0.1))[0]
    assert sha256(server.audio(made)) == made["sha256"]  # checked now, so that only forms wait
    lock = sqlite3.connect(server.data / "aulos.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # the first one cannot be announced
    sockets = []
    for rate in range(10000, 10070):
        s = socket.create_connection(("127.0.0.1", server.port), timeout=120 * harness.SLOW)
        s.sendall(f"GET {made['urls']['audio']}.wav?rate={rate} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        sockets.append(s)
    ready = set()
    for _ in range(100):
        ready |= set(select.select([s for s in sockets if s not in ready], [], [], 0.02)[0])
        if len(ready) == 6:
            break
    lock.execute("ROLLBACK")
    lock.close()
    replies = [harness.read_all(s)[0] for s in sockets]
    for s in sockets:
        s.close()
    refused = [r for r in replies if r.startswith(b"HTTP/1.1 503 ")]
    assert all(b"\r\nRetry-After: " in r for r in refused)
    assert len([r for r in replies if r.startswith(b"HTTP/1.1 200 ")]) + len(refused) == 70
    assert len(refused) == 6 or harness.SLOW > 1


def test_the_end_does_not_wait_for_forms_that_nobody_began(make_server):
    server = make_server()
    made = server.samples_of(server.run(prompt="x", duration_s=0.1))[0]
    sockets = []
    for rate in range(10000, 10060):
        s = socket.create_connection(("127.0.0.1", server.port), timeout=120 * harness.SLOW)
        s.sendall(f"GET {made['urls']['audio']}.wav?rate={rate} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        sockets.append(s)
    assert server.stop() == 0
    for s in sockets:
        reply = harness.read_all(s)[0]
        assert reply == b"" or reply.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))
        s.close()


@pytest.mark.parametrize("ending,more", [("", "&download=1"), (".opus", ""), (".wav", "&rate=16000")])
def test_signed_links_open_other_forms_too(live, ending, more):
    """They are looked at again once the form is made: nothing of the query may be lost by then."""
    made = live.samples_of(live.run(prompt="linked", duration_s=0.2))[0]
    link = live.post(f"/v1/samples/{made['id']}/link", {}).json()["url"]
    reply = live.get(link.replace("/audio?", f"/audio{ending}?") + more)
    assert reply.status_code == 200, reply.text
    assert reply.headers["ETag"] == f'"sha256-{sha256(reply.content)}"'
    harness.check_problem(live.get(link.replace("/audio?", f"/audio{ending}?") + "0" + more), 403)


def test_a_deletion_shows_at_once_in_what_was_just_served(live):
    made = live.samples_of(live.run(prompt="short life", duration_s=0.2))[0]
    for _ in range(4):
        assert live.get(made["urls"]["audio"]).status_code == 200
    assert live.req("DELETE", f"/v1/samples/{made['id']}").status_code == 204
    for _ in range(4):  # on whichever thread
        harness.check_problem(live.get(made["urls"]["audio"]), 410)
        harness.check_problem(live.get(made["urls"]["peaks"]), 410)
