# SPDX-License-Identifier: MIT
"""Adapters made with peft, the same in other clothes, and those that must be refused."""

import json
import os
import shutil
import struct
import warnings

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from running import Runner, run_case
from specs import MIN_GAP, SEED


def tidy(path):
    """peft adds a model card, and writes the target modules in the chance order of a set."""
    readme = os.path.join(path, "README.md")
    if os.path.exists(readme):
        os.remove(readme)
    file = os.path.join(path, "adapter_config.json")
    with open(file) as f:
        config = json.load(f)
    for key in ("target_modules", "modules_to_save", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key].sort()
    with open(file, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
    for name in os.listdir(path):
        os.chmod(os.path.join(path, name), 0o644)


def make_adapter(root, checkpoint, name, config, seed, half=False):
    """Makes an adapter with peft, fills it with numbers that matter (about 0.4 of the base weights) and saves it."""
    from peft import LoraConfig, get_peft_model
    path = os.path.join("adapters", checkpoint, name)
    runner = Runner(root, checkpoint)
    here = os.getcwd()
    os.chdir(root)
    try:
        shutil.rmtree(path, ignore_errors=True)
        peft = get_peft_model(runner.model, LoraConfig(bias="none", **config)).eval()
        g = torch.Generator().manual_seed(SEED + seed)
        layers = {n: m for n, m in peft.named_modules() if hasattr(m, "lora_A")}
        with torch.no_grad():
            for key, p in sorted(peft.named_parameters()):
                noise = torch.randn(p.shape, generator=g)
                owner = next((m for n, m in layers.items() if key.startswith(n + ".")), None)
                if "lora_" in key:
                    rank, scale = owner.r["default"], owner.scaling["default"]
                if "lora_A." in key:
                    p.copy_(noise * p.shape[1] ** -0.5)
                elif "lora_B." in key and key.endswith("weight"):
                    p.copy_(noise * 0.4 / (scale * rank ** 0.5))
                elif "lora_B." in key:
                    p.copy_(noise * 0.2 / scale)
                elif "lora_embedding_A" in key:
                    p.copy_(noise)
                elif "lora_embedding_B" in key:
                    p.copy_(noise * 0.2 / (scale * rank ** 0.5))
                elif "magnitude" in key:
                    p.mul_(1 + 0.2 * noise)
                elif "modules_to_save" in key:
                    p.add_(noise * 0.3 * (p.std() + 0.1))
        peft.save_pretrained(path)
        tidy(path)
        file = os.path.join(path, "adapter_model.safetensors")
        if half:
            save_file({k: v.half() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    finally:
        os.chdir(here)
    return path


def adapter_frames(option):
    return option.get("frames", 120)


def make_adapters(root, adapters, only=None, pool=None, first_seed=100):
    results = {}
    for i, (checkpoint, name, config, option) in enumerate(adapters):
        if only and checkpoint not in only:
            continue
        path = make_adapter(root, checkpoint, name, config, first_seed + i, option.get("half", False))
        for strength in option.get("strengths", [1.0]):
            runner = Runner(root, checkpoint, path, strength)
            case = f"adapter-{name}" + ("" if strength == 1.0 else f"@{strength}")
            results[f"{checkpoint}/{case}"] = run_case(
                runner, root, checkpoint, case, frames=adapter_frames(option), audio="windows", adapter=path,
                strength=strength, pool=pool, min_gap=option.get("min_gap", MIN_GAP))
            base = Runner(root, checkpoint)
            with open(os.path.join(root, "cases", checkpoint, case, "case.json"), encoding="utf-8") as f:
                prompt = json.load(f)["prompt"]
            plain = base.generate([prompt], 8, 3.0)
            tuned = runner.generate([prompt], 8, 3.0)
            change = float((plain["scores"][0] - tuned["scores"][0]).std() / plain["scores"][0].std())
            results[f"{checkpoint}/{case}"]["change_of_first_logits"] = change
            print(f"    changes the first logits by {change:.2f} std", flush=True)
            try:
                runner.model = runner.peft.merge_and_unload().eval()
                again = runner.generate([prompt], 8, 3.0)
                error = float((again["scores"] - tuned["scores"]).abs().max() / tuned["scores"].std())
            except (RuntimeError, ValueError) as e:     # peft cannot merge a lora_bias into a layer without a bias
                error = str(e)[:100]
            results[f"{checkpoint}/{case}"]["merged_error"] = error
    return results


def write_mixed(root, checkpoint, rows, name="mixed-adapters"):
    """A batch whose rows use different adapters; what it must give is what each row gives alone."""
    directory = os.path.join(root, "cases", checkpoint, name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    out = []
    for case in rows:
        with open(os.path.join(root, "cases", checkpoint, case, "case.json"), encoding="utf-8") as f:
            meta = json.load(f)
        out.append({k: meta[k] for k in ("prompt", "adapter", "strength", "guidance", "frames")}
                   | {"expect": f"cases/{checkpoint}/{case}"})
    with open(os.path.join(directory, "batch.json"), "w", encoding="utf-8") as f:
        json.dump(dict(name=name, checkpoint=checkpoint, rows=out), f, indent=1, ensure_ascii=False)


def make_variants(root, checkpoint, name):
    """The same adapter in other clothes; each must give what the original gives. `peft` says what peft does with it."""
    source = os.path.join("adapters", checkpoint, name)
    state = load_file(os.path.join(root, source, "adapter_model.safetensors"))
    origin = f"cases/{checkpoint}/adapter-{name}"
    with open(os.path.join(root, origin, "case.json"), encoding="utf-8") as f:
        case = json.load(f)
    want = np.load(os.path.join(root, origin, "logits.npy"))[0]
    wrapped = {"base_model_class": "PeftModel", "parent_library": "peft.peft_model"}
    kinds = {
        "bin": (state, {}),                                             # adapter_model.bin, a zip pickle
        "wrapped-twice": ({"base_model.model." + k: v for k, v in state.items()},   # saved by a PeftModel of a PeftModel
                          dict(auto_mapping=wrapped, base_model_name_or_path=None)),
        "named-default": ({k.replace(".weight", ".default.weight"): v for k, v in state.items()}, {}),    # raw state_dict
    }
    for label, (tensors, change) in kinds.items():
        path = f"{source}-{label}"
        full = os.path.join(root, path)
        shutil.rmtree(full, ignore_errors=True)
        os.makedirs(full)
        with open(os.path.join(root, source, "adapter_config.json")) as f:
            config = json.load(f)
        with open(os.path.join(full, "adapter_config.json"), "w") as f:
            json.dump(dict(config, **change), f, indent=2, sort_keys=True)
        if label == "bin":
            torch.save(tensors, os.path.join(full, "adapter_model.bin"))
        else:
            save_file(tensors, os.path.join(full, "adapter_model.safetensors"), metadata={"format": "pt"})
        try:
            got = Runner(root, checkpoint, path).generate([case["prompt"]], 4, case["guidance"])["scores"][0, 0].numpy()
            outcome = "loads" if np.abs(got - want).max() < 1e-3 * want.std() else "loads nothing and says so in a warning"
        except Exception as e:
            outcome = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:80]}"
        for file in os.listdir(full):
            os.chmod(os.path.join(full, file), 0o644)
        target = os.path.join(root, "cases", checkpoint, f"adapter-{name}-{label}")
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        keep = dict(case, name=f"adapter-{name}-{label}", adapter=path, same_as=origin, peft=outcome)
        with open(os.path.join(target, "case.json"), "w", encoding="utf-8") as f:
            json.dump(keep, f, indent=1, ensure_ascii=False)
        print(f"  {path}: peft {outcome}", flush=True)


def make_bad(root, checkpoint, good):
    """Adapters that must be refused, with the reason; each is a part of the adapter `good`, damaged in one way."""
    from safetensors.torch import save as to_bytes
    base = os.path.join(root, "adapters", "bad")
    shutil.rmtree(base, ignore_errors=True)
    source = os.path.join(root, "adapters", checkpoint, good)
    tensors = {k: v for k, v in load_file(os.path.join(source, "adapter_model.safetensors")).items()
               if ".layers.0.self_attn.q_proj." in k or ".layers.1.encoder_attn.v_proj." in k}
    with open(os.path.join(source, "adapter_config.json")) as f:
        config = json.load(f)
    config["target_modules"] = r".*\.layers\.(0\.self_attn\.q_proj|1\.encoder_attn\.v_proj)"
    raw = to_bytes(tensors, metadata={"format": "pt"})
    first = sorted(k for k in tensors if k.endswith("q_proj.lora_A.weight"))[0]
    pair = first.replace("lora_A", "lora_B")
    table = []

    def write(name, why, tensors=tensors, config=config, data=None, behaviour=True):
        d = os.path.join(base, name)
        os.makedirs(d)
        with open(os.path.join(d, "adapter_config.json"), "w") as f:
            f.write(config if isinstance(config, str) else json.dumps(config, indent=2))
        if data is None:
            save_file(tensors, os.path.join(d, "adapter_model.safetensors"), metadata={"format": "pt"})
        else:
            with open(os.path.join(d, "adapter_model.safetensors"), "wb") as f:
                f.write(data)
        outcome = "not tried"
        if behaviour:
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    Runner(root, checkpoint, os.path.join("adapters", "bad", name))
                said = [str(w.message) for w in caught if "adapter" in str(w.message)]
                outcome = "loads" + (", warns: " + said[-1].split("\n")[0][:100] if said else ", says nothing")
            except BaseException as e:
                text = str(e).strip().splitlines() or [""]
                outcome = f"{type(e).__name__}: {text[min(1, len(text) - 1)].strip()[:100]}"
        table.append(dict(name=name, why=why, peft=outcome))

    without = {k: v for k, v in tensors.items() if k not in (first, pair)}
    ghost = "base_model.model.decoder.model.decoder.layers.0.self_attn.gate_proj.lora_"
    write("unknown-target", "all tensors belong to a module that the model does not have",
          {ghost + "A.weight": tensors[first].clone(), ghost + "B.weight": tensors[pair].clone()},
          dict(config, target_modules=["gate_proj"]))
    write("unmatched-tensor", "one pair of tensors belongs to layer 99, which the model does not have",
          dict(tensors, **{first.replace("layers.0.", "layers.99."): tensors[first].clone(),
                           pair.replace("layers.0.", "layers.99."): tensors[pair].clone()}))
    write("wrong-shape-a", "lora_A has one column too many",
          dict(without, **{first: torch.zeros(tensors[first].shape[0], tensors[first].shape[1] + 1) + 0.01,
                           pair: tensors[pair]}))
    write("wrong-shape-b", "lora_B has half the rows",
          dict(without, **{first: tensors[first], pair: tensors[pair][::2].contiguous()}))
    write("rank-mismatch", "lora_A and lora_B disagree about the rank",
          dict(without, **{first: tensors[first], pair: tensors[pair][:, :-1].contiguous()}))
    write("missing-b", "a lora_A without its lora_B", {k: v for k, v in tensors.items() if k != pair})
    write("not-finite", "lora_B holds a NaN", dict(tensors, **{pair: tensors[pair] * float("nan")}))
    write("other-model", "made for a model of another width (d + 8)",
          {k: torch.nn.functional.pad(v, (0, 8)) if "lora_A" in k else torch.nn.functional.pad(v, (0, 0, 0, 8))
           for k, v in tensors.items()})
    write("truncated", "the file ends before its last tensor", data=raw[:-64])
    write("truncated-header", "the file ends inside its header", data=raw[:200])
    write("header-too-big", "the header length is larger than the file", data=struct.pack("<Q", 1 << 40) + raw[8:])
    write("header-overflow", "the header length is 2^64 - 1", data=b"\xff" * 8 + raw[8:])
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    for label, change in (("offsets-outside", lambda o: [o[0], o[1] + (1 << 40)]),
                          ("offsets-backward", lambda o: [o[1], o[0]])):
        h = json.loads(json.dumps(header))
        h[first]["data_offsets"] = change(h[first]["data_offsets"])
        text = json.dumps(h).encode()
        text += b" " * (-len(text) % 8)
        write(label, "data_offsets of a tensor " + ("point outside the file" if "outside" in label else "run backwards"),
              data=struct.pack("<Q", len(text)) + text + raw[8 + n:])
    h = json.loads(json.dumps(header))
    h[first]["shape"] = [1 << 32, 1 << 32]
    text = json.dumps(h).encode()
    text += b" " * (-len(text) % 8)
    write("shape-overflow", "the product of a shape overflows 64 bits",
          data=struct.pack("<Q", len(text)) + text + raw[8 + n:])
    h = json.loads(json.dumps(header))
    h[first]["dtype"] = "Q7"
    text = json.dumps(h).encode()
    text += b" " * (-len(text) % 8)
    write("unknown-dtype", "a tensor of an unknown type", data=struct.pack("<Q", len(text)) + text + raw[8 + n:])
    write("config-not-json", "adapter_config.json is cut", config=json.dumps(config)[:60])
    write("config-no-type", "adapter_config.json has no peft_type",
          config={k: v for k, v in config.items() if k != "peft_type"})
    write("rank-pattern-lies", "rank_pattern contradicts the tensors", config=dict(config, rank_pattern={"q_proj": 9}))
    write("layer-replication", "layer_replication is set", config=dict(config, layer_replication=[[0, 2], [1, 3]]))

    from peft import IA3Config, get_peft_model
    runner = Runner(root, checkpoint)
    here = os.getcwd()
    os.chdir(root)
    try:
        peft = get_peft_model(runner.model, IA3Config(target_modules=["k_proj", "v_proj", "fc2"],
                                                      feedforward_modules=["fc2"]))
        peft.save_pretrained(os.path.join("adapters", "bad", "ia3"))
        tidy(os.path.join("adapters", "bad", "ia3"))
    finally:
        os.chdir(here)
    table.append(dict(name="ia3", why="peft_type IA3", peft="loads (peft knows IA3)"))
    with open(os.path.join(base, "bad.json"), "w") as f:
        json.dump(dict(checkpoint=checkpoint, adapters=table), f, indent=1)
    for row in table:
        print(f"  bad/{row['name']}: {row['peft']}", flush=True)
