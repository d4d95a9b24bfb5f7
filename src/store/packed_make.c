/* Making rows of `packed`, and comparing them with what they were made of.
 *
 * Owns the choice of a row's palette and the fast ways there and back, a block of 64 at a time: first in the order of
 * elements, in loops over bytes that compilers turn into vectors of any width, then moved to their places, eight at a
 * time. What a row means is packed.c's; packed_is() is a second reading of it, made for speed, so that packing can
 * afford to look at everything it has written. */
#include "store/packed_fast.h"

#include <string.h>

enum { BLOCK = PACKED_BLOCK, HALF = BLOCK / 2, LANE = 8 };

/* ---- the palette -------------------------------------------------------------------------------------------------- */

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void store64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static inline void count_numbers(const uint8_t *row, uint64_t k, unsigned shift, uint64_t mask, uint32_t count[4][256])
{
    uint64_t i = 0;
    for (; i + 4 <= k; i += 4) { /* four tables, so that equal neighbours do not wait for each other */
        uint64_t x = load64(row + 2 * i) >> shift;
        count[0][x & mask]++;
        count[1][x >> 16 & mask]++;
        count[2][x >> 32 & mask]++;
        count[3][x >> 48 & mask]++;
    }
    for (; i < k; i++) count[0][(uint32_t)(row[2 * i] | row[2 * i + 1] << 8) >> shift & mask]++;
}

void packed_count(const packed_form *f, const void *row, uint64_t k, packed_counts *out)
{
    uint32_t count[4][256] = {{0}};
    if (f->of == DT_BF16)
        count_numbers(row, k, 7, 0xFF, count);
    else
        count_numbers(row, k, 10, 31, count);
    for (uint32_t e = 0; e < 256; e++) out->n[e] = count[0][e] + count[1][e] + count[2][e] + count[3][e];
}

/* The most frequent exponents, ascending; of equals the lower. Returns how many elements have one of them. */
static uint64_t choose(const packed_form *f, const packed_counts *c, uint8_t *palette)
{
    uint8_t best[16];
    uint32_t n = 0, most = f->palette_bytes - 1;
    uint64_t covered = 0;
    bool taken[256] = {false};
    for (uint32_t e = 0; e < 256; e++) {
        if (!c->n[e] || (n == most && c->n[e] <= c->n[best[n - 1]])) continue;
        uint32_t at = n < most ? n++ : n - 1;
        for (; at > 0 && c->n[best[at - 1]] < c->n[e]; at--) best[at] = best[at - 1];
        best[at] = (uint8_t)e;
    }
    for (uint32_t e = 0; n < most; e++) /* a row of fewer: the lowest that it has not */
        if (!c->n[e]) best[n++] = (uint8_t)e;
    for (uint32_t i = 0; i < most; i++) {
        taken[best[i]] = true;
        covered += c->n[best[i]];
    }
    for (uint32_t e = 0, i = 0; i < most; e++)
        if (taken[e]) palette[i++] = (uint8_t)e;
    palette[most] = 0;
    return covered;
}

uint32_t packed_escapes_of(const packed_form *f, const packed_counts *c, uint64_t k)
{
    uint8_t palette[16];
    uint64_t rest = k - choose(f, c, palette);
    return k > PACKED_SECTION && rest > UINT16_MAX ? UINT32_MAX : (uint32_t)rest;
}

uint32_t packed_escapes(const packed_form *f, const void *row, uint64_t k)
{
    packed_counts c;
    packed_count(f, row, k, &c);
    return packed_escapes_of(f, &c, k);
}

/* ---- elements and places ------------------------------------------------------------------------------------------ */

/* Places in lanes of eight: lane 2 i + h of bf16 interleaves elements 32 h + 4 i ... and 32 h + 16 + 4 i ...; of f16 it
 * is elements 32 h + 8 i ... (packed_element). */
static inline void to_places(bool bf16, const uint8_t *elements, uint8_t *places)
{
    for (uint32_t h = 0; h < 2; h++) {
        uint8_t mixed[HALF];
        const uint8_t *from = elements + h * HALF;
        for (uint32_t i = 0; i < HALF / 2 && bf16; i++) {
            mixed[2 * i] = from[i];
            mixed[2 * i + 1] = from[i + HALF / 2];
        }
        for (uint32_t i = 0; i < 4; i++) memcpy(places + (2 * i + h) * LANE, (bf16 ? mixed : from) + i * LANE, LANE);
    }
}

static inline void to_elements(bool bf16, const uint8_t *places, uint8_t *elements)
{
    for (uint32_t h = 0; h < 2; h++) {
        uint8_t mixed[HALF], *to = elements + h * HALF;
        for (uint32_t i = 0; i < 4; i++) memcpy((bf16 ? mixed : to) + i * LANE, places + (2 * i + h) * LANE, LANE);
        for (uint32_t i = 0; i < HALF / 2 && bf16; i++) {
            to[i] = mixed[2 * i];
            to[i + HALF / 2] = mixed[2 * i + 1];
        }
    }
}

/* Three bits of each of 64 places. */
static inline void put3(const uint8_t *c, uint8_t *out)
{
    for (uint32_t j = 0; j < 16; j++)
        out[j] = (uint8_t)((c[j] & 3) | (c[16 + j] & 3) << 2 | (c[32 + j] & 3) << 4 | (c[48 + j] & 3) << 6);
    for (uint32_t i = 0; i < LANE; i++) /* the top bits of eight bytes become one byte */
        out[16 + i] = (uint8_t)((load64(c + LANE * i) >> 2 & 0x0101010101010101) * 0x0102040810204080 >> 56);
}

static inline void get3(const uint8_t *codes, uint8_t *c)
{
    for (uint32_t i = 0; i < LANE; i++) {
        uint64_t low = load64(codes + i % 2 * LANE) >> i / 2 * 2 & 0x0303030303030303;
        uint64_t top = codes[16 + i] * UINT64_C(0x0101010101010101) & 0x8040201008040201;
        top |= (top & 0x7F7F7F7F7F7F7F7F) + 0x7F7F7F7F7F7F7F7F; /* bit 7 of what is not zero */
        store64(c + LANE * i, low | (top >> 5 & 0x0404040404040404));
    }
}

static inline void put4(const uint8_t *c, uint8_t *out)
{
    for (uint32_t j = 0; j < 32; j++) out[j] = (uint8_t)(c[j] | c[32 + j] << 4);
}

static inline void get4(const uint8_t *codes, uint8_t *c)
{
    for (uint32_t i = 0; i < HALF; i += LANE) {
        uint64_t x = load64(codes + i);
        store64(c + i, x & 0x0F0F0F0F0F0F0F0F);
        store64(c + HALF + i, x >> 4 & 0x0F0F0F0F0F0F0F0F);
    }
}

/* Bit 7 of each byte of x that is `value`. */
static inline uint64_t equal_bytes(uint64_t x, uint8_t value)
{
    x ^= value * UINT64_C(0x0101010101010101);
    return ~(((x & 0x7F7F7F7F7F7F7F7F) + 0x7F7F7F7F7F7F7F7F) | x | 0x7F7F7F7F7F7F7F7F);
}

/* ---- there -------------------------------------------------------------------------------------------------------- */

typedef struct parts { /* of 64 numbers, in the order of elements */
    uint8_t exponent[BLOCK], low[BLOCK], high[BLOCK];
} parts;

static inline void split(bool bf16, const uint16_t *x, parts *p)
{
    for (uint32_t i = 0; i < BLOCK; i++) {
        p->exponent[i] = (uint8_t)(bf16 ? x[i] >> 7 & 0xFF : x[i] >> 10 & 31);
        p->low[i] = (uint8_t)(bf16 ? (x[i] >> 8 & 0x80) | (x[i] & 0x7F) : x[i]);
        p->high[i] = (uint8_t)(bf16 ? 0 : (x[i] >> 13 & 4) | (x[i] >> 8 & 3));
    }
}

/* Codes of n numbers, in the order of elements; 0 behind them. */
static inline void code(uint32_t escape, const uint8_t *palette, const uint8_t *exponent, uint64_t n, uint8_t *c)
{
    memset(c, (int)escape, BLOCK);
    for (uint32_t e = 0; e < escape; e++) {
        const uint8_t is = palette[e], to = (uint8_t)e;
        for (uint32_t i = 0; i < BLOCK; i++) c[i] = exponent[i] == is ? to : c[i];
    }
    if (n < BLOCK) memset(c + n, 0, BLOCK - n);
}

/* Exponents of the places whose code is `escape`, to *list, which has room for them. */
static inline void put_escapes(const packed_form *f, const uint8_t *codes, const uint8_t *exponent, uint8_t **list)
{
    for (uint32_t i = 0; i < BLOCK; i += LANE)
        for (uint64_t m = equal_bytes(load64(codes + i), (uint8_t)(f->palette_bytes - 1)); m; m &= m - 1)
            *(*list)++ = exponent[packed_element(f, i + (uint32_t)__builtin_ctzll(m) / 8)];
}

static inline void encode_block(const packed_form *f, bool bf16, uint32_t bits, const uint8_t *palette,
                                const uint16_t *x, uint64_t n, uint8_t *codes, uint8_t *low, uint8_t **list)
{
    parts p;
    uint8_t c[BLOCK], placed[BLOCK];
    split(bf16, x, &p);
    code(bits == 3 ? 7 : 15, palette, p.exponent, n, c);
    to_places(bf16, c, placed);
    to_places(bf16, p.low, low);
    put_escapes(f, placed, p.exponent, list);
    if (bits == 3)
        put3(placed, codes);
    else
        put4(placed, codes);
    if (bf16) return;
    to_places(bf16, p.high, placed);
    put3(placed, codes + 24);
}

static void take_block(const uint8_t *row, uint64_t n, uint16_t *x)
{
    if (n < BLOCK) memset(x, 0, 2 * BLOCK);
    for (uint64_t i = 0; i < n; i++) x[i] = (uint16_t)(row[2 * i] | row[2 * i + 1] << 8);
}

/* NULL where the row or the machine is not for it. */
static const packed_fast *fast_for(const packed_form *f, const uint8_t *palette)
{
    bool near = palette[6] - palette[0] <= PACKED_FAST_SPAN && palette[0] <= PACKED_FAST_FIRST;
    return f->type == DT_BF16_PACKED3 && near ? packed_fast_best() : NULL;
}

/* n numbers, at most a section's. Returns where the list of escapes ends. */
static uint8_t *encode_section(const packed_form *f, const uint8_t *palette, const uint8_t *row, uint64_t n,
                               uint8_t *codes, uint8_t *low, uint8_t *list)
{
    const packed_fast *fast = fast_for(f, palette);
    uint64_t b = fast ? n / BLOCK : 0;
    if (b) list = fast->encode(palette, row, b, codes, low, list);
    for (; b * BLOCK < n; b++) {
        uint16_t x[BLOCK];
        uint64_t left = n - b * BLOCK, take = left < BLOCK ? left : BLOCK;
        uint8_t *c = codes + b * f->code_bytes, *l = low + b * BLOCK;
        take_block(row + 2 * BLOCK * b, take, x);
        if (f->of == DT_F16)
            encode_block(f, false, 3, palette, x, take, c, l, &list);
        else if (f->code_bits == 3)
            encode_block(f, true, 3, palette, x, take, c, l, &list);
        else
            encode_block(f, true, 4, palette, x, take, c, l, &list);
    }
    return list;
}

bool packed_encode(const packed_form *f, const void *row, uint64_t k, uint64_t capacity, uint8_t *out)
{
    uint64_t blocks = packed_blocks(k);
    uint8_t *starts = out + f->palette_bytes, *escapes = out + packed_head_bytes(f, k), *list = escapes;
    uint8_t *codes = escapes + capacity, *low = codes + blocks * f->code_bytes;
    packed_counts c;
    packed_count(f, row, k, &c);
    uint64_t n = k - choose(f, &c, out);
    if (n > capacity || (k > PACKED_SECTION && n > UINT16_MAX)) return false;
    memset(escapes + n, 0, capacity - n);
    for (uint64_t i = 0; i < k; i += PACKED_SECTION) {
        if (i) {
            *starts++ = (uint8_t)(list - escapes);
            *starts++ = (uint8_t)((list - escapes) >> 8);
        }
        list = encode_section(f, out, (const uint8_t *)row + 2 * i, k - i < PACKED_SECTION ? k - i : PACKED_SECTION,
                              codes + i / BLOCK * f->code_bytes, low + i, list);
    }
    return true;
}

/* ---- and back ----------------------------------------------------------------------------------------------------- */

static inline void decode_block(bool bf16, uint32_t bits, const uint8_t *palette, const uint8_t *codes,
                                const uint8_t *low, const uint8_t **list, uint16_t *x)
{
    uint8_t c[BLOCK], placed[BLOCK] = {0};
    parts p;
    uint32_t escape = bits == 3 ? 7 : 15;
    if (bits == 3)
        get3(codes, c);
    else
        get4(codes, c);
    for (uint32_t e = 0; e < escape; e++) {
        const uint8_t is = (uint8_t)e, exponent = palette[e];
        for (uint32_t i = 0; i < BLOCK; i++) placed[i] = c[i] == is ? exponent : placed[i];
    }
    for (uint32_t i = 0; i < BLOCK; i += LANE)
        for (uint64_t m = equal_bytes(load64(c + i), (uint8_t)escape); m; m &= m - 1)
            placed[i + (uint32_t)__builtin_ctzll(m) / 8] = *(*list)++;
    to_elements(bf16, placed, p.exponent);
    to_elements(bf16, low, p.low);
    if (!bf16) {
        get3(codes + 24, c);
        to_elements(bf16, c, p.high);
    }
    for (uint32_t i = 0; i < BLOCK; i++)
        x[i] = (uint16_t)(bf16 ? (p.low[i] & 0x80) << 8 | p.exponent[i] << 7 | (p.low[i] & 0x7F)
                               : (p.high[i] & 4) << 13 | (p.exponent[i] & 31) << 10 | (p.high[i] & 3) << 8 | p.low[i]);
}

static bool section_is(const packed_form *f, const uint8_t *palette, const uint8_t *row, uint64_t n,
                       const uint8_t *codes, const uint8_t *low, const uint8_t **list)
{
    const packed_fast *fast = f->type == DT_BF16_PACKED3 ? packed_fast_best() : NULL;
    uint16_t differs = 0;
    uint64_t b = fast ? n / BLOCK : 0;
    if (b && !fast->is(palette, row, b, codes, low, list)) return false;
    for (; b * BLOCK < n; b++) {
        uint16_t x[BLOCK], want[BLOCK];
        uint64_t left = n - b * BLOCK, some = left < BLOCK ? left : BLOCK;
        const uint8_t *c = codes + b * f->code_bytes, *l = low + b * BLOCK;
        if (f->of == DT_F16)
            decode_block(false, 3, palette, c, l, list, x);
        else if (f->code_bits == 3)
            decode_block(true, 3, palette, c, l, list, x);
        else
            decode_block(true, 4, palette, c, l, list, x);
        take_block(row + 2 * BLOCK * b, some, want);
        for (uint64_t i = 0; i < some; i++) differs |= x[i] ^ want[i];
    }
    return differs == 0;
}

bool packed_is(const packed_form *f, const uint8_t *coded, uint64_t row_bytes, const void *row, uint64_t k)
{
    uint64_t blocks = packed_blocks(k);
    const uint8_t *starts = coded + f->palette_bytes, *escapes = coded + packed_head_bytes(f, k), *list = escapes;
    const uint8_t *codes = coded + row_bytes - blocks * f->block_bytes, *low = codes + blocks * f->code_bytes;
    for (uint64_t i = 0; i < k; i += PACKED_SECTION) {
        if (i && (uint16_t)(starts[0] | starts[1] << 8) != (uint16_t)(list - escapes)) return false;
        starts += i ? 2 : 0;
        if (!section_is(f, coded, (const uint8_t *)row + 2 * i, k - i < PACKED_SECTION ? k - i : PACKED_SECTION,
                        codes + i / BLOCK * f->code_bytes, low + i, &list))
            return false;
    }
    return list <= codes;
}
