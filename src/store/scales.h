/* The scales that a matrix of the source has beside its codes, read as its rows pass by. */
#ifndef LAMINA_STORE_SCALES_H
#define LAMINA_STORE_SCALES_H

#include "store/image.h"
#include "store/sources.h"

/* Those of the weight's whole tensor; of a weight without scales: none. */
image_scales scales_of(const model *mo, const weight *w);
/* False: they do not fit a matrix of so many columns, or say more than 2^63 bytes. *bytes: what rows [rows] have. */
bool scales_extent(const image_scales *x, uint64_t rows, uint64_t columns, uint64_t *bytes);

/* What one thread has read of them. */
typedef struct scales_window {
    uint8_t *bounce; /* [capacity + 2 pages], page-aligned */
    uint64_t capacity;
    uint32_t source;
    uint64_t offset;   /* of the scales that these are of; capacity 0 or n 0: of none */
    uint64_t first, n; /* rows of blocks */
    const uint8_t *at;
} scales_window;

/* Bytes that a window needs for them, a multiple of a page: 0 for none, more than that for longer rows. */
uint64_t scales_window_bytes(const image_scales *x);
void scales_window_place(scales_window *w, uint8_t *at, uint64_t bytes);

/* values [columns], the codes' numbers, of row `row` of a matrix [rows, columns]: multiplied by their scales, each
 * rounded once. */
lamina_status scales_apply(scales_window *w, sources *s, const image_scales *x, uint64_t row, uint64_t rows,
                           uint64_t columns, float *values, lamina_error *err);

#endif
