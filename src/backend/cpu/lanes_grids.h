/* How a group of 32 elements of grids.h's types is widened, once for all vector levels. Included by lanes.h.
 *
 * Codes become numbers by looking them up in a register of levels. Before inclusion, beside lanes.h's own:
 *   levels levels_4(a .. d), levels_8(a .. h); wide_levels levels_16(a ..)   integers of a byte
 *   v16 codes_2(uint32_t codes, levels, float scale)   scale * level of sixteen codes of two bits, the first the lowest
 *   v16 codes_4(uint64_t codes, levels, float scale)   the same of four bits, the highest of which is 0
 *   v16 bytes_2(const uint8_t *q, uint32_t shift, levels, float scale)   the same of two bits at `shift` of sixteen bytes
 *   v32 nibbles_of(const uint8_t *q, wide_levels, float scale)   the low nibbles of sixteen bytes, then the high ones
 *   v16 trits(const uint8_t *q, uint32_t power, float scale)   scale * (digit - 1), see DT_TQ1_0
 *   float half_float(uint16_t)            an f16
 *   v16 v16_two(float a, float b)         a in the first eight lanes, b in the others
 *   v16 v16_flip(v16 x, uint32_t signs)   negates lane i where bit i is set, i < 16
 *   v32 v32_cross(v32 x)                  exchanges the second half of lo with the first of hi */
#include "grids.h"

INLINE float half_scale(const uint8_t *p)
{
    return half_float((uint16_t)grid_u16(p));
}

INLINE v32 flip_32(v16 lo, v16 hi, uint32_t signs)
{
    return (v32){v16_flip(lo, signs & 0xffff), v16_flip(hi, signs >> 16)};
}

/* Two entries of eight elements. */
INLINE uint32_t entries_8(const uint16_t *grid, uint32_t a, uint32_t b)
{
    return grid[a] | (uint32_t)grid[b] << 16;
}

/* Four entries of four elements. */
INLINE uint64_t entries_4(const uint16_t *grid, const uint32_t i[4])
{
    return (grid[i[0]] | (uint32_t)grid[i[1]] << 16) | (uint64_t)(grid[i[2]] | (uint32_t)grid[i[3]] << 16) << 32;
}

INLINE v32 load32_iq4_nl(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g * 18;
    return nibbles_of(b + 2, levels_16(LEVELS_IQ4), half_scale(b));
}

/* Nibbles and pairs of bits are spread over the bytes of a word. */
INLINE void ready_iq4_xs(const uint8_t *b, stretch *s)
{
    uint64_t low = grid_u32(b + 4), high = grid_u16(b + 2);
    low = (low | low << 16) & UINT64_C(0x0000ffff0000ffff);
    low = (low | low << 8) & UINT64_C(0x00ff00ff00ff00ff);
    low = (low | low << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    high = (high | high << 24) & UINT64_C(0x000000ff000000ff);
    high = (high | high << 12) & UINT64_C(0x000f000f000f000f);
    high = (high | high << 6) & UINT64_C(0x0303030303030303);
    v16 scale = v16_sub(v16_of_bytes(low | high << 4, 0), v16_set1(32.0f));
    v16_store(s->scale, v16_mul(v16_set1(half_scale(b)), scale));
}

INLINE v32 part_iq4_xs(const uint8_t *b, const stretch *s, uint32_t i)
{
    return nibbles_of(b + 8 + 16 * i, levels_16(LEVELS_IQ4), s->scale[i]);
}

INLINE v32 load32_iq2_xxs(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 66, *q = b + 2 + 8 * (g % 8);
    uint32_t s = grid_u32(q + 4);
    float d = half_scale(b) * (0.5f + (float)(s >> 28)) * 0.25f;
    return flip_32(codes_2(entries_8(grid_iq2_xxs, q[0], q[1]), levels_4(LEVELS_IQ2), d),
                   codes_2(entries_8(grid_iq2_xxs, q[2], q[3]), levels_4(LEVELS_IQ2), d), grid_signs(s));
}

/* Scales of the halves of a group, from a byte of two. */
INLINE v32 of_halves(const uint8_t *b, uint8_t s, const uint32_t codes[2], uint32_t signs)
{
    float d = half_scale(b) * 0.25f;
    return flip_32(codes_2(codes[0], levels_4(LEVELS_IQ2), d * (0.5f + (float)(s & 15))),
                   codes_2(codes[1], levels_4(LEVELS_IQ2), d * (0.5f + (float)(s >> 4))), signs);
}

INLINE v32 load32_iq2_xs(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 74, *q = b + 2 + 8 * (g % 8);
    uint32_t lo = grid_u32(q), hi = grid_u32(q + 4);
    uint32_t codes[2] = {entries_8(grid_iq2_xs, lo & 511, lo >> 16 & 511),
                         entries_8(grid_iq2_xs, hi & 511, hi >> 16 & 511)};
    uint32_t signs = (lo >> 9 & 127) | (lo >> 25) << 7 | (hi >> 9 & 127) << 14 | (hi >> 25) << 21;
    return of_halves(b, b[66 + g % 8], codes, grid_signs(signs));
}

INLINE v32 load32_iq2_s(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 82, *q = b + 2 + 4 * (g % 8);
    uint32_t h = b[66 + g % 8];
    uint32_t codes[2] = {entries_8(grid_iq2_s, q[0] | (h & 3) << 8, q[1] | (h >> 2 & 3) << 8),
                         entries_8(grid_iq2_s, q[2] | (h >> 4 & 3) << 8, q[3] | (h >> 6) << 8)};
    return of_halves(b, b[74 + g % 8], codes, grid_u32(q + 32));
}

INLINE v32 load32_iq3_xxs(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 98, *q = b + 2 + 8 * (g % 8);
    uint32_t s = grid_u32(b + 66 + 4 * (g % 8));
    float d = half_scale(b) * (0.5f + (float)(s >> 28)) * 0.5f;
    uint32_t lo[4] = {q[0], q[1], q[2], q[3]}, hi[4] = {q[4], q[5], q[6], q[7]};
    return flip_32(codes_4(entries_4(grid_iq3_xxs, lo), levels_8(LEVELS_IQ3_X), d),
                   codes_4(entries_4(grid_iq3_xxs, hi), levels_8(LEVELS_IQ3_X), d), grid_signs(s));
}

INLINE v32 load32_iq3_s(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 110, *q = b + 2 + 8 * (g % 8);
    uint32_t j = g % 8, h = b[66 + j];
    float d = half_scale(b) * (1.0f + 2.0f * (float)(b[106 + j / 2] >> 4 * (j % 2) & 15));
    uint32_t lo[4] = {q[0] | (h << 8 & 256), q[1] | (h << 7 & 256), q[2] | (h << 6 & 256), q[3] | (h << 5 & 256)};
    uint32_t hi[4] = {q[4] | (h << 4 & 256), q[5] | (h << 3 & 256), q[6] | (h << 2 & 256), q[7] | (h << 1 & 256)};
    return flip_32(codes_4(entries_4(grid_iq3_s, lo), levels_8(LEVELS_IQ3_S), d),
                   codes_4(entries_4(grid_iq3_s, hi), levels_8(LEVELS_IQ3_S), d), grid_u32(b + 74 + 4 * j));
}

/* Eighths: grid - 1/8 and grid + 1/8 are whole. */
INLINE v32 load32_iq1_s(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 50, *q = b + 2 + 4 * (g % 8);
    uint32_t h = grid_u16(b + 34 + 2 * (g % 8));
    float d = half_scale(b) * (2.0f * (float)(h >> 12 & 7) + 1.0f) * 0.125f;
    uint32_t lo = entries_8(grid_iq1, q[0] | (h << 8 & 0x700), q[1] | (h << 5 & 0x700));
    uint32_t hi = entries_8(grid_iq1, q[2] | (h << 2 & 0x700), q[3] | (h >> 1 & 0x700));
    levels l = h >> 15 ? levels_4(-9, -1, 7, 0) : levels_4(-7, 1, 9, 0);
    return (v32){codes_2(lo, l, d), codes_2(hi, l, d)};
}

/* Sixteen elements, the eighths' signs in bits 3 and 7 of h. */
INLINE v16 iq1_m_half(const uint8_t *q, uint32_t h, float d)
{
    static const float eighth[2] = {1.0f, -1.0f};
    uint32_t codes = entries_8(grid_iq1, q[0] | (h << 8 & 0x700), q[1] | (h << 4 & 0x700));
    v16 x = v16_add(codes_2(codes, levels_4(-8, 0, 8, 0), 1.0f), v16_two(eighth[h >> 3 & 1], eighth[h >> 7]));
    return v16_mul(v16_set1(d * 0.125f), x);
}

INLINE v32 load32_iq1_m(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 56, *q = b + 4 * (g % 8), *h = b + 32 + 2 * (g % 8);
    uint32_t s = grid_u16(b + 48 + g % 8 / 2 * 2) >> 6 * (g % 2);
    float d = half_float(grid_iq1_m_scale(b + 48));
    return (v32){iq1_m_half(q, h[0], d * (float)(2 * (s & 7) + 1)),
                 iq1_m_half(q + 2, h[1], d * (float)(2 * (s >> 3 & 7) + 1))};
}

INLINE v32 load32_tq1_0(weight_row w, uint64_t g)
{
    static const uint8_t power[6] = {1, 3, 9, 27, 81, 0};
    const uint8_t *b = w.data + g / 8 * 54;
    uint32_t j = g % 8;
    float d = half_scale(b + 52);
    if (j < 5) return (v32){trits(b, power[j], d), trits(b + 16, power[j], d)};
    if (j < 7) return (v32){trits(b + 32, power[2 * j - 10], d), trits(b + 32, power[2 * j - 9], d)};
    uint8_t rest[16]; /* of the four digits of the last four bytes */
    for (uint32_t i = 0; i < 16; i++) rest[i] = (uint8_t)(b[48 + i % 4] * power[i / 4]);
    return (v32){trits(b + 32, 81, d), trits(rest, 1, d)};
}

INLINE v32 load32_tq2_0(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 8 * 66, *q = b + g % 8 / 4 * 32;
    uint32_t shift = g % 4 * 2;
    float d = half_scale(b + 64);
    return (v32){bytes_2(q, shift, levels_4(LEVELS_TQ), d), bytes_2(q + 16, shift, levels_4(LEVELS_TQ), d)};
}

INLINE v32 load32_nvfp4(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 2 * 36, *s = b + 2 * (g % 2);
    v32 x = v32_cross(nibbles_of(b + 4 + 16 * (g % 2), levels_16(LEVELS_FP4), 1.0f));
    return (v32){v16_mul(v16_set1(half_ue4m3(s[0])), x.lo), v16_mul(v16_set1(half_ue4m3(s[1])), x.hi)};
}

/* As bitsandbytes' pairs whose one scale is the block's. */
INLINE v32 load32_nf4(weight_row w, uint64_t g)
{
    const uint8_t *b = w.data + g / 2 * 34;
    float d = half_scale(b);
    weight_row pairs = {.data = b + 2 + 16 * (g % 2), .side = &d, .shift = 63};
    return load32_nf4_pairs(pairs, 0);
}
