/* AVX2 with FMA and F16C: sixteen lanes are two registers. Compiled with these instructions; reached only where the
 * ladder has found them. Tails go through a copy on the stack: nothing outside of a row is touched. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "grids.h"
#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

typedef struct v16 {
    __m256 a, b;
} v16;
typedef struct v32 {
    v16 lo, hi;
} v32;

#define EACH(f, x)        ((v16){f((x).a), f((x).b)})
#define EACH2(f, x, y)    ((v16){f((x).a, (y).a), f((x).b, (y).b)})
#define EACH3(f, x, y, z) ((v16){f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b)})

INLINE v16 v16_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
INLINE v16 v16_set1(float f)
{
    return (v16){_mm256_set1_ps(f), _mm256_set1_ps(f)};
}
INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
INLINE void v16_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
INLINE v16 v16_load_n(const float *p, uint32_t n)
{
    float copy[LANES] = {0};
    memcpy(copy, p, n * sizeof *p);
    return v16_load(copy);
}
INLINE void v16_store_n(float *p, v16 v, uint32_t n)
{
    float copy[LANES];
    v16_store(copy, v);
    memcpy(p, copy, n * sizeof *p);
}
INLINE __m128i half_register(const void *p)
{
    return _mm_loadu_si128(p);
}
INLINE v16 v16_load_half(const void *p)
{
    return (v16){_mm256_cvtph_ps(half_register(p)), _mm256_cvtph_ps(half_register((const uint8_t *)p + 16))};
}
INLINE v16 v16_load_half_n(const void *p, uint32_t n)
{
    uint16_t copy[LANES] = {0};
    memcpy(copy, p, n * sizeof *copy);
    return v16_load_half(copy);
}
INLINE void v16_store_half(uint16_t *p, v16 v)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return EACH3(_mm256_fmadd_ps, x, y, z);
}
INLINE v16 v16_add(v16 x, v16 y)
{
    return EACH2(_mm256_add_ps, x, y);
}
INLINE v16 v16_sub(v16 x, v16 y)
{
    return EACH2(_mm256_sub_ps, x, y);
}
INLINE v16 v16_mul(v16 x, v16 y)
{
    return EACH2(_mm256_mul_ps, x, y);
}
INLINE v16 v16_div(v16 x, v16 y)
{
    return EACH2(_mm256_div_ps, x, y);
}
INLINE v16 v16_neg(v16 x)
{
    return EACH2(_mm256_xor_ps, x, v16_set1(-0.0f));
}
INLINE v16 v16_max(v16 x, v16 y)
{
    return EACH2(_mm256_max_ps, x, y);
} /* x > y ? x : y */
INLINE v16 v16_min(v16 x, v16 y)
{
    return EACH2(_mm256_min_ps, x, y);
} /* x < y ? x : y */

INLINE v16 v16_abs(v16 x)
{
    v16 sign = v16_set1(-0.0f);
    return EACH2(_mm256_andnot_ps, sign, x);
}
INLINE v16 v16_copysign(v16 size, v16 sign)
{
    v16 bit = v16_set1(-0.0f), s = EACH2(_mm256_and_ps, sign, bit);
    return EACH2(_mm256_or_ps, size, s);
} /* size is not negative */
INLINE v16 v16_less(v16 x, v16 y, v16 yes, v16 no)
{
    return (v16){_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
                 _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
} /* x < y ? yes : no */

INLINE float v16_largest(v16 v)
{
    __m256 m8 = _mm256_max_ps(v.a, v.b);
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

INLINE float v16_sum(v16 v)
{
    __m256 s8 = _mm256_add_ps(v.a, v.b);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* The trees of the two rows of a register block. */
INLINE void v16_sums(const v16 *v, float *out)
{
    out[0] = v16_sum(v[0]);
    out[1] = v16_sum(v[1]);
}

/* p * 2^n, n in the low bits of t = n + EXP_MAGIC, in two factors as spec_expf does. */
INLINE __m256 times_2n(__m256 p, __m256 t)
{
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_castps_si256(_mm256_set1_ps(EXP_MAGIC)));
    __m256i half = _mm256_srai_epi32(n, 1), rest = _mm256_sub_epi32(n, half), bias = _mm256_set1_epi32(127);
    __m256 x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(p, x), y);
}
INLINE v16 v16_times_2n(v16 p, v16 t)
{
    return EACH2(times_2n, p, t);
}

/* Even and odd elements of two registers; within 128-bit halves first, then the middle quarters change places. */
INLINE __m256 middle(__m256 x)
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}
INLINE __m256 even(__m256 x, __m256 y)
{
    return middle(_mm256_shuffle_ps(x, y, 0x88));
}
INLINE __m256 odd(__m256 x, __m256 y)
{
    return middle(_mm256_shuffle_ps(x, y, 0xdd));
}

INLINE v32 v32_unzip(v32 p)
{
    return (v32){{even(p.lo.a, p.lo.b), even(p.hi.a, p.hi.b)}, {odd(p.lo.a, p.lo.b), odd(p.hi.a, p.hi.b)}};
}

INLINE v16 zip(__m256 x, __m256 y)
{
    __m256 lo = _mm256_unpacklo_ps(x, y), hi = _mm256_unpackhi_ps(x, y);
    return (v16){_mm256_permute2f128_ps(lo, hi, 0x20), _mm256_permute2f128_ps(lo, hi, 0x31)};
}

INLINE v32 v32_zip(v32 p)
{
    return (v32){zip(p.lo.a, p.hi.a), zip(p.lo.b, p.hi.b)};
}

typedef __m256 vec;
enum { VECS = 2, VEC_LANES = 8 };
INLINE vec vec_zero(void)
{
    return _mm256_setzero_ps();
}
INLINE vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}
INLINE vec vec_fma(vec x, vec y, vec z)
{
    return _mm256_fmadd_ps(x, y, z);
}
INLINE v16 v16_of(const vec *v)
{
    return (v16){v[0], v[1]};
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

INLINE __m256 floats(const uint8_t *p)
{
    return _mm256_loadu_ps((const void *)p);
}

INLINE v32 load32_f32(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 128;
    return (v32){{floats(p), floats(p + 32)}, {floats(p + 64), floats(p + 96)}};
}

INLINE v32 tail32_f32(weight_row w, uint64_t g, uint32_t n)
{
    uint8_t copy[128] = {0};
    memcpy(copy, w.data + g * 128, n * 4);
    return load32_f32((weight_row){.data = copy}, 0);
}

INLINE v32 load32_f16(weight_row w, uint64_t g)
{
    return (v32){v16_load_half(w.data + g * 64), v16_load_half(w.data + g * 64 + 32)};
}

INLINE v32 tail32_f16(weight_row w, uint64_t g, uint32_t n)
{
    uint8_t copy[64] = {0};
    memcpy(copy, w.data + g * 64, n * 2);
    return load32_f16((weight_row){.data = copy}, 0);
}

INLINE __m256 widen_bf16_lanes(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half_register(p)), 16));
}

INLINE v32 load32_bf16(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 64;
    return (v32){{widen_bf16_lanes(p), widen_bf16_lanes(p + 16)}, {widen_bf16_lanes(p + 32), widen_bf16_lanes(p + 48)}};
}

INLINE v32 tail32_bf16(weight_row w, uint64_t g, uint32_t n)
{
    uint8_t copy[64] = {0};
    memcpy(copy, w.data + g * 64, n * 2);
    return load32_bf16((weight_row){.data = copy}, 0);
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
    __asm__("vcvtph2ps %1, %0" : "=x"(x) : "m"(*(const uint8_t(*)[8])p));
    return x;
}
INLINE float half_first(const uint8_t *p)
{
    return _mm_cvtss_f32(four_halves(p));
}

INLINE __m256 signed_bytes(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
INLINE v16 v16_bytes(const uint8_t *p)
{
    return (v16){signed_bytes(p), signed_bytes(p + 8)};
}
INLINE v16 v16_of_bytes(uint64_t lo, uint64_t hi)
{
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128((int64_t)lo))),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128((int64_t)hi)))};
}
INLINE v16 v16_halves(float lo, float hi)
{
    return (v16){_mm256_set1_ps(lo), _mm256_set1_ps(hi)};
}

INLINE __m256i wide_bytes(const uint8_t *q)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)q));
}
INLINE __m256 low_nibbles(__m256i x)
{
    return _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(15)));
}
INLINE __m256 high_nibbles(__m256i x)
{
    return _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 4));
}

/* The low nibbles of 16 bytes, then the high ones. */
INLINE v32 nibbles(const uint8_t *q)
{
    __m256i a = wide_bytes(q), b = wide_bytes(q + 8);
    return (v32){{low_nibbles(a), low_nibbles(b)}, {high_nibbles(a), high_nibbles(b)}};
}

INLINE v32 centred_nibbles(const uint8_t *q, v16 scale)
{
    v16 eight = v16_set1(8.0f);
    v32 x = nibbles(q);
    return (v32){v16_mul(scale, v16_sub(x.lo, eight)), v16_mul(scale, v16_sub(x.hi, eight))};
}

INLINE v32 scaled_nibbles(const uint8_t *q, v16 scale, v16 least)
{
    v32 x = nibbles(q);
    return (v32){v16_fma(scale, x.lo, least), v16_fma(scale, x.hi, least)};
}

INLINE v32 nibbles_k(const uint8_t *q, bool high, v16 scale, v16 least)
{
    __m256i a = wide_bytes(q), b = wide_bytes(q + 8), c = wide_bytes(q + 16), d = wide_bytes(q + 24);
    v32 x = {{low_nibbles(a), low_nibbles(b)}, {low_nibbles(c), low_nibbles(d)}};
    if (high) x = (v32){{high_nibbles(a), high_nibbles(b)}, {high_nibbles(c), high_nibbles(d)}};
    return (v32){v16_fma(scale, x.lo, least), v16_fma(scale, x.hi, least)};
}

INLINE void five_bits(const uint8_t *q, uint32_t h, uint8_t bits, uint8_t *out)
{
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    __m128i x = _mm_loadu_si128((const void *)q);
    __m256i y = _mm256_inserti128_si256(_mm256_castsi128_si256(x), _mm_srli_epi16(x, 4), 1);
    __m256i set = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)h), spread), bit);
    set = _mm256_and_si256(_mm256_cmpeq_epi8(set, bit), _mm256_set1_epi8((char)bits));
    _mm256_storeu_si256((void *)out, _mm256_or_si256(_mm256_and_si256(y, _mm256_set1_epi8(15)), set));
}

typedef struct b64 {
    __m256i a, b;
} b64;
INLINE __m256i bytes32(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}
INLINE b64 b64_load(const uint8_t *p)
{
    return (b64){bytes32(p), bytes32(p + 32)};
}
INLINE b64 b64_twice(const uint8_t *p)
{
    return (b64){bytes32(p), bytes32(p)};
}
INLINE void b64_store(uint8_t *p, b64 x)
{
    _mm256_storeu_si256((void *)p, x.a);
    _mm256_storeu_si256((void *)(p + 32), x.b);
}
INLINE b64 b64_set1(uint8_t x)
{
    return (b64){_mm256_set1_epi8((char)x), _mm256_set1_epi8((char)x)};
}
INLINE b64 b64_and(b64 x, b64 y)
{
    return (b64){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
INLINE b64 b64_or(b64 x, b64 y)
{
    return (b64){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
INLINE b64 b64_sub(b64 x, b64 y)
{
    return (b64){_mm256_sub_epi8(x.a, y.a), _mm256_sub_epi8(x.b, y.b)};
}
INLINE b64 b64_left(b64 x, int lo, int hi)
{
    return (b64){_mm256_slli_epi16(x.a, lo), _mm256_slli_epi16(x.b, hi)};
}
INLINE b64 b64_right(b64 x, int lo, int hi)
{
    return (b64){_mm256_srli_epi16(x.a, lo), _mm256_srli_epi16(x.b, hi)};
}

/* e4m3 as f16 bits, of 2^-8 times the number: its bits are moved up beside the sign. A carry out of seven ones, which
 * are NaN, fills the exponent. */
INLINE __m256i f16_of_e4m3(const uint8_t *p)
{
    __m256i x = _mm256_cvtepi8_epi16(half_register(p)), carry = _mm256_add_epi16(x, _mm256_set1_epi16(1));
    return _mm256_slli_epi16(_mm256_xor_si256(x, _mm256_and_si256(carry, _mm256_set1_epi16(0x80))), 7);
}

INLINE v16 scaled_halves(__m256i h, __m256 scale)
{
    return (v16){_mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(h)), scale),
                 _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)), scale)};
}

INLINE __m256i upper_bytes(const uint8_t *p)
{
    return _mm256_slli_epi16(_mm256_cvtepu8_epi16(half_register(p)), 8);
}

INLINE __m256 scale_of(weight_row w, uint64_t g)
{
    return _mm256_set1_ps(((const float *)w.side)[g >> w.shift]);
}

INLINE v32 load32_f8_e4m3(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 32;
    __m256 scale = _mm256_mul_ps(scale_of(w, g), _mm256_set1_ps(256.0f));
    return (v32){scaled_halves(f16_of_e4m3(p), scale), scaled_halves(f16_of_e4m3(p + 16), scale)};
}

INLINE v32 load32_f8_e5m2(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 32;
    __m256 scale = scale_of(w, g);
    return (v32){scaled_halves(upper_bytes(p), scale), scaled_halves(upper_bytes(p + 16), scale)};
}

INLINE __m256 int8_lanes(const uint8_t *p, __m256 scale)
{
    return _mm256_mul_ps(_mm256_mul_ps(signed_bytes(p), scale), _mm256_set1_ps(OVER_127));
}

INLINE v32 load32_int8_rows(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 32;
    __m256 s = scale_of(w, g);
    return (v32){{int8_lanes(p, s), int8_lanes(p + 8, s)}, {int8_lanes(p + 16, s), int8_lanes(p + 24, s)}};
}

/* A copy of the last bytes, with the scale they have. */
#define TAIL_BYTES(type)                                                                                               \
    INLINE v32 tail32_##type(weight_row w, uint64_t g, uint32_t n)                                                     \
    {                                                                                                                  \
        uint8_t copy[32] = {0};                                                                                        \
        memcpy(copy, w.data + g * 32, n);                                                                              \
        return load32_##type((weight_row){.data = copy, .side = (const float *)w.side + (g >> w.shift), .shift = 63},  \
                             0);                                                                                       \
    }
TAIL_BYTES(f8_e4m3)
TAIL_BYTES(f8_e5m2)
TAIL_BYTES(int8_rows)

/* Twice the fp4 numbers of 16 codes. */
INLINE __m128i fp4(__m128i code)
{
    __m128i twice = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    return _mm_shuffle_epi8(twice, _mm_and_si128(code, _mm_set1_epi8(15)));
}

INLINE v16 scaled_bytes(__m128i q, __m256 scale)
{
    __m256 a = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
    __m256 b = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(q, q)));
    return (v16){_mm256_mul_ps(scale, a), _mm256_mul_ps(scale, b)};
}

INLINE v32 load32_mxfp4(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 17;
    __m128i q = half_register(p + 1);
    __m256 scale = _mm256_set1_ps(half_e8m0(p[0]));
    return (v32){scaled_bytes(fp4(q), scale), scaled_bytes(fp4(_mm_srli_epi16(q, 4)), scale)};
}

INLINE v32 load32_mxfp4_pairs(weight_row w, uint64_t g)
{
    __m128i q = half_register(w.data + g * 16), low = fp4(q), high = fp4(_mm_srli_epi16(q, 4));
    __m256 scale = _mm256_set1_ps(half_e8m0(((const uint8_t *)w.side)[g]));
    return (v32){scaled_bytes(_mm_unpacklo_epi8(low, high), scale), scaled_bytes(_mm_unpackhi_epi8(low, high), scale)};
}

/* Sixteen levels in two registers: a permutation looks at three bits of a code, the fourth chooses between the two. */
typedef struct level_pair {
    __m256 low, high;
} level_pair;

INLINE __m256 level_of(__m128i codes, level_pair l)
{
    __m256i i = _mm256_cvtepu8_epi32(codes);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(l.low, i), _mm256_permutevar8x32_ps(l.high, i),
                            _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}

/* Scaled numbers of sixteen bytes of two codes, the first in the upper half. */
INLINE v32 pairs_of(const uint8_t *q, const float levels[16], __m256 scale)
{
    __m128i x = half_register(q), low = _mm_set1_epi8(15), a = _mm_and_si128(_mm_srli_epi16(x, 4), low);
    __m128i b = _mm_and_si128(x, low), lo = _mm_unpacklo_epi8(a, b), hi = _mm_unpackhi_epi8(a, b);
    level_pair l = {_mm256_mul_ps(_mm256_loadu_ps(levels), scale), _mm256_mul_ps(_mm256_loadu_ps(levels + 8), scale)};
    return (v32){{level_of(lo, l), level_of(_mm_unpackhi_epi64(lo, lo), l)},
                 {level_of(hi, l), level_of(_mm_unpackhi_epi64(hi, hi), l)}};
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

/* ---- looking up, see lanes_grids.h --------------------------------------------------------------------------------- */

/* Eight numbers, repeated: a permutation looks at three bits of an index, of which the upper may be anything. */
typedef __m256 levels;
typedef __m128i wide_levels;

INLINE levels levels_4(float a, float b, float c, float d)
{
    return _mm256_setr_ps(a, b, c, d, a, b, c, d);
}
#define levels_8(...)  _mm256_setr_ps(__VA_ARGS__)
#define levels_16(...) _mm_setr_epi8(__VA_ARGS__)

INLINE float half_float(uint16_t h)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}
INLINE v16 look_up(__m256i a, __m256i b, levels l, float scale)
{
    l = _mm256_mul_ps(_mm256_set1_ps(scale), l);
    return (v16){_mm256_permutevar8x32_ps(l, a), _mm256_permutevar8x32_ps(l, b)};
}
INLINE v16 codes_2(uint32_t codes, levels l, float scale)
{
    __m256i x = _mm256_set1_epi32((int)codes);
    return look_up(_mm256_srlv_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14)),
                   _mm256_srlv_epi32(x, _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30)), l, scale);
}
INLINE v16 codes_4(uint64_t codes, levels l, float scale)
{
    __m256i at = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    return look_up(_mm256_srlv_epi32(_mm256_set1_epi32((int)(uint32_t)codes), at),
                   _mm256_srlv_epi32(_mm256_set1_epi32((int)(uint32_t)(codes >> 32)), at), l, scale);
}
INLINE v16 bytes_2(const uint8_t *q, uint32_t shift, levels l, float scale)
{
    __m128i x = half_register(q), by = _mm_cvtsi32_si128((int)shift);
    return look_up(_mm256_srl_epi32(_mm256_cvtepu8_epi32(x), by),
                   _mm256_srl_epi32(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(x, x)), by), l, scale);
}
INLINE v32 nibbles_of(const uint8_t *q, wide_levels l, float scale)
{
    __m128i x = half_register(q), low = _mm_set1_epi8(15);
    __m256 d = _mm256_set1_ps(scale);
    return (v32){scaled_bytes(_mm_shuffle_epi8(l, _mm_and_si128(x, low)), d),
                 scaled_bytes(_mm_shuffle_epi8(l, _mm_and_si128(_mm_srli_epi16(x, 4), low)), d)};
}
/* The third of 256 in which 3^n q lies, by its place among 65536. */
INLINE v16 trits(const uint8_t *q, uint32_t power, float scale)
{
    __m256i x = _mm256_cvtepu8_epi16(half_register(q));
    x = _mm256_mulhi_epu16(_mm256_mullo_epi16(x, _mm256_set1_epi16((short)(power << 8))), _mm256_set1_epi16(3));
    return look_up(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x)),
                   _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x, 1)), levels_4(LEVELS_TQ), scale);
}
INLINE v16 v16_two(float a, float b)
{
    return (v16){_mm256_set1_ps(a), _mm256_set1_ps(b)};
}
INLINE v16 v16_flip(v16 x, uint32_t signs)
{
    __m256i s = _mm256_set1_epi32((int)signs), sign = _mm256_set1_epi32(INT32_MIN);
    __m256i a = _mm256_sllv_epi32(s, _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24));
    __m256i b = _mm256_sllv_epi32(s, _mm256_setr_epi32(23, 22, 21, 20, 19, 18, 17, 16));
    v16 bits = {_mm256_castsi256_ps(_mm256_and_si256(a, sign)), _mm256_castsi256_ps(_mm256_and_si256(b, sign))};
    return EACH2(_mm256_xor_ps, x, bits);
}
INLINE v32 v32_cross(v32 x)
{
    return (v32){{x.lo.a, x.hi.a}, {x.lo.b, x.hi.b}};
}

#define LEVEL(name)       name##_avx2
#define LEVEL_NAME        "avx2"
#define PANEL             2
#define TILE              3
#define FUSED             3
#define FUSED_ROWS(n)     ((n) == 1 ? 4 : 2)
#define AXPY_TOKENS       3
#define AXPY_CHUNKS       2
#define SCORE_ROWS        2
#define SCORE_CHUNKS      2
#define VALUE_ROWS        2
#define VALUE_CHUNKS      2
#define VEC_CONSTRAINT(r) "+x"(r)
#define PREFETCH_BYTES    512
#define FMA_CHAINS        6
#define PACKED_LEVEL      "packed_avx2.h"
#define SCALES_K          scales_by_words

#include "lanes.h"
