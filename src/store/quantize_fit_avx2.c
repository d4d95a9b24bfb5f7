/* Owns the search for scales in vectors of eight lanes. Compiled for AVX2; fit_best() asks whether the machine has it.
 */
#include "store/quantize_fit_x86.h"
/* with that: */
#include "store/quantize_fit_lanes.h"

const fit_ops fit_avx2 = FIT_OPS;
