# SPDX-License-Identifier: MIT
"""The command line: every row of its table, exit statuses, files and their names, bad input, byte equality."""
import json
import os
import signal
import struct
import subprocess
import time
import wave

import numpy as np
import pytest

import harness
from harness import BIN, CHECKPOINTS, CHIPTUNE, MAX_SEED, MODEL, aulos, clean_env, edit_json, generate, sha256, wait_until

TINY = CHECKPOINTS / "mono-f32"
PROMPT = "a calm piano melody"


def gen(*args, model=MODEL, prompt=PROMPT, **kw):
    return aulos("generate", prompt, "--model", model, *args, **kw)


def files(folder):
    """All files of a folder, hidden ones too."""
    return sorted(p.name for p in folder.iterdir())


def refused(done, status, *words):
    """Exit status, a message on standard error that names the thing, nothing on standard output."""
    assert done.returncode == status, f"exit {done.returncode} for {status}: {done.stderr}"
    assert done.stderr.strip(), "no message"
    assert done.stdout == ""
    for word in words:
        assert str(word).lower() in done.stderr.lower(), f"{word!r} is not in: {done.stderr}"


# ---- version, help, usage


def test_version():
    done = aulos("version")
    assert done.returncode == 0
    assert done.stdout.startswith("aulos 0.") or "0.1.0" in done.stdout
    assert any(isa in done.stdout for isa in ("avx512", "avx2", "c"))


def test_version_shows_the_mask_of_the_processor():
    assert "avx2" not in aulos("version", env={"AU_CPU": "c"}).stdout.split("kernels")[-1]


COMMANDS = ["generate", "serve", "worker", "tokenize", "model", "adapter", "bench", "version"]


@pytest.mark.parametrize("args", [["help"], ["--help"], *[["help", c] for c in COMMANDS], *[[c, "--help"] for c in COMMANDS]],
                         ids=" ".join)
def test_help_is_on_standard_output(args):
    done = aulos(*args)
    assert done.returncode == 0, done.stderr
    assert "aulos" in done.stdout and len(done.stdout) > 60
    assert done.stderr == ""


def test_help_lists_the_commands():
    text = aulos("help").stdout
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize("option", ["--negative", "--model", "--adapter", "-n", "--seed", "--duration", "--preset", "--guidance",
                                    "--temperature", "--top-k", "--top-p", "--greedy", "--weights", "--threads", "-o", "--force",
                                    "--format", "--json", "--quiet", "--trace", "--prompts", "--max-duration"])
def test_help_of_generate_lists_every_option(option):
    assert option in aulos("help", "generate").stdout


@pytest.mark.parametrize("option", ["--data", "--listen", "--model", "--workers", "--adapters", "--lease-ms", "--heartbeat-ms",
                                    "--stall-ms", "--shutdown-grace-ms", "--queue-limit", "--retention", "--header-timeout-ms",
                                    "--min-free-disk", "--max-samples", "--allowed-hosts", "--insecure-no-auth"])
def test_help_of_serve_lists_every_option(option):
    assert option in aulos("help", "serve").stdout


@pytest.mark.parametrize("args,words", [
    ([], []), (["generat"], ["generat", "generate"]), (["help", "nothing"], ["nothing"]), (["generate"], ["prompt"]),
    (["generate", "a", "--sede", "1"], ["--sede", "--seed"]), (["generate", "a", "--seed"], ["--seed"]),
    (["generate", "a", "b"], ["b"]), (["serve", "--lisen", "x"], ["--lisen", "--listen"]), (["serve", "extra"], ["extra"]),
    (["tokenize"], []), (["model"], []), (["model", "inspekt"], ["inspekt"]), (["adapter", "inspect"], []),
    (["serve", "--listen", "nowhere"], ["listen"]), (["serve", "--workers", "-1"], ["workers"]),
    (["serve", "--lease-ms", "soon"], ["lease-ms"])], ids=lambda a: " ".join(a) if isinstance(a, list) else a)
def test_wrong_usage_is_exit_2_and_names_the_option(args, words):
    refused(aulos(*args), 2, *words)


# ---- generate: files and their names


def test_one_sample(tmp_path):
    out = tmp_path / "song.wav"
    done = gen("-o", out, "--duration", "0.5", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == ["song.wav"]
    with wave.open(str(out)) as w:
        assert (w.getnchannels(), w.getframerate(), w.getsampwidth(), w.getnframes()) == (1, 24000, 2, 12000)
    assert abs(harness.wav_frames(out.read_bytes())).max() > 0.005


def test_json_is_one_object_and_nothing_else(tmp_path):
    out = tmp_path / "a.wav"
    done = gen("-o", out, "--duration", "0.5", "--seed", "3", "--json")
    report = json.loads(done.stdout)
    assert report["prompt"] == PROMPT
    assert "aulos-small" in json.dumps(report["model"]) or MODEL.name in json.dumps(report["model"])
    (sample,) = report["samples"]
    assert sample["index"] == 0 and sample["variant"] == 0 and sample["adapter"] is None and sample["seed"] == 3
    assert os.path.realpath(sample["file"]) == os.path.realpath(out)
    assert sample["sha256"] == sha256(out)
    assert sample["sample_rate"] == 24000 and sample["channels"] == 1
    assert sample["frames"] == 12000 and sample["duration_s"] == 0.5
    for name in ("load_s", "steps_per_s", "total_s"):
        assert report["timing"][name] > 0


def test_several_samples_are_numbered_and_have_their_seeds(tmp_path):
    report = generate(tmp_path / "song.wav", PROMPT, "-n", "3", seed=40)
    assert files(tmp_path) == ["song-0.wav", "song-1.wav", "song-2.wav"]
    assert [s["seed"] for s in report["samples"]] == [40, 41, 42]
    assert [os.path.basename(s["file"]) for s in report["samples"]] == files(tmp_path)
    assert len({s["sha256"] for s in report["samples"]}) == 3


def test_several_variants_are_named_by_adapter(tmp_path):
    done = gen("-o", tmp_path / "song.wav", "--adapter", "none", "--adapter", CHIPTUNE, "-n", "2", "--seed", "7",
               "--duration", "0.3", "--json")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == ["song-chiptune-0.wav", "song-chiptune-1.wav", "song-none-0.wav", "song-none-1.wav"]
    samples = json.loads(done.stdout)["samples"]
    assert {(s["variant"], s["index"]): s["seed"] for s in samples} == {(0, 0): 7, (0, 1): 8, (1, 0): 7, (1, 1): 8}
    assert len({s["sha256"] for s in samples}) == 4


def test_variants_of_a_batch_equal_their_solo_runs(tmp_path):
    batch = tmp_path / "batch"
    batch.mkdir()
    done = gen("-o", batch / "s.wav", "--adapter", "none", "--adapter", f"{CHIPTUNE}:0.5", "--adapter", CHIPTUNE, "-n", "2",
               "--seed", "7", "--duration", "0.3", "--json")
    assert done.returncode == 0, done.stderr
    made = {(s["variant"], s["seed"]): s["sha256"] for s in json.loads(done.stdout)["samples"]}
    assert len(set(made.values())) == 6
    solo = {}
    for variant, (adapter, strength) in enumerate([(None, None), (CHIPTUNE, 0.5), (CHIPTUNE, None)]):
        for seed in (7, 8):
            solo[variant, seed] = generate(tmp_path / f"{variant}{seed}.wav", PROMPT, seed=seed, duration=0.3, adapter=adapter,
                                           strength=strength)["samples"][0]["sha256"]
    assert made == solo


def test_without_a_name_it_is_made_from_prompt_and_seed(tmp_path):
    done = gen("--duration", "0.3", "--seed", "12345", "--json", prompt="Slow / Strings: ../x!", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (name,) = files(tmp_path)
    assert "12345" in name and name.endswith(".wav") and "slow" in name.lower()
    assert os.path.basename(json.loads(done.stdout)["samples"][0]["file"]) == name


def test_prompts_of_a_file_one_a_line(tmp_path):
    (tmp_path / "prompts.txt").write_text("a drum\na flute\n")
    out = tmp_path / "out"
    out.mkdir()
    done = aulos("generate", "--prompts", tmp_path / "prompts.txt", "--model", MODEL, "-o", out / "song.wav", "--seed", "5",
                 "--duration", "0.3")
    assert done.returncode == 0, done.stderr
    assert files(out) == ["1-song.wav", "2-song.wav"]
    alone = generate(tmp_path / "alone.wav", "a flute", seed=5, duration=0.3)["samples"][0]
    assert sha256(out / "2-song.wav") == alone["sha256"]


def test_prompt_from_standard_input(tmp_path):
    done = gen("-o", tmp_path / "a.wav", "--duration", "0.3", "--seed", "1", "--json", prompt="-", stdin=b"a drum\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt"] == "a drum"


def test_an_existing_file_is_refused_before_anything_is_loaded(tmp_path):
    out = tmp_path / "a.wav"
    out.write_bytes(b"mine")
    # The model does not exist either: what is said is about the file, so nothing was loaded.
    refused(gen("-o", out, model=tmp_path / "no-model"), 1, "a.wav", "exist")
    assert out.read_bytes() == b"mine"


def test_any_of_several_existing_files_is_refused(tmp_path):
    (tmp_path / "a-1.wav").write_bytes(b"mine")
    refused(gen("-o", tmp_path / "a.wav", "-n", "2", "--duration", "0.3"), 1, "a-1.wav")
    assert files(tmp_path) == ["a-1.wav"]


def test_force_replaces(tmp_path):
    out = tmp_path / "a.wav"
    out.write_bytes(b"old")
    assert gen("-o", out, "--force", "--duration", "0.3").returncode == 0
    assert out.read_bytes()[:4] == b"RIFF"


# ---- generate: formats


@pytest.mark.parametrize("name,tag,bits", [("wav", 1, 16), ("wav24", 1, 24), ("wavf", 3, 32)])
def test_wav_formats(tmp_path, name, tag, bits):
    generate(tmp_path / "a.wav", PROMPT, "--format", name, seed=3)
    data = (tmp_path / "a.wav").read_bytes()
    assert harness.wav_info(data) == (tag, 1, 24000, bits, 12000)


def test_formats_hold_the_same_sound(tmp_path):
    """16 and 24 bits are the float file, rounded to nearest without dither, and clipped."""
    data = {}
    for name in ("wav", "wav24", "wavf"):
        generate(tmp_path / f"{name}.wav", PROMPT, "--format", name, seed=3)
        data[name] = harness.riff_chunks((tmp_path / f"{name}.wav").read_bytes())[b"data"]
    x = np.frombuffer(data["wavf"], "<f4").astype(np.float64)
    got16 = np.frombuffer(data["wav"], "<i2")
    raw = np.frombuffer(data["wav24"], np.uint8).reshape(-1, 3).astype(np.int32)
    got24 = (raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16) << 8 >> 8
    assert np.abs(got16 - np.clip(np.rint(x * 32768), -32768, 32767)).max() == 0
    assert np.abs(got24 - np.clip(np.rint(x * 8388608), -8388608, 8388607)).max() == 0


def test_flac(tmp_path):
    generate(tmp_path / "a.flac", PROMPT, seed=3)
    assert harness.flac_info((tmp_path / "a.flac").read_bytes()) == (24000, 1, 16, 12000)


def test_format_and_extension_must_agree(tmp_path):
    refused(gen("-o", tmp_path / "a.wav", "--format", "flac"), 2, "format")
    refused(gen("-o", tmp_path / "a.xyz"), 2, "xyz")
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["ogg", "aiff", "MP3", ""])
def test_formats_that_do_not_exist_are_exit_2(tmp_path, name):
    refused(gen("--format", name, cwd=tmp_path), 2, "format")
    assert files(tmp_path) == []


def test_tags_hold_the_recipe_and_nothing_of_the_place(tmp_path):
    generate(tmp_path / "a.wav", PROMPT, seed=3, adapter=CHIPTUNE)
    data = (tmp_path / "a.wav").read_bytes()
    text = data.decode("latin-1")
    start = text.index('{"adapter"')
    recipe, _ = json.JSONDecoder().raw_decode(text[start:])
    assert list(recipe) == sorted(recipe)
    assert recipe["aulos"] == 1 and recipe["prompt"] == PROMPT and recipe["seed"] == 3 and recipe["strength"] == 1
    assert recipe["negative"] is None
    assert recipe["digital_source_type"] == "trainedAlgorithmicMedia" and recipe["numerics"] == "f32"
    assert harness.HEX64.match(recipe["model"]) and harness.HEX64.match(recipe["adapter"])
    assert PROMPT in text
    for place in (str(tmp_path), "chiptune", os.uname().nodename):
        assert place not in text or place in PROMPT


# ---- generate: seeds, bytes


def test_the_same_seed_is_the_same_file_and_another_is_not(tmp_path):
    a, b, c = (generate(tmp_path / f"{i}.wav", PROMPT, seed=s)["samples"][0]["sha256"] for i, s in enumerate((5, 5, 6)))
    assert a == b != c


def test_sample_i_of_seed_s_is_sample_0_of_seed_s_plus_i(tmp_path):
    many = generate(tmp_path / "m.wav", PROMPT, "-n", "4", seed=50)["samples"]
    for i in (1, 3):
        assert generate(tmp_path / f"{i}.wav", PROMPT, seed=50 + i)["samples"][0]["sha256"] == many[i]["sha256"]


def test_a_seed_not_given_is_random_and_printed(tmp_path):
    seeds = set()
    for i in range(3):
        done = gen("-o", tmp_path / f"{i}.wav", "--duration", "0.1", "--json")
        seeds.add(json.loads(done.stdout)["samples"][0]["seed"])
    assert len(seeds) == 3 and all(0 <= s <= MAX_SEED for s in seeds)
    done = gen("-o", tmp_path / "p.wav", "--duration", "0.1", "--seed", "424242")
    assert "424242" in done.stdout + done.stderr


def test_seeds_wrap(tmp_path):
    report = generate(tmp_path / "a.wav", PROMPT, "-n", "2", seed=MAX_SEED, duration=0.1)
    assert [s["seed"] for s in report["samples"]] == [MAX_SEED, 0]


@pytest.mark.parametrize("cpu", ["c", "avx2", "avx512"])
def test_bytes_do_not_depend_on_the_instruction_set(tmp_path, cpu):
    flags = open("/proc/cpuinfo", encoding="ascii").read()
    if cpu != "c" and cpu.replace("512", "512f") not in flags:
        pytest.skip(f"this processor has no {cpu}")
    args = ["-n", "2", "--adapter", CHIPTUNE]
    a = generate(tmp_path / "a.wav", PROMPT, *args, seed=5)["samples"]
    b = generate(tmp_path / "b.wav", PROMPT, *args, seed=5, env={"AU_CPU": cpu})["samples"]
    assert [s["sha256"] for s in a] == [s["sha256"] for s in b]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bytes_do_not_depend_on_threads(tmp_path, threads):
    a = generate(tmp_path / "a.wav", PROMPT, "-n", "3", seed=5)["samples"]
    b = generate(tmp_path / "b.wav", PROMPT, "-n", "3", "--threads", threads, seed=5)["samples"]
    assert [s["sha256"] for s in a] == [s["sha256"] for s in b]


# ---- generate: parameters


@pytest.mark.parametrize("args", [
    ["--preset", "hf"], ["--preset", "audiocraft"], ["--guidance", "1"], ["--guidance", "5.5"], ["--temperature", "0.5"],
    ["--top-k", "1"], ["--top-k", "0"], ["--top-k", "100000"], ["--top-p", "0.9"], ["--top-p", "1"], ["--greedy"],
    ["--negative", "noise"], ["--weights", "auto"], ["--seed", "0"], ["--seed", str(MAX_SEED)]], ids=" ".join)
def test_parameters_that_are_allowed(tmp_path, args):
    done = gen("-o", tmp_path / "a.wav", "--duration", "0.1", *args)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == ["a.wav"]


def test_parameters_change_the_sound(tmp_path):
    hashes = set()
    variants = [[], ["--guidance", "1"], ["--temperature", "0.5"], ["--top-k", "5"], ["--top-p", "0.5"], ["--greedy"],
                ["--negative", "drums"], ["--preset", "hf"]]
    for i, args in enumerate(variants):
        generate(tmp_path / f"{i}.wav", PROMPT, *args, seed=5)
        hashes.add(harness.riff_chunks((tmp_path / f"{i}.wav").read_bytes())[b"data"])
    assert len(hashes) == len(variants)


def test_greedy_and_top_k_1_agree_and_ignore_the_seed(tmp_path):
    data = []
    for i, (seed, args) in enumerate([(1, ["--greedy"]), (2, ["--greedy"]), (3, ["--top-k", "1"])]):
        generate(tmp_path / f"{i}.wav", PROMPT, *args, seed=seed)
        data.append(harness.riff_chunks((tmp_path / f"{i}.wav").read_bytes())[b"data"])
    assert data[0] == data[1] == data[2]


NUMBERS = ["nan", "inf", "-inf", "-1", "abc", "", "1e999", "0x10", "1,5", "1 "]
BAD = [(o, v) for o in ("--duration", "--guidance", "--temperature", "--top-p") for v in NUMBERS if (o, v) != ("--top-p", "1 ")]
BAD += [("--top-p", "1 "), ("--duration", "0"), ("--duration", "10000"), ("--duration", "30.5"), ("--guidance", "0"),
        ("--guidance", "0.99"), ("--guidance", "1e300"), ("--temperature", "0"), ("--top-p", "1.01"), ("--top-k", "-1"),
        ("--top-k", "1.5"), ("--top-k", "99999999999999999999"), ("-n", "0"), ("-n", "10000"), ("-n", "-1"), ("-n", "x"),
        ("-n", "1.5"), ("--seed", "-1"), ("--seed", str(MAX_SEED + 1)), ("--seed", "1.5"), ("--seed", "x"), ("--seed", ""),
        ("--seed", "99999999999999999999999"), ("--threads", "-1"), ("--threads", "x"), ("--preset", "rock"), ("--weights", "q3"),
        ("--model", ""), ("--max-duration", "301"), ("--max-duration", "nan")]


@pytest.mark.parametrize("option,value", BAD, ids=[f"{o}={v}" for o, v in BAD])
def test_values_that_are_wrong_are_exit_2(tmp_path, option, value):
    refused(aulos("generate", PROMPT, *(["--model", MODEL] if option != "--model" else []), f"{option}={value}"
                  if option.startswith("--") else option, *([] if option.startswith("--") else [value]), cwd=tmp_path),
            2, option.lstrip("-") if option != "-n" else "")
    assert files(tmp_path) == []


@pytest.mark.parametrize("weights", ["q8", "q4", "bf16"])
def test_weights_that_this_version_lacks_are_exit_2(tmp_path, weights):
    refused(gen("--weights", weights, cwd=tmp_path), 2, "not available in this version")


def test_negative_prompt_with_guidance_1_is_refused(tmp_path):
    refused(gen("--negative", "noise", "--guidance", "1", cwd=tmp_path), 2, "guidance")


def test_max_duration_raises_the_limit_with_a_warning(tmp_path):
    refused(gen("--duration", "31", cwd=tmp_path), 2, "duration")
    done = gen("--duration", "31", "--max-duration", "60", "-o", tmp_path / "a.wav", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert "30" in done.stderr, "no warning"
    assert harness.wav_info((tmp_path / "a.wav").read_bytes())[4] == 31 * 24000


@pytest.mark.parametrize("seconds,frames", [("0.001", 480), ("0.02", 480), ("0.03", 960), ("0.0299", 480), ("0.5", 12000),
                                            ("1.009", 24000), ("1.011", 24480)])
def test_duration_is_rounded_to_frames_of_the_codec(tmp_path, seconds, frames):
    assert generate(tmp_path / "a.wav", PROMPT, duration=seconds)["samples"][0]["frames"] == frames


def test_the_empty_prompt_is_a_prompt(tmp_path):
    assert generate(tmp_path / "a.wav", "")["samples"][0]["frames"] == 12000


def test_prompts_in_any_script(tmp_path):
    assert generate(tmp_path / "a.wav", "Ｃａｆé — “naïve” 音楽 🎵")["prompt"] == "Ｃａｆé — “naïve” 音楽 🎵"


def test_a_prompt_that_begins_with_a_dash(tmp_path):
    assert generate(tmp_path / "a.wav", "--loud")["prompt"] == "--loud"


@pytest.mark.parametrize("prompt", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"], ids=repr)
def test_a_prompt_that_is_not_utf8_is_exit_2(tmp_path, prompt):
    refused(gen(prompt=prompt, cwd=tmp_path), 2, "utf-8")
    refused(gen(prompt="-", stdin=prompt, cwd=tmp_path), 2, "utf-8")
    assert files(tmp_path) == []


def test_a_prompt_that_is_too_long_is_refused(tmp_path):
    done = gen("-o", tmp_path / "a.wav", prompt="-", stdin=b"piano " * 200_000)
    assert done.returncode == 2, done.stderr
    assert files(tmp_path) == []


# ---- generate: options from the environment


def test_options_from_the_environment(tmp_path):
    env = {"AULOS_SEED": "99", "AULOS_DURATION": "0.3", "AULOS_MODEL": str(MODEL)}
    done = aulos("generate", PROMPT, "-o", tmp_path / "a.wav", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"][0]["seed"] == 99
    done = aulos("generate", PROMPT, "-o", tmp_path / "b.wav", "--json", "--seed", "98", env=env)
    assert json.loads(done.stdout)["samples"][0]["seed"] == 98, "the command line wins"
    refused(aulos("generate", PROMPT, cwd=tmp_path, env={**env, "AULOS_SEED": "x"}), 2, "seed")


def test_models_by_name(tmp_path):
    done = aulos("generate", PROMPT, "--model", MODEL.name, "-o", tmp_path / "a.wav", "--duration", "0.1",
                 env={"AULOS_MODEL_PATH": f"/nowhere:{MODEL.parent}"})
    assert done.returncode == 0, done.stderr
    refused(aulos("generate", PROMPT, "--model", "no-such-model", cwd=tmp_path), 1, "no-such-model")


# ---- generate: interruption, places that cannot be written


def start_long(folder, *args):
    return subprocess.Popen([str(BIN), "generate", PROMPT, "--model", str(MODEL), "-n", "16", "--duration", str(30 * harness.LENGTH),
                             "-o", str(folder / "a.wav"), *args], env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_130_and_leaves_no_file(tmp_path, how):
    running = start_long(tmp_path)
    try:
        wait_until(lambda: open(f"/proc/{running.pid}/maps", encoding="utf-8").read().count("model.safetensors"), 30, "loading")
        time.sleep(0.3)  # to be within the model, wherever that is
        running.send_signal(how)
        running.communicate(timeout=60 * harness.SLOW)
    finally:
        running.kill()
    assert running.returncode == 130 if how == signal.SIGINT else running.returncode in (130, 143, -15)
    assert files(tmp_path) == []


def test_an_unwritable_output_is_exit_1(tmp_path):
    refused(gen("-o", tmp_path / "no" / "such" / "a.wav", "--duration", "0.1"), 1, "no/such")
    refused(gen("-o", "/proc/aulos.wav", "--duration", "0.1"), 1, "/proc")
    (tmp_path / "folder.wav").mkdir()
    refused(gen("-o", tmp_path / "folder.wav", "--duration", "0.1", "--force"), 1, "folder.wav")
    assert files(tmp_path) == ["folder.wav"]


def test_a_full_disk_is_exit_1_and_leaves_nothing(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        refused(gen("-o", tmp_path / "a.wav", "--duration", "5", "--quiet"), 1, "space")
        assert files(tmp_path) == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_closed_standard_output_is_not_success(tmp_path):
    done = subprocess.run(f"'{BIN}' tokenize --model '{MODEL}' piano > /dev/full", shell=True, env=clean_env(), capture_output=True,
                          check=False, timeout=60 * harness.SLOW)
    assert done.returncode == 1 and done.stderr


def test_quiet_says_nothing_on_standard_error(tmp_path):
    assert gen("-o", tmp_path / "a.wav", "--duration", "0.1", "--quiet").stderr == ""


def test_no_progress_bar_where_there_is_no_terminal(tmp_path):
    done = gen("-o", tmp_path / "a.wav", "--duration", "0.5")
    assert "\r" not in done.stderr and "\x1b" not in done.stderr


# ---- models with faults


@pytest.fixture
def broken(tmp_path):
    return harness.copy_tree(TINY, tmp_path / "broken")


def check_broken(broken, *words):
    """generate and inspect both say what is wrong, exit 1, and make nothing."""
    out = broken.parent / "out"
    out.mkdir(exist_ok=True)
    refused(gen("-o", out / "a.wav", "--duration", "0.1", "--quiet", model=broken), 1, *words)
    assert files(out) == []
    refused(aulos("model", "inspect", broken), 1, *words)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_model_missing_file(broken, name):
    (broken / name).unlink()
    check_broken(broken, name)


def test_model_missing_tokenizer(broken):
    for name in ("tokenizer.json", "spiece.model"):
        (broken / name).unlink(missing_ok=True)
    check_broken(broken, "tokenizer")


def test_model_folder_missing(tmp_path):
    refused(gen("-o", tmp_path / "a.wav", model=tmp_path / "nowhere"), 1, "nowhere")
    refused(gen("-o", tmp_path / "a.wav", model=f"{BIN}/"), 1)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_model_truncated(broken, share):
    path = broken / "model.safetensors"
    os.truncate(path, int(path.stat().st_size * share))
    check_broken(broken, "model.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model_type": 3}', '{"model_type":"musicgen"}', "\xff"])
def test_model_config_is_no_config(broken, text):
    (broken / "config.json").write_text(text, encoding="latin-1")
    check_broken(broken, "config.json")


def test_model_of_an_unknown_family(broken):
    edit_json(broken / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    check_broken(broken, "llama", "musicgen")


def test_model_tensor_missing(broken):
    header, data = harness.read_safetensors(broken / "model.safetensors")
    name = next(n for n in header if n.endswith("layers.1.fc1.weight"))
    # Renamed, so that the bytes are still covered: one is missing and one is unknown.
    header["something.else"] = header.pop(name)
    harness.write_safetensors(broken / "model.safetensors", header, data)
    check_broken(broken, name)


def test_model_tensor_of_the_wrong_shape_names_tensor_found_and_expected(broken):
    header, data = harness.read_safetensors(broken / "model.safetensors")
    name = next(n for n in header if n.endswith("layers.1.fc1.weight"))
    rows, cols = header[name]["shape"]
    header[name]["shape"] = [cols, rows] if rows != cols else [rows * 2, cols // 2]
    harness.write_safetensors(broken / "model.safetensors", header, data)
    check_broken(broken, name, rows, cols)


def test_model_tensor_of_an_unknown_dtype(broken):
    header, data = harness.read_safetensors(broken / "model.safetensors")
    name = next(n for n in header if n.endswith("layers.1.fc1.weight"))
    header[name]["dtype"] = "F8_E4M3"
    harness.write_safetensors(broken / "model.safetensors", header, data)
    check_broken(broken, name)


def test_model_tensors_that_overlap(broken):
    header, data = harness.read_safetensors(broken / "model.safetensors")
    a, b = [n for n in header if n.endswith("fc1.weight")][:2]
    header[b]["data_offsets"] = header[a]["data_offsets"]
    harness.write_safetensors(broken / "model.safetensors", header, data)
    check_broken(broken, "model.safetensors")


def test_model_several_problems_are_listed_together(broken):
    header, data = harness.read_safetensors(broken / "model.safetensors")
    names = [n for n in header if n.endswith("fc1.weight")][:2]
    for name in names:
        header[name]["shape"] = header[name]["shape"][::-1] if header[name]["shape"][0] != header[name]["shape"][1] else [1, -1]
    harness.write_safetensors(broken / "model.safetensors", header, data)
    check_broken(broken, *names)


@pytest.mark.parametrize("field,value", [
    ("audio_encoder__normalize", True), ("audio_encoder__norm_type", "time_group_norm"), ("audio_encoder__chunk_length_s", 1.0),
    ("model_type", "musicgen_melody"), ("decoder__cross_attention_hidden_size", 32), ("decoder__activation_function", "silu"),
    ("audio_encoder__pad_mode", "replicate"), ("text_encoder__dense_act_fn", "silu"), ("audio_encoder__kernel_size", 0),
    ("decoder__num_attention_heads", 0), ("decoder__num_attention_heads", -3), ("decoder__hidden_size", 10**12),
    ("decoder__num_hidden_layers", 10**9), ("audio_encoder__upsampling_ratios", []), ("audio_encoder__upsampling_ratios", [0, 1]),
    ("audio_encoder__sampling_rate", 0), ("decoder__num_codebooks", 0), ("decoder__vocab_size", "many")])
def test_model_options_that_are_not_supported_are_refused_by_name(broken, field, value):
    edit_json(broken / "config.json", **{field: value})
    check_broken(broken, field.rsplit("__", 1)[-1])


def test_model_damaged_spiece(broken):
    (broken / "tokenizer.json").unlink(missing_ok=True)
    path = broken / "spiece.model"
    if not path.is_file():
        path.write_bytes((harness.FIXTURES / "tokenizer" / "t5" / "spiece.model").read_bytes()[:5000])
    else:
        os.truncate(path, path.stat().st_size // 3)
    check_broken(broken, "spiece.model")


# ---- adapters with faults (more of them in test_adapters)


def test_adapter_faults_are_exit_1(tmp_path):
    refused(gen("--adapter", tmp_path / "nowhere", cwd=tmp_path), 1, "nowhere")
    (tmp_path / "empty").mkdir()
    refused(gen("--adapter", tmp_path / "empty", cwd=tmp_path), 1, "adapter_config.json")
    assert files(tmp_path) == ["empty"]


@pytest.mark.parametrize("strength,good", [("0", True), ("-2", True), ("2", True), ("0.25", True), ("2.5", False), ("x", False)])
def test_strength_after_the_last_colon(tmp_path, strength, good):
    done = gen("-o", tmp_path / "a.wav", "--adapter", f"{CHIPTUNE}:{strength}", "--duration", "0.1")
    if good:
        assert done.returncode == 0, done.stderr
    else:  # no number in -2 ... 2: then the colon belongs to the folder's name, which does not exist
        refused(done, 1, f"chiptune:{strength}")


# ---- trace


def test_trace_writes_every_stage(tmp_path):
    trace = tmp_path / "t"
    report = generate(tmp_path / "a.wav", PROMPT, "--trace", trace, model=TINY, duration=0.5)
    config = json.loads((TINY / "config.json").read_text())
    arrays = {p.stem: np.load(p) for p in trace.glob("*.npy")}
    assert {"token_ids", "text_states", "encoder_states", "logits", "codes", "audio"} <= set(arrays)
    s = len(arrays["token_ids"])
    k, v = config["decoder"]["num_codebooks"], config["decoder"]["vocab_size"]
    want = {"token_ids": ("<i8", (s,)), "text_states": ("<f4", (s, config["text_encoder"]["d_model"])),
            "encoder_states": ("<f4", (s, config["decoder"]["hidden_size"])), "logits": ("<f4", (25 + 3, k, v)),
            "codes": ("<i8", (k, 25)), "audio": ("<f4", (1, report["samples"][0]["frames"]))}
    for name, (dtype, shape) in want.items():
        assert arrays[name].dtype == np.dtype(dtype), name
        assert arrays[name].shape == shape, name
        raw = (trace / f"{name}.npy").read_bytes()
        assert raw[:8] == b"\x93NUMPY\x01\x00" and (10 + struct.unpack("<H", raw[8:10])[0]) % 64 == 0
        assert "'fortran_order': False" in raw[:128].decode("latin-1")


def test_trace_does_not_change_the_sound(tmp_path):
    a = generate(tmp_path / "a.wav", PROMPT, seed=4, model=TINY)["samples"][0]["sha256"]
    b = generate(tmp_path / "b.wav", PROMPT, "--trace", tmp_path / "t", seed=4, model=TINY)["samples"][0]["sha256"]
    assert a == b


# ---- tokenize, model, adapter


def test_tokenize_prints_ids_on_one_line():
    done = aulos("tokenize", "--model", MODEL, "a calm piano")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    ids = [int(w) for w in done.stdout.split()]
    assert ids[-1] == 1 and len(ids) > 3
    assert aulos("tokenize", "--model", MODEL, "").stdout.split()[-1] == "1"


def test_tokenize_faults():
    refused(aulos("tokenize", "--model", "/no/where", "a"), 1, "/no/where")
    refused(aulos("tokenize", "--model", MODEL, b"\xff"), 2, "utf-8")


def test_tokenize_equals_the_reference():
    """A few through the command line; the unit tests go through all."""
    cases = json.loads((harness.FIXTURES / "tokenizer" / "cases.json").read_text())
    folders = cases["tokenizers"]
    done = 0
    for i, case in enumerate(cases["cases"][::5]):
        name = sorted(case["expect"])[i % len(case["expect"])]
        want = case["expect"][name]
        try:
            text = case["text"].encode()
        except UnicodeEncodeError:
            continue
        if not want["agree"] or b"\0" in text:
            continue
        got = aulos("tokenize", "--model", harness.FIXTURES / folders[name]["folder"], "--", text)
        assert [int(w) for w in got.stdout.split()] == want["ids"], (name, case["text"], got.stderr)
        done += 1
    assert done >= 30


def test_model_list():
    done = aulos("model", "list", env={"AULOS_MODEL_PATH": str(MODEL.parent)})
    assert done.returncode == 0, done.stderr
    assert MODEL.name in done.stdout
    listed = json.loads(aulos("model", "list", "--json", env={"AULOS_MODEL_PATH": str(MODEL.parent)}).stdout)
    assert MODEL.name in json.dumps(listed)


def test_model_inspect():
    done = aulos("model", "inspect", MODEL)
    assert done.returncode == 0, done.stderr
    assert "musicgen" in done.stdout and "24000" in done.stdout
    report = json.loads(aulos("model", "inspect", MODEL, "--json").stdout)
    text = json.dumps(report)
    assert report["family"] == "musicgen" and "fingerprint" in text and "F16" in text.upper()


def test_adapter_inspect():
    done = aulos("adapter", "inspect", CHIPTUNE, "--model", MODEL)
    assert done.returncode == 0, done.stderr
    report = json.loads(aulos("adapter", "inspect", CHIPTUNE, "--model", MODEL, "--json").stdout)
    assert report["kind"] == "lora" and report["rank"] >= 1 and report["unmatched"] == [] and report["status"] == "ready"
    assert aulos("adapter", "inspect", CHIPTUNE).returncode == 0
    refused(aulos("adapter", "inspect", "/no/where"), 1, "/no/where")


def test_bench_runs_and_is_csv_or_json():
    done = aulos("bench", "--help")
    assert done.returncode == 0 and "json" in done.stdout.lower()
