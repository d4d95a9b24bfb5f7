/* The inside of src/model: what a row of the table of families consists of, and the steps from a configuration to a
 * bound model. */
#ifndef LAMINA_MODEL_FAMILY_H
#define LAMINA_MODEL_FAMILY_H

#include "model/model.h"

/* Which biases a family has. By a key of config.json; GGUF does not say it: there, what is found is used. */
typedef enum presence {
    NEVER,
    ALWAYS,
    BY_ATTENTION_BIAS, /* "attention_bias" */
    BY_QKV_BIAS,       /* "qkv_bias" */
    BY_MLP_BIAS,       /* "mlp_bias" */
    IF_FOUND
} presence;

/* Layers whose attention looks back through a window. layer_types, where a file has it, decides or must agree. */
typedef enum window_rule {
    WINDOW_NONE,    /* none */
    WINDOW_ALL,     /* every layer when sliding_window is a number */
    WINDOW_FLAG,    /* every layer if use_sliding_window */
    WINDOW_ABOVE,   /* layers from max_window_layers on, or as layer_types says; only if use_sliding_window */
    WINDOW_PATTERN, /* all but every sliding_window_pattern-th, or as layer_types says */
    WINDOW_STILL    /* layers that are not rotated, if use_sliding_window; or as layer_types says */
} window_rule;

/* Layers whose queries and keys are not rotated. */
typedef enum nope_rule {
    NOPE_NONE,
    NOPE_LIST,         /* those with 0 in no_rope_layers, or every no_rope_layer_interval-th */
    NOPE_GLOBAL,       /* those without a window */
    NOPE_GLOBAL_IF_ANY /* those without a window, if there is any with one */
} nope_rule;

/* The rotation of layers with a window, where it is not that of the others. */
typedef enum local_rope { LOCAL_SAME, LOCAL_PLAIN /* unscaled, rope_local_base_freq or the same theta */ } local_rope;

/* How attention scores are scaled. */
typedef enum scale_rule {
    SCALE_HEAD,   /* 1 / sqrt(head_dim) */
    SCALE_SCALAR, /* 1 / sqrt(query_pre_attn_scalar) */
    SCALE_GIVEN   /* attention_multiplier */
} scale_rule;

/* Which layers have experts. */
typedef enum moe_rule {
    MOE_NONE,
    MOE_ALL,
    MOE_AFTER, /* from first_k_dense_replace on, every moe_layer_freq-th */
    MOE_STEP   /* every decoder_sparse_step-th, but those of mlp_only_layers */
} moe_rule;

/* Keys that not every family knows, in groups; a key of a group that a row does not name is a key not understood. */
enum {
    KEYS_ALL = 0,
    KEYS_BIAS = 1 << 0,
    KEYS_QKV_BIAS = 1 << 1,
    KEYS_MLP_BIAS = 1 << 2,
    KEYS_WINDOW = 1 << 3,
    KEYS_WINDOW_LAYERS = 1 << 4,
    KEYS_WINDOW_PATTERN = 1 << 5,
    KEYS_PARTIAL = 1 << 6,
    KEYS_NOPE = 1 << 7,
    KEYS_MULTIPLIERS = 1 << 8,
    KEYS_LOGIT_SCALE = 1 << 9,
    KEYS_QUERY_SCALAR = 1 << 10,
    KEYS_SOFTCAP = 1 << 11,
    KEYS_LOCAL_ROPE = 1 << 12,
    KEYS_PARALLEL = 1 << 13,
    KEYS_QK_NORM = 1 << 14,
    KEYS_EXPERTS = 1 << 16,
    KEYS_SHARED = 1 << 17,
    KEYS_SHARED_SIZE = 1 << 18,
    KEYS_GROUPS = 1 << 19,
    KEYS_FIRST_DENSE = 1 << 20,
    KEYS_SPARSE_STEP = 1 << 21,
    KEYS_MLA = 1 << 22,
    KEYS_LIMIT = 1 << 23,
    KEYS_DYNAMIC_FLAGS = 1 << 24, /* use_dynamic_ntk, use_logn_attn */
    KEYS_ROPE_RATIO = 1 << 25,
    KEYS_MULTI_QUERY = 1 << 26,
    KEYS_LAYER_SCALE = 1 << 15,
    KEYS_CLIP = 1 << 28,
    KEYS_ALPHA = 1 << 27 /* a fixed alpha of dynamic NTK */
};

/* What config.json says, in one dialect. A row's defaults are those of transformers' configuration class. */
typedef struct settings {
    uint32_t layers, hidden, vocab, context, heads;
    uint32_t kv_heads /* 0: heads */, head_dim /* 0: hidden / heads */, ffn /* 0: 4 hidden */;
    uint32_t window /* 0: none */, window_layers, window_pattern, nope_interval;
    bool layer_scale, tied, tied_said, attention_bias, qkv_bias, mlp_bias, use_window, parallel, qk_norm, dynamic_ntk,
        log_n, multi_query;
    activation act;
    double eps, theta, theta_local /* 0: theta */, rotary /* share of a head that is rotated */, rope_ratio;
    double embed_scale, residual_scale, attention_scale, logit_divisor, logit_scale, query_scalar;
    double attention_softcap, logit_softcap, act_limit, clip_qkv; /* 0: none */
    /* experts */
    uint32_t experts /* 0: none */, experts_used, expert_ffn, shared_experts, shared_ffn, groups, used_groups,
        first_dense, moe_step, extra_layers;
    bool normalised;
    double routed_scale;
    const json_t *router /* scoring_func */, *choice /* topk_method */, *dense_layers, *mlp_types;
    uint32_t q_lora, kv_lora, nope_dim, rope_dim, v_dim;
    rope_axes rope[ROPE_SETS];
    query_scaling query_scaling;
    double query_beta;
    uint32_t query_context;
    const json_t *layer_types, *nope_layers; /* NULL: not said */
    dtype type;                              /* of weights: for a model without any */
    int32_t bos, eos;                        /* defaults only; -1: none */
} settings;

/* Sizes that shapes are made of. */
typedef enum extent {
    EXTENT_NONE,
    ONE,
    HIDDEN,
    VOCAB,
    CONTEXT,
    HEADS,
    KV_HEADS,
    QUERY /* heads * head_dim */,
    KEY /* kv_heads * head_dim */,
    QKV /* query + 2 key */,
    ATTENDED /* what o reads: heads * v_dim */,
    FFN,
    HEAD_DIM,
    QUERY_NORM /* by qk_norm_kind */,
    KEY_NORM,
    ROTATED /* rope.dims / 2 */,
    Q_LORA,
    KV_LORA,
    NOPE,
    KV_A /* kv_lora + rope_dim */,
    KV_B /* heads * (nope_dim + v_dim) */,
    HEADS_KV_LORA,
    EXPERTS,
    EXPERT_FFN,
    EXPERT_FFN_2 /* gate and up */,
    SHARED_FFN
} extent;

/* When a tensor of the list belongs to a model. */
typedef enum condition {
    WHEN_ALWAYS,
    WHEN_QKV_BIAS,
    WHEN_O_BIAS,
    WHEN_MLP_BIAS,
    WHEN_QK_NORM,
    WHEN_UNTIED,
    WHEN_SEQUENTIAL, /* attention, then feed-forward: the second norm */
    WHEN_DENSE,      /* a layer without experts */
    WHEN_MOE,
    WHEN_CORRECTION,
    WHEN_SHARED,
    WHEN_Q_LORA,
    WHEN_NO_Q_LORA,
    WHEN_Q_A_BIAS,
    WHEN_NOT_SPLIT, /* unless ROLE_K_B is there */
    WHEN_BLOCKS,    /* experts in blocks of 4-bit codes, where they are */
    WHEN_FOUND
} condition;

/* How a role's tensor lies in a larger one. */
typedef enum part {
    PART_WHOLE,
    PART_QKV,    /* rows of q, then of k, then of v: which, says the role */
    PART_GATE_UP /* rows of gate, then of up */
} part;

typedef struct tensor_rule {
    role role;
    const char *name[2]; /* by tensor_dialect; first %u: the layer, second: the expert; NULL: not in that dialect */
    extent rows, cols;   /* of the role; rows EXTENT_NONE: a vector */
    condition when;
    part part;
    bool transposed; /* stored [cols, rows] (in Hugging Face's dialect) */
    extent stacked; /* the tensor has this dimension in front; a matrix's rows count all of them, a vector's cols one */
    extent joined;  /* a vector in so many tensors, second %u the number; EXTENT_NONE: in one */
    const char *side; /* the matrix is in blocks of 32 codes of 4 bits (MXFP4), and this tensor has their scales */
} tensor_rule;

typedef struct key_value {
    const char *key, *value; /* value: JSON; NULL: not there */
} key_value;

typedef struct family {
    const char *name;        /* model_type of config.json */
    const char *title;       /* whose models, in words; NULL: another row of the same name says it, or none is meant */
    const char *const *also; /* other model_types that mean the same; NULL-terminated or NULL */
    const key_value *where;  /* ... and only if these keys have these values; ends with {NULL}; NULL: no more */
    const key_value *or_where;  /* ... or these */
    const char *architecture;   /* general.architecture of GGUF; NULL: none of its own */
    const tensor_rule *tensors; /* in the order of use; ends with a rule without names */
    const key_value *aliases;   /* {our name of a key, this family's}: ends with {NULL}; Hugging Face's dialect */
    const key_value *expected;  /* keys understood at one value only, which absence means */
    const char *const *neutral; /* keys that change nothing here */
    const char *const *idle;    /* patterns of tensors that nothing reads here */
    uint32_t keys;              /* groups of keys it knows beyond KEYS_ALL */
    presence qkv_bias, o_bias, mlp_bias;
    bool layer_norm, norm_offset;
    mixer_kind mixer;
    qkv_layout qkv;
    qk_norm_kind qk_norm; /* where qk_norm says so, or always without KEYS_QK_NORM */
    bool qk_norm_late;
    bool qk_norm_found; /* the tensors say whether */
    position_kind position;
    rope_style style[2]; /* by tensor_dialect */
    window_rule window;
    nope_rule nope;
    local_rope local;
    scale_rule scale;
    bool embed_by_hidden; /* embeddings times sqrt(hidden) */
    bool parallel;        /* without KEYS_PARALLEL */
    bool ungated;         /* feed-forward */
    bool normalised_head;
    bool halved_ffn; /* intermediate_size counts gate and up together */
    moe_rule moe;
    router_kind router;
    group_score group_score;
    bool fused_experts, interleaved_experts;
    settings defaults;
} family;

/* The rows one after the other; NULL behind the last. */
const family *family_at(size_t index);
/* The first row for a configuration; NULL: none. */
const family *family_find(const json_t *config, const char *model_type, tensor_dialect dialect);

/* A tensor that nothing reads and that changes no answer (buffers of old versions). */
bool tensor_is_idle(const family *f, const char *name);
bool glob_match(const char *pattern, const char *text); /* '*': any characters */

/* One opening of a configuration. */
typedef struct reading {
    memory *m;
    const checkpoint *c;
    const json_t *config; /* that of the language model: c->config, or an object inside it */
    const family *f;
    const char *model_type; /* in the file */
    const char *prefix;     /* of the names of tensors of a language model inside another; "" */
    const char *ignore;     /* comma-separated names; NULL: none */
    lamina_error *err;
    char where[512]; /* of the configuration, for errors */
} reading;

/* config.c: chooses the row, reads and judges every key. r: m, c, ignore and err are set. */
lamina_status config_read(reading *r, settings *s);
bool reading_ignores(const reading *r, const char *name);
/* The value of a key by our name for it; NULL: none or null. */
const json_t *config_get(const reading *r, const char *key);
const char *config_spelling(const reading *r, const char *key); /* as the family's files spell it */
/* Compares with JSON as tables write it: true, false, {}, null, a number, or a word without quotes. */
bool json_is(const json_t *value, const char *expected);

/* config_layers.c: windows, rotation and kind of each layer: mo->layers [s->layers]; moe [s->layers]. */
lamina_status config_layers(const reading *r, const settings *s, model_layer *layers, bool *moe);

/* config_ends.c: ids that end generation, from both files, without duplicates, in ascending order; *eos is the
 * caller's: mem_free(). */
lamina_status config_ends(const reading *r, memory *m, const settings *s, int32_t *bos, int32_t **eos, size_t *n_eos);

/* config_rope.c: rope_scaling and rope_parameters. */
lamina_status config_rope(const reading *r, settings *s);
void config_rope_free(memory *m, rope_axes *rope); /* the lists of factors */

/* For all of them: errors about a key, and numbers in a range. path: "rope_scaling." or "". */
lamina_status key_refuse(const reading *r, const char *path, const char *key, const json_t *value,
                         const char *expected);
lamina_status key_unknown(const reading *r, const char *path, const char *key, const json_t *value);
enum { SHOWN_BYTES = 72 };
const char *key_show(const json_t *value, char buffer[SHOWN_BYTES]);
typedef struct range {
    double low, high;
} range;
lamina_status key_number(const reading *r, const char *path, const char *key, const json_t *value, range in,
                         double *out);
lamina_status key_whole(const reading *r, const char *path, const char *key, const json_t *value, range in,
                        uint32_t *out);

/* bind.c: fills mo->layers[].w and .experts, the ends and the roles. mo has its axes already. moe [n_layers]. */
lamina_status bind_tensors(const reading *r, checkpoint *c, const settings *s, const bool *moe, model *mo);

/* rope.c: the factor on cos and sin that YaRN and longrope prescribe. */
double rope_attention_factor(const rope_axes *rope);
double rope_grown_base(double base, double alpha, uint32_t dims); /* base alpha^(dims / (dims - 2)) */
double rope_mscale(double factor, double mscale);                 /* 0.1 mscale ln(factor) + 1 */

/* describe.c: the axes as text. */
lamina_status describe_axes(model *mo, lamina_error *err);

#endif
