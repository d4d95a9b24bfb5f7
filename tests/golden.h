/* Reads tests/data/golden/NAME/golden.bin (tools/golden.py describes it): ids, and the logits that a reference
 * implementation gives after each of them. Little-endian machines only, as the rest of the tests. */
#ifndef LAMINA_GOLDEN_H
#define LAMINA_GOLDEN_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct golden {
    uint32_t prompt, steps, vocab, context;
    int32_t *ids;  /* [prompt + steps] */
    float *logits; /* [prompt + steps, vocab] */
} golden;

/* A whole file, at most 64 MiB; free(). NULL if it is not there or too large. */
static inline unsigned char *golden_bytes(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    unsigned char *data = NULL;
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    if (size > 0 && size <= 64L << 20 && fseek(f, 0, SEEK_SET) == 0) data = malloc((size_t)size);
    *bytes = data ? (size_t)size : 0;
    if (data && fread(data, 1, *bytes, f) != *bytes) {
        free(data);
        data = NULL;
    }
    fclose(f);
    return data;
}

static inline void golden_free(golden *g)
{
    free(g->ids);
    free(g->logits);
    *g = (golden){0};
}

/* Fills *g, which golden_free() frees; returns NULL, or what is wrong with the file. */
static inline const char *golden_read(const char *path, golden *g)
{
    enum { HEADER = 24, MOST = 1 << 20 };
    size_t bytes = 0;
    unsigned char *data = golden_bytes(path, &bytes);
    const char *wrong = NULL;
    *g = (golden){0};
    if (!data) return "cannot be read";
    if (bytes < HEADER || memcmp(data, "LAMGOLD1", 8) != 0) {
        free(data);
        return "does not begin with LAMGOLD1";
    }
    uint32_t *const fields[] = {&g->prompt, &g->steps, &g->vocab, &g->context};
    for (size_t i = 0; i < 4; i++) memcpy(fields[i], data + 8 + 4 * i, 4);
    size_t n = (size_t)g->prompt + g->steps, ids_bytes = n * sizeof(int32_t), row = g->vocab * sizeof(float);
    if (!g->prompt || !g->steps || !g->vocab || n > MOST || g->vocab > MOST || g->context < n)
        wrong = "has impossible counts";
    else if (bytes != HEADER + ids_bytes + n * row)
        wrong = "is not of the size its counts say";
    if (!wrong) {
        g->ids = malloc(ids_bytes);
        g->logits = malloc(n * row);
        if (g->ids && g->logits) {
            memcpy(g->ids, data + HEADER, ids_bytes);
            memcpy(g->logits, data + HEADER + ids_bytes, n * row);
        } else {
            golden_free(g);
            wrong = "needs more memory than there is";
        }
    }
    free(data);
    return wrong;
}

#endif
