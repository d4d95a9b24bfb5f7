/* Owns the search for scales in vectors of eight lanes. Compiled for AVX2; fit_best() asks whether the machine has it.
 */
#include <immintrin.h>

#include "store/quantize_fit.h"

#define VEC             8
#define MOST(a, b)      ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define LEAST(a, b)     ((vec)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define CHOOSE(m, a, b) ((vec)_mm256_blendv_ps((__m256)(b), (__m256)(a), (__m256)(m)))
#include "store/quantize_fit_lanes.h"

const fit_ops fit_avx2 = FIT_OPS;
