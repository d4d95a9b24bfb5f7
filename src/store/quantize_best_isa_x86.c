/* Owns the choice among the search's levels on x86-64. */
#include "store/quantize_fit.h"

const fit_ops *fit_best(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &fit_avx2 : &fit_baseline;
}
