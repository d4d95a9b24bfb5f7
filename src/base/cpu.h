/* What this processor has, where that is known only when the program runs. */
#ifndef LAMINA_BASE_CPU_H
#define LAMINA_BASE_CPU_H

#include <stdbool.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* AVX2, multiply-add and the conversion of f16; the operating system keeps their registers. */
static inline bool cpu_has_avx2(void)
{
    unsigned a, b, c = 0, d;
    __builtin_cpu_init();
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C); /* not every compiler's word for it */
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* The part of AVX-512 that its machines have had since the first servers: F, BW, DQ, VL. */
static inline bool cpu_has_avx512(void)
{
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#endif
