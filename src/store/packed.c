/* Rows of `packed`: the specification of how they are read. See packed.h for the form, packed_make.c for how they are
 * made.
 *
 * Promises that decoding foreign bytes stays inside the row: the place of the list that codes lead to grows by at most
 * 64 for each block, and so does the room that codes and low bytes take. */
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

static uint16_t join(const packed_form *f, uint8_t exponent, uint8_t low, uint32_t high)
{
    if (f->of == DT_BF16) return (uint16_t)((low & 0x80) << 8 | exponent << 7 | (low & 0x7F));
    return (uint16_t)((high & 4) << 13 | (exponent & 31u) << 10 | (high & 3) << 8 | low);
}

/* ---- codes -------------------------------------------------------------------------------------------------------- */

static uint32_t get3(const uint8_t *codes, uint32_t place)
{
    return (codes[place % 16] >> place / 16 * 2 & 3u) | (codes[16 + place / 8] >> place % 8 & 1u) << 2;
}

static uint32_t get_code(const packed_form *f, const uint8_t *codes, uint32_t place)
{
    return f->code_bits == 3 ? get3(codes, place) : codes[place % 32] >> place / 32 * 4 & 15u;
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
