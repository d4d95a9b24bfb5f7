#!/usr/bin/env python3
"""Makes the golden models of families whose reference is the code that was published beside their checkpoints.

    python tools/golden_original.py SOURCES [--out DIR] [NAME ...]

SOURCES is a folder with the original modelling files (never part of this repository), one folder each:

    baichuan7b   modeling_baichuan.py, configuration_baichuan.py of Baichuan-7B
    baichuan13b  modeling_baichuan.py of Baichuan-13B (its configuration class is that of baichuan2)
    baichuan2    both files of Baichuan2-13B
    internlm     modeling_internlm.py, configuration_internlm.py of InternLM (before it was converted to Llama)
    internlm2    modeling_internlm2.py, configuration_internlm2.py
    chatglm3     modeling_chatglm.py, configuration_chatglm.py (ChatGLM2 and GLM-4-9B compute the same; the latter
                 scales the base of its rotation by rope_ratio)
    qwen         modeling_qwen.py, configuration_qwen.py of Qwen-7B (the first)

They want the older versions of tools/requirements-original.txt; everything is computed in float32 by one pass over
all ids, so that what depends on a length sees the whole. The folders and golden.bin are as tools/golden.py writes them.
Where a file of the original imports what only training or serving needs, an empty module stands in for it.
"""
import argparse
import importlib
import json
import pathlib
import struct
import sys
import types
import zlib

import numpy as np
import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"
PROMPT, STEPS = 27, 5


def sizes(hidden, heads, ffn, vocab, layers=2, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, intermediate_size=ffn, vocab_size=vocab,
                num_hidden_layers=layers, **more)


COMMON = dict(hidden_act="silu", rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, pad_token_id=0, use_cache=True,
              tie_word_embeddings=False, torch_dtype="bfloat16", initializer_range=0.02)
BAICHUAN = COMMON | dict(model_type="baichuan")
INTERNLM2 = COMMON | dict(model_type="internlm2", architectures=["InternLM2ForCausalLM"], rope_theta=1000000,
                          attn_implementation="eager")
CHATGLM = dict(model_type="chatglm", architectures=["ChatGLMModel"], add_bias_linear=False, add_qkv_bias=True,
               apply_query_key_layer_scaling=True, apply_residual_connection_post_layernorm=False,
               attention_dropout=0.0, attention_softmax_in_fp32=True, bias_dropout_fusion=True,
               fp32_residual_connection=False, hidden_dropout=0.0, layernorm_epsilon=1e-5,
               multi_query_attention=True, original_rope=True, post_layer_norm=True, rmsnorm=True, seq_length=256,
               use_cache=True, torch_dtype="float16", tie_word_embeddings=False, eos_token_id=2, pad_token_id=0)
QWEN = dict(model_type="qwen", architectures=["QWenLMHeadModel"], attn_dropout_prob=0.0, emb_dropout_prob=0.0,
            bf16=False, fp16=False, fp32=True, initializer_range=0.02, layer_norm_epsilon=1e-6, no_bias=True,
            onnx_safe=None, rotary_emb_base=10000, rotary_pct=1.0, scale_attn_weights=True, use_flash_attn=False,
            use_cache=True, tie_word_embeddings=False, max_position_embeddings=8192)


def chatglm(hidden, heads, groups, channels, ffn, vocab, **more):
    return CHATGLM | dict(hidden_size=hidden, num_attention_heads=heads, multi_query_group_num=groups,
                          kv_channels=channels, ffn_hidden_size=ffn, padded_vocab_size=vocab, num_layers=2) | more


def qwen(seq_length, **more):
    return QWEN | dict(hidden_size=48, num_attention_heads=3, kv_channels=16, intermediate_size=72, vocab_size=109,
                       num_hidden_layers=2, seq_length=seq_length) | more


# name: (sources, class of the configuration, class of the model, config.json)
ROWS = {
    "baichuan-7b": ("baichuan7b", "BaiChuanConfig", "BaiChuanForCausalLM", BAICHUAN | sizes(
        56, 4, 76, 131, architectures=["BaiChuanForCausalLM"], max_position_embeddings=256)),
    "baichuan2-7b": ("baichuan7b", "BaiChuanConfig", "BaiChuanForCausalLM", BAICHUAN | sizes(
        48, 4, 68, 103, architectures=["BaichuanForCausalLM"], max_position_embeddings=256, z_loss_weight=0)),
    "baichuan-13b": ("baichuan13b", "BaichuanConfig", "BaichuanForCausalLM", BAICHUAN | sizes(
        60, 6, 82, 127, architectures=["BaichuanForCausalLM"], model_max_length=256)),
    "baichuan2-13b": ("baichuan2", "BaichuanConfig", "BaichuanForCausalLM", BAICHUAN | sizes(
        66, 6, 74, 113, architectures=["BaichuanForCausalLM"], model_max_length=256, z_loss_weight=0)),
    "internlm": ("internlm", "InternLMConfig", "InternLMForCausalLM", COMMON | sizes(
        52, 2, 86, 139, model_type="internlm", architectures=["InternLMForCausalLM"], bias=True,
        max_position_embeddings=256)),
    "internlm-20b": ("internlm", "InternLMConfig", "InternLMForCausalLM", COMMON | sizes(
        44, 2, 70, 107, model_type="internlm", architectures=["InternLMForCausalLM"], bias=False, pretraining_tp=1,
        num_key_value_heads=2, rope_scaling=None, rope_theta=10000.0, max_position_embeddings=256)),
    "internlm2": ("internlm2", "InternLM2Config", "InternLM2ForCausalLM", INTERNLM2 | sizes(
        48, 6, 62, 119, num_key_value_heads=2, bias=False, rope_scaling=None, max_position_embeddings=256)),
    "internlm2-dynamic": ("internlm2", "InternLM2Config", "InternLM2ForCausalLM", INTERNLM2 | sizes(
        40, 4, 58, 101, num_key_value_heads=2, bias=True, rope_scaling=dict(type="dynamic", factor=2.0),
        max_position_embeddings=20)),
    "chatglm3": ("chatglm3", "ChatGLMConfig", "ChatGLMForConditionalGeneration", chatglm(64, 4, 2, 16, 70, 137)),
    "chatglm2": ("chatglm3", "ChatGLMConfig", "ChatGLMForConditionalGeneration", chatglm(
        48, 3, 1, 16, 54, 115, quantization_bit=0, pre_seq_len=None, prefix_projection=False)),
    "glm-4-9b": ("chatglm3", "ChatGLMConfig", "ChatGLMForConditionalGeneration", chatglm(
        64, 4, 2, 20, 66, 123, rope_ratio=500, torch_dtype="bfloat16", eos_token_id=[2, 5, 7],
        layernorm_epsilon=1.5625e-7)),
    "qwen1": ("qwen", "QWenConfig", "QWenLMHeadModel", qwen(256, use_dynamic_ntk=True, use_logn_attn=True)),
    "qwen1-long": ("qwen", "QWenConfig", "QWenLMHeadModel", qwen(10, use_dynamic_ntk=True, use_logn_attn=True)),
    "qwen1-plain": ("qwen", "QWenConfig", "QWenLMHeadModel", qwen(10, use_dynamic_ntk=False, use_logn_attn=False)),
}


def stand_in(name, **names):
    module = types.ModuleType(name)
    module.__dict__.update(names)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    return module


def classes(sources, folder, config_class, model_class):
    """Imports the original files as a package of their own; what is missing beside them is empty."""
    package = f"original_{folder}"
    here = sources / folder
    if package not in sys.modules:
        stand_in(package).__path__ = [str(here)]
        nothing = dict(build_chat_input=None, build_chat_input_batch=None, TextIterStreamer=None)
        if not (here / "generation_utils.py").exists():
            stand_in(f"{package}.generation_utils", **nothing)
        if not any(here.glob("configuration_*.py")):
            stand_in(f"{package}.configuration_baichuan",
                     BaichuanConfig=classes(sources, "baichuan2", "BaichuanConfig", "BaichuanForCausalLM")[0])
    modeling = importlib.import_module(f"{package}.{next(here.glob('modeling_*.py')).stem}")
    return getattr(modeling, config_class), getattr(modeling, model_class)


def draw(model, name):
    """Weights that spread the logits, exact in bf16."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    weights = {}
    for key, old in sorted(model.state_dict().items()):
        if "inv_freq" in key or "rotary" in key:
            continue
        x = rng.standard_normal(tuple(old.shape), dtype=np.float32)
        if key.endswith("bias"):
            x *= 0.3
        elif old.dim() < 2:
            x = 1 + 0.2 * x
        elif "embed" in key or "wte" in key:
            pass
        else:
            sharp = any(k in key for k in ("q_proj", "k_proj", "W_pack", "wqkv", "query_key_value", "c_attn"))
            x *= (1.6 if sharp else 1.0) / np.sqrt(old.shape[1])
        weights[key] = torch.from_numpy(np.asarray(x, np.float32)).to(torch.bfloat16)
    return weights


def scale_base(modeling, ratio):
    """GLM-4-9B's one change to ChatGLM3's rotation."""
    forward = modeling.RotaryEmbedding.forward_impl

    def scaled(self, seq_len, n_elem, dtype, device, base=10000):
        return forward(self, seq_len, n_elem, dtype, device, base * ratio)
    modeling.RotaryEmbedding.forward_impl = scaled
    return lambda: setattr(modeling.RotaryEmbedding, "forward_impl", forward)


def make(sources, out, name):
    folder, config_class, model_class, config = ROWS[name]
    config_of, model_of = classes(sources, folder, config_class, model_class)
    config_of.model_type = config["model_type"]
    settings = {k: v for k, v in config.items() if k not in ("torch_dtype", "model_type", "rope_ratio")}
    settings["torch_dtype"] = torch.float32
    restore = scale_base(sys.modules[model_of.__module__], config["rope_ratio"]) if "rope_ratio" in config else None
    torch.manual_seed(1)
    more = dict(empty_init=False) if folder.startswith("chatglm") else {}
    model = model_of(config_of(**settings), **more).float().eval()
    weights = draw(model, name)
    state = {k: v.float() for k, v in weights.items()}
    if name == "baichuan2-7b":  # Baichuan-7B's code with the head that the second generation normalises
        state["lm_head.weight"] = torch.nn.functional.normalize(state["lm_head.weight"])
    missing = model.load_state_dict(state, strict=False)
    assert all("rotary" in k or "inv_freq" in k for k in missing.missing_keys) and not missing.unexpected_keys, missing
    vocab = config.get("padded_vocab_size", config.get("vocab_size"))
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + 1))
    ids = [int(i) for i in rng.integers(0, vocab, PROMPT + STEPS)]
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False, return_dict=True).logits[0].numpy()
    if restore:
        restore()
    assert logits.dtype == np.float32 and logits.shape == (PROMPT + STEPS, vocab)
    write(out / name, config, weights, ids, logits)


def write(folder, config, weights, ids, logits):
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with open(folder / "golden.bin", "wb") as f:
        f.write(b"LAMGOLD1" + struct.pack("<4I", PROMPT, STEPS, logits.shape[1], len(ids)))
        f.write(np.array(ids, "<i4").tobytes() + logits.astype("<f4").tobytes())
    size = sum(p.stat().st_size for p in folder.iterdir()) / 1024
    print(f"{folder.name}: largest logit {np.abs(logits).max():.2f}, spread {logits.std():.2f}, {size:.0f} KiB")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("sources", type=pathlib.Path)
    ap.add_argument("names", nargs="*")
    ap.add_argument("--out", type=pathlib.Path, default=OUT)
    a = ap.parse_args()
    stand_in("xformers").ops = stand_in("xformers.ops")
    stand_in("accelerate", init_empty_weights=None)
    for name in a.names or ROWS:
        make(a.sources, a.out, name)


if __name__ == "__main__":
    main()
