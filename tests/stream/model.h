/* Random models in temporary files for the tests of the stream: every byte is a function of its place, so that any
 * chunk can be checked without keeping the file. */
#ifndef LAMINA_TESTS_STREAM_MODEL_H
#define LAMINA_TESTS_STREAM_MODEL_H

#include "test.h"

#include "stream/stream.h"

#include <unistd.h>

enum { MODEL_FILES = 3, MODEL_MATRICES = 14 };

typedef struct model {
    char folder[200];
    char path[MODEL_FILES][260];
    const char *paths[MODEL_FILES];
    uint64_t file_bytes[MODEL_FILES];
    stream_matrix matrices[MODEL_MATRICES];
    char names[MODEL_MATRICES][32];
    size_t n, tail;
    uint32_t n_files;
} model;

static uint64_t model_seed = 0x853C49E6748FEA9Bu;

static uint64_t draw(uint64_t below)
{
    model_seed ^= model_seed << 13;
    model_seed ^= model_seed >> 7;
    model_seed ^= model_seed << 17;
    return (model_seed >> 11) % below;
}

static inline unsigned char model_byte(uint32_t file, uint64_t offset)
{
    uint64_t x = (offset >> 3) * 0x9E3779B97F4A7C15u + file * 0xD1B54A32D192ED03u;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9u;
    return (unsigned char)(x >> (offset & 7) * 8);
}

static bool model_check(uint32_t file, uint64_t offset, const void *data, uint64_t bytes)
{
    const unsigned char *p = data;
    for (uint64_t i = 0; i < bytes; i++)
        if (p[i] != model_byte(file, offset + i)) return false;
    return true;
}

static bool model_write(const model *m, uint32_t file)
{
    FILE *f = fopen(m->path[file], "wb");
    if (!f) return false;
    bool ok = true;
    for (uint64_t i = 0; i < m->file_bytes[file]; i++) ok &= putc(model_byte(file, i), f) != EOF;
    return fclose(f) == 0 && ok;
}

static void model_remove(const model *m)
{
    for (uint32_t i = 0; i < m->n_files; i++) unlink(m->path[i]);
    rmdir(m->folder);
}

/* A model of up to `most_rows` rows a matrix in a new folder below `parent`. */
static inline bool model_make(model *m, const char *parent, uint64_t most_rows)
{
    *m = (model){.n = 1 + draw(MODEL_MATRICES), .n_files = 1 + (uint32_t)draw(MODEL_FILES)};
    char folder[200];
    snprintf(folder, sizeof folder, "%s/lamina-stream-XXXXXX", parent);
    if (!mkdtemp(folder)) return false;
    memcpy(m->folder, folder, sizeof folder);
    for (uint32_t i = 0; i < m->n_files; i++) {
        snprintf(m->path[i], sizeof m->path[i], "%s/%u.bin", folder, i);
        m->paths[i] = m->path[i];
        m->file_bytes[i] = draw(9000);
    }
    m->tail = draw(m->n + 1);
    for (size_t i = 0; i < m->n; i++) {
        snprintf(m->names[i], sizeof m->names[i], "matrix.%zu", i);
        uint32_t file = (uint32_t)draw(m->n_files);
        stream_matrix *w = &m->matrices[i];
        *w = (stream_matrix){.name = m->names[i], .layer = (int32_t)i, .file = file, .rows = 1 + draw(most_rows)};
        w->row_bytes = draw(2) ? 1 + draw(5000) : 512 * (1 + draw(8));
        w->offset = m->file_bytes[file] + (draw(2) ? draw(300) : 0);
        if (draw(3) == 0) w->offset = (w->offset + 4095) / 4096 * 4096;
        m->file_bytes[file] = w->offset + w->rows * w->row_bytes;
    }
    for (uint32_t i = 0; i < m->n_files; i++)
        if (!model_write(m, i)) return false;
    return true;
}

/* One pass: every row of the layers once and of the tail `tails` times, in order, with the right bytes. Stops at a
 * failure, which is returned. checked: false when rows or bytes are wrong. */
static inline lamina_status model_pass(const model *m, stream *s, uint32_t tails, bool *checked, lamina_error *err)
{
    *checked = false;
    stream_begin(s, tails);
    uint64_t rounds = m->tail < m->n ? tails : 0;
    for (uint64_t round = 0; round <= rounds; round++) {
        size_t begin = round ? m->tail : 0, end = round ? m->n : m->tail;
        for (size_t i = begin; i < end; i++) {
            const stream_matrix *w = &m->matrices[i];
            for (uint64_t row = 0; row < w->rows;) {
                stream_chunk c = {0};
                bool more = false;
                lamina_status status = stream_next(s, &c, &more, err);
                if (status != LAMINA_OK) return *checked = true, status;
                if (!more || c.matrix != i || c.row0 != row || c.n_rows == 0 || c.n_rows > w->rows - row)
                    return LAMINA_OK;
                if (!model_check(w->file, w->offset + row * w->row_bytes, c.data, c.n_rows * w->row_bytes))
                    return LAMINA_OK;
                row += c.n_rows;
            }
        }
    }
    stream_chunk c;
    bool more = true;
    lamina_status status = stream_next(s, &c, &more, err);
    if (status == LAMINA_OK && !more) status = stream_next(s, &c, &more, err); /* over stays over */
    *checked = !more;
    return status;
}

static inline stream_config model_config(const model *m, memory *mem)
{
    return (stream_config){.m = mem,
                           .n_files = m->n_files,
                           .paths = m->paths,
                           .file_bytes = m->file_bytes,
                           .n_matrices = m->n,
                           .matrices = m->matrices,
                           .tail = m->tail};
}

static const char *temporary(void)
{
    const char *folder = getenv("TMPDIR");
    return folder ? folder : "/tmp";
}

#endif
