/* What the parts of the table of families share: spellings of tensors and of defaults. */
#ifndef LAMINA_MODEL_FAMILIES_H
#define LAMINA_MODEL_FAMILIES_H

#include "model/family.h"

#define LAYER(part) "model.layers.%u." part
#define ATTN(part)  "model.layers.%u.self_attn." part
#define MLP(part)   "model.layers.%u.mlp." part
#define BLOCK(part) "blk.%u." part
#define LIST_END                                                                                                       \
    {                                                                                                                  \
        .role = ROLE_COUNT                                                                                             \
    }

/* A vector, and a matrix, of the list. */
#define VECTOR(r, hf, gguf, size, condition)                                                                           \
    {                                                                                                                  \
        .role = r, .name = {hf, gguf}, .cols = size, .when = condition                                                 \
    }
#define MATRIX(r, hf, gguf, n_rows, n_cols, condition)                                                                 \
    {                                                                                                                  \
        .role = r, .name = {hf, gguf}, .rows = n_rows, .cols = n_cols, .when = condition                               \
    }

/* Defaults that all rows share; and those of rows without ends of text. */
#define NO_ENDS .bos = -1, .eos = -1
#define COMMON  .act = ACT_SILU, .eps = 1e-6, .theta = 10000.0, .type = DT_F32

/* What most lists have: ends, and the matrices of attention and of a gated feed-forward. */
#define EMBEDDING MATRIX(ROLE_EMBED, "model.embed_tokens.weight", "token_embd.weight", VOCAB, HIDDEN, WHEN_ALWAYS)
#define SEPARATE_QKV                                                                                                   \
    MATRIX(ROLE_Q, ATTN("q_proj.weight"), BLOCK("attn_q.weight"), QUERY, HIDDEN, WHEN_ALWAYS),                         \
        MATRIX(ROLE_K, ATTN("k_proj.weight"), BLOCK("attn_k.weight"), KEY, HIDDEN, WHEN_ALWAYS),                       \
        MATRIX(ROLE_V, ATTN("v_proj.weight"), BLOCK("attn_v.weight"), KEY, HIDDEN, WHEN_ALWAYS),                       \
        VECTOR(ROLE_Q_BIAS, ATTN("q_proj.bias"), BLOCK("attn_q.bias"), QUERY, WHEN_QKV_BIAS),                          \
        VECTOR(ROLE_K_BIAS, ATTN("k_proj.bias"), BLOCK("attn_k.bias"), KEY, WHEN_QKV_BIAS),                            \
        VECTOR(ROLE_V_BIAS, ATTN("v_proj.bias"), BLOCK("attn_v.bias"), KEY, WHEN_QKV_BIAS)
#define QK_NORMS                                                                                                       \
    VECTOR(ROLE_Q_NORM, ATTN("q_norm.weight"), BLOCK("attn_q_norm.weight"), QUERY_NORM, WHEN_QK_NORM),                 \
        VECTOR(ROLE_K_NORM, ATTN("k_norm.weight"), BLOCK("attn_k_norm.weight"), KEY_NORM, WHEN_QK_NORM)
#define OUTPUT                                                                                                         \
    MATRIX(ROLE_O, ATTN("o_proj.weight"), BLOCK("attn_output.weight"), HIDDEN, ATTENDED, WHEN_ALWAYS),                 \
        VECTOR(ROLE_O_BIAS, ATTN("o_proj.bias"), BLOCK("attn_output.bias"), HIDDEN, WHEN_O_BIAS)
#define GATED_FFN(condition)                                                                                           \
    MATRIX(ROLE_GATE, MLP("gate_proj.weight"), BLOCK("ffn_gate.weight"), FFN, HIDDEN, condition),                      \
        MATRIX(ROLE_UP, MLP("up_proj.weight"), BLOCK("ffn_up.weight"), FFN, HIDDEN, condition),                        \
        MATRIX(ROLE_DOWN, MLP("down_proj.weight"), BLOCK("ffn_down.weight"), HIDDEN, FFN, condition)
#define GATED_FFN_BIASES                                                                                               \
    VECTOR(ROLE_GATE_BIAS, MLP("gate_proj.bias"), BLOCK("ffn_gate.bias"), FFN, WHEN_MLP_BIAS),                         \
        VECTOR(ROLE_UP_BIAS, MLP("up_proj.bias"), BLOCK("ffn_up.bias"), FFN, WHEN_MLP_BIAS),                           \
        VECTOR(ROLE_DOWN_BIAS, MLP("down_proj.bias"), BLOCK("ffn_down.bias"), HIDDEN, WHEN_MLP_BIAS)
#define FUSED_GATE_UP                                                                                                  \
    {.role = ROLE_GATE,                                                                                                \
     .name = {MLP("gate_up_proj.weight"), BLOCK("ffn_up.weight")},                                                     \
     .rows = FFN,                                                                                                      \
     .cols = HIDDEN,                                                                                                   \
     .part = PART_GATE_UP},                                                                                            \
        {.role = ROLE_UP,                                                                                              \
         .name = {MLP("gate_up_proj.weight"), BLOCK("ffn_up.weight")},                                                 \
         .rows = FFN,                                                                                                  \
         .cols = HIDDEN,                                                                                               \
         .part = PART_GATE_UP},                                                                                        \
        MATRIX(ROLE_DOWN, MLP("down_proj.weight"), BLOCK("ffn_down.weight"), HIDDEN, FFN, WHEN_ALWAYS)
#define ENDS                                                                                                           \
    VECTOR(ROLE_FINAL_NORM, "model.norm.weight", "output_norm.weight", HIDDEN, WHEN_ALWAYS),                           \
        MATRIX(ROLE_HEAD, "lm_head.weight", "output.weight", VOCAB, HIDDEN, WHEN_UNTIED),                              \
        VECTOR(ROLE_ROPE_FACTORS, NULL, "rope_freqs.weight", ROTATED, WHEN_FOUND)

/* One matrix of rows of q, then k, then v, and its bias. */
#define FUSED_QKV_OF(hf, hf_bias, gguf, gguf_bias)                                                                     \
    {.role = ROLE_Q, .name = {hf, gguf}, .rows = QUERY, .cols = HIDDEN, .part = PART_QKV},                             \
        {.role = ROLE_K, .name = {hf, gguf}, .rows = KEY, .cols = HIDDEN, .part = PART_QKV},                           \
        {.role = ROLE_V, .name = {hf, gguf}, .rows = KEY, .cols = HIDDEN, .part = PART_QKV},                           \
        {.role = ROLE_Q_BIAS, .name = {hf_bias, gguf_bias}, .cols = QUERY, .part = PART_QKV, .when = WHEN_QKV_BIAS},   \
        {.role = ROLE_K_BIAS, .name = {hf_bias, gguf_bias}, .cols = KEY, .part = PART_QKV, .when = WHEN_QKV_BIAS},     \
    {                                                                                                                  \
        .role = ROLE_V_BIAS, .name = {hf_bias, gguf_bias}, .cols = KEY, .part = PART_QKV, .when = WHEN_QKV_BIAS        \
    }
#define FUSED_QKV(hf, gguf) FUSED_QKV_OF(hf ".weight", hf ".bias", gguf ".weight", gguf ".bias")

/* GGUF has the three in one, the rows of q first, or apart: which, the tensors say. The second stands where the first
 * was not found. */
#define GGUF_FUSED_QKV                                                                                                 \
    {.role = ROLE_Q,                                                                                                   \
     .name = {NULL, BLOCK("attn_qkv.weight")},                                                                         \
     .rows = QUERY,                                                                                                    \
     .cols = HIDDEN,                                                                                                   \
     .part = PART_QKV,                                                                                                 \
     .when = WHEN_FOUND},                                                                                              \
        {.role = ROLE_K,                                                                                               \
         .name = {NULL, BLOCK("attn_qkv.weight")},                                                                     \
         .rows = KEY,                                                                                                  \
         .cols = HIDDEN,                                                                                               \
         .part = PART_QKV,                                                                                             \
         .when = WHEN_FOUND},                                                                                          \
        {.role = ROLE_V,                                                                                               \
         .name = {NULL, BLOCK("attn_qkv.weight")},                                                                     \
         .rows = KEY,                                                                                                  \
         .cols = HIDDEN,                                                                                               \
         .part = PART_QKV,                                                                                             \
         .when = WHEN_FOUND},                                                                                          \
        {.role = ROLE_Q_BIAS,                                                                                          \
         .name = {NULL, BLOCK("attn_qkv.bias")},                                                                       \
         .cols = QUERY,                                                                                                \
         .part = PART_QKV,                                                                                             \
         .when = WHEN_FOUND},                                                                                          \
        {.role = ROLE_K_BIAS,                                                                                          \
         .name = {NULL, BLOCK("attn_qkv.bias")},                                                                       \
         .cols = KEY,                                                                                                  \
         .part = PART_QKV,                                                                                             \
         .when = WHEN_FOUND},                                                                                          \
    {                                                                                                                  \
        .role = ROLE_V_BIAS, .name = {NULL, BLOCK("attn_qkv.bias")}, .cols = KEY, .part = PART_QKV, .when = WHEN_FOUND \
    }
#define GGUF_SEPARATE_QKV                                                                                              \
    MATRIX(ROLE_Q, NULL, BLOCK("attn_q.weight"), QUERY, HIDDEN, WHEN_ALWAYS),                                          \
        MATRIX(ROLE_K, NULL, BLOCK("attn_k.weight"), KEY, HIDDEN, WHEN_ALWAYS),                                        \
        MATRIX(ROLE_V, NULL, BLOCK("attn_v.weight"), KEY, HIDDEN, WHEN_ALWAYS),                                        \
        VECTOR(ROLE_Q_BIAS, NULL, BLOCK("attn_q.bias"), QUERY, WHEN_QKV_BIAS),                                         \
        VECTOR(ROLE_K_BIAS, NULL, BLOCK("attn_k.bias"), KEY, WHEN_QKV_BIAS),                                           \
        VECTOR(ROLE_V_BIAS, NULL, BLOCK("attn_v.bias"), KEY, WHEN_QKV_BIAS)

extern const family families_llama[], families_plain[], families_fused[], families_experts[];
extern const size_t n_families_llama, n_families_plain, n_families_fused, n_families_experts;

#endif
