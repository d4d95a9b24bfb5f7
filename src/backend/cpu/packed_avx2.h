/* Blocks of `packed` by AVX2, in halves of 32 places. Where an escape's exponent stands in the list is counted within
 * each 16 places by adding ever longer shifts. */
#define PACKED
#define PACKED_ROWS 2

INLINE __m256i packed_twice(const uint8_t *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)p));
}

/* Three bits of each of the places 32 h .. 32 h + 31. */
INLINE __m256i packed_three(const uint8_t *p, const uint32_t h)
{
    const __m256i shift = h ? _mm256_set_epi32(6, 6, 6, 6, 4, 4, 4, 4) : _mm256_set_epi32(2, 2, 2, 2, 0, 0, 0, 0);
    const __m256i bits = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    int32_t plane;
    memcpy(&plane, p + 16 + 4 * h, sizeof plane);
    __m256i two = _mm256_and_si256(_mm256_srlv_epi32(packed_twice(p), shift), _mm256_set1_epi8(3));
    __m256i high = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(plane), spread), bits);
    high = _mm256_and_si256(_mm256_cmpeq_epi8(high, bits), _mm256_set1_epi8(4));
    return _mm256_or_si256(two, high);
}

INLINE __m256i packed_four(const uint8_t *p, const uint32_t h)
{
    __m256i c = _mm256_loadu_si256((const void *)p);
    return _mm256_and_si256(h ? _mm256_srli_epi16(c, 4) : c, _mm256_set1_epi8(15));
}

/* e with exponents from the list where `is` has ones; *n is how many. */
INLINE __m256i packed_insert(__m256i e, __m256i is, const uint8_t *list, uint32_t *n)
{
    uint32_t mask = (uint32_t)_mm256_movemask_epi8(is);
    __m256i count = _mm256_sub_epi8(_mm256_setzero_si256(), is);
    count = _mm256_add_epi8(count, _mm256_slli_si256(count, 1));
    count = _mm256_add_epi8(count, _mm256_slli_si256(count, 2));
    count = _mm256_add_epi8(count, _mm256_slli_si256(count, 4));
    count = _mm256_add_epi8(count, _mm256_slli_si256(count, 8));
    count = _mm256_sub_epi8(count, _mm256_set1_epi8(1));
    __m128i first = _mm_loadu_si128((const void *)list);
    __m128i second = _mm_loadu_si128((const void *)(list + __builtin_popcount(mask & 0xFFFF)));
    __m256i from = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
    *n = (uint32_t)__builtin_popcount(mask);
    return _mm256_blendv_epi8(e, _mm256_shuffle_epi8(from, count), is);
}

INLINE __m256i packed_pick(__m256i mask, __m256i yes, __m256i no)
{
    return _mm256_or_si256(_mm256_and_si256(mask, yes), _mm256_andnot_si256(mask, no));
}

INLINE __m256 packed_lower(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}

INLINE __m256 packed_upper(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xFFFF0000)));
}

INLINE v16 packed_halves(__m256i words)
{
    return (v16){_mm256_cvtph_ps(_mm256_castsi256_si128(words)), _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1))};
}

INLINE uint32_t packed_numbers(const packed_kind kind, const packed_row *row, v16 *out)
{
    const bool four = kind == PACKED_BF16_4, half = kind == PACKED_F16_3;
    const __m256i top = _mm256_set1_epi8((char)0x80);
    uint32_t taken = 0, n;
    UNROLL for (uint32_t h = 0; h < 2; h++)
    {
        __m256i code = four ? packed_four(row->codes, h) : packed_three(row->codes, h);
        __m256i is = _mm256_cmpeq_epi8(code, _mm256_set1_epi8(four ? 15 : 7));
        __m256i e = _mm256_shuffle_epi8(packed_twice(row->palette), code);
        e = packed_insert(e, is, row->escapes + taken, &n);
        taken += n;
        __m256i low = _mm256_loadu_si256((const void *)(row->low + 32 * h)), high;
        if (half) {
            const __m256i rest = _mm256_broadcastsi128_si256(_mm_set_epi64x(0, (int64_t)0x8382818003020100));
            high = _mm256_and_si256(_mm256_slli_epi16(e, 2), _mm256_set1_epi8(0x7C));
            high = _mm256_or_si256(high, _mm256_shuffle_epi8(rest, packed_three(row->codes + 24, h)));
        } else {
            high = packed_pick(top, low, _mm256_srli_epi16(e, 1));
            low = packed_pick(top, _mm256_slli_epi16(e, 7), low);
        }
        __m256i a = _mm256_unpacklo_epi8(low, high), b = _mm256_unpackhi_epi8(low, high);
        if (half) {
            out[h] = packed_halves(a);
            out[2 + h] = packed_halves(b);
        } else if (h == 0) {
            out[0].a = packed_lower(a), out[1].a = packed_upper(a), out[2].a = packed_lower(b),
            out[3].a = packed_upper(b);
        } else {
            out[0].b = packed_lower(a), out[1].b = packed_upper(a), out[2].b = packed_lower(b),
            out[3].b = packed_upper(b);
        }
    }
    return taken;
}
