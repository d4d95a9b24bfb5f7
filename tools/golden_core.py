"""What every golden model needs: weights drawn at random, files written, logits asked of transformers.

A Row says what a family's model is. Weights are drawn under the names that checkpoints on the hub have, saved, and
loaded by transformers, which asserts that names and shapes are those that it knows.
"""
import copy
import dataclasses
import json
import pathlib
import struct
import tempfile
import zlib
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"
PROMPT, STEPS = 27, 5
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def same_names(shapes):
    return shapes


def but(base, *drop, **more):
    return {k: v for k, v in base.items() if k not in drop} | more


@dataclasses.dataclass
class Row:
    config: dict
    dtype: str = "bf16"
    shards: int = 1
    hub: Callable = same_names  # {name in memory: shape} -> {name in the checkpoint: shape}
    norm: float = 1.0           # what norm weights are around; 0 where the model adds 1
    conv1d: bool = False        # matrices are stored [in, out]
    reference: dict = dataclasses.field(default_factory=dict)  # what transformers' configuration has otherwise
    pack: Callable | None = None  # {name: float32} -> (what is stored, what it stands for: {name: float32})
    copies: dict = dataclasses.field(default_factory=dict)  # {name: name}: stored a second time
    extras: dict = dataclasses.field(default_factory=dict)  # {name: shape}: stored, and no part of the model
    rules: list = dataclasses.field(default_factory=list)   # [(part of a name, spread)]: instead of the usual spread
    dynamic: bool = False       # the reference changes its frequencies as it goes


def random_weights(shapes, seed, tied, row=Row({})):
    """Values that spread the logits over a few units and make attention choose: {name: float32 array}."""
    rng = np.random.Generator(np.random.PCG64(seed))
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        x = rng.standard_normal(shape, dtype=np.float32)
        special = [spread for part, spread in row.rules if part in name]
        if special:
            x *= special[0]
        elif name.endswith("bias"):
            x *= 0.3
        elif len(shape) < 2 or "_norm." in name:
            x = row.norm + 0.2 * x
        elif any(part in name for part in ("embed_tokens", "wte", "word_embeddings", "embed_in")):
            x *= 0.25 if tied else 1.0
        else:
            fused = ("q_proj", "k_proj", "lm_head", "embed_out", "qkv", "query_key_value", "c_attn", "q_b_proj")
            gain = 1.6 if any(part in name for part in fused) else 1.0
            x *= gain / np.sqrt(shape[0] if row.conv1d else shape[1])
        weights[name] = np.asarray(x, np.float32)
    return weights


def class_of(config):
    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def shapes_of(config):
    with torch.device("meta"):
        model = class_of(config).from_config(config)
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


class NoNearTies(TorchDispatchMode):
    """Every top-k within it must choose clearly, or rounding would choose for it."""

    def __init__(self):
        super().__init__()
        self.least = float("inf")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.topk.default:
            scores, k = args[0], args[1]
            if k < scores.shape[-1]:
                best = scores.sort(dim=-1, descending=True).values
                gap = (best[..., k - 1] - best[..., k]).min()
                self.least = min(self.least, float(gap / best[best.isfinite()].std()))
        return out


def logits_of(model, ids, dynamic):
    """-> logits float32 [len(ids), vocabulary], the smallest margin of a router."""
    tokens = torch.tensor([ids])
    ties = NoNearTies()
    with torch.no_grad():
        with ties:
            whole = model(tokens, use_cache=False).logits[0]
        if not dynamic:
            out = model(tokens[:, :PROMPT], use_cache=True)
            rows, cache = [out.logits[0]], out.past_key_values
            for i in range(PROMPT, len(ids)):
                out = model(tokens[:, i:i + 1], past_key_values=cache, use_cache=True)
                rows.append(out.logits[0])
                cache = out.past_key_values
            worst = (torch.cat(rows) - whole).abs().max() / whole.abs().max()
            assert worst < 1e-5, f"step by step differs by {worst} of the largest"
    assert whole.dtype == torch.float32
    return whole.numpy(), ties.least


def write_golden(folder, name, model, dynamic=False):
    vocab, n = model.config.get_text_config().vocab_size, PROMPT + STEPS
    for attempt in range(64):
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + 1 + attempt))
        ids = [int(i) for i in rng.integers(0, vocab, n)]
        logits, margin = logits_of(model, ids, dynamic)
        if margin > 3e-4:
            break
    assert margin > 3e-4, f"the routers of {name} choose between near ties whatever the tokens"
    with open(folder / "golden.bin", "wb") as f:
        f.write(b"LAMGOLD1" + struct.pack("<4I", PROMPT, STEPS, vocab, n))
        f.write(np.array(ids, "<i4").tobytes() + logits.astype("<f4").tobytes())
    size = sum(p.stat().st_size for p in folder.iterdir()) / 1024
    print(f"{name}: largest logit {np.abs(logits).max():.2f}, spread {logits.std():.2f}, "
          f"{f'router margin {margin:.1e}, ' if np.isfinite(margin) else ''}{size:.0f} KiB", flush=True)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def fresh(out, name):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for old_file in folder.iterdir():
        old_file.unlink()
    return folder


def save_shards(folder, tensors, n):
    if n == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, index = sorted(tensors), {}
    for i in range(n):
        file = f"model-{i + 1:05d}-of-{n:05d}.safetensors"
        part = names[i * len(names) // n:(i + 1) * len(names) // n]
        save_file({k: tensors[k] for k in part}, folder / file, metadata={"format": "pt"})
        index |= {k: file for k in part}
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def reference_config(row):
    # Some default padding tokens are beyond a tiny vocabulary.
    config = {"pad_token_id": None} | but(row.config, "quantization_config") | row.reference
    return AutoConfig.for_model(config.pop("model_type"), **copy.deepcopy(config))


def load(folder, row, config):
    model, report = class_of(config).from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    missing = set(report["missing_keys"]) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    extras = {name.split(".experts.")[0] for name in [*row.extras, *row.copies]}
    unexpected = {name for name in report["unexpected_keys"] if name.split(".experts.")[0] not in extras}
    assert not missing and not unexpected and not report["mismatched_keys"], report
    return model.eval()


def as_torch(weights):
    return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in weights.items()}


def load_plain(tensors, row, config):
    """The model with these float32 weights, whatever the files of the golden model hold."""
    with tempfile.TemporaryDirectory() as other:
        write_json(pathlib.Path(other, "config.json"), but(row.config, "quantization_config"))
        save_shards(pathlib.Path(other), tensors, 1)
        return load(other, row, config)


def make_folder(out, name, row):
    folder = fresh(out, name)
    write_json(folder / "config.json", row.config)
    if row.shards > 1:
        write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 5, 9], "do_sample": True})
    config = reference_config(row)
    shapes = row.hub(shapes_of(config)) | row.extras
    weights = random_weights(shapes, zlib.crc32(name.encode()), config.tie_word_embeddings, row)
    weights |= {copy: weights[of].copy() for copy, of in row.copies.items()}
    if row.pack:
        stored, plain = row.pack(weights)
        save_shards(folder, stored, row.shards)
        model = load_plain(plain, row, config)
    else:
        types = {k: "f32" if "e_score_correction_bias" in k else row.dtype for k in weights}
        save_shards(folder, {k: torch.from_numpy(v).to(TYPES[types[k]]) for k, v in weights.items()}, row.shards)
        model = load(folder, row, config)
    write_golden(folder, name, model, row.dynamic)
