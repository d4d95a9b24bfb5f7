#!/usr/bin/env python3
"""Makes the golden models: tiny, seeded, of odd sizes, with the logits that transformers computes for them in float32.

    python tools/golden.py [NAME ...]       all, or those named, into tests/data/golden

Each folder of tests/data/golden holds a checkpoint (config.json and safetensors, or model.gguf) and golden.bin, which
tests/golden.h reads; all numbers little-endian:

    8 bytes   "LAMGOLD1"
    4 uint32  prompt P, steps S, vocabulary V, context C (of the session; scalings that depend on a length use it)
    int32     ids [P + S]
    float32   logits [P + S, V]: row i is what follows ids[0..i]

Rows are those of one forward pass over all ids. The tool asserts that the prompt followed by single steps with a cache
gives the same (except dynamic scaling, where the reference rescales as it goes; here a row's answer depends on the
context alone).

Weights come from numpy's PCG64, so that a rerun gives the same bytes with the versions in tools/requirements.txt.
"""
import json
import pathlib
import struct
import sys
import zlib

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"
PROMPT, STEPS = 27, 5
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
LONG = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def sizes(hidden, heads, kv, ffn, vocab, layers, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=ffn,
                vocab_size=vocab, num_hidden_layers=layers, **more)


LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
             bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, max_position_embeddings=256)
MISTRAL = LLAMA | dict(model_type="mistral", architectures=["MistralForCausalLM"])
QWEN2 = LLAMA | dict(model_type="qwen2", architectures=["Qwen2ForCausalLM"], rms_norm_eps=1e-6)
QWEN3 = QWEN2 | dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], attention_bias=False)


def old(theta=10000.0, dtype="bf16", **scaling):
    """Before transformers 5."""
    return dict(rope_theta=theta, torch_dtype=LONG[dtype], rope_scaling=scaling or None)


def new(theta=10000.0, dtype="bf16", kind="default", **scaling):
    """Since transformers 5."""
    return dict(dtype=LONG[dtype], rope_parameters=dict(rope_theta=theta, rope_type=kind, **scaling))


# name: configuration, type of the weights, number of files
FOLDERS = {
    "llama-f32": (LLAMA | sizes(40, 4, 2, 76, 173, 3) | old(dtype="f32"), "f32", 1),
    "llama-bf16": (LLAMA | sizes(60, 6, 2, 100, 211, 3, head_dim=14) | new(), "bf16", 2),
    "llama-f16": (LLAMA | sizes(52, 4, 1, 72, 151, 2, head_dim=12) | old(dtype="f16"), "f16", 1),
    "llama-llama3": (LLAMA | sizes(50, 5, 1, 84, 163, 2, head_dim=16, tie_word_embeddings=True)
                     | old(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                           original_max_position_embeddings=256) | dict(max_position_embeddings=2048), "bf16", 1),
    "llama-linear": (LLAMA | sizes(42, 6, 3, 66, 157, 2, head_dim=10) | old(type="linear", factor=2.5), "bf16", 1),
    "llama-dynamic": (LLAMA | sizes(44, 4, 2, 70, 149, 2, head_dim=14)
                      | new(kind="dynamic", factor=2.0) | dict(max_position_embeddings=16), "bf16", 1),
    "llama-yarn": (LLAMA | sizes(48, 6, 2, 74, 167, 2, head_dim=20)
                   | old(theta=1000.0, type="yarn", factor=4.0, original_max_position_embeddings=24)
                   | dict(max_position_embeddings=96), "bf16", 1),
    "llama-bias": (LLAMA | sizes(54, 6, 2, 82, 139, 2, head_dim=12, attention_bias=True, mlp_bias=False) | new(),
                   "bf16", 1),
    "llama-tied": (LLAMA | sizes(46, 2, 1, 78, 181, 2, head_dim=18, tie_word_embeddings=True) | old(theta=100000.0),
                   "bf16", 1),
    "mistral-window": (MISTRAL | sizes(56, 8, 2, 90, 137, 3, head_dim=10, sliding_window=7) | old(), "bf16", 1),
    "mistral-full": (MISTRAL | sizes(38, 3, 1, 68, 131, 2, head_dim=22, sliding_window=None) | new(theta=1e6), "bf16", 1),
    "qwen2": (QWEN2 | sizes(42, 3, 1, 62, 127, 2, use_sliding_window=False, sliding_window=6, max_window_layers=1,
                            tie_word_embeddings=True) | old(theta=1e6), "bf16", 1),
    "qwen2-window": (QWEN2 | sizes(48, 4, 2, 70, 149, 3, use_sliding_window=True, sliding_window=6,
                                   max_window_layers=1) | old(theta=1e6), "bf16", 1),
    "qwen3": (QWEN3 | sizes(58, 5, 1, 86, 179, 3, head_dim=18, sliding_window=None, use_sliding_window=False,
                            max_window_layers=3) | old(theta=1e6), "bf16", 1),
    "qwen3-window": (QWEN3 | sizes(44, 6, 3, 64, 113, 3, head_dim=12, sliding_window=9, use_sliding_window=True,
                                   max_window_layers=0, attention_bias=True,
                                   layer_types=["sliding_attention", "full_attention", "sliding_attention"])
                     | new(theta=1e6), "bf16", 1),
}

Q = gguf.GGMLQuantizationType
# name: configuration, architecture, types of the matrices in turn
GGUFS = {
    "gguf-llama": (LLAMA | sizes(96, 6, 2, 160, 211, 3, head_dim=32) | new(), "llama",
                   [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.F16, Q.BF16, Q.F32]),
    "gguf-llama3": (LLAMA | sizes(64, 2, 1, 128, 131, 2, head_dim=48, tie_word_embeddings=True)
                    | new(kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=256) | dict(max_position_embeddings=2048), "llama",
                    [Q.Q8_0]),
    "gguf-qwen2": (QWEN2 | sizes(64, 5, 1, 96, 127, 2, head_dim=32, use_sliding_window=False) | new(theta=1e6), "qwen2",
                   [Q.Q4_0, Q.F16]),
    "gguf-qwen3": (QWEN3 | sizes(64, 6, 3, 96, 137, 2, head_dim=32) | new(theta=1e6), "qwen3", [Q.Q8_0, Q.Q4_1]),
}


def random_weights(shapes, seed, tied):
    """Values that spread the logits over a few units and make attention choose: {name: float32 array}."""
    rng = np.random.Generator(np.random.PCG64(seed))
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        x = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("bias"):
            x *= 0.3
        elif len(shape) == 1:
            x = 1.0 + 0.2 * x
        elif "embed" in name:
            x *= 0.25 if tied else 1.0
        else:
            gain = 1.6 if "q_proj" in name or "k_proj" in name or "lm_head" in name else 1.0
            x *= gain / np.sqrt(shape[1])
        weights[name] = x.astype(np.float32)
    return weights


def shapes_of(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def logits_of(model, ids, dynamic):
    tokens = torch.tensor([ids])
    with torch.no_grad():
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
    return whole.numpy()


def write_golden(folder, name, model):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + 1))
    vocab, n = model.config.vocab_size, PROMPT + STEPS
    ids = [int(i) for i in rng.integers(0, vocab, n)]
    kind = model.config.rope_parameters["rope_type"]
    logits = logits_of(model, ids, kind == "dynamic")
    with open(folder / "golden.bin", "wb") as f:
        f.write(b"LAMGOLD1" + struct.pack("<4I", PROMPT, STEPS, vocab, n))
        f.write(np.array(ids, "<i4").tobytes() + logits.astype("<f4").tobytes())
    print(f"{name}: largest logit {np.abs(logits).max():.2f}, "
          f"{sum(p.stat().st_size for p in folder.iterdir()) / 1024:.0f} KiB")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def fresh(name):
    folder = OUT / name
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


def make_folder(name, config, dtype, shards):
    folder = fresh(name)
    write_json(folder / "config.json", config)
    if shards > 1:
        write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 5, 9], "do_sample": True})
    weights = random_weights(shapes_of(AutoConfig.from_pretrained(folder)), zlib.crc32(name.encode()),
                             config["tie_word_embeddings"])
    save_shards(folder, {k: torch.from_numpy(v).to(TYPES[dtype]) for k, v in weights.items()}, shards)
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                         output_loading_info=True)
    missing = set(report["missing_keys"]) - ({"lm_head.weight"} if config["tie_word_embeddings"] else set())
    assert not missing and not report["unexpected_keys"], report
    write_golden(folder, name, model.eval())


# ---- GGUF ------------------------------------------------------------------------------------------------------------

PARTS = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in ENDS:
        return f"{ENDS[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def neighbours(rows, heads):
    """The order in which GGUF's llama keeps rows of q and k: halves of a head become neighbours. -> old row of each."""
    half = rows // heads // 2
    return np.array([h * 2 * half + side * half + j for h in range(heads) for j in range(half) for side in (0, 1)])


def heads_of(config, name):
    if "self_attn.q_proj" in name:
        return config["num_attention_heads"]
    return config["num_key_value_heads"] if "self_attn.k_proj" in name else 0


def llama3_divisors(config):
    """rope_freqs.weight: what each plain frequency is divided by."""
    hf = AutoConfig.for_model(**config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](hf)
    plain, _ = LlamaRotaryEmbedding.compute_default_rope_parameters(hf)
    return (plain.double() / scaled.double()).float().numpy()


def write_gguf(path, config, arch, types, weights):
    w = gguf.GGUFWriter(path, arch)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    w.add_head_count_kv(config["num_key_value_heads"])
    w.add_key_length(config["head_dim"])
    w.add_value_length(config["head_dim"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    w.add_rope_dimension_count(config["head_dim"])
    w.add_vocab_size(config["vocab_size"])
    if config["rope_parameters"]["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_divisors(config))
    matrices = 0
    for name, x in weights.items():
        if arch == "llama" and heads_of(config, name):
            x = x[neighbours(x.shape[0], heads_of(config, name))]
        kind = Q.F32
        if x.ndim == 2:
            kind = types[matrices % len(types)]
            matrices += 1
        w.add_tensor(gguf_name(name), gguf.quants.quantize(x, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read_gguf(path, config, arch, names):
    """The weights as the file now has them, in float32, under transformers' names and in its order of rows."""
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in t.shape[::-1]])
             for t in gguf.GGUFReader(path).tensors}
    weights = {}
    for name in names:
        x = found[gguf_name(name)].astype(np.float32)
        if arch == "llama" and heads_of(config, name):
            back = np.empty_like(x)
            back[neighbours(x.shape[0], heads_of(config, name))] = x
            x = back
        weights[name] = torch.from_numpy(np.ascontiguousarray(x))
    return weights


def make_gguf(name, config, arch, types):
    folder = fresh(name)
    hf = AutoConfig.for_model(**config)
    shapes = shapes_of(hf)
    weights = random_weights(shapes, zlib.crc32(name.encode()), config["tie_word_embeddings"])
    write_gguf(folder / "model.gguf", config, arch, types, weights)
    model = AutoModelForCausalLM.from_config(hf, dtype=torch.float32, attn_implementation="eager").eval()
    result = model.load_state_dict(read_gguf(folder / "model.gguf", config, arch, shapes), strict=False)
    assert not result.unexpected_keys and set(result.missing_keys) <= {"lm_head.weight"}, result
    model.tie_weights()
    write_golden(folder, name, model)


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    wanted = sys.argv[1:]
    OUT.mkdir(parents=True, exist_ok=True)
    for name, row in FOLDERS.items():
        if not wanted or name in wanted:
            make_folder(name, *row)
    for name, row in GGUFS.items():
        if not wanted or name in wanted:
            make_gguf(name, *row)
    print(f"{sum(p.stat().st_size for p in OUT.rglob('*') if p.is_file()) / 1e6:.2f} MB in all")


main()
