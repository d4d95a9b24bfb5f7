/* Owns the quantisers' faces: which types there are, how blocks are laid side by side for the search
 * (quantize_fit_lanes.h), and what a choice costs. A type is a row of a table.
 *
 * Promises that every value that was accepted comes back finite, that a block of zeros stays zero, and that the same
 * input gives the same bytes everywhere. */
#include "store/quantize.h"

#include <math.h>
#include <string.h>

#include "store/quantize_format.h"

enum { BLOCK_ELEMENTS_MAX = 256 };

static const block_format formats[DT_WEIGHTS] = {
    [DT_Q8_0] = {DT_Q8_0, {-127, 127, false}, 65504.0f * 127, 32, write_symmetric, read_symmetric},
    [DT_Q5_0] = {DT_Q5_0, {-16, 15, false}, 65504.0f * 15, 32, write_symmetric, read_symmetric},
    [DT_Q4_0] = {DT_Q4_0, {-8, 7, false}, 65504.0f * 7, 32, write_symmetric, read_symmetric},
    [DT_Q5_1] = {DT_Q5_1, {0, 31, false}, 65504.0f, 32, write_affine, read_affine},
    [DT_Q4_1] = {DT_Q4_1, {0, 15, false}, 65504.0f, 32, write_affine, read_affine},
    [DT_Q4_K] = {DT_Q4_K, {0, 15, false}, 65504.0f * 63, 32, write_super_affine, read_super_affine},
    [DT_Q5_K] = {DT_Q5_K, {0, 31, false}, 65504.0f * 63, 32, write_super_affine, read_super_affine},
    [DT_Q6_K] = {DT_Q6_K, {-32, 31, false}, 65504.0f * 127, 16, write_q6_k, read_q6_k},
    [DT_NF4] = {DT_NF4, {-1, 1, true}, 65504.0f, 64, write_nf4, read_nf4},
};

bool quantize_can(dtype to)
{
    return (unsigned)to < DT_WEIGHTS && formats[to].n;
}

static bool row_fits(const float *x, uint64_t n, float most)
{
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) bad |= fabsf(x[i]) <= most ? 0 : 1; /* NaN is not */
    return !bad;
}

/* Can they weigh? Numbers that are not negative, one greater than 0: these are ordered as their bits are. */
static bool can_weigh(const float *w, uint32_t n)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &w[i], sizeof u);
        most = u > most ? u : most;
    }
    return most && most < UINT32_C(0x7f800000);
}

static void write_row(dtype to, const float *x, uint64_t cols, const float *importance, uint8_t *out)
{
    const block_format *f = &formats[to];
    const fit_ops *fit = fit_best();
    uint32_t elements = dtype_table[to].block_elements, bytes = dtype_table[to].block_bytes;
    uint32_t tiles = elements > f->n ? elements / (LANES * f->n) : 1; /* of a super-block, or of LANES blocks */
    uint32_t once = elements > f->n ? 1 : LANES;
    tile t[2] = {{.n = f->n}, {.n = f->n}};
    for (uint64_t at = 0, blocks = cols / elements; blocks;) {
        uint32_t n = blocks < once ? (uint32_t)blocks : once, part = LANES * f->n;
        const float *w = importance && can_weigh(importance + at, n * elements) ? importance + at : NULL;
        for (uint32_t i = 0; i < tiles; i++)
            fit->fill(&t[i], elements > f->n ? LANES : n, x + at + i * part, w ? w + i * part : NULL);
        fit->level_weights(t, (int)tiles);
        f->write(f, t, n, out);
        at += (uint64_t)n * elements;
        out += (size_t)n * bytes;
        blocks -= n;
    }
}

uint64_t quantize_rows(dtype to, const float *x, uint64_t rows, uint64_t cols, const float *importance, void *out)
{
    uint64_t row_bytes = dtype_row_bytes(to, cols);
    for (uint64_t r = 0; r < rows; r++) {
        if (!row_fits(x + r * cols, cols, formats[to].most)) return r;
        write_row(to, x + r * cols, cols, importance, (uint8_t *)out + r * row_bytes);
    }
    return rows;
}

void quantize_widen(dtype from, const void *row, uint64_t cols, float *x)
{
    uint32_t elements = dtype_table[from].block_elements, bytes = dtype_table[from].block_bytes;
    const uint8_t *block = row;
    for (uint64_t at = 0; at < cols; at += elements, block += bytes) formats[from].read(&formats[from], block, x + at);
}

uint64_t quantize_error(dtype to, const float *x, uint64_t rows, uint64_t cols, const float *importance, void *row,
                        quantize_cost *cost)
{
    uint32_t elements = dtype_table[to].block_elements, bytes = dtype_table[to].block_bytes;
    for (uint64_t r = 0; r < rows; r++, x += cols) {
        if (quantize_rows(to, x, 1, cols, importance, row) == 0) return r;
        const uint8_t *block = row;
        for (uint64_t at = 0; at < cols; at += elements, block += bytes) {
            float back[BLOCK_ELEMENTS_MAX];
            formats[to].read(&formats[to], block, back);
            for (uint32_t i = 0; i < elements; i++) {
                double w = importance ? (double)importance[at + i] : 1.0, e = (double)x[at + i] - (double)back[i];
                cost->error += w * e * e;
                cost->power += w * (double)x[at + i] * (double)x[at + i];
            }
        }
    }
    return rows;
}
