/* Small models on disk, folders to compare, processes to kill: what the store's tests share. Everything lies under one
 * temporary folder, removed at the end of each test. */
#ifndef LAMINA_TEST_STORE_FIXTURE_H
#define LAMINA_TEST_STORE_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "store/store.h"
#include "test.h"

enum { PATH_BYTES = 512 };

static char scratch[PATH_BYTES];

static inline const char *under(char *buffer, const char *name)
{
    snprintf(buffer, PATH_BYTES, "%.250s/%.250s", scratch, name);
    return buffer;
}

/* Expands to the path of scratch/NAME, with the life of the enclosing block. */
#define UNDER(name) under((char[PATH_BYTES]){0}, name)

static inline void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    if (!d) {
        unlink(path);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        char inner[PATH_BYTES * 2];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(inner, sizeof inner, "%.600s/%.300s", path, e->d_name);
        struct stat st;
        if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode))
            remove_tree(inner);
        else
            unlink(inner);
    }
    closedir(d);
    rmdir(path);
}

static inline void begin_scratch(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%.200s/lamina-store-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(scratch)) abort();
}

static inline void end_scratch(void)
{
    remove_tree(scratch);
}

static inline void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) abort();
}

/* Whole file; free(). NULL when there is none. */
static inline unsigned char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    unsigned char *data = malloc((size_t)n + 1);
    if (!data || fread(data, 1, (size_t)n, f) != (size_t)n) abort();
    data[n] = 0;
    fclose(f);
    *bytes = (size_t)n;
    return data;
}

/* ---- a tiny llama ---------------------------------------------------------------------------------------------- */

typedef enum fill {
    FILL_RANDOM, /* every bit, so that nothing can be packed */
    FILL_NORMAL, /* as weights are */
    FILL_ODD     /* by tensor: NaN and infinities, denormals, negative zero, one value, one full row, as weights are */
} fill;

typedef enum codes { /* what the layers' matrices are in */
                     CODES_NONE,
                     CODES_FP8,    /* with scales, by layer, of 128 x 128, of rows, or one */
                     CODES_WIDENED /* the same numbers in f32 */
} codes;

typedef struct recipe {
    int layers, shards; /* shards: files of the checkpoint */
    codes codes;
    bool tied, extra; /* extra: a tensor that no pass uses */
    unsigned seed;
    fill fill;
    unsigned ffn; /* 0: TINY_FFN */
} recipe;

typedef struct entry {
    char name[80], type[8];
    unsigned rows, cols; /* rows 0: a vector of cols */
    codes codes;
} entry;

enum { TINY_HIDDEN = 64, TINY_FFN = 96, TINY_VOCAB = 501, TINY_MAX = 192 };

/* How many rows and columns share a scale in a layer; 0: all. */
static inline unsigned scale_rows(int layer)
{
    return layer % 3 == 0 ? 128 : layer % 3 == 1 ? 1 : 0;
}

static inline int layer_of(const char *name)
{
    return atoi(name + strlen("model.layers."));
}

/* Makes an entry one of codes, or of what they stand for; 1: its scales are put behind it. */
static inline int tiny_codes(entry *e, codes as, int layer)
{
    unsigned rows = scale_rows(layer);
    e->codes = as;
    strcpy(e->type, as == CODES_WIDENED ? "F32" : strstr(e->name, "down") ? "F8_E5M2" : "F8_E4M3");
    if (as == CODES_WIDENED) return 0;
    e[1] = (entry){.rows = rows ? (e->rows - 1) / rows + 1 : 1, .cols = rows == 128 ? (e->cols - 1) / 128 + 1 : 1};
    e[1].codes = as;
    strcpy(e[1].type, layer % 2 ? "BF16" : "F32");
    snprintf(e[1].name, sizeof e->name, "%.60s_scale_inv", e->name);
    return 1;
}

static inline int tiny_entries(const recipe *r, entry *e)
{
    const unsigned ffn = r->ffn ? r->ffn : TINY_FFN;
    const struct {
        const char *name;
        unsigned rows, cols;
    } parts[] = {
        {"input_layernorm.weight", 0, TINY_HIDDEN},
        {"self_attn.q_proj.weight", TINY_HIDDEN, TINY_HIDDEN},
        {"self_attn.k_proj.weight", TINY_HIDDEN / 2, TINY_HIDDEN},
        {"self_attn.v_proj.weight", TINY_HIDDEN / 2, TINY_HIDDEN},
        {"self_attn.o_proj.weight", TINY_HIDDEN, TINY_HIDDEN},
        {"post_attention_layernorm.weight", 0, TINY_HIDDEN},
        {"mlp.gate_proj.weight", ffn, TINY_HIDDEN},
        {"mlp.up_proj.weight", ffn, TINY_HIDDEN},
        {"mlp.down_proj.weight", TINY_HIDDEN, ffn},
    };
    int n = 0;
    e[n++] = (entry){.name = "model.embed_tokens.weight", .type = "BF16", .rows = TINY_VOCAB, .cols = TINY_HIDDEN};
    for (int l = 0; l < r->layers; l++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            e[n] = (entry){.type = "BF16", .rows = parts[i].rows, .cols = parts[i].cols};
            if (l % 3 == 1) strcpy(e[n].type, i == 0 ? "F32" : "F16");
            if (l % 3 == 2 && r->fill) strcpy(e[n].type, "F32");
            snprintf(e[n++].name, sizeof e->name, "model.layers.%d.%s", l, parts[i].name);
            if (r->codes && parts[i].rows) n += tiny_codes(&e[n - 1], r->codes, l);
        }
    e[n++] = (entry){.name = "model.norm.weight", .type = "F32", .cols = TINY_HIDDEN};
    if (!r->tied) e[n++] = (entry){.name = "lm_head.weight", .type = "BF16", .rows = TINY_VOCAB, .cols = TINY_HIDDEN};
    if (r->extra) e[n++] = (entry){.name = "model.layers.0.self_attn.rotary_emb.inv_freq", .type = "F32", .cols = 8};
    return n;
}

static inline size_t entry_bytes(const entry *e)
{
    return (size_t)(e->rows ? e->rows : 1) * e->cols *
           (!strcmp(e->type, "F32")      ? 4
            : !strncmp(e->type, "F8", 2) ? 1
                                         : 2);
}

static inline unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* A weight: nearly normal, of deviation 0.02. */
static inline float next_weight(unsigned *seed)
{
    int sum = 0;
    for (int i = 0; i < 12; i++) sum += (int)(next_random(seed) & 0xFFFF) - 0x8000;
    return (float)sum * (0.02f / 65536.0f);
}

static inline uint16_t half_bits(float f, bool f16)
{
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    return f16 ? f16_from_f32(f) : (uint16_t)(x.u >> 16);
}

/* The half float with number i of a tensor that is filled in way `way`. */
static inline uint16_t odd_half(int way, size_t i, unsigned cols, bool f16, unsigned *seed)
{
    const uint16_t top = f16 ? 0x7C00 : 0x7F80, one = f16 ? 0x3C00 : 0x3F80;
    unsigned r = next_random(seed);
    uint16_t sign = (uint16_t)(r << 15), low = (uint16_t)(r >> 3 & (f16 ? 0x3FF : 0x7F));
    if (way == 0) return (uint16_t)(sign | top | (r & 8 ? low : 0));
    if (way == 1) return (uint16_t)(sign | low);
    if (way == 2) return 0x8000;
    if (way == 3) return one;
    if (way == 4 && i / cols == 1) return (uint16_t)r; /* one row holds everything */
    return half_bits(next_weight(seed), f16);
}

/* Code i of the matrix, any but those of no number; scale i of it, which bf16 can hold. */
static inline uint8_t code_at(const char *matrix, size_t i)
{
    unsigned seed = (unsigned)i * 2654435761u + (unsigned)strlen(matrix) + (unsigned)layer_of(matrix);
    bool e5m2 = strstr(matrix, "down") != NULL;
    (void)next_random(&seed);
    uint8_t c = (uint8_t)next_random(&seed);
    while (e5m2 ? (c & 0x7C) == 0x7C : (c & 0x7F) == 0x7F) c = (uint8_t)next_random(&seed);
    return c;
}

static inline float scale_at(size_t i)
{
    return (float)(1 + i * 7 % 255) / 65536.0f;
}

/* What a code of 8 bits stands for, by its definition. */
static inline float number_of(uint8_t c, int mantissa, int bias)
{
    int e = (c & 0x7F) >> mantissa, m = c & ((1 << mantissa) - 1);
    float f = ldexpf((float)(e ? m + (1 << mantissa) : m), (e ? e : 1) - bias - mantissa);
    return c & 0x80 ? -f : f;
}

static inline void fill_codes(const entry *e, unsigned char *to)
{
    size_t n = (size_t)e->rows * e->cols;
    if (strstr(e->name, "_scale_inv")) {
        for (size_t i = 0; i < n; i++) {
            float f = scale_at(i);
            uint16_t h = half_bits(f, false);
            bool wide = !strcmp(e->type, "F32");
            memcpy(to + i * (wide ? 4 : 2), wide ? (void *)&f : (void *)&h, wide ? 4 : 2);
        }
        return;
    }
    unsigned rows = scale_rows(layer_of(e->name)), line = rows == 128 ? (e->cols - 1) / 128 + 1 : 1;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = code_at(e->name, i);
        size_t r = i / e->cols, k = i % e->cols;
        float scale = scale_at(rows ? r / rows * line + (rows == 128 ? k / 128 : 0) : 0);
        float x = (strstr(e->name, "down") ? number_of(c, 2, 15) : number_of(c, 3, 7)) * scale;
        if (e->codes == CODES_FP8)
            to[i] = c;
        else
            memcpy(to + 4 * i, &x, 4);
    }
}

/* Fills a tensor; number: of it in the model. */
static inline void fill_entry(const entry *e, const recipe *r, int number, unsigned char *to, unsigned *seed)
{
    bool f32 = !strcmp(e->type, "F32");
    if (e->codes) {
        fill_codes(e, to);
        return;
    }
    if (r->codes) { /* whatever stands before it */
        number = (int)strlen(e->name);
        *seed = r->seed + (unsigned)number + e->cols;
    }
    if (r->fill == FILL_RANDOM) {
        for (size_t i = 0; i < entry_bytes(e); i++) to[i] = (unsigned char)(next_random(seed) >> 16);
        return;
    }
    for (size_t i = 0; i < (size_t)(e->rows ? e->rows : 1) * e->cols; i++) {
        bool f16 = f32 ? number % 2 : !strcmp(e->type, "F16");
        uint16_t h =
            r->fill == FILL_ODD ? odd_half(number % 7, i, e->cols, f16, seed) : half_bits(next_weight(seed), f16);
        float wide = f16 ? f16_to_f32(h) : bf16_to_f32(h);
        if (f32 && number % 5 == 4) wide = next_weight(seed); /* some are no widened halves */
        memcpy(to + i * (f32 ? 4 : 2), f32 ? (void *)&wide : (void *)&h, f32 ? 4 : 2);
    }
}

static inline void write_shard(const char *path, const entry *e, int n, const recipe *r, int first)
{
    unsigned seed = r->seed + (unsigned)first;
    static char header[1 << 16];
    size_t at = 0, used = (size_t)snprintf(header, sizeof header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < n; at += entry_bytes(&e[i]), i++) {
        char shape[40];
        if (e[i].rows)
            snprintf(shape, sizeof shape, "%u,%u", e[i].rows, e[i].cols);
        else
            snprintf(shape, sizeof shape, "%u", e[i].cols);
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", e[i].name,
                                 e[i].type, shape, at, at + entry_bytes(&e[i]));
    }
    used += (size_t)snprintf(header + used, sizeof header - used, "}");
    unsigned char *data = malloc(8 + used + at);
    if (!data) abort();
    for (int i = 0; i < 8; i++) data[i] = (unsigned char)(used >> (8 * i));
    memcpy(data + 8, header, used);
    at = 0;
    for (int i = 0; i < n; at += entry_bytes(&e[i]), i++) fill_entry(&e[i], r, first + i, data + 8 + used + at, &seed);
    write_file(path, data, 8 + used + at);
    free(data);
}

/* Writes a checkpoint into scratch/NAME. */
static inline void make_model(const char *name, const recipe *r)
{
    static entry e[TINY_MAX];
    char path[PATH_BYTES * 2], text[1024];
    int n = tiny_entries(r, e);
    mkdir(UNDER(name), 0777);
    int used = snprintf(text, sizeof text,
                        "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":%d,"
                        "\"intermediate_size\":%u,\"num_hidden_layers\":%d,\"num_attention_heads\":4,"
                        "\"num_key_value_heads\":2,\"vocab_size\":%d,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,"
                        "\"max_position_embeddings\":128,\"hidden_act\":\"silu\",\"tie_word_embeddings\":%s,"
                        "\"torch_dtype\":\"bfloat16\",\"bos_token_id\":1,\"eos_token_id\":2%s}",
                        TINY_HIDDEN, r->ffn ? r->ffn : TINY_FFN, r->layers, TINY_VOCAB, r->tied ? "true" : "false",
                        r->codes == CODES_FP8 ? ",\"quantization_config\":{\"quant_method\":\"fp8\"}" : "");
    snprintf(path, sizeof path, "%s/config.json", UNDER(name));
    write_file(path, text, (size_t)used);
    if (r->shards == 1) {
        snprintf(path, sizeof path, "%s/model.safetensors", UNDER(name));
        write_shard(path, e, n, r, 0);
        return;
    }
    static char index[1 << 15];
    size_t at = (size_t)snprintf(index, sizeof index, "{\"metadata\":{},\"weight_map\":{");
    for (int s = 0; s < r->shards; s++) {
        int from = n * s / r->shards, to = n * (s + 1) / r->shards;
        char file[64];
        snprintf(file, sizeof file, "model-%05d-of-%05d.safetensors", s + 1, r->shards);
        snprintf(path, sizeof path, "%s/%s", UNDER(name), file);
        write_shard(path, e + from, to - from, r, from);
        for (int i = from; i < to; i++)
            at += (size_t)snprintf(index + at, sizeof index - at, "%s\"%s\":\"%s\"", i ? "," : "", e[i].name, file);
    }
    at += (size_t)snprintf(index + at, sizeof index - at, "}}");
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", UNDER(name));
    write_file(path, index, at);
}

/* ---- a tiny GGUF file ------------------------------------------------------------------------------------------ */

typedef struct gguf_writer {
    unsigned char data[1 << 17];
    size_t n;
} gguf_writer;

static inline void put(gguf_writer *g, const void *data, size_t bytes)
{
    if (bytes > sizeof g->data - g->n) abort();
    memcpy(g->data + g->n, data, bytes);
    g->n += bytes;
}

static inline void put_u32(gguf_writer *g, uint32_t v)
{
    put(g, &v, 4);
}

static inline void put_u64(gguf_writer *g, uint64_t v)
{
    put(g, &v, 8);
}

static inline void put_text(gguf_writer *g, const char *s)
{
    put_u64(g, strlen(s));
    put(g, s, strlen(s));
}

static inline void put_key(gguf_writer *g, const char *key, uint32_t value)
{
    put_text(g, key);
    put_u32(g, 4); /* UINT32 */
    put_u32(g, value);
}

typedef struct gguf_entry {
    const char *name;
    uint32_t type; /* as ggml numbers them */
    uint64_t rows, cols;
    size_t bytes;
} gguf_entry;

/* One layer with weights of every type that is computed, and one tensor of a type that is not. */
static inline void make_gguf(const char *name)
{
    static const gguf_entry e[] = {
        {"token_embd.weight", 8, 96, 64, 96 * 68},      {"output_norm.weight", 0, 0, 64, 256},
        {"blk.0.attn_norm.weight", 0, 0, 64, 256},      {"blk.0.attn_q.weight", 2, 64, 64, 64 * 36},
        {"blk.0.attn_k.weight", 3, 32, 64, 32 * 40},    {"blk.0.attn_v.weight", 1, 32, 64, 32 * 128},
        {"blk.0.attn_output.weight", 30, 64, 64, 8192}, {"blk.0.ffn_norm.weight", 0, 0, 64, 256},
        {"blk.0.ffn_gate.weight", 2, 96, 64, 96 * 36},  {"blk.0.ffn_up.weight", 3, 96, 64, 96 * 40},
        {"blk.0.ffn_down.weight", 8, 64, 96, 64 * 102}, {"spare.weight", 20, 2, 32, 36},
    };
    enum { N = sizeof e / sizeof *e };
    gguf_writer *g = calloc(1, sizeof *g);
    if (!g) abort();
    put(g, "GGUF", 4);
    put_u32(g, 3);
    put_u64(g, N);
    put_u64(g, 9);
    put_text(g, "general.architecture");
    put_u32(g, 8); /* STRING */
    put_text(g, "llama");
    put_text(g, "llama.attention.layer_norm_rms_epsilon");
    put_u32(g, 6); /* FLOAT32 */
    put(g, &(float){1e-5f}, 4);
    put_key(g, "llama.block_count", 1);
    put_key(g, "llama.context_length", 128);
    put_key(g, "llama.embedding_length", 64);
    put_key(g, "llama.feed_forward_length", 96);
    put_key(g, "llama.attention.head_count", 4);
    put_key(g, "llama.attention.head_count_kv", 2);
    put_key(g, "llama.vocab_size", 96);
    uint64_t at = 0;
    for (int i = 0; i < N; i++) {
        put_text(g, e[i].name);
        put_u32(g, e[i].rows ? 2 : 1);
        put_u64(g, e[i].cols);
        if (e[i].rows) put_u64(g, e[i].rows);
        put_u32(g, e[i].type);
        put_u64(g, at);
        at += (e[i].bytes + 31) / 32 * 32;
    }
    g->n = (g->n + 31) / 32 * 32;
    unsigned seed = 5;
    for (uint64_t i = 0; i < at; i++) {
        seed = seed * 1664525u + 1013904223u;
        put(g, &(unsigned char){(unsigned char)(seed >> 24)}, 1);
    }
    write_file(UNDER(name), g->data, g->n);
    free(g);
}

/* ---- packing --------------------------------------------------------------------------------------------------- */

typedef struct opened {
    memory *m;
    checkpoint *c;
    model *model;
} opened;

static inline void close_model(opened *o)
{
    model_free(o->model);
    checkpoint_free(o->c);
    if (o->m) CHECK(memory_free(o->m) == 0, "leak");
    *o = (opened){0};
}

static inline lamina_status open_model(const char *path, opened *o, lamina_error *err)
{
    tokenizer *tok = NULL;
    *o = (opened){.m = memory_new()};
    lamina_status status = store_is(path) && !store_incomplete(path) ? store_open(o->m, path, false, &o->c, &tok, err)
                                                                     : checkpoint_open(o->m, path, &o->c, err);
    if (status == LAMINA_OK) status = model_bind(o->m, o->c, "spare.weight", &o->model, err);
    if (status != LAMINA_OK) close_model(o);
    return status;
}

/* A stand-in for passes over a text: moments that follow from tensor and column alone. */
typedef struct stand_in {
    store_calibration c;
    opened *of;
    memory *m;
    int runs;
} stand_in;

static inline lamina_status make_moments(void *user, float **moments, lamina_error *err)
{
    stand_in *s = user;
    const checkpoint *c = s->of->c;
    s->runs++;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        if (t->n_dims != 2 || i % 5 == 4) continue; /* of some nothing is known */
        size_t k = (size_t)t->shape[1];
        if (!(moments[i] = mem_array(s->m, MEM_OTHER, k, sizeof(float), err))) return LAMINA_E_MEMORY;
        for (size_t j = 0; j < k; j++) moments[i][j] = (float)((i * 31 + j * j * 7) % 97) * 0.01f;
    }
    return LAMINA_OK;
}

static stand_in *calibrating; /* NULL: pack() packs by the weights alone */

/* Opens `from`, packs it into `to` and closes; a model that no longer opens is resumed from the store's draft, as the
 * command line does it. */
static inline lamina_status pack_by(const char *from, const char *to, const lamina_pack_options *options, store_job job,
                                    lamina_pack_info *info, lamina_error *err)
{
    opened o;
    lamina_status status = open_model(from, &o, err);
    memory *m = job.m = memory_new();
    store_calibration *c = calibrating ? &calibrating->c : NULL;
    if (calibrating) {
        calibrating->of = &o;
        calibrating->m = m;
        c->run = make_moments;
        c->user = calibrating;
    }
    if (status == LAMINA_OK)
        status = store_pack(o.model, NULL, to, options, c, &job, info, err);
    else if (store_incomplete(to))
        status = store_pack_resume(to, from, options, c, &job, info, err);
    close_model(&o);
    uint64_t held = memory_free(m);
    CHECK(held == 0, "%llu bytes leaked by packing", (unsigned long long)held);
    return status;
}

static inline lamina_status pack(const char *from, const char *to, const lamina_pack_options *options,
                                 void (*step)(void *), void *step_user, lamina_pack_info *info, lamina_error *err)
{
    return pack_by(from, to, options, (store_job){.step = step, .step_user = step_user}, info, err);
}

static inline lamina_status verify(const char *path, uint64_t *bytes, lamina_error *err)
{
    store_job job = {.m = memory_new()};
    lamina_status status = store_verify(path, &job, bytes, err);
    uint64_t held = memory_free(job.m);
    CHECK(held == 0, "%llu bytes leaked by verifying", (unsigned long long)held);
    return status;
}

/* ---- comparing tensors ------------------------------------------------------------------------------------------ */

/* The bytes of a tensor; free(). */
static inline unsigned char *bytes_of(const checkpoint *c, const tensor *t)
{
    unsigned char *data = malloc((size_t)t->bytes + 1);
    os_file f;
    lamina_error err;
    if (!data || os_open(c->files[t->file].path, OS_READ, &f, &err) != LAMINA_OK) abort();
    if (os_read_at(&f, t->name, t->offset, data, (size_t)t->bytes, &err) != LAMINA_OK) abort();
    os_close(&f);
    return data;
}

/* Every tensor of a is in b, and is the same. */
static inline void compare_tensors(const checkpoint *a, const checkpoint *b)
{
    CHECK(a->n_tensors == b->n_tensors, "%zu tensors, expected %zu", b->n_tensors, a->n_tensors);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const tensor *t = &a->tensors[i], *u = checkpoint_find(b, t->name);
        CHECK(u != NULL, "%s is lost", t->name);
        if (!u) continue;
        CHECK(t->type == u->type && t->row_bytes == u->row_bytes && t->n_dims == u->n_dims &&
                  !memcmp(t->shape, u->shape, sizeof t->shape),
              "%s: dtype or shape", t->name);
        unsigned char *x = bytes_of(a, t), *y = bytes_of(b, u);
        CHECK(t->bytes == u->bytes && !memcmp(x, y, (size_t)t->bytes), "%s: bytes", t->name);
        free(x);
        free(y);
    }
}

/* ---- comparing folders ------------------------------------------------------------------------------------------ */

static inline int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adds "NAME BYTES HASH" of every file below path to out, in sorted order. */
static inline void describe(const char *path, const char *prefix, char **out, size_t *used)
{
    char *names[256];
    size_t n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && n < 256) names[n++] = strdup(e->d_name);
    if (d) closedir(d);
    qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 0; i < n; i++) {
        char inner[PATH_BYTES * 2], shown[PATH_BYTES];
        struct stat st;
        snprintf(inner, sizeof inner, "%.600s/%.300s", path, names[i]);
        snprintf(shown, sizeof shown, "%.300s/%.200s", prefix, names[i]);
        if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode)) {
            describe(inner, shown, out, used);
        } else {
            size_t bytes = 0;
            unsigned char *data = read_file(inner, &bytes);
            unsigned long long h = 1469598103934665603ull; /* FNV-1a */
            for (size_t k = 0; data && k < bytes; k++) h = (h ^ data[k]) * 1099511628211ull;
            free(data);
            *out = realloc(*out, *used + strlen(shown) + 64);
            *used += (size_t)sprintf(*out + *used, "%s %zu %016llx\n", shown, bytes, h);
        }
        free(names[i]);
    }
}

/* A text that is equal for equal trees; free(). */
static inline char *tree_of(const char *path)
{
    char *out = calloc(1, 1);
    size_t used = 0;
    describe(path, "", &out, &used);
    return out;
}

static inline bool trees_equal(const char *a, const char *b)
{
    char *x = tree_of(a), *y = tree_of(b);
    bool same = *x && strcmp(x, y) == 0;
    if (!same) printf("  %s:\n%s  %s:\n%s", a, x, b, y);
    free(x);
    free(y);
    return same;
}

#endif
