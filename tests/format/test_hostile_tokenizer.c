/* Tokenizers that are wrong on purpose, of every kind of file: the seeds of tests/fuzz/corpus/tokenizer
 * (tools/tokenizer_seeds.py). Good ones in the compact form must be of today's version; the others are refused in
 * words, or by encoding and decoding, and soon. */
#include "base/os.h"
#include "format/tokenizer_internal.h"
#include "test.h"

static const char corpus[] = TEST_DATA "/../fuzz/corpus/tokenizer";

typedef struct seed {
    char *data; /* the kind, then the file */
    size_t n;
} seed;

static seed read_seed(memory *m, const char *name)
{
    char path[1024];
    seed s = {0};
    snprintf(path, sizeof path, "%s/%s", corpus, name);
    if (os_read_file(m, path, 1 << 26, &s.data, &s.n, NULL) != LAMINA_OK) s.data = NULL;
    return s;
}

static lamina_status load(memory *m, const seed *s, tokenizer **t, lamina_error *err)
{
    tokenizer_files files = {.json = s->data + 1, .json_bytes = s->n - 1, .sp = s->data + 1, .sp_bytes = s->n - 1};
    if (s->data[0] == 'j') return tokenizer_read_json(m, &files, t, err);
    if (s->data[0] == 's') return tokenizer_read_sentencepiece(m, &files, t, err);
    return tokenizer_load(m, s->data + 1, s->n - 1, "seed", t, err);
}

/* Encodes a text and decodes what comes of it. */
static lamina_status use(memory *m, const tokenizer *t, const char *text, size_t bytes, lamina_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0, got;
    char *out = mem_alloc(m, MEM_OTHER, 1 << 21, err);
    lamina_detokenizer d = {0};
    lamina_status s = tokenizer_encode(t, m, text, bytes, LAMINA_NO_SPECIAL, &ids, &n, err);
    for (size_t i = 0; i < n && i < 100 && s == LAMINA_OK; i++)
        s = tokenizer_decode(t, &d, ids[i], out, 1 << 21, &got, err);
    mem_free(m, ids);
    mem_free(m, out);
    return s;
}

static void compact_seeds(void)
{
    static const char *const names[] = {"bytes",     "pairs", "spm",    "continuing", "metaspace",
                                        "wordpiece", "glm4",  "sp_bpe", "unigram"};
    memory *m = memory_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[64];
        tokenizer *t = NULL;
        void *again = NULL;
        size_t n = 0;
        lamina_error err = {0};
        snprintf(name, sizeof name, "%s.compact", names[i]);
        seed s = read_seed(m, name);
        REQUIRE(s.data, "%s is missing", name);
        CHECK(load(m, &s, &t, &err) == LAMINA_OK, "%s: %s (tools/tokenizer_seeds.py makes it anew)", name, err.text);
        if (t) {
            CHECK(tokenizer_save(m, t, &again, &n, &err) == LAMINA_OK, "%s: %s", name, err.text);
            CHECK(n == s.n - 1 && memcmp(again, s.data + 1, n) == 0, "%s is saved otherwise", name);
        }
        mem_free(m, again);
        mem_free(m, s.data);
        tokenizer_free(t);
    }
    CHECK(memory_free(m) == 0, "memory is left");
}

/* words: of the refusal; "": it works. */
typedef struct hostile {
    const char *name, *words;
} hostile;

static void refusals(void)
{
    static const hostile rows[] = {
        {"compact_kind", "the kind of model is wrong"},
        {"compact_bos", "a token id is wrong"},
        {"compact_unknown", "a token id is wrong"},
        {"compact_byte", "a token id is wrong"},
        {"compact_ids_many", "the end comes too early"},
        {"compact_ids_more", "the number of ids is wrong"},
        {"compact_ids_none", "is wrong"},
        {"compact_offsets", "the offsets of the pieces"},
        {"compact_cut", "the end comes too early"},
        {"vocabulary_wider", "ids below"},
        {"vocabulary_wide", ""},
        {"sp_map_away", ""},
        {"sp_map_loop", ""},
        {"sp_map_loop_all", ""},
        {"sp_pairs_loop", ""},
        {"sp_map_half", ""},
        {"sp_map_grows", "the tokenizer's normalizer makes more than"},
        {"sp_map_too_long", "a replacement of 4000 bytes, more than 1024"},
        {"sp_map_spaces", ""},
        {"sp_users", ""},
        {"sp_unused", ""},
        {"bomb_grow", "the tokenizer's normalizer makes more than"},
        {"bomb_grow_at_once", "the tokenizer's normalizer makes more than"},
        {"bomb_decode", "the tokenizer's decoder makes too much of \"a\""},
        {"bomb_decode_words", "the tokenizer's decoder makes too much of"},
        {"bomb_cut", ""},
        {"bomb_nested", "too deep"},
    };
    enum { BYTES = 4000 };
    static char text[BYTES];
    for (size_t i = 0; i < BYTES; i++) text[i] = i % 7 == 3 ? 'o' : i % 100 == 50 ? ' ' : 'a';
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        memory *m = memory_new();
        lamina_error err = {0};
        tokenizer *t = NULL;
        seed file = read_seed(m, rows[i].name);
        REQUIRE(file.data, "%s is missing", rows[i].name);
        double begin = os_seconds();
        lamina_status s = load(m, &file, &t, &err);
        if (s == LAMINA_OK) s = use(m, t, text, BYTES, &err);
        double seconds = os_seconds() - begin;
        CHECK(rows[i].words[0] ? s == LAMINA_E_FORMAT || s == LAMINA_E_UNSUPPORTED : s == LAMINA_OK,
              "%s: status %d: %s", rows[i].name, s, err.text);
        CHECK(strstr(err.text, rows[i].words) != NULL, "%s: %s", rows[i].name, err.text);
        CHECK(seconds < 10, "%s: %.1f s", rows[i].name, seconds);
        mem_free(m, file.data);
        tokenizer_free(t);
        CHECK(memory_free(m) == 0, "%s: memory is left", rows[i].name);
    }
}

/* A map that leads in circles, before a megabyte without an end to a word: time goes with the length. */
static void circles(void)
{
    memory *m = memory_new();
    seed file = read_seed(m, "sp_map_loop");
    size_t n = 1 << 20;
    char *text = mem_alloc(m, MEM_OTHER, n, NULL);
    tokenizer *t = NULL;
    lamina_error err = {0};
    REQUIRE(file.data && text, "no data");
    memset(text, 'a', n);
    REQUIRE(load(m, &file, &t, &err) == LAMINA_OK, "%s", err.text);
    double begin = os_seconds();
    CHECK(use(m, t, text, n, &err) == LAMINA_OK, "%s", err.text);
    CHECK(os_seconds() - begin < 30, "%.1f s", os_seconds() - begin);
    mem_free(m, text);
    mem_free(m, file.data);
    tokenizer_free(t);
    CHECK(memory_free(m) == 0, "memory is left");
}

/* An allocation that fails while a checkpoint's tokenizer is read is an error, not a checkpoint without a tokenizer:
 * else a store would be written without it, and nobody told. */
static void no_memory_is_an_error(void)
{
    static const char *const folders[] = {"sp_bpe", "sp_llama", "glm4"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[1024];
        uint64_t failed = 0;
        snprintf(path, sizeof path, TEST_DATA "/tokenizer/%s", folders[i]);
        for (bool done = false; !done && !test_now.current_failed; failed++) {
            memory *m = memory_new();
            tokenizer *t = NULL;
            lamina_error err = {0};
            checkpoint *c = checkpoint_new(m, CHECKPOINT_HF, path, &err);
            REQUIRE(c, "%s", err.text);
            uint64_t before = memory_count(m), n = failed + 1;
            memory_fail_at(m, n);
            lamina_status s = tokenizer_of(m, c, &t, &err);
            done = memory_count(m) - before < n;
            /* without memory for machine code, patterns are interpreted: that is no failure */
            CHECK(s == LAMINA_OK ? t != NULL : s == LAMINA_E_MEMORY && !t && !done,
                  "%s: allocation %llu: status %d: %s", path, (unsigned long long)n, s, err.text);
            CHECK(s == LAMINA_OK || err.text[0], "%s: no words", path);
            tokenizer_free(t);
            checkpoint_free(c);
            CHECK(memory_free(m) == 0, "memory is left");
        }
        CHECK(failed > 20, "%s: %llu allocations", path, (unsigned long long)failed);
    }
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(compact_seeds), T(refusals), T(circles), T(no_memory_is_an_error)};
    return test_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
