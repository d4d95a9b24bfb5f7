/* Owns the choice among the search's levels on x86-64. */
#include <stdatomic.h>

#include "base/cpu.h"
#include "store/quantize_fit.h"

const fit_ops *fit_best(void)
{
    static _Atomic(const fit_ops *) best; /* asking takes microseconds where the processor is a virtual one */
    const fit_ops *f = atomic_load_explicit(&best, memory_order_relaxed);
    if (f) return f;
    f = cpu_has_avx512() ? &fit_avx512 : cpu_has_avx2() ? &fit_avx2 : &fit_baseline;
    atomic_store_explicit(&best, f, memory_order_relaxed);
    return f;
}
