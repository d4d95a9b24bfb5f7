/* Owns the question whether this x86-64 machine packs blocks fast. */
#include <stdatomic.h>

#include "base/cpu.h"
#include "store/packed_fast.h"

const packed_fast *packed_fast_best(void)
{
    static atomic_int has; /* 0: not asked yet; asking takes microseconds where the processor is a virtual one */
    int now = atomic_load_explicit(&has, memory_order_relaxed);
    if (!now) {
        now = cpu_has_avx2() ? 1 : -1;
        atomic_store_explicit(&has, now, memory_order_relaxed);
    }
    return now > 0 ? &packed_avx2 : NULL;
}
