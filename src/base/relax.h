/* A hint to the core that this is a spin-wait: the sister thread gets its share, and power is saved. */
#ifndef LAMINA_BASE_RELAX_H
#define LAMINA_BASE_RELAX_H

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* "yield" is a no-op on most cores; isb waits about as long as x86's pause */
#else
    __asm__ volatile("" ::: "memory");
#endif
}

#endif
