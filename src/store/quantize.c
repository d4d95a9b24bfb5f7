/* Owns the quantisers' faces: which types there are, how blocks are laid side by side for the search (quantize_fit.c),
 * and what a choice costs. A type is a row of a table.
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

/* A power of two that brings the greatest of w to [1, 2), so that no product of a weight leaves f32's range; 0: there
 * is none greater than 0, or not all are numbers that are not negative, which are ordered as their bits are. */
static float weight_scale(const float *w, uint32_t n)
{
    union {
        float f;
        uint32_t u;
    } x;
    uint32_t most = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &w[i], sizeof u);
        most = u > most ? u : most;
    }
    uint32_t exponent = most >> 23;
    if (most == 0 || exponent >= 255) return 0;
    x.u = exponent < 254 ? (254 - (exponent ? exponent : 1)) << 23 : UINT32_C(1) << 22;
    return x.f;
}

/* What errors of x [n], in blocks of `block`, cost. Where nobody knows: the block's mean square and the element's own,
 * as though large weights stood where large inputs come. Measured on SmolLM2, with that instead of equal weights the
 * divergence in q4_k is 0.83 to 0.93 of what it was, in q4_0 0.77. */
static void weigh(const float *x, const float *importance, uint32_t n, uint32_t block, float *w)
{
    if (importance && weight_scale(importance, n) == 0) importance = NULL;
    for (uint32_t at = 0; at < n; at += block) {
        float mean = 0;
        for (uint32_t i = 0; i < block; i++) mean += x[at + i] * x[at + i];
        mean /= (float)block;
        for (uint32_t i = 0; i < block; i++) w[at + i] = importance ? importance[at + i] : mean + x[at + i] * x[at + i];
    }
    float scale = weight_scale(w, n);
    for (uint32_t i = 0; i < n; i++) w[i] = scale > 0 ? w[i] * scale : 1.0f;
}

/* Lays `n` blocks from x side by side; lanes beyond are zero. */
static void fill(tile *t, uint32_t n, const float *x, const float *w)
{
    if (n < LANES) memset(t->x, 0, sizeof t->x);
    for (uint32_t b = 0; b < n; b++) {
        for (uint32_t i = 0; i < t->n; i++) {
            t->x[i][b] = x[b * t->n + i];
            t->w[i][b] = w[b * t->n + i];
        }
    }
}

static void write_row(dtype to, const float *x, uint64_t cols, const float *importance, uint8_t *out)
{
    const block_format *f = &formats[to];
    uint32_t elements = dtype_table[to].block_elements, bytes = dtype_table[to].block_bytes;
    tile t[2] = {{.n = f->n}, {.n = f->n}};
    float w[LANES * BLOCK_MAX];
    if (elements > f->n) { /* a super-block at a time */
        uint32_t part = LANES * f->n;
        for (uint64_t at = 0; at < cols; at += elements, out += bytes) {
            weigh(x + at, importance ? importance + at : NULL, elements, f->n, w);
            for (uint32_t i = 0; i * part < elements; i++) fill(&t[i], LANES, x + at + i * part, w + i * part);
            f->write(f, t, 1, out);
        }
        return;
    }
    for (uint64_t at = 0; at < cols;) {
        uint64_t left = (cols - at) / elements;
        uint32_t n = left < LANES ? (uint32_t)left : LANES;
        weigh(x + at, importance ? importance + at : NULL, n * elements, elements, w);
        fill(t, n, x + at, w);
        f->write(f, t, n, out);
        at += (uint64_t)n * elements;
        out += (size_t)n * bytes;
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
