/* Block quantisers: rows of f32 into blocks of a type, as close as its format can say. Pure functions: no memory of
 * their own, no I/O, any thread. The same input gives the same bytes on every machine. */
#ifndef LAMINA_STORE_QUANTIZE_H
#define LAMINA_STORE_QUANTIZE_H

#include "base/dtype.h"

/* q8_0, q6_k, q5_k, q4_k, q4_0, nf4, in rows of whole blocks (dtype_row_ok). */
bool quantize_can(dtype to);

/* x [rows, cols] f32 -> out, rows of dtype_row_bytes(to, cols). importance [cols], what the error of each column costs:
 * the second moments of the matrix's input; not negative. NULL, or all of a block zero: an element's is its square and
 * the mean square of its block. Returns how many rows were written. Less than `rows`: the row of that index holds a
 * value that no block can (NaN, an infinity, or so large that its scale has no f16); what follows in out is undefined.
 * quantize_can(to) and dtype_row_ok(to, cols) must hold. */
uint64_t quantize_rows(dtype to, const float *x, uint64_t rows, uint64_t cols, const float *importance, void *out);

/* What that costs: the sum over the elements of (x - quantised)^2, each weighted by its column's importance (1
 * without), and the same sum of x^2. */
typedef struct quantize_cost {
    double error, power;
} quantize_cost;

/* Quantises a row at a time into `row` [dtype_row_bytes(to, cols)] and adds to *cost. Returns as quantize_rows(). */
uint64_t quantize_error(dtype to, const float *x, uint64_t rows, uint64_t cols, const float *importance, void *row,
                        quantize_cost *cost);

/* Elements [cols] of one row of blocks, as the kernels read them. */
void quantize_widen(dtype from, const void *row, uint64_t cols, float *x);

#endif
