#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains the text encoder and the language model on the tokens of one or several data sets.

    python train_lm.py OUT --data BASE [MORE...] --vocabulary VOCABULARY --codec CODEC --minutes 600 --processes 2
    python train_lm.py OUT --data MY_SET --from models/aulos-small --minutes 60        goes on from a model folder

The same command again goes on from OUT/checkpoint.pt. Shards of tokens that appear meanwhile are taken up.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from aulos_train import codec, musicgen, text_warmup, trainer
from aulos_train.carry import carry
from aulos_train.dataset import Dataset
from aulos_train.weights import model_weights

# Learning rates by part, relative to --learning-rate, and whether weights decay there.
PARTS = {"decoder.model.decoder.embed_tokens": (3.0, False), "decoder.lm_heads": (1.5, False), "text_encoder": (0.5, False), "": (1.0, True)}


class Clips:
    """Captions and tokens of all sets, the held-out ones of the first set in front."""

    def __init__(self, folders, frames):
        self.folders, self.frames = folders, frames
        self.captions, self.codes = [], np.zeros((0, musicgen.CODEBOOKS, frames), np.uint16)
        self.look()

    def look(self):
        """Takes up new shards; True if there were any."""
        captions, codes = [], []
        for folder in self.folders:
            rows, found = Dataset(folder).tokens(musicgen.CODEBOOKS, self.frames)
            captions += [row["caption"] for row in rows]
            codes.append(found)
        more = len(captions) > len(self.captions)
        if more:
            self.captions, self.codes = captions, np.concatenate(codes)
        return more

    def batch(self, chosen, tokenizer, device):
        tokens = tokenizer([self.captions[i] for i in chosen], padding=True, return_tensors="pt").to(device)
        return tokens, torch.from_numpy(self.codes[chosen].astype(np.int64)).to(device)


def parameter_groups(model, decay):
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = next(p for p in PARTS if name.startswith(p))
            scale, decays = PARTS[part]
            groups.setdefault((scale, decays and parameter.ndim >= 2), []).append(parameter)
    return [{"params": ps, "scale": scale, "weight_decay": decay if decays else 0.0} for (scale, decays), ps in groups.items()]


class Training:
    def __init__(self, args):
        self.args, self.device = args, args.device
        self.clips = Clips(args.data, args.frames)
        if len(self.clips.captions) <= args.held_out:
            raise SystemExit(f"{args.data[0]}: {len(self.clips.captions)} clips have tokens, more than {args.held_out} are needed; run encode_tokens.py")
        self.checkpoint = trainer.Checkpoint(args.out, args)
        state = self.checkpoint.load()
        if args.start_from and Path(args.start_from).is_dir():
            self.model, self.tokenizer = musicgen.load(args.start_from)
        else:
            self.tokenizer = AutoTokenizer.from_pretrained(args.vocabulary)
            self.model = musicgen.build(len(self.tokenizer), args.width, args.layers, args.heads)
        self.model.to(self.device).train().audio_encoder.requires_grad_(False)
        self.log = trainer.Log(args.out)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.clock = trainer.Clock(args)
        self.random = np.random.default_rng([args.seed, trainer.rank(), state["step"] if state else 0])
        if state:
            self.model.load_state_dict(state["model"], strict=False)
        elif args.start_from and not Path(args.start_from).is_dir():
            self.model.load_state_dict(model_weights(args.start_from), strict=False)
        elif not args.start_from:
            torch.manual_seed(args.seed)  # the same start in every process
            musicgen.start_from_codebooks(self.model, args.codec)
            if args.layers_from:
                first = Dataset(args.data[0])
                waves = [first.wave(i, 0, args.frames * codec.HOP) for i in range(min(args.carry_clips, len(self.clips.captions)))]
                carry(self.model, args.layers_from, self.clips.codes[: len(waves)], waves)
            text_warmup.warm_up(self.model, self.tokenizer, args.text_steps, self.log)
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, args.weight_decay), lr=args.learning_rate, betas=(0.9, 0.95))
        if state:
            self.optimiser.load_state_dict(state["optimiser"])
            self.clock.resume(state)
        self.weights = torch.tensor(args.codebook_weights, device=self.device)
        self.weights = self.weights / self.weights.sum()

    def state(self):
        model = {name: value for name, value in self.model.state_dict().items() if not name.startswith("audio_encoder")}
        return {"model": model, "optimiser": self.optimiser.state_dict(), "step": self.clock.step, "used": self.clock.used()}

    def step(self):
        args = self.args
        chosen = self.random.integers(args.held_out, len(self.clips.captions), args.batch)
        tokens, codes = self.clips.batch(chosen, self.tokenizer, self.device)
        blind = torch.from_numpy(self.random.random(args.batch) < args.without_text).to(self.device)
        with trainer.autocast(args):
            losses = musicgen.loss_by_codebook(self.model, tokens, codes, blind)
        for group in self.optimiser.param_groups:
            group["lr"] = self.clock.learning_rate(args.warm_up) * group["scale"]
        self.optimiser.zero_grad(set_to_none=True)
        (losses * self.weights).sum().backward()
        trainer.average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.clock.step += 1
        return {"loss": losses.detach().mean(), **{f"loss{k}": v for k, v in enumerate(losses.detach())}, "gradient": norm}

    @torch.no_grad()
    def evaluate(self):
        """Cross entropy of held-out clips: with their captions, with each other's, without any."""
        self.model.eval()
        figures = {}
        for kind in ("right", "wrong", "none"):
            seen = []
            for first in range(0, self.args.held_out, 16):
                chosen = np.arange(first, min(first + 16, self.args.held_out))
                tokens, codes = self.clips.batch(chosen, self.tokenizer, self.device)
                if kind == "wrong":
                    tokens = {name: value.roll(1, 0) for name, value in tokens.items()}
                with trainer.autocast(self.args):
                    seen.append(musicgen.loss_by_codebook(self.model, tokens, codes, torch.full((len(chosen),), kind == "none", device=self.device)))
            mean = torch.stack(seen).mean(0)
            figures[kind] = round(float(mean.mean()), 4)
            if kind == "right":
                figures["by_codebook"] = [round(float(v), 3) for v in mean]
        self.model.train()
        return figures


def train(args):
    run = Training(args)
    log = run.log
    log.write(begin=run.clock.step, clips=len(run.clips.captions), parameters=sum(p.numel() for p in run.parameters), options={k: str(v) for k, v in vars(args).items()})
    while run.clock.more():
        log.add(**run.step())
        step = run.clock.step
        if step % 50 == 0:
            log.report(step=step, used=round(run.clock.used()), rate=run.clock.learning_rate(args.warm_up))
            if run.clips.look():
                log.write(clips=len(run.clips.captions))
        if step % args.evaluate_every == 0 and trainer.rank() == 0:
            log.write(step=step, used=round(run.clock.used()), held_out=run.evaluate())
        run.checkpoint.save(run.state)
    if trainer.rank() == 0:
        log.write(step=run.clock.step, used=round(run.clock.used()), held_out=run.evaluate(), done=True)
    run.checkpoint.save(run.state, now=True)


def main():
    parser = trainer.parser(__doc__)
    parser.add_argument("out", type=trainer.plain_path)
    parser.add_argument("--data", nargs="+", required=True, type=trainer.plain_path, help="sets with tokens; the first gives the held-out clips")
    parser.add_argument("--vocabulary", type=trainer.plain_path)
    parser.add_argument("--codec", type=trainer.plain_path, help="whose tokens these are: embeddings and heads begin as its codebooks")
    parser.add_argument("--from", dest="start_from", type=trainer.plain_path, help="weights to begin with: an exported model folder or a checkpoint")
    parser.add_argument("--layers-from", type=trainer.plain_path, help="for a new model: the layers of this model folder, though its codec and vocabulary are others")
    parser.add_argument("--carry-clips", type=int, default=300, help="clips by which --layers-from compares the codecs (%(default)s)")
    parser.add_argument("--frames", type=int, default=500, help="of each clip, 50 a second (%(default)s)")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--text-steps", type=int, default=500, help="of the text encoder alone, before (%(default)s)")
    parser.add_argument("--held-out", type=int, default=64, help="clips at the front of the first set that are not trained on (%(default)s)")
    parser.add_argument("--without-text", type=float, default=0.1, help="part of the clips trained without text, for guidance (%(default)s)")
    parser.add_argument("--codebook-weights", type=float, nargs=musicgen.CODEBOOKS, default=[2.0, 1.0, 0.7, 0.5])
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warm-up", type=int, default=150, help="steps (%(default)s)")
    trainer.add_arguments(parser, minutes=600, rate=2e-3, rate_end=8e-5, batch=6)
    args = parser.parse_args()
    if not args.start_from and not (args.vocabulary and args.codec):
        parser.error("a new model needs --vocabulary and --codec, another one --from")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    trainer.launch(train, args)


if __name__ == "__main__":
    main()
