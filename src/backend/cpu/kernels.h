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

/* Weight rows times packed rows: y[t * stride + r], r < n_rows, t < n <= fused_tokens. */
typedef struct dots_args {
    const uint8_t *w; /* rows of row_bytes */
    uint64_t row_bytes, k, n_rows;
    const float *x; /* one tile of n */
    uint32_t n;
    float *y;
    uint64_t stride;
} dots_args;

/* How a type of weights is read. Rows may lie at any address; nothing outside of a row is read. */
typedef struct weight_kernels {
    /* out[i] = element i of the row, i < k. */
    void (*widen)(const uint8_t *row, uint64_t k, float *out);
    /* Elements [k0, k0 + n) of the row, k0 a multiple of GROUP: 16 of them to out + step * (i / 16), zero-padded. */
    void (*panel)(const uint8_t *row, uint64_t k0, uint64_t n, float *out, size_t step);
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

/* Up to ATTEND_ROWS rows, by position ascending, against the cache of one KV head. */
typedef struct attend_args {
    const float *q[ATTEND_ROWS]; /* [head_dim] each */
    float *out[ATTEND_ROWS];     /* [head_dim] each; holds the sums on the way */
    uint32_t position[ATTEND_ROWS];
    uint32_t n, head_dim, capacity, window;
    float scale;
    const void *k, *v;
    bool half;
    float *scratch; /* ATTEND_SCRATCH floats, aligned to 64 */
} attend_args;
enum { ATTEND_SCRATCH = ATTEND_ROWS * (ATTENTION_BLOCK + LANES) };

typedef struct kernels {
    const char *name;
    uint32_t panel_rows, tile_tokens, fused_tokens /* <= tile_tokens */;
    weight_kernels weight[DT_WEIGHTS];
    void (*block)(const block_args *a);
    void (*rms_norm)(const float *x, const float *w, uint32_t k, float eps, float *out);
    void (*add)(float *x, const float *y, uint64_t n);
    void (*silu)(float *gate, const float *up, uint64_t n);
    void (*gelu_tanh)(float *gate, const float *up, uint64_t n);
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
