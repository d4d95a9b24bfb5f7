/* sentencepiece's models that are cut short or wrong on purpose, and failing allocations. What is answered to good ones
 * is in test_tokenizer.c. */
#include "base/os.h"
#include "format/tokenizer_internal.h"
#include "test.h"

typedef struct bytes {
    char *data;
    size_t n;
} bytes;

static bytes read_model(memory *m, const char *name)
{
    char path[1024];
    bytes b = {0};
    snprintf(path, sizeof path, TEST_DATA "/tokenizer/%s/tokenizer.model", name);
    if (os_read_file(m, path, 1 << 26, &b.data, &b.n, NULL) != LAMINA_OK) b.data = NULL;
    return b;
}

static lamina_status read_bytes(memory *m, const char *data, size_t n, tokenizer **t, lamina_error *err)
{
    tokenizer_files files = {.sp = data, .sp_bytes = n};
    return tokenizer_read_sentencepiece(m, &files, t, err);
}

/* Encodes, decodes, and goes through the compact form. */
static lamina_status use(memory *m, const tokenizer *t, lamina_error *err)
{
    static const char text[] = " Hello  w\xc3\xb6rld <user> == \xef\xac\x81 12345\r\n\xe2\x82 \xe4\xbd\xa0 don't";
    static char out[70000];
    int32_t *ids = NULL;
    size_t n = 0, got, size = 0;
    void *data = NULL;
    tokenizer *u = NULL;
    lamina_detokenizer d = {0};
    lamina_status s = tokenizer_save(m, t, &data, &size, err);
    if (s == LAMINA_OK) s = tokenizer_load(m, data, size, "compact", &u, err);
    if (s == LAMINA_OK) s = tokenizer_encode(u, m, text, sizeof text - 1, 0, &ids, &n, err);
    for (size_t i = 0; i < n && s == LAMINA_OK; i++) s = tokenizer_decode(u, &d, ids[i], out, sizeof out, &got, err);
    mem_free(m, ids);
    mem_free(m, data);
    tokenizer_free(u);
    return s;
}

static void truncated(void)
{
    memory *m = memory_new();
    bytes b = read_model(m, "sp_bpe_user");
    REQUIRE(b.data, "no data");
    size_t refused = 0, tried = 0;
    for (size_t cut = 0; cut < b.n; cut += 11, tried++) {
        lamina_error err = {0};
        tokenizer *t = NULL;
        lamina_status s = read_bytes(m, b.data, cut, &t, &err);
        CHECK(s == LAMINA_OK || s == LAMINA_E_FORMAT, "cut at %zu: status %d: %s", cut, s, err.text);
        refused += s != LAMINA_OK;
        tokenizer_free(t);
    }
    CHECK(refused > tried / 2, "%zu of %zu were refused", refused, tried);
    mem_free(m, b.data);
    CHECK(memory_free(m) == 0, "memory is left");
}

/* Any byte may be wrong: what is accepted must work, or say why not. */
static void mutated(void)
{
    static const char *const names[] = {"sp_bpe", "sp_unigram"};
    for (size_t k = 0; k < 2; k++) {
        memory *m = memory_new();
        bytes b = read_model(m, names[k]);
        REQUIRE(b.data, "no data");
        uint32_t number = 12345;
        for (size_t i = 0; i < 200; i++) {
            number = number * 1664525u + 1013904223u;
            size_t at = i & 1 ? (number >> 8) % 3000 : (number >> 8) % b.n;
            char keep = b.data[at];
            b.data[at] = (char)(number >> 24 ^ number >> 3);
            lamina_error err = {0};
            tokenizer *t = NULL;
            lamina_status s = read_bytes(m, b.data, b.n, &t, &err);
            if (s == LAMINA_OK) s = use(m, t, &err);
            CHECK(s == LAMINA_OK || s == LAMINA_E_FORMAT || s == LAMINA_E_UNSUPPORTED, "byte %zu: status %d: %s", at, s,
                  err.text);
            tokenizer_free(t);
            b.data[at] = keep;
        }
        mem_free(m, b.data);
        CHECK(memory_free(m) == 0, "memory is left");
    }
}

#define PIECE(text, score, type) "\x0a\x0a\x0a\x01" text "\x15" score "\x18" type
#define UNKNOWN                  PIECE("?", "\0\0\0\0", "\x02")
#define ROW(data, words)                                                                                               \
    {                                                                                                                  \
        data, sizeof(data) - 1, words                                                                                  \
    }

static void refusals(void)
{
    static const struct {
        const char *data;
        size_t n;
        const char *words;
    } rows[] = {
        ROW("", "no pieces"),
        ROW("\x0a\x7f", "cut short"),
        ROW("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut short"),
        ROW("\x0b", "cut short"),
        ROW(PIECE("a", "\0\0\0\0", "\x01"), "no unknown piece"),
        ROW(PIECE("a", "\0\0\xc0\x7f", "\x01"), "has score"),
        ROW(PIECE("a", "\0\0\x80\xff", "\x01"), "has score"),
        ROW(PIECE("a", "\0\0\0\0", "\x09"), "has type 9"),
        ROW(PIECE("\xff", "\0\0\0\0", "\x01"), "not UTF-8"),
        ROW(UNKNOWN UNKNOWN, "is there twice"),
        ROW(UNKNOWN PIECE("!", "\0\0\0\0", "\x02"), "are the unknown one"),
        ROW(UNKNOWN "\x12\x02\x18\x04", "model_type CHAR is not supported"),
        ROW(UNKNOWN "\x12\x02\x18\x03", "model_type WORD is not supported"),
        ROW(UNKNOWN "\x1a\x03\x12\x01\x01", "precompiled_charsmap of 1 bytes"),
        ROW(UNKNOWN "\x1a\x08\x12\x06\xff\xff\xff\xff\0\0", "trie has 4294967295 of 6"),
        ROW(UNKNOWN "\x1a\x0b\x12\x09\x04\0\0\0\0\0\0\0\x61", "has no end"),
        ROW(UNKNOWN "\x2a\x03\x12\x01\x01", "a denormalizer"),
    };
    memory *m = memory_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lamina_error err = {0};
        tokenizer *t = NULL;
        CHECK(read_bytes(m, rows[i].data, rows[i].n, &t, &err) != LAMINA_OK, "row %zu is accepted", i);
        CHECK(strstr(err.text, rows[i].words) != NULL, "row %zu: %s", i, err.text);
        tokenizer_free(t);
    }
    CHECK(memory_free(m) == 0, "memory is left");
}

static void failing_allocations(void)
{
    memory *files = memory_new();
    bytes b = read_model(files, "sp_bpe_user");
    REQUIRE(b.data, "no data");
    for (uint64_t n = 1;; n++) {
        memory *m = memory_new();
        lamina_error err = {0};
        tokenizer *t = NULL;
        memory_fail_at(m, n);
        lamina_status s = read_bytes(m, b.data, b.n, &t, &err);
        if (s == LAMINA_OK) s = use(m, t, &err);
        CHECK(s == LAMINA_OK || s == LAMINA_E_MEMORY, "allocation %llu: status %d: %s", (unsigned long long)n, s,
              err.text);
        bool done = memory_count(m) < n;
        tokenizer_free(t);
        CHECK(memory_free(m) == 0, "memory is left");
        if (done || test_now.current_failed) break;
    }
    mem_free(files, b.data);
    CHECK(memory_free(files) == 0, "memory is left");
}

/* ChatGLM's special tokens stand behind the vocabulary: five of ChatGLM2, four more of ChatGLM3. */
static void chatglm(void)
{
    memory *m = memory_new();
    bytes b = read_model(m, "sp_bpe");
    REQUIRE(b.data, "no data");
    for (int three = 0; three < 2; three++) {
        const char *config = three
                                 ? "{\"tokenizer_class\":\"ChatGLMTokenizer\",\"name_or_path\":\"THUDM/chatglm3-6b\"}"
                                 : "{\"tokenizer_class\":\"ChatGLMTokenizer\",\"name_or_path\":\"THUDM/chatglm2-6b\"}";
        tokenizer_files files = {.sp = b.data, .sp_bytes = b.n, .config = config, .config_bytes = strlen(config)};
        tokenizer *t = NULL, *bare = NULL;
        lamina_error err = {0};
        int32_t *ids = NULL;
        size_t n = 0;
        REQUIRE(read_bytes(m, b.data, b.n, &bare, &err) == LAMINA_OK, "%s", err.text);
        int32_t first = (int32_t)tokenizer_vocab(bare);
        REQUIRE(tokenizer_read_sentencepiece(m, &files, &t, &err) == LAMINA_OK, "%s", err.text);
        CHECK(tokenizer_vocab(t) == (uint32_t)first + (three ? 9 : 5), "%u ids", tokenizer_vocab(t));
        REQUIRE(tokenizer_encode(t, m, "<|user|>", 8, 0, &ids, &n, &err) == LAMINA_OK, "%s", err.text);
        CHECK(n > 2 && ids[0] == first + 1 && ids[1] == first + 3, "not [gMASK] sop, but %d %d", ids[0], ids[1]);
        CHECK(three == (n == 3 && ids[2] == first + 6), "%zu ids", n);
        mem_free(m, ids);
        REQUIRE(tokenizer_encode(t, m, "<|user|>", 8, LAMINA_PLAIN | LAMINA_NO_SPECIAL, &ids, &n, &err) == LAMINA_OK,
                "%s", err.text);
        for (size_t i = 0; i < n; i++) CHECK(ids[i] < first, "id %d", ids[i]);
        mem_free(m, ids);
        tokenizer_free(t);
        tokenizer_free(bare);
    }
    mem_free(m, b.data);
    CHECK(memory_free(m) == 0, "memory is left");
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(truncated), T(mutated), T(refusals), T(failing_allocations), T(chatglm)};
    return test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
