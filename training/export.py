#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a model folder in the MusicGen layout, float16, from a language model and a codec.

    python export.py LM CODEC OUT [--vocabulary VOCABULARY]

LM is a checkpoint of train_lm.py or a model folder; CODEC a checkpoint of train_codec.py or a model folder. The folder is loaded again
with transformers, and what rounding to float16 changes in the logits is printed.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer

from aulos_train import codec, musicgen
from aulos_train.weights import codec_weights, model_weights

TOKENIZER_FILES = ("spiece.model", "tokenizer.json", "tokenizer_config.json")
PROMPT = ["a slow calm piano melody, 75 bpm"]


def assemble(lm, codec_source, vocabulary):
    """The model in float32; its sizes are read from the weights."""
    weights = model_weights(lm)
    layers = 1 + max(int(n.split(".layers.")[1].split(".")[0]) for n in weights if n.startswith("decoder.model.decoder.layers."))
    width = weights["decoder.lm_heads.0.weight"].shape[1]
    pieces = weights["text_encoder.shared.weight"].shape[0]
    model = musicgen.build(pieces, width, layers, width // 64)
    missing, unexpected = model.load_state_dict({n: v for n, v in weights.items() if not n.startswith("audio_encoder")}, strict=False)
    wrong = [n for n in missing if not n.startswith("audio_encoder") and "embed_positions" not in n] + unexpected
    if wrong:
        raise SystemExit(f"{lm}: weights that do not fit: {', '.join(wrong[:5])}")
    model.audio_encoder.load_state_dict(codec_weights(codec_source))
    for layer in model.audio_encoder.quantizer.layers:  # of use in training only; small numbers pack well
        layer.codebook.embed_avg.copy_(layer.codebook.embed)
        layer.codebook.cluster_size.fill_(1)
    return model.eval(), AutoTokenizer.from_pretrained(vocabulary)


@torch.no_grad()
def logits(model, tokenizer):
    columns = torch.full((musicgen.CODEBOOKS, 4), model.config.decoder.pad_token_id)
    columns[:, 1:] = 5
    return model(**tokenizer(PROMPT, return_tensors="pt"), decoder_input_ids=columns).logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lm")
    parser.add_argument("codec")
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", help="of a checkpoint; a folder has its own")
    parser.add_argument("--frames", type=int, default=500, help="length trained; the default of generation")
    args = parser.parse_args()
    if not args.vocabulary and not Path(args.lm).is_dir():
        parser.error("a checkpoint needs --vocabulary")
    vocabulary = Path(args.vocabulary or args.lm)
    model, tokenizer = assemble(args.lm, args.codec, vocabulary)
    musicgen.finish_config(model, args.frames)
    exact = logits(model, tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(args.out)
    for name in TOKENIZER_FILES:
        if vocabulary != args.out:
            shutil.copy(vocabulary / name, args.out)
    features = {"chunk_length_s": None, "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "overlap": None, "padding_side": "left",
                "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": codec.config().sampling_rate}
    (args.out / "preprocessor_config.json").write_text(json.dumps(features, indent=1) + "\n")
    digest = hashlib.sha256((args.out / "model.safetensors").read_bytes()).hexdigest()
    (args.out / "SHA256SUMS").write_text(f"{digest}  model.safetensors\n")
    again, tokenizer = musicgen.load(args.out)
    change = float((logits(again.eval(), tokenizer) - exact).abs().max())
    size = sum(f.stat().st_size for f in args.out.iterdir() if f.is_file())
    print(f"{args.out}: {sum(p.numel() for p in again.parameters()) / 1e6:.1f} million values, {size / 1e6:.1f} MB; float16 changes the logits by {change:.1e} at most")


if __name__ == "__main__":
    main()
