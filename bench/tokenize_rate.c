/* How fast a text becomes ids, and how fast a vocabulary loads. `tokenize_rate FOLDER TEXT [ROUNDS]` reads the folder's
 * tokenizer and the text's file and prints, as one JSON object, the least seconds of ROUNDS (default 5) calls that
 * encode the whole text, the number of ids and their FNV-1a, and the least seconds and the bytes of loading the compact
 * form that a store carries. compare_tokenizers.py sets that beside Hugging Face's tokenizers. */
#include <stdio.h>
#include <stdlib.h>

#include "base/os.h"
#include "format/tokenizer.h"

static uint64_t hash_ids(const int32_t *ids, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) h = (h ^ (uint32_t)ids[i]) * UINT64_C(0x100000001b3);
    return h;
}

static lamina_status encode(memory *m, const tokenizer *t, const char *text, size_t bytes, int rounds,
                            lamina_error *err)
{
    double best = 1e9;
    uint64_t hash = 0;
    size_t n = 0;
    for (int i = 0; i < rounds; i++) {
        int32_t *ids;
        double begin = os_seconds();
        TRY(tokenizer_encode(t, m, text, bytes, 0, &ids, &n, err));
        double seconds = os_seconds() - begin;
        if (seconds < best) best = seconds;
        hash = hash_ids(ids, n);
        mem_free(m, ids);
    }
    printf("{\"encode_seconds\": %.6f, \"bytes\": %zu, \"ids\": %zu, \"hash\": \"%016llx\"", best, bytes, n,
           (unsigned long long)hash);
    return LAMINA_OK;
}

static lamina_status load(memory *m, const tokenizer *t, int rounds, lamina_error *err)
{
    void *data = NULL;
    size_t bytes = 0;
    double best = 1e9;
    TRY(tokenizer_save(m, t, &data, &bytes, err));
    for (int i = 0; i < rounds; i++) {
        tokenizer *again;
        double begin = os_seconds();
        TRY(tokenizer_load(m, data, bytes, "compact", &again, err));
        double seconds = os_seconds() - begin;
        if (seconds < best) best = seconds;
        tokenizer_free(again);
    }
    printf(", \"load_seconds\": %.6f, \"compact_bytes\": %zu}\n", best, bytes);
    mem_free(m, data);
    return LAMINA_OK;
}

int main(int argc, char **argv)
{
    memory *m = memory_new();
    lamina_error err = {0};
    tokenizer *t = NULL;
    char *text = NULL;
    size_t bytes = 0;
    int rounds = argc > 3 ? atoi(argv[3]) : 5;
    if (argc < 3 || !m || rounds < 1) {
        fprintf(stderr, "usage: tokenize_rate FOLDER TEXT [ROUNDS]\n");
        return 2;
    }
    lamina_status status = tokenizer_from_folder(m, argv[1], &t, &err);
    if (status == LAMINA_OK) status = os_read_file(m, argv[2], (size_t)1 << 32, &text, &bytes, &err);
    if (status == LAMINA_OK) status = encode(m, t, text, bytes, rounds, &err);
    if (status == LAMINA_OK) status = load(m, t, rounds, &err);
    if (status != LAMINA_OK) fprintf(stderr, "%s\n", err.text);
    return status == LAMINA_OK ? 0 : 1;
}
