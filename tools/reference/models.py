# SPDX-License-Identifier: MIT
"""Checkpoints: configs, random weights at lively scales, and the ways a checkpoint is written."""

import json
import math
import os
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from specs import SEED
from text import write_tokenizer

def make_config(spec, rows):
    from transformers import EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, T5Config
    text = T5Config(vocab_size=rows, **(dict(feed_forward_proj="relu", dropout_rate=0.1, is_encoder_decoder=False,
                                             use_cache=False) | spec.text))
    hop = int(np.prod(spec.audio["upsampling_ratios"]))
    rate = math.ceil(spec.audio["sampling_rate"] / hop)
    bits = int(math.log2(spec.vocab))
    channel_books = spec.decoder["num_codebooks"] // spec.decoder["audio_channels"]
    bandwidth = channel_books * rate * bits / 1000
    while int(1000 * bandwidth // (rate * bits)) < channel_books:
        bandwidth = float(np.nextafter(bandwidth, 1e9))
    audio = EncodecConfig(**(dict(
        target_bandwidths=[bandwidth], audio_channels=1, codebook_size=spec.vocab, codebook_dim=spec.audio["hidden_size"],
        normalize=False, chunk_length_s=None, overlap=None, use_causal_conv=False, use_conv_shortcut=False,
        num_lstm_layers=2, num_residual_layers=1, pad_mode="reflect", norm_type="weight_norm", kernel_size=7,
        last_kernel_size=7, residual_kernel_size=3, dilation_growth_rate=2, compress=2, trim_right_ratio=1.0) | spec.audio))
    decoder = MusicgenDecoderConfig(**(dict(
        vocab_size=spec.vocab, max_position_embeddings=spec.max_positions, activation_function="gelu",
        scale_embedding=False, pad_token_id=spec.vocab, bos_token_id=spec.vocab, eos_token_id=None,
        tie_word_embeddings=False) | spec.decoder))
    config = MusicgenConfig(text_encoder=text, audio_encoder=audio, decoder=decoder)
    assert audio.num_quantizers == channel_books, (audio.num_quantizers, channel_books)
    return config


def fill(model, seed, tail):
    """Random weights at scales that keep every stage lively and greedy sequences from collapsing: token embeddings that
    outweigh what is constant in time, attention peaked enough to pick single columns and words, cross-attention that
    matters but does not drown the rest (a constant shift of the logits is what makes greedy decoding repeat itself, and
    guidance triples it), heads whose rows have log-normal lengths, weight-norm lengths that differ from the norms of v,
    LSTM gates off their middle, audio with a std near 0.1 and its peak below 1."""
    g = torch.Generator().manual_seed(seed)

    def normal(p, std, mean=0.0):
        p.copy_(torch.randn(p.shape, generator=g) * std + mean)

    books = model.decoder.num_codebooks
    last = len(model.audio_encoder.decoder.layers) - 1
    with torch.no_grad():
        for name, p in sorted(list(model.named_parameters()) + list(model.named_buffers())):
            d = p.shape[-1] if p.dim() else 1
            leaf = name.split(".")[-1]
            if name.endswith(("stride", "kernel_size", "padding_total")) or "embed_positions" in name:
                continue
            if name.startswith("text_encoder"):
                if "shared" in name or "embed_tokens" in name:
                    if "encoder.embed_tokens" not in name:
                        normal(p, 1.0)
                elif "layer_norm" in name:
                    normal(p, 0.2, 1.0)
                elif "relative_attention_bias" in name:
                    normal(p, 1.0)
                elif ".q." in name:
                    normal(p, 1.2 * (d * model.config.text_encoder.d_kv) ** -0.5)
                else:
                    normal(p, d ** -0.5)
            elif name.startswith("enc_to_dec_proj"):
                normal(p, d ** -0.5 if leaf == "weight" else 0.3)
            elif name.startswith("decoder"):
                if "embed_tokens" in name:
                    normal(p, 2.5 * books ** -0.5)
                elif "norm" in name:
                    normal(p, 0.15, 1.0 if leaf == "weight" else 0.0)
                elif "lm_heads" in name:
                    normal(p, 1.5 * d ** -0.5)
                    p.mul_(torch.exp(tail * torch.randn((p.shape[0], 1), generator=g)))
                elif "q_proj" in name or "k_proj" in name:
                    normal(p, (2.5 if "encoder_attn" in name else 2.0) * d ** -0.5)
                elif "encoder_attn.out_proj" in name:
                    normal(p, 0.6 * d ** -0.5)
                else:
                    normal(p, 1.3 * d ** -0.5)
            elif "lstm" in name:
                normal(p, 1.2 * d ** -0.5 if "weight" in name else 0.3)
            elif "quantizer" in name:
                if leaf == "embed":
                    normal(p, 0.7 ** int(name.split("layers.")[1].split(".")[0]))
                elif leaf == "embed_avg":
                    normal(p, 1.0)
                elif leaf == "cluster_size":
                    p.copy_(torch.rand(p.shape, generator=g) * 50)
            elif leaf == "original1":                                   # v of the weight norm: any length will do
                normal(p, 0.2 + 0.8 * float(torch.rand((), generator=g)))
            elif leaf == "original0":                                   # g of the weight norm
                module = model.get_submodule(name.split(".parametrizations")[0])
                gain = 1.1
                if isinstance(module, torch.nn.ConvTranspose1d):
                    gain = 1.1 * (module.stride[0] / 2) ** 0.5
                elif ".block." in name:
                    gain = 0.7
                if name.startswith(f"audio_encoder.decoder.layers.{last}."):
                    gain = 0.1
                p.copy_(gain * torch.exp(0.2 * torch.randn(p.shape, generator=g)))
            elif leaf == "bias":
                normal(p, 0.1)
            else:
                raise AssertionError(name)
        model.audio_encoder.decoder.layers[last].conv.bias.mul_(0.1)


PUBLISHED = [(".parametrizations.weight.original0", ".weight_g"), (".parametrizations.weight.original1", ".weight_v")]

# Fields of the configs on the Hub that have nothing to do with the model; a loader must not be led astray by them.
LEGACY = dict(max_length=20, min_length=0, do_sample=False, num_beams=1, temperature=1.0, top_k=50, top_p=1.0,
              num_return_sequences=1, repetition_penalty=1.0, length_penalty=1.0, no_repeat_ngram_size=0,
              output_attentions=False, output_hidden_states=False, pruned_heads={}, prefix=None, task_specific_params=None,
              tf_legacy_loss=False, torchscript=False, use_bfloat16=False)


def sinusoid(rows, d):
    half = d // 2
    w = torch.exp(torch.arange(half, dtype=torch.int64).float() * -(math.log(10000) / (half - 1)))
    x = torch.arange(rows, dtype=torch.int64).float().unsqueeze(1) * w.unsqueeze(0)
    return torch.cat([torch.cos(x), torch.sin(x), torch.zeros(rows, d % 2)], dim=1)


FOLDED = "%s.parametrizations.weight.original%d"


def fold(state):
    """Multiplies the weight norm out, as torch does it: one tensor conv.weight in the place of g and v."""
    out = dict(state)
    for name in state:
        if name.endswith(".parametrizations.weight.original0"):
            base = name.removesuffix(".parametrizations.weight.original0")
            g, v = out.pop(FOLDED % (base, 0)), out.pop(FOLDED % (base, 1))
            out[base + ".weight"] = torch._weight_norm(v, g, 0)
    return out


def load_model(directory, **options):
    """from_pretrained, which does not know the folded spelling: there v becomes the weight and g the norm of its rows."""
    from transformers import MusicgenForConditionalGeneration
    model = MusicgenForConditionalGeneration.from_pretrained(directory, **options).eval()
    file = os.path.join(directory, "model.safetensors")
    stored = load_file(file) if os.path.exists(file) else {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            base, _, leaf = name.partition(".parametrizations.weight.original")
            if leaf and base + ".weight" in stored:
                weight = stored[base + ".weight"].to(p.dtype)
                p.copy_(weight if leaf == "1" else torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True))
    return model


def make_checkpoint(spec, root, t5):
    from transformers import MusicgenForConditionalGeneration
    directory = os.path.join(root, "checkpoints", spec.name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    rows = write_tokenizer(spec, directory, t5)
    torch.manual_seed(SEED + spec.seed)
    model = MusicgenForConditionalGeneration(make_config(spec, rows)).eval()
    fill(model, SEED + spec.seed, spec.tail)
    dtype = getattr(torch, spec.dtype)
    model = model.to(dtype)
    generation = model.generation_config
    generation.bos_token_id = generation.pad_token_id = generation.decoder_start_token_id = spec.vocab
    generation.do_sample, generation.guidance_scale, generation.max_length = True, 3.0, 1500
    size = sum(p.numel() * p.element_size() for p in model.state_dict().values())
    if spec.layout == "resaved":
        model.save_pretrained(directory, max_shard_size=size // spec.shards + size // 20 if spec.shards > 1 else "5GB")
    else:
        model.config.save_pretrained(directory)
        generation.save_pretrained(directory)
        write_published(spec, model, directory)
    with open(os.path.join(directory, "preprocessor_config.json"), "w") as f:
        json.dump({"chunk_length_s": None, "feature_extractor_type": "EncodecFeatureExtractor",
                   "feature_size": spec.decoder["audio_channels"], "overlap": None, "padding_side": "left",
                   "padding_value": 0.0, "return_attention_mask": True,
                   "sampling_rate": spec.audio["sampling_rate"]}, f, indent=2)
    for name in ("generation_config.json",):
        path = os.path.join(directory, name)
        with open(path) as f:
            data = json.load(f)
        keep = {k: v for k, v in data.items() if k in
                ("bos_token_id", "pad_token_id", "decoder_start_token_id", "do_sample", "guidance_scale", "max_length",
                 "transformers_version")}
        with open(path, "w") as f:
            json.dump(keep, f, indent=2)
    for name in os.listdir(directory):
        os.chmod(os.path.join(directory, name), 0o644)
    again, wanted = load_model(directory, dtype=torch.float32).state_dict(), model.state_dict()
    if spec.layout == "folded":                             # g and v come back in another split; their product counts
        again, wanted = fold(again), fold(wanted)
    for name, value in wanted.items():                      # what is read back is what was meant, widened
        if spec.layout == "folded" and "conv.weight" in name:
            assert torch.allclose(again[name], value.float(), rtol=1e-6, atol=1e-7), name
        else:
            assert torch.equal(again[name], value.float()), name
    return directory


def write_published(spec, model, directory):
    state = {}
    folded = spec.layout == "folded"
    for name, value in (fold(model.state_dict()) if folded else model.state_dict()).items():
        for new, old in PUBLISHED:
            name = name.replace(new, old)
        if name == "text_encoder.encoder.embed_tokens.weight" and not spec.pickle:
            continue
        state[name] = value.clone().contiguous()
    if spec.position_rows:
        state["decoder.model.decoder.embed_positions.weights"] = sinusoid(
            spec.position_rows, spec.decoder["hidden_size"]).to(getattr(torch, spec.dtype))
    if folded:
        save_file(state, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
        return
    path = os.path.join(directory, "config.json")
    with open(path) as f:
        config = json.load(f)
    for part in (config, config["text_encoder"], config["audio_encoder"], config["decoder"]):
        for key, value in LEGACY.items():
            part.setdefault(key, value)
        if "dtype" in part:
            part["torch_dtype"] = part.pop("dtype")
    config["torch_dtype"] = spec.dtype
    config["text_encoder"]["_name_or_path"] = "t5-base"
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
    if spec.pickle:
        torch.save(state, os.path.join(directory, "pytorch_model.bin"))
    elif spec.shards == 1:
        save_file(state, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    else:
        names, groups, total = sorted(state), [], sum(v.numel() * v.element_size() for v in state.values())
        part, size = [], 0
        for name in names:
            part.append(name)
            size += state[name].numel() * state[name].element_size()
            if size > total / spec.shards and len(groups) < spec.shards - 1:
                groups.append(part)
                part, size = [], 0
        groups.append(part)
        where = {}
        for i, group in enumerate(groups):
            file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
            save_file({n: state[n] for n in group}, os.path.join(directory, file), metadata={"format": "pt"})
            where.update({n: file for n in group})
        with open(os.path.join(directory, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}, f, indent=2)
        # the stereo repositories also carry an index that names files that are not there; it must be ignored
        with open(os.path.join(directory, "model.safetensors.index.fp32.json"), "w") as f:
            json.dump({"metadata": {"total_size": 2 * total}, "weight_map":
                       {n: w.replace("model-", "model.fp32-") for n, w in sorted(where.items())}}, f, indent=2)
