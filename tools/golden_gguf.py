"""The golden models in GGUF: the tensors' names, the metadata and the order of rows that llama.cpp's converter writes.

The reference computes with what the file holds, dequantised.
"""
import zlib

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from golden_core import fresh, random_weights, shapes_of, write_golden
from golden_families import LLAMA, QWEN2, QWEN3, new, sizes

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


def make_gguf(out, name, row):
    config, arch, types = row
    folder = fresh(out, name)
    hf = AutoConfig.for_model(**config)
    shapes = shapes_of(hf)
    weights = random_weights(shapes, zlib.crc32(name.encode()), config["tie_word_embeddings"])
    write_gguf(folder / "model.gguf", config, arch, types, weights)
    model = AutoModelForCausalLM.from_config(hf, dtype=torch.float32, attn_implementation="eager").eval()
    result = model.load_state_dict(read_gguf(folder / "model.gguf", config, arch, shapes), strict=False)
    assert not result.unexpected_keys and set(result.missing_keys) <= {"lm_head.weight"}, result
    model.tie_weights()
    write_golden(folder, name, model)
