#!/usr/bin/env python3
"""Write a checkpoint of any size with random weights, for measuring.

    synth.py CONFIG.json OUT [--layers N] [--tokenizer FOLDER] [--shard 2G] [--seed 1] [--dtype bf16|f16|f32]

CONFIG is a config.json of the Llama layout (llama, mistral, qwen2, qwen3) or of qwen3_moe with experts in every
layer. A router's rows have unequal norms, so that some experts are chosen more often, as in trained models. Other
matrices are normal with the deviation 0.8/sqrt(inputs), so that activations keep their size from layer to layer and
exponents spread as trained ones do. A million numbers are held at a time. Needs numpy.
"""
import argparse
import json
import os
import shutil
import struct
import sys

import numpy as np

BYTES = {"bf16": 2, "f16": 2, "f32": 4}
LAYOUTS = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
BLOCK = 1 << 20


def encode(x, dtype):
    if dtype == "f32":
        return x.astype("<f4").tobytes()
    if dtype == "f16":
        return x.astype("<f2").tobytes()
    bits = x.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()  # nearest, ties to even


def layer_tensors(c, i):
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    head = c.get("head_dim") or hidden // heads
    q, kv = heads * head, (c.get("num_key_value_heads") or heads) * head
    name = f"model.layers.{i}."
    bias = c["model_type"] == "qwen2" or c.get("attention_bias", False)
    yield name + "input_layernorm.weight", (hidden,)
    for part, rows in ("q", q), ("k", kv), ("v", kv):
        yield name + f"self_attn.{part}_proj.weight", (rows, hidden)
        if bias:
            yield name + f"self_attn.{part}_proj.bias", (rows,)
    if c["model_type"] in ("qwen3", "qwen3_moe"):
        yield name + "self_attn.q_norm.weight", (head,)
        yield name + "self_attn.k_norm.weight", (head,)
    yield name + "self_attn.o_proj.weight", (hidden, q)
    yield name + "post_attention_layernorm.weight", (hidden,)
    experts, inner = [""], c["intermediate_size"]
    if c["model_type"] == "qwen3_moe":
        yield name + "mlp.gate.weight", (c["num_experts"], hidden)
        experts, inner = [f"experts.{e}." for e in range(c["num_experts"])], c["moe_intermediate_size"]
    for expert in experts:
        yield name + f"mlp.{expert}gate_proj.weight", (inner, hidden)
        yield name + f"mlp.{expert}up_proj.weight", (inner, hidden)
        yield name + f"mlp.{expert}down_proj.weight", (hidden, inner)


def all_tensors(c):
    yield "model.embed_tokens.weight", (c["vocab_size"], c["hidden_size"])
    for i in range(c["num_hidden_layers"]):
        yield from layer_tensors(c, i)
    yield "model.norm.weight", (c["hidden_size"],)
    if not c.get("tie_word_embeddings", False):
        yield "lm_head.weight", (c["vocab_size"], c["hidden_size"])


def write_tensor(f, rng, name, shape, dtype):
    mean, deviation = 0.0, 0.1
    if name.endswith("norm.weight"):
        mean = 1.0
    elif name.endswith("mlp.gate.weight"):
        norms = rng.permutation(3.2 * (1 + np.arange(shape[0])) ** -0.25) / shape[1] ** 0.5
        f.write(encode((rng.standard_normal(shape) * norms[:, None]).astype(np.float32), dtype))
        return
    elif len(shape) == 2:
        deviation = 1.0 if "embed" in name else 0.8 / shape[1] ** 0.5
    left = int(np.prod(shape))
    while left:
        n = min(left, BLOCK)
        x = rng.standard_normal(n, dtype=np.float32)
        f.write(encode(x * np.float32(deviation) + np.float32(mean), dtype))
        left -= n


def write_shard(path, rng, shard, dtype):
    header, at = {}, 0
    for name, shape in shard:
        size = int(np.prod(shape)) * BYTES[dtype]
        header[name] = {"dtype": dtype.upper(), "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shard:
            write_tensor(f, rng, name, shape, dtype)
    return at


def size_of(text):
    unit = {"K": 10, "M": 20, "G": 30}.get(text[-1].upper())
    return int(float(text[:-1]) * 2**unit) if unit else int(text)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("config")
    ap.add_argument("out")
    ap.add_argument("--layers", type=int)
    ap.add_argument("--tokenizer")
    ap.add_argument("--shard", type=size_of, default=2 << 30)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--dtype", choices=BYTES, default="bf16")
    a = ap.parse_args()
    c = json.load(open(a.config))
    if c.get("model_type") not in LAYOUTS:
        sys.exit(f"{a.config}: expected model_type {', '.join(LAYOUTS)}, found {c.get('model_type')}")
    if a.layers:
        c["num_hidden_layers"] = a.layers
        c.pop("layer_types", None)
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.out, "config.json"), "w") as f:
        json.dump(c, f, indent=1)
    for name in os.listdir(a.tokenizer) if a.tokenizer else ():
        if os.path.isfile(os.path.join(a.tokenizer, name)):
            shutil.copyfile(os.path.join(a.tokenizer, name), os.path.join(a.out, name))
    shards, filled = [[]], 0
    for name, shape in all_tensors(c):
        size = int(np.prod(shape)) * BYTES[a.dtype]
        if shards[-1] and filled + size > a.shard:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += size
    rng, places, total = np.random.Generator(np.random.PCG64(a.seed)), {}, 0
    for i, shard in enumerate(shards):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        total += write_shard(os.path.join(a.out, file), rng, shard, a.dtype)
        places.update((name, file) for name, _ in shard)
        print(f"{file}: {total / 1e9:.2f} GB so far", file=sys.stderr)
    if len(shards) > 1:
        with open(os.path.join(a.out, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": places}, f)


if __name__ == "__main__":
    main()
