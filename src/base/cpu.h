/* What this processor has, where that is known only when the program runs. Asked once, because asking takes microseconds
 * where the processor is a virtual one; any thread. */
#ifndef LAMINA_BASE_CPU_H
#define LAMINA_BASE_CPU_H

#include <stdbool.h>

#if defined(__x86_64__)
/* AVX2, multiply-add and the conversion of f16; the operating system keeps their registers. */
bool cpu_has_avx2(void);
/* With those the part of AVX-512 that its machines have had since the first servers: F, BW, DQ, VL. */
bool cpu_has_avx512(void);
#endif

#endif
