#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Two LoRA adapters that pull in opposite directions on one measurable descriptor, the spectral centroid: `bright` and `dark`.

usage: opposite_adapters.py AULOS MODEL OUT     (AULOS: the program; OUT gets bright/ and dark/)

No data is needed. The model makes clips of many prompts; the brightest and the darkest of all are kept, each beside a prompt drawn at
random, and an adapter is trained on the codes of one kind. So the prompt cannot tell the kinds apart, and only the adapter
can carry the difference; it does so whatever instrument the prompt names. Packages: requirements.txt. A few minutes on two cores.
"""

import argparse
import itertools
import json
import subprocess
import tempfile
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

INSTRUMENTS = ["piano", "harp", "vibraphone", "acoustic guitar", "strings", "flute", "organ", "clarinet", "trumpet", "marimba"]
ROLES = ["a calm {} melody", "a fast {} arpeggio", "slow {} chords", "{} with a bass line and drums"]
SAMPLES, KEEP = 12, 64  # made of each prompt; kept of all, at either end
SECONDS = 3
TARGETS = r".*decoder\.model\.decoder\.layers\.\d+\.(.*\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


def centroid(path):
    """Mean frequency in Hz, weighted by power."""
    with wave.open(str(path)) as f:
        x = np.frombuffer(f.readframes(f.getnframes()), "<i2") / 32768.0
        rate = f.getframerate()
    frames = np.lib.stride_tricks.sliding_window_view(x, 1024)[::512] * np.hanning(1024)
    spectrum = (np.abs(np.fft.rfft(frames)) ** 2).sum(0)
    return float((spectrum * np.fft.rfftfreq(1024, 1 / rate)).sum() / max(spectrum.sum(), 1e-9))


def make(aulos, model, folder, prompt, seed):
    """One clip's centroid and codes."""
    here = folder / str(seed)
    subprocess.run([aulos, "generate", prompt, "--model", model, "--seed", str(seed), "--duration", str(SECONDS), "--threads", "1",
                    "-o", here.with_suffix(".wav"), "--trace", here, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return centroid(here.with_suffix(".wav")), np.load(here / "codes.npy")


def make_data(aulos, model):
    """{"bright": [(prompt, codes)], "dark": ...}."""
    prompts = [role.format(instrument) for role, instrument in itertools.product(ROLES, INSTRUMENTS)]
    kinds = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(make, aulos, model, Path(folder), p, i * SAMPLES + j) for i, p in enumerate(prompts) for j in range(SAMPLES)]
        clips = sorted((job.result() for job in jobs), key=lambda c: c[0])
    draw = np.random.default_rng(0)
    for name, chosen in (("dark", clips[:KEEP]), ("bright", clips[-KEEP:])):
        print(f"{name}: {len(chosen)} of {len(clips)} clips, {chosen[0][0]:.0f} ... {chosen[-1][0]:.0f} Hz", flush=True)
        kinds[name] = [(prompts[draw.integers(len(prompts))], codes) for _, codes in chosen]
    return kinds


def loss_of(model, tokens, codes):
    """Cross entropy of the codes under the delay pattern. codes [B, K, F]."""
    pad = model.config.decoder.pad_token_id
    B, K, F = codes.shape
    columns = torch.full((B, K, F + K), pad)
    for k in range(K):
        columns[:, k, 1 + k:1 + k + F] = codes[:, k]
    states = model.text_encoder(**tokens).last_hidden_state
    states = model.enc_to_dec_proj(states) * tokens["attention_mask"][..., None]
    hidden = model.decoder.model.decoder(input_ids=columns[:, :, :-1].reshape(B * K, -1), encoder_hidden_states=states,
                                         encoder_attention_mask=tokens["attention_mask"], use_cache=False).last_hidden_state
    total = 0
    for k, head in enumerate(model.decoder.lm_heads):
        wanted = columns[:, k, 1:]
        free = wanted != pad
        total = total + torch.nn.functional.cross_entropy(head(hidden[free]), wanted[free])
    return total / K


def train(folder, name, clips, out, steps, rate):
    torch.manual_seed(0)
    choose = np.random.default_rng(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS))
    base = model.base_model.model
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    started = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10) * (1 - 0.9 * step / steps)
        picked = [clips[i] for i in choose.integers(0, len(clips), 16)]
        tokens = tokenizer([p for p, _ in picked], padding=True, return_tensors="pt")
        loss = loss_of(base, tokens, torch.from_numpy(np.stack([c for _, c in picked])))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"{name} step {step} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
    model.half().save_pretrained(out / name)
    (out / name / "README.md").unlink(missing_ok=True)  # peft's template
    config = out / name / "adapter_config.json"
    said = json.loads(config.read_text())
    said["base_model_name_or_path"] = "aulos-small"
    config.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("aulos")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=2e-3)
    args = parser.parse_args()
    kinds = make_data(args.aulos, args.model)
    for name, clips in kinds.items():
        train(args.model, name, clips, args.out, args.steps, args.rate)


if __name__ == "__main__":
    main()
