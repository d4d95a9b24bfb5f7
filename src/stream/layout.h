/* How matrices are cut into chunks and how much of each is pinned: arithmetic only, no state, no table of chunks (a
 * pass of a 405B model has 400,000). */
#ifndef LAMINA_STREAM_LAYOUT_H
#define LAMINA_STREAM_LAYOUT_H

#include "stream/stream.h"

typedef struct cut {      /* of one matrix */
    uint64_t chunk_rows;  /* rows of a chunk; the last may have fewer */
    uint64_t pinned_rows; /* a multiple of chunk_rows, or all rows */
    uint64_t n_streamed;  /* chunks after the pinned prefix */
    uint64_t pin_begin;   /* in the file, a multiple of READ_ALIGN */
    uint64_t pin_bytes;   /* whole blocks around the pinned rows; 0: none */
} cut;

typedef struct pinning {    /* carried from matrix to matrix */
    uint64_t budget, total; /* bytes; total: stream_pin_all() */
    uint64_t seen, used;    /* whole blocks of the matrices so far; of their pinned prefixes */
} pinning;

typedef struct extent {    /* one streamed chunk as it lies in the file */
    uint64_t begin, bytes; /* whole blocks */
    uint32_t skew;         /* bytes before its first row */
    uint32_t needed;       /* skew and rows */
    uint64_t row0, n_rows;
} extent;

/* Called for every matrix in order with the same pinning, which begins as {budget, total, 0, 0}. */
void layout_cut(const stream_matrix *m, uint64_t chunk_bytes, pinning *pins, cut *out);
/* Streamed chunk `index` < n_streamed. */
void layout_extent(const stream_matrix *m, const cut *c, uint64_t index, extent *out);

static inline uint64_t block_floor(uint64_t x)
{
    return x / READ_ALIGN * READ_ALIGN;
}
static inline uint64_t block_ceil(uint64_t x)
{
    return block_floor(x + READ_ALIGN - 1);
}

#endif
