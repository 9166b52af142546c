#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a checkpoint of random weights in the real shapes of MusicGen, for speed and memory tests.

    python make_big.py small --out DIR                     2.4 to 13.9 GB in fp32, see SIZES
    python make_big.py stereo-medium --dtype f16 --out DIR
    python make_big.py large --dtype f16 --shard-gb 5 --out DIR

Needs numpy only. Tensors are made and written piece by piece, so memory stays near 100 MB whatever the model. Names,
shapes, configs and files are those of the repositories on the Hub (weight_g/weight_v, embed_positions, the real T5
vocabulary as spiece.model); the weights have scales that keep activations finite and lively, so greedy and sampled decoding, attention
and the codec all work on ordinary numbers. The sound is noise.
"""

import argparse
import json
import math
import os
import shutil
import struct

import numpy as np

T5 = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "fixtures", "checkpoints",
                  "mono-f16-t5vocab", "spiece.model")

SIZES = {                   # hidden, layers, heads, codebooks, channels, published dtype
    "small": (1024, 24, 16, 4, 1, "f32"), "medium": (1536, 48, 24, 4, 1, "f32"), "large": (2048, 48, 32, 4, 1, "f32"),
    "stereo-small": (1024, 24, 16, 8, 2, "f16"), "stereo-medium": (1536, 48, 24, 8, 2, "f16"),
    "stereo-large": (2048, 48, 32, 8, 2, "f16"),
}
DTYPES = {"f32": ("F32", 4), "f16": ("F16", 2), "bf16": ("BF16", 2)}
TORCH = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
VOCAB, TEXT_ROWS, TEXT_DIM, TEXT_FF, TEXT_LAYERS, TEXT_HEADS = 2048, 32128, 768, 3072, 12, 12
RATIOS, FILTERS, CODE_DIM = [8, 5, 4, 4], 64, 128
PIECE = 1 << 22             # elements made at a time


def plan(hidden, layers, books):
    """(name, shape, kind, scale) of every tensor; kind is normal, ones (a gain near one), const or positions."""
    out = []

    def add(name, shape, scale, kind="normal"):
        out.append((name, tuple(shape), kind, scale))

    d, t = hidden, "text_encoder."
    add(t + "shared.weight", (TEXT_ROWS, TEXT_DIM), 1.0)
    for i in range(TEXT_LAYERS):
        b = f"{t}encoder.block.{i}.layer."
        for n in "qkvo":
            add(f"{b}0.SelfAttention.{n}.weight", (TEXT_DIM, TEXT_DIM),
                1.2 * (TEXT_DIM * 64) ** -0.5 if n == "q" else TEXT_DIM ** -0.5)
        if i == 0:
            add(f"{b}0.SelfAttention.relative_attention_bias.weight", (32, TEXT_HEADS), 1.0)
        add(f"{b}0.layer_norm.weight", (TEXT_DIM,), 0.1, "ones")
        add(f"{b}1.DenseReluDense.wi.weight", (TEXT_FF, TEXT_DIM), TEXT_DIM ** -0.5)
        add(f"{b}1.DenseReluDense.wo.weight", (TEXT_DIM, TEXT_FF), TEXT_FF ** -0.5)
        add(f"{b}1.layer_norm.weight", (TEXT_DIM,), 0.1, "ones")
    add(t + "encoder.final_layer_norm.weight", (TEXT_DIM,), 0.1, "ones")
    if d != TEXT_DIM:
        add("enc_to_dec_proj.weight", (d, TEXT_DIM), TEXT_DIM ** -0.5)
        add("enc_to_dec_proj.bias", (d,), 0.1)

    m = "decoder.model.decoder."
    for k in range(books):
        add(f"{m}embed_tokens.{k}.weight", (VOCAB + 1, d), 2.5 * books ** -0.5)
    add(m + "embed_positions.weights", (2048, d), 0, "positions")
    for i in range(layers):
        b = f"{m}layers.{i}."
        for part, sharp, out_scale in (("self_attn", 1.6, 0.5), ("encoder_attn", 2.0, 0.2)):
            for n in "qkv":
                add(f"{b}{part}.{n}_proj.weight", (d, d), (1.0 if n == "v" else sharp) * d ** -0.5)
            add(f"{b}{part}.out_proj.weight", (d, d), out_scale * d ** -0.5)
            add(f"{b}{part}_layer_norm.weight", (d,), 0.1, "ones")
            add(f"{b}{part}_layer_norm.bias", (d,), 0.1)
        add(f"{b}fc1.weight", (4 * d, d), d ** -0.5)
        add(f"{b}fc2.weight", (d, 4 * d), 0.5 * (4 * d) ** -0.5)
        add(f"{b}final_layer_norm.weight", (d,), 0.1, "ones")
        add(f"{b}final_layer_norm.bias", (d,), 0.1)
    add(m + "layer_norm.weight", (d,), 0.1, "ones")
    add(m + "layer_norm.bias", (d,), 0.1)
    for k in range(books):
        add(f"decoder.lm_heads.{k}.weight", (VOCAB, d), 2.0 * d ** -0.5)

    def conv(name, shape, gain, bias):
        add(name + ".conv.weight_g", (shape[0], 1, 1), gain, "const")
        add(name + ".conv.weight_v", shape, 0.3)
        add(name + ".conv.bias", (bias,), 0.05)

    def block(name, c):
        conv(name + ".block.1", (c // 2, c, 3), 0.7, c // 2)
        conv(name + ".block.3", (c, c // 2, 1), 0.7, c)

    def lstm(name, c):
        for i in range(2):
            for part in ("ih", "hh"):
                add(f"{name}.lstm.weight_{part}_l{i}", (4 * c, c), c ** -0.5)
                add(f"{name}.lstm.bias_{part}_l{i}", (4 * c,), 0.1)

    top = FILTERS << len(RATIOS)
    e = "audio_encoder.encoder.layers."
    conv(e + "0", (FILTERS, 1, 7), 1.0, FILTERS)
    c, n = FILTERS, 1
    for r in reversed(RATIOS):
        block(f"{e}{n}", c)
        conv(f"{e}{n + 2}", (2 * c, c, 2 * r), 1.0, 2 * c)
        c, n = 2 * c, n + 3
    lstm(f"{e}{n}", c)
    conv(f"{e}{n + 2}", (CODE_DIM, c, 7), 1.0, CODE_DIM)
    e = "audio_encoder.decoder.layers."
    conv(e + "0", (top, CODE_DIM, 7), 1.0, top)
    lstm(e + "1", top)
    c, n = top, 3
    for r in RATIOS:
        conv(f"{e}{n}", (c, c // 2, 2 * r), (r / 2) ** 0.5, c // 2)
        block(f"{e}{n + 1}", c // 2)
        c, n = c // 2, n + 3
    conv(f"{e}{n}", (1, FILTERS, 7), 0.15, 1)
    for q in range(4):
        b = f"audio_encoder.quantizer.layers.{q}.codebook."
        add(b + "cluster_size", (VOCAB,), 1.0, "const")
        add(b + "embed", (VOCAB, CODE_DIM), 0.7 ** q)
        add(b + "embed_avg", (VOCAB, CODE_DIM), 0.7 ** q)
        add(b + "inited", (1,), 1.0, "const")
    return out


def values(shape, kind, scale, rng):
    """Yields the elements of one tensor as float32 pieces."""
    total = int(np.prod(shape))
    if kind == "positions":
        rows, d = shape
        half = d // 2
        w = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1)))
        for at in range(0, rows, 256):
            x = np.arange(at, min(rows, at + 256), dtype=np.float32)[:, None] * w[None, :]
            yield np.concatenate([np.cos(x), np.sin(x)], axis=1).astype(np.float32).ravel()
        return
    for at in range(0, total, PIECE):
        n = min(PIECE, total - at)
        if kind == "const":
            yield np.full(n, scale, dtype=np.float32)
        else:
            x = rng.standard_normal(n, dtype=np.float32)
            x *= np.float32(scale)
            if kind == "ones":
                x += np.float32(1)
            yield x


def pack(x, dtype):
    if dtype == "f32":
        return x.astype("<f4").tobytes()
    if dtype == "f16":
        return x.astype("<f2").tobytes()
    u = x.view(np.uint32)                                       # bfloat16, to nearest even
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2").tobytes()


def write_file(path, tensors, dtype, rng):
    code, width = DTYPES[dtype]
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _, _ in tensors:
        size = int(np.prod(shape)) * width
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, shape, kind, scale in tensors:
            for piece in values(shape, kind, scale, rng):
                f.write(pack(piece, dtype))
    return at


def configs(size, dtype):
    d, layers, heads, books, channels, _ = SIZES[size]
    text = dict(model_type="t5", _name_or_path="t5-base", architectures=["T5ForConditionalGeneration"], d_model=TEXT_DIM,
                d_ff=TEXT_FF, d_kv=64, num_layers=TEXT_LAYERS, num_decoder_layers=12, num_heads=TEXT_HEADS,
                vocab_size=TEXT_ROWS, feed_forward_proj="relu", dense_act_fn="relu", is_gated_act=False,
                layer_norm_epsilon=1e-6, relative_attention_num_buckets=32, relative_attention_max_distance=128,
                dropout_rate=0.1, pad_token_id=0, eos_token_id=1, is_encoder_decoder=True, use_cache=True,
                tie_word_embeddings=True, max_length=20, num_beams=1)
    audio = dict(model_type="encodec", sampling_rate=32000, audio_channels=1, codebook_size=VOCAB, codebook_dim=CODE_DIM,
                 hidden_size=CODE_DIM, num_filters=FILTERS, upsampling_ratios=RATIOS, kernel_size=7, last_kernel_size=7,
                 residual_kernel_size=3, dilation_growth_rate=2, num_residual_layers=1, compress=2, num_lstm_layers=2,
                 use_causal_conv=False, use_conv_shortcut=False, pad_mode="reflect", norm_type="weight_norm",
                 trim_right_ratio=1.0, normalize=False, chunk_length_s=None, overlap=None, target_bandwidths=[2.2],
                 max_length=20, num_beams=1)
    decoder = dict(model_type="musicgen_decoder", hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads,
                   ffn_dim=4 * d, num_codebooks=books, audio_channels=channels, vocab_size=VOCAB,
                   max_position_embeddings=2048, activation_function="gelu", scale_embedding=False,
                   tie_word_embeddings=False, cross_attention_hidden_size=None, layerdrop=0.0, dropout=0.1,
                   attention_dropout=0.0, activation_dropout=0.0, initializer_factor=0.02, pad_token_id=VOCAB,
                   bos_token_id=VOCAB, eos_token_id=None, max_length=20, num_beams=1)
    config = dict(architectures=["MusicgenForConditionalGeneration"], model_type="musicgen", is_encoder_decoder=True,
                  text_encoder=text, audio_encoder=audio, decoder=decoder, torch_dtype=TORCH[dtype])
    generation = dict(bos_token_id=VOCAB, decoder_start_token_id=VOCAB, pad_token_id=VOCAB, do_sample=True,
                      guidance_scale=3.0, max_length=1500)
    feature = dict(feature_extractor_type="EncodecFeatureExtractor", feature_size=channels, sampling_rate=32000,
                   padding_side="left", padding_value=0.0, return_attention_mask=True, chunk_length_s=None, overlap=None)
    token = dict(tokenizer_class="T5Tokenizer", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", extra_ids=100,
                 model_max_length=512, additional_special_tokens=[f"<extra_id_{i}>" for i in range(100)])
    return {"config.json": config, "generation_config.json": generation, "preprocessor_config.json": feature,
            "tokenizer_config.json": token}


def main():
    parser = argparse.ArgumentParser(description="writes a random MusicGen checkpoint of real size")
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="default: what the Hub has (fp32 mono, fp16 stereo)")
    parser.add_argument("--shard-gb", type=float, default=0, help="start a new file at this size (0: one file)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    d, layers, _, books, _, published = SIZES[args.size]
    dtype = args.dtype or published
    os.makedirs(args.out, exist_ok=True)
    for name, data in configs(args.size, dtype).items():
        with open(os.path.join(args.out, name), "w") as f:
            json.dump(data, f, indent=2)
    shutil.copyfile(T5, os.path.join(args.out, "spiece.model"))
    tensors = plan(d, layers, books)
    width = DTYPES[dtype][1]
    files, part, size = [], [], 0
    for t in tensors:
        n = int(np.prod(t[1])) * width
        if args.shard_gb and part and size + n > args.shard_gb * 1e9:
            files.append(part)
            part, size = [], 0
        part.append(t)
        size += n
    files.append(part)
    rng = np.random.default_rng(args.seed)
    total, where = 0, {}
    for i, part in enumerate(files):
        name = "model.safetensors" if len(files) == 1 else f"model-{i + 1:05d}-of-{len(files):05d}.safetensors"
        total += write_file(os.path.join(args.out, name), part, dtype, rng)
        where.update({t[0]: name for t in part})
    if len(files) > 1:
        with open(os.path.join(args.out, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}, f, indent=2)
    print(f"musicgen-{args.size}: {total // width:,} elements, {total:,} bytes, {len(files)} file(s), seed {args.seed}")


if __name__ == "__main__":
    main()
