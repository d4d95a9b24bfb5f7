/* Owns the bits of the block formats: what the search found into blocks, and back. The formats are those of GGUF
 * (ggml's block_q4_K and its like) and NF4; base/dtype.h says where each bit lies. */
#include <string.h>

#include "store/quantize_format.h"

static void put_f16(uint8_t *out, float x)
{
    uint16_t h = f16_from_f32(x);
    out[0] = (uint8_t)(h & 255);
    out[1] = (uint8_t)(h >> 8);
}

static float get_f16(const uint8_t *in)
{
    return f16_to_f32((uint16_t)(in[0] | in[1] << 8));
}

/* ---- 32 elements with a scale ------------------------------------------------------------------------------------- */

/* Levels of a block, less the lowest: nibbles as Q4_0, then a fifth bit each where there is one. */
static void put_nibbles(uint8_t q[BLOCK_MAX][LANES], uint32_t lane, bool fifth, uint8_t *out)
{
    uint32_t high = 0;
    for (uint32_t i = 0; i < 32; i++) high |= (uint32_t)(q[i][lane] >> 4 & 1) << i;
    if (fifth)
        for (int i = 0; i < 4; i++) *out++ = (uint8_t)(high >> 8 * i);
    for (uint32_t i = 0; i < 16; i++) out[i] = (uint8_t)((q[i][lane] & 15) | q[i + 16][lane] << 4);
}

static void get_nibbles(const uint8_t *in, bool fifth, uint8_t q[32])
{
    const uint8_t *nibbles = fifth ? in + 4 : in;
    for (uint32_t i = 0; i < 16; i++) q[i] = nibbles[i] & 15;
    for (uint32_t i = 0; i < 16; i++) q[16 + i] = nibbles[i] >> 4;
    if (fifth)
        for (uint32_t i = 0; i < 32; i++) q[i] |= (uint8_t)((in[i / 8] >> i % 8 & 1) << 4);
}

void write_symmetric(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out)
{
    grid g;
    uint8_t q[BLOCK_MAX][LANES];
    const bool whole = f->of.high > 100, fifth = f->of.high > 8;
    const int low = (int)f->of.low;
    fit_best()->scales(t, f->of, false, &g);
    fit_best()->levels(t, &g, f->of, q);
    for (uint32_t b = 0; b < n_blocks; b++, out += dtype_table[f->type].block_bytes) {
        put_f16(out, g.scale[b]);
        if (!whole) {
            put_nibbles(q, b, fifth, out + 2);
            continue;
        }
        for (uint32_t i = 0; i < 32; i++) out[2 + i] = (uint8_t)(q[i][b] + low);
    }
}

void read_symmetric(const block_format *f, const uint8_t *block, float *x)
{
    float d = get_f16(block);
    if (f->of.high > 100) {
        for (uint32_t i = 0; i < 32; i++) x[i] = d * (float)(int8_t)block[2 + i];
        return;
    }
    uint8_t q[32];
    get_nibbles(block + 2, f->of.high > 8, q);
    for (uint32_t i = 0; i < 32; i++) x[i] = d * ((float)q[i] + f->of.low);
}

void write_affine(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out)
{
    grid g;
    uint8_t q[BLOCK_MAX][LANES];
    fit_best()->scales(t, f->of, true, &g);
    fit_best()->levels(t, &g, f->of, q);
    for (uint32_t b = 0; b < n_blocks; b++, out += dtype_table[f->type].block_bytes) {
        put_f16(out, g.scale[b]);
        put_f16(out + 2, -g.minus[b]);
        put_nibbles(q, b, f->of.high > 15, out + 4);
    }
}

void read_affine(const block_format *f, const uint8_t *block, float *x)
{
    float d = get_f16(block), m = get_f16(block + 2);
    uint8_t q[32];
    get_nibbles(block + 4, f->of.high > 15, q);
    for (uint32_t i = 0; i < 32; i++) x[i] = d * (float)q[i] + m;
}

/* ---- super-blocks of 256 ------------------------------------------------------------------------------------------ */

/* Scales and minimums of Q4_K, Q5_K: of the first four sub-blocks six bits each in a byte of their own, of the last
 * four the low four bits in a byte for both, the upper two above the first four's. */
static void put_multiples(const super *s, uint8_t out[12])
{
    memset(out, 0, 12);
    for (int i = 0; i < 4; i++) {
        int a = (int)s->scale[0][i], b = (int)s->minus[0][i], c = (int)s->scale[0][i + 4], d = (int)s->minus[0][i + 4];
        out[i] = (uint8_t)(a | c >> 4 << 6);
        out[i + 4] = (uint8_t)(b | d >> 4 << 6);
        out[i + 8] = (uint8_t)((c & 15) | (d & 15) << 4);
    }
}

static void get_multiples(const uint8_t in[12], super *s)
{
    for (int i = 0; i < 4; i++) {
        s->scale[0][i] = (float)(in[i] & 63);
        s->minus[0][i] = (float)(in[i + 4] & 63);
        s->scale[0][i + 4] = (float)((in[i + 8] & 15) | in[i] >> 6 << 4);
        s->minus[0][i + 4] = (float)(in[i + 8] >> 4 | in[i + 4] >> 6 << 4);
    }
}

void write_super_affine(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out)
{
    super s;
    grid g;
    uint8_t q[BLOCK_MAX][LANES];
    (void)n_blocks;
    fit_best()->super_affine(t, f->of, &s);
    fit_best()->super_grid(&s, 0, &g);
    fit_best()->levels(t, &g, f->of, q);
    memset(out, 0, dtype_table[f->type].block_bytes);
    put_f16(out, s.d);
    put_f16(out + 2, s.m);
    put_multiples(&s, out + 4);
    const bool fifth = f->of.high > 15;
    uint8_t *high = out + 16, *low = fifth ? out + 48 : out + 16;
    for (uint32_t i = 0; i < 32; i++) {
        for (uint32_t b = 0; b < 8; b += 2) low[16 * b + i] = (uint8_t)((q[i][b] & 15) | q[i][b + 1] << 4);
        if (!fifth) continue;
        uint32_t bits = 0;
        for (uint32_t b = 0; b < 8; b++) bits |= (uint32_t)(q[i][b] >> 4) << b;
        high[i] = (uint8_t)bits;
    }
}

void read_super_affine(const block_format *f, const uint8_t *block, float *x)
{
    super s;
    grid g;
    s.d = get_f16(block);
    s.m = get_f16(block + 2);
    get_multiples(block + 4, &s);
    fit_best()->super_grid(&s, 0, &g);
    bool fifth = f->of.high > 15;
    const uint8_t *high = block + 16, *low = fifth ? block + 48 : block + 16;
    for (uint32_t b = 0; b < 8; b++, x += 32) {
        uint8_t level[32];
        for (uint32_t i = 0; i < 32; i++) level[i] = low[32 * (b / 2) + i] >> (b % 2 * 4) & 15;
        if (fifth)
            for (uint32_t i = 0; i < 32; i++) level[i] |= (uint8_t)((high[i] >> b & 1) << 4);
        for (uint32_t i = 0; i < 32; i++) x[i] = g.scale[b] * (float)level[i] - g.minus[b];
    }
}

void write_q6_k(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out)
{
    super s;
    grid g;
    uint8_t q[2][BLOCK_MAX][LANES], *low = out, *high = out + 128, *scales = out + 192;
    (void)n_blocks;
    fit_best()->super_symmetric(t, f->of, &s);
    memset(out, 0, dtype_table[f->type].block_bytes);
    put_f16(out + 208, s.d);
    for (int i = 0; i < 2; i++) {
        fit_best()->super_grid(&s, i, &g);
        fit_best()->levels(&t[i], &g, f->of, q[i]);
        for (int l = 0; l < LANES; l++) scales[i * LANES + l] = (uint8_t)(int)s.scale[i][l];
    }
    for (uint32_t k = 0; k < 2; k++, low += 64, high += 32) {
        for (uint32_t i = 0; i < 16; i++) {
            const uint8_t *l = q[k][i]; /* of elements i, 16 + i, ..., 112 + i */
            for (uint32_t b = 0; b < 4; b++) low[16 * b + i] = (uint8_t)((l[b] & 15) | l[b + 4] << 4);
            for (uint32_t b = 0; b < 2; b++)
                high[16 * b + i] = (uint8_t)(l[b] >> 4 | l[b + 2] >> 4 << 2 | l[b + 4] >> 4 << 4 | l[b + 6] >> 4 << 6);
        }
    }
}

void read_q6_k(const block_format *f, const uint8_t *block, float *x)
{
    const uint8_t *low = block, *high = block + 128, *scales = block + 192;
    float d = get_f16(block + 208);
    for (uint32_t b = 0; b < 16; b++, x += 16) {
        const uint8_t *nibbles = low + 64 * (b / 8) + 16 * (b % 4), *pairs = high + 32 * (b / 8) + 16 * (b % 2);
        const float scale = d * (float)(int8_t)scales[b];
        uint8_t level[16];
        for (uint32_t i = 0; i < 16; i++)
            level[i] = (uint8_t)((nibbles[i] >> (b / 4 % 2 * 4) & 15) | (pairs[i] >> (b / 2 % 4 * 2) & 3) << 4);
        for (uint32_t i = 0; i < 16; i++) x[i] = scale * ((float)level[i] + f->of.low);
    }
}

/* ---- NF4 ---------------------------------------------------------------------------------------------------------- */

void write_nf4(const block_format *f, const tile *t, uint32_t n_blocks, uint8_t *out)
{
    grid g;
    uint8_t q[BLOCK_MAX][LANES];
    fit_best()->scales(t, f->of, false, &g);
    fit_best()->levels(t, &g, f->of, q);
    for (uint32_t b = 0; b < n_blocks; b++, out += dtype_table[f->type].block_bytes) {
        put_f16(out, g.scale[b]);
        for (uint32_t i = 0; i < 32; i++) out[2 + i] = (uint8_t)(q[2 * i][b] << 4 | q[2 * i + 1][b]);
    }
}

void read_nf4(const block_format *f, const uint8_t *block, float *x)
{
    float d = get_f16(block);
    (void)f;
    for (uint32_t i = 0; i < 64; i++) x[i] = d * nf4_levels[block[2 + i / 2] >> (i % 2 ? 0 : 4) & 15];
}
