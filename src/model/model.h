/* Architecture as data: a family is a row of a table, a model is that row with its axes filled in from config.json and
 * its tensors bound to roles. The forward pass switches on axes, never on families. */
#ifndef LAMINA_MODEL_MODEL_H
#define LAMINA_MODEL_MODEL_H

#include "format/checkpoint.h"

/* What a tensor is for. Matrices first, in the order in which a layer uses them. */
typedef enum role {
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_MATRICES,
    ROLE_ATTN_NORM = ROLE_MATRICES,
    ROLE_Q_BIAS,
    ROLE_K_BIAS,
    ROLE_V_BIAS,
    ROLE_O_BIAS,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_FFN_NORM,
    ROLE_LAYER_COUNT,
    ROLE_EMBED = ROLE_LAYER_COUNT,
    ROLE_FINAL_NORM,
    ROLE_HEAD,
    ROLE_ROPE_FACTORS,
    ROLE_COUNT
} role;

const char *role_name(role r); /* "q", "gate", "embed" ... */

typedef enum norm_kind { NORM_RMS } norm_kind;
typedef enum norm_place { NORM_BEFORE } norm_place;
typedef enum mixer_kind { MIXER_GQA } mixer_kind;
typedef enum qkv_layout { QKV_SEPARATE } qkv_layout;
typedef enum rope_style { ROPE_HALF /* pairs (i, i + r/2) */, ROPE_INTERLEAVED /* pairs (2i, 2i + 1) */ } rope_style;
typedef enum rope_scaling {
    ROPE_PLAIN,
    ROPE_LINEAR,
    ROPE_DYNAMIC /* NTK, by the session's context */,
    ROPE_YARN,
    ROPE_LLAMA3,
    ROPE_FACTORS /* a tensor divides each frequency (GGUF) */
} rope_scaling;
typedef enum ffn_kind { FFN_GATED } ffn_kind;
typedef enum activation { ACT_SILU, ACT_GELU_TANH } activation;

typedef struct rope_axes {
    rope_style style;
    rope_scaling scaling;
    uint32_t dims; /* rotated dimensions of a head */
    double theta;
    double factor;                            /* linear, dynamic, yarn, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    uint32_t original_context;                /* llama3, yarn, dynamic: max_position_embeddings */
    double beta_fast, beta_slow, attention_factor /* 0: from the formula */, mscale, mscale_all_dim; /* yarn */
    bool truncate; /* yarn: correction range rounded to whole dimensions */
} rope_axes;

typedef struct weight {  /* a tensor bound to a role; rows is 0 when absent */
    uint64_t rows, cols; /* vectors: rows 1 */
    dtype type;
    uint32_t file;
    uint64_t offset, bytes;
    const char *name;
    size_t tensor; /* index into the checkpoint's tensors */
} weight;

typedef struct model_layer {
    uint32_t window; /* keys visible to a row, itself included; 0: all */
    bool rope;       /* rotated at all */
    weight w[ROLE_LAYER_COUNT];
} model_layer;

typedef struct model {
    memory *m;
    arena *strings;           /* names that were made, texts of the axes */
    const checkpoint *source; /* must outlive the model */
    const char *family;
    uint32_t n_layers, hidden, vocab, heads, kv_heads, head_dim, ffn, max_context;
    norm_kind norm;
    norm_place norm_place;
    mixer_kind mixer;
    qkv_layout qkv;
    ffn_kind ffn_kind;
    activation act;
    bool qkv_bias, o_bias, qk_norm, tied_head;
    float norm_eps, attention_scale; /* scale: 1 / sqrt(head_dim), on q k */
    rope_axes rope;
    model_layer *layers; /* [n_layers] */
    weight embed, final_norm, head /* tied: the embedding */, rope_factors;
    int32_t bos; /* -1: none */
    int32_t *eos;
    size_t n_eos;
    uint64_t n_parameters, weight_bytes; /* of bound tensors, a tied matrix once */
    const char **axis_names, **axis_values;
    size_t n_axes;          /* for inspection */
    uint8_t *tensor_roles;  /* [source->n_tensors]: role + 1; 0: unused */
    int32_t *tensor_layers; /* [source->n_tensors]: -1: not of a layer */
} model;

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

#endif
