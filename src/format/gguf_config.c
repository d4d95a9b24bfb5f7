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

static const struct {
    const char *own, *theirs;
} renamed[] = {
    {"block_count", "num_hidden_layers"},
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"attention.sliding_window", "sliding_window"},
    {"rope.freq_base", "rope_theta"},
    {"vocab_size", "vocab_size"},
};

static lamina_status rename_keys(translation *t, lamina_error *err)
{
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++) {
        json_t *value = take(t, renamed[i].own);
        if (value) TRY(put(t, renamed[i].theirs, value, err));
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

/* Head sizes that say nothing new go; a rotation of part of the head becomes that part. */
static lamina_status head_sizes(translation *t, lamina_error *err)
{
    json_int_t dim = whole(t, "head_dim"), rotated = whole(t, own_key(t, "rope.dimension_count"));
    if (dim && whole(t, own_key(t, "attention.value_length")) == dim) json_decref(take(t, "attention.value_length"));
    if (!dim || !rotated || rotated > dim) return LAMINA_OK;
    json_decref(take(t, "rope.dimension_count"));
    if (rotated == dim) return LAMINA_OK;
    return put(t, "partial_rotary_factor", json_real((double)rotated / (double)dim), err);
}

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

static lamina_status yarn(translation *t, json_t *into, double factor, lamina_error *err)
{
    static const char *const betas[2][2] = {{"rope.scaling.yarn_beta_fast", "beta_fast"},
                                            {"rope.scaling.yarn_beta_slow", "beta_slow"}};
    for (size_t i = 0; i < 2; i++) {
        json_t *beta = take(t, betas[i][0]);
        if (beta && json_object_set_new(into, betas[i][1], beta) != 0) return no_memory(t, err);
    }
    double extent = json_number_value(json_object_get(t->out, own_key(t, "rope.scaling.yarn_ext_factor")));
    if (extent == 1 || extent < 0) json_decref(take(t, "rope.scaling.yarn_ext_factor")); /* whole, or not said */
    return yarn_attention(t, into, factor, err);
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
    if (json_object_set_new(into, "factor", json_real(factor)) != 0) return no_memory(t, err);
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
    if (factor == 0) factor = 1;                    /* "none" */
    json_decref(take(t, "rope.scaling.finetuned")); /* a remark */
    times = json_number_value(json_object_get(t->out, own_key(t, "rope.scaling.attn_factor")));
    if (times == 1) json_decref(take(t, "rope.scaling.attn_factor"));
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

/* ---- tokens and tensors ---------------------------------------------------------------------------------------------- */

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
    /* Said by the tensors alone: a bias that is there is meant. */
    if (checkpoint_find(t->c, "blk.0.attn_q.bias")) TRY(put(t, "attention_bias", json_true(), err));
    if (checkpoint_find(t->c, "blk.0.ffn_up.bias")) TRY(put(t, "mlp_bias", json_true(), err));
    return put(t, "tie_word_embeddings", json_boolean(!checkpoint_find(t->c, "output.weight")), err);
}

static lamina_status translate(translation *t, lamina_error *err)
{
    TRY(read_architecture(t, err));
    TRY(lay_down(t, err));
    TRY(rename_keys(t, err));
    TRY(fill_defaults(t, err));
    TRY(head_sizes(t, err));
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
