/* Owns the questions to an x86-64 processor. Compiled for the baseline, so that asking is safe everywhere. */
#include "base/cpu.h"

#include <cpuid.h>
#include <stdatomic.h>

typedef enum level { NOT_ASKED, NO, AVX2, AVX512 } level;

static level ask(void)
{
    unsigned a, b, c = 0, d;
    __builtin_cpu_init();
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C); /* not every compiler's word for it */
    if (!f16c || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return NO;
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return wide ? AVX512 : AVX2;
}

static level known(void)
{
    static atomic_int now;
    int known = atomic_load_explicit(&now, memory_order_relaxed);
    if (known == NOT_ASKED) {
        known = (int)ask();
        atomic_store_explicit(&now, known, memory_order_relaxed);
    }
    return (level)known;
}

bool cpu_has_avx2(void)
{
    return known() >= AVX2;
}

bool cpu_has_avx512(void)
{
    return known() >= AVX512;
}
