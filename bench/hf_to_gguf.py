#!/usr/bin/env python3
"""Write a Hugging Face checkpoint as a GGUF file of the same bits, so that a peer can be measured on the same weights.

    hf_to_gguf.py CHECKPOINT OUT.gguf

Matrices keep their type (bf16, f16 or f32); vectors become f32, as is usual in GGUF. Families: those of the Llama
layout with GGUF architectures llama (Llama, Mistral, Yi, TinyLlama, SmolLM2), qwen2, qwen3, qwen3moe. The vocabulary must be
byte-level BPE in tokenizer.json; without one a vocabulary of placeholders is written, which is enough for measuring.
Memory stays small: tensors are mapped and written one by one. Needs numpy and gguf (PyPI).
"""
import argparse
import json
import math
import os
import re
import struct
import sys

import gguf
import numpy as np

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
STORED = {
    "BF16": (np.dtype("<u2"), gguf.GGMLQuantizationType.BF16),
    "F16": (np.dtype("<f2"), gguf.GGMLQuantizationType.F16),
    "F32": (np.dtype("<f4"), gguf.GGMLQuantizationType.F32),
}
LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
}
EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")
ENDS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight"}


def directory(folder):
    """{name: (file, dtype, shape, first byte, bytes)} of all safetensors files of a folder."""
    found = {}
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        path = os.path.join(folder, file)
        with open(path, "rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            header = json.loads(f.read(n))
        for name, t in header.items():
            if name != "__metadata__":
                begin, end = t["data_offsets"]
                found[name] = (path, t["dtype"], tuple(t["shape"]), 8 + n + begin, end - begin)
    return found


def gguf_name(name):
    if name in ENDS:
        return ENDS[name]
    if name.startswith("model.layers."):
        layer, rest = name[len("model.layers."):].split(".", 1)
        if rest in LAYER:
            return f"blk.{layer}.{LAYER[rest]}"
    return None


def stacked(found):
    """Experts of a layer are one tensor in GGUF: {name: (parts, dtype, shape)}, each part (file, first byte, shape)."""
    whole = {}
    for name, (path, dtype, shape, at, _) in found.items():
        m = EXPERT.fullmatch(name)
        key = f"blk.{m[1]}.ffn_{m[3]}_exps.weight" if m else name
        whole.setdefault(key, []).append((int(m[2]) if m else 0, path, dtype, shape, at, bool(m)))
    out = {}
    for key, parts in whole.items():
        parts.sort()
        shape = parts[0][3]
        out[key] = ([(p[1], p[4], p[3]) for p in parts], parts[0][2], (len(parts), *shape) if parts[0][5] else shape)
    return out


def interleave(rows, heads):
    """GGUF's llama rotates neighbouring pairs: the two halves of each head's rows are interleaved."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def rope_of(c):
    rope = dict(c.get("rope_scaling") or {})
    rope.update(c.get("rope_parameters") or {})
    rope.setdefault("rope_theta", c.get("rope_theta", 10000.0))
    return rope


def llama3_factors(rope, head_dim):
    """What each frequency is divided by (Llama 3.1's model code)."""
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1.0 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def add_header(w, c, arch, head_dim, heads, kv):
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c.get("max_position_embeddings", 2048))
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(c.get("rms_norm_eps", 1e-6))
    w.add_vocab_size(c["vocab_size"])
    w.add_rope_dimension_count(head_dim)
    if c.get("num_experts"):
        w.add_expert_count(c["num_experts"])
        w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_feed_forward_length(c["moe_intermediate_size"])
    rope = rope_of(c)
    w.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    elif kind not in ("default", "llama3"):
        sys.exit(f"rope scaling '{kind}' is not written by this script")
    return llama3_factors(rope, head_dim) if kind == "llama3" and arch == "llama" else None


def add_vocabulary(w, folder, c):
    path, size = os.path.join(folder, "tokenizer.json"), c["vocab_size"]
    tokens, types, merges = [f"[PAD{i}]" for i in range(size)], [gguf.TokenType.UNUSED] * size, ["a b"]
    pre = "llama-bpe" if c["model_type"] == "llama" else "qwen2" if c["model_type"].startswith("qwen") else "default"
    if os.path.exists(path):
        t = json.load(open(path))
        if t["model"]["type"] != "BPE":
            sys.exit(f"{path}: expected a BPE model, found {t['model']['type']}")
        for token, i in t["model"]["vocab"].items():
            tokens[i], types[i] = token, gguf.TokenType.NORMAL
        for a in t.get("added_tokens", []):
            tokens[a["id"]] = a["content"]
            types[a["id"]] = gguf.TokenType.CONTROL if a["special"] else gguf.TokenType.USER_DEFINED
        merges = [m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    end = c.get("eos_token_id", 0)
    w.add_bos_token_id(c.get("bos_token_id") or 0)
    w.add_eos_token_id((end[0] if isinstance(end, list) else end) or 0)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    a = ap.parse_args()
    c = json.load(open(os.path.join(a.checkpoint, "config.json")))
    arch = ARCHITECTURES.get(c["model_type"])
    if not arch:
        sys.exit(f"{a.checkpoint}: expected one of {', '.join(ARCHITECTURES)}, found {c['model_type']}")
    heads = c["num_attention_heads"]
    kv = c.get("num_key_value_heads") or heads
    head_dim = c.get("head_dim") or c["hidden_size"] // heads
    w = gguf.GGUFWriter(a.out, arch)
    factors = add_header(w, c, arch, head_dim, heads, kv)
    add_vocabulary(w, a.checkpoint, c)
    plan = []
    for name, t in stacked(directory(a.checkpoint)).items():
        new = name if name.startswith("blk.") else gguf_name(name)
        if not new:
            print(f"left out: {name}", file=sys.stderr)
            continue
        numbers, kind = STORED[t[1]]
        if len(t[2]) == 1:
            kind = gguf.GGMLQuantizationType.F32
        size = int(np.prod(t[2])) * (4 if kind == gguf.GGMLQuantizationType.F32 else 2)
        shape = t[2] if kind != gguf.GGMLQuantizationType.BF16 else (*t[2][:-1], t[2][-1] * 2)
        stored = np.dtype(np.uint8) if kind == gguf.GGMLQuantizationType.BF16 else \
            np.dtype(np.float32) if kind == gguf.GGMLQuantizationType.F32 else np.dtype(np.float16)
        w.add_tensor_info(new, shape, stored, size, raw_dtype=kind)
        plan.append((name, t, numbers, kind))
    if factors is not None:
        w.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for name, (parts, dtype, shape), numbers, kind in plan:
        x = [np.memmap(path, dtype=numbers, mode="r", offset=at, shape=part) for path, at, part in parts]
        x = np.stack(x) if len(shape) == 3 else x[0]
        if arch == "llama" and ".self_attn." in name and (".q_proj." in name or ".k_proj." in name):
            x = interleave(x, heads if ".q_proj." in name else kv)
        if kind == gguf.GGMLQuantizationType.F32:
            x = (x.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else x.astype(np.float32)
        w.write_tensor_data(np.ascontiguousarray(x))
    if factors is not None:
        w.write_tensor_data(factors)
    w.close()


if __name__ == "__main__":
    main()
