/* Owns the choice among the search's levels on x86-64. */
#include "base/cpu.h"
#include "store/quantize_fit.h"

const fit_ops *fit_best(void)
{
    return cpu_has_avx512() ? &fit_avx512 : cpu_has_avx2() ? &fit_avx2 : &fit_baseline;
}
