# SPDX-License-Identifier: MIT
"""Formats: what is asked for at submit and by the command line, what the files hold, equal bytes."""
import json
import struct

import pytest

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
