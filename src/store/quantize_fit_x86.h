/* What the search for scales needs in vectors of eight lanes, for each level of x86-64 that has them. */
#ifndef LAMINA_STORE_QUANTIZE_FIT_X86_H
#define LAMINA_STORE_QUANTIZE_FIT_X86_H

#include <immintrin.h>

#include "store/quantize_fit.h"

#define VEC             8
#define MOST(a, b)      ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define LEAST(a, b)     ((vec)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define CHOOSE(m, a, b) ((vec)_mm256_blendv_ps((__m256)(b), (__m256)(a), (__m256)(m)))
/* Eight elements of eight blocks. */
static inline void turn(const float *x, uint32_t stride, float to[8][LANES])
{
    __m256 r[8], s[8];
    for (uint32_t b = 0; b < 8; b++) r[b] = _mm256_loadu_ps(x + b * stride);
    for (int b = 0; b < 8; b += 2) {
        s[b] = _mm256_unpacklo_ps(r[b], r[b + 1]);
        s[b + 1] = _mm256_unpackhi_ps(r[b], r[b + 1]);
    }
    for (int h = 0; h < 8; h += 4) {
        r[h] = _mm256_shuffle_ps(s[h], s[h + 2], 0x44);
        r[h + 1] = _mm256_shuffle_ps(s[h], s[h + 2], 0xee);
        r[h + 2] = _mm256_shuffle_ps(s[h + 1], s[h + 3], 0x44);
        r[h + 3] = _mm256_shuffle_ps(s[h + 1], s[h + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to[i], _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to[i + 4], _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

static void beside(const float *x, uint32_t blocks, uint32_t n, float to[BLOCK_MAX][LANES])
{
    if (blocks == LANES) {
        for (uint32_t i = 0; i < n; i += 8) turn(x + i, n, to + i);
        return;
    }
    for (uint32_t b = 0; b < blocks; b++)
        for (uint32_t i = 0; i < n; i++) to[i][b] = x[b * n + i];
}

static inline void through_f16(float x[LANES])
{
    __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_ps(x, _mm256_cvtph_ps(h));
}

#endif
