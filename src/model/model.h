/* Architecture as data: a family is a row of a table, a model is that row with its axes filled in from config.json and
 * its tensors bound to roles. The forward pass switches on axes, never on families. */
#ifndef LAMINA_MODEL_MODEL_H
#define LAMINA_MODEL_MODEL_H

#include "format/checkpoint.h"

/* What a tensor is for. Matrices first, in the order in which a layer uses them. */
typedef enum role {
    ROLE_QKV, /* all three in one matrix whose rows lie otherwise than one after the other, see qkv_layout */
    ROLE_Q_A, /* latent attention: hidden -> q_lora, and q_lora -> heads */
    ROLE_Q_B,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_KV_A, /* hidden -> latent and the rotated part of the keys */
    ROLE_KV_B, /* latent -> for each head its keys, then its values */
    ROLE_K_B,  /* the same in two, as GGUF has it: for each head [kv_lora, nope], */
    ROLE_V_B,  /* and [v_dim, kv_lora] */
    ROLE_O,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_ROUTER,
    ROLE_SHARED_ROUTER, /* [1, hidden]: how much of the shared expert */
    ROLE_SHARED_GATE,
    ROLE_SHARED_UP,
    ROLE_SHARED_DOWN,
    ROLE_MATRICES,
    /* vectors */
    ROLE_ATTN_NORM = ROLE_MATRICES,
    ROLE_ATTN_NORM_BIAS,
    ROLE_QKV_BIAS,
    ROLE_Q_BIAS,
    ROLE_K_BIAS,
    ROLE_V_BIAS,
    ROLE_O_BIAS,
    ROLE_Q_A_BIAS,
    ROLE_KV_A_BIAS,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_Q_NORM_BIAS,
    ROLE_K_NORM_BIAS,
    ROLE_Q_A_NORM,
    ROLE_KV_A_NORM,
    ROLE_SINKS, /* [heads] */
    ROLE_POST_ATTN_NORM,
    ROLE_FFN_NORM,
    ROLE_FFN_NORM_BIAS,
    ROLE_GATE_BIAS,
    ROLE_UP_BIAS,
    ROLE_DOWN_BIAS,
    ROLE_ROUTER_BIAS,
    ROLE_ROUTER_CORRECTION, /* added to the scores for choosing, not for weighing */
    ROLE_EXPERT_GATE_BIAS,  /* [experts, expert_ffn], or both halves where gate and up are one matrix */
    ROLE_EXPERT_UP_BIAS,
    ROLE_EXPERT_DOWN_BIAS, /* [experts, hidden] */
    ROLE_POST_FFN_NORM,
    ROLE_LAYER_COUNT,
    /* of every routed expert, see model_layer.experts */
    ROLE_EXPERT_GATE = ROLE_LAYER_COUNT, /* or gate and up in one */
    ROLE_EXPERT_UP,
    ROLE_EXPERT_DOWN,
    ROLE_LAYER_END,
    /* of the model */
    ROLE_EMBED = ROLE_LAYER_END,
    ROLE_POSITIONS, /* [context, hidden]: learned positions */
    ROLE_FINAL_NORM,
    ROLE_FINAL_NORM_BIAS,
    ROLE_HEAD,
    ROLE_HEAD_BIAS,
    ROLE_ROPE_FACTORS,
    ROLE_ROPE_LONG, /* GGUF's two sets of factors of longrope */
    ROLE_ROPE_SHORT,
    ROLE_COUNT
} role;
enum { EXPERT_MATRICES = ROLE_LAYER_END - ROLE_EXPERT_GATE };

const char *role_name(role r); /* "q", "gate", "embed" ... */

typedef enum mixer_kind { MIXER_GQA, MIXER_MLA } mixer_kind;
typedef enum qkv_layout {
    QKV_SEPARATE, /* each its own matrix, or one after the other in one */
    QKV_GROUPED,  /* for each KV head its queries, its key, its value */
    QKV_COLUMNS   /* one after the other along the columns of a matrix stored [in, out] */
} qkv_layout;
typedef enum qk_norm_kind {
    QK_NORM_NONE,
    QK_NORM_HEAD,  /* over each head, one set of weights */
    QK_NORM_HEADS, /* over each head, each with its own weights */
    QK_NORM_WHOLE  /* over all heads together */
} qk_norm_kind;
typedef enum position_kind { POSITION_ROPE, POSITION_ALIBI, POSITION_LEARNED } position_kind;
typedef enum rope_style { ROPE_HALF /* pairs (i, i + r/2) */, ROPE_INTERLEAVED /* pairs (2i, 2i + 1) */ } rope_style;
typedef enum rope_scaling {
    ROPE_PLAIN,
    ROPE_LINEAR,
    ROPE_DYNAMIC /* NTK, by the session's context */,
    ROPE_YARN,
    ROPE_LLAMA3,
    ROPE_LONG,   /* two lists of divisors, chosen by the session's context */
    ROPE_QWEN,   /* QWen 1's dynamic NTK, by the session's context */
    ROPE_FACTORS /* a tensor divides each frequency (GGUF) */
} rope_scaling;
typedef enum query_scaling { /* of a row's queries, by its position */
                             QUERY_PLAIN,
                             QUERY_LOG_N, /* log(p + 1) / log(original context) where that is more than 1: QWen 1 */
                             QUERY_LLAMA4 /* 1 + beta log(1 + floor(p / original context)): Ministral 3 */
} query_scaling;
typedef enum activation {
    ACT_SILU,
    ACT_GELU_TANH,
    ACT_GELU,
    ACT_RELU,
    ACT_RELU2,
    ACT_QUICK_GELU,
    ACT_CLAMPED /* gpt-oss: (up + 1) gate sigmoid(1.702 gate), both clamped */
} activation;
typedef enum router_kind {
    ROUTER_SOFTMAX,      /* probabilities over all experts, then the best */
    ROUTER_SOFTMAX_LATE, /* the best, then probabilities over those */
    ROUTER_SIGMOID
} router_kind;
typedef enum group_score {
    GROUP_BEST /* the best of a group */,
    GROUP_TWO_BEST /* the sum of its two best */
} group_score;

typedef struct rope_axes {
    rope_style style;
    rope_scaling scaling;
    uint32_t dims; /* rotated dimensions of a head */
    double theta;
    double factor;                            /* linear, dynamic, yarn, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    uint32_t original_context;                /* llama3, yarn, long; dynamic: max_position_embeddings */
    double beta_fast, beta_slow, attention_factor /* 0: from the formula */, mscale, mscale_all_dim; /* yarn, long */
    bool truncate;                             /* yarn: correction range rounded to whole dimensions */
    const float *long_factors, *short_factors; /* long: [dims / 2], the model's; NULL: in a tensor */
} rope_axes;

typedef struct expert_axes { /* count 0: none */
    uint32_t count, used, ffn, shared_ffn /* 0: none */, groups, used_groups;
    router_kind router;
    group_score group_score;
    bool normalised;  /* the weights of the used ones are divided by their sum */
    bool fused;       /* gate and up in one matrix (ROLE_EXPERT_GATE): */
    bool interleaved; /* rows gate, up, gate, up ...; else all of gate, then all of up */
    float scale;      /* of the routed sum */
} expert_axes;

/* f32 scales of a matrix, of which each serves a block of its elements. */
typedef struct scale_grid {
    uint32_t rows, cols; /* of a block; UINT32_MAX, SCALE_COLS_ALL: all */
    uint64_t stride;     /* scales of a row of blocks */
    uint64_t row0;       /* of the first row of blocks that is this weight's, the row where the weight begins */
} scale_grid;
#define SCALE_COLS_ALL (UINT32_C(1) << 31)

/* Scales that are codes c of 8 bits: scale i is map[c] * scales[i / block] + offset, each rounded. */
typedef struct nested_scales {
    uint32_t scales, map; /* indices into the checkpoint's tensors, f32 */
    uint32_t block;
    float offset;
} nested_scales;

typedef struct weight {  /* a tensor, or whole rows of one, bound to a role; rows is 0 when absent */
    uint64_t rows, cols; /* as stored; vectors: rows 1 */
    dtype type;
    uint32_t file;
    uint64_t offset, bytes, row_bytes; /* vectors: row_bytes is 0 */
    const char *name;
    uint32_t tensor, scales;     /* indices into the checkpoint's tensors; scales: TENSOR_NONE: none */
    uint64_t scales_offset;      /* bytes into that tensor where those of this weight begin */
    scale_grid grid;             /* of dtype_has_scales() */
    const nested_scales *nested; /* NULL: the scales are numbers */
    bool transposed;             /* stored [in, out] */
    uint32_t *pieces;            /* [n_pieces] a vector made of several tensors, one after the other; else NULL */
    uint32_t n_pieces;
} weight;
#define TENSOR_NONE UINT32_MAX

typedef struct expert_weights {
    weight w[EXPERT_MATRICES];
} expert_weights;

typedef struct model_layer {
    uint32_t window; /* keys visible to a row, itself included; 0: all */
    int rope;        /* which of model.rope rotates; -1: none */
    weight w[ROLE_LAYER_COUNT];
    expert_weights *experts; /* [model.experts.count]; NULL: a dense layer */
    uint32_t moe_index;      /* among the layers with experts */
} model_layer;

enum { ROPE_SETS = 2 };

typedef struct model {
    memory *m;
    arena *small;             /* what weights point to */
    const checkpoint *source; /* must outlive the model */
    const char *family;
    const char *model_type; /* what the configuration calls itself; family where that is not another name */
    uint32_t n_layers, hidden, vocab, heads, kv_heads, head_dim, v_dim, ffn, max_context;
    bool layer_norm, norm_offset; /* norms multiply by 1 + weight */
    bool parallel;                /* attention and feed-forward read the same residual */
    mixer_kind mixer;
    uint32_t q_lora /* 0: none */, kv_lora, nope_dim, rope_dim; /* mla */
    qkv_layout qkv;
    qk_norm_kind qk_norm;
    bool qk_norm_late; /* behind the rotation */
    position_kind position;
    activation act;
    bool gated; /* feed-forward: act(gate) * up; else act(up) */
    bool tied_head, normalised_head;
    float norm_eps, attention_scale; /* scale: on q k */
    bool scale_by_layer;             /* scores of layer i are divided by i + 1 */
    float attention_softcap, logit_softcap, clip_qkv /* 0: none */, act_limit;
    float embed_scale, residual_scale, logit_scale;
    query_scaling query_scaling;
    float query_beta;
    uint32_t query_context;
    expert_axes experts;
    uint32_t n_ropes;
    rope_axes rope[ROPE_SETS];
    model_layer *layers;                   /* [n_layers] */
    weight w[ROLE_COUNT - ROLE_LAYER_END]; /* ends: model_weight() */
    int32_t bos;                           /* -1: none */
    int32_t *eos;
    size_t n_eos;
    uint64_t n_parameters, weight_bytes; /* of bound tensors, a tied matrix once */
    uint64_t left_bytes;                 /* of tensors of other modalities, which stay on disk */
    const char **axis_names, **axis_values;
    size_t n_axes;          /* for inspection */
    uint8_t *tensor_roles;  /* [source->n_tensors]: role + 1; 0: unused */
    uint8_t *tensor_types;  /* [source->n_tensors]: the type its matrix is computed as */
    int32_t *tensor_layers; /* [source->n_tensors]: -1: not of a layer */
    /* [source->n_tensors]: the tensor of codes whose numbers it takes part in saying, as scales do; TENSOR_NONE: none */
    uint32_t *tensor_codes;
} model;

/* A weight of the model's ends: ROLE_EMBED and what follows. */
static inline const weight *model_end(const model *mo, role r)
{
    return &mo->w[r - ROLE_LAYER_END];
}

/* Chooses the row, reads the configuration, binds and checks every tensor. ignore_config: comma-separated keys of the
 * configuration, and names of tensors, that are accepted unread (may be NULL). A CHECKPOINT_CONFIG is given the tensors
 * its row implies. On an error *out is NULL. LAMINA_E_UNSUPPORTED: the family, a key, a tensor is not understood;
 * LAMINA_E_FORMAT: something is missing, out of range or of the wrong shape. A head that is there is used, also when
 * tie_word_embeddings is set, as transformers 5 does; when the two differ, that is what the checkpoint means. */
lamina_status model_bind(memory *m, checkpoint *c, const char *ignore_config, model **out, lamina_error *err);
void model_free(model *m); /* NULL is allowed */

/* The rotation's angles per position: inv_freq [rope.dims / 2] f32, and the factor on cos and sin. Depends on the
 * session's context for dynamic scaling. factors: [rope.dims / 2] f32 or NULL. The formulas are those of
 * transformers' modeling_rope_utils. */
void rope_frequencies(const rope_axes *rope, uint32_t context, const float *factors, float *inv_freq, float *scale);

/* Slope of head h < heads of ALiBi (Press et al. 2022): a geometric sequence for a power of two of heads; for other
 * counts the sequence of the power below, then every second of that above, as the authors' code has it. */
float alibi_slope(uint32_t heads, uint32_t h);

#endif
