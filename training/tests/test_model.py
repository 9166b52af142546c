# SPDX-License-Identifier: MIT
import functools

import numpy as np
import pytest
import torch
from transformers import EncodecModel
from transformers.models.encodec import modeling_encodec

THEIR_FORWARD = modeling_encodec.EncodecConv1d.forward  # before codec.build() puts its own there

from aulos_train import carry, codec, losses, musicgen  # noqa: E402
from aulos_train.quantizer import Quantizer


@pytest.fixture(scope="module")
def small():
    return musicgen.build(40, width=64, layers=1, heads=1, feed_forward=64, text_width=32, text_layers=1)


def test_delay_is_that_of_transformers(small):
    codes = torch.randint(0, 1024, (2, 4, 20))
    columns = musicgen.delayed(codes, 1024)
    _, mask = small.decoder.build_delay_pattern_mask(torch.full((8, 1), 1024), 1024, max_length=24)
    assert torch.equal(mask.view(2, 4, -1) == 1024, columns == 1024)
    assert torch.equal(torch.stack([columns[:, k, 1 + k:21 + k] for k in range(4)], 1), codes)


def test_the_loss_knows_text_from_none(small):
    tokens = {"input_ids": torch.tensor([[3, 4, 1], [5, 1, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    codes = torch.randint(0, 1024, (2, 4, 12))
    with torch.no_grad():
        with_text = musicgen.loss_by_codebook(small, tokens, codes)
        without = musicgen.loss_by_codebook(small, tokens, codes, torch.tensor([True, True]))
        other = musicgen.loss_by_codebook(small, {**tokens, "input_ids": tokens["input_ids"] + 1}, codes, torch.tensor([True, True]))
    assert with_text.shape == (4,) and not torch.equal(with_text, without)
    assert torch.allclose(without, other), "without text the prompt must not matter"


def test_padding_of_whole_frames_is_transformers_own():
    model = codec.build().eval()
    x = torch.randn(1, 1, 480 * 12)
    with torch.no_grad():
        ours = model.encoder(x)
        again = EncodecModel(model.config).eval()
        again.load_state_dict(model.state_dict())
        for layer in again.encoder.modules():
            if isinstance(layer, modeling_encodec.EncodecConv1d):
                layer.forward = functools.partial(THEIR_FORWARD, layer)
        assert torch.allclose(ours, again.encoder(x), atol=1e-5)


def test_scale_to_data_gives_every_layer_a_signal():
    model = codec.build()
    x = 0.07 * torch.randn(2, 1, 480 * 20)
    codec.scale_to_data(model, x)
    with torch.no_grad():
        z = model.encoder(x)
        y = model.decoder(z)
    assert 0.5 < z.std() < 2
    assert 0.03 < y.std() < 0.15


def test_quantizer_learns_and_uses_its_codes():
    torch.manual_seed(0)
    model = codec.build(codec.config(codes=32, hidden=16))
    quantizer = Quantizer(model, dead=0.05)
    z = torch.randn(4, 16, 100)
    quantizer.start(z.transpose(1, 2).reshape(-1, 16))
    errors = []
    for _ in range(30):
        q, commitment, codes, _ = quantizer(z, learn=True)
        errors.append(float(commitment))
    assert errors[-1] < errors[0]
    assert codes.shape == (4, 4, 100) and len(torch.unique(codes[:, 0])) > 20
    assert float(((q - z) ** 2).mean()) < float((z**2).mean()) / 2


def test_losses_are_zero_at_the_target_and_grow():
    spectral = losses.SpectralLoss(24000)
    x = 0.1 * torch.randn(2, 9600)
    assert float(spectral(x, x)) < 1e-6 < float(spectral(0.5 * x, x)) < float(spectral(0 * x, x))
    assert float(losses.wave_loss(0 * x, x)) == pytest.approx(1.0, abs=1e-3)
    assert losses.si_sdr(x + 0.1 * torch.randn_like(x) * x.std(), x).mean() == pytest.approx(20, abs=1)


def test_adversary_trains_against_the_decoder():
    torch.manual_seed(0)
    adversary = losses.Discriminator()
    x, y = 0.1 * torch.randn(2, 9600), (0.1 * torch.randn(2, 9600)).requires_grad_()
    real, made = adversary(x), adversary(y)
    fooled, features = losses.generator_losses(real, made)
    (fooled + features).backward()
    assert np.isfinite(float(losses.discriminator_loss(real, made).detach()))
    assert y.grad.abs().sum() > 0


def test_carry_mixes_what_stood_at_the_same_frames(small, tmp_path, monkeypatch):
    """With the old codes renumbered, the new rows are the old ones, renumbered."""
    torch.manual_seed(0)
    torch.save({"model": small.state_dict()}, tmp_path / "old.pt")
    old = torch.randint(0, 1024, (40, 4, 400))
    order = torch.stack([torch.randperm(1024) for _ in range(4)])
    new = torch.stack([order[k][old[:, k]] for k in range(4)], 1).numpy()
    monkeypatch.setattr(carry, "codes_of", lambda source, waves: old)
    other = musicgen.build(40, width=64, layers=1, heads=1, feed_forward=64, text_width=32, text_layers=1)
    before = other.decoder.lm_heads[0].weight.clone()
    carry.carry(other, tmp_path / "old.pt", new, waves=None, least=5)
    for k in range(4):
        known = torch.bincount(torch.from_numpy(new[:, k]).flatten(), minlength=1024) >= 5
        assert known.sum() > 900
        rows = other.decoder.lm_heads[k].weight[order[k]]
        assert torch.allclose(rows[known[order[k]]], small.decoder.lm_heads[k].weight[known[order[k]]], atol=1e-6)
    unknown = torch.bincount(torch.from_numpy(new[:, 0]).flatten(), minlength=1024) < 5
    assert torch.equal(other.decoder.lm_heads[0].weight[unknown], before[unknown])
    name = "decoder.model.decoder.layers.0.fc1.weight"
    assert torch.equal(other.state_dict()[name], small.state_dict()[name])
