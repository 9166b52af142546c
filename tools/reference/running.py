# SPDX-License-Identifier: MIT
"""Runs transformers on a checkpoint, catches every stage and writes the cases."""

import json
import math
import os
import shutil

import numpy as np
import torch

from models import load_model
from specs import COLUMNS, ENDINGS, FULL_AUDIO_LIMIT, MIN_GAP, PROMPTS, fixed_prompt

class Runner:
    """A checkpoint in fp32, eval mode, plain ("eager") attention, optionally with one adapter loaded by peft."""

    def __init__(self, root, checkpoint, adapter=None, strength=1.0, attention="eager", dtype=torch.float32):
        from transformers import AutoTokenizer
        here = os.getcwd()
        os.chdir(root)                              # so that no absolute path gets into any file
        try:
            self.model = load_model(os.path.join("checkpoints", checkpoint), dtype=dtype, attn_implementation=attention)
            self.tokenizer = AutoTokenizer.from_pretrained(os.path.join("checkpoints", checkpoint))
            if adapter:
                from peft import PeftModel
                from peft.tuners.tuners_utils import BaseTunerLayer
                peft = PeftModel.from_pretrained(self.model, adapter).eval()
                if strength != 1.0:
                    for module in peft.modules():
                        if isinstance(module, BaseTunerLayer):
                            module.scale_layer(strength)
                self.peft, self.model = peft, peft.get_base_model()
        finally:
            os.chdir(here)
        self.books = self.model.decoder.num_codebooks
        self.stereo = self.model.decoder.config.audio_channels == 2
        self.channel_books = self.books // 2 if self.stereo else self.books
        self.delay = [k // 2 if self.stereo else k for k in range(self.books)]
        self.vocab = self.model.decoder.config.vocab_size
        self.hop = self.model.config.audio_encoder.hop_length
        self.rate = self.model.config.audio_encoder.frame_rate

    def tokens(self, prompts):
        t = self.tokenizer(prompts, padding=True, return_tensors="pt")
        return t.input_ids, t.attention_mask

    def generate(self, prompts, frames, guidance):
        """Greedy generation through MusicgenForConditionalGeneration.generate, all stages caught by hooks."""
        ids, mask = self.tokens(prompts)
        seen, codes = {}, []
        guided = guidance > 1

        def text_hook(_module, _args, output):
            seen.setdefault("text", output[0].clone())

        def decoder_hook(_module, _args, kwargs):
            seen.setdefault("encoder", kwargs["encoder_hidden_states"].clone())

        decode = self.model.audio_encoder.decode

        def keep_codes(audio_codes, *args, **kwargs):
            codes.append(audio_codes[0].clone())
            return decode(audio_codes, *args, **kwargs)

        hooks = [self.model.text_encoder.register_forward_hook(text_hook),
                 self.model.decoder.register_forward_pre_hook(decoder_hook, with_kwargs=True)]
        self.model.audio_encoder.decode = keep_codes
        try:
            out = self.model.generate(input_ids=ids, attention_mask=mask, do_sample=False, guidance_scale=guidance,
                                      max_new_tokens=frames + self.channel_books - 1, return_dict_in_generate=True,
                                      output_scores=True, output_logits=True)
        finally:
            del self.model.audio_encoder.decode
            for h in hooks:
                h.remove()
        n = len(prompts)
        if self.stereo:
            both = torch.empty((n, self.books, codes[0].shape[-1]), dtype=torch.int64)
            both[:, 0::2], both[:, 1::2] = codes
            codes = [both]
        scores = torch.stack(out.scores).float().reshape(len(out.scores), n, self.books, self.vocab)
        raw = torch.stack(out.logits).float()
        cond = raw[:, :n * self.books].reshape(-1, n, self.books, self.vocab)
        uncond = raw[:, n * self.books:].reshape(-1, n, self.books, self.vocab) if guided else None
        assert codes[0].shape == (n, self.books, frames), codes[0].shape
        assert torch.isfinite(scores).all() and torch.isfinite(raw).all()
        return dict(token_ids=ids, attention_mask=mask, text_states=seen["text"], encoder_states=seen["encoder"][:n],
                    null_states=seen["encoder"][n:], scores=scores, cond=cond, uncond=uncond, codes=codes[0],
                    audio=out.sequences, gap=self.gaps(scores, frames))

    def gaps(self, scores, frames):
        """Smallest top-1 to top-2 distance over the cells that are really chosen, in std of the row; per prompt."""
        top = scores.topk(2, dim=-1).values
        rel = (top[..., 0] - top[..., 1]) / scores.std(dim=-1)
        best = []
        for row in range(scores.shape[1]):
            low = math.inf
            for k in range(self.books):
                first = self.delay[k]               # step s predicts column s + 1; frames sit at f + 1 + delay
                low = min(low, float(rel[first:first + frames, row, k].min()))
            best.append(low)
        return best

    def search(self, frames, guidance, prompts, want):
        """The first prompt whose smallest gap is wide enough, or the one with the widest; with endings when they run out."""
        best = (0.0, None)
        for ending in ENDINGS:
            batch = [p + ending for p in prompts]
            for gap, prompt in zip(self.generate(batch, frames, guidance)["gap"], batch):
                best = max(best, (gap, prompt))
                if gap >= want * 1.05:
                    return prompt
        return best[1]

    def forced(self, codes, encoder_states, mask):
        """Logits of one forward pass over the whole delayed sequence (teacher forcing), for precision measurements."""
        frames = codes.shape[-1]
        length = frames + self.channel_books
        seq = torch.full((self.books, length), self.vocab, dtype=torch.int64)
        for k in range(self.books):
            seq[k, self.delay[k] + 1:self.delay[k] + 1 + frames] = codes[k]
        out = self.model.decoder(input_ids=seq[:, :-1], encoder_hidden_states=encoder_states[None],
                                 encoder_attention_mask=mask[None], use_cache=False)
        return out.logits.reshape(self.books, length - 1, self.vocab).transpose(0, 1)


def save(directory, name, array, dtype):
    array = np.ascontiguousarray(np.asarray(array), dtype=dtype)
    np.save(os.path.join(directory, name + ".npy"), array)


def diversity(codes):
    """How far a greedy sequence is from having collapsed: distinct codes, longest run, share of the commonest code."""
    out = dict(distinct=[], longest_run=[], top_share=[])
    for row in np.asarray(codes):
        values, counts = np.unique(row, return_counts=True)
        change = np.flatnonzero(np.diff(row)) + 1
        edges = np.concatenate([[0], change, [len(row)]])
        out["distinct"].append(int(len(values)))
        out["longest_run"].append(int(np.diff(edges).max()))
        out["top_share"].append(round(float(counts.max() / len(row)), 3))
    return out


def windows(samples):
    if samples <= 6144:
        return [[0, samples]]
    middle = samples // 2 // 640 * 640
    return [[0, 2048], [middle - 512, middle + 512], [samples - 2048, samples]]


def write_row(runner, directory, out, row, case, audio):
    os.makedirs(directory)
    cols = np.array(case["columns"]) - 1
    save(directory, "token_ids", out["token_ids"][row], "<i8")
    save(directory, "attention_mask", out["attention_mask"][row], "<i8")
    save(directory, "text_states", out["text_states"][row], "<f4")
    save(directory, "encoder_states", out["encoder_states"][row], "<f4")
    save(directory, "logits", out["scores"][cols, row], "<f4")
    if out["uncond"] is not None:
        save(directory, "logits_cond", out["cond"][cols, row], "<f4")
        save(directory, "logits_uncond", out["uncond"][cols, row], "<f4")
    save(directory, "codes", out["codes"][row], "<i8")
    sound = out["audio"][row].numpy()
    total = sound.shape[-1]
    spans = [[0, total]] if audio == "full" and total <= FULL_AUDIO_LIMIT else windows(total)
    save(directory, "audio", np.concatenate([sound[:, a:b] for a, b in spans], axis=1), "<f4")
    stats = dict(
        min_gap=out["gap"][row], logits_std=[float(x) for x in out["scores"][cols, row].std(dim=-1).mean(dim=-1)],
        audio_std=float(sound.std()), audio_peak=float(np.abs(sound).max()),
        text_std=float(out["text_states"][row].std()), encoder_std=float(out["encoder_states"][row].std()))
    stats.update(diversity(out["codes"][row]))
    if out["uncond"] is not None:
        c, u = out["cond"][:, row], out["uncond"][:, row]
        stats["guidance_effect"] = float((c - u).std() / c.std())
    meta = dict(case, audio_windows=spans, audio_samples=total, steps=int(out["scores"].shape[0]), stats=stats)
    with open(os.path.join(directory, "case.json"), "w", encoding="utf-8") as f:
        json.dump(meta, f, indent=1, ensure_ascii=False)
    return stats


def run_case(runner, root, checkpoint, name, prompt=None, batch=None, frames=300, guidance=3.0, columns=None,
             audio="full", min_gap=MIN_GAP, adapter=None, strength=1.0, pool=None):
    """Runs one case and writes it. Returns its statistics (of the row with the smallest gap in a batch)."""
    pool = PROMPTS if pool is None else pool
    columns = COLUMNS if columns is None else columns
    if batch is not None:                       # fixed prompts: take what margin they have, within reason
        min_gap = 2e-4
    prompt = fixed_prompt(prompt)
    if prompt is None and batch is None:
        prompt = runner.search(frames, guidance, pool, min_gap)
    directory = os.path.join(root, "cases", checkpoint, name)
    shutil.rmtree(directory, ignore_errors=True)
    case = dict(name=name, checkpoint=checkpoint, adapter=adapter, strength=strength, guidance=guidance, frames=frames,
                frame_rate=runner.rate, hop=runner.hop, channels=2 if runner.stereo else 1, columns=columns)
    if batch is None:
        out = runner.generate([prompt], frames, guidance)
        stats = write_row(runner, directory, out, 0, dict(case, prompt=prompt), audio)
    else:
        out = runner.generate(batch, frames, guidance)
        os.makedirs(directory)
        for i, text in enumerate(batch):
            one = write_row(runner, os.path.join(directory, f"row{i}"), out, i, dict(case, prompt=text, row=i), audio)
            alone = runner.generate([text], frames, guidance)
            n = int(out["attention_mask"][i].sum())
            err = float((alone["scores"][:, 0] - out["scores"][:, i]).abs().max() / alone["scores"].std())
            same = bool((alone["codes"][0] == out["codes"][i]).all())
            assert same and (out["encoder_states"][i, n:] == 0).all()
            one["alone_equal_codes"], one["alone_logits_error"] = same, err
            stats = one if i == 0 or one["min_gap"] < stats["min_gap"] else stats
        with open(os.path.join(directory, "batch.json"), "w", encoding="utf-8") as f:
            json.dump(dict(case, prompts=batch, rows=[f"row{i}" for i in range(len(batch))]), f, indent=1,
                      ensure_ascii=False)
    flag = "" if stats["min_gap"] >= min_gap else "   << narrow"
    print(f"  {checkpoint}/{name}: gap {stats['min_gap']:.2e} distinct {min(stats['distinct'])} "
          f"run {max(stats['longest_run'])} audio {stats['audio_std']:.3f}/{stats['audio_peak']:.2f} "
          f"cfg {stats.get('guidance_effect', 0):.2f}{flag}", flush=True)
    return stats


def double_angles(rows, d):
    half = d // 2
    w = torch.exp(torch.arange(half, dtype=torch.float64) * -(math.log(10000) / (half - 1)))
    x = torch.arange(rows, dtype=torch.float64).unsqueeze(1) * w.unsqueeze(0)
    return torch.cat([torch.cos(x), torch.sin(x), torch.zeros(rows, d % 2, dtype=torch.float64)], dim=1)


def precision(root, checkpoint, case_dir):
    """fp32 against fp64 on the stages of one case: what an exact fp32 engine may differ by. Relative to the std.
    positions: by how much the logits move if the angles of the position table are formed in fp64."""
    load = lambda n: np.load(os.path.join(root, case_dir, n + ".npy"))
    ids, mask = torch.tensor(load("token_ids")), torch.tensor(load("attention_mask"))
    codes = torch.tensor(load("codes"))
    with open(os.path.join(root, case_dir, "case.json"), encoding="utf-8") as f:
        case = json.load(f)
    out = {}
    with torch.no_grad():
        r = Runner(root, checkpoint, dtype=torch.float32)
        r.model.double()
        torch.set_default_dtype(torch.float64)
        try:
            text = r.model.text_encoder(input_ids=ids[None], attention_mask=mask[None])[0][0]
            enc = text if not hasattr(r.model, "enc_to_dec_proj") else r.model.enc_to_dec_proj(text)
            enc = enc * mask[:, None]
            exact = r.forced(codes, enc, mask)
            null = r.forced(codes, torch.zeros_like(enc), torch.zeros_like(mask))
            table = r.model.decoder.model.decoder.embed_positions
            table.weights = double_angles(max(len(table.weights), codes.shape[-1] + 8), table.embedding_dim)
            other = r.forced(codes, enc, mask)
            other_null = r.forced(codes, torch.zeros_like(enc), torch.zeros_like(mask))
            sound = codes[None, None]
            if r.stereo:
                audio = torch.cat([r.model.audio_encoder.decode(sound[:, :, i::2], [None])[0] for i in (0, 1)], dim=1)[0]
            else:
                audio = r.model.audio_encoder.decode(sound, [None])[0][0]
        finally:
            torch.set_default_dtype(torch.float32)
    if case["guidance"] > 1:
        exact = null + (exact - null) * case["guidance"]
        other = other_null + (other - other_null) * case["guidance"]
    rel = lambda a, b: float(np.abs(a - b).max() / b.std())
    spans = case["audio_windows"]
    out["text_states"] = rel(load("text_states"), text.numpy())
    out["encoder_states"] = rel(load("encoder_states"), enc.numpy())
    out["logits"] = rel(load("logits"), exact.numpy()[np.array(case["columns"]) - 1])
    out["positions"] = rel(other.numpy(), exact.numpy())
    out["audio"] = rel(load("audio"), np.concatenate([audio.numpy()[:, a:b] for a, b in spans], axis=1))
    return out
