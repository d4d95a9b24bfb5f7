/* Runs of blocks of bf16 in three bits, the form that nearly all weights take, where the machine has instructions for
 * it. The same bytes and answers as packed_make.c's. */
#ifndef LAMINA_STORE_PACKED_FAST_H
#define LAMINA_STORE_PACKED_FAST_H

#include "store/packed.h"

typedef struct packed_fast {
    /* Numbers row [64 * blocks], little-endian and of any alignment, to codes [24 * blocks] and low [64 * blocks];
     * their escapes to list, which has room for all and, behind them, nothing to lose. palette [7]: ascending, the
     * first at most PACKED_FAST_FIRST, the last at most PACKED_FAST_SPAN above it. Returns where the list ends. */
    uint8_t *(*encode)(const uint8_t *palette, const uint8_t *row, uint64_t blocks, uint8_t *codes, uint8_t *low,
                       uint8_t *list);
    /* Do they decode to the row? *list: moves behind their escapes, at most 64 for each block, all of which can be
     * read. */
    bool (*is)(const uint8_t *palette, const uint8_t *row, uint64_t blocks, const uint8_t *codes, const uint8_t *low,
               const uint8_t **list);
} packed_fast;

enum { PACKED_FAST_SPAN = 14, PACKED_FAST_FIRST = 255 - PACKED_FAST_SPAN };

extern const packed_fast packed_avx2; /* x86-64 alone */
/* NULL: this machine has none. */
const packed_fast *packed_fast_best(void);

#endif
