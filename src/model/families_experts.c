/* The part of the table with mixtures of experts, and with latent attention. */
#include "model/families.h"

#define NORMS_BEFORE                                                                                                   \
    VECTOR(ROLE_ATTN_NORM, LAYER("input_layernorm.weight"), BLOCK("attn_norm.weight"), HIDDEN, WHEN_ALWAYS),           \
        VECTOR(ROLE_FFN_NORM, LAYER("post_attention_layernorm.weight"), BLOCK("ffn_norm.weight"), HIDDEN, WHEN_ALWAYS)

#define ROUTER_MATRIX(hf) MATRIX(ROLE_ROUTER, hf, BLOCK("ffn_gate_inp.weight"), EXPERTS, HIDDEN, WHEN_MOE)

/* An expert's three matrices: a tensor each in Hugging Face's dialect, one tensor for all experts in GGUF. */
#define EXPERT_FFNS(gate, up, down)                                                                                    \
    MATRIX(ROLE_EXPERT_GATE, gate, BLOCK("ffn_gate_exps.weight"), EXPERT_FFN, HIDDEN, WHEN_MOE),                       \
        MATRIX(ROLE_EXPERT_UP, up, BLOCK("ffn_up_exps.weight"), EXPERT_FFN, HIDDEN, WHEN_MOE),                         \
        MATRIX(ROLE_EXPERT_DOWN, down, BLOCK("ffn_down_exps.weight"), HIDDEN, EXPERT_FFN, WHEN_MOE)
#define USUAL_EXPERTS                                                                                                  \
    EXPERT_FFNS(MLP("experts.%u.gate_proj.weight"), MLP("experts.%u.up_proj.weight"),                                  \
                MLP("experts.%u.down_proj.weight"))

#define SHARED_EXPERT(hf)                                                                                              \
    MATRIX(ROLE_SHARED_GATE, MLP(hf ".gate_proj.weight"), BLOCK("ffn_gate_shexp.weight"), SHARED_FFN, HIDDEN,          \
           WHEN_SHARED),                                                                                               \
        MATRIX(ROLE_SHARED_UP, MLP(hf ".up_proj.weight"), BLOCK("ffn_up_shexp.weight"), SHARED_FFN, HIDDEN,            \
               WHEN_SHARED),                                                                                           \
        MATRIX(ROLE_SHARED_DOWN, MLP(hf ".down_proj.weight"), BLOCK("ffn_down_shexp.weight"), HIDDEN, SHARED_FFN,      \
               WHEN_SHARED)

#define CORRECTION                                                                                                     \
    VECTOR(ROLE_ROUTER_CORRECTION, MLP("gate.e_score_correction_bias"), BLOCK("exp_probs_b.bias"), EXPERTS,            \
           WHEN_CORRECTION)

#define SPARSE(part) "model.layers.%u.block_sparse_moe." part

static const tensor_rule tensors_mixtral[] = {
    EMBEDDING,
    NORMS_BEFORE,
    SEPARATE_QKV,
    OUTPUT,
    ROUTER_MATRIX(SPARSE("gate.weight")),
    EXPERT_FFNS(SPARSE("experts.%u.w1.weight"), SPARSE("experts.%u.w3.weight"), SPARSE("experts.%u.w2.weight")),
    ENDS,
    LIST_END,
};

/* Qwen2-MoE, Qwen3-MoE, OLMoE. */
static const tensor_rule tensors_qwen_moe[] = {
    EMBEDDING,
    NORMS_BEFORE,
    SEPARATE_QKV,
    QK_NORMS,
    OUTPUT,
    GATED_FFN(WHEN_DENSE),
    ROUTER_MATRIX(MLP("gate.weight")),
    MATRIX(ROLE_SHARED_ROUTER, MLP("shared_expert_gate.weight"), BLOCK("ffn_gate_inp_shexp.weight"), ONE, HIDDEN,
           WHEN_SHARED),
    SHARED_EXPERT("shared_expert"),
    USUAL_EXPERTS,
    ENDS,
    LIST_END,
};

static const tensor_rule tensors_glm4_moe[] = {
    EMBEDDING,
    VECTOR(ROLE_ATTN_NORM, LAYER("input_layernorm.weight"), BLOCK("attn_norm.weight"), HIDDEN, WHEN_ALWAYS),
    VECTOR(ROLE_FFN_NORM, LAYER("post_attention_layernorm.weight"), BLOCK("post_attention_norm.weight"), HIDDEN,
           WHEN_ALWAYS),
    SEPARATE_QKV,
    QK_NORMS,
    OUTPUT,
    GATED_FFN(WHEN_DENSE),
    ROUTER_MATRIX(MLP("gate.weight")),
    CORRECTION,
    SHARED_EXPERT("shared_experts"),
    USUAL_EXPERTS,
    ENDS,
    LIST_END,
};

/* Latent attention. GGUF has the expansion of the latent in one, or in two with that to keys transposed; q_a and kv_a
 * have biases where attention_bias says so. */
#define LATENT_ATTENTION                                                                                               \
    MATRIX(ROLE_Q, ATTN("q_proj.weight"), BLOCK("attn_q.weight"), QUERY, HIDDEN, WHEN_NO_Q_LORA),                      \
        MATRIX(ROLE_Q_A, ATTN("q_a_proj.weight"), BLOCK("attn_q_a.weight"), Q_LORA, HIDDEN, WHEN_Q_LORA),              \
        VECTOR(ROLE_Q_A_BIAS, ATTN("q_a_proj.bias"), NULL, Q_LORA, WHEN_Q_A_BIAS),                                     \
        VECTOR(ROLE_Q_A_NORM, ATTN("q_a_layernorm.weight"), BLOCK("attn_q_a_norm.weight"), Q_LORA, WHEN_Q_LORA),       \
        MATRIX(ROLE_Q_B, ATTN("q_b_proj.weight"), BLOCK("attn_q_b.weight"), QUERY, Q_LORA, WHEN_Q_LORA),               \
        MATRIX(ROLE_KV_A, ATTN("kv_a_proj_with_mqa.weight"), BLOCK("attn_kv_a_mqa.weight"), KV_A, HIDDEN,              \
               WHEN_ALWAYS),                                                                                           \
        VECTOR(ROLE_KV_A_BIAS, ATTN("kv_a_proj_with_mqa.bias"), NULL, KV_A, WHEN_QKV_BIAS),                            \
        VECTOR(ROLE_KV_A_NORM, ATTN("kv_a_layernorm.weight"), BLOCK("attn_kv_a_norm.weight"), KV_LORA, WHEN_ALWAYS),   \
        MATRIX(ROLE_KV_B, ATTN("kv_b_proj.weight"), NULL, KV_B, KV_LORA, WHEN_ALWAYS),                                 \
        {.role = ROLE_K_B,                                                                                             \
         .name = {NULL, BLOCK("attn_k_b.weight")},                                                                     \
         .rows = HEADS_KV_LORA,                                                                                        \
         .cols = NOPE,                                                                                                 \
         .stacked = HEADS,                                                                                             \
         .when = WHEN_FOUND},                                                                                          \
        {.role = ROLE_V_B,                                                                                             \
         .name = {NULL, BLOCK("attn_v_b.weight")},                                                                     \
         .rows = ATTENDED,                                                                                             \
         .cols = KV_LORA,                                                                                              \
         .stacked = HEADS,                                                                                             \
         .when = WHEN_FOUND},                                                                                          \
        MATRIX(ROLE_KV_B, NULL, BLOCK("attn_kv_b.weight"), KV_B, KV_LORA, WHEN_NOT_SPLIT)

static const tensor_rule tensors_deepseek[] = {
    EMBEDDING,
    NORMS_BEFORE,
    LATENT_ATTENTION,
    OUTPUT,
    GATED_FFN(WHEN_DENSE),
    ROUTER_MATRIX(MLP("gate.weight")),
    CORRECTION,
    SHARED_EXPERT("shared_experts"),
    USUAL_EXPERTS,
    ENDS,
    LIST_END,
};

#define EXPERTS_OF(part) "model.layers.%u.mlp.experts." part

static const tensor_rule tensors_gpt_oss[] = {
    EMBEDDING,
    VECTOR(ROLE_ATTN_NORM, LAYER("input_layernorm.weight"), BLOCK("attn_norm.weight"), HIDDEN, WHEN_ALWAYS),
    SEPARATE_QKV,
    OUTPUT,
    VECTOR(ROLE_SINKS, ATTN("sinks"), BLOCK("attn_sinks.weight"), HEADS, WHEN_ALWAYS),
    VECTOR(ROLE_FFN_NORM, LAYER("post_attention_layernorm.weight"), BLOCK("post_attention_norm.weight"), HIDDEN,
           WHEN_ALWAYS),
    ROUTER_MATRIX(MLP("router.weight")),
    VECTOR(ROLE_ROUTER_BIAS, MLP("router.bias"), BLOCK("ffn_gate_inp.bias"), EXPERTS, WHEN_MOE),
    {.role = ROLE_EXPERT_GATE_BIAS,
     .name = {EXPERTS_OF("gate_up_proj_bias"), NULL},
     .cols = EXPERT_FFN_2,
     .stacked = EXPERTS,
     .when = WHEN_MOE},
    {.role = ROLE_EXPERT_GATE_BIAS,
     .name = {NULL, BLOCK("ffn_gate_exps.bias")},
     .cols = EXPERT_FFN,
     .stacked = EXPERTS,
     .when = WHEN_MOE},
    {.role = ROLE_EXPERT_UP_BIAS,
     .name = {NULL, BLOCK("ffn_up_exps.bias")},
     .cols = EXPERT_FFN,
     .stacked = EXPERTS,
     .when = WHEN_MOE},
    {.role = ROLE_EXPERT_DOWN_BIAS,
     .name = {EXPERTS_OF("down_proj_bias"), BLOCK("ffn_down_exps.bias")},
     .cols = HIDDEN,
     .stacked = EXPERTS,
     .when = WHEN_MOE},
    {.role = ROLE_EXPERT_GATE,
     .name = {EXPERTS_OF("gate_up_proj_blocks"), NULL},
     .rows = EXPERT_FFN_2,
     .cols = HIDDEN,
     .when = WHEN_BLOCKS,
     .side = EXPERTS_OF("gate_up_proj_scales")},
    {.role = ROLE_EXPERT_DOWN,
     .name = {EXPERTS_OF("down_proj_blocks"), NULL},
     .rows = HIDDEN,
     .cols = EXPERT_FFN,
     .when = WHEN_BLOCKS,
     .side = EXPERTS_OF("down_proj_scales")},
    {.role = ROLE_EXPERT_GATE,
     .name = {EXPERTS_OF("gate_up_proj"), NULL},
     .rows = EXPERT_FFN_2,
     .cols = HIDDEN,
     .when = WHEN_MOE,
     .transposed = true},
    {.role = ROLE_EXPERT_DOWN,
     .name = {EXPERTS_OF("down_proj"), NULL},
     .rows = HIDDEN,
     .cols = EXPERT_FFN,
     .when = WHEN_MOE,
     .transposed = true},
    MATRIX(ROLE_EXPERT_GATE, NULL, BLOCK("ffn_gate_exps.weight"), EXPERT_FFN, HIDDEN, WHEN_MOE),
    MATRIX(ROLE_EXPERT_UP, NULL, BLOCK("ffn_up_exps.weight"), EXPERT_FFN, HIDDEN, WHEN_MOE),
    MATRIX(ROLE_EXPERT_DOWN, NULL, BLOCK("ffn_down_exps.weight"), HIDDEN, EXPERT_FFN, WHEN_MOE),
    ENDS,
    LIST_END,
};

/* What training needed. */
static const char *const training[] = {"router_aux_loss_coef",
                                       "router_jitter_noise",
                                       "output_router_logits",
                                       "aux_loss_alpha",
                                       "seq_aux",
                                       "ep_size",
                                       "num_mtp_layers",
                                       "max_window_layers",
                                       NULL};
static const char *const deepseek_neutral[] = {
    "aux_loss_alpha", "seq_aux", "ep_size", "num_mtp_layers", "head_dim", "qk_head_dim", "output_router_logits", NULL};
static const key_value local_experts[] = {
    {"num_experts", "num_local_experts"}, {"num_experts", "num_experts"}, {NULL, NULL}};
static const key_value routed_experts[] = {
    {"num_experts", "n_routed_experts"}, {"num_experts", "num_local_experts"}, {NULL, NULL}};
static const key_value no_biases[] = {{"mlp_bias", "false"}, {"moe_layer_freq", "1"}, {NULL, NULL}};

const family families_experts[] = {
    {
        .name = "mixtral",
        .title = "Mixtral",
        .architecture = "llama",
        .tensors = tensors_mixtral,
        .aliases = local_experts,
        .neutral = training,
        .keys = KEYS_WINDOW | KEYS_EXPERTS,
        .style = {ROPE_HALF, ROPE_INTERLEAVED},
        .window = WINDOW_ALL,
        .moe = MOE_ALL,
        .defaults = {.act = ACT_SILU,
                     .eps = 1e-5,
                     .theta = 1e6,
                     .vocab = 32000,
                     .hidden = 4096,
                     .ffn = 14336,
                     .layers = 32,
                     .heads = 32,
                     .kv_heads = 8,
                     .context = 131072,
                     .experts = 8,
                     .experts_used = 2,
                     .normalised = true,
                     .bos = 1,
                     .eos = 2},
    },
    {
        .name = "qwen2_moe",
        .title = "Qwen1.5-MoE, Qwen2-MoE",
        .architecture = "qwen2moe",
        .tensors = tensors_qwen_moe,
        .aliases = local_experts,
        .neutral = (const char *const[]){"router_aux_loss_coef", "output_router_logits", "max_window_layers",
                                         "sliding_window", NULL},
        .keys = KEYS_EXPERTS | KEYS_SHARED_SIZE | KEYS_SPARSE_STEP | KEYS_QKV_BIAS,
        .qkv_bias = BY_QKV_BIAS,
        .style = {ROPE_HALF, ROPE_HALF},
        .moe = MOE_STEP,
        .defaults = {COMMON, NO_ENDS, .vocab = 151936, .hidden = 2048, .ffn = 5632, .layers = 24, .heads = 16,
                     .kv_heads = 16, .context = 32768, .experts = 60, .experts_used = 4, .expert_ffn = 1408,
                     .shared_ffn = 5632, .moe_step = 1, .qkv_bias = true},
    },
    {
        .name = "qwen3_moe",
        .title = "Qwen3-MoE",
        .architecture = "qwen3moe",
        .tensors = tensors_qwen_moe,
        .aliases = local_experts,
        .neutral = training,
        .keys = KEYS_EXPERTS | KEYS_SPARSE_STEP | KEYS_BIAS | KEYS_WINDOW | KEYS_WINDOW_LAYERS,
        .qkv_bias = BY_ATTENTION_BIAS,
        .o_bias = BY_ATTENTION_BIAS,
        .qk_norm = QK_NORM_HEAD,
        .style = {ROPE_HALF, ROPE_HALF},
        .window = WINDOW_FLAG,
        .moe = MOE_STEP,
        .defaults = {COMMON, NO_ENDS, .vocab = 151936, .hidden = 2048, .ffn = 6144, .layers = 24, .heads = 32,
                     .kv_heads = 4, .context = 32768, .window = 4096, .experts = 128, .experts_used = 8,
                     .expert_ffn = 768, .moe_step = 1},
    },
    {
        .name = "olmoe",
        .title = "OLMoE",
        .architecture = "olmoe",
        .tensors = tensors_qwen_moe,
        .aliases = local_experts,
        .neutral = training,
        .keys = KEYS_EXPERTS | KEYS_BIAS | KEYS_CLIP,
        .qkv_bias = BY_ATTENTION_BIAS,
        .o_bias = BY_ATTENTION_BIAS,
        .qk_norm = QK_NORM_WHOLE,
        .style = {ROPE_HALF, ROPE_HALF},
        .moe = MOE_ALL,
        .defaults = {.act = ACT_SILU,
                     .eps = 1e-5,
                     .theta = 10000,
                     .vocab = 50304,
                     .hidden = 2048,
                     .ffn = 2048,
                     .layers = 16,
                     .heads = 16,
                     .context = 4096,
                     .experts = 64,
                     .experts_used = 8,
                     .bos = -1,
                     .eos = 50279},
    },
    {
        .name = "deepseek_v2",
        .title = "DeepSeek V2, V2-Lite, V2.5",
        .tensors = tensors_deepseek,
        .architecture = "deepseek2",
        .aliases = routed_experts,
        .neutral = deepseek_neutral,
        .expected = no_biases,
        .keys = KEYS_EXPERTS | KEYS_SHARED | KEYS_GROUPS | KEYS_FIRST_DENSE | KEYS_MLA | KEYS_BIAS,
        .qkv_bias = BY_ATTENTION_BIAS,
        .o_bias = BY_ATTENTION_BIAS,
        .mixer = MIXER_MLA,
        .style = {ROPE_INTERLEAVED, ROPE_INTERLEAVED},
        .moe = MOE_AFTER,
        .group_score = GROUP_BEST,
        .defaults = {COMMON, .vocab = 102400, .hidden = 4096, .ffn = 11008, .layers = 32, .heads = 32, .context = 2048,
                     .q_lora = 1536, .kv_lora = 512, .nope_dim = 128, .rope_dim = 64, .v_dim = 128, .experts = 64,
                     .experts_used = 6, .expert_ffn = 1407, .shared_experts = 2, .routed_scale = 1, .bos = 1, .eos = 2},
    },
    {
        .name = "deepseek_v3",
        .also = (const char *const[]){"kimi_k2", NULL},
        .where = (const key_value[]){{"rope_interleave", "false"}, {NULL, NULL}},
        .tensors = tensors_deepseek,
        .aliases = routed_experts,
        .neutral = deepseek_neutral,
        .expected = (const key_value[]){{"rope_interleave", "false"}, {"moe_layer_freq", "1"}, {NULL, NULL}},
        .keys = KEYS_EXPERTS | KEYS_SHARED | KEYS_GROUPS | KEYS_FIRST_DENSE | KEYS_MLA | KEYS_BIAS,
        .qkv_bias = BY_ATTENTION_BIAS,
        .o_bias = BY_ATTENTION_BIAS,
        .mixer = MIXER_MLA,
        .style = {ROPE_HALF, ROPE_HALF},
        .moe = MOE_AFTER,
        .router = ROUTER_SIGMOID,
        .group_score = GROUP_TWO_BEST,
        .defaults = {COMMON,
                     .vocab = 129280,
                     .hidden = 7168,
                     .ffn = 18432,
                     .layers = 61,
                     .heads = 128,
                     .context = 4096,
                     .q_lora = 1536,
                     .kv_lora = 512,
                     .nope_dim = 128,
                     .rope_dim = 64,
                     .v_dim = 128,
                     .experts = 256,
                     .experts_used = 8,
                     .expert_ffn = 2048,
                     .shared_experts = 1,
                     .groups = 8,
                     .used_groups = 4,
                     .first_dense = 3,
                     .routed_scale = 2.5,
                     .normalised = true,
                     .bos = 0,
                     .eos = 1},
    },
    {
        /* DeepSeek V3 and R1, Kimi K2. */
        .name = "deepseek_v3",
        .title = "DeepSeek V3, V3.1, R1, Kimi K2",
        .also = (const char *const[]){"kimi_k2", NULL},
        .architecture = "deepseek2",
        .tensors = tensors_deepseek,
        .aliases = routed_experts,
        .neutral = deepseek_neutral,
        .expected = (const key_value[]){{"rope_interleave", "true"}, {"moe_layer_freq", "1"}, {NULL, NULL}},
        .keys = KEYS_EXPERTS | KEYS_SHARED | KEYS_GROUPS | KEYS_FIRST_DENSE | KEYS_MLA | KEYS_BIAS,
        .qkv_bias = BY_ATTENTION_BIAS,
        .o_bias = BY_ATTENTION_BIAS,
        .mixer = MIXER_MLA,
        .style = {ROPE_INTERLEAVED, ROPE_INTERLEAVED},
        .moe = MOE_AFTER,
        .router = ROUTER_SIGMOID,
        .group_score = GROUP_TWO_BEST,
        .defaults = {COMMON,
                     .vocab = 129280,
                     .hidden = 7168,
                     .ffn = 18432,
                     .layers = 61,
                     .heads = 128,
                     .context = 4096,
                     .q_lora = 1536,
                     .kv_lora = 512,
                     .nope_dim = 128,
                     .rope_dim = 64,
                     .v_dim = 128,
                     .experts = 256,
                     .experts_used = 8,
                     .expert_ffn = 2048,
                     .shared_experts = 1,
                     .groups = 8,
                     .used_groups = 4,
                     .first_dense = 3,
                     .routed_scale = 2.5,
                     .normalised = true,
                     .bos = 0,
                     .eos = 1},
    },
    {
        .name = "glm4_moe",
        .title = "GLM-4.5, GLM-4.6",
        .architecture = "glm4moe",
        .tensors = tensors_glm4_moe,
        .aliases = routed_experts,
        .neutral = training,
        .keys = KEYS_EXPERTS | KEYS_SHARED | KEYS_GROUPS | KEYS_FIRST_DENSE | KEYS_BIAS | KEYS_PARTIAL | KEYS_QK_NORM,
        .qkv_bias = BY_ATTENTION_BIAS,
        .qk_norm = QK_NORM_HEAD,
        .style = {ROPE_HALF, ROPE_HALF},
        .moe = MOE_AFTER,
        .router = ROUTER_SIGMOID,
        .group_score = GROUP_TWO_BEST,
        .defaults = {.act = ACT_SILU,
                     .eps = 1e-5,
                     .theta = 10000,
                     NO_ENDS,
                     .rotary = 0.5,
                     .vocab = 151552,
                     .hidden = 4096,
                     .ffn = 10944,
                     .layers = 46,
                     .heads = 96,
                     .kv_heads = 8,
                     .context = 131072,
                     .experts = 128,
                     .experts_used = 8,
                     .expert_ffn = 1408,
                     .shared_experts = 1,
                     .groups = 1,
                     .used_groups = 1,
                     .first_dense = 1,
                     .routed_scale = 1,
                     .normalised = true},
    },
    {
        /* Experts in blocks of 4-bit codes as published, or widened and [in, out] as transformers saves them. */
        .name = "gpt_oss",
        .title = "gpt-oss",
        .architecture = "gpt-oss",
        .tensors = tensors_gpt_oss,
        .aliases = (const key_value[]){{"num_experts", "num_local_experts"}, {"hidden_act", ""}, {NULL, NULL}},
        .expected = (const key_value[]){{"swiglu_alpha", "1.702"}, {NULL, NULL}},
        .neutral = (const char *const[]){"hidden_act", "router_aux_loss_coef", "output_router_logits",
                                         "initial_context_length", "experts_per_token", NULL},
        .keys = KEYS_EXPERTS | KEYS_BIAS | KEYS_WINDOW | KEYS_LIMIT,
        .qkv_bias = BY_ATTENTION_BIAS,
        .o_bias = BY_ATTENTION_BIAS,
        .style = {ROPE_HALF, ROPE_HALF},
        .window = WINDOW_PATTERN,
        .moe = MOE_ALL,
        .router = ROUTER_SOFTMAX_LATE,
        .fused_experts = true,
        .interleaved_experts = true,
        .defaults = {.act = ACT_CLAMPED,
                     .eps = 1e-5,
                     .theta = 150000,
                     NO_ENDS,
                     .vocab = 201088,
                     .hidden = 2880,
                     .ffn = 2880,
                     .layers = 36,
                     .heads = 64,
                     .kv_heads = 8,
                     .head_dim = 64,
                     .context = 131072,
                     .window = 128,
                     .window_pattern = 2,
                     .act_limit = 7,
                     .attention_bias = true,
                     .experts = 128,
                     .experts_used = 4},
    },
};
const size_t n_families_experts = sizeof families_experts / sizeof *families_experts;
