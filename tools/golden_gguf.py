"""The golden models in GGUF: the tensors' names, the metadata and the order of rows that llama.cpp's converter writes
(its conversion/*.py; names from the gguf package). The reference computes with what the file holds, dequantised.
"""
import dataclasses
import re
import zlib
from collections.abc import Callable

import gguf
import numpy as np
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from golden_core import Row, as_torch, but, fresh, load_plain, random_weights, reference_config, shapes_of, write_golden
from golden_families import (COHERE1, COHERE2, GEMMA1, GEMMA2, GEMMA3, GPT2, GPT_OSS, HUB, LLAMA, MIXTRAL, OLMO2, OLMO3,
                             PHI, PHI3, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE, STABLELM, STARCODER2, V2, V3, YARN_OSS,
                             alternating, deepseek_moe, experts_apart, falcon, family, longrope, mla, neox, new,
                             next_token_layer, old, sizes)

Q = gguf.GGMLQuantizationType
ARCHS = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
ALWAYS_F32 = ("_norm.weight", "_norm_2.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight",
              "position_embd.weight", ".bias")


@dataclasses.dataclass
class Gguf:
    arch: str
    types: list  # of the matrices in turn, where their rows have a multiple of 32
    row: Row
    steps: tuple = ()             # each (tensors, configuration) -> tensors, from the checkpoint's to the file's
    keys: Callable | None = None  # metadata of this architecture
    common: Callable | None = None  # instead of common_keys
    plus_one: bool = False        # the file has norm weights with the 1 that the model adds


# ---- from the checkpoint's tensors to the file's: {name: elements}; an element is a number that tells whence it came

def neighbours(tensors, c):
    """Some architectures keep rows of q and k so that the halves of a head are neighbours."""
    def order(name, x):
        heads = c.num_attention_heads if "q_proj" in name else c.num_key_value_heads
        return np.moveaxis(x.reshape(heads, 2, -1, *x.shape[1:]), 1, 2).reshape(x.shape)
    return {n: order(n, x) if "q_proj" in n or "k_proj" in n else x for n, x in tensors.items()}


def together(pattern, tensors):
    """Tensors of names with a number in them become one, stacked."""
    out, stacks = {}, {}
    for name, x in tensors.items():
        found = re.fullmatch(pattern, name)
        if found:
            stacks.setdefault(found[1] + found[3], {})[int(found[2])] = x
        else:
            out[name] = x
    return out | {name: np.stack([x[i] for i in sorted(x)]) for name, x in stacks.items()}


def experts_together(tensors, c):
    return together(r"(.*experts)\.(\d+)(\..*)", tensors)


def norms_of_heads_together(tensors, c):
    return together(r"(.*_layernorm)\.norms\.(\d+)(\.weight)", tensors)


def correction(tensors, c):
    return {n.replace("e_score_correction_bias", "e_score_correction.bias"): x for n, x in tensors.items()}


def latent_apart(tensors, c):
    """kv_b becomes k_b, transposed for each head, and v_b."""
    out = {}
    for name, x in tensors.items():
        if "kv_b_proj" in name:
            x = x.reshape(c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim, -1)
            out[name.replace("kv_b_proj", "k_b_proj")] = x[:, :c.qk_nope_head_dim].transpose(0, 2, 1)
            out[name.replace("kv_b_proj", "v_b_proj")] = x[:, c.qk_nope_head_dim:]
        else:
            out[name] = x
    return out


def parts_together(groups, tensors, c):
    """Rows of query_key_value, grouped as queries, a key, a value, become all queries, all keys, all values."""
    def order(x):
        x = x.reshape(groups, -1, head_width(c), *x.shape[1:])
        parts = x[:, :-2], x[:, -2:-1], x[:, -1:]
        return np.concatenate([p.reshape(-1, *x.shape[3:]) for p in parts])
    return {n: order(x) if "query_key_value" in n else x for n, x in tensors.items()}


def falcon_parts(tensors, c):
    return parts_together(c.num_kv_heads, tensors, c)


def neox_parts(tensors, c):
    return parts_together(c.num_attention_heads, tensors, c)


def one_matrix_for_qkv(tensors, c):
    out = {}
    for name, x in tensors.items():
        if "q_proj" in name:
            x = np.concatenate([tensors[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")])
            name = name.replace("self_attn.q_proj", "self_attn.qkv_proj")
        if ".k_proj" not in name and ".v_proj" not in name:
            out[name] = x
    return out


def transposed(tensors, c):
    return {n: x.T if x.ndim == 2 and re.search("c_attn|c_proj|c_fc", n) else x for n, x in tensors.items()}


def gpt_oss_experts(tensors, c):
    """[expert, in, out] becomes [expert, out, in]; gate and up, interleaved, become two."""
    out = {}
    for name, x in tensors.items():
        stem, kind = re.sub(r"_bias$", "", name), ".bias" if name.endswith("_bias") else ".weight"
        x = x.transpose(0, 2, 1) if x.ndim == 3 else x
        if stem.endswith("gate_up_proj"):
            out[stem.replace("gate_up_proj", "gate_proj") + kind] = x[:, 0::2]
            out[stem.replace("gate_up_proj", "up_proj") + kind] = x[:, 1::2]
        elif stem.endswith("experts.down_proj"):
            out[stem + kind] = x
        else:
            out[name + ".weight" if name.endswith("sinks") else name] = x
    return out


# ---- metadata --------------------------------------------------------------------------------------------------------

def rope_keys(w, rope):
    kind = rope["rope_type"]
    if kind == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (("attention_factor", w.add_rope_scaling_yarn_attn_factor),
                         ("beta_fast", w.add_rope_scaling_yarn_beta_fast),
                         ("beta_slow", w.add_rope_scaling_yarn_beta_slow)):
            if rope.get(key) is not None:
                add(rope[key])


def plain_keys(w, c, config, length=None, more_layers=0, wide=1):
    """What every architecture has."""
    w.add_block_count(c.num_hidden_layers + more_layers)
    w.add_context_length(length or c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(wide * (getattr(c, "intermediate_size", None) or 4 * c.hidden_size))
    w.add_head_count(c.num_attention_heads)
    if config.get("num_key_value_heads"):
        w.add_head_count_kv(c.num_key_value_heads)


def common_keys(w, c, config, more_layers=0):
    plain_keys(w, c, config, more_layers=more_layers)
    if config.get("head_dim"):
        w.add_key_length(config["head_dim"])
        w.add_value_length(config["head_dim"])
    if config.get("rms_norm_eps"):
        w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    epsilon = [config[k] for k in ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon") if k in config]
    if epsilon:
        w.add_layer_norm_eps(epsilon[0])
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    w.add_rope_freq_base(rope["rope_theta"])
    rope_keys(w, rope)
    if rope["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_divisors(c))
    experts = [config[k] for k in ("num_local_experts", "num_experts", "n_routed_experts") if k in config]
    if experts:
        w.add_expert_count(experts[0])
        w.add_expert_used_count(config["num_experts_per_tok"])
    for key, add in (("n_group", w.add_expert_group_count), ("topk_group", w.add_expert_group_used_count)):
        if key in config:
            add(config[key])
    if config.get("scoring_func"):
        w.add_expert_gating_func(gguf.ExpertGatingFuncType[config["scoring_func"].upper()])


def head_width(c):
    return getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads


def llama3_divisors(c):
    """What each plain frequency is divided by."""
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](c)
    plain, _ = LlamaRotaryEmbedding.compute_default_rope_parameters(c)
    return (plain.double() / scaled.double()).float().numpy()


def llama_keys(w, c):
    w.add_rope_dimension_count(head_width(c))
    w.add_vocab_size(c.vocab_size)


def ministral3_keys(w, c):
    llama_keys(w, c)
    w.add_rope_scaling_yarn_log_mul(c.rope_parameters["mscale_all_dim"])
    w.add_attn_temperature_scale(c.rope_parameters["llama_4_scaling_beta"])


def qwen1_common(w, c, config):
    """The feed-forward is counted with both of its matrices; nothing says that one rule for long contexts is another."""
    plain_keys(w, c, config | dict(num_key_value_heads=None), wide=2)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_rope_dimension_count(head_width(c))
    w.add_layer_norm_rms_eps(c.rms_norm_eps)


def granite_keys(w, c):
    llama_keys(w, c)
    w.add_attention_scale(c.attention_multiplier)
    w.add_embedding_scale(c.embedding_multiplier)
    w.add_residual_scale(c.residual_multiplier)
    w.add_logit_scale(c.logits_scaling)


def exaone4_keys(w, c):
    w.add_vocab_size(c.vocab_size)
    window_keys(w, c)


def window_keys(w, c):
    w.add_sliding_window(c.sliding_window)
    w.add_sliding_window_pattern([kind == "sliding_attention" for kind in c.layer_types])


def olmo3_keys(w, c):
    window_keys(w, c)
    w.add_rope_freq_base_swa(c.rope_parameters["sliding_attention"]["rope_theta"])


def hunyuan_common(w, c, config):
    plain_keys(w, c, config, length=1 << 18)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    rope = c.rope_parameters
    w.add_rope_freq_base(rope["rope_theta"] * rope["alpha"] ** (c.head_dim / (c.head_dim - 2)))
    w.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    w.add_rope_scaling_factor(1)
    w.add_rope_scaling_orig_ctx_len(1 << 18)


def gemma_common(w, c, config):
    plain_keys(w, c, config)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)


def gemma2_keys(w, c):
    w.add_attn_logit_softcapping(c.attn_logit_softcapping)
    w.add_final_logit_softcapping(c.final_logit_softcapping)
    w.add_sliding_window(c.sliding_window)


def rotary_of(c):
    return int(c.rope_parameters["partial_rotary_factor"] * head_width(c))


def phi2_common(w, c, config):
    plain_keys(w, c, config)
    w.add_layer_norm_eps(c.layer_norm_eps)
    w.add_rope_dimension_count(rotary_of(c))


def gemma3_common(w, c, config):
    gemma_common(w, c, config)
    w.add_rope_freq_base(c.rope_parameters["full_attention"]["rope_theta"])
    w.add_rope_freq_base_swa(c.rope_parameters["sliding_attention"]["rope_theta"])
    rope_keys(w, c.rope_parameters["full_attention"])
    w.add_sliding_window(c.sliding_window)


def phi3_common(w, c, config):
    plain_keys(w, c, config)
    rope = c.rope_parameters
    w.add_rope_scaling_orig_ctx_len(c.original_max_position_embeddings)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_dimension_count(rotary_of(c))
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_sliding_window(c.sliding_window or 0)
    if rope["rope_type"] == "longrope":
        _, factor = ROPE_INIT_FUNCTIONS["longrope"](c)
        w.add_rope_scaling_attn_factors(factor)
        w.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
        w.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))


def cohere_keys(w, c):
    w.add_logit_scale(c.logit_scale)
    w.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def cohere2_keys(w, c):
    cohere_keys(w, c)
    w.add_sliding_window(c.sliding_window)
    w.add_vocab_size(c.vocab_size)
    w.add_rope_dimension_count(c.head_dim)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)


def stablelm_common(w, c, config):
    plain_keys(w, c, config)
    w.add_rope_dimension_count(rotary_of(c))
    w.add_parallel_residual(c.use_parallel_residual)
    w.add_layer_norm_eps(c.layer_norm_eps)


def falcon_common(w, c, config):
    plain_keys(w, c, config)
    w.add_tensor_data_layout("jploski")
    w.add_head_count_kv(c.num_kv_heads)
    w.add_layer_norm_eps(c.layer_norm_epsilon)


def neox_common(w, c, config):
    plain_keys(w, c, config)
    w.add_rope_dimension_count(rotary_of(c))
    w.add_parallel_residual(c.use_parallel_residual)
    w.add_layer_norm_eps(c.layer_norm_eps)


def gpt2_common(w, c, config):
    plain_keys(w, c, config)
    w.add_layer_norm_eps(c.layer_norm_epsilon)


def chatglm_common(w, c, config):
    plain_keys(w, c, config)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_dimension_count(rotary_of(c))
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])


def glm_keys(w, c):
    w.add_rope_dimension_count(rotary_of(c))


def moe_keys(w, c):
    w.add_leading_dense_block_count(c.first_k_dense_replace)
    w.add_expert_feed_forward_length(c.moe_intermediate_size)
    w.add_expert_shared_count(c.n_shared_experts)
    w.add_expert_weights_scale(c.routed_scaling_factor)
    if c.norm_topk_prob:
        w.add_expert_weights_norm(True)


def glm4_moe_keys(w, c):
    glm_keys(w, c)
    moe_keys(w, c)
    w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    w.add_nextn_predict_layers(1)


def glm4_moe_common(w, c, config):
    """Blocks are counted with the layer that predicts one token more, whose tensors are there too."""
    common_keys(w, c, config, more_layers=1)


def deepseek_common(w, c, config):
    """One head of keys, the latent and the rope part, for all queries; the model's own widths are the "mla" ones."""
    latent_keys(w, c, config, 1, c.kv_lora_rank + c.qk_rope_head_dim, c.kv_lora_rank)
    w.add_key_length_mla(c.qk_nope_head_dim + c.qk_rope_head_dim)
    w.add_value_length_mla(c.v_head_dim)


def deepseek_before_mla_common(w, c, config):
    """Files from before April 2025 keep kv_b whole, and say nothing of what the router does."""
    latent_keys(w, c, config, c.num_attention_heads, c.qk_nope_head_dim + c.qk_rope_head_dim, c.v_head_dim)


def latent_keys(w, c, config, heads, key, value):
    common_keys(w, c, config | dict(num_key_value_heads=None))
    w.add_head_count_kv(heads)
    w.add_key_length(key)
    w.add_value_length(value)
    w.add_vocab_size(c.vocab_size)
    if c.q_lora_rank is not None:
        w.add_q_lora_rank(c.q_lora_rank)
    w.add_kv_lora_rank(c.kv_lora_rank)
    w.add_rope_dimension_count(c.qk_rope_head_dim)
    if c.rope_parameters.get("mscale_all_dim"):
        w.add_rope_scaling_yarn_log_mul(0.1 * c.rope_parameters["mscale_all_dim"])


def qwen_moe_keys(w, c):
    w.add_expert_feed_forward_length(c.moe_intermediate_size)
    if hasattr(c, "shared_expert_intermediate_size"):
        w.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)


def gpt_oss_keys(w, c):
    w.add_sliding_window(c.sliding_window)
    w.add_expert_feed_forward_length(c.intermediate_size)


# ---- the table -------------------------------------------------------------------------------------------------------

GRIDS = [Q.IQ4_NL, Q.IQ4_XS, Q.IQ2_XXS, Q.IQ2_XS, Q.IQ2_S, Q.IQ3_XXS, Q.IQ3_S, Q.IQ1_S, Q.IQ1_M, Q.TQ1_0, Q.TQ2_0,
         Q.NVFP4]
MIX = [Q.Q8_0, Q.BF16, Q.F16]
YARN = dict(type="yarn", factor=4, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.707,
            original_max_position_embeddings=24)

GGUFS = {
    "gguf-llama": Gguf("llama", [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.F16, Q.BF16, Q.F32],
                       Row(LLAMA | sizes(96, 6, 2, 160, 211, 3, head_dim=32) | new()), (neighbours,), llama_keys),
    "gguf-llama3": Gguf("llama", [Q.Q8_0], Row(
        LLAMA | sizes(64, 2, 1, 128, 131, 2, head_dim=48, tie_word_embeddings=True)
        | new(kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=256) | dict(max_position_embeddings=2048)), (neighbours,), llama_keys),
    "gguf-llama-k": Gguf("llama", [Q.Q6_K, Q.Q4_K, Q.Q5_K, Q.Q3_K, Q.Q2_K, Q.Q5_0, Q.Q5_1], Row(
        LLAMA | sizes(256, 4, 1, 256, 101, 2, head_dim=64) | new()), (neighbours,), llama_keys),
    "gguf-phi3-k": Gguf("phi3", [Q.Q4_K, Q.Q6_K, Q.Q3_K], Row(
        PHI3 | old() | sizes(256, 4, 1, 256, 67, 1, original_max_position_embeddings=256)), common=phi3_common),
    "gguf-qwen3moe-k": Gguf("qwen3moe", [Q.Q4_K, Q.Q6_K, Q.Q2_K, Q.Q5_K], Row(
        QWEN3_MOE | dict(rope_theta=1e6)
        | sizes(256, 4, 2, 256, 69, 1, head_dim=64, moe_intermediate_size=256, num_experts=3, num_experts_per_tok=2,
                norm_topk_prob=True), hub=HUB), (experts_together,), qwen_moe_keys),
    "gguf-grids": Gguf("llama", GRIDS, Row(LLAMA | sizes(256, 4, 1, 256, 67, 2, head_dim=64) | new()), (neighbours,),
                       llama_keys),
    "gguf-qwen2": Gguf("qwen2", [Q.Q4_0, Q.F16], Row(
        QWEN2 | sizes(64, 5, 1, 96, 127, 2, head_dim=32, use_sliding_window=False) | new(theta=1e6)), (), llama_keys),
    "gguf-qwen3": Gguf("qwen3", [Q.Q8_0, Q.Q4_1], Row(
        QWEN3 | sizes(64, 6, 3, 96, 137, 2, head_dim=32) | new(theta=1e6)), (), llama_keys),
    "gguf-internlm2": Gguf("internlm2", MIX, Row(LLAMA | sizes(32, 4, 2, 40, 71, 2) | old(theta=1e6)), (neighbours,)),
    "gguf-mistral3": Gguf("mistral3", MIX, Row(
        family("ministral3", "Ministral3ForCausalLM", LLAMA)
        | new(kind="yarn", theta=1e6, factor=4.0, original_max_position_embeddings=8, beta_fast=32.0, beta_slow=1.0,
              mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)
        | sizes(32, 4, 2, 40, 73, 2, head_dim=16)), (neighbours,), ministral3_keys),
    "gguf-qwen": Gguf("qwen", MIX, Row(
        QWEN2 | sizes(32, 4, 4, 40, 69, 2, use_sliding_window=False) | old(theta=1e4)), (one_matrix_for_qkv,),
        common=qwen1_common),
    "gguf-internlm3": Gguf("llama", MIX, Row(
        family("internlm3", "InternLM3ForCausalLM", LLAMA) | old(theta=5e4)
        | sizes(32, 4, 2, 40, 67, 2, head_dim=12, qkv_bias=True, bias=True)), (neighbours,), llama_keys),
    "gguf-smollm3": Gguf("smollm3", MIX, Row(
        family("smollm3", "SmolLM3ForCausalLM", LLAMA, tie_word_embeddings=True) | old(theta=5e6)
        | sizes(32, 4, 2, 44, 61, 5)), (neighbours,), llama_keys),
    "gguf-arcee": Gguf("arcee", MIX, Row(
        family("arcee", "ArceeForCausalLM", LLAMA, hidden_act="relu2") | old() | sizes(64, 4, 2, 96, 71, 2, head_dim=32)),
        (neighbours,), llama_keys),
    "gguf-granite": Gguf("granite", MIX, Row(
        family("granite", "GraniteForCausalLM", LLAMA, tie_word_embeddings=True) | old()
        | sizes(32, 4, 2, 36, 71, 2, embedding_multiplier=3.5, attention_multiplier=0.19, residual_multiplier=0.72,
                logits_scaling=0.4)), (neighbours,), granite_keys),
    "gguf-seed-oss": Gguf("seed_oss", MIX, Row(
        family("seed_oss", "SeedOssForCausalLM", LLAMA) | old(theta=1e7)
        | sizes(32, 5, 1, 44, 69, 2, head_dim=16, attention_bias=True, attention_out_bias=False))),
    "gguf-ernie": Gguf("ernie4_5", MIX, Row(
        family("ernie4_5", "Ernie4_5ForCausalLM", LLAMA, tie_word_embeddings=True) | old(theta=5e5)
        | sizes(32, 4, 2, 44, 65, 2, head_dim=12, use_bias=False))),
    "gguf-hunyuan": Gguf("hunyuan-dense", MIX, Row(
        family("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", LLAMA, tie_word_embeddings=True)
        | old(alpha=40.0, factor=1.0, type="dynamic") | sizes(32, 5, 1, 44, 71, 2, head_dim=16)),
        common=hunyuan_common),
    "gguf-exaone4": Gguf("exaone4", MIX, Row(
        family("exaone4", "Exaone4ForCausalLM", LLAMA)
        | old(theta=1e6, rope_type="llama3", factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
        | sizes(32, 4, 2, 44, 73, 4, head_dim=16, sliding_window=7, sliding_window_pattern="LLLG",
                layer_types=alternating("LLLG", 4))), keys=exaone4_keys),
    "gguf-chatglm": Gguf("chatglm", MIX, Row(
        family("glm", "GlmForCausalLM", LLAMA) | old()
        | sizes(64, 4, 2, 40, 73, 2, head_dim=16, attention_bias=True, partial_rotary_factor=0.5)),
        (one_matrix_for_qkv,), common=chatglm_common),
    "gguf-glm": Gguf("chatglm", MIX, Row(
        family("glm", "GlmForCausalLM", LLAMA) | old()
        | sizes(64, 4, 2, 36, 71, 2, attention_bias=True, head_dim=16, partial_rotary_factor=0.5)),
        common=chatglm_common),
    "gguf-glm4": Gguf("glm4", MIX, Row(
        family("glm4", "Glm4ForCausalLM", LLAMA) | old()
        | sizes(32, 4, 2, 40, 69, 2, head_dim=16, attention_bias=True, partial_rotary_factor=0.5)), keys=glm_keys),
    "gguf-gemma": Gguf("gemma", MIX, Row(
        GEMMA1 | old() | sizes(32, 4, 1, 44, 73, 2, head_dim=16, tie_word_embeddings=True), norm=0.0),
        common=gemma_common, plus_one=True),
    "gguf-gemma2": Gguf("gemma2", MIX, Row(
        GEMMA2 | old() | sizes(32, 4, 2, 44, 71, 3, head_dim=12, query_pre_attn_scalar=12, sliding_window=7,
                               tie_word_embeddings=True), norm=0.0),
        keys=gemma2_keys, common=gemma_common, plus_one=True),
    "gguf-gemma3": Gguf("gemma3", MIX, Row(
        GEMMA3 | dict(rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=dict(factor=8.0, rope_type="linear"))
        | sizes(32, 4, 2, 36, 67, 7, head_dim=12, query_pre_attn_scalar=12, sliding_window=6, sliding_window_pattern=6,
                tie_word_embeddings=True), norm=0.0), common=gemma3_common, plus_one=True),
    "gguf-phi2": Gguf("phi2", MIX, Row(
        family("phi", "PhiForCausalLM", PHI) | old() | sizes(32, 4, 4, 128, 67, 2, partial_rotary_factor=0.5)),
        common=phi2_common),
    "gguf-phi3": Gguf("phi3", MIX, Row(
        PHI3 | old() | sizes(32, 4, 4, 48, 67, 2, original_max_position_embeddings=256)), common=phi3_common),
    "gguf-phi3-long": Gguf("phi3", MIX, Row(
        PHI3 | old(**longrope(3, type="longrope"))
        | sizes(32, 4, 2, 48, 65, 2, original_max_position_embeddings=20, partial_rotary_factor=0.75,
                tie_word_embeddings=True) | dict(max_position_embeddings=640)), common=phi3_common),
    "gguf-olmo2": Gguf("olmo2", MIX, Row(OLMO2 | old(theta=5e5) | sizes(32, 4, 2, 44, 69, 2))),
    "gguf-olmo3": Gguf("olmo2", MIX, Row(
        OLMO3 | old(theta=5e5, rope_type="yarn", factor=8.0, original_max_position_embeddings=32,
                    attention_factor=1.2079441541679836, beta_fast=32, beta_slow=1)
        | sizes(32, 4, 4, 44, 67, 4, sliding_window=7, layer_types=alternating("LLLG", 4))), keys=olmo3_keys),
    "gguf-command-r": Gguf("command-r", MIX, Row(
        COHERE1 | old(theta=8e6)
        | sizes(32, 4, 2, 44, 69, 2, logit_scale=0.3, use_qk_norm=True, tie_word_embeddings=True)), keys=cohere_keys),
    "gguf-cohere2": Gguf("cohere2", MIX, Row(
        COHERE2 | old(theta=5e4)
        | sizes(32, 4, 2, 40, 67, 4, logit_scale=0.5, sliding_window=7, sliding_window_pattern=4,
                tie_word_embeddings=True)), keys=cohere2_keys),
    "gguf-stablelm": Gguf("stablelm", MIX, Row(
        STABLELM | sizes(32, 4, 2, 44, 67, 2, use_qkv_bias=True, partial_rotary_factor=0.25, rope_theta=10000)),
        common=stablelm_common),
    "gguf-stablelm-12b": Gguf("stablelm", MIX, Row(
        STABLELM | sizes(32, 4, 2, 44, 65, 2, qk_layernorm=True, use_parallel_residual=True, partial_rotary_factor=0.25,
                         rope_theta=10000)), (norms_of_heads_together,), common=stablelm_common),
    "gguf-starcoder2": Gguf("starcoder2", MIX, Row(
        STARCODER2 | old(theta=1e5) | sizes(32, 4, 2, 96, 69, 2, use_bias=True, tie_word_embeddings=True))),
    "gguf-falcon": Gguf("falcon", MIX, Row(falcon(32, 4, 67, 2, num_kv_heads=2, new_decoder_architecture=True)),
                        (falcon_parts,), common=falcon_common),
    "gguf-falcon-7b": Gguf("falcon", MIX, Row(falcon(32, 4, 65, 2, num_kv_heads=1, new_decoder_architecture=False)),
                           (falcon_parts,), common=falcon_common),
    "gguf-gptneox": Gguf("gptneox", MIX, Row(neox(32, 4, 96, 67, 2, rotary_emb_base=10000, rotary_pct=0.25,
                                                  use_parallel_residual=True)), (neox_parts,), common=neox_common),
    "gguf-gpt2": Gguf("gpt2", MIX, Row(GPT2 | dict(n_embd=32, n_layer=2, n_head=4, n_positions=40, vocab_size=69),
                                       conv1d=True, rules=[("wpe", 0.3)]), (transposed,), common=gpt2_common),
    "gguf-mixtral": Gguf("llama", MIX, Row(
        MIXTRAL | dict(rope_theta=1e6) | sizes(32, 4, 2, 40, 67, 2, num_local_experts=4, num_experts_per_tok=2),
        hub=experts_apart("w1", "w3", "w2", "block_sparse_moe")), (neighbours, experts_together), llama_keys),
    "gguf-qwen2moe": Gguf("qwen2moe", MIX, Row(
        QWEN2_MOE | dict(rope_theta=1e6)
        | sizes(32, 4, 2, 44, 67, 2, moe_intermediate_size=16, shared_expert_intermediate_size=40, num_experts=5,
                num_experts_per_tok=2, norm_topk_prob=False), hub=HUB), (experts_together,), qwen_moe_keys),
    "gguf-qwen3moe": Gguf("qwen3moe", MIX, Row(
        QWEN3_MOE | dict(rope_theta=1e6)
        | sizes(32, 4, 2, 44, 69, 2, head_dim=12, moe_intermediate_size=32, num_experts=6, num_experts_per_tok=3,
                norm_topk_prob=True), hub=HUB), (experts_together,), qwen_moe_keys),
    "gguf-olmoe": Gguf("olmoe", MIX, Row(
        family("olmoe", "OlmoeForCausalLM", LLAMA) | old()
        | sizes(32, 4, 4, 16, 67, 2, num_experts=5, num_experts_per_tok=2, norm_topk_prob=False), hub=HUB),
        (experts_together,)),
    "gguf-deepseek2": Gguf("deepseek2", MIX, Row(
        V3 | mla(32, 32, 16, 8, 12) | deepseek_moe(8, 3, 16, 1, 1, 2, 1, 2.5) | sizes(32, 4, 4, 48, 69, 2) | old(**YARN)
        | dict(max_position_embeddings=96), hub=HUB), (experts_together, latent_apart, correction), moe_keys,
        deepseek_common),
    "gguf-deepseek2-lite": Gguf("deepseek2", MIX, Row(
        V2 | mla(None, 32, 16, 8, 12) | deepseek_moe(6, 3, 16, 2, 1, 1, 1, 1.0) | old(**YARN)
        | sizes(32, 4, 4, 48, 67, 2, topk_method="greedy") | dict(max_position_embeddings=96), hub=HUB),
        (experts_together, latent_apart), moe_keys, deepseek_common),
    "gguf-deepseek2-old": Gguf("deepseek2", MIX, Row(
        but(V2, "scoring_func") | mla(32, 32, 16, 8, 12) | old(**YARN)
        | but(deepseek_moe(6, 3, 16, 2, 1, 1, 1, 16.0), "n_group", "topk_group")
        | sizes(32, 4, 4, 48, 65, 2, topk_method="greedy") | dict(max_position_embeddings=96), hub=HUB),
        (experts_together,), moe_keys, deepseek_before_mla_common),
    "gguf-glm4moe": Gguf("glm4moe", MIX, Row(
        family("glm4_moe", "Glm4MoeForCausalLM", LLAMA) | deepseek_moe(6, 2, 16, 1, 1, 1, 1, 1.5) | old(theta=1e6)
        | sizes(32, 4, 2, 44, 67, 2, head_dim=16, attention_bias=True, use_qk_norm=True, norm_topk_prob=True,
                partial_rotary_factor=0.5), hub=HUB, extras=next_token_layer(2, 32, 67, 64)),
        (experts_together, correction), glm4_moe_keys, glm4_moe_common),
    "gguf-gpt-oss": Gguf("gpt-oss", [Q.MXFP4, Q.BF16], Row(
        GPT_OSS | old(theta=150000, **YARN_OSS)
        | sizes(32, 4, 2, 64, 67, 2, head_dim=24, num_local_experts=4, sliding_window=7, swiglu_limit=7.0,
                layer_types=alternating("LG", 2)), rules=[("sinks", 1.0)]), (gpt_oss_experts,), gpt_oss_keys),
}


# ---- writing and reading ---------------------------------------------------------------------------------------------

def file_names(tensors, arch, layers):
    names = gguf.get_tensor_name_map(ARCHS[arch], layers)
    out = {names.get_name(name, try_suffixes=(".weight", ".bias")): x for name, x in tensors.items()}
    assert None not in out and len(out) == len(tensors), sorted(tensors)
    return out


def kind_of(name, x, types, matrices):
    if x.ndim < 2 or name.endswith(ALWAYS_F32):
        return Q.F32
    kind = types[matrices % len(types)]
    if kind == Q.MXFP4 and "_exps" not in name:
        kind = Q.Q8_0
    return kind if x.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else Q.F16


def grid_blocks(x, kind, seed):
    """Blocks of codebooks and levels, any but for their scales, whose elements spread as those of x do."""
    rng = np.random.Generator(np.random.PCG64(seed))
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (x.size // elements, size), np.uint8)

    def with_scale(d):
        """d [blocks]"""
        if kind == Q.NVFP4:
            blocks[:, :4] = gguf.quants.NVFP4.fp32_to_ue4m3(2 * d)[:, None]
            return blocks
        half = d.astype(np.float16).view(np.uint16)
        if kind == Q.IQ1_M:  # in the upper nibbles of four words
            for i in range(4):
                blocks[:, 49 + 2 * i] = (blocks[:, 49 + 2 * i] & 15) | (half >> 4 * i & 15) << 4
        else:
            at = size - 2 if kind in (Q.TQ1_0, Q.TQ2_0) else 0
            blocks[:, at:at + 2] = half.view(np.uint8).reshape(-1, 2)
        return blocks

    ones = np.ones(len(blocks), np.float32)
    scale = x.std() / gguf.quants.dequantize(with_scale(ones), kind).std()
    return with_scale(ones * scale * rng.uniform(0.5, 1.5, len(blocks)).astype(np.float32)).reshape(*x.shape[:-1], -1)


# Where a block has d and dmin; the mean of its numbers, by which dmin is to be larger than d for the elements' mean to be 0.
RANDOM_BLOCKS = {Q.Q5_0: (0, None, 0), Q.Q5_1: (0, 2, -15.5), Q.Q2_K: (80, 82, 1.5), Q.Q3_K: (108, None, 0),
                 Q.Q4_K: (0, 2, 7.5), Q.Q5_K: (0, 2, 15.5), Q.Q6_K: (208, None, 0)}


def blocks_of(x, kind, random):
    """What the file holds for x. Types that the gguf package cannot write get blocks whose numbers and scales are any,
    whose elements spread as those of x do: to compare with, they are as good."""
    if kind not in RANDOM_BLOCKS:
        return gguf.quants.quantize(x, kind)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    at_d, at_min, mean = RANDOM_BLOCKS[kind]
    blocks = random.integers(0, 256, (x.size // elements, size), np.uint8)

    def scaled(d):
        for at, y in ((at_d, d), (at_min, d * mean)):
            if at is not None:
                blocks[:, at:at + 2] = y.astype(np.float16).view(np.uint8).reshape(-1, 2)
        return gguf.quants.dequantize(blocks, kind)

    spread = random.uniform(0.5, 1.5, len(blocks)).astype(np.float32)
    scaled(spread * (x.std() / scaled(spread).std()))
    return blocks.reshape(*x.shape[:-1], -1)


def make_gguf(out, name, row):
    folder = fresh(out, name)
    c = reference_config(row.row)
    shapes = row.row.hub(shapes_of(c)) | row.row.extras
    weights = random_weights(shapes, zlib.crc32(name.encode()), c.tie_word_embeddings, row.row)
    places, at = {}, 0
    for n, x in weights.items():
        places[n] = np.arange(at, at + x.size).reshape(x.shape)
        at += x.size
    for step in row.steps:
        places = step(places, c)
    places = file_names(places, row.arch, c.num_hidden_layers + 1)
    values = np.concatenate([x.reshape(-1) for x in weights.values()])
    kept = np.sort(np.concatenate([x.reshape(-1) for x in places.values()]))
    assert np.array_equal(kept, np.arange(at)), f"the file of {name} lacks some of the weights"

    w = gguf.GGUFWriter(folder / "model.gguf", row.arch)
    (row.common or common_keys)(w, c, row.row.config)
    if row.keys:
        row.keys(w, c)
    matrices, shift = 0, {n: 1.0 if row.plus_one and n.endswith("norm.weight") else 0.0 for n in places}
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    for n, where in places.items():
        kind = kind_of(n, where, row.types, matrices)
        matrices += where.ndim > 1
        x = np.ascontiguousarray((values[where] + shift[n]).astype(np.float32))
        seed = zlib.crc32(n.encode())
        w.add_tensor(n, grid_blocks(x, kind, seed) if kind in GRIDS else blocks_of(x, kind, random), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

    for t in gguf.GGUFReader(folder / "model.gguf").tensors:
        if t.name in places:
            x = gguf.quants.dequantize(t.data, t.tensor_type).reshape(places[t.name].shape)
            values[places[t.name]] = x.astype(np.float32) - np.float32(shift[t.name])
    at = 0
    for n, x in weights.items():
        weights[n] = values[at:at + x.size].reshape(x.shape)
        at += x.size
    write_golden(folder, name, load_plain(as_torch(weights), row.row, c))
