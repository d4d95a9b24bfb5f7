/* How the matrices of an expert are cut into pieces: arithmetic only. The experts of a layer are all cut alike; layers
 * may differ (files of mixed quantisation), so there are a few kinds of experts. Slots of one size hold any piece of
 * any. */
#ifndef LAMINA_STREAM_EXPERTS_CUT_H
#define LAMINA_STREAM_EXPERTS_CUT_H

#include "stream/experts.h"

typedef struct expert_cut { /* of one matrix */
    uint64_t rows, row_bytes, side_row_bytes;
    uint32_t side_rows;  /* 1 where there are no scales apart */
    uint64_t piece_rows; /* rows of a piece, a multiple of side_rows; the last may have fewer */
    uint32_t piece0, n_pieces;
} expert_cut;

typedef struct expert_cuts { /* of one kind */
    uint32_t n_matrices, n_pieces;
    uint32_t n_layers; /* whose experts are of this kind */
    expert_cut cut[EXPERTS_MOST_MATRICES];
} expert_cuts;

enum { EXPERTS_MOST_KINDS = 16 };

typedef struct expert_kinds {
    uint32_t n;
    uint32_t most_pieces; /* of an expert of any kind */
    uint64_t slot_bytes;
    bool sides; /* some matrix has scales apart */
    expert_cuts of[EXPERTS_MOST_KINDS];
} expert_kinds;

typedef struct expert_extent { /* one piece as it lies in the files; both reads are whole blocks */
    uint32_t matrix;
    uint64_t row0, n_rows;
    uint64_t begin, side_begin; /* in the file */
    uint32_t bytes, side_bytes; /* side_bytes 0: no scales apart */
    uint32_t skew, side_skew;   /* bytes before the first row */
    uint32_t needed, side_needed;
    uint64_t stored; /* bytes of rows and scales */
} expert_extent;

/* The kinds of experts that a configuration has, and what to cut them into; kind_of [n_layers] (may be NULL): of each
 * layer. LAMINA_E_FORMAT: sizes that cannot be cut. */
lamina_status experts_cut(const experts_config *c, expert_kinds *out, uint8_t *kind_of, lamina_error *err);
uint32_t experts_matrix_of(const expert_cuts *c, uint32_t piece);
/* Piece < c->n_pieces of an expert whose matrix experts_matrix_of(c, piece) lies at *m. */
void experts_extent(const expert_cuts *c, const expert_matrix *m, uint32_t piece, expert_extent *out);

#endif
