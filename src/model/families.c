/* Owns the table of families: what each one's configuration defaults to, which tensors it has and what they are called,
 * and where it differs in the axes. Promises that nothing outside this file knows a family by name: a new one of known
 * mechanisms is a new row here and a golden model (docs/adding-a-family.md). */
#include "model/family.h"

#include <string.h>

/* ---- names of tensors --------------------------------------------------------------------------------------------- */

#define LAYER(part) "model.layers.%u." part
#define BLOCK(part) "blk.%u." part
#define LIST_END                                                                                                       \
    {                                                                                                                  \
        ROLE_COUNT, {NULL, NULL}, EXTENT_NONE, EXTENT_NONE, WHEN_FOUND                                                 \
    }

/* Everything with the layout of Llama: in the order in which a pass uses it. */
static const tensor_rule llama_tensors[] = {
    {ROLE_EMBED, {"model.embed_tokens.weight", "token_embd.weight"}, VOCAB, HIDDEN, WHEN_ALWAYS},
    {ROLE_ATTN_NORM, {LAYER("input_layernorm.weight"), BLOCK("attn_norm.weight")}, EXTENT_NONE, HIDDEN, WHEN_ALWAYS},
    {ROLE_Q, {LAYER("self_attn.q_proj.weight"), BLOCK("attn_q.weight")}, QUERY, HIDDEN, WHEN_ALWAYS},
    {ROLE_K, {LAYER("self_attn.k_proj.weight"), BLOCK("attn_k.weight")}, KEY, HIDDEN, WHEN_ALWAYS},
    {ROLE_V, {LAYER("self_attn.v_proj.weight"), BLOCK("attn_v.weight")}, KEY, HIDDEN, WHEN_ALWAYS},
    {ROLE_Q_BIAS, {LAYER("self_attn.q_proj.bias"), BLOCK("attn_q.bias")}, EXTENT_NONE, QUERY, WHEN_QKV_BIAS},
    {ROLE_K_BIAS, {LAYER("self_attn.k_proj.bias"), BLOCK("attn_k.bias")}, EXTENT_NONE, KEY, WHEN_QKV_BIAS},
    {ROLE_V_BIAS, {LAYER("self_attn.v_proj.bias"), BLOCK("attn_v.bias")}, EXTENT_NONE, KEY, WHEN_QKV_BIAS},
    {ROLE_Q_NORM, {LAYER("self_attn.q_norm.weight"), BLOCK("attn_q_norm.weight")}, EXTENT_NONE, HEAD_DIM, WHEN_QK_NORM},
    {ROLE_K_NORM, {LAYER("self_attn.k_norm.weight"), BLOCK("attn_k_norm.weight")}, EXTENT_NONE, HEAD_DIM, WHEN_QK_NORM},
    {ROLE_O, {LAYER("self_attn.o_proj.weight"), BLOCK("attn_output.weight")}, HIDDEN, QUERY, WHEN_ALWAYS},
    {ROLE_O_BIAS, {LAYER("self_attn.o_proj.bias"), BLOCK("attn_output.bias")}, EXTENT_NONE, HIDDEN, WHEN_O_BIAS},
    {ROLE_FFN_NORM,
     {LAYER("post_attention_layernorm.weight"), BLOCK("ffn_norm.weight")},
     EXTENT_NONE,
     HIDDEN,
     WHEN_ALWAYS},
    {ROLE_GATE, {LAYER("mlp.gate_proj.weight"), BLOCK("ffn_gate.weight")}, FFN, HIDDEN, WHEN_ALWAYS},
    {ROLE_UP, {LAYER("mlp.up_proj.weight"), BLOCK("ffn_up.weight")}, FFN, HIDDEN, WHEN_ALWAYS},
    {ROLE_DOWN, {LAYER("mlp.down_proj.weight"), BLOCK("ffn_down.weight")}, HIDDEN, FFN, WHEN_ALWAYS},
    {ROLE_FINAL_NORM, {"model.norm.weight", "output_norm.weight"}, EXTENT_NONE, HIDDEN, WHEN_ALWAYS},
    {ROLE_HEAD, {"lm_head.weight", "output.weight"}, VOCAB, HIDDEN, WHEN_UNTIED},
    {ROLE_ROPE_FACTORS, {NULL, "rope_freqs.weight"}, EXTENT_NONE, ROTATED, WHEN_FOUND},
    LIST_END,
};

/* Buffers that old versions of transformers saved; they are computed, not read. */
static const char *const idle_tensors[] = {
    "model.layers.*.self_attn.rotary_emb.inv_freq",
    "model.rotary_emb.inv_freq",
    "model.layers.*.self_attn.rotary_emb.cos_cached",
    "model.layers.*.self_attn.rotary_emb.sin_cached",
};

/* ---- the table ---------------------------------------------------------------------------------------------------- */

/* Shared by all the rows below. */
#define COMMON .tied = false, .act = ACT_SILU, .eps = 1e-6, .theta = 10000.0, .type = DT_F32

const family families[] = {
    {
        /* Llama 1 to 3.3, Yi, TinyLlama, SmolLM2; in GGUF also Mistral. GGUF permutes the rows of q and k so that
         * neighbours are rotated (llama.cpp, convert_hf_to_gguf.py: LlamaModel.permute). */
        .name = "llama",
        .architecture = "llama",
        .tensors = llama_tensors,
        .keys = KEYS_BIAS,
        .qkv_bias = BY_CONFIG,
        .o_bias = BY_CONFIG,
        .style = {ROPE_HALF, ROPE_INTERLEAVED},
        .window = WINDOW_NONE,
        .defaults = {COMMON, .vocab = 32000, .hidden = 4096, .ffn = 11008, .layers = 32, .heads = 32, .kv_heads = 0,
                     .context = 2048, .bos = 1, .eos = 2},
    },
    {
        .name = "mistral",
        .tensors = llama_tensors,
        .keys = KEYS_WINDOW,
        .qkv_bias = NEVER,
        .o_bias = NEVER,
        .style = {ROPE_HALF, ROPE_INTERLEAVED},
        .window = WINDOW_ALL,
        .defaults = {COMMON, .vocab = 32000, .hidden = 4096, .ffn = 14336, .layers = 32, .heads = 32, .kv_heads = 8,
                     .context = 131072, .window = 4096, .bos = 1, .eos = 2},
    },
    {
        .name = "qwen2",
        .architecture = "qwen2",
        .tensors = llama_tensors,
        .keys = KEYS_WINDOW | KEYS_WINDOW_LAYERS,
        .qkv_bias = ALWAYS,
        .o_bias = NEVER,
        .style = {ROPE_HALF, ROPE_HALF},
        .window = WINDOW_ABOVE,
        .defaults = {COMMON, .vocab = 151936, .hidden = 4096, .ffn = 22016, .layers = 32, .heads = 32, .kv_heads = 32,
                     .context = 32768, .window = 4096, .window_layers = 28, .bos = -1, .eos = -1},
    },
    {
        .name = "qwen3",
        .architecture = "qwen3",
        .tensors = llama_tensors,
        .keys = KEYS_BIAS | KEYS_WINDOW | KEYS_WINDOW_LAYERS,
        .qkv_bias = BY_CONFIG,
        .o_bias = BY_CONFIG,
        .qk_norm = true,
        .style = {ROPE_HALF, ROPE_HALF},
        .window = WINDOW_ABOVE,
        .defaults = {COMMON, .vocab = 151936, .hidden = 4096, .ffn = 22016, .layers = 32, .heads = 32, .kv_heads = 32,
                     .head_dim = 128, .context = 32768, .window = 4096, .window_layers = 28, .bos = -1, .eos = -1},
    },
};
const size_t n_families = sizeof families / sizeof *families;

/* ---- looking things up -------------------------------------------------------------------------------------------- */

const family *family_find(const char *model_type, tensor_dialect dialect)
{
    for (size_t i = 0; i < n_families; i++) {
        const char *name = dialect == DIALECT_GGUF ? families[i].architecture : families[i].name;
        if (name && strcmp(name, model_type) == 0) return &families[i];
    }
    return NULL;
}

/* Backtracks to the last star only: the first match of what stands between two stars is as good as any later one. */
bool glob_match(const char *pattern, const char *text)
{
    const char *star = NULL, *from = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            from = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star;
            text = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}

bool tensor_is_idle(const char *name)
{
    for (size_t i = 0; i < sizeof idle_tensors / sizeof *idle_tensors; i++)
        if (glob_match(idle_tensors[i], name)) return true;
    return false;
}
