# SPDX-License-Identifier: MIT
"""Parity with the reference implementation, stage by stage, through `aulos generate --trace`; adapters good and bad.

Fixtures: tests/fixtures/{checkpoints,adapters,cases}. Limits: ids and codes equal; every other stage within
1e-4 of the reference's standard deviation, logits by column over the cells that the delay pattern leaves free.
"""
import json

import numpy as np
import pytest

import harness
from harness import ADAPTERS, CASES, CHECKPOINTS, FIXTURES, aulos, check_problem, pointers

LIMIT = 1e-4
LATE_LIMIT = 3e-4  # of logits past column 500, where the reference's own error grows


def case_folders():
    return sorted(p.parent for p in CASES.glob("**/case.json"))


def name_of(folder):
    return str(folder.relative_to(CASES))


def error(got, want):
    assert got.shape == want.shape, f"{got.shape} for {want.shape}"
    return float(np.abs(got.astype(np.float64) - want).max() / want.std())


def reference(folder, case):
    return FIXTURES / case["same_as"] if "same_as" in case else folder


def trace(tmp_path, case):
    args = ["generate", "--model", CHECKPOINTS / case["checkpoint"], "--greedy", "--guidance", case["guidance"], "--duration",
            repr(case["frames"] / case["frame_rate"]), "--seed", "1", "-o", tmp_path / "a.wav", "--trace", tmp_path / "t", "--quiet"]
    if case["adapter"]:
        args += ["--adapter", f"{FIXTURES / case['adapter']}:{case['strength']}"]
    done = aulos(*args, "--", case["prompt"])
    assert done.returncode == 0, done.stderr
    return {p.stem: np.load(p) for p in (tmp_path / "t").glob("*.npy")}


def real(ids):
    """How many of a row's ids are no padding: a batch's rows are padded with 0 after the final 1."""
    return int(np.flatnonzero(ids)[-1]) + 1


def test_the_fixtures_cover_what_there_is():
    assert len(case_folders()) >= 20
    adapters = {json.loads((c / "case.json").read_text())["adapter"] for c in case_folders()} - {None}
    good = {str(p.parent.relative_to(FIXTURES)) for p in ADAPTERS.glob("*/*/adapter_config.json") if p.parent.parent.name != "bad"}
    assert good <= adapters, f"adapters without a case: {good - adapters}"


@pytest.mark.parametrize("folder", case_folders(), ids=name_of)
def test_parity(tmp_path, folder):
    case = json.loads((folder / "case.json").read_text())
    got = trace(tmp_path, case)
    want = {p.stem: np.load(p) for p in reference(folder, case).glob("*.npy")}
    n = real(want["token_ids"])
    assert got["token_ids"].tolist() == want["token_ids"][:n].tolist()
    for stage in ("text_states", "encoder_states"):
        if stage in want:
            assert error(got[stage], want[stage][:n]) <= LIMIT, stage
    per_book = case["channels"]
    assert got["logits"].shape[0] == case["steps"]
    for i, column in enumerate(case["columns"]):
        books = [k for k in range(want["logits"].shape[1]) if 0 <= column - 1 - k // per_book < case["frames"]]
        assert books or column > case["frames"]
        if books:
            off = error(got["logits"][column - 1, books], want["logits"][i, books])
            assert off <= (LIMIT if column <= 500 else LATE_LIMIT), f"logits of column {column}: {off}"
    assert np.array_equal(got["codes"], want["codes"]), "greedy codes differ"
    assert got["audio"].shape == (case["channels"], case["audio_samples"])
    windows = np.concatenate([got["audio"][:, a:b] for a, b in case["audio_windows"]], axis=1)
    assert error(windows, want["audio"]) <= LIMIT, "audio"


@pytest.mark.parametrize("folder", [p.parent for p in sorted(CASES.glob("**/batch.json"))], ids=name_of)
def test_rows_of_a_batch_equal_their_solo_runs(tmp_path, folder):
    """Different prompts in one call, as a file of prompts: each line's file is the one it makes alone."""
    batch = json.loads((folder / "batch.json").read_text())
    if "prompts" not in batch:  # rows with adapters of their own
        # Every adapter of the batch on one prompt; the trace tests hold them against the reference.
        adapters = sorted({r["adapter"] or "" for r in batch["rows"]})
        seconds, prompt = 120 / 50, batch["rows"][0]["prompt"]
        words = [w for a in adapters for w in ("--adapter", FIXTURES / a if a else "none")]
        done = aulos("generate", prompt, "--model", CHECKPOINTS / batch["checkpoint"], "--greedy", "--duration", seconds, "--seed", "1",
                     *words, "-o", tmp_path / "b.wav", "--json", "--quiet")
        assert done.returncode == 0, done.stderr
        rows = [(prompt, a, s["sha256"]) for a, s in zip(adapters, json.loads(done.stdout)["samples"])]
    else:
        seconds = batch["frames"] / batch["frame_rate"]
        (tmp_path / "prompts").write_text("\n".join(batch["prompts"]) + "\n", encoding="utf-8")
        done = aulos("generate", "--prompts", tmp_path / "prompts", "--model", CHECKPOINTS / batch["checkpoint"], "--greedy",
                     "--duration", seconds, "--seed", "1", "-o", tmp_path / "b.wav", "--quiet")
        assert done.returncode == 0, done.stderr
        rows = [(p, None, harness.sha256(tmp_path / f"{i + 1}-b.wav")) for i, p in enumerate(batch["prompts"]) if p]
    assert len(rows) >= 2
    for i, (prompt, adapter, made) in enumerate(rows):
        alone = harness.generate(tmp_path / f"alone{i}.wav", prompt, "--greedy", model=CHECKPOINTS / batch["checkpoint"], seed=1,
                                 duration=seconds, adapter=FIXTURES / adapter if adapter else None)
        assert alone["samples"][0]["sha256"] == made, (prompt, adapter)


# ---- Bad adapters


BAD = json.loads((ADAPTERS / "bad" / "bad.json").read_text()) if (ADAPTERS / "bad" / "bad.json").is_file() else {"adapters": []}


def test_there_are_bad_adapters():
    assert len(BAD["adapters"]) >= 21


@pytest.mark.parametrize("name", [b["name"] for b in BAD["adapters"]])
def test_bad_adapter_is_refused_with_a_reason(tmp_path, name):
    folder, model = ADAPTERS / "bad" / name, CHECKPOINTS / BAD["checkpoint"]
    done = aulos("generate", "a piano", "--model", model, "--adapter", folder, "-o", tmp_path / "a.wav", "--duration", "0.1")
    assert done.returncode == 1, done.stderr
    # A reason of its own, more than the name of the folder.
    assert len(done.stderr.replace(str(folder), "").strip()) > 20
    assert done.stdout == "" and not list(tmp_path.iterdir())
    shown = aulos("adapter", "inspect", folder, "--model", model, "--json")
    report = json.loads(shown.stdout)
    assert report["status"] == "rejected"
    assert report["problems"] and all(str(p).strip() for p in report["problems"])


@pytest.mark.parametrize("name,words", [
    ("unmatched-tensor", ["99"]), ("wrong-shape-a", ["lora_A"]), ("wrong-shape-b", ["lora_B"]), ("missing-b", ["lora_B"]),
    ("layer-replication", ["layer_replication"]), ("ia3", ["IA3"]), ("config-no-type", ["peft_type"]), ("unknown-dtype", ["Q7"]),
    ("unknown-target", ["gate_proj"]), ("config-not-json", ["adapter_config.json"]), ("truncated", ["adapter_model.safetensors"])])
def test_the_reason_names_the_thing(tmp_path, name, words):
    done = aulos("generate", "a piano", "--model", CHECKPOINTS / BAD["checkpoint"], "--adapter", ADAPTERS / "bad" / name, cwd=tmp_path)
    assert done.returncode == 1
    for word in words:
        assert word.lower() in done.stderr.lower(), done.stderr


def test_an_adapter_that_would_change_nothing_is_refused(tmp_path):
    folder = harness.copy_tree(ADAPTERS / "mono-f32" / "plain", tmp_path / "zero")
    header, data = harness.read_safetensors(folder / "adapter_model.safetensors")
    raw = bytearray(data)
    for name, tensor in header.items():
        if "lora_B" in name:
            a, b = tensor["data_offsets"]
            raw[a:b] = bytes(b - a)
    harness.write_safetensors(folder / "adapter_model.safetensors", header, bytes(raw))
    done = aulos("generate", "a piano", "--model", CHECKPOINTS / "mono-f32", "--adapter", folder, "-o", tmp_path / "a.wav")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert not (tmp_path / "a.wav").exists()


def test_an_adapter_of_another_model_is_refused(tmp_path):
    done = aulos("generate", "a piano", "--model", harness.MODEL, "--adapter", ADAPTERS / "mono-f32" / "plain", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr


def test_server_lists_bad_adapters_as_rejected_and_starts(make_server, tmp_path):
    folder = tmp_path / "adapters"
    folder.mkdir()
    names = ["wrong-shape-a", "ia3", "truncated", "not-finite", "header-overflow", "config-not-json"]
    for name in names:
        harness.copy_tree(ADAPTERS / "bad" / name, folder / name)
    harness.copy_tree(ADAPTERS / "mono-f32" / "plain", folder / "plain")
    server = make_server("--adapters", folder, model=CHECKPOINTS / "mono-f32")
    found = server.adapters()
    assert {n: a["state"] for n, a in found.items()} == {**{n: "rejected" for n in names}, "plain": "ready"}
    for name in names:
        one = server.ok(f"/v1/adapters/{found[name]['id']}")
        assert one["report"]["problems"] or one["error"]["detail"]
        reply = server.post("/v1/jobs", {"prompt": "x", "adapter": found[name]["id"]})
        assert reply.status_code in (404, 422)
        problem = check_problem(reply, reply.status_code)
        assert any(p.startswith("/adapter") for p in pointers(problem))
    job = server.run(prompt="electronic dance music", adapter={"name": "plain", "strength": 1}, seed=1, duration_s=0.5)
    alone = harness.generate(tmp_path / "a.wav", "electronic dance music", model=CHECKPOINTS / "mono-f32", seed=1,
                             adapter=ADAPTERS / "mono-f32" / "plain")["samples"][0]
    assert server.samples_of(job)[0]["sha256"] == alone["sha256"]


def test_adapter_that_does_not_fit_the_model_is_422_with_its_report(make_server, tmp_path):
    """Two models; the adapter fits the first alone."""
    folder = tmp_path / "adapters"
    folder.mkdir()
    harness.copy_tree(ADAPTERS / "mono-f32" / "plain", folder / "plain")
    server = make_server("--adapters", folder, "--model", CHECKPOINTS / "mono-bf16-noproj", model=CHECKPOINTS / "mono-f32", workers=0)
    assert server.post("/v1/jobs", {"prompt": "x", "adapter": {"name": "plain"}}).status_code == 202
    problem = check_problem(server.post("/v1/jobs", {"prompt": "x", "model": "mono-bf16-noproj", "adapter": {"name": "plain"}}), 422)
    assert any(p.startswith("/adapter") for p in pointers(problem))


def test_changed_content_is_a_new_id_and_jobs_keep_the_old(make_server, tmp_path):
    """The job waits, the folder changes, the server reloads: the job is made with what it was given."""
    folder = tmp_path / "adapters"
    folder.mkdir()
    harness.copy_tree(ADAPTERS / "mono-f32" / "plain", folder / "style")
    server = make_server("--adapters", folder, model=CHECKPOINTS / "mono-f32", workers=0)
    old = server.adapters()["style"]
    body = {"prompt": "electronic dance music", "seed": 1, "duration_s": 0.5}
    job = server.submit(**body, adapter=old["id"])
    harness.shutil.rmtree(folder / "style")
    harness.copy_tree(ADAPTERS / "mono-f32" / "dreambooth", folder / "style")
    server.process.send_signal(harness.signal.SIGHUP)

    def renewed():
        new = [a for a in server.all("/v1/adapters") if a["name"] == "style" and a["id"] != old["id"] and a["state"] == "ready"]
        return new[0] if new else None

    new = harness.wait_until(renewed, 30, "the changed adapter", step=0.1)
    assert new["sha256"] != old["sha256"]
    other = server.submit(**body, adapter={"name": "style"})
    assert other["variants"][0]["adapter"]["id"] == new["id"]
    for _ in range(2):
        done = aulos("worker", "--data", server.data, "--model", CHECKPOINTS / "mono-f32", "--once")
        assert done.returncode == 0, done.stderr
    for made, path in ((job, "plain"), (other, "dreambooth")):
        alone = harness.generate(tmp_path / f"{path}.wav", body["prompt"], model=CHECKPOINTS / "mono-f32", seed=1,
                                 adapter=ADAPTERS / "mono-f32" / path)["samples"][0]
        assert server.samples_of(made)[0]["sha256"] == alone["sha256"], path
