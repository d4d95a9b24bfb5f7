/* Rows of `packed`: how they are made, and the specification of how they are read. See packed.h for the form.
 *
 * Promises that decoding gives back every bit of what was coded, whatever it was, and that decoding foreign bytes stays
 * inside the row: the place of the list that codes lead to grows by at most 64 for each block, and so does the room that
 * codes and low bytes take. */
#include "store/packed.h"

#include <string.h>

static const packed_form forms[] = {
    {DT_BF16_PACKED3, DT_BF16, 3, 8, 24, 88},
    {DT_BF16_PACKED4, DT_BF16, 4, 16, 32, 96},
    {DT_F16_PACKED3, DT_F16, 3, 8, 48, 112},
};

const packed_form *packed_form_of(dtype t)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (forms[i].type == t) return &forms[i];
    return NULL;
}

bool packed_row_ok(const packed_form *f, uint64_t k, uint64_t row_bytes)
{
    if (k == 0 || k > UINT64_C(1) << 31) return false;
    uint64_t least = packed_row_bytes(f, k, 0);
    return row_bytes >= least && row_bytes - least <= packed_blocks(k) * PACKED_BLOCK;
}

/* ---- a number and its parts --------------------------------------------------------------------------------------- */

static uint16_t number_at(const uint8_t *row, uint64_t i)
{
    return (uint16_t)(row[2 * i] | row[2 * i + 1] << 8);
}

static uint8_t exponent_of(const packed_form *f, uint16_t x)
{
    return (uint8_t)(f->of == DT_BF16 ? x >> 7 & 0xFF : x >> 10 & 31);
}

static uint8_t low_of(const packed_form *f, uint16_t x)
{
    return f->of == DT_BF16 ? (uint8_t)((x >> 8 & 0x80) | (x & 0x7F)) : (uint8_t)x;
}

/* f16: what neither the exponent nor the low byte holds. */
static uint32_t high_of(uint16_t x)
{
    return (x >> 13 & 4) | (x >> 8 & 3);
}

static uint16_t join(const packed_form *f, uint8_t exponent, uint8_t low, uint32_t high)
{
    if (f->of == DT_BF16) return (uint16_t)((low & 0x80) << 8 | exponent << 7 | (low & 0x7F));
    return (uint16_t)((high & 4) << 13 | (exponent & 31u) << 10 | (high & 3) << 8 | low);
}

/* ---- codes -------------------------------------------------------------------------------------------------------- */

static void put3(uint8_t *codes, uint32_t place, uint32_t code)
{
    codes[place % 16] |= (uint8_t)((code & 3) << place / 16 * 2);
    codes[16 + place / 8] |= (uint8_t)((code >> 2) << place % 8);
}

static uint32_t get3(const uint8_t *codes, uint32_t place)
{
    return (codes[place % 16] >> place / 16 * 2 & 3u) | (codes[16 + place / 8] >> place % 8 & 1u) << 2;
}

static void put_code(const packed_form *f, uint8_t *codes, uint32_t place, uint32_t code)
{
    if (f->code_bits == 3)
        put3(codes, place, code);
    else
        codes[place % 32] |= (uint8_t)(code << place / 32 * 4);
}

static uint32_t get_code(const packed_form *f, const uint8_t *codes, uint32_t place)
{
    return f->code_bits == 3 ? get3(codes, place) : codes[place % 32] >> place / 32 * 4 & 15u;
}

/* ---- making ------------------------------------------------------------------------------------------------------- */

/* The most frequent exponents of a row, ascending; of equals the lower. Returns how many elements have others. */
static uint64_t choose(const packed_form *f, const uint8_t *row, uint64_t k, uint8_t *palette)
{
    uint64_t count[4][256], rest = k;
    bool taken[256] = {false};
    memset(count, 0, sizeof count);
    uint64_t i = 0;
    for (; i + 4 <= k; i += 4) /* four, so that equal neighbours do not wait for each other */
        for (uint32_t j = 0; j < 4; j++) count[j][exponent_of(f, number_at(row, i + j))]++;
    for (; i < k; i++) count[0][exponent_of(f, number_at(row, i))]++;
    for (uint32_t e = 0; e < 256; e++) count[0][e] += count[1][e] + count[2][e] + count[3][e];
    for (uint32_t n = 0; n + 1 < f->palette_bytes; n++) {
        uint32_t best = 0;
        while (taken[best]) best++;
        for (uint32_t e = best + 1; e < 256; e++)
            if (!taken[e] && count[0][e] > count[0][best]) best = e;
        taken[best] = true;
        rest -= count[0][best];
    }
    for (uint32_t e = 0, n = 0; e < 256; e++)
        if (taken[e]) palette[n++] = (uint8_t)e;
    palette[f->palette_bytes - 1] = 0;
    return rest;
}

uint32_t packed_escapes(const packed_form *f, const void *row, uint64_t k)
{
    uint8_t palette[16];
    uint64_t rest = choose(f, row, k, palette);
    return k > PACKED_SECTION && rest > UINT16_MAX ? UINT32_MAX : (uint32_t)rest;
}

void packed_encode(const packed_form *f, const void *row, uint64_t k, uint64_t capacity, uint8_t *out)
{
    uint8_t code_of[256];
    uint64_t blocks = packed_blocks(k), n = 0;
    uint8_t *starts = out + f->palette_bytes, *escapes = out + packed_head_bytes(f, k);
    uint8_t *codes = escapes + capacity, *low = codes + blocks * f->code_bytes;
    uint32_t escape = f->palette_bytes - 1;
    memset(out, 0, packed_row_bytes(f, k, capacity));
    choose(f, row, k, out);
    memset(code_of, (int)escape, sizeof code_of);
    for (uint32_t i = 0; i < escape; i++) code_of[out[i]] = (uint8_t)i;
    for (uint64_t b = 0; b < blocks; b++, codes += f->code_bytes, low += PACKED_BLOCK) {
        if (b && b % PACKED_BLOCKS_IN_SECTION == 0) {
            *starts++ = (uint8_t)n;
            *starts++ = (uint8_t)(n >> 8);
        }
        for (uint32_t p = 0; p < PACKED_BLOCK; p++) {
            uint64_t i = b * PACKED_BLOCK + packed_element(f, p);
            if (i >= k) continue;
            uint16_t x = number_at(row, i);
            uint8_t e = exponent_of(f, x);
            put_code(f, codes, p, code_of[e]);
            if (code_of[e] == escape) escapes[n++] = e;
            if (f->of == DT_F16) put3(codes + 24, p, high_of(x));
            low[p] = low_of(f, x);
        }
    }
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

void packed_decode(const packed_form *f, const uint8_t *row, uint64_t row_bytes, uint64_t k, uint64_t k0, uint64_t n,
                   uint16_t *out)
{
    uint64_t blocks = packed_blocks(k), first = k0 / PACKED_SECTION * PACKED_BLOCKS_IN_SECTION;
    const uint8_t *codes = row + row_bytes - blocks * f->block_bytes, *low = codes + blocks * f->code_bytes;
    const uint8_t *escapes = row + packed_head_bytes(f, k);
    uint32_t escape = f->palette_bytes - 1;
    if (first) {
        const uint8_t *start = row + f->palette_bytes + 2 * (k0 / PACKED_SECTION - 1);
        uint64_t before = (uint64_t)start[0] | (uint64_t)start[1] << 8;
        escapes += before < first * PACKED_BLOCK ? before : first * PACKED_BLOCK;
    }
    for (uint64_t b = first; b * PACKED_BLOCK < k0 + n; b++) {
        const uint8_t *c = codes + b * f->code_bytes;
        for (uint32_t p = 0; p < PACKED_BLOCK; p++) {
            uint64_t i = b * PACKED_BLOCK + packed_element(f, p);
            uint32_t code = get_code(f, c, p);
            uint8_t e = code == escape ? *escapes++ : row[code];
            if (i < k0 || i >= k0 + n) continue;
            out[i - k0] = join(f, e, low[b * PACKED_BLOCK + p], f->of == DT_F16 ? get3(c + 24, p) : 0);
        }
    }
}
