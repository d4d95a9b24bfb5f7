/* One level of instructions, as a struct of function pointers: filled by scalar first, then replaced by a ladder of
 * instruction sets. Every level gives the same bits; they differ in the sizes of their register blocks, which the
 * skeleton (backend_cpu.c, products.c, attention.c) reads here.
 *
 * Inputs of products are packed in tiles of tile_tokens rows (the last may have fewer), each contiguous: for each step
 * of 16 elements, 16 of each row of the tile; k is zero-padded to a multiple of 16. */
#ifndef LAMINA_BACKEND_CPU_KERNELS_H
#define LAMINA_BACKEND_CPU_KERNELS_H

#include "spec.h"

enum {
    LANES = 16,
    GROUP = 32,         /* elements that a type widens at once; every block size divides or is a multiple of it */
    PANEL_ROWS = 64,    /* weight rows widened at once, a multiple of every level's panel */
    PANEL_K = 1024,     /* elements of each, a multiple of GROUP */
    PANEL_TOKENS = 132, /* token rows that share them, a multiple of every level's tile */
    ATTEND_ROWS = 32,   /* (row, head) pairs that share a block of K and V */
    MAX_PANEL = 8,
    MAX_TILE = 8
};

/* A row of weights as stored, and what lies elsewhere: its f32 scales, one for 2^shift groups; or an e8m0 for each. */
typedef struct weight_row {
    const uint8_t *data;
    const void *side;
    uint32_t shift;
    uint64_t bytes, cols; /* of the row, for types whose rows end with what comes first */
} weight_row;

/* Row r of w; row_bytes is matrix_row_bytes of it. Without scales one scale of 1 serves all. */
static inline weight_row weight_row_at(const matrix_rows *w, uint64_t row_bytes, uint64_t r)
{
    static const float one = 1.0f;
    weight_row row = {.data = (const uint8_t *)w->data + r * row_bytes,
                      .side = &one,
                      .shift = 63,
                      .bytes = row_bytes,
                      .cols = w->cols};
    if (w->scales) {
        row.side = w->scales + (w->row0 + r) / w->scale_rows * w->scales_stride;
        row.shift = (uint32_t)__builtin_ctz(w->scale_cols / GROUP);
    } else if (w->side) {
        row.side = w->side + r * (w->cols / GROUP);
    }
    return row;
}

/* The places in a row of `packed` (store/packed.h) where a block of 64 elements lies. */
typedef enum packed_kind { PACKED_BF16_3, PACKED_BF16_4, PACKED_F16_3 } packed_kind;
typedef struct packed_row {
    const uint8_t *palette, *escapes, *codes, *low;
} packed_row;

/* 2^(e - 128), half of what an e8m0 scale means, exactly: 2^-128 and 2^-127 are denormal. */
static inline float half_e8m0(uint8_t e)
{
    union {
        uint32_t u;
        float f;
    } x = {e < 2 ? UINT32_C(0x00200000) << e : (uint32_t)(e - 1) << 23};
    return x.f;
}

/* Weight rows [row0, row0 + n_rows) times packed rows: y[t * stride + r], r < n_rows, t < n <= fused_tokens. */
typedef struct dots_args {
    const matrix_rows *w;
    uint64_t row_bytes, row0, n_rows;
    const float *x; /* one tile of n */
    uint32_t n;
    float *y;
    uint64_t stride;
} dots_args;

/* How a type of weights is read. Rows may lie at any address; nothing outside of a row is read. */
typedef struct weight_kernels {
    /* out[i] = element i of the row, i < k. */
    void (*widen)(const weight_row *row, uint64_t k, float *out);
    /* Elements [k0, k0 + n) of the row, k0 a multiple of GROUP: 16 of them to out + step * (i / 16), zero-padded. */
    void (*panel)(const weight_row *row, uint64_t k0, uint64_t n, float *out, size_t step);
    /* Fused: widened in registers, for few token rows. */
    void (*dots)(const dots_args *a);
} weight_kernels;

/* A register block: panel_rows weight rows, widened, times one tile of n token rows over `steps` steps of 16. Sums
 * live in acc [n][panel_rows][16] between blocks of k: first: they begin at zero; last: their trees go to
 * y[t * stride + r], r < rows_valid, instead. */
typedef struct block_args {
    const float *w; /* [steps][panel_rows][16] */
    const float *x; /* [steps][n][16] */
    uint64_t steps;
    uint32_t n, rows_valid;
    float *acc;
    bool first, last;
    float *y;
    uint64_t stride;
} block_args;

/* y[t * stride + c] = fma(w[r * width + c], x[t * x_stride + r], y) over r < rows ascending, for c < cols, t < n. w is
 * padded to a multiple of 16. */
typedef struct axpy_args {
    const float *w; /* [rows][width] */
    uint64_t width, rows, cols;
    const float *x;
    uint64_t x_stride;
    uint32_t n;
    float *y;
    uint64_t stride;
} axpy_args;

/* One row of combine_args. */
typedef struct mix_args {
    float *x;
    const float *y;
    const uint32_t *index;
    const float *weight;
    uint32_t slots, k;
} mix_args;

/* Up to ATTEND_ROWS rows, by position ascending, against the cache of one KV head. */
typedef struct attend_args {
    const float *q[ATTEND_ROWS]; /* [head_dim] each */
    float *out[ATTEND_ROWS];     /* [v_dim] each; holds the sums on the way */
    uint32_t position[ATTEND_ROWS];
    float sink[ATTEND_ROWS], slope[ATTEND_ROWS];
    bool sinks, sloped, half;
    uint32_t n, head_dim, v_dim, capacity, window;
    float scale, softcap;
    const void *k, *v; /* v NULL: values are in the keys */
    float *scratch;    /* ATTEND_SCRATCH floats, aligned to 64 */
} attend_args;
/* Scores, sums of weights, and a block of values turned around where they lie in the keys. */
enum {
    ATTEND_VALUES = 512,
    ATTEND_SCRATCH = ATTEND_ROWS * (ATTENTION_BLOCK + LANES) + ATTENTION_BLOCK * ATTEND_VALUES
};

typedef struct kernels {
    const char *name;
    uint32_t panel_rows, tile_tokens, fused_tokens /* <= tile_tokens */;
    weight_kernels weight[DT_WEIGHTS];
    void (*block)(const block_args *a);
    void (*axpy)(const axpy_args *a);
    void (*mix)(const mix_args *a);
    void (*rms_norm)(const norm_row *a);
    void (*layer_norm)(const norm_row *a);
    void (*squares)(const float *x, uint64_t steps, float *lanes); /* lanes [16] += x^2 by fma, x [steps][16] */
    void (*add)(float *x, const float *y, uint64_t n);
    void (*add_scaled)(float *x, const float *y, float s, uint64_t n);
    void (*scale)(float *x, float s, uint64_t n);
    void (*softcap)(float *x, float cap, uint64_t n);
    void (*sigmoid)(float *x, uint64_t n);
    void (*gate[BACKEND_ACTS])(float *gate, const float *up, float limit, uint64_t n);
    void (*activate[BACKEND_ACTS])(float *x, float limit, uint64_t n);
    void (*exp)(const float *x, float *out, uint64_t n);
    void (*narrow)(const float *x, uint16_t *out, uint64_t n); /* to f16 */
    void (*rotate_half)(float *x, uint32_t dims, const float *cos, const float *sin);
    void (*rotate_pairs)(float *x, uint32_t dims, const float *cos, const float *sin);
    void (*attend)(const attend_args *a);
    /* For the measures: sums up the words read; runs n times a block of independent multiply-adds on a finite *sink and
     * returns how many operations that was. */
    float (*read)(const float *x, uint64_t n);
    double (*fma)(uint64_t n, float *sink);
} kernels;

void kernels_scalar(kernels *k);
/* Takes the best levels of this machine up to the cap. One per architecture; the build picks the file. */
void kernels_ladder(kernels *k, lamina_isa cap);
void kernels_avx2(kernels *k);
void kernels_avx512(kernels *k);
void kernels_neon(kernels *k);

#endif
