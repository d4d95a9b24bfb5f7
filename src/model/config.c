/* Owns the reading of configurations: every key of config.json is read, known to change no answer, or refused by name.
 * Promises that the settings it fills are in range, so that nothing computed from them overflows, and that a
 * configuration is never half understood. Tables say all of it; a null value counts as a key that is not there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/family.h"

/* ---- words of errors ---------------------------------------------------------------------------------------------- */

const char *key_show(const json_t *value, char buffer[SHOWN_BYTES])
{
    if (!value) return "nothing";
    size_t n =
        json_dumpb(value, buffer, SHOWN_BYTES - 4, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII | JSON_SORT_KEYS);
    size_t end = n < SHOWN_BYTES - 4 ? n : SHOWN_BYTES - 4;
    buffer[end] = '\0';
    if (n > end) memcpy(buffer + end, "...", 4);
    return buffer;
}

lamina_status key_refuse(const reading *r, const char *path, const char *key, const json_t *value, const char *expected)
{
    char text[SHOWN_BYTES];
    return error_set(r->err, LAMINA_E_FORMAT, "%s: key \"%s%s\" = %s: expected %s", r->where, path, key,
                     key_show(value, text), expected);
}

lamina_status key_unknown(const reading *r, const char *path, const char *key, const json_t *value)
{
    char text[SHOWN_BYTES];
    return error_set(
        r->err, LAMINA_E_UNSUPPORTED,
        "%s: key \"%s%s\" = %s is not understood and may change the answer; --ignore-config %s%s accepts it", r->where,
        path, key, key_show(value, text), path, key);
}

bool reading_ignores(const reading *r, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = r->ignore; at && *at;) {
        at += strspn(at, ", ");
        size_t k = strcspn(at, ", ");
        if (k == n && memcmp(at, name, n) == 0) return true;
        at += k;
    }
    return false;
}

/* A wrapper around several models may say of all of them what the language model's own part leaves out. */
static const json_t *look_up(const reading *r, const char *name)
{
    static const char *const shared[] = {"tie_word_embeddings", "torch_dtype", "dtype"};
    const json_t *value = json_object_get(r->config, name);
    if (value || r->config == r->c->config) return value;
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        if (strcmp(shared[i], name) == 0) return json_object_get(r->c->config, name);
    return NULL;
}

/* Of several spellings the one that is there. */
const char *config_spelling(const reading *r, const char *key)
{
    const char *first = NULL;
    if (r->c->dialect == DIALECT_GGUF || !r->f->aliases) return key;
    for (const key_value *a = r->f->aliases; a->key; a++) {
        if (strcmp(a->key, key) != 0) continue;
        if (look_up(r, a->value)) return a->value;
        if (!first) first = a->value;
    }
    return first ? first : key;
}

const json_t *config_get(const reading *r, const char *key)
{
    const json_t *value = look_up(r, config_spelling(r, key));
    return json_is_null(value) ? NULL : value;
}

static void name_place(reading *r)
{
    static const char *const parts[] = {"/config.json", ": metadata", ": its configuration", ""};
    snprintf(r->where, sizeof r->where, "%.400s%s", r->c->path, parts[r->c->kind]);
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

lamina_status key_number(const reading *r, const char *path, const char *key, const json_t *value, range in,
                         double *out)
{
    double v = json_is_number(value) ? json_number_value(value) : NAN;
    if (v >= in.low && v <= in.high) { /* a NaN is not */
        *out = v;
        return LAMINA_OK;
    }
    char expected[96];
    snprintf(expected, sizeof expected, "a number from %.10g to %.10g", in.low, in.high);
    return key_refuse(r, path, key, value, expected);
}

lamina_status key_whole(const reading *r, const char *path, const char *key, const json_t *value, range in,
                        uint32_t *out)
{
    double v = json_is_number(value) ? json_number_value(value) : NAN;
    if (v >= in.low && v <= in.high && v == floor(v)) {
        *out = (uint32_t)v;
        return LAMINA_OK;
    }
    char expected[96];
    snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", in.low, in.high);
    return key_refuse(r, path, key, value, expected);
}

/* The names of transformers.activations.ACT2FN; gelu_new and gelu_fast are other spellings of the same tanh form. */
static const struct {
    const char *name;
    activation act;
} activations[] = {
    {"silu", ACT_SILU},
    {"swish", ACT_SILU},
    {"swiglu", ACT_SILU},
    {"gelu", ACT_GELU},
    {"gelu_python", ACT_GELU},
    {"gelu_pytorch_tanh", ACT_GELU_TANH},
    {"gelu_new", ACT_GELU_TANH},
    {"gelu_fast", ACT_GELU_TANH},
    {"relu", ACT_RELU},
    {"relu2", ACT_RELU2},
    {"quick_gelu", ACT_QUICK_GELU},
};

static lamina_status read_activation(const reading *r, const char *key, const json_t *value, activation *out)
{
    const char *name = json_string_value(value);
    for (size_t i = 0; name && i < sizeof activations / sizeof *activations; i++) {
        if (strcmp(name, activations[i].name) != 0) continue;
        *out = activations[i].act;
        return LAMINA_OK;
    }
    char text[SHOWN_BYTES];
    return error_set(r->err, LAMINA_E_UNSUPPORTED,
                     "%s: key \"%s\" = %s: this activation is not computed; known are silu, gelu, gelu_pytorch_tanh, "
                     "relu, relu2, quick_gelu",
                     r->where, key, key_show(value, text));
}

/* ---- keys that are read ------------------------------------------------------------------------------------------- */

typedef enum key_kind {
    KIND_WHOLE,  /* uint32_t */
    KIND_NUMBER, /* double */
    KIND_FLAG,   /* bool */
    KIND_PERIOD, /* uint32_t: a number, or letters of which the last alone is another, "LLLG" */
    KIND_ACTIVATION,
    KIND_DTYPE,
    KIND_JSON,     /* kept: judged by config_layers() and others */
    KIND_ELSEWHERE /* config_rope(), config_ends(), weights */
} key_kind;

enum { GGUF_MUST = 1 /* GGUF has no default */, NULL_IS_ZERO = 2 /* null means none, not the default */ };

typedef struct key {
    const char *name;
    key_kind kind;
    size_t at; /* in settings */
    range in;
    unsigned group, flags;
} key;

#define AT(field) offsetof(settings, field)

#define SIZE(most)                                                                                                     \
    {                                                                                                                  \
        1, most                                                                                                        \
    }
#define ANY_NUMBER                                                                                                     \
    {                                                                                                                  \
        -1e6, 1e6                                                                                                      \
    }
#define POSITIVE                                                                                                       \
    {                                                                                                                  \
        1e-6, 1e6                                                                                                      \
    }
#define NO_RANGE                                                                                                       \
    {                                                                                                                  \
        0, 0                                                                                                           \
    }

/* Ranges are wide enough for what exists and narrow enough that no product of two sizes passes 2^50. */
static const key keys[] = {
    {"num_hidden_layers", KIND_WHOLE, AT(layers), SIZE(10000), KEYS_ALL, GGUF_MUST},
    {"hidden_size", KIND_WHOLE, AT(hidden), SIZE(1 << 20), KEYS_ALL, GGUF_MUST},
    {"vocab_size", KIND_WHOLE, AT(vocab), SIZE(1 << 24), KEYS_ALL, GGUF_MUST},
    {"num_attention_heads", KIND_WHOLE, AT(heads), SIZE(1 << 16), KEYS_ALL, GGUF_MUST},
    {"num_key_value_heads", KIND_WHOLE, AT(kv_heads), SIZE(1 << 16), KEYS_ALL, GGUF_MUST | NULL_IS_ZERO},
    {"head_dim", KIND_WHOLE, AT(head_dim), {2, 1 << 14}, KEYS_ALL, NULL_IS_ZERO},
    {"intermediate_size", KIND_WHOLE, AT(ffn), SIZE(1 << 24), KEYS_ALL, GGUF_MUST | NULL_IS_ZERO},
    {"max_position_embeddings", KIND_WHOLE, AT(context), SIZE(INT32_MAX), KEYS_ALL, GGUF_MUST},
    {"rms_norm_eps", KIND_NUMBER, AT(eps), {1e-30, 1}, KEYS_ALL, GGUF_MUST},
    {"hidden_act", KIND_ACTIVATION, AT(act), NO_RANGE, KEYS_ALL, 0},
    {"tie_word_embeddings", KIND_FLAG, AT(tied), NO_RANGE, KEYS_ALL, 0},
    {"attention_bias", KIND_FLAG, AT(attention_bias), NO_RANGE, KEYS_BIAS, 0},
    {"qkv_bias", KIND_FLAG, AT(qkv_bias), NO_RANGE, KEYS_QKV_BIAS, 0},
    {"mlp_bias", KIND_FLAG, AT(mlp_bias), NO_RANGE, KEYS_MLP_BIAS, 0},
    {"sliding_window", KIND_WHOLE, AT(window), SIZE(INT32_MAX), KEYS_WINDOW, NULL_IS_ZERO},
    {"use_sliding_window", KIND_FLAG, AT(use_window), NO_RANGE, KEYS_WINDOW_LAYERS, 0},
    {"max_window_layers", KIND_WHOLE, AT(window_layers), {0, 1 << 24}, KEYS_WINDOW_LAYERS, 0},
    {"sliding_window_pattern", KIND_PERIOD, AT(window_pattern), SIZE(10000), KEYS_WINDOW_PATTERN, NULL_IS_ZERO},
    {"layer_types", KIND_JSON, AT(layer_types), NO_RANGE, KEYS_ALL, 0},
    {"no_rope_layers", KIND_JSON, AT(nope_layers), NO_RANGE, KEYS_NOPE, 0},
    {"no_rope_layer_interval", KIND_WHOLE, AT(nope_interval), SIZE(10000), KEYS_NOPE, 0},
    {"partial_rotary_factor", KIND_NUMBER, AT(rotary), {1e-3, 1}, KEYS_PARTIAL, 0},
    {"rope_local_base_freq", KIND_NUMBER, AT(theta_local), {1.0 + 1e-6, 1e30}, KEYS_LOCAL_ROPE, 0},
    {"rope_ratio", KIND_NUMBER, AT(rope_ratio), {1e-3, 1e9}, KEYS_ROPE_RATIO, 0},
    {"embedding_multiplier", KIND_NUMBER, AT(embed_scale), POSITIVE, KEYS_MULTIPLIERS, 0},
    {"residual_multiplier", KIND_NUMBER, AT(residual_scale), POSITIVE, KEYS_MULTIPLIERS, 0},
    {"attention_multiplier", KIND_NUMBER, AT(attention_scale), POSITIVE, KEYS_MULTIPLIERS, 0},
    {"logits_scaling", KIND_NUMBER, AT(logit_divisor), POSITIVE, KEYS_MULTIPLIERS, 0},
    {"logit_scale", KIND_NUMBER, AT(logit_scale), POSITIVE, KEYS_LOGIT_SCALE, 0},
    {"query_pre_attn_scalar", KIND_NUMBER, AT(query_scalar), POSITIVE, KEYS_QUERY_SCALAR, 0},
    {"attn_logit_softcapping", KIND_NUMBER, AT(attention_softcap), POSITIVE, KEYS_SOFTCAP, NULL_IS_ZERO},
    {"final_logit_softcapping", KIND_NUMBER, AT(logit_softcap), POSITIVE, KEYS_SOFTCAP, NULL_IS_ZERO},
    {"clip_qkv", KIND_NUMBER, AT(clip_qkv), POSITIVE, KEYS_CLIP, NULL_IS_ZERO},
    {"use_parallel_residual", KIND_FLAG, AT(parallel), NO_RANGE, KEYS_PARALLEL, 0},
    {"use_qk_norm", KIND_FLAG, AT(qk_norm), NO_RANGE, KEYS_QK_NORM, 0},
    {"multi_query_attention", KIND_FLAG, AT(multi_query), NO_RANGE, KEYS_MULTI_QUERY, 0},
    {"scale_attn_by_inverse_layer_idx", KIND_FLAG, AT(layer_scale), NO_RANGE, KEYS_LAYER_SCALE, 0},
    {"use_dynamic_ntk", KIND_FLAG, AT(dynamic_ntk), NO_RANGE, KEYS_DYNAMIC_FLAGS, 0},
    {"use_logn_attn", KIND_FLAG, AT(log_n), NO_RANGE, KEYS_DYNAMIC_FLAGS, 0},
    {"swiglu_limit", KIND_NUMBER, AT(act_limit), POSITIVE, KEYS_LIMIT, 0},
    {"num_experts", KIND_WHOLE, AT(experts), SIZE(1 << 16), KEYS_EXPERTS, 0},
    {"num_experts_per_tok", KIND_WHOLE, AT(experts_used), SIZE(256), KEYS_EXPERTS, 0},
    {"moe_intermediate_size", KIND_WHOLE, AT(expert_ffn), SIZE(1 << 24), KEYS_EXPERTS, NULL_IS_ZERO},
    {"norm_topk_prob", KIND_FLAG, AT(normalised), NO_RANGE, KEYS_EXPERTS, 0},
    {"n_shared_experts", KIND_WHOLE, AT(shared_experts), {0, 1 << 10}, KEYS_SHARED, NULL_IS_ZERO},
    {"shared_expert_intermediate_size", KIND_WHOLE, AT(shared_ffn), {0, 1 << 24}, KEYS_SHARED_SIZE, 0},
    {"n_group", KIND_WHOLE, AT(groups), SIZE(1 << 10), KEYS_GROUPS, NULL_IS_ZERO},
    {"topk_group", KIND_WHOLE, AT(used_groups), SIZE(1 << 10), KEYS_GROUPS, NULL_IS_ZERO},
    {"routed_scaling_factor", KIND_NUMBER, AT(routed_scale), POSITIVE, KEYS_GROUPS, 0},
    {"topk_method", KIND_JSON, AT(choice), NO_RANGE, KEYS_GROUPS, 0},
    {"scoring_func", KIND_JSON, AT(router), NO_RANGE, KEYS_GROUPS, 0},
    {"first_k_dense_replace", KIND_WHOLE, AT(first_dense), {0, 10000}, KEYS_FIRST_DENSE, 0},
    {"moe_layer_freq", KIND_WHOLE, AT(moe_step), SIZE(10000), KEYS_FIRST_DENSE, 0},
    {"decoder_sparse_step", KIND_WHOLE, AT(moe_step), SIZE(10000), KEYS_SPARSE_STEP, 0},
    {"mlp_only_layers", KIND_JSON, AT(dense_layers), NO_RANGE, KEYS_SPARSE_STEP, 0},
    {"mlp_layer_types", KIND_JSON, AT(mlp_types), NO_RANGE, KEYS_EXPERTS, 0},
    {"q_lora_rank", KIND_WHOLE, AT(q_lora), SIZE(1 << 16), KEYS_MLA, NULL_IS_ZERO},
    {"kv_lora_rank", KIND_WHOLE, AT(kv_lora), SIZE(1 << 13), KEYS_MLA, 0},
    {"qk_nope_head_dim", KIND_WHOLE, AT(nope_dim), SIZE(1 << 12), KEYS_MLA, 0},
    {"qk_rope_head_dim", KIND_WHOLE, AT(rope_dim), {2, 1 << 12}, KEYS_MLA, 0},
    {"v_head_dim", KIND_WHOLE, AT(v_dim), SIZE(1 << 12), KEYS_MLA, 0},
    {"num_nextn_predict_layers", KIND_WHOLE, AT(extra_layers), {0, 1000}, KEYS_EXPERTS, 0},
    {"torch_dtype", KIND_DTYPE, AT(type), NO_RANGE, KEYS_ALL, 0},
    {"dtype", KIND_DTYPE, AT(type), NO_RANGE, KEYS_ALL, 0},
    {"rope_theta", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_ALL, 0},
    {"rope_scaling", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_ALL, 0},
    {"rope_parameters", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_ALL, 0},
    {"original_max_position_embeddings", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_PARTIAL, 0},
    {"bos_token_id", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_ALL, 0},
    {"eos_token_id", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_ALL, 0},
    {"model_type", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_ALL, 0},
    {"quantization_config", KIND_ELSEWHERE, 0, NO_RANGE, KEYS_ALL, 0},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static bool knows(const family *f, const key *k)
{
    return (k->group & ~f->keys) == 0;
}

static lamina_status read_flag(const reading *r, const char *name, const json_t *value, bool *out)
{
    if (!json_is_boolean(value)) return key_refuse(r, "", name, value, "true or false");
    *out = json_is_true(value);
    return LAMINA_OK;
}

/* The type of weights matters only where there are none; what is no name of a type is then the default. */
static lamina_status read_dtype(const reading *r, const char *name, const json_t *value, dtype *out)
{
    if (r->c->kind != CHECKPOINT_CONFIG) return LAMINA_OK;
    const char *text = json_string_value(value);
    dtype t;
    if (!text || !dtype_from_name(text, &t) || t >= DT_WEIGHTS)
        return key_refuse(r, "", name, value, "float32, float16 or bfloat16");
    *out = t;
    return LAMINA_OK;
}

static lamina_status read_period(const reading *r, const char *name, const json_t *value, range in, uint32_t *out)
{
    const char *text = json_string_value(value);
    if (!text) return key_whole(r, "", name, value, in, out);
    size_t n = strlen(text);
    if (n < 2 || n > (size_t)in.high || strspn(text, "L") != n - 1 || text[n - 1] != 'G')
        return key_refuse(r, "", name, value, "a whole number, or letters like LLLG");
    *out = (uint32_t)n;
    return LAMINA_OK;
}

static lamina_status read_key(const reading *r, const key *k, const json_t *value, settings *s)
{
    char *at = (char *)s + k->at;
    const char *name = config_spelling(r, k->name);
    switch (k->kind) {
    case KIND_WHOLE:
        return key_whole(r, "", name, value, k->in, (uint32_t *)(void *)at);
    case KIND_PERIOD:
        return read_period(r, name, value, k->in, (uint32_t *)(void *)at);
    case KIND_NUMBER:
        return key_number(r, "", name, value, k->in, (double *)(void *)at);
    case KIND_FLAG:
        return read_flag(r, name, value, (bool *)(void *)at);
    case KIND_ACTIVATION:
        return read_activation(r, name, value, (activation *)(void *)at);
    case KIND_DTYPE:
        return read_dtype(r, name, value, (dtype *)(void *)at);
    case KIND_JSON:
        *(const json_t **)(void *)at = value;
        return LAMINA_OK;
    case KIND_ELSEWHERE:
        return LAMINA_OK;
    }
    return LAMINA_OK;
}

static void put_zero(const key *k, settings *s)
{
    char *at = (char *)s + k->at;
    if (k->kind == KIND_NUMBER)
        *(double *)(void *)at = 0;
    else
        *(uint32_t *)(void *)at = 0;
}

static lamina_status read_keys(const reading *r, settings *s)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        const key *k = &keys[i];
        const char *name = config_spelling(r, k->name);
        const json_t *value = look_up(r, name);
        if (!knows(r->f, k)) continue;
        if (value && !json_is_null(value)) {
            TRY(read_key(r, k, value, s));
        } else if (r->c->dialect == DIALECT_GGUF && (k->flags & GGUF_MUST)) {
            return error_set(r->err, LAMINA_E_FORMAT, "%s: expected %s, found none", r->where, name);
        } else if (value && (k->flags & NULL_IS_ZERO)) {
            put_zero(k, s);
        }
    }
    s->tied_said = config_get(r, "tie_word_embeddings") != NULL;
    return LAMINA_OK;
}

/* ---- keys that are not -------------------------------------------------------------------------------------------- */

/* They change no logits of the models here, whatever their value: remarks, training, generation's defaults, heads for
 * other tasks, how transformers keeps its caches. */
static const char *const neutral[] = {
    "_*",
    "transformers_version",
    "transformers.js_config",
    "architectures",
    "auto_map",
    "name_or_path",
    "use_cache",
    "*dropout*",
    "*_pdrop",
    "initializer_range",
    "torchscript",
    "use_bfloat16",
    "gradient_checkpointing",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "decoder_start_token_id",
    "tokenizer_class",
    "model_max_length",
    "max_sequence_length",
    "output_*",
    "return_dict*",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "finetuning_task",
    "prefix",
    "is_decoder",
    "is_llama_config",
    "unsloth_*",
    "attn_implementation",
    "cache_implementation",
    "use_flash_attn*",
    "num_logits_to_keep",
    "logits_to_keep",
    /* of GenerationConfig, which old versions wrote here */
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "max_length",
    "min_length",
    "max_new_tokens",
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "early_stopping",
    "diversity_penalty",
    "repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "no_repeat_ngram_size",
    "length_penalty",
    "bad_words_ids",
    "begin_suppress_tokens",
    "suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "generation_config",
    /* GGUF */
    "*.tensor_data_layout",
};

/* They change nothing at one value only, which is what their absence means. */
static const key_value harmless[] = {
    {"mlp_bias", "false"},
    {"attention_bias", "false"},
    {"use_sliding_window", "false"},
    {"use_mrope", "false"},
    {"rope_interleaved", "false"},
    {"pretraining_tp", "1"},
    {"partial_rotary_factor", "1"},
    {"is_encoder_decoder", "false"},
    {"add_cross_attention", "false"},
    {"tie_encoder_decoder", "false"},
    {"chunk_size_feed_forward", "0"},
    {"pruned_heads", "{}"},
    {"num_experts", "0"},
    {"num_experts_per_tok", "0"},
    {"*.attention.causal", "true"},
    {"*.use_parallel_residual", "false"},
    {"*.pooling_type", "0"},
};

bool json_is(const json_t *value, const char *expected)
{
    if (!expected) return value == NULL;
    if (!value || json_is_null(value)) return strcmp(expected, "null") == 0;
    if (json_is_boolean(value)) return strcmp(json_is_true(value) ? "true" : "false", expected) == 0;
    if (json_is_object(value)) return strcmp("{}", expected) == 0 && json_object_size(value) == 0;
    if (json_is_string(value)) return strcmp(json_string_value(value), expected) == 0;
    if (!json_is_number(value)) return false;
    char *end;
    double v = strtod(expected, &end);
    return end != expected && *end == '\0' && json_number_value(value) == v;
}

static bool is_harmless(const family *f, const char *name, const json_t *value)
{
    /* A family that always has these biases does not ask; from GGUF the key says that they were found. */
    if (f->qkv_bias == ALWAYS && strcmp(name, "attention_bias") == 0) return json_is_boolean(value);
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (glob_match(harmless[i].key, name) && json_is(value, harmless[i].value)) return true;
    for (const key_value *e = f->expected; e && e->key; e++)
        if (strcmp(e->key, name) == 0 && json_is(value, e->value)) return true;
    return false;
}

static bool is_read(const reading *r, const char *name)
{
    for (size_t i = 0; i < N_KEYS; i++)
        if (knows(r->f, &keys[i]) && strcmp(config_spelling(r, keys[i].name), name) == 0) return true;
    return false;
}

static bool is_neutral(const family *f, const char *name)
{
    for (size_t i = 0; i < sizeof neutral / sizeof *neutral; i++)
        if (glob_match(neutral[i], name)) return true;
    for (const char *const *n = f->neutral; n && *n; n++)
        if (glob_match(*n, name)) return true;
    return false;
}

static lamina_status judge_others(const reading *r)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->config, name, value)
    {
        if (json_is_null(value) || is_read(r, name) || is_neutral(r->f, name) || is_harmless(r->f, name, value))
            continue;
        if (reading_ignores(r, name)) continue;
        return key_unknown(r, "", name, value);
    }
    return LAMINA_OK;
}

/* compressed-tensors: all groups are floats of 8 bits. What it says of activations and of the cache is not done here.
 */
static bool is_float8(const json_t *value)
{
    const char *name;
    json_t *group, *groups = json_object_get(value, "config_groups");
    const json_t *format = json_object_get(value, "format");
    if (!json_is(format, "float-quantized") && !json_is(format, "naive-quantized")) return false;
    json_object_foreach(groups, name, group)
    {
        const json_t *weights = json_object_get(group, "weights");
        if (!json_is(json_object_get(weights, "num_bits"), "8") || !json_is(json_object_get(weights, "type"), "float"))
            return false;
    }
    return json_object_size(groups) > 0;
}

/* fp8, mxfp4 and bitsandbytes are read as they are (coding.h says how); other methods are not. A configuration alone
 * must say by itself what its tensors would be. */
static bool is_understood(const reading *r, const json_t *value)
{
    const json_t *method = json_object_get(value, "quant_method"), *block = json_object_get(value, "weight_block_size");
    bool blocks = json_array_size(block) == 2 && json_is(json_array_get(block, 0), "128") &&
                  json_is(json_array_get(block, 1), "128");
    if (json_is(method, "mxfp4") || (json_is(method, "fp8") && blocks)) return true;
    if (r->c->kind == CHECKPOINT_CONFIG) return false;
    if (json_is(method, "fp8")) return !block || json_is_null(block);
    return json_is(method, "bitsandbytes") || json_is(method, "fbgemm_fp8") ||
           (json_is(method, "compressed-tensors") && is_float8(value));
}

static lamina_status judge_quantised(const reading *r)
{
    const json_t *value = json_object_get(r->config, "quantization_config");
    if (!value) value = json_object_get(r->c->config, "quantization_config");
    if (!value || json_is_null(value) || reading_ignores(r, "quantization_config")) return LAMINA_OK;
    if (is_understood(r, value)) return LAMINA_OK;
    const json_t *method = json_object_get(value, "quant_method");
    char text[SHOWN_BYTES];
    return error_set(r->err, LAMINA_E_UNSUPPORTED,
                     "%s: key \"quantization_config\": weights quantised by %s are not computed%s; expected a "
                     "checkpoint in bf16, f16, f32, fp8 (in blocks, of 128 x 128), mxfp4 or of bitsandbytes, or a GGUF "
                     "file",
                     r->where, method ? key_show(method, text) : "an unnamed method",
                     r->c->kind == CHECKPOINT_CONFIG ? " from a configuration alone" : " in this form");
}

/* ---- the row ------------------------------------------------------------------------------------------------------ */

/* Of a model that joins several, the language model is meant. */
static bool find_language_model(reading *r)
{
    static const char *const names[] = {"text_config", "llm_config", "language_config"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *inner = json_object_get(r->c->config, names[i]);
        const char *type = json_string_value(json_object_get(inner, "model_type"));
        if (!type) continue;
        r->f = family_find(inner, type, r->c->dialect);
        if (!r->f) continue;
        r->config = inner;
        r->model_type = type;
        return true;
    }
    return false;
}

/* A model_type that nobody has told us, whose tensors are those of Llama. What the row does not understand of its keys
 * and tensors is refused like everybody's. */
static bool looks_plain(const reading *r)
{
    static const char *const tensors[] = {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
                                          "model.layers.0.input_layernorm.weight",
                                          "model.layers.0.mlp.gate_proj.weight"};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (!checkpoint_find(r->c, tensors[i])) return false;
    return r->c->dialect == DIALECT_HF;
}

/* What a row is called, if no row before it is called so; else NULL. */
static const char *first_use(tensor_dialect dialect, size_t index)
{
    const family *f = family_at(index);
    const char *name = dialect == DIALECT_GGUF ? f->architecture : f->name;
    for (size_t i = 0; name && i < index; i++) {
        const family *before = family_at(i);
        const char *other = dialect == DIALECT_GGUF ? before->architecture : before->name;
        if (other && strcmp(other, name) == 0) return NULL;
    }
    return name;
}

static lamina_status refuse_family(const reading *r, const char *key_name, const json_t *type)
{
    char known[720] = "", text[SHOWN_BYTES];
    size_t n = 0;
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++) {
        const char *name = first_use(r->c->dialect, i);
        if (name && n < sizeof known) n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", name);
    }
    return error_set(r->err, LAMINA_E_UNSUPPORTED, "%s: %s %s is not a family that this version computes; known are %s",
                     r->where, key_name, key_show(type, text), known);
}

static lamina_status choose_row(reading *r)
{
    r->config = r->c->config;
    r->prefix = "";
    const json_t *type = json_object_get(r->config, "model_type");
    const char *key_name = r->c->dialect == DIALECT_GGUF ? "general.architecture" : "model_type";
    if (!json_is_string(type))
        return error_set(r->err, LAMINA_E_FORMAT, "%s: expected a name of a family in %s, found none", r->where,
                         key_name);
    r->model_type = json_string_value(type);
    if (find_language_model(r)) return LAMINA_OK;
    r->f = family_find(r->config, r->model_type, r->c->dialect);
    if (!r->f && looks_plain(r)) r->f = family_find(r->config, "llama-like", r->c->dialect);
    return r->f ? LAMINA_OK : refuse_family(r, key_name, type);
}

static lamina_status bad_size(const reading *r, const char *name, uint32_t value, const char *expected)
{
    return error_set(r->err, LAMINA_E_FORMAT, "%s: %s %u: expected %s", r->where, name, value, expected);
}

static lamina_status check_heads(const reading *r, settings *s)
{
    if ((r->f->keys & KEYS_MULTI_QUERY) && !s->multi_query) s->kv_heads = 0;
    if (!s->kv_heads) s->kv_heads = s->heads;
    if (s->heads % s->kv_heads)
        return error_set(r->err, LAMINA_E_FORMAT,
                         "%s: num_attention_heads %u: expected a multiple of num_key_value_heads %u", r->where,
                         s->heads, s->kv_heads);
    if (r->f->mixer == MIXER_MLA) {
        s->head_dim = s->nope_dim + s->rope_dim;
        if (s->rope_dim % 2) return bad_size(r, "qk_rope_head_dim", s->rope_dim, "an even number");
        return LAMINA_OK;
    }
    if (!s->head_dim && (s->hidden % s->heads || s->hidden / s->heads > 1 << 14))
        return error_set(r->err, LAMINA_E_FORMAT,
                         "%s: hidden_size %u: without head_dim it must be num_attention_heads %u times at most 16384",
                         r->where, s->hidden, s->heads);
    if (!s->head_dim) s->head_dim = s->hidden / s->heads;
    s->v_dim = s->head_dim;
    if (s->head_dim % 2 && r->f->position == POSITION_ROPE)
        return bad_size(r, "head_dim", s->head_dim, "an even number");
    return LAMINA_OK;
}

/* How the best are chosen, in the words of DeepSeek's configurations. */
static lamina_status check_choice(const reading *r, settings *s)
{
    const family *f = r->f;
    const char *scores = f->router == ROUTER_SIGMOID ? "sigmoid" : "softmax";
    if (s->router && !json_is(s->router, scores)) return key_refuse(r, "", "scoring_func", s->router, scores);
    bool best = f->group_score == GROUP_BEST;
    if (best && (!s->choice || json_is(s->choice, "greedy"))) s->groups = s->used_groups = 1;
    if (s->choice && !json_is(s->choice, best ? "group_limited_greedy" : "noaux_tc") &&
        !(best && json_is(s->choice, "greedy")))
        return key_refuse(r, "", "topk_method", s->choice, best ? "greedy or group_limited_greedy" : "noaux_tc");
    if (f->mixer == MIXER_MLA && best && s->normalised)
        return error_set(r->err, LAMINA_E_UNSUPPORTED,
                         "%s: key \"norm_topk_prob\" = true is not computed for %s, whose reference does not read it",
                         r->where, f->name);
    return LAMINA_OK;
}

static lamina_status check_experts(const reading *r, settings *s)
{
    if (r->f->moe == MOE_NONE) s->experts = 0;
    if (!s->experts) return LAMINA_OK;
    TRY(check_choice(r, s));
    if (!s->expert_ffn || !(r->f->keys & (KEYS_SPARSE_STEP | KEYS_FIRST_DENSE))) s->expert_ffn = s->ffn;
    if (s->shared_experts) s->shared_ffn = s->shared_experts * s->expert_ffn;
    if (!s->groups) s->groups = 1;
    if (!s->used_groups) s->used_groups = s->groups;
    if (s->experts_used > s->experts) return bad_size(r, "num_experts_per_tok", s->experts_used, "at most num_experts");
    if (s->experts % s->groups) return bad_size(r, "n_group", s->groups, "a divisor of the number of experts");
    if (s->used_groups > s->groups) return bad_size(r, "topk_group", s->used_groups, "at most n_group");
    if (s->experts_used > s->experts / s->groups * s->used_groups)
        return bad_size(r, "num_experts_per_tok", s->experts_used, "at most the experts of topk_group groups");
    if (r->f->group_score == GROUP_TWO_BEST && s->groups > 1 && s->experts / s->groups < 2)
        return bad_size(r, "n_group", s->groups, "at least two experts in a group");
    if ((uint64_t)s->shared_ffn > 1 << 24)
        return bad_size(r, "n_shared_experts", s->shared_experts, "a smaller number");
    return LAMINA_OK;
}

/* What several keys together must be. */
static lamina_status check_sizes(const reading *r, settings *s)
{
    if (!s->ffn) s->ffn = 4 * s->hidden;
    if (r->f->halved_ffn) {
        if (s->ffn % 2) return bad_size(r, "intermediate_size", s->ffn, "an even number");
        s->ffn /= 2;
    }
    TRY(check_heads(r, s));
    TRY(check_experts(r, s));
    uint64_t widest = (uint64_t)s->heads * (s->head_dim > s->v_dim ? s->head_dim : s->v_dim);
    if (widest > 1 << 24)
        return error_set(r->err, LAMINA_E_FORMAT, "%s: %u heads of %u: expected a product of at most %d", r->where,
                         s->heads, s->head_dim, 1 << 24);
    return LAMINA_OK;
}

lamina_status config_read(reading *r, settings *s)
{
    name_place(r);
    TRY(choose_row(r));
    *s = r->f->defaults;
    TRY(read_keys(r, s));
    TRY(check_sizes(r, s));
    TRY(config_rope(r, s));
    TRY(judge_quantised(r));
    return judge_others(r);
}
