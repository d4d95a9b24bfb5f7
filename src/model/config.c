/* config.json into a model's numbers. A key is read, or known to change nothing, or known to change nothing at one value,
 * or refused by name: an answer that silently ignores a key is a wrong answer. Both dialects are read: transformers 4's
 * rope_theta, rope_scaling, torch_dtype and transformers 5's rope_parameters, dtype. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/family.h"

typedef struct config {
    json_t *json;
    const char *path;
    const char *ignore;
    lamina_error *err;
} config;

/* Looks the same in every model that works; changes nothing that lamina computes. A trailing '*' stands for any end, a
 * leading one for any beginning. */
static const char *const neutral[] = {
    "_*",
    "architectures",
    "auto_map",
    "transformers_version",
    "transformers.js_config",
    "torch_dtype",
    "dtype",
    "use_cache",
    "initializer_range",
    "initializer_factor",
    "*dropout*",
    "*_token_id",
    "output_*",
    "return_dict*",
    "task_specific_params",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
    "model_max_length",
    "is_llama_config",
    "use_flash_attn*",
    "attn_implementation",
    "gradient_checkpointing",
    "tokenizer_class",
    "unsloth_*",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "is_decoder",
    "name_or_path",
    "model_name",
    "license",
    "max_window_layers",
    "sliding_window",
    "rope_interleaved",
    "pretraining_tp",
    "max_length",
    "min_length",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "use_bfloat16",
    "torchscript",
    "pruned_heads",
    "bad_words_ids",
    "num_return_sequences",
    "num_beams*",
    "length_penalty",
    "early_stopping",
    "diversity_penalty",
    "encoder_no_repeat_ngram_size",
    "no_repeat_ngram_size",
    "typical_p",
    "suppress_tokens",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "remove_invalid_values",
    "prefix",
    "tie_encoder_decoder",
    "add_cross_attention",
    "cross_attention_hidden_size",
    "tf_legacy_loss",
    "mlp_only_layers",
};

/* Read below or elsewhere. */
static const char *const read_here[] = {
    "model_type",          "hidden_size",        "intermediate_size", "num_hidden_layers",       "num_attention_heads",
    "num_key_value_heads", "head_dim",           "vocab_size",        "max_position_embeddings", "rms_norm_eps",
    "rope_theta",          "rope_scaling",       "rope_parameters",   "tie_word_embeddings",     "hidden_act",
    "attention_bias",      "use_sliding_window", "layer_types",       "partial_rotary_factor",   "mlp_bias",
    "quantization_config",
};

static bool matches(const char *pattern, const char *key)
{
    size_t n = strlen(pattern), k = strlen(key);
    bool open_end = n && pattern[n - 1] == '*', open_begin = n && pattern[0] == '*';
    size_t fixed = n - open_end - (open_begin && n > 1);
    const char *text = pattern + open_begin;
    if (fixed > k) return false;
    if (open_begin && open_end) {
        for (size_t i = 0; i + fixed <= k; i++)
            if (!memcmp(key + i, text, fixed)) return true;
        return false;
    }
    if (open_begin) return !memcmp(key + k - fixed, text, fixed);
    return !memcmp(key, text, fixed) && (open_end || k == fixed);
}

static bool listed(const char *const *list, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (matches(list[i], key)) return true;
    return false;
}

/* Is key one of the comma-separated names? */
static bool ignored(const char *names, const char *key)
{
    size_t k = strlen(key);
    while (names && *names) {
        size_t n = strcspn(names, ",");
        if (n == k && !memcmp(names, key, k)) return true;
        names += n + (names[n] == ',');
    }
    return false;
}

static lamina_status check_keys(const config *c)
{
    const char *key;
    json_t *value;
    json_object_foreach(c->json, key, value)
    {
        bool known = listed(read_here, sizeof read_here / sizeof *read_here, key) ||
                     listed(neutral, sizeof neutral / sizeof *neutral, key);
        if (known || json_is_null(value) || ignored(c->ignore, key)) continue;
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        lamina_status s = error_set(c->err, LAMINA_E_UNSUPPORTED,
                                    "%s: key \"%.80s\" = %.80s is not understood and may change the answer; "
                                    "--ignore-config %.80s accepts it unread",
                                    c->path, key, text ? text : "?", key);
        free(text);
        return s;
    }
    return LAMINA_OK;
}

/* A whole number in [low, high]. Absent or null: `otherwise`; that is -1 when the key is required. */
static lamina_status whole(const config *c, json_t *from, const char *key, int64_t low, int64_t high, int64_t otherwise,
                           uint32_t *out)
{
    json_t *v = json_object_get(from, key);
    if (!v || json_is_null(v)) {
        if (otherwise < 0) return error_set(c->err, LAMINA_E_FORMAT, "%s: key \"%s\" is missing", c->path, key);
        *out = (uint32_t)otherwise;
        return LAMINA_OK;
    }
    if (json_is_array(v))
        return error_set(c->err, LAMINA_E_UNSUPPORTED,
                         "%s: key \"%s\" differs from layer to layer; expected one number", c->path, key);
    json_int_t i = json_integer_value(v);
    if (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)) && fabs(json_real_value(v)) < 1e15)
        i = (json_int_t)json_real_value(v);
    else if (!json_is_integer(v))
        return error_set(c->err, LAMINA_E_FORMAT, "%s: key \"%s\" is not a whole number", c->path, key);
    if (i < low || i > high)
        return error_set(c->err, LAMINA_E_FORMAT, "%s: key \"%s\" is %lld, expected %lld to %lld", c->path, key,
                         (long long)i, (long long)low, (long long)high);
    *out = (uint32_t)i;
    return LAMINA_OK;
}

static lamina_status real(const config *c, json_t *from, const char *key, double low, double high, double otherwise,
                          double *out)
{
    json_t *v = json_object_get(from, key);
    if (!v || json_is_null(v)) {
        if (isnan(otherwise)) return error_set(c->err, LAMINA_E_FORMAT, "%s: key \"%s\" is missing", c->path, key);
        *out = otherwise;
        return LAMINA_OK;
    }
    if (!json_is_number(v)) return error_set(c->err, LAMINA_E_FORMAT, "%s: key \"%s\" is not a number", c->path, key);
    double d = json_number_value(v);
    if (!(d >= low && d <= high))
        return error_set(c->err, LAMINA_E_FORMAT, "%s: key \"%s\" is %g, expected %g to %g", c->path, key, d, low,
                         high);
    *out = d;
    return LAMINA_OK;
}

static lamina_status flag(const config *c, const char *key, bool otherwise, bool *out)
{
    json_t *v = json_object_get(c->json, key);
    *out = otherwise;
    if (!v || json_is_null(v)) return LAMINA_OK;
    if (!json_is_boolean(v))
        return error_set(c->err, LAMINA_E_FORMAT, "%s: key \"%s\" is not true or false", c->path, key);
    *out = json_is_true(v);
    return LAMINA_OK;
}

/* Keys of which one value only is computed. */
static lamina_status fixed_values(const config *c)
{
    const char *act = json_string_value(json_object_get(c->json, "hidden_act"));
    if (act && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return error_set(c->err, LAMINA_E_UNSUPPORTED, "%s: hidden_act \"%.40s\": this family computes silu", c->path,
                         act);
    bool mlp_bias;
    TRY(flag(c, "mlp_bias", false, &mlp_bias));
    if (mlp_bias) return error_set(c->err, LAMINA_E_UNSUPPORTED, "%s: mlp_bias true is not supported", c->path);
    double part;
    TRY(real(c, c->json, "partial_rotary_factor", 0, 1, 1, &part));
    if (part != 1)
        return error_set(c->err, LAMINA_E_UNSUPPORTED, "%s: partial_rotary_factor %g: this family rotates whole heads",
                         c->path, part);
    json_t *q = json_object_get(c->json, "quantization_config");
    if (q && !json_is_null(q)) {
        const char *method = json_string_value(json_object_get(q, "quant_method"));
        return error_set(c->err, LAMINA_E_UNSUPPORTED, "%s: quantization_config with method \"%.40s\" is not supported",
                         c->path, method ? method : "?");
    }
    return LAMINA_OK;
}

static lamina_status sizes(const config *c, model *m, const family *f)
{
    json_t *j = c->json;
    TRY(whole(c, j, "hidden_size", 1, 1 << 20, -1, &m->hidden));
    TRY(whole(c, j, "intermediate_size", 1, 1 << 24, -1, &m->ffn));
    TRY(whole(c, j, "num_hidden_layers", 1, 10000, -1, &m->n_layers));
    TRY(whole(c, j, "num_attention_heads", 1, 1 << 16, -1, &m->heads));
    TRY(whole(c, j, "num_key_value_heads", 1, 1 << 16, f->kv_heads ? f->kv_heads : m->heads, &m->kv_heads));
    TRY(whole(c, j, "vocab_size", 1, 1 << 24, -1, &m->vocab));
    TRY(whole(c, j, "max_position_embeddings", 1, 1 << 30, f->context, &m->max_context));
    TRY(whole(c, j, "head_dim", 2, 1 << 16, 0, &m->head_dim));
    if (m->head_dim == 0) {
        m->head_dim = f->head_dim ? f->head_dim : m->hidden / m->heads;
        if (!f->head_dim && m->hidden % m->heads)
            return error_set(c->err, LAMINA_E_FORMAT, "%s: hidden_size %u is not a multiple of num_attention_heads %u",
                             c->path, m->hidden, m->heads);
    }
    if (m->head_dim % 2)
        return error_set(c->err, LAMINA_E_FORMAT, "%s: head_dim %u is odd and cannot be rotated", c->path, m->head_dim);
    if (m->heads % m->kv_heads)
        return error_set(c->err, LAMINA_E_FORMAT,
                         "%s: num_attention_heads %u is not a multiple of num_key_value_heads %u", c->path, m->heads,
                         m->kv_heads);
    double eps;
    TRY(real(c, j, "rms_norm_eps", 0, 1, 1e-6, &eps));
    m->norm_eps = (float)eps;
    return flag(c, "tie_word_embeddings", false, &m->tied_head);
}

static lamina_status scaled(const config *c, model *m, json_t *p)
{
    rope_axes *r = &m->rope;
    TRY(real(c, p, "factor", 1e-6, 1e9, NAN, &r->factor));
    TRY(whole(c, p, "original_max_position_embeddings", 1, 1 << 30, m->max_context, &r->original_context));
    if (r->scaling == ROPE_DYNAMIC) r->original_context = m->max_context;
    if (r->scaling == ROPE_LLAMA3) {
        TRY(real(c, p, "low_freq_factor", 1e-6, 1e9, NAN, &r->low_freq_factor));
        TRY(real(c, p, "high_freq_factor", 1e-6, 1e9, NAN, &r->high_freq_factor));
        if (r->high_freq_factor <= r->low_freq_factor)
            return error_set(c->err, LAMINA_E_FORMAT, "%s: rope high_freq_factor %g is not above low_freq_factor %g",
                             c->path, r->high_freq_factor, r->low_freq_factor);
    }
    if (r->scaling != ROPE_YARN) return LAMINA_OK;
    TRY(real(c, p, "beta_fast", 1e-6, 1e9, 32, &r->beta_fast));
    TRY(real(c, p, "beta_slow", 1e-6, 1e9, 1, &r->beta_slow));
    TRY(real(c, p, "attention_factor", 0, 1e6, 0, &r->attention_factor));
    TRY(real(c, p, "mscale", 0, 1e6, 0, &r->mscale));
    TRY(real(c, p, "mscale_all_dim", 0, 1e6, 0, &r->mscale_all_dim));
    json_t *truncate = json_object_get(p, "truncate");
    r->truncate = !json_is_false(truncate);
    return LAMINA_OK;
}

static lamina_status scaling_kind(const config *c, json_t *p, rope_scaling *out)
{
    static const struct {
        const char *name;
        rope_scaling kind;
    } kinds[] = {{"default", ROPE_PLAIN},
                 {"linear", ROPE_LINEAR},
                 {"dynamic", ROPE_DYNAMIC},
                 {"yarn", ROPE_YARN},
                 {"llama3", ROPE_LLAMA3}};
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "factor",
                                        "original_max_position_embeddings",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "attention_factor",
                                        "mscale",
                                        "mscale_all_dim",
                                        "truncate"};
    const char *key, *name = json_string_value(json_object_get(p, "rope_type"));
    json_t *value;
    json_object_foreach(p, key, value)
    {
        if (!json_is_null(value) && !listed(known, sizeof known / sizeof *known, key))
            return error_set(c->err, LAMINA_E_UNSUPPORTED, "%s: rope scaling key \"%.80s\" is not understood", c->path,
                             key);
    }
    if (!name) name = json_string_value(json_object_get(p, "type"));
    *out = ROPE_PLAIN;
    if (!name) {
        if (!json_object_get(p, "factor")) return LAMINA_OK;
        return error_set(c->err, LAMINA_E_FORMAT, "%s: rope scaling has a factor but no rope_type", c->path);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, name)) {
            *out = kinds[i].kind;
            return LAMINA_OK;
        }
    return error_set(c->err, LAMINA_E_UNSUPPORTED,
                     "%s: rope scaling of type \"%.40s\" is not supported; known are default, "
                     "linear, dynamic, yarn and llama3",
                     c->path, name);
}

static lamina_status rope(const config *c, model *m)
{
    rope_axes *r = &m->rope;
    json_t *p = json_object_get(c->json, "rope_parameters");
    if (!p || json_is_null(p)) p = json_object_get(c->json, "rope_scaling");
    r->dims = m->head_dim;
    TRY(real(c, c->json, "rope_theta", 1, 1e12, 10000, &r->theta));
    if (!p || json_is_null(p)) return LAMINA_OK;
    if (!json_is_object(p)) return error_set(c->err, LAMINA_E_FORMAT, "%s: rope scaling is not an object", c->path);
    TRY(real(c, p, "rope_theta", 1, 1e12, r->theta, &r->theta));
    TRY(scaling_kind(c, p, &r->scaling));
    if (r->scaling == ROPE_PLAIN) return LAMINA_OK;
    TRY(scaled(c, m, p));
    if (r->scaling == ROPE_DYNAMIC && r->dims <= 2)
        return error_set(c->err, LAMINA_E_FORMAT, "%s: dynamic rope scaling needs a head_dim above 2", c->path);
    return r->theta > 1 ? LAMINA_OK
                        : error_set(c->err, LAMINA_E_FORMAT, "%s: rope_theta %g, expected above 1", c->path, r->theta);
}

/* Which layers have a window: the family's rule, which layer_types must confirm where it is given. */
static lamina_status windows(const config *c, model *m, const family *f, const settings *s)
{
    json_t *types = json_object_get(c->json, "layer_types");
    if (types && !json_is_null(types) && (!json_is_array(types) || json_array_size(types) != m->n_layers))
        return error_set(c->err, LAMINA_E_FORMAT, "%s: layer_types is not a list of %u names", c->path, m->n_layers);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        bool window = f->window == WINDOW_ALWAYS ||
                      (f->window == WINDOW_ABOVE && s->use_sliding_window && i >= s->max_window_layers);
        const char *type = json_string_value(json_array_get(types, i));
        if (type) window = !strcmp(type, "sliding_attention");
        if (type && strcmp(type, "full_attention") != 0 && !window)
            return error_set(c->err, LAMINA_E_UNSUPPORTED,
                             "%s: layer_types has \"%.40s\"; known are full_attention and "
                             "sliding_attention",
                             c->path, type);
        if (type && window && s->sliding_window == 0)
            return error_set(c->err, LAMINA_E_FORMAT, "%s: layer_types asks for windows, sliding_window is not given",
                             c->path);
        m->layers[i].window = window ? s->sliding_window : 0;
        m->layers[i].rope = true;
    }
    return LAMINA_OK;
}

/* Ids that end generation: of generation_config.json, then of config.json, each once. */
static lamina_status add_eos(const config *c, model *m, json_t *v, size_t room)
{
    size_t n = json_is_array(v) ? json_array_size(v) : v && !json_is_null(v) ? 1 : 0;
    for (size_t i = 0; i < n; i++) {
        json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        json_int_t id = json_integer_value(one);
        if (!json_is_integer(one) || id < -1 || id > INT32_MAX)
            return error_set(c->err, LAMINA_E_FORMAT, "%s: eos_token_id is not a token id or a list of them", c->path);
        bool seen = id < 0;
        for (size_t k = 0; k < m->n_eos; k++) seen = seen || m->eos[k] == id;
        if (!seen && m->n_eos < room) m->eos[m->n_eos++] = (int32_t)id;
    }
    return LAMINA_OK;
}

static lamina_status specials(const config *c, model *m, json_t *generation)
{
    json_t *a = json_object_get(generation, "eos_token_id"), *b = json_object_get(c->json, "eos_token_id");
    size_t room = json_array_size(a) + json_array_size(b) + 2;
    m->eos = mem_array(m->m, MEM_MODEL, room, sizeof *m->eos, c->err);
    if (!m->eos) return LAMINA_E_MEMORY;
    TRY(add_eos(c, m, a, room));
    TRY(add_eos(c, m, b, room));
    json_t *bos = json_object_get(c->json, "bos_token_id");
    m->bos = json_is_integer(bos) && json_integer_value(bos) >= 0 && json_integer_value(bos) <= INT32_MAX
                 ? (int32_t)json_integer_value(bos)
                 : -1;
    return LAMINA_OK;
}

lamina_status config_read(model *m, const family *f, const char *ignore, settings *s, lamina_error *err)
{
    config c = {.json = m->source->config, .path = m->source->path, .ignore = ignore, .err = err};
    TRY(check_keys(&c));
    TRY(fixed_values(&c));
    TRY(sizes(&c, m, f));
    TRY(rope(&c, m));
    TRY(flag(&c, "attention_bias", false, &s->attention_bias));
    TRY(flag(&c, "use_sliding_window", false, &s->use_sliding_window));
    TRY(whole(&c, c.json, "max_window_layers", 0, 1 << 20, 28, &s->max_window_layers));
    json_t *window = json_object_get(c.json, "sliding_window");
    bool none = window && (json_is_null(window) || json_is_false(window)); /* null says none; absent says the default */
    if (none)
        s->sliding_window = 0;
    else
        TRY(whole(&c, c.json, "sliding_window", 0, 1 << 30, f->sliding_window, &s->sliding_window));
    m->layers = mem_array(m->m, MEM_MODEL, m->n_layers, sizeof *m->layers, err);
    if (!m->layers) return LAMINA_E_MEMORY;
    TRY(windows(&c, m, f, s));
    return specials(&c, m, m->source->generation);
}
