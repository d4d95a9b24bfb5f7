/* How the matrices of an expert are cut into pieces: arithmetic only. All experts are cut alike, so a piece has the
 * same rows in each of them, and slots of one size hold any piece. */
#ifndef LAMINA_STREAM_EXPERTS_CUT_H
#define LAMINA_STREAM_EXPERTS_CUT_H

#include "stream/experts.h"

typedef struct expert_cut { /* of one matrix */
    uint64_t rows, row_bytes, side_row_bytes;
    uint32_t side_rows;  /* 1 where there are no scales apart */
    uint64_t piece_rows; /* rows of a piece, a multiple of side_rows; the last may have fewer */
    uint32_t piece0, n_pieces;
} expert_cut;

typedef struct expert_cuts {
    uint32_t n_matrices, n_pieces; /* pieces of an expert */
    uint64_t slot_bytes;
    bool sides; /* some matrix has scales apart */
    expert_cut cut[EXPERTS_MOST_MATRICES];
} expert_cuts;

typedef struct expert_extent { /* one piece as it lies in the files; both reads are whole blocks */
    uint32_t matrix;
    uint64_t row0, n_rows;
    uint64_t begin, side_begin; /* in the file */
    uint32_t bytes, side_bytes; /* side_bytes 0: no scales apart */
    uint32_t skew, side_skew;   /* bytes before the first row */
    uint32_t needed, side_needed;
    uint64_t stored; /* bytes of rows and scales */
} expert_extent;

/* Cuts the matrices sizes [n] for slots of at most `most` bytes (0: chosen). false, with *bad set: matrix *bad cannot be
 * cut. */
bool experts_cut(const expert_matrix *sizes, uint32_t n, uint64_t most, expert_cuts *out, uint32_t *bad);
uint32_t experts_matrix_of(const expert_cuts *c, uint32_t piece);
/* Piece < c->n_pieces of an expert whose matrix experts_matrix_of(c, piece) lies at *m. */
void experts_extent(const expert_cuts *c, const expert_matrix *m, uint32_t piece, expert_extent *out);

#endif
