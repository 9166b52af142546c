#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures a model folder and its adapters, beside real renders, codec round trips and shuffled prompts.

    python evaluate.py MODEL OUT --aulos ../build/aulos
    python evaluate.py MODEL OUT --parts codec --codec RUN/checkpoint.pt       the gate before a long run of the language model

Generation goes through `aulos generate`. The classifier of instruments is trained once, on real renders with mild changes (band limit,
EQ, noise, level), and kept in CLASSIFIERS; it sees none of the held-out seeds. OUT gets report.json and pictures.
"""

import argparse
import json
import multiprocessing
import subprocess
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from aulos_train import codec, losses, measures, musicgen
from aulos_train.compose import NAMES
from aulos_train.fluid import Fluid
from aulos_train.quantizer import Quantizer
from aulos_train.render import clip
from aulos_train.spectra import log_mel_distance, picture
from aulos_train.weights import codec_weights

RATE = 24000
# Seeds: nothing here was trained on.
PROMPTS, CLASSIFIER, STYLE = 30_000_000, 60_000_000, 65_000_000
PARTS = ["real", "codec", "prompt", "parity", "adapters"]
STYLES = {"lofi": "lo-fi", "chiptune": "chiptune"}  # by the adapter's name


def render_some(job):
    first, n, seconds, style = job
    torch.set_num_threads(1)
    fluid = None if style == "chiptune" else Fluid(RATE)
    return [clip(first + i, seconds, RATE, fluid, style) for i in range(n)]


def renders(first, n, seconds, style=None, workers=2):
    """[(waveform, labels, caption)], made in processes of their own."""
    size = -(-n // workers)
    jobs = [(first + at, min(size, n - at), seconds, style) for at in range(0, n, size)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return [row for part in pool.map(render_some, jobs) for row in part]


def instrument_classifier(folder, clips=2400):
    net = measures.Classifier(len(NAMES))
    path = folder / "instruments.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    rows = renders(CLASSIFIER, clips, 5)
    f = np.stack([measures.features(x) for x, _, _ in rows])
    net = measures.train_classifier(f, [NAMES.index(labels["instrument"]) for _, labels, _ in rows], len(NAMES))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), path)
    return net


class Codec:
    def __init__(self, source):
        self.model = codec.build()
        self.model.load_state_dict(codec_weights(source))
        self.model.eval()
        self.quantizer = Quantizer(self.model)

    @torch.inference_mode()
    def round_trip(self, x):
        whole = len(x) // codec.HOP * codec.HOP
        z = self.model.encoder(torch.from_numpy(x[:whole].astype(np.float32))[None, None])
        return self.model.decoder(self.quantizer(z)[0])[0, 0].numpy()


def style_classifier(style, codec_source, clips=140):
    """Base against style, both after the codec, which takes what it takes from real and generated sound alike; -> (net, accuracy on
    held-out round trips)."""
    machine = Codec(codec_source)
    f, y = [], []
    for kind, name in enumerate((None, style)):
        for x, _, _ in renders(STYLE, clips, 5, name):
            f.append(measures.features(machine.round_trip(x)))
            y.append(kind)
    f, y = np.stack(f), np.array(y)
    held = np.arange(len(y)) % 5 == 0
    net = measures.train_classifier(f[~held], y[~held], 2, steps=250)
    with torch.no_grad():
        right = (net(torch.from_numpy(f[held])).argmax(1).numpy() == y[held]).mean()
    return net, float(right)


def read_wave(path):
    with wave.open(str(path)) as f:
        return np.frombuffer(f.readframes(f.getnframes()), "<i2").astype(np.float32) / 32768


def generate(args, folder, prompts, adapter=None):
    """Waveforms of the prompts, prompt i with seed 1000 + i, and the figures that the program gives."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(i):
        path = folder / f"{i:03}.wav"
        command = [args.aulos, "generate", prompts[i], "--model", f"{args.model}/", "--seed", str(1000 + i), "--duration", str(args.seconds), "--threads", "1",
                   "--guidance", str(args.guidance), "--top-k", str(args.top_k), "-o", path, "--force", "--json", "--quiet"]
        if adapter:
            command += ["--adapter", adapter]
        return path, json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    with ThreadPoolExecutor(args.workers) as pool:
        done = list(pool.map(one, range(len(prompts))))
    return [read_wave(path) for path, _ in done], [said["samples"][0]["loudness_lufs"] for _, said in done]


def share(values):
    values = list(values)
    return round(float(np.mean(values)), 3) if values else None


def judge(net, waves, labels, captions):
    """Adherence to the labels, and to those of other prompts; defects; level."""
    n = len(waves)
    guesses = measures.classify(net, waves).argmax(1)
    tempi = [measures.tempo(x) for x in waves]
    modes = [measures.key_and_mode(x)[1] for x in waves]
    named = [i for i in range(n) if any(c.isdigit() for c in captions[i])]
    voiced = [i for i in range(n) if labels[i]["texture"] != "melody" and ("major" in captions[i] or "minor" in captions[i])]
    other = np.roll(np.arange(n), 7)
    bad = [measures.defects(x) for x in waves]
    by_name = {}
    for name in NAMES:
        mine = [i for i in range(n) if labels[i]["instrument"] == name]
        by_name[name] = f"{sum(NAMES[guesses[i]] == name for i in mine)}/{len(mine)}"
    return {
        "clips": n,
        "instrument": share(NAMES[guesses[i]] == labels[i]["instrument"] for i in range(n)),
        "instrument_shuffled": share(NAMES[guesses[i]] == labels[other[i]]["instrument"] for i in range(n)),
        "tempo": share(measures.same_tempo(tempi[i], labels[i]["bpm"]) for i in named),
        "tempo_shuffled": share(measures.same_tempo(tempi[i], labels[other[i]]["bpm"]) for i in named),
        "tempo_prompts": len(named),
        "mode": share(modes[i] == labels[i]["mode"] for i in voiced),
        "mode_prompts": len(voiced),
        "by_instrument": by_name,
        "defects": {kind: sum(kind in b for b in bad) for kind in ("silent", "drop-out", "stuck", "clipped")},
        "defective": share(bool(b) for b in bad),
        "level_db": round(float(np.mean([measures.level_db(x) for x in waves])), 1),
        "dc": round(float(max(abs(x.mean()) for x in waves)), 4),
        "centroid_hz": round(float(np.median([measures.centroid(x) for x in waves]))),
    }


def codec_part(args, net, held):
    machine = Codec(args.codec or args.model)
    waves = [x for x, _, _ in held]
    made = [machine.round_trip(x) for x in waves]
    figures = judge(net, made, [labels for _, labels, _ in held], [text for _, _, text in held])
    figures["log_mel_distance"] = round(float(np.mean([log_mel_distance(x[: len(y)], y, RATE) for x, y in zip(waves, made)])), 2)
    figures["si_sdr"] = round(float(np.mean([float(losses.si_sdr(torch.from_numpy(y), torch.from_numpy(x[: len(y)]))) for x, y in zip(waves, made)])), 2)
    rows = [pair for i in range(10) for pair in ((f"real: {held[i][2]}", waves[i]), ("codec", made[i]))]
    picture(args.out / "codec.png", rows, RATE, height=100)
    return figures


def adapter_part(args, net, held, base_waves, name, folder):
    """Pairs at the same prompts and seeds."""
    labels, captions = [row[1] for row in held], [row[2] for row in held]
    waves, _ = generate(args, args.out / name, captions, folder)
    figures = judge(net, waves, labels, captions)
    figures["brighter"] = share(measures.centroid(b) > measures.centroid(a) for a, b in zip(base_waves, waves))
    if name in STYLES:
        style_net, held_out = style_classifier(STYLES[name], args.codec or args.model)
        a, b = (measures.classify(style_net, w)[:, 1] for w in (base_waves, waves))
        real = measures.classify(style_net, [x for x, _, _ in renders(STYLE + 500, 40, 5, STYLES[name])])[:, 1]
        figures |= {"style_higher": share(b > a), "called_style": share(b > 0.5), "base_called_style": share(a > 0.5),
                    "style_classifier_held_out": held_out, "real_style_renders_called_style": share(real > 0.5)}
    return figures


def parity_part(args, captions):
    """Greedy codes of the program's engine against transformers' decoder on the same tokens, without guidance, on four prompts."""
    model, tokenizer = musicgen.load(args.model)
    worst, same, samples = 0.0, 0, 0.0
    for text in captions[:4]:
        folder = args.out / "parity"
        subprocess.run([args.aulos, "generate", text, "--model", f"{args.model}/", "--greedy", "--guidance", "1", "--duration", "2", "--threads", "1",
                        "--trace", folder, "-o", args.out / "parity.wav", "--force", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        codes = torch.from_numpy(np.load(folder / "codes.npy").astype(np.int64)).reshape(1, musicgen.CODEBOOKS, -1)
        ours = torch.from_numpy(np.load(folder / "logits.npy")).reshape(-1, musicgen.CODEBOOKS, model.config.decoder.vocab_size)
        with torch.inference_mode():
            tokens = tokenizer([text], return_tensors="pt")
            columns = musicgen.delayed(codes, model.config.decoder.pad_token_id)[0]
            states = musicgen.text_states(model, tokens)
            theirs = model.decoder(input_ids=columns[:, :-1], encoder_hidden_states=states, encoder_attention_mask=tokens["attention_mask"], use_cache=False).logits
            audio = model.audio_encoder.decode(codes[None], [None])[0][0, 0].numpy()
        theirs = theirs.transpose(0, 1)[: len(ours)]
        free = (columns[:, 1:] != model.config.decoder.pad_token_id).T[: len(ours)]
        worst = max(worst, float((ours - theirs)[free].abs().max()))
        same += int(torch.equal(theirs.argmax(-1)[free], columns[:, 1:].T[: len(ours)][free]))
        samples = max(samples, float(np.abs(np.load(folder / "audio.npy").ravel() - audio).max()))
    return {"largest_difference_of_logits": worst, "prompts_with_the_same_codes": f"{same}/4", "largest_difference_of_samples": samples}


def table(report):
    columns = [("instrument", "instrument"), ("shuffled", "instrument_shuffled"), ("tempo", "tempo"), ("shuffled", "tempo_shuffled"), ("mode", "mode"),
               ("defective", "defective"), ("level dB", "level_db"), ("style higher", "style_higher")]
    lines = ["| clips | " + " | ".join(title for title, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in report.items():
        if isinstance(figures, dict) and "instrument" in figures:
            lines.append(f"| {name} | " + " | ".join("" if figures.get(key) is None else str(figures[key]) for _, key in columns) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=lambda p: str(Path(p).resolve()))
    parser.add_argument("out", type=Path)
    parser.add_argument("--aulos", default="aulos", help="the program (%(default)s)")
    parser.add_argument("--codec", help="another codec than the model's, for --parts codec")
    parser.add_argument("--adapters", help="a folder of adapters (MODEL/adapters)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--classifiers", type=Path, help="where the trained classifiers are kept (OUT/../classifiers)")
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--guidance", type=float, default=3)
    parser.add_argument("--top-k", type=int, default=250)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    args.classifiers = args.classifiers or args.out.resolve().parent / "classifiers"
    net = instrument_classifier(args.classifiers)
    held = renders(PROMPTS, args.clips, args.seconds)
    labels, captions = [row[1] for row in held], [row[2] for row in held]
    report = {"model": Path(args.model).name, "seconds": args.seconds, "guidance": args.guidance, "top_k": args.top_k}

    def note(name, figures):
        report[name] = figures
        print(name, json.dumps(figures), flush=True)
        (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")

    if "real" in args.parts:
        note("real", judge(net, [x for x, _, _ in held], labels, captions))
    if "codec" in args.parts:
        note("codec", codec_part(args, net, held))
    if "prompt" in args.parts or "adapters" in args.parts:
        waves, loudness = generate(args, args.out / "base", captions)
        note("generated", {**judge(net, waves, labels, captions), "lufs": round(float(np.median(loudness)), 1)})
        picture(args.out / "generated.png", list(zip(captions, waves))[:30], RATE, height=100)
    if "parity" in args.parts:
        note("parity", parity_part(args, captions))
    if "adapters" in args.parts:
        folder = Path(args.adapters or Path(args.model) / "adapters")
        for path in sorted(p for p in folder.iterdir() if (p / "adapter_config.json").exists()):
            note(path.name, adapter_part(args, net, held, waves, path.name, str(path)))
    print(table(report))


if __name__ == "__main__":
    main()
