/* GGUF files as they should be: metadata of every type, the directory, the configuration made of them, parts. */
#include "format/gguf.h"

#include <math.h>

#include "build.h"

/* What every small model here says, behind the architecture's name. */
static const struct {
    const char *key;
    uint32_t v;
} numbers[] = {{"block_count", 2},          {"context_length", 4096},    {"embedding_length", 64},
               {"feed_forward_length", 96}, {"attention.head_count", 4}, {"attention.head_count_kv", 2}};

/* A whole small model: 9 entries of a Llama, then `extra` (entries already written), one Q8_0 matrix, one F32
 * vector. */
static void small_model(bytes *b, const char *arch, const bytes *extra, unsigned n_extra)
{
    char key[128];
    g_head(b, 3, 2, 8 + n_extra);
    g_entry_text(b, "general.architecture", arch);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, numbers[i].key);
        g_entry_u32(b, key, numbers[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    g_entry_f32(b, key, 1e-5f);
    if (extra) put(b, extra->data, extra->n);
    g_tensor(b, "token_embd.weight", 2, (const uint64_t[]){64, 5}, 8, 0);
    g_tensor(b, "output_norm.weight", 1, (const uint64_t[]){64}, 0, 352);
    g_align(b, 32);
    put_fill(b, 0x11, 5 * 68);
    g_align(b, 32);
    put_fill(b, 0x22, 256);
}

static opened open_bytes(folder *f, bytes *b)
{
    write_bytes(f, "model.gguf", b->data, b->n);
    drop(b);
    return open_path(in(f, "model.gguf"));
}

static opened open_small(folder *f, const char *arch, bytes *extra, unsigned n_extra)
{
    bytes b = {0};
    small_model(&b, arch, extra, n_extra);
    drop(extra);
    return open_bytes(f, &b);
}

static json_int_t config_int(const opened *o, const char *key)
{
    return json_integer_value(json_object_get(o->c->config, key));
}

static double config_number(const opened *o, const char *key)
{
    return json_number_value(json_object_get(o->c->config, key));
}

static void a_small_model(void)
{
    folder f = folder_new();
    bytes none = {0};
    opened o = open_small(&f, "llama", &none, 0);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(o.c->kind == CHECKPOINT_GGUF && o.c->dialect == DIALECT_GGUF && o.c->metadata, "kind %d", o.c->kind);
    CHECK(o.c->n_files == 1 && strcmp(o.c->files[0].name, "model.gguf") == 0, "%s", o.c->files[0].name);
    const tensor *e = checkpoint_find(o.c, "token_embd.weight"), *n = checkpoint_find(o.c, "output_norm.weight");
    REQUIRE(e && n, "a tensor is missing");
    CHECK(e->type == DT_Q8_0 && e->n_dims == 2 && e->shape[0] == 5 && e->shape[1] == 64 && e->bytes == 340,
          "embedding");
    CHECK(e->offset % 32 == 0 && n->offset == e->offset + 352 && n->offset + n->bytes == o.c->files[0].bytes,
          "offsets %llu, %llu", (unsigned long long)e->offset, (unsigned long long)n->offset);
    const json_t *type = json_object_get(o.c->config, "model_type");
    CHECK(json_is_string(type) && strcmp(json_string_value(type), "llama") == 0, "model_type");
    CHECK(config_int(&o, "num_hidden_layers") == 2 && config_int(&o, "hidden_size") == 64 &&
              config_int(&o, "intermediate_size") == 96 && config_int(&o, "num_attention_heads") == 4 &&
              config_int(&o, "num_key_value_heads") == 2 && config_int(&o, "max_position_embeddings") == 4096,
          "sizes");
    CHECK(config_int(&o, "head_dim") == 16 && config_number(&o, "rope_theta") == 10000 &&
              config_int(&o, "vocab_size") == 5 && (float)config_number(&o, "rms_norm_eps") == 1e-5f,
          "what is implied");
    CHECK(json_is_true(json_object_get(o.c->config, "tie_word_embeddings")), "no output.weight, yet not tied");
    CHECK(!json_object_get(o.c->config, "rope_scaling") && !json_object_get(o.c->config, "eos_token_id"), "invented");
    CHECK(json_object_size(o.c->config) == 14, "%zu keys", json_object_size(o.c->config));
    close_opened(&o);
    folder_remove(&f);
}

static void every_type_of_metadata(void)
{
    folder f = folder_new();
    bytes x = {0};
    const double pi = 3.141592653589793;
    uint64_t raw;
    memcpy(&raw, &pi, 8);
    g_key(&x, "a.u8", G_U8), put_number(&x, 200, 1);
    g_key(&x, "a.i8", G_I8), put_number(&x, (uint64_t)-3, 1);
    g_key(&x, "a.u16", G_U16), put_number(&x, 60000, 2);
    g_key(&x, "a.i16", G_I16), put_number(&x, (uint64_t)-300, 2);
    g_key(&x, "a.i32", G_I32), put_number(&x, 70000, 4);
    g_key(&x, "a.bool", G_BOOL), put_number(&x, 1, 1);
    g_key(&x, "a.u64", G_U64), put_number(&x, UINT64_MAX, 8);
    g_key(&x, "a.i64", G_I64), put_number(&x, (uint64_t)INT64_MIN, 8);
    g_key(&x, "a.f64", G_F64), put_number(&x, raw, 8);
    g_entry_text(&x, "a.text", "");
    g_array(&x, "a.texts", G_TEXT, 3), g_text(&x, "one"), g_text(&x, ""), g_text(&x, "\xff three");
    g_array(&x, "a.i16s", G_I16, 2), put_number(&x, (uint64_t)-7, 2), put_number(&x, 7, 2);
    g_array(&x, "a.bools", G_BOOL, 2), put_number(&x, 0, 1), put_number(&x, 1, 1);
    g_array(&x, "a.u64s", G_U64, 1), put_number(&x, UINT64_MAX, 8);
    g_array(&x, "a.f64s", G_F64, 1), put_number(&x, raw, 8);
    g_array(&x, "a.nothing", G_F32, 0);
    opened o = open_small(&f, "llama", &x, 16);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    const gguf *g = o.c->metadata;
    uint64_t u = 0, n = 9;
    double d = 0;
    bool t = false;
    gguf_string s;
    CHECK(gguf_u64(g, "a.u8", &u) && u == 200, "u8");
    CHECK(!gguf_u64(g, "a.i8", &u) && gguf_f64(g, "a.i8", &d) && d == -3, "i8");
    CHECK(gguf_u64(g, "a.u16", &u) && u == 60000, "u16");
    CHECK(!gguf_u64(g, "a.i16", &u) && gguf_f64(g, "a.i16", &d) && d == -300, "i16");
    CHECK(gguf_u64(g, "a.i32", &u) && u == 70000, "i32");
    CHECK(gguf_bool(g, "a.bool", &t) && t && !gguf_u64(g, "a.bool", &u) && !gguf_bool(g, "a.u8", &t), "bool");
    CHECK(gguf_u64(g, "a.u64", &u) && u == UINT64_MAX, "u64");
    CHECK(!gguf_u64(g, "a.i64", &u) && gguf_f64(g, "a.i64", &d) && d == -0x1p63, "i64");
    CHECK(gguf_f64(g, "a.f64", &d) && d == pi && !gguf_u64(g, "a.f64", &u), "f64");
    CHECK(gguf_text(g, "a.text", &s) && s.bytes == 0 && !gguf_text(g, "a.texts", &s), "text");
    CHECK(gguf_text_array(g, "a.texts", &n) && n == 3 && !gguf_int_array(g, "a.texts", &n), "texts");
    s = gguf_text_at(g, "a.texts", 2);
    CHECK(s.bytes == 7 && memcmp(s.data, "\xff three", 7) == 0, "the third text");
    CHECK(!gguf_text_at(g, "a.texts", 3).data && !gguf_text_at(g, "a.none", 0).data, "outside of texts");
    CHECK(gguf_int_array(g, "a.i16s", &n) && n == 2 && gguf_int_at(g, "a.i16s", 0) == -7, "i16s");
    CHECK(gguf_int_at(g, "a.i16s", 2) == 0 && gguf_int_at(g, "a.bools", 1) == 1, "outside; bools");
    CHECK(gguf_int_at(g, "a.u64s", 0) == INT64_MAX, "an integer beyond int64 saturates");
    CHECK(gguf_float_array(g, "a.f64s", &n) && n == 1 && gguf_float_at(g, "a.f64s", 0) == (float)pi, "f64s");
    CHECK(gguf_float_array(g, "a.nothing", &n) && n == 0 && gguf_float_at(g, "a.nothing", 0) == 0, "an empty array");
    for (size_t i = 1; gguf_key(g, i).data; i++) {
        gguf_string a = gguf_key(g, i - 1), b = gguf_key(g, i);
        uint64_t least = a.bytes < b.bytes ? a.bytes : b.bytes;
        int order = memcmp(a.data, b.data, least);
        CHECK(order < 0 || (order == 0 && a.bytes < b.bytes), "keys %zu and %zu are not in order", i - 1, i);
    }
    close_opened(&o);
    folder_remove(&f);
}

static void the_configuration(void)
{
    folder f = folder_new();
    bytes x = {0};
    g_entry_u32(&x, "qwen3.attention.key_length", 32);
    g_entry_u32(&x, "qwen3.attention.value_length", 32);
    g_entry_u32(&x, "qwen3.rope.dimension_count", 16);
    g_entry_f32(&x, "qwen3.rope.freq_base", 1e6f);
    g_entry_u32(&x, "qwen3.attention.sliding_window", 1024);
    g_entry_u32(&x, "tokenizer.ggml.bos_token_id", 0xffffffffu);
    g_entry_u32(&x, "tokenizer.ggml.eos_token_id", 2);
    g_entry_u32(&x, "tokenizer.ggml.eot_token_id", 3);
    g_entry_u32(&x, "tokenizer.ggml.eom_token_id", 2);
    g_array(&x, "tokenizer.ggml.tokens", G_TEXT, 2), g_text(&x, "a"), g_text(&x, "b");
    g_array(&x, "qwen3.something.per_layer", G_U32, 2), put_number(&x, 1, 4), put_number(&x, 0, 4);
    g_entry_f32(&x, "qwen3.final_logit_softcapping", 30);
    g_entry_text(&x, "qwen3moe.not_ours", "x");
    opened o = open_small(&f, "qwen3", &x, 13);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(config_int(&o, "head_dim") == 32 && config_number(&o, "partial_rotary_factor") == 0.5, "head sizes");
    CHECK(config_number(&o, "rope_theta") == 1e6 && config_int(&o, "sliding_window") == 1024, "rope, window");
    CHECK(!json_object_get(o.c->config, "qwen3.attention.value_length") &&
              !json_object_get(o.c->config, "bos_token_id"),
          "values that say nothing");
    const json_t *eos = json_object_get(o.c->config, "eos_token_id");
    CHECK(json_array_size(eos) == 2 && json_integer_value(json_array_get(eos, 1)) == 3, "eos");
    CHECK(config_int(&o, "vocab_size") == 2, "vocab %lld", (long long)config_int(&o, "vocab_size"));
    CHECK(json_array_size(json_object_get(o.c->config, "qwen3.something.per_layer")) == 2, "an array per layer");
    CHECK(config_number(&o, "qwen3.final_logit_softcapping") == 30, "a key of no known meaning is not passed on");
    CHECK(!json_object_get(o.c->config, "qwen3moe.not_ours"), "a key of another architecture");
    close_opened(&o);
    x = (bytes){0};
    g_array(&x, "llama.attention.head_count", G_U32, 2), put_number(&x, 4, 4), put_number(&x, 8, 4);
    bytes b = {0};
    g_head(&b, 2, 0, 2);
    g_entry_text(&b, "general.architecture", "llama");
    put(&b, x.data, x.n);
    drop(&x);
    o = open_bytes(&f, &b);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(json_array_size(json_object_get(o.c->config, "num_attention_heads")) == 2 &&
              json_array_size(json_object_get(o.c->config, "num_key_value_heads")) == 2,
          "head counts per layer");
    CHECK(!json_object_get(o.c->config, "head_dim"), "a head size out of many head counts");
    close_opened(&o);
    folder_remove(&f);
}

static double scaling(const opened *o, const char *key)
{
    return json_number_value(json_object_get(json_object_get(o->c->config, "rope_scaling"), key));
}

static const char *scaling_type(const opened *o)
{
    const char *type = json_string_value(json_object_get(json_object_get(o->c->config, "rope_scaling"), "rope_type"));
    return type ? type : "";
}

static void rope_scaling(void)
{
    folder f = folder_new();
    bytes x = {0};
    g_entry_text(&x, "llama.rope.scaling.type", "linear");
    g_entry_f32(&x, "llama.rope.scaling.factor", 4);
    g_entry_f32(&x, "llama.rope.scaling.attn_factor", 1);
    opened o = open_small(&f, "llama", &x, 3);
    CHECK(o.status == LAMINA_OK && strcmp(scaling_type(&o), "linear") == 0 && scaling(&o, "factor") == 4, "%s",
          o.err.text);
    close_opened(&o);
    x = (bytes){0};
    g_entry_f32(&x, "llama.rope.scale_linear", 2);
    o = open_small(&f, "llama", &x, 1);
    CHECK(o.status == LAMINA_OK && strcmp(scaling_type(&o), "linear") == 0 && scaling(&o, "factor") == 2, "%s",
          o.err.text);
    close_opened(&o);
    x = (bytes){0};
    g_entry_text(&x, "llama.rope.scaling.type", "none");
    g_entry_f32(&x, "llama.rope.scaling.factor", 4);
    o = open_small(&f, "llama", &x, 2);
    CHECK(o.status == LAMINA_OK && !json_object_get(o.c->config, "rope_scaling"), "%s", o.err.text);
    close_opened(&o);
    x = (bytes){0};
    g_entry_text(&x, "llama.rope.scaling.type", "yarn");
    g_entry_f32(&x, "llama.rope.scaling.factor", 4);
    g_entry_u32(&x, "llama.rope.scaling.original_context_length", 1024);
    g_entry_f32(&x, "llama.rope.scaling.attn_factor", 1.5f);
    g_entry_f32(&x, "llama.rope.scaling.yarn_ext_factor", 1);
    g_entry_f32(&x, "llama.rope.scaling.yarn_beta_fast", 16);
    g_key(&x, "llama.rope.scaling.finetuned", G_BOOL), put_number(&x, 1, 1);
    o = open_small(&f, "llama", &x, 7);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    double attention = 1.5 * (0.1 * log(4.0) + 1);
    CHECK(strcmp(scaling_type(&o), "yarn") == 0 && scaling(&o, "factor") == 4 && scaling(&o, "beta_fast") == 16 &&
              scaling(&o, "original_max_position_embeddings") == 1024,
          "yarn");
    CHECK(fabs(scaling(&o, "attention_factor") - attention) < 1e-15, "attention factor %.17g, expected %.17g",
          scaling(&o, "attention_factor"), attention);
    CHECK(json_object_size(o.c->config) == 15, "%zu keys: something is left over", json_object_size(o.c->config));
    close_opened(&o);
    x = (bytes){0};
    g_entry_text(&x, "llama.rope.scaling.type", "yarn");
    g_entry_f32(&x, "llama.rope.scaling.factor", 4);
    g_entry_f32(&x, "llama.rope.scaling.yarn_ext_factor", 0.5f);
    o = open_small(&f, "llama", &x, 3);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(!json_object_get(json_object_get(o.c->config, "rope_scaling"), "attention_factor"), "attention factor");
    CHECK(scaling(&o, "original_max_position_embeddings") == 4096, "the context as the original one");
    CHECK(config_number(&o, "llama.rope.scaling.yarn_ext_factor") == 0.5, "what cannot be said is not passed on");
    close_opened(&o);
    folder_remove(&f);
}

/* Part `i` of n with one tensor of its own. */
static void write_part(folder *f, const char *name, unsigned i, unsigned n, unsigned total, const char *tensor_name)
{
    bytes b = {0};
    bool first = i == 0;
    g_head(&b, 3, 1, first ? 5 : 3);
    if (first) g_entry_text(&b, "general.architecture", "llama");
    if (first) g_entry_u32(&b, "llama.block_count", 1);
    g_key(&b, "split.no", G_U16), put_number(&b, i, 2);
    g_key(&b, "split.count", G_U16), put_number(&b, n, 2);
    g_key(&b, "split.tensors.count", G_I32), put_number(&b, total, 4);
    g_tensor(&b, tensor_name, 1, (const uint64_t[]){8}, 0, 0);
    g_align(&b, 32);
    put_fill(&b, 1, 32);
    write_bytes(f, name, b.data, b.n);
    drop(&b);
}

static void parts(void)
{
    folder f = folder_new();
    write_part(&f, "m-00001-of-00003.gguf", 0, 3, 3, "a");
    write_part(&f, "m-00002-of-00003.gguf", 1, 3, 3, "b");
    char first[512];
    snprintf(first, sizeof first, "%s", in(&f, "m-00001-of-00003.gguf"));
    expect_refusal(first, LAMINA_E_IO, "m-00003-of-00003.gguf");
    write_part(&f, "m-00003-of-00003.gguf", 2, 3, 3, "output.weight");
    opened o = open_path(first);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(o.c->n_files == 3 && o.c->n_tensors == 3, "%u files, %zu tensors", o.c->n_files, o.c->n_tensors);
    const tensor *b = checkpoint_find(o.c, "b");
    CHECK(b && strcmp(o.c->files[b->file].name, "m-00002-of-00003.gguf") == 0, "b is in another file");
    CHECK(json_is_false(json_object_get(o.c->config, "tie_word_embeddings")), "the head of the third part is unseen");
    close_opened(&o);
    unsigned n = fail_every_allocation(first);
    CHECK(n >= 12, "only %u allocations", n);
    expect_refusal(in(&f, "m-00002-of-00003.gguf"), LAMINA_E_FORMAT, "open the first part");
    write_part(&f, "m-00003-of-00003.gguf", 1, 3, 3, "output.weight");
    expect_refusal(first, LAMINA_E_FORMAT, "expected part 2 of 3");
    write_part(&f, "m-00003-of-00003.gguf", 2, 3, 3, "b");
    expect_refusal(first, LAMINA_E_FORMAT, "tensor b stands twice");
    write_part(&f, "m-00001-of-00003.gguf", 0, 3, 4, "a");
    write_part(&f, "m-00003-of-00003.gguf", 2, 3, 4, "c");
    expect_refusal(first, LAMINA_E_FORMAT, "expected 4 tensors in all parts, found 3");
    write_part(&f, "whole.gguf", 0, 2, 2, "a");
    expect_refusal(in(&f, "whole.gguf"), LAMINA_E_FORMAT, "a name that ends with -00001-of-00002.gguf");
    folder_remove(&f);
}

static void foreign_types(void)
{
    folder f = folder_new();
    bytes b = {0};
    g_head(&b, 3, 2, 2);
    g_entry_text(&b, "general.architecture", "llama");
    g_entry_u32(&b, "general.alignment", 64);
    g_tensor(&b, "q4k", 2, (const uint64_t[]){256, 2}, 12, 0);
    g_tensor(&b, "blk.0.attn_q.bias", 1, (const uint64_t[]){32}, 2, 320);
    g_align(&b, 64);
    put_fill(&b, 1, 320 + 18);
    opened o = open_bytes(&f, &b);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    const tensor *k = checkpoint_find(o.c, "q4k"), *q = checkpoint_find(o.c, "blk.0.attn_q.bias");
    REQUIRE(k && q, "a tensor is missing");
    CHECK(q->type == DT_Q4_0 && q->bytes == 18 && q->offset == k->offset + 320 && k->offset % 64 == 0, "q4_0");
    CHECK(k->type != DT_OTHER || (k->foreign_name && strcmp(k->foreign_name, "Q4_K") == 0), "the name of the type");
    CHECK(k->type != DT_OTHER || (k->foreign_type == 12 && k->bytes == 0), "type %d, number %u, %llu bytes", k->type,
          k->foreign_type, (unsigned long long)k->bytes);
    close_opened(&o);
    folder_remove(&f);
}

/* ---- what architectures say ------------------------------------------------------------------------------------- */

static void g_entry_json(bytes *x, const char *key, const json_t *v)
{
    if (json_is_string(v)) g_entry_text(x, key, json_string_value(v));
    if (json_is_integer(v)) g_entry_u32(x, key, (uint32_t)json_integer_value(v));
    if (json_is_real(v)) g_entry_f32(x, key, (float)json_real_value(v));
    if (json_is_boolean(v)) g_key(x, key, G_BOOL), put_number(x, json_is_true(v), 1);
    if (!json_is_array(v)) return;
    bool flags = json_is_boolean(json_array_get(v, 0));
    g_array(x, key, flags ? G_BOOL : G_U32, json_array_size(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *item = json_array_get(v, i);
        put_number(x, flags ? json_is_true(item) : (uint64_t)json_integer_value(item), flags ? 1 : 4);
    }
}

static bool alike(const json_t *a, const json_t *b)
{
    if (!a || json_is_null(a)) return json_is_null(b);
    if (json_is_number(a) && json_is_number(b))
        return fabs(json_number_value(a) - json_number_value(b)) <= 1e-6 * fabs(json_number_value(b));
    if (!json_is_object(b)) return json_equal(a, b);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)b, key, v)
    {
        if (!alike(json_object_get(a, key), v)) return false;
    }
    return json_object_size(a) == json_object_size(b);
}

/* Metadata, without the architecture in front, of a model of 2 layers, 64 wide, 4 heads, 2 of them of keys; keys that
 * its configuration must have then, null: not. Every entry must be taken, or stand in the second column. */
static const struct {
    const char *arch, *metadata, *config;
} sayings[] = {
    {"gemma2", "{'attention.sliding_window': 7, 'attn_logit_softcapping': 3.0, 'final_logit_softcapping': 4.0}",
     "{'sliding_window': 7, 'attn_logit_softcapping': 3, 'final_logit_softcapping': 4, 'query_pre_attn_scalar': 16}"},
    {"gemma2", "{'block_count': 46, 'attention.key_length': 32}",
     "{'head_dim': 32, 'query_pre_attn_scalar': 16, 'sliding_window': 4096}"},
    {"gemma3", "{'block_count': 62, 'attention.key_length': 32, 'rope.freq_base_swa': 20000.0}",
     "{'query_pre_attn_scalar': 16, 'sliding_window': null, 'rope_local_base_freq': 20000}"},
    {"gemma3", "{'attention.sliding_window': 7, 'attention.sliding_window_pattern': 2}",
     "{'query_pre_attn_scalar': 16, 'layer_types': ['sliding_attention', 'full_attention']}"},
    {"olmo2",
     "{'attention.sliding_window': 7, 'attention.sliding_window_pattern': [false, true], 'rope.freq_base': 5e4, "
     "'rope.freq_base_swa': 5e4}",
     "{'layer_types': ['full_attention', 'sliding_attention']}"},
    {"olmo2", "{'attention.sliding_window': 7, 'rope.freq_base_swa': 5e4}", "{'olmo2.rope.freq_base_swa': 5e4}"},
    {"exaone4", "{'attention.sliding_window': 7, 'attention.sliding_window_pattern': [1, 0]}",
     "{'layer_types': ['sliding_attention', 'full_attention']}"},
    {"exaone4", "{'attention.sliding_window': 0, 'attention.sliding_window_pattern': [true, true]}",
     "{'sliding_window': null, 'layer_types': null}"},
    {"cohere2", "{'attention.sliding_window': 7, 'attention.sliding_window_pattern': 0, 'logit_scale': 0.25}",
     "{'layer_types': ['sliding_attention', 'sliding_attention'], 'logit_scale': 0.25}"},
    {"command-r", "{}", "{'logit_scale': 1, 'use_qk_norm': false}"},
    {"granite", "{'logit_scale': 8.0, 'embedding_scale': 12.0, 'residual_scale': 0.25, 'attention.scale': 0.5}",
     "{'logits_scaling': 8, 'embedding_multiplier': 12, 'residual_multiplier': 0.25, 'attention_multiplier': 0.5}"},
    {"granite", "{'rope.scaling.finetuned': true}", "{'attention_multiplier': 0.25}"},
    {"granite", "{'rope.scaling.finetuned': false}", "{'granite.rope.scaling.finetuned': false}"},
    {"llama", "{'rope.scaling.finetuned': false, 'expert_count': 0, 'expert_used_count': 0}",
     "{'num_experts': null, 'num_experts_per_tok': null}"},
    {"llama", "{'expert_count': 8, 'expert_used_count': 2}", "{'num_experts': 8, 'num_experts_per_tok': 2}"},
    {"llama", "{'attention.head_count': [4, 4], 'feed_forward_length': [96, 96], 'attention.head_count_kv': [2, 1]}",
     "{'num_attention_heads': 4, 'intermediate_size': 96, 'num_key_value_heads': [2, 1]}"},
    {"llama", "{'attention.scale': 0.5, 'logit_scale': 2.0, 'attention.layer_norm_epsilon': 0.5}",
     "{'llama.attention.scale': 0.5, 'llama.logit_scale': 2, 'llama.attention.layer_norm_epsilon': 0.5}"},
    {"stablelm", "{'use_parallel_residual': false, 'rope.dimension_count': 4}",
     "{'use_parallel_residual': true, 'use_qk_norm': false, 'partial_rotary_factor': 0.25}"},
    {"gptneox", "{'use_parallel_residual': false, 'rope.dimension_count': 16}",
     "{'use_parallel_residual': false, 'partial_rotary_factor': 1}"},
    {"qwen", "{'rope.dimension_count': 16}", "{'use_dynamic_ntk': false, 'use_logn_attn': false}"},
    {"phi3",
     "{'rope.scaling.type': 'longrope', 'rope.scaling.original_context_length': 512, "
     "'rope.scaling.attn_factor': 1.25, 'attention.sliding_window': 0}",
     "{'rope_scaling': {'rope_type': 'longrope', 'original_max_position_embeddings': 512, 'attention_factor': 1.25}}"},
    {"phi3", "{'rope.scaling.original_context_length': 4096}", "{'rope_scaling': null}"},
    {"mistral3",
     "{'rope.scaling.type': 'yarn', 'rope.scaling.factor': 16.0, "
     "'rope.scaling.original_context_length': 1024, 'rope.scaling.yarn_log_multiplier': 1.0, "
     "'attention.temperature_scale': 0.1}",
     "{'rope_scaling': {'rope_type': 'yarn', 'factor': 16, 'original_max_position_embeddings': 1024, 'mscale': 1, "
     "'mscale_all_dim': 1, 'llama_4_scaling_beta': 0.1}}"},
    {"qwen2moe",
     "{'expert_count': 6, 'expert_used_count': 2, 'expert_feed_forward_length': 16, "
     "'expert_shared_feed_forward_length': 32}",
     "{'norm_topk_prob': false, 'moe_intermediate_size': 16, 'shared_expert_intermediate_size': 32}"},
    {"qwen3moe", "{'expert_count': 6, 'expert_used_count': 2, 'expert_feed_forward_length': [16, 16]}",
     "{'norm_topk_prob': true, 'moe_intermediate_size': 16}"},
    {"glm4moe",
     "{'block_count': 3, 'nextn_predict_layers': 1, 'expert_count': 6, 'expert_used_count': 2, "
     "'expert_feed_forward_length': 16, 'expert_shared_count': 1, 'leading_dense_block_count': 1, "
     "'expert_gating_func': 2, 'expert_weights_scale': 1.5, 'expert_weights_norm': true, "
     "'expert_group_count': 1, 'expert_group_used_count': 1}",
     "{'num_hidden_layers': 2, 'num_nextn_predict_layers': 1, 'scoring_func': 'sigmoid', 'norm_topk_prob': true, "
     "'routed_scaling_factor': 1.5, 'first_k_dense_replace': 1, 'n_shared_experts': 1, 'n_group': 1, 'topk_group': 1}"},
    {"glm4moe", "{'expert_count': 6, 'expert_gating_func': 4}", "{'glm4moe.expert_gating_func': 4}"},
    {"deepseek2",
     "{'attention.head_count_kv': 1, 'attention.key_length': 40, 'attention.value_length': 32, "
     "'attention.key_length_mla': 24, 'attention.value_length_mla': 12, 'rope.dimension_count': 8, "
     "'attention.q_lora_rank': 48, 'attention.kv_lora_rank': 32, 'rope.scaling.type': 'yarn', "
     "'rope.scaling.factor': 4.0, 'rope.scaling.yarn_log_multiplier': 0.0707, 'expert_gating_func': 2}",
     "{'head_dim': null, 'qk_nope_head_dim': 16, 'qk_rope_head_dim': 8, 'v_head_dim': 12, 'q_lora_rank': 48, "
     "'kv_lora_rank': 32, 'num_key_value_heads': 4, 'scoring_func': 'sigmoid', 'norm_topk_prob': false, "
     "'rope_scaling': "
     "{'rope_type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 4096, 'mscale': 0.707, "
     "'mscale_all_dim': 0.707}}"},
    {"deepseek2",
     "{'attention.key_length': 24, 'attention.value_length': 12, 'rope.dimension_count': 8, "
     "'attention.kv_lora_rank': 32}",
     "{'qk_nope_head_dim': 16, 'v_head_dim': 12, 'q_lora_rank': null, 'scoring_func': 'softmax', "
     "'first_k_dense_replace': 0}"},
    {"gpt-oss", "{'rope.scaling.type': 'yarn', 'rope.scaling.factor': 32.0, 'attention.sliding_window': 128}",
     "{'sliding_window': 128, 'rope_scaling': {'rope_type': 'yarn', 'factor': 32, "
     "'original_max_position_embeddings': 4096, 'truncate': false}}"},
};

static json_t *parse(const char *text)
{
    char plain[2048];
    snprintf(plain, sizeof plain, "%s", text);
    for (char *at = plain; *at; at++)
        if (*at == '\'') *at = '"';
    return json_loads(plain, 0, NULL);
}

/* A small model of one tensor; its entries are the metadata, then what they leave out of numbers[]. */
static opened open_saying(folder *f, const char *arch, const json_t *metadata)
{
    bytes b = {0}, x = {0};
    unsigned n = 2;
    char key[128];
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)metadata, name, v)
    {
        snprintf(key, sizeof key, "%s.%s", arch, name);
        g_entry_json(&x, key, v);
        n++;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (json_object_get(metadata, numbers[i].key)) continue;
        snprintf(key, sizeof key, "%s.%s", arch, numbers[i].key);
        g_entry_u32(&x, key, numbers[i].v);
        n++;
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    g_entry_f32(&x, key, 1e-5f);
    g_head(&b, 3, 1, n);
    g_entry_text(&b, "general.architecture", arch);
    put(&b, x.data, x.n);
    drop(&x);
    g_tensor(&b, "token_embd.weight", 2, (const uint64_t[]){64, 5}, 8, 0);
    g_align(&b, 32);
    put_fill(&b, 0x11, 5 * 68);
    return open_bytes(f, &b);
}

static void one_saying(folder *f, size_t i)
{
    json_t *metadata = parse(sayings[i].metadata), *config = parse(sayings[i].config), *v;
    REQUIRE(metadata && config, "case %zu is not JSON", i);
    opened o = open_saying(f, sayings[i].arch, metadata);
    CHECK(o.status == LAMINA_OK, "%s %s: %s", sayings[i].arch, sayings[i].metadata, o.err.text);
    const char *name;
    size_t n = strlen(sayings[i].arch);
    json_object_foreach(config, name, v)
    {
        if (o.status != LAMINA_OK) break;
        char *found = json_dumps(json_object_get(o.c->config, name), JSON_ENCODE_ANY);
        CHECK(alike(json_object_get(o.c->config, name), v), "%s %s: %s is %s", sayings[i].arch, sayings[i].metadata,
              name, found ? found : "not there");
        free(found);
    }
    json_object_foreach(o.status == LAMINA_OK ? o.c->config : NULL, name, v)
    {
        bool own = strncmp(name, sayings[i].arch, n) == 0 && name[n] == '.';
        CHECK(!own || json_object_get(config, name), "%s %s: %s is left over", sayings[i].arch, sayings[i].metadata,
              name);
    }
    close_opened(&o);
    json_decref(metadata);
    json_decref(config);
}

static void every_architecture_in_the_same_words(void)
{
    folder f = folder_new();
    for (size_t i = 0; i < sizeof sayings / sizeof *sayings; i++) one_saying(&f, i);
    folder_remove(&f);
}

static void expect_saying_refused(const char *arch, const char *text, const char *words)
{
    folder f = folder_new();
    json_t *metadata = parse(text);
    opened o = open_saying(&f, arch, metadata);
    CHECK(o.status == LAMINA_E_FORMAT && strstr(o.err.text, words), "%s %s: %s", arch, text, o.err.text);
    close_opened(&o);
    json_decref(metadata);
    folder_remove(&f);
}

static void damaged_metadata_are_refused(void)
{
    expect_saying_refused("exaone4", "{'attention.sliding_window': 7, 'attention.sliding_window_pattern': [true]}",
                          "exaone4.attention.sliding_window_pattern: expected a whole number from 0 to 10000");
    expect_saying_refused("exaone4", "{'attention.sliding_window': 7, 'attention.sliding_window_pattern': 'LG'}",
                          "sliding_window_pattern");
    expect_saying_refused("gemma3", "{'attention.sliding_window': 7, 'attention.sliding_window_pattern': 10001}",
                          "sliding_window_pattern");
    expect_saying_refused(
        "gemma3", "{'block_count': 10001, 'attention.sliding_window': 7, 'attention.sliding_window_pattern': 6}",
        "sliding_window_pattern");
    expect_saying_refused("deepseek2",
                          "{'attention.key_length': 8, 'attention.value_length': 8, "
                          "'rope.dimension_count': 8}",
                          "widths of keys 8, values 8, rotated 8");
    expect_saying_refused("deepseek2", "{'attention.key_length': 24, 'attention.value_length': 'x'}",
                          "deepseek2.attention.value_length: expected a number");
    expect_saying_refused("mistral3", "{'rope.scaling.type': 'yarn', 'attention.temperature_scale': 'x'}",
                          "mistral3.attention.temperature_scale: expected a number");
}

static void every_allocation_fails(void)
{
    folder f = folder_new();
    bytes x = {0};
    g_array(&x, "tokenizer.ggml.tokens", G_TEXT, 3000);
    for (int i = 0; i < 3000; i++) g_text(&x, "token");
    opened o = open_small(&f, "llama", &x, 1);
    CHECK(o.status == LAMINA_OK, "%s", o.err.text);
    close_opened(&o);
    unsigned n = fail_every_allocation(in(&f, "model.gguf"));
    printf("  %u allocations failed in turn\n", n);
    CHECK(n >= 10, "only %u allocations", n);
    folder_remove(&f);
}

TEST_MAIN(T(a_small_model), T(every_type_of_metadata), T(the_configuration), T(rope_scaling), T(parts),
          T(foreign_types), T(every_architecture_in_the_same_words), T(damaged_metadata_are_refused),
          T(every_allocation_fails))
