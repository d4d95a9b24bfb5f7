/* Owns the question whether this x86-64 machine packs blocks fast. */
#include "base/cpu.h"
#include "store/packed_fast.h"

const packed_fast *packed_fast_best(void)
{
    return cpu_has_avx2() ? &packed_avx2 : NULL;
}
