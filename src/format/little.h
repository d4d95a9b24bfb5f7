/* Little-endian numbers in foreign bytes, at any alignment. */
#ifndef LAMINA_FORMAT_LITTLE_H
#define LAMINA_FORMAT_LITTLE_H

#include <stdint.h>

/* The number of `width` (at most 8) bytes at p. */
static inline uint64_t little_number(const void *p, unsigned width)
{
    const unsigned char *b = p;
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) v |= (uint64_t)b[i] << (8 * i);
    return v;
}

#endif
