/* Which levels this x86-64 machine has. Compiled for the baseline, so that asking is safe everywhere. */
#include "kernels.h"

#include "base/cpu.h"

void kernels_ladder(kernels *k, lamina_isa cap)
{
    bool best = cap == LAMINA_ISA_BEST;
    if (cpu_has_avx2() && (best || cap == LAMINA_ISA_AVX2 || cap == LAMINA_ISA_AVX512)) kernels_avx2(k);
    if (!cpu_has_avx512() || !(best || cap == LAMINA_ISA_AVX512)) return;
    kernels below = *k;
    kernels_avx512(k);
    if (__builtin_cpu_supports("avx512vbmi2"))
        return; /* what `packed` is read with there; the first generations lack it */
    for (int t = DT_BF16_PACKED3; t <= DT_F16_PACKED3; t++) k->weight[t] = below.weight[t];
}
