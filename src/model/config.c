/* Owns the reading of configurations: every key of config.json is read, known to change no answer, or refused by name.
 * Promises that the settings it fills are in range, so that nothing computed from them overflows, and that a
 * configuration is never half understood. Tables say all of it; a null value counts as a key that is not there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/family.h"

/* ---- words of errors ---------------------------------------------------------------------------------------------- */

enum { SHOWN_BYTES = 72 }; /* of a value, in an error */

static const char *show(const json_t *value, char buffer[SHOWN_BYTES])
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
                     show(value, text), expected);
}

lamina_status key_unknown(const reading *r, const char *path, const char *key, const json_t *value)
{
    char text[SHOWN_BYTES];
    return error_set(
        r->err, LAMINA_E_UNSUPPORTED,
        "%s: key \"%s%s\" = %s is not understood and may change the answer; --ignore-config %s%s accepts it", r->where,
        path, key, show(value, text), path, key);
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
    {"silu", ACT_SILU},          {"swish", ACT_SILU},          {"gelu_pytorch_tanh", ACT_GELU_TANH},
    {"gelu_new", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH},
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
                     "%s: key \"%s\" = %s: this activation is not computed; known are silu, gelu_pytorch_tanh",
                     r->where, key, show(value, text));
}

/* ---- keys that are read ------------------------------------------------------------------------------------------- */

typedef enum key_kind {
    KIND_WHOLE,  /* uint32_t */
    KIND_NUMBER, /* double */
    KIND_FLAG,   /* bool */
    KIND_ACTIVATION,
    KIND_DTYPE,
    KIND_LIST,     /* kept: judged by config_windows() */
    KIND_ELSEWHERE /* config_rope(), config_ends() */
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

/* Ranges are wide enough for what exists and narrow enough that no product of two sizes passes 2^50. */
static const key keys[] = {
    {"num_hidden_layers", KIND_WHOLE, AT(layers), {1, 10000}, KEYS_ALL, GGUF_MUST},
    {"hidden_size", KIND_WHOLE, AT(hidden), {1, 1 << 20}, KEYS_ALL, GGUF_MUST},
    {"vocab_size", KIND_WHOLE, AT(vocab), {1, 1 << 24}, KEYS_ALL, GGUF_MUST},
    {"num_attention_heads", KIND_WHOLE, AT(heads), {1, 1 << 16}, KEYS_ALL, GGUF_MUST},
    {"num_key_value_heads", KIND_WHOLE, AT(kv_heads), {1, 1 << 16}, KEYS_ALL, GGUF_MUST | NULL_IS_ZERO},
    {"head_dim", KIND_WHOLE, AT(head_dim), {2, 1 << 14}, KEYS_ALL, NULL_IS_ZERO},
    {"intermediate_size", KIND_WHOLE, AT(ffn), {1, 1 << 24}, KEYS_ALL, GGUF_MUST},
    {"max_position_embeddings", KIND_WHOLE, AT(context), {1, INT32_MAX}, KEYS_ALL, GGUF_MUST},
    {"rms_norm_eps", KIND_NUMBER, AT(eps), {1e-30, 1}, KEYS_ALL, GGUF_MUST},
    {"hidden_act", KIND_ACTIVATION, AT(act), {0, 0}, KEYS_ALL, 0},
    {"tie_word_embeddings", KIND_FLAG, AT(tied), {0, 0}, KEYS_ALL, 0},
    {"attention_bias", KIND_FLAG, AT(attention_bias), {0, 0}, KEYS_BIAS, 0},
    {"sliding_window", KIND_WHOLE, AT(window), {1, INT32_MAX}, KEYS_WINDOW, NULL_IS_ZERO},
    {"use_sliding_window", KIND_FLAG, AT(use_window), {0, 0}, KEYS_WINDOW_LAYERS, 0},
    {"max_window_layers", KIND_WHOLE, AT(window_layers), {0, 1 << 24}, KEYS_WINDOW_LAYERS, 0},
    {"layer_types", KIND_LIST, AT(layer_types), {0, 0}, KEYS_ALL, 0},
    {"torch_dtype", KIND_DTYPE, AT(type), {0, 0}, KEYS_ALL, 0},
    {"dtype", KIND_DTYPE, AT(type), {0, 0}, KEYS_ALL, 0},
    {"rope_theta", KIND_ELSEWHERE, 0, {0, 0}, KEYS_ALL, 0},
    {"rope_scaling", KIND_ELSEWHERE, 0, {0, 0}, KEYS_ALL, 0},
    {"rope_parameters", KIND_ELSEWHERE, 0, {0, 0}, KEYS_ALL, 0},
    {"bos_token_id", KIND_ELSEWHERE, 0, {0, 0}, KEYS_ALL, 0},
    {"eos_token_id", KIND_ELSEWHERE, 0, {0, 0}, KEYS_ALL, 0},
    {"model_type", KIND_ELSEWHERE, 0, {0, 0}, KEYS_ALL, 0},
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

static lamina_status read_key(const reading *r, const key *k, const json_t *value, settings *s)
{
    char *at = (char *)s + k->at;
    switch (k->kind) {
    case KIND_WHOLE:
        return key_whole(r, "", k->name, value, k->in, (uint32_t *)(void *)at);
    case KIND_NUMBER:
        return key_number(r, "", k->name, value, k->in, (double *)(void *)at);
    case KIND_FLAG:
        return read_flag(r, k->name, value, (bool *)(void *)at);
    case KIND_ACTIVATION:
        return read_activation(r, k->name, value, (activation *)(void *)at);
    case KIND_DTYPE:
        return read_dtype(r, k->name, value, (dtype *)(void *)at);
    case KIND_LIST:
        s->layer_types = value;
        return LAMINA_OK;
    case KIND_ELSEWHERE:
        return LAMINA_OK;
    }
    return LAMINA_OK;
}

static lamina_status read_keys(const reading *r, settings *s)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        const key *k = &keys[i];
        const json_t *value = json_object_get(r->c->config, k->name);
        if (!knows(r->f, k)) continue;
        if (value && !json_is_null(value)) {
            TRY(read_key(r, k, value, s));
        } else if (r->c->dialect == DIALECT_GGUF && (k->flags & GGUF_MUST)) {
            return error_set(r->err, LAMINA_E_FORMAT, "%s: expected %s, found none", r->where, k->name);
        } else if (value && (k->flags & NULL_IS_ZERO)) {
            *(uint32_t *)(void *)((char *)s + k->at) = 0;
        }
    }
    const json_t *tied = json_object_get(r->c->config, "tie_word_embeddings");
    s->tied_said = tied && !json_is_null(tied);
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
static const struct {
    const char *pattern, *value; /* JSON */
} harmless[] = {
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
    {"*.expert_count", "0"},
    {"*.expert_used_count", "0"},
    {"*.attention.causal", "true"},
    {"*.use_parallel_residual", "false"},
    {"*.pooling_type", "0"},
};

static bool is_neutral(const char *name)
{
    for (size_t i = 0; i < sizeof neutral / sizeof *neutral; i++)
        if (glob_match(neutral[i], name)) return true;
    return false;
}

/* Compares with a value of the table: true, false, {}, or a number. */
static bool value_is(const json_t *value, const char *expected)
{
    if (json_is_boolean(value)) return strcmp(json_is_true(value) ? "true" : "false", expected) == 0;
    if (json_is_object(value)) return strcmp("{}", expected) == 0 && json_object_size(value) == 0;
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
        if (glob_match(harmless[i].pattern, name) && value_is(value, harmless[i].value)) return true;
    return false;
}

static bool is_read(const family *f, const char *name)
{
    for (size_t i = 0; i < N_KEYS; i++)
        if (strcmp(keys[i].name, name) == 0 && knows(f, &keys[i])) return true;
    return false;
}

static lamina_status refuse_quantised(const reading *r, const json_t *value)
{
    char text[SHOWN_BYTES];
    const json_t *method = json_object_get(value, "quant_method");
    return error_set(r->err, LAMINA_E_UNSUPPORTED,
                     "%s: key \"quantization_config\": weights quantised by %s are not computed; expected a checkpoint "
                     "in bf16, f16 or f32, or a GGUF file",
                     r->where, method ? show(method, text) : "an unnamed method");
}

static lamina_status judge_others(const reading *r)
{
    const char *name;
    json_t *value;
    json_object_foreach(r->c->config, name, value)
    {
        if (json_is_null(value) || is_read(r->f, name) || is_neutral(name) || is_harmless(r->f, name, value)) continue;
        if (reading_ignores(r, name)) continue;
        if (strcmp(name, "quantization_config") == 0) return refuse_quantised(r, value);
        return key_unknown(r, "", name, value);
    }
    return LAMINA_OK;
}

/* ---- the row ------------------------------------------------------------------------------------------------------ */

static lamina_status choose_row(reading *r)
{
    const json_t *type = json_object_get(r->c->config, "model_type");
    bool from_gguf = r->c->dialect == DIALECT_GGUF;
    const char *key_name = from_gguf ? "general.architecture" : "model_type";
    if (!json_is_string(type))
        return error_set(r->err, LAMINA_E_FORMAT, "%s: expected a name of a family in %s, found none", r->where,
                         key_name);
    r->f = family_find(json_string_value(type), r->c->dialect);
    if (r->f) return LAMINA_OK;
    char known[256] = "", text[SHOWN_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < n_families; i++) {
        const char *name = from_gguf ? families[i].architecture : families[i].name;
        if (name && n < sizeof known) n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", name);
    }
    return error_set(r->err, LAMINA_E_UNSUPPORTED, "%s: %s %s is not a family that this version computes; known are %s",
                     r->where, key_name, show(type, text), known);
}

/* What several keys together must be. */
static lamina_status check_sizes(const reading *r, settings *s)
{
    if (!s->kv_heads) s->kv_heads = s->heads;
    if (s->heads % s->kv_heads)
        return error_set(r->err, LAMINA_E_FORMAT,
                         "%s: num_attention_heads %u: expected a multiple of num_key_value_heads %u", r->where,
                         s->heads, s->kv_heads);
    if (!s->head_dim && (s->hidden % s->heads || s->hidden / s->heads > 1 << 14))
        return error_set(r->err, LAMINA_E_FORMAT,
                         "%s: hidden_size %u: without head_dim it must be num_attention_heads %u times at most 16384",
                         r->where, s->hidden, s->heads);
    if (!s->head_dim) s->head_dim = s->hidden / s->heads;
    if (s->head_dim % 2)
        return error_set(r->err, LAMINA_E_FORMAT, "%s: head_dim %u: expected an even number", r->where, s->head_dim);
    if ((uint64_t)s->heads * s->head_dim > 1 << 24)
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
    return judge_others(r);
}

/* ---- windows ------------------------------------------------------------------------------------------------------ */

/* layer_types, where given, decides (WINDOW_ABOVE) or must agree with what the family does anyway. */
static lamina_status read_layer_types(const reading *r, const settings *s, uint32_t window, uint32_t *windows)
{
    if (!json_is_array(s->layer_types) || json_array_size(s->layer_types) != s->layers) {
        char expected[64];
        snprintf(expected, sizeof expected, "a list of num_hidden_layers = %u names", s->layers);
        return key_refuse(r, "", "layer_types", s->layer_types, expected);
    }
    for (uint32_t i = 0; i < s->layers; i++) {
        const json_t *item = json_array_get(s->layer_types, i);
        const char *name = json_string_value(item);
        bool slides = name && strcmp(name, "sliding_attention") == 0;
        char text[SHOWN_BYTES];
        if (!slides && (!name || strcmp(name, "full_attention") != 0))
            return error_set(r->err, LAMINA_E_UNSUPPORTED,
                             "%s: key \"layer_types\": layer %u is %s: expected full_attention or sliding_attention",
                             r->where, i, show(item, text));
        if ((slides && !window) || (r->f->window != WINDOW_ABOVE && slides != (windows[i] != 0)))
            return error_set(r->err, LAMINA_E_UNSUPPORTED,
                             "%s: key \"layer_types\": layer %u is %s, but the other keys give it %s", r->where, i,
                             name, windows[i] ? "a sliding window" : "no window");
        windows[i] = slides ? window : 0;
    }
    return LAMINA_OK;
}

lamina_status config_windows(const reading *r, const settings *s, uint32_t *windows)
{
    uint32_t window = s->window, from = 0;
    if (r->f->window == WINDOW_NONE) window = 0;
    if (r->f->window == WINDOW_ABOVE) {
        from = s->window_layers;
        if (!s->use_window) window = 0;
    }
    for (uint32_t i = 0; i < s->layers; i++) windows[i] = i >= from ? window : 0;
    if (!s->layer_types || reading_ignores(r, "layer_types")) return LAMINA_OK;
    return read_layer_types(r, s, window, windows);
}

/* ---- ends --------------------------------------------------------------------------------------------------------- */

enum { ENDS_LIMIT = 1024 };

typedef struct ends {
    const reading *r;
    int32_t *ids;
    size_t n;
    uint32_t vocab;
} ends;

/* One id. Negative ones mean none, and what is beyond the vocabulary is never sampled: neither ends anything. */
static lamina_status add_end(ends *e, const char *file, const json_t *value)
{
    char text[SHOWN_BYTES];
    if (!json_is_integer(value))
        return error_set(e->r->err, LAMINA_E_FORMAT, "%s: %s: key \"eos_token_id\": %s: expected token ids",
                         e->r->where, file, show(value, text));
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= (json_int_t)e->vocab) return LAMINA_OK;
    size_t at = 0;
    while (at < e->n && e->ids[at] < id) at++;
    if (at < e->n && e->ids[at] == id) return LAMINA_OK;
    if (e->n == ENDS_LIMIT)
        return error_set(e->r->err, LAMINA_E_FORMAT, "%s: %s: key \"eos_token_id\": expected at most %d ids",
                         e->r->where, file, ENDS_LIMIT);
    memmove(e->ids + at + 1, e->ids + at, (e->n - at) * sizeof *e->ids);
    e->ids[at] = (int32_t)id;
    e->n++;
    return LAMINA_OK;
}

static lamina_status add_ends(ends *e, const char *file, const json_t *value)
{
    if (!value || json_is_null(value)) return LAMINA_OK;
    if (!json_is_array(value)) return add_end(e, file, value);
    for (size_t i = 0; i < json_array_size(value); i++) TRY(add_end(e, file, json_array_get(value, i)));
    return LAMINA_OK;
}

static lamina_status collect_ends(ends *e, const settings *s)
{
    const json_t *own = json_object_get(e->r->c->config, "eos_token_id");
    const json_t *other = json_object_get(e->r->c->generation, "eos_token_id");
    TRY(add_ends(e, "config.json", own));
    TRY(add_ends(e, "generation_config.json", other));
    if (!own && !other && s->eos >= 0 && (uint32_t)s->eos < e->vocab && e->r->c->dialect != DIALECT_GGUF)
        e->ids[e->n++] = s->eos;
    return LAMINA_OK;
}

/* The first id that is one; a list of them stands for its first. */
static bool find_bos(const json_t *object, uint32_t vocab, int32_t *bos)
{
    const json_t *value = json_object_get(object, "bos_token_id");
    if (json_is_array(value)) value = json_array_get(value, 0);
    if (!value) return false;
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    *bos = id >= 0 && id < (json_int_t)vocab ? (int32_t)id : -1;
    return true;
}

lamina_status config_ends(const reading *r, memory *m, const settings *s, int32_t *bos, int32_t **eos, size_t *n_eos)
{
    *bos = r->c->dialect == DIALECT_GGUF || s->bos >= (int32_t)s->vocab ? -1 : s->bos;
    if (!find_bos(r->c->config, s->vocab, bos)) find_bos(r->c->generation, s->vocab, bos);
    ends e = {.r = r, .vocab = s->vocab};
    e.ids = mem_array(m, MEM_MODEL, ENDS_LIMIT, sizeof *e.ids, r->err);
    if (!e.ids) return LAMINA_E_MEMORY;
    lamina_status status = collect_ends(&e, s);
    if (status == LAMINA_OK) {
        int32_t *fit = mem_resize(m, MEM_MODEL, e.ids, (e.n + 1) * sizeof *e.ids, r->err);
        if (fit) {
            *eos = fit;
            *n_eos = e.n;
            return LAMINA_OK;
        }
        status = LAMINA_E_MEMORY;
    }
    mem_free(m, e.ids);
    return status;
}
