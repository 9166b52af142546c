#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains a LoRA adapter (PEFT layout) of a model folder on a data set with tokens of that model's codec.

    python train_adapter.py MODEL DATA OUT --minutes 10
    python train_adapter.py MODEL DATA OUT --plain-captions      for composed sets: captions without the style's name

With plain captions the adapter alone makes the style, whatever the prompt says. OUT/log.jsonl has the curve; the same command
again goes on from OUT/checkpoint.pt until the minutes are used up.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

from aulos_train import musicgen, trainer
from aulos_train.captions import caption
from aulos_train.dataset import Dataset

TARGETS = r".*decoder\.model\.decoder\.layers\.\d+\.(.*\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


def captions_of(rows, plain):
    return [caption(row["labels"], row["labels"]["seed"]) if plain else row["caption"] for row in rows]


def save(model, folder, base_name):
    """PEFT's files in float16; a folder is there whole or not at all."""
    part = Path(f"{folder}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    (part / "README.md").unlink(missing_ok=True)  # peft's template
    config = part / "adapter_config.json"
    about = json.loads(config.read_text())
    about["base_model_name_or_path"] = base_name
    config.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    return part


class Training:
    def __init__(self, args):
        self.args = args
        base, self.tokenizer = musicgen.load(args.model)
        base.requires_grad_(False)
        settings = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, lora_dropout=0.0, target_modules=TARGETS)
        self.peft = get_peft_model(base, settings).to(args.device)
        self.model = self.peft.base_model.model
        rows, self.codes = Dataset(args.data).tokens(musicgen.CODEBOOKS, args.frames)
        self.captions = captions_of(rows, args.plain_captions)
        if len(rows) <= 2 * args.held_out:
            raise SystemExit(f"{args.data}: {len(rows)} clips have tokens, more than {2 * args.held_out} are needed; run encode_tokens.py")
        self.parameters = [p for p in self.peft.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=args.learning_rate, weight_decay=0.0)
        self.clock = trainer.Clock(args)
        self.checkpoint = trainer.Checkpoint(args.out, args)
        state = self.checkpoint.load()
        if state:
            set_peft_model_state_dict(self.peft, state["adapter"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.clock.resume(state)
        self.random = np.random.default_rng([args.seed, self.clock.step])

    def loss(self, chosen, blind=None):
        tokens = self.tokenizer([self.captions[i] for i in chosen], padding=True, return_tensors="pt").to(self.args.device)
        codes = torch.from_numpy(self.codes[chosen].astype(np.int64)).to(self.args.device)
        with trainer.autocast(self.args):
            return musicgen.loss_by_codebook(self.model, tokens, codes, blind).mean()

    @torch.no_grad()
    def evaluate(self):
        return round(float(np.mean([float(self.loss(np.arange(i, i + 8))) for i in range(0, self.args.held_out, 8)])), 4)

    def step(self):
        args = self.args
        chosen = self.random.integers(args.held_out, len(self.captions), args.batch)
        loss = self.loss(chosen, torch.from_numpy(self.random.random(args.batch) < 0.1).to(args.device))
        for group in self.optimiser.param_groups:
            group["lr"] = self.clock.learning_rate(30)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.clock.step += 1
        return loss.detach()

    def state(self):
        adapter = {name.replace(".default", ""): value for name, value in self.peft.state_dict().items() if "lora_" in name}
        return {"adapter": adapter, "optimiser": self.optimiser.state_dict(), "step": self.clock.step, "used": self.clock.used()}


def train(args):
    run = Training(args)
    log = trainer.Log(args.out)
    log.write(begin=run.clock.step, clips=len(run.captions), parameters=sum(p.numel() for p in run.parameters), held_out=run.evaluate())
    while run.clock.more():
        log.add(loss=run.step())
        if run.clock.step % 25 == 0:
            log.report(step=run.clock.step, used=round(run.clock.used()))
        run.checkpoint.save(run.state)
    log.write(step=run.clock.step, used=round(run.clock.used()), held_out=run.evaluate(), done=True)
    run.checkpoint.save(run.state, now=True)
    part = save(run.peft.half(), Path(args.out) / "adapter", args.base_name or Path(args.model).name)
    whole = Path(args.out) / "adapter"
    shutil.rmtree(whole, ignore_errors=True)
    part.rename(whole)


def main():
    parser = trainer.parser(__doc__)
    parser.add_argument("model", type=trainer.plain_path, help="an exported model folder")
    parser.add_argument("data", type=trainer.plain_path)
    parser.add_argument("out", type=trainer.plain_path, help="gets adapter/ with the files to use, the checkpoint and the log")
    parser.add_argument("--plain-captions", action="store_true")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--frames", type=int, default=500, help="of each clip (%(default)s)")
    parser.add_argument("--held-out", type=int, default=32, help="clips at the front of DATA that are not trained on (%(default)s)")
    parser.add_argument("--base-name", help="name of the model that goes into adapter_config.json (the folder's)")
    trainer.add_arguments(parser, minutes=10, rate=3e-3, rate_end=1e-4, batch=6)
    args = parser.parse_args()
    if args.processes != 1:
        parser.error("an adapter trains in one process")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    trainer.launch(train, args)


if __name__ == "__main__":
    main()
