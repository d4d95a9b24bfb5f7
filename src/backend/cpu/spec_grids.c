/* The scalar specification of grids.h's types: one element of one row, as gguf's reference (gguf/quants.py) dequantises
 * it, factor by factor. It is never optimised. */
#include "grids.h"

#include <math.h>

static const float levels_iq4[16] = {LEVELS_IQ4}, levels_fp4[16] = {LEVELS_FP4}, levels_nf4[16] = {LEVELS_NF4};
static const float levels_iq2[4] = {LEVELS_IQ2}, levels_iq1[4] = {LEVELS_IQ1}, levels_tq[4] = {LEVELS_TQ};
static const float levels_iq3_x[8] = {LEVELS_IQ3_X}, levels_iq3_s[8] = {LEVELS_IQ3_S};

static float half_at(const uint8_t *p)
{
    return f16_to_f32((uint16_t)grid_u16(p));
}

/* Nibble n of bytes. */
static uint32_t nibble(const uint8_t *p, uint64_t n)
{
    return n % 2 ? p[n / 2] >> 4 : p[n / 2] & 15;
}

/* Element i of 32 whose nibbles lie as in Q4_0. */
static uint32_t apart(const uint8_t *q, uint64_t i)
{
    return i < 16 ? q[i] & 15 : q[i - 16] >> 4;
}

static float negated(float x, bool is)
{
    return is ? -x : x;
}

/* Sign i of 32 in 4 x 7 bits. */
static bool sign_of(uint32_t signs, uint64_t i)
{
    uint32_t seven = signs >> i / 8 * 7 & 127, ones = 0;
    for (uint32_t b = 0; b < 7; b++) ones += seven >> b & 1;
    return i % 8 < 7 ? seven >> i % 8 & 1 : ones % 2;
}

/* Element i of 8, or of 4, of an entry. */
static float of_eight(uint16_t entry, const float *levels, uint64_t i)
{
    return levels[entry >> 2 * (i % 8) & 3];
}

static float of_four(uint16_t entry, const float *levels, uint64_t i)
{
    return levels[entry >> 4 * (i % 4) & 7];
}

static float iq4_nl(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 32 * 18;
    return half_at(b) * levels_iq4[apart(b + 2, i % 32)];
}

/* From here on: b is the block, g the group of 32 in it, i the element of the group. */
static float iq4_xs(const uint8_t *b, uint64_t g, uint64_t i)
{
    uint32_t s = nibble(b + 4, g) | (grid_u16(b + 2) >> 2 * g & 3) << 4;
    return half_at(b) * ((float)s - 32.0f) * levels_iq4[apart(b + 8 + 16 * g, i)];
}

static float iq2_xxs(const uint8_t *b, uint64_t g, uint64_t i)
{
    const uint8_t *q = b + 2 + 8 * g;
    uint32_t signs = grid_u32(q + 4);
    float d = half_at(b) * (0.5f + (float)(signs >> 28)) * 0.25f;
    return negated(d * of_eight(grid_iq2_xxs[q[i / 8]], levels_iq2, i), sign_of(signs, i));
}

static float iq2_xs(const uint8_t *b, uint64_t g, uint64_t i)
{
    uint32_t q = grid_u16(b + 2 + 2 * (4 * g + i / 8));
    float d = half_at(b) * (0.5f + (float)nibble(b + 66, 2 * g + i / 16)) * 0.25f;
    return negated(d * of_eight(grid_iq2_xs[q & 511], levels_iq2, i), sign_of(q >> 9, i % 8));
}

static float iq2_s(const uint8_t *b, uint64_t g, uint64_t i)
{
    uint32_t q = b[2 + 4 * g + i / 8] | (uint32_t)(b[66 + g] >> i / 8 * 2 & 3) << 8;
    float d = half_at(b) * (0.5f + (float)nibble(b + 74, 2 * g + i / 16)) * 0.25f;
    return negated(d * of_eight(grid_iq2_s[q], levels_iq2, i), b[34 + 4 * g + i / 8] >> i % 8 & 1);
}

static float iq3_xxs(const uint8_t *b, uint64_t g, uint64_t i)
{
    uint32_t signs = grid_u32(b + 66 + 4 * g);
    float d = half_at(b) * (0.5f + (float)(signs >> 28)) * 0.5f;
    return negated(d * of_four(grid_iq3_xxs[b[2 + 8 * g + i / 4]], levels_iq3_x, i), sign_of(signs, i));
}

static float iq3_s(const uint8_t *b, uint64_t g, uint64_t i)
{
    uint32_t q = b[2 + 8 * g + i / 4] | (uint32_t)(b[66 + g] >> i / 4 & 1) << 8;
    float d = half_at(b) * (1.0f + 2.0f * (float)nibble(b + 106, g));
    return negated(d * of_four(grid_iq3_s[q], levels_iq3_s, i), b[74 + 4 * g + i / 8] >> i % 8 & 1);
}

static float iq1_s(const uint8_t *b, uint64_t g, uint64_t i)
{
    uint32_t h = grid_u16(b + 34 + 2 * g), q = b[2 + 4 * g + i / 8] | (h >> i / 8 * 3 & 7) << 8;
    float d = half_at(b) * (2.0f * (float)(h >> 12 & 7) + 1.0f);
    return d * (of_eight(grid_iq1[q], levels_iq1, i) + negated(0.125f, h >> 15));
}

static float iq1_m(const uint8_t *b, uint64_t g, uint64_t i)
{
    uint32_t h = nibble(b + 32, 4 * g + i / 8), q = b[4 * g + i / 8] | (h & 7) << 8;
    uint32_t s = grid_u16(b + 48 + g / 2 * 2) >> (g % 2 * 6 + i / 16 * 3) & 7;
    float d = f16_to_f32(grid_iq1_m_scale(b + 48)) * (2.0f * (float)s + 1.0f);
    return d * (of_eight(grid_iq1[q], levels_iq1, i) + negated(0.125f, h >> 3));
}

static float tq1_0(const uint8_t *b, uint64_t g, uint64_t i)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    uint64_t n = 32 * g + i, width = n < 160 ? 32 : n < 240 ? 16 : 4, at = n < 160 ? 0 : n < 240 ? 160 : 240;
    uint8_t q = b[at / 5 + (n - at) % width];
    uint32_t digit = (uint32_t)(uint8_t)(q * power[(n - at) / width]) * 3 >> 8;
    return half_at(b + 52) * ((float)digit - 1.0f);
}

static float tq2_0(const uint8_t *b, uint64_t g, uint64_t i)
{
    return half_at(b + 64) * levels_tq[b[g / 4 * 32 + i] >> g % 4 * 2 & 3];
}

static float nvfp4(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 64 * 36, *q = b + 4 + i % 64 / 16 * 8;
    return half_ue4m3(b[i % 64 / 16]) * levels_fp4[i % 16 < 8 ? q[i % 8] & 15 : q[i % 8] >> 4];
}

static float nf4(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 64 * 34;
    return half_at(b) * levels_nf4[i % 2 ? b[2 + i % 64 / 2] & 15 : b[2 + i % 64 / 2] >> 4];
}

typedef float (*element_fn)(const uint8_t *b, uint64_t g, uint64_t i);

float spec_grid_weight(dtype type, const uint8_t *row, uint64_t i)
{
    static const element_fn of_256[DT_WEIGHTS] = {
        [DT_IQ4_XS] = iq4_xs, [DT_IQ2_XXS] = iq2_xxs, [DT_IQ2_XS] = iq2_xs, [DT_IQ2_S] = iq2_s, [DT_IQ3_XXS] = iq3_xxs,
        [DT_IQ3_S] = iq3_s,   [DT_IQ1_S] = iq1_s,     [DT_IQ1_M] = iq1_m,   [DT_TQ1_0] = tq1_0, [DT_TQ2_0] = tq2_0,
    };
    if (type == DT_IQ4_NL) return iq4_nl(row, i);
    if (type == DT_NVFP4) return nvfp4(row, i);
    if (type == DT_NF4) return nf4(row, i);
    if (!of_256[type]) return NAN;
    return of_256[type](row + i / 256 * dtype_table[type].block_bytes, i % 256 / 32, i % 32);
}
