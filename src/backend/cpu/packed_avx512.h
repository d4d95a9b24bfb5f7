/* Blocks of `packed` by AVX-512 with VBMI2, which puts a list's bytes where a mask says in one instruction. */
#define PACKED      __attribute__((target("avx512vbmi2")))
#define PACKED_ROWS 4

/* Three bits of each place. */
PACKED INLINE __m512i packed_three(const uint8_t *p)
{
    const __m512i shift = _mm512_set_epi64(0x0006000600060006, 0x0006000600060006, 0x0004000400040004,
                                           0x0004000400040004, 0x0002000200020002, 0x0002000200020002, 0, 0);
    __mmask64 high;
    memcpy(&high, p + 16, sizeof high);
    __m512i two = _mm512_srlv_epi16(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)p)), shift);
    two = _mm512_and_si512(two, _mm512_set1_epi8(3));
    return _mm512_mask_add_epi8(two, high, two, _mm512_set1_epi8(4));
}

PACKED INLINE __m512i packed_four(const uint8_t *p)
{
    __m256i c = _mm256_loadu_si256((const void *)p);
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(c), _mm256_srli_epi16(c, 4), 1);
    return _mm512_and_si512(both, _mm512_set1_epi8(15));
}

/* yes where mask has ones, no elsewhere, bit by bit. */
PACKED INLINE __m512i packed_pick(__m512i mask, __m512i yes, __m512i no)
{
    return _mm512_ternarylogic_epi32(mask, yes, no, 0xCA);
}

PACKED INLINE uint32_t packed_numbers(const packed_kind kind, const packed_row *row, v16 *out)
{
    const bool four = kind == PACKED_BF16_4, half = kind == PACKED_F16_3;
    const __m512i top = _mm512_set1_epi8((char)0x80);
    __m512i code = four ? packed_four(row->codes) : packed_three(row->codes);
    __mmask64 escape = _mm512_cmpeq_epi8_mask(code, _mm512_set1_epi8(four ? 15 : 7));
    __m512i e = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)row->palette)), code);
    e = _mm512_mask_expand_epi8(e, escape, _mm512_loadu_si512((const void *)row->escapes));
    __m512i low = _mm512_loadu_si512((const void *)row->low), high;
    if (half) {
        const __m512i rest = _mm512_broadcast_i32x4(_mm_set_epi64x(0, (int64_t)0x8382818003020100));
        high = _mm512_and_si512(_mm512_slli_epi16(e, 2), _mm512_set1_epi8(0x7C));
        high = _mm512_or_si512(high, _mm512_shuffle_epi8(rest, packed_three(row->codes + 24)));
    } else {
        high = packed_pick(top, low, _mm512_srli_epi16(e, 1));
        low = packed_pick(top, _mm512_slli_epi16(e, 7), low);
    }
    __m512i a = _mm512_unpacklo_epi8(low, high), b = _mm512_unpackhi_epi8(low, high);
    if (half) {
        out[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(a));
        out[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(a, 1));
        out[2] = _mm512_cvtph_ps(_mm512_castsi512_si256(b));
        out[3] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(b, 1));
    } else {
        const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000);
        out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(a, 16));
        out[1] = _mm512_castsi512_ps(_mm512_and_si512(a, upper));
        out[2] = _mm512_castsi512_ps(_mm512_slli_epi32(b, 16));
        out[3] = _mm512_castsi512_ps(_mm512_and_si512(b, upper));
    }
    return (uint32_t)__builtin_popcountll(escape);
}
