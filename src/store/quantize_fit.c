/* Owns the search for scales as any machine can run it: vectors of four lanes, which every architecture has or is given
 * by the compiler; and the levels of NF4. */
#include "store/quantize_fit.h"

#include "base/dtype.h"

const float nf4_levels[16] = {LEVELS_NF4};

#define VEC             4
#define CHOOSE(m, a, b) ((vec)(((m) & (mask)(a)) | (~(m) & (mask)(b))))
#define MOST(a, b)      CHOOSE((a) > (b), a, b)
#define LEAST(a, b)     CHOOSE((a) < (b), a, b)
static void beside(const float *x, uint32_t blocks, uint32_t n, float to[BLOCK_MAX][LANES])
{
    for (uint32_t b = 0; b < blocks; b++)
        for (uint32_t i = 0; i < n; i++) to[i][b] = x[b * n + i];
}

static void through_f16(float x[LANES])
{
    for (int l = 0; l < LANES; l++) x[l] = f16_to_f32(f16_from_f32(x[l]));
}

#include "store/quantize_fit_lanes.h"

const fit_ops fit_baseline = FIT_OPS;
