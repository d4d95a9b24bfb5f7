/* The names of tokenizer.ggml.pre: each one that is known gives a tokenizer whose patterns compile, cut and give the
 * text back; any other is refused by its spelling. The file is tiny.gguf with its name exchanged. */
#include "build.h"
#include "format/gguf.h"
#include "format/tokenizer.h"

static const char pre_key[] = "tokenizer.ggml.pre", model_key[] = "tokenizer.ggml.model";

typedef struct golden { /* a file of the golden data */
    char *data;
    size_t n, after; /* after: behind the spelling of a key that it has */
} golden;

static golden read_golden(memory *m, const char *file, const char *key)
{
    char path[512];
    golden g = {0};
    size_t k = strlen(key), at = 0;
    snprintf(path, sizeof path, TEST_DATA "/tokenizer/%s", file);
    if (os_read_file(m, path, 1 << 24, &g.data, &g.n, NULL) != LAMINA_OK) abort();
    while (at + k < g.n && memcmp(g.data + at, key, k) != 0) at++;
    g.after = at + k;
    return g;
}

/* The folder's file "x.gguf": its bytes, with the number and the text (may be NULL) in place of `gone` bytes at `at`. */
static void write_changed(folder *f, memory *m, golden g, size_t at, size_t gone, uint64_t number, const char *text)
{
    bytes b = {0};
    if (at + gone > g.n) abort();
    put(&b, g.data, at);
    put_number(&b, number, 8);
    if (text) put_text(&b, text);
    put(&b, g.data + at + gone, g.n - at - gone);
    write_bytes(f, "x.gguf", b.data, b.n);
    free(b.data);
    mem_free(m, g.data);
}

/* tiny.gguf with this text for a key, which has `old`. */
static void write_with(folder *f, memory *m, const char *key, const char *old, const char *name)
{
    golden g = read_golden(m, "tiny.gguf", key);
    size_t at = g.after + 4; /* behind the type: the length, then the text */
    if (at + 8 + strlen(old) > g.n || memcmp(g.data + at + 8, old, strlen(old)) != 0) abort();
    write_changed(f, m, g, at, 8 + strlen(old), strlen(name), name);
}

static tokenizer *read_back(folder *f, memory *m, lamina_error *err)
{
    checkpoint *c = NULL;
    tokenizer *t = NULL;
    if (gguf_open(m, in(f, "x.gguf"), &c, err) == LAMINA_OK) tokenizer_from_gguf(m, c->metadata, &t, err);
    checkpoint_free(c);
    return t;
}

static tokenizer *with_name(folder *f, memory *m, const char *name, lamina_error *err)
{
    write_with(f, m, pre_key, "smollm", name);
    return read_back(f, m, err);
}

static void round_trip(memory *m, const tokenizer *t, const char *name)
{
    static const char text[] =
        "Hello wörld, it's 1234567 o'clock!\r\n\n   x_y = {\"a\": [1, 2.5]}  人工智能 です 안녕  \t\n ";
    int32_t *ids = NULL;
    size_t n = 0, done = 0, got;
    lamina_error err = {0};
    char out[512];
    CHECK(tokenizer_encode(t, m, text, sizeof text - 1, LAMINA_NO_SPECIAL, &ids, &n, &err) == LAMINA_OK, "%s: %s", name,
          err.text);
    lamina_detokenizer d = {.keep_special = true};
    for (size_t i = 0; i < n && done + 64 < sizeof out; i++, done += got)
        if (tokenizer_decode(t, &d, ids[i], out + done, sizeof out - done, &got, &err) != LAMINA_OK) break;
    CHECK(done == sizeof text - 1 && memcmp(out, text, done) == 0, "%s: %.*s", name, (int)done, out);
    CHECK(n > 20, "%s: %zu ids", name, n);
    mem_free(m, ids);
}

static void known_names(void)
{
    static const char *const names[] = {
        "llama-bpe", "llama3",     "llama-v3",      "falcon3",        "falcon-h1",  "pixtral",  "midm-2.0",
        "lfm2",      "dbrx",       "smaug-bpe",     "chatglm-bpe",    "glm4",       "glm5",     "qwen2",
        "megrez",    "stablelm2",  "hunyuan",       "kormo",          "solar-open", "grok-2",   "qwen35",
        "tekken",    "gpt-4o",     "llama4",        "minimax-m2",     "tiny_aya",   "kimi-k2",  "minicpm5",
        "jais-2",    "seed-coder", "bailingmoe",    "exaone-moe",     "laguna",     "youtu",    "smollm",
        "starcoder", "refact",     "command-r",     "codeshell",      "exaone",     "exaone4",  "mellum2",
        "gpt-2",     "phi-2",      "mpt",           "olmo",           "jais",       "trillion", "granite-docling",
        "falcon",    "default",    "deepseek-llm",  "deepseek-coder", "spark2_5",   "superbpe", "deepseek-v3",
        "viking",    "bloom",      "hunyuan-dense", "poro-chat",      "joyai-llm",  "ufakzeka", "deepseek-r1-qwen",
    };
    memory *m = memory_new();
    folder f = folder_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lamina_error err = {0};
        tokenizer *t = with_name(&f, m, names[i], &err);
        CHECK(t != NULL, "%s: %s", names[i], err.text);
        if (t) round_trip(m, t, names[i]);
        tokenizer_free(t);
    }
    folder_remove(&f);
    uint64_t left = memory_free(m);
    CHECK(left == 0, "%llu bytes are still held", (unsigned long long)left);
}

static void unknown_names(void)
{
    static const char *const names[] = {"qwen9", "", "qwen2 ", " qwen2", "llama-bpe llama3", "afmoe", "chameleon"};
    memory *m = memory_new();
    folder f = folder_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lamina_error err = {0};
        char words[80];
        tokenizer *t = with_name(&f, m, names[i], &err);
        snprintf(words, sizeof words, "tokenizer.ggml.pre \"%s\" is not supported", names[i]);
        CHECK(t == NULL && err.status == LAMINA_E_UNSUPPORTED, "%s is accepted", names[i]);
        CHECK(strstr(err.text, words) != NULL, "%s: %s", names[i], err.text);
        tokenizer_free(t);
    }
    folder_remove(&f);
    uint64_t left = memory_free(m);
    CHECK(left == 0, "%llu bytes are still held", (unsigned long long)left);
}

/* Vocabularies of other kinds. */
static void unknown_models(void)
{
    static const char *const names[] = {"bert", "rwkv", "plamo2", ""};
    memory *m = memory_new();
    folder f = folder_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lamina_error err = {0};
        char words[80];
        write_with(&f, m, model_key, "gpt2", names[i]);
        tokenizer *t = read_back(&f, m, &err);
        snprintf(words, sizeof words, "tokenizer.ggml.model \"%s\" is not supported", names[i]);
        CHECK(t == NULL && err.status == LAMINA_E_UNSUPPORTED && strstr(err.text, words), "%s: %s", names[i], err.text);
        tokenizer_free(t);
    }
    folder_remove(&f);
    uint64_t left = memory_free(m);
    CHECK(left == 0, "%llu bytes are still held", (unsigned long long)left);
}

/* The file with another key of as many letters in place of `key`; without one, with the array of `key`, of four bytes an
 * element, an element shorter. */
static void write_damaged(folder *f, memory *m, const char *file, const char *key, const char *other)
{
    golden g = read_golden(m, file, key);
    size_t at = g.after + 8; /* behind the types of the array and of its elements: their number, then they */
    uint64_t elements;
    if (at + 12 > g.n) abort();
    memcpy(&elements, g.data + at, sizeof elements);
    if (other) memcpy(g.data + g.after - strlen(key), other, strlen(key));
    write_changed(f, m, g, at, other ? 8 : 12, other ? elements : elements - 1, NULL);
}

static void arrays_that_do_not_fit(void)
{
    static const struct {
        const char *file, *key, *other, *words;
    } cases[] = {
        {"tiny.gguf", "tokenizer.ggml.tokens", "tokenizer.ggml.tokenz", "no tokenizer.ggml.tokens"},
        {"tiny.gguf", "tokenizer.ggml.merges", "tokenizer.ggml.mergez", "no tokenizer.ggml.merges"},
        {"tiny.gguf", "tokenizer.ggml.token_type", NULL, "token types"},
        {"gguf_llama.gguf", "tokenizer.ggml.tokens", "tokenizer.ggml.tokenz", "no tokenizer.ggml.tokens"},
        {"gguf_llama.gguf", "tokenizer.ggml.scores", "tokenizer.ggml.scorez", "pieces, 0 scores"},
        {"gguf_llama.gguf", "tokenizer.ggml.scores", NULL, "scores"},
        {"gguf_llama.gguf", "tokenizer.ggml.token_type", NULL, "token types"},
    };
    memory *m = memory_new();
    folder f = folder_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lamina_error err = {0};
        write_damaged(&f, m, cases[i].file, cases[i].key, cases[i].other);
        tokenizer *t = read_back(&f, m, &err);
        CHECK(t == NULL && err.status == LAMINA_E_FORMAT && strstr(err.text, cases[i].words), "%s, %s: %s",
              cases[i].file, cases[i].key, err.text);
        tokenizer_free(t);
    }
    folder_remove(&f);
    uint64_t left = memory_free(m);
    CHECK(left == 0, "%llu bytes are still held", (unsigned long long)left);
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(known_names), T(unknown_names), T(unknown_models), T(arrays_that_do_not_fit)};
    return test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
