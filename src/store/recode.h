/* Rows of a tensor, changed on their way into the store. */
#ifndef LAMINA_STORE_RECODE_H
#define LAMINA_STORE_RECODE_H

#include "store/image.h"
#include "store/packed.h"
#include "store/quantize.h"
#include "store/scales.h"

typedef enum recode_kind {
    RECODE_NONE, /* copied */
    RECODE_PACK,
    RECODE_UNPACK,
    RECODE_QUANTISE,
    RECODE_IMPOSSIBLE
} recode_kind;

recode_kind recode_kind_of(const image_tensor *x);

/* Numbers of f32 [n] as the half floats (bf16, f16) [n] that widen to them; false: some are no such. Any alignment. */
bool recode_narrow(dtype half, const uint8_t *from, uint64_t n, uint8_t *to);

/* A row of k numbers of f32, f16, bf16, FP8 (without scales) or, of row_bytes, packed, as f32 [k]. half [2k] is
 * scratch. */
void recode_widen(dtype from, uint64_t row_bytes, const uint8_t *row, uint64_t k, uint8_t *half, float *to);

/* The error that a row has a number for which no block of `to` has a scale. */
lamina_status recode_cannot_hold(const char *name, uint64_t row, dtype to, lamina_error *err);

typedef struct recoder { /* what one thread needs */
    const store_job *job;
    sources *sources; /* where scales come from */
    scales_window scales;
    uint8_t *row;   /* [the longest row of the store's recoded tensors] where only a part of one is wanted */
    uint8_t *half;  /* [2 * the most columns] */
    uint8_t *again; /* the same */
    float *wide;    /* [the most columns], and as many again */
    float *seen;
    quantize_cost cost; /* of the rows quantised since it was cleared */
} recoder;

/* Bytes of what a recoder points to, and of the longest row of a source that is recoded; both 0: none is. */
uint64_t recoder_bytes(const image *im, uint64_t *longest_source_row);
/* at: page-aligned. */
void recoder_place(recoder *r, const store_job *job, sources *s, const image *im, uint8_t *at);

/* Row number `row` of x, from -> to [x->t.row_bytes or what follows from its type]. Packed, it is decoded again and
 * compared: LAMINA_E_CORRUPT when that differs, or when the row is not what surveying saw. LAMINA_E_UNSUPPORTED: it has
 * a number that blocks cannot hold. */
lamina_status recode_row(recoder *r, const image_tensor *x, uint64_t row, const uint8_t *from, uint8_t *to,
                         lamina_error *err);

#endif
