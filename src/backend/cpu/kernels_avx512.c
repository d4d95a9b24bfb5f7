/* AVX-512 (F, BW, DQ, VL): sixteen lanes are one register. Compiled with these instructions; reached only where the
 * ladder has found them. Tails are masked loads: nothing outside of a row is touched. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "grids.h"
#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

typedef __m512 v16;
typedef struct v32 {
    v16 lo, hi;
} v32;

INLINE v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE v16 v16_set1(float f)
{
    return _mm512_set1_ps(f);
}
INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void v16_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}
INLINE __mmask16 first(uint32_t n)
{
    return (__mmask16)((1u << n) - 1u);
} /* n <= 16 */
INLINE v16 v16_load_n(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps(first(n), p);
}
INLINE void v16_store_n(float *p, v16 v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, first(n), v);
}
INLINE v16 v16_load_half(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
INLINE v16 v16_load_half_n(const void *p, uint32_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
}
INLINE void v16_store_half(uint16_t *p, v16 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
INLINE v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
INLINE v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
INLINE v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
INLINE v16 v16_neg(v16 a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
INLINE v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
} /* a > b ? a : b */
INLINE v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
} /* a < b ? a : b */
INLINE v16 v16_abs(v16 a)
{
    return _mm512_abs_ps(a);
}
INLINE v16 v16_copysign(v16 size, v16 sign)
{
    return _mm512_or_ps(size, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
} /* size is not negative */
INLINE v16 v16_less(v16 a, v16 b, v16 yes, v16 no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
} /* a < b ? yes : no */

INLINE float v16_largest(v16 v)
{
    return _mm512_reduce_max_ps(v);
}

/* p * 2^n, n in the low bits of t = n + EXP_MAGIC, in two factors as spec_expf does. */
INLINE v16 v16_times_2n(v16 p, v16 t)
{
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_castps_si512(_mm512_set1_ps(EXP_MAGIC)));
    __m512i half = _mm512_srai_epi32(n, 1), rest = _mm512_sub_epi32(n, half), bias = _mm512_set1_epi32(127);
    v16 a = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
    v16 b = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(rest, bias), 23));
    return v16_mul(v16_mul(p, a), b);
}

INLINE float v16_sum(v16 v)
{
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* The trees of four vectors at once. */
INLINE void v16_sums(const v16 *v, float *out)
{
    v16 ab = v16_add(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xee));
    v16 cd = v16_add(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xee));
    v16 s4 = v16_add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    v16 s2 = v16_add(s4, _mm512_permute_ps(s4, 0x4e));
    v16 s1 = v16_add(s2, _mm512_permute_ps(s2, 0xb1));
    __m512i every4 = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(every4, s1)));
}

INLINE v32 v32_unzip(v32 p)
{
    __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return (v32){_mm512_permutex2var_ps(p.lo, even, p.hi), _mm512_permutex2var_ps(p.lo, odd, p.hi)};
}

INLINE v32 v32_zip(v32 p)
{
    __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    return (v32){_mm512_permutex2var_ps(p.lo, low, p.hi), _mm512_permutex2var_ps(p.lo, high, p.hi)};
}

typedef v16 vec;
enum { VECS = 1, VEC_LANES = LANES };
INLINE vec vec_zero(void)
{
    return v16_zero();
}
INLINE vec vec_load(const float *p)
{
    return v16_load(p);
}
INLINE void vec_store(float *p, vec v)
{
    v16_store(p, v);
}
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return v16_fma(a, b, c);
}
INLINE v16 v16_of(const vec *v)
{
    return v[0];
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

INLINE uint32_t half_of(uint32_t n)
{
    return n < LANES ? n : LANES;
}
INLINE uint32_t rest_of(uint32_t n)
{
    return n < LANES ? 0 : n - LANES;
}

INLINE v32 load32_f32(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 128;
    return (v32){_mm512_loadu_ps(p), _mm512_loadu_ps(p + 64)};
}

INLINE v32 tail32_f32(weight_row w, uint64_t g, uint32_t n)
{
    const uint8_t *p = w.data + g * 128;
    return (v32){_mm512_maskz_loadu_ps(first(half_of(n)), p), _mm512_maskz_loadu_ps(first(rest_of(n)), p + 64)};
}

INLINE v32 load32_f16(weight_row w, uint64_t g)
{
    return (v32){v16_load_half(w.data + g * 64), v16_load_half(w.data + g * 64 + 32)};
}

INLINE v32 tail32_f16(weight_row w, uint64_t g, uint32_t n)
{
    const uint8_t *p = w.data + g * 64;
    return (v32){v16_load_half_n(p, half_of(n)), v16_load_half_n(p + 32, rest_of(n))};
}

INLINE v16 widen_bf16_lanes(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE v32 load32_bf16(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 64;
    return (v32){widen_bf16_lanes(_mm256_loadu_si256((const void *)p)),
                 widen_bf16_lanes(_mm256_loadu_si256((const void *)(p + 32)))};
}

INLINE v32 tail32_bf16(weight_row w, uint64_t g, uint32_t n)
{
    const uint8_t *p = w.data + g * 64;
    return (v32){widen_bf16_lanes(_mm256_maskz_loadu_epi16(first(half_of(n)), p)),
                 widen_bf16_lanes(_mm256_maskz_loadu_epi16(first(rest_of(n)), p + 32))};
}

/* The f16 at p; the same where eight bytes can be read, which saves an instruction. */
INLINE float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}
/* Four halves from memory: gcc makes two instructions of the intrinsics. */
INLINE __m128 four_halves(const uint8_t *p)
{
    __m128 x;
    __asm__("vcvtph2ps %1, %0" : "=v"(x) : "m"(*(const uint8_t(*)[8])p));
    return x;
}
INLINE float half_first(const uint8_t *p)
{
    return _mm_cvtss_f32(four_halves(p));
}

INLINE v16 v16_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
INLINE v16 v16_of_bytes(uint64_t lo, uint64_t hi)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_set_epi64x((int64_t)hi, (int64_t)lo)));
}
INLINE v16 v16_halves(float lo, float hi)
{
    return _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(lo), _mm512_set1_ps(hi));
}
/* The same as scales_by_words, of the sixteen bytes that a block begins with. */
INLINE v16 scales_in_register(const uint8_t *p)
{
    __m128i h = _mm_loadu_si128((const void *)p), two = _mm_set1_epi8(0x30);
    __m128i x = _mm_shuffle_epi8(h, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    __m128i y = _mm_shuffle_epi8(h, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    x = _mm_srlv_epi32(x, _mm_setr_epi32(0, 0, 0, 4));
    x = _mm_and_si128(x, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    x = _mm_or_si128(x, _mm_and_si128(_mm_srli_epi32(y, 2), two));
    __m128 d = _mm_xor_ps(four_halves(p), _mm_setr_ps(0.0f, -0.0f, 0.0f, 0.0f));
    __m512i eight_each = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    v16 by = _mm512_permutexvar_ps(eight_each, _mm512_castps128_ps512(d));
    return _mm512_mul_ps(by, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x)));
}

/* Sixteen nibbles of a table: the permutation looks at the low four bits of each lane alone. */
INLINE __m512i wide_bytes(const uint8_t *q)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)q));
}
INLINE v32 nibbles(const uint8_t *q, v16 table)
{
    __m512i i = wide_bytes(q);
    return (v32){_mm512_permutexvar_ps(i, table), _mm512_permutexvar_ps(_mm512_srli_epi32(i, 4), table)};
}

INLINE v16 counting(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

INLINE v32 centred_nibbles(const uint8_t *q, v16 scale)
{
    return nibbles(q, _mm512_mul_ps(scale, _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)));
}

INLINE v32 scaled_nibbles(const uint8_t *q, v16 scale, v16 least)
{
    return nibbles(q, _mm512_fmadd_ps(scale, counting(), least));
}

INLINE v32 nibbles_k(const uint8_t *q, bool high, v16 scale, v16 least)
{
    v16 table = _mm512_fmadd_ps(scale, counting(), least);
    __m512i x = wide_bytes(q), y = wide_bytes(q + LANES);
    if (high) x = _mm512_srli_epi32(x, 4), y = _mm512_srli_epi32(y, 4);
    return (v32){_mm512_permutexvar_ps(x, table), _mm512_permutexvar_ps(y, table)};
}

INLINE void five_bits(const uint8_t *q, uint32_t h, uint8_t bits, uint8_t *out)
{
    __m128i x = _mm_loadu_si128((const void *)q);
    __m256i y = _mm256_inserti128_si256(_mm256_castsi128_si256(x), _mm_srli_epi16(x, 4), 1);
    y = _mm256_and_si256(y, _mm256_set1_epi8(15));
    y = _mm256_mask_add_epi8(y, h, y, _mm256_set1_epi8((char)bits));
    _mm256_storeu_si256((void *)out, y);
}

typedef __m512i b64;
INLINE b64 b64_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
INLINE b64 b64_twice(const uint8_t *p)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)p));
}
INLINE void b64_store(uint8_t *p, b64 x)
{
    _mm512_storeu_si512(p, x);
}
INLINE b64 b64_set1(uint8_t x)
{
    return _mm512_set1_epi8((char)x);
}
INLINE b64 b64_and(b64 x, b64 y)
{
    return _mm512_and_si512(x, y);
}
INLINE b64 b64_or(b64 x, b64 y)
{
    return _mm512_or_si512(x, y);
}
INLINE b64 b64_sub(b64 x, b64 y)
{
    return _mm512_sub_epi8(x, y);
}
INLINE __m512i both_halves(short lo, short hi)
{
    return _mm512_inserti64x4(_mm512_set1_epi16(lo), _mm256_set1_epi16(hi), 1);
}
INLINE b64 b64_left(b64 x, short lo, short hi)
{
    return _mm512_sllv_epi16(x, both_halves(lo, hi));
}
INLINE b64 b64_right(b64 x, short lo, short hi)
{
    return _mm512_srlv_epi16(x, both_halves(lo, hi));
}

/* e4m3 as f16 bits, of 2^-8 times the number: its bits are moved up beside the sign. A carry out of seven ones, which
 * are NaN, fills the exponent. */
INLINE __m512i f16_of_e4m3(__m256i q)
{
    __m512i x = _mm512_cvtepi8_epi16(q), carry = _mm512_add_epi16(x, _mm512_set1_epi16(1));
    x = _mm512_ternarylogic_epi32(x, carry, _mm512_set1_epi16(0x80), 0x78); /* x ^ (carry & 0x80) */
    return _mm512_slli_epi16(x, 7);
}

INLINE v32 scaled_halves(__m512i h, v16 scale)
{
    return (v32){_mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(h)), scale),
                 _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)), scale)};
}

INLINE v16 scale_of(weight_row w, uint64_t g)
{
    return _mm512_set1_ps(((const float *)w.side)[g >> w.shift]);
}

INLINE v32 e4m3_lanes(__m256i q, v16 scale)
{
    return scaled_halves(f16_of_e4m3(q), _mm512_mul_ps(scale, _mm512_set1_ps(256.0f)));
}

INLINE v32 load32_f8_e4m3(weight_row w, uint64_t g)
{
    return e4m3_lanes(_mm256_loadu_si256((const void *)(w.data + g * 32)), scale_of(w, g));
}

INLINE v32 tail32_f8_e4m3(weight_row w, uint64_t g, uint32_t n)
{
    return e4m3_lanes(_mm256_maskz_loadu_epi8((1u << n) - 1, w.data + g * 32), scale_of(w, g));
}

INLINE v32 e5m2_lanes(__m256i q, v16 scale)
{
    return scaled_halves(_mm512_slli_epi16(_mm512_cvtepu8_epi16(q), 8), scale);
}

INLINE v32 load32_f8_e5m2(weight_row w, uint64_t g)
{
    return e5m2_lanes(_mm256_loadu_si256((const void *)(w.data + g * 32)), scale_of(w, g));
}

INLINE v32 tail32_f8_e5m2(weight_row w, uint64_t g, uint32_t n)
{
    return e5m2_lanes(_mm256_maskz_loadu_epi8((1u << n) - 1, w.data + g * 32), scale_of(w, g));
}

/* Twice the fp4 numbers, times 2^(e - 128). */
INLINE v16 fp4_table(uint8_t e)
{
    v16 twice = _mm512_setr_ps(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    return _mm512_mul_ps(_mm512_set1_ps(half_e8m0(e)), twice);
}

INLINE v32 load32_mxfp4(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 17;
    return nibbles(p + 1, fp4_table(p[0]));
}

INLINE v32 load32_mxfp4_pairs(weight_row w, uint64_t g)
{
    return v32_zip(nibbles(w.data + g * 16, fp4_table(((const uint8_t *)w.side)[g])));
}

/* Scaled numbers of sixteen bytes of two codes, the first in the upper half. */
INLINE v32 pairs_of(const uint8_t *q, const float levels[16], v16 scale)
{
    v32 x = nibbles(q, _mm512_mul_ps(v16_load(levels), scale));
    return v32_zip((v32){x.hi, x.lo});
}

static const float levels_nf4[16] = {LEVELS_NF4}, levels_fp4[16] = {LEVELS_BNB_FP4};

INLINE v32 load32_nf4_pairs(weight_row w, uint64_t g)
{
    return pairs_of(w.data + g * 16, levels_nf4, scale_of(w, g));
}

INLINE v32 load32_fp4_pairs(weight_row w, uint64_t g)
{
    return pairs_of(w.data + g * 16, levels_fp4, scale_of(w, g));
}

INLINE v16 int8_lanes(__m128i q, v16 scale)
{
    v16 x = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), scale);
    return _mm512_mul_ps(x, _mm512_set1_ps(OVER_127));
}

INLINE v32 int8_both(__m256i q, v16 scale)
{
    return (v32){int8_lanes(_mm256_castsi256_si128(q), scale), int8_lanes(_mm256_extracti128_si256(q, 1), scale)};
}

INLINE v32 load32_int8_rows(weight_row w, uint64_t g)
{
    return int8_both(_mm256_loadu_si256((const void *)(w.data + g * 32)), scale_of(w, g));
}

INLINE v32 tail32_int8_rows(weight_row w, uint64_t g, uint32_t n)
{
    return int8_both(_mm256_maskz_loadu_epi8((1u << n) - 1, w.data + g * 32), scale_of(w, g));
}

/* ---- looking up, see lanes_grids.h --------------------------------------------------------------------------------- */

/* Sixteen numbers, repeated: a permutation looks at four bits of an index, of which the upper may be anything. */
typedef v16 levels, wide_levels;

INLINE levels levels_4(float a, float b, float c, float d)
{
    return _mm512_setr_ps(a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d);
}
INLINE levels levels_8(float a, float b, float c, float d, float e, float f, float g, float h)
{
    return _mm512_setr_ps(a, b, c, d, e, f, g, h, a, b, c, d, e, f, g, h);
}
#define levels_16(...) _mm512_setr_ps(__VA_ARGS__)

INLINE float half_float(uint16_t h)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}
INLINE v16 look_up(__m512i codes, v16 l, float scale)
{
    return _mm512_permutexvar_ps(codes, _mm512_mul_ps(_mm512_set1_ps(scale), l));
}
INLINE v16 codes_2(uint32_t codes, levels l, float scale)
{
    __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return look_up(_mm512_srlv_epi32(_mm512_set1_epi32((int)codes), at), l, scale);
}
INLINE v16 codes_4(uint64_t codes, levels l, float scale)
{
    __m512i at = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    __m512i low = _mm512_set1_epi32((int)(uint32_t)codes);
    return look_up(_mm512_srlv_epi32(_mm512_mask_set1_epi32(low, 0xff00, (int)(uint32_t)(codes >> 32)), at), l, scale);
}
INLINE v16 bytes_2(const uint8_t *q, uint32_t shift, levels l, float scale)
{
    __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)q));
    return look_up(_mm512_srl_epi32(x, _mm_cvtsi32_si128((int)shift)), l, scale);
}
INLINE v32 nibbles_of(const uint8_t *q, wide_levels l, float scale)
{
    return nibbles(q, _mm512_mul_ps(_mm512_set1_ps(scale), l));
}
/* The third of 256 in which 3^n q lies, by its place among 65536. */
INLINE v16 trits(const uint8_t *q, uint32_t power, float scale)
{
    __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)q));
    x = _mm256_mulhi_epu16(_mm256_mullo_epi16(x, _mm256_set1_epi16((short)(power << 8))), _mm256_set1_epi16(3));
    return look_up(_mm512_cvtepu16_epi32(x), levels_4(LEVELS_TQ), scale);
}
INLINE v16 v16_two(float a, float b)
{
    return _mm512_insertf32x8(_mm512_set1_ps(a), _mm256_set1_ps(b), 1);
}
INLINE v16 v16_flip(v16 x, uint32_t signs)
{
    return _mm512_mask_xor_ps(x, (__mmask16)signs, x, _mm512_set1_ps(-0.0f));
}
INLINE v32 v32_cross(v32 x)
{
    return (v32){_mm512_shuffle_f32x4(x.lo, x.hi, 0x44), _mm512_shuffle_f32x4(x.lo, x.hi, 0xee)};
}

#define LEVEL(name)       name##_avx512
#define LEVEL_NAME        "avx512"
#define PANEL             4
#define TILE              6
#define FUSED             4
#define FUSED_ROWS(n)     4
#define AXPY_TOKENS       6
#define AXPY_CHUNKS       4
#define SCORE_ROWS        4
#define SCORE_CHUNKS      4
#define VALUE_ROWS        4
#define VALUE_CHUNKS      4
#define VEC_CONSTRAINT(r) "+v"(r)
#define PREFETCH_BYTES    512
#define FMA_CHAINS        16
#define PACKED_LEVEL      "packed_avx512.h"
#define SCALES_K          scales_in_register

#include "lanes.h"
