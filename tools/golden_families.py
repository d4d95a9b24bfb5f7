"""The golden models in safetensors: one row each, families in the order of README's table."""
import functools
import re

import torch

from golden_core import Row, but
from golden_packed import bnb_four_bits, bnb_int8, fp8_blocks, fp8_scaled, mxfp4_experts

LONG = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def sizes(hidden, heads, kv, ffn, vocab, layers, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=ffn,
                vocab_size=vocab, num_hidden_layers=layers, **more)


def old(theta=10000.0, dtype="bf16", **scaling):
    """Before transformers 5."""
    return dict(rope_theta=theta, torch_dtype=LONG[dtype], rope_scaling=scaling or None)


def new(theta=10000.0, dtype="bf16", kind="default", **scaling):
    """Since transformers 5."""
    return dict(dtype=LONG[dtype], rope_parameters=dict(rope_theta=theta, rope_type=kind, **scaling))


def alternating(pattern, layers):
    """'LG': local, global, local, ..."""
    return [("sliding_attention" if pattern[i % len(pattern)] == "L" else "full_attention") for i in range(layers)]


def family(model_type, architecture, base, **more):
    return base | dict(model_type=model_type, architectures=[architecture]) | more


LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
             bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, max_position_embeddings=256)
MISTRAL = family("mistral", "MistralForCausalLM", LLAMA)
QWEN2 = family("qwen2", "Qwen2ForCausalLM", LLAMA, rms_norm_eps=1e-6)
QWEN3 = family("qwen3", "Qwen3ForCausalLM", QWEN2, attention_bias=False)
FP8 = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[128, 128])
BNB4 = dict(quant_method="bitsandbytes", _load_in_4bit=True, _load_in_8bit=False, load_in_4bit=True, load_in_8bit=False,
            bnb_4bit_compute_dtype="bfloat16", bnb_4bit_quant_storage="uint8", llm_int8_threshold=6.0,
            llm_int8_skip_modules=None, llm_int8_has_fp16_weight=False, llm_int8_enable_fp32_cpu_offload=False)
NF4 = BNB4 | dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
FP4 = BNB4 | dict(bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=False)
INT8 = BNB4 | dict(_load_in_4bit=False, _load_in_8bit=True, load_in_4bit=False, load_in_8bit=True)


def compressed(strategy, dynamic):
    """What llm-compressor writes of FP8."""
    of = dict(num_bits=8, type="float", symmetric=True, group_size=None, block_structure=None, actorder=None)
    group = dict(targets=["Linear"], weights=of | dict(strategy=strategy, dynamic=False, observer="minmax"),
                 input_activations=of | dict(strategy="token" if dynamic else "tensor", dynamic=dynamic),
                 output_activations=None)
    return dict(quant_method="compressed-tensors", format="float-quantized", quantization_status="compressed",
                global_compression_ratio=None, kv_cache_scheme=None, ignore=["lm_head"],
                config_groups=dict(group_0=group))


NEUTRAL = dict(attention_dropout=0.0, initializer_range=0.02, use_cache=True, transformers_version="4.48.0")

LLAMAS = {
    "llama-f32": Row(LLAMA | sizes(40, 4, 2, 76, 173, 3) | old(dtype="f32"), "f32"),
    "llama-bf16": Row(LLAMA | sizes(60, 6, 2, 100, 211, 3, head_dim=14) | new(), shards=2),
    "llama-f16": Row(LLAMA | sizes(52, 4, 1, 72, 151, 2, head_dim=12) | old(dtype="f16"), "f16"),
    "llama-llama3": Row(LLAMA | sizes(50, 5, 1, 84, 163, 2, head_dim=16, tie_word_embeddings=True)
                        | old(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                              original_max_position_embeddings=256) | dict(max_position_embeddings=2048)),
    "llama-linear": Row(LLAMA | sizes(42, 6, 3, 66, 157, 2, head_dim=10) | old(type="linear", factor=2.5)),
    "llama-dynamic": Row(LLAMA | sizes(44, 4, 2, 70, 149, 2, head_dim=14)
                         | new(kind="dynamic", factor=2.0) | dict(max_position_embeddings=16), dynamic=True),
    "llama-yarn": Row(LLAMA | sizes(48, 6, 2, 74, 167, 2, head_dim=20)
                      | old(theta=1000.0, type="yarn", factor=4.0, original_max_position_embeddings=24)
                      | dict(max_position_embeddings=96)),
    "llama-bias": Row(LLAMA | sizes(54, 6, 2, 82, 139, 2, head_dim=12, attention_bias=True, mlp_bias=False) | new()),
    "llama-tied": Row(LLAMA | sizes(46, 2, 1, 78, 181, 2, head_dim=18, tie_word_embeddings=True) | old(theta=100000.0)),
    # A Llama 2 repository: no head_dim, and the frequencies as tensors, which nobody reads.
    "llama-mlp-bias": Row(LLAMA | NEUTRAL | sizes(40, 4, 2, 42, 75, 2, attention_bias=True, mlp_bias=True,
                                                  pretraining_tp=1) | old(),
                          extras={f"model.layers.{i}.self_attn.rotary_emb.inv_freq": (5,) for i in range(2)}),
    "llama-unknown": Row(family("nobody_knows", "NobodyForCausalLM", LLAMA) | NEUTRAL
                         | sizes(40, 5, 1, 44, 61, 2, head_dim=14) | old(theta=20000.0),
                         reference=dict(model_type="llama")),
    "mistral-window": Row(MISTRAL | sizes(56, 8, 2, 90, 137, 3, head_dim=10, sliding_window=7) | old()),
    "mistral-full": Row(MISTRAL | sizes(38, 3, 1, 68, 131, 2, head_dim=22, sliding_window=None) | new(theta=1e6)),
    "ministral": Row(family("ministral", "MinistralForCausalLM", LLAMA)
                     | sizes(46, 5, 1, 36, 89, 4, head_dim=14, sliding_window=6,
                             layer_types=alternating("GLLL", 4)) | new(theta=1e5)),
    "ministral-window": Row(family("ministral", "MinistralForCausalLM", LLAMA) | NEUTRAL
                            | sizes(32, 3, 1, 30, 81, 2, head_dim=16, sliding_window=9) | old(dtype="f32"), "f32"),
    "qwen2": Row(QWEN2 | sizes(42, 3, 1, 62, 127, 2, use_sliding_window=False, sliding_window=6, max_window_layers=1,
                               tie_word_embeddings=True) | old(theta=1e6)),
    "qwen2-window": Row(QWEN2 | sizes(48, 4, 2, 70, 149, 3, use_sliding_window=True, sliding_window=6,
                                      max_window_layers=1) | old(theta=1e6)),
    "qwen3": Row(QWEN3 | sizes(58, 5, 1, 86, 179, 3, head_dim=18, sliding_window=None, use_sliding_window=False,
                               max_window_layers=3) | old(theta=1e6)),
    "qwen3-window": Row(QWEN3 | sizes(44, 6, 3, 64, 113, 3, head_dim=12, sliding_window=9, use_sliding_window=True,
                                      max_window_layers=0, attention_bias=True,
                                      layer_types=["sliding_attention", "full_attention", "sliding_attention"])
                        | new(theta=1e6)),
    "qwen3-fp8": Row(QWEN3 | NEUTRAL
                     | sizes(132, 4, 2, 140, 71, 1, head_dim=34, tie_word_embeddings=True, quantization_config=FP8)
                     | old(theta=1e6), pack=functools.partial(fp8_blocks, factor=torch.bfloat16)),
    "smollm3": Row(family("smollm3", "SmolLM3ForCausalLM", but(LLAMA, "tie_word_embeddings")) | NEUTRAL
                   | sizes(36, 3, 1, 38, 83, 4, no_rope_layer_interval=4, no_rope_layers=[1, 0, 1, 1],
                           layer_types=["full_attention"] * 4, use_sliding_window=False, sliding_window=None,
                           max_window_layers=28, attention_bias=False, mlp_bias=False, pretraining_tp=2)
                   | old(theta=5e6)),
    "smollm3-untied": Row(family("smollm3", "SmolLM3ForCausalLM", LLAMA)
                          | sizes(32, 4, 2, 34, 69, 4, no_rope_layer_interval=2, use_sliding_window=True,
                                  sliding_window=7, attention_bias=True, mlp_bias=True) | new(theta=5e4),
                          ),
    "granite": Row(family("granite", "GraniteForCausalLM", LLAMA, tie_word_embeddings=True) | NEUTRAL
                   | sizes(40, 4, 2, 46, 93, 2, embedding_multiplier=3.5, attention_multiplier=0.19,
                           residual_multiplier=0.72, logits_scaling=0.4, attention_bias=False, mlp_bias=False)
                   | old(theta=1e7)),
    "granite-bias": Row(family("granite", "GraniteForCausalLM", LLAMA)
                        | sizes(48, 6, 3, 28, 63, 2, embedding_multiplier=2, attention_multiplier=0.5,
                                residual_multiplier=0.6, logits_scaling=2.0, attention_bias=True, mlp_bias=True)
                        | new(dtype="f32"), "f32"),
    "seed-oss": Row(family("seed_oss", "SeedOssForCausalLM", LLAMA) | NEUTRAL
                    | sizes(40, 5, 1, 36, 85, 2, head_dim=14, attention_bias=True, attention_out_bias=False,
                            mlp_bias=False, residual_dropout=0.1, pretraining_tp=1)
                    | old(theta=1e7, rope_type="default")),
    "seed-oss-bias": Row(family("seed_oss", "SeedOssForCausalLM", LLAMA, tie_word_embeddings=True)
                         | sizes(32, 4, 2, 26, 71, 2, head_dim=12, attention_bias=False, attention_out_bias=True,
                                 mlp_bias=True) | new()),
    "ernie": Row(family("ernie4_5", "Ernie4_5ForCausalLM", LLAMA, tie_word_embeddings=True)
                 | sizes(42, 6, 2, 44, 79, 2, head_dim=14, use_bias=False, use_cache=False)
                 | dict(rope_theta=500000.0, torch_dtype="bfloat16")),
    "ernie-bias": Row(family("ernie4_5", "Ernie4_5ForCausalLM", LLAMA)
                      | sizes(34, 4, 2, 32, 65, 2, head_dim=10, use_bias=True) | new(theta=5e5, dtype="f32"), "f32"),
    "hunyuan": Row(family("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", LLAMA, tie_word_embeddings=True) | NEUTRAL
                   | sizes(46, 5, 1, 44, 91, 2, head_dim=16, attention_bias=False, attention_head_dim=16,
                           mlp_bias=False, use_qk_norm=True, use_cla=False, use_rotary_pos_emb=True, norm_type="rms",
                           add_classification_head=False, pad_token_id=3)
                   | old(alpha=40.0, beta_fast=32, beta_slow=1, factor=1.0, mscale=1.0, mscale_all_dim=1.0,
                         type="dynamic") | dict(max_position_embeddings=16)),
    "hunyuan-bias": Row(family("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", LLAMA)
                        | sizes(32, 4, 2, 34, 73, 2, head_dim=12, attention_bias=True, use_qk_norm=True)
                        | new()),
    "exaone4": Row(family("exaone4", "Exaone4ForCausalLM", LLAMA) | NEUTRAL
                   | sizes(44, 4, 2, 40, 87, 4, head_dim=16, sliding_window=7, sliding_window_pattern="LLLG",
                           layer_types=alternating("LLLG", 4))
                   | old(theta=1e6, rope_type="llama3", factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0,
                         original_max_position_embeddings=64)),
    "exaone4-full": Row(family("exaone4", "Exaone4ForCausalLM", LLAMA, tie_word_embeddings=True)
                        | sizes(30, 3, 1, 32, 67, 2, head_dim=16, sliding_window=None, sliding_window_pattern=None,
                                layer_types=["full_attention"] * 2) | new(theta=1e6)),
    "internlm3": Row(family("internlm3", "InternLM3ForCausalLM", LLAMA) | NEUTRAL
                     | sizes(40, 4, 2, 38, 77, 2, head_dim=14, qkv_bias=False, bias=False)
                     | old(theta=5e4, rope_type="dynamic", factor=6.0) | dict(max_position_embeddings=16),
                     dynamic=True),
    "internlm3-bias": Row(family("internlm3", "InternLM3ForCausalLM", LLAMA)
                          | sizes(30, 5, 1, 22, 55, 2, head_dim=12, qkv_bias=True, bias=True)
                          | old(theta=5e4, dtype="f32"), "f32"),
}
GEMMA = but(LLAMA, "tie_word_embeddings", bos_token_id=2, eos_token_id=1, pad_token_id=0, rms_norm_eps=1e-6)
GEMMA1 = family("gemma", "GemmaForCausalLM", GEMMA, hidden_act="gelu")
GEMMA2 = family("gemma2", "Gemma2ForCausalLM", but(GEMMA, "hidden_act"), hidden_activation="gelu_pytorch_tanh",
                attn_logit_softcapping=3.0, final_logit_softcapping=4.0)
GEMMA3 = family("gemma3_text", "Gemma3ForCausalLM", but(GEMMA, "hidden_act"), hidden_activation="gelu_pytorch_tanh",
                attn_logit_softcapping=None, final_logit_softcapping=None)
SIGLIP = dict(model_type="siglip_vision_model", hidden_size=18, intermediate_size=26, num_attention_heads=3,
              num_hidden_layers=1, image_size=28, patch_size=14, vision_use_head=False)


def old_multimodal_names(tower="vision_tower."):
    """google/gemma-3-4b-it and its like, as published."""
    def name(n):
        for new_name, old_name in (("model.language_model.", "language_model.model."),
                                   ("lm_head", "language_model.lm_head"), ("model.vision_tower.", tower),
                                   ("model.multi_modal_projector.", "multi_modal_projector.")):
            if n.startswith(new_name):
                return n.replace(new_name, old_name, 1)
        return n
    return lambda shapes: {name(n): shape for n, shape in shapes.items()}


def gemma3_inside(text, **more):
    return dict(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"], text_config=text,
                vision_config=SIGLIP, mm_tokens_per_image=4, boi_token_index=90, eoi_token_index=91,
                image_token_index=92, eos_token_id=[1, 86], **more)


PHI = but(LLAMA, "rms_norm_eps", hidden_act="gelu_new", layer_norm_eps=1e-5, embd_pdrop=0.0, resid_pdrop=0.1)
PHI3 = family("phi3", "Phi3ForCausalLM", LLAMA, embd_pdrop=0.0, resid_pdrop=0.0, eos_token_id=32)


def longrope(n, **more):
    """Factors for n frequencies."""
    return dict(short_factor=[round(1 + 0.05 * i, 4) for i in range(n)],
                long_factor=[round(1.1 + 0.45 * i + 0.03 * i * i, 4) for i in range(n)], **more)


OLMO2 = family("olmo2", "Olmo2ForCausalLM", LLAMA, attention_bias=False, pad_token_id=1, bos_token_id=None)
OLMO3 = family("olmo3", "Olmo3ForCausalLM", LLAMA, attention_bias=False, pad_token_id=1, bos_token_id=None)
COHERE = but(LLAMA, "rms_norm_eps", "tie_word_embeddings", bos_token_id=5, pad_token_id=0, layer_norm_eps=1e-5)
COHERE1 = family("cohere", "CohereForCausalLM", COHERE)
COHERE2 = family("cohere2", "Cohere2ForCausalLM", COHERE)
STABLELM = family("stablelm", "StableLmForCausalLM", but(LLAMA, "rms_norm_eps"), layer_norm_eps=1e-5)
STARCODER2 = family("starcoder2", "Starcoder2ForCausalLM", but(LLAMA, "rms_norm_eps", "tie_word_embeddings"),
                    hidden_act="gelu_pytorch_tanh", norm_epsilon=1e-5, residual_dropout=0.1, embedding_dropout=0.1)

ARCEE = family("arcee", "ArceeForCausalLM", LLAMA, hidden_act="relu2")
OTHERS = {
    "arcee": Row(ARCEE | NEUTRAL | sizes(50, 5, 1, 74, 141, 2, head_dim=14) | old(
        type="yarn", factor=4.0, original_max_position_embeddings=24)),
    "arcee-bias": Row(ARCEE | sizes(40, 4, 2, 54, 97, 2, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
                      | new(dtype="f32"), "f32"),
    "glm": Row(family("glm", "GlmForCausalLM", LLAMA, rms_norm_eps=1.5625e-07) | NEUTRAL
               | sizes(42, 4, 2, 30, 81, 2, head_dim=20, attention_bias=True, partial_rotary_factor=0.5)
               | dict(rope_theta=10000.0, torch_dtype="bfloat16")),
    "glm-plain": Row(family("glm", "GlmForCausalLM", LLAMA, tie_word_embeddings=True)
                     | sizes(32, 3, 1, 26, 63, 2, head_dim=16, attention_bias=False)
                     | new(theta=2e4, dtype="f32", partial_rotary_factor=0.75), "f32"),
    "glm4": Row(family("glm4", "Glm4ForCausalLM", LLAMA, eos_token_id=[2, 7, 9]) | NEUTRAL
                | sizes(42, 6, 2, 32, 85, 2, head_dim=12, attention_bias=False, partial_rotary_factor=0.5,
                        rope_theta=10000.0, rope_scaling=None, torch_dtype="bfloat16")),
    "glm4-bias": Row(family("glm4", "Glm4ForCausalLM", LLAMA)
                     | sizes(34, 4, 1, 28, 59, 2, head_dim=16, attention_bias=True)
                     | new(partial_rotary_factor=0.5)),
    "gemma": Row(GEMMA1 | NEUTRAL | old() | sizes(44, 3, 1, 46, 95, 2, head_dim=20, hidden_activation=None,
                                                  attention_bias=False), norm=0.0),
    "gemma-new": Row(family("gemma", "GemmaForCausalLM", GEMMA, hidden_act="gelu_pytorch_tanh")
                     | sizes(34, 4, 4, 28, 69, 2, head_dim=12, tie_word_embeddings=True) | new(dtype="f32"), "f32",
                     norm=0.0),
    "gemma2": Row(GEMMA2 | NEUTRAL
                  | sizes(42, 6, 2, 40, 83, 3, head_dim=14, hidden_act="gelu_pytorch_tanh", attention_bias=False,
                          query_pre_attn_scalar=11, sliding_window=7, cache_implementation="hybrid")
                  | dict(rope_theta=10000.0, torch_dtype="bfloat16"), norm=0.0),
    "gemma2-new": Row(GEMMA2 | sizes(36, 4, 1, 28, 71, 3, head_dim=16, query_pre_attn_scalar=16, sliding_window=5,
                                     layer_types=alternating("GL", 3), tie_word_embeddings=True)
                      | new(theta=2e4), norm=0.0),
    "gemma3": Row(GEMMA3 | NEUTRAL
                  | sizes(44, 4, 1, 40, 89, 4, head_dim=18, attention_bias=False, query_pre_attn_scalar=23,
                          sliding_window=6, sliding_window_pattern=3, cache_implementation="hybrid",
                          rope_local_base_freq=10000, rope_theta=1000000,
                          rope_scaling=dict(factor=4.0, rope_type="linear"), torch_dtype="bfloat16"), norm=0.0),
    "gemma3-new": Row(GEMMA3 | sizes(30, 5, 5, 26, 61, 3, head_dim=14, query_pre_attn_scalar=14, sliding_window=8,
                                     layer_types=alternating("LGL", 3), tie_word_embeddings=True,
                                     use_bidirectional_attention=False)
                      | dict(dtype="bfloat16", rope_parameters={
                          "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
                          "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}),
                      norm=0.0),
    "gemma3-inside": Row(gemma3_inside(
        dict(model_type="gemma3_text", head_dim=16, hidden_size=48, intermediate_size=58, num_attention_heads=4,
             num_hidden_layers=3, num_key_value_heads=2, query_pre_attn_scalar=16, sliding_window=7, vocab_size=95,
             sliding_window_pattern=2, rope_scaling=dict(factor=8.0, rope_type="linear")), torch_dtype="bfloat16",
        initializer_range=0.02), hub=old_multimodal_names("vision_tower.vision_model."), norm=0.0),
    "gemma3-inside-new": Row(gemma3_inside(
        dict(model_type="gemma3_text", head_dim=14, hidden_size=44, intermediate_size=50, num_attention_heads=4,
             num_hidden_layers=3, num_key_value_heads=1, query_pre_attn_scalar=14, sliding_window=6, vocab_size=97,
             layer_types=alternating("LLG", 3), rope_parameters={
                 "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                 "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}),
        dtype="bfloat16", tie_word_embeddings=True), norm=0.0),
    "mistral3-inside": Row(dict(
        model_type="mistral3", architectures=["Mistral3ForConditionalGeneration"], torch_dtype="bfloat16",
        tie_word_embeddings=False, image_token_index=10, multimodal_projector_bias=False, projector_hidden_act="gelu",
        spatial_merge_size=2, vision_feature_layer=-1,
        text_config=but(MISTRAL, "architectures", "tie_word_embeddings", "bos_token_id", "eos_token_id")
        | sizes(44, 5, 1, 40, 83, 2, head_dim=12, sliding_window=None, rope_theta=1e6),
        vision_config=dict(model_type="pixtral", hidden_size=16, intermediate_size=26, num_attention_heads=2,
                           num_hidden_layers=1, head_dim=8, image_size=28, patch_size=14, rope_theta=10000.0)),
        hub=old_multimodal_names()),
    "qwen2.5-vl-inside": Row(QWEN2 | dict(
        model_type="qwen2_5_vl", architectures=["Qwen2_5_VLForConditionalGeneration"], torch_dtype="bfloat16",
        image_token_id=70, video_token_id=71, vision_start_token_id=72, vision_end_token_id=73, vision_token_id=74,
        use_sliding_window=False, sliding_window=32768, max_window_layers=2, rope_theta=1e6,
        rope_scaling=dict(type="mrope", mrope_section=[2, 1, 2]),
        vision_config=dict(depth=1, hidden_size=16, intermediate_size=22, num_heads=2, out_hidden_size=40, patch_size=4,
                           hidden_act="silu", in_chans=3, spatial_merge_size=2, temporal_patch_size=2,
                           tokens_per_second=2, window_size=16, fullatt_block_indexes=[0]))
        | sizes(40, 4, 2, 44, 79, 2),
        hub=lambda shapes: {n.replace("model.visual.", "visual.").replace("model.language_model.", "model."): shape
                            for n, shape in shapes.items()}),
    "phi2": Row(family("phi", "PhiForCausalLM", PHI) | NEUTRAL
                | sizes(60, 3, 3, 48, 75, 2, partial_rotary_factor=0.4, qk_layernorm=False) | old()),
    "phi2-qknorm": Row(family("phi", "PhiForCausalLM", PHI)
                       | sizes(48, 4, 2, 28, 63, 2, qk_layernorm=True)
                       | new(dtype="f32", partial_rotary_factor=0.5), "f32"),
    "phi3": Row(PHI3 | NEUTRAL | sizes(48, 6, 2, 40, 79, 2, sliding_window=9, original_max_position_embeddings=16,
                                       attention_bias=False) | old() | dict(max_position_embeddings=16)),
    "phi3-long": Row(PHI3 | sizes(48, 4, 2, 28, 71, 2, sliding_window=262144, original_max_position_embeddings=16)
                     | old(**longrope(6, type="longrope")) | dict(max_position_embeddings=128)),
    "phi3-short": Row(PHI3 | sizes(50, 5, 5, 28, 65, 2, original_max_position_embeddings=64)
                      | old(dtype="f32", **longrope(5, type="su")) | dict(max_position_embeddings=256), "f32",
                      reference=old(**longrope(5, type="longrope"))),
    "phi4-mini": Row(PHI3 | sizes(72, 3, 1, 44, 83, 2, tie_word_embeddings=True, original_max_position_embeddings=20,
                                  partial_rotary_factor=0.75, sliding_window=262144, attention_bias=False,
                                  interpolate_factor=1, lm_head_bias=False, mlp_bias=False, full_attn_mod=1)
                     | old(**longrope(9, type="longrope")) | dict(max_position_embeddings=640)),
    "phi4-mini-new": Row(PHI3 | sizes(64, 4, 2, 28, 67, 2, tie_word_embeddings=True)
                         | new(kind="longrope", partial_rotary_factor=0.5, **longrope(4),
                               original_max_position_embeddings=48)
                         | dict(max_position_embeddings=192, original_max_position_embeddings=48)),
    "olmo2": Row(OLMO2 | NEUTRAL | sizes(48, 6, 2, 42, 81, 2) | old(theta=5e5)),
    "olmo2-tied": Row(OLMO2 | sizes(32, 2, 2, 24, 63, 2, tie_word_embeddings=True, attention_bias=True)
                      | new(theta=5e5, dtype="f32"), "f32"),
    "olmo3": Row(OLMO3 | NEUTRAL
                 | sizes(40, 5, 5, 38, 83, 4, sliding_window=7, layer_types=alternating("LLLG", 4))
                 | old(theta=5e5, rope_type="yarn", factor=8.0, original_max_position_embeddings=32,
                       attention_factor=1.2079441541679836, beta_fast=32, beta_slow=1)),
    "olmo3-new": Row(OLMO3 | sizes(32, 4, 2, 28, 69, 3, sliding_window=5, layer_types=alternating("LG", 3))
                     | dict(dtype="bfloat16", rope_parameters={
                         "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
                         "full_attention": {"rope_type": "yarn", "rope_theta": 3e4, "factor": 4.0,
                                            "original_max_position_embeddings": 24}})),
    "cohere": Row(COHERE1 | NEUTRAL | sizes(40, 5, 5, 42, 89, 2, logit_scale=0.3, use_qk_norm=False) | old(theta=8e6)),
    "cohere-qknorm": Row(COHERE1 | sizes(40, 4, 2, 30, 71, 2, logit_scale=1.4, use_qk_norm=True, attention_bias=True,
                                         tie_word_embeddings=True) | new(theta=5e4)),
    "cohere2": Row(COHERE2 | NEUTRAL
                   | sizes(48, 6, 2, 36, 83, 4, head_dim=10, logit_scale=0.5, sliding_window=7, attention_bias=False,
                           sliding_window_pattern=4, cache_implementation="hybrid", rotary_pct=1.0,
                           order_of_interleaved_layers="local_attn_first", position_embedding_type="rope_gptj",
                           use_embedding_sharing=True, use_gated_activation=True, use_parallel_block=True,
                           use_parallel_embedding=True) | old(theta=5e4)),
    "cohere2-new": Row(COHERE2 | sizes(32, 4, 1, 30, 65, 3, logit_scale=1.0, sliding_window=5, attention_bias=True,
                                       layer_types=alternating("LGL", 3), tie_word_embeddings=True)
                       | new(theta=2e4, dtype="f32"), "f32"),
    "stablelm": Row(STABLELM | NEUTRAL | sizes(64, 4, 4, 38, 85, 2, partial_rotary_factor=0.25, use_qkv_bias=True,
                                               qk_layernorm=False, use_parallel_residual=False, hidden_dropout=0.0,
                                               rope_theta=10000, torch_dtype="bfloat16")),
    "stablelm-12b": Row(STABLELM | sizes(72, 6, 2, 38, 73, 2, partial_rotary_factor=0.5, use_qkv_bias=False,
                                         qk_layernorm=True, use_parallel_residual=True)
                        | old()),
    "stablelm-tied": Row(STABLELM | sizes(48, 3, 1, 28, 67, 2, tie_word_embeddings=True, use_qkv_bias=False)
                         | new(theta=2e4, partial_rotary_factor=0.375)),
    "starcoder2": Row(STARCODER2 | NEUTRAL | sizes(48, 6, 2, 54, 91, 2, sliding_window=8, use_bias=True,
                                                   norm_type="layer_norm", mlp_type="default",
                                                   attention_softmax_in_fp32=True, scale_attention_softmax_in_fp32=True,
                                                   scale_attn_weights=True, activation_function="gelu_pytorch_tanh")
                      | old(theta=1e5)),
    "starcoder2-untied": Row(STARCODER2 | sizes(32, 4, 1, 36, 69, 2, sliding_window=None, use_bias=False,
                                                tie_word_embeddings=False) | new(theta=1e5, dtype="f32"), "f32"),
}

def without_prefix(prefix):
    return lambda shapes: {name.removeprefix(prefix): shape for name, shape in shapes.items()}


def renamed(old_name, new_name):
    return lambda shapes: {name.replace(old_name, new_name): shape for name, shape in shapes.items()}


FALCON = dict(model_type="falcon", architectures=["FalconForCausalLM"], alibi=False, bias=False, hidden_dropout=0.0,
              attention_dropout=0.0, bos_token_id=11, eos_token_id=11, initializer_range=0.02, layer_norm_epsilon=1e-5,
              multi_query=True, parallel_attn=True, use_cache=True)
NEOX = but(LLAMA, "rms_norm_eps", model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"], hidden_act="gelu",
           layer_norm_eps=1e-5, eos_token_id=0, bos_token_id=0)
GPT2 = dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], activation_function="gelu_new", attn_pdrop=0.1,
            embd_pdrop=0.1, resid_pdrop=0.1, layer_norm_epsilon=1e-5, bos_token_id=0, eos_token_id=0,
            initializer_range=0.02)


def falcon(hidden, heads, vocab, layers, **more):
    return FALCON | dict(hidden_size=hidden, num_attention_heads=heads, vocab_size=vocab, num_hidden_layers=layers,
                         **more)


def neox(hidden, heads, ffn, vocab, layers, **more):
    return but(NEOX | sizes(hidden, heads, heads, ffn, vocab, layers), "num_key_value_heads") | more


PIONEERS = {
    "falcon": Row(falcon(48, 6, 83, 2, num_kv_heads=2, new_decoder_architecture=True, torch_dtype="bfloat16"),
                  copies={"lm_head.weight": "transformer.word_embeddings.weight"}),
    "falcon-11b": Row(falcon(48, 4, 79, 2, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=1,
                             ffn_hidden_size=70, activation="gelu", max_position_embeddings=256, rope_scaling=None,
                             rope_theta=500042.0, tie_word_embeddings=False, torch_dtype="bfloat16")),
    "falcon-7b": Row(falcon(42, 3, 77, 2, num_kv_heads=3, new_decoder_architecture=False, torch_dtype="bfloat16"),
                     copies={"lm_head.weight": "transformer.word_embeddings.weight"}),
    "gpt-neox": Row(neox(64, 4, 70, 83, 2, rotary_emb_base=10000, rotary_pct=0.25, use_parallel_residual=True,
                         attention_bias=True, hidden_dropout=0.0, classifier_dropout=0.1, torch_dtype="float16"), "f16",
                    hub=renamed("lm_head", "embed_out"),
                    extras={f"gpt_neox.layers.{i}.attention.{name}": shape for i in range(2) for name, shape in
                            (("bias", (1, 1, 12, 12)), ("masked_bias", ()), ("rotary_emb.inv_freq", (2,)))}),
    "gpt-neox-serial": Row(neox(48, 3, 54, 79, 2, use_parallel_residual=False, hidden_act="gelu_fast",
                                attention_bias=False) | new(theta=2e4, partial_rotary_factor=1.0)),
    "gpt2": Row(GPT2 | dict(n_embd=36, n_layer=2, n_head=3, n_positions=40, n_ctx=40, vocab_size=85),
                "f32", hub=without_prefix("transformer."), conv1d=True,
                extras={f"h.{i}.attn.bias": (1, 1, 40, 40) for i in range(2)}, rules=[("wpe", 0.3)]),
    "gpt2-scaled": Row(GPT2 | dict(n_embd=44, n_layer=2, n_head=2, n_positions=32, n_inner=74, vocab_size=87,
                                   activation_function="gelu", scale_attn_weights=True,
                                   scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
                                   tie_word_embeddings=True, torch_dtype="bfloat16"), conv1d=True,
                       rules=[("wpe", 0.3)]),
}


def experts_apart(gate="gate_proj", up="up_proj", down="down_proj", block="mlp"):
    """One matrix for each expert, as on the hub, instead of one tensor for all of a layer."""
    def split(shapes):
        out = {}
        for name, shape in shapes.items():
            name = name.replace(".mlp.", f".{block}.") if ".experts." in name or ".gate." in name else name
            stem = re.sub(r"(gate_up_proj|down_proj)$", "", name)
            for e in range(shape[0] if ".experts." in name and len(shape) == 3 else 0):
                if name.endswith("gate_up_proj"):
                    out |= {f"{stem}{e}.{part}.weight": (shape[1] // 2, shape[2]) for part in (gate, up)}
                else:
                    out[f"{stem}{e}.{down}.weight"] = shape[1:]
            if ".experts." not in name:
                out[name] = shape
        return out
    return split


HUB = experts_apart()
MIXTRAL = family("mixtral", "MixtralForCausalLM", LLAMA, output_router_logits=False, router_aux_loss_coef=0.02)
QWEN2_MOE = family("qwen2_moe", "Qwen2MoeForCausalLM", QWEN2, output_router_logits=False, router_aux_loss_coef=0.001)
QWEN3_MOE = family("qwen3_moe", "Qwen3MoeForCausalLM", QWEN3, output_router_logits=False, router_aux_loss_coef=0.001)
V2 = family("deepseek_v2", "DeepseekV2ForCausalLM", LLAMA, rms_norm_eps=1e-6, attention_bias=False, ep_size=1,
            aux_loss_alpha=0.001, moe_layer_freq=1, norm_topk_prob=False, scoring_func="softmax", seq_aux=True,
            pretraining_tp=1)
V3 = family("deepseek_v3", "DeepseekV3ForCausalLM", LLAMA, rms_norm_eps=1e-6, attention_bias=False, ep_size=1,
            moe_layer_freq=1, norm_topk_prob=True, scoring_func="sigmoid", topk_method="noaux_tc",
            num_nextn_predict_layers=1)
GPT_OSS = family("gpt_oss", "GptOssForCausalLM", LLAMA, attention_bias=True, router_aux_loss_coef=0.9,
                 output_router_logits=False, initial_context_length=24, num_experts_per_tok=2, experts_per_token=2)
YARN_OSS = dict(rope_type="yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                original_max_position_embeddings=24)


def mla(q_lora, kv_lora, nope, rope, v):
    return dict(q_lora_rank=q_lora, kv_lora_rank=kv_lora, qk_nope_head_dim=nope, qk_rope_head_dim=rope, v_head_dim=v)


def deepseek_moe(routed, per_token, width, shared, dense, groups, of_groups, scale):
    return dict(n_routed_experts=routed, num_experts_per_tok=per_token, moe_intermediate_size=width,
                n_shared_experts=shared, first_k_dense_replace=dense, n_group=groups, topk_group=of_groups,
                routed_scaling_factor=scale)


def next_token_layer(layer, hidden, vocab, like):
    """Tensors of the layer that predicts one token more, which generation does without."""
    stem = f"model.layers.{layer}."
    return {stem + "eh_proj.weight": (hidden, 2 * hidden), stem + "enorm.weight": (hidden,),
            stem + "hnorm.weight": (hidden,), stem + "embed_tokens.weight": (vocab, hidden),
            stem + "shared_head.norm.weight": (hidden,), stem + "shared_head.head.weight": (vocab, hidden),
            stem + "input_layernorm.weight": (hidden,), stem + "mlp.gate.weight": (4, hidden),
            stem + "mlp.experts.0.gate_proj.weight": (10, hidden), stem + "self_attn.o_proj.weight": (hidden, like)}


EXPERTS = {
    "mixtral": Row(MIXTRAL | NEUTRAL | sizes(32, 4, 2, 28, 77, 2, num_local_experts=6, num_experts_per_tok=2,
                                             sliding_window=None)
                   | dict(rope_theta=1e6, torch_dtype="bfloat16"),
                   hub=experts_apart("w1", "w3", "w2", "block_sparse_moe")),
    "mixtral-window": Row(MIXTRAL | sizes(32, 3, 1, 22, 65, 2, head_dim=16, num_local_experts=5, num_experts_per_tok=3,
                                          sliding_window=7, tie_word_embeddings=True) | new(theta=1e5, dtype="f32"),
                          "f32", hub=experts_apart("w1", "w3", "w2", "block_sparse_moe")),
    "qwen2-moe": Row(QWEN2_MOE | NEUTRAL
                     | sizes(40, 4, 2, 44, 79, 2, moe_intermediate_size=18, shared_expert_intermediate_size=42,
                             num_experts=7, num_experts_per_tok=3, norm_topk_prob=False, decoder_sparse_step=1,
                             mlp_only_layers=[], use_sliding_window=False, sliding_window=64, max_window_layers=21)
                     | dict(rope_theta=1e6, torch_dtype="bfloat16"), hub=HUB, shards=2),
    "qwen2-moe-sparse": Row(QWEN2_MOE | sizes(32, 4, 4, 36, 67, 3, moe_intermediate_size=16, num_experts=6,
                                              shared_expert_intermediate_size=26, num_experts_per_tok=2,
                                              norm_topk_prob=True, decoder_sparse_step=2, qkv_bias=False,
                                              tie_word_embeddings=True) | new(theta=1e5), hub=HUB),
    "qwen3-moe": Row(QWEN3_MOE | NEUTRAL
                     | sizes(44, 5, 1, 40, 83, 3, head_dim=16, moe_intermediate_size=14, num_experts=10,
                             num_experts_per_tok=4, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[1],
                             use_sliding_window=False, sliding_window=None, max_window_layers=3) | old(theta=1e6),
                     hub=HUB),
    "qwen3-moe-window": Row(QWEN3_MOE | sizes(34, 4, 2, 38, 69, 2, head_dim=14, moe_intermediate_size=12, num_experts=8,
                                              num_experts_per_tok=3, norm_topk_prob=False, use_sliding_window=True,
                                              sliding_window=7, attention_bias=True) | new(theta=1e5),
                            hub=HUB),
    "olmoe": Row(family("olmoe", "OlmoeForCausalLM", LLAMA, pad_token_id=1, attention_bias=False, clip_qkv=None)
                 | NEUTRAL | sizes(40, 5, 5, 16, 79, 2, num_experts=8, num_experts_per_tok=3, norm_topk_prob=False,
                         output_router_logits=False, router_aux_loss_coef=0.01) | old(), hub=HUB),
    "olmoe-clip": Row(family("olmoe", "OlmoeForCausalLM", LLAMA, clip_qkv=0.9, norm_topk_prob=True)
                      | sizes(32, 4, 2, 14, 63, 2, num_experts=6, num_experts_per_tok=2) | new(), hub=HUB),
    "deepseek-v2": Row(V2 | NEUTRAL | mla(26, 20, 12, 8, 10) | deepseek_moe(8, 3, 14, 2, 1, 4, 2, 2.5)
                       | sizes(40, 4, 4, 42, 75, 3, topk_method="group_limited_greedy")
                       | old(type="yarn", factor=4, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.707,
                             original_max_position_embeddings=24) | dict(max_position_embeddings=96), hub=HUB),
    "deepseek-v2-lite": Row(V2 | NEUTRAL | mla(None, 18, 14, 6, 12) | deepseek_moe(6, 2, 16, 1, 1, 1, 1, 1.0)
                            | sizes(33, 3, 3, 38, 67, 2, topk_method="greedy")
                            | old(dtype="f32", type="yarn", factor=40, beta_fast=32, beta_slow=1, mscale=0.9,
                                  mscale_all_dim=0.5, original_max_position_embeddings=16)
                            | dict(max_position_embeddings=640), "f32", hub=HUB),
    "deepseek-v3": Row(V3 | NEUTRAL | mla(24, 20, 14, 6, 10) | deepseek_moe(12, 4, 12, 1, 1, 4, 2, 2.5)
                       | sizes(40, 5, 5, 42, 73, 3)
                       | old(type="yarn", factor=4, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
                             original_max_position_embeddings=24) | dict(max_position_embeddings=96), hub=HUB, shards=2,
                       extras=next_token_layer(3, 40, 73, 50)),
    "deepseek-v3-mscale": Row(V3 | mla(None, 16, 10, 8, 14) | deepseek_moe(8, 2, 10, 2, 0, 2, 1, 1.5)
                              | sizes(34, 4, 4, 32, 61, 2, attention_bias=True, rms_norm_eps=1e-3)
                              | new(kind="yarn", factor=8.0, mscale=1.0, mscale_all_dim=0.6,
                                    original_max_position_embeddings=12) | dict(max_position_embeddings=96),
                              hub=HUB),
    "deepseek-v3-plain": Row(V3 | mla(22, 18, 12, 10, 12) | deepseek_moe(9, 3, 12, 1, 1, 3, 2, 2.0)
                             | sizes(32, 3, 3, 36, 59, 2, rope_interleave=False, norm_topk_prob=False)
                             | new(theta=2e4), hub=HUB),
    "deepseek-v3-fp8": Row(V3 | mla(48, 40, 24, 16, 20) | deepseek_moe(6, 2, 24, 1, 1, 2, 1, 2.5)
                           | sizes(136, 4, 4, 140, 71, 2, quantization_config=FP8)
                           | old(type="yarn", factor=4, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
                                 original_max_position_embeddings=24) | dict(max_position_embeddings=96),
                           hub=HUB, pack=fp8_blocks),
    "kimi-k2": Row(V3 | NEUTRAL | mla(20, 16, 12, 8, 10) | deepseek_moe(10, 3, 12, 1, 1, 1, 1, 2.827)
                   | sizes(38, 4, 4, 40, 71, 3, model_type="kimi_k2", num_nextn_predict_layers=0, aux_loss_alpha=0.001,
                           seq_aux=True)
                   | old(theta=5e4, type="yarn", factor=32.0, beta_fast=1.0, beta_slow=1.0, mscale=1.0,
                         mscale_all_dim=1.0, original_max_position_embeddings=24) | dict(max_position_embeddings=768),
                   hub=HUB, reference=dict(model_type="deepseek_v3")),
    "glm4-moe": Row(family("glm4_moe", "Glm4MoeForCausalLM", LLAMA) | NEUTRAL
                    | deepseek_moe(8, 3, 14, 1, 1, 1, 1, 2.5)
                    | sizes(40, 6, 2, 42, 77, 3, head_dim=16, attention_bias=True, use_qk_norm=True,
                            norm_topk_prob=True, num_nextn_predict_layers=1, partial_rotary_factor=0.5)
                    | old(theta=1e6), hub=HUB, extras=next_token_layer(3, 40, 77, 96)),
    "glm4-moe-air": Row(family("glm4_moe", "Glm4MoeForCausalLM", LLAMA) | deepseek_moe(9, 2, 12, 1, 1, 3, 2, 1.0)
                        | sizes(32, 4, 1, 36, 65, 2, head_dim=12, attention_bias=False, use_qk_norm=False,
                                norm_topk_prob=True, num_nextn_predict_layers=1)
                        | new(theta=1e5, partial_rotary_factor=0.5), hub=HUB),
    "gpt-oss": Row(GPT_OSS | NEUTRAL
                   | sizes(40, 6, 2, 22, 81, 3, head_dim=14, num_local_experts=6, sliding_window=7, swiglu_limit=1.5,
                           layer_types=alternating("LG", 3)) | old(theta=150000, **YARN_OSS), rules=[("sinks", 1.0)]),
    "gpt-oss-mxfp4": Row(GPT_OSS | sizes(96, 4, 2, 32, 65, 2, head_dim=20, num_local_experts=5, sliding_window=6,
                                         swiglu_limit=7.0, layer_types=alternating("LG", 2), quantization_config=dict(
                                             quant_method="mxfp4", modules_to_not_convert=[
                                                 "model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                 "model.embed_tokens", "lm_head"]))
                         | old(theta=150000, **YARN_OSS), rules=[("sinks", 1.0)], pack=mxfp4_experts),
}
# Quantised as transformers saves it. Absolute maxima of more than 256 blocks have codes in two blocks.
QUANTISED = {
    "llama-nf4": Row(LLAMA | sizes(64, 4, 2, 320, 71, 2, head_dim=32, quantization_config=NF4) | new(),
                     pack=functools.partial(bnb_four_bits, kind="nf4", nested=True)),
    "phi3-nf4": Row(PHI3 | sizes(64, 4, 4, 192, 65, 2, original_max_position_embeddings=256, quantization_config=NF4)
                    | old(), pack=functools.partial(bnb_four_bits, kind="nf4", nested=True)),
    "mixtral-fp4": Row(MIXTRAL | sizes(64, 4, 2, 64, 67, 2, num_local_experts=4, num_experts_per_tok=2,
                                       quantization_config=FP4) | dict(rope_theta=1e6, torch_dtype="bfloat16"),
                       hub=experts_apart("w1", "w3", "w2", "block_sparse_moe"),
                       pack=functools.partial(bnb_four_bits, kind="fp4", nested=False)),
    "qwen2-int8": Row(QWEN2 | sizes(42, 3, 1, 62, 67, 2, quantization_config=INT8) | old(theta=1e6), pack=bnb_int8),
    "qwen3-moe-fp8": Row(QWEN3_MOE | sizes(48, 4, 2, 44, 69, 2, head_dim=12, moe_intermediate_size=40, num_experts=6,
                                           num_experts_per_tok=3, norm_topk_prob=True,
                                           quantization_config=compressed("channel", True)) | old(theta=1e6), hub=HUB,
                         pack=functools.partial(fp8_scaled, rows=True)),
    "phi3-fp8": Row(PHI3 | sizes(48, 4, 4, 40, 67, 2, original_max_position_embeddings=256,
                                 quantization_config=compressed("tensor", False)) | old(),
                    pack=functools.partial(fp8_scaled, rows=False, factor=torch.float32)),
}
FAMILIES = LLAMAS | OTHERS | PIONEERS | EXPERTS | QUANTISED
