# SPDX-License-Identifier: MIT
"""Weights from where they are: a checkpoint of a training, or an exported model folder (which has no optimiser state and needs none)."""

from pathlib import Path

import torch
from safetensors.torch import load_file

CODEC_PREFIX = "audio_encoder."


def model_weights(source):
    """All weights of a checkpoint of train_lm.py or of an exported folder, in float32."""
    source = Path(source)
    if source.is_dir():
        found = load_file(source / "model.safetensors")
    else:
        found = torch.load(source, map_location="cpu", weights_only=True)["model"]
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def codec_weights(source):
    """The codec's weights, as its own model names them."""
    found = model_weights(source)
    if any(name.startswith(CODEC_PREFIX) for name in found):
        found = {name.removeprefix(CODEC_PREFIX): value for name, value in found.items() if name.startswith(CODEC_PREFIX)}
    return found
