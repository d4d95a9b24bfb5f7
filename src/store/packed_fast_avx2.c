/* Blocks of bf16 in three bits with AVX2: a block is four lines of sixteen places, kept in registers from one end to
 * the other; only its few escapes are looked at one by one. */
#include <immintrin.h>
#include <string.h>

#include "store/packed_fast.h"

enum { BLOCK = PACKED_BLOCK, LINE = 16, CODE_BYTES = 24, ESCAPE = 7 };

typedef struct lines { /* of a block, in the order of elements or of places */
    __m128i v[4];
} lines;

static inline __m128i load(const uint8_t *p)
{
    return _mm_loadu_si128((const void *)p);
}

static inline void store(uint8_t *p, __m128i v)
{
    _mm_storeu_si128((void *)p, v);
}

/* Exponents, and signs with mantissas, of 64 numbers. */
static inline void split(const uint8_t *row, lines *exponent, lines *low)
{
    const __m128i byte = _mm_set1_epi16(0xFF), sign = _mm_set1_epi16(0x80), mantissa = _mm_set1_epi16(0x7F);
    for (int i = 0; i < 4; i++) {
        __m128i a = load(row + 2 * LINE * i), b = load(row + 2 * LINE * i + LINE);
        __m128i high_a = _mm_srli_epi16(a, 7), high_b = _mm_srli_epi16(b, 7);
        exponent->v[i] = _mm_packus_epi16(_mm_and_si128(high_a, byte), _mm_and_si128(high_b, byte));
        a = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(a, 8), sign), _mm_and_si128(a, mantissa));
        b = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(b, 8), sign), _mm_and_si128(b, mantissa));
        low->v[i] = _mm_packus_epi16(a, b);
    }
}

/* packed_element(): line i of places interleaves elements 4 i ... 4 i + 3 of the first two lines, then of the others.
 */
static inline lines to_places(lines e)
{
    __m128i a = _mm_unpacklo_epi8(e.v[0], e.v[1]), b = _mm_unpackhi_epi8(e.v[0], e.v[1]);
    __m128i c = _mm_unpacklo_epi8(e.v[2], e.v[3]), d = _mm_unpackhi_epi8(e.v[2], e.v[3]);
    return (lines){
        {_mm_unpacklo_epi64(a, c), _mm_unpackhi_epi64(a, c), _mm_unpacklo_epi64(b, d), _mm_unpackhi_epi64(b, d)}};
}

static inline lines to_elements(lines p)
{
    const __m128i byte = _mm_set1_epi16(0xFF);
    lines e;
    for (int h = 0; h < 2; h++) {
        __m128i a = h ? _mm_unpackhi_epi64(p.v[0], p.v[1]) : _mm_unpacklo_epi64(p.v[0], p.v[1]);
        __m128i b = h ? _mm_unpackhi_epi64(p.v[2], p.v[3]) : _mm_unpacklo_epi64(p.v[2], p.v[3]);
        e.v[2 * h] = _mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte));
        e.v[2 * h + 1] = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8));
    }
    return e;
}

/* Bit p: place p has `code`. */
static inline uint64_t places_of(lines c, uint8_t code)
{
    const __m128i is = _mm_set1_epi8((char)code);
    uint64_t m = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t some = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(c.v[i], is));
        m |= (uint64_t)some << LINE * i;
    }
    return m;
}

static inline void put_codes(lines c, uint8_t *out)
{
    const __m128i two = _mm_set1_epi8(3);
    __m128i low = _mm_and_si128(c.v[0], two);
    low = _mm_or_si128(low, _mm_slli_epi16(_mm_and_si128(c.v[1], two), 2));
    low = _mm_or_si128(low, _mm_slli_epi16(_mm_and_si128(c.v[2], two), 4));
    low = _mm_or_si128(low, _mm_slli_epi16(_mm_and_si128(c.v[3], two), 6));
    store(out, low);
    for (int i = 0; i < 4; i++) {
        uint16_t top = (uint16_t)_mm_movemask_epi8(_mm_slli_epi16(c.v[i], 5));
        memcpy(out + LINE + 2 * i, &top, sizeof top);
    }
}

static inline lines get_codes(const uint8_t *codes)
{
    const __m128i two = _mm_set1_epi8(3), four = _mm_set1_epi8(4),
                  bits = _mm_set1_epi64x((long long)0x8040201008040201);
    const __m128i low = load(codes), top = _mm_loadl_epi64((const void *)(codes + LINE));
    lines c;
    for (int i = 0; i < 4; i++) {
        const __m128i two_of = _mm_set_epi64x((2 * i + 1) * 0x0101010101010101, 2 * i * 0x0101010101010101);
        __m128i has = _mm_cmpeq_epi8(_mm_and_si128(_mm_shuffle_epi8(top, two_of), bits), bits);
        c.v[i] =
            _mm_or_si128(_mm_and_si128(_mm_srl_epi16(low, _mm_cvtsi32_si128(2 * i)), two), _mm_and_si128(has, four));
    }
    return c;
}

static uint8_t *encode(const uint8_t *palette, const uint8_t *row, uint64_t blocks, uint8_t *codes, uint8_t *low,
                       uint8_t *list)
{
    uint8_t table[LINE], placed[BLOCK];
    memset(table, ESCAPE, sizeof table);
    for (uint8_t i = 0; i < ESCAPE; i++) table[palette[i] - palette[0]] = i;
    const __m128i code_of = load(table), first = _mm_set1_epi8((char)palette[0]), beyond = _mm_set1_epi8(LINE - 1);
    for (uint64_t b = 0; b < blocks; b++, row += 2 * BLOCK, codes += CODE_BYTES, low += BLOCK) {
        lines exponent, rest, c;
        split(row, &exponent, &rest);
        exponent = to_places(exponent);
        rest = to_places(rest);
        for (int i = 0; i < 4; i++) {
            c.v[i] = _mm_shuffle_epi8(code_of, _mm_min_epu8(_mm_sub_epi8(exponent.v[i], first), beyond));
            store(low + LINE * i, rest.v[i]);
            store(placed + LINE * i, exponent.v[i]);
        }
        put_codes(c, codes);
        for (uint64_t m = places_of(c, ESCAPE); m; m &= m - 1) *list++ = placed[__builtin_ctzll(m)];
    }
    return list;
}

static bool is(const uint8_t *palette, const uint8_t *row, uint64_t blocks, const uint8_t *codes, const uint8_t *low,
               const uint8_t **list)
{
    const __m128i exponent_of = _mm_loadl_epi64((const void *)palette);
    const uint8_t *escapes = *list;
    __m128i differs = _mm_setzero_si128();
    uint32_t others = 0;
    for (uint64_t b = 0; b < blocks; b++, row += 2 * BLOCK, codes += CODE_BYTES, low += BLOCK) {
        lines exponent, rest, placed, c = get_codes(codes);
        uint8_t want[BLOCK];
        split(row, &exponent, &rest);
        exponent = to_places(exponent);
        for (int i = 0; i < 4; i++) {
            __m128i free = _mm_cmpeq_epi8(c.v[i], _mm_set1_epi8(ESCAPE));
            __m128i other = _mm_xor_si128(_mm_shuffle_epi8(exponent_of, c.v[i]), exponent.v[i]);
            differs = _mm_or_si128(differs, _mm_andnot_si128(free, other));
            store(want + LINE * i, exponent.v[i]);
            placed.v[i] = load(low + LINE * i);
        }
        placed = to_elements(placed);
        for (int i = 0; i < 4; i++) differs = _mm_or_si128(differs, _mm_xor_si128(placed.v[i], rest.v[i]));
        for (uint64_t m = places_of(c, ESCAPE); m; m &= m - 1)
            others |= (uint32_t)(*escapes++ ^ want[__builtin_ctzll(m)]);
    }
    *list = escapes;
    return others == 0 && _mm_testz_si128(differs, differs);
}

const packed_fast packed_avx2 = {encode, is};
