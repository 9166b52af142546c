# SPDX-License-Identifier: MIT
"""Measures transformers on a MusicGen checkpoint; compare_transformers.py runs it in a process of its own.

    python transformers_worker.py MODEL --threads 2 --samples 1 4 --steps 50 --seconds 10

Prints one JSON object: time per decoder step for each number of samples, EnCodec decode time, load time, peak memory.
A step is one turn of generate(), guidance included: the decoder on 2n rows, the guidance, the sampling.
"""

import argparse
import json
import os
import resource
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

PROMPT = "calm piano with soft strings"
WARM = 3                                # steps that are not counted


def step_times(model, inputs, samples, steps, torch):
    """Seconds of each step of one generate() call, taken where transformers asks whether to stop."""
    from transformers import StoppingCriteria, StoppingCriteriaList
    stamps = []

    class Stamp(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            stamps.append(time.perf_counter())
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    decode = model.audio_encoder.decode

    class Done(Exception):
        pass

    def stop(*_args, **_kwargs):
        raise Done                      # the codec is measured alone

    model.audio_encoder.decode = stop
    try:
        model.generate(**{k: v.repeat(samples, 1) for k, v in inputs.items()}, do_sample=True, top_k=250, guidance_scale=3.0,
                       max_new_tokens=steps + WARM, stopping_criteria=StoppingCriteriaList([Stamp()]))
    except Done:
        pass
    finally:
        model.audio_encoder.decode = decode
    return [b - a for a, b in zip(stamps[WARM - 1:], stamps[WARM:])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    import torch
    import transformers
    from transformers import AutoTokenizer, MusicgenForConditionalGeneration
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    start = time.perf_counter()
    model = MusicgenForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval()
    result = dict(torch=torch.__version__, transformers=transformers.__version__, threads=args.threads,
                  load_s=time.perf_counter() - start, step_s={}, step_min_s={})
    inputs = AutoTokenizer.from_pretrained(args.model)([PROMPT], return_tensors="pt")
    inputs = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        for samples in args.samples:
            times = [step_times(model, inputs, samples, args.steps, torch) for _ in range(args.rounds)]
            result["step_s"][samples] = min(statistics.median(t) for t in times)
            result["step_min_s"][samples] = min(min(t) for t in times)
        config = model.config.audio_encoder
        frames = round(config.frame_rate * args.seconds)
        codes = torch.randint(0, config.codebook_size, (1, 1, config.num_quantizers, frames))
        codec = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            model.audio_encoder.decode(codes, [None])
            codec.append(time.perf_counter() - start)
    result["codec_s"] = min(codec)
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
