/* Owns the search for scales where registers hold sixteen lanes: two grids at once on the same eight blocks. Compiled for
 * AVX-512; fit_best() asks whether the machine has it. */
#include "store/quantize_fit_x86.h"

#define WIDE             16
#define WIDE_MOST(a, b)  ((wide)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define WIDE_LEAST(a, b) ((wide)_mm512_min_ps((__m512)(a), (__m512)(b)))
typedef float wide __attribute__((vector_size(4 * WIDE)));

static inline wide take(const float *a, const float *b)
{
    return (wide)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(a)), _mm256_loadu_ps(b), 1);
}

static inline wide twice(const float *a)
{
    return (wide)_mm512_broadcast_f32x8(_mm256_loadu_ps(a));
}

/* a may be b: then both halves are the same. */
static inline void give(wide v, float *a, float *b)
{
    _mm256_storeu_ps(a, _mm512_castps512_ps256((__m512)v));
    _mm256_storeu_ps(b, _mm512_extractf32x8_ps((__m512)v, 1));
}

/* Of the levels in order: is it the upper half, then which quarter, and so on. */
static inline wide nearest_of_nf4(wide x)
{
    const __m512 sixteen = _mm512_loadu_ps(nf4_levels);
    const __m512 below = _mm512_maskz_permutexvar_ps(
        0xfffe, _mm512_set_epi32(14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0), sixteen);
    const __m512 between = _mm512_mul_ps(_mm512_set1_ps(0.5f), _mm512_add_ps(below, sixteen));
    __m512i k = _mm512_setzero_si512();
    for (int half = 8; half; half /= 2) {
        __m512i upper = _mm512_add_epi32(k, _mm512_set1_epi32(half));
        __mmask16 is = _mm512_cmp_ps_mask((__m512)x, _mm512_permutexvar_ps(upper, between), _CMP_GT_OQ);
        k = _mm512_mask_mov_epi32(k, is, upper);
    }
    return (wide)_mm512_permutexvar_ps(k, sixteen);
}

#include "store/quantize_fit_lanes.h"

const fit_ops fit_avx512 = FIT_OPS;
