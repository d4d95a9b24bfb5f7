/* GGUF's types of codebooks, of ternary digits and of nibbles that index levels: what the specification and all levels
 * share to read their blocks.
 *
 * A codebook's entry is the codes of eight elements of two bits, or of four elements of four bits, the first in the
 * lowest. Indices are as wide as the codebook is long: none can point outside of it. */
#ifndef LAMINA_BACKEND_CPU_GRIDS_H
#define LAMINA_BACKEND_CPU_GRIDS_H

#include "spec.h"

#include <string.h>

extern const uint16_t grid_iq2_xxs[256], grid_iq2_xs[512], grid_iq2_s[1024], grid_iq1[2048];
extern const uint16_t grid_iq3_xxs[256], grid_iq3_s[512];

/* X(name, type) for each of these types: they are whole in their blocks, whose groups of 32 elements stand alone. */
#define GRID_TYPES(X)                                                                                                  \
    X(iq4_nl, DT_IQ4_NL)                                                                                               \
    X(iq2_xxs, DT_IQ2_XXS)                                                                                             \
    X(iq2_xs, DT_IQ2_XS)                                                                                               \
    X(iq2_s, DT_IQ2_S)                                                                                                 \
    X(iq3_xxs, DT_IQ3_XXS)                                                                                             \
    X(iq3_s, DT_IQ3_S)                                                                                                 \
    X(iq1_s, DT_IQ1_S)                                                                                                 \
    X(iq1_m, DT_IQ1_M)                                                                                                 \
    X(tq1_0, DT_TQ1_0)                                                                                                 \
    X(tq2_0, DT_TQ2_0)                                                                                                 \
    X(nvfp4, DT_NVFP4)                                                                                                 \
    X(nf4, DT_NF4)

/* What codes mean. */
#define LEVELS_IQ2   8, 25, 43, 0
#define LEVELS_IQ3_X 4, 12, 20, 28, 36, 44, 52, 62
#define LEVELS_IQ3_S 1, 3, 5, 7, 9, 11, 13, 15
#define LEVELS_IQ1   -1, 0, 1, 0
#define LEVELS_TQ    -1, 0, 1, 2
#define LEVELS_IQ4   -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define LEVELS_FP4   0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 /* twice the numbers */

static inline uint32_t grid_u16(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static inline uint32_t grid_u32(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* Four signs of seven bits, each for eight elements: the eighth bit makes their number even. One byte for each. */
static inline uint32_t grid_signs(uint32_t s)
{
    s = (s & 0x7f) | (s & 0x3f80) << 1 | (s & 0x1fc000) << 2 | (s & 0xfe00000) << 3;
    uint32_t parity = s ^ s << 4; /* bit 7 of a byte gathers those below it */
    parity ^= parity << 2;
    parity ^= parity << 1;
    return s | (parity & 0x80808080);
}

/* The scale of an IQ1_M block: an f16 whose nibbles are the highest of four words. */
static inline uint16_t grid_iq1_m_scale(const uint8_t *scales)
{
    uint32_t low = grid_u32(scales), high = grid_u32(scales + 4);
    return (uint16_t)((low >> 12 & 0xf) | (low >> 24 & 0xf0) | (high >> 4 & 0xf00) | (high >> 16 & 0xf000));
}

/* Half of what a scale of NVFP4 means: e4m3 whose sign is not looked at; 0x7f is 0. */
static inline float half_ue4m3(uint8_t code)
{
    uint32_t e = code >> 3 & 15, m = code & 7;
    union {
        uint32_t u;
        float f;
    } x = {(e + 119) << 23 | m << 20};
    return code == 0x7f ? 0.0f : e ? x.f : (float)m * 0x1p-10f;
}

#endif
