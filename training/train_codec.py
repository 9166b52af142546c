#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains the codec. Phases: without quantizer, k-means, then with it; `--adversary` adds the discriminator, `--freeze-encoder` moves the
decoder alone, so that tokens made before stay valid.

    python train_codec.py DATA OUT --style-data LOFI CHIPTUNE --minutes 300 --processes 2
    python train_codec.py DATA OUT2 --from OUT/checkpoint.pt --adversary --freeze-encoder --learning-rate 3e-4 --minutes 120

The same command again goes on from OUT/checkpoint.pt. `--from` takes a checkpoint or an exported model folder.
"""

from pathlib import Path

import numpy as np
import torch

from aulos_train import codec, losses, trainer
from aulos_train.dataset import Dataset
from aulos_train.quantizer import Quantizer
from aulos_train.spectra import log_mel_distance
from aulos_train.weights import codec_weights

HELD_OUT = 64  # clips at the front of DATA
STYLE_SHARE = 0.1  # of the crops, for each style: what the codec never heard it cannot say


class Crops:
    """Random crops of the data and of the styles."""

    def __init__(self, args, length, seed):
        self.sets = [Dataset(folder) for folder in [args.data, *args.style_data]]
        self.length = length
        self.random = np.random.default_rng(seed)

    def draw(self, n):
        out = np.empty((n, self.length), np.float32)
        for row in range(n):
            place = int(self.random.random() / STYLE_SHARE) + 1
            chosen = self.sets[place if place < len(self.sets) else 0]
            clip = self.random.integers(HELD_OUT, chosen.clips)
            start = self.random.integers(0, chosen.audio.shape[1] - self.length + 1)
            out[row] = chosen.wave(clip, start, start + self.length)
        return torch.from_numpy(out)

    def held_out(self):
        return torch.from_numpy(np.stack([self.sets[0].wave(i, 0, 4 * self.sets[0].rate) for i in range(0, HELD_OUT, 2)]))


class Training:
    def __init__(self, args):
        self.args, self.device = args, args.device
        cfg = codec.config(filters=args.filters)
        self.model = codec.build(cfg).to(self.device).train()
        length = int(args.crop * cfg.sampling_rate) // codec.HOP * codec.HOP
        self.clock = trainer.Clock(args)
        self.checkpoint = trainer.Checkpoint(args.out, args)
        state = self.checkpoint.load()
        self.crops = Crops(args, length, args.seed + 1000 * trainer.rank() + (state["step"] if state else 0))
        vectors = trainer.world() * args.batch * (length // codec.HOP)
        self.quantizer = Quantizer(self.model, dead=0.1 * vectors / cfg.codebook_size)
        self.spectral = losses.SpectralLoss(cfg.sampling_rate, args.floor).to(self.device)
        self.judge = losses.SpectralLoss(cfg.sampling_rate).to(self.device)  # with a floor that never changes
        moved = [*self.model.decoder.parameters()] + ([] if args.freeze_encoder else [*self.model.encoder.parameters()])
        self.moved = moved
        self.optimiser = torch.optim.AdamW(moved, lr=args.learning_rate, betas=(0.8, 0.99), weight_decay=1e-3)
        self.adversary = losses.Discriminator().to(self.device) if args.adversary else None
        if self.adversary:
            self.adversary_optimiser = torch.optim.AdamW(self.adversary.parameters(), lr=5e-4, betas=(0.5, 0.9), weight_decay=1e-3)
        self.quantizing = False
        if state:
            self.resume(state)
        elif args.start_from:
            self.model.load_state_dict(codec_weights(args.start_from))
            self.quantizing = True
        else:
            codec.scale_to_data(self.model, self.crops.draw(8)[:, None].to(self.device))

    def resume(self, state):
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.quantizing = state["quantizing"]
        self.clock.resume(state)
        if self.adversary and state.get("adversary"):
            self.adversary.load_state_dict(state["adversary"])
            self.adversary_optimiser.load_state_dict(state["adversary_optimiser"])

    def state(self):
        out = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "quantizing": self.quantizing,
               "step": self.clock.step, "used": self.clock.used()}
        if self.adversary:
            out |= {"adversary": self.adversary.state_dict(), "adversary_optimiser": self.adversary_optimiser.state_dict()}
        return out

    def encode(self, x):
        with torch.set_grad_enabled(not self.args.freeze_encoder), trainer.autocast(self.args):
            return self.model.encoder(x[:, None]).float()

    def decode(self, q):
        with trainer.autocast(self.args):
            return self.model.decoder(q)[:, 0].float()

    def start_quantizer(self):
        with torch.no_grad():
            vectors = [self.encode(self.crops.draw(self.args.batch).to(self.device)).transpose(1, 2).flatten(0, 1) for _ in range(16)]
        self.quantizer.start(torch.cat(vectors))
        self.quantizing = True

    def adversarial(self, y, x):
        """One step of the discriminator; -> what the decoder should lower, and figures."""
        with trainer.autocast(self.args):
            real, made = self.adversary(x), self.adversary(y.detach())
        loss = losses.discriminator_loss(real, made)
        self.adversary_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        trainer.average_gradients([*self.adversary.parameters()])
        self.adversary_optimiser.step()
        self.adversary.requires_grad_(False)
        with trainer.autocast(self.args):
            made = self.adversary(y)
        self.adversary.requires_grad_(True)
        fooled, features = losses.generator_losses(real, made)
        rise = min(1.0, self.clock.step / 200)
        total = rise * (self.args.fool_weight * fooled + self.args.feature_weight * features)
        return total, {"adversary": loss.detach(), "fooled": fooled.detach(), "features": features.detach()}

    def step(self):
        args = self.args
        if not self.quantizing and self.clock.step >= args.plain_steps:
            self.start_quantizer()
        x = self.crops.draw(args.batch).to(self.device)
        z = self.encode(x)
        figures = {}
        if self.quantizing:
            q, commitment, _, restarts = self.quantizer(z, learn=not args.freeze_encoder)
            figures |= {"commitment": commitment.detach(), "restarts": restarts}
        else:
            q, commitment = z, 0.0
        y = self.decode(q)
        spectral, wave = self.spectral(y, x), losses.wave_loss(y, x)
        loss = spectral + args.wave_weight * wave
        if self.quantizing and not args.freeze_encoder:
            loss = loss + 0.25 * commitment
        if self.adversary:
            more, seen = self.adversarial(y, x)
            loss = loss + more
            figures |= seen
        for group in self.optimiser.param_groups:
            group["lr"] = self.clock.learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        trainer.average_gradients(self.moved)
        norm = torch.nn.utils.clip_grad_norm_(self.moved, 1.0)
        self.optimiser.step()
        self.clock.step += 1
        return {"spectral": spectral.detach(), "wave": wave.detach(), "gradient": norm, **figures}

    @torch.no_grad()
    def evaluate(self):
        """On held-out clips: log-mel distance and SI-SDR in dB, the spectral loss, how many codes are in use."""
        self.model.eval()
        rate = self.model.config.sampling_rate
        waves, made, codes = self.crops.held_out(), [], []
        for x in waves.split(4):
            z = self.model.encoder(x[:, None].to(self.device))
            if self.quantizing:
                z, _, c, _ = self.quantizer(z)
                codes.append(c.cpu())
            made.append(self.model.decoder(z)[:, 0].cpu())
        self.model.train()
        y = torch.cat(made)
        figures = {"log_mel_distance": round(float(np.mean([log_mel_distance(a, b, rate) for a, b in zip(waves.numpy(), y.numpy())])), 3),
                   "si_sdr": round(float(losses.si_sdr(y, waves).mean()), 2),
                   "spectral": round(float(self.judge(y.to(self.device), waves.to(self.device))), 4)}
        if codes:
            c = torch.cat(codes)
            figures["codes_used"] = [len(torch.unique(c[:, k])) for k in range(c.shape[1])]
        return figures


def train(args):
    run = Training(args)
    log = trainer.Log(args.out)
    log.write(begin=run.clock.step, parameters=sum(p.numel() for p in run.model.parameters()), options={k: str(v) for k, v in vars(args).items()})
    while run.clock.more():
        log.add(**run.step())
        step = run.clock.step
        if step % 50 == 0:
            log.report(step=step, used=round(run.clock.used()), rate=run.optimiser.param_groups[0]["lr"])
        if step % args.evaluate_every == 0 and trainer.rank() == 0:
            log.write(step=step, used=round(run.clock.used()), held_out=run.evaluate())
        run.checkpoint.save(run.state)
    if trainer.rank() == 0:
        log.write(step=run.clock.step, used=round(run.clock.used()), held_out=run.evaluate(), done=True)
    run.checkpoint.save(run.state, now=True)


def main():
    parser = trainer.parser(__doc__)
    parser.add_argument("data", type=trainer.plain_path)
    parser.add_argument("out", type=trainer.plain_path)
    parser.add_argument("--style-data", nargs="*", default=[], type=trainer.plain_path, help=f"sets of which each gives {STYLE_SHARE:.0%} of the crops")
    parser.add_argument("--from", dest="start_from", type=trainer.plain_path, help="weights to begin with: a checkpoint or an exported model folder")
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--crop", type=float, default=0.96, help="seconds (%(default)s)")
    parser.add_argument("--plain-steps", type=int, default=550, help="steps before the quantizer comes (%(default)s)")
    parser.add_argument("--wave-weight", type=float, default=0.3, help="3 for the first 2000 steps of a new codec, then lower: a high one makes tokens of phase (%(default)s)")
    parser.add_argument("--floor", type=float, default=1e-3, help="amplitude below which the spectral loss is deaf; 5e-4 late (%(default)s)")
    parser.add_argument("--adversary", action="store_true")
    parser.add_argument("--fool-weight", type=float, default=0.1)
    parser.add_argument("--feature-weight", type=float, default=0.6)
    parser.add_argument("--freeze-encoder", action="store_true")
    trainer.add_arguments(parser, minutes=240, rate=8e-4, rate_end=3e-5, batch=6)
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    trainer.launch(train, args)


if __name__ == "__main__":
    main()
