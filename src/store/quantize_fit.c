/* Owns the search for scales as any machine can run it: vectors of four lanes, which every architecture has or is given
 * by the compiler; and the levels of NF4. */
#include "store/quantize_fit.h"

#include "base/dtype.h"

const float nf4_levels[16] = {LEVELS_NF4};

#define VEC             4
#define CHOOSE(m, a, b) ((vec)(((m) & (mask)(a)) | (~(m) & (mask)(b))))
#define MOST(a, b)      CHOOSE((a) > (b), a, b)
#define LEAST(a, b)     CHOOSE((a) < (b), a, b)
#include "store/quantize_fit_lanes.h"

const fit_ops fit_baseline = FIT_OPS;
