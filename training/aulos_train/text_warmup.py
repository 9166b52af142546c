# SPDX-License-Identifier: MIT
"""The text encoder learns to read captions before any sound is seen: every label is predicted from the mean of its outputs.

It costs about a minute, and the decoder finds usable text from its first step on."""

import torch
import torch.nn.functional as F
from torch import nn

from aulos_train import compose as c
from aulos_train.captions import caption

FIRST_SEED = 20_000_000
EIGHTHS = [n for band in c.EIGHTH_FRAMES.values() for n in band]
LABELS = {
    "instrument": c.NAMES, "band": c.BANDS, "eighth_frames": EIGHTHS, "mode": c.MODES, "key": list(c.KEYS), "texture": c.TEXTURES,
    "drums": [None, *c.DRUMS], "pad": [None, *c.PADS], "bass": [None, *c.BASSES], "dynamics": list(c.DYNAMICS), "space": c.SPACES, "register": c.REGISTERS,
}


def captions_of(first, n):
    scores = [c.compose(first + i, 0.1) for i in range(n)]
    return [caption(s.labels, first + i) for i, s in enumerate(scores)], [s.labels for s in scores]


def warm_up(model, tokenizer, steps, log, batch=64, rate=2e-3):
    encoder = model.text_encoder
    device = next(encoder.parameters()).device
    heads = nn.ModuleDict({name: nn.Linear(encoder.config.d_model, len(values)) for name, values in LABELS.items()}).to(device)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate)
    for step in range(steps):
        texts, labels = captions_of(FIRST_SEED + step * batch, batch)
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        mask = tokens["attention_mask"][..., None]
        mean = (encoder(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)
        loss, right = 0, {}
        for name, values in LABELS.items():
            wanted = torch.tensor([values.index(label[name]) for label in labels], device=device)
            guess = heads[name](mean)
            loss = loss + F.cross_entropy(guess, wanted)
            right[name] = round(float((guess.argmax(1) == wanted).float().mean()), 2)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - 0.9 * step / steps)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if (step + 1) % 100 == 0:
            log.write(text_step=step + 1, loss=round(float(loss), 3), right=right)
