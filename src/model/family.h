/* The inside of src/model: what a row of the table of families consists of, and the steps from a configuration to a
 * bound model. */
#ifndef LAMINA_MODEL_FAMILY_H
#define LAMINA_MODEL_FAMILY_H

#include "model/model.h"

/* Which weights a family has beyond those that all have. */
typedef enum presence {
    NEVER,
    ALWAYS,
    BY_CONFIG /* attention_bias of config.json; GGUF does not say it: there, what is found is used */
} presence;

/* Layers whose attention looks back through a window. */
typedef enum window_rule {
    WINDOW_NONE, /* none; layer_types may say so */
    WINDOW_ALL,  /* every layer when sliding_window is a number */
    WINDOW_ABOVE /* layers from max_window_layers on, or as layer_types says; only if use_sliding_window */
} window_rule;

/* Groups of keys that not every family knows; a key of a group that a row does not name is a key not understood. */
enum { KEYS_ALL = 0, KEYS_BIAS = 1, KEYS_WINDOW = 2, KEYS_WINDOW_LAYERS = 4 };

/* What config.json says, in one dialect. A row's defaults are those of transformers' configuration class. */
typedef struct settings {
    uint32_t layers, hidden, vocab, heads, kv_heads /* 0: heads */, head_dim /* 0: hidden / heads */, ffn, context;
    uint32_t window /* 0: none */, window_layers;
    bool tied, tied_said, attention_bias, use_window;
    activation act;
    double eps, theta;
    rope_axes rope;
    const json_t *layer_types; /* NULL: not said */
    dtype type;                /* of weights: for a model without any */
    int32_t bos, eos;          /* defaults only; -1: none */
} settings;

/* Sizes that shapes are made of. */
typedef enum extent {
    EXTENT_NONE,
    HIDDEN,
    VOCAB,
    QUERY /* heads * head_dim */,
    KEY /* kv_heads * head_dim */,
    FFN,
    HEAD_DIM,
    ROTATED /* rope.dims / 2 */
} extent;

/* When a tensor of the list belongs to a model. */
typedef enum condition { WHEN_ALWAYS, WHEN_QKV_BIAS, WHEN_O_BIAS, WHEN_QK_NORM, WHEN_UNTIED, WHEN_FOUND } condition;

typedef struct tensor_rule {
    role role;
    const char *name[2]; /* by tensor_dialect; %u is the layer; NULL: not in that dialect */
    extent rows, cols;   /* rows EXTENT_NONE: a vector */
    condition when;
} tensor_rule;

typedef struct family {
    const char *name;           /* model_type of config.json */
    const char *architecture;   /* general.architecture of GGUF; NULL: none of its own */
    const tensor_rule *tensors; /* in the order of use; ends with a rule without names */
    unsigned keys;              /* groups of keys it knows beyond KEYS_ALL */
    presence qkv_bias, o_bias;
    bool qk_norm;
    rope_style style[2]; /* by tensor_dialect */
    window_rule window;
    settings defaults;
} family;

extern const family families[];
extern const size_t n_families;
const family *family_find(const char *model_type, tensor_dialect dialect); /* NULL: none */

/* A tensor that nothing reads and that changes no answer (buffers of old versions). */
bool tensor_is_idle(const char *name);
bool glob_match(const char *pattern, const char *text); /* '*': any characters */

/* One opening of a configuration. */
typedef struct reading {
    const checkpoint *c;
    const family *f;
    const char *ignore; /* comma-separated names; NULL: none */
    lamina_error *err;
    char where[512]; /* of the configuration, for errors */
} reading;

/* config.c: chooses the row, reads and judges every key. r: c, ignore and err are set. */
lamina_status config_read(reading *r, settings *s);
bool reading_ignores(const reading *r, const char *name);
/* The window of each layer: windows [s->layers]; 0: none. */
lamina_status config_windows(const reading *r, const settings *s, uint32_t *windows);
/* Ids that end generation, from both files, without duplicates, in ascending order; *eos is the caller's: mem_free(). */
lamina_status config_ends(const reading *r, memory *m, const settings *s, int32_t *bos, int32_t **eos, size_t *n_eos);

/* config_rope.c: rope_scaling and rope_parameters. */
lamina_status config_rope(const reading *r, settings *s);
/* For both: errors about a key, and numbers in a range. path: "rope_scaling." or "". */
lamina_status key_refuse(const reading *r, const char *path, const char *key, const json_t *value,
                         const char *expected);
lamina_status key_unknown(const reading *r, const char *path, const char *key, const json_t *value);
typedef struct range {
    double low, high;
} range;
lamina_status key_number(const reading *r, const char *path, const char *key, const json_t *value, range in,
                         double *out);
lamina_status key_whole(const reading *r, const char *path, const char *key, const json_t *value, range in,
                        uint32_t *out);

/* bind.c: fills mo->layers[].w, the ends and the roles. mo has its axes already. */
lamina_status bind_tensors(const reading *r, checkpoint *c, const settings *s, model *mo);

/* rope.c: the factor on cos and sin that YaRN prescribes. */
double rope_attention_factor(const rope_axes *rope);

/* describe.c: the axes as text. */
lamina_status describe_axes(model *mo, lamina_error *err);

#endif
