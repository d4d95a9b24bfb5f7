/* The search behind the block quantisers: LANES blocks side by side, one in each lane, so that no sum crosses lanes and
 * plain loops become vector instructions of any width with the same bits. */
#ifndef LAMINA_STORE_QUANTIZE_FIT_H
#define LAMINA_STORE_QUANTIZE_FIT_H

#include <stdbool.h>
#include <stdint.h>

enum { LANES = 8, BLOCK_MAX = 64 };

typedef struct tile {
    uint32_t n;                                     /* elements of a block, at most BLOCK_MAX */
    float x[BLOCK_MAX][LANES], w[BLOCK_MAX][LANES]; /* w: what an error costs */
} tile;

/* Of each lane: value = scale * level - minus, level a whole number of [low, high]. */
typedef struct grid {
    float scale[LANES], minus[LANES];
} grid;

typedef struct levels {
    float low, high;
    bool nf4; /* the sixteen levels of NF4 instead, of -1 .. 1 */
} levels;

/* Super-blocks: `n` tiles whose scales (and minuses) are whole multiples of d (and m), f16 numbers. */
typedef struct super {
    float d, m;
    float scale[2][LANES], minus[2][LANES]; /* the multiples */
} super;

typedef struct fit_ops {
    /* x [blocks, t->n], blocks <= LANES, side by side; lanes beyond are zero. importance: the same, or NULL. Weights
     * are finite, not negative, but not yet of a size that sums can hold: */
    void (*fill)(tile *t, uint32_t blocks, const float *x, const float *importance);
    /* the same power of two on all weights of the tiles [n], so that the greatest lies in [1, 2). Where all are zero,
     * which says nothing, all become 1. */
    void (*level_weights)(tile *t, int n);
    /* The nearest levels, less `low`. */
    void (*levels)(const tile *t, const grid *g, levels of, uint8_t q[BLOCK_MAX][LANES]);
    /* The best grids found for each lane alone, scale and minus f16 numbers. affine: minus >= 0 is free, low must be 0.
     * Otherwise minus is 0 and the scale may be negative. */
    void (*scales)(const tile *t, levels of, bool affine, grid *best);
    void (*super_grid)(const super *s, int tile_index, grid *g);
    void (*super_affine)(const tile *t, levels of, super *out);    /* one tile; multiples 0 .. 63 */
    void (*super_symmetric)(const tile *t, levels of, super *out); /* two tiles; multiples -128 .. 127 */
} fit_ops;

extern const fit_ops fit_baseline; /* for any machine of this architecture */
extern const fit_ops fit_avx2;     /* x86-64 alone, and so the next */
extern const fit_ops fit_avx512;
/* The fastest that this machine has. All give the same bits. */
const fit_ops *fit_best(void);

/* QLoRA (Dettmers et al. 2023), appendix E: quantiles of the normal distribution, zero among them. */
extern const float nf4_levels[16];
/* From there on level k is nearer than the one below it. */
#define NF4_BETWEEN(k) (0.5f * (nf4_levels[(k)-1] + nf4_levels[k]))

#endif
