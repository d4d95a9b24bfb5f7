/* A block format: its levels and how its blocks are written and read. */
#ifndef LAMINA_STORE_QUANTIZE_FORMAT_H
#define LAMINA_STORE_QUANTIZE_FORMAT_H

#include "base/dtype.h"
#include "store/quantize_fit.h"

typedef struct block_format block_format;
/* Searches and writes blocks [n_blocks <= LANES], one in each lane of *t; of super-blocks one, whose parts are the
 * lanes of t[0] and, where there are more than eight, of t[1]. */
typedef void (*block_write)(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out);
typedef void (*block_read)(const block_format *f, const uint8_t *block, float *x); /* one block */

struct block_format {
    dtype type;
    levels of;
    float most; /* a greater |x| is refused: what is shared has an f16 */
    uint32_t n; /* elements that share a scale; 0: not a format to write */
    block_write write;
    block_read read;
};

void write_symmetric(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out);
void write_affine(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out);
void write_super_affine(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out);
void write_q6_k(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out);
void write_nf4(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out);

void read_symmetric(const block_format *f, const uint8_t *block, float *x);
void read_affine(const block_format *f, const uint8_t *block, float *x);
void read_super_affine(const block_format *f, const uint8_t *block, float *x);
void read_q6_k(const block_format *f, const uint8_t *block, float *x);
void read_nf4(const block_format *f, const uint8_t *block, float *x);

#endif
