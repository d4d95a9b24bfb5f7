/* `packed`: half floats, every bit of them, in about 0.71 of the bytes (bf16) or 0.89 (f16).
 *
 * The exponents of weights are few: seven of them cover 97 % of a normal distribution, and what remains of a number
 * (sign, mantissa) is noise. So a number is a byte or so as it is and a code of three or four bits: the number of its
 * exponent in the row's palette. The last code means: the next byte of the row's list of escapes is the exponent.
 *
 * A row of k elements. Blocks of 64 elements, the last filled up with places that mean nothing (code 0):
 *
 *   palette   [2^code_bits] exponents, ascending; the last is not used
 *   starts    [sections - 1] u16, little-endian: escapes before section 1, 2, ... of PACKED_SECTION elements
 *   escapes   [capacity] exponents in the order of places, then zeros
 *   codes     [blocks] of three bits: 16 bytes, byte j has the low two bits of the codes of places j, 16 + j, 32 + j,
 *             48 + j, lowest first, and 8 bytes, bit p has bit 2 of place p; of four bits: 32 bytes, byte j has those of
 *             places j (low nibble) and 32 + j. f16: then as much of three bits each: sign (bit 2) and the two
 *             highest bits of the mantissa.
 *   low       [blocks][64] bf16: sign (bit 7) and mantissa; f16: the low byte
 *
 * All rows of a matrix have one capacity, that of its fullest row, so a row's place needs no index, rows can be read
 * singly and chunks cut anywhere between rows. The list stands before the codes so that 64 bytes can be loaded from any
 * place of it that codes can lead to, whatever they say, without leaving the row.
 *
 * Places of a block are in the order in which vectors of 16 bytes, widened to 16 bits by interleaving, are in order:
 * place 16 i + j, of bf16: element 32 (j / 8) + 4 i + (j % 8) / 2 + 16 (j % 2), for which a 32-bit lane holds two
 * elements 16 apart, each one instruction away from f32; of f16: element 32 (j / 8) + 8 i + j % 8. */
#ifndef LAMINA_STORE_PACKED_H
#define LAMINA_STORE_PACKED_H

#include "base/dtype.h"

enum { PACKED_BLOCK = 64, PACKED_SECTION = 1024, PACKED_BLOCKS_IN_SECTION = PACKED_SECTION / PACKED_BLOCK };

typedef struct packed_form {
    dtype type, of;         /* DT_BF16_PACKED3 ..., DT_BF16 or DT_F16 */
    uint32_t code_bits;     /* 3 or 4 */
    uint32_t palette_bytes; /* 8 or 16 */
    uint32_t code_bytes;    /* of a block */
    uint32_t block_bytes;   /* codes and low bytes of a block */
} packed_form;

/* NULL: not a packed type. */
const packed_form *packed_form_of(dtype t);

static inline uint64_t packed_blocks(uint64_t k)
{
    return (k + PACKED_BLOCK - 1) / PACKED_BLOCK;
}
/* Bytes before the escapes. */
static inline uint64_t packed_head_bytes(const packed_form *f, uint64_t k)
{
    uint64_t sections = (k + PACKED_SECTION - 1) / PACKED_SECTION;
    return f->palette_bytes + 2 * (sections - (sections > 0));
}
/* Bytes of a row of k elements whose list has room for `capacity`. */
static inline uint64_t packed_row_bytes(const packed_form *f, uint64_t k, uint64_t capacity)
{
    return packed_head_bytes(f, k) + capacity + packed_blocks(k) * f->block_bytes;
}
/* Is row_bytes possible for k elements, 0 < k <= 2^31? */
bool packed_row_ok(const packed_form *f, uint64_t k, uint64_t row_bytes);

/* Element of a block in place p < 64. */
static inline uint32_t packed_element(const packed_form *f, uint32_t p)
{
    uint32_t i = p >> 4, j = p & 7, half = p >> 3 & 1;
    return 32 * half + (f->of == DT_BF16 ? 4 * i + (j >> 1) + 16 * (j & 1) : 8 * i + j);
}

/* How often each exponent stands in a row of k half floats (bf16 or f16 as f->of, little-endian). */
typedef struct packed_counts {
    uint32_t n[256];
} packed_counts;
void packed_count(const packed_form *f, const void *row, uint64_t k, packed_counts *out);
/* Escapes that such a row needs; UINT32_MAX: more than the form can hold. */
uint32_t packed_escapes_of(const packed_form *f, const packed_counts *c, uint64_t k);
uint32_t packed_escapes(const packed_form *f, const void *row, uint64_t k);
/* Codes a row. out [packed_row_bytes()]. The same row gives the same bytes. false: it needs more escapes than capacity.
 */
bool packed_encode(const packed_form *f, const void *row, uint64_t k, uint64_t capacity, uint8_t *out);
/* Does it decode to the row? Any bytes may be asked about. */
bool packed_is(const packed_form *f, const uint8_t *coded, uint64_t row_bytes, const void *row, uint64_t k);
/* Elements [k0, k0 + n) of a row of k in row_bytes, as they were. The specification of
 * what the kernels do. Any bytes give some numbers; nothing outside the row is read. */
void packed_decode(const packed_form *f, const uint8_t *row, uint64_t row_bytes, uint64_t k, uint64_t k0, uint64_t n,
                   uint16_t *out);

#endif
