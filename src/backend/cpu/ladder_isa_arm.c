/* Which levels this AArch64 machine has: NEON, with fused multiply-add and f16 conversion, is part of all of them. */
#include "kernels.h"

void kernels_ladder(kernels *k, lamina_isa cap)
{
    if (cap == LAMINA_ISA_BEST || cap == LAMINA_ISA_NEON) kernels_neon(k);
}
