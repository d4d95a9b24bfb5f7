/* Tokenizers against what Hugging Face's tokenizers answers (tools/tokenizer_golden.py), whole and by streams, through
 * the compact form, and against texts, files and allocations that are wrong on purpose. Files that are refused in words
 * stand in test_tokenizer_refused.c.
 *
 * Called as: test_format_tokenizer --pipe FOLDER FLAGS, it is the driver of tools/tokenizer_compare.py; with --compact
 * FOLDER, of tools/tokenizer_seeds.py. */
#include "base/os.h"
#include "format/gguf.h"
#include "format/jsonpull.h"
#include "format/tokenizer_internal.h"
#include "format/tokenizer_unicode.h"
#include "test.h"

typedef struct bytes {
    char *data;
    size_t n;
} bytes;

static bytes read_data(memory *m, const char *name)
{
    char path[1024];
    bytes b = {0};
    snprintf(path, sizeof path, TEST_DATA "/tokenizer/%s", name);
    if (os_read_file(m, path, 1 << 26, &b.data, &b.n, NULL) != LAMINA_OK) b.data = NULL;
    return b;
}

/* ---- one text ----------------------------------------------------------------------------------------------- */

static uint64_t fnv(uint64_t h, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* Decodes ids one by one. Each part must be whole characters. */
static uint64_t decode_hash(const tokenizer *t, const int32_t *ids, size_t n, bool keep)
{
    lamina_detokenizer d = {.keep_special = keep};
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    char out[4096];
    for (size_t i = 0; i <= n; i++) {
        size_t got;
        lamina_error err = {0};
        lamina_status s = tokenizer_decode(t, &d, i < n ? ids[i] : -1, out, sizeof out, &got, &err);
        CHECK(s == LAMINA_OK, "%s", err.text);
        if (s != LAMINA_OK) return 0;
        CHECK(utf8_valid(out, got) == got, "half a character after id %zu", i);
        h = fnv(h, out, got);
    }
    return h;
}

static bool same_ids(const int32_t *ids, size_t n, jp *array)
{
    jp in;
    size_t i = 0;
    if (jp_enter(array, JP_ARRAY, &in, NULL) != LAMINA_OK) return false;
    for (; jp_next_item(&in); i++) {
        int64_t id;
        if (jp_integer(&in, &id, NULL) != LAMINA_OK || i >= n || ids[i] != id) return false;
    }
    return i == n;
}

static bool member(const jp *root, const char *key, jp *value)
{
    bool found;
    return jp_member(root, key, &found, value, NULL) == LAMINA_OK && found;
}

/* One line of NAME.ids for a text. Returns whether all is as it should be. */
static bool check_line(const tokenizer *t, memory *m, const char *text, size_t n, const jp *expected, size_t line)
{
    int32_t *ids;
    size_t n_ids;
    lamina_error err = {0};
    jp value = {0};
    bool ok = true;
    for (int plain = 0; plain < 2; plain++) {
        unsigned flags = plain ? LAMINA_PLAIN | LAMINA_NO_SPECIAL : 0;
        lamina_status s = tokenizer_encode(t, m, text, n, flags, &ids, &n_ids, &err);
        CHECK(s == LAMINA_OK, "line %zu: %s", line, err.text);
        if (s != LAMINA_OK) return false;
        bool same = member(expected, plain ? "plain" : "ids", &value) && same_ids(ids, n_ids, &value);
        CHECK(same, "line %zu: %s ids differ: %.100s", line, plain ? "plain" : "whole", text);
        ok &= same;
        for (int keep = 0; keep < 2 && !plain && same; keep++) {
            jp_text hex = {"", 0};
            char spelt[24];
            snprintf(spelt, sizeof spelt, "%016llx", (unsigned long long)decode_hash(t, ids, n_ids, keep));
            if (!member(expected, keep ? "keep" : "skip", &value))
                continue; /* not every reference spells special tokens */
            jp_string(&value, &hex, NULL);
            CHECK(jp_is(hex, spelt), "line %zu: decoding with%s special tokens differs", line, keep ? "" : "out");
            ok &= jp_is(hex, spelt);
        }
        mem_free(m, ids);
    }
    return ok;
}

/* The next line of a file; NULL at its end. */
static char *next_line(char **at, size_t *n)
{
    char *begin = *at, *end = begin ? strchr(begin, '\n') : NULL;
    if (!end) return NULL;
    *n = (size_t)(end - begin);
    *at = end + 1;
    return begin;
}

static void check_texts(const tokenizer *t, memory *m, const char *file, const char *name)
{
    bytes texts = read_data(m, file), expected = read_data(m, name);
    CHECK(texts.data && expected.data, "%s or %s is missing", name, file);
    char *text_at = texts.data, *at = expected.data, *line, *text_line;
    size_t n, text_n, lines = 0, wrong = 0;
    while (texts.data && (line = next_line(&at, &n)) && (text_line = next_line(&text_at, &text_n))) {
        jp_document d, dt;
        jp root, text_root;
        jp_text text = {0};
        lines++;
        bool read = jp_open(m, MEM_OTHER, name, line, n, &d, &root, NULL) == LAMINA_OK &&
                    jp_open(m, MEM_OTHER, name, text_line, text_n, &dt, &text_root, NULL) == LAMINA_OK &&
                    jp_string(&text_root, &text, NULL) == LAMINA_OK;
        CHECK(read, "%s: line %zu is not readable", name, lines);
        if (!read) break;
        if (!check_line(t, m, text.data, text.bytes, &root, lines)) wrong++;
        jp_close(&d);
        jp_close(&dt);
    }
    CHECK(lines >= 100 && wrong == 0, "%s: %zu texts, %zu differ", name, lines, wrong);
    printf("  %s: %zu texts, %zu differ\n", name, lines, wrong);
    mem_free(m, texts.data);
    mem_free(m, expected.data);
}

static void check_golden(const tokenizer *t, memory *m, const char *name)
{
    check_texts(t, m, "texts.jsonl", name);
}

/* ---- golden ------------------------------------------------------------------------------------------------- */

static tokenizer *from_json(memory *m, const char *json, size_t n, lamina_error *err)
{
    tokenizer *t = NULL;
    tokenizer_files files = {.json = json, .json_bytes = n};
    tokenizer_read_json(m, &files, &t, err);
    return t;
}

static tokenizer *from_data(memory *m, const char *name)
{
    bytes b = read_data(m, name);
    lamina_error err = {0};
    tokenizer *t = b.data ? from_json(m, b.data, b.n, &err) : NULL;
    CHECK(t != NULL, "%s: %s", name, err.text);
    mem_free(m, b.data);
    return t;
}

static void check_empty(memory *m)
{
    uint64_t left = memory_free(m);
    CHECK(left == 0, "%llu bytes are still held", (unsigned long long)left);
}

static void golden_tiny(void)
{
    memory *m = memory_new();
    tokenizer *t = from_data(m, "tiny.json");
    if (t) check_golden(t, m, "tiny.ids");
    tokenizer_free(t);
    check_empty(m);
}

static void golden_sentencepiece_form(void)
{
    memory *m = memory_new();
    tokenizer *t = from_data(m, "spm.json");
    if (t) check_golden(t, m, "spm.ids");
    tokenizer_free(t);
    check_empty(m);
}

/* Small tokenizers of steps that no other one here has; also through the compact form. */
static void golden_variants(void)
{
    static const char *const names[] = {"wordpiece",       "metaspace_first",       "metaspace_bytes", "affixes",
                                        "byte_normalizer", "wordlevel_punctuation", "unigram"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char file[64];
        memory *m = memory_new();
        snprintf(file, sizeof file, "%s.json", names[i]);
        tokenizer *t = from_data(m, file), *u = NULL;
        void *data = NULL;
        size_t n = 0;
        lamina_error err = {0};
        REQUIRE(t, "%s", file);
        CHECK(tokenizer_save(m, t, &data, &n, &err) == LAMINA_OK, "%s", err.text);
        CHECK(tokenizer_load(m, data, n, "compact", &u, &err) == LAMINA_OK, "%s: %s", file, err.text);
        snprintf(file, sizeof file, "%s.ids", names[i]);
        check_golden(t, m, file);
        if (u) check_golden(u, m, file);
        tokenizer_free(t);
        tokenizer_free(u);
        mem_free(m, data);
        check_empty(m);
    }
}

/* Files of ranks and sentencepiece's models, from folders and through the compact form. */
static void golden_ranks(void)
{
    static const char *const names[] = {"glm4", "kimi", "tekken", "sp_bpe", "sp_bpe_bare", "sp_bpe_user", "sp_unigram"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[1024];
        memory *m = memory_new();
        tokenizer *t = NULL, *u = NULL;
        void *data = NULL, *again = NULL;
        size_t n = 0, n_again = 0;
        lamina_error err = {0};
        snprintf(name, sizeof name, TEST_DATA "/tokenizer/%s", names[i]);
        REQUIRE(tokenizer_from_folder(m, name, &t, &err) == LAMINA_OK, "%s", err.text);
        CHECK(tokenizer_save(m, t, &data, &n, &err) == LAMINA_OK, "%s", err.text);
        CHECK(tokenizer_load(m, data, n, "compact", &u, &err) == LAMINA_OK, "%s: %s", name, err.text);
        if (u) CHECK(tokenizer_save(m, u, &again, &n_again, &err) == LAMINA_OK, "%s", err.text);
        CHECK(n == n_again && memcmp(data, again, n) == 0, "%s: %zu and %zu bytes differ", name, n, n_again);
        snprintf(name, sizeof name, "%s.ids", names[i]);
        check_golden(t, m, name);
        if (u) check_golden(u, m, name);
        CHECK(tokenizer_eos(t) >= 0, "%s: no eos", name);
        tokenizer_free(t);
        tokenizer_free(u);
        mem_free(m, data);
        mem_free(m, again);
        check_empty(m);
    }
}

/* What transformers' classes make of a sentencepiece model (tools/tokenizer_original.py). */
static void golden_classes(void)
{
    static const char *const names[] = {"sp_llama", "sp_llama_new", "sp_gemma"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        memory *m = memory_new();
        tokenizer *t = NULL;
        lamina_error err = {0};
        char path[1024], ids[64];
        snprintf(path, sizeof path, TEST_DATA "/tokenizer/%s", names[i]);
        snprintf(ids, sizeof ids, "%s.ids", names[i]);
        CHECK(tokenizer_from_folder(m, path, &t, &err) == LAMINA_OK, "%s", err.text);
        if (t) check_texts(t, m, "class_texts.jsonl", ids);
        tokenizer_free(t);
        check_empty(m);
    }
}

/* Vocabularies with scores. */
static void golden_gguf_scored(void)
{
    static const char *const names[] = {"gguf_llama", "gguf_t5"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        memory *m = memory_new();
        checkpoint *c = NULL;
        tokenizer *t = NULL, *u = NULL;
        lamina_error err = {0};
        char path[1024], ids[64];
        void *data = NULL;
        size_t n = 0;
        snprintf(path, sizeof path, TEST_DATA "/tokenizer/%s.gguf", names[i]);
        snprintf(ids, sizeof ids, "%s.ids", names[i]);
        REQUIRE(gguf_open(m, path, &c, &err) == LAMINA_OK, "%s", err.text);
        CHECK(tokenizer_from_gguf(m, c->metadata, &t, &err) == LAMINA_OK, "%s", err.text);
        if (t) {
            CHECK(tokenizer_save(m, t, &data, &n, &err) == LAMINA_OK, "%s", err.text);
            CHECK(tokenizer_load(m, data, n, "compact", &u, &err) == LAMINA_OK, "%s: %s", names[i], err.text);
            check_golden(t, m, ids);
        }
        if (u) check_golden(u, m, ids);
        mem_free(m, data);
        tokenizer_free(t);
        tokenizer_free(u);
        checkpoint_free(c);
        check_empty(m);
    }
}

static void golden_gguf(void)
{
    memory *m = memory_new();
    checkpoint *c = NULL;
    tokenizer *t = NULL;
    lamina_error err = {0};
    gguf *g = NULL;
    lamina_status s = gguf_open(m, TEST_DATA "/tokenizer/tiny.gguf", &c, &err);
    CHECK(s == LAMINA_OK, "%s", err.text);
    if (s == LAMINA_OK) g = c->metadata;
    if (g) s = tokenizer_from_gguf(m, g, &t, &err);
    CHECK(t != NULL, "%s", err.text);
    if (t) {
        check_golden(t, m, "tiny_gguf.ids");
        CHECK(tokenizer_bos(t) >= 0 && tokenizer_eos(t) >= 0, "bos %d eos %d", tokenizer_bos(t), tokenizer_eos(t));
        const char *chat = tokenizer_chat_template(t);
        CHECK(chat && strcmp(chat, "{{ messages }}") == 0, "%s", chat ? chat : "(none)");
    }
    tokenizer_free(t);
    checkpoint_free(c);
    check_empty(m);
}

static const char *const real[] = {
    "gpt2",       "llama3",     "qwen2_5",   "deepseek_v3", "mistral_nemo", "mistral_v1_json", "yi",
    "gemma2",     "internlm2",  "baichuan2", "chatglm3",    "qwen1",        "llama3_tiktoken", "llama2",
    "mistral_v1", "mistral_v3", "internlm1"};

static void golden_real(void)
{
    unsigned there = 0;
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        char folder[1024], ids[64];
        snprintf(folder, sizeof folder, TEST_SHARED "/tokenizers/%s", real[i]);
        snprintf(ids, sizeof ids, "%s.ids", real[i]);
        if (!os_is_dir(folder)) continue;
        there++;
        memory *m = memory_new();
        tokenizer *t = NULL;
        lamina_error err = {0};
        lamina_status s = tokenizer_from_folder(m, folder, &t, &err);
        CHECK(s == LAMINA_OK, "%s", err.text);
        if (t) check_golden(t, m, ids);
        if (t && strcmp(real[i], "llama3") == 0)
            CHECK(memory_used(m) <= 16u << 20, "%llu bytes", (unsigned long long)memory_used(m));
        tokenizer_free(t);
        check_empty(m);
    }
    if (there == 0) SKIP("no real tokenizers beside the repository");
}

/* ---- bytes that are not text -------------------------------------------------------------------------------- */

static size_t from_hex(jp_text hex, char *out)
{
    for (size_t i = 0; i + 1 < hex.bytes; i += 2) {
        char pair[3] = {hex.data[i], hex.data[i + 1], '\0'};
        out[i / 2] = (char)strtoul(pair, NULL, 16);
    }
    return hex.bytes / 2;
}

static void wrong_utf8(void)
{
    memory *m = memory_new();
    tokenizer *t = from_data(m, "tiny.json");
    bytes b = read_data(m, "bytes.jsonl");
    REQUIRE(t && b.data, "no data");
    char *at = b.data, *line;
    size_t n, lines = 0;
    while ((line = next_line(&at, &n))) {
        jp_document d;
        jp root, value;
        jp_text hex;
        char raw[256];
        int32_t *ids;
        size_t n_ids;
        lines++;
        REQUIRE(jp_open(m, MEM_OTHER, "bytes", line, n, &d, &root, NULL) == LAMINA_OK, "line %zu", lines);
        REQUIRE(member(&root, "hex", &value) && jp_string(&value, &hex, NULL) == LAMINA_OK, "line %zu", lines);
        size_t n_raw = from_hex(hex, raw);
        REQUIRE(tokenizer_encode(t, m, raw, n_raw, 0, &ids, &n_ids, NULL) == LAMINA_OK, "line %zu", lines);
        CHECK(member(&root, "ids", &value) && same_ids(ids, n_ids, &value), "line %zu differs", lines);
        mem_free(m, ids);
        jp_close(&d);
    }
    CHECK(lines == 100, "%zu lines", lines);
    mem_free(m, b.data);
    tokenizer_free(t);
    check_empty(m);
}

static void decoding_limits(void)
{
    memory *m = memory_new();
    tokenizer *t = from_data(m, "tiny.json");
    REQUIRE(t, "no tokenizer");
    lamina_detokenizer d = {0};
    lamina_error err = {0};
    char out[8];
    size_t n;
    int32_t id = t->bpe.byte_id[0xe2], next = t->bpe.byte_id[0x82];
    CHECK(tokenizer_decode(t, &d, id, out, 8, &n, &err) == LAMINA_OK && n == 0, "the first of three bytes shows");
    CHECK(tokenizer_decode(t, &d, next, out, 8, &n, &err) == LAMINA_OK && n == 0, "the second of three bytes shows");
    CHECK(tokenizer_decode(t, &d, -1, out, 3, &n, &err) == LAMINA_E_USAGE && n == 4, "%zu bytes needed", n);
    CHECK(d.n_pending == 2, "the state changed though nothing was written");
    CHECK(tokenizer_decode(t, &d, -1, out, 4, &n, &err) == LAMINA_OK && strcmp(out, "\xef\xbf\xbd") == 0, "%s", out);
    CHECK(tokenizer_decode(t, &d, (int32_t)tokenizer_vocab(t), out, 8, &n, &err) == LAMINA_E_USAGE, "no such id");
    CHECK(tokenizer_decode(t, &d, -2, out, 8, &n, &err) == LAMINA_E_USAGE, "no such id");
    tokenizer_free(t);
    check_empty(m);
}

/* A word of half a megabyte and a run of spaces: n log n, and no limit of PCRE2 in the way. */
static void long_words(void)
{
    memory *m = memory_new();
    tokenizer *t = from_data(m, "tiny.json");
    size_t n = 1 << 19;
    char *text = mem_alloc(m, MEM_OTHER, n, NULL);
    REQUIRE(t && text, "no memory");
    for (int kind = 0; kind < 3; kind++) {
        int32_t *ids;
        size_t n_ids;
        lamina_error err = {0};
        for (size_t i = 0; i < n; i++) text[i] = kind == 0 ? 'a' : kind == 1 ? ' ' : (char)('a' + i * i % 23);
        double begin = os_seconds();
        REQUIRE(tokenizer_encode(t, m, text, n, 0, &ids, &n_ids, &err) == LAMINA_OK, "%s", err.text);
        double seconds = os_seconds() - begin;
        CHECK(seconds < 20, "kind %d: %.1f s", kind, seconds);
        CHECK(n_ids > 2, "%zu ids", n_ids);
        mem_free(m, ids);
    }
    mem_free(m, text);
    tokenizer_free(t);
    check_empty(m);
}

/* ---- the compact form --------------------------------------------------------------------------------------- */

static void compact_same(void)
{
    static const char *const names[][2] = {{"tiny.json", "tiny.ids"}, {"spm.json", "spm.ids"}};
    for (unsigned i = 0; i < 2; i++) {
        memory *m = memory_new();
        tokenizer *t = from_data(m, names[i][0]), *u = NULL;
        void *data = NULL, *again = NULL;
        size_t n = 0, n_again = 0;
        lamina_error err = {0};
        REQUIRE(t && tokenizer_save(m, t, &data, &n, &err) == LAMINA_OK, "%s", err.text);
        REQUIRE(tokenizer_load(m, data, n, "compact", &u, &err) == LAMINA_OK, "%s", err.text);
        REQUIRE(tokenizer_save(m, u, &again, &n_again, &err) == LAMINA_OK, "%s", err.text);
        CHECK(n == n_again && memcmp(data, again, n) == 0, "%zu and %zu bytes differ", n, n_again);
        CHECK(t->bos == u->bos && t->eos == u->eos, "bos %d %d", t->bos, u->bos);
        tokenizer_free(t);
        check_golden(u, m, names[i][1]);
        tokenizer_free(u);
        mem_free(m, data);
        mem_free(m, again);
        check_empty(m);
    }
}

static void compact_hostile(void)
{
    memory *m = memory_new();
    tokenizer *t = from_data(m, "tiny.json"), *u = NULL;
    void *data = NULL;
    size_t n = 0, refused = 0;
    lamina_error err = {0};
    REQUIRE(t && tokenizer_save(m, t, &data, &n, &err) == LAMINA_OK, "%s", err.text);
    for (size_t cut = 0; cut < n; cut += cut < 4096 ? 1 : 61) {
        char *copy = mem_alloc(m, MEM_OTHER, cut ? cut : 1, NULL); /* exactly as long: a read beyond is seen */
        memcpy(copy, data, cut);
        lamina_status s = tokenizer_load(m, copy, cut, "cut", &u, &err);
        CHECK(s == LAMINA_E_FORMAT || s == LAMINA_E_UNSUPPORTED, "cut at %zu: status %d", cut, s);
        mem_free(m, copy);
    }
    unsigned char *bytes_at = data;
    for (size_t i = 0; i < n;
         i += i < 4096 ? 1 : 17) { /* a byte made 255: an error, or a tokenizer that is safe to use */
        unsigned char keep = bytes_at[i];
        bytes_at[i] = 255;
        if (tokenizer_load(m, data, n, "flipped", &u, &err) == LAMINA_OK) {
            int32_t *ids;
            size_t n_ids;
            if (tokenizer_encode(u, m, "Hello <s> wörld 123", 20, 0, &ids, &n_ids, &err) == LAMINA_OK) {
                for (size_t k = 0; k < n_ids; k++) CHECK((uint32_t)ids[k] < tokenizer_vocab(u), "id %d", ids[k]);
                mem_free(m, ids);
            }
            tokenizer_free(u);
        } else {
            refused++;
        }
        bytes_at[i] = keep;
    }
    CHECK(refused > 1000, "%zu", refused);
    mem_free(m, data);
    tokenizer_free(t);
    check_empty(m);
}

static void truncated_json(void)
{
    memory *m = memory_new();
    bytes b = read_data(m, "tiny.json");
    REQUIRE(b.data, "no data");
    for (size_t cut = 0; cut + 1 < b.n; cut += 7) {
        lamina_error err = {0};
        tokenizer *t = from_json(m, b.data, cut, &err);
        CHECK(t == NULL && err.status == LAMINA_E_FORMAT, "cut at %zu of %zu: %s", cut, b.n, err.text);
        tokenizer_free(t);
    }
    mem_free(m, b.data);
    check_empty(m);
}

/* ---- failing on purpose ------------------------------------------------------------------------------------- */

/* name: tokenizer.json of that name, else a folder with ranks. */
static lamina_status everything(memory *m, const char *name, const bytes *json, lamina_error *err)
{
    tokenizer *t = NULL, *u = NULL;
    tokenizer_files files = {.json = json->data, .json_bytes = json->n};
    void *data = NULL;
    size_t n = 0, n_ids;
    int32_t *ids = NULL;
    char text[6000], folder[1024], out[4096]; /* long enough for the cache of words */
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i + 7 < sizeof text; i += 7) memcpy(text + i, " é\n", 4);
    snprintf(folder, sizeof folder, TEST_DATA "/tokenizer/%s", name);
    lamina_status s = json->data ? tokenizer_read_json(m, &files, &t, err) : tokenizer_from_folder(m, folder, &t, err);
    if (s == LAMINA_OK) s = tokenizer_save(m, t, &data, &n, err);
    if (s == LAMINA_OK) s = tokenizer_load(m, data, n, "compact", &u, err);
    if (s == LAMINA_OK) s = tokenizer_encode(u, m, text, 5500, 0, &ids, &n_ids, err);
    lamina_detokenizer d = {0};
    for (size_t i = 0; s == LAMINA_OK && i < n_ids && i < 20; i++)
        s = tokenizer_decode(u, &d, ids[i], out, sizeof out, &n, err);
    mem_free(m, ids);
    mem_free(m, data);
    tokenizer_free(t);
    tokenizer_free(u);
    return s;
}

static void fail_each_allocation(const char *name)
{
    memory *files = memory_new();
    bytes json = {0};
    if (strstr(name, ".json")) json = read_data(files, name);
    uint64_t failed = 0;
    for (uint64_t n = 1;; n++) {
        memory *m = memory_new();
        lamina_error err = {0};
        memory_fail_at(m, n);
        lamina_status s = everything(m, name, &json, &err);
        CHECK(s == LAMINA_OK || s == LAMINA_E_MEMORY, "%s: allocation %llu: status %d: %s", name, (unsigned long long)n,
              s, err.text);
        bool done = memory_count(m) < n;
        check_empty(m);
        if (s != LAMINA_OK) failed++;
        if (done || test_now.current_failed) break;
    }
    CHECK(failed > 50, "%s: %llu failures were seen", name, (unsigned long long)failed);
    mem_free(files, json.data);
    check_empty(files);
}

static void failing_allocations(void)
{
    static const char *const names[] = {
        "tiny.json", "wordpiece.json", "affixes.json", "metaspace_bytes.json", "byte_normalizer.json",
        "glm4",      "tekken"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) fail_each_allocation(names[i]);
}

static void folders(void)
{
    memory *m = memory_new();
    tokenizer *t = NULL;
    lamina_error err = {0};
    CHECK(tokenizer_from_folder(m, TEST_DATA, &t, &err) == LAMINA_E_UNSUPPORTED && !t, "a folder without a tokenizer");
    CHECK(strstr(err.text, "no tokenizer.json") != NULL, "%s", err.text);
    checkpoint *c = checkpoint_new(m, CHECKPOINT_HF, TEST_DATA, &err);
    REQUIRE(c, "%s", err.text);
    CHECK(tokenizer_of(m, c, &t, &err) == LAMINA_OK && !t && err.text[0], "the reason is missing");
    checkpoint_free(c);
    check_empty(m);
}

static void check_text(const tokenizer *t, const char *name, const char *expected)
{
    const char *found = tokenizer_find_text(t, name);
    CHECK(expected ? found && strcmp(found, expected) == 0 : !found, "%s: %s", name, found ? found : "(none)");
}

static void config_files(void)
{
    memory *m = memory_new();
    bytes json = read_data(m, "tiny.json");
    REQUIRE(json.data, "no data");
    static const char config[] =
        "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\",\"unk_token\":null,\"chat_template\":["
        "{\"name\":\"tool_use\",\"template\":\"no\"},{\"name\":\"default\",\"template\":\"y\\u00e9s\"}],"
        "\"extra_special_tokens\":{\"image_token\":\"<img>\"},\"tokenizer_class\":\"Some\"}";
    tokenizer_files files = {
        .json = json.data, .json_bytes = json.n, .config = config, .config_bytes = sizeof config - 1};
    tokenizer *t = NULL;
    lamina_error err = {0};
    REQUIRE(tokenizer_read_json(m, &files, &t, &err) == LAMINA_OK, "%s", err.text);
    CHECK(tokenizer_bos(t) == 700 && tokenizer_eos(t) == 701, "bos %d eos %d", tokenizer_bos(t), tokenizer_eos(t));
    CHECK(strcmp(tokenizer_chat_template(t), "y\xc3\xa9s") == 0, "%s", tokenizer_chat_template(t));
    check_text(t, "bos_token", "<s>");
    check_text(t, "unk_token", NULL);
    check_text(t, "image_token", "<img>");
    check_text(t, "chat_template.tool_use", "no");
    check_text(t, "tokenizer_class", "Some");
    void *saved = NULL;
    size_t n = 0;
    tokenizer *again = NULL;
    REQUIRE(tokenizer_save(m, t, &saved, &n, &err) == LAMINA_OK, "%s", err.text);
    REQUIRE(tokenizer_load(m, saved, n, "saved", &again, &err) == LAMINA_OK, "%s", err.text);
    check_text(again, "image_token", "<img>");
    check_text(again, "chat_template.tool_use", "no");
    check_text(again, "chat_template", "y\xc3\xa9s");
    tokenizer_free(again);
    mem_free(m, saved);
    tokenizer_free(t);
    files.chat = "file";
    files.chat_bytes = 4;
    REQUIRE(tokenizer_read_json(m, &files, &t, &err) == LAMINA_OK, "%s", err.text);
    CHECK(strcmp(tokenizer_chat_template(t), "file") == 0, "%s", tokenizer_chat_template(t));
    tokenizer_free(t);
    mem_free(m, json.data);
    check_empty(m);
}

/* Tokens of the configuration: new ones, others' flags, pieces that are special by name. */
static void config_tokens(void)
{
    static const char json[] =
        "{\"added_tokens\":[{\"content\":\"<x>\"}],\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\","
        "\"vocab\":{\"a\":0,\"b\":1,\" \":2,\"ab\":3},\"merges\":[\"a b\"]}}";
    static const char config[] =
        "{\"added_tokens_decoder\":{\"9\":{\"content\":\"<z>\"},\"4\":{\"content\":\"<x>\",\"special\":true,"
        "\"rstrip\":true},\"2\":{\"content\":\"<y>\",\"lstrip\":true}},\"bos_token\":\"ab\",\"eos_token\":\"<none>\","
        "\"add_bos_token\":true,\"additional_special_tokens\":[\"b\",\"<none>\"]}";
    static const int32_t expected[] = {4, 0, 2, 9, 3, 1};
    memory *m = memory_new();
    tokenizer_files files = {
        .json = json, .json_bytes = sizeof json - 1, .config = config, .config_bytes = sizeof config - 1};
    tokenizer *t = NULL;
    lamina_error err = {0};
    int32_t *ids;
    size_t n;
    REQUIRE(tokenizer_read_json(m, &files, &t, &err) == LAMINA_OK, "%s", err.text);
    CHECK(tokenizer_bos(t) == 3 && tokenizer_eos(t) == -1, "bos %d eos %d", tokenizer_bos(t), tokenizer_eos(t));
    CHECK(tokenizer_vocab(t) == 10, "%u ids", tokenizer_vocab(t));
    static const char text[] = "<x>  a <y><z>abb";
    REQUIRE(tokenizer_encode(t, m, text, sizeof text - 1, 0, &ids, &n, &err) == LAMINA_OK, "%s", err.text);
    CHECK(n == 6 && memcmp(ids, expected, sizeof expected) == 0, "%zu ids, %d %d", n, ids[0], ids[1]);
    mem_free(m, ids);
    lamina_detokenizer d = {0};
    char out[16];
    CHECK(tokenizer_decode(t, &d, 4, out, sizeof out, &n, &err) == LAMINA_OK && n == 0, "<x> is not special");
    CHECK(tokenizer_decode(t, &d, 3, out, sizeof out, &n, &err) == LAMINA_OK && n == 0, "ab is not special");
    CHECK(tokenizer_decode(t, &d, 2, out, sizeof out, &n, &err) == LAMINA_OK && n == 3, "<y> is special");
    tokenizer_free(t);
    static const char wrong[] = "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<z>\"}}}";
    files.config = wrong;
    files.config_bytes = sizeof wrong - 1;
    CHECK(tokenizer_read_json(m, &files, &t, &err) == LAMINA_E_FORMAT, "a wrong id is accepted");
    CHECK(strstr(err.text, "a token id \"x\"") != NULL, "%s", err.text);
    check_empty(m);
}

/* ---- the driver --------------------------------------------------------------------------------------------- */

static int send_decoded(const tokenizer *t, memory *m, const int32_t *ids, size_t n, bool keep)
{
    lamina_detokenizer d = {.keep_special = keep};
    text_buffer all = {0};
    for (size_t i = 0; i <= n; i++) {
        char part[4096];
        size_t got;
        if (tokenizer_decode(t, &d, i < n ? ids[i] : -1, part, sizeof part, &got, NULL) != LAMINA_OK) return 1;
        if (buffer_append(m, &all, part, got, NULL) != LAMINA_OK) return 1;
    }
    uint32_t bytes_n = (uint32_t)all.bytes;
    fwrite(&bytes_n, 4, 1, stdout);
    if (bytes_n) fwrite(all.data, 1, bytes_n, stdout);
    mem_free(m, all.data);
    return 0;
}

/* Records on stdin: u32 bytes, text. On stdout: u32 n, ids [n] i32, u32 bytes, text decoded without special tokens,
 * u32 bytes, text with them. All in the machine's order. */
static int drive(const char *path, unsigned flags)
{
    memory *m = memory_new();
    tokenizer *t = NULL;
    checkpoint *c = NULL;
    lamina_error err = {0};
    if (strstr(path, ".gguf")) {
        if (gguf_open(m, path, &c, &err) == LAMINA_OK) tokenizer_from_gguf(m, c->metadata, &t, &err);
    } else {
        tokenizer_from_folder(m, path, &t, &err);
    }
    if (!t) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    uint32_t n;
    while (fread(&n, 4, 1, stdin) == 1) {
        char *text = malloc((size_t)n + 1);
        int32_t *ids = NULL;
        size_t n_ids = 0;
        if (!text || fread(text, 1, n, stdin) != n) return 1;
        if (tokenizer_encode(t, m, text, n, flags, &ids, &n_ids, &err) != LAMINA_OK) fprintf(stderr, "%s\n", err.text);
        uint32_t count = (uint32_t)n_ids;
        fwrite(&count, 4, 1, stdout);
        if (n_ids) fwrite(ids, 4, n_ids, stdout);
        if (send_decoded(t, m, ids, n_ids, false) || send_decoded(t, m, ids, n_ids, true)) return 1;
        mem_free(m, ids);
        free(text);
    }
    tokenizer_free(t);
    checkpoint_free(c);
    return memory_free(m) ? 1 : 0;
}

/* A folder's tokenizer in the compact form on stdout. */
static int write_compact(const char *path)
{
    memory *m = memory_new();
    tokenizer *t = NULL;
    lamina_error err = {0};
    void *data = NULL;
    size_t n = 0;
    lamina_status s = tokenizer_from_folder(m, path, &t, &err);
    if (s == LAMINA_OK) s = tokenizer_save(m, t, &data, &n, &err);
    if (s != LAMINA_OK) fprintf(stderr, "%s\n", err.text);
    bool written = s == LAMINA_OK && fwrite(data, 1, n, stdout) == n;
    mem_free(m, data);
    tokenizer_free(t);
    return memory_free(m) == 0 && written ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {
        T(golden_tiny),         T(golden_sentencepiece_form),
        T(golden_variants),     T(golden_ranks),
        T(golden_gguf),         T(golden_real),
        T(wrong_utf8),          T(decoding_limits),
        T(long_words),          T(compact_same),
        T(compact_hostile),     T(truncated_json),
        T(failing_allocations), T(folders),
        T(config_files),        T(config_tokens),
        T(golden_gguf_scored),  T(golden_classes),
    };
    if (argc == 3 && strcmp(argv[1], "--compact") == 0) return write_compact(argv[2]);
    if (argc == 4 && strcmp(argv[1], "--pipe") == 0) return drive(argv[2], (unsigned)atoi(argv[3]));
    return test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
