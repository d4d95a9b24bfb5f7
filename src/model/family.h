/* The table of families, and what the files of this room share. A family is a row: how its tensors are named, what its
 * configuration leaves out, and the values of a few axes. */
#ifndef LAMINA_MODEL_FAMILY_H
#define LAMINA_MODEL_FAMILY_H

#include "model/model.h"

typedef enum bias_rule {
    BIAS_NONE,
    BIAS_QKV,   /* on q, k and v, always */
    BIAS_BY_KEY /* on q, k, v and o when attention_bias is true */
} bias_rule;

typedef enum window_rule {
    WINDOW_NEVER,
    WINDOW_ALWAYS, /* every layer has sliding_window, where that is a number */
    WINDOW_ABOVE   /* layers from max_window_layers on, where use_sliding_window is true */
} window_rule;

typedef struct family {
    const char *name;         /* of the row */
    const char *model_type;   /* config.json's model_type */
    const char *architecture; /* GGUF's general.architecture; NULL: none */
    rope_style style[2];      /* by dialect: GGUF permutes q and k of the Llama architecture */
    bias_rule bias;
    window_rule window;
    bool qk_norm;
    /* what transformers' configuration class takes for a key that is absent */
    uint32_t kv_heads; /* 0: as many as heads */
    uint32_t head_dim; /* 0: hidden_size / num_attention_heads */
    uint32_t context;
    uint32_t sliding_window; /* 0: none */
} family;

extern const family family_table[];
extern const size_t n_families;

/* The pattern of a role's name in a dialect ("%u": the layer), or NULL. */
const char *role_pattern(role r, tensor_dialect d);

/* What is read from config.json beside the model's own fields. */
typedef struct settings {
    bool attention_bias, use_sliding_window;
    uint32_t sliding_window, max_window_layers; /* sliding_window 0: none */
} settings;

/* config.c: fills model and settings; every key is read, known to be neutral, or refused. */
lamina_status config_read(model *m, const family *f, const char *ignore, settings *s, lamina_error *err);
/* describe.c: the axes as text. */
lamina_status describe_axes(model *m, lamina_error *err);

#endif
