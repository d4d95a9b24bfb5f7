/* The rows. Sources: transformers' configuration and modelling classes of each model_type, and for GGUF the tables of
 * names in the gguf package (constants.py, tensor_mapping.py). */
#include "model/family.h"

const family family_table[] = {
    {.name = "llama",
     .model_type = "llama",
     .architecture = "llama",
     .style = {ROPE_HALF, ROPE_INTERLEAVED},
     .bias = BIAS_BY_KEY,
     .window = WINDOW_NEVER,
     .context = 2048},
    {.name = "mistral",
     .model_type = "mistral",
     .architecture = "mistral",
     .style = {ROPE_HALF, ROPE_INTERLEAVED},
     .bias = BIAS_NONE,
     .window = WINDOW_ALWAYS,
     .kv_heads = 8,
     .context = 131072,
     .sliding_window = 4096},
    {.name = "qwen2",
     .model_type = "qwen2",
     .architecture = "qwen2",
     .style = {ROPE_HALF, ROPE_HALF},
     .bias = BIAS_QKV,
     .window = WINDOW_ABOVE,
     .kv_heads = 32,
     .context = 32768,
     .sliding_window = 4096},
    {.name = "qwen3",
     .model_type = "qwen3",
     .architecture = "qwen3",
     .style = {ROPE_HALF, ROPE_HALF},
     .bias = BIAS_BY_KEY,
     .window = WINDOW_ABOVE,
     .qk_norm = true,
     .kv_heads = 32,
     .head_dim = 128,
     .context = 32768,
     .sliding_window = 4096},
};
const size_t n_families = sizeof family_table / sizeof *family_table;

static const struct role_names {
    const char *name, *pattern[2]; /* by dialect */
} roles[ROLE_COUNT] = {
    [ROLE_Q] = {"q", {"model.layers.%u.self_attn.q_proj.weight", "blk.%u.attn_q.weight"}},
    [ROLE_K] = {"k", {"model.layers.%u.self_attn.k_proj.weight", "blk.%u.attn_k.weight"}},
    [ROLE_V] = {"v", {"model.layers.%u.self_attn.v_proj.weight", "blk.%u.attn_v.weight"}},
    [ROLE_O] = {"o", {"model.layers.%u.self_attn.o_proj.weight", "blk.%u.attn_output.weight"}},
    [ROLE_GATE] = {"gate", {"model.layers.%u.mlp.gate_proj.weight", "blk.%u.ffn_gate.weight"}},
    [ROLE_UP] = {"up", {"model.layers.%u.mlp.up_proj.weight", "blk.%u.ffn_up.weight"}},
    [ROLE_DOWN] = {"down", {"model.layers.%u.mlp.down_proj.weight", "blk.%u.ffn_down.weight"}},
    [ROLE_ATTN_NORM] = {"attn_norm", {"model.layers.%u.input_layernorm.weight", "blk.%u.attn_norm.weight"}},
    [ROLE_Q_BIAS] = {"q_bias", {"model.layers.%u.self_attn.q_proj.bias", "blk.%u.attn_q.bias"}},
    [ROLE_K_BIAS] = {"k_bias", {"model.layers.%u.self_attn.k_proj.bias", "blk.%u.attn_k.bias"}},
    [ROLE_V_BIAS] = {"v_bias", {"model.layers.%u.self_attn.v_proj.bias", "blk.%u.attn_v.bias"}},
    [ROLE_O_BIAS] = {"o_bias", {"model.layers.%u.self_attn.o_proj.bias", "blk.%u.attn_output.bias"}},
    [ROLE_Q_NORM] = {"q_norm", {"model.layers.%u.self_attn.q_norm.weight", "blk.%u.attn_q_norm.weight"}},
    [ROLE_K_NORM] = {"k_norm", {"model.layers.%u.self_attn.k_norm.weight", "blk.%u.attn_k_norm.weight"}},
    [ROLE_FFN_NORM] = {"ffn_norm", {"model.layers.%u.post_attention_layernorm.weight", "blk.%u.ffn_norm.weight"}},
    [ROLE_EMBED] = {"embed", {"model.embed_tokens.weight", "token_embd.weight"}},
    [ROLE_FINAL_NORM] = {"final_norm", {"model.norm.weight", "output_norm.weight"}},
    [ROLE_HEAD] = {"head", {"lm_head.weight", "output.weight"}},
    [ROLE_ROPE_FACTORS] = {"rope_factors", {NULL, "rope_freqs.weight"}},
};

const char *role_name(role r)
{
    return (unsigned)r < ROLE_COUNT ? roles[r].name : "";
}

const char *role_pattern(role r, tensor_dialect d)
{
    return roles[r].pattern[d];
}
