/* Owns the translation of GGUF metadata into a configuration in Hugging Face's dialect, so that one reader of
 * configurations serves both. Promises that nothing of the architecture's own is lost: every "{arch}.*" entry is first
 * laid down under its own name, then those that the dialect can express are taken away and said in its words; what is
 * left over stays for the families to understand or refuse. Meanings and defaults are those of llama.cpp, which defines
 * them by what it computes (load_hparams, llama_context, ggml_rope_yarn). */
#include "format/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ARCH_LIMIT = 64 };

typedef struct translation {
    const checkpoint *c;
    const gguf *g;
    json_t *out;
    char arch[ARCH_LIMIT + 1];
    char key[ARCH_LIMIT + 64]; /* the last one made by own_key() */
} translation;

static lamina_status no_memory(const translation *t, lamina_error *err)
{
    return error_set(err, LAMINA_E_MEMORY, "%s: no memory for its configuration", t->c->path);
}

/* Takes the reference to value; NULL is a failed allocation. */
static lamina_status put(translation *t, const char *key, json_t *value, lamina_error *err)
{
    return json_object_set_new(t->out, key, value) == 0 ? LAMINA_OK : no_memory(t, err);
}

static const char *own_key(translation *t, const char *rest)
{
    snprintf(t->key, sizeof t->key, "%s.%s", t->arch, rest);
    return t->key;
}

/* Removes "{arch}.rest" from what is laid down: a new reference, or NULL when there is none. */
static json_t *take(translation *t, const char *rest)
{
    const char *key = own_key(t, rest);
    json_t *value = json_incref(json_object_get(t->out, key));
    if (value) json_object_del(t->out, key);
    return value;
}

/* The same for a number; *has says whether there was one. */
static lamina_status take_number(translation *t, const char *rest, bool *has, double *v, lamina_error *err)
{
    json_t *value = take(t, rest);
    *has = value != NULL;
    if (!value) return LAMINA_OK;
    bool fits = json_is_number(value);
    *v = json_number_value(value);
    json_decref(value);
    if (fits) return LAMINA_OK;
    return error_set(err, LAMINA_E_FORMAT, "%s: metadata %s: expected a number", t->c->path, own_key(t, rest));
}

/* A whole number that is laid down under a name of either dialect; 0: absent, an array, or not positive. */
static json_int_t whole(const translation *t, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(t->out, key));
    return v > 0 ? v : 0;
}

/* ---- what the file says ----------------------------------------------------------------------------------------- */

static lamina_status read_architecture(translation *t, lamina_error *err)
{
    gguf_string s;
    if (gguf_text(t->g, "general.type", &s) && s.bytes != 0 && !(s.bytes == 5 && memcmp(s.data, "model", 5) == 0) &&
        !(s.bytes == 5 && memcmp(s.data, "vocab", 5) == 0))
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: general.type is \"%.*s\": expected a model", t->c->path,
                         s.bytes > 64 ? 64 : (int)s.bytes, s.data);
    if (!gguf_text(t->g, "general.architecture", &s))
        return error_set(err, LAMINA_E_FORMAT, "%s: no general.architecture in its metadata", t->c->path);
    bool plain = s.bytes > 0 && s.bytes <= ARCH_LIMIT;
    for (uint64_t i = 0; plain && i < s.bytes; i++) {
        char x = s.data[i];
        plain = (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || (x >= '0' && x <= '9') || x == '-' || x == '_' ||
                x == '.';
    }
    if (!plain)
        return error_set(err, LAMINA_E_FORMAT, "%s: general.architecture: expected a name of letters, digits, - _ .",
                         t->c->path);
    memcpy(t->arch, s.data, (size_t)s.bytes);
    t->arch[s.bytes] = '\0';
    return put(t, "model_type", json_string(t->arch), err);
}

static lamina_status lay_down(translation *t, lamina_error *err)
{
    size_t n = strlen(t->arch);
    gguf_string key;
    for (size_t i = 0; (key = gguf_key(t->g, i)).data; i++) {
        if (key.bytes <= n + 1 || memcmp(key.data, t->arch, n) != 0 || key.data[n] != '.') continue;
        json_t *value = gguf_json(t->g, key, t->c->path, err);
        if (!value) return err ? err->status : LAMINA_E_FORMAT;
        if (json_object_setn_new(t->out, key.data, (size_t)key.bytes, value) != 0) return no_memory(t, err);
    }
    return LAMINA_OK;
}

/* ---- in the other's words ---------------------------------------------------------------------------------------- */

/* The first that is there wins; another with the same meaning is left to be refused. arch NULL: any. */
static const struct {
    const char *arch, *own, *theirs;
} renamed[] = {
    {NULL, "block_count", "num_hidden_layers"},
    {NULL, "context_length", "max_position_embeddings"},
    {NULL, "embedding_length", "hidden_size"},
    {NULL, "feed_forward_length", "intermediate_size"},
    {NULL, "attention.head_count", "num_attention_heads"},
    {NULL, "attention.head_count_kv", "num_key_value_heads"},
    {NULL, "attention.key_length", "head_dim"},
    {NULL, "attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {NULL, "attention.layer_norm_epsilon", "rms_norm_eps"},
    {NULL, "attention.sliding_window", "sliding_window"},
    {NULL, "rope.freq_base", "rope_theta"},
    {NULL, "vocab_size", "vocab_size"},
    {"granite", "attention.scale", "attention_multiplier"},
    {"granite", "embedding_scale", "embedding_multiplier"},
    {"granite", "residual_scale", "residual_multiplier"},
    {"granite", "logit_scale", "logits_scaling"},
    {"command-r", "logit_scale", "logit_scale"},
    {"cohere2", "logit_scale", "logit_scale"},
    {"gemma2", "attn_logit_softcapping", "attn_logit_softcapping"},
    {"gemma2", "final_logit_softcapping", "final_logit_softcapping"},
    {"gemma3", "final_logit_softcapping", "final_logit_softcapping"},
    {"gemma3", "rope.freq_base_swa", "rope_local_base_freq"},
    {"gptneox", "use_parallel_residual", "use_parallel_residual"},
    /* experts */
    {NULL, "expert_count", "num_experts"},
    {NULL, "expert_used_count", "num_experts_per_tok"},
    {NULL, "expert_feed_forward_length", "moe_intermediate_size"},
    {NULL, "expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
    {NULL, "expert_shared_count", "n_shared_experts"},
    {NULL, "expert_group_count", "n_group"},
    {NULL, "expert_group_used_count", "topk_group"},
    {NULL, "expert_weights_scale", "routed_scaling_factor"},
    {NULL, "expert_weights_norm", "norm_topk_prob"},
    {NULL, "leading_dense_block_count", "first_k_dense_replace"},
    {NULL, "nextn_predict_layers", "num_nextn_predict_layers"},
    {"deepseek2", "attention.q_lora_rank", "q_lora_rank"},
    {"deepseek2", "attention.kv_lora_rank", "kv_lora_rank"},
};

/* What llama.cpp computes for an architecture when its metadata are silent, where Hugging Face's silence means
 * something else. Values are JSON. */
static const struct {
    const char *arch, *key, *value;
} implied[] = {
    {"command-r", "logit_scale", "1"},
    {"gemma2", "sliding_window", "4096"},
    {"qwen2moe", "norm_topk_prob", "false"},
    {"qwen3moe", "norm_topk_prob", "true"},
    {"olmoe", "norm_topk_prob", "false"},
    {"deepseek2", "norm_topk_prob", "false"},
    {"glm4moe", "norm_topk_prob", "false"},
    {"deepseek2", "scoring_func", "\"softmax\""},
    {"glm4moe", "scoring_func", "\"sigmoid\""},
    {"deepseek2", "q_lora_rank", "null"},
    {"deepseek2", "first_k_dense_replace", "0"},
    {"glm4moe", "first_k_dense_replace", "0"},
    {"qwen", "use_dynamic_ntk", "false"},
    {"qwen", "use_logn_attn", "false"},
    {"chatglm", "multi_query_attention", "true"},
};

static bool is_arch(const translation *t, const char *name)
{
    return !name || strcmp(t->arch, name) == 0;
}

/* A list that says the same of every layer is that. Takes and gives a reference. */
static json_t *even(json_t *value)
{
    json_t *first = json_array_get(value, 0);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!json_equal(json_array_get(value, i), first)) return value;
    if (!first) return value;
    json_incref(first);
    json_decref(value);
    return first;
}

static lamina_status rename_keys(translation *t, lamina_error *err)
{
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++) {
        if (!is_arch(t, renamed[i].arch) || json_object_get(t->out, renamed[i].theirs)) continue;
        json_t *value = take(t, renamed[i].own);
        if (value) TRY(put(t, renamed[i].theirs, even(value), err));
    }
    return LAMINA_OK;
}

static lamina_status put_implied(translation *t, lamina_error *err)
{
    for (size_t i = 0; i < sizeof implied / sizeof *implied; i++) {
        if (!is_arch(t, implied[i].arch) || json_object_get(t->out, implied[i].key)) continue;
        TRY(put(t, implied[i].key, json_loads(implied[i].value, JSON_DECODE_ANY, NULL), err));
    }
    return LAMINA_OK;
}

/* What GGUF leaves out means something definite there, but something else in some of transformers' configurations. */
static lamina_status fill_defaults(translation *t, lamina_error *err)
{
    json_t *heads = json_object_get(t->out, "num_attention_heads");
    if (heads && !json_object_get(t->out, "num_key_value_heads"))
        TRY(put(t, "num_key_value_heads", json_incref(heads), err));
    json_int_t hidden = whole(t, "hidden_size"), n = whole(t, "num_attention_heads");
    if (!json_object_get(t->out, "head_dim") && n && hidden % n == 0)
        TRY(put(t, "head_dim", json_integer(hidden / n), err));
    if (!json_object_get(t->out, "rope_theta")) TRY(put(t, "rope_theta", json_real(10000.0), err));
    if (json_object_get(t->out, "vocab_size")) return LAMINA_OK;
    uint64_t vocab = 0;
    const tensor *embed = checkpoint_find(t->c, "token_embd.weight");
    if (!gguf_text_array(t->g, "tokenizer.ggml.tokens", &vocab) && embed && embed->n_dims == 2) vocab = embed->shape[0];
    return vocab && vocab <= INT32_MAX ? put(t, "vocab_size", json_integer((json_int_t)vocab), err) : LAMINA_OK;
}

/* ---- layers and heads ------------------------------------------------------------------------------------------- */

static lamina_status bad_pattern(const translation *t, lamina_error *err)
{
    return error_set(err, LAMINA_E_FORMAT,
                     "%s: metadata %s.attention.sliding_window_pattern: expected a whole number from 0 to 10000, or "
                     "true or false for each of %s.block_count layers, at most 10000",
                     t->c->path, t->arch, t->arch);
}

/* Of a number every so-many-th layer is without a window; zero: none is. */
static lamina_status slides(const translation *t, const json_t *pattern, json_int_t layer, bool *yes, lamina_error *err)
{
    const json_t *item = json_is_array(pattern) ? json_array_get(pattern, (size_t)layer) : pattern;
    json_int_t n = json_integer_value(item);
    if (json_is_boolean(item)) {
        *yes = json_is_true(item);
    } else if (!json_is_integer(item) || n < 0 || n > 10000) {
        return bad_pattern(t, err);
    } else {
        *yes = json_is_array(pattern) ? n != 0 : n == 0 || (layer + 1) % n != 0;
    }
    return LAMINA_OK;
}

static lamina_status fill_layer_types(const translation *t, const json_t *pattern, json_t *list, lamina_error *err)
{
    json_int_t layers = whole(t, "num_hidden_layers");
    if (layers > 10000 || (json_is_array(pattern) && json_array_size(pattern) < (size_t)layers))
        return bad_pattern(t, err);
    for (json_int_t i = 0; i < layers; i++) {
        bool yes = false;
        TRY(slides(t, pattern, i, &yes, err));
        json_t *name = json_string(yes ? "sliding_attention" : "full_attention");
        if (json_array_append_new(list, name) != 0) return no_memory(t, err);
    }
    return LAMINA_OK;
}

static lamina_status windows(translation *t, lamina_error *err)
{
    if (!whole(t, "sliding_window")) {
        json_t *window = json_object_get(t->out, "sliding_window");
        json_decref(take(t, "attention.sliding_window_pattern")); /* of windows that are not there */
        if (!window || json_integer_value(window) == 0) return put(t, "sliding_window", json_null(), err);
        return LAMINA_OK;
    }
    const json_t *base = json_object_get(t->out, own_key(t, "rope.freq_base_swa"));
    if (base && json_number_value(base) == json_number_value(json_object_get(t->out, "rope_theta")))
        json_decref(take(t, "rope.freq_base_swa")); /* the same */
    json_t *pattern = take(t, "attention.sliding_window_pattern");
    if (!pattern) return LAMINA_OK;
    json_t *list = json_array();
    lamina_status status = list ? fill_layer_types(t, pattern, list, err) : no_memory(t, err);
    json_decref(pattern);
    if (status == LAMINA_OK) return put(t, "layer_types", list, err);
    json_decref(list);
    return status;
}

/* Head sizes that say nothing new go; a rotation of part of the head becomes that part. */
static lamina_status head_sizes(translation *t, lamina_error *err)
{
    json_int_t dim = whole(t, "head_dim"), rotated = whole(t, own_key(t, "rope.dimension_count"));
    if (dim && whole(t, own_key(t, "attention.value_length")) == dim) json_decref(take(t, "attention.value_length"));
    if (!dim || rotated > dim) return LAMINA_OK;
    json_decref(take(t, "rope.dimension_count"));
    double share = rotated ? (double)rotated / (double)dim : 1.0;
    while ((json_int_t)(share * (double)dim) < rotated) share = nextafter(share, 2.0); /* its reader truncates */
    return put(t, "partial_rotary_factor", json_real(share), err);
}

/* Latent attention: key_length is that of the latent head which all share, or of a head's own keys in files that are
 * older than April 2025 and say no key_length_mla. */
static lamina_status latent_sizes(translation *t, lamina_error *err)
{
    static const char *const widths[2][2] = {{"attention.key_length_mla", "head_dim"},
                                             {"attention.value_length_mla", "attention.value_length"}};
    double size[2] = {0, 0}, rotated = 0;
    bool has;
    json_t *key = json_object_get(t->out, "head_dim");
    size[0] = json_number_value(key);
    TRY(take_number(t, widths[1][1], &has, &size[1], err));
    for (size_t i = 0; i < 2; i++) TRY(take_number(t, widths[i][0], &has, &size[i], err));
    json_object_del(t->out, "head_dim");
    TRY(take_number(t, "rope.dimension_count", &has, &rotated, err));
    bool fits = rotated >= 1 && size[0] > rotated && size[0] < 1 << 16 && size[1] >= 1 && size[1] < 1 << 16;
    if (!fits)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: metadata: widths of keys %g, values %g, rotated %g: expected keys wider than what is "
                         "rotated of them",
                         t->c->path, size[0], size[1], rotated);
    TRY(put(t, "qk_rope_head_dim", json_integer((json_int_t)rotated), err));
    TRY(put(t, "qk_nope_head_dim", json_integer((json_int_t)(size[0] - rotated)), err));
    TRY(put(t, "v_head_dim", json_integer((json_int_t)size[1]), err));
    return put(t, "num_key_value_heads", json_incref(json_object_get(t->out, "num_attention_heads")), err);
}

/* Scores times this: Gemma 2 and 3 divide by the root of the head's width, those of 27B (46 and 62 layers) by that of
 * hidden / heads; Granite does by default. */
static lamina_status score_scale(translation *t, lamina_error *err)
{
    json_int_t layers = whole(t, "num_hidden_layers"), heads = whole(t, "num_attention_heads");
    json_int_t width = whole(t, "head_dim");
    bool two = strcmp(t->arch, "gemma2") == 0, three = strcmp(t->arch, "gemma3") == 0;
    if (heads && ((two && layers == 46) || (three && layers == 62))) width = whole(t, "hidden_size") / heads;
    if (width && (two || three)) return put(t, "query_pre_attn_scalar", json_integer(width), err);
    if (!width || strcmp(t->arch, "granite") != 0 || json_object_get(t->out, "attention_multiplier")) return LAMINA_OK;
    return put(t, "attention_multiplier", json_real(1 / sqrt((double)width)), err);
}

/* What is said by the tensors alone, or better by them. */
static lamina_status said_by_tensors(translation *t, lamina_error *err)
{
    bool stablelm = strcmp(t->arch, "stablelm") == 0;
    if (stablelm || strcmp(t->arch, "command-r") == 0 || strcmp(t->arch, "glm4moe") == 0)
        TRY(put(t, "use_qk_norm", json_boolean(checkpoint_find(t->c, "blk.0.attn_q_norm.weight")), err));
    if (!stablelm) return LAMINA_OK;
    json_decref(take(t, "use_parallel_residual"));
    return put(t, "use_parallel_residual", json_boolean(!checkpoint_find(t->c, "blk.0.ffn_norm.weight")), err);
}

/* ---- experts ---------------------------------------------------------------------------------------------------- */

static lamina_status experts(translation *t, lamina_error *err)
{
    static const char *const counts[] = {"num_experts", "num_experts_per_tok",   "n_group",
                                         "topk_group",  "routed_scaling_factor", "num_nextn_predict_layers"};
    static const char *const scores[] = {NULL, "softmax", "sigmoid"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) { /* zero is not said */
        const json_t *value = json_object_get(t->out, counts[i]);
        if (json_is_number(value) && json_number_value(value) == 0) json_object_del(t->out, counts[i]);
    }
    json_int_t kind = whole(t, own_key(t, "expert_gating_func"));
    if (kind < 3) json_decref(take(t, "expert_gating_func"));
    if (kind == 1 || kind == 2) TRY(put(t, "scoring_func", json_string(scores[kind]), err));
    json_int_t layers = whole(t, "num_hidden_layers"), more = whole(t, "num_nextn_predict_layers");
    if (more == 0 || more >= layers) return LAMINA_OK;
    return put(t, "num_hidden_layers", json_integer(layers - more), err); /* GGUF counts these too */
}

/* ---- rotation --------------------------------------------------------------------------------------------------- */

/* The factor on cos and sin: transformers' attention_factor is the whole of it, GGUF's attn_factor multiplies what YaRN
 * prescribes (0.1 ln s + 1; Peng et al. 2023, eq. 22), its yarn_attn_factor is transformers' own, copied. */
static lamina_status yarn_attention(translation *t, json_t *into, double factor, lamina_error *err)
{
    double given = 1, times = 1;
    bool has_given, has_times;
    TRY(take_number(t, "rope.scaling.yarn_attn_factor", &has_given, &given, err));
    TRY(take_number(t, "rope.scaling.attn_factor", &has_times, &times, err));
    if (!has_given && (!has_times || times == 1)) return LAMINA_OK;
    double whole_of_it = has_given ? given : factor > 1 ? 0.1 * log(factor) + 1 : 1;
    if (json_object_set_new(into, "attention_factor", json_real(whole_of_it * times)) != 0) return no_memory(t, err);
    return LAMINA_OK;
}

static lamina_status put_number(const translation *t, json_t *into, const char *key, double value, lamina_error *err)
{
    return json_object_set_new(into, key, json_real(value)) == 0 ? LAMINA_OK : no_memory(t, err);
}

/* DeepSeek's mscale_all_dim, a tenth of it in its own architecture, and Ministral 3's; mscale is not said: it is the
 * same in DeepSeek V2 (or both are 1, as in V3), and 1 in the other. Ministral 3's queries grow with their position. */
static lamina_status yarn_mscale(translation *t, json_t *into, lamina_error *err)
{
    bool latent = strcmp(t->arch, "deepseek2") == 0, has;
    double v = 0;
    if (!latent && strcmp(t->arch, "mistral3") != 0) return LAMINA_OK;
    TRY(take_number(t, "rope.scaling.yarn_log_multiplier", &has, &v, err));
    if (has && v != 0) {
        if (latent) v = (double)(float)((float)v / 0.1f);
        TRY(put_number(t, into, "mscale", latent ? v : 1.0, err));
        TRY(put_number(t, into, "mscale_all_dim", v, err));
    }
    if (latent) return LAMINA_OK;
    TRY(take_number(t, "attention.temperature_scale", &has, &v, err));
    return has && v != 0 ? put_number(t, into, "llama_4_scaling_beta", v, err) : LAMINA_OK;
}

static lamina_status yarn(translation *t, json_t *into, double factor, lamina_error *err)
{
    static const char *const betas[2][2] = {{"rope.scaling.yarn_beta_fast", "beta_fast"},
                                            {"rope.scaling.yarn_beta_slow", "beta_slow"}};
    for (size_t i = 0; i < 2; i++) {
        json_t *beta = take(t, betas[i][0]);
        if (beta && json_object_set_new(into, betas[i][1], beta) != 0) return no_memory(t, err);
    }
    TRY(yarn_mscale(t, into, err));
    double extent = json_number_value(json_object_get(t->out, own_key(t, "rope.scaling.yarn_ext_factor")));
    if (extent == 1 || extent < 0) json_decref(take(t, "rope.scaling.yarn_ext_factor")); /* whole, or not said */
    if (strcmp(t->arch, "gpt-oss") == 0 && json_object_set_new(into, "truncate", json_false()) != 0)
        return no_memory(t, err); /* as the model was trained; no key says so */
    return yarn_attention(t, into, factor, err);
}

/* The factors are tensors; what they stretch, their ratio, is that of the two lengths. */
static lamina_status longrope(translation *t, json_t *into, lamina_error *err)
{
    double attention = 1;
    bool has;
    TRY(take_number(t, "rope.scaling.attn_factor", &has, &attention, err));
    return put_number(t, into, "attention_factor", attention, err);
}

/* Fills `into` (rope_scaling) for the kind that the file names. */
static lamina_status scaling_of(translation *t, const char *kind, double factor, json_t *into, lamina_error *err)
{
    json_t *original = take(t, "rope.scaling.original_context_length");
    if (!original) original = json_incref(json_object_get(t->out, "max_position_embeddings"));
    if (strcmp(kind, "linear") == 0) {
        json_decref(original);
    } else if (original && json_object_set_new(into, "original_max_position_embeddings", original) != 0) {
        return no_memory(t, err);
    }
    if (json_object_set_new(into, "rope_type", json_string(kind)) != 0) return no_memory(t, err);
    if (strcmp(kind, "longrope") == 0) return longrope(t, into, err);
    TRY(put_number(t, into, "factor", factor, err));
    return strcmp(kind, "yarn") == 0 ? yarn(t, into, factor, err) : LAMINA_OK;
}

static lamina_status scaling_kind(translation *t, char *kind, size_t room, lamina_error *err)
{
    json_t *type = take(t, "rope.scaling.type");
    const char *text = type ? json_string_value(type) : "linear";
    bool fits = text && strlen(text) < room;
    if (fits) memcpy(kind, text, strlen(text) + 1);
    json_decref(type);
    if (fits) return LAMINA_OK;
    return error_set(err, LAMINA_E_FORMAT, "%s: metadata %s: expected a short string", t->c->path,
                     own_key(t, "rope.scaling.type"));
}

static lamina_status rope_scaling(translation *t, lamina_error *err)
{
    char kind[32];
    double factor = 1, old_factor = 1, times = 1;
    bool has, has_old;
    TRY(scaling_kind(t, kind, sizeof kind, err));
    TRY(take_number(t, "rope.scaling.factor", &has, &factor, err));
    TRY(take_number(t, "rope.scale_linear", &has_old, &old_factor, err));
    if (!has && has_old) factor = old_factor;
    if (factor == 0) factor = 1; /* "none" */
    if (checkpoint_find(t->c, "rope_factors_long.weight")) memcpy(kind, "longrope", sizeof "longrope");
    const json_t *finetuned = json_object_get(t->out, own_key(t, "rope.scaling.finetuned"));
    if (strcmp(t->arch, "granite") != 0 || json_is_true(finetuned)) /* a remark; but Granite's "no rotation" */
        json_decref(take(t, "rope.scaling.finetuned"));
    times = json_number_value(json_object_get(t->out, own_key(t, "rope.scaling.attn_factor")));
    if (times == 1) json_decref(take(t, "rope.scaling.attn_factor")); /* as if it were not there */
    if (strcmp(kind, "none") == 0 || (strcmp(kind, "linear") == 0 && factor == 1)) {
        json_decref(take(t, "rope.scaling.original_context_length"));
        return LAMINA_OK;
    }
    json_t *into = json_object();
    if (!into) return no_memory(t, err);
    lamina_status status = scaling_of(t, kind, factor, into, err);
    if (status == LAMINA_OK) return put(t, "rope_scaling", into, err);
    json_decref(into);
    return status;
}

/* ---- tokens and tensors ------------------------------------------------------------------------------------------ */

/* Every id that ends generation: of the text, of a turn, of a message. */
static lamina_status end_tokens(translation *t, lamina_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    uint64_t ids[3];
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        uint64_t id;
        if (!gguf_u64(t->g, keys[i], &id) || id > INT32_MAX) continue; /* all ones: none */
        bool known = false;
        for (size_t k = 0; k < n; k++) known = known || ids[k] == id;
        if (!known) ids[n++] = id;
    }
    if (n == 0) return LAMINA_OK;
    if (n == 1) return put(t, "eos_token_id", json_integer((json_int_t)ids[0]), err);
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) {
        if (json_array_append_new(list, json_integer((json_int_t)ids[i])) == 0) continue;
        json_decref(list);
        list = NULL;
    }
    return put(t, "eos_token_id", list, err);
}

static lamina_status tokens_and_tensors(translation *t, lamina_error *err)
{
    uint64_t bos;
    if (gguf_u64(t->g, "tokenizer.ggml.bos_token_id", &bos) && bos <= INT32_MAX)
        TRY(put(t, "bos_token_id", json_integer((json_int_t)bos), err));
    TRY(end_tokens(t, err));
    return put(t, "tie_word_embeddings", json_boolean(!checkpoint_find(t->c, "output.weight")), err);
}

static lamina_status translate(translation *t, lamina_error *err)
{
    TRY(read_architecture(t, err));
    TRY(lay_down(t, err));
    TRY(rename_keys(t, err));
    TRY(experts(t, err));
    TRY(put_implied(t, err));
    TRY(fill_defaults(t, err));
    TRY(windows(t, err));
    TRY(strcmp(t->arch, "deepseek2") == 0 ? latent_sizes(t, err) : head_sizes(t, err));
    TRY(score_scale(t, err));
    TRY(said_by_tensors(t, err));
    TRY(rope_scaling(t, err));
    return tokens_and_tensors(t, err);
}

lamina_status gguf_config(checkpoint *c, lamina_error *err)
{
    translation t = {.c = c, .g = c->metadata, .out = json_object()};
    if (!t.out) return no_memory(&t, err);
    lamina_status status = translate(&t, err);
    if (status != LAMINA_OK) {
        json_decref(t.out);
        return status;
    }
    c->config = t.out;
    return LAMINA_OK;
}
