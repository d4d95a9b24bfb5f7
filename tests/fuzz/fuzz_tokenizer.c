/* libFuzzer target: the first byte chooses the kind of file, the rest is the file and, behind a NUL, the configuration
 * beside it. What is accepted must encode and decode without harm, and be the same again after a way through the
 * compact form. */
#include <stdlib.h>
#include <string.h>

#include "feed.h"
#include "format/gguf.h"
#include "format/tokenizer_internal.h"

static void use(const tokenizer *t, memory *m)
{
    static const char text[] = "Hello <s>  w\xc3\xb6rld 12345\r\n\xff\xe2\x82 '\xe4\xbd\xa0\xe5\xa5\xbd don't";
    for (unsigned flags = 0; flags < 4; flags++) {
        int32_t *ids = NULL;
        size_t n = 0, got;
        char out[70000];
        if (tokenizer_encode(t, m, text, sizeof text - 1, flags, &ids, &n, NULL) != LAMINA_OK) continue;
        lamina_detokenizer d = {.keep_special = flags & 1};
        for (size_t i = 0; i < n && i < 100; i++) {
            if ((uint32_t)ids[i] >= tokenizer_vocab(t)) abort();
            if (tokenizer_decode(t, &d, ids[i], out, sizeof out, &got, NULL) != LAMINA_OK) break;
        }
        tokenizer_decode(t, &d, -1, out, sizeof out, &got, NULL);
        mem_free(m, ids);
    }
}

static void read_gguf(memory *m, const char *data, size_t bytes, tokenizer **t)
{
    checkpoint *c = NULL;
    if (gguf_open(m, feed((const uint8_t *)data, bytes), &c, NULL) == LAMINA_OK)
        tokenizer_from_gguf(m, c->metadata, t, NULL);
    checkpoint_free(c);
}

/* 'j': tokenizer.json, 't': tekken.json, 'q', 'k', 'l': ranks under their three names, 's': sentencepiece's, 'g': GGUF,
 * else the compact form. */
static void read_file(memory *m, char kind, const char *text, size_t bytes, tokenizer **t)
{
    const char *nul = memchr(text, '\0', bytes);
    size_t n = nul && kind != 'c' && kind != 's' ? (size_t)(nul - text) : bytes;
    tokenizer_files files = {.json = text,
                             .json_bytes = n,
                             .tekken = text,
                             .tekken_bytes = n,
                             .sp = text,
                             .sp_bytes = n,
                             .ranks = text,
                             .ranks_bytes = n,
                             .ranks_name = kind == 'q'   ? "qwen.tiktoken"
                                           : kind == 'k' ? "tiktoken.model"
                                                         : "tokenizer.model"};
    if (n < bytes) {
        files.config = nul + 1;
        files.config_bytes = bytes - n - 1;
    }
    if (kind == 'j')
        tokenizer_read_json(m, &files, t, NULL);
    else if (kind == 'g')
        read_gguf(m, text, bytes, t);
    else if (kind == 's')
        tokenizer_read_sentencepiece(m, &files, t, NULL);
    else if (kind == 't')
        tokenizer_read_tekken(m, &files, t, NULL);
    else if (kind == 'q' || kind == 'k' || kind == 'l')
        tokenizer_read_ranks(m, &files, t, NULL);
    else
        tokenizer_load(m, text, bytes, "fuzz", t, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) return 0;
    memory *m = memory_new();
    if (!m) return 0;
    memory_set_limit(m, 256u << 20);
    tokenizer *t = NULL, *again = NULL;
    void *saved = NULL;
    size_t n = 0;
    read_file(m, (char)data[0], (const char *)data + 1, bytes - 1, &t);
    if (t) {
        use(t, m);
        if (tokenizer_save(m, t, &saved, &n, NULL) == LAMINA_OK) {
            if (tokenizer_load(m, saved, n, "saved", &again, NULL) == LAMINA_OK)
                tokenizer_free(again);
            else if (strchr("jtqklsg", data[0]) && memory_used(m) < 100u << 20)
                abort(); /* what was read can be read again */
        }
    }
    mem_free(m, saved);
    tokenizer_free(t);
    if (memory_free(m) != 0) abort();
    return 0;
}
