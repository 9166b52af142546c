# SPDX-License-Identifier: MIT
"""A language model goes on under another codec, or with another vocabulary: its layers are kept, and each code of the new codec begins
as the mean of the old codes that stand at the same frames of the same audio."""

import numpy as np
import torch

from aulos_train import codec
from aulos_train.quantizer import Quantizer
from aulos_train.weights import codec_weights, model_weights


@torch.inference_mode()
def codes_of(source, waves):
    """Codes [N, K, F] of waves under the codec of `source`."""
    model = codec.build()
    model.load_state_dict(codec_weights(source))
    codec.fold_weight_norm(model.eval().encoder)
    quantizer = Quantizer(model)
    return torch.cat([quantizer(model.encoder(torch.from_numpy(x)[None, None]))[2] for x in waves])


def mixture(new, old, size):
    """[size, size]: row c says which old codes stood where the new code c stands; and how often c was seen."""
    counts = np.zeros((size, size), np.float32)
    np.add.at(counts, (new.ravel(), old.ravel()), 1)
    seen = counts.sum(1)
    return torch.from_numpy(counts / np.maximum(seen, 1)[:, None]), torch.from_numpy(seen)


@torch.no_grad()
def carry(model, source, new_codes, waves, least=8):
    """Loads the layers of `source` into `model` and mixes its embeddings and heads. `new_codes` [N, K, F] are those of `waves` under the
    model's own codec. Codes seen less than `least` times keep the rows they have."""
    weights = model_weights(source)
    layers = {name: value for name, value in weights.items() if name.startswith(("decoder.model.decoder.layers.", "decoder.model.decoder.layer_norm."))}
    unexpected = model.load_state_dict(layers, strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"{source}: its layers are not of the shape wanted: {unexpected[0]}")
    old_codes = codes_of(source, waves).numpy()
    frames = min(old_codes.shape[2], new_codes.shape[2])
    pairs = zip(model.decoder.model.decoder.embed_tokens, model.decoder.lm_heads)
    for k, (embedding, head) in enumerate(pairs):
        rows, seen = mixture(new_codes[:, k, :frames].astype(np.int64), old_codes[:, k, :frames], head.weight.shape[0])
        known = seen >= least
        old_rows = weights[f"decoder.model.decoder.embed_tokens.{k}.weight"]
        embedding.weight[:-1][known] = (rows @ old_rows[:-1])[known]
        embedding.weight[-1] = old_rows[-1]
        head.weight[known] = (rows @ weights[f"decoder.lm_heads.{k}.weight"])[known]
