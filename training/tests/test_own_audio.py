# SPDX-License-Identifier: MIT
"""The way from a folder of audio with captions to an adapter, in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aulos_train import own_audio
from aulos_train.dataset import Dataset

TRAINING = Path(__file__).resolve().parent.parent
MODEL = TRAINING.parent / "models" / "aulos-small"


def run(*command):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=TRAINING, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TRAINING)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def sound(path, hz, seconds, rate=44100, channels=1):
    x = 0.2 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, np.stack([x] * channels, 1), rate)


@pytest.fixture
def folder(tmp_path):
    """Seven files: three with a text beside them, four in captions.jsonl; other rates, stereo, one in a folder below."""
    at = tmp_path / "mine"
    (at / "more").mkdir(parents=True)
    for i in range(3):
        sound(at / f"a{i}.wav", 300 + 100 * i, 4.0)
        (at / f"a{i}.txt").write_text(f"a test tone,\n number {i}\n")
    lines = []
    for i in range(4):
        name = f"more/b{i}.flac"
        sound(at / name, 500 + 50 * i, 3.2 if i else 0.3, rate=48000, channels=2)
        lines.append(json.dumps({"file": name, "caption": f"stereo tone {i}"}))
    (at / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return at


def test_captions_are_found(folder):
    pairs = own_audio.captions_of(folder)
    assert [caption for _, caption in pairs][:2] == ["a test tone, number 0", "a test tone, number 1"]
    assert len(pairs) == 7


def test_a_file_without_a_caption_is_an_error(folder):
    (folder / "a1.txt").unlink()
    with pytest.raises(ValueError, match="1 of 7 files have no caption, the first is a1.wav"):
        own_audio.captions_of(folder)


def test_a_line_that_names_no_file_is_an_error(folder):
    with open(folder / "captions.jsonl", "a") as f:
        f.write('{"file": "gone.wav", "caption": "x"}\n')
    with pytest.raises(ValueError, match="captions.jsonl:5: no such file: gone.wav"):
        own_audio.captions_of(folder)


def test_from_a_folder_to_an_adapter(folder, tmp_path):
    said = run("import_clips.py", folder, tmp_path / "set", "--seconds", 2)
    # 4.0 s are two clips, 3.2 s are two (the second filled up), 0.3 s is too short
    assert said.strip() == "12 clips of 2 s from 7 files"
    data = Dataset(tmp_path / "set")
    assert data.clips == 12 and {row["file"] for row in data.meta()} == {"a0.wav", "a1.wav", "a2.wav", "b1.flac", "b2.flac", "b3.flac"}
    for i, row in enumerate(data.meta()):
        x = data.wave(i, 0, 24000)
        assert abs(20 * np.log10(np.sqrt((x**2).mean()) + 1e-9) + 23) < 3.5
        if row["file"] == "a0.wav":
            assert np.argmax(np.abs(np.fft.rfft(x))) == pytest.approx(300, abs=2)
    run("encode_tokens.py", tmp_path / "set", MODEL, "--device", "cpu")
    out = tmp_path / "run"
    run("train_adapter.py", MODEL, tmp_path / "set", out, "--frames", 100, "--held-out", 4, "--batch", 4, "--steps", 8, "--device", "cpu")
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log[-1]["done"] and log[-1]["held_out"] < log[0]["held_out"], "eight steps lower the loss of unheard tones"
    about = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == MODEL.name and about["r"] == 8
    assert (out / "adapter" / "adapter_model.safetensors").stat().st_size < 1e6
    # The same command again finds nothing left to do, and more steps go on from there.
    run("train_adapter.py", MODEL, tmp_path / "set", out, "--frames", 100, "--held-out", 4, "--batch", 4, "--steps", 10, "--device", "cpu")
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["begin"] for row in log if "begin" in row] == [0, 8] and log[-1]["step"] == 10
